"""Vectors of lanes do what numpy does to each number."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from tempclr_kernels.lane_vectors import (
    as_number,
    bits,
    fill,
    is_nan,
    lanes_of_matrices,
    load,
    magnitude,
    matrices_of_lanes,
    maximum,
    minimum,
    multiply_add,
    num_lanes,
    of_bits,
    rounded,
    store,
    where,
    whole,
    widened,
)

WIDTH = np.int8(0)


@njit
def compute(x, out, wide, width):
    a, b, two = load(x, 0, width), load(x, 1, width), fill(np.float32(2.0), width)
    store(out, 0, minimum(a, b))
    store(out, 1, maximum(a, b))
    store(out, 2, where(a < b, a + b, a - b))
    store(out, 3, multiply_add(a, b, two * b) / two)
    store(out, 4, magnitude(rounded(a)))
    store(out, 5, of_bits(bits(a) & fill(np.int32(0x7FFFFFFF), width)))
    store(out, 6, of_bits((whole(b) + fill(np.int32(127), width)) << fill(np.int32(23), width)))
    store(wide, 0, widened(a) * widened(b))
    return as_number(is_nan(a) | (a == b), width), as_number(a != b, width), num_lanes(width)


def test_operations_are_those_of_numpy():
    x = np.array([[-2.5, -1.0, -0.0, 0.5, 1.5, 3.0, np.nan, np.inf], [3, -1, 2, -4, 0, 5, 1, 2]], np.float32)
    out, wide = np.zeros((7, 8), np.float32), np.zeros((1, 8))
    same, different, lanes = compute(x, out, wide, WIDTH)
    a, b = x
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out[0], np.where(a < b, a, b))
        np.testing.assert_array_equal(out[1], np.where(a < b, b, a))
        np.testing.assert_array_equal(out[2], np.where(a < b, a + b, a - b))
        np.testing.assert_array_equal(out[3], (a * b + 2 * b) / 2)
        np.testing.assert_array_equal(out[4], np.abs(np.rint(a)))
        np.testing.assert_array_equal(out[5], np.abs(a))
        np.testing.assert_array_equal(out[6], 2.0**b)
        np.testing.assert_array_equal(wide[0], a.astype(np.float64) * b)
        assert same % 256 == sum(1 << i for i in range(8) if np.isnan(a[i]) or a[i] == b[i])
        assert different % 256 == sum(1 << i for i in range(8) if a[i] < b[i] or a[i] > b[i])
    assert lanes == 8


def test_a_multiply_add_is_rounded_once():
    x = np.array([[1 + 2**-12] * 8, [1 - 2**-12] * 8], np.float32)
    out = np.zeros((1, 8), np.float32)

    @njit
    def difference(x, out, width):
        a, b = load(x, 0, width), load(x, 1, width)
        store(out, 0, multiply_add(a, b, fill(np.float32(-1.0), width)))

    difference(x, out, WIDTH)
    assert (out == np.float32(-(2.0**-24))).all()


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_squares_turn_there_and_back(dtype: type):
    """Note [Matrices are turned by shuffles]"""

    @njit
    def turn(matrices, back, starts, row):
        for lane in range(0, 16, 4):
            lanes_of_matrices(matrices, starts, 1, row, lane, 4)
        for lane in range(0, 16, 8):
            matrices_of_lanes(back, starts, 1, row, lane, 8)

    matrices = np.arange(16 * 2 * 9, dtype=dtype).reshape(16, 2, 9)
    back, row, starts = np.zeros_like(matrices), np.zeros((9, 16), dtype), np.arange(16) * 18 + 9
    turn(matrices, back, starts, row)
    np.testing.assert_array_equal(row[1:5], matrices[:, 1, 1:5].T)
    np.testing.assert_array_equal(back[:, 1, 1:5], matrices[:, 1, 1:5])
    assert not back[:, 0].any() and not row[5:].any()
