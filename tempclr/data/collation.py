"""Paragraphs to one padded batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tempclr.data.rows import Paragraph, read_paragraph
from tempclr.data.sampling import feature_range
from tempclr.errors import InputError
from tempclr.models.tempclr.processing_tempclr import TempCLRProcessor

__all__ = ["ClipRange", "ParagraphCollator", "cut_clips"]

BACKGROUND = -1


@dataclass(frozen=True)
class ClipRange:
    """The features ``[first, last)`` of one clip and the sentence that describes it, −1 for background."""

    first: int
    last: int
    sentence_index: int


def cut_clips(
    paragraph: Paragraph, *, clip_seconds: float | None, max_num_features: int, keep_background: bool = False
) -> list[ClipRange]:
    """The clips of a video in their order in time, as ranges of its features.

    Each segment covers the features that its ``[start, end)`` touches. ``clip_seconds=None`` makes one clip of it;
    a number makes consecutive clips of so many seconds, counted in whole features (at least one), the last one as long
    as what remains. A clip longer than ``max_num_features`` is cut to its first ones, as the released code does.
    ``keep_background`` adds clips of the same length between and around the segments, with sentence index −1.

    Raises:
        InputError: the paragraph has no features.
    """
    num_features = len(_features(paragraph))
    rate = cast(float, paragraph.features_per_second)  # Paragraph holds that features have one
    step = None if clip_seconds is None else min(max(round(clip_seconds * rate), 1), max_num_features)
    clips: list[ClipRange] = []
    free_from = 0
    for index, (start, end) in enumerate(zip(paragraph.starts, paragraph.ends, strict=True)):
        first, last = feature_range(start, end, features_per_second=rate, num_features=num_features)
        if keep_background and step is not None:
            clips += _windows(free_from, first, step, BACKGROUND)
        clips += _windows(first, last, last - first if step is None else step, index)
        free_from = max(free_from, last)
    if keep_background and step is not None:
        clips += _windows(free_from, num_features, step, BACKGROUND)
    return [ClipRange(clip.first, min(clip.last, clip.first + max_num_features), clip.sentence_index) for clip in clips]


def _windows(first: int, last: int, step: int, sentence_index: int) -> list[ClipRange]:
    return [ClipRange(begin, min(begin + step, last), sentence_index) for begin in range(first, last, step)]


class ParagraphCollator:
    """Rows of the dataset to the paragraphs-shaped batch that ``TempCLRModel`` takes.

    A batch of B videos, padded to the largest of each: ``input_ids``, ``attention_mask`` (B, S, L) int64,
    ``sentence_mask`` (B, S) bool; ``video_features`` (B, C, T, F) float32, ``video_mask`` (B, C, T) bool, ``clip_mask``
    (B, C) bool, ``clip_sentence_index`` (B, C) int64 (−1 = background and padding). How clips are cut is told by
    :func:`cut_clips`. It can be sent to DataLoader workers, and draws nothing at random.

    Args:
        processor: a ``TempCLRProcessor``, or a tokenizer to make one of.
        clip_seconds: length of a clip; None makes one clip of each segment.
        max_num_features: most features of a clip (as many as the video tower has positions); None: the processor's.
        max_text_tokens: longer sentences are cut, special tokens included; None: the processor's.
        keep_background: also make clips outside the segments; needs ``clip_seconds``.
        with_video_ids: add ``video_id``, a list of str, which ``TempCLRTrainer`` uses in messages; a plain
            ``Trainer`` would hand it to the model, which does not know it.

    Raises:
        InputError: (on call) a row that is not a paragraph with features, or whose features have another width.
    """

    def __init__(
        self,
        processor: Any,
        *,
        clip_seconds: float | None = None,
        max_num_features: int | None = None,
        max_text_tokens: int | None = None,
        keep_background: bool = False,
        with_video_ids: bool = False,
    ):
        if clip_seconds is not None and not clip_seconds > 0:
            raise ValueError(f"clip_seconds must be above 0, got {clip_seconds}; for one clip a sentence leave it out")
        if keep_background and clip_seconds is None:
            raise ValueError("keep_background needs clip_seconds: without it there is no length to cut background into")
        self.clip_seconds, self.keep_background, self.with_video_ids = clip_seconds, keep_background, with_video_ids
        # Note [One way to make a batch]: what a model is trained on and what it is asked about later are tokenized, cut
        # and padded by the same processor.
        self.processor = TempCLRProcessor(
            getattr(processor, "tokenizer", processor),
            max_text_tokens=_first(max_text_tokens, getattr(processor, "max_text_tokens", None), 63),
            max_num_features=_first(max_num_features, getattr(processor, "max_num_features", None), 32),
        )

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    def __call__(self, rows: Sequence[Paragraph | Mapping[str, Any]]) -> dict[str, Any]:
        paragraphs = [_as_paragraph(row, index) for index, row in enumerate(rows)]
        _check_feature_sizes(paragraphs)
        clips = [
            cut_clips(
                paragraph,
                clip_seconds=self.clip_seconds,
                max_num_features=self.processor.max_num_features,
                keep_background=self.keep_background,
            )
            for paragraph in paragraphs
        ]
        batch: dict[str, Any] = dict(
            self.processor(
                text=[paragraph.sentences for paragraph in paragraphs],
                video_features=[
                    [_features(paragraph)[clip.first : clip.last] for clip in of_video]
                    for paragraph, of_video in zip(paragraphs, clips, strict=True)
                ],
                clip_sentence_index=[[clip.sentence_index for clip in of_video] for of_video in clips],
            )
        )
        if self.with_video_ids:
            batch["video_id"] = [paragraph.video_id for paragraph in paragraphs]
        return batch


def _as_paragraph(row: Any, index: int) -> Paragraph:
    return row if isinstance(row, Paragraph) else read_paragraph(row, source="batch", index=index)


def _features(paragraph: Paragraph) -> np.ndarray:
    if paragraph.features is None:
        raise InputError(
            f"video {paragraph.video_id!r} has no features: make them with 'tempclr extract'", field="features"
        )
    return paragraph.features


def _check_feature_sizes(paragraphs: list[Paragraph]) -> None:
    sizes = {_features(paragraph).shape[1]: paragraph.video_id for paragraph in paragraphs}
    if len(sizes) > 1:
        told = ", ".join(f"{size} ({video_id!r})" for size, video_id in sizes.items())
        raise InputError(f"features of one batch must have one width, got {told}", field="features")


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)
