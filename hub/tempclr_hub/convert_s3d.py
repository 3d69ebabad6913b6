"""The released S3D-G, a flat state dictionary, to a folder that ``S3DModel.from_pretrained`` loads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from tempclr.errors import InputError
from tempclr.models.s3d import S3DConfig, S3DModel, S3DProcessor, S3DTokenizer
from tempclr_hub.checkpoint_files import read_checkpoint
from tempclr_hub.conversion import (
    DTYPES,
    Conversion,
    check_new_folder,
    check_tensors,
    file_sha256,
    new_folder,
    write_model_folder,
)
from tempclr_hub.vocabulary_files import read_vocabulary

__all__ = ["convert_s3d", "our_name"]

BLOCKS = (("3b", "3c"), ("4b", "4c", "4d", "4e", "4f"), ("5b", "5c"))
_STEM = {"conv1": 0, "conv_2b": 1, "conv_2c": 2}  # place of the first convolution of each in S3DVideoModel.stem
_PARTS = {"conv": "convolution", "bn": "norm"}
_OTHERS = {
    "gating.fc": "video_model.stem_gate.dense",
    "fc": "video_model.projection",
    "text_module.word_embd": "text_model.word_embeddings",
    "text_module.fc1": "text_model.dense",
    "text_module.fc2": "text_model.projection",
}
_LAYER = re.compile(r"(?P<place>.+?)\.(?P<part>conv|bn)(?P<number>[12])\.(?P<field>\w+)")
_BRANCH = re.compile(r"mixed_(?P<block>\w\w)\.conv_b(?P<branch>[0-3])(?:_(?P<half>[ab]))?")
_GATE = re.compile(r"mixed_(?P<block>\w\w)\.gating_b(?P<branch>[0-3])\.fc\.(?P<field>weight|bias)")
_COUNTER = ".num_batches_tracked"
WHY_DROPPED = "counts the batches of training, which batch normalisation with a fixed momentum does not need"


def convert_s3d(
    checkpoint: str | PathLike[str],
    output_dir: str | PathLike[str],
    *,
    vocabulary: str | PathLike[str] | None = None,
    dtype: str = "float32",
    show_progress_bar: bool = False,
) -> Conversion:
    """Convert a checkpoint of S3D-G; all sizes come from the shapes of its tensors. Nothing of the checkpoint runs.

    Args:
        checkpoint: a state dictionary written by ``torch.save``, as released (``s3d_howto100m.pth``).
        output_dir: a folder that is not there yet, or is empty; it appears when it is whole.
        vocabulary: ``s3d_dict.npy``, or a text file of one word a line; without it the text module has no tokenizer.
        dtype: "float32", "float16" or "bfloat16".

    Returns:
        What was done: each tensor is mapped, or listed as dropped with the reason.

    Raises:
        InputError: the checkpoint cannot be read, lacks tensors, has others or of other shapes; the vocabulary does not
            fit the word vectors; or the folder is not empty.

    >>> convert_s3d("s3d_howto100m.pth", "s3d", vocabulary="s3d_dict.npy").num_source_tensors  # doctest: +SKIP
    537
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    check_new_folder(output_dir)
    words = None if vocabulary is None else read_vocabulary(vocabulary)
    saved = read_checkpoint(checkpoint)
    try:
        state = _released_state(saved)
        names = {our_name(name): name for name in state}
        tensors = {ours: state[name] for ours, name in names.items() if not name.endswith(_COUNTER)}
        config = _config(tensors)
        check_tensors(tensors, _weights, config, source_name=lambda ours: names.get(ours, ours))
    except InputError as error:
        raise InputError(str(error), file=checkpoint) from error
    room = config.text_config.vocab_size - 1
    if words is not None and len(words) > room:
        raise InputError(f"has {len(words)} words, the checkpoint has vectors for {room}", file=vocabulary)
    conversion = Conversion(
        kind="s3d",
        source=Path(checkpoint).name,
        source_sha256=file_sha256(checkpoint),
        num_source_tensors=len(state),
        num_mapped=len(tensors),
        num_parameters=sum(value.numel() for name, value in tensors.items() if "running" not in name),
        dtype=dtype,
        dropped={name: WHY_DROPPED for name in state if name.endswith(_COUNTER)},
        options={"vocabulary": None if vocabulary is None else Path(vocabulary).name},
        notes=[] if words is not None else ["no vocabulary was given, so text has no tokenizer: give --vocabulary"],
    )
    with new_folder(output_dir) as folder:
        write_model_folder(
            folder,
            model_class=S3DModel,
            config=config,
            tensors=tensors,
            conversion=conversion,
            processor=S3DProcessor(None if words is None else _tokenizer(words, folder)),
            show_progress_bar=show_progress_bar,
        )
    return conversion


def our_name(released: str) -> str:
    """The name in ``S3DModel`` of a tensor of the release.

    Raises:
        InputError: the release has no tensor of that name.

    >>> our_name("mixed_3b.conv_b1_b.conv2.weight")
    'video_model.stages.0.0.branches.1.2.convolution.weight'
    """
    place, _, field = released.rpartition(".")
    if place in _OTHERS and field in ("weight", "bias"):
        return f"{_OTHERS[place]}.{field}"
    gate = _GATE.fullmatch(released)
    if gate:
        return f"{_block_name(gate['block'])}.gates.{gate['branch']}.dense.{gate['field']}"
    layer = _LAYER.fullmatch(released)
    if layer:
        return f"{_layer_name(layer['place'], int(layer['number']))}.{_PARTS[layer['part']]}.{layer['field']}"
    raise InputError(f"holds {released!r}, which S3D-G does not have")


def _layer_name(place: str, number: int) -> str:
    branch = _BRANCH.fullmatch(place)
    if branch:
        # The pooling that begins the last branch is the layer before its only convolution, named as a second half.
        index = (branch["half"] == "b") + number - 1
        return f"{_block_name(branch['block'])}.branches.{branch['branch']}.{index}"
    if place not in _STEM:
        raise InputError(f"holds a layer {place!r}, which S3D-G does not have")
    return f"video_model.stem.{_STEM[place] + number - 1}"


def _block_name(block: str) -> str:
    for stage, blocks in enumerate(BLOCKS):
        if block in blocks:
            return f"video_model.stages.{stage}.{blocks.index(block)}"
    raise InputError(f"holds a block 'mixed_{block}', which S3D-G does not have")


def _released_state(saved: Mapping[Any, Any]) -> dict[str, Tensor]:
    inner = saved.get("state_dict", saved)
    if not isinstance(inner, dict) or not inner:
        raise InputError("holds no state dictionary of S3D-G")
    state = {}
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"expected names and tensors, found {str(name)[:80]!r} with a {type(value).__name__}")
        state[name.removeprefix("module.")] = value
    return state


def _weights(config: S3DConfig) -> Any:
    """Stands for the model where its tensors are listed: without the counters, which are no weights."""
    state = S3DModel(config).state_dict()
    return SimpleNamespace(state_dict=lambda: {name: state[name] for name in state if not name.endswith(_COUNTER)})


def _config(tensors: Mapping[str, Tensor]) -> S3DConfig:
    """Sizes, read off the convolutions; tensors that are of another shape than follows are found afterwards."""

    def size(name: str, axis: int = 0) -> int:
        tensor = tensors.get(f"{name}.weight")
        if tensor is None or tensor.ndim <= axis or not tensor.shape[axis]:
            raise InputError(f"lacks a proper {name + '.weight'!r} (our name): is it a checkpoint of S3D-G?")
        return tensor.shape[axis]

    layers = ("0.0", "1.0", "1.2", "2.0", "2.2", "3.1")
    stages = [
        [
            [size(f"video_model.stages.{stage}.{index}.branches.{layer}.convolution") for layer in layers]
            for index in range(len(blocks))
        ]
        for stage, blocks in enumerate(BLOCKS)
    ]
    video = {
        "stem_sizes": [size(f"video_model.stem.{index}.convolution") for index in range(3)],
        "stages": stages,
        "projection_dim": size("video_model.projection"),
    }
    text = {
        "vocab_size": size("text_model.word_embeddings"),
        "embedding_size": size("text_model.word_embeddings", 1),
        "hidden_size": size("text_model.dense"),
        "projection_dim": size("text_model.projection"),
    }
    try:
        return S3DConfig(text_config=text, video_config=video)
    except ValueError as error:
        raise InputError(str(error)) from error


def _tokenizer(words: list[str], folder: Path) -> S3DTokenizer:
    file = folder / "vocab.txt"
    file.write_text("\n".join(words) + "\n", encoding="utf-8")
    return S3DTokenizer(str(file))
