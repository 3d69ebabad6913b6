"""Word lists from files: arrays of text that numpy saved, pickled ones too, and plain text."""

from __future__ import annotations

import io
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.errors import InputError
from tempclr_hub.checkpoint_pickle import MAX_PICKLE_BYTES, Inert, read_pickle

__all__ = ["read_vocabulary"]

_NUMPY_START = b"\x93NUMPY"
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


def read_vocabulary(path: str | PathLike[str]) -> list[str]:
    """The words of a file, in order: a one-dimensional ``.npy`` array of text, or a text file of one word a line.

    Note [A pickled array of words]: numpy writes an array of Python's own strings as a pickle, which ``numpy.load``
    refuses, with reason, unless it may run what the file says. Here the pickle is read as data, and nothing but text is
    accepted in it.

    Raises:
        InputError: no such file, not UTF-8, an array of something else, or no word at all.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("add\\noil\\n")
    ...     file.flush()
    ...     read_vocabulary(file.name)
    ['add', 'oil']
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("no such vocabulary file", file=path)
    if file.stat().st_size > MAX_PICKLE_BYTES:
        raise InputError(f"is larger than {MAX_PICKLE_BYTES} bytes: not a list of words", file=path)
    content = file.read_bytes()
    try:
        words = _array_words(content) if content.startswith(_NUMPY_START) else _lines(content)
    except InputError as error:
        raise InputError(str(error), file=path) from error
    if not any(words):
        raise InputError("holds no word", file=path)
    if any("\n" in word or "\r" in word for word in words):
        raise InputError("has a word of two lines: expected one word an entry", file=path)
    return words


def _lines(content: bytes) -> list[str]:
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"is neither an array of numpy nor UTF-8 text ({error.reason})") from error
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _array_words(content: bytes) -> list[str]:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    except Exception as error:  # numpy parses the header as Python's own words, which fails in many ways
        raise InputError(f"is a damaged array of numpy ({' '.join(str(error).split())[:120]})") from error
    if len(shape) == 1 and dtype.kind == "U" and not dtype.hasobject:
        return _plain_words(content[stream.tell() :], shape[0], dtype)
    if len(shape) != 1 or dtype != np.dtype(object):
        raise InputError(f"holds an array of {dtype} with shape {shape}, expected one dimension of text")
    words = _pickled_words(read_pickle(stream, tensor_values=lambda storage: None))
    if len(words) != math.prod(shape):
        raise InputError(f"declares {shape[0]} words and holds {len(words)}")
    return words


def _plain_words(values: bytes, num_words: int, dtype: np.dtype) -> list[str]:
    """Decoded here: numpy.load makes room for as many words as the header declares, and trusts their characters."""
    width = dtype.itemsize
    if num_words < 1 or not width or len(values) < num_words * width:
        raise InputError(f"is a damaged array of numpy: {num_words} words of {width} bytes in {len(values)} bytes")
    encoding = "utf-32-be" if dtype.str.startswith(">") else "utf-32-le"
    try:
        return [values[at : at + width].decode(encoding).rstrip("\0") for at in range(0, num_words * width, width)]
    except UnicodeDecodeError as error:
        raise InputError(f"is a damaged array of numpy ({error.reason})") from error


def _pickled_words(saved: Any) -> list[str]:
    state = saved.state if isinstance(saved, Inert) and saved.name in _ARRAYS else None
    words = state[4] if isinstance(state, tuple) and len(state) == 5 else None
    if not isinstance(words, list) or not all(type(word) is str for word in words):
        raise InputError("is a pickle of something other than an array of text")
    return words
