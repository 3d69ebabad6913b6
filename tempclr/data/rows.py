"""The dataset row every command takes: the paragraph of one video, checked before use.

A row has ``video_id: str``, ``sentences: list[str]``, ``starts`` and ``ends: list[float]`` (seconds, ``[start, end)``),
and at least one of ``features: (T, D)``, ``features_path: str`` (``.npy`` or ``.safetensors``) and ``video: str``; with
features also ``features_per_second: float``. Optional: ``task``, ``label``, ``split``, all str. Relative paths start at
the folder of the dataset file (or at the dataset folder given, where ``save_to_disk`` wrote it).
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.row_checks import (
    Spans,
    annotator_span_tuples,
    check_order,
    check_text,
    ends_within,
    feature_array,
    positive_rate,
    seconds_list,
    sentence_list,
    shortened,
    step_tuples,
)
from tempclr.data.row_files import FAULT, ROW_SUFFIXES, is_hub_id, load_rows, row_source
from tempclr.errors import InputError

__all__ = [
    "Paragraph",
    "Paragraphs",
    "check_recipe",
    "dataset_recipe",
    "load_rows",
    "read_paragraph",
    "read_paragraphs",
]

RECIPE_FILE = "feature_recipe.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Paragraph:
    """The ordered sentences of one video, their spans, and the video as features or as a file. Checks itself.

    Attributes:
        video_id: name of the video.
        sentences, starts, ends: one entry a sentence; spans are ``[start, end)`` in seconds, ordered by start, and may
            overlap.
        features: float32 ``(T, D)``, or None; feature k covers ``[k, k + 1) / features_per_second`` seconds.
        features_per_second: required with features.
        video: path of the video file, or None.
        task, label, split: optional words of the corpus.
        steps: all steps of the task in the task's order, whether or not this video shows them; None where a corpus
            has no such list.
        step_indices: which of ``steps`` each sentence is, counted from 0; required with ``steps``.
        annotator_spans: for each sentence the ``[start, end)`` seconds that each annotator marked, as they stand in
            the corpus (not cut to the features); None where there was one annotator.

    An end beyond the last feature is cut to it (annotations round up); a start beyond it is an error.

    Raises:
        InputError: naming the field and what was found in it.

    >>> paragraph = Paragraph("v1", ["cut the bread"], [0.0], [9.0], features=np.zeros((3, 8)), features_per_second=1)
    >>> paragraph.ends, paragraph.features.dtype.name
    ([3.0], 'float32')
    """

    video_id: str
    sentences: list[str]
    starts: list[float]
    ends: list[float]
    features: np.ndarray | None = None
    features_per_second: float | None = None
    video: str | None = None
    task: str | None = None
    label: str | None = None
    split: str | None = None
    steps: tuple[str, ...] | None = None
    step_indices: tuple[int, ...] | None = None
    annotator_spans: tuple[Spans, ...] | None = None

    def __post_init__(self) -> None:
        check_text(self.video_id, "video_id")
        for field in ("video", "task", "label", "split"):
            if getattr(self, field) is not None:
                check_text(getattr(self, field), field)
        self._set(sentences=sentence_list(self.sentences))
        self._set(starts=seconds_list(self.starts, "starts", len(self.sentences)))
        self._set(ends=seconds_list(self.ends, "ends", len(self.sentences)))
        check_order(self.starts, self.ends)
        if self.steps is not None or self.step_indices is not None:
            steps, step_indices = step_tuples(self.steps, self.step_indices, len(self))
            self._set(steps=steps, step_indices=step_indices)
        if self.annotator_spans is not None:
            self._set(annotator_spans=annotator_span_tuples(self.annotator_spans, len(self)))
        if self.features is not None:
            rate = positive_rate(self.features_per_second)
            self._set(features=feature_array(self.features), features_per_second=rate)
            self._set(ends=ends_within(self.starts, self.ends, self.duration_seconds))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def duration_seconds(self) -> float:
        """Seconds the features cover; without features, the end of the last span."""
        if self.features is None:
            return max(self.ends)
        return len(self.features) / self.features_per_second  # type: ignore[operator]


class Paragraphs(Sequence[Paragraph]):
    """Paragraphs read from their rows on demand: features stay in the dataset (or their files) until asked for."""

    def __init__(self, dataset: Any, *, source: str, indices: Sequence[int] | None = None) -> None:
        self._rows, self._source = _as_arrow(dataset), source
        self._indices = range(len(dataset)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Paragraphs(self._rows, source=self._source, indices=self._indices[index])
        row_index = self._indices[index]
        return read_paragraph(_row(self._rows, row_index), source=self._source, index=row_index)

    def __iter__(self) -> Iterator[Paragraph]:
        return (self[index] for index in range(len(self)))


def read_paragraph(row: Mapping[str, Any], *, source: str | PathLike[str], index: int) -> Paragraph:
    """Turn one row into a Paragraph, loading its features.

    Args:
        row: see the head of this module. Fields with other names are left alone.
        source: the dataset's file or folder, named in errors; relative paths start at its folder.
        index: number of the row, counted from 0.

    Raises:
        InputError: naming file, row and field.

    >>> row = {"video_id": "v1", "sentences": ["a"], "starts": [0], "ends": [1], "features": [[1, 2]]}
    >>> read_paragraph(row, source="rows.jsonl", index=3)
    Traceback (most recent call last):
    tempclr.errors.InputError: rows.jsonl, row 3, field 'features_per_second': missing: features need their rate
    """
    try:
        if row.get(FAULT) is not None:
            field, message = json.loads(row[FAULT])
            raise InputError(message, field=field)
        return Paragraph(**_fields(row, source))
    except InputError as error:
        raise _placed(error, source, index) from error.__cause__


def _placed(error: InputError, source: str | PathLike[str], index: int) -> InputError:
    message = str(error).removeprefix(f"field {error.field!r}: ")
    return InputError(message, file=source, row=index, field=error.field)


def read_paragraphs(
    dataset: Any,
    *,
    source: str | PathLike[str],
    skip_bad_rows: bool = False,
    check: Callable[[Paragraph], None] | None = None,
) -> tuple[Paragraphs, list[str]]:
    """Check every row of a dataset and return its paragraphs, which are read again on demand.

    Args:
        dataset: what :func:`load_rows` returns, or a sequence of row mappings.
        source: the dataset's file or folder.
        skip_bad_rows: leave bad rows out and list why, instead of stopping at the first. To leave out also rows of a
            JSON file that cannot be read at all, give it to :func:`load_rows` too.
        check: raises an InputError for a paragraph that is sound but will not do; its row then counts as bad.

    Returns:
        ``(paragraphs, reasons)``: one line in ``reasons`` for each row left out.

    Raises:
        InputError: the first bad row; with ``skip_bad_rows``, only when no row is good.

    >>> rows = [{"video_id": "v1", "sentences": ["a"], "starts": [0], "ends": [1], "features": [[1, 2]],
    ...          "features_per_second": 1}, {"video_id": "v2"}]
    >>> paragraphs, reasons = read_paragraphs(rows, source="rows.jsonl", skip_bad_rows=True)
    >>> len(paragraphs), reasons
    (1, ["rows.jsonl, row 1, field 'sentences': missing"])
    """
    place, rows = row_source(source, dataset), _as_arrow(dataset)
    good, reasons = [], []
    for index in range(len(rows)):
        try:
            _checked(read_paragraph(_row(rows, index), source=place, index=index), check, place, index)
            good.append(index)
        except InputError as error:
            if not skip_bad_rows:
                raise
            reasons.append(str(error))
    if not good:
        raise InputError(f"no good row; the first: {reasons[0]}" if reasons else "holds no rows", file=source)
    return Paragraphs(rows, source=place, indices=good), reasons


def _checked(paragraph: Paragraph, check: Callable[[Paragraph], None] | None, source: str, index: int) -> None:
    try:
        if check is not None:
            check(paragraph)
    except InputError as error:
        raise _placed(error, source, index) from error


def dataset_recipe(dataset_dir: str | PathLike[str]) -> dict[str, Any] | None:
    """How the features of a dataset were made: its ``feature_recipe.json``, or None where there is none.

    ``dataset_dir`` is the dataset's folder or a file in it.

    >>> dataset_recipe("no/such/folder") is None
    True
    """
    folder = Path(dataset_dir)
    file = (folder if folder.is_dir() else folder.parent) / RECIPE_FILE
    if not file.exists():
        return None
    try:
        recipe = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not a feature recipe: {error}", file=file) from error
    if not isinstance(recipe, dict):
        raise InputError(f"not a feature recipe: expected named entries, found {shortened(recipe)}", file=file)
    return recipe


def check_recipe(expected: Mapping[str, Any] | None, found: Mapping[str, Any] | None, *, what: str) -> None:
    """Refuse features that were made otherwise than the expected ones.

    Args:
        expected, found: two recipes as dictionaries; None is an unknown recipe, which is logged and let through. The
            backbone's name may differ where its weights (sha256) are the same.
        what: the two things compared, in words for the message: ``"model 'm' and dataset 'd'"``.

    Raises:
        InputError: showing both values of every entry that differs.

    >>> check_recipe({"resize": 128}, {"resize": 224}, what="model and data")  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    tempclr.errors.InputError: feature recipes of model and data differ: expected {"resize": 128}, found
    {"resize": 224}; use
    features made alike
    """
    if expected is None or found is None:
        if expected is not None or found is not None:
            _log.warning("only one feature recipe of %s is known: whether their features agree cannot be checked", what)
        return
    one, other = (json.loads(json.dumps(dict(recipe))) for recipe in (expected, found))
    differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    if one.get("backbone_sha256") and "backbone_sha256" not in differing:
        differing = [key for key in differing if key != "backbone"]
    if differing:
        ours, theirs = (json.dumps({key: recipe.get(key) for key in differing}) for recipe in (one, other))
        raise InputError(f"feature recipes of {what} differ: expected {ours}, found {theirs}; use features made alike")


def _fields(row: Mapping[str, Any], source: str | PathLike[str]) -> dict[str, Any]:
    """The arguments of Paragraph, with files looked up and features loaded."""
    fields = {name: row.get(name) for name in Paragraph.__dataclass_fields__}
    for name in ("video_id", "sentences", "starts", "ends"):
        if fields[name] is None:
            raise InputError("missing", field=name)
    path = row.get("features_path")
    if path is not None and fields["features"] is not None:
        raise InputError("both features and features_path are given; leave one out", field="features_path")
    if path is not None:
        fields["features"] = load_feature_file(_resolve(path, source, "features_path"))
    if isinstance(fields["video"], Mapping):  # what datasets.Video(decode=False) gives
        fields["video"] = fields["video"].get("path")
    if fields["video"] is not None:
        fields["video"] = str(_resolve(fields["video"], source, "video"))
    if fields["features"] is None and fields["video"] is None:
        raise InputError("missing: expected one of features, features_path and video", field="features")
    return fields


# Note [Whose paths]: the rows of a file on this machine are its user's own, and may name any of their files. Those of a
# Hub dataset are a stranger's: what they name could be any file of the reader's, which would end in features, pictures
# or a published model. They may name nothing but what was downloaded with them, also where somebody gives the folder
# that the Hub's library downloaded them to.
def _resolve(path: Any, source: str | PathLike[str], field: str) -> Path:
    check_text(path, field)
    folder = _base_folder(source)
    if folder is None and not Path(path).is_absolute():
        raise InputError(
            f"{path!r} is relative, but a Hub dataset has no folder; put the features in the row", field=field
        )
    resolved = Path(path) if folder is None else folder / path
    if (is_hub_id(source) or _is_snapshot(str(source))) and not _is_downloaded(resolved):
        raise InputError(f"{path!r}: a Hub dataset may not name files of this machine", field=field)
    if not resolved.is_file():
        raise InputError(f"no such file: {resolved}", field=field)
    return resolved


def _is_downloaded(path: Path) -> bool:
    from datasets import config
    from huggingface_hub import constants

    caches = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    resolved = path.resolve()  # of a link, what it leads to counts
    return any(resolved.is_relative_to(Path(cache).resolve()) for cache in caches)


def _is_snapshot(source: str) -> bool:
    from huggingface_hub import constants

    return _is_below(source, constants.HF_HUB_CACHE)


@functools.lru_cache(maxsize=64)
def _is_below(source: str, folder: str) -> bool:  # asked for every row of a dataset
    return Path(source).resolve().is_relative_to(Path(folder).resolve())


def load_feature_file(path: Path) -> np.ndarray:
    """Float32 ``(T, D)`` of a ``.npy`` or ``.safetensors`` file; errors name the file."""
    try:
        if path.suffix == ".npy":
            return feature_array(np.load(path, allow_pickle=False))
        if path.suffix == ".safetensors":
            return feature_array(_safetensors_array(path))
    except InputError as error:
        message = str(error).removeprefix(f"field {error.field!r}: ")
        raise InputError(f"{path}: {message}", field="features_path") from error.__cause__
    except Exception as error:  # each reader has its own exceptions for a file that is cut off or something else
        raise InputError(f"{path} cannot be read: {error}", field="features_path") from error
    raise InputError(f"expected a .npy or .safetensors file, found {path.name!r}", field="features_path")


def _safetensors_array(path: Path) -> np.ndarray:
    from safetensors.torch import load_file

    tensors = load_file(path)
    if len(tensors) > 1 and "features" not in tensors:
        raise InputError(f"holds {sorted(tensors)}; name one of them 'features'", field="features_path")
    tensor = tensors["features"] if "features" in tensors else next(iter(tensors.values()))
    return tensor.float().numpy()


def _base_folder(source: str | PathLike[str]) -> Path | None:
    path = Path(source)
    if path.is_dir():
        return path
    return path.parent if path.suffix in ROW_SUFFIXES else None


def _as_arrow(dataset: Any) -> Any:
    return dataset.with_format("arrow") if hasattr(dataset, "with_format") else dataset


def _row(dataset: Any, index: int) -> Mapping[str, Any]:
    return row_values(dataset[index])


def row_values(table: Any) -> Mapping[str, Any]:
    """One row, given as a mapping or as an Arrow table of one row, as plain values.

    Its features become an array made from Arrow's buffer: lists of lists are slow and large.
    """
    if isinstance(table, Mapping):
        return table
    row = {name: table.column(name).to_pylist()[0] for name in table.column_names if name != "features"}
    if "features" in table.column_names:
        row["features"] = _matrix(table.column("features").combine_chunks())
    return row


def _matrix(column: Any) -> Any:
    storage = getattr(column, "storage", column)  # datasets.Array2D wraps its lists
    if storage.null_count or not hasattr(storage, "flatten"):
        return None if storage.null_count else storage.to_pylist()[0]
    vectors = storage.flatten()
    sizes = set(vectors.value_lengths().to_pylist()) if hasattr(vectors, "value_lengths") else set()
    if len(sizes) != 1 or None in sizes:
        return storage.to_pylist()[0]
    values = vectors.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(-1, sizes.pop())
