"""The objective of fine-tuning on step localization: which step each frame shows, and in which order they come."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tempclr.costs import cosine_cost
from tempclr.losses import LOSS_MEASURES, contrast_orders
from tempclr.negatives import Negatives, sample_step_negatives

__all__ = ["FRAME_ORDERS", "SequenceFrames", "localization_loss", "sequence_frames"]

FRAME_ORDERS = ("time", "window")


def localization_loss(
    step_embeds: Tensor,
    frame_embeds: Tensor,
    targets: Tensor,
    *,
    step_sequence: Tensor,
    frame_times: Tensor | None = None,
    unit_weight: float = 0.88,
    sequence_weight: float = 0.12,
    measure: str = "dtw",
    negatives: str | Negatives = "seg_unit",
    num_negatives: int = 31,
    gamma: float = 0.1,
    sequence_temperature: float = 1.0,
    cosine_eps: float = 0.01,
    frame_order: str = "time",
    max_frames_per_step: int = 10,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The loss of one video, ``unit_weight · unit_loss + sequence_weight · sequence_loss`` (TempCLR §4.2, A.2.2).

    The unit loss is the binary cross-entropy of every cell of frames × steps over raw dot products, background frames
    and frames seen in two windows included. The sequence loss pulls the steps, as often and in the order they are done,
    to the labelled frames and pushes them from wrong orders of the steps (see
    :func:`tempclr.negatives.sample_step_negatives`). It is 0, and differentiable, where the video has fewer than two
    steps in a row or fewer than two labelled frames.

    Args:
        step_embeds: (K, d), the task's steps.
        frame_embeds: (N, d), the frames of all windows, one window after the other.
        targets: (N, K) bool, int or float, 1 where the frame shows the step; a row of zeros is background.
        step_sequence: (S,) int, the annotated segments' steps in their order; repeats of neighbours are joined.
        frame_times: (N,) int, the position of each frame in its video; needed for ``frame_order="time"``.
        unit_weight, sequence_weight: the released weights are 0.88 and 0.12.
        measure: ``"dtw"``, or ``"otam"``, summed over both ways.
        negatives: ``"seg_unit"``, ``"seg_only"``, or :class:`~tempclr.negatives.Negatives` that were drawn before.
        num_negatives, gamma, sequence_temperature, cosine_eps, generator: see :func:`tempclr.losses.sequence_loss`.
        frame_order: see Note [Windows overlap].
        max_frames_per_step: so many frames for each entry of the joined ``step_sequence`` are kept, evenly spaced.

    Returns:
        ``loss`` and its parts ``unit_loss`` and ``sequence_loss``, scalars in float32 (float64 for float64 embeddings).

    >>> frames, targets = torch.eye(4), torch.tensor([[1, 0], [1, 0], [0, 0], [0, 1]])
    >>> steps = dict(step_sequence=torch.tensor([0, 1]), frame_times=torch.arange(4), num_negatives=1)
    >>> in_order = localization_loss(torch.eye(4)[[0, 3]], frames, targets, **steps)
    >>> turned = localization_loss(torch.eye(4)[[0, 3]], frames.flip(0), targets.flip(0), **steps)
    >>> bool(in_order["sequence_loss"] < turned["sequence_loss"])
    True
    """
    if measure not in LOSS_MEASURES:
        raise ValueError(f"measure must be one of {', '.join(LOSS_MEASURES)}, got {measure!r}")
    _check_shapes(step_embeds, frame_embeds, targets, frame_times)
    dtype = torch.float64 if torch.float64 in (step_embeds.dtype, frame_embeds.dtype) else torch.float32
    steps, frames = step_embeds.to(dtype), frame_embeds.to(dtype)
    with torch.autocast(frames.device.type, enabled=False):
        unit = functional.binary_cross_entropy_with_logits(frames @ steps.T, targets.to(dtype))
    sequence = torch.unique_consecutive(step_sequence.long())
    chosen = sequence_frames(
        frames, targets, frame_times, frame_order=frame_order, max_frames=max_frames_per_step * len(sequence)
    )
    if len(sequence) < 2 or len(chosen.embeds) < 2:
        in_order = (steps.sum() + frames.sum()) * 0
    else:
        if isinstance(negatives, str):
            negatives = sample_step_negatives(
                negatives,
                step_sequence=sequence,
                frame_steps=chosen.steps,
                num_negatives=num_negatives,
                generator=generator,
            )
        in_order = contrast_orders(
            cosine_cost(steps[sequence], chosen.embeds, eps=cosine_eps)[None],
            negatives=negatives,
            measure=measure,
            gamma=gamma,
            temperature=sequence_temperature,
        ).mean()
    return {"loss": unit_weight * unit + sequence_weight * in_order, "unit_loss": unit, "sequence_loss": in_order}


class SequenceFrames(NamedTuple):
    """The labelled frames that the sequence loss aligns: ``embeds`` (M, d) and the step of each, ``steps`` (M,)."""

    embeds: Tensor
    steps: Tensor


# Note [Windows overlap]: the windows of a video overlap by half, so that most frames are seen twice. The released code
# takes the labelled frames as they come, window after window: time jumps back by half a window at each, which is not
# the order that the steps are in ("window"). By default the states of one frame are averaged, as localization averages
# its logits over windows, and the frames are put in the order of time ("time").


def sequence_frames(
    frame_embeds: Tensor,
    targets: Tensor,
    frame_times: Tensor | None,
    *,
    frame_order: str = "time",
    max_frames: int,
) -> SequenceFrames:
    """The labelled frames in order, at most ``max_frames`` of them, evenly spaced; a frame of two steps has the first.

    Args:
        frame_embeds, targets, frame_times: see :func:`localization_loss`.
        frame_order: ``"time"`` or ``"window"``, see Note [Windows overlap].

    Raises:
        ValueError: another order, or ``"time"`` without times.

    >>> seen_twice = dict(targets=torch.ones(3, 1), frame_times=torch.tensor([1, 0, 1]), max_frames=9)
    >>> sequence_frames(torch.tensor([[1.0], [5.0], [3.0]]), **seen_twice).embeds
    tensor([[5.],
            [2.]])
    """
    if frame_order not in FRAME_ORDERS:
        raise ValueError(f"frame_order must be one of {', '.join(FRAME_ORDERS)}, got {frame_order!r}")
    labelled = targets.bool().any(dim=1)
    embeds, steps = frame_embeds[labelled], targets[labelled].bool().int().argmax(dim=1)
    if frame_order == "time":
        if frame_times is None:
            raise ValueError("frame_order='time' needs frame_times; for the released order give frame_order='window'")
        times, place = torch.unique(frame_times[labelled], return_inverse=True)
        counts = torch.zeros(len(times), dtype=embeds.dtype, device=embeds.device).index_add(
            0, place, torch.ones_like(place, dtype=embeds.dtype)
        )
        embeds = embeds.new_zeros(len(times), embeds.shape[1]).index_add(0, place, embeds) / counts[:, None]
        steps = steps.new_zeros(len(times)).index_copy(0, place, steps)
    if len(steps) <= max_frames:
        return SequenceFrames(embeds, steps)
    # As evenly_spaced: whole parts of i · (n - 1) / (k - 1), the last one n - 1 whatever the rounding.
    kept = torch.arange(max_frames, dtype=torch.float64, device=steps.device) * (
        (len(steps) - 1) / max(max_frames - 1, 1)
    )
    kept = kept.long().clamp_max(len(steps) - 1)
    kept[1:][-1:] = len(steps) - 1
    return SequenceFrames(embeds[kept], steps[kept])


def _check_shapes(step_embeds: Tensor, frame_embeds: Tensor, targets: Tensor, frame_times: Tensor | None) -> None:
    expected = (len(frame_embeds), len(step_embeds))
    if step_embeds.dim() != 2 or frame_embeds.dim() != 2 or step_embeds.shape[1] != frame_embeds.shape[1]:
        raise ValueError(
            f"expected step_embeds (K, d) and frame_embeds (N, d), got {tuple(step_embeds.shape)} and "
            f"{tuple(frame_embeds.shape)}"
        )
    if tuple(targets.shape) != expected:
        raise ValueError(f"expected targets (frames, steps) of {expected}, got {tuple(targets.shape)}")
    if frame_times is not None and tuple(frame_times.shape) != expected[:1]:
        raise ValueError(f"expected one time a frame, {expected[:1]}, got {tuple(frame_times.shape)}")
