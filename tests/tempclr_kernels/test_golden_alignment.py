"""Numbers that the released TempCLR code gave (float64, gamma = 0.1): shared/golden of the project, copied here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr_kernels import dtw, otam

GOLDEN = np.load(Path(__file__).parent / "data/released_alignments.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})
GAMMA = 0.1


def golden(case: str, what: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[f"{case}/{what}"])


@pytest.mark.parametrize("impl", ("reference", "numba"))
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_soft_distances_and_gradients(measure: str, case: str, impl: str):
    cost = golden(case, "D").requires_grad_()
    distance = {"dtw": dtw, "otam": otam}[measure](cost, gamma=GAMMA, impl=impl)
    torch.testing.assert_close(distance, golden(case, f"soft_{measure}/f64"), rtol=1e-9, atol=1e-9)
    (distance * golden(case, f"soft_{measure}_w")).sum().backward()
    torch.testing.assert_close(cost.grad, golden(case, f"soft_{measure}_grad/f64"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("impl", ("reference", "numba"))
@pytest.mark.parametrize("case", CASES)
def test_otam_both_ways(case: str, impl: str):
    distance = otam(golden(case, "D"), gamma=GAMMA, both_ways=True, impl=impl)
    torch.testing.assert_close(distance, golden(case, "soft_otam_both/f64"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_hard_dtw_of_every_prefix(case: str):
    cost, table = golden(case, "D"), golden(case, "hard_dtw_cum/f64")
    n, m = cost.shape[-2:]
    prefixes = torch.cartesian_prod(torch.arange(1, n + 1), torch.arange(1, m + 1))
    every = cost.unsqueeze(-3).expand(*cost.shape[:-2], n * m, n, m)
    lengths = prefixes.expand(*cost.shape[:-2], n * m, 2)
    torch.testing.assert_close(dtw(every, lengths).unflatten(-1, (n, m)), table, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_float32_is_as_good_as_its_rounding(case: str):
    for measure, distance in (("dtw", dtw), ("otam", otam)):
        value = distance(golden(case, "D").float(), gamma=GAMMA)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), golden(case, f"soft_{measure}/f64"), rtol=1e-6, atol=1e-6)
