"""What would be sent to the Hub, as a folder of its own that can be looked at, checked and thrown away."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.errors import InputError

__all__ = ["KINDS", "Staged", "stage_dataset", "stage_model", "stage_state"]

KINDS = ("model", "dataset")

# Note [Only what is named is sent]: a training folder also holds optimizer states, logs, caches and whatever else a
# user keeps there. So files are chosen by what a model is made of, at the top of the folder, and never by what to leave
# out; a link is followed only inside the folder.
MODEL_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "probe.safetensors",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "conversion.json",
    "alignment.png",
    "README.md",
    "LICENSE",
    "configuration_*.py",
    "modeling_*.py",
    "processing_*.py",
)
CARD_FILES = ("README.md", "alignment.png")
# What a training run resumes from, beside the model; never sent unless it is asked for by name.
STATE_FILES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json")
TEXT_SUFFIXES = (".json", ".md", ".py", ".txt", ".yaml", ".yml")
_SECRETS = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,})\b")


@dataclass(frozen=True)
class Staged:
    """A folder ready to be sent: ``kind`` of repository, what stays behind (names relative to the source)."""

    folder: Path
    kind: str
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")

    def files(self) -> list[tuple[str, int]]:
        """(name with folders, size in bytes) of every file, sorted by name."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted((path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in found)


def stage_model(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    beside: str | PathLike[str] | None = None,
    secrets: Sequence[str] = (),
) -> Staged:
    """Copy the files a model consists of (``MODEL_FILES``) into ``target``, a new or empty folder.

    Args:
        beside: the folder that the card and its picture come from, where that is not ``source``.
        secrets: texts that no file may hold, further to what looks like an access token.

    Raises:
        InputError: ``source`` holds no config.json or no weights, a file is a link that leads out of it, or a text
            file holds what looks like an access token.
        FileExistsError: ``target`` is not empty.
    """
    folder = _existing_folder(source)
    chosen = _chosen(folder, MODEL_FILES)
    names = {path.name for path in chosen}
    if not names & {"config.json", "adapter_config.json"} or not fnmatch.filter(names, "*model*.safetensors"):
        raise InputError("not a model folder: it needs config.json and model.safetensors", file=folder)
    if beside is not None:
        chosen = [path for path in chosen if path.name not in CARD_FILES] + _chosen(Path(beside), CARD_FILES)
    new = _copied(chosen, target, secrets)
    _settle_picture(new)
    sent = {path.name for path in new.iterdir()}
    return Staged(new, "model", tuple(path.name for path in sorted(folder.iterdir()) if path.name not in sent))


def stage_state(source: str | PathLike[str], target: str | PathLike[str], *, secrets: Sequence[str] = ()) -> None:
    """Copy a checkpoint of the Trainer, the model and what a run resumes from (``STATE_FILES``), into ``target``.

    Its pickled training arguments stay behind: resuming does not read them.

    Raises:
        InputError: as :func:`stage_model`.
        FileExistsError: ``target`` is not empty.
    """
    _copied(_chosen(_existing_folder(source), (*MODEL_FILES, *STATE_FILES)), target, secrets)


def _settle_picture(folder: Path) -> None:
    """Neither a picture that the card does not show, as of an earlier training, nor a link to one that is not there."""
    from .card_picture import PICTURE_FILE, with_picture

    card, picture = folder / "README.md", folder / PICTURE_FILE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if f"({PICTURE_FILE})" not in text:
        picture.unlink(missing_ok=True)
    elif not picture.is_file():
        card.write_text(with_picture(text, None), encoding="utf-8")


def _chosen(folder: Path, patterns: Sequence[str]) -> list[Path]:
    root = folder.resolve()
    chosen = [path for path in sorted(folder.iterdir()) if path.is_file() and _matches(path.name, patterns)]
    for path in chosen:
        if not path.resolve().is_relative_to(root):
            raise InputError("is a link that leads out of the model folder: put a copy there", file=path)
    return chosen


def _copied(chosen: Sequence[Path], target: str | PathLike[str], secrets: Sequence[str]) -> Path:
    new = _new_folder(target)
    for path in chosen:
        shutil.copyfile(path, new / path.name)
    _refuse_secrets(new, secrets)
    return new


def stage_dataset(source: str | PathLike[str], target: str | PathLike[str], *, card: str) -> Staged:
    """Write the rows of a dataset as Parquet, one or more files a split, with ``card`` as README.md.

    ``source``: what ``tempclr.data.rows.load_rows`` takes, or a folder of several splits. Features in files of their
    own, as ``tempclr extract`` writes them, go into the rows; the columns ``features_path`` and ``video``, which name
    files of this machine, stay here. ``feature_recipe.json`` beside the data comes along.

    Raises:
        InputError: the rows cannot be read, have no features, or a text holds an access token.
    """
    from tempclr.data.rows import RECIPE_FILE, dataset_recipe
    from tempclr_hub.portable_rows import LOCAL_COLUMNS, all_splits, portable_recipe, portable_rows

    splits = all_splits(source)
    new = _new_folder(target)
    left_out = {name for rows in splits.values() for name in LOCAL_COLUMNS if name in rows.column_names}
    (new / "data").mkdir()
    for split, local in splits.items():
        with tempfile.TemporaryDirectory(dir=new) as scratch:
            shards = _shards(portable_rows(local, source=source, scratch=scratch))
            for index, shard in enumerate(shards):
                shard.to_parquet(new / "data" / f"{split}-{index:05d}-of-{len(shards):05d}.parquet")
    (new / "README.md").write_text(card, encoding="utf-8")
    recipe = dataset_recipe(source)
    if recipe is not None:
        (new / RECIPE_FILE).write_text(json.dumps(portable_recipe(recipe), indent=2) + "\n", encoding="utf-8")
    _refuse_secrets(new)
    return Staged(new, "dataset", tuple(f"column {name}" for name in sorted(left_out)))


def stage_kernel_repository(target: str | PathLike[str]) -> Staged:
    """The repository of :func:`tempclr_hub.kernel_repository.stage_kernels`, ready to be sent."""
    from tempclr_hub.kernel_repository import stage_kernels

    return Staged(stage_kernels(_new_folder(target)), "model")


def describe(staged: Staged) -> Iterator[str]:
    """One line a file with its size, the total, and what stays behind."""
    files = staged.files()
    width = max(len(name) for name, _ in files)
    for name, size in files:
        yield f"  {name:<{width}}  {_readable(size):>9}"
    yield f"  {len(files)} files, {_readable(sum(size for _, size in files))}"
    if staged.left_out:
        yield f"stays here: {', '.join(staged.left_out)}"


SHARD_BYTES = 500_000_000


def _shards(rows: Any) -> list[Any]:
    count = min(-(-max(1, rows.data.nbytes) // SHARD_BYTES), max(1, len(rows)))
    return [rows.shard(count, index, contiguous=True) for index in range(count)]


def _existing_folder(source: str | PathLike[str]) -> Path:
    folder = Path(source)
    if not folder.is_dir():
        raise InputError("no such folder: give one that save_pretrained wrote", file=folder)
    return folder


def _new_folder(target: str | PathLike[str]) -> Path:
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: give a new folder to stage in")
    return folder


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_secrets(folder: Path, secrets: Sequence[str] = ()) -> None:
    """The text itself is never told: an error message may be logged."""
    # A shorter one would be found in any text.
    own = [secret for secret in (os.environ.get("HF_TOKEN", ""), *secrets) if len(secret) > 6]
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TEXT_SUFFIXES:
            text = path.read_text(encoding="utf-8", errors="replace")
            if _SECRETS.search(text) or any(secret in text for secret in own):
                name = path.relative_to(folder).as_posix()
                raise InputError("holds what looks like an access token: take it out before publishing", file=name)


def _readable(num_bytes: int) -> str:
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")
