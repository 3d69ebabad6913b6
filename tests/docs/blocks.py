"""The blocks of a page of Markdown, and what it means to run them; ``python blocks.py PAGE`` runs a page right here.

A page runs from top to bottom in the working directory. Python blocks share one namespace; those that begin with
``>>>`` are doctests. In shell blocks ``tempclr`` is called in this process, everything else goes to bash. Two rules
make it quick, and docs/index.md states them: ``SHORTER`` is appended to a command that does not say otherwise, and
``tempclr demo`` gives the folder that one run of it made for all tests.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w*)[ \t]*\n(.*?)^```[ \t]*$", re.M | re.S)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.S)
SHELLS = ("sh", "bash")
RUN = ("python", "pycon", *SHELLS)
SHOWN = ("text",)  # output, signatures, contents of files
CLAIM = re.compile(r"^print\(.*\)  # ((?:tensor\(|torch\.|\(|\[|-?\d).*)$", re.M)

SHORTER = {
    "pretrain": "--max_steps 2 --report_to none",
    "pretrain --video_only": "--max_steps 2 --report_to none --hidden_size 32 --num_hidden_layers 1",
    "pretrain tclr": "--max_steps 2 --report_to none --per_device_train_batch_size 2 --dataloader_num_workers 0"
    " --variant r3d_10 --width 4 --image_size 16 --short_side 16",
    "finetune": "--max_steps 2 --report_to none",
    "finetune classification": "--max_steps 2 --report_to none --per_device_train_batch_size 4"
    " --dataloader_num_workers 0 --short_side 16 --image_size 16",
    "finetune few-shot": "--max_steps 2 --report_to none --num_eval_tasks 4",
    "evaluate few-shot": "--num_tasks 20",
    "bench": "--quick --rounds 1",
}
SHORTER_STILL = ("--video_only", "tclr", "few-shot", "classification")  # words of commands with a line of their own
NEW_MODEL = "--hidden_size 32 --num_attention_heads 2 --num_text_layers 1 --num_video_layers 1"


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    not_run: str | None


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, with the reason why it is not run where one stands above it."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        reason = NOT_RUN.search(text, 0, match.start())
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(match[1], match[2], line, reason and reason[1]))
    return found


def run_page(page: Path, *, demo_dir: Path | None = None) -> str:
    """Run all blocks in the working directory; what they printed."""
    namespace: dict[str, Any] = {"__name__": "docs"}
    printed = io.StringIO()
    for block in blocks_of(page):
        if block.language not in RUN or block.not_run is not None:
            continue
        place = f"{page.name}, line {block.line}"
        before = printed.tell()
        with contextlib.redirect_stdout(printed):
            if block.language in SHELLS:
                run_shell(block.text, place=place, demo_dir=demo_dir)
            elif block.text.startswith(">>> "):
                run_examples(block.text, namespace, place=place)
            else:
                # Padded, so that a traceback tells the line of the page.
                exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)
        check_claims(block.text, printed.getvalue()[before:], place=place)
    return printed.getvalue()


def check_claims(text: str, output: str, *, place: str) -> None:
    """What a comment behind ``print(...)`` says must be what was printed."""
    for claim in CLAIM.findall(text):
        expected = claim.split(": ")[0]
        assert expected in output, f"{place}: {expected!r} was promised, printed: {output[-500:]!r}"


def run_examples(text: str, namespace: dict[str, Any], *, place: str) -> doctest.TestResults:
    test = doctest.DocTestParser().get_doctest(text, {}, place, place, 0)
    test.globs = namespace
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    told = io.StringIO()
    results = runner.run(test, clear_globs=False, out=told.write)
    assert not results.failed, told.getvalue()
    return results


def run_shell(text: str, *, place: str, demo_dir: Path | None = None) -> None:
    for command in text.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if not words:
            continue
        if words[0] != "tempclr":
            subprocess.run(["bash", "-euc", command], check=True)
        elif words[1] == "demo" and demo_dir is not None:
            shutil.copytree(demo_dir, words[words.index("--output_dir") + 1])
        else:
            run_tempclr(words[1:], place=place)


def run_tempclr(words: list[str], *, place: str) -> None:
    from tempclr.cli import main

    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        code = main([*words, *shorter(words)])
    assert code == 0, f"{place}: tempclr {' '.join(words)}\n{told.getvalue()[-2000:]}"


def shorter(words: list[str]) -> list[str]:
    """What is appended to a command, but for options that it gives itself."""
    kinds = (f"{words[0]} {word}" for word in SHORTER_STILL if word in words)
    kind = next(kinds, words[0])
    settings = [SHORTER.get(kind, "")]
    if kind == "pretrain" and not {"--init_from", "--init_from_bert", "--model_config"} & set(words):
        settings.append(NEW_MODEL)
    groups = [group.split() for group in " ".join(settings).split("--") if group]
    return [word for name, *values in groups if f"--{name}" not in words for word in (f"--{name}", *values)]


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    print(run_page(Path(sys.argv[1])))
