"""What surrounds the demo's actions: the workbench under them, and the unrelated scenes between them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from tempclr.data.demo_drawing import Colour, darker
from tempclr.data.demo_scenes import Moving, Palette, Scene, Stage
from tempclr.data.demo_sprites import IDLE_THINGS, SPRITES

Size = tuple[int, int]

BRIGHT: tuple[Colour, ...] = (
    (200, 60, 50),
    (60, 110, 180),
    (240, 190, 60),
    (80, 150, 90),
    (150, 80, 150),
    (235, 235, 225),
    (70, 70, 80),
    (230, 130, 60),
)


def clouds(rng: np.random.Generator, size: Size, cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise in [-1, 1], float32 (height, width): ``cells`` lumps across and down."""
    coarse = Image.fromarray(rng.uniform(-1, 1, size=(cells[1] + 2, cells[0] + 2)).astype(np.float32))
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))


def _table(kind: str, size: Size, rng: np.random.Generator) -> np.ndarray:
    """A table top, float32 (height, width, 3)."""
    width, height = size
    x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
    fine = rng.normal(0, 4, size=(height, width)).astype(np.float32)
    if kind == "wood":
        veins = np.sin(y * 0.9 + 5 * clouds(rng, size, (3, 12))) * 10 + 16 * clouds(rng, size, (4, 40)) + fine
        veins -= 50 * (y % max(18, height // 5) < 2)
        colour = ((150, 98, 58), (190, 140, 90), (112, 72, 48))[int(rng.integers(3))]
    elif kind == "marble":
        veins = 22 * clouds(rng, size, (5, 5)) - 60 * (np.abs(clouds(rng, size, (6, 5))) < 0.05) + fine
        colour = ((224, 222, 218), (200, 206, 208))[int(rng.integers(2))]
    elif kind == "cloth":
        side = float(rng.uniform(0.06, 0.12)) * width
        veins = 34.0 * (((x // side) % 2) + ((y // (0.6 * side)) % 2)) - 34 + fine
        colour = ((170, 70, 70), (90, 120, 160), (110, 150, 110))[int(rng.integers(3))]
    elif kind == "steel":
        veins = 14 * clouds(rng, size, (2, 90)) + 18 * clouds(rng, size, (3, 2)) + fine
        colour = (158, 164, 170)
    else:
        veins = 10 * clouds(rng, size, (30, 20)) + 3 * fine
        colour = ((72, 76, 80), (96, 88, 84))[int(rng.integers(2))]
    return np.asarray(colour, dtype=np.float32) + veins[..., None]


def workbench(size: Size, horizon: int, table: str, palette: Palette, rng: np.random.Generator) -> Image.Image:
    """The empty place of work: a wall down to row ``horizon``, below it the table."""
    width, height = size
    horizon = min(max(horizon, 8), height - 8)
    wall = np.asarray(palette.wall, dtype=np.float32) + 14 * clouds(rng, (width, horizon), (4, 3))[..., None]
    if rng.random() < 0.5:
        side = int(rng.integers(width // 14, width // 7))
        rows, columns = np.arange(horizon)[:, None], np.arange(width)[None, :]
        wall -= 26.0 * ((rows % (side // 2 + 2) < 1) | (columns % side < 1))[..., None]
    top = _table(table, (width, height - horizon), rng)
    top *= np.linspace(0.8, 1.1, height - horizon, dtype=np.float32)[:, None, None]
    top[:2] *= 0.6
    pixels = np.concatenate([wall, top])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def lay_out_idle_things(stage: Stage, canvas: Image.Image, num_things: int, behind: float) -> None:
    """Objects that have no part in the action, standing at the back of the table, ``behind`` units from its middle."""
    for _ in range(num_things):
        name = IDLE_THINGS[int(stage.rng.integers(len(IDLE_THINGS)))]
        colour = BRIGHT[int(stage.rng.integers(len(BRIGHT)))]
        side = 1 if stage.rng.random() < 0.5 else -1
        standing = behind + float(stage.rng.uniform(2, 12))
        at = (side * float(stage.rng.uniform(18, 62)), standing - SPRITES[name][2] / 2)
        stage.put(canvas, name, colour, at=at)


def idle(stage: Stage, base: Image.Image) -> Moving:
    """The workbench with vessels and hands that do nothing of note."""
    kind = ("bowl", "pot")[int(stage.rng.integers(2))]
    stage.vessel(base, kind, (-18, 6), None, 0.0)
    stage.vessel_front(base, kind, (-18, 6))
    lay_out_idle_things(stage, base, 2, 14.0)
    rate = stage.rng.uniform(0.3, 0.8)

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        stage.hand(canvas, (26 + 8 * math.sin(2 * math.pi * rate * seconds), 8), angle=20)

    return moving


def landscape(size: Size, rng: np.random.Generator) -> Scene:
    width, height = size
    base = _gradient(size, (120, 170, 230), (220, 232, 240))
    draw = ImageDraw.Draw(base)
    sun = float(rng.uniform(0.15, 0.85)) * width
    draw.ellipse((sun - 14, 0.1 * height, sun + 14, 0.1 * height + 28), fill=(255, 240, 180))
    for level, colour in ((0.5, (110, 140, 150)), (0.62, (92, 140, 84)), (0.76, (70, 120, 60))):
        phase = float(rng.uniform(0, 6))
        x = np.arange(0, width + 8, 8)
        y = height * (level + 0.07 * np.sin(x / width * 7 + phase))
        draw.polygon([(0, height), *zip(x.tolist(), y.tolist(), strict=True), (width, height)], fill=colour)
    for _ in range(7):
        x0, y0, r = float(rng.uniform(0, width)), float(rng.uniform(0.72, 0.9)) * height, 0.07 * height
        draw.rectangle((x0 - 2, y0, x0 + 2, y0 + r), fill=(84, 60, 40))
        draw.ellipse((x0 - r, y0 - 2 * r, x0 + r, y0 + 3), fill=(44, 96, 44), outline=(30, 66, 32))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        pen = ImageDraw.Draw(canvas)
        for i in range(3):
            x0 = (0.37 * i * width + 14 * seconds) % (1.3 * width) - 0.15 * width
            y0 = (0.12 + 0.1 * i) * height
            for shift in (0, 14, 28):
                pen.ellipse((x0 + shift, y0 - shift % 3, x0 + shift + 24, y0 + 13), fill=(248, 250, 252))

    return Scene(base, moving)


def street(size: Size, rng: np.random.Generator) -> Scene:
    width, height = size
    base = _gradient(size, (170, 190, 210), (210, 214, 220))
    draw = ImageDraw.Draw(base)
    road = int(0.72 * height)
    x = 0
    while x < width:
        wide, tall = int(rng.integers(width // 6, width // 3)), int(rng.uniform(0.3, 0.62) * height)
        colour = darker(BRIGHT[int(rng.integers(len(BRIGHT)))], 0.8)
        draw.rectangle((x, road - tall, x + wide, road), fill=colour, outline=(60, 60, 64))
        for wx in range(x + 6, x + wide - 8, 16):
            for wy in range(road - tall + 8, road - 12, 20):
                draw.rectangle((wx, wy, wx + 8, wy + 11), fill=(226, 228, 190), outline=(70, 70, 74))
        x += wide
    draw.rectangle((0, road, width, height), fill=(84, 84, 88))
    for x in range(0, width, 30):
        draw.rectangle((x, 0.86 * height, x + 16, 0.86 * height + 3), fill=(230, 230, 226))
    colour = BRIGHT[int(rng.integers(len(BRIGHT)))]
    speed = float(rng.uniform(40, 90)) * (1 if rng.random() < 0.5 else -1)

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        pen, length = ImageDraw.Draw(canvas), 0.36 * height
        x0 = (0.3 * width + speed * seconds) % (width + length) - length
        y0 = 0.74 * height
        pen.polygon(
            [
                (x0 + 0.2 * length, y0),
                (x0 + 0.35 * length, y0 - 16),
                (x0 + 0.7 * length, y0 - 16),
                (x0 + 0.85 * length, y0),
            ],
            fill=(190, 214, 230),
            outline=(40, 40, 44),
        )
        pen.rounded_rectangle((x0, y0, x0 + length, y0 + 20), 6, fill=colour, outline=(40, 40, 44))
        for share in (0.22, 0.76):
            cx = x0 + share * length
            pen.ellipse((cx - 8, y0 + 12, cx + 8, y0 + 28), fill=(30, 30, 34), outline=(160, 160, 164), width=2)

    return Scene(base, moving)


def speaker(size: Size, rng: np.random.Generator) -> Scene:
    width, height = size
    back = BRIGHT[int(rng.integers(len(BRIGHT)))]
    base = _gradient(size, darker(back, 1.1), darker(back, 0.6))
    skin = ((236, 190, 156), (202, 148, 110), (140, 92, 62))[int(rng.integers(3))]
    shirt, hair = (
        BRIGHT[int(rng.integers(len(BRIGHT)))],
        ((50, 34, 26), (150, 100, 50), (190, 190, 190))[int(rng.integers(3))],
    )
    rate = float(rng.uniform(2.0, 4.0))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        pen = ImageDraw.Draw(canvas)
        x, r = width / 2 + 5 * math.sin(1.7 * seconds), 0.2 * height
        y = 0.4 * height + 2 * math.sin(2.3 * seconds)
        pen.rounded_rectangle(
            (x - 2.1 * r, 0.66 * height, x + 2.1 * r, 1.3 * height), r, fill=shirt, outline=darker(shirt)
        )
        pen.rectangle((x - 0.4 * r, y + 0.7 * r, x + 0.4 * r, y + 1.5 * r), fill=darker(skin, 0.85))
        pen.ellipse((x - 0.98 * r, y - 1.35 * r, x + 0.98 * r, y + 0.6 * r), fill=hair)
        pen.ellipse((x - 0.85 * r, y - r, x + 0.85 * r, y + 1.15 * r), fill=skin, outline=darker(skin))
        for side in (-0.36, 0.36):
            pen.ellipse((x + side * r - 4, y - 3, x + side * r + 4, y + 4), fill=(250, 250, 250), outline=(60, 40, 30))
            pen.ellipse((x + side * r - 2, y - 1, x + side * r + 2, y + 3), fill=(40, 30, 30))
        mouth = 1 + 5 * abs(math.sin(math.pi * rate * seconds))
        pen.ellipse((x - 0.3 * r, y + 0.62 * r, x + 0.3 * r, y + 0.62 * r + mouth), fill=(140, 40, 44))

    return Scene(base, moving)


def shelf(size: Size, rng: np.random.Generator) -> Scene:
    width, height = size
    wide = width + 60
    long = _gradient((wide, height), (190, 176, 150), (150, 130, 104))
    draw = ImageDraw.Draw(long)
    for low in (0.36, 0.68, 0.98):
        x = 6
        while x < wide - 10:
            thick, tall = int(rng.integers(7, 18)), float(rng.uniform(0.16, 0.26)) * height
            colour = darker(BRIGHT[int(rng.integers(len(BRIGHT)))], float(rng.uniform(0.6, 1.0)))
            draw.rectangle((x, low * height - tall, x + thick, low * height), fill=colour, outline=(50, 44, 40))
            draw.line(
                (x + 3, low * height - 0.8 * tall, x + thick - 3, low * height - 0.8 * tall), fill=(230, 220, 190)
            )
            x += thick + (int(rng.integers(8, 24)) if rng.random() < 0.2 else 1)
        draw.rectangle((0, low * height, wide, low * height + 6), fill=(104, 70, 44))

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        canvas.paste(long, (-int(min(59.0, 14 * seconds)), 0))

    return Scene(long.crop((0, 0, width, height)), moving)


def sea(size: Size, rng: np.random.Generator) -> Scene:
    width, height = size
    base = _gradient(size, (240, 200, 150), (250, 230, 210))
    hull = BRIGHT[int(rng.integers(len(BRIGHT)))]

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        pen = ImageDraw.Draw(canvas)
        x0, y0 = 0.3 * width + 12 * seconds, 0.5 * height + 3 * math.sin(2 * seconds)
        pen.polygon(
            [(x0 + 24, y0 - 50), (x0 + 24, y0 - 6), (x0 + 54, y0 - 6)], fill=(246, 246, 240), outline=(90, 90, 90)
        )
        pen.polygon([(x0, y0), (x0 + 64, y0), (x0 + 52, y0 + 18), (x0 + 10, y0 + 18)], fill=hull, outline=(50, 40, 40))
        x = np.arange(0, width + 6, 6)
        for row in range(5):
            y = height * (0.55 + 0.1 * row) + 4 * np.sin(x / 14 + 2 * seconds + 1.7 * row)
            colour = (40 + 10 * row, 110 - 8 * row, 160 - 14 * row)
            pen.polygon([(0, height), *zip(x.tolist(), y.tolist(), strict=True), (width, height)], fill=colour)

    return Scene(base, moving)


def card(size: Size, rng: np.random.Generator) -> Scene:
    width, height = size
    first, second = (BRIGHT[int(i)] for i in rng.choice(len(BRIGHT), size=2, replace=False))
    base = _gradient(size, first, darker(first, 0.6))
    rows = rng.uniform(0.3, 0.9, size=4).tolist()

    def moving(canvas: Image.Image, progress: float, seconds: float) -> None:
        pen = ImageDraw.Draw(canvas)
        x, y, r = width / 2, 0.3 * height, 0.16 * height
        pen.regular_polygon((x, y, r), 5, rotation=40 * seconds, fill=second, outline=(250, 250, 250))
        for i, share in enumerate(rows):
            y0 = (0.56 + 0.1 * i) * height
            shown = min(1.0, 1.5 * seconds) * share * width
            pen.rectangle((x - shown / 2, y0, x + shown / 2, y0 + 0.05 * height), fill=(250, 250, 246))

    return Scene(base, moving)


def _gradient(size: Size, top: Colour, bottom: Colour) -> Image.Image:
    share = np.linspace(0, 1, size[1], dtype=np.float32)[:, None, None]
    column = np.asarray(top, dtype=np.float32) * (1 - share) + np.asarray(bottom, dtype=np.float32) * share
    return Image.fromarray(np.broadcast_to(np.clip(column, 0, 255), (size[1], size[0], 3)).astype(np.uint8), "RGB")


UNRELATED: dict[str, Callable[[Size, np.random.Generator], Scene]] = {
    function.__name__: function for function in (landscape, street, speaker, shelf, sea, card)
}
