"""Decoding and writing video files through PyAV. Time is counted in seconds from the first frame of the stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path
from tempclr.errors import InputError

Pathish = str | PathLike[str]

# How much of what the container announces may be missing before the file counts as cut off: headers round durations,
# and the last frame's own duration is often left out.
MISSING_SECONDS_ALLOWED = 1.0

# Note [What a video file may ask for]: a few damaged or hostile bytes can announce a picture of gigabytes, or a frame
# days after the last one, which would be repeated at every tick until then. Playlists and scripts name other files and
# addresses, and are told by their content, whatever their name: only containers that hold their frames are opened.
MAX_PIXELS = 8192 * 8192
MAX_PAUSE_SECONDS = 3600.0
MAX_SECONDS = 48 * 3600.0
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,rm,dv,nut,mxf,wtv,gif,ivf,h264,hevc,"
    "wav,mp3,flac,aac"
)
_OPENING = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}


@dataclass(frozen=True)
class VideoInfo:
    """What a video file's header says, without decoding it. ``num_frames`` is None where the header does not tell."""

    num_frames: int | None
    duration_seconds: float | None
    frames_per_second: float
    height: int
    width: int


def probe(path: Pathish) -> VideoInfo:
    """Read a video file's header.

    Height and width are as stored: a rotation in the metadata is applied by :func:`iterate_frames` only.

    Raises:
        InputError: the file is missing, empty, unreadable or has no video stream.

    >>> probe("clip.mp4").frames_per_second
    25.0
    """
    with _opened(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        if rate is None or rate <= 0:
            raise InputError("the header gives no frame rate; re-encode the video", file=path)
        return VideoInfo(
            num_frames=stream.frames or None,
            duration_seconds=_announced_seconds(container, stream),
            frames_per_second=float(rate),
            height=stream.codec_context.height,
            width=stream.codec_context.width,
        )


def iterate_frames(
    path: Pathish, *, frames_per_second: float | None = None, num_threads: int = 0
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a video from its start to its end.

    Args:
        path: the video file.
        frames_per_second: None gives every frame at its own time; a number gives the frame that is on screen at times
            0, 1/rate, 2/rate, …, found by timestamps, so that videos of variable frame rate come out right.
        num_threads: of the decoder; 0 lets it choose.

    Yields:
        ``(timestamp_seconds, frame)``, the frame uint8 RGB ``(height, width, 3)``, turned upright if the file says so.

    Raises:
        InputError: the file is missing, empty, not a video, holds no frame, breaks while decoding, ends more than a
            second before the time its header announces (a cut-off download), or asks for pictures or pauses beyond
            ``MAX_PIXELS``, ``MAX_PAUSE_SECONDS`` and ``MAX_SECONDS``.

    >>> [timestamp_seconds for timestamp_seconds, frame in iterate_frames("clip.mp4", frames_per_second=1)]
    [0.0, 1.0, 2.0]
    """
    if frames_per_second is not None and not (math.isfinite(frames_per_second) and frames_per_second > 0):
        raise ValueError(f"frames_per_second must be a positive number or None, got {frames_per_second!r}")
    return _iterate(path, frames_per_second, num_threads)


def read_frames(
    path: Pathish,
    *,
    frames_per_second: float | None = None,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    num_threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the frames of ``[start_seconds, end_seconds)`` into memory.

    Returns:
        ``(frames, timestamps)``: uint8 RGB ``(N, height, width, 3)`` and float64 ``(N,)`` seconds. Other arguments and
        errors are those of :func:`iterate_frames`; a span without a frame is an InputError too.

    >>> frames, timestamps = read_frames("clip.mp4", frames_per_second=1)
    >>> frames.shape
    (3, 240, 320, 3)
    """
    frames, timestamps = [], []
    for timestamp, frame in iterate_frames(path, frames_per_second=frames_per_second, num_threads=num_threads):
        if end_seconds is not None and timestamp >= end_seconds:
            break
        if timestamp >= start_seconds:
            frames.append(frame)
            timestamps.append(timestamp)
    if not frames:
        raise InputError(f"no frame between {start_seconds} s and {end_seconds} s: the video is shorter", file=path)
    return np.stack(frames), np.array(timestamps, dtype=np.float64)


def write_video(
    path: Pathish,
    frames: Iterable[np.ndarray],
    *,
    frames_per_second: float | Fraction,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> None:
    """Encode frames; the file appears under its name only when it is whole, and equal input gives equal bytes.

    Args:
        path: its suffix chooses the container (``.mp4``, ``.mkv``, ``.avi``, …).
        frames: uint8 RGB ``(height, width, 3)`` arrays of one even size; an array ``(N, height, width, 3)`` will do.
        frames_per_second: constant rate.
        codec: ``"libx264"`` (H.264) or ``"mpeg4"``, or any other encoder PyAV has.
        options: the encoder's own, for example ``{"crf": "23"}``.

    Raises:
        ValueError: no frames, a frame of wrong type or size, a rate that is not positive, an unknown encoder.

    >>> write_video("black.mp4", np.zeros((20, 64, 64, 3), np.uint8), frames_per_second=10)
    """
    rate = Fraction(frames_per_second).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"frames_per_second must be positive, got {frames_per_second!r}")
    with atomic_path(path) as temporary:
        _encode(temporary, frames, rate, codec, options or {})


def _encode(path: Path, frames: Iterable[np.ndarray], rate: Fraction, codec: str, options: dict[str, str]) -> None:
    import av

    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        raise ValueError(f"this PyAV has no encoder {codec!r}; try 'libx264' or 'mpeg4'") from None
    stream: Any = None
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        for index, frame in enumerate(frames):
            _check_frame(frame, index, None if stream is None else (stream.height, stream.width))
            if stream is None:
                stream = _add_stream(container, codec, rate, frame.shape, options)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        if stream is None:
            raise ValueError("no frames to write: a video needs at least one")
        container.mux(stream.encode(None))


# Note [Equal frames, equal bytes]: x264's macroblock tree is off because with it about one file in a hundred came out
# differently (small frames, core 165); without it, none in hundreds.
_REPEATABLE = {"libx264": {"mbtree": "0"}}


def _add_stream(container: Any, codec: str, rate: Fraction, shape: tuple[int, ...], options: dict[str, str]) -> Any:
    from av.codec.context import Flags

    stream = container.add_stream(codec, rate=rate, options=_REPEATABLE.get(codec, {}) | options)
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuv420p"
    # Threads would change the bitstream with the machine's number of cores; bitexact leaves out versions and dates.
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= Flags.bitexact
    return stream


def _check_frame(frame: np.ndarray, index: int, size: tuple[int, int] | None) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"frame {index} must be a uint8 array (height, width, 3), got {found}")
    if frame.shape[0] % 2 or frame.shape[1] % 2 or 0 in frame.shape:
        raise ValueError(f"frame {index} is {frame.shape[0]} x {frame.shape[1]}: video needs even height and width")
    if size is not None and frame.shape[:2] != size:
        raise ValueError(f"frame {index} is {frame.shape[:2]} but the first was {size}: one size a video")


@contextmanager
def _opened(path: Pathish) -> Iterator[tuple[Any, Any]]:
    """The open container and its first video stream; every fault of the file becomes an InputError."""
    import av

    _check_file(path)
    try:
        with av.open(str(path), container_options=_OPENING, metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError("holds no video stream", file=path)
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise InputError("its video is of a codec that PyAV does not know, or its header is damaged", file=path)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, stream
    except av.error.FFmpegError as error:
        raise InputError(f"cannot be read as video ({_reason(error)}): not a video, or cut off", file=path) from error


def _check_file(path: Pathish) -> None:
    file = Path(path)
    if not file.exists():
        raise InputError("no such video file", file=path)
    if not file.is_file():
        raise InputError("is a folder, expected a video file", file=path)
    if file.stat().st_size == 0:
        raise InputError("the video file is empty (0 bytes)", file=path)


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _announced_seconds(container: Any, stream: Any) -> float | None:
    """How long the header says the video stream is; None where only other streams could have set the length."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION")  # Matroska and WebM write it per stream, as 00:00:20.500000000
    if tag:
        try:
            hours, minutes, seconds = tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:  # damaged: how much is missing cannot be told by it
            return None
    if container.duration and len(container.streams) == 1:
        return container.duration / 1_000_000
    return None


def _iterate(path: Pathish, rate: float | None, num_threads: int) -> Iterator[tuple[float, np.ndarray]]:
    with _opened(path) as (container, stream):
        announced = _announced_seconds(container, stream)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        to_array = _FrameReader()
        timeline = _Timeline(container, stream, path)
        for seconds, frame in timeline.all_frames() if rate is None else timeline.on_ticks(rate):
            yield seconds, to_array(frame)
    if timeline.end_seconds == 0.0:
        raise InputError("the video holds no frame (zero length)", file=path)
    if announced is not None and timeline.end_seconds < announced - MISSING_SECONDS_ALLOWED:
        decoded = f"only {timeline.end_seconds:.1f} s can be decoded"
        raise InputError(f"is cut off: announces {announced:.1f} s but {decoded}; fetch the file again", file=path)


# Note [Containers round times]: Matroska, WebM and FLV stamp frames in milliseconds, so that a frame due at 66.667 ms
# is stamped 67 ms and its predecessor would be taken for the one on screen. A frame that comes at most one tick of the
# container late counts as there. AVI and others whose ticks are frames round nothing; where a tick is a large part of
# a frame, a quarter of a frame is allowed and no more.
def _rounding_seconds(stream: Any) -> float:
    """How late a frame may come because its container rounds times."""
    tick, frame = stream.time_base or 0, 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
    if 4 * tick <= frame:
        return float(tick)
    return 0.0 if frame % tick == 0 else float(frame / 4)


class _Timeline:
    """Decoded frames in display order, time counted from the first; ``end_seconds`` is how far decoding has come."""

    def __init__(self, container: Any, stream: Any, path: Pathish) -> None:
        self._frames, self._path = container.decode(stream), path
        self._frame_seconds = float(1 / (stream.average_rate or stream.guessed_rate or Fraction(25)))
        self._rounding_seconds = _rounding_seconds(stream)
        self.end_seconds = 0.0

    def all_frames(self) -> Iterator[tuple[float, Any]]:
        first = None
        for frame in self._frames:
            if frame.time is None:
                continue
            first = frame.time if first is None else first
            seconds = frame.time - first
            self._check(seconds)
            lasts = float(frame.duration * frame.time_base) if frame.duration else self._frame_seconds
            self.end_seconds = max(self.end_seconds, seconds + min(lasts, MAX_PAUSE_SECONDS))
            yield seconds, frame

    def _check(self, seconds: float) -> None:
        if seconds > min(self.end_seconds + MAX_PAUSE_SECONDS, MAX_SECONDS):
            found = f"a frame at {seconds:.0f} s, the one before ends at {self.end_seconds:.0f} s"
            raise InputError(f"its times are damaged, or it is too long: {found}", file=self._path)

    # Note [Frames are sampled by time]: the frame at time t is the one on screen then, the last whose timestamp is
    # <= t, never "every n-th". A telephone's video of variable rate would otherwise drift away from the sentences.
    def on_ticks(self, rate: float) -> Iterator[tuple[float, Any]]:
        slack = self._rounding_seconds + 1e-3 / rate  # Note [Containers round times]
        tick, shown = 0, None
        for seconds, frame in self.all_frames():
            while shown is not None and tick / rate < seconds - slack:
                yield tick / rate, shown
                tick += 1
            shown = frame
        while shown is not None and tick / rate < self.end_seconds - slack:
            yield tick / rate, shown
            tick += 1


class _FrameReader:
    """Turns decoded pictures into RGB arrays; keeps the colour converter, which is costly to make, between frames."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        array: Any = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        if frame.rotation % 360:
            array = np.ascontiguousarray(np.rot90(array, k=round(frame.rotation / 90)))
        return array
