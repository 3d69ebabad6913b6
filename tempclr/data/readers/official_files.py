"""Reading official files: JSON, CSV, lists and pickles of plain values, with every way they can be broken named."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from tempclr.data.readers.records import Findings, as_object, field_of
from tempclr.errors import InputError

_CHUNK_CHARACTERS = 1 << 22


class JsonObject(dict[str, Any]):
    """A JSON object that keeps the first of two entries of one name, and remembers the name."""

    repeated: tuple[str, ...] = ()

    def report_repeated(self, file: Path, findings: Findings, what: str) -> None:
        """Tell each name that came more than once as a fault."""
        for name in self.repeated:
            with findings.at(file, f"{what} {name!r}"):
                raise InputError("is there twice; the first is used")


def _json_object(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = JsonObject()
    for name, value in pairs:
        if name in found:
            found.repeated += (name,)
        found.setdefault(name, value)
    return found


def find_files(paths: Iterable[str | PathLike[str]], names: Sequence[str]) -> list[Path]:
    """The files given; of a folder those that bear one of the official names, where there are such.

    Raises:
        InputError: no such file or folder, or a folder without any of them.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir() and not names:
            raise InputError("is a folder, expected a file", file=path)
        if path.is_dir():
            inside = [path / name for name in names if (path / name).is_file()]
            if not inside:
                raise InputError(f"holds none of the official files {', '.join(names)}", file=path)
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError("no such file or folder", file=path)
    return list(dict.fromkeys(found))


def only_file(paths: Sequence[str | PathLike[str]], names: Sequence[str]) -> Path:
    """The one file given, or the one of a folder.

    Raises:
        InputError: there are several.
    """
    found = find_files(paths, names)
    if len(found) != 1:
        raise InputError(f"expected one annotation file, found {', '.join(map(str, found))}; name the one to use")
    return found[0]


def read_text(file: Path) -> str:
    """A whole UTF-8 file.

    Raises:
        InputError: not readable, or not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error}", file=file) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error


def read_json(file: Path) -> Any:
    """A JSON file; objects come as :class:`JsonObject`.

    Raises:
        InputError: not JSON.
    """
    try:
        return json.loads(read_text(file), object_pairs_hook=_json_object)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", file=file) from error


def read_json_object(file: Path) -> JsonObject:
    """A JSON file that is one object.

    Raises:
        InputError: not JSON, or something else.
    """
    value = read_json(file)
    if not isinstance(value, JsonObject):
        raise InputError(f"expected a JSON object, found a {type(value).__name__}", file=file)
    return value


def read_database(file: Path, findings: Findings) -> Iterator[tuple[str, Any]]:
    """The entries of a file ``{"database": {video_id: entry}}``, which COIN's is too."""
    root = read_json_object(file)
    try:
        database = as_object(field_of(root, "database"), "database")
    except InputError as error:
        raise InputError(str(error), file=file) from None
    if isinstance(database, JsonObject):
        database.report_repeated(file, findings, "video")
    yield from database.items()


def iterate_members(file: Path) -> Iterator[tuple[str, Any]]:
    """The members of a JSON file that is one object, without holding the file: some are larger than memory.

    Raises:
        InputError: not a JSON object.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            yield from _Members(file, stream)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error}", file=file) from error


class _Members:
    """Goes along the text of one JSON object, holding only the part in work."""

    def __init__(self, file: Path, stream: io.TextIOBase) -> None:
        self.file, self.stream = file, stream
        self.decoder = json.JSONDecoder(object_pairs_hook=_json_object)
        self.text, self.position, self.num_read, self.at_end = "", 0, 0, False

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        if self._next_mark() != "{":
            self._fail("expected a JSON object")
        mark = self._next_mark()
        while mark != "}":
            if not mark:
                self._fail("ends too soon")
            self.position -= 1
            name = self._value()
            if not isinstance(name, str):
                self._fail("expected the name of a member")
            if self._next_mark() != ":":
                self._fail(f"expected ':' after {name!r}")
            yield name, self._value()
            mark = self._next_mark()
            if mark not in (",", "}"):
                self._fail(f"expected ',' or '}}' after the member {name!r}")
            if mark == "," and (mark := self._next_mark()) != '"':
                self._fail(f"expected a member after {name!r}")
        if self._next_mark():
            self._fail("text after the end of the JSON object")

    def _fail(self, message: str) -> NoReturn:
        at = self.num_read - len(self.text) + self.position
        raise InputError(f"not JSON: {message} (character {at})", file=self.file)

    def _next_mark(self) -> str:
        """The next character that is not white space, which is passed; empty at the end of the file."""
        while True:
            while self.position < len(self.text):
                mark = self.text[self.position]
                self.position += 1
                if mark not in " \t\n\r":
                    return mark
            if not self._more():
                return ""

    def _more(self) -> bool:
        wanted = max(_CHUNK_CHARACTERS, len(self.text) - self.position)  # twice as much each time: no quadratic retries
        chunk = "" if self.at_end else self.stream.read(wanted)
        if not chunk:
            self.at_end = True
            return False
        self.num_read += len(chunk)
        self.text, self.position = self.text[self.position :] + chunk, 0
        return True

    def _value(self) -> Any:
        while self.position < len(self.text) or self._more():
            while self.position < len(self.text) and self.text[self.position] in " \t\n\r":
                self.position += 1
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if self._is_cut(error) and self._more():
                    continue
                self.position = error.pos
                self._fail(error.msg)
            except (ValueError, RecursionError) as error:
                self._fail(str(error))
            if isinstance(value, int | float) and end > len(self.text) - 3 and self._more():
                continue  # a number may go on: of "1e+6", "1e+" is read as 1
            self.position = end
            return value
        self._fail("ends too soon")

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the fault may only be that the text read so far ends there."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16


def read_csv(file: Path, *, columns: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Rows of a CSV file by column: those of its first line, or ``columns`` where it has no such line.

    Extra cells of a row are under ``None``, missing ones are ``None``, as ``csv.DictReader`` has it.

    Raises:
        InputError: not CSV, or the first line lacks a name.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(file), newline=""), fieldnames=columns, strict=True)
        return list(reader)
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", file=file) from error


def check_cells(row: dict[str, str], columns: Sequence[str]) -> None:
    """Refuse a CSV row with a cell too many or too few."""
    if None in row or any(row.get(name) is None for name in columns):
        num_cells = sum(value is not None for name, value in row.items() if name is not None)
        num_cells += len(row[None]) if None in row else 0  # type: ignore[index]
        raise InputError(f"expected the cells {', '.join(columns)}, found {num_cells} cells")


def read_lines(file: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped."""
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise InputError(f"a pickle that asks for {module}.{name}: only dicts, lists, texts and numbers are read")


# Note [A pickle is a program]: a pickle may name any function to be called while it is read. Corpora ship plain
# dicts, lists, texts and numbers, which need no name at all, so every name is refused.
def read_pickle(file: Path) -> Any:
    """A pickle of plain values.

    Raises:
        InputError: it asks for a class or a function, or is no pickle.
    """
    try:
        with file.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except InputError as error:
        raise InputError(str(error), file=file) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error
    except Exception as error:  # damaged pickles end in nearly any exception
        raise InputError(f"not a pickle of plain values: {error!r}", file=file) from error


def sha256_of(files: Iterable[Path]) -> str:
    """Of the files' content, one after another; of several also of their names."""
    files, total = list(files), hashlib.sha256()
    for file in files:
        if len(files) > 1:
            total.update(file.name.encode() + b"\0")
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    total.update(chunk)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=file) from error
    return total.hexdigest()
