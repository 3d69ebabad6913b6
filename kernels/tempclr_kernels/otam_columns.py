"""OTAM of a warp's rows: one step a column, where diagonals would take one more a row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .wavefront import LOG2_E, Sweep, _interpreted

# From 17 rows on, where a pair has a warp to itself either way, to four rows a lane.
FEWEST_ROWS, MOST_ROWS = 17, 128


def suits(cost: Tensor, measure: str) -> bool:
    """Whether to run here and not along the diagonals."""
    return measure == "otam" and FEWEST_ROWS <= cost.shape[1] <= MOST_ROWS


class ColumnSweep(Sweep):
    """The same batch and interface, with rows as lanes and a column of the table a step."""

    @property
    def lane_axis(self) -> int:
        return 0

    @property
    def totals(self) -> tuple[int, int]:
        _, rows, columns = self.cost.shape
        return rows, columns

    @property
    def block(self) -> int:
        return max(32, 1 << (self.totals[0] - 1).bit_length())

    @property
    def pack(self) -> int:
        return 1

    @property
    def num_strips(self) -> int:
        return 1

    @property
    def table_shape(self) -> tuple[int, int, int]:
        return 1, self.totals[1], self.block

    def forward(self, *, distance: Tensor, table: Tensor | None, edge: Tensor | None) -> None:
        from . import otam_kernels as kernels

        nvidia = self.cost.is_cuda and torch.version.hip is None and not _interpreted(kernels.column_forward)
        self.launch(
            kernels.column_forward,
            p_cost=self.cost,
            p_distance=distance,
            p_table=table,
            gamma_ln2=self.gamma * math.log(2),
            FAST_LOG2=nvidia and self.cost.dtype == torch.float32,
        )

    def backward(
        self,
        grad_cost: Tensor,
        *,
        grad_distance: Tensor,
        distance: Tensor,
        table: Tensor,
        edge: Tensor | None,
        flow: Tensor | None,
    ) -> None:
        from . import otam_kernels as kernels

        self.launch(
            kernels.column_backward,
            p_grad=grad_cost,
            p_distance=distance,
            p_grad_distance=grad_distance,
            p_table=table,
        )

    def strip(self, i_strip: int) -> dict[str, Any]:
        return {"inverse_gamma": LOG2_E / self.gamma if self.gamma > 0 else 0.0}

    def constants(self) -> dict[str, Any]:
        return {"SOFT": self.gamma > 0, "BLOCK": self.block}

    def options(self, *, nvidia: bool) -> dict[str, int]:
        # As in the other forms: left alone, ptxas spills where it could take one register more.
        return {"num_warps": 1, "maxnreg": 255} if nvidia and self.block > 64 else {"num_warps": 1}
