"""All pairs by the Triton kernels, without a GPU: run in the interpreter, held to the CPU's path in float64.

As in `test_triton_interpreter`, the cases run in one child process; memory that nobody wrote is NaN there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tempclr_kernels import pairwise, pairwise_distances, wavefront


@dataclass(frozen=True)
class Case:
    """One call: sizes (A, n, B, m), and a working memory that forces chunks."""

    measure: str
    gamma: float = 0.0
    both_ways: bool = False
    similarity: str = "cosine"
    eps: float = 0.0
    sizes: tuple[int, int, int, int] = (3, 5, 37, 6)
    dtype: str = "float64"
    memory: int = 1 << 28

    def __str__(self) -> str:
        names = [self.measure, f"gamma{self.gamma:g}", "both" if self.both_ways else "", self.similarity]
        names += [f"eps{self.eps:g}" if self.eps else "", "x".join(map(str, self.sizes)), self.dtype]
        return "-".join(filter(None, [*names, "chunks" if self.memory < 1 << 28 else ""]))

    @property
    def settings(self) -> dict[str, Any]:
        names = ("measure", "gamma", "both_ways", "similarity", "eps")
        return {name: getattr(self, name) for name in names}


CASES = [
    Case("dtw"),
    Case("dtw", dtype="float32", memory=60_000),
    Case("dtw", 0.1, similarity="dot"),
    Case("dtw", 0.1, dtype="float32", eps=0.01),
    Case("dtw", 1e-3, dtype="float32", sizes=(2, 3, 5, 9)),
    Case("otam", both_ways=True, eps=0.01),
    Case("otam", sizes=(2, 9, 3, 4), similarity="dot"),
    Case("otam", 0.1, both_ways=True, dtype="float32", memory=20_000),
    Case("otam", 0.1, both_ways=True, sizes=(3, 7, 33, 3)),
    Case("cap_avg"),
    Case("cap_avg", eps=0.01, dtype="float32", memory=60_000),
    Case("dtw", sizes=(1, 1, 1, 1)),
    Case("otam", 0.1, both_ways=True, sizes=(2, 1, 3, 1)),
    Case("otam", both_ways=True, sizes=(2, 1, 3, 5)),
    Case("dtw", 0.1, sizes=(2, 5, 2, 1)),
    Case("dtw", dtype="bfloat16"),
]


def make_inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings of ragged lengths, NaN beyond them; a vector of zeros, and a sequence that is not finite."""
    generator = torch.Generator().manual_seed(CASES.index(case))
    num_a, n, num_b, m = case.sizes
    found: list[Tensor] = []
    for count, size in ((num_a, n), (num_b, m)):
        sequences = torch.randn(count, size, 4, generator=generator, dtype=torch.float64)
        lengths = torch.randint(1, size + 1, (count,), generator=generator)
        lengths[0] = size
        sequences[-1, 0] = 0
        if count > 2:
            sequences[1, 0, 0] = torch.inf
        beyond = torch.arange(size) >= lengths[:, None]
        found += [sequences.masked_fill(beyond[..., None], torch.nan).to(getattr(torch, case.dtype)), lengths]
    return found[0], found[2], found[1], found[3]


def main(output: str) -> None:
    torch.set_num_threads(1)
    wavefront._empty = lambda shape, like: torch.full(shape, float("nan"), dtype=like.dtype)
    pairwise.MANY_PAIRS = 1
    found = {}
    for case in CASES:
        pairwise.WORKING_MEMORY_BYTES = case.memory
        found[str(case)] = pairwise_distances(*make_inputs(case), impl="triton", **case.settings)
    pairwise.MANY_PAIRS = 1 << 30
    found["few"] = pairwise_distances(*make_inputs(CASES[0]), impl="triton")
    torch.save(found, output)


@pytest.fixture(scope="module")
def results(interpret: Callable[..., Path]) -> dict[str, Tensor]:
    return torch.load(interpret(__file__))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_path_of_the_cpu(case: Case, results: dict[str, Tensor]) -> None:
    """Note [Clamped, not masked]: what lies beyond the lengths is NaN here, and reaches no answer."""
    a, b, a_lengths, b_lengths = make_inputs(case)
    expected = pairwise_distances(a.double(), b.double(), a_lengths, b_lengths, impl="numba", **case.settings)
    found = results[str(case)]
    assert found.dtype == (torch.float64 if case.dtype == "float64" else torch.float32)
    # Each of n + m sums is rounded once, as is each of the d terms of a cost, about 1 each.
    slack = 4 * torch.finfo(found.dtype).eps * sum(case.sizes[1::2]) * max(1.0, expected.nan_to_num().abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=float(slack), equal_nan=True)
    if case.sizes[0] > 2:
        assert found[1].isnan().all() and found[0, 0].isfinite()


def test_few_pairs_go_as_matrices(results: dict[str, Tensor]) -> None:
    """Both ways through the GPU agree, so the threshold decides nothing but speed."""
    torch.testing.assert_close(results["few"], results[str(CASES[0])], equal_nan=True)


if __name__ == "__main__":
    if "COVERAGE_PROCESS_START" in os.environ:
        import coverage

        coverage.process_startup()
    main(sys.argv[1])
