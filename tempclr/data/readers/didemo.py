"""DiDeMo: ``train_data.json``, ``val_data.json``, ``test_data.json``, each a list of sentences.

A sentence has ``video`` (a file name, suffix included), ``description``, ``times`` (what each annotator marked: the
first and last of the video's chunks of five seconds), ``num_segments`` (5 or 6 chunks) and ``annotation_id``.
Checked against the released ``val_data.json`` (4,180 sentences) and ``test_data.json`` (4,021).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.readers.official_files import find_files, read_json
from tempclr.data.readers.records import (
    AnnotatedSentence,
    AnnotatedVideo,
    Findings,
    Reading,
    as_id,
    as_list,
    as_object,
    as_text,
    field_of,
)
from tempclr.data.row_checks import Spans, shortened
from tempclr.errors import InputError

CHUNK_SECONDS = 5.0
MAX_CHUNKS = 6
FILES = {"train_data.json": "train", "val_data.json": "validation", "test_data.json": "test"}


def read_didemo(annotations: Sequence[str | PathLike[str]]) -> Reading:
    """The videos of DiDeMo with all their sentences, splits ``train``, ``validation`` and ``test``.

    ``starts`` and ``ends`` are the span of :func:`agreed_span`; ``annotator_spans`` has every annotator's. The id is
    the whole name of the video file: there are files that differ only in the suffix.

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

    return Reading(tuple(files), scan, ("annotator_spans",))


# Note [What several annotators agree on]: DiDeMo has no one true span, and its measures use all annotators' spans. A
# row needs one all the same, to cut clips and to order sentences.
def agreed_span(spans: Spans) -> tuple[float, float]:
    """The span that most annotators marked; of several, the one that overlaps all marked spans best (the mean
    intersection over union), then the earlier and the shorter.

    >>> agreed_span(((0, 5), (5, 10), (5, 10), (25, 30)))
    (5, 10)
    >>> agreed_span(((0, 5), (5, 15), (10, 15), (25, 30)))
    (5, 15)
    """
    votes = Counter(spans)

    def rank(span: tuple[float, float]) -> tuple[float, float, float, float]:
        return -votes[span], -sum(_overlap(span, other) for other in spans), span[0], span[1]

    return min(votes, key=rank)


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (max(one[1], other[1]) - min(one[0], other[0]))  # spans apart share nothing: any divisor will do


def _videos(file: Path, split: str, findings: Findings) -> Iterator[AnnotatedVideo]:
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"expected a list of sentences, found {shortened(entries)}", file=file)
    videos: dict[str, list[AnnotatedSentence]] = {}
    seen: set[Any] = set()
    for number, entry in enumerate(entries):
        record = f"sentence {number}"
        with findings.at(file, record):
            video_id = as_id(field_of(as_object(entry), "video"), "video")
            sentence = _sentence(entry, record)
            annotation_id = entry.get("annotation_id", record)
            if not isinstance(annotation_id, int | str):
                raise InputError(f"expected a number, found {shortened(annotation_id)}", field="annotation_id")
            if annotation_id in seen:
                raise InputError(f"{annotation_id} is there twice", field="annotation_id")
            seen.add(annotation_id)
            videos.setdefault(video_id, []).append(sentence)
    for video_id, sentences in videos.items():
        yield AnnotatedVideo(video_id, split, tuple(sentences), file)


def _sentence(entry: Any, record: str) -> AnnotatedSentence:
    text = as_text(field_of(entry, "description"), "description")
    num_chunks = entry.get("num_segments", MAX_CHUNKS)
    if isinstance(num_chunks, bool) or not isinstance(num_chunks, int) or not 1 <= num_chunks <= MAX_CHUNKS:
        raise InputError(f"expected 1 to {MAX_CHUNKS} chunks, found {shortened(num_chunks)}", field="num_segments")
    times = as_list(field_of(entry, "times"), "times")
    if not times:
        raise InputError("no annotator marked a span", field="times")
    spans = tuple(_span(each, num_chunks) for each in times)
    start, end = agreed_span(spans)
    return AnnotatedSentence(text, start, end, record, annotator_spans=spans)


def _span(chunks: Any, num_chunks: int) -> tuple[float, float]:
    first, last = as_list(chunks, "times", length=2)
    for chunk in (first, last):
        if isinstance(chunk, bool) or not isinstance(chunk, int) or not 0 <= chunk < num_chunks:
            raise InputError(f"expected chunks from 0 to {num_chunks - 1}, found {shortened(chunks)}", field="times")
    if last < first:
        raise InputError(f"ends before it starts: {shortened(chunks)}", field="times")
    return CHUNK_SECONDS * first, CHUNK_SECONDS * (last + 1)
