"""Train a model further for one task. Each task has options of its own: ``tempclr finetune --task few-shot --help``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

# A task's module is ``finetune_<task>``, with ``run_words``.
TASKS = {
    "classification": "classes of whole videos, from an encoder of clips",
    "few-shot": "class scores of episodes, by OTAM, DTW or TRX",
    "localization": "step localization",
}


def run_words(words: Sequence[str]) -> int:
    """Run the task that ``--task`` names, which gets all the words.

    Raises:
        InputError: no such task.
    """
    from tempclr.errors import InputError

    told = "; ".join(f"{name}: {summary}" for name, summary in TASKS.items())
    parser = argparse.ArgumentParser(prog="tempclr finetune", description=__doc__, add_help=False, exit_on_error=False)
    parser.add_argument("--task", metavar="TASK", help=told)
    try:
        task = parser.parse_known_args(list(words))[0].task
    except argparse.ArgumentError as error:
        raise InputError(f"{error}; tasks: {', '.join(TASKS)}") from error
    if task is None and {"-h", "--help"} & set(words):
        parser.print_help()
        return 0
    if task not in TASKS:
        given = "is missing" if task is None else f"has no task {task!r}"
        raise InputError(f"--task {given}; tasks: {', '.join(TASKS)}")
    return importlib.import_module(f"tempclr.cli.finetune_{task.replace('-', '_')}").run_words(words)
