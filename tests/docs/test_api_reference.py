"""The API reference is what the docstrings and parsers of this tree give."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def generate(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "generate_api.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def test_it_is_up_to_date():
    done = generate("--check")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nrun: python docs/generate_api.py"


def test_every_command_has_its_options_told():
    from tempclr.cli import COMMANDS, VARIANTS
    from tempclr.cli.finetune import TASKS

    page = (ROOT / "docs" / "api" / "command_line.md").read_text(encoding="utf-8")
    titles = [line.removeprefix("## tempclr ") for line in page.splitlines() if line.startswith("## tempclr ")]
    told = {title.split()[0] for title in titles}
    assert told == set(COMMANDS)
    files = {VARIANTS.get((title.split()[0], word.replace(" ", "="))) for title in titles for word in _parts(title)}
    assert files >= set(VARIANTS.values())
    assert all(f"finetune --task {task}" in titles for task in TASKS)


def _parts(title: str) -> list[str]:
    """The words of a title, and each option with its value."""
    words = title.split()[1:]
    return [*words, *(f"{option} {value}" for option, value in pairwise(words))]


def test_every_public_name_says_what_it_is():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'docs')!r})\n"
        "import importlib, generate_api as api\n"
        "for names in api.MODULES.values():\n"
        "    for name in names:\n"
        "        module = importlib.import_module(name)\n"
        "        assert module.__doc__, name\n"
        "        for title, value in api.public_names(module):\n"
        "            assert value.__doc__ and not value.__doc__.startswith(f'{title}('), (name, title)\n"
        "        print(name, sum(1 for _ in api.public_names(module)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = {name: int(count) for name, count in map(str.split, done.stdout.splitlines())}
    assert counts["tempclr"] > 15 and counts["tempclr_kernels"] == 4 and min(counts.values()) >= 1
