"""One row of the table for many pairs at once, in vectors: the recurrence as it runs for float32 costs.

A row of ``total`` turns from the totals of the row above into those of this row. Lanes whose matrix is smaller than
the block's largest compute cells that nobody reads: a cell depends only on cells above and to the left of it.
Functions are inlined into the kernels.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from .lane_vectors import (
    Vector,
    as_number,
    bits,
    fill,
    is_nan,
    load,
    magnitude,
    maximum,
    minimum,
    multiply_add,
    of_bits,
    rounded,
    store,
    where,
    whole,
    widened,
)

# Note [Numbers with exponents of their own]: the soft minimum of totals R is a sum of 2**-R (R in units of gamma *
# log 2), whose range no float has. So a cell keeps its sum as a float32 in [1, 2) and an int32 exponent: adding shifts
# by differences of exponents, the own cost multiplies by 2**-cost, and there is neither a logarithm nor a difference
# of large totals in the recurrence. The error of a cell is a few roundings of float32, which is like moving its cost
# by 2e-7 * gamma, however large the totals and however small gamma. Costs are split into whole and fraction exactly
# (by a fused multiply-add), as long as they are below LARGEST_SCALED; matrices with larger ones are refused, each for
# itself, and computed with sums in double.
LARGEST_SCALED = 2.0**18
EXPONENT_RANGE = 2.0**28  # of reachable cells; forbidden ones lie far below
FORBIDDEN = np.int32(-(2**30 - 2**11))
FORBIDDING = np.int32(2**30)
REACHED = -(2**29)

# A weight that is what the other two leave of 1, and smaller than their roundings, is nothing.
NOTHING = np.float32(2.0**-22)


def _as(number, example):
    """The vector ``number`` with elements as ``example`` (numba overload below)."""


@overload(_as, inline="always")
def _overload_as(number, example):
    if number.element == types.float32 and example == Vector(types.float64, number.count):
        return lambda number, example: widened(number)
    return lambda number, example: number


@njit(inline="always")
def _cells_inside(i, rows, columns, width):
    """How many cells of row ``i`` lie within each lane's lengths."""
    return where(fill(np.int32(i), width) < load(rows, 0, width), load(columns, 0, width), fill(np.int32(0), width))


@njit(inline="always")
def hard_row(total, row, rows, columns, i, num_columns, otam, ragged, width):
    """One row of the table, hard minimum. Returns which lanes read NaN within their lengths."""
    real = total.dtype.type
    infinite, ends = fill(real(np.inf), width), load(columns, 0, width)
    nothing = fill(row.dtype.type(0), width)
    inside = _cells_inside(i, rows, columns, width)
    left = fill(real(0.0 if otam else np.inf), width)
    diagonal = fill(real(0.0 if otam == (i > 0) else np.inf), width)
    broken = ends != ends
    for j in range(num_columns):
        own, up, here = load(row, j, width), load(total, j, width), fill(np.int32(j), width)
        down = up
        if ragged:
            own = where(here < inside, own, nothing)
        broken = broken | is_nan(own)
        if otam and j > 0:
            down = where(here == ends, up, infinite)
        left = minimum(minimum(diagonal, down), left) + _as(own, up)
        store(total, j, left)
        diagonal = up
    return as_number(broken, width)


@njit(inline="always")
def chosen_row(total, row, rows, columns, i, num_columns, otam, ragged, width, downs, rights):
    """As ``hard_row``; also masks of the lanes that came down, and from the left, else diagonally (first in a tie)."""
    real = total.dtype.type
    infinite, ends = fill(real(np.inf), width), load(columns, 0, width)
    nothing = fill(row.dtype.type(0), width)
    inside = _cells_inside(i, rows, columns, width)
    left = fill(real(0.0 if otam else np.inf), width)
    diagonal = fill(real(0.0 if otam == (i > 0) else np.inf), width)
    broken = ends != ends
    for j in range(num_columns):
        own, up, here = load(row, j, width), load(total, j, width), fill(np.int32(j), width)
        down = up
        if ragged:
            own = where(here < inside, own, nothing)
        broken = broken | is_nan(own)
        if otam and j > 0:
            down = where(here == ends, up, infinite)
        smallest = minimum(down, diagonal)
        downs[j] = as_number(down < diagonal, width)
        rights[j] = as_number(left < smallest, width)
        left = minimum(left, smallest) + _as(own, up)
        store(total, j, left)
        diagonal = up
    return as_number(broken, width)


@njit(inline="always")
def _two_to_minus(f, width):
    """``2**-f`` for |f| < 0.52, within half a rounding of float32, exact at 0."""
    p = fill(np.float32(0.0001534997863927856), width)
    p = multiply_add(p, f, fill(np.float32(-0.0013403063639998436), width))
    p = multiply_add(p, f, fill(np.float32(0.009618478827178478), width))
    p = multiply_add(p, f, fill(np.float32(-0.05550322309136391), width))
    p = multiply_add(p, f, fill(np.float32(0.24022647738456726), width))
    p = multiply_add(p, f, fill(np.float32(-0.6931471824645996), width))
    return multiply_add(p, f, fill(np.float32(1.0), width))


@njit(inline="always")
def _shifted(mantissa, exponent, base, width):
    """``mantissa * 2**(exponent - base - 127)``; 0 where that is below 2**-126."""
    power = maximum(exponent - base, fill(np.int32(0), width)) << fill(np.int32(23), width)
    return mantissa * of_bits(power)


@njit(inline="always")
def soft_row(
    mantissas,
    exponents,
    row,
    rows,
    columns,
    limits,
    i,
    num_columns,
    otam,
    ragged,
    scale,
    scale_rest,
    width,
    keep,
    from_above,
    from_left,
):
    """One row of the table, soft minimum; with ``keep`` also the weights of two predecessors, above and left.

    Costs times ``scale + scale_rest`` are in units of gamma * log 2. Returns the lanes that read NaN within their
    lengths, and those that read finite costs beyond their limit.
    """
    one, zero = fill(np.float32(1.0), width), fill(np.int32(0), width)
    forbidden, forbidding = fill(FORBIDDEN, width), fill(FORBIDDING, width)
    infinite, bias = fill(np.float32(np.inf), width), fill(np.int32(127), width)
    times, times_rest = fill(np.float32(scale), width), fill(np.float32(scale_rest), width)
    low_bits, one_bits = fill(np.int32(0x7FFFFF), width), fill(np.int32(0x3F800000), width)
    ends, limit = load(columns, 0, width), load(limits, 0, width)
    inside = _cells_inside(i, rows, columns, width)
    left, diagonal = one, one
    left_exponent = zero if otam else forbidden
    diagonal_exponent = zero if otam == (i > 0) else forbidden
    broken = ends != ends
    refused = broken
    for j in range(num_columns):
        own, here = load(row, j, width), fill(np.int32(j), width)
        if ragged:
            own = where(here < inside, own, fill(np.float32(0.0), width))
        scaled = own * times
        closed = limit < magnitude(scaled)
        broken = broken | is_nan(own)
        refused = refused | (closed & (own != infinite))
        steps = rounded(scaled)
        fraction = multiply_add(own, times_rest, multiply_add(own, times, fill(np.float32(0.0), width) - steps))
        factor = where(closed, one, _two_to_minus(fraction, width))
        drop = where(closed, forbidding, whole(steps))

        up, up_exponent = load(mantissas, j, width), load(exponents, j, width)
        down_exponent = up_exponent
        if otam and j > 0:
            down_exponent = where(here == ends, up_exponent, forbidden)
        largest = maximum(maximum(diagonal_exponent, down_exponent), left_exponent)
        base = largest - bias
        came_diagonally = _shifted(diagonal, diagonal_exponent, base, width)
        came_down = _shifted(up, down_exponent, base, width)
        came_right = _shifted(left, left_exponent, base, width)
        together = came_diagonally + came_down + came_right
        if keep:
            share = one / together
            store(from_above, j, came_down * share)
            store(from_left, j, came_right * share)
        number = bits(together * factor)
        left_exponent = maximum(base - drop + (number >> fill(np.int32(23), width)), forbidden)
        left = of_bits((number & low_bits) | one_bits)
        store(mantissas, j, left)
        store(exponents, j, left_exponent)
        diagonal, diagonal_exponent = up, up_exponent
    return as_number(broken, width), as_number(refused, width)


@njit(inline="always")
def visits_row(arriving, from_above, from_left, columns, num_columns, width, row):
    """Expected visits of a row's cells, last column first, into ``row``: 0 beyond each lane's columns.

    ``arriving[j]`` turns from what the row below sends to this row into what this row sends to the row above.
    """
    one, zero = fill(np.float32(1.0), width), fill(np.float32(0.0), width)
    nothing, ends = fill(NOTHING, width), load(columns, 0, width)
    from_right, diagonal = zero, zero
    for j in range(num_columns - 1, -1, -1):
        visits = load(arriving, j, width) + from_right
        above, left = load(from_above, j, width), load(from_left, j, width)
        rest = one - above - left
        from_right = visits * left
        store(arriving, j, multiply_add(visits, above, diagonal))
        diagonal = visits * where(rest < nothing, zero, rest)
        store(row, j, where(fill(np.int32(j), width) < ends, visits, zero))
