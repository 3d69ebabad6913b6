"""A dataset folder written part by part, so that work goes on where it stopped, and is whole when it gets its name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path
from tempclr.errors import InputError

PROGRESS = ".progress"
REPORT = "report.json"
PLAN = "plan"  # entry of the report: what the dataset was made from
_MAX_BATCH_ROWS = 32
_MAX_BATCH_VALUES = 1 << 24  # of features in one record batch: Arrow counts them in 32 bits


def row_features(columns: Sequence[str], *, feature_dtype: str | None) -> Any:
    """The ``datasets.Features`` of rows: the fields that every row has, and the optional ``columns``.

    ``feature_dtype`` is that of embedded features; None for rows that name files.
    """
    from datasets import Features, List, Value

    text, number = Value("string"), Value("float64")
    optional = {
        "features": List(List(Value(feature_dtype or "float32"))),
        **{"features_path": text, "features_per_second": number, "video": text, "task": text, "label": text},
        **{"steps": List(text), "step_indices": List(Value("int64")), "annotator_spans": List(List(List(number)))},
    }
    required = {"video_id": text, "sentences": List(text), "starts": List(number), "ends": List(number)}
    return Features(required | {name: optional[name] for name in columns})


class PartedDataset:
    """A folder that will be a saved ``DatasetDict``, kept under another name until it is whole.

    Args:
        output: the folder's name when it is whole. Until then its content grows in ``.<name>.preparing`` beside it.
        plan: what the dataset is made from, as JSON values. Parts made by another plan are thrown away.
        features: what :func:`row_features` gives.
    """

    def __init__(self, output: Path, *, plan: Mapping[str, Any], features: Any) -> None:
        self.output, self.plan, self.features = output, json.loads(json.dumps(plan)), features
        self.folder = output.with_name(f".{output.name}.preparing")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within the block no other process works on this dataset; a second one is told so instead of waiting."""
        from filelock import FileLock, Timeout

        lock = Path(f"{self.folder}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                yield
                lock.unlink(missing_ok=True)
        except Timeout:
            message = "is being prepared by another process; wait for it, or choose another folder"
            raise InputError(message, file=self.output) from None

    def finished(self) -> dict[str, Any] | None:
        """The report of the whole dataset by the same plan, where it is there already."""
        if not self.output.exists() and self._report_of(self.folder) is not None:
            os.replace(self.folder, self.output)  # an earlier run ended just before this
        return self._report_of(self.output)

    def _report_of(self, folder: Path) -> dict[str, Any] | None:
        report = read_report(folder)
        if report is None or report.get(PLAN) != self.plan or (folder / PROGRESS).exists():
            return None
        return report

    def begin(self) -> None:
        """Make the working folder; parts of an earlier run by the same plan stay in it."""
        plan_file = self.folder / PROGRESS / "plan.json"
        try:
            if json.loads(plan_file.read_text(encoding="utf-8")) == self.plan:
                return
        except (OSError, ValueError):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        with atomic_path(plan_file) as temporary:
            temporary.write_text(json.dumps(self.plan), encoding="utf-8")

    def part(self, split: str, number: int, *, videos: Sequence[str]) -> dict[str, Any] | None:
        """What was recorded of a part that is done and was made from those videos."""
        try:
            record = json.loads(self._record_file(split, number).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if record.get("videos") == list(videos) and self._part_file(split, number).is_file() else None

    def write_part(self, split: str, number: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a part's rows, holding a few at a time. It counts as done when :meth:`record_part` has been called."""
        import pyarrow  # type: ignore[import-untyped]

        schema = self.features.arrow_schema
        path = self._part_file(split, number)
        with atomic_path(path) as temporary, pyarrow.ipc.new_stream(str(temporary), schema) as writer:
            for batch in _batches(rows):
                columns = [_column(field, [row[field.name] for row in batch]) for field in schema]
                writer.write_batch(pyarrow.RecordBatch.from_arrays(columns, schema=schema))

    def record_part(self, split: str, number: int, record: Mapping[str, Any]) -> None:
        """Keep what is to be known of a part: ``videos``, its ids, and anything else."""
        with atomic_path(self._record_file(split, number)) as temporary:
            temporary.write_text(json.dumps(dict(record)), encoding="utf-8")

    # Note [The library writes its own index]: what load_from_disk reads besides the Arrow files is the library's own
    # affair. It saves a dataset without rows, and only the list of data files in it is replaced by that of our parts:
    # nothing is copied, however large the parts are.
    def finish(self, num_parts: Mapping[str, int], report: Mapping[str, Any]) -> None:
        """Make the folder a saved ``DatasetDict`` of those splits, give it its name, and remove what had it before."""
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name not in (PROGRESS, *num_parts):
                shutil.rmtree(folder)  # a split none of whose videos was good
        index = self._index(num_parts)
        for split, count in num_parts.items():
            state = json.loads((index / split / "state.json").read_text(encoding="utf-8"))
            state["_data_files"] = [{"filename": file.name} for file in self._part_files(split, count)]
            state["_fingerprint"] = self._fingerprint(split)
            for file in set((self.folder / split).glob("*.arrow")) - set(self._part_files(split, count)):
                file.unlink()  # of an earlier run that made smaller parts
            (self.folder / split / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
            os.replace(index / split / "dataset_info.json", self.folder / split / "dataset_info.json")
        os.replace(index / "dataset_dict.json", self.folder / "dataset_dict.json")
        (self.folder / REPORT).write_text(json.dumps({**report, PLAN: self.plan}, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(self.folder / PROGRESS)
        self._swap()

    def _index(self, splits: Iterable[str]) -> Path:
        """A saved dataset of those splits without rows."""
        import datasets

        empty = {}
        for split in splits:
            nothing: dict[str, list[Any]] = {name: [] for name in self.features}
            empty[split] = datasets.Dataset.from_dict(nothing, self.features, split=datasets.NamedSplit(split))
        index, bars_are_shown = self.folder / PROGRESS / "index", not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            datasets.DatasetDict(empty).save_to_disk(str(index))
        finally:
            if bars_are_shown:
                datasets.enable_progress_bars()
        return index

    def _fingerprint(self, split: str) -> str:
        """What ``datasets`` caches the results of ``map`` under: it must tell one prepared dataset from another."""
        return hashlib.sha256(json.dumps([self.plan, split], sort_keys=True).encode()).hexdigest()[:16]

    def _swap(self) -> None:
        old = self.output.with_name(f".{self.output.name}.replaced")
        shutil.rmtree(old, ignore_errors=True)
        if self.output.exists():
            os.replace(self.output, old)
        os.replace(self.folder, self.output)
        shutil.rmtree(old, ignore_errors=True)

    def _part_file(self, split: str, number: int) -> Path:
        return self.folder / split / f"data-{number:05d}.arrow"

    def _part_files(self, split: str, count: int) -> list[Path]:
        return [self._part_file(split, number) for number in range(count)]

    def _record_file(self, split: str, number: int) -> Path:
        return self.folder / PROGRESS / f"{split}-{number:05d}.json"


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report of a prepared dataset; None where the folder holds none."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and PLAN in report else None


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    num_values = 0
    for row in rows:
        size = row["features"].size if "features" in row else 0
        if batch and (len(batch) == _MAX_BATCH_ROWS or num_values + size > _MAX_BATCH_VALUES):
            yield batch
            batch, num_values = [], 0
        batch.append(row)
        num_values += size
    if batch:
        yield batch


def _column(field: Any, values: Sequence[Any]) -> Any:
    import pyarrow

    if field.name != "features":
        return pyarrow.array(values, field.type)
    flat = pyarrow.array(np.concatenate([matrix.reshape(-1) for matrix in values]))
    width = values[0].shape[1]
    ends = np.cumsum([0] + [len(matrix) for matrix in values], dtype=np.int32)
    vectors = pyarrow.ListArray.from_arrays(np.arange(ends[-1] + 1, dtype=np.int32) * np.int32(width), flat)
    return pyarrow.ListArray.from_arrays(ends, vectors).cast(field.type)
