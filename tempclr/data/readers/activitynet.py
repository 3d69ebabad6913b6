"""ActivityNet-Captions: ``train.json``, ``val_1.json`` and ``val_2.json``.

Each is ``{video_id: {"duration", "timestamps": [[start, end]], "sentences": [text]}}`` in seconds; the two validation
files describe the same videos in other words. Checked against entries of the two validation files, not whole ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.readers.official_files import find_files, read_json_object
from tempclr.data.readers.records import (
    AnnotatedSentence,
    AnnotatedVideo,
    Findings,
    Reading,
    as_id,
    as_list,
    as_object,
    as_seconds,
    as_span,
    as_text,
    field_of,
)
from tempclr.errors import InputError

FILES = {"train.json": "train", "val_1.json": "val_1", "val_2.json": "val_2"}


def read_activitynet(annotations: Sequence[str | PathLike[str]]) -> Reading:
    """The videos of ActivityNet-Captions, splits ``train``, ``val_1`` and ``val_2``.

    Args:
        annotations: the JSON files, or their folder.

    Raises:
        InputError: no such file, or one whose name is not official.
    """
    files = find_files(annotations, tuple(FILES))
    for file in files:
        if file.name not in FILES:
            raise InputError(f"cannot tell the split: expected a file named {', '.join(FILES)}", file=file)

    def scan(findings: Findings) -> Iterator[AnnotatedVideo]:
        for file in files:
            yield from _videos(file, FILES[file.name], findings)

    return Reading(tuple(files), scan)


def _videos(file: Path, split: str, findings: Findings) -> Iterator[AnnotatedVideo]:
    entries = read_json_object(file)
    if not entries:
        raise InputError("holds no videos", file=file)
    entries.report_repeated(file, findings, "video")
    for video_id, entry in entries.items():
        sentences: list[AnnotatedSentence] = []
        with findings.at(file, f"video {video_id!r}"):
            as_id(video_id)
            sentences = _sentences(file, video_id, as_object(entry), findings)
        if sentences:
            yield AnnotatedVideo(video_id, split, tuple(sentences), file)


def _sentences(file: Path, video_id: str, entry: Any, findings: Findings) -> list[AnnotatedSentence]:
    duration = as_seconds(field_of(entry, "duration"), "duration")
    times = as_list(field_of(entry, "timestamps"), "timestamps")
    texts = as_list(field_of(entry, "sentences"), "sentences", length=len(times))
    if not times:
        raise InputError("has no sentences", field="sentences")
    sentences = []
    for number, (span, text) in enumerate(zip(times, texts, strict=True)):
        record = f"video {video_id!r}, sentence {number}"
        with findings.at(file, record):
            start, end = as_span(span, "timestamps", duration=duration)
            sentences.append(AnnotatedSentence(as_text(text, "sentences"), start, end, record))
    return sentences
