"""Operations on 8-bit pictures ``(..., 3, height, width)``, batched, with the rounding of Pillow.

Each takes and gives uint8 tensors. All but resizing, blur and shearing equal Pillow's bit by bit; resizing differs by
at most one step, in less than one value of twenty. Channels count as red, green and blue where luminance and hue need
that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "crop_and_resize",
    "gaussian_blur",
    "luminance",
    "shear_and_rotate",
]


def crop_and_resize(frames: Tensor, crop: tuple[int, int, int], size: int) -> Tensor:
    """The square (top, left, side) of each frame, scaled to ``size``: bilinear, antialiased, within one step of Pillow.

    >>> crop_and_resize(torch.zeros(2, 3, 240, 320, dtype=torch.uint8), (0, 40, 240), 112).shape
    torch.Size([2, 3, 112, 112])
    """
    top, left, side = crop
    window = frames[..., top : top + side, left : left + side]
    if side == size:
        return window
    flat = window.reshape(-1, *window.shape[-3:]) if window.ndim != 4 else window
    resized = functional.interpolate(flat, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.reshape(*window.shape[:-2], size, size)


def luminance(frames: Tensor) -> Tensor:
    """ITU-R 601 luma, uint8 ``(..., 1, height, width)``."""
    red, green, blue = frames.to(torch.int32).unbind(-3)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8).unsqueeze(-3)


def adjust_brightness(frames: Tensor, factor: float) -> Tensor:
    """0 is black, 1 leaves the frames as they are."""
    return _clipped(frames * torch.tensor(factor, dtype=torch.float32))


def adjust_contrast(frames: Tensor, factor: float) -> Tensor:
    """0 makes each frame its mean luminance, 1 leaves it as it is."""
    gray = luminance(frames)
    mean = gray.sum(dim=(-3, -2, -1), keepdim=True).double() / (gray.shape[-1] * gray.shape[-2])
    return _blended((mean + 0.5).floor().float(), frames, factor)


def adjust_saturation(frames: Tensor, factor: float) -> Tensor:
    """0 makes the frames gray, 1 leaves them as they are."""
    return _blended(luminance(frames).float(), frames, factor)


def adjust_gamma(frames: Tensor, gamma: float) -> Tensor:
    """Each value v in [0, 1] becomes ``v ** gamma``."""
    table = torch.tensor([int((256 - 1e-3) * (value / 255) ** gamma) for value in range(256)], dtype=torch.uint8)
    return table[frames.int()]


def adjust_hue(frames: Tensor, turn: float) -> Tensor:
    """Turn the hue by a part of the circle, in [-0.5, 0.5]; hues are kept in 8 bits on the way."""
    hue, saturation, value = _to_hsv(frames)
    turned = (hue + int(turn * 255)) % 256
    return _from_hsv(turned, saturation, value)


def gaussian_blur(frames: Tensor, sigma: float) -> Tensor:
    """Gaussian blur by ``sigma`` pixels, edges continued by mirroring."""
    radius = max(1, math.ceil(3 * sigma))
    radius = min(radius, min(frames.shape[-2:]) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    flat = frames.reshape(-1, 1, *frames.shape[-2:]).float()
    padded = functional.pad(flat, (radius, radius, radius, radius), mode="reflect")
    blurred = functional.conv2d(functional.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return blurred.round_().clamp_(0, 255).to(torch.uint8).reshape(frames.shape)


def shear_and_rotate(frames: Tensor, shear_degrees: float, rotation_degrees: float) -> Tensor:
    """Shear sideways, then turn clockwise about the middle, bilinear; what comes from outside is black."""
    shear, turn = math.tan(math.radians(shear_degrees)), math.radians(rotation_degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    # From a place in the result to its origin: turned back, then sheared back.
    matrix = torch.tensor([[cos + shear * sin, sin - shear * cos, 0.0], [-sin, cos, 0.0]])
    flat = frames.reshape(-1, *frames.shape[-3:]).float()
    height, width = frames.shape[-2:]
    matrix[0, 1] *= height / width
    matrix[1, 0] *= width / height
    grid = functional.affine_grid(matrix.expand(len(flat), 2, 3), list(flat.shape), align_corners=False)
    moved = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8).reshape(frames.shape)


def _blended(base: Tensor, frames: Tensor, factor: float) -> Tensor:
    """Pillow's blend: single precision, fractions cut off."""
    return _clipped(base + torch.tensor(factor, dtype=torch.float32) * (frames.float() - base))


def _clipped(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


# Note [Hue in 8 bits]: Pillow keeps hue and saturation as whole numbers to 255, cut off rather than rounded, and
# computes them partly in single, partly in double precision. The casts below follow it, so that no pixel differs.
def _to_hsv(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation (int64), value (int32), each ``(..., height, width)``."""
    red, green, blue = frames.float().unbind(-3)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    gray = spread == 0
    spread = spread.masked_fill(gray, 1)
    from_red, from_green, from_blue = ((value - channel) / spread for channel in (red, green, blue))
    hue = torch.where(
        red == value,
        from_blue - from_green,
        torch.where(
            green == value,
            (2 + from_red.double() - from_blue.double()).float(),
            (4 + from_green.double() - from_red.double()).float(),
        ),
    )
    turns = hue.double() / 6 + 1
    part = (turns - turns.floor()).float()
    saturation = spread / value.clamp(min=1)
    whole = [(each.double() * 255).long().masked_fill_(gray, 0) for each in (part, saturation)]
    return whole[0], whole[1], value.int()


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Hue and saturation int64, value int32, to red, green and blue."""
    sectors, middle_parts, low_parts = _HSV_TABLES
    v = value.double()
    low = (v * low_parts[saturation] + 0.5).to(torch.uint8)
    middle = (v * middle_parts[hue * 256 + saturation] + 0.5).to(torch.uint8)
    high, sector = value.to(torch.uint8), sectors[hue]
    # The largest channel is red in sectors 5 and 0, green in 1 and 2, blue in 3 and 4; the smallest is its opposite.
    is_in = [sector == each for each in range(6)]
    red = torch.where(is_in[5] | is_in[0], high, torch.where(is_in[2] | is_in[3], low, middle))
    green = torch.where(is_in[1] | is_in[2], high, torch.where(is_in[4] | is_in[5], low, middle))
    blue = torch.where(is_in[3] | is_in[4], high, torch.where(is_in[0] | is_in[1], low, middle))
    return torch.stack([red, green, blue], dim=-3)


def _hsv_tables() -> tuple[Tensor, Tensor, Tensor]:
    """Of each 8-bit hue the sixth of the circle it lies in; of each hue and saturation what part of the value the
    middle channel has; of each saturation what part the smallest has. Doubles, from single precision factors."""
    place = torch.arange(256, dtype=torch.float64) * 6 / 255
    sector = (place.floor() % 6).to(torch.uint8)
    within = (place - place.floor()).float()[:, None]
    saturation = (torch.arange(256, dtype=torch.float64) / 255).float()
    falling = 1 - (saturation * within).double()
    rising = 1 - saturation.double() * (1 - within.double())
    middle = torch.where(sector[:, None] % 2 == 1, falling, rising)
    return sector, middle.reshape(-1), 1 - saturation.double()


_HSV_TABLES = _hsv_tables()
