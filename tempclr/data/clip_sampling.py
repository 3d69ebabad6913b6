"""Which frames of a video make TCLR's clips (Dave et al., 2022), as numbers of frames counted at a nominal rate.

Nominal frame k is the one on screen at ``k / rate`` seconds (:mod:`tempclr.data.video_seeking`). The rate is a video's
own unless another is given, so of a video of constant rate frame k is just its k-th; of one of variable rate, clips
still cover even spans of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch

from tempclr.data.video_seeking import read_frames_at

__all__ = [
    "SHORT_VIDEOS",
    "ClipSampler",
    "PretrainingClips",
    "read_nominal_frames",
    "sample_training_clip",
    "uniform_test_clips",
]

SHORT_VIDEOS = ("loop", "mirror", "drop")
_RELEASED_TEST_MARGIN = 10  # frames left unused at the end of a video by the released test clips


@dataclass(frozen=True, eq=False)
class PretrainingClips:
    """Nominal frame numbers of one video's clips, int64: of the global clip ``(T,)``, of the local ones ``(P, T)``.

    Local clip p covers the time of slice p of the global clip's feature map. Both views take the same frames, but for
    ``paired_frames`` ``(T,)``: the second view's global clip, which is the first one's unless it has a skip of its own.
    """

    global_frames: np.ndarray
    local_frames: np.ndarray
    paired_frames: np.ndarray


# Note [What becomes of short videos]: the released code drops videos with less than 57 frames without a word (83 of
# UCF101's 9,537 training videos) and fills gaps of 57 to 63 frames by going backwards. "drop" is that rule to the
# frame. "loop", the default, starts again at the video's beginning; "mirror" goes back and forth. Both take any video,
# and leave those of 64 frames or more as "drop" does, but for one thing: the last frame, which the released code's
# random start can never reach, can be reached.
@dataclass(frozen=True)
class ClipSampler:
    """Draws the clips of TCLR's pretraining: of a random span the global clip and the local clips that tile it.

    Args:
        num_frames: of each clip.
        global_skip: the global clip takes every so many-th frame; several numbers: one of them is drawn each time (the
            paper's ablation D.5). The span is ``num_frames * global_skip`` frames, 64 by default.
        num_timesteps: how many local clips tile the span (4; the paper's ablation D.4 has 2). Their skip follows:
            ``global_skip / num_timesteps``, 1 by default, which must be whole.
        short_videos: what becomes of a video shorter than the span: ``"loop"``, ``"mirror"`` or ``"drop"``
            (Note [What becomes of short videos]).
        paired_skip: of the second view's global clip, or several of which one is drawn (the paper's other ablation in
            D.5); None is the first view's. Both begin at one frame and the longer one is the span that a video must
            fill; local clips stay with the first, so slices of the second are then no longer their counterparts.

    Raises:
        ValueError: a number below 1, skips that do not divide, an unknown rule.

    >>> clips = ClipSampler().clips(100, start=3)
    >>> clips.global_frames[:3].tolist(), clips.local_frames[1, :3].tolist(), clips.local_frames.shape
    ([3, 7, 11], [19, 20, 21], (4, 16))
    """

    num_frames: int = 16
    global_skip: int | tuple[int, ...] = 4
    num_timesteps: int = 4
    short_videos: str = "loop"
    paired_skip: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_rule(self.short_videos)
        if self.num_frames < 1 or self.num_timesteps < 1 or not self.global_skips:
            raise ValueError(f"counts must be at least 1, got {self}")
        uneven = [skip for skip in self.global_skips if skip < 1 or skip % self.num_timesteps]
        if uneven:
            whole = f"multiples of num_timesteps={self.num_timesteps}, so that local clips tile the global one"
            raise ValueError(f"global_skip must be {whole}, got {uneven[0]}")
        if self.paired_skip is not None and min(self.paired_skips, default=0) < 1:
            raise ValueError(f"paired_skip must be at least 1, got {self.paired_skip}")

    @property
    def global_skips(self) -> tuple[int, ...]:
        """All skips that the global clip may have."""
        return (self.global_skip,) if isinstance(self.global_skip, int) else tuple(self.global_skip)

    @property
    def paired_skips(self) -> tuple[int, ...]:
        """All skips that the second view's global clip may have; empty where it is the first view's."""
        if self.paired_skip is None:
            return ()
        return (self.paired_skip,) if isinstance(self.paired_skip, int) else tuple(self.paired_skip)

    def sample(self, num_video_frames: int, *, generator: torch.Generator) -> PretrainingClips | None:
        """The clips of a random span; None where ``short_videos="drop"`` drops the video.

        Always draws as many numbers, so that one video's length leaves the next one's draws alone.
        """
        skip = self.global_skips[_draw(len(self.global_skips), generator)]
        paired = self.paired_skips[_draw(len(self.paired_skips), generator)] if self.paired_skips else skip
        start = _random_start(num_video_frames, self.num_frames * max(skip, paired), self.short_videos, generator)
        return self.clips(num_video_frames, start=start, skip=skip, paired_skip=paired)

    def clips(
        self, num_video_frames: int, *, start: int, skip: int | None = None, paired_skip: int | None = None
    ) -> PretrainingClips | None:
        """The clips of the span from ``start``, at the global clips' skips (the only or first ones by default)."""
        skip = self.global_skips[0] if skip is None else skip
        paired = (*self.paired_skips, skip)[0] if paired_skip is None else paired_skip
        steps = np.arange(self.num_frames)
        local_starts = start + self.num_frames * (skip // self.num_timesteps) * np.arange(self.num_timesteps)
        global_frames, paired_frames = start + skip * steps, start + paired * steps
        local_frames = local_starts[:, None] + (skip // self.num_timesteps) * steps
        if self.short_videos != "drop":
            return PretrainingClips(
                _wrapped(global_frames, num_video_frames, self.short_videos),
                _wrapped(local_frames, num_video_frames, self.short_videos),
                _wrapped(paired_frames, num_video_frames, self.short_videos),
            )
        if num_video_frames <= self.num_frames * max(skip, paired) - self.num_frames // 2:
            return None
        whole, second = (
            _repaired(frames, num_video_frames, max_missing=self.num_frames // 8)
            for frames in (global_frames, paired_frames)
        )
        last = _repaired(local_frames[-1], num_video_frames, max_missing=self.num_frames // 2)
        if whole is None or second is None or last is None or local_frames[:-1].max(initial=0) >= num_video_frames:
            return None
        return PretrainingClips(whole, np.concatenate([local_frames[:-1], last[None]]), second)


def sample_training_clip(
    num_video_frames: int,
    *,
    num_frames: int = 16,
    skip: int = 2,
    short_videos: str = "loop",
    generator: torch.Generator | None = None,
    start: int | None = None,
) -> np.ndarray | None:
    """Frame numbers of one clip for training a classifier, int64 ``(num_frames,)``: from a random or a given start.

    ``short_videos="drop"`` is the released rule: a video of ``num_frames * skip`` frames or less gives None.

    >>> sample_training_clip(100, start=10).tolist()[:4], sample_training_clip(20, start=0).tolist()[-7:]
    ([10, 12, 14, 16], [18, 0, 2, 4, 6, 8, 10])
    """
    _check_rule(short_videos)
    span = num_frames * skip
    if start is None:
        if generator is None:
            raise ValueError("give a generator for a random start, or a start")
        start = _random_start(num_video_frames, span, short_videos, generator)
    frames = start + skip * np.arange(num_frames)
    if short_videos != "drop":
        return _wrapped(frames, num_video_frames, short_videos)
    return None if num_video_frames <= span else _repaired(frames, num_video_frames, max_missing=num_frames // 2 - 1)


# Note [Released test clips]: start m is int(linspace(0, F - span - 10, clips)[m]), and m itself where that is negative.
# Between 32 and 41 frames this bunches the clips at the start; it is kept so that results compare.
def uniform_test_clips(
    num_video_frames: int, *, num_clips: int = 10, num_frames: int = 16, skip: int = 2, short_videos: str = "loop"
) -> list[np.ndarray | None]:
    """Frame numbers of the clips a video is tested by, evenly placed as the released code does, each ``(num_frames,)``.

    ``"drop"`` is the released rule: clips with 9 frames or more in the video go backwards at its end, others are None.

    >>> [clip.tolist()[:2] for clip in uniform_test_clips(100, num_clips=3)]
    [[0, 2], [29, 31], [58, 60]]
    """
    _check_rule(short_videos)
    if num_clips < 1:
        raise ValueError(f"num_clips must be at least 1, got {num_clips}")
    last = num_video_frames - num_frames * skip - _RELEASED_TEST_MARGIN
    starts = [int(start) for start in np.linspace(0, last, num_clips)]
    steps = skip * np.arange(num_frames)
    clips = [(start if start >= 0 else number) + steps for number, start in enumerate(starts)]
    if short_videos != "drop":
        return [_wrapped(clip, num_video_frames, short_videos) for clip in clips]
    return [_repaired(clip, num_video_frames, max_missing=num_frames // 2 - 1) for clip in clips]


def read_nominal_frames(
    path: str | PathLike[str],
    clips: Sequence[np.ndarray],
    *,
    frames_per_second: float,
    short_side: int | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Decode the frames of several clips, each frame once.

    Args:
        path: the video file.
        clips: nominal frame numbers, arrays of any shape.
        frames_per_second: the nominal rate.
        short_side: see :func:`tempclr.data.video_seeking.read_frames_at`.

    Returns:
        ``(frames, places)``: uint8 RGB ``(N, height, width, 3)``, and for each clip an array of its shape that says
        which of them it takes.

    >>> frames, (place,) = read_nominal_frames("clip.mp4", [np.arange(16)], frames_per_second=25)
    >>> frames.shape, len(place)
    ((16, 240, 320, 3), 16)
    """
    numbers = np.unique(np.concatenate([clip.reshape(-1) for clip in clips]))
    seconds, slack = numbers / frames_per_second, 1e-3 / frames_per_second
    frames = read_frames_at(path, seconds, slack_seconds=slack, short_side=short_side)
    return frames, [np.searchsorted(numbers, clip) for clip in clips]


def _check_rule(short_videos: str) -> None:
    if short_videos not in SHORT_VIDEOS:
        raise ValueError(f"short_videos must be one of {', '.join(SHORT_VIDEOS)}, got {short_videos!r}")


def _draw(count: int, generator: torch.Generator) -> int:
    """A whole number in ``[0, count)``."""
    return int(torch.randint(max(1, count), (), generator=generator))


def _random_start(num_video_frames: int, span: int, short_videos: str, generator: torch.Generator) -> int:
    num_starts = num_video_frames - span + (short_videos != "drop")
    return _draw(num_starts, generator)


def _wrapped(frames: np.ndarray, num_video_frames: int, rule: str) -> np.ndarray:
    if num_video_frames < 1:
        raise ValueError(f"a video has at least one frame, got {num_video_frames}")
    if rule == "loop" or num_video_frames == 1:
        return frames % num_video_frames
    period = 2 * num_video_frames - 2
    return (num_video_frames - 1) - np.abs(frames % period - (num_video_frames - 1))


def _repaired(frames: np.ndarray, num_video_frames: int, *, max_missing: int) -> np.ndarray | None:
    """A clip whose end is missing goes back from its last frame; None where too much is missing."""
    there = frames[frames < num_video_frames]
    num_missing = len(frames) - len(there)
    if num_missing > max_missing or num_missing >= max(1, len(there)):
        return None if num_missing else frames
    return np.concatenate([there, there[::-1][1 : 1 + num_missing]])
