"""DiDeMo's moment ranking: which run of 5-s chunks of its video does a sentence describe?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempclr.distributed import shared_map
from tempclr.errors import InputError
from tempclr.evaluation.localization import features_and_rate
from tempclr.evaluation.protocols import MomentProtocol, similarity_of
from tempclr.evaluation.scores import unit_vectors

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = ["MomentResult", "candidate_moments", "evaluate_moments", "moment_rank"]

NUM_ANNOTATORS = 3
"""Of each sentence's annotators, those whose moments rank best count, so that one who errs does no harm."""


@dataclass(frozen=True)
class MomentResult:
    """``rank_at_1``, ``rank_at_5``: share of sentences whose rank (``ranks``, (num_sentences,) float64) is at most 1 or
    5; ``mean_iou``: of the first moment with the three annotators that overlap it most."""

    protocol: MomentProtocol
    rank_at_1: float
    rank_at_5: float
    mean_iou: float
    num_sentences: int
    ranks: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """The part that goes into a results file."""
        return {
            "protocol": self.protocol.to_dict(),
            "rank@1": self.rank_at_1,
            "rank@5": self.rank_at_5,
            "mean_iou": self.mean_iou,
            "num_sentences": self.num_sentences,
        }


def candidate_moments(num_chunks: int = 6) -> list[tuple[int, int]]:
    """First and last chunk of every moment: single chunks, then all runs of several; 21 for six chunks.

    >>> candidate_moments(3)
    [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    """
    return [(chunk, chunk) for chunk in range(num_chunks)] + list(combinations(range(num_chunks), 2))


def moment_rank(scores: Sequence[float], annotated: Sequence[int | None], *, official: bool = False) -> float:
    """Mean of the three lowest ranks among the annotators' moments, 1 being the best.

    ``scores``: one a candidate, higher is better; ``annotated``: for each annotator the position of the moment among
    the candidates, or None if it is none of them (it lies beyond the video). Among equal scores an annotator's moment
    ranks last, and a moment that is no candidate takes the rank after the last. Officially, among equal scores the
    earlier candidate ranks first, and annotators without a candidate are left out (NaN, which is no hit, if none is
    left).

    >>> moment_rank([0.1, 0.9, 0.5], [1, 1, 2, 0])
    1.3333333333333333
    """
    values = np.asarray(scores, dtype=np.float64)
    found = []
    for position in annotated:
        if position is None:
            found += [] if official else [len(values) + 1]
        elif official:
            earlier = np.arange(len(values)) <= position
            found.append(int((values > values[position]).sum() + ((values == values[position]) & earlier).sum()))
        else:
            found.append(int((values >= values[position]).sum()))
    return float(np.mean(np.sort(found)[:NUM_ANNOTATORS])) if found else float("nan")


def evaluate_moments(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    similarity: str | None = None,
    protocol: str = "clean",
    chunk_seconds: float = 5.0,
    num_chunks: int = 6,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> MomentResult:
    """rank@1, rank@5 and mean IoU of moments, for rows with ``annotator_spans`` (the paper's Table 9).

    A video is its first ``num_chunks`` chunks of ``chunk_seconds``. Its features go through the video tower once (at
    most as many as it has positions); a moment's vector is the mean of the hidden states of its features, and its score
    the similarity with the sentence. Moments that end beyond the features are no candidates, annotators' moments are
    cut to them. A sentence's rank is that of :func:`moment_rank`: DiDeMo asks that three annotators agree with the
    ranking.

    ``protocol="official"``: raw dot products, and all moments that begin within the video are candidates; one that
    ends beyond it also averages the hidden states of padding. Under ``torch.distributed`` every rank must call this.

    Raises:
        InputError: no rows, a row without features or ``annotator_spans``, or a span that begins beyond the chunks.
    """
    from tempclr.inference import encode_text

    if not len(paragraphs):
        raise InputError("no videos to evaluate: the dataset is empty")
    official = protocol == "official"
    similarity = similarity_of(protocol, similarity)
    settings = MomentProtocol(similarity, chunk_seconds, num_chunks, protocol)

    def of_video(index: int) -> list[tuple[float, float]]:
        paragraph = paragraphs[index]
        marked = annotated_moments(paragraph, settings)
        moments, vectors = _moment_vectors(model, paragraph, settings)
        texts = encode_text(model, list(paragraph.sentences), batch_size=batch_size)
        scores = (unit_vectors(texts, similarity) @ unit_vectors(vectors, similarity).T).double().numpy()
        if np.isnan(scores).any():
            raise ValueError(f"a score of video {paragraph.video_id!r} is NaN: check the features and the weights")
        if not official:
            end = max(last for _, last in moments)
            marked = [[(first, min(last, max(first, end))) for first, last in chunks] for chunks in marked]
        places = {moment: position for position, moment in enumerate(moments)}
        return [
            (
                moment_rank(own, [places.get(moment) for moment in of_sentence], official=official),
                _mean_iou(moments[int(own.argmax())], of_sentence),
            )
            for own, of_sentence in zip(scores, marked, strict=True)
        ]

    bar = "rank moments" if show_progress_bar else None
    found = [own for of_one in shared_map(of_video, range(len(paragraphs)), bar=bar) for own in of_one]
    values, overlaps = np.array([rank for rank, _ in found]), [overlap for _, overlap in found]
    return MomentResult(
        protocol=settings,
        rank_at_1=float((values <= 1).mean()),
        rank_at_5=float((values <= 5).mean()),
        mean_iou=float(np.mean(overlaps)),
        num_sentences=len(values),
        ranks=values,
    )


def annotated_moments(paragraph: Paragraph, protocol: MomentProtocol) -> list[list[tuple[int, int]]]:
    """Of each sentence, the (first, last) chunk that each annotator marked; the last one is cut to the chunks there
    are."""
    if paragraph.annotator_spans is None:
        raise InputError(
            f"video {paragraph.video_id!r} has no annotator_spans: moment ranking needs the spans of each annotator",
            field="annotator_spans",
        )
    seconds, most = protocol.chunk_seconds, protocol.num_chunks
    marked = []
    for of_sentence in paragraph.annotator_spans:
        chunks = []
        for start, end in of_sentence:
            # A tenth of a chunk absorbs ends that were cut to the video or rounded.
            first, last = int(start / seconds + 0.1), int(np.ceil(end / seconds - 0.1)) - 1
            if first >= most:
                span = f"[{start}, {end}) of video {paragraph.video_id!r}"
                raise InputError(f"{span} begins beyond {most} chunks of {seconds} s", field="annotator_spans")
            chunks.append((first, min(max(first, last), most - 1)))
        marked.append(chunks)
    return marked


def _moment_vectors(model: Any, paragraph: Paragraph, protocol: MomentProtocol) -> tuple[list[tuple[int, int]], Tensor]:
    """Candidates of one video and their vectors (num_moments, d)."""
    features, rate = features_and_rate(paragraph)
    most = model.config.video_config.max_num_features
    edges = [round(chunk * protocol.chunk_seconds * rate) for chunk in range(protocol.num_chunks + 1)]
    if edges[1] < 1 or edges[-1] > most:
        raise InputError(
            f"{protocol.num_chunks} chunks of {protocol.chunk_seconds} s at {rate} features a second are {edges[-1]} "
            f"features, the model takes 1 a chunk to {most} in all: extract at another rate",
            field="features_per_second",
        )
    count = min(len(features), most)
    states = _padded_states(model, features[:count])
    official = protocol.protocol == "official"
    # Note [Moments end with the video]: runs that differ only in chunks beyond the video hold the same features, so
    # their scores tie. The clean protocol keeps the one that ends with the video and cuts annotators' moments to it;
    # the released code keeps all and tells them apart by the hidden states of padding.
    within = 0 if official else 1
    moments = [moment for moment in candidate_moments(protocol.num_chunks) if edges[moment[within]] < count]
    vectors = [
        states[edges[first] : edges[last + 1] if official else min(edges[last + 1], count)].mean(0)
        for first, last in moments
    ]
    return moments, torch.stack(vectors)


def _padded_states(model: Any, features: NDArray) -> Tensor:
    """Hidden states of one clip padded to all positions of the video tower, those of padding included."""
    from tempclr.inference import evaluating

    most, count = model.config.video_config.max_num_features, len(features)
    rows = torch.zeros(1, most, features.shape[1])
    rows[0, :count] = torch.as_tensor(features, dtype=torch.float32)
    mask = (torch.arange(most) < count)[None]
    with evaluating(model):
        return (
            model.get_video_features(rows.to(model.device), mask.to(model.device))["last_hidden_state"][0].float().cpu()
        )


def _mean_iou(moment: tuple[int, int], annotated: Sequence[tuple[int, int]]) -> float:
    """Of the three annotators that overlap the moment most; chunks are counted whole."""
    overlaps = []
    for first, last in annotated:
        shared = max(0, min(moment[1], last) + 1 - max(moment[0], first))
        overlaps.append(shared / (max(moment[1], last) + 1 - min(moment[0], first)))
    return float(np.mean(np.sort(overlaps)[-NUM_ANNOTATORS:]))
