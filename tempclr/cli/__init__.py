"""The command line: one file a command, imported only when that command runs.

A command's module has ``add_arguments(parser)`` and ``run(arguments)``; a module that wants the raw words, because
Hugging Face's argument parser reads them, has ``run_words(words)`` instead.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "the main job, end to end, on videos it makes itself",
    "extract": "videos to one feature vector a second",
    "pretrain": "train TempCLR on paragraphs and videos",
    "evaluate": "retrieval, localization and matching",
    "align": "find each sentence in one video",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for a mistake in the input (told in one line) or 130 when interrupted."""
    words = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(prog="tempclr", description="Temporal alignment learning for long videos.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_line in COMMANDS.items():
        commands.add_parser(name, help=help_line, add_help=False)
    chosen, _ = parser.parse_known_args(words[:1])
    try:
        return _run(chosen.command, words[1:])
    except KeyboardInterrupt:
        print("tempclr: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("TEMPCLR_DEBUG") == "1":
            raise
        print(f"tempclr {chosen.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _run(command: str, words: list[str]) -> int:
    module = importlib.import_module(f"tempclr.cli.{command}")
    if hasattr(module, "run_words"):
        return module.run_words(words) or 0
    parser = argparse.ArgumentParser(prog=f"tempclr {command}", description=module.__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    module.add_arguments(parser)
    return module.run(parser.parse_args(words)) or 0
