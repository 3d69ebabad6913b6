"""What every reader gives: annotated videos, checked; and where faults go: raised at once, or listed and left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tempclr.data.row_checks import Spans, shortened
from tempclr.errors import InputError

MAX_ID_LENGTH = 200  # file systems end at 255 bytes, and a suffix follows


@dataclass(frozen=True)
class AnnotatedSentence:
    """One sentence and its ``[start, end)`` in seconds; ``record`` says in words where in the file it stands."""

    text: str
    start: float
    end: float
    record: str
    step_index: int | None = None
    annotator_spans: Spans | None = None


@dataclass(frozen=True)
class AnnotatedVideo:
    """All sentences of one video of a corpus, and the file that has them.

    ``steps``, ``task`` and ``label`` are those of :class:`tempclr.data.rows.Paragraph`. Features and video files are
    looked for under the video's id.
    """

    video_id: str
    split: str
    sentences: tuple[AnnotatedSentence, ...]
    file: Path
    task: str | None = None
    label: str | None = None
    steps: tuple[str, ...] | None = None


class Findings:
    """What a reader met besides good records: faults, and things worth counting that are no fault.

    Args:
        skip_bad_rows: list a fault and go on; otherwise the first one is raised.
    """

    def __init__(self, *, skip_bad_rows: bool) -> None:
        self.skip_bad_rows = skip_bad_rows
        self.reasons: list[str] = []
        self.notes: Counter[str] = Counter()

    @contextmanager
    def at(self, file: Path, record: str) -> Iterator[None]:
        """Name the file and the record in each InputError from inside; with ``skip_bad_rows`` the block just ends."""
        try:
            yield
        except InputError as error:
            placed = error if error.file is not None else _placed(error, file, record)
            if not self.skip_bad_rows:
                raise placed from error.__cause__
            self.reasons.append(str(placed))

    def note(self, what: str, count: int = 1) -> None:
        """Count something."""
        self.notes[what] += count


@dataclass(frozen=True)
class Reading:
    """The official files of a corpus, found, and a way to go through their videos as often as needed.

    Attributes:
        files: what the annotations are made of; their content is part of what a prepared dataset is made from.
        scan: goes through the videos in one fixed order.
        columns: the optional columns of a row that this corpus has.
        options: what the reader was told, as JSON values.
        hints: lines about what else could have been given, printed with the report.
    """

    files: tuple[Path, ...]
    scan: Callable[[Findings], Iterator[AnnotatedVideo]]
    columns: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    hints: tuple[str, ...] = ()


def _placed(error: InputError, file: Path, record: str) -> InputError:
    message = str(error).removeprefix(f"field {error.field!r}: ")
    placed = InputError(message, file=f"{file}, {record}", field=error.field)
    placed.file = str(file)
    return placed


def field_of(values: Mapping[str, Any], name: str) -> Any:
    """The value of that name, which must be there."""
    if values.get(name) is None:
        raise InputError("missing", field=name)
    return values[name]


def as_object(value: Any, field: str | None = None) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise InputError(f"expected named fields, found {shortened(value)}", field=field)
    return value


def as_list(value: Any, field: str, *, length: int | None = None) -> Sequence[Any]:
    """A JSON list, of that length where one is given."""
    if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
        expected = "a list" if length is None else f"a list of {length}"
        raise InputError(f"expected {expected}, found {shortened(value)}", field=field)
    return value


def as_text(value: Any, field: str) -> str:
    """A text that is not blank, its white space made single spaces."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text:
        raise InputError(f"expected a text that is not empty, found {shortened(value)}", field=field)
    if not _is_unicode(text):
        raise InputError(f"not Unicode text: {shortened(value)}", field=field)
    return text


def as_id(value: Any, field: str = "video_id") -> str:
    """A video's id, exactly as it stands: it must be able to name a file in one folder."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"expected a text that is not empty, found {shortened(value)}", field=field)
    unfit = value.startswith(".") or any(mark in "/\\" or not mark.isprintable() for mark in value)
    if unfit or not _is_unicode(value) or len(value.encode()) > MAX_ID_LENGTH:
        rule = f"no slash, no leading point, at most {MAX_ID_LENGTH} bytes"
        raise InputError(f"{shortened(value)} cannot name a file: {rule}", field=field)
    return value


def as_seconds(value: Any, field: str) -> float:
    """A finite number of seconds, not negative."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
            return float(value)
    except OverflowError:
        pass
    raise InputError(f"expected a number of seconds >= 0, found {shortened(value)}", field=field)


def as_span(value: Any, field: str, *, duration: float | None = None) -> tuple[float, float]:
    """``[start, end)`` in seconds, starting within the video where its duration is known."""
    start, end = (as_seconds(each, field) for each in as_list(value, field, length=2))
    if end <= start:
        raise InputError(f"must end after its start: [{start}, {end})", field=field)
    if duration is not None and start >= duration:
        raise InputError(f"starts at {start} s but the video ends at {duration} s", field=field)
    return start, end


def as_number(text: Any, field: str) -> float:
    """A number written in a text file."""
    try:
        return float(text)
    except (TypeError, ValueError):
        raise InputError(f"expected a number, found {shortened(text)}", field=field) from None


def as_choice(value: Any, field: str, choices: Mapping[str, str]) -> str:
    """What a word of the corpus is called here, e.g. the split that it names ``training``."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"expected one of {', '.join(choices)}, found {shortened(value)}", field=field)
    return choices[value]


def _is_unicode(text: str) -> bool:
    """JSON can name halves of surrogate pairs, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
