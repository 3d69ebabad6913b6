"""Times in rounds over everything that is compared, so that a slow spell of the machine hits all alike."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)

SAMPLE_SECONDS = 0.005
MAX_REPEATS = 50
PACKAGES = ("torch", "numba", "numpy")


# Note [The clock of one thread]: on a machine that does other work, the wall clock also counts what others do in a long
# sample, and rarely in a short one, which flatters whatever is quick. One thread's work is its processor time.
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def clock_for(threads: int) -> str:
    """The name of the clock that is fair to runs on so many threads."""
    return "processor" if threads == 1 else "wall"


def seconds_of(run: Callable[[], Any], *, repeats: int = 1, clock: str = "wall") -> float:
    """Seconds one call takes, on average over ``repeats`` calls in a row."""
    read = CLOCKS[clock]
    start = read()
    for _ in range(repeats):
        run()
    return (read() - start) / repeats


def interleaved(
    runs: Mapping[Key, Callable[[], Any]], *, num_rounds: int, clock: str = "wall"
) -> dict[Key, list[float]]:
    """Milliseconds of each entry in each round; every round times every entry once.

    One round before goes uncounted: it warms up and says how often a quick entry is repeated to make one sample of
    about 5 ms. Rounds begin with a different entry each, so that none always follows the same neighbour.
    """
    repeats = {}
    for key, run in runs.items():
        run()
        repeats[key] = min(MAX_REPEATS, max(1, round(SAMPLE_SECONDS / max(seconds_of(run), 1e-9))))
    keys = list(runs)
    samples: dict[Key, list[float]] = {key: [] for key in keys}
    for number in range(num_rounds):
        first = number % max(1, len(keys))
        for key in keys[first:] + keys[:first]:
            with _no_collection():
                samples[key].append(1000 * seconds_of(runs[key], repeats=repeats[key], clock=clock))
    return samples


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect(0)
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def summary(samples: Sequence[float], *, scale: float = 1.0) -> dict[str, float]:
    """Median and 20th and 80th percentiles, each times ``scale``.

    >>> summary([3.0, 1.0, 2.0])
    {'median_ms': 2.0, 'p20_ms': 1.4, 'p80_ms': 2.6}
    """
    low, *_, high = quantiles(samples, n=5, method="inclusive") if len(samples) > 1 else [samples[0]] * 2
    return {"median_ms": scale * median(samples), "p20_ms": scale * low, "p80_ms": scale * high}


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Torch and numba on ``count`` threads inside the block, and on as many as before after it."""
    import numba

    if not 1 <= count <= numba.config.NUMBA_NUM_THREADS:
        raise ValueError(f"{count} threads, expected 1 to {numba.config.NUMBA_NUM_THREADS}, what this machine has")
    before = torch.get_num_threads(), numba.get_num_threads()
    try:
        torch.set_num_threads(count)
        numba.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


def machine() -> dict[str, Any]:
    """What a time means nothing without: processor, packages, threads, and how busy the machine is."""
    return {
        "cpu": _cpu_model(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in (*PACKAGES, "tempclr")},
        "git_revision": git_revision(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed_otherwise(package: str) -> str | None:
    """What ``pip install package`` would not have done as it stands here; None where it would.

    An installer leaves its name, and keeps to what a package asks for; a wheel unpacked by hand, or installed without
    its dependencies, may be timed all the same, but not in silence.
    """
    from packaging.requirements import Requirement

    found = distribution(package)
    said = []
    if not (found.read_text("INSTALLER") or "").strip():
        tags = [line.removeprefix("Tag: ") for line in (found.read_text("WHEEL") or "").splitlines() if "Tag:" in line]
        said.append(f"unpacked by hand from its wheel ({', '.join(tags) or 'no tag'})")
    for requirement in map(Requirement, found.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            present = _version(requirement.name)
            if present is None or not requirement.specifier.contains(present, prereleases=True):
                said.append(f"without its {requirement} (here: {present or 'none'})")
    return "; ".join(said) or None


def git_revision() -> str | None:
    """Revision of the checkout this package is run from, marked when files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    # An environment inside somebody else's checkout has a revision too, but not ours.
    if not (root / ".git").exists():
        return None
    try:
        revision = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "tempclr", "kernels")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + (" with local changes" if changed else "")


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
