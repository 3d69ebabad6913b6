"""Few, skinny, hard DTW problems: a short side of steps, each a scan along the long side, instead of long diagonals."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .wavefront import Sweep

# By instructions counted, not by time measured: a scan of 1024 lanes costs about what 25 steps of a diagonal do and
# fills 4 warps, so it pays for few matrices, whose diagonals would be long while most of the GPU is idle.
LONGEST_SHORT_SIDE, SHORTEST_LONG_SIDE, LEAST_RATIO = 32, 256, 8
LARGEST_BLOCK, MOST_PAIRS = 2048, 256


def suits(cost: Tensor, num_orders: int, measure: str, gamma: float) -> bool:
    """Whether to run here and not along the diagonals."""
    short, long = sorted(cost.shape[1:])
    return (
        (measure, gamma) == ("dtw", 0)
        and short <= LONGEST_SHORT_SIDE
        and max(SHORTEST_LONG_SIDE, LEAST_RATIO * short) <= long <= LARGEST_BLOCK
        and len(cost) * num_orders <= MOST_PAIRS
    )


class RowScan(Sweep):
    """The same batch and interface, with lanes along the longer side and a row of the table a step."""

    @property
    def lane_axis(self) -> int:
        _, rows, columns = self.cost.shape
        return int(columns >= rows)

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
        from . import rowscan_kernels

        self.launch(rowscan_kernels.scan_forward, p_cost=self.cost, p_distance=distance, p_table=table)

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
        from . import rowscan_kernels

        self.launch(
            rowscan_kernels.scan_backward,
            p_grad=grad_cost,
            p_distance=distance,
            p_grad_distance=grad_distance,
            p_table=table,
        )

    def strip(self, i_strip: int) -> dict[str, Any]:
        return {}

    def constants(self) -> dict[str, Any]:
        return {"LANE_AXIS": self.lane_axis, "BLOCK": self.block}

    def options(self, *, nvidia: bool) -> dict[str, int]:
        num_warps = max(1, min(8, self.block * self.cost.element_size() // 1024))
        # As for wide blocks of diagonals: left alone, ptxas spills to fit one program more on a multiprocessor.
        return {"num_warps": num_warps, "maxnreg": 255} if nvidia else {"num_warps": num_warps}
