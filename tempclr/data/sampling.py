"""Which sentences of a paragraph an epoch sees, and which features a span of time covers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = [
    "SENTENCE_SAMPLINGS",
    "ParagraphDataset",
    "cut_clips",
    "evenly_spaced",
    "feature_range",
    "filling",
    "non_overlapping",
    "random_span",
    "select_sentences",
]

SENTENCE_SAMPLINGS = ("evenly", "span")


def evenly_spaced(num_items: int, num_wanted: int) -> list[int]:
    """At most ``num_wanted`` positions among ``num_items``, spread from the first to the last, in order.

    The positions are ``int(linspace(0, num_items - 1, num_wanted))``, as in the released pretraining.

    >>> evenly_spaced(9, 4)
    [0, 2, 5, 8]
    """
    if num_wanted < 1:
        raise ValueError(f"num_wanted must be at least 1, got {num_wanted}")
    if num_items <= num_wanted:
        return list(range(num_items))
    return [int(position) for position in np.linspace(0, num_items - 1, num_wanted)]


def random_span(num_items: int, num_wanted: int, *, seed: int, epoch: int, row: int) -> list[int]:
    """At most ``num_wanted`` neighbouring positions among ``num_items``, from a start that (seed, epoch, row) decide.

    The draw does not depend on workers, ranks or what was drawn before, so a resumed run sees what it would have seen.

    >>> random_span(9, 4, seed=0, epoch=0, row=0) == random_span(9, 4, seed=0, epoch=0, row=0)
    True
    """
    if num_wanted < 1:
        raise ValueError(f"num_wanted must be at least 1, got {num_wanted}")
    if num_items <= num_wanted:
        return list(range(num_items))
    start = int(np.random.default_rng([seed, epoch, row]).integers(num_items - num_wanted + 1))
    return list(range(start, start + num_wanted))


def non_overlapping(starts: Sequence[float], ends: Sequence[float]) -> list[int]:
    """Positions of the segments kept when each one that begins before the last kept one's end is left out.

    So that no clip comes twice in a video's sequence (TempCLR §3.3); segments are ``[start, end)`` in seconds, ordered.

    >>> non_overlapping([0, 2, 4], [3, 5, 6])
    [0, 2]
    """
    kept: list[int] = []
    for position, start in enumerate(starts):
        if not kept or start >= ends[kept[-1]]:
            kept.append(position)
    return kept


def feature_range(
    start_seconds: float, end_seconds: float, *, features_per_second: float, num_features: int
) -> tuple[int, int]:
    """First and one-past-last index of the features that the span ``[start_seconds, end_seconds)`` touches.

    Feature i covers ``[i, i + 1) / features_per_second``. The range is cut to the features there are and holds at least
    one of them: a span that begins after the last one gets the last one.

    >>> feature_range(1.5, 3.0, features_per_second=1.0, num_features=10)
    (1, 3)
    """
    # Times are decimal fractions; a thousandth of a feature absorbs their rounding without moving any real border.
    first = math.floor(start_seconds * features_per_second + 1e-3)
    last = math.ceil(end_seconds * features_per_second - 1e-3)
    first = min(max(first, 0), num_features - 1)
    return first, min(max(last, first + 1), num_features)


def cut_clips(
    features: np.ndarray,
    spans: Sequence[tuple[float, float]],
    *,
    features_per_second: float,
    max_num_features: int,
) -> list[np.ndarray]:
    """The features (T, F) that each span touches, at least one, and of those the first ``max_num_features``.

    >>> [clip.ravel().tolist() for clip in cut_clips(np.arange(4)[:, None], [(0, 3), (2.5, 9)],
    ...                                              features_per_second=1, max_num_features=2)]
    [[0, 1], [2, 3]]
    """
    ranges = [
        feature_range(start, end, features_per_second=features_per_second, num_features=len(features))
        for start, end in spans
    ]
    return [features[first : min(last, first + max_num_features)] for first, last in ranges]


def filling(lengths: Sequence[int], most: int) -> list[slice]:
    """Videos next to each other of at most ``most`` features together, a longer one alone: what is held at once.

    >>> filling([3, 4, 9, 2], 8)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    parts, first = [], 0
    for last in range(1, len(lengths) + 1):
        if last == len(lengths) or sum(lengths[first : last + 1]) > most:
            parts.append(slice(first, last))
            first = last
    return parts


def select_sentences(paragraph: Paragraph, positions: Sequence[int]) -> Paragraph:
    """The same video with the sentences at ``positions`` only."""
    of_sentences = ("sentences", "starts", "ends", "step_indices", "annotator_spans")
    values = {name: getattr(paragraph, name) for name in of_sentences}
    kept: dict[str, Any] = {
        name: [value[position] for position in positions] for name, value in values.items() if value is not None
    }
    return dataclasses.replace(paragraph, **kept)


class ParagraphDataset:
    """Paragraphs for a DataLoader, each cut to at most ``max_sentences`` sentences, in their order.

    ``"evenly"`` spreads the kept sentences over the video and is the same in every epoch; ``"span"`` keeps neighbours
    from a start that (seed, epoch, row) decides. The Trainer announces each epoch by ``set_epoch``.

    Args:
        paragraphs: anything with ``len`` and integer positions that yields ``Paragraph``.
        max_sentences: None keeps all.
        sampling: a name of :data:`SENTENCE_SAMPLINGS`.
        drop_overlapping: first leave out sentences whose segment begins before the previous kept one ends.
        seed: of ``"span"``.
    """

    def __init__(
        self,
        paragraphs: Sequence[Paragraph],
        *,
        max_sentences: int | None = None,
        sampling: str = "evenly",
        drop_overlapping: bool = False,
        seed: int = 0,
    ):
        if sampling not in SENTENCE_SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(SENTENCE_SAMPLINGS)}, got {sampling!r}")
        if max_sentences is not None and max_sentences < 1:
            raise ValueError(f"max_sentences must be at least 1, got {max_sentences}")
        self.paragraphs, self.max_sentences, self.sampling = paragraphs, max_sentences, sampling
        self.drop_overlapping, self.seed, self.epoch = drop_overlapping, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """What is drawn from now on is that of this epoch; the Trainer says so."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.paragraphs)

    def __getitem__(self, row: int) -> Paragraph:
        paragraph = self.paragraphs[row]
        num_sentences = len(paragraph.sentences)
        kept = list(range(num_sentences))
        if self.drop_overlapping:
            kept = non_overlapping(paragraph.starts, paragraph.ends)
        if self.max_sentences is not None:
            if self.sampling == "evenly":
                chosen = evenly_spaced(len(kept), self.max_sentences)
            else:
                chosen = random_span(len(kept), self.max_sentences, seed=self.seed, epoch=self.epoch, row=row)
            kept = [kept[position] for position in chosen]
        return paragraph if len(kept) == num_sentences else select_sentences(paragraph, kept)
