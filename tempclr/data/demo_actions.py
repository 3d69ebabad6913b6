"""What happens in the demo's videos and how it is said: the shared set of actions and their wording.

An action is a motion done to an item, often with a second object: "pour the red liquid into the bowl". The catalogue
runs in families of look-alikes: actions of one family share their objects and differ in the motion, or share the motion
and differ in a colour or in the second object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Action:
    """One action: ``motion`` names how it is drawn; ``item`` and ``target`` name what it is done to."""

    motion: str
    item: str
    target: str = ""

    @property
    def name(self) -> str:
        """For example ``"pour-red-liquid-bowl"``."""
        return "-".join(part.replace(" ", "-") for part in (self.motion, self.item, self.target) if part)


CATALOGUE: tuple[Action, ...] = (
    Action("pour", "red liquid", "bowl"),
    Action("pour", "yellow liquid", "bowl"),
    Action("pour", "red liquid", "glass"),
    Action("pour", "yellow liquid", "glass"),
    Action("cut", "cucumber"),
    Action("cut", "carrot"),
    Action("peel", "cucumber"),
    Action("peel", "carrot"),
    Action("put", "cucumber", "pot"),
    Action("put", "carrot", "pot"),
    Action("stir", "bowl"),
    Action("stir", "pot"),
    Action("spread", "butter", "bread"),
    Action("spread", "jam", "bread"),
    Action("sprinkle", "salt", "bowl"),
    Action("sprinkle", "cocoa", "bowl"),
    Action("roll", "dough"),
    Action("knead", "dough"),
    Action("fry", "egg", "pan"),
    Action("fry", "steak", "pan"),
    Action("hammer", "nail", "plank"),
    Action("saw", "plank"),
    Action("paint", "blue paint", "plank"),
    Action("paint", "red paint", "plank"),
    Action("pour", "milk", "bowl"),
    Action("cut", "tomato"),
    Action("put", "tomato", "pot"),
    Action("sprinkle", "salt", "pot"),
    Action("put", "cucumber", "bowl"),
    Action("spread", "jam", "dough"),
    Action("pour", "milk", "glass"),
    Action("put", "carrot", "bowl"),
)

VERBS: dict[str, tuple[str, ...]] = {
    "pour": ("pour", "tip", "empty", "add"),
    "cut": ("cut", "slice", "chop", "cut up"),
    "peel": ("peel", "skin", "take the peel off", "clean"),
    "put": ("put", "drop", "place", "add"),
    "stir": ("stir", "mix", "blend", "move the spoon around in"),
    "spread": ("spread", "smear", "put", "brush"),
    "sprinkle": ("sprinkle", "shake", "scatter", "add"),
    "roll": ("roll out", "flatten", "roll", "work"),
    "knead": ("knead", "press", "work", "squeeze"),
    "fry": ("fry", "cook", "brown", "heat"),
    "hammer": ("hammer", "drive", "knock", "hit"),
    "saw": ("saw", "cut through", "saw off", "cut"),
    "paint": ("brush", "spread", "put", "apply"),
}

# The first phrases are exact; those after the bar leave out what tells the item from its look-alikes.
ITEMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "red liquid": (("the red liquid", "the red juice", "the tomato juice"), ("the liquid", "the juice")),
    "yellow liquid": (("the yellow liquid", "the yellow juice", "the orange juice"), ("the liquid", "the juice")),
    "milk": (("the milk", "the white liquid", "some milk"), ("the liquid", "everything in the jug")),
    "cucumber": (("the cucumber", "the green vegetable", "the long green one"), ("the vegetable", "it")),
    "carrot": (("the carrot", "the orange vegetable", "the carrots"), ("the vegetable", "it")),
    "tomato": (("the tomato", "the red vegetable", "the round tomato"), ("the vegetable", "it")),
    "bowl": (("the bowl", "what is in the bowl", "the mixing bowl"), ("everything", "it")),
    "pot": (("the pot", "what is in the pot", "the saucepan"), ("everything", "it")),
    "butter": (("the butter", "some soft butter", "the yellow butter"), ("a thick layer", "it")),
    "jam": (("the jam", "the red jam", "some strawberry jam"), ("a thick layer", "it")),
    "salt": (("the salt", "a pinch of salt", "the white powder"), ("the powder", "a little")),
    "cocoa": (("the cocoa", "the brown powder", "some chocolate powder"), ("the powder", "a little")),
    "dough": (("the dough", "the piece of dough", "the soft dough"), ("it", "the piece")),
    "egg": (("the egg", "one egg", "the fried egg"), ("it", "this one")),
    "steak": (("the steak", "the meat", "the piece of beef"), ("it", "this one")),
    "nail": (("the nail", "the long nail", "a nail"), ("it", "this one")),
    "plank": (("the plank", "the board", "the piece of wood"), ("it", "the piece")),
    "blue paint": (("the blue paint", "the blue colour", "some blue"), ("the paint", "a coat")),
    "red paint": (("the red paint", "the red colour", "some red"), ("the paint", "a coat")),
}

# Where the target goes in the sentence, by motion and target.
PLACES: dict[tuple[str, str], tuple[str, ...]] = {
    ("pour", "bowl"): ("into the bowl", "into the mixing bowl", "in the bowl"),
    ("pour", "glass"): ("into the glass", "into the drinking glass", "in the glass"),
    ("put", "pot"): ("into the pot", "into the saucepan", "in the pot"),
    ("put", "bowl"): ("into the bowl", "into the mixing bowl", "in the bowl"),
    ("spread", "bread"): ("on the bread", "over the slice of bread", "onto the toast"),
    ("spread", "dough"): ("on the dough", "over the flat dough", "onto the dough"),
    ("sprinkle", "bowl"): ("over the bowl", "into the bowl", "on what is in the bowl"),
    ("sprinkle", "pot"): ("over the pot", "into the pot", "on what is in the pot"),
    ("fry", "pan"): ("in the pan", "in the hot pan", "in the frying pan"),
    ("hammer", "plank"): ("into the plank", "into the board", "into the wood"),
    ("paint", "plank"): ("on the plank", "on the board", "over the wood"),
}

FRAMES: tuple[str, ...] = (
    "{}",
    "{} carefully",
    "now {}",
    "we {}",
    "{} like this",
    "you want to {}",
    "go on and {}",
    "i {} here",
)


def siblings(action: Action, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """The look-alikes of an action: one of motion, item and target differs, or the item is the same.

    >>> [other.name for other in siblings(CATALOGUE[4], CATALOGUE[:8])]
    ['cut-carrot', 'peel-cucumber']
    """
    return tuple(
        other
        for other in actions
        if other != action
        and (
            other.item == action.item
            or (other.motion == action.motion and (not action.target or other.target == action.target))
        )
    )


def word_sentence(action: Action, rng: np.random.Generator, *, vague_probability: float) -> str:
    """Say an action in one of its wordings; with ``vague_probability`` each of item and target is left open.

    >>> word_sentence(CATALOGUE[0], np.random.default_rng(0), vague_probability=0.0)
    'add the red juice into the bowl'
    """
    exact, vague = ITEMS[action.item]
    words = [_one(VERBS[action.motion], rng), _one(vague if rng.random() < vague_probability else exact, rng)]
    if action.target and rng.random() >= vague_probability:
        words.append(_one(PLACES[action.motion, action.target], rng))
    return _one(FRAMES, rng).format(" ".join(words))


def _one(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
