"""Turn a released checkpoint into a model folder. Nothing of the checkpoint runs."""

from __future__ import annotations

import argparse
import sys

KINDS = ("videoclip", "tempclr", "s3d")
DTYPES = ("float32", "float16", "bfloat16")
TOWERS_ONLY = ("num_attention_heads", "tokenizer", "max_num_features", "special_token_ids", "mask_cls", "stand_in")
S3D_ONLY = ("vocabulary",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``tempclr convert``."""
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


def run(arguments: argparse.Namespace) -> int:
    """Convert, then say what was mapped, dropped and written."""
    from tempclr.errors import InputError

    foreign = TOWERS_ONLY if arguments.kind == "s3d" else S3D_ONLY
    for name in foreign:
        if getattr(arguments, name) is not None:
            raise InputError(f"--{name} is not an option of 'tempclr convert {arguments.kind}'")
    if arguments.kind == "s3d":
        _convert_s3d(arguments)
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
