"""Single frames of a video by their times, without decoding what lies before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import Any

import numpy as np

from tempclr.data.video import MISSING_SECONDS_ALLOWED, _FrameReader, _opened, _rounding_seconds, iterate_frames
from tempclr.errors import InputError

__all__ = ["NominalFrames", "nominal_frames", "read_frames_at"]

SHORTEST_SEEK_SECONDS = 0.5  # below, decoding on costs less than seeking


@dataclass(frozen=True)
class NominalFrames:
    """How many frames a video has when counted at even times, and how many of them a second has."""

    num_frames: int
    frames_per_second: float


def nominal_frames(path: str | PathLike[str], *, frames_per_second: float | None = None) -> NominalFrames:
    """Count a video's frames at the given rate, or at its own, from its header.

    Where the header tells neither frames nor duration, the video is decoded once to count.

    Raises:
        InputError: the file cannot be read, or tells no frame rate.
        ValueError: a rate that is not positive.

    >>> nominal_frames("clip.mp4")
    NominalFrames(num_frames=75, frames_per_second=25.0)
    """
    if frames_per_second is not None and not frames_per_second > 0:
        raise ValueError(f"frames_per_second must be a positive number or None, got {frames_per_second!r}")
    with _opened(path) as (_, stream):
        own_rate, num_frames = _own_rate(stream, path), stream.frames
        seconds = float(stream.duration * stream.time_base) if stream.duration else None
    rate = frames_per_second or own_rate
    if num_frames and (frames_per_second is None or seconds is None):
        return NominalFrames(max(1, round(num_frames * rate / own_rate)), rate)
    if seconds is None:
        seconds = [time for time, _ in iterate_frames(path, num_threads=1)][-1] + 1 / own_rate
    return NominalFrames(max(1, round(seconds * rate)), rate)


# Note [A video's own rate]: the average in a header is frames by duration, and some headers leave out the last frame's
# duration or count a late beginning. Then frame k would be looked for at a time when its neighbour is on screen. The
# guess at the rate of constant videos is right wherever it explains the duration to within two frames.
def _own_rate(stream: Any, path: str | PathLike[str]) -> float:
    average, guessed = stream.average_rate or stream.guessed_rate, stream.guessed_rate
    if not average or average <= 0:
        raise InputError("the header gives no frame rate; re-encode the video", file=path)
    if guessed and stream.frames and abs(stream.frames / guessed - stream.frames / average) < 2 / guessed:
        return float(guessed)
    return float(average)


# Note [Seeking must not change a frame]: seeking goes to a keyframe at or before the first time wanted. Some containers
# know keyframes by decoding time, so that the one found may be shown later; then, and where the seek fails, the video
# is decoded from its start: slower, the same frames.
def read_frames_at(
    path: str | PathLike[str],
    seconds: Sequence[float] | np.ndarray,
    *,
    slack_seconds: float = 1e-4,
    short_side: int | None = None,
    num_threads: int = 1,
) -> np.ndarray:
    """Decode the frames on screen at the given times, and no more of the video than lies between them.

    Args:
        path: the video file.
        seconds: times from the first frame, at least one, in any order; the same may come twice.
        slack_seconds: a frame due this little after a time counts as there, beyond what its container rounds
            (Note [Containers round times]).
        short_side: frames whose shorter side is longer are scaled to it while decoding; None leaves them.
        num_threads: of the decoder; 0 lets it choose.

    Returns:
        uint8 RGB ``(len(seconds), height, width, 3)``. Times up to a second after the end, which headers may announce
        wrongly, give the last frame.

    Raises:
        InputError: as :func:`tempclr.data.video.iterate_frames`, and where the video ends more than a second before a
            time that is wanted.

    >>> read_frames_at("clip.mp4", [0.5, 1.0, 1.5]).shape
    (3, 240, 320, 3)
    """
    times, places = np.unique(np.asarray(seconds, dtype=np.float64), return_inverse=True)
    if not len(times) or not np.isfinite(times).all() or times[0] < 0:
        raise ValueError(f"seconds must be one or more finite numbers >= 0, got {seconds!r}")
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        slack_seconds += _rounding_seconds(stream)
        timeline, to_array = _Seekable(container, stream), _ScaledReader(short_side)
        timeline.go_to(times[0], slack_seconds)
        frames = [to_array(frame) for frame in timeline.shown_at(times, slack_seconds)]
    if not frames:
        raise InputError("the video holds no frame (zero length)", file=path)
    if len(frames) < len(times):
        if times[-1] > timeline.end_seconds + MISSING_SECONDS_ALLOWED:
            decoded = f"only {timeline.end_seconds:.1f} s can be decoded"
            raise InputError(f"is cut off: a frame at {times[-1]:.1f} s was wanted but {decoded}", file=path)
        frames += frames[-1:] * (len(times) - len(frames))
    return np.stack(frames)[places]


class _Seekable:
    """Decoded frames from some time on; ``end_seconds`` is how far decoding has come, counted from the first frame."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._frames: Iterator[Any] = self._decoded()
        self._first = 0.0
        self._frame_seconds = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        self.end_seconds = 0.0

    def _decoded(self) -> Iterator[Any]:
        return (frame for frame in self._container.decode(self._stream) if frame.time is not None)

    def go_to(self, seconds: float, slack: float) -> None:
        """Go on from a keyframe at or before that time, or from the start."""
        start = next(self._frames, None)
        if start is None:
            return
        self._first, self._frames = start.time, chain([start], self._frames)
        if seconds < SHORTEST_SEEK_SECONDS:
            return
        keyframe = self._keyframe_before(seconds + self._first)
        if keyframe is not None and keyframe.time - self._first <= seconds + slack:
            self._frames = chain([keyframe], self._frames)
        else:
            self._container.seek(0)
            self._frames = self._decoded()

    def _keyframe_before(self, time: float) -> Any:
        import av

        try:
            self._container.seek(int(time / self._stream.time_base), stream=self._stream)
        except av.error.FFmpegError:
            return None
        self._frames = self._decoded()
        return next((frame for frame in self._frames if frame.key_frame), None)

    def shown_at(self, times: np.ndarray, slack: float) -> Iterator[Any]:
        """The frame on screen at each of the sorted times, until the video ends."""
        wanted, shown = 0, None
        for frame in self._frames:
            seconds = frame.time - self._first
            while shown is not None and wanted < len(times) and times[wanted] < seconds - slack:
                yield shown
                wanted += 1
            if wanted == len(times):
                return
            shown = frame
            lasts = float(frame.duration * frame.time_base) if frame.duration else self._frame_seconds
            self.end_seconds = max(self.end_seconds, seconds + lasts)
        while shown is not None and wanted < len(times) and (not wanted or times[wanted] < self.end_seconds - slack):
            yield shown
            wanted += 1


class _ScaledReader:
    """Turns decoded pictures into RGB arrays, on the way scaling down those whose shorter side is too long."""

    def __init__(self, short_side: int | None) -> None:
        self._plain, self._short_side = _FrameReader(), short_side

    def __call__(self, frame: Any) -> np.ndarray:
        shorter = min(frame.height, frame.width)
        if self._short_side is None or shorter <= self._short_side:
            return self._plain(frame)
        height, width = (max(1, round(side * self._short_side / shorter)) for side in (frame.height, frame.width))
        return self._plain(frame.reformat(height=height, width=width, interpolation="AREA"))
