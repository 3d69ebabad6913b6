"""Ranges of pairs in Python threads, as many as torch is told to use, and memory that each thread keeps."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

CELLS_PER_THREAD = 100_000  # below this many cells another thread costs more than it brings
KEPT_BYTES = 32 << 20  # of scratch memory, by each thread between calls


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


# Note [Scratch is kept]: memory that goes back to the system comes again in pages of zeros, and clearing them can take
# as long as the sweep that uses them. So a thread keeps its scratch from call to call, unless it is large.
def scratch(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 memory that holds anything: the calling thread's own, until it asks again."""
    size = math.prod(shape)
    memory = getattr(_kept, "memory", None)
    if memory is None or memory.size < size:
        _kept.memory = None  # before there is more
        memory = np.empty(size, np.float32)
        if memory.nbytes <= KEPT_BYTES:
            _kept.memory = memory
    return memory[:size].reshape(shape)


_kept = threading.local()


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
