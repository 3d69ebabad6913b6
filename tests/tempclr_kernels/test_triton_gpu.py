"""The Triton kernels on a CUDA device at real sizes, held to the CPU implementation in float64."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tempclr_kernels import alignment, dtw, otam, pairwise, pairwise_distances, wavefront
from tempclr_kernels.api import choose_implementation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MEASURES = {"dtw": dtw, "otam": otam}
# Several pairs a warp, training pairs, a paragraph against long videos both ways round, many warps, several strips.
SHAPES = [
    (301, 3, 5),
    (528, 8, 60),
    (528, 32, 32),
    (16, 2000, 40),
    (16, 40, 2000),
    (16, 10, 1000),
    (4, 200, 180),
    (2, 1500, 1300),
]


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


@pytest.mark.parametrize("measure", MEASURES)
def test_more_cells_than_32_bits_count(measure: str) -> None:
    """2³¹ cells and more: the last matrices lie beyond what an int32 offset reaches."""
    num_matrices = (1 << 21) + 3
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("needs 40 GiB of free device memory")
    cost = torch.rand(num_matrices, 32, 32, device="cuda")
    found = run(measure, {"cost": cost}, 0.1)
    weights = torch.linspace(-1, 1, num_matrices, device="cuda")[-5:]
    last = cost[-5:].clone().requires_grad_()
    distance = MEASURES[measure](last, gamma=0.1)
    assert torch.equal(found[0][-5:], distance.detach())
    assert torch.equal(found[1][-5:], torch.autograd.grad((distance * weights).sum(), last)[0])


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_a_matrix_of_4096_by_4096(gamma: float) -> None:
    problem = make_problem((1, 4096, 4096), gamma=gamma)
    exact = run("dtw", in_double(problem), gamma, impl="numba")
    assert_as_exact_as(torch.float32, run("dtw", on_cuda(problem), gamma), exact, gamma)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_loss_compiles_as_one_graph(measure: str) -> None:
    problem = on_cuda(make_problem((16, 32, 32), num_orders=8))

    def loss(cost: Tensor) -> Tensor:
        distance = MEASURES[measure](cost, problem["lengths"], gamma=0.1, column_orders=problem["column_orders"])
        target = torch.zeros(len(distance), dtype=torch.int64, device=distance.device)
        return torch.nn.functional.cross_entropy(-distance, target)

    found = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        cost = problem["cost"].clone().requires_grad_()
        value = function(cost)
        found.append((value.detach(), torch.autograd.grad(value, cost)[0]))
    for compiled, eager in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(compiled, eager)


def make_sequences(count: int, size: int, width: int = 64) -> tuple[Tensor, Tensor]:
    """Embeddings of ragged lengths, NaN beyond them."""
    generator = torch.Generator().manual_seed(size)
    lengths = torch.randint(1, size + 1, (count,), generator=generator)
    lengths[0] = size
    beyond = torch.arange(size) >= lengths[:, None]
    embeddings = torch.randn(count, size, width, generator=generator)
    return embeddings.masked_fill(beyond[..., None], torch.nan), lengths


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize(
    ("measure", "gamma", "both_ways"),
    [("dtw", 0.0, False), ("dtw", 0.1, False), ("otam", 0.0, True), ("otam", 0.1, True), ("cap_avg", 0.0, False)],
)
def test_all_pairs(
    measure: str,
    gamma: float,
    both_ways: bool,
    similarity: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Held to the CPU's path in float64, whole and in chunks; products of halves are exact before they are summed."""
    (a, a_lengths), (b, b_lengths) = make_sequences(70, 8), make_sequences(130, 60)
    a, b = (x.to(dtype) for x in (a, b))
    how: dict[str, Any] = {"measure": measure, "gamma": gamma, "both_ways": both_ways, "similarity": similarity}
    exact = pairwise_distances(a.double(), b.double(), a_lengths, b_lengths, impl="numba", **how)
    on_device = tuple(x.cuda() for x in (a, b, a_lengths, b_lengths))
    precision = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    slack = 4 * precision * (8 + 60 + 64) * max(1.0, exact.abs().max().item())
    for memory in (1 << 28, 1 << 21):
        monkeypatch.setattr(pairwise, "WORKING_MEMORY_BYTES", memory)
        found = pairwise_distances(*on_device, **how)
        torch.testing.assert_close(found.cpu().double(), exact, rtol=0, atol=slack)
        assert torch.equal(found, pairwise_distances(*on_device, **how))


def test_working_memory_of_all_pairs_is_bounded() -> None:
    """1500 x 1500 x 12 x 60 costs would take 6.5 GB at once; the limit is 256 MB."""
    a, b = torch.randn(1500, 12, 64, device="cuda"), torch.randn(1500, 60, 64, device="cuda")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = pairwise_distances(a, b)
    most = torch.cuda.max_memory_allocated() - before - result.numel() * result.element_size()
    assert most < 280 << 20


SANITIZED = """
import torch
from tempclr_kernels import dtw, otam, pairwise, pairwise_distances
pairwise.MANY_PAIRS = 1
for distance in (dtw, otam):
    for shape in ((9, 3, 5), (2, 33, 40), (2, 9, 200), (1, 600, 520)):
        for gamma in (0.0, 0.1):
            cost = torch.rand(shape, device="cuda", requires_grad=True)
            distance(cost, gamma=gamma).sum().backward()
a, b = torch.randn(3, 5, 16, device="cuda"), torch.randn(37, 7, 16, device="cuda")
pairwise_distances(a, b), pairwise_distances(a, b, measure="otam", gamma=0.1, both_ways=True)
pairwise_distances(a, b, measure="cap_avg")
torch.cuda.synchronize()
"""


@pytest.mark.timeout(280)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_the_sanitizer_finds_nothing(tool: str) -> None:
    """No access out of bounds, no race in shared memory. Each tensor is an allocation of its own, with edges."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not on the PATH")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": str(root / "kernels")}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
