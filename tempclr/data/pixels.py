"""What happens to a frame's pixels before an encoder sees them, in plain torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a frame's pixels before the encoder.

    Attributes:
        resize: an int scales the shorter side to it, a pair is the exact (height, width).
        crop: (height, width) cut from the middle, or None.
        mean, std: of the three channels, for pixel values in [0, 1].
        interpolation: ``"bilinear"`` or ``"bicubic"``, antialiased, rounded to 8 bits.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of what the encoder sees."""
        if self.crop is not None:
            return self.crop
        return self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)


def resize_and_crop(frame: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """One uint8 frame ``(height, width, 3)`` to uint8 ``(1, 3, *image_size)``, as Pillow resizes: antialiased, 8 bits.

    A frame smaller than the crop is surrounded by black.

    >>> frame = np.zeros((240, 320, 3), dtype=np.uint8)
    >>> resize_and_crop(frame, Preprocessing(128, (128, 128), (0.5,) * 3, (0.5,) * 3)).shape
    torch.Size([1, 3, 128, 128])
    """
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).unsqueeze(0)
    size = _resized_size(frame.shape[0], frame.shape[1], preprocessing.resize)
    if size != frame.shape[:2]:
        pixels = functional.interpolate(
            pixels, size=size, mode=preprocessing.interpolation, antialias=True, align_corners=False
        )
    return pixels if preprocessing.crop is None else _centre_crop(pixels, preprocessing.crop)


def _resized_size(height: int, width: int, resize: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(resize, tuple):
        return resize
    if height <= width:
        return resize, max(1, int(resize * width / height))
    return max(1, int(resize * height / width)), resize


def _centre_crop(pixels: Tensor, crop: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[-2:]
    missing_rows, missing_columns = max(crop[0] - height, 0), max(crop[1] - width, 0)
    if missing_rows or missing_columns:
        top, left = missing_rows // 2, missing_columns // 2
        pixels = functional.pad(pixels, (left, missing_columns - left, top, missing_rows - top))
        height, width = pixels.shape[-2:]
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    return pixels[..., top : top + crop[0], left : left + crop[1]]
