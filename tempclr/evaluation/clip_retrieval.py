"""Clip-caption retrieval: every annotated segment with its sentence, text to video and video to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempclr.evaluation.embeddings import Embeddings, embed_paragraphs
from tempclr.evaluation.metrics import TIE_RULE, retrieval_metrics
from tempclr.evaluation.official_metrics import OFFICIAL_TIE_RULES, official_clip_positions
from tempclr.evaluation.protocols import DIRECTIONS, ClipRetrievalProtocol, similarity_of
from tempclr.evaluation.scores import unit_vectors
from tempclr.evaluation.shards import fill_rows

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = ["ClipRetrievalResult", "clip_retrieval_from_embeddings", "evaluate_clip_retrieval"]


@dataclass(frozen=True)
class ClipRetrievalResult:
    """``metrics[direction]``: ``{"R@1", "R@5", "R@10", "median_rank"}``; ``ranks[direction]``: (num_pairs,) int64, 1 is
    the best (under the official tie rule one entry a tied position); ``protocols[direction]``: what was measured."""

    metrics: dict[str, dict[str, float]]
    ranks: dict[str, NDArray[np.int64]]
    protocols: dict[str, ClipRetrievalProtocol]
    num_pairs: int
    tie_rule: str = TIE_RULE

    def to_dict(self) -> dict[str, Any]:
        """The part that goes into a results file."""
        return {
            "num_pairs": self.num_pairs,
            "tie_rule": self.tie_rule,
            "directions": {
                direction: {"protocol": self.protocols[direction].to_dict()} | metrics
                for direction, metrics in self.metrics.items()
            },
        }


def evaluate_clip_retrieval(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    similarity: str | None = None,
    protocol: str = "clean",
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> ClipRetrievalResult:
    """R@1/5/10 and median rank of single sentences and segments (the paper's Table 3), in both directions.

    Candidates are the segments (or sentences) of all videos. Equal scores rank the own candidate last. With
    ``protocol="official"``: raw dot products, text to video alone, and each tied position counted as a query of its
    own. Raises :class:`InputError` for an empty dataset or a video without features.
    """
    embeddings = embed_paragraphs(model, paragraphs, batch_size=batch_size, show_progress_bar=show_progress_bar)
    return clip_retrieval_from_embeddings(embeddings, similarity=similarity, protocol=protocol)


def clip_retrieval_from_embeddings(
    embeddings: Embeddings, *, similarity: str | None = None, protocol: str = "clean", across_ranks: bool = True
) -> ClipRetrievalResult:
    """Clip-caption retrieval from vectors that are there already: background removed, as many clips as sentences.

    >>> vectors, lengths = torch.eye(4).view(2, 2, 4), torch.tensor([2, 2])
    >>> found = clip_retrieval_from_embeddings(Embeddings(vectors, lengths, vectors, lengths))
    >>> found.num_pairs, found.metrics["video-to-text"]["R@1"]
    (4, 1.0)
    """
    if embeddings.background != "removed" or not torch.equal(embeddings.num_sentences, embeddings.num_clips):
        raise ValueError(
            "clip-caption retrieval needs one annotated segment a sentence: embed with the background removed"
        )
    official = protocol == "official"
    similarity = similarity_of(protocol, similarity)
    directions = DIRECTIONS[:1] if official else DIRECTIONS
    protocols = {direction: ClipRetrievalProtocol(direction, similarity, protocol) for direction in directions}
    real = torch.arange(embeddings.clips.shape[1], device=embeddings.clips.device) < embeddings.num_clips[:, None]
    texts = embeddings.sentences[:, : real.shape[1]]
    sentences, clips = (unit_vectors(values[real], similarity) for values in (texts, embeddings.clips))
    found = {}
    for direction in directions:
        queries = (sentences, clips) if direction == "text-to-video" else (clips, sentences)
        better, equal = (counts.cpu().numpy() for counts in _counts(*queries, across_ranks=across_ranks))
        # Note [Ties rank last] in metrics.py, without the whole matrix.
        found[direction] = official_clip_positions(better, equal) if official else better + equal
    return ClipRetrievalResult(
        metrics={direction: retrieval_metrics(values) for direction, values in found.items()},
        ranks=found,
        protocols=protocols,
        num_pairs=len(sentences),
        tie_rule=OFFICIAL_TIE_RULES["clip-caption"] if official else TIE_RULE,
    )


def _counts(queries: Tensor, candidates: Tensor, *, across_ranks: bool) -> tuple[Tensor, Tensor]:
    """Of each query i, the candidates that score above candidate i and those that score the same, itself included."""
    outputs = {
        name: torch.zeros(len(queries), dtype=torch.int64, device=queries.device) for name in ("better", "equal")
    }

    def count(rows: slice) -> dict[str, Tensor]:
        scores = queries[rows] @ candidates.T
        own = scores.gather(1, torch.arange(rows.start, rows.stop, device=scores.device)[:, None])
        return {"better": (scores > own).sum(1), "equal": (scores == own).sum(1)}

    fill_rows(outputs, count, across_ranks=across_ranks)
    return outputs["better"], outputs["equal"]
