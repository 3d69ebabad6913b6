"""Every number that docs/protocols.md shows is computed again."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from tempclr.evaluation.protocols import TASKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocols.md"


def test_the_examples_print_what_they_show():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0 and tried > 30


def test_every_task_has_its_row():
    named = re.findall(r"^\| `evaluate ([\w-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(TASKS)


def test_sums_in_the_text_are_those_of_the_examples():
    """The page explains distances as sums of cells: they add up to what the code below them prints."""
    text = PAGE.read_text(encoding="utf-8")
    for terms, shown in ((("0.1 + 0.2 + 0.3 + 0.1 + 0.6"), "1.3"), (("0.1 + 0.2 + 0.3 + 0.1 + 0.2"), "0.9")):
        assert round(sum(map(float, terms.split(" + "))), 6) == float(shown)
        place = text.index(terms)
        assert re.search(r">>> show\(.*\)\n(\S+)\n", text[place:]).group(1) == shown
