"""What must be true of any costs: neither padding, company, nor the way orders are given changes a distance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tempclr_kernels import alignment, dtw, otam

DISTANCES = {"dtw": dtw, "otam": otam}
IMPLS = ("reference", "numba")
sides = st.integers(1, 6)
measures = st.sampled_from(("dtw", "otam"))
gammas = st.sampled_from((0.0, 0.1, 1.0))
impls = st.sampled_from(IMPLS)
seeds = st.integers(0, 2**31)
few = settings(max_examples=40, deadline=None)


def random_cost(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(measure: str, cost: Tensor, *arguments: Tensor, **settings) -> tuple[Tensor, Tensor]:
    cost = cost.detach().clone().requires_grad_()
    value = DISTANCES[measure](cost, *arguments, **settings)
    (gradient,) = torch.autograd.grad(value.sum(), cost)
    return value.detach(), gradient


@few
@given(seeds, sides, sides, st.integers(0, 3), st.integers(0, 3), measures, gammas, impls)
def test_padding_is_invisible(seed, n, m, more_rows, more_columns, measure, gamma, impl):
    cost = random_cost(seed, n, m)
    padded = torch.full((n + more_rows, m + more_columns), torch.nan, dtype=torch.float64)
    padded[:n, :m] = cost
    alone, gradient = value_and_gradient(measure, cost, gamma=gamma, impl=impl)
    value, padded_gradient = value_and_gradient(measure, padded, torch.tensor([n, m]), gamma=gamma, impl=impl)
    assert torch.equal(alone, value)
    assert torch.equal(padded_gradient[:n, :m], gradient)
    assert padded_gradient.sum() == pytest.approx(gradient.sum().item())
    assert torch.count_nonzero(padded_gradient[n:]) == torch.count_nonzero(padded_gradient[:, m:]) == 0


@few
@given(seeds, st.integers(1, 70), sides, sides, measures, gammas)
def test_batching_is_invisible(seed, batch, n, m, measure, gamma):
    cost = random_cost(seed, batch, n, m)
    value, gradient = value_and_gradient(measure, cost, gamma=gamma)
    which = seed % batch
    alone, alone_gradient = value_and_gradient(measure, cost[which], gamma=gamma)
    assert torch.equal(value[which], alone)
    assert torch.equal(gradient[which], alone_gradient)


@few
@given(seeds, sides, sides, measures, impls)
def test_a_vanishing_gamma_is_the_hard_minimum(seed, n, m, measure, impl):
    cost = random_cost(seed, n, m)
    hard, path = value_and_gradient(measure, cost, impl=impl)
    soft, visits = value_and_gradient(measure, cost, gamma=1e-9, impl=impl)
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-7)
    torch.testing.assert_close(visits, path, rtol=0, atol=1e-6)
    assert DISTANCES[measure](cost, gamma=0.5, impl=impl) <= hard + 1e-12


@few
@given(seeds, sides, sides, gammas, impls)
def test_dtw_is_symmetric_under_transposition(seed, n, m, gamma, impl):
    cost = random_cost(seed, n, m)
    torch.testing.assert_close(
        dtw(cost, gamma=gamma, impl=impl), dtw(cost.T, gamma=gamma, impl=impl), rtol=1e-13, atol=0
    )


@few
@given(seeds, sides, sides, st.sampled_from((1.0, 0.1)), impls)
def test_otam_matches_each_column_once(seed, n, m, gamma, impl):
    visits = alignment(random_cost(seed, n, m), measure="otam", gamma=gamma, impl=impl)
    columns = visits.sum(0)
    assert (visits >= 0).all()
    torch.testing.assert_close(columns[1:], torch.ones(m - 1, dtype=torch.float64))
    assert columns[0] >= 1 - 1e-12


@few
@given(seeds, sides, sides, st.integers(1, 5), measures, gammas, impls, st.sampled_from(("rows", "columns", "both")))
def test_orders_equal_copies(seed, n, m, k, measure, gamma, impl, which):
    generator = torch.Generator().manual_seed(seed)
    cost = random_cost(seed, 2, n, m)
    # Twice the same matrix; in the second one a last row and column lie beyond the lengths.
    lengths = torch.tensor([[n, m], [max(1, n - 1), max(1, m - 1)]])
    orders: dict[str, Tensor] = {}
    for name, axis in (("rows", 0), ("columns", 1)):
        if which in (name, "both"):
            size = (n, m)[axis]
            each = torch.full((2, k, size), size + 3)
            for b in range(2):
                for order in each[b]:
                    count = int(lengths[b, axis])
                    order[:count] = torch.randperm(count, generator=generator)
            orders[f"{name[:-1]}_orders"] = each
    weights = random_cost(seed + 1, 2, k)

    ours = cost.clone().requires_grad_()
    value = DISTANCES[measure](ours, lengths, gamma=gamma, impl=impl, **orders)
    (gradient,) = torch.autograd.grad((value * weights).sum(), ours)

    theirs = cost.clone().requires_grad_()
    copies = []
    for b in range(2):
        rows, columns = lengths[b].tolist()
        for j in range(k):
            copy = theirs[b, :rows, :columns]
            if "row_orders" in orders:
                copy = copy[orders["row_orders"][b, j, :rows]]
            if "column_orders" in orders:
                copy = copy[:, orders["column_orders"][b, j, :columns]]
            copies.append(DISTANCES[measure](copy, gamma=gamma, impl="reference"))
    expected = torch.stack(copies).view(2, k)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), theirs)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-11)


@few
@given(seeds, sides, sides, measures, gammas, impls)
def test_forbidden_cells_get_no_gradient(seed, n, m, measure, gamma, impl):
    cost = random_cost(seed, n, m)
    closed = torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) < 0.3
    cost[closed] = torch.inf
    value, gradient = value_and_gradient(measure, cost, gamma=gamma, impl=impl)
    assert not value.isnan() and gradient.isfinite().all()
    assert (gradient[closed] == 0).all()
    finite = torch.where(closed, 1e6, cost)  # a wall too high to climb stands for a forbidden cell
    if dtw(torch.where(closed, 1.0, 0.0)) == 0 and measure == "dtw":
        torch.testing.assert_close(value, DISTANCES[measure](finite, gamma=gamma, impl=impl))
    if value.isinf():
        assert (gradient == 0).all()
        assert DISTANCES[measure](finite, impl=impl) > 1e5
