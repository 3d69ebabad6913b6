"""Full-video retrieval: each paragraph looks for its own video among all videos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tempclr.evaluation.embeddings import Embeddings, embed_paragraphs, hidden_cls
from tempclr.evaluation.metrics import TIE_RULE, ranks, retrieval_metrics
from tempclr.evaluation.official_metrics import OFFICIAL_TIE_RULES, official_ranks
from tempclr.evaluation.official_scores import official_score_pairs
from tempclr.evaluation.protocols import MEASURES, RetrievalProtocol, similarity_of
from tempclr.evaluation.scores import score_pairs

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = ["RetrievalResult", "evaluate_retrieval", "retrieval_from_embeddings"]


@dataclass(frozen=True)
class RetrievalResult:
    """Metrics and ranks of each measure on the same queries.

    ``metrics[measure]``: ``{"R@1", "R@5", "R@10", "median_rank"}``; ``ranks[measure]``: (num_queries,) int64, 1 is the
    best; ``protocols[measure]``: what exactly was measured; ``first[measure]``: (num_queries,) int64, the video each
    query ranked first.
    """

    metrics: dict[str, dict[str, float]]
    ranks: dict[str, NDArray[np.int64]]
    protocols: dict[str, RetrievalProtocol]
    num_queries: int
    tie_rule: str = TIE_RULE
    first: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The part that goes into a results file."""
        return {
            "num_queries": self.num_queries,
            "tie_rule": self.tie_rule,
            "measures": {
                measure: {"protocol": self.protocols[measure].to_dict()} | metrics
                for measure, metrics in self.metrics.items()
            },
        }


def evaluate_retrieval(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    background: str = "removed",
    measures: Sequence[str] = MEASURES,
    similarity: str | None = None,
    protocol: str = "clean",
    combination: str | None = None,
    normalize_length: bool = True,
    window_seconds: float = 16.0,
    stride_seconds: float | None = None,
    keep_ratio: float = 1.3,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> RetrievalResult:
    """R@1/5/10 and median rank of full-video retrieval, paragraphs being queries and videos candidates.

    ``background="removed"``: a video is its annotated segments, one pooled vector each. ``"kept"``: consecutive windows
    of ``window_seconds`` every ``stride_seconds`` (default: as long as the window) over the whole video; 16 s as
    released suits videos of minutes, shorter ones want shorter windows. Scores, higher being better:

    * ``cap_avg``: mean over the sentences of the best similarity to a clip;
    * ``dtw``, ``otam`` (both ways): minus the hard distance over the costs 1 - similarity, divided by sentences · clips
      of the pair unless ``normalize_length=False`` (the released scaling up to a constant factor, which moves no rank).
      With the background kept, each pair sees only its own best ``keep_ratio`` · sentences windows;
    * ``dtw+cap_avg``, ``otam+cap_avg``: both score matrices added as :func:`tempclr.evaluation.scores.combine` says;
      ``combination`` is ``"standardised"`` by default, ``"constant"`` for the official protocol.

    ``similarity`` is the cosine, or ``"dot"`` for raw products. ``protocol="official"`` does as the released code does,
    defects included (:mod:`tempclr.evaluation.official_scores`): raw products, and windows embedded without their
    [CLS]. Under ``torch.distributed`` every rank must call this; the rows of the scores are divided among them, and the
    ranks are those of one process. Raises :class:`InputError` for an empty dataset or a video without features.
    """
    released_windows = protocol == "official" and background == "kept"
    with hidden_cls(model) if released_windows else nullcontext():
        embeddings = embed_paragraphs(
            model,
            paragraphs,
            background=background,
            window_seconds=window_seconds,
            stride_seconds=stride_seconds,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )
    return retrieval_from_embeddings(
        embeddings,
        measures=measures,
        similarity=similarity,
        protocol=protocol,
        combination=combination,
        normalize_length=normalize_length,
        keep_ratio=keep_ratio,
    )


def retrieval_from_embeddings(
    embeddings: Embeddings,
    *,
    measures: Sequence[str] = MEASURES,
    similarity: str | None = None,
    protocol: str = "clean",
    combination: str | None = None,
    normalize_length: bool = True,
    keep_ratio: float = 1.3,
    across_ranks: bool = True,
    show_progress_bar: bool = False,
) -> RetrievalResult:
    """Full-video retrieval from vectors that are there already; settings as :func:`evaluate_retrieval`.

    >>> import torch
    >>> vectors, lengths = torch.eye(4).view(2, 2, 4), torch.tensor([2, 2])
    >>> found = retrieval_from_embeddings(Embeddings(vectors, lengths, vectors, lengths), measures=["dtw"])
    >>> found.metrics["dtw"]["R@1"]
    1.0
    """
    if not measures:
        raise ValueError(f"measures is empty, choose among {', '.join(MEASURES)}")
    official = protocol == "official"
    similarity = similarity_of(protocol, similarity)
    combination = ("constant" if official else "standardised") if combination is None else combination
    kept = embeddings.background == "kept"
    windows: dict[str, Any] = {}
    if kept:
        windows = {"window_seconds": embeddings.window_seconds, "stride_seconds": embeddings.stride_seconds}
        windows["keep_ratio"] = keep_ratio
    protocols = {
        measure: RetrievalProtocol(
            background=embeddings.background,
            measure=measure,
            similarity=similarity,
            normalize_length=normalize_length,
            combination=combination if "+" in measure else "standardised",
            protocol=protocol,
            **windows,
        )
        for measure in measures
    }
    inputs = (embeddings.sentences, embeddings.clips, embeddings.num_sentences, embeddings.num_clips)
    options: dict[str, Any] = {
        "measures": measures,
        "combination": combination,
        "across_ranks": across_ranks,
        "show_progress_bar": show_progress_bar,
    }
    if official:
        if (normalize_length, keep_ratio) != (True, 1.3):
            found = f"normalize_length={normalize_length}, keep_ratio={keep_ratio}"
            raise ValueError(f"protocol='official' scales by length and keeps 1.3 windows a sentence, got {found}")
        scores = official_score_pairs(*inputs, background=embeddings.background, **options)
    else:
        scores = score_pairs(
            *inputs,
            similarity=similarity,
            normalize_length=normalize_length,
            keep_ratio=keep_ratio if kept else None,
            **options,
        )
    return _ranked(scores, protocols, official=official)


def _ranked(scores: dict[str, Tensor], protocols: dict[str, RetrievalProtocol], *, official: bool) -> RetrievalResult:
    values = {measure: score.cpu().numpy() for measure, score in scores.items()}
    query_ranks = {measure: official_ranks(score) if official else ranks(score) for measure, score in values.items()}
    return RetrievalResult(
        metrics={measure: retrieval_metrics(own) for measure, own in query_ranks.items()},
        ranks=query_ranks,
        protocols=protocols,
        num_queries=len(next(iter(values.values()))),
        tie_rule=OFFICIAL_TIE_RULES["full-video"] if official else TIE_RULE,
        first={measure: score.argmax(axis=1) for measure, score in values.items()},
    )
