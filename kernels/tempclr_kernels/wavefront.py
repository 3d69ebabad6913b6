"""The Triton implementation: every matrix and order in one launch, a moving anti-diagonal in registers.

`distance`, `distance_vjp` and `distance_second` are what `tempclr_kernels.api` calls; arguments are checked there.
Triton is imported on first use, so that this module can be imported (and `check_available` asked) anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SMALLEST_BLOCK, LARGEST_BLOCK = 4, 512  # lanes of one pair; longer sides run in strips
WARP = 32
WORKSPACE_BYTES = 1 << 30

LOG2_E = 1 / math.log(2)


def check_available(device: torch.device) -> None:
    """Raise a RuntimeError that says why Triton cannot run on `device`; return None where it can."""
    try:
        kernels = _kernels()
    except ImportError as error:
        raise RuntimeError(
            f"impl='triton' needs the triton package, which does not import here ({error}); "
            "install triton>=3.6 (Linux) or choose impl='numba'"
        ) from error
    if device.type == "cpu" and not _interpreted(kernels.sweep_forward):
        raise RuntimeError(
            "impl='triton' got a CPU tensor, which runs only in Triton's interpreter; "
            "set TRITON_INTERPRET=1 before Python starts, move the tensor to CUDA, or choose impl='numba'"
        )


def distance(
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> Tensor:
    """Distances ``(B, K)`` of contiguous ``cost`` ``(B, n, m)`` under each order; see `tempclr_kernels.api.dtw`."""
    sweep = _whole(cost, lengths, row_orders, column_orders, measure, gamma)
    result = _empty(sweep.pairs, cost)
    sweep.forward(distance=result, table=None, edge=sweep.empty_edge())
    return result


def distance_vjp(
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> Tensor:
    """Gradient ``(B, n, m)`` of ``(distance * grad_distance).sum()``: the alignments of all orders on one matrix."""
    whole = _whole(cost, lengths, row_orders, column_orders, measure, gamma)
    parts = list(whole.parts(num_tables=1))
    if len(parts) == 1:
        return _vjp_of_part(whole, grad_distance)
    result = torch.zeros_like(cost)
    for matrices, orders, sweep in parts:
        result[matrices] += _vjp_of_part(sweep, grad_distance[matrices, orders])
    return result


def distance_second(
    tangent: Tensor,
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Along ``tangent (B, n, m)``: the derivatives of `distance_vjp`, ``(B, n, m)``, and of `distance`, ``(B, K)``.

    For ``gamma = 0`` the first is 0. Source: Mensch & Blondel 2018, algorithm 2.
    """
    whole = Sweep(cost, lengths, row_orders, column_orders, measure, gamma)
    hessian, directional = torch.zeros_like(cost), _empty(whole.pairs, cost)
    tangent = tangent.to(cost.dtype).contiguous()
    for matrices, orders, sweep in whole.parts(num_tables=2):
        part = _second_of_part(sweep, tangent[matrices], grad_distance[matrices, orders])
        hessian[matrices] += part[0]
        directional[matrices, orders] = part[1]
    return hessian, directional


def _vjp_of_part(sweep: Sweep, grad_distance: Tensor) -> Tensor:
    found, table, edge = _empty(sweep.pairs, sweep.cost), sweep.empty_table(), sweep.empty_edge()
    sweep.forward(distance=found, table=table, edge=edge)
    # Note [Gradients are scattered, then summed]: each (matrix, order) writes its own copy, in the order of the matrix,
    # and the sum over orders runs in a fixed sequence. Atomics would need less memory and not repeat bit for bit.
    grad_cost = torch.zeros((*sweep.pairs, *sweep.cost.shape[1:]), dtype=sweep.cost.dtype, device=sweep.cost.device)
    sweep.backward(
        grad_cost,
        grad_distance=grad_distance.to(sweep.cost.dtype).contiguous(),
        distance=found,
        table=table,
        edge=edge,
        flow=sweep.empty_edge(),
    )
    return grad_cost[:, 0] if sweep.pairs[1] == 1 else grad_cost.sum(dim=1)


def _second_of_part(sweep: Sweep, tangent: Tensor, grad_distance: Tensor) -> tuple[Tensor, Tensor]:
    found, table, edge = _empty(sweep.pairs, sweep.cost), sweep.empty_table(), sweep.empty_edge()
    sweep.forward(distance=found, table=table, edge=edge)
    directional, slopes, slope_edge = _empty(sweep.pairs, sweep.cost), sweep.empty_table(), sweep.empty_edge()
    tables: dict[str, Any] = {
        "p_distance": found,
        "p_table": table,
        "p_edge": edge,
        "p_slopes": slopes,
        "p_slope_edge": slope_edge,
    }
    kernels = _tangent_kernels()
    sweep.launch(kernels.sweep_slope, p_tangent=tangent, p_directional=directional, **tables)
    hessian = torch.zeros((*sweep.pairs, *sweep.cost.shape[1:]), dtype=sweep.cost.dtype, device=sweep.cost.device)
    if sweep.gamma > 0:
        sweep.launch(
            kernels.sweep_curvature,
            from_last_strip=True,
            p_hessian=hessian,
            p_grad_distance=grad_distance.to(sweep.cost.dtype).contiguous(),
            p_flow=sweep.empty_edge(),
            p_flow_slope=sweep.empty_edge(),
            natural_inverse_gamma=1 / sweep.gamma,
            **tables,
        )
    return hessian.sum(dim=1), directional


def _whole(
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    measure: str,
    gamma: float,
) -> Sweep:
    """The batch in the form that suits it."""
    from . import otam_columns, rowscan

    arguments = (cost, lengths, row_orders, column_orders, measure, gamma)
    if otam_columns.suits(cost, measure):
        return otam_columns.ColumnSweep(*arguments)
    sweep = Sweep(*arguments)
    return rowscan.RowScan(*arguments) if rowscan.suits(cost, sweep.pairs[1], measure, gamma) else sweep


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Every uninitialised tensor of this implementation comes from here, so that tests can poison them."""
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def _kernels() -> Any:
    from . import wavefront_kernels

    return wavefront_kernels


def _tangent_kernels() -> Any:
    from . import wavefront_tangents

    return wavefront_tangents


def _interpreted(kernel: Any) -> bool:
    import triton

    return not isinstance(kernel, triton.runtime.JITFunction)


@dataclass(frozen=True)
class Sweep:
    """One batch of (matrix, order) pairs and the geometry of its launches."""

    cost: Tensor
    lengths: Tensor
    row_orders: Tensor | None
    column_orders: Tensor | None
    measure: str
    gamma: float

    @property
    def orders(self) -> tuple[Tensor | None, Tensor | None]:
        return self.row_orders, self.column_orders

    @property
    def pairs(self) -> tuple[int, int]:
        """Number of matrices, number of orders of each."""
        for orders in self.orders:
            if orders is not None:
                return self.cost.shape[0], orders.shape[1]
        return self.cost.shape[0], 1

    @property
    def lane_axis(self) -> int:
        """0 where rows are lanes, 1 where columns are: the shorter side, OTAM's zero column counted."""
        _, rows, columns = self.cost.shape
        return int(columns + (self.measure == "otam") < rows)

    @property
    def totals(self) -> tuple[int, int]:
        """Cells along the lane axis and along the step axis, OTAM's zero column included."""
        _, rows, columns = self.cost.shape
        columns += self.measure == "otam"
        return (columns, rows) if self.lane_axis else (rows, columns)

    @property
    def block(self) -> int:
        """Lanes of one pair in a program."""
        lanes = max(self.totals[0], SMALLEST_BLOCK)
        return min(1 << (lanes - 1).bit_length(), LARGEST_BLOCK)

    @property
    def pack(self) -> int:
        """Pairs of one program: as many as a warp has room for."""
        return max(1, WARP // self.block) if self.num_strips == 1 else 1

    @property
    def num_programs(self) -> int:
        return -(-math.prod(self.pairs) // self.pack)

    @property
    def num_strips(self) -> int:
        return -(-self.totals[0] // self.block)

    @property
    def table_shape(self) -> tuple[int, int, int]:
        """Anti-diagonals of each strip of one pair, as `load_predecessors` expects them."""
        return self.num_strips, self.block + self.totals[1] - 1, self.block

    def empty_table(self) -> Tensor:
        strips, diagonals, lanes = self.table_shape
        return _empty((self.num_programs, strips, diagonals, self.pack * lanes), self.cost)

    def empty_edge(self) -> Tensor | None:
        """What one strip hands to the next, at every step; None where one strip is all."""
        return _empty((*self.pairs, self.num_strips, self.totals[1]), self.cost) if self.num_strips > 1 else None

    def parts(self, *, num_tables: int) -> Iterator[tuple[slice, slice, Sweep]]:
        """Split so that the tables and per-order gradients of one part stay within `WORKSPACE_BYTES` (or one pair)."""
        matrices, orders = self.pairs
        cells = num_tables * (math.prod(self.table_shape) + math.prod(self.cost.shape[1:]))
        most = max(1, WORKSPACE_BYTES // (cells * self.cost.element_size()))
        orders_each = max(1, min(orders, most))
        matrices_each = max(1, most // orders_each)
        for i in range(0, matrices, matrices_each):
            for k in range(0, orders, orders_each):
                some, those = slice(i, i + matrices_each), slice(k, k + orders_each)
                rows, columns = (None if o is None else o[some, those].contiguous() for o in self.orders)
                some_sweep = type(self)(self.cost[some], self.lengths[some], rows, columns, self.measure, self.gamma)
                yield some, those, some_sweep

    def forward(self, *, distance: Tensor, table: Tensor | None, edge: Tensor | None) -> None:
        kernels = _kernels()
        fast = self.cost.is_cuda and torch.version.hip is None and not _interpreted(kernels.sweep_forward)
        self.launch(
            kernels.sweep_forward,
            p_cost=self.cost,
            p_distance=distance,
            p_table=table,
            p_edge=edge,
            gamma_ln2=self.gamma * math.log(2),
            FAST_LOG2=fast and self.cost.dtype == torch.float32,
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
        self.launch(
            _kernels().sweep_backward,
            from_last_strip=True,
            p_grad=grad_cost,
            p_distance=distance,
            p_grad_distance=grad_distance,
            p_table=table,
            p_edge=edge,
            p_flow=flow,
        )

    def launch(self, kernel: Any, *, from_last_strip: bool = False, **own: Any) -> None:
        matrices, orders = self.pairs
        if not self.cost.numel() or not orders:
            return
        _, rows, columns = self.cost.shape
        extents, strides = (rows, columns), (columns, 1)
        lane, step = self.lane_axis, 1 - self.lane_axis
        strips = range(self.num_strips)
        guard = torch.cuda.device(self.cost.device) if self.cost.is_cuda else nullcontext()
        with guard:
            for i_strip in reversed(strips) if from_last_strip else strips:
                kernel[(self.num_programs,)](
                    p_lengths=self.lengths,
                    p_lane_order=self.orders[lane],
                    p_step_order=self.orders[step],
                    lane_extent=extents[lane],
                    step_extent=extents[step],
                    lane_stride=strides[lane],
                    step_stride=strides[step],
                    num_orders=orders,
                    num_pairs=matrices * orders,
                    **self.strip(i_strip),
                    **self.constants(),
                    **self.options(nvidia=self.cost.is_cuda and torch.version.hip is None),
                    **own,
                )

    def strip(self, i_strip: int) -> dict[str, Any]:
        """Arguments of one launch that only sweeps along diagonals take."""
        return {
            "i_strip": i_strip,
            "num_strips": self.num_strips,
            "step_total": self.totals[1],
            "inverse_gamma": LOG2_E / self.gamma if self.gamma > 0 else 0.0,
        }

    def constants(self) -> dict[str, Any]:
        inf = math.inf
        borders = (inf, inf, 0.0)
        if self.measure == "otam":
            borders = (0.0, inf, inf) if self.lane_axis else (inf, 0.0, inf)
        return {
            "OTAM": self.measure == "otam",
            "LANE_AXIS": self.lane_axis,
            "LANE_BORDER": borders[0],
            "STEP_BORDER": borders[1],
            "CORNER": borders[2],
            "SOFT": self.gamma > 0,
            "STRIPS": self.num_strips > 1,
            "BLOCK": self.block,
            "PACK": self.pack,
        }

    def options(self, *, nvidia: bool) -> dict[str, int]:
        """Compiler options: one warp where the shift between lanes can be a warp shuffle, else a few elements a thread.

        Left alone, ptxas spills a register of a wide block to fit one more on a multiprocessor; latency matters more.
        """
        if self.block <= 128:
            return {"num_warps": 1}
        num_warps = self.block // (128 if self.cost.element_size() == 4 else 64)
        return {"num_warps": num_warps, "maxnreg": 128} if nvidia else {"num_warps": num_warps}
