"""The one exception that means "what you gave us is wrong", told in one line."""

from __future__ import annotations

from os import PathLike
from typing import Any


class InputError(ValueError):
    """A mistake in the user's input: the command line prints it as one line and exits with code 2.

    The message says what was given, what was expected and what to do. ``file``, ``row`` and ``field`` name the place.

    >>> str(InputError("expected a number, got 'x'", file="rows.jsonl", row=3, field="starts"))
    "rows.jsonl, row 3, field 'starts': expected a number, got 'x'"
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | PathLike[str] | None = None,
        row: int | None = None,
        field: str | None = None,
    ):
        self.message, self.file, self.row, self.field = message, file, row, field
        place = [str(file)] if file is not None else []
        if row is not None:
            place.append(f"row {row}")
        if field is not None:
            place.append(f"field {field!r}")
        super().__init__(f"{', '.join(place)}: {message}" if place else message)

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it can come from another process."""
        return _again, (type(self), self.message, self.file, self.row, self.field)


def _again(kind: type[InputError], message: str, file: Any, row: int | None, field: str | None) -> InputError:
    return kind(message, file=file, row=row, field=field)
