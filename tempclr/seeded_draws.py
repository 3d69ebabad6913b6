"""Random numbers that depend on a row's own seed alone: not on the rows beside it, on padding, device or ranks."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SeededDraws"]

_LOW = 2**32 - 1


# Note [Draws by counting]: a generator's numbers depend on how many were drawn before, and so on the batch and its
# padding. Here each number is a hash of (seed of the row, how often was drawn, negative, place): two ranks draw for
# their rows what one process draws for all, and a video keeps its negatives whatever it is batched with. All values
# stay below 2^32 and the multiplier below 2^27, so that 64 bits never overflow, compiled or not.


class SeededDraws:
    """Uniform numbers for the rows of a batch, each by its own seed; every call gives new ones.

    Args:
        seeds: (B,) int64, at least 0; they are on the device that the numbers are wanted on.
        num_rows: B, to compare.

    Raises:
        ValueError: seeds of another shape or dtype.

    >>> alone, beside = SeededDraws(torch.tensor([7])), SeededDraws(torch.tensor([3, 7]))
    >>> torch.equal(alone.uniform((1, 2))[0], beside.uniform((2, 5))[1, :2])
    True
    """

    def __init__(self, seeds: Tensor, *, num_rows: int | None = None):
        num_rows = len(seeds) if num_rows is None else num_rows
        if seeds.shape != (num_rows,) or seeds.dtype != torch.int64:
            raise ValueError(f"order_seeds must be ({num_rows},) int64, got {tuple(seeds.shape)} {seeds.dtype}")
        self._rows = _hashed_seeds(seeds)
        self._num_calls = 0

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """float32 in [0, 1), 24 bits each; ``shape`` begins with B. A longer dimension begins with the same numbers."""
        self._num_calls += 1
        value = _hash(self._rows ^ self._num_calls)
        for size in shape[1:]:
            value = _hash(value[..., None] ^ torch.arange(size, device=value.device))
        return _to_unit(value)

    def uniform_between(self, others: Tensor | None) -> Tensor:
        """(B, V) numbers of each row with each of V others, by the seeds of both; None: the rows themselves."""
        self._num_calls += 1
        columns = self._rows if others is None else _hashed_seeds(others)
        return _to_unit(_hash(_hash(self._rows ^ self._num_calls)[:, None] ^ columns))


def _hashed_seeds(seeds: Tensor) -> Tensor:
    return _hash(_hash(seeds & _LOW) ^ (seeds >> 32))


def _hash(value: Tensor) -> Tensor:
    """A permutation of the numbers below 2^32 whose every bit depends on all."""
    for _ in range(3):
        value = ((value >> 16) ^ value) * 0x45D9F3B & _LOW
    return (value >> 16) ^ value


def _to_unit(value: Tensor) -> Tensor:
    return (value >> 8).float() / 2**24
