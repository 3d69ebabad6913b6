"""HowTo100M: ``raw_caption.json`` (or ``.pkl``), and lists of video ids, one a line, for each split.

The captions are ``{video_id: {"start": [s], "end": [s], "text": [text or null]}}``; in the pickle each video's entry is
such an object as JSON text. ``caption.json`` lacks the stop words and will not do. Features come a file a video or in
the released shards. Checked against small files that the released code reads, not against the whole corpus.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.data.readers.official_files import find_files, iterate_members, only_file, read_lines, read_pickle
from tempclr.data.readers.records import (
    AnnotatedSentence,
    AnnotatedVideo,
    Findings,
    Reading,
    as_id,
    as_list,
    as_object,
    as_seconds,
    as_text,
    field_of,
)
from tempclr.data.row_checks import shortened
from tempclr.errors import InputError

CAPTION_FILES = ("raw_caption.json", "raw_caption.pkl", "raw_caption_dedup.pkl")
_SPLIT_WORDS = {"train": "train", "val": "validation", "test": "test"}


def read_howto100m(
    annotations: Sequence[str | PathLike[str]],
    *,
    lists: Sequence[str | PathLike[str]] = (),
    deduplicate: str | None = None,
    seed: int = 0,
) -> Reading:
    """The captioned videos of HowTo100M.

    Args:
        annotations: the caption file, or its folder where there is only one.
        lists: files of video ids; the split is in their names (``train``, ``val`` or ``test``). Without lists every
            video is in ``train``.
        deduplicate: ``"words"`` or ``"characters"``: say once what neighbouring captions repeat, see
            :func:`tempclr.data.captions.deduplicate_captions`.
        seed: of its draws, together with the video's id.

    Raises:
        InputError: no such file, a list whose name tells no split, an unknown way to deduplicate.
    """
    file = only_file(annotations, CAPTION_FILES)
    if deduplicate is not None:
        from tempclr.data.captions import CAPTION_OVERLAPS

        if deduplicate not in CAPTION_OVERLAPS:
            raise InputError(f"deduplicate must be one of {', '.join(CAPTION_OVERLAPS)}, got {deduplicate!r}")
    list_files = {path: _split_of(path) for path in find_files(lists, ())}

    def scan(findings: Findings) -> Iterator[AnnotatedVideo]:
        splits = _listed(list_files, findings) if list_files else None
        return _videos(file, splits, deduplicate, seed, findings)

    return Reading((file, *list_files), scan, options={"deduplicate": deduplicate, "seed": seed})


def _split_of(file: Path) -> str:
    words = [split for word, split in _SPLIT_WORDS.items() if word in file.name.lower()]
    if len(words) != 1:
        raise InputError(f"cannot tell the split: expected one of {', '.join(_SPLIT_WORDS)} in the name", file=file)
    return words[0]


def _listed(files: dict[Path, str], findings: Findings) -> dict[str, str]:
    splits: dict[str, str] = {}
    for file, split in files.items():
        for number, line in enumerate(read_lines(file)):
            with findings.at(file, f"line {number + 1}"):
                if as_id(line) in splits:
                    raise InputError(f"{line!r} is listed twice, for {splits[line]} and {split}", field="video_id")
                splits[line] = split
    return splits


def _videos(
    file: Path, splits: dict[str, str] | None, deduplicate: str | None, seed: int, findings: Findings
) -> Iterator[AnnotatedVideo]:
    seen: set[str] = set()
    for video_id, entry in _entries(file):
        captions: list[AnnotatedSentence] | None = None
        with findings.at(file, f"video {shortened(video_id)}"):
            if as_id(video_id) in seen:
                raise InputError("is there twice; the first is used")
            seen.add(video_id)
            if splits is not None and video_id not in splits:
                findings.note("captioned videos in no list")
                continue
            captions = _captions(file, video_id, _decoded(entry), findings)
            if deduplicate is not None:
                captions = _deduplicated(captions, deduplicate, random.Random(f"{seed} {video_id}"))
        if captions is None:
            continue
        timed = [caption for caption in captions if caption.end > caption.start]
        findings.note("captions that last no time", len(captions) - len(timed))
        if timed:
            yield AnnotatedVideo(video_id, "train" if splits is None else splits[video_id], tuple(timed), file)
        else:
            findings.note("videos without a caption that has text and lasts")
    if splits is not None:
        findings.note("listed videos without captions", len(splits.keys() - seen))


def _entries(file: Path) -> Iterable[tuple[Any, Any]]:
    if file.suffix != ".pkl":
        return iterate_members(file)
    entries = read_pickle(file)
    if not isinstance(entries, dict):
        raise InputError(f"expected {{video_id: captions}}, found {shortened(entries)}", file=file)
    return entries.items()


def _decoded(entry: Any) -> Any:
    """The entry of a pickle is JSON text."""
    if not isinstance(entry, str):
        return entry
    try:
        return json.loads(entry)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error


def _captions(file: Path, video_id: str, entry: Any, findings: Findings) -> list[AnnotatedSentence]:
    texts = as_list(field_of(as_object(entry), "text"), "text")
    starts = as_list(field_of(entry, "start"), "start", length=len(texts))
    ends = as_list(field_of(entry, "end"), "end", length=len(texts))
    captions = []
    for number, (start, end, text) in enumerate(zip(starts, ends, texts, strict=True)):
        record = f"video {video_id!r}, caption {number}"
        with findings.at(file, record):
            if text is None or (isinstance(text, str) and not text.strip()):
                findings.note("captions without text")
                continue
            times = as_seconds(start, "start"), as_seconds(end, "end")
            if times[1] < times[0]:
                raise InputError(f"ends before it starts: [{times[0]}, {times[1]})", field="end")
            captions.append(AnnotatedSentence(as_text(text, "text"), *times, record))
    return captions


def _deduplicated(captions: list[AnnotatedSentence], overlap: str, generator: random.Random) -> list[AnnotatedSentence]:
    from tempclr.data.captions import deduplicate_captions

    captions = sorted(captions, key=lambda caption: caption.start)
    joined = deduplicate_captions(
        [caption.start for caption in captions],
        [caption.end for caption in captions],
        [caption.text for caption in captions],
        overlap=overlap,
        generator=generator,
    )
    record = captions[0].record.rpartition(",")[0] if captions else ""
    return [
        AnnotatedSentence(text, start, end, f"{record}, deduplicated caption {number}")
        for number, (start, end, text) in enumerate(joined)
    ]
