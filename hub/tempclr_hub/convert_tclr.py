"""TCLR's released checkpoints, and torchvision's networks of clips, to folders that our classes load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor

from tempclr.errors import InputError
from tempclr.models.tclr import TCLRConfig, TCLRModel
from tempclr.models.video_resnet import VideoResNetConfig, VideoResNetModel
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

__all__ = ["SOURCES", "convert_tclr", "our_name"]

SOURCES = ("tclr", "torchvision")
CONV5 = ("tclr", "stock")
# The scaler of half-precision training is saved as an object, with what older and newer versions of torch call it.
SCALER = tuple(
    f"{module}.{name}"
    for module in ("torch.cuda.amp.grad_scaler", "torch.amp.grad_scaler")
    for name in ("GradScaler", "OptState", "_refresh_per_optimizer_state")
)
STATES = ("state_dict", "bb_state_dict")  # the second holds the network without the head
KINETICS = {  # what torchvision's weights were trained with
    "image_mean": [0.43216, 0.394666, 0.37645],
    "image_std": [0.22803, 0.22145, 0.216989],
    "resize_size": 128,
}
_HEAD = {"fc1": "dense", "bn1": "dense_norm", "fc2": "projection", "bn2": "projection_norm"}
_RESNET = re.compile(r"(stem|layer[1-4])\.\d[\w.]*")
_PRP = re.compile(
    r"conv(?P<stage>[2-5])\.block1\.(?P<layer>conv1|conv2|bn1|bn2|downsampleconv|downsamplebn)\.(?P<rest>.+)"
)
_PRP_LAYERS = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv2.0",
    "bn2": "conv2.1",
    "downsampleconv": "downsample.0",
    "downsamplebn": "downsample.1",
}
_COUNTER = ".num_batches_tracked"
_WHY_COUNTERS = "counts the batches of training, which batch normalisation with a fixed momentum does not need"
_WHY_CLASSIFIER = "belongs to a classifier, which the network of features does not have"


class _Source(NamedTuple):
    state: dict[str, Tensor]
    kind: str
    beside: list[str]


def convert_tclr(
    checkpoint: str | PathLike[str],
    output_dir: str | PathLike[str],
    *,
    source: str | None = None,
    conv5: str | None = None,
    fold_channel_order: bool = True,
    dtype: str = "float32",
    stand_ins: tuple[str, ...] = (),
    show_progress_bar: bool = False,
) -> Conversion:
    """Convert a released checkpoint of TCLR, or one of torchvision's names. Nothing of the checkpoint runs.

    R3D-18, R(2+1)D-18 and R3D with one block a stage are told apart by the names of their tensors, widths by their
    shapes. With the projection head in it the folder is one of ``TCLRModel``, from which ``VideoResNetModel`` and
    ``TCLRForVideoClassification`` load too; without it, one of ``VideoResNetModel``.

    Note [Channels of the release]: TCLR was trained on pixels in the order of OpenCV, blue first. That the networks
    here are given RGB is made up for once and for all by reversing the first convolution's input channels: the same
    function, but for the order of its sums. ``fold_channel_order=False`` keeps the weights as they are and has the
    model reverse the pixels instead.

    Args:
        checkpoint: written by ``torch.save``: what the training saved (with ``state_dict`` or ``bb_state_dict``, from
            one device or several), or a flat state dictionary.
        output_dir: a folder that is not there yet, or is empty; it appears when it is whole.
        source: "tclr" or "torchvision", whose pixels are normalised; None: told from the file.
        conv5: "tclr" for the change that TCLR makes to the last stage, "stock" for the network without it; None: what
            the names of the tensors say, and TCLR's where they say nothing.
        fold_channel_order: see the note; torchvision's weights are for RGB and stay as they are.
        dtype: "float32", "float16" or "bfloat16".
        stand_ins: names of further classes that the file may hold beside its weights, read as data.

    Returns:
        What was done: each tensor is mapped, or listed as dropped with the reason.

    Raises:
        InputError: the checkpoint cannot be read, lacks tensors, has others or of other shapes, or does not say of
            which source it is; or the folder is not empty.

    >>> convert_tclr("model_best_e80_loss_37.pth", "tclr").num_source_tensors  # doctest: +SKIP
    133
    """
    for name, value, known in (("source", source, SOURCES), ("conv5", conv5, CONV5)):
        if value is not None and value not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    check_new_folder(output_dir)
    saved = read_checkpoint(checkpoint, stand_ins=(*SCALER, *stand_ins))
    try:
        found = _source(saved, source)
        names = {our_name(name): name for name in found.state if not _classifies(name)}
        tensors = {ours: found.state[name] for ours, name in names.items() if not name.endswith(_COUNTER)}
        folded = fold_channel_order and found.kind == "tclr"
        config, notes = _config(tensors, found.kind, conv5, reversed_channels=found.kind == "tclr" and not folded)
        with_head = isinstance(config, TCLRConfig)
        if not with_head:
            tensors = {name.removeprefix("backbone."): value for name, value in tensors.items()}
        model_class: Any = TCLRModel if with_head else VideoResNetModel
        places = {name if with_head else name.removeprefix("backbone."): of for name, of in names.items()}
        check_tensors(tensors, _weights(model_class), config, source_name=lambda ours: places.get(ours, ours))
    except InputError as error:
        raise InputError(str(error), file=checkpoint) from error
    if folded:
        stem = "backbone.stem.0.weight" if with_head else "stem.0.weight"
        tensors[stem] = tensors[stem].flip(1)
        notes.append("the first convolution takes RGB now: its input channels, blue first in the release, are reversed")
    if found.beside:
        notes.append(f"left out, since it is no weight: {', '.join(found.beside)}")
    dropped = {name: _WHY_COUNTERS for name in found.state if name.endswith(_COUNTER)}
    dropped |= {name: _WHY_CLASSIFIER for name in found.state if _classifies(name)}
    conversion = Conversion(
        kind="tclr",
        source=Path(checkpoint).name,
        source_sha256=file_sha256(checkpoint),
        num_source_tensors=len(found.state),
        num_mapped=len(tensors),
        num_parameters=sum(value.numel() for name, value in tensors.items() if "running" not in name),
        dtype=dtype,
        dropped=dropped,
        options={"source": found.kind, "conv5": conv5, "fold_channel_order": fold_channel_order},
        notes=notes,
    )
    with new_folder(output_dir) as folder:
        write_model_folder(
            folder,
            model_class=model_class,
            config=config,
            tensors=tensors,
            conversion=conversion,
            show_progress_bar=show_progress_bar,
        )
    return conversion


def our_name(released: str) -> str:
    """The name in ``TCLRModel`` of a tensor of the release, or of a network without a head.

    Raises:
        InputError: none of the networks has a tensor of that name.

    >>> our_name("0.layer4.0.conv1.0.weight"), our_name("1.fc2.weight")
    ('backbone.layer4.0.conv1.0.weight', 'head.projection.weight')
    >>> our_name("conv5.block1.downsampleconv.weight")
    'backbone.layer4.0.downsample.0.weight'
    """
    name = released.removeprefix("0.")
    if name.startswith("1."):
        layer, _, field = name[2:].partition(".")
        if layer in _HEAD and field:
            return f"head.{_HEAD[layer]}.{field}"
    if _RESNET.fullmatch(name):
        return f"backbone.{name}"
    block = _PRP.fullmatch(name)
    if block:
        rest = block["rest"].removeprefix("temporal_spatial_conv.")
        return f"backbone.layer{int(block['stage']) - 1}.0.{_PRP_LAYERS[block['layer']]}.{rest}"
    if name == "conv1.temporal_spatial_conv.weight":
        return "backbone.stem.0.weight"
    if re.fullmatch(r"bn1\.\w+", name):
        return f"backbone.stem.1.{name.removeprefix('bn1.')}"
    raise InputError(
        f"holds {released[:80]!r}, which none of R3D-18, R(2+1)D-18, R3D with one block a stage and TCLR's head has"
    )


def _classifies(name: str) -> bool:
    return name.removeprefix("0.") in ("fc.weight", "fc.bias")


def _source(saved: Mapping[Any, Any], wanted: str | None) -> _Source:
    """The state dictionary, without the prefixes that training on several devices leaves, and what lies beside it."""
    inner = next((saved[name] for name in STATES if name in saved), saved)
    if not isinstance(inner, dict) or not inner:
        raise InputError("holds no state dictionary")
    state = {}
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"expected names and tensors, found {str(name)[:80]!r} with a {type(value).__name__}")
        state[name.removeprefix("module.")] = value
    beside = [] if inner is saved else [str(name)[:40] for name in saved if saved[name] is not inner]
    if wanted is None:
        if inner is not saved or any(name.startswith(("module.", "0.")) for name in inner):
            wanted = "tclr"
        elif "fc.weight" in state:
            wanted = "torchvision"
        else:
            raise InputError(
                "the file does not tell whose weights these are: give --from tclr (blue first, values from 0 to 1) or "
                "--from torchvision (normalised RGB)"
            )
    return _Source(state, wanted, beside)


def _weights(model_class: Any) -> Any:
    """Stands for the model where its tensors are listed: without the counters, which are no weights."""

    def without_counters(config: Any) -> Any:
        state = model_class(config).state_dict()
        return SimpleNamespace(state_dict=lambda: {name: state[name] for name in state if not name.endswith(_COUNTER)})

    return without_counters


def _config(
    tensors: Mapping[str, Tensor], kind: str, conv5: str | None, *, reversed_channels: bool
) -> tuple[Any, list[str]]:
    """Sizes, read off the normalisations; tensors that are of another shape than follows are found afterwards."""

    def size(name: str) -> int:
        tensor = tensors.get(name)
        if tensor is None or tensor.ndim < 1 or not len(tensor):
            raise InputError(f"lacks a proper {name!r} (our name): is it a checkpoint of TCLR or torchvision?")
        return len(tensor)

    separable = "backbone.stem.3.weight" in tensors
    variant = "r2plus1d_18" if separable else "r3d_18" if "backbone.layer1.1.conv1.0.weight" in tensors else "r3d_10"
    stem = size("backbone.stem.4.weight" if separable else "backbone.stem.1.weight")
    fields: dict[str, Any] = {
        "variant": variant,
        "hidden_sizes": [stem, *(size(f"backbone.layer{stage}.0.conv2.1.weight") for stage in range(1, 5))],
        "channel_order": "bgr" if reversed_channels else "rgb",
        **(KINETICS if kind == "torchvision" else {}),
    }
    fields["tclr_conv5"], notes = _conv5(tensors, conv5, separable=separable)
    try:
        backbone = VideoResNetConfig(**fields)
        if not any(name.startswith("head.") for name in tensors):
            return backbone, [*notes, "the file has no projection head: the folder is that of the network alone"]
        sizes = {"projection_hidden_size": size("head.dense.bias"), "projection_size": size("head.projection.weight")}
        return TCLRConfig(backbone_config=backbone, loss_weights="official", **sizes), notes
    except ValueError as error:
        raise InputError(str(error)) from error


def _conv5(tensors: Mapping[str, Tensor], wanted: str | None, *, separable: bool) -> tuple[bool, list[str]]:
    if separable:
        found = "tclr" if "backbone.layer4.0.conv1.0.weight" in tensors else "stock"
        if wanted not in (None, found):
            raise InputError(f"its last stage is that of the {found} network, and has no weights for --conv5 {wanted}")
        return found == "tclr", []
    if wanted is not None:
        return wanted == "tclr", []
    return True, ["its last stage was given TCLR's stride and dilation, which the tensors do not tell (see --conv5)"]
