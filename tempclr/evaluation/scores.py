"""Scores of all paragraphs against all videos by every measure, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tempclr.evaluation.protocols import COMBINATIONS, MEASURES
from tempclr.evaluation.shards import fill_rows
from tempclr_kernels import dtw, otam, pairwise_distances

__all__ = ["COMBINE_COEFFICIENT", "combine", "keep_windows", "score_pairs", "similarity_chunks", "unit_vectors"]

MEMORY_CELLS = 8_000_000
"""Cost cells held at once when windows are chosen for each pair: 32 MB in float32, a few times that with the choice."""
COMBINE_COEFFICIENT = 0.012
"""The constant that stands unused in the released evaluation beside its combined measures."""


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
    combination: str = "standardised",
    across_ranks: bool = True,
    show_progress_bar: bool = False,
) -> dict[str, Tensor]:
    """Scores of all paragraphs against all videos by each measure, higher is better.

    Args:
        sentences: (num_paragraphs, n, d) floating, padded; with ``num_sentences`` (num_paragraphs,).
        clips: (num_videos, m, d), padded; with ``num_clips`` (num_videos,).
        measures: names of :data:`tempclr.evaluation.protocols.MEASURES`.
        similarity: ``"cosine"``, or ``"dot"`` for raw products.
        normalize_length: divide ``dtw`` and ``otam`` by sentences · clips of the pair.
        keep_ratio: None lets ``dtw`` and ``otam`` see all clips. A number lets each pair see only its own
            int(keep_ratio · sentences) clips, at least as many as sentences and at most all, whose lowest cost over
            the sentences is lowest (ties: the earlier), aligned in time order. ``cap_avg`` always sees all.
        combination: how ``dtw+cap_avg`` and ``otam+cap_avg`` add up, see :func:`combine`.
        across_ranks: divide the rows among the ranks of ``torch.distributed``, where it is initialised.
        show_progress_bar: a bar over blocks of rows.

    Returns:
        measure -> (num_paragraphs, num_videos), of the embeddings' dtype.

    Example:
        >>> a, lengths = torch.eye(3)[None], torch.tensor([3])
        >>> score_pairs(a, torch.cat([a, a.flip(1)]), lengths, lengths.expand(2), measures=["cap_avg"])
        {'cap_avg': tensor([[1., 1.]])}
    """
    parts = list(dict.fromkeys(part for measure in measures for part in measure.split("+")))
    scores = {part: sentences.new_zeros(len(sentences), len(clips)) for part in parts}

    def score(rows: slice) -> dict[str, Tensor]:
        own, counts = sentences[rows], num_sentences[rows]
        if keep_ratio is not None:
            found = _kept_scores(own, clips, counts, num_clips, parts, similarity, keep_ratio, normalize_length)
        else:
            found = _whole_scores(own, clips, counts, num_clips, parts, similarity, normalize_length)
        return found

    fill_rows(scores, score, across_ranks=across_ranks, bar="score" if show_progress_bar else None)
    return {measure: combine([scores[part] for part in measure.split("+")], combination) for measure in measures}


def combine(scores: Sequence[Tensor], combination: str = "standardised") -> Tensor:
    """Sum of the score matrices of a distance and of Cap. Avg.; one matrix stays as it is.

    ``"standardised"``: Σ (s - mean(s)) / std(s), over all entries of each matrix. The paper's "+ Cap. Avg." gives no
    formula; this sum is free of the scale of either part, and a constant matrix adds nothing. ``"constant"``:
    cap_avg + 0.012 · score of the distance, after the constant that stands unused in the released evaluation.

    >>> combine([torch.tensor([[0.0, 2.0]]), torch.tensor([[10.0, 30.0]])]).tolist()
    [[-2.0, 2.0]]
    >>> combine([torch.tensor([[-100.0, 0.0]]), torch.tensor([[1.0, 2.0]])], "constant").tolist()
    [[-0.2000000476837158, 2.0]]
    """
    if combination not in COMBINATIONS:
        raise ValueError(f"combination must be one of {', '.join(COMBINATIONS)}, got {combination!r}")
    if len(scores) == 1:
        return scores[0]
    if combination == "constant":
        distance, cap_avg = scores
        return cap_avg + COMBINE_COEFFICIENT * distance
    total = torch.zeros_like(scores[0])
    for score in scores:
        # The rounded mean of a constant matrix may miss its entries, and the tiny rest would be blown up to ±1.
        if score.amax() > score.amin():
            total = total + (score - score.mean()) / score.std(correction=0)
    return total


def _whole_scores(
    sentences: Tensor,
    clips: Tensor,
    num_sentences: Tensor,
    num_clips: Tensor,
    parts: Sequence[str],
    similarity: str,
    normalize_length: bool,
) -> dict[str, Tensor]:
    found = {}
    for part in parts:
        distance = pairwise_distances(
            sentences,
            clips,
            num_sentences,
            num_clips,
            measure=part,
            both_ways=part == "otam",
            similarity=similarity,
        )
        if part != "cap_avg" and normalize_length:
            distance = distance / (num_sentences[:, None] * num_clips)
        found[part] = -distance
    return found


def _kept_scores(
    sentences: Tensor,
    clips: Tensor,
    num_sentences: Tensor,
    num_clips: Tensor,
    parts: Sequence[str],
    similarity: str,
    keep_ratio: float,
    normalize_length: bool,
) -> dict[str, Tensor]:
    wanted = (num_sentences.double() * keep_ratio).long().maximum(num_sentences)
    kept = torch.minimum(wanted[:, None], num_clips[None, :])
    found = {part: sentences.new_empty(len(sentences), len(clips)) for part in parts}
    for columns, close in similarity_chunks(sentences, clips, num_sentences, num_clips, similarity=similarity):
        counts, chosen = num_clips[columns], kept[:, columns]
        if "cap_avg" in parts:
            found["cap_avg"][:, columns] = best_match(close, num_sentences)
        if set(parts) == {"cap_avg"}:
            continue
        cost = 1 - keep_windows(close, counts, chosen)
        lengths = torch.stack([num_sentences[:, None].expand_as(chosen), chosen], dim=-1)
        scale = lengths.prod(-1) if normalize_length else 1
        for part in parts:
            if part != "cap_avg":
                distance = dtw(cost, lengths) if part == "dtw" else otam(cost, lengths, both_ways=True)
                found[part][:, columns] = -distance / scale
    return found


def similarity_chunks(
    sentences: Tensor, clips: Tensor, num_sentences: Tensor, num_clips: Tensor, *, similarity: str
) -> Iterator[tuple[slice, Tensor]]:
    """Similarities of all sentences to the clips of a few videos at a time: (columns, (P, V, n, m)).

    Memory is bounded by MEMORY_CELLS. Rows and columns beyond the lengths repeat the last one within.
    """
    # Note [Padding by repetition]: a repeated unit moves no minimum and no maximum over units, so what follows needs no
    # masks over all cells, which would cost as much as a third of the product that makes them.
    # Only real units are multiplied: where lengths differ much, padding would be half of the work.
    rows, row_place = _packed(sentences, num_sentences, similarity)
    width = int(num_sentences.max())
    step = max(1, MEMORY_CELLS // (len(sentences) * width * int(num_clips.max())))
    for start in range(0, len(clips), step):
        columns = slice(start, min(start + step, len(clips)))
        units, place = _packed(clips[columns], num_clips[columns], similarity)
        close = (rows @ units.T).index_select(1, place).index_select(0, row_place)
        close = close.unflatten(0, (len(sentences), width)).unflatten(2, (len(num_clips[columns]), -1))
        yield columns, close.transpose(1, 2)


def _packed(sequences: Tensor, lengths: Tensor, similarity: str) -> tuple[Tensor, Tensor]:
    """Real units one below the other, and for each place of the padded sequences its own unit, or the last one of its
    sequence where it has none."""
    longest = int(lengths.max())
    real = torch.arange(longest, device=sequences.device) < lengths[:, None]
    units = unit_vectors(sequences[:, :longest][real], similarity)
    return units, real.flatten().cumsum(0) - 1


def unit_vectors(vectors: Tensor, similarity: str) -> Tensor:
    """Vectors whose dot product is the similarity: of length 1 for the cosine (a vector of zeros stays)."""
    if similarity == "dot":
        return vectors
    return torch.nn.functional.normalize(vectors, dim=-1, eps=torch.finfo(vectors.dtype).tiny)


def best_match(close: Tensor, num_sentences: Tensor) -> Tensor:
    """Cap. Avg.: mean over the sentences of the best similarity to a clip; ``close`` (P, V, n, m) -> (P, V).

    Columns beyond the clips of a video must repeat one of them.
    """
    past = torch.arange(close.shape[2], device=close.device) >= num_sentences[:, None]
    return close.amax(-1).masked_fill(past[:, None, :], 0).sum(-1) / num_sentences[:, None]


def keep_windows(close: Tensor, num_clips: Tensor, kept: Tensor) -> Tensor:
    """Columns of each pair's similarities that some sentence likes best, in time order.

    ``close``: (P, V, n, m), rows beyond the sentences of a paragraph repeating one of them; ``num_clips``: (V,);
    ``kept``: (P, V) columns to keep. Returns (P, V, n, kept.max()); columns past a pair's own count are repetitions
    without meaning.
    """
    num_columns = close.shape[-1]
    past_clips = torch.arange(num_columns, device=close.device) >= num_clips[:, None]
    highest = close.amax(dim=-2).masked_fill_(past_clips, -math.inf)
    order = highest.argsort(dim=-1, descending=True, stable=True)
    # Note [Windows back in time order]: the first kept[p, v] entries of order are the chosen windows by similarity.
    # Setting the others to the last index and sorting brings the chosen ones to the front in time order; the rest is
    # padding that the lengths hide. Padded windows sort behind every real one, so they are never among the chosen.
    width = int(kept.max())
    dropped = torch.arange(width, device=close.device) >= kept[..., None]
    columns = order[..., :width].masked_fill(dropped, num_columns - 1).sort(dim=-1).values
    return close.gather(-1, columns[..., None, :].expand(*close.shape[:-1], width))
