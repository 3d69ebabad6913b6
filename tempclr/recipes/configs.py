"""Settings from a YAML file as the defaults of a Hugging Face argument parser; the command line wins over them."""

from __future__ import annotations

import difflib
import json
from argparse import Action, ArgumentTypeError
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from tempclr.errors import InputError

__all__ = ["SettingsParser", "recipe_path"]

RECIPES = Path(__file__).parent


def recipe_path(name: str) -> Path:
    """The YAML file of that path, or of the recipe of that name that comes with the package.

    Raises:
        InputError: there is neither.

    >>> recipe_path("small").name
    'small.yaml'
    """
    shipped = RECIPES / f"{name}.yaml"
    for path in (Path(name), shipped):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise InputError(f"no such file, and no recipe of that name; recipes: {known}", file=name)


class SettingsParser(HfArgumentParser):
    """Dataclasses from words and, before them, from a YAML file; every mistake is an ``InputError`` of one line."""

    def __init__(self, dataclass_types: Any, **keywords: Any):
        super().__init__(dataclass_types, allow_abbrev=False, **keywords)
        self.add_argument("--config", help="YAML file of settings, or the name of a recipe; words given here win")

    def error(self, message: str) -> NoReturn:
        raise InputError(message)

    def actions(self) -> dict[str, Action]:
        """The options that a YAML file may set, by name."""
        return {action.dest: action for action in self._actions if action.dest not in ("help", "config")}

    def parse(self, words: list[str]) -> tuple[Any, ...]:
        """One instance of each dataclass.

        Raises:
            InputError: an unknown option or key, or a value that an option does not take.
        """
        for place, word in enumerate(words):
            if word == "--config" and place + 1 < len(words):
                self.read(recipe_path(words[place + 1]))
            elif word.startswith("--config="):
                self.read(recipe_path(word.removeprefix("--config=")))
        *made, _, unknown = self.parse_args_into_dataclasses(
            args=words, look_for_args_file=False, return_remaining_strings=True
        )
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[0], known, n=1)
            raise InputError(f"unknown option {unknown[0]!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        return tuple(made)

    def read(self, path: Path) -> None:
        """Take the settings of a YAML file as defaults."""
        import yaml

        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"not YAML: {error}", file=path) from error
        if not isinstance(settings, dict):
            raise InputError(f"expected lines of 'option: value', found {type(settings).__name__}", file=path)
        actions = self.actions()
        for name, value in settings.items():
            if name not in actions:
                near = difflib.get_close_matches(str(name), actions, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(f"unknown option{hint}", file=path, field=str(name))
            if value is not None:
                actions[name].required = False
                self.set_defaults(**{name: _value(actions[name], value, path)})


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
