"""HMDB51: the folder of 153 files ``<class>_test_split<1, 2 or 3>.txt``.

A line is ``<video>.avi <number>``, then a space: 1 trains, 2 tests, 0 is in neither. Each fold lists all 6,766 videos,
of which 3,570 train and 1,530 test, 70 and 30 of each of the 51 classes. Names hold brackets, signs and points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from tempclr.data.readers.action_preparation import ActionReading, ListedVideo
from tempclr.data.readers.official_files import read_lines
from tempclr.data.readers.records import Findings
from tempclr.errors import InputError

OFFICIAL_SIZES = {"train": 3570, "test": 1530}
_NAME = re.compile(r"(?P<label>.+)_test_split(?P<fold>[123])\.txt")
_SPLITS = {"1": "train", "2": "test", "0": None}


def read_hmdb51(annotations: Sequence[str | PathLike[str]], *, fold: int = 1) -> ActionReading:
    """The videos of one fold, splits ``train`` and ``test``; those in neither are counted.

    Args:
        annotations: the folder with the lists, or files.
        fold: 1, 2 or 3.

    Raises:
        InputError: a file that is not there, no list of the fold, or another fold.
    """
    if fold not in (1, 2, 3):
        raise InputError(f"fold must be 1, 2 or 3, got {fold}")
    lists = dict(_lists(annotations, fold))
    if not lists:
        raise InputError(f"no list of fold {fold}: expected files such as brush_hair_test_split{fold}.txt")

    def scan(findings: Findings) -> Iterator[ListedVideo]:
        for file, label in lists.items():
            yield from _videos(file, label, findings)

    return ActionReading(tuple(lists), scan, OFFICIAL_SIZES, {"fold": fold})


def _lists(annotations: Sequence[str | PathLike[str]], fold: int) -> Iterator[tuple[Path, str]]:
    for path in map(Path, annotations):
        if not path.exists():
            raise InputError("no such file or folder", file=path)
        for file in sorted(path.rglob("*.txt")) if path.is_dir() else [path]:
            match = _NAME.fullmatch(file.name)
            if match is None and not path.is_dir():
                raise InputError("is not a list of HMDB51: expected <class>_test_split<1, 2 or 3>.txt", file=file)
            if match is not None and int(match["fold"]) == fold:
                yield file, match["label"]


def _videos(file: Path, label: str, findings: Findings) -> Iterator[ListedVideo]:
    for number, line in enumerate(read_lines(file), start=1):
        record = f"entry {number}"
        with findings.at(file, record):
            name, _, part = line.rpartition(" ")
            if part not in _SPLITS or not name.strip():
                raise InputError(f"expected a video and 0, 1 or 2, found {line!r}")
            split = _SPLITS[part]
            if split is None:
                findings.note("videos in neither training nor test")
                continue
            yield ListedVideo(name.strip().removesuffix(".avi"), split, label, file, record)
