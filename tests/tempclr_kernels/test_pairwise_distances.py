"""All pairs: equal to one pair at a time, whatever the chunks; bounded memory; mistakes named."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from tempclr_kernels import dtw, otam, pairwise, pairwise_distances

IMPLS = ("reference", "numba")


def sequences(count: int, size: int, d: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Random embeddings and lengths, the first full; NaN beyond them."""
    lengths = torch.randint(1, size + 1, (count,))
    lengths[0] = size
    embeddings = torch.randn(count, size, d, dtype=dtype)
    return embeddings.masked_fill((torch.arange(size) >= lengths[:, None])[..., None], math.nan), lengths


def one_by_one(a: Tensor, b: Tensor, a_lengths: Tensor, b_lengths: Tensor, measure: str, **how) -> Tensor:
    """The definition, on the units that exist."""
    rows = []
    for x, n in zip(a, a_lengths.tolist(), strict=True):
        row = []
        for y, m in zip(b, b_lengths.tolist(), strict=True):
            x_units, y_units = x[:n], y[:m]
            close = x_units @ y_units.T
            if how["similarity"] == "cosine":
                close = close / (x_units.norm(dim=1)[:, None] * y_units.norm(dim=1) + how["eps"])
            if measure == "cap_avg":
                row.append(-close.max(1).values.mean())
            elif measure == "dtw":
                row.append(dtw(1 - close, gamma=how["gamma"]))
            else:
                row.append(otam(1 - close, gamma=how["gamma"], both_ways=how["both_ways"]))
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("similarity", ("cosine", "dot"))
@pytest.mark.parametrize(
    ("measure", "gamma", "both_ways"),
    [
        ("dtw", 0.0, False),
        ("dtw", 0.1, False),
        ("otam", 0.0, False),
        ("otam", 0.0, True),
        ("otam", 0.1, True),
        ("cap_avg", 0.0, False),
    ],
)
@pytest.mark.parametrize("impl", IMPLS)
def test_equals_one_pair_at_a_time(
    impl: str, measure: str, gamma: float, both_ways: bool, similarity: str, monkeypatch: pytest.MonkeyPatch
):
    a, a_lengths = sequences(3, 4)
    b, b_lengths = sequences(5 if impl == "reference" else 37, 6)
    how = {"gamma": gamma, "both_ways": both_ways, "similarity": similarity, "eps": 0.01}
    expected = one_by_one(a, b, a_lengths, b_lengths, measure, **how)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(
        pairwise_distances(a, b, a_lengths, b_lengths, measure=measure, impl=impl, **how), expected, **close
    )
    monkeypatch.setattr(pairwise, "WORKING_MEMORY_BYTES", 4000)
    monkeypatch.setattr(pairwise, "CACHE_BYTES", 1000)
    in_chunks = pairwise_distances(a, b, a_lengths, b_lengths, measure=measure, impl=impl, **how)
    torch.testing.assert_close(in_chunks, expected, **close)
    single = pairwise_distances(a.float(), b.float(), a_lengths, b_lengths, measure=measure, impl=impl, **how)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_zero_vectors_are_similar_to_nothing(impl: str):
    a = torch.zeros(1, 2, 3)
    b = torch.randn(2, 2, 3)
    assert pairwise_distances(a, b, impl=impl).tolist() == [[2.0, 2.0]]
    assert pairwise_distances(a, b, measure="cap_avg", impl=impl).abs().tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("measure", ("dtw", "otam", "cap_avg"))
def test_a_broken_embedding_breaks_its_own_distances(measure: str, impl: str):
    a, a_lengths = sequences(3, 4)
    b, b_lengths = sequences(4, 3)
    clean = pairwise_distances(a, b, a_lengths, b_lengths, measure=measure, impl=impl)
    a[1, 0, 2] = math.nan
    b[0, 1, 1] = math.inf
    found = pairwise_distances(a, b, a_lengths, b_lengths, measure=measure, impl=impl)
    assert found[1].isnan().all() and found[:, 0].isnan().all()
    assert torch.equal(found[[0, 2], 1:], clean[[0, 2], 1:])


@pytest.mark.parametrize("impl", IMPLS)
def test_sets_of_sequences_of_any_kind(impl: str):
    a, b = torch.randn(2, 3, 5), torch.randn(4, 6, 5)
    assert pairwise_distances(a[:0], b, impl=impl).shape == (0, 4)
    assert pairwise_distances(a, b[:0], impl=impl).shape == (2, 0)
    expected = pairwise_distances(a.bfloat16().float(), b.bfloat16().float(), impl=impl)
    torch.testing.assert_close(pairwise_distances(a.bfloat16(), b.bfloat16(), impl=impl), expected)
    assert pairwise_distances(a, b.double(), impl=impl).dtype == torch.float64
    strided = pairwise_distances(a.mT.contiguous().mT, b.mT.contiguous().mT, impl=impl)
    torch.testing.assert_close(strided, pairwise_distances(a, b, impl=impl))


@pytest.mark.parametrize("impl", IMPLS)
def test_autocast_changes_nothing(impl: str):
    a, b = torch.randn(2, 3, 8), torch.randn(3, 4, 8)
    expected = pairwise_distances(a, b, impl=impl)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pairwise_distances(a, b, impl=impl), expected)


@pytest.mark.parametrize("impl", IMPLS)
def test_units_without_numbers_are_similar_to_nothing(impl: str):
    assert pairwise_distances(torch.empty(1, 2, 0), torch.empty(2, 3, 0), impl=impl).tolist() == [[3.0, 3.0]]


def test_the_result_is_detached():
    a = torch.randn(2, 3, 5, requires_grad=True)
    assert not pairwise_distances(a, a).requires_grad


A, B = torch.randn(2, 3, 5), torch.randn(4, 6, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"a": A[0]}, ValueError, r"a must have shape \(sequences, units, d\), got \(3, 5\)"),
        ({"b": B.long()}, TypeError, "b must be a floating tensor, got torch.int64"),
        ({"b": B[..., :4]}, ValueError, "a and b must embed into one space, got d = 5 and 4"),
        ({"b": B.to("meta")}, ValueError, "a is on cpu, b on meta"),
        ({"a_lengths": torch.tensor([3, 0])}, ValueError, r"a_lengths\[1\]: 0 units, expected 1 to 3"),
        ({"b_lengths": torch.tensor([6, 7, 1, 1])}, ValueError, r"b_lengths\[1\]: 7 units, expected 1 to 6"),
        ({"b_lengths": torch.ones(3).long()}, ValueError, r"b_lengths must have shape \(4,\), got \(3,\)"),
        ({"measure": "cosine"}, ValueError, "measure must be one of dtw, otam, cap_avg, got 'cosine'"),
        ({"measure": "cap_avg", "gamma": 0.1}, ValueError, "measure 'cap_avg' knows no gamma"),
        ({"both_ways": True}, ValueError, "both_ways belongs to the measure 'otam'"),
        ({"similarity": "l2"}, ValueError, "similarity must be one of cosine, dot, got 'l2'"),
        ({"eps": -1.0}, ValueError, "eps must be finite and >= 0, got -1.0"),
        ({"eps": math.nan}, ValueError, "eps must be finite and >= 0, got nan"),
        ({"b": B.numpy()}, TypeError, "b must be a tensor, got ndarray: use torch.as_tensor"),
        ({"gamma": -1.0}, ValueError, "gamma must be finite and >= 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_mistakes_are_named(arguments: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        pairwise_distances(**{"a": A, "b": B, **arguments})


MEMORY = """
import resource, torch
from tempclr_kernels import pairwise_distances
torch.set_num_threads(1)
a, b = torch.randn(1500, 12, 64), torch.randn(1500, 60, 64)
pairwise_distances(a[:40], b[:40], measure="{measure}", impl="{impl}")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pairwise_distances(a[:{count}], b[:{count}], measure="{measure}", impl="{impl}")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("measure", "impl", "count"), (("dtw", "numba", 1500), ("cap_avg", "reference", 400)))
def test_working_memory_is_bounded(measure: str, impl: str, count: int):
    """1500 x 1500 x 12 x 60 costs would take 6.5 GB at once; the limit is 256 MB, and the result's 9."""
    script = MEMORY.format(measure=measure, impl=impl, count=count)
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd="kernels")
    assert int(found.stdout) / 1024 < 280
