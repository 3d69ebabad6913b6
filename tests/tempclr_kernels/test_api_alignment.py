"""The contract of dtw, otam and alignment: shapes, dtypes, errors, autograd, compilation."""

from __future__ import annotations

import doctest
import importlib
import sys

import pytest
import torch
from torch import Tensor

from tempclr_kernels import alignment, api, dtw, operators, otam, pairwise_distances

IMPLS = ("reference", "numba")


@pytest.mark.parametrize("module", ("api", "recurrence", "pairwise"))
def test_examples_in_docstrings_run(module: str):
    found = importlib.import_module(f"tempclr_kernels.{module}")
    names = {"torch": torch, **vars(found)}
    failed, attempted = doctest.testmod(found, extraglobs=names)
    assert attempted and not failed


@pytest.mark.parametrize("impl", IMPLS)
def test_any_leading_dimensions_and_memory_layout(impl: str):
    cost = torch.rand(2, 3, 5, 4)
    value = dtw(cost, impl=impl)
    assert value.shape == (2, 3)
    assert dtw(cost[0, 0], impl=impl).shape == ()
    torch.testing.assert_close(dtw(cost[0, 0], impl=impl), value[0, 0])
    torch.testing.assert_close(dtw(cost.transpose(0, 1), impl=impl), value.T)
    expanded = cost[:, :1].expand(-1, 3, -1, -1).requires_grad_()
    assert torch.equal(dtw(expanded, impl=impl)[:, 0], dtw(expanded, impl=impl)[:, 2])
    dtw(expanded, gamma=0.1, impl=impl).sum().backward()
    assert alignment(cost, impl=impl).shape == cost.shape


@pytest.mark.parametrize("impl", IMPLS)
def test_an_empty_batch_gives_an_empty_answer(impl: str):
    cost = torch.empty(0, 4, 3, requires_grad=True)
    distance = dtw(cost, gamma=0.1, impl=impl)
    assert distance.shape == (0,)
    distance.sum().backward()
    assert cost.grad is not None and cost.grad.shape == (0, 4, 3)
    assert otam(cost, both_ways=True, column_orders=torch.empty(0, 7, 3).long(), impl=impl).shape == (0, 7)
    assert alignment(cost, impl=impl).shape == (0, 4, 3)
    assert dtw(torch.rand(2, 4, 3), row_orders=torch.empty(2, 0, 4).long(), impl=impl).shape == (2, 0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float32, torch.float64), ids=str)
def test_half_precision_gives_float32_and_double_stays_double(dtype: torch.dtype, impl: str):
    cost = torch.rand(3, 4, 5).to(dtype).requires_grad_()
    distance = dtw(cost, gamma=0.1, impl=impl)
    assert distance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    distance.sum().backward()
    assert cost.grad is not None and cost.grad.dtype == dtype
    expected = dtw(cost.detach().double(), gamma=0.1, impl="reference")
    torch.testing.assert_close(distance.double(), expected, rtol=1e-6, atol=1e-6)


def test_autocast_changes_nothing():
    a, b = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = 1 - a @ b.mT
        assert cost.dtype == torch.bfloat16
        distance = dtw(cost, gamma=0.1)
    assert distance.dtype == torch.float32
    assert torch.equal(distance, dtw(cost.float(), gamma=0.1))


@pytest.mark.parametrize("impl", IMPLS)
def test_both_ways_adds_the_transposed_problem(impl: str, make_ragged, make_orders):
    sizes = [(4, 5), (2, 3), (1, 5)]
    cost, lengths = make_ragged(sizes), torch.tensor(sizes)
    rows, columns = make_orders([4, 2, 1], 6, 4), make_orders([5, 3, 5], 6, 5)
    how = {"gamma": 0.3, "impl": impl}
    both = otam(cost, lengths, both_ways=True, row_orders=rows, column_orders=columns, **how)
    there = otam(cost, lengths, row_orders=rows, column_orders=columns, **how)
    back = otam(cost.mT.contiguous(), lengths.flip(-1), row_orders=columns, column_orders=rows, **how)
    assert torch.equal(both, there + back)
    visits = alignment(cost, lengths, measure="otam", both_ways=True, **how)
    turned = alignment(cost.mT, lengths.flip(-1), measure="otam", **how).mT
    assert torch.equal(visits, alignment(cost, lengths, measure="otam", **how) + turned)


@pytest.mark.parametrize("impl", IMPLS)
def test_inference_mode(impl: str):
    cost = torch.rand(2, 3, 4)
    with torch.inference_mode():
        inside = cost * 2
        assert torch.equal(dtw(inside, gamma=0.1, impl=impl), dtw(cost * 2, gamma=0.1, impl=impl))
        visits = alignment(inside, measure="otam", gamma=0.1, both_ways=True, impl=impl)
    assert torch.equal(visits, alignment(cost * 2, measure="otam", gamma=0.1, both_ways=True, impl=impl))


COST = torch.rand(2, 3, 4)
LENGTHS = torch.tensor([[3, 4], [2, 2]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cost": [[0.0]]}, TypeError, "cost must be a tensor, got list: use torch.as_tensor"),
        ({"lengths": (3, 4)}, TypeError, "lengths must be a tensor, got tuple: use torch.as_tensor"),
        ({"cost": torch.rand(3)}, ValueError, r"cost must have shape \(\.\.\., n, m\), got \(3,\)"),
        ({"cost": torch.ones(3, 4).long()}, TypeError, "cost must be a floating tensor, got torch.int64"),
        ({"gamma": -0.1}, ValueError, "gamma must be finite and >= 0, got -0.1"),
        ({"gamma": float("nan")}, ValueError, "gamma must be finite"),
        ({"gamma": torch.tensor(0.1)}, TypeError, "gamma must be a Python number"),
        ({"lengths": LENGTHS.float()}, TypeError, "lengths must be an integer tensor, got torch.float32"),
        ({"lengths": LENGTHS[0]}, ValueError, r"lengths must have shape \(2, 2\), got \(2,\)"),
        ({"lengths": LENGTHS.to("meta")}, ValueError, "lengths is on meta, the other arguments on cpu"),
        ({"lengths": torch.tensor([[3, 4], [0, 2]])}, ValueError, r"lengths\[1\]: 0 rows, expected 1 to 3"),
        ({"lengths": torch.tensor([[3, 5], [1, 2]])}, ValueError, r"lengths\[0\]: 5 columns, expected 1 to 4"),
        ({"row_orders": torch.zeros(2, 3).long()}, ValueError, r"row_orders must have shape \(2, k, 3\)"),
        ({"column_orders": torch.zeros(2, 5, 3).long()}, ValueError, r"column_orders must have shape \(2, k, 4\)"),
        (
            {"column_orders": torch.tensor([[[0, 1, 2, 3]], [[1, 2, 0, 3]]]), "lengths": LENGTHS},
            ValueError,
            r"column_orders\[1, 0\] begins with \[1, 2\], expected a permutation of 0 to 1",
        ),
        ({"row_orders": torch.tensor([[[0, 1, 1]]] * 2)}, ValueError, r"row_orders\[0, 0\] begins with \[0, 1, 1\]"),
        ({"row_orders": torch.tensor([[[0, 1, 99]]] * 2)}, ValueError, r"row_orders\[0, 0\]"),
        (
            {"row_orders": torch.zeros(2, 1, 3).long(), "column_orders": torch.zeros(2, 2, 4).long()},
            ValueError,
            "got 1 row_orders and 2 column_orders",
        ),
        ({"impl": "cuda"}, ValueError, "impl must be None or one of reference, numba, triton, got 'cuda'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("impl", IMPLS)
def test_mistakes_are_named(arguments: dict, error: type[Exception], message: str, impl: str):
    with pytest.raises(error, match=message):
        dtw(**{"cost": COST, "impl": impl, **arguments})


def test_a_matrix_without_units_is_named():
    with pytest.raises(ValueError, match=r"lengths\[0\]: 0 columns, expected 1 to 0"):
        dtw(torch.empty(2, 3, 0))
    with pytest.raises(ValueError, match=r"lengths\[\]: 0 rows"):
        alignment(torch.rand(3, 4), torch.tensor([0, 4]))


def test_mistakes_of_measure():
    with pytest.raises(ValueError, match="measure must be one of dtw, otam, got 'cap_avg'"):
        alignment(COST, measure="cap_avg")
    with pytest.raises(ValueError, match="both_ways belongs to the measure 'otam'"):
        alignment(COST, both_ways=True)


def test_an_implementation_that_cannot_run_says_why(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    pytest.importorskip("triton")
    for arguments in ({"cost": COST}, {"cost": COST[:0]}):
        with pytest.raises(RuntimeError, match="set TRITON_INTERPRET=1 before Python starts"):
            dtw(**arguments, impl="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # too late: the kernels are defined
    for function in (dtw, alignment, lambda cost, impl: pairwise_distances(cost, cost, impl=impl)):
        with pytest.raises(RuntimeError, match="set TRITON_INTERPRET=1 before Python starts"):
            function(COST, impl="triton")
    with pytest.raises(RuntimeError, match="impl='triton' runs on CUDA, the cost is on meta"):
        dtw(COST.to("meta"), impl="triton")
    with pytest.raises(RuntimeError, match="impl='numba' runs on the CPU, the cost is on meta"):
        dtw(COST.to("meta"), impl="numba")
    with pytest.raises(ValueError, match="no implementation for meta"):
        dtw(COST.to("meta"))
    assert api.choose_implementation(None, torch.device("cuda")) == "triton"


def test_a_missing_numba_is_named(monkeypatch):
    import tempclr_kernels

    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [
        name for name in sys.modules if name.startswith(("tempclr_kernels.lane", "tempclr_kernels.pairwise_"))
    ]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(tempclr_kernels, name.removeprefix("tempclr_kernels."), raising=False)
    for function in (dtw, alignment, lambda cost: pairwise_distances(cost, cost)):
        with pytest.raises(RuntimeError, match=r"impl='numba' needs the package numba, .*: pip install numba"):
            function(COST)
    assert dtw(COST, impl="reference").shape == (2,)


def test_values_elsewhere_are_clamped_not_read(monkeypatch):
    """Note [Values are checked without stalling]: what the CPU refuses is clamped on a device, unless debugging."""
    from tempclr_kernels import checks

    monkeypatch.setattr(checks, "looks_at_values", lambda tensor: False)
    wrong = torch.tensor([[9, 4], [2, -1]])
    assert checks.checked_lengths(wrong, 3, 4).tolist() == [[3, 4], [2, 1]]
    assert checks.checked_sizes(wrong[:, 0], 3, name="a_lengths").tolist() == [3, 2]
    assert checks.checked_orders(torch.tensor([[-3, 7]]), wrong[0, :1], 2, name="row_orders").tolist() == [[0, 1]]
    monkeypatch.undo()
    on_device = torch.empty(1, device="meta")
    assert not checks.looks_at_values(on_device)
    monkeypatch.setenv("TEMPCLR_DEBUG", "1")
    assert checks.looks_at_values(on_device)


def test_the_hard_alignment_is_piecewise_constant_and_third_derivatives_say_no():
    cost = COST.clone().requires_grad_()
    alignment(cost).sum().backward()
    assert cost.grad is not None and not cost.grad.any()
    with pytest.raises(NotImplementedError, match="third derivatives"):
        (first,) = torch.autograd.grad(dtw(cost, gamma=0.1).sum(), cost, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), cost, create_graph=True)
        second.sum().backward()
    assert not alignment(COST, gamma=0.1, impl="reference").requires_grad


def loss(cost: Tensor, lengths: Tensor, columns: Tensor) -> Tensor:
    """Uses everything a loss may: a contrast over orders, both measures, a differentiated alignment."""
    shuffled = dtw(cost, lengths, gamma=0.1, column_orders=columns)
    visits = alignment(cost, lengths, gamma=0.1)
    contrast = shuffled[:, 0] + torch.logsumexp(-shuffled, -1)
    return (contrast + otam(cost, lengths, gamma=0.1, both_ways=True) + dtw(cost)).sum() + (visits * cost.sin()).sum()


@pytest.mark.parametrize("backend", ("aot_eager", pytest.param("inductor", marks=pytest.mark.slow)))
def test_a_loss_compiles_into_one_graph(backend: str, make_orders):
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for batch in (2, 3):
        cost = torch.rand(batch, 3, 4)
        lengths = torch.tensor([[3, 4], [2, 2], [1, 4]])[:batch]
        columns = make_orders(lengths[:, 1].tolist(), 5, 4)
        results = []
        for function in (loss, compiled):
            variable = cost.clone().requires_grad_()
            value = function(variable, lengths, columns)
            value.backward()
            results.append((value.detach(), variable.grad))
        torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"lengths\[0\]: 0 rows"):
        compiled(cost, torch.zeros_like(lengths), columns)


@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_operators_keep_the_rules_of_torch(measure: str, make_orders):
    cost = torch.rand(2, 3, 4, requires_grad=True)
    settings = (LENGTHS, None, make_orders([4, 2], 5, 4), measure, 0.2, "numba")
    weights = torch.rand(2, 5, requires_grad=True)
    torch.library.opcheck(operators.distance, (cost, *settings))
    torch.library.opcheck(operators.distance_vjp, (weights, cost, *settings))
    tangent = torch.rand(2, 3, 4)
    plain = (tangent, weights.detach(), cost.detach(), *settings)
    torch.library.opcheck(operators.distance_second, plain)
