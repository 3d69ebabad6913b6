"""Triton building blocks shared by every sweep of the wavefront implementation (imports triton; loaded lazily).

A sweep holds one anti-diagonal of the table in registers. The *lane* axis (one cell a lane) is the shorter side of the
matrix, the *step* axis the longer one; at step ``t`` lane ``l`` stands in the cell (``l``, ``t - l``).
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

INFINITY = tl.constexpr(float("inf"))

# Note [The border is data]: a measure is its border and its vertical moves, nothing else. With rows as lanes the cells
# beyond lane 0 (row -1), before step 0 (column -1) and the corner where both meet hold, for DTW, inf, inf and 0: both
# ends pinned. OTAM has a zero column left of the first: inf, 0 and inf (row -1 does not exist). Transposed, lane and
# step borders swap. OTAM's zero column on the right is an ordinary column of masked loads, so its end needs no code.


# Note [Pairs side by side]: a vector of a program has `PACK` times `BLOCK` slots. Slot s is lane s % BLOCK of pair
# s // BLOCK, so that a warp is full of short problems; shifts stop at a pair's first and last lane. What belongs to a
# pair (its lengths, its orders) is then a vector too, and the loop runs for the longest of them. With `PACK` = 1 all of
# that is scalar again.


@triton.jit
def shift_up(b_value, o_slot, o_lane, fill):
    """The value of the lane before; `fill` in lane 0."""
    return tl.where(o_lane > 0, tl.gather(b_value, tl.maximum(o_slot - 1, 0), 0), fill)


@triton.jit
def shift_down(b_value, o_slot, o_lane, fill, BLOCK: tl.constexpr, PACK: tl.constexpr):
    """The value of the lane after; `fill` in the last lane."""
    b_after = tl.gather(b_value, tl.minimum(o_slot + 1, BLOCK * PACK - 1), 0)
    return tl.where(o_lane < BLOCK - 1, b_after, fill)


@triton.jit
def place(num_orders, i_strip, BLOCK: tl.constexpr, PACK: tl.constexpr):
    """Where every slot stands: slot, lane of its strip, unit of the lane axis; pair and matrix, int64."""
    o_slot = tl.arange(0, BLOCK * PACK)
    i_pair = tl.program_id(0).to(tl.int64)
    if PACK > 1:
        o_lane = o_slot % BLOCK
        i_pair = i_pair * PACK + o_slot // BLOCK
    else:
        o_lane = o_slot
    return o_slot, o_lane, o_lane + i_strip * BLOCK, i_pair, i_pair // num_orders


@triton.jit
def load_extents(
    p_lengths,
    i_pair,
    i_matrix,
    num_pairs,
    lane_extent,
    step_extent,
    i_strip,
    OTAM: tl.constexpr,
    LANE_AXIS: tl.constexpr,
    BLOCK: tl.constexpr,
    PACK: tl.constexpr,
):
    """Valid lanes and steps of each pair, the same with OTAM's zero column, and the anti-diagonals of the strip.

    Lengths are clamped into the matrix whatever was handed over: nothing is read out of bounds. A pair beyond the last
    one, in a program that is not full, has no lanes.
    """
    m_pair = i_pair < num_pairs
    num_lanes = tl.load(p_lengths + 2 * i_matrix + LANE_AXIS, mask=m_pair, other=1).to(tl.int32)
    num_steps = tl.load(p_lengths + 2 * i_matrix + (1 - LANE_AXIS), mask=m_pair, other=1).to(tl.int32)
    num_lanes = tl.where(m_pair, tl.minimum(tl.maximum(num_lanes, 1), lane_extent), 0)
    num_steps = tl.minimum(tl.maximum(num_steps, 1), step_extent)
    total_lanes = num_lanes
    total_steps = num_steps
    if OTAM:
        total_lanes += tl.where(m_pair, LANE_AXIS, 0)
        total_steps += 1 - LANE_AXIS
    strip_lanes = tl.minimum(total_lanes - i_strip * BLOCK, BLOCK)
    num_rows = tl.where(strip_lanes > 0, strip_lanes + total_steps - 1, 0)
    if PACK > 1:
        num_rows = tl.max(num_rows, 0)
    return num_lanes, num_steps, total_lanes, total_steps, num_rows


@triton.jit
def lane_pointers(p_cells, p_lane_order, i_pair, i_cells, o_axis, num_lanes, lane_extent, step_extent, lane_stride):
    """First cell of every lane in matrix `i_cells` of `p_cells`, read through the order of the lanes."""
    if p_lane_order is not None:
        p_lane_order += i_pair * lane_extent
    o_source = load_order(p_lane_order, o_axis, o_axis < num_lanes, num_lanes)
    return p_cells + i_cells * lane_extent * step_extent + o_source * lane_stride


@triton.jit
def load_order(p_order, o_unit, m_unit, num_units):
    """Where each position's unit lies in the unpermuted matrix; clamped, so a bad order cannot read out of bounds."""
    if p_order is None:
        o_source = o_unit.to(tl.int64)
    else:
        o_source = tl.load(p_order + o_unit, mask=m_unit, other=0).to(tl.int64)
        o_source = tl.minimum(tl.maximum(o_source, 0), num_units - 1)
    return o_source


@triton.jit
def load_cells(p_lane, p_step_order, o_step, m_lane, num_steps, step_stride):
    """One anti-diagonal of a matrix (cost or tangent), read through the order; 0 outside the valid region."""
    m_cell = m_lane & (o_step >= 0) & (o_step < num_steps)
    o_source = load_order(p_step_order, o_step, m_cell, num_steps)
    return tl.load(p_lane + o_source * step_stride, mask=m_cell, other=0.0)


@triton.jit
def store_cells(p_lane, p_step_order, o_step, m_lane, num_steps, step_stride, b_value):
    """The inverse of `load_cells`: cells outside the valid region are left as they are."""
    m_cell = m_lane & (o_step >= 0) & (o_step < num_steps)
    o_source = load_order(p_step_order, o_step, m_cell, num_steps)
    tl.store(p_lane + o_source * step_stride, b_value, mask=m_cell)


@triton.jit
def allowed_moves(b_lane, b_step, o_lane, o_step, num_lanes, num_steps, OTAM: tl.constexpr, LANE_AXIS: tl.constexpr):
    """OTAM moves down only in the first column and in the zero column after the last; DTW moves anywhere."""
    if OTAM:
        if LANE_AXIS == 0:
            b_lane = tl.where((o_step == 0) | (o_step == num_steps), b_lane, INFINITY)
        else:
            b_step = tl.where((o_lane == 0) | (o_lane == num_lanes), b_step, INFINITY)
    return b_lane, b_step


@triton.jit
def minimum(b_diagonal, b_lane, b_step):
    """The least of three, NaN if any is: a NaN cell may not be walked around."""
    b_least = tl.minimum(b_lane, b_step, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(b_least, b_diagonal, propagate_nan=tl.PropagateNan.ALL)


# Note [Soft minimum without inf - inf]: where all three predecessors are inf the shift is 0, so each term is
# exp2(-inf) = 0 and the result -log2(0) = inf. Elsewhere the least term is exp2(0) = 1, so the sum lies in [1, 3].


@triton.jit
def soft_terms(b_diagonal, b_lane, b_step, inverse_gamma):
    """The shift and the three exponentials of the soft minimum."""
    b_least = tl.minimum(tl.minimum(b_lane, b_step), b_diagonal)
    b_least = tl.where(b_least == INFINITY, 0.0, b_least)
    b_diagonal = tl.exp2((b_least - b_diagonal) * inverse_gamma)
    b_lane = tl.exp2((b_least - b_lane) * inverse_gamma)
    b_step = tl.exp2((b_least - b_step) * inverse_gamma)
    return b_least, b_diagonal, b_lane, b_step


@triton.jit
def smallest(b_diagonal, b_lane, b_step, inverse_gamma, gamma_ln2, SOFT: tl.constexpr, FAST_LOG2: tl.constexpr):
    """The hard or soft minimum of three predecessors."""
    if SOFT:
        b_least, b_diagonal, b_lane, b_step = soft_terms(b_diagonal, b_lane, b_step, inverse_gamma)
        b_sum = b_diagonal + b_lane + b_step
        b_log = libdevice.fast_log2f(b_sum) if FAST_LOG2 else tl.log2(b_sum)
        b_result = b_least - b_log * gamma_ln2
    else:
        b_result = minimum(b_diagonal, b_lane, b_step)
    return b_result


@triton.jit
def move_weights(b_diagonal, b_lane, b_step, inverse_gamma, SOFT: tl.constexpr, LANE_AXIS: tl.constexpr):
    """How much of a cell comes from each predecessor: the softmin weights, or 0/1 with ties diagonal, down, right."""
    if SOFT:
        _, b_diagonal, b_lane, b_step = soft_terms(b_diagonal, b_lane, b_step, inverse_gamma)
        # The sum is at least 1 wherever a predecessor can be reached, and 0 elsewhere.
        b_scale = 1.0 / tl.maximum(b_diagonal + b_lane + b_step, 1.0)
        b_diagonal = b_diagonal * b_scale
        b_lane = b_lane * b_scale
        b_step = b_step * b_scale
    else:
        b_least = minimum(b_diagonal, b_lane, b_step)
        m_diagonal = b_diagonal == b_least
        if LANE_AXIS == 0:
            m_lane = (b_lane == b_least) & (b_diagonal != b_least)
            m_step = (b_lane != b_least) & (b_diagonal != b_least)
        else:
            m_step = (b_step == b_least) & (b_diagonal != b_least)
            m_lane = (b_step != b_least) & (b_diagonal != b_least)
        b_one = tl.full(b_least.shape, 1.0, b_least.dtype)
        b_zero = tl.full(b_least.shape, 0.0, b_least.dtype)
        b_diagonal = tl.where(m_diagonal, b_one, b_zero)
        b_lane = tl.where(m_lane, b_one, b_zero)
        b_step = tl.where(m_step, b_one, b_zero)
    return b_diagonal, b_lane, b_step


@triton.jit
def load_edge(p_edge, o_lane, o_step, i_strip, step_total, fill):
    """What the last lane of the strip before handed on at `o_step`; `fill` in the first strip. Read by lane 0 alone."""
    m_edge = (o_lane == 0) & (o_lane + i_strip > 0) & (o_step >= 0) & (o_step < step_total)
    return tl.load(p_edge + o_step, mask=m_edge, other=fill)


@triton.jit
def load_predecessors(
    p_row,
    p_edge,
    o_slot,
    o_lane,
    o_step,
    i_strip,
    step_total,
    LANE_BORDER: tl.constexpr,
    STEP_BORDER: tl.constexpr,
    CORNER: tl.constexpr,
    STRIPS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Diagonal, lane and step predecessors of the cells of one anti-diagonal whose stored row is `p_row`.

    Stored rows are complete, and hold the step border in the cells before step 0, so that only lane 0 and the first two
    rows need care. `p_edge` holds the last lane of the strip before, by step.
    """
    o_row = o_lane + o_step
    b_step = tl.load(p_row - SLOTS + o_slot, mask=o_row > 0, other=STEP_BORDER)
    b_lane = tl.load(p_row - SLOTS + o_slot - 1, mask=(o_lane > 0) & (o_row > 0), other=LANE_BORDER)
    b_diagonal = tl.load(p_row - 2 * SLOTS + o_slot - 1, mask=(o_lane > 0) & (o_row > 1), other=STEP_BORDER)
    if STRIPS:
        b_edge = load_edge(p_edge, o_lane, o_step, i_strip, step_total, LANE_BORDER)
        b_corner_edge = load_edge(p_edge, o_lane, o_step - 1, i_strip, step_total, LANE_BORDER)
        b_lane = tl.where(o_lane == 0, b_edge, b_lane)
    else:
        b_corner_edge = tl.full(b_step.shape, LANE_BORDER, b_step.dtype)
    b_corner = tl.where(o_lane + i_strip == 0, tl.full(b_step.shape, CORNER, b_step.dtype), STEP_BORDER)
    b_diagonal = tl.where(o_lane == 0, tl.where(o_step == 0, b_corner, b_corner_edge), b_diagonal)
    return b_diagonal, b_lane, b_step


@triton.jit
def load_weights(
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
    OTAM: tl.constexpr,
    LANE_AXIS: tl.constexpr,
    LANE_BORDER: tl.constexpr,
    STEP_BORDER: tl.constexpr,
    CORNER: tl.constexpr,
    SOFT: tl.constexpr,
    STRIPS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """`move_weights` of the cells of one anti-diagonal of a stored table."""
    b_diagonal, b_lane, b_step = load_predecessors(
        p_row, p_edge, o_slot, o_lane, o_step, i_strip, step_total, LANE_BORDER, STEP_BORDER, CORNER, STRIPS, SLOTS
    )
    b_lane, b_step = allowed_moves(b_lane, b_step, o_axis, o_step, num_lanes, num_steps, OTAM, LANE_AXIS)
    return move_weights(b_diagonal, b_lane, b_step, b_inverse_gamma, SOFT, LANE_AXIS)


# Note [Seed of the flow]: nothing flows where the distance is inf, and NaN floods the matrix whose distance is NaN.


@triton.jit
def load_seed(p_distance, p_grad_distance, i_pair, num_pairs, o_axis, total_lanes, b_zero):
    """What flows back from the last lane, 0 in the others, and the factor of everything that is stored."""
    m_pair = i_pair < num_pairs
    distance = tl.load(p_distance + i_pair, mask=m_pair, other=0.0)
    grad_distance = tl.load(p_grad_distance + i_pair, mask=m_pair, other=0.0)
    grad_distance = tl.where(distance == INFINITY, 0.0, grad_distance)
    b_seed = tl.where(distance == INFINITY, b_zero, tl.where(distance == distance, b_zero + 1.0, distance))
    return tl.where(o_axis == total_lanes - 1, b_seed, 0.0), grad_distance
