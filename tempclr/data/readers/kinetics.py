"""Kinetics-400, -600 and -700: CSV files with ``label, youtube_id, time_start, time_end, split``, one a split.

Kinetics-400 has a column ``is_cc`` more; test files may have no labels. Files are
``<youtube_id>_<start>_<end>.mp4``, times in whole seconds of six digits, in folders by class or not. Many videos are no
longer to be had: those without a file are counted and listed. Classes are numbered in the order of their sorted names,
which the model keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from tempclr.data.readers.action_preparation import ActionReading, ListedVideo
from tempclr.data.readers.official_files import find_files, read_csv
from tempclr.data.readers.records import Findings, as_choice, as_id, as_number, as_seconds, as_text, field_of
from tempclr.errors import InputError

FILES = ("train.csv", "val.csv", "validate.csv", "validation.csv", "test.csv")
_SPLITS = {"train": "train", "val": "validation", "validate": "validation", "validation": "validation", "test": "test"}


def read_kinetics(annotations: Sequence[str | PathLike[str]]) -> ActionReading:
    """The listed videos, splits ``train``, ``validation`` and ``test``.

    Args:
        annotations: the CSV files, of any name, or their folder with ``train.csv``, ``val.csv`` or ``validate.csv``,
            ``test.csv``.

    Raises:
        InputError: a file that is not there.
    """
    files = find_files(annotations, FILES)

    def scan(findings: Findings) -> Iterator[ListedVideo]:
        for file in files:
            yield from _videos(file, findings)

    return ActionReading(tuple(files), scan)


def _videos(file: Path, findings: Findings) -> Iterator[ListedVideo]:
    for number, row in enumerate(read_csv(file), start=1):
        record = f"row {number}"
        with findings.at(file, record):
            youtube_id = as_id(field_of(row, "youtube_id"), "youtube_id")
            start, end = (as_seconds(as_number(field_of(row, name), name), name) for name in ("time_start", "time_end"))
            if end <= start:
                raise InputError(f"must end after its start: [{start}, {end})", field="time_end")
            split = as_choice(field_of(row, "split"), "split", _SPLITS)
            label = as_text(row["label"], "label") if row.get("label") or split != "test" else None
            name = f"{youtube_id}_{int(start):06d}_{int(end):06d}"
            yield ListedVideo(name, split, label, file, record, (youtube_id,))
