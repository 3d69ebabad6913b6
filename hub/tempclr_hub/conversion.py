"""What every converter does: check the tensors against our model, write the folder in one piece, say what was done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tempclr.data.files import check_output_folder
from tempclr.errors import InputError

__all__ = [
    "DTYPES",
    "Conversion",
    "check_new_folder",
    "check_tensors",
    "file_sha256",
    "new_folder",
    "write_model_folder",
]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
REPORT_FILE = "conversion.json"


@dataclass
class Conversion:
    """What a conversion did; the folder holds it as ``conversion.json``.

    ``dropped``: tensors of the source that are left out, each with the reason. ``shortened``: tensors of which some
    rows are kept. ``num_mapped`` counts both whole and shortened ones, so that ``num_mapped + len(dropped)`` is
    ``num_source_tensors``. ``notes``: what the user should know.
    """

    kind: str
    source: str
    source_sha256: str
    num_source_tensors: int
    num_mapped: int
    num_parameters: int
    dtype: str
    dropped: dict[str, str] = field(default_factory=dict)
    shortened: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Several lines for the terminal."""
        lines = [
            f"{self.source} (sha256 {self.source_sha256[:12]}…): {self.num_source_tensors} tensors, "
            f"{self.num_mapped} mapped, {len(self.dropped)} dropped, {self.num_parameters:,} numbers in {self.dtype}"
        ]
        lines += [f"  dropped {name}: {reason}" for name, reason in self.dropped.items()]
        lines += [f"  shortened {name}: {what}" for name, what in self.shortened.items()]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def check_new_folder(path: str | PathLike[str]) -> None:
    """Refuse, before the work, a folder that holds something already or cannot be made.

    Raises:
        InputError: told in one line.
    """
    check_output_folder(path)
    if Path(path).is_dir() and any(Path(path).iterdir()):
        raise InputError("this folder is not empty: give a new one", file=path)


@contextmanager
def new_folder(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name when the block ends well, and goes when it does not.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as base:
    ...     with new_folder(f"{base}/model") as temporary:
    ...         _ = (temporary / "config.json").write_text("whole")
    ...     [file.name for file in Path(base, "model").iterdir()]
    ['config.json']
    """
    check_new_folder(path)
    final = Path(path).absolute()
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_sha256(path: str | PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_tensors(
    tensors: Mapping[str, Tensor],
    model_class: Any,
    config: Any,
    *,
    source_name: Callable[[str], str],
    check_values: bool = True,
) -> None:
    """Hold ``tensors``, under our names, against those that ``model_class`` of ``config`` has: all, and no others.

    Args:
        source_name: our name of a tensor to the one in the source, for the messages.
        check_values: look at the numbers too, not at names and shapes alone (which meta tensors have).

    Raises:
        InputError: a tensor is missing, is not the model's, has another shape or holds a number that is not finite.
    """
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in model_class(config).state_dict().items()}
    for name in expected:
        if name not in tensors:
            num_missing = sum(other not in tensors for other in expected)
            raise InputError(f"the checkpoint lacks {num_missing} tensors, the first is {source_name(name)!r}")
    for name, value in tensors.items():
        if name not in expected:
            raise InputError(f"the checkpoint has a tensor that this model does not: {source_name(name)!r}")
        if tuple(value.shape) != expected[name]:
            raise InputError(f"{source_name(name)!r} is {tuple(value.shape)}, expected {expected[name]}")
        if not value.is_floating_point():
            raise InputError(f"{source_name(name)!r} is of {value.dtype}, expected floating-point numbers")
        if check_values and not _is_finite(value):
            raise InputError(f"{source_name(name)!r} holds a number that is not finite: the checkpoint is of no use")


def _is_finite(value: Tensor) -> bool:
    # NaN passes through aminmax, which needs no memory of its own and a tenth of the time of isfinite.
    return bool(torch.stack(torch.aminmax(value)).isfinite().all())


def write_model_folder(
    folder: Path,
    *,
    model_class: Any,
    config: Any,
    tensors: Mapping[str, Tensor],
    conversion: Conversion,
    processor: Any = None,
    show_progress_bar: bool = False,
) -> None:
    """config.json, model.safetensors, conversion.json and, where there is one, the processor's files.

    Args:
        folder: an empty one, from :func:`new_folder`.
        tensors: under the names of ``model_class``, checked by :func:`check_tensors`; written in ``conversion.dtype``.

    Raises:
        InputError: a number is too large for the dtype.
        OSError: there is no room for the weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from tqdm.auto import tqdm

    dtype = DTYPES[conversion.dtype]
    converted = {}
    for name, value in tqdm(tensors.items(), desc="convert", unit="tensor", disable=not show_progress_bar):
        # A copy of its own: safetensors refuses tensors that share memory, and the source's file may be mapped.
        converted[name] = value.to(dtype, copy=True).contiguous()
        if dtype == torch.float16 and not _is_finite(converted[name]):
            raise InputError(f"{name!r} has numbers too large for float16: take --dtype float32 or bfloat16")
    config.architectures, config.dtype = [model_class.__name__], dtype
    config.save_pretrained(folder)
    try:
        save_file(converted, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # which is no OSError
        raise OSError(f"the weights cannot be written into {folder.parent}: {error}") from error
    if processor is not None:
        processor.save_pretrained(folder)
    report = json.dumps(asdict(conversion), indent=2, ensure_ascii=False)
    (folder / REPORT_FILE).write_text(report + "\n", encoding="utf-8")
