"""Full-video retrieval: each paragraph looks for its own video among all videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tempclr.costs import cost_matrix
from tempclr.errors import InputError
from tempclr.evaluation.localization import features_and_rate
from tempclr.evaluation.metrics import TIE_RULE, ranks, retrieval_metrics
from tempclr.evaluation.protocols import MEASURES, RetrievalProtocol
from tempclr_kernels import dtw, otam, pairwise_distances

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

MEMORY_CELLS = 16_000_000
"""Cost cells held at once when windows are chosen for each pair: 64 MB in float32, a few times that with the sort."""


@dataclass(frozen=True)
class RetrievalResult:
    """Metrics and ranks of each measure on the same queries.

    ``metrics[measure]``: ``{"R@1", "R@5", "R@10", "median_rank"}``; ``ranks[measure]``: (num_queries,) int64, 1 is the
    best, ties ranked last; ``protocols[measure]``: what exactly was measured.
    """

    metrics: dict[str, dict[str, float]]
    ranks: dict[str, NDArray[np.int64]]
    protocols: dict[str, RetrievalProtocol]
    num_queries: int
    tie_rule: str = TIE_RULE

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
    similarity: str = "cosine",
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
      With the background kept, each pair sees only its own best windows (:func:`kept_window_distances`);
    * ``dtw+cap_avg``, ``otam+cap_avg``: both score matrices standardised, (s - mean) / std over all pairs, then added
      (:func:`combine`).

    ``similarity`` is the cosine, or ``"dot"`` for raw products. Raises :class:`InputError` for an empty dataset or a
    video without features.
    """
    if not len(paragraphs):
        raise InputError("no videos to evaluate: the dataset is empty")
    if not measures:
        raise ValueError(f"measures is empty, choose among {', '.join(MEASURES)}")
    stride_seconds = window_seconds if stride_seconds is None else stride_seconds
    windows = (
        {"window_seconds": window_seconds, "stride_seconds": stride_seconds, "keep_ratio": keep_ratio}
        if background == "kept"
        else {}
    )
    protocols = {
        measure: RetrievalProtocol(
            background=background,
            measure=measure,
            similarity=similarity,
            normalize_length=normalize_length,
            **windows,
        )
        for measure in measures
    }
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    sentences, num_sentences = embed_sentences(model, paragraphs, **options)
    if background == "removed":
        clips, num_clips = embed_segments(model, paragraphs, **options)
    else:
        clips, num_clips = embed_windows(
            model, paragraphs, window_seconds=window_seconds, stride_seconds=stride_seconds, **options
        )
    scores = score_pairs(
        sentences,
        clips,
        num_sentences,
        num_clips,
        measures=measures,
        similarity=similarity,
        normalize_length=normalize_length,
        keep_ratio=keep_ratio if background == "kept" else None,
    )
    query_ranks = {measure: ranks(score.cpu().numpy()) for measure, score in scores.items()}
    return RetrievalResult(
        metrics={measure: retrieval_metrics(values) for measure, values in query_ranks.items()},
        ranks=query_ranks,
        protocols=protocols,
        num_queries=len(paragraphs),
    )


def score_pairs(
    sentences: Tensor,
    clips: Tensor,
    num_sentences: Tensor,
    num_clips: Tensor,
    *,
    measures: Sequence[str] = MEASURES,
    similarity: str = "cosine",
    normalize_length: bool = True,
    keep_ratio: float | None = None,
) -> dict[str, Tensor]:
    """Scores of all paragraphs against all videos by each measure, higher is better.

    ``sentences``: (num_paragraphs, n, d) and ``clips``: (num_videos, m, d), padded, with their lengths. Returns measure
    -> (num_paragraphs, num_videos) float32. ``keep_ratio=None`` lets ``dtw`` and ``otam`` see all clips; a number lets
    each pair see its own best ones (:func:`kept_window_distances`). ``cap_avg`` always sees all.
    """
    wanted = {part for measure in measures for part in measure.split("+")}
    scores: dict[str, Tensor] = {}
    for part in sorted(wanted):
        if part == "cap_avg" or keep_ratio is None:
            distance = pairwise_distances(
                sentences,
                clips,
                num_sentences,
                num_clips,
                measure=part,
                both_ways=part == "otam",
                similarity=similarity,
            )
            kept = num_clips.expand(len(num_sentences), -1)
        else:
            distance, kept = kept_window_distances(
                sentences, clips, num_sentences, num_clips, measure=part, similarity=similarity, keep_ratio=keep_ratio
            )
        if part != "cap_avg" and normalize_length:
            distance = distance / (num_sentences[:, None] * kept)
        scores[part] = -distance
    return {measure: combine([scores[part] for part in measure.split("+")]) for measure in measures}


def combine(scores: Sequence[Tensor]) -> Tensor:
    """Sum of score matrices, each standardised over all its entries: Σ (s - mean(s)) / std(s). One matrix stays as it
    is.

    The paper's "+ Cap. Avg." gives no formula; standardising makes the sum free of the scale of either part. A constant
    matrix adds nothing.

    >>> combine([torch.tensor([[0.0, 2.0]]), torch.tensor([[10.0, 30.0]])]).tolist()
    [[-2.0, 2.0]]
    """
    if len(scores) == 1:
        return scores[0]
    total = torch.zeros_like(scores[0])
    for score in scores:
        # The rounded mean of a constant matrix may miss its entries, and the tiny rest would be blown up to ±1.
        if score.amax() > score.amin():
            total = total + (score - score.mean()) / score.std(correction=0)
    return total


def kept_window_distances(
    sentences: Tensor,
    clips: Tensor,
    num_sentences: Tensor,
    num_clips: Tensor,
    *,
    measure: str,
    similarity: str = "cosine",
    keep_ratio: float = 1.3,
) -> tuple[Tensor, Tensor]:
    """Hard distances of all pairs, each over its own best windows in time order, and how many windows each pair kept.

    Shapes as :func:`score_pairs`; returns (num_paragraphs, num_videos) float32 and int64. A pair keeps the
    int(keep_ratio · sentences) windows, at least as many as sentences and at most all, whose lowest cost over the
    sentences is lowest (ties: the earlier window), and aligns them in time order by ``measure``, ``"dtw"`` or
    ``"otam"`` (both ways).
    """
    wanted = (num_sentences.double() * keep_ratio).long().maximum(num_sentences)
    kept = torch.minimum(wanted[:, None], num_clips[None, :])
    distances = sentences.new_empty(kept.shape)
    for rows in _chunks(len(sentences), size=clips.shape[0] * clips.shape[1] * sentences.shape[1]):
        # One flat product: broadcasting over pairs would copy every clip for every paragraph.
        flat = cost_matrix(sentences[rows].flatten(0, 1), clips.flatten(0, 1), similarity=similarity)
        cost = flat.unflatten(0, (-1, sentences.shape[1])).unflatten(2, (-1, clips.shape[1])).transpose(1, 2)
        cost = keep_windows(cost, num_sentences[rows], num_clips, kept[rows])
        lengths = torch.stack([num_sentences[rows, None].expand_as(kept[rows]), kept[rows]], dim=-1)
        distances[rows] = dtw(cost, lengths) if measure == "dtw" else otam(cost, lengths, both_ways=True)
    return distances, kept


def keep_windows(cost: Tensor, num_sentences: Tensor, num_clips: Tensor, kept: Tensor) -> Tensor:
    """Columns of each pair's cost that some sentence likes best, in time order.

    ``cost``: (P, V, n, m), ``num_sentences``: (P,), ``num_clips``: (V,), ``kept``: (P, V) columns to keep. Returns
    (P, V, n, kept.max()); columns past a pair's own count are repetitions without meaning.
    """
    num_rows, num_columns = cost.shape[-2:]
    past_sentences = torch.arange(num_rows, device=cost.device) >= num_sentences[:, None]
    past_clips = torch.arange(num_columns, device=cost.device) >= num_clips[:, None]
    lowest = cost.masked_fill(past_sentences[:, None, :, None], math.inf).amin(dim=-2)
    order = lowest.masked_fill(past_clips, math.inf).argsort(dim=-1, stable=True)
    # Note [Windows back in time order]: the first kept[p, v] entries of order are the chosen windows by cost. Setting
    # the others to the last index and sorting brings the chosen ones to the front in time order; the rest is padding
    # that the lengths hide. Padded windows sort behind every real one, so they are never among the chosen.
    width = int(kept.max())
    dropped = torch.arange(width, device=cost.device) >= kept[..., None]
    columns = order[..., :width].masked_fill(dropped, num_columns - 1).sort(dim=-1).values
    return cost.gather(-1, columns[..., None, :].expand(*cost.shape[:-1], width))


def embed_sentences(
    model: Any, paragraphs: Sequence[Paragraph], *, batch_size: int = 64, show_progress_bar: bool = False
) -> tuple[Tensor, Tensor]:
    """(num_paragraphs, n, d) float32, zero padded, and (num_paragraphs,) lengths, on the model's device."""
    from tempclr.inference import encode_text

    sentences = [paragraph.sentences for paragraph in paragraphs]
    flat = encode_text(
        model, list(chain.from_iterable(sentences)), batch_size=batch_size, show_progress_bar=show_progress_bar
    )
    return _padded(list(flat.split([len(own) for own in sentences])), device=model.device)


def embed_segments(
    model: Any, paragraphs: Sequence[Paragraph], *, batch_size: int = 64, show_progress_bar: bool = False
) -> tuple[Tensor, Tensor]:
    """One pooled vector for each annotated segment: (num_videos, m, d), zero padded, and (num_videos,) lengths."""

    def segments(paragraph: Paragraph) -> list[tuple[float, float]]:
        return list(zip(paragraph.starts, paragraph.ends, strict=True))

    return _embed_spans(model, paragraphs, segments, batch_size=batch_size, show_progress_bar=show_progress_bar)


def embed_windows(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    window_seconds: float,
    stride_seconds: float,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> tuple[Tensor, Tensor]:
    """One pooled vector for each window over the whole video: (num_videos, m, d), zero padded, and (num_videos,)
    lengths."""

    def windows(paragraph: Paragraph) -> list[tuple[float, float]]:
        features, rate = features_and_rate(paragraph)
        return window_spans(len(features) / rate, window_seconds=window_seconds, stride_seconds=stride_seconds)

    return _embed_spans(model, paragraphs, windows, batch_size=batch_size, show_progress_bar=show_progress_bar)


def window_spans(duration_seconds: float, *, window_seconds: float, stride_seconds: float) -> list[tuple[float, float]]:
    """Windows ``[start, end)`` over the whole video; the last one is cut at the end and is the first to reach it.

    >>> window_spans(5.0, window_seconds=2.0, stride_seconds=2.0)
    [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)]
    """
    num_windows = 1 + max(0, math.ceil(round((duration_seconds - window_seconds) / stride_seconds, 6)))
    starts = [index * stride_seconds for index in range(num_windows)]
    return [(start, min(start + window_seconds, duration_seconds)) for start in starts]


def _embed_spans(
    model: Any,
    paragraphs: Sequence[Paragraph],
    spans_of: Callable[[Paragraph], list[tuple[float, float]]],
    *,
    batch_size: int,
    show_progress_bar: bool,
) -> tuple[Tensor, Tensor]:
    from tqdm.auto import tqdm

    from tempclr.inference import encode_clips

    embedded = []
    for paragraph in tqdm(paragraphs, desc="embed videos", unit="video", disable=not show_progress_bar):
        features, rate = features_and_rate(paragraph)
        spans = spans_of(paragraph)
        embedded.append(encode_clips(model, features, spans, features_per_second=rate, batch_size=batch_size))
    return _padded(embedded, device=model.device)


def _padded(sequences: list[Tensor], *, device: torch.device) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    return pad_sequence(sequences, batch_first=True).to(device), lengths


def _chunks(num_rows: int, *, size: int) -> Iterator[slice]:
    """Slices of rows so that rows · ``size`` stays within MEMORY_CELLS (one row at least)."""
    step = max(1, MEMORY_CELLS // max(1, size))
    return (slice(start, start + step) for start in range(0, num_rows, step))
