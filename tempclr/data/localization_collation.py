"""Videos of a task with its list of steps to batches for fine-tuning on step localization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from tempclr.data.rows import Paragraph, read_paragraph
from tempclr.data.sampling import feature_range
from tempclr.errors import InputError

__all__ = ["LocalizationCollator", "frame_targets", "window_starts"]

PADDING = -1


def window_starts(num_features: int, *, window: int = 32, stride: int = 16) -> list[int]:
    """First features of the windows over a video: one every ``stride`` until one reaches the end, which may be shorter.

    >>> window_starts(53), window_starts(20)
    ([0, 16, 32], [0])
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be from 1 to the window of {window}, got {stride}: no feature may be left out")
    return list(range(0, max(1, num_features - window + stride), stride))


def frame_targets(paragraph: Paragraph) -> np.ndarray:
    """(T, K) float32: 1 where feature t is touched by a segment of step k; background rows are 0.

    Raises:
        InputError: the paragraph has no features, or no list of steps.

    >>> spans = dict(sentences=["stir"], starts=[1.2], ends=[2.5], steps=("pour", "stir"), step_indices=(1,))
    >>> frame_targets(Paragraph("v", **spans, features=np.zeros((4, 8)), features_per_second=1))[:, 1]
    array([0., 1., 1., 0.], dtype=float32)
    """
    features, steps, step_indices = _complete(paragraph)
    targets = np.zeros((len(features), len(steps)), dtype=np.float32)
    for start, end, step in zip(paragraph.starts, paragraph.ends, step_indices, strict=True):
        first, last = feature_range(
            start,
            end,
            features_per_second=cast(float, paragraph.features_per_second),
            num_features=len(features),
        )
        targets[first:last, step] = 1
    return targets


class LocalizationCollator:
    """Rows with ``steps`` and ``step_indices`` to the inputs of ``TempCLRModel`` and of the localization loss.

    A batch of B videos (the released code takes one), padded to the largest of each. For the model, whose paragraphs
    are then the steps and the windows: ``input_ids``, ``attention_mask`` (B, K, L) int64, ``sentence_mask`` (B, K) of
    all the task's steps; ``video_features`` (B, W, T, F) float32, ``video_mask`` (B, W, T), ``clip_mask`` (B, W) of
    overlapping windows. For :func:`tempclr.localization_loss.localization_loss`, whose frames are those of all
    windows in order (``video_mask`` picks them): ``targets`` (B, W, T, K) float32; ``frame_times`` (B, W, T) int64,
    positions in the video, −1 for padding; ``step_sequence`` (B, S) int64, the step of each segment in their order, −1
    for padding.

    Args:
        processor: a ``TempCLRProcessor``.
        window, stride: in features; None is as many as the processor allows a clip, and half of that (32 and 16).
        with_video_ids: add ``video_id``, a list of str.

    Raises:
        ValueError: a window that the model has no positions for, or a stride above it.
        InputError: (on call) a row without features or without steps.
    """

    def __init__(
        self, processor: Any, *, window: int | None = None, stride: int | None = None, with_video_ids: bool = False
    ):
        most = processor.max_num_features
        self.window = most if window is None else window
        if not 1 <= self.window <= most:
            raise ValueError(f"window must be from 1 to the model's {most} positions, got {self.window}")
        self.stride = max(1, self.window // 2) if stride is None else stride
        window_starts(1, window=self.window, stride=self.stride)
        self.processor, self.with_video_ids = processor, with_video_ids

    def __call__(self, rows: Sequence[Paragraph | Mapping[str, Any]]) -> dict[str, Any]:
        videos = [
            row if isinstance(row, Paragraph) else read_paragraph(row, source="batch", index=index)
            for index, row in enumerate(rows)
        ]
        complete = [_complete(video) for video in videos]
        starts = [window_starts(len(features), window=self.window, stride=self.stride) for features, _, _ in complete]
        batch: dict[str, Any] = dict(
            self.processor(
                text=[list(steps) for _, steps, _ in complete],
                video_features=[
                    [features[first : first + self.window] for first in of_video]
                    for (features, _, _), of_video in zip(complete, starts, strict=True)
                ],
            )
        )
        num_videos, num_windows, num_features = batch["video_mask"].shape
        shape = (num_videos, num_windows, num_features)
        targets = np.zeros((*shape, batch["sentence_mask"].shape[1]), dtype=np.float32)
        times = np.full(shape, PADDING, dtype=np.int64)
        sequence = np.full((num_videos, max(len(indices) for _, _, indices in complete)), PADDING, dtype=np.int64)
        for number, video in enumerate(videos):
            of_frames, step_indices = frame_targets(video), complete[number][2]
            sequence[number, : len(step_indices)] = step_indices
            for place, first in enumerate(starts[number]):
                seen = of_frames[first : first + self.window]
                targets[number, place, : len(seen), : seen.shape[1]] = seen
                times[number, place, : len(seen)] = range(first, first + len(seen))
        batch |= {"targets": torch.from_numpy(targets), "frame_times": torch.from_numpy(times)}
        batch["step_sequence"] = torch.from_numpy(sequence)
        if self.with_video_ids:
            batch["video_id"] = [video.video_id for video in videos]
        return batch


def _complete(paragraph: Paragraph) -> tuple[np.ndarray, tuple[str, ...], tuple[int, ...]]:
    if paragraph.features is None:
        raise InputError(
            f"video {paragraph.video_id!r} has no features: make them with 'tempclr extract'", field="features"
        )
    if paragraph.steps is None or paragraph.step_indices is None:
        raise InputError(
            f"video {paragraph.video_id!r} has no list of its task's steps: localization needs steps and step_indices",
            field="steps",
        )
    return paragraph.features, paragraph.steps, paragraph.step_indices
