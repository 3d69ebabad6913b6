"""The Triton kernels' numbers, without a GPU: run in Triton's interpreter, held to a float64 dynamic program in numpy.

The cases of a measure run in one child process (this file as a script), which patches the allocator to hand out NaN.
Each test then judges one case.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tempclr_kernels import otam_columns, rowscan, wavefront


@dataclass(frozen=True)
class Case:
    """One call. `special`: what the costs contain; `block`, `workspace`: the limits that force strips and parts.

    `scan`, `columns`: rows or OTAM's columns at once, however short.
    """

    measure: str
    gamma: float
    shape: tuple[int, int, int]
    orders: str = ""
    num_orders: int = 0
    dtype: str = "float64"
    special: str = ""
    block: int = 512
    workspace: int = 1 << 30
    second: bool = False
    scan: bool = False
    columns: bool = False

    def __str__(self) -> str:
        parts = [self.measure, f"gamma{self.gamma:g}", "x".join(map(str, self.shape)), self.dtype, self.special]
        parts += [f"{self.num_orders}{self.orders}"] if self.orders else []
        parts += [f"block{self.block}"] if self.block < 512 else []
        parts += ["parts"] if self.workspace < 1 << 30 else []
        return "-".join(
            filter(
                None,
                [
                    *parts,
                    "second" if self.second else "",
                    "scan" if self.scan else "",
                    "columns" if self.columns else "",
                ],
            )
        )


def quick_cases() -> list[Case]:
    cases = []
    for measure in ("dtw", "otam"):
        cases += [
            Case(measure, 1e-3, (1, 3, 4), dtype="float32"),
            Case(measure, 1.0, (1, 4, 2), "column", 1),
            Case(measure, 0.1, (2, 3, 3), "row", 1, special="blocked"),
            Case(measure, 0.1, (1, 4, 3), dtype="float32", special="large"),
            Case(measure, 0.1, (2, 2, 3), "both", 2, workspace=1),
        ]
        for gamma in (0.0, 0.1):
            cases += [
                Case(measure, gamma, (1, 1, 1)),
                Case(measure, gamma, (1, 1, 3)),
                Case(measure, gamma, (1, 3, 1), "both", 1),
                Case(measure, gamma, (2, 4, 5), "column", 2, "float32"),
                Case(measure, gamma, (2, 5, 3), "row", 1, "float32", "inf"),
                Case(measure, gamma, (3, 2, 2), special="nan"),
                Case(measure, gamma, (3, 4, 3), "both", 1, special="wild"),
                Case(measure, gamma, (1, 5, 6), "column", 1, block=4),
                Case(measure, gamma, (1, 7, 5), block=4),
                Case(measure, gamma, (1, 3, 4), "both", 1, second=True),
                # Two pairs a program, the last program half full; then one.
                Case(measure, gamma, (3, 9, 11), "column", 1, "float32"),
                Case(measure, gamma, (1, 17, 18)),
            ]
        cases += [Case(measure, 0.1, (1, 6, 5), block=4, second=True)]
    cases += [
        Case("dtw", 0.0, (1, 1, 1), scan=True),
        Case("dtw", 0.0, (2, 3, 7), "both", 2, "float32", scan=True),
        Case("dtw", 0.0, (2, 7, 2), "column", 1, scan=True),
        Case("dtw", 0.0, (2, 1, 5), scan=True),
        Case("dtw", 0.0, (3, 2, 6), dtype="float32", special="inf", scan=True),
        Case("dtw", 0.0, (3, 2, 4), special="nan", scan=True),
        Case("dtw", 0.0, (3, 2, 4), "both", 1, special="wild", scan=True),
        Case("dtw", 0.0, (2, 4, 3), special="blocked", scan=True),
        Case("dtw", 0.0, (2, 3, 5), dtype="float32", special="large", scan=True),
        Case("dtw", 0.0, (2, 2, 5), "row", 3, workspace=1, scan=True),
    ]
    for gamma in (0.0, 0.1):
        cases += [
            Case("otam", gamma, (1, 1, 1), columns=True),
            Case("otam", gamma, (2, 1, 3), columns=True),
            Case("otam", gamma, (2, 4, 1), "row", 1, columns=True),
            Case("otam", gamma, (3, 4, 5), "both", 2, "float32", columns=True),
            Case("otam", gamma, (2, 6, 3), "column", 2, columns=True),
            Case("otam", gamma, (3, 4, 4), dtype="float32", special="inf", columns=True),
            Case("otam", gamma, (3, 3, 3), special="nan", columns=True),
            Case("otam", gamma, (2, 3, 3), special="blocked", columns=True),
            Case("otam", gamma, (2, 3, 4), "both", 1, special="wild", columns=True),
            Case("otam", gamma, (2, 3, 2), "row", 3, workspace=1, columns=True),
        ]
    cases += [
        Case("otam", 0.1, (2, 4, 3), dtype="float32", special="large", columns=True),
        Case("otam", 1e-3, (2, 5, 4), dtype="float32", columns=True),
    ]
    return cases


def slow_cases() -> list[Case]:
    cases = []
    for measure in ("dtw", "otam"):
        for gamma in (0.0, 1e-3, 0.1, 1.0):
            cases.append(Case(measure, gamma, (2, 5, 7), "row", 2, "float32"))
            cases.append(Case(measure, gamma, (2, 7, 4), "column", 2))
            cases.append(Case(measure, gamma, (1, 33, 40), "column", 1, "float32"))
        for gamma in (0.0, 0.1):
            cases += [
                Case(measure, gamma, (3, 6, 6), "both", 2, "float32", "inf"),
                Case(measure, gamma, (2, 11, 13), "column", 2, block=4),
                Case(measure, gamma, (2, 13, 9), "both", 1, "float32", block=4),
                Case(measure, gamma, (3, 4, 5), "both", 3, workspace=1),
                Case(measure, gamma, (2, 6, 4), "both", 2, special="inf", second=True),
                Case(measure, gamma, (2, 10, 9), "column", 1, block=4, second=True),
            ]
    return cases


CASES = {"quick": quick_cases(), "slow": slow_cases()}
PARAMETERS = [
    pytest.param(case, index, speed, id=str(case), marks=[pytest.mark.slow] if speed == "slow" else [])
    for speed, cases in CASES.items()
    for index, case in enumerate(cases)
]
FIRST = [parameter for parameter in PARAMETERS if not parameter.values[0].second]
SECOND = [parameter for parameter in PARAMETERS if parameter.values[0].second]


def make_inputs(case: Case, index: int) -> dict[str, np.ndarray]:
    """The same arrays in both processes. What lies beyond the lengths is NaN."""
    rng = np.random.default_rng(index)
    num_matrices, num_rows, num_columns = case.shape
    # Multiples of 1/4: sums are exact in either precision, so that ties are real ties and hard results must be equal.
    cost = rng.integers(-8, 12, case.shape) / 4 if case.gamma == 0 else rng.normal(size=case.shape)
    if case.special == "large":
        cost = rng.integers(-8, 12, case.shape) * 2.0**100
    lengths = np.stack([rng.integers(1, size + 1, num_matrices) for size in (num_rows, num_columns)], 1)
    lengths[0] = num_rows, num_columns
    if case.special == "inf":
        cost[rng.random(case.shape) < 0.15] = np.inf
    if case.special == "blocked":
        cost[1, :, 0] = np.inf
        cost[1, 0] = np.inf
    if case.special == "nan":
        cost[1, 0, 0] = np.nan
    tangent = rng.normal(size=case.shape)
    for array in (cost, tangent):
        for matrix, (rows, columns) in zip(array, lengths, strict=True):
            matrix[rows:] = np.nan
            matrix[:, columns:] = np.nan
    inputs = {"cost": cost, "lengths": lengths, "tangent": tangent}
    for axis, name in enumerate(("row", "column")):
        if case.orders in (name, "both"):
            inputs[f"{name}_orders"] = np.stack(
                [
                    [_padded_order(rng, length[axis], case.shape[1 + axis]) for _ in range(case.num_orders)]
                    for length in lengths
                ]
            )
    inputs["grad_distance"] = rng.integers(-4, 5, (num_matrices, max(case.num_orders, 1))) / 2
    return inputs


def _padded_order(rng: np.random.Generator, length: int, size: int) -> np.ndarray:
    """Beyond the length an order may hold anything."""
    return np.concatenate([rng.permutation(length), np.full(size - length, 10**6)])


def run_case(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    dtype = getattr(torch, case.dtype)
    tensors = {
        name: torch.from_numpy(array) if array.dtype.kind == "i" else torch.from_numpy(array).to(dtype)
        for name, array in inputs.items()
    }
    if case.special == "wild":  # as nobody checks them on a GPU; clamped they are those of the inputs
        sizes = torch.tensor(case.shape[1:])
        lengths = tensors["lengths"]
        tensors["lengths"] = torch.where(lengths == sizes, 2**31 - 1, torch.where(lengths == 1, -5, lengths))
    orders = (tensors.get("row_orders"), tensors.get("column_orders"))
    arguments = (tensors["cost"], tensors["lengths"], *orders)
    settings: dict[str, Any] = {"measure": case.measure, "gamma": case.gamma}
    wavefront.LARGEST_BLOCK, wavefront.WORKSPACE_BYTES = case.block, case.workspace
    otam_columns.FEWEST_ROWS = 1 if case.columns else 17
    rowscan.SHORTEST_LONG_SIDE, rowscan.LEAST_RATIO = (1, 1) if case.scan else (256, 8)
    if case.second:
        hessian, directional = wavefront.distance_second(
            tensors["tangent"], tensors["grad_distance"], *arguments, **settings
        )
        return {"hessian": hessian.numpy(), "directional": directional.numpy()}
    distance = wavefront.distance(*arguments, **settings)
    grad_cost = wavefront.distance_vjp(tensors["grad_distance"], *arguments, **settings)
    return {"distance": distance.numpy(), "grad_cost": grad_cost.numpy()}


def main(speed: str, measure: str, output: str) -> None:
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    wavefront.check_available(torch.device("cpu"))
    wavefront._empty = lambda shape, like: torch.full(shape, float("nan"), dtype=like.dtype)
    arrays = {}
    for index, case in enumerate(CASES[speed]):
        if case.measure == measure:
            for name, array in run_case(case, make_inputs(case, index)).items():
                arrays[f"{case}/{name}"] = array
    with open(output, "wb") as file:
        np.savez(file, **arrays)


@pytest.fixture(scope="module")
def results(interpret: Callable[..., Path]) -> Callable[[str, str], dict[str, np.ndarray]]:
    """Arrays of every case of one speed and measure, by name; the child process runs on the first call."""

    @functools.cache
    def run(speed: str, measure: str) -> dict[str, np.ndarray]:
        with np.load(interpret(__file__, speed, measure)) as arrays:
            return dict(arrays)

    return run


def align(cost: np.ndarray, measure: str, gamma: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Distance, its gradient, and the accumulated costs of one matrix: cells one by one, float64."""
    num_rows, num_columns = cost.shape
    table_columns = num_columns + (measure == "otam")
    padded = np.zeros((num_rows, table_columns))
    padded[:, :num_columns] = cost
    total = np.full((num_rows + 1, table_columns + 1), np.inf)
    if measure == "otam":
        total[1:, 0] = 0.0
    else:
        total[0, 0] = 0.0
    weights = np.zeros((num_rows, table_columns, 3))
    for i, j in np.ndindex(num_rows, table_columns):
        down_allowed = measure == "dtw" or j in (0, num_columns)
        before = np.array([total[i, j], total[i, j + 1] if down_allowed else np.inf, total[i + 1, j]])
        least, weights[i, j] = soft_minimum(before, gamma)
        total[i + 1, j + 1] = least + padded[i, j]
    flow = np.zeros_like(total)
    distance = total[num_rows, table_columns]
    flow[num_rows, table_columns] = np.isfinite(distance)
    for i, j in reversed(list(np.ndindex(num_rows, table_columns))):
        flow[i, j] += flow[i + 1, j + 1] * weights[i, j, 0]
        flow[i, j + 1] += flow[i + 1, j + 1] * weights[i, j, 1]
        flow[i + 1, j] += flow[i + 1, j + 1] * weights[i, j, 2]
    gradient = flow[1:, 1 : num_columns + 1]
    return distance, (gradient * np.nan if np.isnan(distance) else gradient), total[1:, 1:]


def soft_minimum(before: np.ndarray, gamma: float) -> tuple[float, np.ndarray]:
    """The minimum and its derivative; hard ties go to the first: diagonal, down, right."""
    least = before.min()
    if not np.isfinite(least):
        return least, np.zeros(3)
    if gamma == 0:
        return least, np.eye(3)[int(before.argmin())]
    terms = np.exp((least - before) / gamma)
    return least - gamma * np.log(terms.sum()), terms / terms.sum()


def each_copy(inputs: dict[str, np.ndarray]) -> Iterator[tuple[int, int, Any]]:
    """(matrix index, order index, where the copy's rows and columns lie in the matrix) of every pair."""
    for b, k in np.ndindex(inputs["grad_distance"].shape):
        rows, columns = (
            inputs[f"{name}_orders"][b, k, : inputs["lengths"][b, axis]]
            if f"{name}_orders" in inputs
            else np.arange(inputs["lengths"][b, axis])
            for axis, name in enumerate(("row", "column"))
        )
        yield b, k, np.ix_(rows, columns)


def rounding(case: Case, totals: np.ndarray) -> tuple[float, float]:
    """What the precision allows: every accumulated cost is rounded once a step; weights see that error over gamma."""
    precision = np.finfo(case.dtype).eps * sum(case.shape[1:])
    size = np.abs(totals[np.isfinite(totals)]).max(initial=1.0)
    return 4 * precision * size, 4 * precision * (1 + size / case.gamma if case.gamma else 1)


@pytest.mark.parametrize(("case", "index", "speed"), FIRST)
def test_value_and_gradient(case: Case, index: int, speed: str, results: Callable[[str, str], dict]) -> None:
    """Notes [The border is data], [Pairs side by side], [Soft minimum without inf - inf], [Seed of the flow],
    [Gradients are scattered, then summed], [No sums to subtract], [Two zeros on the left]: against cells one by
    one in float64.
    """
    inputs = make_inputs(case, index)
    distance, grad_cost = (results(speed, case.measure)[f"{case}/{name}"] for name in ("distance", "grad_cost"))
    expected_grad = np.zeros(case.shape)
    slack = 0.0
    for b, k, place in each_copy(inputs):
        cost = inputs["cost"][b].astype(case.dtype).astype(float)[place]
        value, gradient, totals = align(cost, case.measure, case.gamma)
        value_slack, gradient_slack = rounding(case, totals)
        # Hard results are exact: costs and weights are small multiples of powers of two.
        np.testing.assert_allclose(distance[b, k], value, rtol=0, atol=value_slack if case.gamma else 0)
        expected_grad[b][place] += inputs["grad_distance"][b, k] * gradient
        slack += gradient_slack * abs(inputs["grad_distance"][b, k])
    np.testing.assert_allclose(grad_cost, expected_grad, rtol=0, atol=slack if case.gamma else 0)
    if case.special == "nan":
        assert np.isnan(distance[1]).all() and np.isfinite(distance[[0, 2]]).all()
    if case.special == "blocked":
        assert np.isposinf(distance[1]).all() and not grad_cost[1].any()


@pytest.mark.parametrize(("case", "index", "speed"), SECOND)
def test_second_derivative(case: Case, index: int, speed: str, results: Callable[[str, str], dict]) -> None:
    """Central differences of the gradient; for gamma = 0 the path stays and the Hessian is 0."""
    inputs = make_inputs(case, index)
    hessian, directional = (results(speed, case.measure)[f"{case}/{name}"] for name in ("hessian", "directional"))
    expected = np.zeros(case.shape)
    step = 1e-5
    for b, k, place in each_copy(inputs):
        cost, tangent = inputs["cost"][b][place], inputs["tangent"][b][place]
        _, gradient, _ = align(cost, case.measure, case.gamma)
        np.testing.assert_allclose(directional[b, k], (gradient * tangent).sum(), atol=1e-11)
        if case.gamma > 0:
            ahead, behind = (align(cost + sign * step * tangent, case.measure, case.gamma)[1] for sign in (1, -1))
            expected[b][place] += inputs["grad_distance"][b, k] * (ahead - behind) / (2 * step)
    # The difference quotient errs by step² times the third derivative, which grows as gamma⁻³.
    np.testing.assert_allclose(hessian, expected, atol=30 * step**2 / max(case.gamma, 1e-2) ** 3)


def test_the_oracle_agrees_with_a_list_of_paths() -> None:
    """2 x 2: three paths for DTW."""
    cost = np.array([[1.0, 2.0], [4.0, 8.0]])
    paths = np.array([9.0, 11.0, 13.0])
    assert align(cost, "dtw", 0.0)[0] == 9.0
    assert align(cost, "dtw", 1.0)[0] == pytest.approx(-np.log(np.exp(-paths).sum()))
    # OTAM: start in (0, 0), (1, 0) or both; (0, 0) and (1, 0) cost 5 together; end in the zero column.
    assert align(cost, "otam", 0.0)[0] == 3.0


def test_needs_the_interpreter_on_cpu() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("this process interprets kernels")
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        wavefront.check_available(torch.device("cpu"))


def test_says_when_triton_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in [name for name in sys.modules if name.startswith("tempclr_kernels.wavefront_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("tempclr_kernels.wavefront_kernels", raising=False)
    with pytest.raises(RuntimeError, match="needs the triton package"):
        wavefront.check_available(torch.device("cpu"))


if __name__ == "__main__":
    if "COVERAGE_PROCESS_START" in os.environ:
        import coverage

        coverage.process_startup()
    main(*sys.argv[1:])
