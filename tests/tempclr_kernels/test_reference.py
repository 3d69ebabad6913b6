"""The recurrences are right: all paths of small grids are listed, and distances and gradients taken over the list."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tempclr_kernels import alignment, dtw, otam
from tempclr_kernels.recurrence import border_total, predecessors, soft_minimum

IMPLS = ("reference", "numba")
DISTANCES = {"dtw": dtw, "otam": otam}
GRIDS = [(1, 1), (1, 4), (4, 1), (2, 3), (3, 2), (3, 3), (4, 3), (3, 5)]

Path = tuple[int, list[tuple[int, int]]]  # how many ways there are to walk it, and its cells


def dtw_paths(n: int, m: int) -> list[Path]:
    def extend(cells: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        i, j = cells[-1]
        if (i, j) == (n - 1, m - 1):
            return [cells]
        steps = [(i + 1, j + 1), (i + 1, j), (i, j + 1)]
        return [path for a, b in steps if a < n and b < m for path in extend([*cells, (a, b)])]

    return [(1, cells) for cells in extend([(0, 0)])]


def otam_paths(n: int, m: int) -> list[Path]:
    """Any run of rows in the first column, then a row that stays or advances by one in each further column.

    The table counts some paths twice: it can be entered from the left, or diagonally below the first row, and be left
    to the right, or diagonally above the last.
    """
    paths = []
    for first in range(n):
        for end_of_run in range(first, n):
            run = [(row, 0) for row in range(first, end_of_run + 1)]
            for advances in range(2 ** (m - 1)):
                cells, row = list(run), end_of_run
                for column in range(1, m):
                    row += advances >> (column - 1) & 1
                    cells.append((row, column))
                if row < n:
                    ways = (2 if first > 0 else 1) * (2 if row < n - 1 else 1)
                    paths.append((ways, cells))
    return paths


PATHS = {"dtw": dtw_paths, "otam": otam_paths}


def indicators(paths: list[Path], n: int, m: int) -> tuple[Tensor, Tensor]:
    ways = torch.tensor([float(w) for w, _ in paths], dtype=torch.float64)
    visits = torch.zeros(len(paths), n, m, dtype=torch.float64)
    for visit, (_, cells) in zip(visits, paths, strict=True):
        for cell in cells:
            visit[cell] = 1
    return ways, visits


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_soft_distance_and_gradient_are_those_of_all_paths(measure: str, grid: tuple[int, int], impl: str):
    cost = torch.randn(*grid, dtype=torch.float64)
    ways, visits = indicators(PATHS[measure](*grid), *grid)
    sums = (visits * cost).sum((1, 2))
    for gamma in (0.05, 0.7, 3.0):
        logits = ways.log() - sums / gamma
        distance = DISTANCES[measure](cost, gamma=gamma, impl=impl)
        torch.testing.assert_close(distance, -gamma * logits.logsumexp(0), rtol=1e-11, atol=1e-11)
        expected = torch.einsum("p,pij->ij", logits.softmax(0), visits)
        found = alignment(cost, measure=measure, gamma=gamma, impl=impl)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_hard_distance_and_path_are_the_cheapest(measure: str, grid: tuple[int, int], impl: str):
    cost = torch.randn(*grid, dtype=torch.float64)
    _, visits = indicators(PATHS[measure](*grid), *grid)
    sums = (visits * cost).sum((1, 2))
    torch.testing.assert_close(DISTANCES[measure](cost, impl=impl), sums.min(), rtol=1e-12, atol=1e-12)
    assert torch.equal(alignment(cost, measure=measure, impl=impl), visits[sums.argmin()])


@pytest.mark.parametrize("impl", IMPLS)
def test_ties_go_diagonal_then_down_then_right(impl: str):
    zero = torch.zeros(3, 3)
    assert torch.equal(alignment(zero, impl=impl), torch.eye(3))
    tall = torch.tensor(
        [[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    )  # diagonals first, down only where rows are left
    assert torch.equal(alignment(torch.zeros(4, 3), impl=impl), tall)
    assert torch.equal(alignment(torch.zeros(3, 4), impl=impl), tall.T)
    # Down (0 + 1) and right (0 + 1) tie, the diagonal costs 2: the path comes from above.
    down = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + torch.tensor([[2.0, -2.0], [-2.0, 0.0]])
    assert torch.equal(alignment(down, impl=impl), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    # Note [OTAM moves down only at its edges]: rows are free at the end, and the last move into the closing column is
    # diagonal, so that the row before the last is chosen; in the first column one row is enough.
    assert alignment(torch.zeros(4, 2), measure="otam", impl=impl).nonzero().tolist() == [[1, 0], [2, 1]]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_random_tie_is_broken_alike_by_all(impl: str):
    cost = torch.randint(0, 3, (40, 6, 7)).float()
    for measure in ("dtw", "otam"):
        found = alignment(cost, measure=measure, impl=impl)
        assert torch.equal(found, alignment(cost, measure=measure, impl="reference"))
        assert torch.equal((found * cost).sum((1, 2)), DISTANCES[measure](cost, impl=impl))


def test_a_worked_example_of_each_measure():
    cost = torch.tensor([[1.0, 2.0, 9.0], [9.0, 9.0, 3.0]])
    assert dtw(cost).item() == 1 + 2 + 3
    assert otam(cost).item() == 1 + 2 + 3
    assert otam(cost.T).item() == 2 + 3  # two columns, one row each, and the row may only advance by one


def test_predecessors_and_borders_say_what_the_readme_derives():
    assert predecessors("dtw", (2, 3), 5) == [(1, 2), (1, 3), (2, 2)]
    assert predecessors("otam", (2, 3), 5) == [(1, 2), (2, 2)]
    assert predecessors("otam", (2, 0), 5) == [(1, -1), (1, 0), (2, -1)]
    assert predecessors("otam", (2, 5), 5) == [(1, 4), (1, 5), (2, 4)]
    assert [border_total("dtw", cell) for cell in ((-1, -1), (-1, 0), (0, -1))] == [0, math.inf, math.inf]
    assert [border_total("otam", cell) for cell in ((-1, -1), (-1, 0), (0, -1))] == [math.inf, math.inf, 0]


def test_soft_minimum_of_forbidden_totals_is_forbidden_and_has_no_gradient():
    totals = [torch.tensor([math.inf, 1.0], requires_grad=True), torch.tensor([math.inf, math.inf], requires_grad=True)]
    value = soft_minimum(totals, 0.5)
    assert value.tolist() == [math.inf, 1.0]
    value[1].backward()
    assert [t.grad.tolist() for t in totals] == [[0.0, 1.0], [0.0, 0.0]]
    assert soft_minimum([torch.tensor(1.0), torch.tensor(math.nan)], 0.0).isnan()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_derivatives_by_finite_differences(measure: str, impl: str, make_ragged):
    sizes = [(3, 4), (1, 2), (3, 1)]
    cost = make_ragged(sizes, padding=0.0).requires_grad_()
    lengths = torch.tensor(sizes)

    def distance(x: Tensor) -> Tensor:
        return DISTANCES[measure](x, lengths, gamma=0.4, impl=impl)

    assert torch.autograd.gradcheck(distance, cost)
    assert torch.autograd.gradgradcheck(distance, cost)
    assert torch.autograd.gradcheck(lambda x: alignment(x, lengths, measure=measure, gamma=0.4, impl=impl), cost)


@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_derivatives_through_orders_by_finite_differences(measure: str, make_ragged, make_orders):
    sizes = [(3, 4), (2, 2)]
    cost = make_ragged(sizes, padding=0.0).requires_grad_()
    orders = {"row_orders": make_orders([3, 2], 3, 3), "column_orders": make_orders([4, 2], 3, 4)}

    def distance(x: Tensor) -> Tensor:
        return DISTANCES[measure](x, torch.tensor(sizes), gamma=0.4, **orders)

    assert torch.autograd.gradcheck(distance, cost)
    assert torch.autograd.gradgradcheck(distance, cost)


@pytest.mark.parametrize("measure", ("dtw", "otam"))
def test_the_gradient_of_the_hard_minimum_has_derivative_zero(measure: str):
    """Note [A path has a second derivative]: of a path 0, of the square of a distance what the chain rule says."""
    cost = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    distance = {"dtw": dtw, "otam": otam}[measure]
    (path,) = torch.autograd.grad(distance(cost, impl="reference").sum(), cost, create_graph=True)
    assert not torch.autograd.grad(path.sum(), cost)[0].any()
    alignment(cost, measure=measure, impl="reference").sum().backward()
    assert cost.grad is not None and not cost.grad.any()
    assert torch.autograd.gradgradcheck(lambda x: distance(x, impl="reference") ** 2, cost)
