"""Known inputs and the embeddings they must give: how a model folder proves that it still is the model it was.

``python -m tempclr_hub.probe FOLDER`` checks a folder in a process that has nothing but the folder.
"""

from __future__ import annotations

import json
import sys
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tempclr.data.files import atomic_path
from tempclr.errors import InputError

__all__ = ["PROBE_FILE", "RELATIVE_TOLERANCE", "check_probe", "store_probe"]

PROBE_FILE = "probe.safetensors"
RELATIVE_TOLERANCE = 1e-4
"""Machines and versions of torch order float32 sums differently: towers of 12 layers move by some 1e-6."""
NUM_UNITS = 3
NUM_TOKENS = 7
NUM_FEATURES = 5


def store_probe(folder: str | PathLike[str]) -> Path:
    """Write ``probe.safetensors`` into a TempCLR model folder: inputs, and the embeddings its model makes of them.

    Three sentences of seven tokens and three clips of five features, or as many as the model takes, made by a formula,
    of different real lengths. The embeddings are computed in float32 whatever the weights are stored in.

    Raises:
        InputError: ``folder`` holds no TempCLR model.
    """
    model = _load(folder)
    inputs = _inputs(model.config)
    from safetensors.torch import save_file

    path = Path(folder) / PROBE_FILE
    with atomic_path(path) as temporary:
        save_file(inputs | _embeddings(model, inputs), temporary)
    return path


def check_probe(folder: str | PathLike[str]) -> float:
    """Largest deviation of the folder's embeddings from the stored ones, relative to the largest stored value.

    Raises:
        InputError: the deviation is above ``RELATIVE_TOLERANCE`` or not a number, or there is nothing to compare with.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / PROBE_FILE
    try:
        stored = load_file(path)
    except FileNotFoundError as error:
        raise InputError("no stored embeddings to compare with: make them with store_probe", file=path) from error
    except SafetensorError as error:
        raise InputError(f"the stored embeddings cannot be read: {error}", file=path) from error
    model = _load(folder)
    names = set(_inputs(model.config))
    if not names < set(stored):
        raise InputError(f"expected the inputs {', '.join(sorted(names))}, got {', '.join(sorted(stored))}", file=path)
    found = _embeddings(model, {name: stored[name] for name in names})
    deviation = 0.0
    for name, value in found.items():
        if name not in stored or stored[name].shape != value.shape:
            raise InputError(f"no stored {name} of shape {tuple(value.shape)}", file=path)
        difference = ((value - stored[name]).abs().max() / stored[name].abs().max()).item()
        if not difference <= RELATIVE_TOLERANCE:
            raise InputError(
                f"{name} moved by {difference:.2g} of their size (at most {RELATIVE_TOLERANCE:g}): these are not the "
                f"weights that {PROBE_FILE} was made with; delete it only if the change is meant",
                file=folder,
            )
        deviation = max(deviation, difference)
    return deviation


def _load(folder: str | PathLike[str]) -> Any:
    from tempclr.models.tempclr import TempCLRModel

    try:
        model, loading = TempCLRModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no TempCLR model can be loaded: {error}", file=folder) from error
    if loading["missing_keys"]:
        raise InputError(f"the weights lack tensors, as {min(loading['missing_keys'])!r}", file=folder)
    return model.eval()


def _inputs(config: Any) -> dict[str, Tensor]:
    num_tokens = min(NUM_TOKENS, config.text_config.max_position_embeddings)
    num_features = min(NUM_FEATURES, config.video_config.max_num_features)
    shorter = torch.arange(NUM_UNITS)[:, None]
    places = torch.arange(NUM_UNITS * num_tokens).reshape(NUM_UNITS, num_tokens)
    size = config.video_config.feature_size
    features = torch.arange(NUM_UNITS * num_features * size, dtype=torch.float64)
    return {
        "input_ids": (places * 7919 + 11) % config.text_config.vocab_size,
        "attention_mask": (torch.arange(num_tokens) < (num_tokens - shorter).clamp_min(1)).long(),
        "video_features": torch.sin(features * 0.7297).float().reshape(NUM_UNITS, num_features, size),
        "video_mask": (torch.arange(num_features) < (num_features - shorter).clamp_min(1)).long(),
    }


def _embeddings(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        output = model(**inputs, return_loss=False)
    return {name: getattr(output, name).float().contiguous() for name in ("text_embeds", "video_embeds")}


def main(words: list[str]) -> int:
    try:
        print(json.dumps({"deviation": check_probe(words[0])}))
    except InputError as error:
        print(json.dumps({"error": str(error)}))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
