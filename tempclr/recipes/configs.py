"""Settings from a recipe or a YAML file as the defaults of a Hugging Face argument parser; words win over them."""

from __future__ import annotations

import difflib
import json
from argparse import Action, ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from tempclr.errors import InputError
from tempclr.recipes import RECIPE_KEYS, RECIPES, load_recipe

__all__ = ["SettingsParser"]


class SettingsParser(HfArgumentParser):
    """Dataclasses from words and, before them, from a recipe or a YAML file; every mistake is an ``InputError`` of one
    line. Words win over a file (``--config``), which wins over a recipe (``--recipe``).

    Args:
        dataclass_types: as ``HfArgumentParser``.
        command: the command whose recipes are taken.
    """

    def __init__(self, dataclass_types: Any, *, command: str, **keywords: Any):
        super().__init__(dataclass_types, allow_abbrev=False, **keywords)
        self.command = command
        known = ", ".join(name for name, recipe in RECIPES.items() if recipe.command == command)
        self.add_argument("--recipe", metavar="NAME", help=f"settings that come with the package: {known}")
        self.add_argument("--config", metavar="FILE", help="YAML file of settings; words given here win")

    def error(self, message: str) -> NoReturn:
        raise InputError(message)

    def actions(self) -> dict[str, Action]:
        """The options that a YAML file may set, by name."""
        own = ("help", "config", "recipe")
        return {action.dest: action for action in self._actions if action.dest not in own}

    def parse(self, words: list[str]) -> tuple[Any, ...]:
        """One instance of each dataclass.

        Raises:
            InputError: an unknown option, recipe or key, or a value that an option does not take.
        """
        for name in _values_of("--recipe", words):
            self.read_recipe(name)
        for path in _values_of("--config", words):
            self.read(Path(path))
        *made, _, unknown = self.parse_args_into_dataclasses(
            args=words, look_for_args_file=False, return_remaining_strings=True
        )
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[0], known, n=1)
            raise InputError(f"unknown option {unknown[0]!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        return tuple(made)

    def read_recipe(self, name: str) -> None:
        """Take the settings of a recipe as defaults."""
        settings, recipe = load_recipe(name), RECIPES[name]
        if recipe.command != self.command:
            raise InputError(f"{name!r} is a recipe of 'tempclr {recipe.command}'", field="recipe")
        self._take(settings, recipe.path)

    def read(self, path: Path) -> None:
        """Take the settings of a YAML file as defaults."""
        import yaml

        if not path.is_file():
            raise InputError("no such file; for settings that come with the package give --recipe", file=path)
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"not YAML: {error}", file=path) from error
        if not isinstance(settings, dict):
            raise InputError(f"expected lines of 'option: value', found {type(settings).__name__}", file=path)
        if settings.get("command", self.command) != self.command:
            raise InputError(f"settings of 'tempclr {settings['command']}'", file=path, field="command")
        if "based_on" in settings:
            self.read_recipe(str(settings["based_on"]))
        self._take({name: value for name, value in settings.items() if name not in RECIPE_KEYS}, path)

    def _take(self, settings: dict[str, Any], path: Path) -> None:
        actions = self.actions()
        for name, value in settings.items():
            if name not in actions:
                near = difflib.get_close_matches(str(name), actions, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(f"unknown option{hint}", file=path, field=str(name))
            if value is not None:
                actions[name].required = False
                self.set_defaults(**{name: _value(actions[name], value, path)})


def _values_of(option: str, words: list[str]) -> Iterator[str]:
    for place, word in enumerate(words):
        if word == option and place + 1 < len(words):
            yield words[place + 1]
        elif word.startswith(f"{option}="):
            yield word.removeprefix(f"{option}=")


def _value(action: Action, value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        if action.nargs not in ("+", "*"):
            raise InputError(f"takes one value, found the list {value}", file=path, field=action.dest)
        return [_value(action, item, path) for item in value]
    convert = action.type if callable(action.type) else str
    try:
        converted = value if isinstance(value, bool) and convert is not str else convert(str(value))
    except (ValueError, TypeError, ArgumentTypeError) as error:
        kind = getattr(action.type, "__name__", "value")
        raise InputError(f"expected {kind}, found {value!r}", file=path, field=action.dest) from error
    if isinstance(value, bool) and convert in (int, float):
        raise InputError(f"expected {convert.__name__}, found {value!r}", file=path, field=action.dest)
    if action.choices is not None and converted not in action.choices:
        allowed = ", ".join(map(str, action.choices))
        raise InputError(f"must be one of {allowed}, found {value!r}", file=path, field=action.dest)
    return converted
