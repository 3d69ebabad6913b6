"""The CPU implementation at real sizes: accuracy, threads, workers, scratch memory, caches."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tempclr_kernels import alignment, dtw, lane_cache, lane_doubles, lane_threads, lanes, otam, reference

MEASURES = ("dtw", "otam")


def problem(num_matrices: int, n: int, m: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Costs like a cosine's and lengths of all kinds, the first matrix full; NaN beyond them."""
    cost = torch.rand(num_matrices, n, m, dtype=dtype) * 2
    lengths = torch.stack([torch.randint(1, size + 1, (num_matrices,)) for size in (n, m)], 1)
    lengths[0] = torch.tensor([n, m])
    rows = torch.arange(n).unsqueeze(1) < lengths[:, :1].unsqueeze(1)
    columns = torch.arange(m) < lengths[:, 1:].unsqueeze(1)
    return torch.where(rows & columns, cost, math.nan), lengths


@pytest.mark.parametrize("scale", (1, 50))
@pytest.mark.parametrize("gamma", (1e-3, 1e-2, 0.1, 1.0))
@pytest.mark.parametrize("measure", MEASURES)
def test_float32_gradients_are_those_of_float64(measure: str, gamma: float, scale: float):
    """Note [Numbers with exponents of their own]: plain sums in float32 would miss by 7e-4 where gamma is small."""
    cost = (scale * 2 * torch.rand(200, 24, 20)).requires_grad_()
    exact = cost.detach().double().requires_grad_()
    distance = {"dtw": dtw, "otam": otam}[measure]
    value, expected = distance(cost, gamma=gamma), distance(exact, gamma=gamma)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6 * gamma)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(cost.grad.double(), exact.grad, rtol=0, atol=3e-6)


@pytest.mark.parametrize("gamma", (1e-3, 0.1))
@pytest.mark.parametrize("measure", MEASURES)
def test_sums_in_double_have_the_gradients_of_float64(measure: str, gamma: float):
    """Note [Sums in double]: so a matrix that is refused loses nothing but speed."""
    cost, lengths = 100 * torch.rand(50, 24, 20), torch.tensor([24, 20]).expand(50, 2)
    arguments, how = (lengths, None, None), {"measure": measure, "gamma": gamma}
    weights = torch.rand(50, 1)
    found = lane_doubles.distance_vjp(weights, cost, *arguments, **how)
    exact = lane_doubles.distance_vjp(weights.double(), cost.double(), *arguments, **how)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=3e-6)
    torch.testing.assert_close(lanes.distance_vjp(weights, cost, *arguments, **how), found, rtol=0, atol=6e-6)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("with_orders", (False, True))
def test_a_matrix_too_large_for_gamma_is_computed_in_double_alone(measure: str, with_orders: bool, make_orders):
    """Note [Numbers with exponents of their own]: what decides is the matrix within its lengths, not its company."""
    cost, lengths = problem(70, 9, 7)
    lengths[5:8] = torch.tensor([9, 7])
    cost[5:8] = torch.rand(3, 9, 7)
    cost[5, 4, 3] = 3e6
    cost[6, 2, 2] = -3e6
    cost[7, 1, 1] = math.inf  # forbidden, not large
    cost[9, lengths[9, 0] :] = 1e30
    columns = make_orders(lengths[:, 1].tolist(), 3, 7) if with_orders else None
    arguments, how = (lengths, None, columns), {"measure": measure, "gamma": 0.5}
    weights = torch.rand(70, 3 if with_orders else 1)
    double = lane_doubles.distance(cost, *arguments, **how)
    gradient = lane_doubles.distance_vjp(weights, cost, *arguments, **how)
    value, *kept = lanes.distance_keeping(cost, *arguments, **how)
    torch.testing.assert_close(value, double, rtol=1e-6, atol=1e-6)
    assert torch.equal(value, lanes.distance(cost, *arguments, **how))
    assert torch.equal(value[5:7], double[5:7]) and not torch.equal(value, double)
    for found in (
        lanes.distance_vjp(weights, cost, *arguments, **how),
        lanes.vjp_of_kept(weights, *kept, cost, *arguments, **how),
    ):
        torch.testing.assert_close(found, gradient, rtol=0, atol=5e-6)
        if with_orders:
            assert torch.equal(found[5:7], gradient[5:7])


@pytest.mark.parametrize(
    "shape", ((40, 5, 1), (40, 3, 3), (40, 4, 6), (9, 6, 11), (40, 6, 11), (33, 3, 37), (5, 2, 16), (1, 1, 1))
)
def test_matrices_of_every_width_are_read_and_written(shape: tuple[int, int, int]):
    """Note [Matrices are turned by shuffles]: squares of 16, 8 or 4 columns, the last one overlapping."""
    cost, lengths = problem(*shape)
    for measure in MEASURES:
        for gamma in (0.0, 0.3):
            how = {"measure": measure, "gamma": gamma}
            weights = torch.rand(shape[0], 1)
            value, *kept = lanes.distance_keeping(cost, lengths, None, None, **how)
            found = lanes.vjp_of_kept(weights, *kept, cost, lengths, None, None, **how)
            torch.testing.assert_close(value, reference.distance(cost, lengths, None, None, **how))
            expected = reference.distance_vjp(weights, cost, lengths, None, None, **how)
            torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)
            full = torch.where(cost.isnan(), 1.0, cost)
            sizes = torch.tensor(shape[1:]).expand(shape[0], 2)
            without = lanes.distance(full, None, None, None, **how)
            assert torch.equal(without, lanes.distance(full, sizes, None, None, **how))


def test_hard_sums_are_exact_enough():
    """Note [Hard sums in float where they are exact enough]"""
    for n, m in ((100, 60), (100, 61)):
        cost = torch.rand(40, n, m)
        error = (
            lanes.distance(cost, None, None, None, measure="dtw", gamma=0.0).double() - dtw(cost.double())[:, None]
        ).abs()
        assert (error / dtw(cost.double())[:, None]).max() < (2e-6 if n + m <= lanes.EXACT_STEPS else 6.1e-8)


@pytest.mark.parametrize("with_orders", (False, True))
def test_strips_change_nothing(monkeypatch, with_orders: bool, make_orders):
    cost, lengths = problem(50, 12, 15)
    columns = make_orders(lengths[:, 1].tolist(), 2, 15) if with_orders else None
    weights = torch.rand(50, 2 if with_orders else 1)
    how = {"measure": "otam", "gamma": 0.1}
    expected = lanes.distance_vjp(weights, cost, lengths, None, columns, **how)
    monkeypatch.setattr(lanes, "SCRATCH_BYTES", 8000)
    monkeypatch.setattr(lanes, "STRIP_BYTES", 8000)
    assert lanes._strip_rows(lanes._Problem(cost, lengths, None, None, "otam", 0.1), 32) == 3
    assert torch.equal(lanes.distance_vjp(weights, cost, lengths, None, columns, **how), expected)
    assert torch.equal(
        alignment(cost, lengths, measure="otam", gamma=0.1),
        lanes.distance_vjp(torch.ones(50, 1), cost, lengths, None, None, **how),
    )


@pytest.mark.parametrize("gamma", (0.0, 0.1))
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_all_three_functions_agree_with_the_reference(dtype: torch.dtype, measure: str, gamma: float, make_orders):
    cost, lengths = problem(3, 5, 4, dtype)
    orders = (make_orders(lengths[:, 0].tolist(), 13, 5), make_orders(lengths[:, 1].tolist(), 13, 4))
    weights, tangent = torch.randn(3, 13, dtype=dtype), torch.randn(3, 5, 4, dtype=dtype)
    arguments = (cost, lengths, *orders)
    how = {"measure": measure, "gamma": gamma}
    close = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-11}
    torch.testing.assert_close(lanes.distance(*arguments, **how), reference.distance(*arguments, **how), **close)
    found = lanes.distance_vjp(weights, *arguments, **how)
    torch.testing.assert_close(found, reference.distance_vjp(weights, *arguments, **how), **close)
    product, slope = lanes.distance_second(tangent, weights, *arguments, **how)
    expected_product, expected_slope = reference.distance_second(tangent, weights, *arguments, **how)
    torch.testing.assert_close(product, expected_product, **close)
    torch.testing.assert_close(slope, expected_slope, **close)
    assert gamma or not product.any()


@pytest.mark.parametrize("gamma", (0.0, 0.1))
@pytest.mark.parametrize("measure", MEASURES)
def test_a_broken_or_blocked_matrix_stays_alone(measure: str, gamma: float, make_orders):
    """Note [Infinity is a value, NaN is a flag]: NaN inside the lengths breaks its matrix, inf may block it."""
    cost, lengths = problem(40, 6, 5)
    lengths[7:10] = torch.tensor([6, 5])
    cost[7:10] = torch.rand(3, 6, 5)
    clean = cost.clone()
    cost[7, 3, 2] = math.nan
    cost[8, :, 3] = math.inf  # no path of either measure avoids a whole column
    cost[9, 5, 0] = math.inf
    columns = make_orders(lengths[:, 1].tolist(), 3, 5)
    arguments, how = (lengths, None, columns), {"measure": measure, "gamma": gamma}
    value = lanes.distance(cost, *arguments, **how)
    weights, tangent = torch.rand(40, 3), torch.randn(40, 6, 5)
    gradient = lanes.distance_vjp(weights, cost, *arguments, **how)
    product, slope = lanes.distance_second(tangent, weights, cost, *arguments, **how)
    assert value[7].isnan().all() and slope[7].isnan().all() and gradient[7].isnan().all()
    assert value[8].eq(math.inf).all() and not slope[8].any() and not gradient[8].any() and not product[8].any()
    assert value[9].isfinite().all() and gradient[9, 5, 0] == 0 and gradient[9].isfinite().all()
    others = [i for i in range(40) if i not in (7, 8, 9)]
    assert torch.equal(value[others], lanes.distance(clean, *arguments, **how)[others])
    assert torch.equal(gradient[others], lanes.distance_vjp(weights, clean, *arguments, **how)[others])
    assert torch.equal(product[others], lanes.distance_second(tangent, weights, clean, *arguments, **how)[0][others])


def test_the_tangent_of_a_forbidden_cell_does_not_count():
    cost = torch.tensor([[[0.0, math.inf], [1.0, 0.0]]])
    tangent = torch.tensor([[[1.0, math.nan], [2.0, 4.0]]])
    lengths, weights = torch.tensor([[2, 2]]), torch.ones(1, 1)
    for implementation in (lanes, reference):
        for gamma in (0.0, 0.5):
            product, slope = implementation.distance_second(
                tangent, weights, cost, lengths, None, None, measure="dtw", gamma=gamma
            )
            assert product.isfinite().all() and slope.isfinite().all()
            assert gamma or slope.item() == 5.0  # the diagonal


@pytest.fixture
def few_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("gamma", (0.0, 0.1))
def test_results_do_not_depend_on_the_number_of_threads(gamma: float, few_threads, monkeypatch, make_orders):
    """Note [Gradients of orders in the order of pairs]"""
    monkeypatch.setattr(lane_threads, "CELLS_PER_THREAD", 100)
    cost, lengths = problem(23, 9, 11)
    arguments = (cost, lengths, None, make_orders(lengths[:, 1].tolist(), 7, 11))
    weights, tangent = torch.rand(23, 7), torch.randn(23, 9, 11)
    results = []
    for num_threads in (1, 2, 5):
        few_threads(num_threads)
        how = {"measure": "otam", "gamma": gamma}
        results.append(
            (
                lanes.distance(*arguments, **how),
                lanes.distance_vjp(weights, *arguments, **how),
                *lanes.distance_second(tangent, weights, *arguments, **how),
            )
        )
    for others in results[1:]:
        assert all(map(torch.equal, results[0], others))


def test_little_scratch_memory_means_fewer_lanes(monkeypatch):
    cost, lengths = problem(50, 12, 15)
    weights = torch.rand(50, 1)
    how = {"measure": "dtw", "gamma": 0.1}
    expected = lane_doubles.distance_vjp(weights, cost, lengths, None, None, **how)
    monkeypatch.setattr(lane_doubles, "SCRATCH_BYTES", 8000)
    assert lane_doubles._num_lanes(50, lane_doubles._scratch_bytes(cost, 12)) == 3
    assert torch.equal(lane_doubles.distance_vjp(weights, cost, lengths, None, None, **how), expected)


def test_scratch_is_kept_by_each_thread_unless_it_is_large(monkeypatch):
    """Note [Scratch is kept]"""
    monkeypatch.setattr(lane_threads, "_kept", threading.local())
    monkeypatch.setattr(lane_threads, "KEPT_BYTES", 4 * 24)
    small, grown = lane_threads.scratch((2, 5)), lane_threads.scratch((2, 3, 4))
    assert not np.shares_memory(small, grown)
    assert np.shares_memory(lane_threads.scratch((3, 2)), grown)
    with ThreadPoolExecutor(1) as pool:
        assert not np.shares_memory(pool.submit(lane_threads.scratch, (2, 3, 4)).result(), grown)
    large = lane_threads.scratch((5, 5))
    assert large.shape == (5, 5) and not np.shares_memory(lane_threads.scratch((5, 5)), large)


@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_what_scratch_held_before_changes_nothing(measure: str, make_ragged):
    """Note [Scratch is kept]"""
    sizes = [(4, 6), (2, 3), (1, 5)]
    cost, lengths = make_ragged(sizes, dtype=torch.float32), torch.tensor(sizes)
    gradients = []
    for rubbish in (0.0, math.nan):
        lane_threads.scratch((1000, 10)).fill(rubbish)
        gradients.append(alignment(cost, lengths, measure=measure, gamma=0.1))
    assert gradients[1].isfinite().all() and torch.equal(*gradients)


@pytest.mark.parametrize(("num_pairs", "num_lanes"), ((1, 1), (3, 3), (5, 8), (32, 32), (33, 24), (528, 32)))
def test_blocks_are_of_about_equal_size(num_pairs: int, num_lanes: int):
    assert lane_doubles._num_lanes(num_pairs, 0) == num_lanes


class Distances(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        cost = torch.rand(64, 20, 20, generator=torch.Generator().manual_seed(index)).requires_grad_()
        lane_threads.CELLS_PER_THREAD = 100
        torch.set_num_threads(2)
        distance = dtw(cost, gamma=0.1)
        distance.sum().backward()
        return torch.stack([distance.detach().sum(), cost.grad.sum()])


def test_forked_workers_compute_while_the_parent_has_threads(few_threads, monkeypatch):
    """Note [Threads of our own]: a forked worker makes its own pool; neither it nor the parent hangs or aborts."""
    monkeypatch.setattr(lane_threads, "CELLS_PER_THREAD", 100)
    few_threads(2)
    expected = torch.stack([Distances()[i] for i in range(6)])
    assert lane_threads._pools  # the parent's threads run before the workers are forked
    loader = DataLoader(Distances(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=120)
    torch.testing.assert_close(torch.stack(list(loader)), expected)


def test_python_threads_may_call_at_once(few_threads, monkeypatch):
    monkeypatch.setattr(lane_threads, "CELLS_PER_THREAD", 100)
    few_threads(2)
    costs = [torch.rand(64, 10, 10) for _ in range(8)]
    expected = [dtw(cost, gamma=0.1) for cost in costs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda cost: dtw(cost, gamma=0.1), costs * 5))
    assert all(map(torch.equal, found, expected * 5))
    assert threading.active_count() < 20


def test_importing_the_package_loads_neither_numba_nor_triton():
    script = (
        "import sys, tempclr_kernels; from tempclr_kernels import dtw, pairwise_distances\n"
        "assert dtw and pairwise_distances and 'alignment' in dir(tempclr_kernels)\n"
        "assert not {'numba', 'triton'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": "kernels"})


def test_an_unknown_name_of_the_package():
    import tempclr_kernels

    with pytest.raises(AttributeError, match="no attribute 'soft_dtw'"):
        _ = tempclr_kernels.soft_dtw


def test_caches_older_than_a_numba_source_are_removed(tmp_path):
    """Note [Stale kernel caches]"""
    caches = tmp_path / "elsewhere"
    caches.mkdir()
    source, stale, fresh, foreign = (
        tmp_path / "lane_rows.py",
        caches / "lane_kernels.distances-1.nbi",
        caches / "pairwise_kernels.aligned-1.nbi",
        caches / "other.nbi",
    )
    for path, age in ((source, 100), (stale, 200), (fresh, 50), (foreign, 200)):
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert lane_cache.discard_stale_caches(caches, sources=tmp_path) == 1
    assert fresh.exists() and foreign.exists() and not stale.exists()
    assert lane_cache.discard_stale_caches(tmp_path / "nowhere", sources=tmp_path) == 0


def test_a_cache_that_another_process_removes_first_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "lane_rows.py").touch()
    gone = tmp_path / "lane_kernels.distances-1.nbi"
    monkeypatch.setattr(type(tmp_path), "glob", lambda folder, pattern: [gone] if pattern == "*.nbi" else [])
    assert lane_cache.discard_stale_caches(tmp_path, sources=tmp_path) == 0


def test_every_kernel_looks_for_stale_caches_where_numba_keeps_them(monkeypatch):
    """Note [Stale kernel caches]: with NUMBA_CACHE_DIR the caches do not lie beside the sources."""
    looked_into = []
    monkeypatch.setattr(lane_cache, "discard_stale_caches", lambda folder, sources: looked_into.append(folder))
    kernel = lane_cache.njit_kernel()(problem)
    assert [str(folder) for folder in looked_into] == [kernel.stats.cache_path]


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    calls = []

    def fails_to_cache(**options):
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(lane_cache, "njit", fails_to_cache)
    assert lane_cache.njit_kernel(fastmath=True)(len) is len
    assert calls[-1] == {"nogil": True, "fastmath": True}
