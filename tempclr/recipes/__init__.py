"""The experiments that come with the package: settings to train by name, to read, and to compare.

>>> from tempclr.recipes import load_recipe
>>> released, small = load_recipe("pretrain_howto100m"), load_recipe("small")
>>> released["similarity"], small["similarity"]
('dot', 'cosine')
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, NamedTuple

from tempclr.errors import InputError

__all__ = ["RECIPES", "RECIPE_KEYS", "Recipe", "load_recipe"]

_FOLDER = Path(__file__).parent
RECIPE_KEYS = ("command", "based_on")  # what a file of settings says of itself


class Recipe(NamedTuple):
    """The command that takes the recipe, what it is for, and its file."""

    command: str
    summary: str
    path: Path


def load_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe by option, those of the recipe it is based on included.

    Raises:
        InputError: there is no recipe of that name; the nearest one is named.

    >>> load_recipe("unit_loss")["sequence_weight"]
    0.0
    """
    import yaml

    settings = yaml.safe_load(_recipe(name).path.read_text(encoding="utf-8"))
    base = load_recipe(settings["based_on"]) if "based_on" in settings else {}
    return base | {key: value for key, value in settings.items() if key not in RECIPE_KEYS}


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise InputError(f"no recipe {name!r}{hint} recipes: {', '.join(RECIPES)}", field="recipe")
    return RECIPES[name]


def _read(path: Path) -> Recipe:
    """Each file begins with a line that says what it is for and one that names its command."""
    summary, command = path.read_text(encoding="utf-8").splitlines()[:2]
    return Recipe(command.removeprefix("command: "), summary.removeprefix("# "), path)


RECIPES = {path.stem: _read(path) for path in sorted(_FOLDER.glob("*.yaml"))}
