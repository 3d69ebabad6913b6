"""docs/fidelity.md names tests and options: each of them must exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "fidelity.md"
HEADER = ["Part", "Released behaviour", "Our default", "Option that reproduces it", "Evidence"]
SPAN = re.compile(r"`([^`]+)`")
TESTS = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}


def rows() -> list[dict[str, str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert table[0] == HEADER
    assert all(len(row) == len(HEADER) for row in table), [row for row in table if len(row) != len(HEADER)]
    return [dict(zip(HEADER, row, strict=True)) for row in table[2:]]


ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Released behaviour"][:40])
def test_evidence_is_there(row):
    evidence = SPAN.findall(row["Evidence"])
    assert evidence, "no test is named"
    for name in evidence:
        file, _, function = name.partition("::")
        assert file in TESTS, f"no test file {file}"
        source = TESTS[file].read_text(encoding="utf-8")
        functions = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
        assert not function or function in functions, f"{file} has no {function}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Released behaviour"][:40])
def test_options_are_there(row):
    cell = row["Option that reproduces it"]
    options = SPAN.findall(cell)
    assert options or cell.startswith(("default", "none")), f"expected an option, 'default' or 'none', got {cell!r}"
    for option in options:
        if option.startswith("tempclr "):
            check_command(option.split())
        else:
            check_call(option)


def check_command(words: list[str]) -> None:
    """Options are declared in the command's file, or as fields of the dataclasses that Hugging Face's parser reads."""
    from tempclr.recipes import pretraining
    from tempclr.trainer import TempCLRTrainingArguments

    source = (ROOT / "tempclr/cli" / f"{words[1]}.py").read_text(encoding="utf-8")
    known = set(re.findall(r'"--(\w+)"', source))
    if words[1] in ("pretrain", "finetune"):
        kinds = (*vars(pretraining).values(), TempCLRTrainingArguments)
        known |= {name for kind in kinds for name in getattr(kind, "__dataclass_fields__", {})}
    flags = {word.removeprefix("--") for word in words[2:] if word.startswith("--")}
    assert flags, f"{' '.join(words)} names no option"
    assert flags <= known, f"{' '.join(words)}: {flags - known}"


def check_call(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call) and call.keywords and not call.args, f"expected path(option=value), got {code}"
    target = resolved(ast.unparse(call.func))
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    fields = getattr(target, "__dataclass_fields__", None) or inspect.signature(target).parameters
    known = {name for kind in getattr(target, "__mro__", ()) for name in vars(kind)} | set(fields)
    assert set(values) <= known, f"{code}: {set(values) - known}"
    if inspect.isclass(target) and target.__name__.endswith("Config"):
        target(**values)  # which refuses a value that is none of its choices


def resolved(path: str) -> Any:
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            target: Any = importlib.import_module(".".join(["tempclr", *parts[:split]]))
        except ModuleNotFoundError:
            continue
        for name in parts[split:]:
            target = getattr(target, name)
        return target
    return getattr(importlib.import_module("tempclr"), path)


def test_a_name_that_is_not_there_is_found_out():
    with pytest.raises(AssertionError, match="attend_clss"):
        check_call("models.tempclr.TempCLRVideoConfig(attend_clss=False)")
    with pytest.raises(AttributeError):
        check_call("losses.no_such_loss(similarity='dot')")
    with pytest.raises(AssertionError):
        check_command(["tempclr", "extract", "--no_such_option"])
    with pytest.raises(AssertionError):
        check_command(["tempclr", "pretrain", "--no_such_option"])
    with pytest.raises(AssertionError, match="no test_that_is_nowhere"):
        test_evidence_is_there({"Evidence": "`test_losses.py::test_that_is_nowhere`"})
