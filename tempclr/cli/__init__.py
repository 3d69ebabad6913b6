"""The command line: one file a command, imported only when that command runs.

A command's module has ``add_arguments(parser)`` and ``run(arguments)``; a module that wants the raw words, because
Hugging Face's argument parser reads them, has ``run_words(words)`` instead.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NoReturn

from tempclr.errors import InputError

COMMANDS = {
    "demo": "the main job, end to end, on videos it makes itself",
    "prepare": "official files of a corpus to dataset rows",
    "extract": "videos to one feature vector a second",
    "pretrain": "train TempCLR on paragraphs and videos, with --video_only on videos alone; --method tclr on pixels",
    "finetune": "train a model further: classification, few-shot, localization",
    "evaluate": "retrieval, clip-retrieval, moments, localization, matching, few-shot, classification, nn-retrieval",
    "align": "find each sentence in one video",
    "app": "a page in the browser to look at alignments",
    "publish": "send a model, a dataset or the kernels to the Hugging Face Hub",
    "convert": "a released checkpoint to a model folder",
    "bench": "kernels against peers on this machine",
}
# A word, or an option with its value, that hands a command over to another file, where the options are others.
VARIANTS = {
    ("extract", "--few_shot"): "extract_few_shot",
    ("pretrain", "--video_only"): "pretrain_video_only",
    ("pretrain", "--method=tclr"): "pretrain_tclr",
    ("evaluate", "few-shot"): "evaluate_few_shot",
    ("evaluate", "classification"): "evaluate_classification",
    ("evaluate", "nn-retrieval"): "evaluate_classification",
}


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for a mistake in the input (told in one line) or 130 when interrupted."""
    words = list(sys.argv[1:] if words is None else words)
    speaker = "tempclr"
    try:
        command = _chosen(words)
        speaker = f"tempclr {command}"
        code = _run(command, words[1:])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("tempclr: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever reads, as `head`, has seen enough; Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("TEMPCLR_DEBUG") == "1" or not (reason := _reason(error)):
            raise
        print(f"{speaker}: error: {_on_rank()}{' '.join(reason.split())}", file=sys.stderr, flush=True)
        return 2


def _on_rank() -> str:
    """Which of several processes speaks."""
    return f"rank {os.environ.get('RANK')}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""


def _reason(error: Exception) -> str:
    """What to say of a mistake in the input or a fault of the machine; nothing for a fault of this package.

    Note [A full disk]: safetensors and torch tell by classes that are no OSError that a file cannot be written.
    """
    if isinstance(error, (ValueError, OSError, ImportError)):
        return _of_loader(str(error)) or type(error).__name__
    if type(error).__name__ == "SafetensorError":
        return f"weights cannot be read or written: {error}"
    if "torch" in sys.modules:
        from tempclr.rank_watch import lost_rank_reason

        if reason := lost_rank_reason(error):
            return reason
    if isinstance(error, RuntimeError) and "inline_container.cc" in str(error):
        return f"a file of torch cannot be read or written, is the disk full? {error}"
    if type(error).__name__ == "UnpicklingError":  # Note [A pickle is a program], in tempclr.data.readers
        return "a checkpoint asks for more than tensors and plain values: refused, and nothing of it was run"
    return ""


def _of_loader(message: str) -> str:
    """A message as it is; of one that comes from a process of a DataLoader the error's own line, without the traceback.

    >>> _of_loader("Caught ValueError in DataLoader worker process 0.\\nOriginal ...\\nValueError: row 3: no text")
    'row 3: no text'
    """
    if not (message.startswith("Caught ") and "in DataLoader worker process" in message):
        return message
    return message.rstrip().splitlines()[-1].partition(": ")[2] or message


def _chosen(words: list[str]) -> str:
    from tempclr import __version__

    parser = _Parser(prog="tempclr", description="Temporal alignment learning for long videos.")
    parser.add_argument("--version", action="version", version=f"tempclr {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_line in COMMANDS.items():
        commands.add_parser(name, help=help_line, add_help=False)
    return parser.parse_known_args(words[:1])[0].command


def _run(command: str, words: list[str]) -> int:
    said = {*words, *map("=".join, pairwise(words))}
    variants = (file for (name, word), file in VARIANTS.items() if name == command and word in said)
    module = importlib.import_module(f"tempclr.cli.{next(variants, command)}")
    if hasattr(module, "run_words"):
        with _without_loading_bars():
            return module.run_words(words) or 0
    parser = _Parser(prog=f"tempclr {command}", description=module.__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    module.add_arguments(parser)
    arguments = parser.parse_args(words)
    with _without_loading_bars():
        return module.run(arguments) or 0


@contextmanager
def _without_loading_bars() -> Iterator[None]:
    """No bars of transformers for reading and writing weights; those of downloads stay as they are."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    were_shown, downloads_shown = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if downloads_shown:
        enable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()
