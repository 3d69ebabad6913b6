"""This package's kernels as anybody calls them, and what they are set beside: plain torch, the GEMM alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tempclr_kernels import alignment, dtw, otam, pairwise_distances

from .workloads import ALL_PAIRS, MATRICES, STEP, Case, Task


class Outcome(NamedTuple):
    """What an implementation computed: distances (or the loss of a step) and gradients, each where there is one."""

    value: Tensor
    gradient: Tensor | None = None


Run = Callable[[], Outcome]


@dataclass(frozen=True)
class Implementation:
    """Somebody's way to do a task.

    Attributes:
        name: in tables.
        prepare: (case, task) -> the function that is timed, or None where it cannot do the task.
        package: imported before anything else; None for what is always there.
        loops: takes one pair at a time, so a part of the pairs tells the time of all.
        checked: computes what the reference computes.
        per_step: its distances are divided by the number of cells on the path.
    """

    name: str
    prepare: Callable[[Case, Task], Run | None]
    package: str | None = None
    loops: bool = False
    checked: bool = True
    per_step: bool = False


def prepare_ours(case: Case, task: Task, *, impl: str | None = None, measure: str | None = None) -> Run:
    """The public functions of this package."""
    if case.workload.kind == ALL_PAIRS:
        return lambda: Outcome(pairwise_distances(case.a, case.b, gamma=task.gamma, impl=impl))
    if case.workload.kind == STEP:
        return _step(case, lambda text, video: _shared_cost_loss(text, video, case.orders, task.gamma, impl))
    function = {"dtw": dtw, "otam": otam}[measure or case.workload.measure]
    return of_costs(lambda cost: function(cost, gamma=task.gamma, impl=impl), case, task)


def of_costs(distance: Callable[[Tensor], Tensor], case: Case, task: Task) -> Run:
    """Runs a torch function of the costs, with its gradient if that is the task."""

    def value() -> Outcome:
        with torch.no_grad():
            return Outcome(distance(case.cost))

    def value_and_gradient() -> Outcome:
        cost = case.cost.detach().requires_grad_()
        result = distance(cost)
        return Outcome(result.detach(), torch.autograd.grad(result.sum(), cost)[0])

    return value_and_gradient if task.gradient else value


def prepare_reference(case: Case, task: Task) -> Run:
    """What every other implementation is compared with, in float64."""
    wide = Case(case.workload, case.cost.double(), case.a.double(), case.b.double(), case.orders)
    return prepare_ours(wide, task, impl="reference")


def expected_of(implementation: Implementation, reference: Outcome, case: Case) -> Outcome:
    """What an implementation that does as it says makes of a case whose reference is ``reference``."""
    if not implementation.per_step:
        return reference
    path = alignment(case.cost.double(), measure=case.workload.measure, impl="reference")
    return Outcome(reference.value / path.sum(dim=(1, 2)))


def _step(case: Case, loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
    def run() -> Outcome:
        text, video = (features.detach().requires_grad_() for features in (case.a, case.b))
        result = loss(text, video)
        gradients = torch.autograd.grad(result, (text, video))
        return Outcome(result.detach(), torch.cat([gradient.flatten() for gradient in gradients]))

    return run


def _shared_cost_loss(text: Tensor, video: Tensor, orders: Tensor, gamma: float, impl: str | None) -> Tensor:
    """One cost matrix a video; the kernel reads its columns in every order."""
    from tempclr.costs import cosine_cost

    return _info_nce(dtw(cosine_cost(text, video), gamma=gamma, column_orders=orders, impl=impl))


def _copied_features_loss(text: Tensor, video: Tensor, orders: Tensor, gamma: float) -> Tensor:
    """One cost matrix, by one GEMM, for every order of every video: the way without orders in the kernel."""
    from tempclr.costs import cosine_cost

    videos = torch.arange(len(video))[:, None, None]
    cost = cosine_cost(text[:, None], video[videos, orders])
    return _info_nce(dtw(cost, gamma=gamma))


def _info_nce(distance: Tensor) -> Tensor:
    return functional.cross_entropy(-distance, distance.new_zeros(len(distance), dtype=torch.int64))


def _prepare_copied_features(case: Case, task: Task) -> Run | None:
    if case.workload.kind != STEP:
        return None
    return _step(case, lambda text, video: _copied_features_loss(text, video, case.orders, task.gamma))


def _prepare_dtw_of_the_same(case: Case, task: Task) -> Run | None:
    return prepare_ours(case, task, measure="dtw") if case.workload.measure == "otam" else None


def _prepare_gemm(case: Case, task: Task) -> Run | None:
    if case.workload.kind != ALL_PAIRS or task.soft:
        return None
    a, b = case.a.flatten(0, 1), case.b.flatten(0, 1)
    # Into memory that is already there: the least that any way through all costs can take.
    result = a.new_empty(len(a), len(b))
    return lambda: Outcome(torch.mm(a, b.T, out=result))


def _prepare_torch(case: Case, task: Task) -> Run | None:
    if case.workload.kind != MATRICES or case.workload.measure != "dtw":
        return None
    return of_costs(lambda cost: diagonal_dtw(cost, gamma=task.gamma), case, task)


def diagonal_dtw(cost: Tensor, *, gamma: float) -> Tensor:
    """DTW in plain torch, one anti-diagonal at a time, differentiated by autograd: (count, n, m) -> (count,).

    >>> diagonal_dtw(torch.tensor([[[0.0, 1.0, 1.0], [1.0, 0.5, 1.0]]]), gamma=0.0)
    tensor([1.5000])
    """
    count, n, m = cost.shape
    # Row i of the sheared costs begins i places later, so a column holds an anti-diagonal; unbind's gradient is linear.
    sheared = functional.pad(cost, (0, n), value=1e9).flatten(1)[:, : n * (m + n - 1)].view(count, n, m + n - 1)
    wall = cost.new_full((count, 1), 1e9)
    before, last = functional.pad(torch.zeros_like(wall), (0, n), value=1e9), wall.expand(count, n + 1)
    for costs in sheared.unbind(dim=2):
        steps = torch.stack([before[:, :-1], last[:, :-1], last[:, 1:]])
        least = -gamma * torch.logsumexp(-steps / gamma, dim=0) if gamma else steps.amin(dim=0)
        before, last = last, torch.cat([wall, costs + least], dim=1)
    return last[:, -1]


OURS = Implementation("tempclr", prepare_ours)
OURS_DTW = Implementation("tempclr, dtw instead", _prepare_dtw_of_the_same, checked=False)
GEMM = Implementation("GEMM alone", _prepare_gemm, checked=False)
COPIED = Implementation("one GEMM per order", _prepare_copied_features)
TORCH = Implementation("torch by anti-diagonals", _prepare_torch)
YARDSTICKS = (OURS_DTW, GEMM, COPIED, TORCH)
