"""Finding and loading the files a dataset of rows is stored in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.errors import InputError

ROW_SUFFIXES = (".parquet", ".jsonl", ".json")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Files that lie beside the rows without being rows.
FAULT = "__fault__"  # column of what is wrong with a row that could not be read, where such rows are to be skipped
_NOT_ROWS = {
    "feature_recipe.json",
    "features.jsonl",
    "dataset_info.json",
    "dataset_dict.json",
    "state.json",
    "report.json",
}


def load_rows(source: str | PathLike[str], *, split: str | None = None, skip_bad_rows: bool = False) -> Any:
    """Load dataset rows; what is in them is checked by ``read_paragraphs``.

    Args:
        source: a folder written by ``save_to_disk`` (memory-mapped: the one for large sets), a folder of
            ``<split>.parquet``, ``<split>.jsonl`` or ``<split>.json`` files (also in ``data/``, also in shards named
            ``-00000-of-00002``), one such file, or the id of a Hub dataset.
        split: which split; needed where there are several. Of one file with a ``split`` column: the rows of that split.
        skip_bad_rows: keep the place of rows of a JSON file that cannot be read or typed, for ``read_paragraphs`` to
            leave out and list; otherwise the first one is an error.

    Returns:
        a ``datasets.Dataset``.

    Raises:
        InputError: nothing there, not readable, no such split, several splits and none named, no rows.

    >>> load_rows("rows.jsonl").column_names
    ['video_id', 'video', 'label', 'split']
    """
    path = Path(source)
    if path.is_dir():
        dataset = _from_folder(path, split, skip_bad_rows)
    elif path.is_file():
        dataset = _of_split(_from_files([path], skip_bad_rows=skip_bad_rows), split, path)
    elif is_hub_id(source):
        dataset = _from_hub(str(source), split)
    else:
        raise InputError("no such dataset file or folder", file=source)
    if not len(dataset):
        raise InputError("holds no rows", file=source)
    return dataset


def data_files(folder: Path) -> dict[str, list[Path]]:
    """The row files of a folder, by split: the file's name without suffix and shard number."""
    splits: dict[str, list[Path]] = {}
    for place in (folder, folder / "data"):
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if file.suffix in ROW_SUFFIXES and file.name not in _NOT_ROWS and not file.name.startswith("."):
                splits.setdefault(_SHARD.sub("", file.stem), []).append(file)
    return splits


def looks_like_rows(file: Path) -> bool:
    """Whether a file may hold rows: the first thing in it, or any text of it where that is damaged, has a video_id.

    Beside videos there are other JSON files too, such as what a download program notes of each.
    """
    if file.suffix == ".parquet":
        return True
    text = file.read_text(encoding="utf-8-sig", errors="replace").lstrip()
    try:
        first, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return '"video_id"' in text
    if isinstance(first, list):
        first = first[0] if first else None
    return isinstance(first, dict) and "video_id" in first


def split_names(source: str | PathLike[str]) -> list[str]:
    """Names of the splits a local dataset holds; empty where it is one unnamed whole.

    >>> split_names("no/such/folder")
    []
    """
    path = Path(source)
    if (path / "dataset_dict.json").is_file():
        return _saved_splits(path / "dataset_dict.json")
    if path.is_dir() and not (path / "state.json").is_file():
        return list(data_files(path))
    return []


def is_hub_id(source: str | PathLike[str]) -> bool:
    """Whether a source names a dataset of the Hub: it has that form, and is nothing on this machine.

    >>> is_hub_id("owner/recipes"), is_hub_id("rows.jsonl"), is_hub_id("data/rows.parquet")
    (True, False, False)
    """
    path = Path(source)
    return bool(_HUB_ID.fullmatch(str(source))) and path.suffix not in ROW_SUFFIXES and not path.exists()


def _saved_splits(file: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(file.read_text(encoding="utf-8"))["splits"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"does not list the splits of a saved dataset: {error!r}", file=file) from error


def row_source(source: str | PathLike[str], dataset: Any) -> str:
    """What to name in an error about a dataset's rows: the one file they came from, else the folder or Hub id.

    >>> row_source("rows.jsonl", [])
    'rows.jsonl'
    """
    path = Path(source)
    if path.is_dir():
        files = data_files(path).get(str(getattr(dataset, "split", None)), [])
        if len(files) == 1:
            return str(files[0])
    return str(source)


def _from_folder(folder: Path, split: str | None, skip_bad_rows: bool) -> Any:
    names = split_names(folder)
    if (folder / "state.json").is_file():
        return _of_split(_from_disk(folder), split, folder)
    if not names:
        raise InputError(
            "holds no dataset: expected a save_to_disk folder, .parquet, .jsonl or .json files", file=folder
        )
    if (folder / "dataset_dict.json").is_file():
        return _from_disk(folder / _chosen(names, split, folder))
    if len(names) == 1 and split is not None:
        rows = _from_files(data_files(folder)[names[0]], split=names[0], skip_bad_rows=skip_bad_rows)
        return _of_split(rows, split, folder)
    name = _chosen(names, split, folder)
    return _from_files(data_files(folder)[name], split=name, skip_bad_rows=skip_bad_rows)


def _chosen(names: Sequence[str], split: str | None, source: Any) -> str:
    if split is None and len(names) > 1:
        raise InputError(
            f"holds the splits {', '.join(names)}; say which (--split, in pretrain --train_split or --eval_split)",
            file=source,
            field="split",
        )
    if split is not None and split not in names:
        raise InputError(f"has no split {split!r}, only {', '.join(names)}", file=source, field="split")
    return split or names[0]


def _of_split(dataset: Any, split: str | None, source: Any) -> Any:
    if split is None or split == str(dataset.split):
        return dataset
    if "split" not in dataset.column_names:
        raise InputError(f"has no split {split!r}: it is one file without a split column", file=source, field="split")
    of_split = np.array([name == split for name in dataset["split"]])
    unreadable = [fault is not None for fault in dataset[FAULT]] if FAULT in dataset.column_names else False
    if not of_split.any():
        names = sorted({str(name) for name in dataset["split"]})
        raise InputError(f"has no rows of split {split!r}, only {', '.join(names)}", file=source, field="split")
    return dataset.select(np.flatnonzero(of_split | unreadable))


def _from_disk(folder: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # Arrow, JSON and file errors: all mean that the folder is damaged
        raise InputError(f"cannot be loaded as a saved dataset: {error}", file=folder) from error


def _from_hub(name: str, split: str | None) -> Any:
    import datasets

    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # network, permission, missing repository, unknown split: the reason is in the message
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"no such local file or folder, and not to be had as a Hub dataset: {reason}", file=name
        ) from error
    return loaded if split is not None else loaded[_chosen(list(loaded), None, name)]


def _from_files(files: Sequence[Path], *, split: str | None = None, skip_bad_rows: bool = False) -> Any:
    import datasets

    named_split = datasets.NamedSplit(split) if split is not None and re.fullmatch(r"\w+(\.\w+)*", split) else None
    tables = [_read_parquet(file) if file.suffix == ".parquet" else _read_json(file, skip_bad_rows) for file in files]
    parts = [datasets.Dataset(table, split=named_split) for table in tables]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts, split=named_split)


def _read_parquet(file: Path) -> Any:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]
    from datasets.table import InMemoryTable

    try:
        return InMemoryTable(pyarrow.parquet.read_table(file))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"not a Parquet file: {error}", file=file) from error


class _Faults:
    """What is wrong with single rows of a file: raised at once, or kept for their place."""

    def __init__(self, file: Path, *, keep: bool) -> None:
        self.file, self.keep = file, keep
        self.kept: dict[int, str] = {}

    def add(self, message: str, *, row: int, field: str | None = None) -> None:
        if not self.keep:
            raise InputError(message, file=self.file, row=row, field=field)
        self.kept.setdefault(row, json.dumps([field, message]))


def _read_json(file: Path, skip_bad_rows: bool) -> Any:
    """JSON lines, or one JSON list of rows, typed column by column so that a wrong value can be named."""
    import pyarrow
    from datasets.table import InMemoryTable

    if file.suffix not in ROW_SUFFIXES:
        raise InputError(f"expected a {', '.join(ROW_SUFFIXES)} file, found {file.suffix or file.name!r}", file=file)
    faults = _Faults(file, keep=skip_bad_rows)
    rows = _json_rows(file, faults)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column(name, rows, faults) for name in names}
    if skip_bad_rows:
        columns[FAULT] = pyarrow.array([faults.kept.get(index) for index in range(len(rows))], pyarrow.string())
    return InMemoryTable(pyarrow.table(columns))


def _json_rows(file: Path, faults: _Faults) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not JSON text: {error}", file=file) from error
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error}", file=file) from error
    else:
        lines = [line for line in text.splitlines() if line.strip()]
        rows = [_json_line(line, index, faults) for index, line in enumerate(lines)]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            faults.add(f"expected an object with named fields, found {str(row)[:40]!r}", row=index)
            rows[index] = {}
        elif isinstance(row.get("features"), list):  # an array at once: a list of lists takes ten times the memory
            row["features"] = _compact(row["features"])
    return rows


def _json_line(line: str, index: int, faults: _Faults) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        faults.add(f"not JSON: {error}", row=index)
        return {}


def _compact(features: list[Any]) -> Any:
    try:
        array = np.array(features, dtype=np.float32)
    except (ValueError, TypeError):
        return features
    return list(array) if array.ndim == 2 else features


_TEXTS = ("video_id", "features_path", "video", "task", "label", "split")
_LISTS = {
    "sentences": "a list of texts",
    "starts": "a list of numbers",
    "ends": "a list of numbers",
    "steps": "a list of texts",
    "step_indices": "a list of whole numbers",
    "annotator_spans": "for each sentence a list of [start, end)",
}
_EXPECTED = {
    **dict.fromkeys(_TEXTS, "a text"),
    **_LISTS,
    "features": "(T, D) numbers, a list of lists",
    "features_per_second": "a number",
}


def _column(name: str, rows: list[dict[str, Any]], faults: _Faults) -> Any:
    import pyarrow

    values, kind = [row.get(name) for row in rows], _arrow_type(name)
    # Arrow would take a text for the list of its letters, true for 1, and 1.5 for a whole number.
    wrong = [index for index, value in enumerate(values) if name in _LISTS and not _is_plain_list(value, name)]
    try:
        if not wrong:
            return pyarrow.array(values, type=kind)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        wrong = [index for index, value in enumerate(values) if not _fits(value, kind)]
        if not wrong:
            raise InputError(f"the rows do not agree on a type: {error}", file=faults.file, field=name) from error
    for index in wrong:
        expected = _EXPECTED.get(name, "values of one type")
        faults.add(f"expected {expected}, found {str(values[index])[:60]!r}", row=index, field=name)
        values[index] = None
    return _column(name, [{name: value} for value in values], faults)


def _arrow_type(name: str) -> Any:
    import pyarrow

    types = {
        **dict.fromkeys(_TEXTS, pyarrow.string()),
        **dict.fromkeys(("starts", "ends"), pyarrow.list_(pyarrow.float64())),
        **dict.fromkeys(("sentences", "steps"), pyarrow.list_(pyarrow.string())),
        "step_indices": pyarrow.list_(pyarrow.int64()),
        "annotator_spans": pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float64()))),
        "features": pyarrow.list_(pyarrow.list_(pyarrow.float32())),
        "features_per_second": pyarrow.float64(),
    }
    return types.get(name)


def _is_plain_list(value: Any, name: str) -> bool:
    refused = bool | float if name == "step_indices" else bool
    return value is None or (isinstance(value, list) and not any(isinstance(entry, refused) for entry in value))


def _fits(value: Any, kind: Any) -> bool:
    import pyarrow

    try:
        pyarrow.array([value], type=kind)
    except (pyarrow.ArrowException, TypeError, ValueError):
        return False
    return True
