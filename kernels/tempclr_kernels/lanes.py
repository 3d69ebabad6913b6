"""The CPU implementation: numba kernels over pairs side by side, in threads when there is enough to do.

Same three functions and arguments as ``reference.py``; ``distance_keeping`` and ``vjp_of_kept`` split a gradient into
what is best done with the distance and what is left then. Permuted copies of the cost never exist: kernels read
through the orders and add gradients back through them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import lane_doubles, lane_hard, lane_soft
from .lane_threads import run_in_threads, scratch

FEW_PAIRS = 8  # at most so many run in vectors of 8 lanes, more in vectors of 32
SCRATCH_BYTES = 64 << 20  # per thread: beyond it 8 lanes for hard paths, strips for soft gradients
STRIP_BYTES = 1 << 20  # weights of a strip: half of a usual second-level cache

# Note [Hard sums in float where they are exact enough]: adding L numbers of one sign in float32 is wrong by less than
# L * 2**-24 of their sum. A path of n x m cells has less than n + m of them: up to 160, float32 keeps 1e-5. Lengths do
# not count, only the sizes of the tensor: the sums of one call are of one kind.
EXACT_STEPS = 160


class Paths(NamedTuple):
    """Cells of chosen paths as positions in their matrix (B, K, n + m); how many there are (B, K), -1 for NaN."""

    cells: np.ndarray
    num_cells: np.ndarray


class _Problem:
    """The arguments, and what follows from them once."""

    def __init__(
        self,
        cost: Tensor,
        lengths: Tensor | None,
        row_orders: Tensor | None,
        column_orders: Tensor | None,
        measure: str,
        gamma: float,
    ) -> None:
        self.cost, self.lengths, self.measure, self.gamma = cost, lengths, measure, gamma
        self.row_orders, self.column_orders = row_orders, column_orders
        self.num_matrices, self.num_rows, self.num_columns = cost.shape
        orders = row_orders if row_orders is not None else column_orders
        self.has_orders = orders is not None
        self.num_orders = 1 if orders is None else orders.shape[1]
        self.num_pairs = self.num_matrices * self.num_orders
        self.cells = self.num_pairs * self.num_rows * self.num_columns
        self.is_float = cost.dtype == torch.float32
        self.is_soft_in_float = self.is_float and 1e-30 < gamma < 1e30

    def arrays(self) -> tuple[np.ndarray | int, ...]:
        """The arguments that all kernels begin with."""
        return (
            _array(self.cost),
            _NO_LENGTHS if self.lengths is None else _array(self.lengths),
            _NO_ORDERS if self.row_orders is None else _array(self.row_orders),
            _NO_ORDERS if self.column_orders is None else _array(self.column_orders),
            self.num_orders,
            1 if self.measure == "otam" else 0,
        )

    def new_distance(self) -> Tensor:
        return torch.empty(self.num_matrices, self.num_orders, dtype=self.cost.dtype)

    def part(self, matrices: Tensor) -> _Problem:
        """The same for some of the matrices."""
        lengths, rows, columns = (
            None if t is None else t[matrices] for t in (self.lengths, self.row_orders, self.column_orders)
        )
        return _Problem(self.cost[matrices], lengths, rows, columns, self.measure, self.gamma)

    def with_lengths(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        sizes = torch.tensor(self.cost.shape[1:]).expand(self.num_matrices, 2)
        return self.cost, sizes if self.lengths is None else self.lengths, self.row_orders, self.column_orders


_NO_ORDERS, _NO_LENGTHS = np.empty((0, 0, 0), np.int64), np.empty((0, 0), np.int64)
_NO_WEIGHTS = np.empty((0, 0), np.float32)
_WIDTHS = {8: np.int8(0), 32: np.int32(0)}
_INFINITE, _INFINITE_DOUBLE = np.float32(np.inf), np.float64(np.inf)


def distance(
    cost: Tensor,
    lengths: Tensor | None,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> Tensor:
    """Distance of every matrix under every order: ``(B, K)``. Without lengths the matrices are full."""
    problem = _Problem(cost, lengths, row_orders, column_orders, measure, gamma)
    if gamma == 0:
        return _hard_distance(problem)
    if problem.is_soft_in_float:
        return _soft_distance(problem)
    return lane_doubles.distance(*problem.with_lengths(), measure=measure, gamma=gamma)


def distance_vjp(
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor | None,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> Tensor:
    """Gradient of ``(grad_distance * distance).sum()`` by the cost: ``(B, n, m)``."""
    problem = _Problem(cost, lengths, row_orders, column_orders, measure, gamma)
    if gamma == 0:
        return _spread(cost, lengths, _hard_paths(problem)[1], grad_distance)
    if problem.is_soft_in_float:
        return _soft_visits(problem, grad_distance)[1]
    return lane_doubles.distance_vjp(grad_distance, *problem.with_lengths(), measure=measure, gamma=gamma)


def distance_second(
    tangent: Tensor,
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor | None,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Along ``tangent (B, n, m)``: derivative of ``distance_vjp`` (B, n, m), and of ``distance`` (B, K)."""
    problem = _Problem(cost, lengths, row_orders, column_orders, measure, gamma)
    if gamma > 0:
        arguments = problem.with_lengths()
        return lane_doubles.distance_second(tangent, grad_distance, *arguments, measure=measure, gamma=gamma)
    slope = torch.empty_like(grad_distance, memory_format=torch.contiguous_format)
    lane_hard.gathered(*_hard_paths(problem)[1], _array(tangent), slope.numpy())
    return torch.zeros_like(cost), slope


def distance_keeping(
    cost: Tensor,
    lengths: Tensor | None,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> tuple[Tensor, Tensor | None, Paths | None]:
    """As ``distance``, with what makes its gradient cheap.

    That is the visits (B, n, m), 4 bytes a cell, for a soft minimum and one order; the paths for the hard minimum;
    else nothing.
    """
    problem = _Problem(cost, lengths, row_orders, column_orders, measure, gamma)
    if gamma == 0:
        value, paths = _hard_paths(problem)
        return value, None, paths
    if problem.is_soft_in_float and problem.num_orders == 1:
        return *_soft_visits(problem, None), None
    return distance(cost, lengths, row_orders, column_orders, measure=measure, gamma=gamma), None, None


def vjp_of_kept(
    grad_distance: Tensor,
    visits: Tensor | None,
    paths: Paths | None,
    cost: Tensor,
    lengths: Tensor | None,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
    once: bool = False,
) -> Tensor:
    """As ``distance_vjp``, of the arguments and the results of ``distance_keeping``; ``once`` may use those up."""
    if visits is not None:
        weights = grad_distance.unsqueeze(-1)
        return visits.mul_(weights) if once else visits * weights
    if paths is not None:
        return _spread(cost, lengths, paths, grad_distance)
    return distance_vjp(grad_distance, cost, lengths, row_orders, column_orders, measure=measure, gamma=gamma)


def _hard_distance(problem: _Problem) -> Tensor:
    out, lanes = problem.new_distance(), _num_lanes(problem)
    shared, width, infinity, values = problem.arrays(), _WIDTHS[lanes], _infinity(problem), out.numpy()

    def run(start: int, stop: int) -> None:
        lane_hard.hard_distances(*shared, start, stop, width, infinity, values)

    run_in_threads(run, problem.num_pairs, cells=problem.cells, step=lanes)
    return out


def _hard_paths(problem: _Problem) -> tuple[Tensor, Paths]:
    n, m = problem.num_rows, problem.num_columns
    out, shape = problem.new_distance(), (problem.num_matrices, problem.num_orders)
    paths = Paths(
        np.empty((*shape, n + m), np.int64 if n * m > 2**31 - 1 else np.int32),
        np.empty(shape, np.int32),
    )
    lanes, infinity = _num_lanes(problem, scratch_bytes=8 * n * (m + 1)), _infinity(problem)
    shared, width, values = problem.arrays(), _WIDTHS[lanes], out.numpy()

    def run(start: int, stop: int) -> None:
        lane_hard.hard_paths(*shared, start, stop, width, infinity, values, *paths)

    run_in_threads(run, problem.num_pairs, cells=problem.cells, step=lanes)
    return out, paths


def _spread(cost: Tensor, lengths: Tensor | None, paths: Paths, grad_distance: Tensor) -> Tensor:
    gradient = torch.empty_like(cost)
    sizes = _NO_LENGTHS if lengths is None else _array(lengths)
    weights, into = _array(grad_distance), gradient.numpy()

    def run(start: int, stop: int) -> None:
        lane_hard.spread(sizes, *paths, weights, start, stop, into)

    run_in_threads(run, len(into), cells=into.size)
    return gradient


def _soft_distance(problem: _Problem) -> Tensor:
    out, lanes = problem.new_distance(), _num_lanes(problem)
    refused = np.zeros(problem.num_matrices, np.bool_)
    shared, width, units, values = problem.arrays(), _WIDTHS[lanes], _units(problem.gamma), out.numpy()

    def run(start: int, stop: int) -> None:
        lane_soft.soft_distances(*shared, start, stop, width, *units, values, refused)

    run_in_threads(run, problem.num_pairs, cells=problem.cells, step=lanes)
    if refused.any():
        matrices = torch.from_numpy(refused).nonzero().squeeze(1)
        arguments = problem.part(matrices).with_lengths()
        out[matrices] = lane_doubles.distance(*arguments, measure=problem.measure, gamma=problem.gamma)
    return out


def _soft_visits(problem: _Problem, grad_distance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Distances, and the sum of each matrix's visits times ``grad_distance`` (1 if None)."""
    out, gradient = problem.new_distance(), torch.empty_like(problem.cost)
    refused, lanes = np.zeros(problem.num_matrices, np.bool_), _num_lanes(problem)
    shared, width, units = problem.arrays(), _WIDTHS[lanes], _units(problem.gamma)
    weights = _NO_WEIGHTS if grad_distance is None else _array(grad_distance)
    kept = (2, _strip_rows(problem, lanes), problem.num_columns + (problem.measure == "otam"), lanes)
    values, into = out.numpy(), gradient.numpy()

    def run(start: int, stop: int) -> None:
        lane_soft.soft_visits(*shared, start, stop, width, *units, weights, scratch(kept), values, into, refused)

    # Ranges never split a matrix: its gradient is summed by one thread, in the order of the pairs.
    run_in_threads(run, problem.num_pairs, cells=problem.cells, step=problem.num_orders)
    if refused.any():
        matrices, measure, gamma = torch.from_numpy(refused).nonzero().squeeze(1), problem.measure, problem.gamma
        arguments = problem.part(matrices).with_lengths()
        out[matrices] = lane_doubles.distance(*arguments, measure=measure, gamma=gamma)
        given = torch.ones_like(out[matrices]) if grad_distance is None else grad_distance[matrices]
        gradient[matrices] = lane_doubles.distance_vjp(given, *arguments, measure=measure, gamma=gamma)
    return out, gradient


def _num_lanes(problem: _Problem, *, scratch_bytes: int = 0) -> int:
    return 8 if problem.num_pairs <= FEW_PAIRS or scratch_bytes > SCRATCH_BYTES else 32


def _strip_rows(problem: _Problem, lanes: int) -> int:
    """Rows whose weights are kept at once: all if they fit into the scratch memory."""
    row_bytes = (12 if problem.has_orders else 8) * (problem.num_columns + 1) * lanes
    if problem.num_rows * row_bytes <= SCRATCH_BYTES:
        return problem.num_rows
    return max(1, math.isqrt(problem.num_rows), STRIP_BYTES // row_bytes)


def _infinity(problem: _Problem) -> np.floating:
    exact_enough = problem.is_float and problem.num_rows + problem.num_columns <= EXACT_STEPS
    return _INFINITE if exact_enough else _INFINITE_DOUBLE


def _units(gamma: float) -> tuple[np.float32, np.float32, float]:
    """1 / (gamma * log 2) as a sum of two float32, and its inverse."""
    unit = gamma * math.log(2)
    scale = np.float32(1 / unit)
    return scale, np.float32(1 / unit - float(scale)), unit


def _array(tensor: Tensor) -> np.ndarray:
    return (
        tensor.numpy() if tensor.is_contiguous() and not tensor.requires_grad else tensor.detach().contiguous().numpy()
    )
