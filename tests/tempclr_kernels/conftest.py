"""Problems to align: ragged matrices with poisoned padding, and orders of their valid units."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


def _ragged(sizes: list[tuple[int, int]], *, dtype: torch.dtype = torch.float64, padding: float = torch.nan) -> Tensor:
    """Random signed costs, one matrix a pair of sizes; ``padding`` beyond them."""
    n, m = max(size[0] for size in sizes), max(size[1] for size in sizes)
    cost = torch.full((len(sizes), n, m), padding, dtype=dtype)
    for matrix, (rows, columns) in zip(cost, sizes, strict=True):
        matrix[:rows, :columns] = torch.randn(rows, columns, dtype=dtype)
    return cost


def _orders(counts: list[int], num_orders: int, size: int) -> Tensor:
    """``(len(counts), num_orders, size)``: permutations of the first ``count`` positions, and rubbish after them."""
    orders = torch.full((len(counts), num_orders, size), -7)
    for each, count in zip(orders, counts, strict=True):
        for order in each:
            order[:count] = torch.randperm(count)
    return orders


@pytest.fixture
def make_ragged() -> Callable[..., Tensor]:
    return _ragged


@pytest.fixture
def make_orders() -> Callable[..., Tensor]:
    return _orders


@pytest.fixture(scope="session")
def interpret(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs a test file as a script in Triton's interpreter, once for all processes of the tests: its output file.

    The interpreter is chosen when kernels are defined, so it has a process of its own.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    @functools.cache
    def run(script: str, *words: str) -> Path:
        output = shared / "-".join(["interpreted", Path(script).stem, *words])
        with FileLock(f"{output}.lock"):
            if not output.exists():
                path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
                environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path, **_coverage_settings()}
                command = [sys.executable, script, *words, str(output)]
                done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr[-4000:]
        return output

    return run


def _coverage_settings() -> dict[str, str]:
    if "coverage" not in sys.modules or sys.modules["coverage"].Coverage.current() is None:
        return {}
    return {"COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"), "COVERAGE_FILE": str(ROOT / ".coverage")}
