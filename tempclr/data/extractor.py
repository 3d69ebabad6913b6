"""The frozen encoder at work on one video: sample frames by time, encode, pool to so many vectors a second."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tempclr.data.backbones import EFFICIENTNET_LITE0, Backbone, load_backbone
from tempclr.data.pixels import Preprocessing, resize_and_crop
from tempclr.data.rows import check_recipe
from tempclr.data.video import iterate_frames
from tempclr.errors import InputError

# Of the weights of convolutions, by their number of dimensions: the layout in which they are quickest.
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class FeatureRecipe:
    """How features were made, so that others can be made alike. Written beside datasets and into model configurations.

    Attributes:
        backbone: name, folder or Hub id for :func:`tempclr.data.backbones.load_backbone`.
        backbone_sha256: of its weights file.
        frames_per_second: frames sampled from the video; at least ``features_per_second``.
        features_per_second: a feature is the mean over the frames (or clips) that begin in its span of
            ``1 / features_per_second`` seconds; the last span may be short.
        resize, crop, mean, std, interpolation: see :class:`tempclr.data.backbones.Preprocessing`.
        pooling: how one frame, or one clip, becomes one vector.
        l2_normalize: whether features have unit length.
        frames_per_clip: the encoder takes so many frames in a row at a time; the last clip is filled up with black.
    """

    backbone: str
    backbone_sha256: str
    frames_per_second: float
    features_per_second: float = 1.0
    resize: int | tuple[int, int] = 224
    crop: tuple[int, int] | None = (224, 224)
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bilinear"
    pooling: str = "pooler_output"
    l2_normalize: bool = True
    frames_per_clip: int = 1

    def __post_init__(self) -> None:
        for name in ("frames_per_second", "features_per_second"):
            value = getattr(self, name)
            if isinstance(value, str) or not (math.isfinite(value) and value > 0):
                raise InputError(f"must be a positive number, got {value!r}", field=name)
            object.__setattr__(self, name, float(value))
        if (
            isinstance(self.frames_per_clip, bool)
            or not isinstance(self.frames_per_clip, int)
            or self.frames_per_clip < 1
        ):
            raise InputError(f"must be a positive integer, got {self.frames_per_clip!r}", field="frames_per_clip")
        if self.clips_per_second < self.features_per_second:
            what = "frame" if self.frames_per_clip == 1 else f"clip of {self.frames_per_clip} frames"
            rates = f"{self.frames_per_second} frames for {self.features_per_second} features a second"
            raise InputError(f"some features would have no {what}: {rates}", field="frames_per_second")

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        *,
        frames_per_second: float | None = None,
        features_per_second: float = 1.0,
        l2_normalize: bool = True,
    ) -> FeatureRecipe:
        """The recipe of a loaded backbone with its own preprocessing.

        ``frames_per_second``: None is what the backbone asks for, else 2, or one clip a feature.
        """
        if frames_per_second is None:
            one_clip = 2.0 if backbone.frames_per_clip == 1 else backbone.frames_per_clip * features_per_second
            frames_per_second = backbone.frames_per_second or one_clip
        return cls(
            backbone=backbone.name,
            backbone_sha256=backbone.sha256,
            frames_per_second=frames_per_second,
            features_per_second=features_per_second,
            resize=backbone.preprocessing.resize,
            crop=backbone.preprocessing.crop,
            mean=backbone.preprocessing.mean,
            std=backbone.preprocessing.std,
            interpolation=backbone.preprocessing.interpolation,
            pooling=backbone.pooling,
            l2_normalize=l2_normalize,
            frames_per_clip=backbone.frames_per_clip,
        )

    @property
    def clips_per_second(self) -> float:
        """Vectors that the encoder gives for a second of video."""
        return self.frames_per_second / self.frames_per_clip

    @property
    def preprocessing(self) -> Preprocessing:
        """The part of the recipe that concerns pixels."""
        return Preprocessing(self.resize, self.crop, self.mean, self.std, self.interpolation)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; :meth:`from_dict` takes them back. An encoder of frames has no ``frames_per_clip``."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in values.items() if (key, value) != ("frames_per_clip", 1)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureRecipe:
        """A recipe from JSON's plain values.

        Raises:
            InputError: an entry is missing or unknown.

        >>> recipe = FeatureRecipe(backbone="b", backbone_sha256="", frames_per_second=4)
        >>> FeatureRecipe.from_dict(recipe.to_dict()) == recipe
        True
        """
        known = {field.name for field in fields(cls)}
        wrong = sorted(set(values) ^ (known & set(values) | {"backbone", "backbone_sha256", "frames_per_second"}))
        if wrong:
            raise InputError(f"a feature recipe with missing or unknown entries: {', '.join(wrong)}")
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


class FeatureExtractor:
    """Makes features by a recipe.

    Args:
        recipe: its backbone is loaded, and its weights must be the recipe's.
        device: None is CUDA where there is one.
        batch_size: frames at a time; at least one clip.
        backbone: the recipe's, if it is loaded already.
        decode: how a file is decoded: a function as :func:`tempclr.data.video.iterate_frames`, the default.
        precision: ``"float32"`` or ``"bfloat16"``; None is float32 on a CPU and bfloat16 on CUDA. In bfloat16 features
            agree with those in float32 to two or three digits only.

    Raises:
        InputError: the backbone is missing, or is another one than the recipe's.

    >>> extractor = FeatureExtractor(FeatureRecipe.of(load_backbone("efficientnet_lite0")))  # doctest: +SKIP
    >>> extractor.extract("clip.mp4").shape  # doctest: +SKIP
    (20, 1280)
    """

    def __init__(
        self,
        recipe: FeatureRecipe,
        *,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        backbone: Backbone | None = None,
        precision: str | None = None,
        decode: Callable[..., Iterator[tuple[float, np.ndarray]]] = iterate_frames,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        if precision not in (None, "float32", "bfloat16"):
            raise InputError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
        if backbone is None:
            lite0_size = recipe.preprocessing.image_size[0] if recipe.backbone == EFFICIENTNET_LITE0 else None
            backbone = load_backbone(recipe.backbone, image_size=lite0_size)
        names = ("backbone_sha256", "pooling", "frames_per_clip")
        loaded = dict(zip(names, (backbone.sha256, backbone.pooling, backbone.frames_per_clip), strict=True))
        asked = {name: getattr(recipe, name) for name in names}
        check_recipe(asked, loaded, what=f"the wanted and the loaded backbone {recipe.backbone!r}")
        self.recipe, self.num_features, self.decode = recipe, backbone.num_features, decode
        self.batch_size = max(batch_size // recipe.frames_per_clip, 1) * recipe.frames_per_clip
        self.device = pick_device(device)
        self._in_bfloat16 = precision == "bfloat16" or (precision is None and self.device.type == "cuda")
        self._module = backbone.module.to(self.device)
        for weights in self._module.parameters():
            if weights.ndim in _LAYOUTS:
                weights.data = weights.data.contiguous(memory_format=_LAYOUTS[weights.ndim])
        scale = torch.tensor([recipe.mean, recipe.std], device=self.device).view(2, 1, 3, 1, 1) * 255
        self._mean, self._std = scale[0], scale[1]

    def extract(
        self, video: str | PathLike[str] | np.ndarray | Tensor, *, frames_per_second: float | None = None
    ) -> np.ndarray:
        """Features of one video.

        Args:
            video: a video file, or uint8 RGB frames ``(N, height, width, 3)``.
            frames_per_second: the rate of the frames given; not for files, which know theirs.

        Returns:
            float32 ``(T, D)``, T = the seconds begun × ``features_per_second``.

        Raises:
            InputError: the file cannot be decoded (see :func:`tempclr.data.video.iterate_frames`), or the frames are
                not of that shape and type, or come without their rate.
        """
        return self.encode(self.prepare(video, frames_per_second=frames_per_second))

    def prepare(
        self, video: str | PathLike[str] | np.ndarray | Tensor, *, frames_per_second: float | None = None
    ) -> Iterator[Tensor]:
        """What comes before the encoder: decode, sample, resize, crop; uint8 batches ``(n, 3, height, width)``.

        With an encoder of clips, n is a multiple of ``frames_per_clip``: the last batch is filled up with black frames.
        """
        if isinstance(video, np.ndarray | Tensor):
            frames = _sampled(np.asarray(video), frames_per_second, self.recipe.frames_per_second)
        elif frames_per_second is not None:
            raise InputError("frames_per_second is for frames; a file has its own", file=video)
        else:
            decoded = self.decode(video, frames_per_second=self.recipe.frames_per_second, num_threads=1)
            frames = (frame for _, frame in decoded)
        return self._batches(frames)

    def _batches(self, frames: Iterable[np.ndarray]) -> Iterator[Tensor]:
        batch: list[Tensor] = []
        for frame in frames:
            batch.append(resize_and_crop(frame, self.recipe.preprocessing))
            if len(batch) == self.batch_size:
                yield torch.cat(batch)
                batch = []
        if batch:
            missing = -len(batch) % self.recipe.frames_per_clip
            yield torch.cat([*batch, *[torch.zeros_like(batch[0])] * missing])

    @torch.inference_mode()
    def encode(self, batches: Iterable[Tensor]) -> np.ndarray:
        """Encode what :meth:`prepare` gives and pool it: float32 ``(T, D)``."""
        vectors = torch.cat([self._encode(batch) for batch in batches])
        spans = _span_of_vectors(len(vectors), self.recipe.clips_per_second, self.recipe.features_per_second)
        pooled = torch.zeros(int(spans[-1]) + 1, vectors.shape[1]).index_add_(0, spans, vectors)
        pooled /= spans.bincount().unsqueeze(1)
        return (functional.normalize(pooled, dim=1) if self.recipe.l2_normalize else pooled).numpy()

    def _encode(self, batch: Tensor) -> Tensor:
        pixels = batch.to(self.device).to(torch.float32, memory_format=torch.channels_last)
        pixels.sub_(self._mean).div_(self._std)
        if self.recipe.frames_per_clip > 1:
            pixels = pixels.unflatten(0, (-1, self.recipe.frames_per_clip))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._in_bfloat16):
            return self._module(pixels).float().cpu()


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; None is CUDA where there is one, else the CPU.

    Raises:
        InputError: this machine has no such device.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch's, by the kind of device
        raise InputError(f"no device {str(name)!r} here: give 'cpu', or 'cuda' on a GPU", field="device") from error
    return device


def _sampled(frames: np.ndarray, rate: float | None, wanted_rate: float) -> Iterator[np.ndarray]:
    """See Note [Frames are sampled by time] in tempclr.data.video: the same rule for frames in memory."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise InputError(f"expected uint8 frames (N, height, width, 3), found {frames.dtype} {frames.shape}")
    if rate is None or not (math.isfinite(rate) and rate > 0):
        raise InputError(f"frames need frames_per_second, a positive number, got {rate!r}")
    num_ticks = math.ceil(len(frames) / rate * wanted_rate - 1e-3)
    return (
        frames[min(int((tick / wanted_rate + 1e-3 / wanted_rate) * rate), len(frames) - 1)] for tick in range(num_ticks)
    )


def _span_of_vectors(num_vectors: int, vectors_per_second: float, features_per_second: float) -> Tensor:
    ticks = torch.arange(num_vectors, dtype=torch.float64)
    return (ticks * features_per_second / vectors_per_second + 1e-9).floor().long()
