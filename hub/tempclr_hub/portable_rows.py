"""Rows as they can be given to others: with their features inside, and no names of files on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.errors import InputError

__all__ = ["all_splits", "portable_columns", "portable_recipe", "portable_rows"]

LOCAL_COLUMNS = ("features_path", "video")
USUAL_SPLITS = ("train", "validation", "test")


def all_splits(source: str | PathLike[str]) -> dict[str, Any]:
    """Every split of a dataset, by name; one that has no splits, or that is called anything else, is "train".

    ``source``: what ``tempclr.data.rows.load_rows`` takes, or a folder of several splits.

    Raises:
        InputError: the rows cannot be read.
    """
    from tempclr.data.row_files import split_names
    from tempclr.data.rows import load_rows

    names = split_names(source)
    if len(names) > 1:
        return {re.sub(r"\W", "_", name): load_rows(source, split=name) for name in names}
    name = names[0] if names else Path(source).stem
    return {name if name in USUAL_SPLITS else "train": load_rows(source)}


def portable_columns(names: list[str]) -> list[str]:
    """The columns that rows with these columns have for others.

    >>> portable_columns(["video_id", "sentences", "video", "features_path", "features_per_second"])
    ['video_id', 'sentences', 'features_per_second', 'features']
    """
    kept = [name for name in names if name not in LOCAL_COLUMNS]
    return kept if "features" in kept or "features_path" not in names else [*kept, "features"]


def portable_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A feature recipe whose encoder is called by its name, not by its place on this machine.

    >>> portable_recipe({"backbone": "/home/me/encoder", "resize": 128})
    {'backbone': 'encoder', 'resize': 128}
    """
    backbone = recipe.get("backbone")
    local = isinstance(backbone, str) and Path(backbone).is_absolute()
    return {**recipe, "backbone": Path(str(backbone)).name} if local else dict(recipe)


def portable_rows(rows: Any, *, source: str | PathLike[str], scratch: str | PathLike[str]) -> Any:
    """A ``datasets.Dataset`` whose rows hold their features and name no file.

    Rows that do so already are returned as they are. Otherwise each is checked, and its feature file read into it.

    Args:
        rows: a split of ``source``, to which its relative paths belong.
        scratch: a folder for the new rows, which must outlive them.

    Raises:
        InputError: a row has no features, or is otherwise bad.
    """
    from datasets import List, Value

    from tempclr.data.row_files import row_source

    local = [name for name in LOCAL_COLUMNS if name in rows.column_names]
    if "features_path" not in local:
        if not _has_features(rows):
            raise InputError("has rows without features: make them by `tempclr extract` first", file=source)
        return rows.remove_columns(local)
    named = row_source(source, rows)
    names = portable_columns(rows.column_names)
    features = {**rows.features, "features": List(List(Value("float32")))}

    def portable(row: Mapping[str, Any], index: int) -> dict[str, Any]:
        return {"features": _features(row, source=named, index=index)}

    return rows.map(
        portable,
        with_indices=True,
        remove_columns=local,
        features=type(rows.features)({name: features[name] for name in names}),
        cache_file_name=str(Path(scratch) / f"{rows.split or 'rows'}.arrow"),
        writer_batch_size=16,  # rows held in memory: those of a long video are megabytes
    )


def _has_features(rows: Any) -> bool:
    if "features" not in rows.column_names:
        return False
    batches = rows.select_columns("features").with_format("arrow").iter(batch_size=16)
    return not any(batch.column("features").null_count for batch in batches)


def _features(row: Mapping[str, Any], *, source: str, index: int) -> Any:
    from tempclr.data.rows import read_paragraph

    if row.get("features_path") is None and row.get("features") is None:
        raise InputError("missing: make it by `tempclr extract` first", file=source, row=index, field="features")
    return read_paragraph({**row, "video": None}, source=source, index=index).features
