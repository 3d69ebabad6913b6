"""Small videos whose classes are motions: every class has the same things, colours, places and cameras.

A network that looks at single frames learns nothing of the class here, and of half the classes nothing from the set of
frames without their order: ``slide_then_rise`` and ``rise_then_slide`` show the same two movements.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tempclr.data.files import atomic_path
from tempclr.data.video import write_video
from tempclr.errors import InputError

__all__ = ["DIRECTED_MOTIONS", "MOTIONS", "MotionPath", "make_motion_videos", "motion_path", "render_motion_video"]

ROWS_FILE = "rows.jsonl"
SETTINGS_FILE = "settings.json"
_FORMAT = 1  # of the pictures: raised when they change, so that a folder of the older ones is made anew
_SHAPES = {  # (corners, depth of the notches between them, roundness), none of a split's in the other
    "train": [(3, 0.5, 0.0), (4, 0.7071, 0.0), (5, 0.45, 0.0), (6, 0.866, 0.0), (8, 0.6, 0.4), (2, 0.4, 0.8)],
    "test": [(3, 0.35, 0.6), (4, 0.4, 0.2), (5, 0.809, 0.0), (7, 0.55, 0.2), (6, 0.5, 0.8), (2, 0.65, 0.2)],
}
_SUPERSAMPLING = 2  # of the sprite's own picture


@dataclass(frozen=True)
class MotionPath:
    """Where a thing is in each frame, all arrays float64 ``(num_frames,)``.

    Attributes:
        x, y: of its centre in units of the picture's side, from its own centre of movement; y grows downwards.
        scale: its size relative to its middle size.
        angle: in radians.
    """

    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray
    angle: np.ndarray


# A movement takes progress in [0, 1] and gives (x, y, log2 of scale, angle), whose middle is at rest.
_Movement = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def _steady(x: float = 0.0, y: float = 0.0, log_scale: float = 0.0, angle: float = 0.0) -> _Movement:
    def move(progress: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        along = progress - 0.5
        return x * along, y * along, log_scale * along, angle * along

    return move


def _to_and_fro(x: float = 0.0, y: float = 0.0, log_scale: float = 0.0, cycles: float = 2.5) -> _Movement:
    def move(progress: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        wave = 0.5 * np.sin(2 * math.pi * cycles * progress)
        return x * wave, y * wave, log_scale * wave, 0.0 * wave

    return move


def _round(cycles: float = 2.0) -> _Movement:
    def move(progress: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        phase = 2 * math.pi * cycles * progress
        return 0.25 * np.sin(phase), -0.25 * np.cos(phase), 0.0 * phase, 0.0 * phase

    return move


_SLIDE, _RISE, _GROW, _SPIN = _steady(x=0.5), _steady(y=-0.5), _steady(log_scale=1.5), _steady(angle=3 * math.pi)

# Note [Motions that mirrors keep]: TCLR's augmentation mirrors half of all clips, so a class must not tell left from
# right. These do not: what goes sideways or turns does so one way or the other at random. DIRECTED_MOTIONS do.
MOTIONS: dict[str, tuple[_Movement, ...]] = {
    "slide": (_SLIDE,),
    "rise": (_RISE,),
    "sink": (_steady(y=0.5),),
    "grow": (_GROW,),
    "shrink": (_steady(log_scale=-1.5),),
    "spin": (_SPIN,),
    "swing": (_to_and_fro(x=0.5),),
    "bounce": (_to_and_fro(y=0.5),),
    "pulse": (_to_and_fro(log_scale=1.5),),
    "orbit": (_round(),),
    "slide_then_rise": (_SLIDE, _RISE),
    "rise_then_slide": (_RISE, _SLIDE),
    "grow_then_slide": (_GROW, _SLIDE),
    "slide_then_grow": (_SLIDE, _GROW),
    "spin_then_rise": (_SPIN, _RISE),
    "rise_then_spin": (_RISE, _SPIN),
}
DIRECTED_MOTIONS: dict[str, tuple[_Movement, ...]] = {
    "left": (_steady(x=-0.5),),
    "right": (_steady(x=0.5),),
    "clockwise": (_SPIN,),
    "counterclockwise": (_steady(angle=-3 * math.pi),),
    "left_then_up": (_steady(x=-0.5), _RISE),
    "up_then_left": (_RISE, _steady(x=-0.5)),
}


def motion_path(label: str, num_frames: int, rng: np.random.Generator) -> MotionPath:
    """A random example of a motion: its extent, tempo and moment of change vary; of :data:`MOTIONS` also the side.

    Raises:
        ValueError: no such motion.

    >>> path = motion_path("rise", 50, np.random.default_rng(0))
    >>> bool(path.y[-1] < path.y[0]), float(abs(path.x).max())
    (True, 0.0)
    """
    if label not in MOTIONS and label not in DIRECTED_MOTIONS:
        raise ValueError(f"no motion {label!r}; there are {', '.join([*MOTIONS, *DIRECTED_MOTIONS])}")
    movements = MOTIONS.get(label) or DIRECTED_MOTIONS[label]
    side = rng.choice((-1.0, 1.0)) if label in MOTIONS else 1.0
    extent, warp, change = rng.uniform(0.8, 1.2), rng.uniform(-0.25, 0.25), rng.uniform(0.4, 0.6)
    time = np.linspace(0, 1, num_frames)
    time = time + warp * time * (1 - time)  # not quite even speed
    borders = [0.0, change, 1.0] if len(movements) == 2 else [0.0, 1.0]
    total = np.zeros((4, num_frames))
    for index, movement in enumerate(movements):
        progress = np.clip((time - borders[index]) / (borders[index + 1] - borders[index]), 0, 1)
        total += extent * np.stack(movement(progress))
    x, y, log_scale, angle = total
    return MotionPath(side * x, y, 2.0**log_scale, side * angle)


def render_motion_video(
    label: str,
    *,
    rng: np.random.Generator,
    split: str = "train",
    image_size: int = 64,
    num_frames: int = 75,
    look: np.random.Generator | None = None,
    clutter: bool = True,
) -> np.ndarray:
    """Frames of one video: a thing that moves as ``label`` says, on a background under which the camera drifts.

    Args:
        label: of :data:`MOTIONS` or :data:`DIRECTED_MOTIONS`.
        rng: source of everything random.
        split: ``"train"`` or ``"test"``: no outline of a thing is in both.
        image_size: side of the picture in pixels, even.
        num_frames: how many.
        look: source of the thing's and the background's appearance alone, ``rng`` without it: equal ones make videos
            that look alike and move differently.
        clutter: whether the camera drifts and other things stand around.

    Returns:
        uint8 RGB ``(num_frames, image_size, image_size, 3)``.

    >>> render_motion_video("spin", rng=np.random.default_rng(0), num_frames=10).shape
    (10, 64, 64, 3)
    """
    path = motion_path(label, num_frames, rng)
    look = rng if look is None else look
    drift = rng.uniform(-0.15, 0.15, size=2) * clutter
    frames = _background_frames(look, image_size, num_frames, drift)
    for _ in range(int(rng.integers(1, 3)) if clutter else 0):  # things that stand still
        place = rng.uniform(0.1, 0.9, size=2)[:, None] + drift[:, None] * np.linspace(0, 1, num_frames)
        still = MotionPath(place[0], place[1], np.ones(num_frames), np.full(num_frames, rng.uniform(0, 2 * math.pi)))
        frames = _overlay(frames, _sprite(rng, split, image_size), still, size=rng.uniform(0.12, 0.25))
    centre = rng.uniform(0.4, 0.6, size=2)
    turned = path.angle + rng.uniform(0, 2 * math.pi)
    moving = MotionPath(path.x + centre[0], path.y + centre[1], path.scale, turned)
    frames = _overlay(frames, _sprite(look, split, image_size), moving, size=rng.uniform(0.22, 0.34))
    grain = torch.from_numpy(rng.normal(0, 2, size=(1, 1, image_size, image_size)).astype(np.float32))
    frames = (frames + grain).round().clamp(0, 255).to(torch.uint8)
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def _noise(rng: np.random.Generator, channels: int, cells: int, side: int) -> Tensor:
    """Smooth noise in [-1, 1], float32 ``(channels, side, side)``."""
    coarse = torch.from_numpy(rng.uniform(-1, 1, size=(1, channels, cells, cells)).astype(np.float32))
    return functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)[0].clamp(-1, 1)


def _texture(rng: np.random.Generator, side: int) -> Tensor:
    """A coloured pattern, float32 ``(3, side, side)`` in [0, 255]: lumps, stripes or squares over a colour."""
    colour = torch.from_numpy(rng.uniform(40, 215, size=(3, 1, 1)).astype(np.float32))
    other = torch.from_numpy(rng.uniform(-60, 60, size=(3, 1, 1)).astype(np.float32))
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    kind, angle, count = int(rng.integers(4)), float(rng.uniform(0, math.pi)), float(rng.uniform(3, 9))
    along = math.cos(angle) * x + math.sin(angle) * y
    across = math.cos(angle) * y - math.sin(angle) * x
    if kind == 0:
        pattern = _noise(rng, 1, int(rng.integers(3, 9)), side)[0]
    elif kind == 1:
        pattern = torch.sin(2 * math.pi * count * along)
    elif kind == 2:
        pattern = torch.sign(torch.sin(2 * math.pi * count * along) * torch.sin(2 * math.pi * count * across))
    else:
        pattern = along * 2 - 1
    return (colour + other * pattern + 15 * _noise(rng, 3, 6, side)).clamp(0, 255)


def _background_frames(rng: np.random.Generator, side: int, num_frames: int, drift: np.ndarray) -> Tensor:
    """Float32 ``(num_frames, 3, side, side)``: a window that goes over a larger texture."""
    texture = _texture(rng, 2 * side)[None].expand(num_frames, -1, -1, -1)
    start = rng.uniform(-0.3, 0.3, size=2)
    shift = start[None] - drift[None] * np.linspace(0, 1, num_frames)[:, None]
    theta = torch.zeros(num_frames, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 0.5
    theta[:, :, 2] = torch.from_numpy(shift.astype(np.float32))
    grid = functional.affine_grid(theta, [num_frames, 3, side, side], align_corners=False)
    return functional.grid_sample(texture, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _sprite(rng: np.random.Generator, split: str, image_size: int) -> Tensor:
    """A thing with its transparency, float32 ``(4, side, side)``; colours multiplied by the transparency."""
    side = max(32, image_size // 2) * _SUPERSAMPLING
    corners, notch, roundness = _SHAPES[split][int(rng.integers(len(_SHAPES[split])))]
    y, x = torch.meshgrid(torch.linspace(-1.1, 1.1, side), torch.linspace(-1.1, 1.1, side), indexing="ij")
    phase = (torch.atan2(y, x) / math.pi * corners) % 2 - 1  # 0 at a notch, ±1 at the corners
    straight = notch + (1 - notch) * phase.abs()
    wavy = (1 + notch) / 2 - (1 - notch) / 2 * torch.cos(math.pi * phase)
    outline = (1 - roundness) * straight + roundness * wavy
    radius = torch.sqrt(x * x + y * y)
    alpha = ((outline - radius) * side / 3).clamp(0, 1)
    colours = _texture(rng, side)
    rim = torch.from_numpy(rng.uniform(0, 255, size=(3, 1, 1)).astype(np.float32))
    colours = torch.where(radius > outline - 0.18, rim, colours)
    mark = torch.sqrt((x - 0.45) ** 2 + y**2) < 0.2  # off its centre, so that turning shows whatever the outline
    colours = torch.where(mark, 255 - rim, colours)
    return torch.cat([colours * alpha, alpha[None]])


def _overlay(frames: Tensor, sprite: Tensor, path: MotionPath, *, size: float) -> Tensor:
    """Put the sprite over each frame, its middle width ``size`` of the picture's."""
    num_frames, _, side, _ = frames.shape
    width = size * path.scale
    cos, sin = np.cos(path.angle) / width, np.sin(path.angle) / width
    x, y = 2 * path.x - 1, 2 * path.y - 1
    rows = [[cos, sin, -(cos * x + sin * y)], [-sin, cos, sin * x - cos * y]]
    theta = torch.from_numpy(np.array(rows, dtype=np.float32)).permute(2, 0, 1)
    grid = functional.affine_grid(theta, [num_frames, 4, side, side], align_corners=False)
    placed = functional.grid_sample(sprite[None].expand(num_frames, -1, -1, -1), grid, align_corners=False)
    return frames * (1 - placed[:, 3:]) + placed[:, :3]


def make_motion_videos(
    output_dir: str | PathLike[str],
    *,
    num_videos: Mapping[str, int],
    labels: Sequence[str] = tuple(MOTIONS),
    image_size: int = 64,
    frames_per_second: float = 25.0,
    seconds: tuple[float, float] = (2.64, 3.2),
    num_looks: int | None = None,
    clutter: bool = True,
    seed: int = 0,
    num_workers: int = 1,
    show_progress_bar: bool = True,
) -> list[dict[str, str]]:
    """Write mp4 files and their rows; run again after an interruption, it goes on. Equal arguments give equal videos.

    Args:
        output_dir: gets ``<split>/<video_id>.mp4`` and ``rows.jsonl``, whose rows are ``video_id``, ``video`` (relative
            to the folder), ``label`` and ``split``.
        num_videos: of each class, by split: ``{"train": 30, "test": 10}``.
        labels: the classes, of :data:`MOTIONS` or :data:`DIRECTED_MOTIONS`.
        image_size: side of the picture in pixels, even.
        frames_per_second: constant.
        seconds: shortest and longest video. TCLR's span of 64 frames wants more than 2.56 at 25 frames a second.
        num_looks: so many appearances of thing and background, each as often in every class, and the same ones in both
            splits; None: each video has its own, and no outline of a thing is in both splits.
        clutter: whether the camera drifts and other things stand around.
        seed: of everything random.
        num_workers: threads.
        show_progress_bar: one tick a video.

    Returns:
        The rows, ``video`` as whole path.

    Raises:
        InputError: the folder holds videos made with other arguments.
        ValueError: an unknown class or split, an odd size, no videos, or no looks.

    >>> make_motion_videos("motions", num_videos={"train": 2, "test": 1})  # doctest: +SKIP
    """
    _check(num_videos, labels, image_size, seconds)
    if num_looks is not None and num_looks < 1:
        raise ValueError(f"num_looks must be at least 1, got {num_looks}")
    folder = Path(output_dir)
    settings: dict[str, Any] = {"format": _FORMAT, "image_size": image_size, "seconds": list(seconds), "seed": seed}
    settings["frames_per_second"] = frames_per_second
    settings |= {} if num_looks is None else {"num_looks": num_looks}
    settings |= {} if clutter else {"clutter": False}
    _claim(folder, settings)
    jobs = list(_jobs(folder, num_videos, labels, seed))

    def make(job: _Job) -> None:
        if job.file.is_file():
            return
        rng = np.random.default_rng(job.entropy)
        num_frames = round(rng.uniform(*seconds) * frames_per_second)
        # A word in the seed keeps a look's numbers apart from those of a video.
        look = None if num_looks is None else np.random.default_rng((seed, job.number % num_looks, *b"look"))
        split = job.split if num_looks is None else "train"  # whose outlines are taken
        options: dict[str, Any] = {"image_size": image_size, "num_frames": num_frames, "clutter": clutter}
        frames = render_motion_video(job.label, rng=rng, split=split, look=look, **options)
        write_video(job.file, frames, frames_per_second=frames_per_second, options={"preset": "superfast", "crf": "20"})

    _work(make, jobs, num_workers, show_progress_bar)
    rows = [{"video_id": job.file.stem, "video": str(job.file), "label": job.label, "split": job.split} for job in jobs]
    with atomic_path(folder / ROWS_FILE) as temporary:
        relative = [row | {"video": f"{row['split']}/{row['video_id']}.mp4"} for row in rows]
        temporary.write_text("".join(json.dumps(row) + "\n" for row in relative), encoding="utf-8")
    return rows


@dataclass(frozen=True)
class _Job:
    file: Path
    label: str
    split: str
    number: int
    entropy: tuple[int, ...]


def _jobs(folder: Path, num_videos: Mapping[str, int], labels: Sequence[str], seed: int) -> Iterator[_Job]:
    """Every video, classes in turn. A video's randomness depends on its own name alone, not on how many there are."""
    for split, count in num_videos.items():
        for number in range(count):
            for label in labels:
                name = f"{label}_{number:04d}"
                entropy = (seed, list(_SHAPES).index(split), number, *label.encode())
                yield _Job(folder / split / f"{split}_{name}.mp4", label, split, number, entropy)


def _check(num_videos: Mapping[str, int], labels: Sequence[str], image_size: int, seconds: tuple[float, float]) -> None:
    unknown = [label for label in labels if label not in MOTIONS and label not in DIRECTED_MOTIONS]
    if unknown or not labels or len(set(labels)) != len(labels):
        known = ", ".join([*MOTIONS, *DIRECTED_MOTIONS])
        raise ValueError(f"labels must be different ones of {known}, got {list(labels)}")
    if not num_videos or not set(num_videos) <= set(_SHAPES) or min(num_videos.values()) < 1:
        raise ValueError(f"num_videos must give 'train' and 'test' a number of at least 1, got {dict(num_videos)}")
    if image_size < 16 or image_size % 2:
        raise ValueError(f"image_size must be even and at least 16, got {image_size}")
    if not 0 < seconds[0] <= seconds[1]:
        raise ValueError(f"seconds must be (shortest, longest), both positive, got {seconds}")


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write down how the folder's videos are made, or see that they are made so."""
    file = folder / SETTINGS_FILE
    if not file.exists():
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON: {error}", file=file) from error
    if found != json.loads(json.dumps(settings)):
        raise InputError(f"its videos were made with {found}, asked for {settings}; choose another folder", file=folder)


def _work(make: Callable[[_Job], None], jobs: Sequence[_Job], num_workers: int, show_progress_bar: bool) -> None:
    from tqdm import tqdm

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        bar = tqdm(total=len(jobs), desc="motion videos", unit="video", disable=not show_progress_bar)
        with bar:
            try:
                for _ in pool.map(make, jobs):
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
