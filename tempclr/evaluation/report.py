"""Results on paper: JSON that is the same for the same numbers, and Markdown tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path

DIGITS = 6


def plain(value: Any, *, digits: int = DIGITS, place: str = "results") -> Any:
    """``value`` as JSON's own types, floats rounded to ``digits``; tuples and arrays become lists.

    NaN and infinities are errors that name the place: a results file holds numbers.

    >>> plain({"b": np.float32(0.5), "a": (1, 2.00000001)})
    {'a': [1, 2.0], 'b': 0.5}
    """
    if value is None or isinstance(value, str | bool | np.bool_):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            raise ValueError(f"{place} is {float(value)}, a results file takes finite numbers only")
        return round(float(value), digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    if isinstance(value, Mapping):
        keys = sorted(value)
        return {str(key): plain(value[key], digits=digits, place=f"{place}[{key!r}]") for key in keys}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Sequence):
        return [plain(entry, digits=digits, place=f"{place}[{index}]") for index, entry in enumerate(value)]
    if hasattr(value, "to_dict"):
        return plain(value.to_dict(), digits=digits, place=place)
    raise TypeError(f"{place} is a {type(value).__name__}, which a results file cannot hold")


def write_results(path: str | PathLike[str], results: Mapping[str, Any]) -> None:
    """Write ``results`` as JSON: sorted keys, floats of six decimals, a newline at the end, atomically.

    Equal results give equal bytes, so timings and paths belong elsewhere. Result objects of this package may stand in
    the mapping; their ``to_dict()`` is written.
    """
    text = json.dumps(plain(results), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, digits: int = 3) -> str:
    """A Markdown table; floats get ``digits`` decimals and stand right, ``None`` is a dash, pipes are escaped.

    >>> print(markdown_table(["model", "R@1"], [["unit loss", 0.5], ["TempCLR", 0.625]]))
    | model     |   R@1 |
    | :-------- | ----: |
    | unit loss | 0.500 |
    | TempCLR   | 0.625 |
    """
    for index, row in enumerate(rows):
        if len(row) != len(headers):
            raise ValueError(f"row {index} has {len(row)} cells for {len(headers)} headers")
    cells = [[_cell(value, digits) for value in row] for row in rows]
    numeric = [bool(rows) and all(_is_number(row[column]) for row in rows) for column in range(len(headers))]
    lines = [[header.replace("|", "\\|") for header in headers], *cells]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(headers))]
    rule = [
        "-" * (width - 1) + ":" if right else ":" + "-" * (width - 1)
        for width, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join(_line(line, widths, numeric) for line in [lines[0], rule, *lines[1:]])


def retrieval_table(
    results: Mapping[str, Any], *, ks: Sequence[int] = (1, 5, 10), digits: int = 3, first_column: str = "model"
) -> str:
    """One row a name and measure: name, measure, R@k and median rank. ``results``: name -> RetrievalResult."""
    columns = [*(f"R@{k}" for k in ks), "median_rank"]
    rows = [
        [name, measure, *(metrics[column] for column in columns)]
        for name, result in results.items()
        for measure, metrics in result.metrics.items()
    ]
    return markdown_table([first_column, "measure", *(f"R@{k}" for k in ks), "median rank"], rows, digits=digits)


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "–"  # noqa: RUF001 (the dash a reader expects in an empty cell)
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | np.number) and not isinstance(value, bool))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"
