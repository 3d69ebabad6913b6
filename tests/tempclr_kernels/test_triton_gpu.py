"""The Triton kernels on a CUDA device at real sizes, held to the CPU implementation in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tempclr_kernels import alignment, dtw, otam, wavefront
from tempclr_kernels.api import choose_implementation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MEASURES = {"dtw": dtw, "otam": otam}
# Training pairs, a paragraph against long videos both ways round, many warps a matrix, and several strips.
SHAPES = [(528, 32, 32), (16, 2000, 40), (16, 40, 2000), (4, 200, 180), (2, 1500, 1300)]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that forgets an element hands out NaN."""
    monkeypatch.setattr(
        wavefront, "_empty", lambda shape, like: torch.full(shape, torch.nan, dtype=like.dtype, device=like.device)
    )


def make_problem(
    shape: tuple[int, int, int], *, num_orders: int = 0, gamma: float = 0.1, seed: int = 0
) -> dict[str, Tensor]:
    """Ragged matrices on the CPU, NaN beyond the lengths; for the hard minimum small multiples of 1/4 (exact sums)."""
    generator = torch.Generator().manual_seed(seed)
    num_matrices, num_rows, num_columns = shape
    cost = torch.rand(shape, generator=generator) * 2 - 0.5
    if gamma == 0:
        cost = (cost * 4).round() / 4
    lengths = torch.stack(
        [torch.randint(1, size + 1, (num_matrices,), generator=generator) for size in (num_rows, num_columns)], 1
    )
    lengths[0] = torch.tensor([num_rows, num_columns])
    rows = torch.arange(num_rows)[:, None] < lengths[:, 0].view(-1, 1, 1)
    columns = torch.arange(num_columns) < lengths[:, 1].view(-1, 1, 1)
    problem = {"cost": torch.where(rows & columns, cost, torch.nan), "lengths": lengths}
    if num_orders:
        keys = torch.rand(num_matrices, num_orders, num_columns, generator=generator)
        keys += 2.0 * (torch.arange(num_columns) >= lengths[:, 1].view(-1, 1, 1))
        problem["column_orders"] = keys.argsort(-1)
    return problem


def run(measure: str, problem: dict[str, Tensor], gamma: float, **settings: Any) -> tuple[Tensor, Tensor]:
    """Distance and gradient of its weighted sum."""
    inputs = dict(problem)
    cost = inputs.pop("cost").detach().requires_grad_()
    distance = MEASURES[measure](cost, gamma=gamma, **inputs, **settings)
    weights = torch.linspace(-1, 1, distance.numel(), dtype=cost.dtype, device=cost.device).view_as(distance)
    (grad_cost,) = torch.autograd.grad((distance * weights).sum(), cost)
    return distance.detach(), grad_cost


def on_cuda(problem: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: x.cuda().to(dtype) if x.is_floating_point() else x.cuda() for name, x in problem.items()}


def in_double(problem: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() if x.is_floating_point() else x for name, x in problem.items()}


def assert_as_exact_as(
    dtype: torch.dtype, found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor], gamma: float
) -> None:
    """Every accumulated cost is rounded once a step; a softmin weight sees that error over gamma."""
    size = exact[0].abs().max().item()
    steps = sum(exact[1].shape[-2:])
    precision = 4 * torch.finfo(dtype).eps * steps
    num_orders = exact[0].numel() // exact[1].shape[0]
    value_slack = precision * size if gamma else 0.0
    gradient_slack = num_orders * precision * (1 + size / gamma if gamma else 1.0)
    torch.testing.assert_close(found[0].cpu().double(), exact[0].double(), rtol=0, atol=value_slack)
    torch.testing.assert_close(found[1].cpu().double(), exact[1].double(), rtol=0, atol=gradient_slack)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_value_and_gradient(measure: str, shape: tuple[int, int, int], gamma: float, dtype: torch.dtype) -> None:
    problem = make_problem(shape, gamma=gamma)
    exact = run(measure, in_double(problem), gamma, impl="numba")
    assert_as_exact_as(dtype, run(measure, on_cuda(problem, dtype), gamma), exact, gamma)


@pytest.mark.parametrize("gamma", [0.0, 0.1])
@pytest.mark.parametrize("measure", MEASURES)
def test_shuffled_orders(measure: str, gamma: float) -> None:
    problem = make_problem((16, 32, 32), num_orders=32, gamma=gamma)
    exact = run(measure, in_double(problem), gamma, impl="numba")
    assert_as_exact_as(torch.float32, run(measure, on_cuda(problem), gamma), exact, gamma)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_small_workspace_changes_nothing(measure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = on_cuda(make_problem((16, 20, 24), num_orders=5, gamma=0.0))
    whole = run(measure, problem, 0.0)
    monkeypatch.setattr(wavefront, "WORKSPACE_BYTES", 50_000)
    for found, expected in zip(run(measure, problem, 0.0), whole, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_repeats_bit_for_bit(measure: str, shape: tuple[int, int, int]) -> None:
    problem = on_cuda(make_problem(shape, num_orders=3 if shape[1] < 1000 else 0))
    first = run(measure, problem, 0.1)
    for _ in range(5):
        for found, expected in zip(run(measure, problem, 0.1), first, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_captured_in_a_cuda_graph(measure: str) -> None:
    problem = on_cuda(make_problem((16, 32, 32), num_orders=8))
    orders = (None, problem["column_orders"])
    settings: dict[str, Any] = {"measure": measure, "gamma": 0.1}
    grad_distance = torch.ones(16, 8, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        arguments = (problem["cost"], problem["lengths"], *orders)
        return wavefront.distance(*arguments, **settings), wavefront.distance_vjp(grad_distance, *arguments, **settings)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    problem["cost"].copy_(make_problem((16, 32, 32), num_orders=8, seed=0)["cost"] + 0.25)
    graph.replay()
    for found, expected in zip(captured, step(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 5, 3)], ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_first_and_second_derivatives_by_finite_differences(measure: str, shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(shape, generator=generator, dtype=torch.float64).cuda().requires_grad_()

    def distance(cost: Tensor) -> Tensor:
        return MEASURES[measure](cost, gamma=0.5)

    assert torch.autograd.gradcheck(distance, cost)
    assert torch.autograd.gradgradcheck(distance, cost)


@pytest.mark.parametrize("gamma", [0.0, 0.1])
@pytest.mark.parametrize("measure", MEASURES)
def test_nan_and_forbidden_cells(measure: str, gamma: float) -> None:
    cost = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(1))
    cost[0, 2, 3] = torch.nan
    cost[1, :, 3] = torch.inf
    cost[2, 2, 3] = torch.inf
    distance, grad_cost = run(measure, {"cost": cost.cuda()}, gamma)
    assert distance[0].isnan() and distance[1].isposinf() and distance[2].isfinite()
    assert not grad_cost[1].any() and grad_cost[2, 2, 3] == 0 and grad_cost[2].isfinite().all()


def test_cuda_tensors_run_on_triton() -> None:
    cost = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(2))
    assert choose_implementation(None, torch.device("cuda", 0)) == "triton"
    wavefront.check_available(torch.device("cuda", 0))
    assert torch.equal(dtw(cost.cuda(), gamma=0.1), dtw(cost.cuda(), gamma=0.1, impl="triton"))
    torch.testing.assert_close(alignment(cost.cuda()).cpu(), alignment(cost, impl="numba"))


def test_more_cells_than_32_bits_count() -> None:
    """2³¹ cells and more: the last matrices lie beyond what an int32 offset reaches."""
    num_matrices = (1 << 21) + 3
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GiB of free device memory")
    cost = torch.rand(num_matrices, 32, 32, device="cuda")
    distance = dtw(cost, gamma=0.1)
    assert torch.equal(distance[-5:], dtw(cost[-5:].clone(), gamma=0.1))
