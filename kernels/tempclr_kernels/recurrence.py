"""The family of alignments in one page: which cells precede a cell, what lies outside the matrix, and the soft minimum.

Every implementation computes the same table of accumulated costs: a cell holds its own cost plus the (soft) minimum
of its predecessors, and the distance is the table's last cell. ``dtw`` and ``otam`` differ only in what this file
says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MEASURES = ("dtw", "otam")

Cell = tuple[int, int]


def num_table_columns(measure: str, num_columns: int) -> int:
    """Columns of the table: OTAM closes with one column of zero cost, in which a path may run down for free."""
    return num_columns + 1 if measure == "otam" else num_columns


def predecessors(measure: str, cell: Cell, num_columns: int) -> list[Cell]:
    """Cells a path may come from, in the order that breaks ties: diagonal, down, right. Index -1 is the border."""
    row, column = cell
    diagonal, down, right = (row - 1, column - 1), (row - 1, column), (row, column - 1)
    # Note [OTAM moves down only at its edges]: from one column to the next the row stays or advances by one. A path
    # moves down in the first real column, where it pays for every row, and in the closing column, where rows are
    # free.
    if measure == "otam" and 0 < column < num_columns:
        return [diagonal, right]
    return [diagonal, down, right]


def border_total(measure: str, cell: Cell) -> float:
    """Accumulated cost of a cell outside the matrix (row or column -1).

    DTW starts in the corner alone. OTAM starts to the left of any row, so that rows before the first matched one are
    free.
    """
    row, column = cell
    starts_here = row >= 0 if measure == "otam" else (row, column) == (-1, -1)
    return 0.0 if starts_here else math.inf


def soft_minimum(totals: Sequence[Tensor], gamma: float) -> Tensor:
    """``-gamma * log(sum(exp(-x / gamma)))``, or for ``gamma = 0`` the first of the smallest; NaN if any is NaN.

    Example:
        >>> a, b = torch.tensor([1.0, 5.0]), torch.tensor([2.0, 4.0])
        >>> soft_minimum([a, b], 0.0)
        tensor([1., 4.])
    """
    smallest = totals[0]
    for total in totals[1:]:
        smallest = torch.where((total < smallest) | total.isnan(), total, smallest)
    if gamma == 0:
        return smallest
    # Where every way is forbidden the result is inf with gradient 0; log-sum-exp alone would have gradient NaN there.
    stacked = torch.stack(list(totals))
    forbidden = smallest == math.inf
    reachable = torch.where(forbidden, 0.0, stacked)
    return torch.where(forbidden, math.inf, -gamma * torch.logsumexp(-reachable / gamma, dim=0))
