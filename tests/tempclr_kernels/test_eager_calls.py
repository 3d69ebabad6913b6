"""Calls that pass by the dispatcher give what the operators give, and stand aside when somebody watches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from tempclr_kernels import alignment, dtw, eager, operators, otam

LENGTHS = torch.tensor([[5, 4], [2, 3], [5, 1]])


def both(cost: Tensor, lengths: Tensor | None, *rest: Any) -> list[list[Tensor]]:
    """Value and gradient by the operator, and past it."""
    results = []
    for function, sizes in ((operators.distance, operators.full_lengths(cost)), (eager.distance, None)):
        variable = cost.clone().requires_grad_()
        value = function(variable, sizes if lengths is None else lengths, *rest, "numba")
        weights = torch.linspace(-1, 1, value.numel()).view(value.shape)
        (gradient,) = torch.autograd.grad((value * weights).sum(), variable)
        results.append([value.detach().view(3, -1), gradient])
    return results


@pytest.mark.parametrize("gamma", (0.0, 0.2))
@pytest.mark.parametrize("measure", ("dtw", "otam"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("num_orders", (None, 1, 4))
@pytest.mark.parametrize("ragged", (False, True))
def test_past_the_dispatcher_nothing_changes(measure, gamma, dtype, num_orders, ragged, make_orders):
    """Note [Past the dispatcher]"""
    cost = torch.rand(3, 5, 4, dtype=dtype)
    cost[1, 0, 0], cost[2, 0, 0] = torch.nan, torch.inf
    lengths = LENGTHS if ragged else None
    sizes = operators.full_lengths(cost) if lengths is None else lengths
    orders = (
        [None, None]
        if num_orders is None
        else [make_orders(sizes[:, axis].tolist(), num_orders, cost.shape[1 + axis]) for axis in (0, 1)]
    )
    (value, gradient), (found, found_gradient) = both(cost, lengths, *orders, measure, gamma)
    assert torch.equal(found.isnan(), value.isnan()) and torch.equal(found.nan_to_num(), value.nan_to_num())
    # The weights come before the backward sweep, or after it.
    atol = 1e-6 if dtype == torch.float32 else 0
    torch.testing.assert_close(found_gradient, gradient, rtol=0, atol=atol, equal_nan=True)


@pytest.mark.parametrize("gamma", (0.0, 0.2))
def test_what_is_changed_before_the_backward_is_noticed(gamma: float):
    """A gradient made with the value would be that of other costs, lengths or orders."""
    cost, lengths, orders = torch.rand(3, 5, 4), LENGTHS.clone(), torch.arange(4).repeat(3, 2, 1)
    for changed in range(3):
        moved = cost + torch.zeros((), requires_grad=True)
        value = dtw(moved, lengths, column_orders=orders, gamma=gamma)
        (moved.detach(), lengths, orders)[changed].add_(0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.sum().backward()


@pytest.mark.parametrize("gamma", (0.0, 0.2))
def test_saved_tensors_may_move_or_be_made_again(gamma: float):
    cost = torch.rand(3, 5, 4, requires_grad=True)
    expected = alignment(cost.detach(), gamma=gamma)
    with torch.autograd.graph.save_on_cpu():
        elsewhere = dtw(cost, gamma=gamma)
    for value in (elsewhere, checkpoint(lambda x: dtw(x, gamma=gamma), cost, use_reentrant=False)):
        for retained in (True, False):
            assert torch.equal(torch.autograd.grad(value.sum(), cost, retain_graph=retained)[0], expected)


@pytest.mark.parametrize("impl", ("reference", "numba"))
@pytest.mark.parametrize("function", (dtw, otam, alignment))
def test_forward_mode_is_refused(function, impl: str):
    """Note [Tangents are refused]"""
    cost = torch.rand(2, 3, 4)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="reverse mode"):
        function(forward_ad.make_dual(cost, torch.ones_like(cost)), gamma=0.1, impl=impl)
    with pytest.raises(NotImplementedError, match="reverse mode"):
        torch.func.jvp(lambda x: function(x, gamma=0.1, impl=impl), (cost,), (cost,))
    with forward_ad.dual_level():
        function(cost, impl=impl)


def test_vmap_takes_one_at_a_time():
    cost = torch.rand(2, 3, 4, 5)
    assert torch.equal(torch.func.vmap(lambda x: dtw(x, gamma=0.1))(cost), dtw(cost, gamma=0.1))


def test_plain_is_what_nobody_watches(monkeypatch):
    """Note [Past the dispatcher]"""
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    cost = torch.rand(2, 3, 4)
    assert eager.is_plain(cost, None, torch.nn.Parameter(cost))
    assert not eager.is_plain(cost.to("meta"))
    with FakeTensorMode() as mode:
        assert not eager.is_plain(cost)
    assert not eager.is_plain(mode.from_tensor(cost))
    seen = []
    torch.func.grad(lambda x: seen.append(eager.is_plain(x)) or x.sum())(cost)
    assert seen == [False]
    graph = make_fx(lambda x: dtw(x, gamma=0.1))(cost)
    assert "distance" in graph.code
    monkeypatch.delattr(torch._C, "_len_torch_dispatch_stack")
    assert not eager.is_plain(cost)


@pytest.mark.parametrize("gamma", (0.0, 0.3))
def test_second_derivatives_and_retained_graphs(gamma: float):
    cost = torch.rand(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: dtw(x, gamma=gamma) ** 2, cost)
    value = otam(cost, gamma=gamma, both_ways=True)
    once = torch.autograd.grad(value.sum(), cost, retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(value.sum(), cost)[0], once)
    torch.testing.assert_close(once, alignment(cost.detach(), measure="otam", gamma=gamma, both_ways=True))


@pytest.mark.parametrize("impl_changes", (False, True))
def test_a_retained_graph_gives_its_gradient_again(impl_changes: bool, monkeypatch):
    """Note [Visits become the gradient]: and not one that somebody has multiplied in the meantime."""
    if impl_changes:
        monkeypatch.delattr(torch._C._autograd, "_get_current_graph_task_keep_graph")
    cost = torch.rand(3, 4, 3, requires_grad=True)
    distance, weights = dtw(cost, gamma=0.1), torch.tensor([1.0, -2.0, 3.0])
    first = torch.autograd.grad((distance * weights).sum(), cost, retain_graph=True)[0]
    kept = first.clone()
    first.zero_()
    last = torch.autograd.grad((distance * weights).sum(), cost)[0]
    assert torch.equal(last, kept)
    expected = alignment(cost.detach(), gamma=0.1) * weights.view(3, 1, 1)
    torch.testing.assert_close(last, expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(distance.sum(), cost)


def test_a_batched_gradient_goes_through_the_operator():
    cost = torch.rand(3, 4, 3, requires_grad=True)
    value = dtw(cost, gamma=0.1)
    rows = torch.autograd.grad(value, cost, torch.eye(3), is_grads_batched=True, retain_graph=True)[0]
    expected = torch.stack([torch.autograd.grad(value[i], cost, retain_graph=True)[0] for i in range(3)])
    torch.testing.assert_close(rows, expected)
