"""Alignment by plain loops over cells: the specification that every other implementation is held to.

Nothing here is fast. Sums run in float64, derivatives come from autograd, and permuted copies are materialised. All
three functions of the internal contract share their arguments:

``cost (B, n, m)``, ``lengths (B, 2)`` int64, ``row_orders (B, K, n)`` or None, ``column_orders (B, K, m)`` or None.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .recurrence import border_total, num_table_columns, predecessors, soft_minimum


def distance(
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> Tensor:
    """Distance of every matrix under every order: ``(B, K)``, with K = 1 when there are no orders."""
    results = [
        _of_one(matrix, length, rows, columns, measure, gamma)
        for matrix, length, rows, columns in zip(
            cost, lengths.tolist(), _each(row_orders, cost), _each(column_orders, cost), strict=True
        )
    ]
    if not results:
        orders = row_orders if row_orders is not None else column_orders
        return cost.sum((1, 2)).unsqueeze(1).expand(0, 1 if orders is None else orders.shape[1])
    return torch.stack(results).to(cost.dtype)


def distance_vjp(
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> Tensor:
    """Gradient of ``(grad_distance * distance).sum()`` by the cost: ``(B, n, m)``."""
    with torch.enable_grad():
        cost = cost.detach().requires_grad_()
        value = distance(cost, lengths, row_orders, column_orders, measure=measure, gamma=gamma)
        return _gradients((value * grad_distance).sum(), [cost])[0]


def distance_second(
    tangent: Tensor,
    grad_distance: Tensor,
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    *,
    measure: str,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Along ``tangent (B, n, m)``: derivative of ``distance_vjp`` (B, n, m), and of ``distance`` (B, K)."""
    with torch.enable_grad():
        cost = cost.detach().requires_grad_()
        weight = grad_distance.detach().requires_grad_()
        value = distance(cost, lengths, row_orders, column_orders, measure=measure, gamma=gamma)
        (gradient,) = _gradients((value * weight).sum(), [cost], create_graph=True)
        slope = (gradient * torch.where(_usable(cost, lengths), tangent, 0.0)).sum()
        product, directional = _gradients(slope, [cost, weight])
        return product, directional


def _of_one(
    matrix: Tensor, length: list[int], rows: Tensor | None, columns: Tensor | None, measure: str, gamma: float
) -> Tensor:
    num_rows, num_columns = length
    valid = matrix[:num_rows, :num_columns].double()
    row_orders = _or_as_given(rows, num_rows, matrix)[:, :num_rows, None]
    column_orders = _or_as_given(columns, num_columns, matrix)[:, None, :num_columns]
    copies = _PiecewiseLinear.apply(valid[row_orders, column_orders])
    value = _last_total(copies, measure, gamma)
    if valid.isnan().any():
        return value + valid.sum() * math.nan  # so that the gradient is NaN in every cell
    return torch.where(value == math.inf, math.inf, value)  # no gradient where no path avoids the forbidden cells


# Note [A path has a second derivative]: the gradient of the hard minimum is made of constants, and autograd refuses to
# differentiate what does not depend on its variables. So that a loss with a gradient in it works for gamma = 0 as for
# any other, the gradient is tied to the costs, with derivative 0.
class _PiecewiseLinear(torch.autograd.Function):
    """Identity."""

    @staticmethod
    def forward(ctx: Any, costs: Tensor) -> Tensor:
        ctx.save_for_backward(costs)
        return costs.view_as(costs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (costs,) = ctx.saved_tensors
        return grad + torch.where(torch.ones_like(costs, dtype=torch.bool), 0.0, costs)


def _last_total(copies: Tensor, measure: str, gamma: float) -> Tensor:
    num_copies, num_rows, num_columns = copies.shape
    table_columns = num_table_columns(measure, num_columns)
    total: dict[tuple[int, int], Tensor] = {}
    for cell in product(range(num_rows), range(table_columns)):
        before = [
            total[p] if p in total else copies.new_full((num_copies,), border_total(measure, p))
            for p in predecessors(measure, cell, num_columns)
        ]
        row, column = cell
        own = copies[:, row, column] if column < num_columns else copies.new_zeros(num_copies)
        total[cell] = own + soft_minimum(before, gamma)
    return total[num_rows - 1, table_columns - 1]


def _usable(cost: Tensor, lengths: Tensor) -> Tensor:
    """Cells inside the lengths that are not forbidden: the others move no distance, whatever a tangent says there."""
    _, num_rows, num_columns = cost.shape
    rows = torch.arange(num_rows, device=cost.device).unsqueeze(1) < lengths[:, 0].view(-1, 1, 1)
    columns = torch.arange(num_columns, device=cost.device) < lengths[:, 1].view(-1, 1, 1)
    return rows & columns & (cost != math.inf)


def _or_as_given(orders: Tensor | None, size: int, matrix: Tensor) -> Tensor:
    return torch.arange(size, device=matrix.device).unsqueeze(0) if orders is None else orders


def _each(orders: Tensor | None, cost: Tensor) -> list[Tensor | None]:
    return [None] * len(cost) if orders is None else list(orders)


def _gradients(value: Tensor, variables: list[Tensor], create_graph: bool = False) -> list[Tensor]:
    found = torch.autograd.grad(value, variables, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for g, v in zip(found, variables, strict=True)]
