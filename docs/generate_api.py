"""Write docs/api: one page a package and one for the command line, from docstrings and argument parsers alone.

    python docs/generate_api.py            # after a docstring or an option has changed
    python docs/generate_api.py --check    # exit code 1 where a page is not what would be written

What is listed in ``MODULES`` is the public interface that docs/versions.md speaks of.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parent / "api"
ROOT = FOLDER.parent.parent
sys.path[:0] = [str(ROOT / part) for part in ("hub", "kernels", "")]

from generate_cli import command_line  # noqa: E402

MODULES = {
    "tempclr": (
        "tempclr",
        "tempclr.costs",
        "tempclr.negatives",
        "tempclr.losses",
        "tempclr.localization_loss",
        "tempclr.tclr_losses",
        "tempclr.mini_batches",
        "tempclr.inference",
        "tempclr.similarities",
        "tempclr.trainer",
        "tempclr.errors",
        "tempclr.models.tempclr",
        "tempclr.models.s3d",
        "tempclr.models.few_shot",
        "tempclr.models.video_resnet",
        "tempclr.models.tclr",
        "tempclr.data.rows",
        "tempclr.data.video",
        "tempclr.data.features",
        "tempclr.data.tokenization",
        "tempclr.data.sampling",
        "tempclr.data.collation",
        "tempclr.data.captions",
        "tempclr.data.sequences",
        "tempclr.data.episodes",
        "tempclr.data.clip_sampling",
        "tempclr.data.augmentations",
        "tempclr.data.action_videos",
        "tempclr.data.streaming",
        "tempclr.evaluation",
        "tempclr.evaluation.few_shot",
        "tempclr.evaluation.classification",
        "tempclr.evaluation.video_retrieval",
        "tempclr.plots",
        "tempclr.recipes",
        "tempclr.recipes.pretraining",
        "tempclr.recipes.localization",
        "tempclr.recipes.few_shot",
        "tempclr.recipes.tclr",
        "tempclr.recipes.tclr_classification",
    ),
    "tempclr_kernels": ("tempclr_kernels",),
    "tempclr_hub": (
        "tempclr_hub.convert",
        "tempclr_hub.convert_s3d",
        "tempclr_hub.convert_tclr",
        "tempclr_hub.checkpoints",
        "tempclr_hub.card",
        "tempclr_hub.dataset_card",
        "tempclr_hub.staging",
        "tempclr_hub.publish",
        "tempclr_hub.kernel_repository",
        "tempclr_hub.loopback",
    ),
}
OURS = tuple(MODULES)
SECTIONS = ("Args", "Arguments", "Attributes", "Raises", "Returns", "Yields")


def main() -> int:
    pages = {name: package_page(name) for name in MODULES} | {"command_line": command_line()}
    stale = []
    for name, text in pages.items():
        path = FOLDER / f"{name}.md"
        committed = path.read_text(encoding="utf-8") if path.exists() else ""
        if committed != text and "--check" in sys.argv:
            difference = difflib.unified_diff(
                committed.splitlines(), text.splitlines(), "committed", "now", lineterm=""
            )
            stale.append("\n".join([f"{path}:", *list(difference)[:30]]))
        elif committed != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if stale:
        print("\n".join([*stale, "python docs/generate_api.py writes these pages again"]))
    return bool(stale)


def package_page(package: str) -> str:
    """Every public name once: under the first listed module that has it."""
    seen: set[int] = set()
    # Examples stand as in the docstrings, however ruff would break their lines.
    parts = ["<!-- fmt: off -->", "", f"# {package}", "", "Made from docstrings by `docs/generate_api.py`."]
    if len(MODULES[package]) > 1:
        parts += ["", " · ".join(f"[{name}](#{_anchor(name)})" for name in MODULES[package])]
    for name in MODULES[package]:
        module = importlib.import_module(name)
        parts += ["", f"## {name}", "", rendered(inspect.getdoc(module) or "")]
        for title, value in public_names(module):
            if id(value) in seen:
                continue
            seen.add(id(value))
            parts += ["", *_entry(title, value)]
    return "\n".join(parts).rstrip() + "\n"


def public_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The functions and classes of ``__all__``, or without one those that the module defines, in their order there."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    for name in names:
        value = getattr(module, name)
        if not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
            yield name, value


def _entry(title: str, value: Any) -> list[str]:
    doc = rendered(inspect.cleandoc(value.__doc__ or ""))
    if inspect.isfunction(value):
        return [f"### {title}", "", "```text", signature(title, value), "```", "", doc]
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    head = [f"### {title}", "", "```text", class_signature(title, value), "```", ""]
    lines = [*head, *([f"A `{bases}`.", ""] if bases else []), doc]
    for name, method in methods(value):
        lines += ["", f"#### {title}.{name}", ""]
        if inspect.isfunction(method):
            lines += ["```text", signature(name, method), "```", ""]
        lines.append(rendered(inspect.cleandoc(method.__doc__ or "")))
    return lines


def methods(value: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties that the class itself defines and describes."""
    for name, found in vars(value).items():
        member = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
        described = inspect.isfunction(member) or isinstance(member, property)
        if described and not name.startswith("_") and member.__doc__:
            yield name, member


def class_signature(title: str, value: type) -> str:
    """What makes one: for a dataclass its own fields, without those of a class that is not ours."""
    if dataclasses.is_dataclass(value) and value.__module__.startswith(OURS):
        own = [
            f"{name}: {_plain(value.__annotations__[name])}{_default(value, name)}"
            for name in value.__annotations__
            if not name.startswith("_")
        ]
        foreign = [base.__name__ for base in value.__mro__[1:] if dataclasses.is_dataclass(base)]
        # The fields of the foreign class come first, so that those of ours are given by name.
        words = ["*", *own, f"**fields of {foreign[0]}"] if foreign else own
        return _wrapped(title, words, "")
    if value.__init__ is object.__init__ or not value.__init__.__module__.startswith(OURS):
        return title
    return signature(title, value.__init__)


def _default(value: Any, name: str) -> str:
    field = value.__dataclass_fields__[name]
    if field.default is not dataclasses.MISSING:
        return f" = {field.default!r}"
    return "" if field.default_factory is dataclasses.MISSING else f" = {field.default_factory.__name__}()"


def signature(title: str, function: Any) -> str:
    """One line, or one line a parameter; annotations as they are written."""
    found = inspect.signature(function)
    words, star = [], False
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        star |= parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        default = parameter.default
        if inspect.isfunction(default) or (inspect.isclass(default) and default is not parameter.empty):
            parameter = parameter.replace(default=_Plain(default.__name__))  # its repr tells an address
        if parameter.annotation is not parameter.empty:
            parameter = parameter.replace(annotation=_Plain(parameter.annotation))
        words.append(str(parameter))
    returned = "" if found.return_annotation is found.empty else f" -> {_plain(found.return_annotation)}"
    return _wrapped(title, words, returned)


class _Plain:
    """Shows itself as it stands in the source."""

    def __init__(self, annotation: Any):
        self.text = _plain(annotation)

    def __repr__(self) -> str:
        return self.text


def _plain(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _wrapped(title: str, words: list[str], returned: str) -> str:
    line = f"{title}({', '.join(words)}){returned}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{title}(", *(f"    {word}," for word in words), f"){returned}"])


def rendered(doc: str) -> str:
    """A docstring as Markdown: titled sections become lists, examples become blocks."""
    lines: list[str] = []
    in_section, in_example, indent = False, False, 0
    for line in [*doc.splitlines(), ""]:
        if in_example and not line.strip():
            lines.append("```")
            in_example = False
        elif not in_example and line.lstrip().startswith(">>> "):
            lines += [*([""] if lines and lines[-1] else []), "```pycon"]
            in_example, indent = True, len(line) - len(line.lstrip())
        if in_example:
            lines.append(line[indent:])
            continue
        title = line.removesuffix(":")
        if title in SECTIONS and line.endswith(":"):
            lines += [f"**{title}**", ""]
            in_section = True
            continue
        if in_section and line and not line.startswith(" "):
            in_section = False
        lines.append(_item(line) if in_section else _marked(line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _item(line: str) -> str:
    text = line[4:] if line.startswith("    ") else line
    name, colon, rest = text.partition(": ")
    if text and not text.startswith(" ") and colon and re.fullmatch(r"[\w`, *]+", name):
        return f"- `{name.replace('`', '')}`: {_marked(rest)}"
    return f"  {_marked(text.strip())}" if text.strip() else ""


def _marked(line: str) -> str:
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", line).replace("``", "`")


def _anchor(name: str) -> str:
    return name.replace(".", "")


if __name__ == "__main__":
    sys.exit(main())
