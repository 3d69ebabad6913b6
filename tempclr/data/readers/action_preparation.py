"""Official lists of labelled videos to rows of ``video_id, video, label, split``."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.files import atomic_path, check_output_folder
from tempclr.data.readers.official_files import sha256_of
from tempclr.data.readers.records import Findings, as_id
from tempclr.errors import InputError

REPORT = "report.json"


@dataclass(frozen=True)
class ListedVideo:
    """One video of an official list.

    Attributes:
        video_id: its id.
        split: ``train``, ``validation`` or ``test``.
        label: its class, None where the list does not tell.
        file, record: where it is listed, for messages.
        other_names: further names, without suffix, that its file may bear.
    """

    video_id: str
    split: str
    label: str | None
    file: Path
    record: str
    other_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ActionReading:
    """The official files of a corpus, found, and a way to go through their videos.

    Attributes:
        files: what the lists are made of.
        scan: goes through the listed videos in one fixed order.
        official_sizes: how many videos each split has officially, where that is known.
        options: what the reader was told, as JSON values.
    """

    files: tuple[Path, ...]
    scan: Callable[[Findings], Iterator[ListedVideo]]
    official_sizes: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ActionReport:
    """What :func:`prepare_actions` did; the same is in ``report.json``.

    Attributes:
        corpus: its name.
        splits: for each split ``num_videos`` and ``num_labels`` of the rows, and ``num_listed``.
        without_media: ids of listed videos without a file, by split.
        reasons: one line for each record left out under ``skip_bad_rows``.
        notes: what was left out by rule, and splits whose lists have another size than officially; counted.
        labels: all classes of the rows, sorted.
        options, sha256_of_annotations: what the rows were made of.
    """

    corpus: str
    splits: dict[str, dict[str, int]]
    without_media: dict[str, list[str]]
    reasons: list[str]
    notes: dict[str, int]
    labels: list[str]
    options: dict[str, Any]
    sha256_of_annotations: str


def prepare_actions(
    reading: ActionReading,
    *,
    corpus: str,
    output_dir: str | PathLike[str],
    videos: str | PathLike[str] | None,
    splits: Sequence[str] | None = None,
    skip_bad_rows: bool = False,
) -> ActionReport:
    """Write ``<split>.jsonl`` and ``report.json`` into a folder, which appears when it is whole.

    :func:`tempclr.data.action_videos.read_action_videos` reads it.

    Args:
        reading: what the reader of the corpus gives.
        corpus: its name.
        output_dir: a new folder, or one prepared before from the same corpus, which is replaced.
        videos: folder of video files, sub-folders included.
        splits: only these.
        skip_bad_rows: leave bad records out, and list them; otherwise the first one stops the run.

    Raises:
        InputError: no videos, a bad record, or other things in the output folder.

    Videos without a file are left out, counted and listed in the report, whatever the options.
    """
    output = Path(output_dir).absolute()
    _check_output(output, corpus)
    findings = Findings(skip_bad_rows=skip_bad_rows)
    listed = list(_checked(reading, findings, splits))
    files = _Files(videos) if videos is not None else None
    if files is None or not any(files.of(video) for video in listed):
        raise InputError(_what_is_needed(listed, files))
    rows: dict[str, list[dict[str, str | None]]] = {}
    without_media: dict[str, list[str]] = {}
    for video in listed:
        with findings.at(video.file, video.record):
            found = files.path(video)
            if found is None:
                without_media.setdefault(video.split, []).append(video.video_id)
                continue
            row: dict[str, str | None] = {
                "video_id": video.video_id,
                "video": Path(os.path.relpath(found, output)).as_posix(),
            }
            rows.setdefault(video.split, []).append(row | {"label": video.label, "split": video.split})
    counts = Counter(video.split for video in listed)
    for split, official in reading.official_sizes.items():
        if split in counts and counts[split] != official:
            findings.note(f"videos listed for {split}, where the corpus has {official}", counts[split])
    report = ActionReport(
        corpus=corpus,
        splits={split: _totals(rows[split], counts[split]) for split in rows},
        without_media=without_media,
        reasons=findings.reasons,
        notes=dict(sorted(findings.notes.items())),
        labels=sorted({row["label"] for each in rows.values() for row in each if row["label"] is not None}),
        options=dict(reading.options) | {"splits": None if splits is None else sorted(splits)},
        sha256_of_annotations=sha256_of(reading.files),
    )
    _write(output, rows, report)
    return report


def _checked(reading: ActionReading, findings: Findings, splits: Sequence[str] | None) -> Iterator[ListedVideo]:
    """The listed videos of the wanted splits, none twice in a split or with two labels."""
    seen: dict[tuple[str, str], str | None] = {}
    met = set()
    for video in reading.scan(findings):
        met.add(video.split)
        if splits is not None and video.split not in splits:
            continue
        with findings.at(video.file, video.record):
            as_id(video.video_id)
            known = seen.get((video.split, video.video_id), video)
            if known is not video:
                again = "a second time" if known == video.label else f"as {video.label!r}, before as {known!r}"
                raise InputError(f"{video.video_id} is listed {again}", field="video_id")
            seen[video.split, video.video_id] = video.label
            yield video
    for split in splits or ():
        if split not in met:
            raise InputError(f"the files have no split {split!r}; they have {', '.join(sorted(met)) or 'none'}")


class _Files:
    """Video files of a folder by their names without suffix; of several, the one in the folder of its class counts."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        from tempclr.data.features import VIDEO_SUFFIXES  # brings PyTorch and the backbones with it

        if not Path(folder).is_dir():
            raise InputError("no such folder", file=folder)
        self.folder = Path(folder).absolute()
        self._paths: dict[str, list[Path]] = {}
        for place, folders, names in os.walk(self.folder):
            folders.sort()
            for path in (Path(place, name) for name in sorted(names)):
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    self._paths.setdefault(path.name.removesuffix(path.suffix), []).append(path)

    def of(self, video: ListedVideo) -> list[Path]:
        """All files that may be the video's, under the first of its names that any bears."""
        names = (video.video_id, *video.other_names)
        return next((self._paths[name] for name in names if name in self._paths), [])

    def path(self, video: ListedVideo) -> Path | None:
        found = self.of(video)
        if len(found) > 1 and video.label is not None:
            found = [path for path in found if _folded(path.parent.name) == _folded(video.label)] or found
        if len(found) > 1:
            raise InputError(f"{len(found)} files bear this id: {', '.join(map(str, found[:3]))}; keep one")
        return found[0] if found else None


def _folded(name: str) -> str:
    return name.replace("_", " ").casefold()


def _what_is_needed(listed: Sequence[ListedVideo], files: _Files | None) -> str:
    counts = Counter(video.split for video in listed)
    told = ", ".join(f"{split} {count} videos" for split, count in counts.items()) or "no video"
    example = listed[0].video_id if listed else "<video_id>"
    if files is None:
        return (
            f"the lists are good ({told}); rows need the videos, such as {example}.avi: give their folder as --videos"
        )
    return f"{files.folder} has none of the listed videos ({told}): expected files such as {example}.avi or .mp4"


def _totals(rows: Sequence[Mapping[str, str | None]], num_listed: int) -> dict[str, int]:
    num_labels = len({row["label"] for row in rows} - {None})
    return {"num_videos": len(rows), "num_labels": num_labels, "num_listed": num_listed}


def _check_output(output: Path, corpus: str) -> None:
    check_output_folder(output)
    if not output.is_dir() or not any(output.iterdir()):
        return
    try:
        found = json.loads((output / REPORT).read_text(encoding="utf-8")).get("corpus")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != corpus:
        raise InputError("holds other things; choose an empty folder", file=output)


def _write(output: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], report: ActionReport) -> None:
    """All files beside the output, then the folder gets its name in one step."""
    working, old = (output.with_name(f".{output.name}.{what}") for what in ("preparing", "replaced"))
    for folder in (working, old):
        shutil.rmtree(folder, ignore_errors=True)
    for split, each in rows.items():
        with atomic_path(working / f"{split}.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in each), encoding="utf-8")
    with atomic_path(working / REPORT) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if output.exists():
        os.replace(output, old)
    os.replace(working, output)
    shutil.rmtree(old, ignore_errors=True)
