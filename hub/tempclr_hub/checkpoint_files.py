"""Checkpoints written by ``torch.save``, from anyone: read as data, while nothing of the file runs."""

from __future__ import annotations

import io
import mmap
import struct
import sys
import zipfile
from collections.abc import Callable, Collection
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from tempclr.errors import InputError
from tempclr_hub.checkpoint_pickle import MAX_PICKLE_BYTES, Inert, Storage, read_pickle

__all__ = ["Inert", "read_checkpoint"]

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that torch before 1.6 began a file with
LEGACY_PROTOCOL = 1001
LOCAL_HEADER = struct.Struct("<4s22xHH")
MAX_ENTRIES = 100_000


def read_checkpoint(path: str | PathLike[str], *, stand_ins: Collection[str] = ()) -> dict[Any, Any]:
    """What ``torch.save`` wrote, without running anything of it: see Note [Nothing runs] in ``checkpoint_pickle``.

    Both formats are read, the zip archive and the one of torch before 1.6. Tensors look into the file, which is mapped
    into memory, so those that are not used cost nothing; writing to them does not change the file. OrderedDicts come
    back as dicts; parsed arguments, containers of omegaconf and a few others as :class:`Inert`.

    Args:
        path: the file.
        stand_ins: names of further classes, such as "package.module.Class", to read as :class:`Inert` too. Theirs is
            no code that would run either.

    Returns:
        The dictionary that was saved.

    Raises:
        InputError: the file is missing, damaged, cut off, compressed, or asks for anything but tensors and plain data;
            told in one line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
    ...     torch.save({"model": {"weight": torch.ones(2)}, "epoch": 3}, file.name)
    ...     read_checkpoint(file.name)
    {'model': {'weight': tensor([1., 1.])}, 'epoch': 3}
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such checkpoint file", file=path)
    if sys.byteorder != "little":
        raise InputError("checkpoints can be read on little-endian machines only", file=path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
            if not start.startswith((ZIP_START, LEGACY_START)):
                raise InputError(_not_a_checkpoint(start))
            # A private copy: what a caller writes into a tensor stays in memory.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        saved = _read_zip(path, content, stand_ins) if start.startswith(ZIP_START) else _read_legacy(content, stand_ins)
    except InputError as error:
        raise InputError(str(error), file=path) from error
    if not isinstance(saved, dict):
        raise InputError(f"holds a {type(saved).__name__}, expected a dictionary with the weights", file=path)
    return saved


def _not_a_checkpoint(start: bytes) -> str:
    if not start:
        return "the file is empty"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint: the download did not give the file itself"
    return f"is not a checkpoint that torch.save wrote: it begins with {start[:8]!r}"


def _read_zip(path: Path, content: mmap.mmap, stand_ins: Collection[str]) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            records = _records(archive, size=len(content))
            damaged = archive.testzip()
    except InputError:
        raise
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, struct.error) as error:
        raise InputError(f"the archive is cut off or damaged ({error})") from error
    except (ValueError, OverflowError, EOFError, OSError) as error:
        raise InputError(f"the archive cannot be read ({error})") from error
    if damaged is not None:
        raise InputError(f"the archive is damaged: {damaged!r} does not have its checksum")
    spans = {name: _span(record, content) for name, record in records.items()}
    if "data.pkl" not in spans:
        raise InputError("the archive has no data.pkl: expected a checkpoint that torch.save wrote")
    if "byteorder" in spans and _bytes(content, spans["byteorder"]) != b"little":
        raise InputError("the checkpoint was written on a big-endian machine")
    first, size = spans["data.pkl"]
    if size > MAX_PICKLE_BYTES:
        raise InputError(
            f"its pickle has {size} bytes, more than the {MAX_PICKLE_BYTES} that any list of weights needs"
        )

    def values(storage: Storage) -> torch.Tensor:
        if f"data/{storage.key}" not in spans:
            raise InputError(f"the archive lacks the values data/{storage.key[:40]}")
        return _values(content, storage, *spans[f"data/{storage.key}"])

    stream = io.BytesIO(content[first : first + size])
    return read_pickle(stream, tensor_values=_once(values), stand_ins=stand_ins)


def _records(archive: zipfile.ZipFile, *, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by their name below the one folder that holds all, each checked to be as torch.save writes it."""
    entries = archive.infolist()
    if not entries or len(entries) > MAX_ENTRIES:
        raise InputError(f"the archive has {len(entries)} entries, expected 1 to {MAX_ENTRIES}")
    top = entries[0].filename.partition("/")[0]
    records: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        below = "/".join(parts[1:])
        if parts[:1] != (top,) or ".." in parts or entry.filename != f"{top}/{below}" or below in records:
            raise InputError(f"the archive has an entry {entry.filename[:80]!r}, not a name that torch.save gives")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise InputError(
                f"the entry {entry.filename[:80]!r} is compressed or encrypted, torch.save stores it plain"
            )
        records[below] = entry
    declared = sum(entry.file_size for entry in entries)
    if declared > size:
        raise InputError(f"its entries declare {declared} bytes, the file has {size}")
    return records


def _span(entry: zipfile.ZipInfo, content: mmap.mmap) -> tuple[int, int]:
    """Where an entry's bytes begin, and how many there are."""
    header = content[entry.header_offset : entry.header_offset + LOCAL_HEADER.size]
    if len(header) < LOCAL_HEADER.size or not header.startswith(ZIP_START):
        raise InputError(f"the archive is damaged at the entry {entry.filename[:80]!r}")
    _, name_length, extra_length = LOCAL_HEADER.unpack(header)
    first = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
    if first + entry.file_size > len(content):
        raise InputError(f"the archive is cut off at the entry {entry.filename[:80]!r}")
    return first, entry.file_size


def _read_legacy(content: mmap.mmap, stand_ins: Collection[str]) -> Any:
    """Five pickles (magic number, protocol, machine, what was saved, keys), then the values of each key in turn."""
    stream = io.BytesIO(content[:MAX_PICKLE_BYTES])
    declared: dict[str, Storage] = {}

    def declare(storage: Storage) -> None:
        if declared.setdefault(storage.key, storage) != storage:
            raise InputError("two of its tensors disagree about the values they share")

    _, protocol, machine = (read_pickle(stream, tensor_values=declare) for _ in range(3))
    if protocol != LEGACY_PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise InputError("is not of the format that torch before 1.6 wrote on little-endian machines")
    begin = stream.tell()
    read_pickle(stream, tensor_values=declare, stand_ins=stand_ins)
    keys = read_pickle(stream, tensor_values=declare)
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(declared):
        raise InputError("its list of values is not that of its tensors")
    spans, position = {}, stream.tell()
    for key in keys:
        size = declared[key].num_values * declared[key].dtype.itemsize
        counted = content[position : position + 8]
        if len(counted) < 8 or position + 8 + size > len(content):
            raise InputError("the file is cut off")
        if int.from_bytes(counted, "little") != declared[key].num_values:
            raise InputError("the file is damaged: its values have another size than its tensors say")
        spans[key] = (position + 8, size)
        position += 8 + size
    stream.seek(begin)

    def values(storage: Storage) -> torch.Tensor:
        return _values(content, storage, *spans[storage.key])

    return read_pickle(stream, tensor_values=_once(values), stand_ins=stand_ins)


def _once(values: Callable[[Storage], torch.Tensor]) -> Callable[[Storage], torch.Tensor]:
    """So that tensors that shared their values when they were saved share them again."""
    known: dict[Storage, torch.Tensor] = {}

    def remembered(storage: Storage) -> torch.Tensor:
        if storage not in known:
            known[storage] = values(storage)
        return known[storage]

    return remembered


def _values(content: mmap.mmap, storage: Storage, first: int, size: int) -> torch.Tensor:
    expected = storage.num_values * storage.dtype.itemsize
    if size != expected:
        declared = f"{storage.num_values} of {storage.dtype}"
        raise InputError(f"the values {storage.key[:40]!r} have {size} bytes, {declared} have {expected}")
    if not size:
        return torch.empty(0, dtype=storage.dtype)
    if first % storage.dtype.itemsize:
        return torch.frombuffer(bytearray(_bytes(content, (first, size))), dtype=storage.dtype)
    return torch.frombuffer(content, dtype=storage.dtype, count=storage.num_values, offset=first)


def _bytes(content: mmap.mmap, span: tuple[int, int]) -> bytes:
    return content[span[0] : span[0] + span[1]]
