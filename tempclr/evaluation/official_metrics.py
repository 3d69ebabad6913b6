"""Ranks as the released code counts them, equal scores included: only to compare with published numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["OFFICIAL_TIE_RULES", "official_clip_positions", "official_ranks"]

OFFICIAL_TIE_RULES = {"full-video": "the later candidate first", "clip-caption": "every tied position is a query"}


def official_ranks(similarity: ArrayLike) -> NDArray[np.int64]:
    """Full-video ranks of query i's own candidate i, 1 being the best: (num_queries, num_videos) -> (num_queries,).

    The released code sorts upwards and takes the last k, so among equal scores the later candidate wins; its order of
    videos changes from run to run, ours is that of the dataset.

    >>> official_ranks([[0.5, 0.5], [0.5, 0.5]]).tolist()
    [2, 1]
    """
    scores = np.asarray(similarity)
    own = np.diagonal(scores)[:, None]
    later = np.arange(scores.shape[1]) > np.arange(len(scores))[:, None]
    return (1 + (scores > own).sum(axis=1) + ((scores == own) & later).sum(axis=1)).astype(np.int64)


def official_clip_positions(num_better: ArrayLike, num_equal: ArrayLike) -> NDArray[np.int64]:
    """Clip-caption ranks, 1 being the best, as many as there are tied positions of all queries.

    ``num_better``: (num_queries,) candidates above the own one; ``num_equal``: candidates that share its score, itself
    included. A query whose own candidate ties with others counts once for each of the tied positions, so that ties
    change numerator and denominator of every recall.

    >>> official_clip_positions([0, 2], [2, 1]).tolist()
    [1, 2, 3]
    """
    better, equal = np.asarray(num_better), np.asarray(num_equal)
    within = np.arange(equal.sum()) - np.repeat(np.cumsum(equal) - equal, equal)
    return (np.repeat(better, equal) + within + 1).astype(np.int64)
