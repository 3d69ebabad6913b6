"""YouCook2: ``youcookii_annotations_trainval.json``, and a list of the clips that make the paper's validation set.

The file has ``{"database": {video_id: {"subset", "recipe_type", "duration", "annotations": [{"segment",
"sentence"}]}}}`` with whole seconds. Its 457 validation videos have 3,492 segments; the paper's test is on 3,350 of
them in 436 videos, which ``validation_youcook.csv`` (columns ``end, start, task, text, video_id``) or
``youcook_val.pkl`` (a list of ``{"id": "<video_id>_<number of the segment>"}``) names. Checked against the released
JSON and CSV files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.readers.official_files import (
    check_cells,
    find_files,
    only_file,
    read_csv,
    read_database,
    read_pickle,
)
from tempclr.data.readers.records import (
    AnnotatedSentence,
    AnnotatedVideo,
    Findings,
    Reading,
    as_choice,
    as_id,
    as_list,
    as_number,
    as_object,
    as_seconds,
    as_span,
    as_text,
    field_of,
)
from tempclr.errors import InputError

ANNOTATIONS = "youcookii_annotations_trainval.json"
CLIP_COLUMNS = ("end", "start", "task", "text", "video_id")
_SPLITS = {"training": "train", "validation": "validation"}
_HINT = (
    "validation has every annotated video; the paper tests on 436 of them: --validation_clips validation_youcook.csv"
)


def read_youcook2(
    annotations: Sequence[str | PathLike[str]], *, validation_clips: str | PathLike[str] | None = None
) -> Reading:
    """The videos of YouCook2, splits ``train`` and ``validation``; ``task`` is the number of the recipe.

    Args:
        annotations: the JSON file or its folder. A CSV file of clips alone gives ``validation`` alone, with its texts.
        validation_clips: keep only these clips in ``validation`` (CSV, or pickle of the ids); the sentences are the
            JSON file's.

    Raises:
        InputError: a file that is not there, or several.
    """
    file = only_file(annotations, (ANNOTATIONS,))
    if file.suffix == ".csv":
        if validation_clips is not None:
            raise InputError(
                "is a list of clips already: give the JSON file, or leave --validation_clips out", file=file
            )
        return Reading((file,), lambda findings: _clip_videos(file, findings), ("task",))
    if validation_clips is None:
        return Reading((file,), lambda findings: _videos(file, None, findings), ("task",), hints=(_HINT,))
    clips = find_files([validation_clips], ("validation_youcook.csv", "youcook_val.pkl"))[0]
    return Reading((file, clips), lambda findings: _videos(file, clips, findings), ("task",))


def _videos(file: Path, clips_file: Path | None, findings: Findings) -> Iterator[AnnotatedVideo]:
    clips = None if clips_file is None else _listed_clips(clips_file, findings)
    for video_id, entry in read_database(file, findings):
        sentences: list[AnnotatedSentence] = []
        with findings.at(file, f"video {video_id!r}"):
            as_id(video_id)
            split = as_choice(field_of(as_object(entry), "subset"), "subset", _SPLITS)
            task = as_text(entry["recipe_type"], "recipe_type") if entry.get("recipe_type") is not None else None
            sentences = _sentences(file, video_id, entry, findings)
            if split == "validation" and clips is not None:
                sentences = _only_listed(sentences, clips.get(video_id, {}), findings)
        if sentences:
            yield AnnotatedVideo(video_id, split, tuple(sentences), file, task=task)
    for video_id, unmatched in (clips or {}).items():
        for record in unmatched.values():
            with findings.at(Path(str(clips_file)), record):
                raise InputError(f"video {video_id!r} has no such validation segment in {file}")


def _sentences(file: Path, video_id: str, entry: Any, findings: Findings) -> list[AnnotatedSentence]:
    duration = as_seconds(entry["duration"], "duration") if entry.get("duration") is not None else None
    segments = as_list(field_of(entry, "annotations"), "annotations")
    sentences = []
    for number, segment in enumerate(segments):
        record = f"video {video_id!r}, segment {number}"
        with findings.at(file, record):
            start, end = as_span(field_of(as_object(segment), "segment"), "segment", duration=duration)
            text = as_text(field_of(segment, "sentence"), "sentence")
            sentences.append(AnnotatedSentence(text, start, end, record))
    if not segments:
        raise InputError("has no segments", field="annotations")
    return sentences


# What names a clip in a list, and its record there: (start, end, how many clips of that span come before it) in a CSV
# file (one video has two segments of one span), and the number of the segment in a pickle.
_ClipKeys = dict[Any, str]


def _only_listed(sentences: list[AnnotatedSentence], keys: _ClipKeys, findings: Findings) -> list[AnnotatedSentence]:
    """The sentences that a list of clips names; their keys are taken out, so that what stays was not found."""
    kept, spans = [], Counter[tuple[float, float]]()
    for sentence in sentences:
        span = (sentence.start, sentence.end)
        for key in ((*span, spans[span]), int(sentence.record.rpartition(" ")[2])):
            if keys.pop(key, None) is not None:
                kept.append(sentence)
        spans[span] += 1
    findings.note("validation segments not in the list of clips", len(sentences) - len(kept))
    if not kept:
        findings.note("validation videos not in the list of clips")
    return kept


# Note [Ids are compared whole]: the released reader asks whether one video id is contained in another text, which
# mixes up two videos when one id is part of the other. A clip id ends with "_" and the number of the segment, and
# YouTube ids may hold "_" themselves: everything before the last one is the video's id.
def _listed_clips(file: Path, findings: Findings) -> dict[str, _ClipKeys]:
    clips: dict[str, _ClipKeys] = {}
    entries = _csv_clips(file, findings) if file.suffix == ".csv" else _pickled_clips(file, findings)
    for video_id, key, record in entries:
        with findings.at(file, record):
            if key in clips.setdefault(video_id, {}):
                raise InputError(f"segment {key} of {video_id!r} is listed twice")
            clips[video_id][key] = record
    return clips


def _pickled_clips(file: Path, findings: Findings) -> Iterator[tuple[str, int, str]]:
    try:
        entries = as_list(read_pickle(file), "clips")
    except InputError as error:
        raise InputError(str(error), file=file) if error.file is None else error from None
    for number, entry in enumerate(entries):
        found = None
        with findings.at(file, f"entry {number}"):
            clip_id = as_text(field_of(as_object(entry), "id"), "id")
            video_id, _, segment = clip_id.rpartition("_")
            if not segment.isdecimal():
                raise InputError(f"expected <video_id>_<number of the segment>, found {clip_id!r}", field="id")
            found = as_id(video_id, "id"), int(segment), f"entry {number}"
        if found is not None:
            yield found


def _csv_clips(file: Path, findings: Findings) -> Iterator[tuple[str, tuple[float, float, int], str]]:
    spans: Counter[tuple[str, float, float]] = Counter()
    for video_id, clip, _ in _csv_rows(file, findings):
        yield video_id, (clip.start, clip.end, spans[video_id, clip.start, clip.end]), clip.record
        spans[video_id, clip.start, clip.end] += 1


def _csv_rows(file: Path, findings: Findings) -> Iterator[tuple[str, AnnotatedSentence, str]]:
    """Each clip with its video's id and its task."""
    for number, row in enumerate(read_csv(file)):
        found = None
        with findings.at(file, f"row {number}"):
            check_cells(row, CLIP_COLUMNS)
            times = [as_number(row[name], name) for name in ("start", "end")]
            start, end = as_span(times, "start")
            sentence = AnnotatedSentence(as_text(row["text"], "text"), start, end, f"row {number}")
            found = as_id(row["video_id"]), sentence, as_text(row["task"], "task")
        if found is not None:
            yield found


def _clip_videos(file: Path, findings: Findings) -> Iterator[AnnotatedVideo]:
    videos: dict[str, list[AnnotatedSentence]] = {}
    tasks: dict[str, str] = {}
    seen = set()
    for video_id, sentence, task in _csv_rows(file, findings):
        with findings.at(file, sentence.record):
            if (clip := (video_id, sentence.start, sentence.end, sentence.text)) in seen:
                raise InputError(f"this clip of {video_id!r} is listed twice")
            seen.add(clip)
            videos.setdefault(video_id, []).append(sentence)
            tasks.setdefault(video_id, task)
    for video_id, sentences in videos.items():
        yield AnnotatedVideo(video_id, "validation", tuple(sentences), file, task=tasks[video_id])
