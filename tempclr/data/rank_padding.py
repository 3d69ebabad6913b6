"""Every row exactly once an epoch over the ranks: what is short of whole batches is filled with rows that do not count.

Note [No row twice]: ranks must make the same number of batches of one size. accelerate goes on from the beginning of
the data set where rows run out, so that some rows count twice and a last batch of 7 on two ranks is not that of one
process. Here the missing rows are copies whose sentences and clips are masked: they are no positives and no negatives.
Where a loss is a mean over rows alone, copies are left out of the batch, and each rank's loss counts as its rows do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, RandomSampler, Sampler, SequentialSampler

from tempclr.data.captions_collation import CaptionCollator
from tempclr.data.collation import ParagraphCollator
from tempclr.distributed import num_ranks, rank

__all__ = [
    "PADDING_ID",
    "CountingCollator",
    "PaddedDataset",
    "PaddedSampler",
    "PaddedStream",
    "PaddingCollator",
    "can_be_padded",
    "pad",
]

PADDING_ID = "(no video)"
"""``video_id`` of a row that does not count."""
PADDING = -1
NUM_COUNTED = "num_counted_rows"


class PaddedSampler(Sampler[int]):
    """The positions of another sampler, the same on every rank, filled up with −1 to a multiple of ``multiple``.

    A ``RandomSampler`` is seeded as accelerate seeds it in one process. Of other samplers rank 0's order is everyone's:
    their random numbers would differ from rank to rank.

    Args:
        sampler: has a length, and may have ``set_epoch``.
        multiple: rows of a batch times ranks.
        data_seed: of a ``RandomSampler``; None is torch's initial one.

    >>> list(PaddedSampler(SequentialSampler(range(3)), multiple=2))
    [0, 1, 2, -1]
    """

    def __init__(self, sampler: Any, *, multiple: int, data_seed: int | None = None):
        if type(sampler) is RandomSampler:
            from accelerate.data_loader import SeedableRandomSampler

            sampler = SeedableRandomSampler(
                data_source=sampler.data_source,
                replacement=sampler.replacement,
                num_samples=sampler._num_samples,
                generator=sampler.generator,
                data_seed=data_seed,
            )
            self._is_shared = True
        else:
            self._is_shared = isinstance(sampler, SequentialSampler)
        self.sampler, self.multiple = sampler, multiple

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        positions = list(self.sampler)
        if not self._is_shared and num_ranks() > 1:
            shared = [positions if rank() == 0 else None]
            torch.distributed.broadcast_object_list(shared, src=0)
            positions = shared[0] or []
        return iter(positions + [PADDING] * (-len(positions) % self.multiple))


class _Copy(NamedTuple):
    row: Any


class PaddedDataset:
    """A map-style dataset that also has the position −1: a copy of its first row, marked as such."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        return _Copy(self.dataset[0]) if position == PADDING else self.dataset[position]

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class PaddedStream(IterableDataset[Any]):
    """The rows of an iterable dataset, and copies of the first, marked as such, up to a multiple of ``multiple``.

    >>> [type(row).__name__ for row in PaddedStream(range(3), multiple=2)]
    ['int', 'int', 'int', '_Copy']
    """

    def __init__(self, dataset: Any, *, multiple: int):
        self.dataset, self.multiple = dataset, multiple
        if hasattr(dataset, "generator"):
            self.generator = dataset.generator  # accelerate makes it the same on all ranks

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[Any]:
        first, count = None, 0
        for count, row in enumerate(self.dataset, 1):
            first = row if count == 1 else first
            yield row
        yield from [_Copy(first)] * (-count % self.multiple)

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


def pad(dataset: Any, sampler_fn: Any, *, multiple: int, data_seed: int | None) -> tuple[Any, Callable[[Any], Any]]:
    """The dataset with rows that do not count, and what makes its sampler of what made that of the dataset."""
    if isinstance(dataset, IterableDataset):
        return PaddedStream(dataset, multiple=multiple), sampler_fn

    def make_sampler(padded: PaddedDataset) -> PaddedSampler:
        sampler = None if sampler_fn is None else sampler_fn(padded.dataset)
        sampler = SequentialSampler(padded.dataset) if sampler is None else sampler
        return PaddedSampler(sampler, multiple=multiple, data_seed=data_seed)

    return PaddedDataset(dataset), make_sampler


class PaddingCollator:
    """Makes the batch with ``collator`` and masks in it the copies that a :class:`PaddedDataset` gave.

    Args:
        collator: a ``ParagraphCollator`` or ``CaptionCollator``.
    """

    def __init__(self, collator: Any):
        self.collator = collator

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        batch = self.collator([_renamed(row.row) if isinstance(row, _Copy) else row for row in rows])
        copies = torch.tensor([video_id == PADDING_ID for video_id in batch.get("video_id", ())], dtype=torch.bool)
        if copies.any():
            for name, nothing in (("sentence_mask", 0), ("clip_mask", 0), ("clip_sentence_index", -1)):
                batch[name][copies] = nothing
        return batch


class CountingCollator:
    """Makes the batch of the rows that count, for a loss that is a mean over rows, and tells how many they are.

    ``num_counted_rows`` of a batch of copies is 0; it holds one all the same, since no model takes a batch of nothing.

    Args:
        collator: any that leaves the rows in the first dimension of its tensors.

    >>> collator = CountingCollator(lambda rows: {"labels": torch.tensor(rows)})
    >>> padded = PaddedDataset([7, 8, 9])
    >>> collator([padded[2], padded[-1]]), collator([padded[-1]])["num_counted_rows"]
    ({'labels': tensor([9]), 'num_counted_rows': 1}, 0)
    """

    def __init__(self, collator: Any):
        self.collator = collator

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        real = [row for row in rows if not isinstance(row, _Copy)]
        batch = self.collator(real or [rows[0].row])
        num_rows = len(next(value for value in batch.values() if isinstance(value, torch.Tensor)))
        return {**batch, NUM_COUNTED: num_rows if real else 0}


def can_be_padded(dataset: Any, collator: Any) -> bool:
    """Whether rows that do not count can be made: a dataset of known length or order, and a collator that knows what to
    do with them."""
    if not hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset):
        return False
    if isinstance(collator, CountingCollator):
        return True
    collator = collator.collator if isinstance(collator, PaddingCollator) else collator
    return isinstance(collator, (ParagraphCollator, CaptionCollator)) and collator.with_video_ids


def _renamed(row: Any) -> Any:
    if isinstance(row, Mapping):
        return {**row, "video_id": PADDING_ID}
    return dataclasses.replace(row, video_id=PADDING_ID)
