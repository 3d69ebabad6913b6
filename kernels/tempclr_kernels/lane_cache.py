"""How numba kernels are compiled and cached: the decorator of every kernel in this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numba import njit


def njit_kernel(**options: Any) -> Any:
    """``numba.njit`` without the interpreter lock, cached on disk where some folder can be written."""
    # A function that says nothing of fastmath takes it from whoever calls it first, and would then not see NaN.
    options = {"fastmath": False, **options}

    def compile_lazily(function: Any) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder for its cache: compile in every process
            return njit(nogil=True, **options)(function)

    return compile_lazily


# Note [Stale kernel caches]: numba compares a cached kernel with the file that kernel is written in, not with the
# files of the functions it calls. After a change in lane_rows.py the kernels that inline its rows would go on with
# the old code, so caches older than the newest of our numba files are removed before they are read.
def discard_stale_caches(folder: Path) -> int:
    """Removes cache indices in ``folder/__pycache__`` older than a numba source in ``folder``. Returns how many."""
    newest = max((source.stat().st_mtime for source in folder.glob("*.py") if _is_ours(source)), default=0.0)
    stale = [index for index in folder.glob("__pycache__/*.nbi") if _is_ours(index) and index.stat().st_mtime < newest]
    for index in stale:
        index.unlink(missing_ok=True)
    return len(stale)


def _is_ours(path: Path) -> bool:
    return path.name.startswith(("lane_", "pairwise_kernels"))


discard_stale_caches(Path(__file__).parent)
