"""The objects of the demo's videos, drawn as small shaded pictures with transparency.

All sizes are in units of a hundredth of the picture's shorter side, before zoom. A sprite is a function of its ``Pen``
and a few parameters; :data:`SPRITES` lists them with their width and height.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from tempclr.data.demo_drawing import DARK, Colour, Pen, Point, arc_points, darker

STEEL: Colour = (176, 182, 190)
WOOD: Colour = (186, 134, 82)

COLOURS: dict[str, Colour] = {
    "red liquid": (196, 34, 30),
    "yellow liquid": (246, 196, 40),
    "milk": (248, 246, 240),
    "cucumber": (62, 130, 48),
    "carrot": (240, 122, 28),
    "tomato": (214, 40, 30),
    "butter": (250, 222, 110),
    "jam": (168, 20, 52),
    "salt": (250, 250, 250),
    "cocoa": (92, 54, 30),
    "dough": (238, 216, 172),
    "steak": (176, 62, 60),
    "blue paint": (38, 84, 196),
    "red paint": (204, 36, 34),
}


# Of a vessel the back is drawn first, then what stands in it, then the front.


def bowl_back(pen: Pen, colour: Colour, content: Colour | None, level: float) -> None:
    rim = (1.0, 2.0, 55.0, 16.0)
    pen.oval(rim, darker(colour, 0.62), wide=1.0)
    if content is not None:
        inset = 12 * (1 - level)
        pen.oval(
            (3 + inset, 5.0 + 0.3 * inset, 53 - inset, 15.6 - 0.05 * inset), content, line=darker(content), wide=0.7
        )


def bowl_front(pen: Pen, colour: Colour) -> None:
    side = arc_points((1.0, -12.0, 55.0, 34.0), 10, 170)
    rim = arc_points((1.0, 2.0, 55.0, 16.0), 180, 0)
    pen.polygon([*side, *rim], colour, wide=0.9)
    pen.stroke(arc_points((4.0, -6.0, 52.0, 26.0), 30, 150), darker(colour, 0.72), 2.0)
    pen.stroke(arc_points((1.6, 3.0, 54.4, 16.8), 175, 5), darker(colour, 1.3), 1.0)


def pot_back(pen: Pen, colour: Colour, content: Colour | None, level: float) -> None:
    pen.oval((8.0, 2.0, 56.0, 14.0), darker(colour, 0.5), wide=1.0)
    if content is not None:
        inset = 2 + 5 * (1 - level)
        pen.oval((8 + inset, 4.0 + 0.3 * inset, 56 - inset, 14 - 0.1 * inset), content, line=darker(content), wide=0.7)


def pot_front(pen: Pen, colour: Colour) -> None:
    for left in (1.0, 54.0):
        pen.block((left, 14, left + 9, 18.5), DARK, radius=2)
    base = arc_points((8.0, 26.0, 56.0, 38.0), 0, 180)
    rim = arc_points((8.0, 2.0, 56.0, 14.0), 180, 0)
    pen.polygon([*base, *rim], colour, wide=0.9)
    pen.block((13, 17, 17, 34), darker(colour, 1.3), radius=1.5, line=None)
    pen.stroke(arc_points((8.0, 22.0, 56.0, 34.0), 5, 175), darker(colour, 0.75), 1.2)


def glass(pen: Pen, content: Colour | None, level: float) -> None:
    pen.polygon([(2, 3), (28, 3), (24, 45), (6, 45)], (205, 226, 236, 110), line=(90, 104, 116), wide=1.0)
    if content is not None and level > 0:
        top = 43 - 36 * level
        inset = 4 * (top - 3) / 42
        pen.polygon([(2.6 + inset, top), (27.4 - inset, top), (23.4, 43.6), (6.6, 43.6)], (*content, 235), line=None)
        pen.oval((2.6 + inset, top - 1.8, 27.4 - inset, top + 1.8), darker(content, 1.15), line=darker(content))
    pen.oval((2, 1, 28, 5.5), None, line=(110, 124, 134), wide=0.8)
    pen.stroke([(6.5, 8), (9, 40)], (255, 255, 255, 190), 1.5)


def jug(pen: Pen, content: Colour, colour: Colour) -> None:
    pen.oval((24, 9, 36, 30), None, line=darker(colour, 0.6), wide=2.6)
    pen.polygon([(0, 3), (28, 5), (30, 38), (7, 38), (5, 12)], (214, 230, 238, 215), wide=0.9)
    pen.polygon([(3.4, 9), (28.4, 14), (29, 37), (8, 37), (6, 14)], content, line=darker(content))
    pen.stroke([(11, 9), (12, 34)], (255, 255, 255, 200), 1.4)


def pan(pen: Pen, colour: Colour) -> None:
    pen.block((56, 8, 92, 13), darker(colour, 0.55), radius=2)
    pen.oval((1, 4, 62, 28), darker(colour, 0.8), wide=1.0)
    pen.oval((1, 1, 62, 24), colour, wide=1.0)
    pen.oval((5, 4, 58, 21), darker(colour, 0.72), line=darker(colour, 0.5))


def cucumber(pen: Pen, colour: Colour, peeled: float) -> None:
    end = pen.width - 1
    pen.block((1, 2, end, 14), colour, radius=6, wide=0.8)
    for y in (4.5, 7.5, 10.5):
        pen.stroke([(4, y), (end - 3, y)], darker(colour, 1.3), 0.8)
    pen.dots([(x, 4 + 7 * (x * 0.37 % 1)) for x in range(5, int(end) - 2, 4)], darker(colour, 0.7), 0.6)
    if peeled > 0:
        edge = 3 + (end - 6) * peeled
        pen.block((2, 3, max(6.0, edge), 13), (206, 226, 150), radius=5, line=(150, 180, 96))


def carrot(pen: Pen, colour: Colour, peeled: float) -> None:
    end = pen.width - 1
    for tip in ((end - 1, 1), (end, 6), (end - 1, 14)):
        pen.stroke([(end - 9, 8), tip], (52, 138, 50), 2.0)
    pen.polygon([(1, 8), (7, 4.6), (end - 9, 2), (end - 8, 14), (7, 10.6)], colour, line=darker(colour, 0.6), wide=0.8)
    for x in range(8, int(end) - 10, 6):
        pen.stroke([(x, 4.4), (x + 1, 7.5)], darker(colour, 0.72), 0.7)
    if peeled > 0:
        edge = 4 + (end - 14) * peeled
        pen.polygon(
            [(3, 8), (8, 5.6), (max(9.0, edge), 4), (max(9.0, edge), 12), (8, 10.2)], (255, 188, 110), line=None
        )


def tomato(pen: Pen, colour: Colour, peeled: float) -> None:
    pen.oval((1, 2, pen.width - 1, pen.height - 1), colour, line=darker(colour, 0.6), wide=0.9)
    middle = pen.width / 2
    pen.polygon(
        [(middle - 7, 4), (middle - 1, 5), (middle, 0.5), (middle + 1, 5), (middle + 7, 4), (middle, 8)], (58, 128, 44)
    )
    pen.oval((5, 7, 9, 12), (255, 190, 180), line=None)


def slice_(pen: Pen, item: str, colour: Colour) -> None:
    pen.oval((0.5, 0.5, 11.5, 13.5), colour, line=darker(colour, 0.6), wide=0.8)
    inner = {"cucumber": (208, 230, 160), "carrot": (255, 164, 74), "tomato": (238, 92, 72)}[item]
    pen.oval((2, 2, 10, 12), inner, line=None)
    core = {"cucumber": (236, 240, 196), "carrot": (250, 196, 96), "tomato": (248, 190, 110)}[item]
    pen.dots([(4.5, 5), (7.5, 5), (6, 8.5), (4, 9), (8, 9)], core, 0.8)


def bread(pen: Pen, spread: Colour | None, covered: float) -> None:
    outline = [(4, 30), (2, 16), (4, 8), (14, 3), (28, 2), (42, 3), (52, 8), (54, 16), (52, 30), (28, 33)]
    pen.polygon(outline, (172, 106, 48), wide=0.9)
    crumb = [(7, 28), (5.5, 16), (8, 10), (15, 6), (28, 5), (41, 6), (48, 10), (50.5, 16), (49, 28), (28, 30)]
    pen.polygon(crumb, (244, 222, 178), line=None)
    pen.dots([(9 + 37 * (i * 0.618 % 1), 9 + 18 * (i * 0.387 % 1)) for i in range(26)], (222, 192, 140), 0.7)
    if spread is not None and covered > 0:
        right = 10 + 37 * covered
        wave = [(right + 2 * math.sin(y), float(y)) for y in range(9, 28, 3)]
        pen.polygon([(9, 27), (8, 16), (11, 9), *wave], spread, line=darker(spread, 0.8), wide=0.7)
        pen.stroke([(12, 13), (max(13.0, right - 3), 12)], darker(spread, 1.25), 1.2)


def dough(pen: Pen, colour: Colour, spread: Colour | None, covered: float) -> None:
    pen.oval((1, 1, pen.width - 1, pen.height - 1), colour, line=darker(colour, 0.72), wide=0.9)
    pen.oval((0.2 * pen.width, 0.16 * pen.height, 0.6 * pen.width, 0.42 * pen.height), darker(colour, 1.08), line=None)
    if spread is not None and covered > 0:
        right = (0.15 + 0.7 * covered) * pen.width
        pen.oval((0.12 * pen.width, 0.18 * pen.height, right, 0.82 * pen.height), spread, line=darker(spread, 0.8))


def egg(pen: Pen, done: float) -> None:
    white = (250, 250, 246, round(90 + 165 * done))
    pen.polygon(arc_points((1, 1, 33, 15), 0, 350), white, line=(206, 190, 160), wide=0.6)
    pen.oval((4, 6, 14, 14), white, line=None)
    pen.oval((12, 3.5, 23, 11), (250, 176, 28), line=(214, 134, 20))
    pen.oval((14, 4.5, 17.5, 6.5), (255, 226, 150), line=None)


def steak(pen: Pen, colour: Colour, done: float) -> None:
    brown = (104, 58, 30)
    mixed = tuple(round(a + (b - a) * done) for a, b in zip(colour[:3], brown, strict=True))
    pen.polygon([(2, 9), (5, 3), (16, 1), (28, 2), (36, 6), (34, 12), (22, 15), (8, 14)], mixed, wide=0.8)
    pen.stroke([(6, 11), (14, 13), (24, 13), (33, 10)], (240, 214, 190), 1.4)
    for x in (10, 16, 22, 28):
        pen.stroke([(x, 4), (x + 3, 11)], darker(mixed, 0.55), 0.5 + done)


def knife(pen: Pen, colour: Colour) -> None:
    pen.polygon([(0, 8), (2, 2), (30, 1), (30, 10), (8, 11)], STEEL)
    pen.stroke([(3, 8.6), (29, 8.6)], (232, 236, 240), 0.9)
    pen.block((29, 1.5, 48, 6.5), colour, radius=2)


def spreader(pen: Pen, colour: Colour) -> None:
    pen.block((0, 2, 24, 8), STEEL, radius=3)
    pen.block((23, 3, 46, 7), colour, radius=1.8)


def peeler(pen: Pen, colour: Colour) -> None:
    pen.polygon([(0, 3), (14, 0.5), (14, 3), (2, 6)], STEEL)
    pen.stroke([(13, 3), (20, 8)], STEEL, 1.6)
    pen.block((18, 6, 36, 11), colour, radius=2.4)


def spoon(pen: Pen, colour: Colour) -> None:
    pen.block((3.8, 0, 7.2, 46), colour, radius=1.5)
    pen.oval((0.5, 40, 10.5, 54), darker(colour, 0.9))


def spatula(pen: Pen, colour: Colour) -> None:
    pen.block((16, 3, 50, 6), darker(colour, 0.8), radius=1.2)
    pen.polygon([(0, 1), (17, 2.5), (17, 6.5), (0, 8)], STEEL)


def shaker(pen: Pen, content: Colour) -> None:
    pen.block((1, 1, 17, 20), (220, 232, 238, 225), radius=2)
    pen.block((2.4, 7, 15.6, 19), content, radius=1.5, line=darker(content))
    pen.block((0.5, 20, 17.5, 26), STEEL, radius=2)
    pen.dots([(5, 23), (9, 23), (13, 23)], DARK, 0.7)


def rolling_pin(pen: Pen, colour: Colour) -> None:
    pen.block((0, 4.5, 12, 8.5), darker(colour, 0.75), radius=2)
    pen.block((64, 4.5, 76, 8.5), darker(colour, 0.75), radius=2)
    pen.block((10, 1, 66, 12), colour, radius=2.5, wide=0.8)
    pen.stroke([(13, 3.4), (63, 3.4)], darker(colour, 1.2), 1.2)


def hammer(pen: Pen, colour: Colour) -> None:
    pen.block((12, 5, 52, 9.5), colour, radius=1.6)
    pen.polygon([(2, 0.5), (11, 0.5), (12, 4), (12, 12), (10, 18), (3, 18), (2, 12)], (110, 114, 122), wide=0.8)


def nail(pen: Pen) -> None:
    pen.polygon([(2.6, 2), (5.4, 2), (4.6, pen.height), (3.4, pen.height)], STEEL)
    pen.block((0.5, 0.5, 7.5, 2.8), darker(STEEL, 0.8), radius=1)


def saw(pen: Pen, colour: Colour) -> None:
    teeth = [(float(x), 15.0 + (x % 4 == 0)) for x in range(0, 56, 2)]
    pen.polygon([(56, 3), (0, 9), *teeth, (56, 16)], STEEL)
    pen.block((54, 1, 74, 18), colour, radius=4)
    pen.block((59, 6, 69, 13), DARK, radius=3)


def plank(pen: Pen, colour: Colour, paint: Colour | None, covered: float) -> None:
    end = pen.width - 1
    pen.polygon([(5, 1), (end, 1), (end - 4, pen.height - 7), (1, pen.height - 7)], colour, wide=0.8)
    low = pen.height - 7
    pen.polygon([(1, low), (end - 4, low), (end - 4, low + 6), (1, low + 6)], darker(colour, 0.75))
    for i, y in enumerate(np.linspace(3, low - 2, 5).tolist()):
        pen.stroke([(6, y), (end / 2, y + 1.2 * (-1) ** i), (end - 6, y)], darker(colour, 0.8), 0.6)
    if paint is not None and covered > 0:
        right = 9 + (end - 14) * covered
        edge = [(right + 1.5 * math.sin(2 * y), y) for y in np.linspace(2, low - 1, 6).tolist()]
        pen.polygon([(3, low - 1), (6.5, 2), *edge], paint, line=darker(paint, 0.85))
        pen.stroke([(9, 0.35 * low), (max(10.0, right - 5), 0.35 * low)], darker(paint, 1.3), 1.0)


def paintbrush(pen: Pen, colour: Colour, content: Colour) -> None:
    pen.block((4, 0, 8, 26), colour, radius=1.6)
    pen.block((1, 25, 11, 31), STEEL, radius=0.6)
    pen.polygon([(1, 31), (11, 31), (9.5, 42), (2.5, 42)], content)


def board(pen: Pen, colour: Colour) -> None:
    pen.polygon([(9, 1), (85, 1), (93, 24), (1, 24)], colour, wide=0.8)
    pen.polygon([(1, 24), (93, 24), (93, 28), (1, 28)], darker(colour, 0.7))
    for y in (6, 12, 18):
        pen.stroke([(10 - y / 3, y), (45, y + 0.8), (84 + y / 3, y)], darker(colour, 0.86), 0.6)


def hand(pen: Pen, skin: Colour, sleeve: Colour) -> None:
    pen.polygon([(12, 14), (20, 6), (44, 14), (44, 30), (22, 26)], sleeve, wide=0.9)
    pen.polygon([(11, 15), (19, 7), (24, 10), (24, 24), (14, 22)], darker(sleeve, 1.15), wide=0.6)
    pen.oval((1, 6, 19, 23), skin, line=darker(skin, 0.6), wide=0.8)
    for y in (8.5, 12, 15.5, 19):
        pen.block((0, y - 1.8, 9, y + 1.9), skin, radius=1.8, line=darker(skin, 0.62))


def plate(pen: Pen, colour: Colour) -> None:
    pen.oval((1, 1, 75, 25), colour, wide=0.8)
    pen.oval((10, 5, 66, 20), darker(colour, 0.92), line=darker(colour, 0.8))


def stove(pen: Pen, colour: Colour) -> None:
    pen.block((1, 4, 73, 14), colour, radius=2, wide=0.8)
    pen.block((8, 1, 66, 5), DARK, radius=1)
    pen.dots([(14, 10), (60, 10)], STEEL, 2.2)


def can(pen: Pen, content: Colour) -> None:
    pen.block((1, 3, 23, 27), STEEL, radius=2, wide=0.8)
    pen.block((1.6, 9, 22.4, 21), content, radius=0.5, line=None)
    pen.oval((1, 0.5, 23, 7), content, line=darker(content), wide=0.9)


def puff(pen: Pen) -> None:
    pen.oval((0, 0, pen.width, pen.height), (236, 238, 242, 90), line=None)


def flame(pen: Pen, tall: float) -> None:
    top = 12 - 10 * tall
    pen.polygon([(0.5, 12), (3, top), (5.5, 12)], (66, 120, 238, 235), line=None)
    pen.polygon([(1.8, 12), (3, top + 4), (4.2, 12)], (252, 176, 64), line=None)


def mug(pen: Pen, colour: Colour) -> None:
    pen.oval((12, 5, 21, 15), None, line=darker(colour, 0.8), wide=1.6)
    pen.block((1, 1, 15, 19), colour, radius=2)
    pen.oval((1.5, 0.5, 14.5, 4.5), darker(colour, 0.55))


def bottle(pen: Pen, colour: Colour) -> None:
    pen.block((5, 0, 9, 10), darker(colour, 0.8), radius=1)
    pen.block((1, 8, 13, 34), colour, radius=3)
    pen.block((2, 16, 12, 26), (240, 236, 220), radius=0.5)


def fruit(pen: Pen, colour: Colour) -> None:
    pen.oval((1, 3, 15, 16), colour, line=darker(colour, 0.6))
    pen.stroke([(8, 4), (9, 0)], (90, 60, 30), 1.0)
    pen.oval((4, 5, 7, 9), darker(colour, 1.4), line=None)


def plant(pen: Pen, colour: Colour) -> None:
    for x, y in ((3, 4), (9, 0), (16, 3), (1, 12), (18, 11)):
        pen.polygon([(10, 20), (x, y), (x + 4, y + 4)], (46, 120, 52), line=(26, 80, 34))
    pen.polygon([(4, 19), (16, 19), (14, 30), (6, 30)], colour)


def book(pen: Pen, colour: Colour) -> None:
    pen.block((1, 1, 29, 8), colour, radius=0.8)
    pen.block((3, 8, 27, 14), darker(colour, 0.6), radius=0.8)
    pen.stroke([(5, 4.5), (25, 4.5)], darker(colour, 1.4), 1.0)


SPRITES: dict[str, tuple[Callable[..., None], float, float]] = {
    "bowl_back": (bowl_back, 56, 36),
    "bowl_front": (bowl_front, 56, 36),
    "pot_back": (pot_back, 64, 40),
    "pot_front": (pot_front, 64, 40),
    "glass": (glass, 30, 46),
    "jug": (jug, 37, 40),
    "pan": (pan, 93, 29),
    "cucumber": (cucumber, 58, 16),
    "carrot": (carrot, 58, 16),
    "tomato": (tomato, 24, 22),
    "slice": (slice_, 12, 14),
    "bread": (bread, 56, 35),
    "dough": (dough, 50, 24),
    "egg": (egg, 35, 17),
    "steak": (steak, 38, 17),
    "knife": (knife, 49, 12),
    "spreader": (spreader, 47, 10),
    "peeler": (peeler, 37, 12),
    "spoon": (spoon, 11, 55),
    "spatula": (spatula, 51, 9),
    "shaker": (shaker, 18, 27),
    "rolling_pin": (rolling_pin, 76, 13),
    "hammer": (hammer, 53, 19),
    "nail": (nail, 8, 24),
    "saw": (saw, 75, 19),
    "plank": (plank, 92, 30),
    "paintbrush": (paintbrush, 12, 43),
    "board": (board, 94, 29),
    "hand": (hand, 45, 32),
    "plate": (plate, 76, 26),
    "stove": (stove, 74, 15),
    "can": (can, 24, 28),
    "puff": (puff, 14, 10),
    "flame": (flame, 6, 13),
    "mug": (mug, 22, 20),
    "bottle": (bottle, 14, 35),
    "fruit": (fruit, 16, 17),
    "plant": (plant, 21, 31),
    "book": (book, 30, 15),
}
IDLE_THINGS = ("mug", "bottle", "fruit", "plant", "book")


def draw_sprite(name: str, *parameters: object, scale: float, size: Point | None = None) -> Image.Image:
    """Draw one object: RGBA, ``scale`` pixels a unit. ``size`` replaces the listed (width, height) in units.

    >>> draw_sprite("mug", (200, 60, 40), scale=2.0).size
    (44, 40)
    """
    function, width, height = SPRITES[name]
    pen = Pen(*(size or (width, height)), scale)
    function(pen, *parameters)
    return pen.done()
