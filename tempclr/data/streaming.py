"""Paragraphs streamed from shards, shuffled, shared out among ranks and workers, and taken up at the exact row."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tempclr.data.rows import Paragraph, read_paragraph, row_values
from tempclr.data.shards import Piece, Rows, find_pieces, find_shards, read_piece
from tempclr.errors import InputError

__all__ = ["ParagraphStream", "Position", "StreamLoader"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """Where a reader stands: in which pass over its pieces, at which piece its block begins, how many of the block's
    rows it has given."""

    epoch: int = 0
    piece: int = 0
    row: int = 0


class ParagraphStream(IterableDataset[Any]):
    """Rows of shards without end, for a DataLoader: a pass over all of them in an order of its own, then the next.

    Note [Shuffled by blocks]: in each pass the pieces of all shards (row groups; see :mod:`tempclr.data.shards`) come
    in an order drawn from (seed, pass) and are dealt out to the readers, one for each worker of each rank. A reader
    takes whole pieces until it has ``shuffle_rows`` rows, a block, and gives these in an order drawn from (seed, pass,
    reader, block). Nothing is carried from block to block, so a position is three numbers, and to take up at one means
    to read a single block again, not all that was read before.

    Args:
        source, split: see :func:`tempclr.data.shards.find_shards`.
        shuffle_rows: rows that are shuffled among each other, and held in memory, in each worker; at least one whole
            piece, which in a Parquet file may be a million rows: a row group of more than 1 GiB is warned of.
        seed: of the orders.
        rank, num_ranks: this process of how many.
        cut: what is done to a paragraph, given also the pass and a number of its row that is the same in every pass;
            for example the dataset of the Trainer's other path.
        skip_bad_rows: leave bad rows out, each with a warning; otherwise the first one stops the run.

    Raises:
        InputError: nothing to stream; (on iteration) a bad row, or fewer pieces than readers.

    >>> stream = ParagraphStream("rows/", shuffle_rows=1024)  # doctest: +SKIP
    >>> loader = StreamLoader(stream, batch_size=16, collate=collator, num_workers=4)  # doctest: +SKIP
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        split: str | None = None,
        shuffle_rows: int = 1024,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        cut: Callable[[Paragraph, int, int], Any] | None = None,
        skip_bad_rows: bool = False,
    ) -> None:
        if shuffle_rows < 1:
            raise ValueError(f"shuffle_rows must be at least 1, got {shuffle_rows}")
        self.shards = find_shards(source, split=split)
        # Relative paths start where those of load_rows do.
        self._base = self.shards[0] if len(self.shards) == 1 and self.shards[0].suffix != ".arrow" else Path(source)
        self.pieces = find_pieces(self.shards)
        self.shuffle_rows, self.seed, self.rank, self.num_ranks = shuffle_rows, seed, rank, num_ranks
        self.cut, self.skip_bad_rows = cut, skip_bad_rows
        self.positions: dict[int, Position] = {}
        self.first_worker = 0

    @property
    def num_rows(self) -> int | None:
        """Rows of all shards; None for JSON lines, which would have to be counted."""
        counts = [piece.num_rows for piece in self.pieces]
        return None if None in counts else sum(count or 0 for count in counts)

    def digest(self) -> str:
        """Of the names of the shards and the sizes of their pieces: another digest is another stream."""
        pieces = [(self.shards[piece.shard].name, piece.start, piece.num_rows) for piece in self.pieces]
        return hashlib.blake2b(repr(pieces).encode(), digest_size=8).hexdigest()

    def __iter__(self) -> Iterator[tuple[Any, int, Position]]:
        """Items, each with the worker that gives it and the position behind it."""
        worker = get_worker_info()
        number, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = (number + self.first_worker) % num_workers  # see Note [The next worker comes first]
        for item, position in self._items(number, num_workers):
            yield item, number, position

    def _items(self, number: int, num_workers: int) -> Iterator[tuple[Any, Position]]:
        reader, num_readers = self.rank * num_workers + number, self.num_ranks * num_workers
        if num_readers > len(self.pieces):
            raise InputError(
                f"{len(self.pieces)} pieces for {num_readers} readers: write smaller row groups or use fewer workers",
                file=self.shards[0].parent,
            )
        position = self.positions.get(number, Position())
        while True:
            order = np.random.default_rng([self.seed, position.epoch]).permutation(len(self.pieces))
            own = [self.pieces[index] for index in order[reader::num_readers]]
            num_given = 0
            for item in self._pass(own, reader, position):
                num_given += 1
                yield item
            if not num_given and position.piece == position.row == 0:
                raise InputError("no good row among those of one reader", file=self.shards[0].parent)
            position = Position(position.epoch + 1)

    def _pass(self, own: list[Piece], reader: int, position: Position) -> Iterator[tuple[Any, Position]]:
        epoch, first, given = position.epoch, position.piece, position.row
        while first < len(own):
            block, last = self._block(own, first)
            draw = np.random.default_rng([self.seed, epoch, reader, first])
            order = draw.permutation(len(block))
            for place in range(given, len(block)):
                piece, rows, index = block[order[place]]
                item = self._item(piece, rows, index, epoch)
                if item is not None:
                    yield item, Position(epoch, first, place + 1)
            first, given = last, 0

    def _block(self, own: list[Piece], first: int) -> tuple[list[tuple[Piece, Rows, int]], int]:
        """Rows of the pieces from ``first`` on, and where the next block begins."""
        block: list[tuple[Piece, Rows, int]] = []
        last = first
        while last < len(own) and len(block) < self.shuffle_rows:
            rows = read_piece(self.shards, own[last])
            block += [(own[last], rows, index) for index in range(len(rows))]
            last += 1
        return block, last

    def _item(self, piece: Piece, rows: Rows, index: int, epoch: int) -> Any:
        try:
            paragraph = read_paragraph(row_values(rows[index]), source=self._base, index=index)
            number = hash((piece.shard, piece.start, index)) & 0x7FFFFFFF
            return paragraph if self.cut is None else self.cut(paragraph, epoch, number)
        except InputError as error:
            placed = InputError(error.message, file=rows.source, row=rows.number(index), field=error.field)
            if not self.skip_bad_rows:
                raise placed from error
            _log.warning("left out: %s", placed)
            return None


class StreamLoader:
    """Batches of a stream, and where each of its workers stands after the batches given so far.

    Note [The next worker comes first]: a DataLoader takes a batch from each worker in turn, beginning with its first.
    Taken up after b batches, the worker whose turn it is must come first: the workers' parts of the stream are turned
    by b, and the batches go on as if there had been no break.

    Args:
        stream: its ``positions`` are set by :meth:`load_state_dict`.
        batch_size, num_workers, prefetch_factor, pin_memory, persistent_workers: as of a DataLoader.
        collate: items to a batch.

    Raises:
        InputError: (on iteration) what the stream or ``collate`` raises, also in a worker.
    """

    def __init__(
        self,
        stream: ParagraphStream,
        *,
        batch_size: int,
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        num_workers: int = 0,
        prefetch_factor: int | None = None,
        pin_memory: bool = False,
        persistent_workers: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.num_workers = stream, batch_size, num_workers
        self.collate, self.prefetch_factor = collate, prefetch_factor
        self.pin_memory, self.persistent_workers = pin_memory, persistent_workers
        self._positions: dict[int, Position] = {}
        self._num_batches = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        stream = self.dataset
        stream.positions, stream.first_worker = dict(self._positions), self._num_batches % max(self.num_workers, 1)
        loader: Any = DataLoader(
            _FaultsAsItems(stream),
            batch_size=self.batch_size,
            collate_fn=_WithPosition(self.collate),
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor,
            pin_memory=self.pin_memory,
            persistent_workers=self.persistent_workers,
            generator=torch.Generator().manual_seed(
                stream.seed
            ),  # the global one must not depend on how often we began
        )
        for given in loader:
            if isinstance(given, InputError):
                raise given
            batch, worker, position = given
            self._positions[worker] = position
            self._num_batches += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where each worker stands, in plain values for JSON."""
        positions = {str(worker): [at.epoch, at.piece, at.row] for worker, at in self._positions.items()}
        return {**self._setting(), "num_batches": self._num_batches, "positions": positions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batches that were given when ``state`` was taken.

        Raises:
            InputError: it was taken of another stream, or of other numbers of ranks, workers or rows.
        """
        for name, value in self._setting().items():
            if state.get(name) != value:
                raise InputError(
                    f"cannot go on within the stream: {name} was {state.get(name)}, now it is {value}", field=name
                )
        self._positions = {int(worker): Position(*at) for worker, at in state["positions"].items()}
        self._num_batches = int(state["num_batches"])

    def _setting(self) -> dict[str, Any]:
        stream = self.dataset
        return {
            "pieces": stream.digest(),
            "shuffle_rows": stream.shuffle_rows,
            "seed": stream.seed,
            "rank": stream.rank,
            "num_ranks": stream.num_ranks,
            "num_workers": self.num_workers,
            "batch_size": self.batch_size,
        }


class _FaultsAsItems(IterableDataset[Any]):
    """A stream that ends with the InputError it would raise.

    Note [Faults come as batches]: an exception of a worker is told by a DataLoader as the text of its whole traceback,
    without the file, row and field that it names. As a batch it comes as it is.
    """

    def __init__(self, stream: ParagraphStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.stream
        except InputError as error:
            yield error


class _WithPosition:
    """A collator of items that come with the worker that gives them and the position behind them."""

    def __init__(self, collate: Callable[[Sequence[Any]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Any]) -> tuple[dict[str, Any], int, Position] | InputError:
        if isinstance(items[-1], InputError):
            return items[-1]
        _, worker, position = items[-1]
        try:
            return self.collate([item for item, _, _ in items]), worker, position
        except InputError as error:
            return error


def first_paragraphs(
    source: str | PathLike[str], count: int, *, split: str | None = None, skip_bad_rows: bool = False
) -> list[Paragraph]:
    """At most so many paragraphs of a dataset, of a few of its pieces."""
    stream = ParagraphStream(source, split=split, shuffle_rows=1, skip_bad_rows=skip_bad_rows)
    first_pass = takewhile(lambda given: given[2].epoch == 0, stream)
    return [item for item, _, _ in islice(first_pass, min(count, stream.num_rows or count))]
