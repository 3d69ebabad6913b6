"""Whether a checkpoint of the Trainer is whole: a process that is killed, or a full disk, may leave parts of one."""

from __future__ import annotations

import json
import logging
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME

from tempclr.errors import InputError

__all__ = ["checkpoint_fault", "checkpoint_step", "whole_checkpoint"]

_log = logging.getLogger(__name__)
_TORCH_SUFFIXES = (".pt", ".pth", ".bin")
_INDEX_SUFFIX = ".safetensors.index.json"


def checkpoint_step(checkpoint: str | PathLike[str]) -> int | None:
    """The step in the folder's name; None where it is no checkpoint's name.

    >>> checkpoint_step("runs/checkpoint-500"), checkpoint_step("runs/checkpoint-old")
    (500, None)
    """
    head, _, number = Path(checkpoint).name.rpartition("-")
    return int(number) if head == "checkpoint" and number.isdecimal() else None


def whole_checkpoint(given: str | PathLike[str], output_dir: str | PathLike[str], **parts: Any) -> str:
    """The whole checkpoint that is asked for: a folder, or ``"last"`` for the newest one of ``output_dir``.

    A newest one that is not whole is passed over with a warning that names it; one that was named is an error.

    Args:
        given: see above.
        output_dir: the folder of the run.
        parts: the options of :func:`checkpoint_fault`.

    Raises:
        InputError: there is none, or the one that was named is not whole.
    """
    field = "resume_from_checkpoint"
    if given == "last":
        return _newest(Path(output_dir), parts)
    if not Path(given).is_dir():
        raise InputError(f"no checkpoint folder {str(given)!r}", field=field)
    fault = checkpoint_fault(given, **parts)
    if fault is not None:
        raise InputError(f"{str(given)!r} is no whole checkpoint: {fault}", field=field)
    return str(given)


def _newest(folder: Path, parts: dict[str, Any]) -> str:
    found = {step: path for path in folder.glob("checkpoint-*") if (step := checkpoint_step(path)) is not None}
    for step in sorted(found, reverse=True):
        fault = checkpoint_fault(found[step], **parts)
        if fault is None:
            return str(found[step])
        _log.warning("%s is passed over, it is not whole: %s", found[step], fault)
    told = f"no whole checkpoint in {folder}" if found else f"no checkpoint in {folder}"
    raise InputError(f"{told} to resume from", field="resume_from_checkpoint")


def checkpoint_fault(
    checkpoint: str | PathLike[str], *, with_optimizer: bool = True, with_config: bool = True, num_ranks: int = 1
) -> str | None:
    """Why training cannot go on from a checkpoint folder, in words; None where it is whole.

    Every file is opened and its size compared with what it announces, the state is parsed, and nothing may be missing:
    the Trainer would take up training without the optimizer's state, and say nothing.

    Args:
        checkpoint: the folder.
        with_optimizer: whether the states of optimizer, schedule and random numbers belong to it, which they do unless
            ``save_only_model`` was set.
        with_config: whether the model's configuration belongs to it, which it does unless the model is no
            ``PreTrainedModel``.
        num_ranks: processes of the training, each of which has its own random numbers and, where rows are streamed, its
            own place in the stream.

    >>> checkpoint_fault("no/such/folder")
    'it has no trainer_state.json'
    """
    folder = Path(checkpoint)
    fault = _state_fault(folder)
    if fault is not None:
        return fault
    for file in sorted(path for path in folder.rglob("[!.]*") if path.is_file()):  # hidden: what a killed writer left
        fault = _file_fault(file)
        if fault is not None:
            return f"{file.relative_to(folder)} {fault}"
    num_written = len(list(folder.glob("rng_state_*.pth")))
    if with_optimizer and num_written > num_ranks:
        return f"it is of {num_written} ranks, now there are {num_ranks}"
    missing = _missing(folder, with_optimizer, with_config, num_ranks)
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


def _missing(folder: Path, with_optimizer: bool, with_config: bool, num_ranks: int) -> list[str]:
    shards = {
        shard
        for index in folder.glob(f"*{_INDEX_SUFFIX}")
        for shard in json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
    }
    missing = [shard for shard in sorted(shards) if not (folder / shard).is_file()]
    if not _is_any(folder, "*.safetensors") and not _is_any(folder, "pytorch_model*"):
        missing.append("weights")
    if with_config and not (folder / "config.json").is_file():
        missing.append("config.json")
    if with_optimizer:
        random_states = [f"rng_state_{rank}.pth" for rank in range(num_ranks)] if num_ranks > 1 else ["rng_state.pth"]
        positions = [f"stream_state_{rank}.json" for rank in range(num_ranks)]
        streamed = positions if _is_any(folder, "stream_state_*.json") else []
        missing += [name for name in ("scheduler.pt", *random_states, *streamed) if not (folder / name).is_file()]
        if not _is_any(folder, "*optimizer*"):
            missing.append("optimizer.pt")
    return missing


def _is_any(folder: Path, pattern: str) -> bool:
    """Whether a file is there, or a folder of sharded states; a broken link, a pipe or an empty folder is neither."""
    found = list(folder.glob(pattern))
    return any(path.is_file() or (path.is_dir() and any(path.glob("*.distcp"))) for path in found)
