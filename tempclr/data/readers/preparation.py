"""Official files to dataset rows: what ``tempclr prepare`` does."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path, check_output_folder
from tempclr.data.readers.arrow_parts import PartedDataset, read_report, row_features
from tempclr.data.readers.media import FeatureFiles, FeatureShards, VideoFiles, feature_rate, open_features
from tempclr.data.readers.official_files import sha256_of
from tempclr.data.readers.records import AnnotatedSentence, AnnotatedVideo, Findings, Reading
from tempclr.data.rows import RECIPE_FILE, Paragraph
from tempclr.errors import InputError

PART_VIDEOS = 256  # what an interruption costs at most
STORES = ("rows", "paths")
_FORMAT = 1  # of the prepared folder: raised when prepared data must be made anew


@dataclass(frozen=True)
class PreparationReport:
    """What :func:`prepare_corpus` did; the same is in ``report.json``.

    Attributes:
        splits: for each split ``num_videos``, ``num_sentences``, ``video_seconds``, ``background_seconds`` (outside
            every sentence), ``num_overlapping`` (sentences that begin before an earlier one ends) and ``num_ends_cut``
            (sentences that go on after the features, and are read as ending there). The last four need features.
        without_media: ids of annotated videos without features or file, by split.
        reasons: one line for each record left out under ``skip_bad_rows``.
        notes: other things left out by rule, counted.
        hints: what else could have been given.
        is_new: False where the dataset was there already, made from the same files with the same options.
    """

    splits: dict[str, dict[str, float]]
    without_media: dict[str, list[str]]
    reasons: list[str]
    notes: dict[str, int]
    hints: list[str] = field(default_factory=list)
    is_new: bool = True


@dataclass(frozen=True)
class _Source:
    """Where features or videos come from, and how they go into rows."""

    media: FeatureFiles | FeatureShards | VideoFiles
    store: str
    dtype: str
    features_per_second: float
    output: Path

    @property
    def columns(self) -> tuple[str, ...]:
        if isinstance(self.media, VideoFiles):
            return ("video",)
        return ("features" if self.store == "rows" else "features_path", "features_per_second")


def prepare_corpus(
    read: Callable[[Any], Reading],
    *,
    corpus: str,
    output_dir: str | PathLike[str],
    features: str | PathLike[str] | None = None,
    videos: str | PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    store: str = "rows",
    fp16: bool = False,
    features_per_second: float | None = None,
    skip_bad_rows: bool = False,
    show_progress_bar: bool = True,
) -> PreparationReport:
    """Write a corpus as a saved ``DatasetDict`` that :func:`tempclr.data.rows.load_rows` takes; features stay on disk.

    A run that was interrupted goes on where it stopped, as long as files and options are the same. The folder appears
    when it is whole; run again, it stays as it is, or is replaced as a whole where files or options have changed.

    Args:
        read: makes the :class:`Reading`, given what there is of features or videos (a container of ids).
        corpus: its name, for the report.
        output_dir: also gets ``report.json``, and the features' ``feature_recipe.json`` where they have one.
        features: folder of features; :class:`FeatureFiles` or :class:`FeatureShards` says what is in it.
        videos: folder of video files instead, for ``tempclr extract`` to make features of.
        splits: only these.
        store: ``"rows"`` puts the features into the rows: one folder that can be moved, pushed and streamed.
            ``"paths"`` puts their file names there: nothing is copied, for corpora too large for that.
        fp16: features in the rows as float16 instead of float32.
        features_per_second: of the features; None is what their recipe says, else 1.
        skip_bad_rows: leave bad records out, and list them; otherwise the first one stops the run.

    Raises:
        InputError: neither features nor videos, a bad record, nothing left, other things in the output folder, or
            another process that prepares it.

    Videos without features are left out, counted and listed in the report, whatever the options.

    >>> prepare_corpus(read, corpus="youcook2", output_dir="yc2", features="s3d/")  # doctest: +SKIP
    """
    output = Path(output_dir).absolute()
    _check_options(output, corpus, features, videos, store, fp16)
    source = None
    recipe = None
    if features is not None or videos is not None:
        media = open_features(str(features)) if features is not None else VideoFiles(str(videos))
        rate, recipe = feature_rate(media.folder, features_per_second) if features is not None else (1.0, None)
        source = _Source(media, store, "float16" if fp16 else "float32", rate, output)
    reading = read(source.media if source is not None else None)
    findings = Findings(skip_bad_rows=skip_bad_rows)
    survey = _Survey.of(reading, findings, source, splits)
    if source is None or not any(survey.num_present.values()):
        raise InputError(survey.what_is_needed(reading, findings))
    plan = _plan(corpus, reading, source, splits, skip_bad_rows)
    columns = (*source.columns, *reading.columns)
    dataset = PartedDataset(output, plan=plan, features=row_features(columns, feature_dtype=source.dtype))
    with dataset.alone():
        if (found := dataset.finished()) is not None:
            entries = {name: found[name] for name in ("splits", "without_media", "reasons", "notes")}
            return PreparationReport(**entries, hints=list(reading.hints), is_new=False)
        return _write(dataset, reading, source, survey, findings, recipe, show_progress_bar)


def _write(
    dataset: PartedDataset,
    reading: Reading,
    source: _Source,
    survey: _Survey,
    findings: Findings,
    recipe: Mapping[str, Any] | None,
    show_progress_bar: bool,
) -> PreparationReport:
    dataset.begin()
    totals, reasons, num_parts = _write_parts(
        dataset, reading, source, survey, findings.skip_bad_rows, show_progress_bar
    )
    reasons = findings.reasons + reasons
    if not num_parts:
        raise InputError(f"no good video; the first fault: {reasons[0]}")
    if recipe is not None:
        with atomic_path(dataset.folder / RECIPE_FILE) as temporary:
            temporary.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    notes = {what: count for what, count in sorted(findings.notes.items()) if count}
    report = PreparationReport(totals, survey.without_media, reasons, notes, list(reading.hints))
    dataset.finish(num_parts, {name: getattr(report, name) for name in ("splits", "without_media", "reasons", "notes")})
    return report


def _check_options(output: Path, corpus: str, features: object, videos: object, store: str, fp16: bool) -> None:
    if features is not None and videos is not None:
        raise InputError("give features or videos, not both")
    if store not in STORES:
        raise InputError(f"store must be one of {', '.join(STORES)}, got {store!r}")
    if fp16 and (store == "paths" or features is None):
        raise InputError("fp16 is for features in the rows; files are left as they are")
    if features is not None and store == "paths" and FeatureShards.are_in(str(features)):
        raise InputError("shards hold many videos a file: only store 'rows' can take them", file=str(features))
    check_output_folder(output)
    if output.is_dir() and any(output.iterdir()):
        report = read_report(output)
        if report is None or report["plan"].get("corpus") != corpus:
            raise InputError("holds other things; choose an empty folder", file=output)


def _plan(
    corpus: str, reading: Reading, source: _Source, splits: Sequence[str] | None, skip_bad_rows: bool
) -> dict[str, Any]:
    by_folder: dict[Path, list[Path]] = {}
    for file in reading.files:
        by_folder.setdefault(file.parent, []).append(file)
    annotations = {}
    for folder, files in by_folder.items():  # thousands of files in one folder get one sum
        if len(files) > 16:
            annotations[f"{folder.name}/ ({len(files)} files)"] = sha256_of(files)
        else:
            annotations |= {file.name: sha256_of([file]) for file in files}
    return {
        "format": _FORMAT,
        "corpus": corpus,
        "sha256_of_annotations": annotations,
        "options": reading.options,
        "splits": None if splits is None else sorted(splits),
        "media": {"kind": type(source.media).__name__, "state": source.media.fingerprint()},
        "store": source.store,
        "dtype": source.dtype,
        "features_per_second": source.features_per_second,
        "skip_bad_rows": skip_bad_rows,
        "folder": None if "features" in source.columns else os.path.relpath(source.media.folder, source.output),
    }


@dataclass
class _Survey:
    """The first pass over the annotations: faults show before any features are read."""

    num_present: Counter[str]
    num_sentences: Counter[str]
    without_media: dict[str, list[str]]
    splits: Sequence[str] | None
    source: _Source | None

    @classmethod
    def of(cls, reading: Reading, findings: Findings, source: _Source | None, splits: Sequence[str] | None) -> _Survey:
        survey = cls(Counter(), Counter(), {}, splits, source)
        found: set[str] = set()
        seen: set[tuple[str, str, str | None]] = set()
        for video in reading.scan(findings):
            found.add(video.split)
            if splits is not None and video.split not in splits:
                continue
            with findings.at(video.file, f"video {video.video_id!r}"):
                if (key := (video.split, video.video_id, video.task)) in seen:
                    raise InputError("is there twice; the first is used")
                seen.add(key)
                survey._count(video)
        if missing := sorted(set(splits or ()) - found):
            raise InputError(f"no videos of split {', '.join(missing)}; there are {', '.join(sorted(found)) or 'none'}")
        return survey

    def _count(self, video: AnnotatedVideo) -> None:
        self.num_sentences[video.split] += len(video.sentences)
        if self.source is not None and video.video_id in self.source.media:
            self.num_present[video.split] += 1
        else:
            self.without_media.setdefault(video.split, []).append(video.video_id)

    def what_is_needed(self, reading: Reading, findings: Findings) -> str:
        """What was read, and what rows need besides."""
        if not self.num_sentences:
            first = f"; the first fault: {findings.reasons[0]}" if findings.reasons else ""
            return f"{reading.files[0]}: no good video{first}"
        counts = ", ".join(
            f"{split} {len(ids)} videos with {self.num_sentences[split]} sentences"
            for split, ids in sorted(self.without_media.items())
        )
        example = next(iter(self.without_media.values()))[0]
        video = example if Path(example).suffix else f"{example}.mp4"
        if self.source is None:
            wanted = f"rows need features ({example}.npy, …: --features DIR) or videos ({video}, …: --videos DIR)"
        else:
            name = video if isinstance(self.source.media, VideoFiles) else f"{example}.npy"
            wanted = f"{self.source.media.folder} has none of them: expected {name}, …"
        return f"the annotations are good ({counts}), but {wanted}"

    def videos(self, reading: Reading) -> Iterator[AnnotatedVideo]:
        """The second pass: the videos to be written, in the same order."""
        seen: set[tuple[str, str, str | None]] = set()
        for video in reading.scan(Findings(skip_bad_rows=True)):
            key = (video.split, video.video_id, video.task)
            wanted = self.splits is None or video.split in self.splits
            if wanted and key not in seen and self.source is not None and video.video_id in self.source.media:
                seen.add(key)
                yield video


def _write_parts(
    dataset: PartedDataset,
    reading: Reading,
    source: _Source,
    survey: _Survey,
    skip_bad_rows: bool,
    show_progress_bar: bool,
) -> tuple[dict[str, dict[str, float]], list[str], dict[str, int]]:
    from tqdm import tqdm

    totals: dict[str, dict[str, float]] = {}
    reasons: list[str] = []
    num_parts: dict[str, int] = {}
    width = None
    bar = tqdm(total=survey.num_present.total(), desc="prepare", unit="video", disable=not show_progress_bar)
    with bar:
        for split, videos in _in_parts(survey.videos(reading)):
            number = num_parts.get(split, 0)
            record = dataset.part(split, number, videos=[video.video_id for video in videos])
            if record is None:
                record = _write_part(dataset, number, videos, source, width, skip_bad_rows)
            width = record["width"] if width is None else width
            num_parts[split] = number + 1
            _add(totals.setdefault(split, {}), record["totals"])
            reasons += record["reasons"]
            bar.update(len(videos))
    good = {split: total for split, total in totals.items() if total}
    return good, reasons, {split: num_parts[split] for split in good}


def _in_parts(videos: Iterator[AnnotatedVideo]) -> Iterator[tuple[str, list[AnnotatedVideo]]]:
    waiting: dict[str, list[AnnotatedVideo]] = {}
    for video in videos:
        part = waiting.setdefault(video.split, [])
        part.append(video)
        if len(part) == PART_VIDEOS:
            yield video.split, waiting.pop(video.split)
    yield from waiting.items()


def _write_part(
    dataset: PartedDataset,
    number: int,
    videos: Sequence[AnnotatedVideo],
    source: _Source,
    width: int | None,
    skip_bad_rows: bool,
) -> dict[str, Any]:
    """Write one part and give back what is recorded of it; ``width`` is D of the features so far."""
    findings = Findings(skip_bad_rows=skip_bad_rows)
    record: dict[str, Any] = {"videos": [video.video_id for video in videos], "totals": {}, "width": width}

    def rows() -> Iterator[dict[str, Any]]:
        for video in videos:
            row = None
            with findings.at(video.file, f"video {video.video_id!r}"):
                row, counts = _row(video, source, record, dataset.features, findings)
                _add(record["totals"], counts)
            if row is not None:
                yield row

    dataset.write_part(videos[0].split, number, rows())
    record["reasons"] = findings.reasons
    dataset.record_part(videos[0].split, number, record)
    return record


def _row(
    video: AnnotatedVideo, source: _Source, record: dict[str, Any], columns: Iterable[str], findings: Findings
) -> tuple[dict[str, Any], dict[str, float]]:
    """One row, and what to count of it; ``record["width"]`` is D of the features so far."""
    media, duration, width = _media_of(video.video_id, source)
    if width is not None and width != (record["width"] or width):
        raise InputError(f"features of {width} numbers, where the others have {record['width']}", field="features")
    sentences = _within(video, duration, findings)
    paragraph = _paragraph(video, sentences, media)
    values = {**media, "ends": [each.end for each in sentences]}  # as annotated: the paragraph's are cut
    row = {name: _value(paragraph, values, name, source.dtype) for name in columns}
    record["width"] = width
    return row, _counts(sentences, duration)


def _media_of(video_id: str, source: _Source) -> tuple[dict[str, Any], float | None, int | None]:
    """The fields of the row that come from features or video, the seconds they cover, and D."""
    media, rate = source.media, source.features_per_second
    if isinstance(media, VideoFiles):
        return {"video": _relative(media.path(video_id), source.output)}, None, None
    if source.store == "paths" and isinstance(media, FeatureFiles):
        num_features, width = media.shape(video_id)
        path = _relative(media.path(video_id), source.output)
        return {"features_path": path, "features_per_second": rate}, num_features / rate, width
    features = media.load(video_id)
    return {"features": features, "features_per_second": rate}, len(features) / rate, features.shape[1]


def _relative(path: Path, output: Path) -> str:
    return Path(os.path.relpath(path, output)).as_posix()


def _paragraph(video: AnnotatedVideo, sentences: Sequence[AnnotatedSentence], media: dict[str, Any]) -> Paragraph:
    """The row as it will be read, which checks itself."""
    marked = sentences[0].annotator_spans is not None
    return Paragraph(
        video.video_id,
        [each.text for each in sentences],
        [each.start for each in sentences],
        [each.end for each in sentences],
        features=media.get("features"),
        features_per_second=media.get("features_per_second"),
        task=video.task,
        label=video.label,
        steps=video.steps,
        step_indices=None if video.steps is None else tuple(each.step_index or 0 for each in sentences),
        annotator_spans=tuple(each.annotator_spans or () for each in sentences) if marked else None,
    )


def _within(video: AnnotatedVideo, duration: float | None, findings: Findings) -> list[AnnotatedSentence]:
    """The sentences by time, without those that begin when the features have ended."""
    kept = []
    for sentence in video.sentences:
        with findings.at(video.file, sentence.record):
            if duration is not None and sentence.start >= duration:
                raise InputError(f"begins at {sentence.start} s, but the features end at {duration} s")
            kept.append(sentence)
    if not kept:
        raise InputError("no sentence begins before the features end")
    return sorted(kept, key=lambda each: (each.start, each.end))


def _value(paragraph: Paragraph, values: dict[str, Any], name: str, dtype: str) -> Any:
    if name == "features":
        with np.errstate(over="ignore"):  # told below
            features = np.ascontiguousarray(paragraph.features, dtype=dtype)
        if not np.isfinite(features).all():
            raise InputError("numbers beyond the range of float16; leave fp16 out", field="features")
        return features
    value = values.get(name, getattr(paragraph, name, None))
    return value if name != "annotator_spans" or value is None else [list(each) for each in value]


def _add(totals: dict[str, float], counts: dict[str, float]) -> None:
    for name, count in counts.items():
        totals[name] = totals.get(name, 0) + count


def _counts(sentences: Sequence[AnnotatedSentence], duration: float | None) -> dict[str, float]:
    counts: dict[str, float] = {"num_videos": 1, "num_sentences": len(sentences)}
    if duration is None:
        return counts
    covered, reached, num_overlapping = 0.0, 0.0, 0
    for sentence in sentences:
        num_overlapping += sentence.start < reached
        covered += max(0.0, min(sentence.end, duration) - max(sentence.start, reached))
        reached = max(reached, sentence.end)
    return counts | {
        "video_seconds": duration,
        "background_seconds": duration - covered,
        "num_overlapping": num_overlapping,
        "num_ends_cut": sum(sentence.end > duration for sentence in sentences),
    }
