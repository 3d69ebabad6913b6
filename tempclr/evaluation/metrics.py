"""Numbers made from scores: ranks, recalls and the interval of a paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

TIE_RULE = "pessimistic"


def ranks(similarity: ArrayLike, targets: ArrayLike | None = None) -> NDArray[np.int64]:
    """Rank of each query's own candidate, 1 being the best.

    ``similarity``: (num_queries, num_candidates), higher is better. ``targets``: (num_queries,) index of each query's
    own candidate; without it query i owns candidate i. A NaN in a row is an error, never a rank.

    >>> ranks([[0.9, 0.1], [0.5, 0.5]]).tolist()
    [1, 2]
    """
    scores = np.asarray(similarity)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"similarity must be a filled matrix (num_queries, num_candidates), got shape {scores.shape}")
    num_queries, num_candidates = scores.shape
    if targets is None:
        if num_queries > num_candidates:
            raise ValueError(f"{num_queries} queries but only {num_candidates} candidates: name their own by targets=")
        own = np.arange(num_queries)
    else:
        own = np.asarray(targets)
        if own.shape != (num_queries,) or own.min() < 0 or own.max() >= num_candidates:
            raise ValueError(f"targets must be {num_queries} candidate indices below {num_candidates}, got {own!r}")
    if np.isnan(scores).any():
        row = int(np.isnan(scores).any(axis=1).argmax())
        raise ValueError(f"similarity of query {row} holds NaN: check the features and the model's weights")
    # Note [Ties rank last]: a candidate that shares its score with the own one counts as ranked before it, so a model
    # that gives every candidate the same score gets the worst rank, not the best. The released code counts every tied
    # position as a query of its own, which changes the denominator.
    own_scores = scores[np.arange(num_queries), own]
    return (scores >= own_scores[:, None]).sum(axis=1).astype(np.int64)


def recall_at_k(query_ranks: ArrayLike, k: int) -> float:
    """Share of queries whose own candidate ranks among the first ``k``; ``query_ranks`` as :func:`ranks` returns them.

    >>> recall_at_k([1, 3, 8], k=5)
    0.6666666666666666
    """
    values = _filled_vector(query_ranks, name="query_ranks")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return float((values <= k).mean())


def median_rank(query_ranks: ArrayLike) -> float:
    """Median of the ranks (1 is the best).

    >>> median_rank([1, 3, 8])
    3.0
    """
    return float(np.median(_filled_vector(query_ranks, name="query_ranks")))


def retrieval_metrics(query_ranks: ArrayLike, *, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """``{"R@1": share, ..., "median_rank": rank}`` of the ranks.

    >>> retrieval_metrics([1, 3, 8], ks=(1, 5))
    {'R@1': 0.3333333333333333, 'R@5': 0.6666666666666666, 'median_rank': 3.0}
    """
    return {f"R@{k}": recall_at_k(query_ranks, k) for k in ks} | {"median_rank": median_rank(query_ranks)}


def step_recall(matched: Mapping[str, int], total: Mapping[str, int]) -> float:
    """Step recall as CrossTask reports it: matched / total within each task, then the mean over tasks.

    A task without any annotated step says nothing and is left out; if that leaves none, it is an error.

    >>> step_recall({"tea": 1, "toast": 3}, {"tea": 2, "toast": 3})
    0.75
    """
    if matched.keys() != total.keys():
        raise ValueError(f"matched and total name different tasks: {sorted(matched)} and {sorted(total)}")
    recalls = [matched[task] / count for task, count in total.items() if count > 0]
    if not recalls:
        raise ValueError("no task has an annotated step, so there is no recall to report")
    return float(np.mean(recalls))


@dataclass(frozen=True)
class BootstrapInterval:
    """Mean difference of two systems on the same queries, with its percentile interval."""

    difference: float
    low: float
    high: float
    confidence: float
    num_resamples: int


def paired_bootstrap(
    per_query_a: ArrayLike,
    per_query_b: ArrayLike,
    *,
    num_resamples: int = 10_000,
    seed: int,
    confidence: float = 0.95,
) -> BootstrapInterval:
    """Percentile bootstrap of ``mean(a) - mean(b)``, queries drawn in pairs with replacement.

    ``per_query_a`` and ``per_query_b``: (num_queries,) one number a query from each system, in the same order, such as
    ``ranks <= 1`` for R@1. The same seed gives the same interval.

    >>> paired_bootstrap([1, 1, 1, 1], [0, 0, 0, 0], seed=0).low
    1.0
    """
    a, b = _filled_vector(per_query_a, name="per_query_a"), _filled_vector(per_query_b, name="per_query_b")
    if a.shape != b.shape:
        raise ValueError(f"a paired bootstrap needs the same queries in both: got {a.size} and {b.size}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    differences = a.astype(np.float64) - b.astype(np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    rows = max(
        1, 4_000_000 // differences.size
    )  # bounds the index table to a few dozen MB whatever the number of queries
    for start in range(0, num_resamples, rows):
        chunk = means[start : start + rows]
        drawn = generator.integers(0, differences.size, size=(chunk.size, differences.size))
        chunk[:] = differences[drawn].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return BootstrapInterval(float(differences.mean()), float(low), float(high), confidence, num_resamples)


def _filled_vector(values: ArrayLike, *, name: str) -> NDArray:
    vector = np.asarray(values)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must be a vector with at least one entry, got shape {vector.shape}")
    return vector
