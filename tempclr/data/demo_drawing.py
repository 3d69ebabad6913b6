"""The pencil the demo's objects are drawn with: shapes with outlines, light from the upper left, fine grain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, ...]
Point = tuple[float, float]

# Drawn larger and reduced, because ImageDraw knows no anti-aliasing.
SUPERSAMPLING = 2
DARK: Colour = (48, 40, 38)


class Pen:
    """Draws on one sprite in units; ``done`` reduces and shades it."""

    def __init__(self, width: float, height: float, scale: float):
        self.width, self.height, self._factor = width, height, scale * SUPERSAMPLING
        size = [max(1, math.ceil(side * scale)) * SUPERSAMPLING for side in (width, height)]
        self._image = Image.new("RGBA", (size[0], size[1]))
        self._draw = ImageDraw.Draw(self._image)

    def _points(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._factor, y * self._factor) for x, y in points]

    def _wide(self, width: float) -> int:
        return max(1, round(width * self._factor))

    def polygon(self, points: Sequence[Point], fill: Colour, *, line: Colour | None = DARK, wide: float = 0.6) -> None:
        """A filled polygon with an outline."""
        self._draw.polygon(self._points(points), fill=fill, outline=line, width=self._wide(wide))

    def oval(
        self,
        box: tuple[float, float, float, float],
        fill: Colour | None,
        *,
        line: Colour | None = DARK,
        wide: float = 0.6,
    ) -> None:
        """An ellipse inside ``(left, top, right, bottom)``."""
        self._draw.ellipse([side * self._factor for side in box], fill=fill, outline=line, width=self._wide(wide))

    def block(
        self,
        box: tuple[float, float, float, float],
        fill: Colour,
        *,
        radius: float = 1.0,
        line: Colour | None = DARK,
        wide: float = 0.6,
    ) -> None:
        """A rectangle with round corners."""
        self._draw.rounded_rectangle(
            [side * self._factor for side in box],
            radius * self._factor,
            fill=fill,
            outline=line,
            width=self._wide(wide),
        )

    def stroke(self, points: Sequence[Point], fill: Colour, wide: float) -> None:
        """A line through the points."""
        self._draw.line(self._points(points), fill=fill, width=self._wide(wide), joint="curve")

    def dots(self, points: Sequence[Point], fill: Colour, radius: float) -> None:
        """Small discs."""
        r = radius * self._factor
        for x, y in self._points(points):
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def done(self, *, shading: float = 0.5) -> Image.Image:
        """The finished sprite: light from the upper left, fine grain."""
        small = self._image.reduce(SUPERSAMPLING)
        pixels = np.asarray(small).astype(np.float32)
        height, width = pixels.shape[:2]
        across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
        light = 1.04 - shading * (0.24 * across[None, :] + 0.3 * down[:, None]) + GRAIN[:height, :width]
        pixels[..., :3] = np.clip(pixels[..., :3] * light[..., None], 0, 255)
        return Image.fromarray(pixels.astype(np.uint8), "RGBA")


def _grain() -> np.ndarray:
    rng = np.random.default_rng(7)
    fine = rng.normal(0, 0.025, size=(1200, 1200))
    coarse = np.kron(rng.normal(0, 0.03, size=(300, 300)), np.ones((4, 4)))
    return (fine + coarse).astype(np.float32)


GRAIN = _grain()


def darker(colour: Colour, factor: float = 0.7) -> Colour:
    """The colour, multiplied; factors above 1 lighten."""
    return tuple(min(255, max(0, round(channel * factor))) for channel in colour[:3]) + tuple(colour[3:])


def arc_points(box: tuple[float, float, float, float], start_degrees: float, end_degrees: float) -> list[Point]:
    """Points on an ellipse, clockwise from three o'clock."""
    left, top, right, bottom = box
    angles = np.radians(np.linspace(start_degrees, end_degrees, 24))
    x = (left + right) / 2 + (right - left) / 2 * np.cos(angles)
    y = (top + bottom) / 2 + (bottom - top) / 2 * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))
