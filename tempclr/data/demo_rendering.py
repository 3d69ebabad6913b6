"""From a plan to frames: scenes one after another, seen through an unsteady, noisy camera in the video's own light."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops

from tempclr.data.demo_backgrounds import UNRELATED, idle, lay_out_idle_things, workbench
from tempclr.data.demo_planning import PlannedGap, PlannedStep, VideoPlan
from tempclr.data.demo_scenes import MOTIONS, Palette, Scene, Stage, draw_palette

NUM_NOISE_PICTURES = 6
NOISE_MARGIN = 16


class _Shot(NamedTuple):
    """One scene of the plan, in frames ``[start, end)``."""

    start: int
    end: int
    planned: PlannedStep | PlannedGap


def render(plan: VideoPlan) -> Iterator[np.ndarray]:
    """Draw the frames of a plan: uint8 RGB ``(height, width, 3)``, ``plan.num_frames`` of them."""
    rng = np.random.default_rng([*plan.seed, 2_000_000])
    palette = draw_palette(rng, colour_variation=plan.style.colour_variation)
    camera = _Camera(plan, rng)
    # One cache a video: scenes of one video share their tools, and memory stays bounded.
    sprites: dict[tuple[object, ...], Image.Image] = {}
    for shot in _shots(plan):
        scene = _build(plan, shot.planned, camera.canvas_size, palette, sprites, rng)
        filmed = isinstance(shot.planned, PlannedStep)
        camera.set_up(mirrored=rng.random() < 0.5, blurred=filmed and rng.random() < plan.style.blur_probability)
        pace = 2.0 ** rng.uniform(-0.6, 0.6)
        for frame in range(shot.start, shot.end):
            part = (frame - shot.start) / max(1, shot.end - shot.start - 1)
            canvas = scene.base.copy()
            scene.moving(canvas, part**pace, (frame - shot.start) / plan.frames_per_second)
            yield camera.take(canvas)


def _shots(plan: VideoPlan) -> list[_Shot]:
    def frames(seconds: float) -> int:
        return round(seconds * plan.frames_per_second)

    parts: list[PlannedStep | PlannedGap] = sorted([*plan.steps, *plan.gaps], key=lambda one: one.start_seconds)
    return [_Shot(frames(part.start_seconds), frames(part.end_seconds), part) for part in parts]


def _build(
    plan: VideoPlan,
    planned: PlannedStep | PlannedGap,
    size: tuple[int, int],
    palette: Palette,
    sprites: dict[tuple[object, ...], Image.Image],
    rng: np.random.Generator,
) -> Scene:
    if isinstance(planned, PlannedGap) and planned.kind != "idle":
        return UNRELATED[planned.kind](size, rng)
    spread = plan.style.layout_variation
    unit = min(plan.height, plan.width) / 100
    # A tenth of a pixel, so that scenes of one scale share their sprites.
    scale = round(unit * plan.style.zoom, 1)
    middle = (
        size[0] / 2 + 24 * spread * unit * rng.uniform(-1, 1),
        size[1] * (0.64 + 0.12 * spread * rng.uniform(-1, 1)),
    )
    stage = Stage(scale, middle, palette, rng, sprites)
    behind = -22.0
    # The same generator for every scene of a video: its wall and table stay the same ones.
    bench_rng = np.random.default_rng([*plan.seed, 3_000_000])
    base = workbench(size, round(middle[1] + behind * scale), plan.style.table, palette, bench_rng)
    lay_out_idle_things(stage, base, int(rng.integers(plan.style.num_distractors + 1)), behind)
    if isinstance(planned, PlannedGap):
        return Scene(base, idle(stage, base))
    return Scene(base, MOTIONS[planned.action.motion](stage, planned.action, base))


class _Camera:
    """Crops the canvas where the camera points, then focus, light and sensor noise."""

    def __init__(self, plan: VideoPlan, rng: np.random.Generator):
        self._rng, self._size = rng, (plan.width, plan.height)
        self._jitter = plan.style.jitter_pixels
        self._margin = round(4 * self._jitter) + 2
        self._offset = np.zeros(2)
        self._mirrored = self._blurred = False
        self._light = _light_table(plan)
        self._vignette = _vignette(self._size, rng)
        self._noise = _noise_bank(self._size, plan.style.noise_level, rng)

    @property
    def canvas_size(self) -> tuple[int, int]:
        """(width, height) of what must be drawn, more than is seen."""
        return self._size[0] + 2 * self._margin, self._size[1] + 2 * self._margin

    def set_up(self, *, mirrored: bool, blurred: bool) -> None:
        """Begin a new scene."""
        self._mirrored, self._blurred = mirrored, blurred

    def take(self, canvas: Image.Image) -> np.ndarray:
        """One frame of the canvas."""
        self._offset = 0.85 * self._offset + self._rng.normal(0, 0.6 * self._jitter, size=2)
        left, top = (self._margin + np.clip(np.round(self._offset), -self._margin, self._margin)).astype(int).tolist()
        frame = canvas.crop((left, top, left + self._size[0], top + self._size[1]))
        if self._mirrored:
            frame = frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._blurred:
            frame = frame.reduce(6).resize(self._size, Image.Resampling.BILINEAR)
        frame = ImageChops.multiply(frame.point(self._light), self._vignette)
        if self._noise:
            bank = self._noise[int(self._rng.integers(len(self._noise)))]
            x, y = self._rng.integers(NOISE_MARGIN, size=2).tolist()
            frame = ImageChops.add(frame, bank.crop((x, y, x + self._size[0], y + self._size[1])), 1.0, -128)
        return np.asarray(frame)


def _light_table(plan: VideoPlan) -> list[int]:
    """For each channel and level, the level under the video's light."""
    levels = (np.arange(256) / 255) ** plan.style.gamma
    return [int(value) for gain in plan.style.gains for value in np.clip(255 * gain * levels, 0, 255).round()]


def _vignette(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """The light falls off from a point near the middle."""
    x, y = np.linspace(-1, 1, size[0])[None, :], np.linspace(-1, 1, size[1])[:, None]
    x0, y0 = rng.uniform(-0.6, 0.6, size=2)
    light = np.clip(1.02 - 0.14 * ((x - x0) ** 2 + (y - y0) ** 2), 0, 1)
    return Image.fromarray(np.repeat((255 * light[..., None]).astype(np.uint8), 3, axis=2), "RGB")


def _noise_bank(size: tuple[int, int], noise_level: float, rng: np.random.Generator) -> list[Image.Image]:
    """A few pictures of noise about 128, larger than a frame: each frame takes a random part of a random one."""
    if noise_level == 0:
        return []
    shape = (size[1] + NOISE_MARGIN, size[0] + NOISE_MARGIN, 3)
    pictures = []
    for _ in range(NUM_NOISE_PICTURES):
        noise = 128 + noise_level * rng.standard_normal(shape, dtype=np.float32)
        pictures.append(Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8), "RGB"))
    return pictures
