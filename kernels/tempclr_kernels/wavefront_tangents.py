"""Triton kernels of the second derivative: the table's tangent forward, the alignment's tangent backward.

Both walk a table that `wavefront_kernels.sweep_forward` stored. Loaded on first use, as that module is. The recursions
are those of Mensch & Blondel, "Differentiable Dynamic Programming" (2018), algorithm 2, with a soft minimum's sign.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .wavefront_kernels import SIZES
from .wavefront_primitives import (
    INFINITY,
    lane_pointers,
    load_cells,
    load_edge,
    load_extents,
    load_predecessors,
    load_seed,
    load_weights,
    place,
    shift_down,
    shift_up,
    store_cells,
)


@triton.jit(do_not_specialize=SIZES)
def sweep_slope(
    p_tangent,
    p_lengths,
    p_lane_order,
    p_step_order,
    p_distance,
    p_directional,
    p_table,
    p_edge,
    p_slopes,
    p_slope_edge,
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
    """Derivative of every accumulated cost along the tangent, stored as the table is; the last is the distance's."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, i_strip, BLOCK, PACK)
    num_lanes, num_steps, total_lanes, total_steps, num_rows = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, i_strip, OTAM, LANE_AXIS, BLOCK, PACK
    )
    p_lane = lane_pointers(
        p_tangent, p_lane_order, i_pair, i_matrix, o_axis, num_lanes, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    m_lane = o_axis < num_lanes
    SLOTS: tl.constexpr = BLOCK * PACK
    o_table = (tl.program_id(0).to(tl.int64) * num_strips + i_strip) * (BLOCK + step_total - 1) * SLOTS
    p_row = p_table + o_table
    p_slope = p_slopes + o_table
    if STRIPS:
        p_edge += (i_pair * num_strips + i_strip - 1) * step_total
        p_slope_edge += (i_pair * num_strips + i_strip) * step_total

    b_zero = tl.full([SLOTS], 0.0, p_tangent.dtype.element_ty)
    b_inverse_gamma = tl.full([SLOTS], inverse_gamma, p_tangent.dtype.element_ty)
    distance = tl.load(p_distance + i_pair, mask=i_pair < num_pairs, other=0.0)
    m_last = o_axis == total_lanes - 1
    b_slope = b_zero
    b_slope_diagonal = b_zero
    for t in range(0, num_rows):
        o_step = t - o_lane
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
        b_edge = b_zero
        if STRIPS:
            b_edge = load_edge(p_slope_edge - step_total, o_lane, o_step, i_strip, step_total, 0.0)
        b_slope_lane = shift_up(b_slope, o_slot, o_lane, b_edge)
        b_tangent = load_cells(p_lane, p_step_order, o_step, m_lane, num_steps, step_stride)
        b_slope = b_tangent + b_diagonal * b_slope_diagonal + b_lane * b_slope_lane + b_step * b_slope
        # A cell that no path reaches moves nothing, whatever the tangent says there.
        b_value = tl.load(p_row + o_slot)
        b_slope = tl.where((o_step >= 0) & (b_value != INFINITY), b_slope, 0.0)
        b_slope_diagonal = b_slope_lane
        tl.store(p_slope + o_slot, b_slope)
        p_row += SLOTS
        p_slope += SLOTS
        if STRIPS:
            m_edge = (o_lane == BLOCK - 1) & (o_step >= 0) & (o_step < total_steps)
            tl.store(p_slope_edge + o_step, b_slope, mask=m_edge)
        if PACK > 1:
            b_slope_now = tl.where(distance == distance, b_slope, distance)
            tl.store(p_directional + i_pair, b_slope_now, mask=m_last & (o_step == total_steps - 1))
    if PACK == 1:
        b_slope = tl.where(distance == distance, b_slope, distance)
        tl.store(p_directional + i_pair + o_lane * 0, b_slope, mask=m_last)


@triton.jit(do_not_specialize=SIZES)
def sweep_curvature(
    p_hessian,
    p_lengths,
    p_lane_order,
    p_step_order,
    p_distance,
    p_grad_distance,
    p_table,
    p_edge,
    p_slopes,
    p_slope_edge,
    p_flow,
    p_flow_slope,
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
    natural_inverse_gamma: tl.float64,
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
    """`wavefront_kernels.sweep_backward` together with its derivative along the tangent, which is what is stored."""
    o_slot, o_lane, o_axis, i_pair, i_matrix = place(num_orders, i_strip, BLOCK, PACK)
    num_lanes, num_steps, total_lanes, total_steps, num_rows = load_extents(
        p_lengths, i_pair, i_matrix, num_pairs, lane_extent, step_extent, i_strip, OTAM, LANE_AXIS, BLOCK, PACK
    )
    p_lane = lane_pointers(
        p_hessian, p_lane_order, i_pair, i_pair, o_axis, num_lanes, lane_extent, step_extent, lane_stride
    )
    if p_step_order is not None:
        p_step_order += i_pair * step_extent
    m_lane = o_axis < num_lanes
    SLOTS: tl.constexpr = BLOCK * PACK
    o_table = (tl.program_id(0).to(tl.int64) * num_strips + i_strip) * (BLOCK + step_total - 1) * SLOTS
    o_table += num_rows.to(tl.int64) * SLOTS
    p_row = p_table + o_table
    p_slope = p_slopes + o_table
    if STRIPS:
        p_edge += (i_pair * num_strips + i_strip - 1) * step_total
        p_slope_edge += (i_pair * num_strips + i_strip - 1) * step_total
        p_flow += (i_pair * num_strips + i_strip) * step_total
        p_flow_slope += (i_pair * num_strips + i_strip) * step_total

    b_zero = tl.full([SLOTS], 0.0, p_hessian.dtype.element_ty)
    b_inverse_gamma = tl.full([SLOTS], inverse_gamma, p_hessian.dtype.element_ty)
    b_rate = tl.full([SLOTS], natural_inverse_gamma, p_hessian.dtype.element_ty)
    b_seed, grad_distance = load_seed(p_distance, p_grad_distance, i_pair, num_pairs, o_axis, total_lanes, b_zero)
    b_flow = b_zero if PACK > 1 else b_seed
    b_flow_slope = b_flow * 0.0
    if STRIPS:
        o_last = tl.where(o_lane == BLOCK - 1, total_steps - 1, -1)
        m_last = (o_last >= 0) & (o_axis < total_lanes - 1)
        b_flow += tl.load(p_flow + step_total + o_last, mask=m_last, other=0.0)
        b_flow_slope += tl.load(p_flow_slope + step_total + o_last, mask=m_last, other=0.0)
    b_pending = b_zero
    b_pending_slope = b_zero
    for i_back in range(0, num_rows):
        o_step = num_rows - 1 - i_back - o_lane
        if PACK > 1:
            b_flow += tl.where(o_step == total_steps - 1, b_seed, 0.0)
        p_row -= SLOTS
        p_slope -= SLOTS
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
        b_slope_diagonal, b_slope_lane, b_slope_step = load_predecessors(
            p_slope, p_slope_edge, o_slot, o_lane, o_step, i_strip, step_total, 0.0, 0.0, 0.0, STRIPS, SLOTS
        )
        b_mean = b_diagonal * b_slope_diagonal + b_lane * b_slope_lane + b_step * b_slope_step
        b_slope_diagonal = b_diagonal * (b_mean - b_slope_diagonal) * b_rate
        b_slope_lane = b_lane * (b_mean - b_slope_lane) * b_rate
        b_slope_step = b_step * (b_mean - b_slope_step) * b_rate
        m_cell = (o_axis < total_lanes) & (o_step >= 0) & (o_step < total_steps)
        store_cells(p_lane, p_step_order, o_step, m_lane, num_steps, step_stride, b_flow_slope * grad_distance)

        b_leaving = tl.where(m_cell, b_flow * b_lane, 0.0) + b_pending
        b_leaving_slope = tl.where(m_cell, b_flow_slope * b_lane + b_flow * b_slope_lane, 0.0) + b_pending_slope
        b_pending = tl.where(m_cell, b_flow * b_diagonal, 0.0)
        b_pending_slope = tl.where(m_cell, b_flow_slope * b_diagonal + b_flow * b_slope_diagonal, 0.0)
        b_flow_slope = tl.where(m_cell, b_flow_slope * b_step + b_flow * b_slope_step, 0.0)
        b_flow = tl.where(m_cell, b_flow * b_step, 0.0)
        b_edge = b_zero
        b_edge_slope = b_zero
        if STRIPS:
            m_edge = (o_lane == 0) & (o_step >= 0) & (o_step < total_steps)
            tl.store(p_flow + o_step, b_leaving, mask=m_edge)
            tl.store(p_flow_slope + o_step, b_leaving_slope, mask=m_edge)
            m_edge = (o_lane == BLOCK - 1) & (o_step > 0) & (o_step <= total_steps) & (o_axis < total_lanes - 1)
            b_edge = tl.load(p_flow + step_total + o_step - 1, mask=m_edge, other=0.0)
            b_edge_slope = tl.load(p_flow_slope + step_total + o_step - 1, mask=m_edge, other=0.0)
        b_flow += shift_down(b_leaving, o_slot, o_lane, b_edge, BLOCK, PACK)
        b_flow_slope += shift_down(b_leaving_slope, o_slot, o_lane, b_edge_slope, BLOCK, PACK)
