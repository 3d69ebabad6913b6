"""Labelled sequences of vectors: frames of videos, readings of sensors, anything of shape (T, D) with a class."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tempclr.data.few_shot_frames import sample_frames
from tempclr.data.row_checks import check_text, feature_array
from tempclr.data.rows import load_rows
from tempclr.errors import InputError

__all__ = ["SequenceSet", "load_sequences", "save_sequences"]


@dataclass(frozen=True, eq=False)
class SequenceSet:
    """Sequences with their classes. Checks itself.

    Attributes:
        sequences: float32 arrays ``(T, D)``, of any lengths and one width.
        labels: the class of each, a word.
        names: the name of each, different from all others; None numbers them.

    Raises:
        InputError: naming the sequence and what was found in it.

    >>> walks = SequenceSet([np.zeros((5, 3)), np.ones((7, 3))], ["walk", "run"])
    >>> len(walks), walks.feature_size, walks.classes
    (2, 3, ['run', 'walk'])
    """

    sequences: Sequence[np.ndarray]
    labels: Sequence[str]
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        sequences = [_sequence(value, index) for index, value in enumerate(self.sequences)]
        labels = [str(label) for label in self.labels]
        names = [str(name) for name in (range(len(sequences)) if self.names is None else self.names)]
        if not sequences:
            raise InputError("holds no sequences")
        if not len(sequences) == len(labels) == len(names):
            given = f"{len(sequences)} sequences, {len(labels)} labels, {len(names)} names"
            raise InputError(f"every sequence needs one label and one name, got {given}")
        widths = {len(sequence[0]): name for sequence, name in zip(sequences, names, strict=True)}
        if len(widths) > 1:
            told = ", ".join(f"{width} ({name!r})" for width, name in widths.items())
            raise InputError(f"all sequences need one width, found {told}", field="features")
        if len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise InputError(f"{twice!r} names two sequences", field="video_id")
        for name, value in (("sequences", sequences), ("labels", labels), ("names", names)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def feature_size(self) -> int:
        """D, the width of every vector."""
        return self.sequences[0].shape[1]

    @property
    def lengths(self) -> list[int]:
        """T of each sequence."""
        return [len(sequence) for sequence in self.sequences]

    @property
    def classes(self) -> list[str]:
        """The different labels, sorted."""
        return sorted(set(self.labels))

    def of_classes(self, classes: Sequence[str]) -> SequenceSet:
        """The sequences of some classes.

        Raises:
            InputError: a class that no sequence has.
        """
        unknown = sorted(set(classes) - set(self.labels))
        if unknown:
            raise InputError(f"no sequence is of class {unknown[0]!r}", field="label")
        chosen = set(classes)
        return self.take([index for index, label in enumerate(self.labels) if label in chosen])

    def take(self, indices: Sequence[int]) -> SequenceSet:
        """The sequences at those positions, in that order."""
        names = self.names or ()
        return SequenceSet(
            [self.sequences[index] for index in indices],
            [self.labels[index] for index in indices],
            [names[index] for index in indices],
        )

    def sampled(self, num_frames: int, *, sampling: str = "tsn") -> SequenceSet:
        """Every sequence by ``num_frames`` of its vectors, by :func:`sample_frames`'s rule for tests."""
        taken = [
            sequence[sample_frames(len(sequence), num_samples=num_frames, sampling=sampling)]
            for sequence in self.sequences
        ]
        return replace(self, sequences=taken)

    def shuffled(self, *, seed: int) -> SequenceSet:
        """Every sequence with its vectors in a random order of its own."""
        rng = random.Random(seed)
        return replace(self, sequences=[seq[rng.sample(range(len(seq)), len(seq))] for seq in self.sequences])

    def padded(self) -> tuple[Tensor, Tensor]:
        """``(features, lengths)``: float32 ``(N, longest, D)``, zero behind each sequence, and int64 ``(N,)``."""
        return pad_sequences(self.sequences)


def pad_sequences(sequences: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Arrays ``(T, D)`` to one float32 tensor ``(N, longest, D)``, zero behind each, and their lengths ``(N,)``.

    >>> pad_sequences([np.ones((1, 2)), np.ones((3, 2))])[0].sum(dim=(1, 2))
    tensor([2., 6.])
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    features = torch.zeros(len(sequences), int(lengths.max()), sequences[0].shape[1])
    for row, sequence in zip(features, sequences, strict=True):
        row[: len(sequence)] = torch.from_numpy(np.ascontiguousarray(sequence, dtype=np.float32))
    return features, lengths


def load_sequences(source: str | PathLike[str], *, split: str | None = None) -> SequenceSet:
    """Read labelled sequences.

    Args:
        source: a ``.npz`` file with ``features`` ``(N, T, D)``, ``labels`` ``(N,)`` and, where they have them,
            ``lengths``, ``names`` and ``splits`` ``(N,)``; or a dataset that
            :func:`tempclr.data.row_files.load_rows` takes, whose rows have ``video_id``, ``label``, and ``features``
            or ``features_path`` (``.npy``, relative to the dataset's folder).
        split: which split, where there are several.

    Raises:
        InputError: not there, or a row without one of these; naming file, row and field.

    >>> load_sequences("gestures.npz", split="test").classes
    ['circle', 'wave']
    """
    path = Path(source)
    if path.suffix == ".npz":
        return _from_npz(path, split)
    rows = load_rows(source, split=split)
    folder = path if path.is_dir() else path.parent
    sequences, labels, names = [], [], []
    for index, row in enumerate(rows):
        try:
            for field in ("video_id", "label"):
                check_text(row.get(field), field)
            sequences.append(_row_features(row, folder))
        except InputError as error:
            message = str(error).removeprefix(f"field {error.field!r}: ")
            raise InputError(message, file=source, row=index, field=error.field) from error
        labels.append(row["label"])
        names.append(row["video_id"])
    return SequenceSet(sequences, labels, names)


def save_sequences(path: str | PathLike[str], splits: Mapping[str, SequenceSet]) -> None:
    """Write sequences to a ``.npz`` file that :func:`load_sequences` reads, whole or not at all.

    >>> gestures = load_sequences("gestures.npz", split="test")
    >>> save_sequences("waves.npz", {"test": gestures.of_classes(["wave"])})
    """
    from tempclr.data.files import atomic_path

    features, lengths = pad_sequences([sequence for part in splits.values() for sequence in part.sequences])
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            features=features.numpy(),
            lengths=lengths.numpy(),
            labels=np.array([label for part in splits.values() for label in part.labels]),
            names=np.array([name for part in splits.values() for name in part.names or ()]),
            splits=np.array([split for split, part in splits.items() for _ in part.labels]),
        )


def _sequence(value: Any, index: int) -> np.ndarray:
    try:
        return feature_array(value)
    except InputError as error:
        raise InputError(f"sequence {index}: {str(error).partition(': ')[2]}", field="features") from error


def _row_features(row: Mapping[str, Any], folder: Path) -> np.ndarray:
    if row.get("features") is not None:
        return feature_array(row["features"])
    if row.get("features_path") is None:
        raise InputError("missing: expected features or features_path", field="features")
    file = folder / row["features_path"]
    try:
        return feature_array(np.load(file, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}", field="features_path") from error


def _from_npz(path: Path, split: str | None) -> SequenceSet:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as .npz: {error}", file=path) from error
    missing = [name for name in ("features", "labels") if name not in found]
    if missing or found["features"].ndim != 3:
        what = f"has no {missing[0]!r}" if missing else f"features are {found['features'].shape}, expected (N, T, D)"
        raise InputError(f"{what}; it needs features (N, T, D) and labels (N,)", file=path)
    features, labels = found["features"], found["labels"]
    counts = {name: len(array) for name, array in found.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"every array needs one entry a sequence, found {counts}", file=path)
    chosen = _of_split(path, found, split)
    lengths = found.get("lengths", np.full(len(features), features.shape[1]))
    names = list(found["names"][chosen]) if "names" in found else None
    try:
        sequences = [features[index][: lengths[index]] for index in chosen]
        return SequenceSet(sequences, [labels[index] for index in chosen], names)
    except InputError as error:
        raise InputError(str(error), file=path) from error


def _of_split(path: Path, found: Mapping[str, np.ndarray], split: str | None) -> list[int]:
    """Positions of the sequences of that split."""
    of = found.get("splits", np.array([])).tolist()
    names = ", ".join(sorted(set(of))) or "none"
    if split is None and len(set(of)) > 1:
        raise InputError(f"holds the splits {names}; say which", file=path, field="split")
    if split is None:
        return list(range(len(found["labels"])))
    chosen = [index for index, name in enumerate(of) if name == split]
    if not chosen:
        raise InputError(f"has no split {split!r}, only {names}", file=path, field="split")
    return chosen
