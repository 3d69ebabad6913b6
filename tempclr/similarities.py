"""How close vectors or sequences are, from cosines and dot products to the distances of sequences in time order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tempclr.errors import InputError

__all__ = ["SEQUENCE_MEASURES", "UNIT_MEASURES", "similarity"]

UNIT_MEASURES = ("cosine", "dot")
SEQUENCE_MEASURES = ("dtw", "otam", "cap_avg")


def similarity(
    a: Any,
    b: Any,
    *,
    measure: str = "cosine",
    unit_similarity: str = "cosine",
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> Tensor:
    """How close every a is to every b, higher is closer: (num_a, num_b).

    Measures "cosine" and "dot" compare vectors, (num_a, d) with (num_b, d). "dtw", "otam" (both ways) and "cap_avg"
    compare sequences: lists of (length, d) tensors (one such tensor is a list of one), whose units are compared by
    ``unit_similarity``; their similarity is the negative distance; ``batch_size`` sequences of a are compared at a
    time. Tensors or NumPy arrays; lists may be empty.

    Raises:
        InputError: an unknown measure, a batch size below 1, or vectors where sequences belong and the reverse.

    >>> similarity(torch.eye(2), torch.eye(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    if measure in UNIT_MEASURES:
        from tempclr.costs import cost_matrix

        if len(a) == 0 or len(b) == 0:
            return torch.zeros(len(a), len(b))
        return 1 - cost_matrix(_vectors(a, measure), _vectors(b, measure), similarity=measure)
    if measure not in SEQUENCE_MEASURES:
        raise InputError(f"measure must be one of {', '.join(UNIT_MEASURES + SEQUENCE_MEASURES)}, got {measure!r}")
    from tqdm.auto import tqdm

    from tempclr_kernels import pairwise_distances

    check_batch_size(batch_size)
    a, b = _sequences(a, measure), _sequences(b, measure)
    if not a or not b:
        return torch.zeros(len(a), len(b))
    (padded_a, lengths_a), (padded_b, lengths_b) = _padded(a), _padded(b)
    options: dict[str, Any] = {"measure": measure, "both_ways": measure == "otam", "similarity": unit_similarity}
    parts = []
    with tqdm(total=len(a), desc="similarity", disable=not show_progress_bar) as progress:
        for some, lengths in zip(padded_a.split(batch_size), lengths_a.split(batch_size), strict=True):
            parts.append(-pairwise_distances(some, padded_b, lengths, lengths_b, **options))
            progress.update(len(some))
    return torch.cat(parts)


def check_batch_size(batch_size: int) -> None:
    """Raise an InputError for a batch size below 1."""
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")


def _vectors(values: Any, measure: str) -> Tensor:
    if isinstance(values, (list, tuple)):
        if len({np.shape(one) for one in values}) > 1 or np.ndim(values[0]) != 1:
            raise InputError(f"{measure!r} compares vectors, got a list of sequences: dtw, otam and cap_avg take those")
        values = torch.stack([torch.as_tensor(one) for one in values])
    vectors = torch.as_tensor(values).detach().float()
    if vectors.ndim != 2:
        raise InputError(f"{measure!r} compares vectors, (n, d); got shape {tuple(vectors.shape)}")
    return vectors


def _sequences(values: Any, measure: str) -> list[Tensor]:
    several = [values] if getattr(values, "ndim", None) == 2 else values
    sequences = [torch.as_tensor(one).detach().float() for one in several]
    for index, sequence in enumerate(sequences):
        if sequence.ndim != 2 or len(sequence) == 0:
            shape = tuple(sequence.shape)
            raise InputError(f"{measure!r} compares sequences, non-empty (length, d); entry {index} has shape {shape}")
    return sequences


def _padded(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=sequences[0].device)
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True), lengths
