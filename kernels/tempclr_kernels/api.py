"""Alignment distances of cost matrices: checks, choice of implementation, and what users read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import eager, operators, reference
from .checks import check_cost, check_gamma, check_lengths, check_measure, check_orders, checked_lengths, checked_orders

IMPLEMENTATIONS = ("reference", "numba", "triton")


def dtw(
    cost: Tensor,
    lengths: Tensor | None = None,
    *,
    gamma: float = 0.0,
    row_orders: Tensor | None = None,
    column_orders: Tensor | None = None,
    impl: str | None = None,
) -> Tensor:
    """Dynamic time warping: accumulated cost of the best monotone path from the first cell to the last.

    A path moves diagonally, down or right. With ``gamma > 0`` the minimum becomes ``-gamma * log(sum(exp(-x /
    gamma)))`` over all paths (soft-DTW; training uses gamma = 0.1). TempCLR (Yang et al., ICLR 2023), equation 3.

    Args:
        cost: ``(..., n, m)`` floating tensor, any sign. ``inf`` forbids a cell; NaN makes its own matrix's distance
            NaN. ``-inf`` is not a cost.
        lengths: ``(..., 2)`` integers, the valid rows and columns of each matrix, each at least 1; default: all. Cells
            beyond them may hold anything and get gradient 0.
        gamma: softness of the minimum, >= 0.
        row_orders: ``(..., k, n)`` integers: k orders of each matrix's rows. In each, the first ``lengths[..., 0]``
            entries are a permutation of the valid rows; the others are ignored.
        column_orders: ``(..., k, m)`` integers, of the columns. With row_orders: the same k, used together.
        impl: None (Triton on CUDA, numba on CPU), ``"reference"``, ``"numba"`` or ``"triton"``.

    Returns:
        ``(...)``, or ``(..., k)`` with orders: float64 for float64 costs, else float32. Differentiable twice by
        ``cost``.

    Raises:
        TypeError: not a tensor, or one of the wrong dtype.
        ValueError: wrong shape, device, gamma or ``impl``; on the CPU also lengths or orders out of range. On CUDA
            those are clamped unless ``TEMPCLR_DEBUG=1`` is set.
        RuntimeError: the implementation named cannot run here.
        NotImplementedError: the cost carries a tangent of forward-mode differentiation.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.5, 1.0]])
        >>> dtw(cost)
        tensor(1.5000)
        >>> dtw(cost, row_orders=torch.tensor([[0, 1], [1, 0]]))
        tensor([1.5000, 2.5000])
    """
    return _distance("dtw", cost, lengths, gamma, row_orders, column_orders, impl)


def otam(
    cost: Tensor,
    lengths: Tensor | None = None,
    *,
    gamma: float = 0.0,
    both_ways: bool = False,
    row_orders: Tensor | None = None,
    column_orders: Tensor | None = None,
    impl: str | None = None,
) -> Tensor:
    """Ordered temporal alignment (Cao et al., CVPR 2020): every column meets one row, in order; outer rows are free.

    From one column to the next the row stays or advances by one. Rows before the first matched one and after the last
    cost nothing, and only the first column may be matched with several rows. The roles of rows and columns differ.

    Args:
        cost, lengths, gamma, row_orders, column_orders, impl: as in :func:`dtw`.
        both_ways: add the distance of the transposed matrix. This is what losses and evaluation call ``"otam"``.

    Returns:
        ``(...)``, or ``(..., k)`` with orders. Soft distances may be negative. Differentiable twice by ``cost``.

    Raises:
        TypeError, ValueError, RuntimeError, NotImplementedError: as :func:`dtw`.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[9.0, 9.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]])
        >>> otam(cost)
        tensor(0.)
        >>> otam(cost, both_ways=True)
        tensor(18.)
    """
    distance = _distance("otam", cost, lengths, gamma, row_orders, column_orders, impl)
    if both_ways:
        turned = None if lengths is None else lengths.flip(-1)
        distance = distance + _distance("otam", cost.mT, turned, gamma, column_orders, row_orders, impl)
    return distance


def alignment(
    cost: Tensor,
    lengths: Tensor | None = None,
    *,
    measure: str = "dtw",
    gamma: float = 0.0,
    both_ways: bool = False,
    impl: str | None = None,
) -> Tensor:
    """Which cells the best path visits: the gradient of the distance by the cost.

    For ``gamma = 0`` the 0/1 matrix of the chosen path, followed back from the last cell; in a tie the move that
    led there is diagonal, else down, else right. For ``gamma > 0`` the expected number of visits over all paths.

    Args:
        cost, lengths, gamma, impl: as in :func:`dtw`.
        measure: ``"dtw"`` or ``"otam"``.
        both_ways: of OTAM, add the alignment of the transposed matrix, transposed back.

    Returns:
        ``(..., n, m)``: 0 beyond the lengths and at forbidden cells, and everywhere if no path avoids the forbidden
        cells. For ``gamma > 0`` differentiable once by ``cost``; for ``gamma = 0`` piecewise constant.

    Raises:
        TypeError, ValueError, RuntimeError, NotImplementedError: as :func:`dtw`.

    Example:
        >>> import torch
        >>> alignment(torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.5, 1.0]]))
        tensor([[1., 0., 0.],
                [0., 1., 1.]])
    """
    check_measure(measure, both_ways=both_ways)
    cost, checked, _, _ = _prepare(cost, lengths, gamma, None, None)
    impl = choose_implementation(impl, cost.device)
    result = _alignment(measure, cost, checked, gamma, impl)
    if both_ways:
        result = result + _alignment(measure, cost.mT, None if checked is None else checked.flip(-1), gamma, impl).mT
    return result


def choose_implementation(impl: str | None, device: torch.device) -> str:
    """Name of the implementation for ``device``; raises if the one asked for is made for another device.

    Whether its package works here is asked where it is loaded, ``operators.implementation``: torch.compile traces this
    function, and cannot trace imports.
    """
    if impl is None:
        chosen = {"cuda": "triton", "cpu": "numba"}.get(device.type)
        if chosen is None:
            raise ValueError(f"no implementation for {device}: move the tensors to the CPU, or use impl='reference'")
    elif impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be None or one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    else:
        chosen = impl
    if chosen == "numba" and device.type != "cpu":
        raise RuntimeError(f"impl='numba' runs on the CPU, the cost is on {device}: use cost.cpu() or impl=None")
    if chosen == "triton" and device.type not in ("cuda", "cpu"):
        raise RuntimeError(f"impl='triton' runs on CUDA, the cost is on {device}: use cost.cuda()")
    return chosen


def _distance(
    measure: str,
    cost: Tensor,
    lengths: Tensor | None,
    gamma: float,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    impl: str | None,
) -> Tensor:
    cost, checked, rows, columns = _prepare(cost, lengths, gamma, row_orders, column_orders)
    impl = choose_implementation(impl, cost.device)
    if _goes_past(impl, cost, checked, rows, columns) and operators.num_orders(rows, columns) > 0:
        return eager.distance(cost, checked, rows, columns, measure, float(gamma), impl)
    if checked is None:
        checked = operators.full_lengths(cost)
    run = _reference_distance if impl == "reference" else operators.distance
    distance = run(cost, checked, rows, columns, measure, float(gamma), impl)
    return distance.squeeze(-1) if rows is None and columns is None else distance


def _goes_past(impl: str, cost: Tensor, *others: Tensor | None) -> bool:
    return impl == "numba" and eager.is_plain(cost, *others) and 0 not in cost.shape


def _alignment(measure: str, cost: Tensor, lengths: Tensor | None, gamma: float, impl: str) -> Tensor:
    if not (torch.is_grad_enabled() and cost.requires_grad) and _goes_past(impl, cost, lengths):
        return eager.alignment(cost, lengths, measure, float(gamma), impl)
    if lengths is None:
        lengths = operators.full_lengths(cost)
    if impl != "reference":
        ones = cost.new_ones(*cost.shape[:-2], 1)
        return operators.distance_vjp(ones, cost, lengths, None, None, measure, float(gamma), impl)
    needs_derivative = torch.is_grad_enabled() and cost.requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        variable = cost if needs_derivative else cost.detach().clone().requires_grad_()
        total = _reference_distance(variable, lengths, None, None, measure, gamma, impl).sum()
        (visits,) = torch.autograd.grad(total, variable, create_graph=needs_derivative)
    return visits


def _reference_distance(
    cost: Tensor,
    lengths: Tensor,
    row_orders: Tensor | None,
    column_orders: Tensor | None,
    measure: str,
    gamma: float,
    impl: str,
) -> Tensor:
    """As ``operators.distance``, outside the operator: autograd goes through the loops, to any order."""
    *batch, n, m = cost.shape
    lengths = checked_lengths(lengths, n, m)
    rows = checked_orders(row_orders, lengths[..., 0], n, name="row_orders")
    columns = checked_orders(column_orders, lengths[..., 1], m, name="column_orders")
    flat = operators.flat(cost, lengths, rows, columns)
    value = reference.distance(*flat, measure=measure, gamma=gamma)
    return value.view(*batch, operators.num_orders(rows, columns))


def _prepare(
    cost: Tensor, lengths: Tensor | None, gamma: float, row_orders: Tensor | None, column_orders: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Arguments as the operators want them, after every check that needs no values."""
    check_cost(cost)
    check_gamma(gamma)
    _refuse_tangent(cost)
    *batch, n, m = cost.shape
    if lengths is not None:
        check_lengths(lengths, (*batch, 2), cost.device)
        lengths = lengths.long()
    for orders, size, name in ((row_orders, n, "row_orders"), (column_orders, m, "column_orders")):
        if orders is not None:
            check_orders(orders, tuple(batch), size, cost.device, name=name)
    if row_orders is not None and column_orders is not None and row_orders.shape[-2] != column_orders.shape[-2]:
        given = f"{row_orders.shape[-2]} row_orders and {column_orders.shape[-2]} column_orders"
        raise ValueError(f"orders are used together, one of each: got {given}")
    wide = cost if cost.dtype == torch.float64 else cost.float()
    rows, columns = (None if orders is None else orders.long() for orders in (row_orders, column_orders))
    return wide, lengths, rows, columns


# Note [Tangents are refused]: no implementation carries derivatives forward, and torch calls an operator that has no
# rule for them without them: the result would look like a constant.
def _refuse_tangent(cost: Tensor) -> None:
    if torch.compiler.is_compiling() or getattr(forward_ad, "_current_level", 0) < 0:  # asking costs a microsecond
        return
    if forward_ad.unpack_dual(cost).tangent is not None:
        raise NotImplementedError("the cost carries a forward-mode tangent: use reverse mode, torch.autograd.grad")
