"""Rows of a dataset too large to look through: the shards it lies in, in pieces that are read one at a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.row_files import data_files, is_hub_id
from tempclr.errors import InputError

__all__ = ["SHARD_SUFFIXES", "Piece", "Rows", "find_pieces", "find_shards", "read_piece"]

SHARD_SUFFIXES = (".parquet", ".jsonl", ".arrow")
LINES_BYTES = 4 << 20
LARGE_GROUP_BYTES = 1 << 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a shard that lie together: a row group of Parquet, a batch of Arrow, the lines that begin in
    ``[start, start + LINES_BYTES)`` of JSON lines.

    ``start`` is its number or first byte; ``num_rows`` is None where only reading tells; ``num_bytes`` are those of a
    row group, not compressed: it is held as a whole.
    """

    shard: int
    start: int
    num_rows: int | None
    num_bytes: int = 0


class Rows(Sequence[Mapping[str, Any]]):
    """The rows of one piece: Arrow's, each made plain when it is asked for, or parsed lines.

    Args:
        source: the shard.
        rows: a table, or lines.
        first: the number of the first of them in the shard; None where it has to be counted.
        start: of lines, the byte that the piece begins at.
    """

    def __init__(self, source: Path, rows: Any, *, first: int | None = None, start: int = 0) -> None:
        self.source, self._rows, self._first, self._start = source, rows, first, start

    def __len__(self) -> int:
        return self._rows.num_rows if hasattr(self._rows, "num_rows") else len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """A row as ``tempclr.data.rows`` takes it: a mapping, or a table of one row."""
        if not hasattr(self._rows, "num_rows"):
            return self._parsed(self._rows[index])
        return self._rows.slice(index, 1)

    def number(self, index: int) -> int:
        """Which row of the shard it is, counted from 0. Of lines, all before are read to be counted: for errors."""
        if self._first is None:
            self._first = _num_lines_before(self.source, self._start)
        return self._first + index

    def _parsed(self, line: bytes) -> Mapping[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}, in the line {line[:40]!r}", file=self.source) from error
        if not isinstance(row, dict):
            raise InputError(f"expected an object with named fields, found {line[:40]!r}", file=self.source)
        return row


def find_shards(source: str | PathLike[str], *, split: str | None = None) -> list[Path]:
    """The shards of a dataset folder, sorted by name, or the one file given.

    A folder holds ``<split>.parquet`` or ``<split>.jsonl`` files, also in ``data/`` and in shards named
    ``-00000-of-00002``, or is one that ``save_to_disk`` wrote.

    Raises:
        InputError: nothing there that can be streamed, no such split, or several and none named.
    """
    path = Path(source)
    if path.is_file() and path.suffix in SHARD_SUFFIXES:
        return [path]
    if is_hub_id(source):
        raise InputError("is a Hub dataset: fetch its files first (hf download) and stream their folder", file=source)
    if not path.is_dir():
        raise InputError(f"expected a folder of shards, or one of {', '.join(SHARD_SUFFIXES)}", file=source)
    if (path / "dataset_dict.json").is_file() and split is not None:
        path = path / split
    saved = sorted(path.glob("*.arrow"))
    splits = {split or "": saved} if saved else data_files(path)
    if split is None and len(splits) > 1:
        raise InputError(f"holds the splits {', '.join(splits)}; say which (--train_split)", file=source)
    found = splits.get(split or next(iter(splits), ""), [])
    shards = [file for file in found if file.suffix in SHARD_SUFFIXES]
    if not shards:
        what = f"no shards of split {split!r}" if split is not None else "no shards"
        raise InputError(f"holds {what} to stream: expected {', '.join(SHARD_SUFFIXES)} files", file=source)
    return shards


def find_pieces(shards: Sequence[Path]) -> list[Piece]:
    """All pieces of the shards, from their ends and lengths alone: some seconds for a thousand shards.

    Raises:
        InputError: a shard is damaged, or there are no rows at all.
    """
    pieces = [piece for number, shard in enumerate(shards) for piece in _pieces_of(number, shard)]
    if not pieces:
        raise InputError("holds no rows", file=shards[0].parent)
    largest = max(pieces, key=lambda piece: piece.num_bytes)
    if largest.num_bytes > LARGE_GROUP_BYTES:
        _log.warning(
            "%s: a row group of %d rows takes %.1f GiB, and every worker holds a whole one at least: write the shards "
            "with a smaller row_group_size",
            *(shards[largest.shard], largest.num_rows, largest.num_bytes / (1 << 30)),
        )
    return pieces


def _pieces_of(number: int, shard: Path) -> list[Piece]:
    if shard.suffix == ".jsonl":
        return [Piece(number, start, None) for start in range(0, shard.stat().st_size, LINES_BYTES)]
    with _damage_told(shard):
        if shard.suffix == ".parquet":
            import pyarrow.parquet  # type: ignore[import-untyped]

            metadata = pyarrow.parquet.read_metadata(shard)
            groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        else:
            sizes = [(batch.num_rows, 0) for batch in _arrow_batches(shard)]
    return [Piece(number, place, *size) for place, size in enumerate(sizes) if size[0]]


def read_piece(shards: Sequence[Path], piece: Piece) -> Rows:
    """The rows of a piece.

    Raises:
        InputError: the shard cannot be read there.
    """
    shard = shards[piece.shard]
    if shard.suffix == ".jsonl":
        return Rows(shard, _lines(shard, piece.start), start=piece.start)
    with _damage_told(shard):
        if shard.suffix == ".parquet":
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(shard) as file:
                counts = [file.metadata.row_group(group).num_rows for group in range(piece.start)]
                return Rows(shard, file.read_row_group(piece.start), first=sum(counts))
        import pyarrow

        batches = _arrow_batches(shard)[: piece.start + 1]
        first = sum(batch.num_rows for batch in batches[:-1])
        return Rows(shard, pyarrow.Table.from_batches(batches[-1:]), first=first)


def _arrow_batches(shard: Path) -> list[Any]:
    import pyarrow

    return list(pyarrow.ipc.open_stream(pyarrow.memory_map(str(shard))))


def _lines(shard: Path, start: int) -> list[bytes]:
    try:
        with shard.open("rb") as stream:
            if start:
                stream.seek(start - 1)
                stream.readline()  # what began before belongs to the piece before
            lines = []
            while stream.tell() < start + LINES_BYTES and (line := stream.readline()):
                if line.strip():
                    lines.append(line)
            return lines
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=shard) from error


def _num_lines_before(shard: Path, start: int) -> int:
    count = place = 0
    with shard.open("rb") as stream:
        for line in stream:
            if place >= start:
                break
            count += bool(line.strip())
            place += len(line)
    return count


@contextmanager
def _damage_told(shard: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"is damaged or cannot be read: {error}", file=shard) from error
