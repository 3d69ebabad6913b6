"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from tempclr.errors import InputError


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, moved onto it when the block ends well and removed when it does not.

    The temporary name keeps the suffix, because writers choose the format by it. Parent folders are made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(f"{folder}/a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     Path(folder, "a.txt").read_text()
    'whole'
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.{threading.get_ident()}{final.suffix}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def check_output_file(path: str | PathLike[str]) -> None:
    """Refuse, before the work begins, a file that could not be written when it is done.

    Raises:
        InputError: ``path`` is a folder, or its folder cannot be made or written to.

    >>> check_output_file(".")
    Traceback (most recent call last):
    tempclr.errors.InputError: .: is a folder, expected the name of a file to write
    """
    if Path(path).is_dir():
        raise InputError("is a folder, expected the name of a file to write", file=path)
    check_output_folder(Path(path).parent)


def check_output_folder(path: str | PathLike[str]) -> None:
    """The same for a folder that may not be there yet."""
    wanted = Path(path).absolute()
    nearest = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    if not nearest.is_dir():
        raise InputError("is a file, expected a folder to write into", file=nearest)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError("no permission to write into this folder; choose another", file=nearest)
