"""COIN: ``COIN.json``.

``{"database": {video_id: {"subset", "class", "recipe_type", "duration", "start", "end", "annotation": [{"id", "label",
"segment"}]}}}``: ``class`` is the task, ``id`` the number of the step in the corpus's taxonomy. Written from the format
that the corpus's own documentation describes, with its example entry; no whole file was at hand to check against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.readers.official_files import only_file, read_database
from tempclr.data.readers.records import (
    AnnotatedSentence,
    AnnotatedVideo,
    Findings,
    Reading,
    as_choice,
    as_id,
    as_list,
    as_object,
    as_seconds,
    as_span,
    as_text,
    field_of,
)
from tempclr.data.row_checks import shortened
from tempclr.errors import InputError

# The documentation calls the second subset "validation", the released file "testing".
_SPLITS = {"training": "train", "testing": "test", "validation": "test"}


def read_coin(annotations: Sequence[str | PathLike[str]]) -> Reading:
    """The videos of COIN, splits ``train`` and ``test``; ``task`` and ``label`` are the class.

    ``steps`` are the steps that occur anywhere in the file under the task, in the order of their numbers, which is the
    taxonomy's order.

    Args:
        annotations: the JSON file or its folder.

    Raises:
        InputError: a file that is not there, or several.
    """
    file = only_file(annotations, ("COIN.json",))
    return Reading((file,), lambda findings: _videos(file, findings), ("task", "label", "steps", "step_indices"))


def _videos(file: Path, findings: Findings) -> Iterator[AnnotatedVideo]:
    found: list[tuple[str, str, str, list[tuple[int, AnnotatedSentence]]]] = []
    steps: dict[str, dict[int, str]] = {}
    for video_id, entry in read_database(file, findings):
        with findings.at(file, f"video {video_id!r}"):
            as_id(video_id)
            split = as_choice(field_of(as_object(entry), "subset"), "subset", _SPLITS)
            task = as_text(field_of(entry, "class"), "class")
            segments = _segments(file, video_id, entry, findings)
            for step, sentence in segments:
                steps.setdefault(task, {}).setdefault(step, sentence.text)
            found.append((video_id, split, task, segments))
    for video_id, split, task, segments in found:
        places = {step: index for index, step in enumerate(sorted(steps.get(task, ())))}
        texts = tuple(steps[task][step] for step in places)
        sentences = tuple(
            AnnotatedSentence(each.text, each.start, each.end, each.record, step_index=places[step])
            for step, each in segments
        )
        if sentences:
            yield AnnotatedVideo(video_id, split, sentences, file, task=task, label=task, steps=texts)


def _segments(file: Path, video_id: str, entry: Any, findings: Findings) -> list[tuple[int, AnnotatedSentence]]:
    duration = as_seconds(entry["duration"], "duration") if entry.get("duration") is not None else None
    segments = as_list(field_of(entry, "annotation"), "annotation")
    if not segments:
        raise InputError("has no segments", field="annotation")
    found = []
    for number, segment in enumerate(segments):
        record = f"video {video_id!r}, segment {number}"
        with findings.at(file, record):
            start, end = as_span(field_of(as_object(segment), "segment"), "segment", duration=duration)
            text = as_text(field_of(segment, "label"), "label")
            found.append((_step(field_of(segment, "id")), AnnotatedSentence(text, start, end, record)))
    return found


def _step(value: Any) -> int:
    """The number of a step, which the file has as text and its documentation as a number."""
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and _is_whole(value)):
        return int(value)
    raise InputError(f"expected the number of a step, found {shortened(value)}", field="id")


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
