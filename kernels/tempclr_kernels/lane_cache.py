"""How numba kernels are compiled and cached: the decorator of every kernel in this package."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit

_SOURCES = Path(__file__).parent


def njit_kernel(**options: Any) -> Any:
    """``numba.njit`` without the interpreter lock, cached on disk where some folder can be written."""
    # A function that says nothing of fastmath takes it from whoever calls it first, and would then not see NaN.
    options = {"fastmath": False, **options}

    def compile_lazily(function: Any) -> Any:
        try:
            kernel = njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder for its cache: compile in every process
            return njit(nogil=True, **options)(function)
        discard_stale_caches(Path(kernel.stats.cache_path), sources=_SOURCES)
        return kernel

    return compile_lazily


# Note [Stale kernel caches]: numba compares a cached kernel with the file that kernel is written in, not with the
# files of the functions it calls. After a change in lane_rows.py the kernels that inline its rows would go on with
# the old code, so caches older than the newest of our numba files are removed before they are read, in the folder
# that numba has chosen: beside the sources, below NUMBA_CACHE_DIR, or in the user's own cache.
def discard_stale_caches(folder: Path, *, sources: Path) -> int:
    """Removes cache indices in ``folder`` older than a numba source in ``sources``. Returns how many."""
    newest = max((source.stat().st_mtime for source in sources.glob("*.py") if _is_ours(source)), default=0.0)
    removed = 0
    for index in filter(_is_ours, folder.glob("*.nbi")):
        with suppress(FileNotFoundError):  # another process that starts now may have removed it
            if index.stat().st_mtime < newest:
                index.unlink()
                removed += 1
    return removed


def _is_ours(path: Path) -> bool:
    return path.name.startswith(("lane_", "pairwise_kernels"))
