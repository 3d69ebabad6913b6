"""The CPU implementation: numba kernels (``lane_kernels.py``) run over pairs, in threads when there is enough to do.

Same three functions and arguments as ``reference.py``. Permuted copies of the cost never exist: kernels read through
the orders and add gradients back through them.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from . import lane_kernels

MAX_LANES = 32
SCRATCH_BYTES = 64 << 20  # per thread, unless a single pair needs more
CELLS_PER_THREAD = 100_000  # below this many cells another thread costs more than it brings

Range = tuple[int, int]


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
    lanes = _num_lanes(weights.size, _scratch_bytes(cost, 1 if gamma == 0 else 3 * cost.element_size()))
    no_tangent, no_slope = _empty(cost, 3), _empty(cost, 2)

    def run(start: int, stop: int) -> None:
        if gamma == 0:
            lane_kernels.hard_paths(*shared, lanes, start, stop, weights, no_tangent, into, no_slope)
        else:
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
    lanes = _num_lanes(weights.size, _scratch_bytes(cost, 1 if gamma == 0 else 6 * cost.element_size()))
    no_gradient = _empty(cost, 3)

    def run(start: int, stop: int) -> None:
        if gamma == 0:
            lane_kernels.hard_paths(*shared, lanes, start, stop, weights, along, no_gradient, values)
        else:
            lane_kernels.soft_second(*shared, gamma, lanes, start, stop, weights, along, into, values)

    _run_by_matrix(run, cost, num_orders)
    return product, slope


def run_in_threads(run: Callable[[int, int], None], count: int, *, cells: int, step: int = 1) -> None:
    """Calls ``run(start, stop)`` on ranges that cover ``range(count)`` and begin at multiples of ``step``.

    As many threads as ``torch.get_num_threads()``, fewer for little work. Results do not depend on their number.
    """
    num_steps = -(-count // step)
    num_threads = max(1, min(torch.get_num_threads(), num_steps, cells // CELLS_PER_THREAD))
    edges = [min(count, step * (num_steps * t // num_threads)) for t in range(num_threads + 1)]
    ranges = list(itertools.pairwise(edges))
    if num_threads == 1:
        run(0, count)
        return
    # The calling thread takes the first range: whoever comes first compiles, the others wait.
    waiting = [_pool(num_threads - 1).submit(run, *r) for r in ranges[1:]]
    run(*ranges[0])
    for future in waiting:
        future.result()


# Note [Threads of our own]: numba's parallel back ends abort the process after fork() (OpenMP) or when two Python
# threads call at once (workqueue). The kernels release the interpreter lock, so plain Python threads do; a forked
# child, such as a DataLoader worker, forgets its parent's pool and makes one when it needs it.
_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def _pool(num_threads: int) -> ThreadPoolExecutor:
    with _lock:
        if num_threads not in _pools:
            _pools[num_threads] = ThreadPoolExecutor(num_threads, thread_name_prefix="tempclr-kernels")
        return _pools[num_threads]


def _forget_pools() -> None:
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


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


def _empty(cost: Tensor, num_dimensions: int) -> np.ndarray:
    return cost.new_empty((0,) * num_dimensions).numpy()


def _scratch_bytes(cost: Tensor, bytes_per_cell: int) -> int:
    return cost.shape[1] * (cost.shape[2] + 1) * bytes_per_cell


def _num_lanes(num_pairs: int, scratch_bytes_per_lane: int) -> int:
    """Pairs per block: at most ``MAX_LANES``, blocks of about equal size, within the scratch memory."""
    fitting = max(1, min(MAX_LANES, SCRATCH_BYTES // max(1, scratch_bytes_per_lane)))
    num_blocks = max(1, -(-num_pairs // fitting))
    lanes = max(1, -(-num_pairs // num_blocks))
    return min(fitting, -(-lanes // 8) * 8) if lanes > 4 else lanes
