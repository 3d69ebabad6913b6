"""UCF101: the folder ``ucfTrainTestlist`` with ``classInd.txt``, ``trainlist01.txt``, ``testlist01.txt`` and so on.

``classInd.txt`` numbers 101 classes from 1; a training list has ``Class/v_Class_g01_c01.avi NUMBER`` a line, a test
list the path alone; lines end as in Windows. Of the 13,320 videos the three folds train on 9,537, 9,586 and 9,624 and
test on the others. The class is the folder's: files of HandstandPushups are named ``v_HandStandPushups_…``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath

from tempclr.data.readers.action_preparation import ActionReading, ListedVideo
from tempclr.data.readers.official_files import find_files, read_lines
from tempclr.data.readers.records import Findings, as_choice
from tempclr.errors import InputError

CLASSES = "classInd.txt"
OFFICIAL_SIZES = {
    1: {"train": 9537, "test": 3783},
    2: {"train": 9586, "test": 3734},
    3: {"train": 9624, "test": 3696},
}


def read_ucf101(annotations: Sequence[str | PathLike[str]], *, fold: int = 1) -> ActionReading:
    """The videos of one fold, splits ``train`` and ``test``.

    Args:
        annotations: the folder with the lists, or the files of one fold.
        fold: 1, 2 or 3.

    Raises:
        InputError: a file that is not there, or another fold.
    """
    if fold not in OFFICIAL_SIZES:
        raise InputError(f"fold must be 1, 2 or 3, got {fold}")
    lists = {f"{split}list{fold:02d}.txt": split for split in ("train", "test")}
    files = find_files(annotations, (CLASSES, *lists))
    found = {file.name: file for file in files}
    for name in found:
        if name not in lists and name != CLASSES:
            raise InputError(
                f"is not a list of fold {fold}: expected {', '.join(lists)} or {CLASSES}", file=found[name]
            )
    if not set(found) & set(lists):
        raise InputError(f"expected {' or '.join(lists)}, found {', '.join(found)}")

    def scan(findings: Findings) -> Iterator[ListedVideo]:
        classes = dict(_classes(found[CLASSES], findings)) if CLASSES in found else None
        for name, split in lists.items():
            if name in found:
                yield from _videos(found[name], split, classes, findings)

    return ActionReading(tuple(files), scan, OFFICIAL_SIZES[fold], {"fold": fold})


def _classes(file: Path, findings: Findings) -> Iterator[tuple[str, str]]:
    """Names of the classes by their number, as written."""
    for number, line in enumerate(read_lines(file), start=1):
        with findings.at(file, f"entry {number}"):
            parts = line.split()
            if len(parts) != 2 or not parts[0].isdecimal():
                raise InputError(f"expected a number and a class, found {line!r}")
            yield parts[0], parts[1]


def _videos(file: Path, split: str, classes: dict[str, str] | None, findings: Findings) -> Iterator[ListedVideo]:
    by_folded = None if classes is None else {name.casefold(): name for name in classes.values()}
    for number, line in enumerate(read_lines(file), start=1):
        record = f"entry {number}"
        with findings.at(file, record):
            path, _, class_number = line.partition(" ")
            place = PurePosixPath(path)
            if len(place.parts) != 2:
                raise InputError(f"expected Class/video.avi, found {line!r}")
            label = place.parts[0]
            if by_folded is not None:
                label = as_choice(label.casefold(), "label", by_folded)
            if class_number.strip() and classes is not None and classes.get(class_number.strip()) != label:
                raise InputError(f"class {class_number.strip()} is not {label} in {CLASSES}", field="label")
            yield ListedVideo(place.stem, split, label, file, record)
