"""Which frames of a video stand for it: the sampling rules of OTAM and of TRX, and frames from folders and files."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path

import numpy as np

from tempclr.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "SAMPLINGS", "read_sampled_frames", "sample_frames"]

SAMPLINGS = ("tsn", "trx")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


# Note [Frames in the middle of segments]: at test the frame of a segment is the one at its middle, rounded, halves to
# even, as public code does. Where there are just as many frames as segments that rule would take some frames twice and
# leave others out; then, as in TRX's rule, all frames are taken.
def sample_frames(
    num_frames: int, *, num_samples: int = 8, sampling: str = "tsn", rng: random.Random | None = None
) -> list[int]:
    """Indices of the frames that stand for a video, in order.

    ``"tsn"`` (Wang et al., 2016, as OTAM and TempCLR do): ``num_samples`` equal segments, a random frame of each in
    training, the one in the middle otherwise. ``"trx"``: evenly from a start to an end, which in training are moved
    inwards by up to 5 frames at random, and otherwise by one. A video with fewer frames repeats some.

    Args:
        num_frames: of the video, at least 1.
        num_samples: how many are wanted.
        sampling: ``"tsn"`` or ``"trx"``.
        rng: source of randomness in training; None is the rule for tests, without any.

    Raises:
        ValueError: another rule, or a number below 1.

    >>> sample_frames(20), sample_frames(20, sampling="trx")
    ([1, 4, 6, 9, 11, 14, 16, 19], [1, 3, 5, 8, 10, 13, 15, 18])
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    if num_frames < 1 or num_samples < 1:
        raise ValueError(f"expected at least one frame and one sample, got {num_frames} and {num_samples}")
    if num_frames == num_samples:
        return list(range(num_frames))
    return (_tsn if sampling == "tsn" else _trx)(num_frames, num_samples, rng)


def _tsn(num_frames: int, num_samples: int, rng: random.Random | None) -> list[int]:
    borders = [num_frames * index / num_samples for index in range(num_samples + 1)]
    if rng is not None:
        spans = [(int(first), max(int(last), int(first) + 1)) for first, last in pairwise(borders)]
        return [rng.randrange(first, min(last, num_frames)) for first, last in spans]
    middles = [round((first + last) / 2) for first, last in pairwise(borders)]
    return [min(middle, num_frames - 1) for middle in middles]


def _trx(num_frames: int, num_samples: int, rng: random.Random | None) -> list[int]:
    first, last = 1, num_frames - 2
    if rng is not None:
        pad = int(min(5, (num_frames - num_samples) / 2))
        if pad < 1:
            first, last = 0, num_frames - 1
        else:
            first, last = rng.randint(0, pad), rng.randint(num_frames - 1 - pad, num_frames - 1)
    if last - first < num_samples:
        first, last = 0, num_frames - 1
    return [int(index) for index in np.linspace(first, last, num_samples)]


def read_sampled_frames(
    path: str | PathLike[str],
    *,
    num_samples: int = 8,
    sampling: str = "tsn",
    rng: random.Random | None = None,
) -> list[np.ndarray]:
    """The sampled frames of a video file, or of a folder of images sorted by name.

    Returns:
        ``num_samples`` uint8 RGB arrays ``(height, width, 3)``.

    Raises:
        InputError: the path is missing, a folder without images, or a file that cannot be decoded.

    >>> read_sampled_frames("videos/wave/0001", num_samples=8)[0].shape  # doctest: +SKIP
    (240, 320, 3)
    """
    path = Path(path)
    if path.is_dir():
        images = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"holds no images ({', '.join(IMAGE_SUFFIXES)})", file=path)
        wanted = sample_frames(len(images), num_samples=num_samples, sampling=sampling, rng=rng)
        return [_read_image(images[index]) for index in wanted]
    from tempclr.data.video import iterate_frames

    # Two passes over the file, since what a header says of the number of frames is not reliable.
    num_frames = sum(1 for _ in iterate_frames(path, num_threads=1))
    wanted = sample_frames(num_frames, num_samples=num_samples, sampling=sampling, rng=rng)
    return list(_picked((frame for _, frame in iterate_frames(path, num_threads=1)), wanted))


def _picked(frames: Iterator[np.ndarray], wanted: Sequence[int]) -> Iterator[np.ndarray]:
    at, frame = -1, None
    for index in wanted:
        while at < index:
            frame, at = next(frames), at + 1
        assert frame is not None
        yield frame


def _read_image(file: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.array(image.convert("RGB"))
    except OSError as error:  # not an image, or cut off
        raise InputError(f"cannot be read as an image: {error}", file=file) from error
