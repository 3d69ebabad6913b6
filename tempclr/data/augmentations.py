"""TCLR's augmentations of clips (Dave et al., 2022): one draw for each clip and view, the same for all its frames.

Drawing (:func:`draw_augmentation`) is apart from applying (:func:`augment_clip`). Pixels are uint8 throughout, in the
arithmetic of the released code's 8-bit pictures (:mod:`tempclr.data.pixel_operations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from tempclr.data import pixel_operations as pixel

__all__ = [
    "AUGMENTATIONS",
    "PRETRAINING",
    "WEAK",
    "Augmentation",
    "AugmentationRecipe",
    "augment_clip",
    "augment_clips",
    "centre_crop",
    "draw_augmentation",
]

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentationRecipe:
    """How likely each augmentation is, and from where its strength is drawn, evenly. Defaults: TCLR's pretraining.

    The order is the released one: crop, contrast (half of the time), hue, saturation, brightness, contrast (the other
    half), grayscale with gamma or a channel dropped (never both), blur, shear and rotation, flip, cut-out.

    Attributes:
        image_size: side of the result in pixels.
        crop_probability: otherwise the largest square in the middle.
        crop_scale: side of the square crop, relative to the frame's shorter side.
        released_crop_bias: the released columns: as they count the crop's side from the width for the place and from
            the height for the size, the right edge of wide frames is never reached. False: any place.
        gamma_probability: of the clips made gray.
        cutout_size: smallest and largest side of the rectangle in pixels.
        blur_probability, shear_rotation_probability: the paper's complex set (D.2), off by default; both 0.3 there.
            Its ranges are not known: these are our choice.

    >>> AugmentationRecipe().without("flip", "cutout").flip_probability
    0.0
    """

    image_size: int = 112
    crop_probability: float = 1.0
    crop_scale: Range = (0.6, 1.0)
    released_crop_bias: bool = False
    contrast_probability: float = 0.25
    contrast: Range = (0.75, 1.25)
    hue_probability: float = 0.3
    hue: Range = (-0.1, 0.1)
    saturation_probability: float = 0.3
    saturation: Range = (0.75, 1.25)
    brightness_probability: float = 0.3
    brightness: Range = (0.75, 1.25)
    grayscale_probability: float = 0.175
    gamma_probability: float = 0.75
    gamma: Range = (0.75, 1.25)
    channel_drop_probability: float = 0.125
    blur_probability: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    shear_rotation_probability: float = 0.0
    shear_degrees: Range = (-10.0, 10.0)
    rotation_degrees: Range = (-10.0, 10.0)
    flip_probability: float = 0.5
    cutout_probability: float = 0.5
    cutout_size: tuple[int, int] = (9, 18)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_probability") and not 0 <= value <= 1:
                raise ValueError(f"{each.name} must lie in [0, 1], got {value}")
        if self.grayscale_probability + self.channel_drop_probability > 1:
            raise ValueError("grayscale and channel_drop exclude each other: their probabilities must sum to 1 at most")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must lie in (0, 1], got {self.crop_scale}")
        if self.image_size < 1 or not 1 <= self.cutout_size[0] <= self.cutout_size[1]:
            raise ValueError(f"sizes must be at least 1, got {self.image_size} and {self.cutout_size}")

    def without(self, *names: str) -> AugmentationRecipe:
        """The same, some augmentations switched off: of :data:`AUGMENTATIONS`."""
        unknown = [name for name in names if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(f"no augmentation {unknown[0]!r}; there are {', '.join(AUGMENTATIONS)}")
        off: dict[str, Any] = {f"{name}_probability": 0.0 for name in names}
        return replace(self, **off)

    def with_complex(self) -> AugmentationRecipe:
        """The same with the paper's complex set: blur, and shear with rotation, each with probability 0.3."""
        return replace(self, blur_probability=0.3, shear_rotation_probability=0.3)


AUGMENTATIONS = (
    *("crop", "contrast", "hue", "saturation", "brightness", "grayscale", "gamma", "channel_drop"),
    *("blur", "shear_rotation", "flip", "cutout"),
)
PRETRAINING = AugmentationRecipe()
WEAK = AugmentationRecipe(  # of the released linear evaluation
    contrast_probability=0.125,
    contrast=(0.9, 1.1),
    hue_probability=0.15,
    hue=(-0.05, 0.05),
    saturation_probability=0.15,
    saturation=(0.9, 1.1),
    brightness_probability=0.15,
    brightness=(0.9, 1.1),
    grayscale_probability=0.1,
    gamma=(0.85, 1.15),
    channel_drop_probability=0.0,
    cutout_probability=0.25,
)


@dataclass(frozen=True)
class Augmentation:
    """What is done to every frame of one clip; None where something is not done.

    Attributes:
        crop: (top, left, side) of the square in the frame.
        contrast, hue, saturation, brightness, gamma: strengths.
        contrast_last: contrast comes after hue, saturation and brightness instead of before them.
        grayscale: all three channels become the luminance.
        dropped_channel: this channel becomes 0.
        blur_sigma: in pixels.
        shear_rotation: (shear, rotation) in degrees.
        flip: left and right change places.
        cutout: (top, left, height, width) of the rectangle that becomes 0; it may reach over the border.
    """

    crop: tuple[int, int, int]
    contrast: float | None = None
    contrast_last: bool = False
    hue: float | None = None
    saturation: float | None = None
    brightness: float | None = None
    grayscale: bool = False
    gamma: float | None = None
    dropped_channel: int | None = None
    blur_sigma: float | None = None
    shear_rotation: tuple[float, float] | None = None
    flip: bool = False
    cutout: tuple[int, int, int, int] | None = None


# Note [Draws do not depend on each other]: every augmentation has its own numbers among those drawn for a clip, used or
# not. Switching one off leaves all others as they were, so that an ablation changes one thing.
_DRAWS = (
    *("crop", "crop_scale", "crop_top", "crop_left"),
    *("contrast", "contrast_factor", "contrast_last", "hue", "hue_turn", "saturation", "saturation_factor"),
    *("brightness", "brightness_factor", "grayscale", "gamma", "gamma_exponent", "channel"),
    *("blur", "blur_sigma", "shear_rotation", "shear_degrees", "rotation_degrees", "flip"),
    *("cutout", "cutout_height", "cutout_width", "cutout_top", "cutout_left"),
)


def draw_augmentation(
    recipe: AugmentationRecipe, *, height: int, width: int, generator: torch.Generator
) -> Augmentation:
    """Draw what is to be done to one clip of frames of that size.

    >>> draw = draw_augmentation(PRETRAINING, height=240, width=320, generator=torch.Generator().manual_seed(0))
    >>> 144 <= draw.crop[2] <= 240
    True
    """
    values = torch.rand(len(_DRAWS), generator=generator, dtype=torch.float64).tolist()
    drawn = dict(zip(_DRAWS, values, strict=True))

    def happens(name: str) -> bool:
        return bool(drawn[name] < getattr(recipe, f"{name}_probability"))

    def between(bounds: Range, name: str) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * drawn[name]

    def maybe(name: str, bounds: Range, strength: str) -> float | None:
        return between(bounds, strength) if happens(name) else None

    either = recipe.grayscale_probability + recipe.channel_drop_probability
    gray = happens("grayscale")
    sheared = between(recipe.shear_degrees, "shear_degrees"), between(recipe.rotation_degrees, "rotation_degrees")
    return Augmentation(
        crop=_crop(recipe, height, width, drawn) if happens("crop") else _middle(height, width, 1.0),
        contrast=maybe("contrast", recipe.contrast, "contrast_factor"),
        contrast_last=drawn["contrast_last"] < 0.5,
        hue=maybe("hue", recipe.hue, "hue_turn"),
        saturation=maybe("saturation", recipe.saturation, "saturation_factor"),
        brightness=maybe("brightness", recipe.brightness, "brightness_factor"),
        grayscale=gray,
        gamma=maybe("gamma", recipe.gamma, "gamma_exponent") if gray else None,
        dropped_channel=int(3 * drawn["channel"]) if not gray and drawn["grayscale"] < either else None,
        blur_sigma=maybe("blur", recipe.blur_sigma, "blur_sigma"),
        shear_rotation=sheared if happens("shear_rotation") else None,
        flip=happens("flip"),
        cutout=_cutout(recipe, drawn) if happens("cutout") else None,
    )


def _crop(recipe: AugmentationRecipe, height: int, width: int, drawn: dict[str, float]) -> tuple[int, int, int]:
    low, high = recipe.crop_scale
    scale = low + (high - low) * drawn["crop_scale"]
    side = max(1, int(min(height, width) * scale))
    last_top, last_left = height - side, width - side
    if recipe.released_crop_bias:
        last_top, last_left = int(height - height * scale), int(width - width * scale)
        last_top, last_left = min(last_top, height - side), min(last_left, width - side)
    return int(drawn["crop_top"] * (last_top + 1)), int(drawn["crop_left"] * (last_left + 1)), side


def _middle(height: int, width: int, scale: float) -> tuple[int, int, int]:
    side = max(1, int(min(height, width) * scale))
    return round((height - side) / 2), round((width - side) / 2), side


def _cutout(recipe: AugmentationRecipe, drawn: dict[str, float]) -> tuple[int, int, int, int]:
    smallest, largest = recipe.cutout_size
    height, width = (smallest + int((largest - smallest + 1) * drawn[f"cutout_{side}"]) for side in ("height", "width"))
    top, left = (int(recipe.image_size * drawn[f"cutout_{place}"]) for place in ("top", "left"))
    return top, left, height, width


def augment_clip(frames: Tensor, augmentation: Augmentation, *, image_size: int = 112) -> Tensor:
    """Do the same to every frame of a clip.

    Args:
        frames: uint8 ``(T, 3, height, width)``; fastest where the channels lie innermost in memory, as decoded.
        augmentation: what to do.
        image_size: side of the result.

    Returns:
        uint8 ``(T, 3, image_size, image_size)``.

    >>> augment_clip(torch.zeros(16, 3, 240, 320, dtype=torch.uint8), Augmentation(crop=(0, 40, 240))).shape
    torch.Size([16, 3, 112, 112])
    """
    drawn = augmentation
    clip = pixel.crop_and_resize(frames, drawn.crop, image_size)
    if drawn.contrast is not None and not drawn.contrast_last:
        clip = pixel.adjust_contrast(clip, drawn.contrast)
    if drawn.hue is not None:
        clip = pixel.adjust_hue(clip, drawn.hue)
    if drawn.saturation is not None:
        clip = pixel.adjust_saturation(clip, drawn.saturation)
    if drawn.brightness is not None:
        clip = pixel.adjust_brightness(clip, drawn.brightness)
    if drawn.contrast is not None and drawn.contrast_last:
        clip = pixel.adjust_contrast(clip, drawn.contrast)
    if drawn.grayscale:
        clip = pixel.luminance(clip).expand_as(clip)
    if drawn.gamma is not None:
        clip = pixel.adjust_gamma(clip, drawn.gamma)
    if drawn.dropped_channel is not None:
        clip = clip.index_fill(-3, torch.tensor(drawn.dropped_channel), 0)
    if drawn.blur_sigma is not None:
        clip = pixel.gaussian_blur(clip, drawn.blur_sigma)
    if drawn.shear_rotation is not None:
        clip = pixel.shear_and_rotate(clip, *drawn.shear_rotation)
    if drawn.flip:
        clip = clip.flip(-1)
    clip = clip.contiguous()
    if drawn.cutout is not None:
        top, left, height, width = drawn.cutout
        clip = clip.clone() if clip.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr() else clip
        clip[..., top : top + height, left : left + width] = 0
    return clip


def augment_clips(
    frames: Tensor, clips: Sequence[Tensor], augmentations: Sequence[Augmentation], *, image_size: int = 112
) -> Tensor:
    """Several clip-views of one video's frames, each with its own augmentation.

    Args:
        frames: uint8 ``(N, 3, height, width)``, each frame of the video once.
        clips: for each clip-view the numbers of its frames among them, int64 ``(T,)``.
        augmentations: one for each clip-view.
        image_size: side of the result.

    Returns:
        uint8 ``(len(clips), T, 3, image_size, image_size)``.
    """
    done = [
        augment_clip(_taken(frames, clip), augmentation, image_size=image_size)
        for clip, augmentation in zip(clips, augmentations, strict=True)
    ]
    return torch.stack(done)


def _taken(frames: Tensor, clip: Tensor) -> Tensor:
    """``frames[clip]``, without copying whole frames where they lie at even distances."""
    steps = clip.diff()
    if len(steps) and bool((steps == steps[0]).all()) and steps[0] > 0:
        return frames[int(clip[0]) : int(clip[-1]) + 1 : int(steps[0])]
    return frames[clip]


def centre_crop(frames: Tensor, *, image_size: int = 112, scale: float = 0.8) -> Tensor:
    """For tests: the square in the middle, ``scale`` of the shorter side, resized; ``(..., 3, height, width)``, uint8.

    >>> centre_crop(torch.zeros(16, 3, 240, 320, dtype=torch.uint8)).shape
    torch.Size([16, 3, 112, 112])
    """
    height, width = frames.shape[-2:]
    return pixel.crop_and_resize(frames, _middle(height, width, scale), image_size)
