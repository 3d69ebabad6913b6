"""Ranges of pairs in Python threads, as many as torch is told to use."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

CELLS_PER_THREAD = 100_000  # below this many cells another thread costs more than it brings


def run_in_threads(run: Callable[[int, int], None], count: int, *, cells: int, step: int = 1) -> None:
    """Calls ``run(start, stop)`` on ranges that cover ``range(count)`` and begin at multiples of ``step``.

    As many threads as ``torch.get_num_threads()``, fewer for little work. Results do not depend on their number.
    """
    num_steps = -(-count // step)
    num_threads = max(1, min(torch.get_num_threads(), num_steps, cells // CELLS_PER_THREAD))
    if num_threads == 1:
        run(0, count)
        return
    edges = [min(count, step * (num_steps * t // num_threads)) for t in range(num_threads + 1)]
    ranges = list(itertools.pairwise(edges))
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
