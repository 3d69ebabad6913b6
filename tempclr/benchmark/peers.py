"""Other packages that align sequences, each called as its documentation says, for those that are installed.

A peer that takes costs gets the cost matrices. One that takes only series of vectors and aligns them by their squared
Euclidean distance takes part in all pairs: of unit vectors that is twice the cosine cost.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .ours import Implementation, Outcome, Run, of_costs
from .workloads import ALL_PAIRS, MATRICES, Case, Task


def load(implementation: Implementation) -> str | None:
    """Why the package cannot be imported here, or None when it can."""
    if implementation.package is None:
        return None
    try:
        importlib.import_module(implementation.package)
    except ModuleNotFoundError as error:
        return f"not installed: {error}"
    except Exception as error:  # a package built for other versions may fail in any way
        return f"import failed: {type(error).__name__}: {error}"
    return None


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _takes_costs(case: Case, task: Task, *, soft: bool | None = None, gradient: bool | None = None) -> bool:
    """Whether the case is DTW of given costs, and of the softness and with the gradient that a peer is limited to."""
    of_matrices = case.workload.kind == MATRICES and case.workload.measure == "dtw"
    return of_matrices and soft in (None, task.soft) and gradient in (None, task.gradient)


def _one_by_one(distance: Callable[[np.ndarray], float], case: Case) -> Run:
    matrices = list(case.cost.double().numpy())
    return lambda: Outcome(torch.tensor([float(distance(matrix)) for matrix in matrices]))


def _torchdtw(case: Case, task: Task) -> Run | None:
    if not _takes_costs(case, task, soft=False, gradient=False):
        return None
    dtw_batch = _module("torchdtw").dtw_batch

    cost = case.cost.unsqueeze(1)
    rows, columns = cost.new_full((len(cost),), cost.shape[2]).long(), cost.new_full((1,), cost.shape[3]).long()
    return lambda: Outcome(dtw_batch(cost, rows, columns, symmetric=False).squeeze(1))


def _ddtw(case: Case, task: Task) -> Run | None:
    if not _takes_costs(case, task):
        return None
    dDTW = _module("ddtw").dDTW

    minimum, backend = "softmin" if task.soft else "hardmin", "cuda_cpp" if case.cost.is_cuda else "cpu_numba"
    mean = dDTW(min_function=minimum, gamma=task.gamma or 1.0, normalization="none", backend=backend)
    # It gives the mean over the batch; times the number it has the gradient of the sum.
    return of_costs(lambda cost: mean(C=cost) * len(cost), case, task)


def _pysdtw(case: Case, task: Task) -> Run | None:
    if not _takes_costs(case, task, soft=True):
        return None
    SoftDTW = _module("pysdtw").SoftDTW

    return of_costs(
        lambda cost: _of_dummies(SoftDTW(task.gamma, lambda x, y: cost, use_cuda=cost.is_cuda), cost), case, task
    )


def _of_dummies(loss: Callable[[Tensor, Tensor], Tensor], cost: Tensor) -> Tensor:
    """The value of a loss that makes its own costs, here ours, out of two series, here empty but for their lengths."""
    count, n, m = cost.shape
    return loss(cost.new_zeros(count, n, 1), cost.new_zeros(count, m, 1))


def _tslearn(case: Case, task: Task) -> Run | None:
    if case.workload.kind == ALL_PAIRS:
        return _tslearn_pairs(case, task)
    if not _takes_costs(case, task) or task == Task(soft=False, gradient=True):
        return None
    metrics = _module("tslearn.metrics")
    if not task.soft:
        return _one_by_one(lambda matrix: metrics.dtw_path_from_metric(matrix, metric="precomputed")[1], case)
    return of_costs(
        lambda cost: _of_dummies(metrics.SoftDTWLossPyTorch(gamma=task.gamma, dist_func=lambda x, y: cost), cost),
        case,
        task,
    )


def _tslearn_pairs(case: Case, task: Task) -> Run:
    metrics = _module("tslearn.metrics")
    a, b = case.a.double().numpy(), case.b.double().numpy()
    if task.soft:
        # Half the squared distance: half the soft-DTW of twice the costs at twice the gamma.
        return lambda: Outcome(torch.from_numpy(metrics.cdist_soft_dtw(a, b, gamma=2 * task.gamma)) / 2)
    return lambda: Outcome(torch.from_numpy(metrics.cdist_dtw(a, b)) ** 2 / 2)


def _dtaidistance(case: Case, task: Task) -> Run | None:
    if case.workload.kind != ALL_PAIRS or task.soft:
        return None
    dtw_ndim = _module("dtaidistance.dtw_ndim")

    a, b = list(case.a.double().numpy()), list(case.b.double().numpy())
    return lambda: Outcome(torch.tensor([[dtw_ndim.distance_fast(x, y) ** 2 / 2 for y in b] for x in a]))


def _aeon(case: Case, task: Task) -> Run | None:
    if case.workload.kind != ALL_PAIRS:
        return None
    distances = _module("aeon.distances")

    a, b = (features.mT.double().contiguous().numpy() for features in (case.a, case.b))
    # Its series are lists of arrays where lengths differ between the two sets.
    left, right = list(a), list(b)
    if task.soft:
        return lambda: Outcome(
            torch.from_numpy(distances.soft_dtw_pairwise_distance(left, right, gamma=2 * task.gamma)) / 2
        )
    return lambda: Outcome(torch.from_numpy(distances.dtw_pairwise_distance(left, right)) / 2)


def _librosa(case: Case, task: Task) -> Run | None:
    if not _takes_costs(case, task, soft=False, gradient=False):
        return None
    dtw = _module("librosa.sequence").dtw

    return _one_by_one(lambda matrix: dtw(C=matrix, backtrack=False)[-1, -1], case)


def _dtw_python(case: Case, task: Task) -> Run | None:
    if not _takes_costs(case, task, soft=False, gradient=False):
        return None
    dtw = _module("dtw").dtw

    return _one_by_one(lambda matrix: dtw(matrix, step_pattern="symmetric1", distance_only=True).distance, case)


PEERS = (
    Implementation("torchdtw", _torchdtw, package="torchdtw", per_step=True),
    Implementation("ddtw", _ddtw, package="ddtw"),
    Implementation("pysdtw", _pysdtw, package="pysdtw"),
    Implementation("tslearn", _tslearn, package="tslearn", loops=True),
    Implementation("dtaidistance", _dtaidistance, package="dtaidistance", loops=True),
    Implementation("librosa", _librosa, package="librosa", loops=True),
    Implementation("aeon", _aeon, package="aeon.distances", loops=True),
    Implementation("dtw-python", _dtw_python, package="dtw", loops=True),
)
