"""Diving48, V1 and V2: ``Diving48_V2_train.json`` and ``Diving48_V2_test.json``, or the same without ``V2_``.

A file is a list of ``{"vid_name", "label", "start_frame", "end_frame"}``; V2 trains on 15,027 videos and tests on
1,970, with 47 of 48 classes (none is 30). ``Diving48_vocab.json`` names each class by take-off, somersaults, twists and
position. Videos are ``<vid_name>.mp4``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.readers.action_preparation import ActionReading, ListedVideo
from tempclr.data.readers.official_files import find_files, read_json
from tempclr.data.readers.records import Findings, as_id, as_list, as_object, as_text, field_of
from tempclr.data.row_checks import shortened
from tempclr.errors import InputError

VOCABULARY = "Diving48_vocab.json"
_FILES = {
    "v1": {"Diving48_train.json": "train", "Diving48_test.json": "test"},
    "v2": {"Diving48_V2_train.json": "train", "Diving48_V2_test.json": "test"},
}
OFFICIAL_SIZES = {"v1": {}, "v2": {"train": 15027, "test": 1970}}
NUM_CLASSES = 48


def read_diving48(annotations: Sequence[str | PathLike[str]], *, version: str = "v2") -> ActionReading:
    """The listed videos, splits ``train`` and ``test``.

    A label is the words of ``Diving48_vocab.json`` where that is given or lies in the folder, otherwise the number of
    the class in two digits.

    Args:
        annotations: the JSON files, or their folder.
        version: ``"v1"`` or ``"v2"``: the labels were corrected for V2.

    Raises:
        InputError: a file that is not there, or of the other version.
    """
    if version not in _FILES:
        raise InputError(f"version must be v1 or v2, got {version!r}")
    names = _FILES[version]
    files = find_files(annotations, (*names, VOCABULARY))
    for file in files:
        if file.name not in names and file.name != VOCABULARY:
            raise InputError(f"is not a list of {version}: expected {', '.join(names)} or {VOCABULARY}", file=file)
    if not any(file.name in names for file in files):
        raise InputError(f"no list of {version}: expected {' or '.join(names)}")

    def scan(findings: Findings) -> Iterator[ListedVideo]:
        words = next((_words(file) for file in files if file.name == VOCABULARY), None)
        for file in files:
            if file.name in names:
                yield from _videos(file, names[file.name], words, findings)

    return ActionReading(tuple(files), scan, OFFICIAL_SIZES[version], {"version": version})


def _words(file: Path) -> list[str]:
    """What each class is called."""
    try:
        classes = as_list(read_json(file), "vocabulary", length=NUM_CLASSES)
        return [" ".join(as_text(word, "vocabulary") for word in as_list(each, "vocabulary")) for each in classes]
    except InputError as error:
        raise error if error.file is not None else InputError(str(error), file=file) from None


def _videos(file: Path, split: str, words: Sequence[str] | None, findings: Findings) -> Iterator[ListedVideo]:
    entries: Any = read_json(file)
    if not isinstance(entries, list):
        raise InputError(f"expected a JSON list, found a {type(entries).__name__}", file=file)
    for number, entry in enumerate(entries):
        record = f"entry {number}"
        with findings.at(file, record):
            values = as_object(entry)
            video_id = as_id(field_of(values, "vid_name"), "vid_name")
            label = field_of(values, "label")
            if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < NUM_CLASSES:
                raise InputError(
                    f"expected a class from 0 to {NUM_CLASSES - 1}, found {shortened(label)}", field="label"
                )
            yield ListedVideo(video_id, split, f"{label:02d}" if words is None else words[label], file, record)
