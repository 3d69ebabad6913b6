"""The operators ``distance``, ``distance_vjp`` and ``distance_second``: what autograd and torch.compile see.

Each is the derivative of the one before: ``alignment`` is ``distance_vjp`` of ones. ``distance_second`` has no
derivative of its own. Shapes are the user's ``(..., n, m)``; implementations (``lanes.py``, ``wavefront.py``) get
flat batches.
"""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .checks import checked_lengths, checked_orders, looks_at_values

_HOMES = {"numba": "lanes", "triton": "wavefront", "reference": "reference"}
_MODULES = {impl: f"{__package__}.{home}" for impl, home in _HOMES.items()}
# Note [Operator namespace]: torch keeps one operator of a name in a process. The namespace is the name this package was
# imported by, so that a copy under another name, as the Hub loads kernels, stands beside the installed one.
_NAMESPACE = __name__.rpartition(".")[0].replace(".", "_")
_ARGUMENTS = (
    "Tensor cost, Tensor lengths, Tensor? row_orders, Tensor? column_orders, str measure, float gamma, str impl"
)


def implementation(impl: str, device: torch.device) -> ModuleType:
    """The module behind ``impl``. Numba and triton load here, on first use; RuntimeError if they do not work."""
    name = _MODULES[impl]
    try:
        module = sys.modules.get(name) or importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(
            f"impl={impl!r} needs the package {impl}, which does not import here ({error}): pip install {impl}"
        ) from error
    if impl == "triton":
        module.check_available(device)
    return module


def num_orders(row_orders: Tensor | None, column_orders: Tensor | None) -> int:
    orders = row_orders if row_orders is not None else column_orders
    return 1 if orders is None else orders.shape[-2]


@torch.library.custom_op(f"{_NAMESPACE}::distance", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def distance(
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    measure: str,
    gamma: float,
    impl: str,
) -> Tensor:
    """Distances ``(..., k)`` of float32 or float64 costs ``(..., n, m)``; k = 1 without orders. Checks values."""
    run = implementation(impl, cost.device).distance
    *batch, n, m = cost.shape
    k = num_orders(row_orders, column_orders)
    if not _clamps_itself(impl, cost):
        lengths = checked_lengths(lengths, n, m)
        row_orders = checked_orders(row_orders, lengths[..., 0], n, name="row_orders")
        column_orders = checked_orders(column_orders, lengths[..., 1], m, name="column_orders")
    if cost.numel() == 0 or k == 0:
        return cost.new_empty(*batch, k)
    value = run(*flat(cost, lengths, row_orders, column_orders), measure=measure, gamma=gamma)
    return value.view(*batch, k)


@torch.library.custom_op(
    f"{_NAMESPACE}::distance_vjp", mutates_args=(), schema=f"(Tensor grad_distance, {_ARGUMENTS}) -> Tensor"
)
def distance_vjp(
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    measure: str,
    gamma: float,
    impl: str,
) -> Tensor:
    """Gradient ``(..., n, m)`` of ``(grad_distance * distance).sum()``. Orders are those ``distance`` has checked."""
    run = implementation(impl, cost.device).distance_vjp
    if cost.numel() == 0 or grad_distance.numel() == 0:
        return torch.zeros_like(cost, memory_format=torch.contiguous_format)
    weights = merged(grad_distance, keep=1)
    gradient = run(weights, *_clamped(impl, cost, lengths, row_orders, column_orders), measure=measure, gamma=gamma)
    return gradient.view(cost.shape)


@torch.library.custom_op(
    f"{_NAMESPACE}::distance_second",
    mutates_args=(),
    schema=f"(Tensor tangent, Tensor grad_distance, {_ARGUMENTS}) -> (Tensor, Tensor)",
)
def distance_second(
    tangent: Tensor,
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    measure: str,
    gamma: float,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """Along ``tangent (..., n, m)``: derivatives of ``distance_vjp`` (..., n, m) and of ``distance`` (..., k)."""
    if cost.numel() == 0 or grad_distance.numel() == 0:
        return torch.zeros_like(cost, memory_format=torch.contiguous_format), torch.zeros_like(grad_distance)
    along = merged(tangent, keep=2)
    weights = merged(grad_distance, keep=1)
    run = implementation(impl, cost.device).distance_second
    product, slope = run(
        along, weights, *_clamped(impl, cost, lengths, row_orders, column_orders), measure=measure, gamma=gamma
    )
    return product.view(cost.shape), slope.view(grad_distance.shape)


@distance.register_fake
def _(cost, lengths, row_orders, column_orders, measure, gamma, impl):
    return cost.new_empty(*cost.shape[:-2], num_orders(row_orders, column_orders))


@distance_vjp.register_fake
def _(grad_distance, cost, lengths, row_orders, column_orders, measure, gamma, impl):
    return cost.new_empty(cost.shape)


@distance_second.register_fake
def _(tangent, grad_distance, cost, lengths, row_orders, column_orders, measure, gamma, impl):
    return cost.new_empty(cost.shape), cost.new_empty(grad_distance.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.measure, ctx.gamma, ctx.impl = inputs
    ctx.save_for_backward(*tensors)


def _distance_backward(ctx: Any, grad_distance: Tensor) -> tuple[Tensor | None, ...]:
    gradient = distance_vjp(grad_distance, *ctx.saved_tensors, ctx.measure, ctx.gamma, ctx.impl)
    return (gradient, *[None] * 6)


def _vjp_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    product, slope = distance_second(tangent, *ctx.saved_tensors, ctx.measure, ctx.gamma, ctx.impl)
    return (slope, product, *[None] * 6)


def _second_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    raise NotImplementedError("third derivatives of an alignment distance are not available: use impl='reference'")


distance.register_autograd(_distance_backward, setup_context=_save)
distance_vjp.register_autograd(_vjp_backward, setup_context=_save)
distance_second.register_autograd(_second_backward, setup_context=_save)


def full_lengths(cost: Tensor) -> Tensor:
    """``(..., 2)``: all rows and columns of each matrix."""
    *batch, n, m = cost.shape
    lengths = torch.full((*batch, 2), m, dtype=torch.int64, device=cost.device)
    lengths[..., 0] = n
    return lengths


def flat(
    cost: Tensor, lengths: Tensor | None, row_orders: Tensor | None, column_orders: Tensor | None
) -> tuple[Tensor, Any, Tensor | None, Tensor | None]:
    """Every argument with one batch dimension, contiguous; lengths only where there are some."""
    rows, columns = (None if orders is None else merged(orders, keep=2) for orders in (row_orders, column_orders))
    return merged(cost, keep=2), None if lengths is None else merged(lengths, keep=1), rows, columns


def merged(tensor: Tensor, *, keep: int) -> Tensor:
    """All but the last ``keep`` dimensions merged into one, contiguous."""
    if tensor.dim() == keep + 1:
        return tensor.contiguous()
    return tensor.reshape(math.prod(tensor.shape[:-keep]), *tensor.shape[-keep:]).contiguous()


def _clamps_itself(impl: str, cost: Tensor) -> bool:
    """Whether the kernels clamp what nobody has looked at: Triton's do, and each launch saved is time on a GPU."""
    return impl == "triton" and not looks_at_values(cost)


def _clamped(
    impl: str, cost: Tensor, lengths: Tensor, row_orders: Tensor | None, column_orders: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """As ``flat``; clamps on devices whose values nobody looks at, as ``distance`` did."""
    if _clamps_itself(impl, cost):
        return flat(cost, lengths, row_orders, column_orders)
    n, m = cost.shape[-2:]
    lengths = checked_lengths(lengths, n, m)
    if cost.device.type != "cpu":
        row_orders, column_orders = (
            None if orders is None else orders.clamp(0, size - 1)
            for orders, size in ((row_orders, n), (column_orders, m))
        )
    return flat(cost, lengths, row_orders, column_orders)
