"""Videos to feature files: what ``tempclr extract`` does, over a whole dataset or a folder of videos."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tempclr.data.backbones import EFFICIENTNET_LITE0, load_backbone
from tempclr.data.extractor import FeatureExtractor, FeatureRecipe
from tempclr.data.files import atomic_path, check_output_folder
from tempclr.data.isolated_decoding import IsolatedDecoder
from tempclr.data.prefetch import Prefetched
from tempclr.data.row_files import FAULT, data_files, load_rows, looks_like_rows, row_source, split_names
from tempclr.data.rows import RECIPE_FILE, Paragraph, check_recipe, dataset_recipe, read_paragraph
from tempclr.data.video import iterate_frames
from tempclr.distributed import gather_objects, num_ranks, rank
from tempclr.errors import InputError

__all__ = ["ExtractionReport", "FeatureExtractor", "FeatureRecipe", "extract_features"]

INDEX_NAME = "features"  # of the file written for videos without sentences: no row file, and load_rows passes it over
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".ts")
_log = logging.getLogger(__name__)
_FEATURE_FIELDS = ("features", "features_path", "features_per_second")


@dataclass(frozen=True)
class ExtractionReport:
    """What one run of :func:`extract_features` did.

    Attributes:
        num_extracted: videos encoded in this run.
        num_kept: videos whose features were there already.
        num_rows: rows written; 0 for a bare folder of videos, whose index has one line a video.
        reasons: one line for each row or video left out under ``skip_bad_rows``.
    """

    num_extracted: int
    num_kept: int
    num_rows: int
    reasons: list[str]


@dataclass
class _Row:
    """One line to be written: its fields, and where they came from (``source`` is None for a bare folder)."""

    video_id: str
    video: Path
    values: dict[str, Any]
    paragraph: Paragraph | None = None
    source: str | None = None
    index: int | None = None
    fault: InputError | None = None

    def blame(self, error: InputError) -> InputError:
        """The same error with this row's place in front of it."""
        if self.source is None:
            return error
        message = str(error).removeprefix(f"field {error.field!r}: ")
        return InputError(message, file=self.source, row=self.index, field=error.field or "video")


@dataclass(frozen=True)
class _RunSettings:
    num_workers: int
    skip_bad_rows: bool
    show_progress_bar: bool


def extract_features(
    videos: str | PathLike[str],
    *,
    output_dir: str | PathLike[str],
    backbone: str = EFFICIENTNET_LITE0,
    split: str | None = None,
    frames_per_second: float | None = None,
    features_per_second: float = 1.0,
    image_size: int | None = None,
    l2_normalize: bool = True,
    dtype: str = "float32",
    batch_size: int = 32,
    num_workers: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    skip_bad_rows: bool = False,
    isolate_decoding: bool = False,
    show_progress_bar: bool = True,
) -> ExtractionReport:
    """Make features of many videos; a run that was interrupted goes on where it stopped.

    Args:
        videos: a dataset whose rows have ``video`` (anything :func:`tempclr.data.rows.load_rows` takes; all its splits
            unless ``split`` names one), or a folder of video files.
        output_dir: gets ``features/<video_id>.npy`` ``(T, D)``, ``feature_recipe.json``, and for each split a file of
            rows ``<split>.jsonl`` that :func:`tempclr.data.rows.load_rows` takes: the rows given, with
            ``features_path`` and ``features_per_second``. Bare video files have no sentences and so make no rows: they
            give ``features.jsonl`` with ``video_id``, ``features_path``, ``features_per_second`` and ``video``, to be
            joined with sentences.
        backbone, image_size: see :func:`tempclr.data.backbones.load_backbone`.
        frames_per_second, features_per_second, l2_normalize: see :class:`FeatureRecipe`.
        dtype: of the files, ``"float32"`` or ``"float16"``.
        batch_size, precision: see :class:`FeatureExtractor`.
        num_workers: videos worked on at the same time; None is one a CPU core, with a GPU at most four.
        skip_bad_rows: leave out rows and videos that are bad, and say which; otherwise the first one stops the run.
        isolate_decoding: decode in processes of their own, with limits on time and memory, for videos of unknown
            origin: see :class:`tempclr.data.isolated_decoding.IsolatedDecoder`.

    Raises:
        InputError: bad rows or videos, or an output folder whose features were made by another recipe.

    Features newer than their video count as done. Files appear under their names only when they are whole. Under
    ``torch.distributed`` every rank must call this: the ranks share the videos, rank 0 writes the rows and shows the
    bar, and what is written is that of one process.

    >>> extract_features("videos/", output_dir="features/", backbone="efficientnet_lite0")  # doctest: +SKIP
    """
    if dtype not in ("float32", "float16"):
        raise InputError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
    if num_workers is not None and num_workers < 1:
        raise InputError(f"num_workers must be at least 1, got {num_workers}")
    output = Path(output_dir)
    check_output_folder(output)
    splits, faults = _find_rows(Path(videos), split, output, skip_bad_rows)
    encoder = load_backbone(backbone, image_size=image_size)
    recipe = FeatureRecipe.of(
        encoder,
        frames_per_second=frames_per_second,
        features_per_second=features_per_second,
        l2_normalize=l2_normalize,
    )
    _in_turn(lambda: _claim(output, recipe))
    rows = [row for split_rows in splits.values() for row in split_rows]
    videos_of = _by_video(rows, skip_bad_rows)
    # Rank 0 looks alone: files that another rank has just made would count as there before.
    done = _of_first_rank(lambda: [_is_done(group[0], output, dtype) for group in videos_of])
    todo = [group for group, is_done in zip(videos_of, done, strict=True) if not is_done]
    with _decoder(isolate_decoding) as decode:
        extractor = FeatureExtractor(
            recipe, device=device, batch_size=batch_size, backbone=encoder, precision=precision, decode=decode
        )
        shows_bar = show_progress_bar and rank() == 0
        settings = _RunSettings(num_workers or _num_cores(extractor.device.type), skip_bad_rows, shows_bar)
        _encode_all(todo[rank() :: num_ranks()], extractor, output, dtype, settings)
    _share_faults(todo)

    def written() -> ExtractionReport:
        num_rows = sum(_write_rows(name, own, output, recipe, skip_bad_rows) for name, own in splits.items())
        told = faults + [row.fault for row in rows if row.fault is not None]
        if not num_rows:
            raise InputError(f"no good row or video; the first: {told[0]}", file=videos)
        num_failed = sum(1 for group in todo if not _feature_file(output, group[0]).exists())
        num_kept = len(videos_of) - len(todo)
        return ExtractionReport(len(todo) - num_failed, num_kept, num_rows, [str(fault) for fault in told])

    return _of_first_rank(written)


def _of_first_rank(work: Callable[[], Any]) -> Any:
    """What ``work`` gives on rank 0, on all ranks, or the mistake in the input that it told of."""
    found: Any = None
    if rank() == 0:
        try:
            found = work()
        except InputError as error:
            if num_ranks() == 1:
                raise
            found = error
    found = gather_objects(found)[0]
    if isinstance(found, InputError):
        raise found
    return found


def _in_turn(work: Callable[[], None]) -> None:
    """Rank 0 first, which may make what the others then find."""
    _of_first_rank(work)
    if rank() > 0:
        work()


def _share_faults(groups: list[list[_Row]]) -> None:
    """What went wrong with a video, on all ranks: each knows of its own."""
    own = {place: [row.fault for row in group] for place, group in enumerate(groups) if group[0].fault is not None}
    for found in gather_objects(own):
        for place, of_rows in found.items():
            for row, fault in zip(groups[place], of_rows, strict=True):
                row.fault = fault


@contextmanager
def _decoder(isolated: bool) -> Iterator[Callable[..., Iterator[tuple[float, np.ndarray]]]]:
    if not isolated:
        yield iterate_frames
        return
    with IsolatedDecoder() as decoder:
        yield decoder.iterate_frames


def _num_cores(device_type: str) -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usable = max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return usable if device_type == "cpu" else min(4, usable)


def _find_rows(
    source: Path, split: str | None, output: Path, skip_bad_rows: bool
) -> tuple[dict[str, list[_Row]], list[InputError]]:
    """The good rows of each split, and what was wrong with the others."""
    if source.is_dir() and _is_bare(source):
        return {INDEX_NAME: _bare_videos(source)}, []
    if source.is_dir() and source.resolve() == output.resolve():
        raise InputError("is the dataset's own folder: features go into another one", file=output)
    names: list[str | None] = [split] if split is not None else list(split_names(source)) or [None]
    splits: dict[str, list[_Row]] = {}
    faults: list[InputError] = []
    for name in names:
        dataset = load_rows(source, split=name, skip_bad_rows=skip_bad_rows)
        stem = name or (source.stem if source.is_file() else str(dataset.split or "rows"))
        splits[stem] = list(_dataset_rows(dataset, row_source(source, dataset), faults, skip_bad_rows))
    return splits, faults


def _is_bare(folder: Path) -> bool:
    """Whether a folder holds videos without rows. Other files beside the videos are no rows, but are told of."""
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return False
    beside = [file for files in data_files(folder).values() for file in files]
    if not beside or not _video_files(folder) or any(map(looks_like_rows, beside)):
        return not beside
    names = ", ".join(sorted(file.name for file in beside[:3]))
    _log.warning("%s: %s holds no rows and is passed over", folder, names + (", …" if len(beside) > 3 else ""))
    return True


def _video_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)


def _bare_videos(folder: Path) -> list[_Row]:
    files = _video_files(folder)
    if not files:
        raise InputError(f"holds neither rows nor video files ({', '.join(VIDEO_SUFFIXES)})", file=folder)
    return [_Row(file.stem, file, {"video_id": file.stem}) for file in files]


def _dataset_rows(dataset: Any, source: str, faults: list[InputError], skip_bad_rows: bool) -> Iterator[_Row]:
    dropped = [name for name in _FEATURE_FIELDS if name in dataset.column_names]
    tables = dataset.remove_columns(dropped).with_format("arrow").iter(batch_size=256)
    for index, values in enumerate(row for table in tables for row in table.to_pylist()):
        try:
            if values.get("video") is None and values.get(FAULT) is None:
                raise InputError("missing: features are made from the video", file=source, row=index, field="video")
            paragraph = read_paragraph(values, source=source, index=index)
            _check_id(paragraph.video_id, source, index)
            yield _Row(paragraph.video_id, Path(str(paragraph.video)), values, paragraph, source, index)
        except InputError as error:
            if not skip_bad_rows:
                raise
            faults.append(error)


def _check_id(video_id: str, source: str, index: int) -> None:
    if any(mark in video_id for mark in "/\\\0") or video_id.startswith("."):
        message = f"{video_id!r} cannot name a file: no slash, no leading point"
        raise InputError(message, file=source, row=index, field="video_id")


def _by_video(rows: Iterable[_Row], skip_bad_rows: bool) -> list[list[_Row]]:
    """Rows grouped by video, in order: two paragraphs of one video share its features."""
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        group = groups.setdefault(row.video_id, [])
        if group and group[0].video.resolve() != row.video.resolve():
            message = f"{row.video_id!r} also names the video {group[0].video}"
            row.fault = row.blame(InputError(message, field="video_id"))
            if not skip_bad_rows:
                raise row.fault
            continue
        group.append(row)
    return list(groups.values())


def _claim(output: Path, recipe: FeatureRecipe) -> None:
    """Make the output folder this recipe's, or refuse one that holds features of another."""
    found = dataset_recipe(output) if output.is_dir() else None
    if found is not None:
        check_recipe(recipe.to_dict(), found, what=f"this run and the features in {output}")
        return
    if any((output / "features").glob("*.npy")):
        raise InputError("holds features of an unknown recipe; choose an empty folder", file=output)
    with atomic_path(output / RECIPE_FILE) as temporary:
        temporary.write_text(json.dumps(recipe.to_dict(), indent=2) + "\n", encoding="utf-8")


def _feature_file(output: Path, row: _Row) -> Path:
    return output / "features" / f"{row.video_id}.npy"


def _is_done(row: _Row, output: Path, dtype: str) -> bool:
    file = _feature_file(output, row)
    if not file.exists() or not row.video.exists() or file.stat().st_mtime <= row.video.stat().st_mtime:
        return False
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False).dtype == dtype
    except (ValueError, OSError, EOFError) as error:
        _log.warning("%s is damaged and made again: %s", file, error)
        return False


def _encode_all(
    groups: list[list[_Row]], extractor: FeatureExtractor, output: Path, dtype: str, settings: _RunSettings
) -> None:
    """Encode each group's video, several at a time; a fault is noted at each row of the group."""
    from tqdm import tqdm

    bar = tqdm(total=len(groups), desc="extract", unit="video", disable=not settings.show_progress_bar)
    videos = (group[0].video for group in groups)
    with bar, _encoded(videos, extractor, settings.num_workers) as results:
        for group, result in zip(groups, results, strict=False):
            try:
                _save(_feature_file(output, group[0]), result(), dtype)
            except InputError as error:
                for row in group:
                    row.fault = row.blame(error)
                if not settings.skip_bad_rows:
                    raise group[0].blame(error) from error
            bar.update()


# Note [One thread a video]: on CPU each worker decodes and encodes a video of its own with one torch thread. That keeps
# every core busy without waiting for the others at each layer, and makes features independent of the number of cores.
# On CUDA the workers decode and this thread encodes.
@contextmanager
def _encoded(
    videos: Iterator[Path], extractor: FeatureExtractor, num_workers: int
) -> Iterator[Iterator[Callable[[], np.ndarray]]]:
    """For each video, in order, a function that gives its features or raises what went wrong."""
    running: deque[Prefetched[Any]] = deque()
    stop, on_cpu, num_threads = threading.Event(), extractor.device.type == "cpu", torch.get_num_threads()

    def start(video: Path) -> None:
        batches = _until(stop, extractor, video)
        running.append(Prefetched((extractor.encode(each) for each in (batches,)) if on_cpu else batches))

    def results() -> Iterator[Callable[[], np.ndarray]]:
        for video in islice(videos, num_workers):
            start(video)
        while running:
            yield partial(next, running[0]) if on_cpu else partial(extractor.encode, running[0])
            running.popleft()
            for video in islice(videos, 1):
                start(video)

    if on_cpu:
        torch.set_num_threads(1)
    try:
        yield results()
    finally:
        stop.set()
        for prefetched in running:
            prefetched.close()
        torch.set_num_threads(num_threads)


def _until(stop: threading.Event, extractor: FeatureExtractor, video: Path) -> Iterator[Tensor]:
    for batch in extractor.prepare(video):
        yield batch
        if stop.is_set():
            return


def _save(file: Path, features: np.ndarray, dtype: str) -> None:
    with atomic_path(file) as temporary:
        np.save(temporary, features.astype(dtype), allow_pickle=False)


def _write_rows(name: str, rows: list[_Row], output: Path, recipe: FeatureRecipe, skip_bad_rows: bool) -> int:
    """Write one split's good rows as JSON lines; returns how many."""
    lines = []
    for row in rows:
        try:
            if row.fault is None:
                lines.append(json.dumps(_line(row, output, recipe), ensure_ascii=False))
        except InputError as error:
            row.fault = row.blame(error)
            if not skip_bad_rows:
                raise row.fault from error
    if lines:
        with atomic_path(output / f"{name}.jsonl") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def _line(row: _Row, output: Path, recipe: FeatureRecipe) -> Mapping[str, Any]:
    file, rate = _feature_file(output, row), recipe.features_per_second
    if row.paragraph is not None:  # its spans are checked against the length that is known only now
        replace(row.paragraph, features=np.load(file, allow_pickle=False), features_per_second=rate)
    added = {
        "video": Path(os.path.relpath(row.video, output)).as_posix(),
        "features_path": file.relative_to(output).as_posix(),
        "features_per_second": rate,
    }
    return {key: value for key, value in row.values.items() if value is not None} | added
