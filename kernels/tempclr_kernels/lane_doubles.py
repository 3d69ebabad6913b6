"""Soft distances with sums in double: for float64 costs, for float32 costs too large for gamma, for second derivatives.

Same three functions and arguments as ``reference.py``, for ``gamma > 0``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from . import lane_kernels
from .lane_threads import run_in_threads

MAX_LANES = 32
SCRATCH_BYTES = 64 << 20  # per thread, unless a single pair needs more


def distance(
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> Tensor:
    """Distance of every matrix under every order: ``(B, K)``."""
    shared, num_orders = _arguments(cost, lengths, row_orders, column_orders, measure)
    out = cost.new_empty(len(cost), num_orders)
    values = out.numpy()
    lanes = _num_lanes(out.numel(), 0)

    def run(start: int, stop: int) -> None:
        lane_kernels.distances(*shared, gamma, lanes, start, stop, values)

    run_in_threads(run, out.numel(), cells=out.numel() * cost[0].numel() if len(cost) else 0, step=lanes)
    return out


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
    """Gradient of ``(grad_distance * distance).sum()`` by the cost: ``(B, n, m)``."""
    shared, num_orders = _arguments(cost, lengths, row_orders, column_orders, measure)
    gradient = torch.zeros_like(cost)
    into, weights = gradient.numpy(), _array(grad_distance)
    lanes = _num_lanes(weights.size, _scratch_bytes(cost, 3 * cost.element_size()))

    def run(start: int, stop: int) -> None:
        lane_kernels.soft_vjp(*shared, gamma, lanes, start, stop, weights, into)

    _run_by_matrix(run, cost, num_orders)
    return gradient


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
    """Along ``tangent (B, n, m)``: derivative of ``distance_vjp`` (B, n, m), and of ``distance`` (B, K)."""
    shared, num_orders = _arguments(cost, lengths, row_orders, column_orders, measure)
    product, slope = torch.zeros_like(cost), cost.new_empty(len(cost), num_orders)
    into, values, weights, along = product.numpy(), slope.numpy(), _array(grad_distance), _array(tangent)
    lanes = _num_lanes(weights.size, _scratch_bytes(cost, 6 * cost.element_size()))

    def run(start: int, stop: int) -> None:
        lane_kernels.soft_second(*shared, gamma, lanes, start, stop, weights, along, into, values)

    _run_by_matrix(run, cost, num_orders)
    return product, slope


def _run_by_matrix(run: Callable[[int, int], None], cost: Tensor, num_orders: int) -> None:
    """Ranges of pairs that never split a matrix: its gradient is summed by one thread, in the order of the pairs."""
    num_pairs = len(cost) * num_orders
    if num_pairs:
        run_in_threads(run, num_pairs, cells=num_pairs * cost[0].numel(), step=num_orders)


def _arguments(
    cost: Tensor, lengths: Tensor, row_orders: Tensor | None, column_orders: Tensor | None, measure: str
) -> tuple[tuple[np.ndarray | int, ...], int]:
    orders = row_orders if row_orders is not None else column_orders
    num_orders = 1 if orders is None else orders.shape[1]
    arrays = (_array(cost), _array(lengths), _order_array(row_orders), _order_array(column_orders))
    return (*arrays, num_orders, int(measure == "otam")), num_orders


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _order_array(orders: Tensor | None) -> np.ndarray:
    return np.empty((0, 0, 0), np.int64) if orders is None else _array(orders)


def _scratch_bytes(cost: Tensor, bytes_per_cell: int) -> int:
    return cost.shape[1] * (cost.shape[2] + 1) * bytes_per_cell


def _num_lanes(num_pairs: int, scratch_bytes_per_lane: int) -> int:
    """Pairs per block: at most ``MAX_LANES``, blocks of about equal size, within the scratch memory."""
    fitting = max(1, min(MAX_LANES, SCRATCH_BYTES // max(1, scratch_bytes_per_lane)))
    num_blocks = max(1, -(-num_pairs // fitting))
    lanes = max(1, -(-num_pairs // num_blocks))
    return min(fitting, -(-lanes // 8) * 8) if lanes > 4 else lanes
