"""What is asked of the arguments: shapes and dtypes always, values where looking at them does not stall the device."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor

from .recurrence import MEASURES

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_measure(measure: str, *, known: tuple[str, ...] = MEASURES, both_ways: bool = False) -> None:
    if measure not in known:
        raise ValueError(f"measure must be one of {', '.join(known)}, got {measure!r}")
    if both_ways and measure != "otam":
        raise ValueError(f"both_ways belongs to the measure 'otam', got both_ways=True with measure {measure!r}")


def check_gamma(gamma: float) -> None:
    if isinstance(gamma, Tensor):
        raise TypeError("gamma must be a Python number, got a tensor: pass gamma.item()")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be finite and >= 0, got {gamma}. For the hard minimum use gamma=0")


def check_tensor(value: Tensor, name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}: use torch.as_tensor({name})")


def check_cost(cost: Tensor) -> None:
    check_tensor(cost, "cost")
    if cost.dim() < 2:
        raise ValueError(f"cost must have shape (..., n, m), got {tuple(cost.shape)}: add a dimension")
    if not cost.is_floating_point():
        raise TypeError(f"cost must be a floating tensor, got {cost.dtype}: use cost.float()")


def check_lengths(lengths: Tensor, expected: tuple[int, ...], device: torch.device, *, name: str = "lengths") -> None:
    _check_integers(lengths, device, name)
    if tuple(lengths.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(lengths.shape)}")


def check_orders(orders: Tensor, batch: tuple[int, ...], size: int, device: torch.device, *, name: str) -> None:
    _check_integers(orders, device, name)
    if orders.dim() != len(batch) + 2 or (*orders.shape[:-2], orders.shape[-1]) != (*batch, size):
        wanted = ", ".join([*map(str, batch), "k", str(size)])
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(orders.shape)}")


def _check_integers(tensor: Tensor, device: torch.device, name: str) -> None:
    check_tensor(tensor, name)
    if tensor.dtype not in INTEGERS:
        raise TypeError(f"{name} must be an integer tensor, got {tensor.dtype}: use {name}.long()")
    if tensor.device != device:
        raise ValueError(
            f"{name} is on {tensor.device}, the other arguments on {device}: use {name}.to({str(device)!r})"
        )


# Note [Values are checked without stalling]: reading lengths that live on a GPU makes the host wait for it. So values
# are checked on the CPU, on the GPU under TEMPCLR_DEBUG=1 only; otherwise they are clamped there, and no kernel
# leaves its memory.
def looks_at_values(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" or os.environ.get("TEMPCLR_DEBUG") == "1"


def checked_lengths(lengths: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """``lengths (..., 2)`` with values checked, or clamped into ``1..num_rows`` and ``1..num_columns``."""
    if not looks_at_values(lengths):
        return torch.stack([lengths[..., 0].clamp(1, num_rows), lengths[..., 1].clamp(1, num_columns)], dim=-1)
    values = lengths.detach().cpu().numpy()
    wrong = (values < 1) | (values > np.array([num_rows, num_columns]))
    if wrong.any():
        *index, axis = map(int, np.argwhere(wrong)[0])
        what, size = ("rows", num_rows) if axis == 0 else ("columns", num_columns)
        raise ValueError(
            f"lengths{index}: {int(values[tuple(index)][axis])} {what}, expected 1 to {size}: "
            "leave out pairs without units, and keep lengths within the matrix"
        )
    return lengths


def checked_orders(orders: Tensor | None, lengths: Tensor, size: int, *, name: str) -> Tensor | None:
    """``orders (..., k, size)`` with values checked against ``lengths (...)``, or clamped into ``0..size - 1``."""
    if orders is None:
        return None
    if not looks_at_values(orders):
        return orders.clamp(0, max(size - 1, 0))
    values, valid = orders.detach().cpu().numpy(), lengths.detach().cpu().numpy()
    positions = np.arange(size)
    inside = positions < valid[..., None, None]
    wrong = (np.sort(np.where(inside, values, positions), axis=-1) != positions).any(-1)
    if wrong.any():
        *index, k = map(int, np.argwhere(wrong)[0])
        length = int(valid[tuple(index)])
        raise ValueError(
            f"{name}{[*index, k]} begins with {values[tuple(index)][k, :length].tolist()}, "
            f"expected a permutation of 0 to {length - 1} (the matrix has {length} valid units)"
        )
    return orders


def checked_sizes(lengths: Tensor, size: int, *, name: str) -> Tensor:
    """``lengths (count,)`` with values checked, or clamped into ``1..size``."""
    if not looks_at_values(lengths):
        return lengths.clamp(1, size)
    values = lengths.detach().cpu().numpy()
    wrong = np.flatnonzero((values < 1) | (values > size))
    if len(wrong):
        index = int(wrong[0])
        raise ValueError(
            f"{name}[{index}]: {int(values[index])} units, expected 1 to {size}: "
            "leave out sequences without units, and keep lengths within the tensor"
        )
    return lengths
