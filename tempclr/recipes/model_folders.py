"""Models from a folder or Hub id, whole or not at all: what is wrong with one is told in one line that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tempclr.errors import InputError
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

__all__ = ["read_config", "read_model"]


def read_config(source: str) -> TempCLRConfig:
    """The configuration of a model that is there with its weights; they are not loaded.

    Raises:
        InputError: there is no such folder, it holds no weights, or its configuration is not a TempCLR model's.

    >>> read_config("./nowhere")
    Traceback (most recent call last):
    tempclr.errors.InputError: ./nowhere: no such model folder: give one that save_pretrained wrote, or a Hub id
    """
    folder = Path(source)
    if not folder.is_dir() and (folder.exists() or folder.is_absolute() or source[:1] == "." or len(folder.parts) != 2):
        raise InputError("no such model folder: give one that save_pretrained wrote, or a Hub id", file=source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError("no config.json here: give a folder that save_pretrained wrote", file=source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise InputError("this model folder has no weights (*.safetensors): did its training end early?", file=source)
    try:
        values, _ = TempCLRConfig.get_config_dict(source)
        kind = values.get("model_type") if isinstance(values, dict) else None
        if kind != TempCLRConfig.model_type:
            hint = "; 'tempclr pretrain --init_from_bert' starts from it" if kind == "bert" else ""
            raise InputError(f"config.json is not a TempCLR model's: its model_type is {kind!r}{hint}")
        return TempCLRConfig.from_dict(values)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(_one_line(error), file=source) from error


def read_model(source: str, *, with_processor: bool = True) -> TempCLRModel:
    """The model, on the CPU and in evaluation mode.

    Args:
        source: folder or Hub id.
        with_processor: refuse a model whose tokenizer cannot be read.

    Raises:
        InputError: see :func:`read_config`; also weights that are damaged, lack a tensor or have other sizes.
    """
    config = read_config(source)
    with _loading_quietly():
        try:
            model, loading = TempCLRModel.from_pretrained(
                source, config=config, output_loading_info=True, ignore_mismatched_sizes=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"the weights cannot be read: {_one_line(error)}", file=source) from error
    if loading["mismatched_keys"]:
        name, found, expected = min(loading["mismatched_keys"])
        sizes = f"{name!r} is {tuple(found)}, expected {tuple(expected)}"
        raise InputError(f"the weights do not fit config.json: {sizes}", file=source)
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise InputError(f"the weights lack {len(missing)} tensors, as {missing[0]!r}", file=source)
    if with_processor and model.processor is None:
        raise InputError(f"no tokenizer can be read from this model folder{_reason(source)}", file=source)
    return model.eval()


def _reason(source: str) -> str:
    try:
        TempCLRProcessor.from_pretrained(source)
    except Exception as error:  # a broken tokenizer file raises whatever its content provokes
        named = isinstance(error, OSError | json.JSONDecodeError)
        return f": {_one_line(error)}" if named else f": {type(error).__name__}, {_one_line(error)}"
    return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _loading_quietly() -> Iterator[Any]:
    """Without the table of tensors that transformers logs before it raises: the error says it in one line."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
