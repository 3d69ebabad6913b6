"""Whether a checkpoint of the Trainer is whole: a process that is killed, or a full disk, may leave parts of one."""

from __future__ import annotations

import json
import zipfile
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME

__all__ = ["checkpoint_fault", "checkpoint_step"]

_TORCH_SUFFIXES = (".pt", ".pth", ".bin")
_INDEX_SUFFIX = ".safetensors.index.json"


def checkpoint_step(checkpoint: str | PathLike[str]) -> int | None:
    """The step in the folder's name; None where it is no checkpoint's name.

    >>> checkpoint_step("runs/checkpoint-500"), checkpoint_step("runs/checkpoint-old")
    (500, None)
    """
    head, _, number = Path(checkpoint).name.rpartition("-")
    return int(number) if head == "checkpoint" and number.isdecimal() else None


def checkpoint_fault(checkpoint: str | PathLike[str], *, with_optimizer: bool = True, num_ranks: int = 1) -> str | None:
    """Why training cannot go on from a checkpoint folder, in words; None where it is whole.

    Every file is opened and its size compared with what it announces, the state is parsed, and nothing may be missing:
    the Trainer would take up training without the optimizer's state, and say nothing.

    Args:
        checkpoint: the folder.
        with_optimizer: whether the states of optimizer, schedule and random numbers belong to it, which they do unless
            ``save_only_model`` was set.
        num_ranks: processes of the training, each of which has its own random numbers.

    >>> checkpoint_fault("no/such/folder")
    'it has no trainer_state.json'
    """
    folder = Path(checkpoint)
    fault = _state_fault(folder)
    if fault is not None:
        return fault
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        fault = _file_fault(file)
        if fault is not None:
            return f"{file.relative_to(folder)} {fault}"
    num_written = len(list(folder.glob("rng_state_*.pth")))
    if with_optimizer and num_written > num_ranks:
        return f"it is of {num_written} ranks, now there are {num_ranks}"
    missing = _missing(folder, with_optimizer, num_ranks)
    return f"it has no {missing[0]}" if missing else None


def _state_fault(folder: Path) -> str | None:
    file = folder / TRAINER_STATE_NAME
    if not file.is_file():
        return f"it has no {TRAINER_STATE_NAME}"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["global_step"]
    except (ValueError, KeyError, TypeError, OSError):
        return f"{TRAINER_STATE_NAME} cannot be read"
    expected = checkpoint_step(folder)
    return None if expected is None or found == expected else f"{TRAINER_STATE_NAME} is that of step {found}"


def _file_fault(file: Path) -> str | None:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        elif file.suffix in _TORCH_SUFFIXES:
            with zipfile.ZipFile(file) as archive:  # its list of entries is at the end
                archive.infolist()
        elif file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
    except (SafetensorError, zipfile.BadZipFile, ValueError, OSError):
        return "is cut off or damaged"
    return None


def _missing(folder: Path, with_optimizer: bool, num_ranks: int) -> list[str]:
    shards = {
        shard
        for index in folder.glob(f"*{_INDEX_SUFFIX}")
        for shard in json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
    }
    missing = [shard for shard in sorted(shards) if not (folder / shard).is_file()]
    if not _is_any(folder, "*.safetensors") and not _is_any(folder, "pytorch_model*"):
        missing.append("weights")
    if with_optimizer:
        random_states = [f"rng_state_{rank}.pth" for rank in range(num_ranks)] if num_ranks > 1 else ["rng_state.pth"]
        missing += [name for name in ("scheduler.pt", *random_states) if not (folder / name).is_file()]
        if not _is_any(folder, "*optimizer*"):
            missing.append("optimizer.pt")
    return missing


def _is_any(folder: Path, pattern: str) -> bool:
    """Whether a file is there, or a folder of sharded states; a broken link, a pipe or an empty folder is neither."""
    found = list(folder.glob(pattern))
    return any(path.is_file() or (path.is_dir() and any(path.glob("*.distcp"))) for path in found)
