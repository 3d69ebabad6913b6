"""Split files of few-shot action recognition, and the videos on disk that their lines mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from tempclr.data.few_shot_frames import IMAGE_SUFFIXES
from tempclr.errors import InputError

__all__ = ["SplitEntry", "find_videos", "read_split", "read_splits"]

SPLITS = ("train", "val", "test")
SPLIT_SUFFIXES = (".txt", ".list")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".ts")
_KINETICS = re.compile(r"(.{11})_\d{6}_\d{6}")


@dataclass(frozen=True)
class SplitEntry:
    """One line of a split file: a class and a video of it, by their names there."""

    label: str
    video: str


def read_split(path: str | PathLike[str]) -> list[SplitEntry]:
    """Read one split file, a video a line, in any of the public forms.

    * ``class/video``: CMN's lists of Kinetics and of Something-Something, the ARN splits of UCF101 and HMDB51. A class
      may itself hold a slash: the last one separates.
    * ``train8/78687``: the split of OTAM for Something-Something V2, whose classes are numbered.
    * ``test0//videos/class/video.avi``: two slashes separate the class from a path.

    Raises:
        InputError: the file cannot be read or is empty, or a line has no class or comes twice; naming the line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "val.txt").write_text("val2/188509\\n")
    ...     read_split(f"{folder}/val.txt")
    [SplitEntry(label='val2', video='188509')]
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as a split file: {error}", file=path) from error
    entries: dict[SplitEntry, int] = {}
    for row, line in enumerate(lines):
        if not line.strip():
            continue
        entry = _entry(line.strip())
        if entry is None:
            raise InputError(f"expected class/video, found {line!r}", file=path, row=row)
        if entry in entries:
            raise InputError(f"{line!r} stands in row {entries[entry]} already", file=path, row=row)
        entries[entry] = row
    if not entries:
        raise InputError("holds no videos", file=path)
    return list(entries)


def read_splits(folder: str | PathLike[str]) -> dict[str, list[SplitEntry]]:
    """The splits of a folder, ``train``, ``val`` and ``test``, as far as they are there (``.txt`` or ``.list``).

    Raises:
        InputError: none is there, or a class stands in two of them: few-shot classes must be new.
    """
    files = {
        name: file for name in SPLITS for suffix in SPLIT_SUFFIXES if (file := Path(folder, name + suffix)).is_file()
    }
    if not files:
        raise InputError(f"holds no split files: expected {', '.join(SPLITS)} with .txt or .list", file=folder)
    splits = {name: read_split(file) for name, file in files.items()}
    split_of: dict[str, str] = {}
    for name, entries in splits.items():
        for label in dict.fromkeys(entry.label for entry in entries):
            if label in split_of:
                raise InputError(f"class {label!r} stands in {split_of[label]} and in {name}", file=folder)
            split_of[label] = name
    return splits


def find_videos(
    root: str | PathLike[str], entries: Iterable[SplitEntry]
) -> tuple[dict[SplitEntry, Path], list[SplitEntry]]:
    """Where each video lies under ``root``: a file, or a folder of its frames as images.

    Sought as ``class/video`` and then as ``video`` alone, at any depth, without regard to suffix or case, blanks as
    underscores; by its name alone an entry never gets what another one has by class and name. A Kinetics video is also
    found under the 11 characters of its id.

    Returns:
        ``(found, missing)``.

    Raises:
        InputError: ``root`` is no folder, or a name fits several videos.

    >>> find_videos("videos/", read_split("test.txt"))  # doctest: +SKIP
    """
    if not Path(root).is_dir():
        raise InputError("no such folder of videos", file=root)
    index = _index(Path(root))
    wanted = list(entries)
    places = {entry: _places(index, entry, with_class=True) for entry in wanted}
    taken = {path for of_entry in places.values() for path in of_entry}
    for entry in (entry for entry in wanted if not places[entry]):
        places[entry] = [path for path in _places(index, entry, with_class=False) if path not in taken]
    for entry, of_entry in places.items():
        if len(of_entry) > 1:
            names = f"{of_entry[0]} and {of_entry[1]}"
            raise InputError(f"{entry.label}/{entry.video} may be {names}: leave one", file=root)
    found = {entry: of_entry[0] for entry, of_entry in places.items() if of_entry}
    return found, [entry for entry in wanted if entry not in found]


def _entry(line: str) -> SplitEntry | None:
    label, double_slash, rest = line.partition("//")
    if double_slash:
        video = Path(rest).stem if Path(rest).suffix.lower() in VIDEO_SUFFIXES else Path(rest).name
    else:
        label, _, video = line.rpartition("/")
    return SplitEntry(label, video) if label and video else None


def _index(root: Path) -> Mapping[str, Sequence[Path]]:
    """Every video under ``root`` by its name, and by its parent's and its own; a folder of images is a video."""
    index: dict[str, list[Path]] = {}

    def add(path: Path, name: str) -> None:
        for key in (name, f"{path.parent.name}/{name}"):
            index.setdefault(_normal(key), []).append(path)

    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        if Path(folder) != root and any(Path(file).suffix.lower() in IMAGE_SUFFIXES for file in files):
            add(Path(folder), Path(folder).name)
        for file in sorted(files):
            if Path(file).suffix.lower() in VIDEO_SUFFIXES:
                add(Path(folder, file), Path(file).stem)
    return index


def _places(index: Mapping[str, Sequence[Path]], entry: SplitEntry, *, with_class: bool) -> Sequence[Path]:
    folder = entry.label.rpartition("/")[2] + "/" if with_class else ""
    short = _KINETICS.fullmatch(entry.video)
    names = [entry.video] if short is None else [entry.video, short[1]]
    keys = (_normal(folder + name) for name in names)
    return next((index[key] for key in keys if key in index), [])


def _normal(name: str) -> str:
    return name.replace(" ", "_").lower()
