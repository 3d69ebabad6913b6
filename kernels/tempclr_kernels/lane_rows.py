"""One row of the table for many pairs at once: the recurrence as numba compiles it.

Arrays end in a lane dimension, one lane a pair, which the compiler turns into vector instructions. ``total[j + 1]``
is the accumulated cost of column ``j`` and turns from the row above into this row; ``total[0]`` is the border to the
left; ``row[j]`` the costs of this row. Lanes whose matrix is smaller than the block's largest compute cells that
nobody reads: a cell depends only on cells above and to the left of it. Functions are inlined into the kernels, and
take their compiler flags from them.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

# Note [Infinity is a value, NaN is a flag]: a forbidden cell is +inf and flows through the arithmetic as such, so the
# compiler may not assume that infinities are absent. NaN never enters the arithmetic: reading a row replaces it by
# zero and marks the lane as broken; the result of a broken lane is NaN, set at the end.
FAST = {"nsz", "nnan"}

# Note [Sums in double]: accumulated costs are float64 whatever the dtype of the cost, because the softness divides
# their differences by gamma: at gamma = 0.001 and totals near 1000 float32 sums gave gradients wrong by 7e-4, float64
# sums 1e-6. The exponentials and logarithms, which see differences only, keep the dtype of the cost.
LARGEST = np.finfo(np.float64).max
LOG2_E = 1.4426950408889634


@intrinsic
def _float_of_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _multiply_add(typing_context, x, y, z):
    """``x * y + z`` of float32, in one instruction where the machine has it."""

    def generate(context, builder, signature, arguments):
        real = ir.FloatType()
        kind = ir.FunctionType(real, [real, real, real])
        instruction = builder.module.declare_intrinsic("llvm.fmuladd", [real], kind)
        return builder.call(instruction, arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


def _exp2(x):
    """2**x for x <= 0 (numba overload below)."""


def _log2(z):
    """log2(z) for 1 <= z <= 3 (numba overload below)."""


@overload(_exp2, inline="always")
def _overload_exp2(x):
    if x != types.float32:
        return lambda x: np.exp2(x)

    def exp2(x):
        # Polynomial with relative error 1.2e-7, exact at 0; what is below 2**-127 becomes exactly 0.
        x = max(x, np.float32(-127.0))
        whole = np.floor(x)
        f = x - whole
        p = np.float32(0.0018852989864913512)
        p = _multiply_add(p, f, np.float32(0.008973374914842316))
        p = _multiply_add(p, f, np.float32(0.055835930003805684))
        p = _multiply_add(p, f, np.float32(0.24015280651494392))
        p = _multiply_add(p, f, np.float32(0.6931524715948277))
        p = _multiply_add(p, f, np.float32(1.0))
        return p * _float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))

    return exp2


@overload(_log2, inline="always")
def _overload_log2(z):
    if z != types.float32:
        return lambda z: np.log2(z)

    def log2(z):
        # log2(1 + t) / t as a polynomial on [-1/4, 1/2], absolute error 2e-8, exact at 1.
        large = z > np.float32(1.5)
        t = (z * np.float32(0.5) if large else z) - np.float32(1.0)
        p = np.float32(-0.09087802590378094)
        p = _multiply_add(p, t, np.float32(0.20127991469023587))
        p = _multiply_add(p, t, np.float32(-0.2519421602555865))
        p = _multiply_add(p, t, np.float32(0.29080634058718735))
        p = _multiply_add(p, t, np.float32(-0.36026104028138956))
        p = _multiply_add(p, t, np.float32(0.48080192831308055))
        p = _multiply_add(p, t, np.float32(-0.7213521192321166))
        p = _multiply_add(p, t, np.float32(1.4426959011823859))
        return _multiply_add(p, t, np.float32(1.0) if large else np.float32(0.0))

    return log2


@njit(inline="always")
def hard_row(total, above, row, num_columns, columns, otam):
    """One row of the table, hard minimum.

    ``above[lane]`` carries the total above the previous column: the diagonal predecessor.
    """
    lanes = total.shape[1]
    for lane in range(lanes):
        above[lane] = total[0, lane]
        total[0, lane] = 0.0 if otam else np.inf
    for j in range(num_columns + otam):
        for lane in range(lanes):
            up = total[j + 1, lane]
            down = np.inf if otam and j > 0 and j != columns[lane] else up
            total[j + 1, lane] = min(min(above[lane], down), total[j, lane]) + row[j, lane]
            above[lane] = up


@njit(inline="always")
def soft_row(total, above, row, num_columns, columns, otam, gamma):
    """As ``hard_row`` with the soft minimum: of the three exponentials, that of the smallest is 1."""
    lanes = total.shape[1]
    real = row.dtype.type
    scale, inverse = LOG2_E / gamma, gamma / LOG2_E
    for lane in range(lanes):
        above[lane] = total[0, lane]
        total[0, lane] = 0.0 if otam else np.inf
    for j in range(num_columns + otam):
        for lane in range(lanes):
            up = total[j + 1, lane]
            down = np.inf if otam and j > 0 and j != columns[lane] else up
            diagonal, right = above[lane], total[j, lane]
            low, high = min(diagonal, down), max(diagonal, down)
            smallest = min(low, right)
            base = min(smallest, LARGEST)
            middle, largest = max(low, min(high, right)), max(high, right)
            z = real(1.0) + _exp2(real((base - middle) * scale)) + _exp2(real((base - largest) * scale))
            total[j + 1, lane] = smallest - inverse * np.float64(_log2(z)) + row[j, lane]
            above[lane] = up


@njit(inline="always")
def weighted_row(total, above, row, num_columns, columns, otam, gamma, w0, w1, w2):
    """As ``soft_row``; also the weights of the three predecessors, which sum to 1 (to 0 where all are forbidden)."""
    lanes = total.shape[1]
    real = row.dtype.type
    one = real(1.0)
    scale, inverse = LOG2_E / gamma, gamma / LOG2_E
    for lane in range(lanes):
        above[lane] = total[0, lane]
        total[0, lane] = 0.0 if otam else np.inf
    for j in range(num_columns + otam):
        for lane in range(lanes):
            up = total[j + 1, lane]
            down = np.inf if otam and j > 0 and j != columns[lane] else up
            diagonal, right = above[lane], total[j, lane]
            smallest = min(min(diagonal, down), right)
            base = min(smallest, LARGEST)
            from_diagonal = _exp2(real((base - diagonal) * scale))
            from_above = _exp2(real((base - down) * scale))
            from_left = _exp2(real((base - right) * scale))
            z = max(from_diagonal + from_above + from_left, one)
            share = one / z
            w0[j, lane] = from_diagonal * share
            w1[j, lane] = from_above * share
            w2[j, lane] = from_left * share
            total[j + 1, lane] = smallest - inverse * np.float64(_log2(z)) + row[j, lane]
            above[lane] = up


@njit(inline="always")
def slope_row(slope, above, row, num_columns, gamma, w0, w1, w2, c0, c1, c2):
    """Derivative of one row of the table along a tangent, and of its weights. The border does not move."""
    lanes = slope.shape[1]
    real = row.dtype.type
    softness = real(1.0 / gamma)
    for lane in range(lanes):
        above[lane] = 0.0
    for j in range(num_columns):
        for lane in range(lanes):
            up = slope[j + 1, lane]
            diagonal, right = above[lane], slope[j, lane]
            a0, a1, a2 = w0[j, lane], w1[j, lane], w2[j, lane]
            mean = a0 * diagonal + a1 * up + a2 * right
            c0[j, lane] = a0 * real(mean - diagonal) * softness
            c1[j, lane] = a1 * real(mean - up) * softness
            c2[j, lane] = a2 * real(mean - right) * softness
            slope[j + 1, lane] = mean + row[j, lane]
            above[lane] = up


@njit(inline="always")
def backward_row(arriving, num_columns, w0, w1, w2, row):
    """Expected visits of row ``i``, last column first, into ``row``.

    ``arriving[j]`` turns from what row ``i + 1`` sends to row ``i`` into what row ``i`` sends to row ``i - 1``.
    """
    lanes = arriving.shape[1]
    from_right = row[num_columns]
    diagonal = row[num_columns + 1]
    for lane in range(lanes):
        from_right[lane] = 0
        diagonal[lane] = 0
    for j in range(num_columns - 1, -1, -1):
        for lane in range(lanes):
            visits = arriving[j, lane] + from_right[lane]
            from_right[lane] = visits * w2[j, lane]
            arriving[j, lane] = visits * w1[j, lane] + diagonal[lane]
            diagonal[lane] = visits * w0[j, lane]
            row[j, lane] = visits


@njit(inline="always")
def backward_slope_row(arriving, arriving_change, num_columns, w0, w1, w2, c0, c1, c2, row):
    """As ``backward_row``, of the derivative along the tangent: row[j] is the change of the visits."""
    lanes = arriving.shape[1]
    from_right, change_right = row[num_columns], row[num_columns + 1]
    diagonal, change_diagonal = row[num_columns + 2], row[num_columns + 3]
    for lane in range(lanes):
        from_right[lane] = 0
        diagonal[lane] = 0
        change_right[lane] = 0
        change_diagonal[lane] = 0
    for j in range(num_columns - 1, -1, -1):
        for lane in range(lanes):
            visits = arriving[j, lane] + from_right[lane]
            change = arriving_change[j, lane] + change_right[lane]
            a0, a1, a2 = w0[j, lane], w1[j, lane], w2[j, lane]
            from_right[lane] = visits * a2
            change_right[lane] = change * a2 + visits * c2[j, lane]
            arriving[j, lane] = visits * a1 + diagonal[lane]
            arriving_change[j, lane] = change * a1 + visits * c1[j, lane] + change_diagonal[lane]
            diagonal[lane] = visits * a0
            change_diagonal[lane] = change * a0 + visits * c0[j, lane]
            row[j, lane] = change
