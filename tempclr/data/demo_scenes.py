"""How each action of the demo looks as it happens: one function a motion, on a stage over the workbench.

A motion changes what is seen as it goes on: vessels fill, vegetables become slices, paint spreads. The mean of a
second's frames keeps such changes, where a mere movement to and fro would be lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from tempclr.data.demo_actions import Action
from tempclr.data.demo_drawing import Colour, Point, darker
from tempclr.data.demo_sprites import COLOURS, draw_sprite

# progress from 0 to 1 within the step, seconds since its start
Moving = Callable[[Image.Image, float, float], None]


class Scene(NamedTuple):
    """What stays (drawn once) and what is drawn anew in each frame."""

    base: Image.Image
    moving: Moving


@dataclass(frozen=True)
class Palette:
    """The colours of one video's people, tools and vessels; ``items`` are the catalogue's colours, varied."""

    skin: Colour
    sleeve: Colour
    handle: Colour
    vessel: Colour
    pot: Colour
    wood: Colour
    wall: Colour
    items: dict[str, Colour]


@dataclass
class Stage:
    """A place on a picture in which (0, 0) is a point on the table and lengths are in units of ``scale`` pixels."""

    scale: float
    origin: Point
    palette: Palette
    rng: np.random.Generator
    sprites: dict[tuple[object, ...], Image.Image] = field(default_factory=dict)

    def put(
        self,
        canvas: Image.Image,
        name: str,
        *parameters: object,
        at: Point,
        angle: float = 0.0,
        size: Point | None = None,
        flip: bool = False,
    ) -> None:
        """Draw a sprite with its centre at a point, turned counter-clockwise by ``angle`` degrees."""
        angle = round(angle / 5) * 5
        key = (name, parameters, angle, size, flip)
        sprite = self.sprites.get(key)
        if sprite is None:
            sprite = draw_sprite(name, *parameters, scale=self.scale, size=size)
            if flip:
                sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if angle:
                sprite = sprite.rotate(angle, Image.Resampling.BICUBIC, expand=True)
            self.sprites[key] = sprite
        x, y = self.pixel(at)
        canvas.paste(sprite, (round(x - sprite.width / 2), round(y - sprite.height / 2)), sprite)

    def pixel(self, at: Point) -> Point:
        """Canvas pixels of a point."""
        return self.origin[0] + at[0] * self.scale, self.origin[1] + at[1] * self.scale

    def line(self, canvas: Image.Image, points: list[Point], colour: Colour, wide: float) -> None:
        """A line without a sprite: liquid, cuts."""
        width = max(1, round(wide * self.scale))
        ImageDraw.Draw(canvas).line([self.pixel(point) for point in points], fill=colour, width=width)

    def dots(self, canvas: Image.Image, points: list[Point], colour: Colour, radius: float) -> None:
        """Small discs: powder, sawdust."""
        draw, r = ImageDraw.Draw(canvas), max(0.6, radius * self.scale)
        for x, y in map(self.pixel, points):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def hand(self, canvas: Image.Image, at: Point, *, angle: float = 0.0, left: bool = False) -> None:
        """A hand whose fingers are near the point; its sleeve reaches to the right, or to the left."""
        x, y = at
        shift = turned((13.0, 1.0), angle)
        place = (x - shift[0], y + shift[1]) if left else (x + shift[0], y + shift[1])
        turn = -angle if left else angle
        self.put(canvas, "hand", self.palette.skin, self.palette.sleeve, at=place, angle=turn, flip=left)

    def vessel(self, canvas: Image.Image, kind: str, at: Point, content: Colour | None, level: float) -> None:
        """The back of a bowl or pot; what stands in it comes next, then :meth:`vessel_front`."""
        colour = self.palette.vessel if kind == "bowl" else self.palette.pot
        shown = content if level > 0 else None
        self.put(canvas, f"{kind}_back", colour, shown, _stepped(level), at=at)

    def vessel_front(self, canvas: Image.Image, kind: str, at: Point) -> None:
        """The front of a bowl or pot."""
        self.put(canvas, f"{kind}_front", self.palette.vessel if kind == "bowl" else self.palette.pot, at=at)


def turned(point: Point, angle: float) -> Point:
    """A point turned counter-clockwise, as seen, about (0, 0)."""
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    return point[0] * cosine + point[1] * sine, -point[0] * sine + point[1] * cosine


def _stepped(level: float, steps: int = 10) -> float:
    """Rounded, so that a sprite is drawn a few times and not once a frame."""
    return round(min(1.0, max(0.0, level)) * steps) / steps


def _there(progress: float) -> float:
    """1 while something is at its place, less as it comes in and leaves."""
    return min(1.0, progress / 0.12, (1 - progress) / 0.08)


def pour(stage: Stage, action: Action, base: Image.Image) -> Moving:
    colour, kind = stage.palette.items[action.item], action.target
    at = (-8.0, 4.0) if kind == "bowl" else (-7.0, -2.0)
    start = 0.15 * stage.rng.random()

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        here = _there(progress)
        level = start + (0.95 - start) * progress
        angle = 62 * here
        jug = (19.0 + 18 * (1 - here), -38.0 - 10 * (1 - here))
        tip = turned((-18.0, -17.0), angle)
        spout = (jug[0] + tip[0], jug[1] + tip[1])
        surface = at[1] - 4 if kind == "bowl" else at[1] + 20 - 36 * level
        stream = [spout, (spout[0] - 1.5, spout[1] + 8), (at[0] + 0.6 * math.sin(11 * seconds), surface)]
        if kind == "bowl":
            stage.vessel(canvas, kind, at, colour, level)
        else:
            stage.put(canvas, "glass", colour, _stepped(level, 16), at=at)
        if here == 1.0:
            stage.line(canvas, stream, colour, 2.6)
        if kind == "bowl":
            stage.vessel_front(canvas, kind, at)
        stage.put(canvas, "jug", colour, stage.palette.handle, at=jug, angle=angle)
        grip = turned((16.0, 0.0), angle)
        stage.hand(canvas, (jug[0] + grip[0], jug[1] + grip[1]), angle=20)

    return moving


def cut(stage: Stage, action: Action, base: Image.Image) -> Moving:
    colour = stage.palette.items[action.item]
    stage.put(base, "board", stage.palette.wood, at=(0, 12))
    long = action.item != "tomato"
    left, full, tall = (-36.0, 58.0, 16.0) if long else (-20.0, 30.0, 26.0)
    rate, num_slices = stage.rng.uniform(1.6, 3.0), 11
    fall = stage.rng.uniform(-2.5, 2.5, size=(num_slices, 2))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        whole = full * (1 - 0.78 * _stepped(progress, 11))
        stage.put(canvas, action.item, colour, 0.0, at=(left + whole / 2, 5), size=(whole, tall))
        for i in range(int(progress * num_slices)):
            x = left + full * (1 - 0.78 * (i + 1) / num_slices) + 10 + 0.1 * i
            stage.put(canvas, "slice", action.item, colour, at=(x + fall[i, 0], 7 + fall[i, 1]), angle=4 * fall[i, 0])
        bob = abs(math.sin(math.pi * rate * seconds))
        x, y = left + whole + 12, 0 - 11 * bob
        stage.put(canvas, "knife", stage.palette.handle, at=(x + 8, y), angle=20)
        stage.hand(canvas, (x + 24, y - 8), angle=15)
        stage.hand(canvas, (left + 2, 3), angle=10, left=True)

    return moving


def peel(stage: Stage, action: Action, base: Image.Image) -> Moving:
    colour = stage.palette.items[action.item]
    rate = stage.rng.uniform(0.9, 1.6)
    curls = stage.rng.uniform((-34, 12), (34, 24), size=(9, 2))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        for i in range(int(progress * 9)):
            x, y = curls[i].tolist()
            stage.line(canvas, [(x - 6, y), (x - 2, y - 3), (x + 3, y - 1), (x + 7, y - 4)], darker(colour, 0.8), 2.2)
        stage.put(canvas, action.item, colour, _stepped(progress), at=(-4, -12), angle=30, size=(64, 16))
        stage.hand(canvas, (-27, 3), angle=25, left=True)
        along = (seconds * rate) % 1.0
        x, y = -16 + 38 * along, -10 - 22 * along
        stage.put(canvas, "peeler", stage.palette.handle, at=(x + 14, y - 2), angle=-15)
        stage.hand(canvas, (x + 22, y + 2), angle=-15)

    return moving


def put(stage: Stage, action: Action, base: Image.Image) -> Moving:
    colour, kind = stage.palette.items[action.item], action.target
    at, num_pieces = (-6.0, 8.0), int(stage.rng.integers(3, 5))
    leaning = stage.rng.uniform(35, 145, size=num_pieces).tolist()
    size = (46.0, 13.0) if action.item != "tomato" else (22.0, 20.0)

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        stage.vessel(canvas, kind, at, colour, 0.0)
        done = progress * num_pieces
        for i in range(int(done)):
            x = at[0] - 14 + 28 * (i + 0.5) / num_pieces
            stage.put(canvas, action.item, colour, 0.0, at=(x, at[1] - 15), angle=leaning[i], size=size)
        part = done % 1.0
        x, y = at[0] + 34 * (1 - part) ** 1.5, -30 - 22 * (1 - part) + (16 * max(0.0, part - 0.75) / 0.25)
        if progress < 1:
            stage.put(canvas, action.item, colour, 0.0, at=(x, y), angle=70, size=size)
        stage.vessel_front(canvas, kind, at)
        stage.hand(canvas, (x + 3, min(y, -32) - 8), angle=25)

    return moving


SOUPS: tuple[Colour, ...] = ((214, 150, 70), (232, 206, 150), (150, 92, 54), (206, 96, 60), (196, 190, 110))


def stir(stage: Stage, action: Action, base: Image.Image) -> Moving:
    kind, at = action.item, (0.0, 8.0)
    soup = SOUPS[int(stage.rng.integers(len(SOUPS)))]
    rate = stage.rng.uniform(0.7, 1.4)
    rim = -8.0 if kind == "bowl" else -11.0

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        stage.vessel(canvas, kind, at, soup, 0.9)
        turn = 2 * math.pi * rate * seconds
        for radius in (6.0, 12.0, 17.0):
            angles = np.linspace(turn - 2.2, turn - 0.3, 8)
            ring = [(radius * math.cos(a), at[1] + rim + 0.22 * radius * math.sin(a)) for a in angles]
            stage.line(canvas, ring, darker(soup, 0.72), 1.0)
        x, y = 13 * math.cos(turn), at[1] + rim + 3 * math.sin(turn)
        lean = -12 * math.cos(turn)
        stage.put(canvas, "spoon", stage.palette.wood, at=(x * 1.15, y - 20), angle=lean)
        stage.vessel_front(canvas, kind, at)
        stage.hand(canvas, (x * 1.3 + 2, y - 42), angle=20)

    return moving


def spread(stage: Stage, action: Action, base: Image.Image) -> Moving:
    colour, rate = stage.palette.items[action.item], stage.rng.uniform(1.2, 2.2)
    on_bread = action.target == "bread"
    stage.put(base, "plate", darker(stage.palette.vessel, 1.15), at=(-4, 14), size=None)
    stage.put(base, "can", colour, at=(-44, -14))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        covered = _stepped(progress, 14)
        if on_bread:
            stage.put(canvas, "bread", colour, covered, at=(-4, 6))
        else:
            stage.put(canvas, "dough", stage.palette.items["dough"], colour, covered, at=(-4, 8), size=(68, 26))
        x, y = -22 + 38 * progress, 5 + 8 * math.sin(2 * math.pi * rate * seconds)
        stage.put(canvas, "spreader", stage.palette.handle, at=(x + 18, y - 5), angle=25)
        stage.hand(canvas, (x + 30, y - 12), angle=20)

    return moving


def sprinkle(stage: Stage, action: Action, base: Image.Image) -> Moving:
    colour, kind, at = stage.palette.items[action.item], action.target, (-4.0, 8.0)
    soup = SOUPS[int(stage.rng.integers(len(SOUPS)))]
    rim, half = (-8.0, 22.0) if kind == "bowl" else (-10.0, 19.0)
    radius, turn = np.sqrt(stage.rng.random(90)), 2 * np.pi * stage.rng.random(90)
    grains = np.stack([half * radius * np.cos(turn) + at[0], 4 * radius * np.sin(turn) + at[1] + rim], axis=1)
    falling = stage.rng.random((24, 2))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        stage.vessel(canvas, kind, at, soup, 0.9)
        stage.dots(canvas, [(x, y) for x, y in grains[: int(90 * progress)].tolist()], colour, 1.1)
        shake = 3 * math.sin(19 * seconds)
        drops = (falling + np.array([0, 2.3 * seconds])) % 1.0
        cloud = [(at[0] + 4 + shake + 26 * (x - 0.5) * (0.3 + y), -28 + 26 * y) for x, y in drops.tolist()]
        stage.dots(canvas, cloud, colour, 0.8)
        stage.vessel_front(canvas, kind, at)
        stage.put(canvas, "shaker", colour, at=(at[0] + 4 + shake, -40), angle=-10)
        stage.hand(canvas, (at[0] + 10 + shake, -44), angle=10)

    return moving


def roll(stage: Stage, action: Action, base: Image.Image) -> Moving:
    rate = stage.rng.uniform(0.7, 1.3)
    stage.dots(base, stage.rng.uniform((-46, -8), (46, 26), size=(60, 2)).tolist(), (244, 240, 232), 0.8)

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        part = _stepped(progress, 12)
        size = (44.0 + 40 * part, 26.0 + 6 * part)
        stage.put(canvas, "dough", stage.palette.items["dough"], None, 0.0, at=(0, 8), size=size)
        y = 4 + 8 * math.sin(2 * math.pi * rate * seconds)
        stage.put(canvas, "rolling_pin", stage.palette.wood, at=(0, y))
        stage.hand(canvas, (30, y - 2), angle=15)
        stage.hand(canvas, (-30, y - 2), angle=15, left=True)

    return moving


def knead(stage: Stage, action: Action, base: Image.Image) -> Moving:
    rate = stage.rng.uniform(0.6, 1.1)
    stage.dots(base, stage.rng.uniform((-46, -8), (46, 26), size=(60, 2)).tolist(), (244, 240, 232), 0.8)

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        push = 0.5 + 0.5 * math.sin(2 * math.pi * rate * seconds)
        size = (48.0 + 3 * round(4 * push), 36.0 - 2 * round(5 * push))
        stage.put(canvas, "dough", stage.palette.items["dough"], None, 0.0, at=(0, 4 + 5 * push), size=size)
        stage.hand(canvas, (4 + 4 * push, -10 + 10 * push), angle=40)
        stage.hand(canvas, (-4 - 4 * push, -10 + 10 * push), angle=40, left=True)

    return moving


def fry(stage: Stage, action: Action, base: Image.Image) -> Moving:
    stage.put(base, "stove", darker(stage.palette.pot, 0.9), at=(-6, 24))
    dark = darker(stage.palette.pot, 0.36)
    rate = stage.rng.uniform(0.5, 1.0)

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        for i in range(8):
            tall = _stepped(0.65 + 0.35 * math.sin(9 * seconds + 2.1 * i), 4)
            stage.put(canvas, "flame", tall, at=(-29 + 6.6 * i, 17))
        stage.put(canvas, "pan", dark, at=(9, 4))
        x = -6 + 6 * math.sin(2 * math.pi * rate * seconds)
        if action.item == "egg":
            stage.put(canvas, "egg", _stepped(progress, 6), at=(x, 1))
        else:
            stage.put(canvas, "steak", stage.palette.items["steak"], _stepped(progress, 8), at=(x, 1))
        for i in range(4):
            up = (0.6 * seconds + 0.25 * i) % 1.0
            stage.put(canvas, "puff", at=(-24 + 12 * i + 3 * math.sin(4 * seconds + i), -10 - 34 * up))
        stage.put(canvas, "spatula", stage.palette.handle, at=(x + 30, -8), angle=25)
        stage.hand(canvas, (x + 46, -18), angle=20)

    return moving


def hammer(stage: Stage, action: Action, base: Image.Image) -> Moving:
    stage.put(base, "plank", stage.palette.wood, None, 0.0, at=(0, 14))
    rate, nail_x = stage.rng.uniform(1.0, 1.8), -12.0

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        out = 24 - 16 * _stepped(progress, 8)
        top = 10 - out
        stage.put(canvas, "nail", at=(nail_x, top + out / 2), size=(8, out))
        swing = -55 * abs(math.sin(math.pi * rate * seconds))
        arm = turned((-24.0, 1.0), swing)
        pivot = (nail_x + 44, top - 9)
        stage.put(canvas, "hammer", stage.palette.handle, at=(pivot[0] + arm[0], pivot[1] + arm[1]), angle=swing)
        stage.hand(canvas, (pivot[0] - 2, pivot[1]), angle=swing / 2)
        stage.hand(canvas, (nail_x - 16, 16), angle=10, left=True)

    return moving


def saw(stage: Stage, action: Action, base: Image.Image) -> Moving:
    stage.put(base, "plank", stage.palette.wood, None, 0.0, at=(0, 12))
    rate, dust = stage.rng.uniform(0.8, 1.5), stage.rng.normal((-2, 29), (9, 2), size=(80, 2))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        stage.line(canvas, [(4, -2), (4 - 6 * progress, -2 + 22 * progress)], (52, 34, 22), 1.6)
        stage.dots(canvas, [(x, y) for x, y in dust[: int(80 * progress)].tolist()], (226, 190, 132), 1.0)
        stroke = 9 * math.sin(2 * math.pi * rate * seconds)
        move = turned((stroke, 0.0), 30)
        x, y = 12 + move[0], -12 + 9 * progress + move[1]
        stage.put(canvas, "saw", stage.palette.handle, at=(x, y), angle=30)
        stage.hand(canvas, (x + 22, y - 14), angle=25)
        stage.hand(canvas, (-30, 6), angle=5, left=True)

    return moving


def paint(stage: Stage, action: Action, base: Image.Image) -> Moving:
    colour, rate = stage.palette.items[action.item], stage.rng.uniform(0.9, 1.7)
    stage.put(base, "can", colour, at=(-38, -28))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        stage.put(canvas, "plank", stage.palette.wood, colour, _stepped(progress, 16), at=(0, 8), size=(92, 44))
        x, y = -38 + 78 * progress, 4 + 12 * math.sin(2 * math.pi * rate * seconds)
        stage.put(canvas, "paintbrush", stage.palette.handle, colour, at=(x + 8, y - 20), angle=-25)
        stage.hand(canvas, (x + 16, y - 30), angle=15)

    return moving


MOTIONS: dict[str, Callable[[Stage, Action, Image.Image], Moving]] = {
    function.__name__: function
    for function in (pour, cut, peel, put, stir, spread, sprinkle, roll, knead, fry, hammer, saw, paint)
}


def draw_palette(rng: np.random.Generator, *, colour_variation: float) -> Palette:
    """Colours of one video. Items vary a little about the catalogue's, the rest is drawn from wide lists."""

    def one(*choices: Colour) -> Colour:
        return varied(choices[int(rng.integers(len(choices)))])

    def varied(colour: Colour) -> Colour:
        factor = 1 + 0.35 * colour_variation * rng.uniform(-1, 1) + 0.2 * colour_variation * rng.uniform(-1, 1, size=3)
        return tuple(int(np.clip(round(c * f), 0, 255)) for c, f in zip(colour, factor, strict=True))

    return Palette(
        skin=one((236, 190, 156), (202, 148, 110), (140, 92, 62), (98, 64, 46)),
        sleeve=one((60, 90, 150), (170, 60, 60), (70, 120, 80), (230, 226, 216), (60, 60, 66), (200, 150, 60)),
        handle=one((120, 70, 40), (40, 40, 46), (180, 40, 40), (40, 80, 140), (220, 190, 120)),
        vessel=one((236, 232, 222), (90, 130, 180), (196, 120, 90), (150, 180, 150), (120, 120, 130)),
        pot=one((168, 174, 182), (180, 70, 60), (80, 84, 92), (196, 140, 90)),
        wood=one((186, 134, 82), (214, 172, 116), (150, 98, 58)),
        wall=one((206, 214, 210), (226, 208, 176), (164, 188, 204), (190, 170, 170), (150, 160, 140)),
        items={name: varied(colour) for name, colour in COLOURS.items()},
    )
