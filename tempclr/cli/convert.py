"""Turn a released checkpoint into a model folder. Nothing of the checkpoint runs."""

from __future__ import annotations

import argparse
import sys

KINDS = ("videoclip", "tempclr", "s3d", "tclr")
DTYPES = ("float32", "float16", "bfloat16")
TOWERS_ONLY = ("num_attention_heads", "tokenizer", "max_num_features", "special_token_ids", "mask_cls", "stand_in")
# The options that not every kind of checkpoint has.
OPTIONS = {
    "videoclip": TOWERS_ONLY,
    "tempclr": TOWERS_ONLY,
    "s3d": ("vocabulary",),
    "tclr": ("source", "conv5", "keep_channel_order", "stand_in"),
}


class _List(argparse.Action):
    """Prints the known checkpoints and ends, as ``--help`` does: no other word is needed."""

    def __call__(self, parser: argparse.ArgumentParser, *others: object) -> None:
        from tempclr_hub.checkpoints import describe_known

        print("\n".join(describe_known()))
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``tempclr convert``."""
    parser.add_argument("--list", action=_List, nargs=0, help="print the released checkpoints that are known, and end")
    parser.add_argument("kind", choices=KINDS, help="what the checkpoint is of")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the released file, as torch.save wrote it")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="new folder for configuration, weights and processor")
    parser.add_argument("--num_attention_heads", type=int, help="of both towers (default: hidden size / 64)")
    parser.add_argument(
        "--tokenizer", metavar="FOLDER|ID|vocab.txt", help="of the towers (default: write the model alone)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights (default float32)")
    parser.add_argument("--max_num_features", type=int, help="most features of a clip (default 32)")
    parser.add_argument(
        "--special_token_ids",
        type=int,
        nargs=2,
        metavar=("CLS", "SEP"),
        help="ids of [CLS] and [SEP] (default: the tokenizer's, else 101 and 102 of bert-base-uncased)",
    )
    parser.add_argument(
        "--mask_cls",
        action="store_true",
        default=None,
        help="hide [CLS] from the features, as the released localization does",
    )
    parser.add_argument(
        "--stand_in",
        nargs="+",
        metavar="MODULE.CLASS",
        help="further classes that the checkpoint may hold beside its weights, read as data: their code does not run",
    )
    parser.add_argument("--vocabulary", metavar="FILE", help="of s3d: s3d_dict.npy, or a text file of one word a line")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("tclr", "torchvision"),
        help="of tclr: whose weights they are (default: told from the file)",
    )
    parser.add_argument(
        "--conv5",
        choices=("tclr", "stock"),
        help="of tclr: the last stage with or without TCLR's change (default: told from the file, else with)",
    )
    parser.add_argument(
        "--keep_channel_order",
        action="store_true",
        default=None,
        help="of tclr: leave the first convolution as it is, for blue-green-red; the model then reverses the pixels",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, then say what was mapped, dropped and written."""
    from tempclr.errors import InputError

    for name in sorted({option for options in OPTIONS.values() for option in options}):
        if getattr(arguments, name) is not None and name not in OPTIONS[arguments.kind]:
            option = "from" if name == "source" else name
            raise InputError(f"--{option} is not an option of 'tempclr convert {arguments.kind}'")
    if arguments.kind == "s3d":
        _convert_s3d(arguments)
    elif arguments.kind == "tclr":
        _convert_tclr(arguments)
    else:
        _convert_towers(arguments)
    print(f"wrote {arguments.output_dir}")
    return 0


def _convert_towers(arguments: argparse.Namespace) -> None:
    from tempclr_hub.convert import convert_checkpoint

    conversion = convert_checkpoint(
        arguments.checkpoint,
        arguments.output_dir,
        kind=arguments.kind,
        num_attention_heads=arguments.num_attention_heads,
        tokenizer=arguments.tokenizer,
        dtype=arguments.dtype,
        special_token_ids=None if arguments.special_token_ids is None else tuple(arguments.special_token_ids),
        max_num_features=32 if arguments.max_num_features is None else arguments.max_num_features,
        attend_cls=not arguments.mask_cls,
        stand_ins=arguments.stand_in or (),
        show_progress_bar=sys.stderr.isatty(),
    )
    print(conversion.summary())


def _convert_s3d(arguments: argparse.Namespace) -> None:
    from tempclr_hub.convert_s3d import convert_s3d

    conversion = convert_s3d(
        arguments.checkpoint,
        arguments.output_dir,
        vocabulary=arguments.vocabulary,
        dtype=arguments.dtype,
        show_progress_bar=sys.stderr.isatty(),
    )
    print(conversion.summary())


def _convert_tclr(arguments: argparse.Namespace) -> None:
    from tempclr_hub.convert_tclr import convert_tclr

    conversion = convert_tclr(
        arguments.checkpoint,
        arguments.output_dir,
        source=arguments.source,
        conv5=arguments.conv5,
        fold_channel_order=not arguments.keep_channel_order,
        dtype=arguments.dtype,
        stand_ins=tuple(arguments.stand_in or ()),
        show_progress_bar=sys.stderr.isatty(),
    )
    print(conversion.summary())
