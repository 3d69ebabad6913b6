"""What is timed: batches of cost matrices, all pairs of two sets of sequences, and one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

GAMMA = 0.1
MATRICES, ALL_PAIRS, STEP = "matrices", "all pairs", "training step"


class Task(NamedTuple):
    """One of the four things asked of a distance.

    >>> str(Task(soft=True, gradient=True))
    'soft value+grad'
    """

    soft: bool
    gradient: bool

    def __str__(self) -> str:
        return f"{'soft' if self.soft else 'hard'} value{'+grad' if self.gradient else ''}"

    @property
    def gamma(self) -> float:
        return GAMMA if self.soft else 0.0


TASKS = tuple(Task(soft, gradient) for soft in (False, True) for gradient in (False, True))


@dataclass(frozen=True)
class Workload:
    """Sizes of one benchmark.

    Attributes:
        name: as given to ``--workloads``; the part before a slash names all its variants.
        kind: ``MATRICES``, ``ALL_PAIRS`` or ``STEP``.
        count: matrices, sequences of each of the two sets, or videos of the batch.
        rows, columns: of every cost matrix.
        measure: ``"dtw"`` or ``"otam"``.
        width: of the feature vectors; 0 where costs are given.
        num_orders: orders of each video in a training step, the true one included.
    """

    name: str
    kind: str
    count: int
    rows: int
    columns: int
    measure: str = "dtw"
    width: int = 0
    num_orders: int = 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All pairs have no gradient; a step has no value alone."""
        wanted = {MATRICES: (False, True), ALL_PAIRS: (False,), STEP: (True,)}[self.kind]
        return tuple(task for task in TASKS if task.gradient in wanted)

    def __str__(self) -> str:
        sides = f"{self.rows}x{self.columns}"
        if self.kind == ALL_PAIRS:
            return f"all pairs {self.count}x{self.count} of {sides}, d={self.width}"
        if self.kind == STEP:
            return f"{self.count} videos x {self.num_orders} orders of {sides}, d={self.width}, features to gradients"
        return f"{self.measure} {self.count}x{sides}"

    def small(self, *, count: int = 3, side: int = 6) -> Workload:
        """The same in a size that loops in Python can manage, rows and columns still unequal where they were."""
        columns = min(self.columns, side if self.columns == self.rows else side + 2)
        shrunk = replace(self, count=min(self.count, count), rows=min(self.rows, side), columns=columns)
        return replace(shrunk, width=min(self.width, 8), num_orders=min(self.num_orders, 3))


WORKLOADS = (
    Workload("A1", MATRICES, 528, 16, 16),
    Workload("A2", MATRICES, 528, 32, 32),
    Workload("A3", MATRICES, 528, 32, 64),
    Workload("B", MATRICES, 64, 300, 300),
    Workload("S", MATRICES, 160, 10, 650),
    Workload("O/16x16", MATRICES, 528, 16, 16, measure="otam"),
    Workload("O/8x32", MATRICES, 528, 8, 32, measure="otam"),
    Workload("C", ALL_PAIRS, 436, 8, 60, width=512),
    Workload("W1", STEP, 16, 32, 32, width=768, num_orders=32),
)
NAMES = tuple(dict.fromkeys(workload.name.split("/")[0] for workload in WORKLOADS))


def select(names: Sequence[str]) -> list[Workload]:
    """The workloads of these names, in the order of the list above.

    >>> [workload.name for workload in select(["O", "A1"])]
    ['A1', 'O/16x16', 'O/8x32']
    """
    unknown = sorted(set(names).difference(NAMES))
    if unknown:
        raise ValueError(f"no workload {unknown[0]!r}, expected some of {', '.join(NAMES)}")
    return [workload for workload in WORKLOADS if workload.name.split("/")[0] in names]


@dataclass(frozen=True)
class Case:
    """A workload with its data, float32; what its kind does not need is empty.

    Attributes:
        cost: (count, rows, columns) costs in [0, 1).
        a, b: (count, rows, width) and (count, columns, width), unit vectors.
        orders: (count, num_orders, columns) orders of the columns, the first of each the true one.
    """

    workload: Workload
    cost: Tensor
    a: Tensor
    b: Tensor
    orders: Tensor

    def part(self, count: int) -> Case:
        """The first ``count`` matrices; of all pairs, the first sequences of ``a`` with all of ``b``."""
        return replace(self, cost=self.cost[:count], a=self.a[:count])


def make_case(workload: Workload, *, seed: int = 0) -> Case:
    """Random data of a workload's sizes."""
    generator = torch.Generator().manual_seed(seed)
    count, rows, columns, width = workload.count, workload.rows, workload.columns, workload.width
    empty = torch.empty(0)
    if workload.kind == MATRICES:
        cost = torch.rand(count, rows, columns, generator=generator)
        return Case(workload, cost, empty, empty, empty.long())
    a, b = (
        torch.nn.functional.normalize(torch.randn(count, length, width, generator=generator), dim=-1)
        for length in (rows, columns)
    )
    orders = torch.rand(count, workload.num_orders, columns, generator=generator).argsort(dim=-1)
    if workload.num_orders:
        orders[:, 0] = torch.arange(columns)
    return Case(workload, empty, a, b, orders)
