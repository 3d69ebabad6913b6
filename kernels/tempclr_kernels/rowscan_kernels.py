"""Triton kernels for few skinny matrices: all cells of a row at once, by a scan along the longer side.

A hard row is ``R[j] = min(E[j], R[j - 1] + D[j])`` where ``E[j]`` enters it from the row before. A stretch of cells
maps what comes in on its left, x, to ``min(e, x + d)``: e is the cheapest way in from above and on to its end, d is
the sum of its costs. Stretches compose, so a row is an associative scan of pairs (e, d). Imports triton; loaded on
first use.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .wavefront_primitives import (
    INFINITY,
    lane_pointers,
    load_extents,
    load_order,
    load_seed,
    move_weights,
    place,
    shift_up,
)

SIZES = ["lane_extent", "step_extent", "lane_stride", "step_stride", "num_orders", "num_pairs"]

# Note [No sums to subtract]: with P the running sums of D, the row is also P + cummin(E - P), two cheap scans. But P
# grows along the row while R need not, so float32 loses what P has and R has not, and a single inf turns all that
# follow into inf - inf. Composing stretches adds along a path only what is on that path.


@triton.jit
def compose(b_enter, b_sum, b_next_enter, b_next_sum):
    """The stretch made of two, for `tl.associative_scan`."""
    b_through = b_enter + b_next_sum
    return tl.minimum(b_next_enter, b_through, propagate_nan=tl.PropagateNan.ALL), b_sum + b_next_sum


@triton.jit
def carry(b_sent, b_weight, b_next_sent, b_next_weight):
    """What leaves two neighbours that hand on a share of what they are handed."""
    return b_next_sent + b_next_weight * b_sent, b_weight * b_next_weight


@triton.jit(do_not_specialize=SIZES)
def scan_forward(
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
    LANE_AXIS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Accumulate one matrix, row by row; write the distance and, where `p_table` is given, every row."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, 0, BLOCK, 1)
    num_lanes, num_steps, _, _, _ = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, 0, False, LANE_AXIS, BLOCK, 1
    )
    p_lane = lane_pointers(
        p_cost, p_lane_order, i_pair, i_matrix, o_axis, num_lanes, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    if p_table is not None:
        p_table += i_pair * step_extent * BLOCK

    m_lane = o_axis < num_lanes
    b_infinity = tl.full([BLOCK], INFINITY, p_cost.dtype.element_ty)
    b_value = b_infinity
    b_corner = tl.full([BLOCK], 0.0, p_cost.dtype.element_ty)
    for t in range(0, num_steps):
        o_source = load_order(p_step_order, o_lane * 0 + t, m_lane, num_steps)
        b_cost = tl.load(p_lane + o_source * step_stride, mask=m_lane, other=0.0)
        b_diagonal = shift_up(b_value, o_slot, o_lane, b_corner)
        b_corner = b_infinity
        b_enter = tl.minimum(b_diagonal, b_value, propagate_nan=tl.PropagateNan.ALL) + b_cost
        b_value, _b_sums = tl.associative_scan((b_enter, b_cost), 0, compose)
        if p_table is not None:
            tl.store(p_table + t * BLOCK + o_lane, b_value)
    tl.store(p_distance + i_pair + o_lane * 0, b_value, mask=o_axis == num_lanes - 1)


@triton.jit(do_not_specialize=SIZES)
def scan_backward(
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
    LANE_AXIS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """As `wavefront_kernels.sweep_backward`, a row at a time and lanes mirrored: the flow runs up the slots."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, 0, BLOCK, 1)
    num_lanes, num_steps, _, _, _ = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, 0, False, LANE_AXIS, BLOCK, 1
    )
    o_axis = num_lanes - 1 - o_slot
    m_lane = o_axis >= 0
    o_unit = tl.maximum(o_axis, 0)
    p_lane = lane_pointers(
        p_grad, p_lane_order, i_pair, i_pair, o_unit, num_lanes, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    p_table += i_pair * step_extent * BLOCK

    b_zero = tl.full([BLOCK], 0.0, p_grad.dtype.element_ty)
    b_inflow, grad_distance = load_seed(p_distance, p_grad_distance, i_pair, num_pairs, o_axis, num_lanes, b_zero)
    for i_back in range(0, num_steps):
        o_step = o_lane * 0 + num_steps - 1 - i_back
        p_row = p_table + o_step * BLOCK + o_unit
        m_before = m_lane & (o_step > 0)
        b_step = tl.load(p_row - BLOCK, mask=m_before, other=INFINITY)
        b_diagonal = tl.load(p_row - BLOCK - 1, mask=m_before & (o_axis > 0), other=INFINITY)
        b_diagonal = tl.where((o_step == 0) & (o_axis == 0), 0.0, b_diagonal)
        b_lane = tl.load(p_row - 1, mask=o_axis > 0, other=INFINITY)
        b_diagonal, b_lane, b_step = move_weights(b_diagonal, b_lane, b_step, b_zero, False, LANE_AXIS)
        b_sent, _b_shares = tl.associative_scan((b_inflow * b_lane, b_lane), 0, carry)
        b_flow = b_inflow + shift_up(b_sent, o_slot, o_lane, b_zero)
        o_source = load_order(p_step_order, o_step, m_lane, num_steps)
        tl.store(p_lane + o_source * step_stride, b_flow * grad_distance, mask=m_lane)
        b_inflow = b_flow * b_step + shift_up(b_flow * b_diagonal, o_slot, o_lane, b_zero)
