"""The API reference is what the docstrings and parsers of this tree give."""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), *sys.path])
    return importlib.import_module("generate_api")


def test_it_is_up_to_date(api: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["generate_api.py", "--check"])
    stale = api.main()
    assert not stale, capsys.readouterr().out


def test_a_page_that_is_not_up_to_date_is_shown(api: ModuleType, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(api, "FOLDER", tmp_path)
    monkeypatch.setattr(api, "MODULES", {"tempclr": ("tempclr.errors",)})
    monkeypatch.setattr(api, "command_line", lambda: "# The command line\n")
    monkeypatch.setattr(sys, "argv", ["generate_api.py", "--check"])
    assert api.main() and "+# The command line" in capsys.readouterr().out


def test_every_command_has_its_options_told():
    from tempclr.cli import COMMANDS, VARIANTS
    from tempclr.cli.finetune import TASKS
    from tempclr.cli.prepare import ACTIONS

    page = (ROOT / "docs" / "api" / "command_line.md").read_text(encoding="utf-8")
    titles = [line.removeprefix("## tempclr ") for line in page.splitlines() if line.startswith("## tempclr ")]
    told = {title.split()[0] for title in titles}
    assert told == set(COMMANDS)
    files = {VARIANTS.get((title.split()[0], word.replace(" ", "="))) for title in titles for word in _parts(title)}
    assert files >= set(VARIANTS.values())
    assert all(f"finetune --task {task}" in titles for task in TASKS)
    assert all(f"prepare {corpus}" in titles for corpus in ACTIONS)


def _parts(title: str) -> list[str]:
    """The words of a title, and each option with its value."""
    words = title.split()[1:]
    return [*words, *(f"{option} {value}" for option, value in pairwise(words))]


def test_every_public_name_says_what_it_is(api: ModuleType):
    counts = {}
    for name in (name for names in api.MODULES.values() for name in names):
        module = importlib.import_module(name)
        assert module.__doc__, name
        public = list(api.public_names(module))
        for title, value in public:
            assert value.__doc__ and not value.__doc__.startswith(f"{title}("), (name, title)
        counts[name] = len(public)
    assert counts["tempclr"] > 15 and counts["tempclr_kernels"] == 4 and min(counts.values()) >= 1
