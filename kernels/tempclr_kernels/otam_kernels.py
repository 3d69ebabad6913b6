"""Triton kernels of OTAM by columns: between its edges it moves right and diagonally, so a column needs only the last.

All rows of a column are lanes of one warp. The first column, where a path may run down, is a scan; the zero column
after the last, where it may too, is a sum over rows. Imports triton; `otam_columns` loads it on first use.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

from .rowscan_kernels import SIZES, carry, compose
from .wavefront_primitives import (
    INFINITY,
    lane_pointers,
    load_extents,
    load_order,
    move_weights,
    place,
    shift_up,
    smallest,
)

# Note [Two zeros on the left]: a row but the first is entered from the left border and diagonally from it, at no cost
# either way, and the zero column is reached in two ways from every row but the last. A soft minimum counts both.


@triton.jit
def softer(b_value, b_other):
    """Soft minimum of two numbers in units of gamma / log2(e): the least, and how many of it the other adds."""
    b_least = tl.minimum(b_value, b_other, propagate_nan=tl.PropagateNan.ALL)
    b_gap = tl.where(b_least == INFINITY, 0.0, b_least - tl.maximum(b_value, b_other))
    return b_least, 1.0 + tl.exp2(b_gap)


@triton.jit
def compose_soft(b_enter, b_sum, b_next_enter, b_next_sum):
    """As `rowscan_kernels.compose`."""
    b_least, b_count = softer(b_next_enter, b_enter + b_next_sum)
    return b_least - tl.log2(b_count), b_sum + b_next_sum


@triton.jit
def compose_soft_fast(b_enter, b_sum, b_next_enter, b_next_sum):
    b_least, b_count = softer(b_next_enter, b_enter + b_next_sum)
    return b_least - libdevice.fast_log2f(b_count), b_sum + b_next_sum


@triton.jit
def end_shares(b_last, o_axis, num_rows, inverse_gamma, SOFT: tl.constexpr):
    """Least value of the last column (0 if none is finite), how often each row ends a path, and the sum of that."""
    m_lane = (o_axis >= 0) & (o_axis < num_rows)
    b_last = tl.where(m_lane, b_last, INFINITY)
    least = tl.min(b_last, 0)
    if SOFT:
        least = tl.where(least == INFINITY, 0.0, least)
        b_share = tl.where(o_axis < num_rows - 1, 2.0, 1.0) * tl.exp2((least - b_last) * inverse_gamma)
        b_share = tl.where(m_lane, b_share, 0.0)
    else:
        # The zero column is walked back from its end: diagonally, down, and right in the last row alone.
        i_end = tl.max(tl.where(m_lane & (o_axis < num_rows - 1) & (b_last == least), o_axis, -1), 0)
        i_end = tl.where(i_end < 0, num_rows - 1, i_end)
        b_share = tl.where(o_axis == i_end, tl.full(b_last.shape, 1.0, b_last.dtype), 0.0)
    return least, b_share, tl.sum(b_share, 0)


@triton.jit(do_not_specialize=SIZES)
def column_forward(
    p_cost,
    p_lengths,
    p_lane_order,
    p_step_order,
    p_distance,
    p_table,
    lane_extent,
    step_extent,
    lane_stride,
    step_stride,
    num_orders,
    num_pairs,
    inverse_gamma: tl.float64,
    gamma_ln2: tl.float64,
    SOFT: tl.constexpr,
    FAST_LOG2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Accumulate one matrix, column by column; write the distance and, where `p_table` is given, every column."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, 0, BLOCK, 1)
    num_rows, num_columns, _, _, _ = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, 0, False, 0, BLOCK, 1
    )
    p_lane = lane_pointers(
        p_cost, p_lane_order, i_pair, i_matrix, o_axis, num_rows, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    if p_table is not None:
        p_table += i_pair * step_extent * BLOCK + o_lane
    m_lane = o_axis < num_rows
    b_infinity = tl.full([BLOCK], INFINITY, p_cost.dtype.element_ty)
    b_inverse_gamma = tl.full([BLOCK], inverse_gamma, p_cost.dtype.element_ty)
    b_gamma_ln2 = tl.full([BLOCK], gamma_ln2, p_cost.dtype.element_ty)

    o_source = load_order(p_step_order, o_lane * 0, m_lane, num_columns)
    b_cost = tl.load(p_lane + o_source * step_stride, mask=m_lane, other=0.0)
    if SOFT:
        b_scaled = b_cost * b_inverse_gamma
        b_enter = b_scaled - tl.where(o_axis > 0, 1.0, 0.0)
        if FAST_LOG2:
            b_value, _b_sums = tl.associative_scan((b_enter, b_scaled), 0, compose_soft_fast)
        else:
            b_value, _b_sums = tl.associative_scan((b_enter, b_scaled), 0, compose_soft)
        b_value = b_value / b_inverse_gamma
    else:
        b_value, _b_sums = tl.associative_scan((b_cost, b_cost), 0, compose)
    if p_table is not None:
        tl.store(p_table, b_value)
    o_source = load_order(p_step_order, o_lane * 0 + 1, m_lane & (num_columns + o_lane * 0 > 1), num_columns)
    b_next_cost = tl.load(p_lane + o_source * step_stride, mask=m_lane, other=0.0)
    for j in range(1, num_columns):
        b_cost = b_next_cost
        o_next = tl.minimum(o_lane * 0 + j + 1, num_columns - 1)
        o_source = load_order(p_step_order, o_next, m_lane, num_columns)
        b_next_cost = tl.load(p_lane + o_source * step_stride, mask=m_lane, other=0.0)
        b_diagonal = shift_up(b_value, o_slot, o_lane, b_infinity)
        b_value = smallest(b_diagonal, b_infinity, b_value, b_inverse_gamma, b_gamma_ln2, SOFT, FAST_LOG2) + b_cost
        if p_table is not None:
            tl.store(p_table + j * BLOCK, b_value)
    least, _b_share, total = end_shares(b_value, o_axis, num_rows, b_inverse_gamma, SOFT)
    broken = tl.sum(tl.where(m_lane & (b_value != b_value), 1, 0), 0)
    b_distance = b_gamma_ln2 * 0.0 + least
    if SOFT:
        b_distance -= tl.log2(total) * b_gamma_ln2
    b_distance = tl.where(broken > 0, float("nan"), b_distance)
    tl.store(p_distance + i_pair + o_lane * 0, b_distance, mask=o_lane == 0)


@triton.jit(do_not_specialize=SIZES)
def column_backward(
    p_grad,
    p_lengths,
    p_lane_order,
    p_step_order,
    p_distance,
    p_grad_distance,
    p_table,
    lane_extent,
    step_extent,
    lane_stride,
    step_stride,
    num_orders,
    num_pairs,
    inverse_gamma: tl.float64,
    SOFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """As `wavefront_kernels.sweep_backward`, a column at a time and rows mirrored: the flow runs up the slots."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, 0, BLOCK, 1)
    num_rows, num_columns, _, _, _ = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, 0, False, 0, BLOCK, 1
    )
    o_axis = num_rows - 1 - o_slot
    m_lane = o_axis >= 0
    o_unit = tl.maximum(o_axis, 0)
    p_lane = lane_pointers(
        p_grad, p_lane_order, i_pair, i_pair, o_unit, num_rows, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    p_table += i_pair * step_extent * BLOCK
    b_zero = tl.full([BLOCK], 0.0, p_grad.dtype.element_ty)
    b_infinity = b_zero + INFINITY
    b_inverse_gamma = tl.full([BLOCK], inverse_gamma, p_grad.dtype.element_ty)

    distance = tl.load(p_distance + i_pair)
    b_grad = b_zero + tl.where(distance == INFINITY, 0.0, tl.load(p_grad_distance + i_pair))
    # wavefront_primitives, Note [Seed of the flow].
    b_seed = tl.where(distance == INFINITY, b_zero, tl.where(distance == distance, b_zero + 1.0, distance))
    b_last = tl.load(p_table + (num_columns - 1) * BLOCK + o_unit)
    _least, b_share, total = end_shares(b_last, o_axis, num_rows, b_inverse_gamma, SOFT)
    b_flow = b_seed * b_share / tl.maximum(b_zero + total, 1.0)
    for i_back in range(0, num_columns - 1):
        o_step = o_lane * 0 + num_columns - 1 - i_back
        o_source = load_order(p_step_order, o_step, m_lane, num_columns)
        tl.store(p_lane + o_source * step_stride, b_flow * b_grad, mask=m_lane)
        p_before = p_table + (o_step - 1) * BLOCK + o_unit
        b_step = tl.load(p_before)
        b_diagonal = tl.load(p_before - 1, mask=o_axis > 0, other=INFINITY)
        b_diagonal, b_lane, b_step = move_weights(b_diagonal, b_infinity, b_step, b_inverse_gamma, SOFT, 0)
        b_flow = b_flow * b_step + shift_up(b_flow * b_diagonal, o_slot, o_lane, b_zero)
    b_above = tl.load(p_table + o_unit - 1, mask=o_axis > 0, other=INFINITY)
    b_diagonal, b_lane, b_step = move_weights(b_zero, b_above, b_zero, b_inverse_gamma, SOFT, 0)
    b_sent, _b_shares = tl.associative_scan((b_flow * b_lane, b_lane), 0, carry)
    b_flow += shift_up(b_sent, o_slot, o_lane, b_zero)
    o_source = load_order(p_step_order, o_lane * 0, m_lane, num_columns)
    tl.store(p_lane + o_source * step_stride, b_flow * b_grad, mask=m_lane)
