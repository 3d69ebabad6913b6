"""Distances past the dispatcher, where nobody but autograd watches: what an operator costs is more than a small batch.

The kernels on the CPU need tens of microseconds for a few hundred short matrices; an operator registered in Python
takes as long again, twice with its gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import operators
from .checks import checked_lengths, checked_orders


# Note [Past the dispatcher]: an operator is there so that tracing, compilation, functional transforms and subclasses of
# tensors see one step instead of a kernel they cannot look into. Where none of them is at work, calling the
# implementation gives the same result sooner. Should torch rename what is asked here, every call is dispatched.
def is_plain(*tensors: Tensor | None) -> bool:
    """Whether these are ordinary CPU tensors in ordinary eager code."""
    if torch.compiler.is_compiling():
        return False
    for tensor in tensors:
        if tensor is not None and not (type(tensor) in _PLAIN and tensor.is_cpu):
            return False
    try:
        watched = (
            torch._C._len_torch_dispatch_stack()
            or torch._C._functorch.peek_interpreter_stack() is not None
            or torch._C._get_tracing_state() is not None
        )
    except AttributeError:
        return False
    return not watched


_PLAIN = (Tensor, torch.nn.Parameter)


def distance(
    cost: Tensor,
    lengths: Tensor | None,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    measure: str,
    gamma: float,
    impl: str,
) -> Tensor:
    """``operators.distance`` of plain tensors, not empty, without the dimension of orders where there are none.

    Without lengths matrices are full. The implementation has ``distance_keeping`` and ``vjp_of_kept`` besides.
    """
    module = operators.implementation(impl, cost.device)
    *batch, n, m = cost.shape
    if lengths is not None:
        checked_lengths(lengths, n, m)
    for orders, axis, name in ((row_orders, 0, "row_orders"), (column_orders, 1, "column_orders")):
        if orders is not None:
            sizes = torch.full(batch, cost.shape[axis - 2]) if lengths is None else lengths[..., axis]
            checked_orders(orders, sizes, cost.shape[axis - 2], name=name)
    k = operators.num_orders(row_orders, column_orders)
    shape = tuple(batch) if row_orders is None and column_orders is None else (*batch, k)
    arguments = (cost, lengths, row_orders, column_orders)
    if cost.requires_grad and torch.is_grad_enabled():
        return _Distance.apply(*arguments, measure, gamma, impl, shape)
    return module.distance(*operators.flat(*arguments), measure=measure, gamma=gamma).view(shape)


def alignment(cost: Tensor, lengths: Tensor | None, measure: str, gamma: float, impl: str) -> Tensor:
    """The gradient of each distance by its cost, which nobody differentiates; arguments as of ``distance``."""
    module = operators.implementation(impl, cost.device)
    if lengths is not None:
        checked_lengths(lengths, *cost.shape[-2:])
    flat = operators.flat(cost, lengths, None, None)
    ones = torch.ones(flat[0].shape[0], 1, dtype=cost.dtype)
    return module.distance_vjp(ones, *flat, measure=measure, gamma=gamma).view(cost.shape)


# Note [Visits become the gradient]: unless the graph is retained nobody asks for what was saved again, and the visits,
# as large as the cost, are multiplied in place. Should torch rename what is asked here, they are copied.
def _is_last_backward() -> bool:
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return asked is not None and not asked()


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cost: Tensor,
        lengths: Tensor | None,
        row_orders: Tensor | None,
        column_orders: Tensor | None,
        measure: str,
        gamma: float,
        impl: str,
        shape: tuple[int, ...],
    ) -> Tensor:
        arguments = operators.flat(cost, lengths, row_orders, column_orders)
        module = operators.implementation(impl, cost.device)
        value, visits, ctx.paths = module.distance_keeping(*arguments, measure=measure, gamma=gamma)
        ctx.save_for_backward(cost, lengths, row_orders, column_orders, visits)
        ctx.measure, ctx.gamma, ctx.impl, ctx.module = measure, gamma, impl, module
        return value.view(shape)

    @staticmethod
    def backward(ctx: Any, grad_distance: Tensor) -> tuple[Tensor | None, ...]:
        cost, lengths, row_orders, column_orders, visits = ctx.saved_tensors
        weights = grad_distance.reshape(*cost.shape[:-2], operators.num_orders(row_orders, column_orders))
        if torch.is_grad_enabled() or not is_plain(grad_distance):  # the gradient may be differentiated again
            lengths = operators.full_lengths(cost) if lengths is None else lengths
            arguments = (cost, lengths, row_orders, column_orders, ctx.measure, ctx.gamma, ctx.impl)
            gradient = operators.distance_vjp(weights, *arguments)
        else:
            flat = operators.flat(cost, lengths, row_orders, column_orders)
            weights = operators.merged(weights, keep=1)
            kept, how = (visits, ctx.paths), {"measure": ctx.measure, "gamma": ctx.gamma}
            gradient = ctx.module.vjp_of_kept(weights, *kept, *flat, **how, once=_is_last_backward())
            gradient = gradient.view(cost.shape)
        return (gradient, *[None] * 7)
