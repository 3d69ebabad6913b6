"""Triton kernels of the wavefront implementation: the table of one matrix forward, its alignment backward.

Imports triton, so it is loaded on first use; `wavefront` launches what is here. One program walks one (matrix, order)
pair. Nothing is accumulated across programs, so results repeat bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .wavefront_primitives import (
    allowed_moves,
    lane_pointers,
    load_cells,
    load_edge,
    load_extents,
    load_seed,
    load_weights,
    place,
    shift_down,
    shift_up,
    smallest,
    store_cells,
)

SIZES = [
    "lane_extent",
    "step_extent",
    "lane_stride",
    "step_stride",
    "num_orders",
    "num_pairs",
    "i_strip",
    "num_strips",
    "step_total",
]


@triton.jit(do_not_specialize=SIZES)
def sweep_forward(
    p_cost,
    p_lengths,
    p_lane_order,
    p_step_order,
    p_distance,
    p_table,
    p_edge,
    lane_extent,
    step_extent,
    lane_stride,
    step_stride,
    num_orders,
    num_pairs,
    i_strip,
    num_strips,
    step_total,
    inverse_gamma: tl.float64,
    gamma_ln2: tl.float64,
    OTAM: tl.constexpr,
    LANE_AXIS: tl.constexpr,
    LANE_BORDER: tl.constexpr,
    STEP_BORDER: tl.constexpr,
    CORNER: tl.constexpr,
    SOFT: tl.constexpr,
    FAST_LOG2: tl.constexpr,
    STRIPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PACK: tl.constexpr,
):
    """Accumulate one strip of `BLOCK` lanes; write the distance and, where `p_table` is given, every anti-diagonal."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, i_strip, BLOCK, PACK)
    num_lanes, num_steps, total_lanes, total_steps, num_rows = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, i_strip, OTAM, LANE_AXIS, BLOCK, PACK
    )
    p_lane = lane_pointers(
        p_cost, p_lane_order, i_pair, i_matrix, o_axis, num_lanes, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    m_lane = o_axis < num_lanes
    SLOTS: tl.constexpr = BLOCK * PACK
    o_table = (tl.program_id(0).to(tl.int64) * num_strips + i_strip) * (BLOCK + step_total - 1) * SLOTS
    if p_table is not None:
        p_table += o_table
    if STRIPS:
        p_edge += (i_pair * num_strips + i_strip) * step_total

    b_zero = tl.full([SLOTS], 0.0, p_cost.dtype.element_ty)
    b_inverse_gamma = tl.full([SLOTS], inverse_gamma, p_cost.dtype.element_ty)
    b_gamma_ln2 = tl.full([SLOTS], gamma_ln2, p_cost.dtype.element_ty)
    m_last = o_axis == total_lanes - 1
    b_value = b_zero + STEP_BORDER
    b_diagonal = tl.where(o_axis == 0, b_zero + CORNER, STEP_BORDER)
    b_next_cost = load_cells(p_lane, p_step_order, o_lane * -1, m_lane, num_steps, step_stride)
    for t in range(0, num_rows):
        o_step = t - o_lane
        b_cost = b_next_cost
        b_next_cost = load_cells(p_lane, p_step_order, o_step + 1, m_lane, num_steps, step_stride)
        if STRIPS:
            b_edge = load_edge(p_edge - step_total, o_lane, o_step, i_strip, step_total, LANE_BORDER)
        else:
            b_edge = b_zero + LANE_BORDER
        b_shifted = shift_up(b_value, o_slot, o_lane, b_edge)
        b_lane, b_step = allowed_moves(b_shifted, b_value, o_axis, o_step, num_lanes, num_steps, OTAM, LANE_AXIS)
        b_value = smallest(b_diagonal, b_lane, b_step, b_inverse_gamma, b_gamma_ln2, SOFT, FAST_LOG2) + b_cost
        b_value = tl.where(o_step >= 0, b_value, STEP_BORDER)
        b_diagonal = b_shifted
        if p_table is not None:
            tl.store(p_table + o_slot, b_value)
            p_table += SLOTS
        if STRIPS:
            m_edge = (o_lane == BLOCK - 1) & (o_step >= 0) & (o_step < total_steps)
            tl.store(p_edge + o_step, b_value, mask=m_edge)
        if PACK > 1:
            tl.store(p_distance + i_pair, b_value, mask=m_last & (o_step == total_steps - 1))
    if PACK == 1:
        tl.store(p_distance + i_pair + o_lane * 0, b_value, mask=m_last)


@triton.jit(do_not_specialize=SIZES)
def sweep_backward(
    p_grad,
    p_lengths,
    p_lane_order,
    p_step_order,
    p_distance,
    p_grad_distance,
    p_table,
    p_edge,
    p_flow,
    lane_extent,
    step_extent,
    lane_stride,
    step_stride,
    num_orders,
    num_pairs,
    i_strip,
    num_strips,
    step_total,
    inverse_gamma: tl.float64,
    OTAM: tl.constexpr,
    LANE_AXIS: tl.constexpr,
    LANE_BORDER: tl.constexpr,
    STEP_BORDER: tl.constexpr,
    CORNER: tl.constexpr,
    SOFT: tl.constexpr,
    STRIPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PACK: tl.constexpr,
):
    """Send one unit from the last cell back along the moves; what passes through a cell is its gradient."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, i_strip, BLOCK, PACK)
    num_lanes, num_steps, total_lanes, total_steps, num_rows = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, i_strip, OTAM, LANE_AXIS, BLOCK, PACK
    )
    p_lane = lane_pointers(
        p_grad, p_lane_order, i_pair, i_pair, o_axis, num_lanes, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    m_lane = o_axis < num_lanes
    SLOTS: tl.constexpr = BLOCK * PACK
    o_table = (tl.program_id(0).to(tl.int64) * num_strips + i_strip) * (BLOCK + step_total - 1) * SLOTS
    p_row = p_table + o_table + num_rows.to(tl.int64) * SLOTS
    if STRIPS:
        p_edge += (i_pair * num_strips + i_strip - 1) * step_total
        p_flow += (i_pair * num_strips + i_strip) * step_total

    b_zero = tl.full([SLOTS], 0.0, p_grad.dtype.element_ty)
    b_inverse_gamma = tl.full([SLOTS], inverse_gamma, p_grad.dtype.element_ty)
    b_seed, grad_distance = load_seed(p_distance, p_grad_distance, i_pair, num_pairs, o_axis, total_lanes, b_zero)
    b_flow = b_zero if PACK > 1 else b_seed
    if STRIPS:
        o_last = tl.where(o_lane == BLOCK - 1, total_steps - 1, -1)
        m_last = (o_last >= 0) & (o_axis < total_lanes - 1)
        b_flow += tl.load(p_flow + step_total + o_last, mask=m_last, other=0.0)
    b_pending = b_zero
    for i_back in range(0, num_rows):
        o_step = num_rows - 1 - i_back - o_lane
        if PACK > 1:
            b_flow += tl.where(o_step == total_steps - 1, b_seed, 0.0)
        p_row -= SLOTS
        b_diagonal, b_lane, b_step = load_weights(
            p_row,
            p_edge,
            o_slot,
            o_lane,
            o_axis,
            o_step,
            i_strip,
            step_total,
            num_lanes,
            num_steps,
            b_inverse_gamma,
            OTAM,
            LANE_AXIS,
            LANE_BORDER,
            STEP_BORDER,
            CORNER,
            SOFT,
            STRIPS,
            SLOTS,
        )
        m_cell = (o_axis < total_lanes) & (o_step >= 0) & (o_step < total_steps)
        store_cells(p_lane, p_step_order, o_step, m_lane, num_steps, step_stride, b_flow * grad_distance)
        b_leaving = tl.where(m_cell, b_flow * b_lane, 0.0) + b_pending
        b_pending = tl.where(m_cell, b_flow * b_diagonal, 0.0)
        b_edge = b_zero
        if STRIPS:
            m_edge = (o_lane == 0) & (o_step >= 0) & (o_step < total_steps)
            tl.store(p_flow + o_step, b_leaving, mask=m_edge)
            m_edge = (o_lane == BLOCK - 1) & (o_step > 0) & (o_step <= total_steps) & (o_axis < total_lanes - 1)
            b_edge = tl.load(p_flow + step_total + o_step - 1, mask=m_edge, other=0.0)
        b_flow = tl.where(m_cell, b_flow * b_step, 0.0) + shift_down(b_leaving, o_slot, o_lane, b_edge, BLOCK, PACK)
