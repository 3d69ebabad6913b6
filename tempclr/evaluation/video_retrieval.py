"""Nearest-neighbour retrieval of videos: does a test video find training videos of its own class?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tempclr.errors import InputError

__all__ = ["RETRIEVAL_KS", "NeighbourResult", "nearest_neighbours", "retrieve_neighbours"]

RETRIEVAL_KS = (1, 5, 10, 20)
BLOCK = 1024  # queries compared at once: what bounds the memory


@dataclass(frozen=True)
class NeighbourResult:
    """Shares of queries that find their class.

    Attributes:
        recalls: for each k the share of queries whose class is among the classes of their k nearest gallery videos.
        num_queries, num_gallery: videos of both sides.
        feature_size: length of a video's vector.
    """

    recalls: Mapping[int, float]
    num_queries: int
    num_gallery: int
    feature_size: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a results file."""
        named = {f"R@{k}": value for k, value in self.recalls.items()}
        return {**{name: value for name, value in asdict(self).items() if name != "recalls"}, "recalls": named}


def nearest_neighbours(queries: Tensor, gallery: Tensor, *, k: int) -> Tensor:
    """Indices ``(Q, k)`` of the gallery vectors of highest cosine, the nearest first; of equals the first one.

    Args:
        queries: ``(Q, D)`` floating vectors.
        gallery: ``(G, D)``.
        k: at most G.

    Raises:
        ValueError: sizes that do not fit, or a k that the gallery does not have.

    >>> nearest_neighbours(torch.tensor([[1.0, 0.1]]), torch.eye(2), k=2)
    tensor([[0, 1]])
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        shapes = f"{tuple(queries.shape)} and {tuple(gallery.shape)}"
        raise ValueError(f"queries and gallery must be (Q, D) and (G, D) of one width, got {shapes}")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must be from 1 to the {len(gallery)} vectors of the gallery, got {k}")
    there = F.normalize(gallery.float(), dim=1)
    found = [
        (F.normalize(block.float(), dim=1) @ there.T).argsort(dim=1, descending=True, stable=True)[:, :k]
        for block in queries.split(BLOCK)
    ]
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.long)


def retrieve_neighbours(
    query_features: Tensor,
    query_labels: Sequence[str],
    gallery_features: Tensor,
    gallery_labels: Sequence[str],
    *,
    ks: Sequence[int] = RETRIEVAL_KS,
) -> NeighbourResult:
    """R@k of class labels, by cosine of whole-video vectors.

    Args:
        query_features, query_labels: ``(Q, D)`` and their classes; usually the test videos.
        gallery_features, gallery_labels: ``(G, D)`` and their classes; usually the training videos.
        ks: counts of neighbours, each at most G.

    Raises:
        InputError: no queries, or a count that the gallery does not have.

    Source: TCLR §4.1, after MemDPC's protocol.

    >>> vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> retrieve_neighbours(vectors[:1], ["run"], vectors[1:], ["walk", "run"], ks=(1, 2)).recalls
    {1: 0.0, 2: 1.0}
    """
    for name, features, labels in (
        ("queries", query_features, query_labels),
        ("gallery videos", gallery_features, gallery_labels),
    ):
        if len(features) != len(labels) or not len(labels):
            raise InputError(f"{name} need one label each, got {len(features)} vectors and {len(labels)} labels")
    most = max(ks)
    if most > len(gallery_labels):
        told = f"R@{most} needs {most} gallery videos, there are {len(gallery_labels)}: give smaller --ks"
        raise InputError(told, field="ks")
    numbers = {label: number for number, label in enumerate(dict.fromkeys([*query_labels, *gallery_labels]))}
    own = torch.tensor([numbers[label] for label in query_labels])
    theirs = torch.tensor([numbers[label] for label in gallery_labels])
    nearest = nearest_neighbours(query_features, gallery_features, k=most).cpu()
    hits = theirs[nearest] == own[:, None]
    recalls = {int(k): float(hits[:, :k].any(dim=1).double().mean()) for k in ks}
    return NeighbourResult(recalls, len(query_labels), len(gallery_labels), gallery_features.shape[1])
