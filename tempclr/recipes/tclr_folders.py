"""Models of clips from a folder or Hub id, whole or not at all: what is wrong with one is told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import logging

from tempclr.errors import InputError
from tempclr.models.tclr import TCLRForVideoClassification, TCLRModel

__all__ = ["is_classifier", "read_backbone", "read_clip_model"]

KINDS = ("tclr", "video_resnet")
# What a model that starts from another may not have found there: the part that is to be trained.
NEW_PARTS: dict[Any, tuple[str, ...]] = {TCLRModel: ("head.",), TCLRForVideoClassification: ("classifier.",)}


def is_classifier(source: str) -> bool:
    """Whether a folder or Hub id holds a ``TCLRForVideoClassification``.

    Raises:
        InputError: it holds no model of clips.
    """
    return TCLRForVideoClassification.__name__ in (_config(source).get("architectures") or [])


def read_clip_model(source: str, kind: type, *, new_parts: bool = False, **settings: Any) -> Any:
    """The model, float32 on the CPU, in evaluation mode.

    Args:
        source: folder or Hub id of a TCLR model, of its classifier or of the backbone alone.
        kind: ``TCLRModel`` or ``TCLRForVideoClassification``.
        new_parts: allow the head or the classifier to be missing there: it is then new.
        settings: fields of its configuration to change.

    Raises:
        InputError: it cannot be read, is a model of another kind, or lacks weights.
    """
    import torch

    _config(source)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        model, loading = kind.from_pretrained(source, output_loading_info=True, dtype=torch.float32, **settings)  # type: ignore[attr-defined]
    except InputError:
        raise
    except Exception as error:  # damaged weights raise whatever their content provokes
        raise InputError(f"the weights cannot be read: {_one_line(error)}", file=source) from error
    finally:
        logging.set_verbosity(verbosity)
    allowed = NEW_PARTS.get(kind, ()) if new_parts else ()
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith(allowed or ("\0",)))
    if missing:
        raise InputError(f"the weights lack {len(missing)} tensors, as {missing[0]!r}", file=source)
    return model.eval()


def read_backbone(source: str) -> Any:
    """The ``VideoResNetModel`` of any folder of ours that has one; see :func:`read_clip_model`."""
    return read_clip_model(source, TCLRModel, new_parts=True).backbone


def _config(source: str) -> dict[str, Any]:
    folder = Path(source)
    if not folder.is_dir() and (folder.exists() or folder.is_absolute() or source[:1] == "." or len(folder.parts) != 2):
        raise InputError("no such model folder: give one that save_pretrained wrote, or a Hub id", file=source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError("no config.json here: give a folder that save_pretrained wrote", file=source)
    try:
        values, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(_one_line(error), file=source) from error
    if values.get("model_type") not in KINDS:
        raise InputError(f"is no TCLR model: its model_type is {values.get('model_type')!r}", file=source)
    return values


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
