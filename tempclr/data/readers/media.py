"""What belongs to the annotations: features in files or shards, or the videos themselves, found by a video's id."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.readers.official_files import read_pickle
from tempclr.data.readers.records import as_id, as_list
from tempclr.data.row_checks import feature_array, shortened
from tempclr.data.rows import dataset_recipe, load_feature_file
from tempclr.errors import InputError

FEATURE_SUFFIXES = (".npy", ".safetensors")
_MAX_OPEN_SHARDS = 8


class FeatureFiles:
    """A folder, sub-folders included, with ``<video_id>.npy`` or ``<video_id>.safetensors``, each ``(T, D)``.

    Ids are compared with the names of the files there are, whole; they never become part of a path.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = _folder(folder)
        self._files = _Index(self.folder, FEATURE_SUFFIXES)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._files

    def fingerprint(self) -> str:
        return self._files.fingerprint()

    def path(self, video_id: str) -> Path:
        """The file; an error where two files bear the id."""
        return self._files.path(video_id)

    def load(self, video_id: str) -> np.ndarray:
        """Float32 ``(T, D)``."""
        return load_feature_file(self.path(video_id))

    def shape(self, video_id: str) -> tuple[int, int]:
        """``(T, D)`` without reading the numbers, where the format allows it."""
        path = self.path(video_id)
        if path.suffix != ".npy":
            return self.load(video_id).shape
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{path} cannot be read: {error}", field="features_path") from error
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: expected shape (T, D) with T, D > 0, found {shape}", field="features_path")
        return shape


class FeatureShards:
    """The released shards of HowTo100M: ``<name>_meta.pkl`` with ``{shard: [video_id, …]}``, and for each shard
    ``<name>_<shard>_data.npy``, the features of its videos one below the other, and ``<name>_<shard>_starts.npy``,
    where each begins (one entry more than videos).
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = _folder(folder)
        self._places: dict[str, tuple[str, int]] = {}
        for meta in sorted(self.folder.glob("*_meta.pkl")):
            self._add(meta)
        self._open: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    @staticmethod
    def are_in(folder: str | PathLike[str]) -> bool:
        """Whether the folder holds shards."""
        return any(Path(folder).glob("*_meta.pkl"))

    def _add(self, meta: Path) -> None:
        shards, prefix = read_pickle(meta), meta.name.removesuffix("_meta.pkl")
        if not isinstance(shards, dict):
            raise InputError(f"expected {{shard: [video_id, …]}}, found {shortened(shards)}", file=meta)
        for shard, ids in shards.items():
            try:
                for number, video_id in enumerate(as_list(ids, str(shard))):
                    if as_id(video_id) in self._places:
                        raise InputError(f"{video_id!r} is in two shards", field="video_id")
                    self._places[video_id] = (f"{prefix}_{int(shard)}", number)
            except (InputError, ValueError, TypeError) as error:
                raise InputError(f"shard {shortened(shard)}: {error}", file=meta) from error

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._places

    def fingerprint(self) -> str:
        return _Index(self.folder, (".npy", ".pkl")).fingerprint()

    def load(self, video_id: str) -> np.ndarray:
        """Float32 ``(T, D)``."""
        name, number = self._places[video_id]
        data, starts = self._shard(name)
        if number + 1 >= len(starts):
            raise InputError(f"shard {name} ends before its video {number}", field="features")
        return feature_array(data[starts[number] : starts[number + 1]])

    def _shard(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in self._open:
            data, starts = (self._array(f"{name}_{part}.npy") for part in ("data", "starts"))
            if data.ndim != 2 or starts.ndim != 1 or starts.dtype.kind not in "iu":
                found = f"data {data.shape}, starts {starts.dtype} {starts.shape}"
                raise InputError(
                    f"shard {name}: expected data (T, D) and whole starts, found {found}", field="features"
                )
            if len(starts) and (starts[0] < 0 or starts[-1] > len(data) or (np.diff(starts) < 0).any()):
                raise InputError(f"shard {name}: starts do not ascend within its {len(data)} rows", field="features")
            self._open[name] = data, np.asarray(starts)
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
        return self._open[name]

    def _array(self, name: str) -> np.ndarray:
        try:
            return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{self.folder / name} cannot be read: {error}", field="features") from error


class VideoFiles:
    """A folder, sub-folders included, with files named by the video's id, with or without one more suffix."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        from tempclr.data.features import VIDEO_SUFFIXES  # brings PyTorch and the backbones with it

        self.folder = _folder(folder)
        self._files = _Index(self.folder, VIDEO_SUFFIXES, bare_names=True)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._files

    def fingerprint(self) -> str:
        return self._files.fingerprint()

    def path(self, video_id: str) -> Path:
        """The file; an error where two files bear the id."""
        return self._files.path(video_id)


class _Index:
    """Files of a folder and its sub-folders by name without suffix (``bare_names``: also by the whole name)."""

    def __init__(self, folder: Path, suffixes: tuple[str, ...], *, bare_names: bool = False) -> None:
        self.folder = folder
        self._paths: dict[str, list[Path]] = {}
        self._all: list[Path] = []
        for path in _walk(folder):
            if path.suffix.lower() in suffixes:
                self._all.append(path)
                self._paths.setdefault(path.name.removesuffix(path.suffix), []).append(path)
            if bare_names and not path.name.startswith("."):
                self._paths.setdefault(path.name, []).append(path)

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def path(self, name: str) -> Path:
        paths = self._paths[name]
        if len(paths) > 1:
            raise InputError(f"{len(paths)} files bear this id: {', '.join(map(str, paths[:3]))}; keep one", field=None)
        return paths[0]

    def fingerprint(self) -> str:
        total = hashlib.sha256()
        for path in self._all:
            state = path.stat()
            total.update(
                f"{path.relative_to(self.folder)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="replace")
            )
        return total.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(place, name)


def _folder(folder: str | PathLike[str]) -> Path:
    if not Path(folder).is_dir():
        raise InputError("no such folder", file=folder)
    return Path(folder)


def open_features(folder: str | PathLike[str]) -> FeatureFiles | FeatureShards:
    """The features of a folder: shards where it has a ``*_meta.pkl``, else a file a video."""
    return FeatureShards(_folder(folder)) if FeatureShards.are_in(folder) else FeatureFiles(folder)


def feature_rate(folder: Path, given: float | None) -> tuple[float, dict[str, Any] | None]:
    """How many features a second has, and the ``feature_recipe.json`` beside them or one folder up, where there is one.

    Raises:
        InputError: the rate given is not positive, or not that of the recipe.
    """
    recipe = dataset_recipe(folder) or (dataset_recipe(folder.parent) if folder.name == "features" else None)
    known = recipe.get("features_per_second") if recipe is not None else None
    if given is not None and not (np.isfinite(given) and given > 0):
        raise InputError(f"features_per_second must be a positive number, got {given!r}")
    if given is not None and known is not None and given != known:
        raise InputError(
            f"features_per_second is {given}, but their recipe says {known}; leave the option out", file=folder
        )
    return float(given or known or 1.0), recipe
