"""The page of the command line, from the parsers of the commands; for docs/generate_api.py."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator
from unittest import mock

# The words that choose a parser; one section each.
COMMANDS = (
    "demo",
    "prepare",
    "prepare youcook2",
    "prepare howto100m",
    "prepare crosstask",
    "prepare ucf101",
    "prepare hmdb51",
    "prepare kinetics",
    "prepare diving48",
    "extract",
    "extract --few_shot SPLITS",
    "pretrain",
    "pretrain --video_only",
    "pretrain --method tclr",
    "finetune --task localization",
    "finetune --task few-shot",
    "finetune --task classification",
    "evaluate",
    "evaluate few-shot",
    "evaluate classification",
    "align",
    "app",
    "convert",
    "publish",
    "bench",
)
# Of these, the options alone that the other has not.
LIKE = {
    "prepare howto100m": "prepare youcook2",
    "prepare crosstask": "prepare youcook2",
    "prepare hmdb51": "prepare ucf101",
    "prepare kinetics": "prepare ucf101",
    "prepare diving48": "prepare ucf101",
}
INHERITED = "Also any field of `transformers.TrainingArguments`, as `--learning_rate 1e-4`."


def command_line() -> str:
    """One table of options a command."""
    from tempclr.cli import COMMANDS as SUMMARIES

    parts = [
        "# The command line",
        "",
        "Made from the commands' own `--help` by `docs/generate_api.py`. Every command ends with exit code 0, with 2 "
        "and one line for a mistake in the input, or with 130 when it was interrupted; `--seed` (default 0, in "
        "training 42) seeds every random choice.",
        "",
        "| command | what it does |",
        "| :-- | :-- |",
        *(f"| `tempclr {name}` | {_cell(summary)} |" for name, summary in SUMMARIES.items()),
    ]
    for words in COMMANDS:
        parts += ["", *_section(words, parser_of(words))]
    return "\n".join(parts) + "\n"


def parser_of(words: str) -> argparse.ArgumentParser:
    """The parser that would print the help of a command."""
    from tempclr.cli import main

    asked: list[argparse.ArgumentParser] = []
    recorded = mock.patch.object(argparse.ArgumentParser, "print_help", lambda parser, file=None: asked.append(parser))
    with recorded, contextlib.suppress(SystemExit):
        main([*shlex.split(words), "--help"])
    return asked[-1]


def _section(words: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## tempclr {words}"
    yield ""
    yield " ".join((parser.description or "").split())
    yield ""
    like = LIKE.get(words)
    if like is not None:
        yield f"Beside the options that it shares with `tempclr {like}`:"
        yield ""
    yield "| option | what it does |"
    yield "| :-- | :-- |"
    rows: list[str] = []
    trains = any(action.dest == "per_device_train_batch_size" for action in parser._actions)
    told_elsewhere = {"help", "seed", *(_inherited() if trains else ())}
    if like is not None:
        told_elsewhere |= {action.dest for action in parser_of(like)._actions} - {"annotations"}
    for action in {action.dest: action for action in reversed(parser._actions)}.values():
        if action.dest not in told_elsewhere:
            rows.append(f"| {_option(action)} | {_cell(_help(action))} |")
    yield from reversed(rows)
    if trains:
        yield ""
        yield INHERITED


def _inherited() -> set[str]:
    from transformers import TrainingArguments

    return set(TrainingArguments.__dataclass_fields__) - {"output_dir"}


def _option(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    name = action.option_strings[0]
    if action.nargs == 0 or isinstance(action.default, bool):
        return f"`{name}`"
    value = action.metavar or action.dest.upper()
    words = " ".join(value) if isinstance(value, tuple) else value
    return f"`{name} {words}`".replace("|", r"\|")


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    text = text.removesuffix("(default: None)").strip()
    if action.dest == "output_dir" and action.required:
        text = text if len(text) < 60 else "folder of the model and its checkpoints"  # the words of transformers change
    if action.choices is not None and not any(str(choice) in text for choice in action.choices):
        text += f": {', '.join(map(str, action.choices))}" if text else ", ".join(map(str, action.choices))
    if action.required and action.option_strings:
        text += " (required)"
    elif action.default not in (None, False, argparse.SUPPRESS) and "default" not in text:
        default = action.default
        text += f" (default {' '.join(map(str, default)) if isinstance(default, (list, tuple)) else default})"
    return text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<")
