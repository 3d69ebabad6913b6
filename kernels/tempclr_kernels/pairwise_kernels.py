"""Numba kernels of all-pairs distances: they read dot products as a matrix product leaves them.

``products (num_a, n, m, num_b)`` ends in the lane dimension: reading a row is contiguous, nothing is
transposed, and one lane is one column of the result.
``pairwise.py`` holds the Python side.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .lane_cache import njit_kernel
from .lane_rows import FAST, hard_row, soft_row

LANES = 32


@njit(inline="always")
def _similarity(product, a_norm, b_norm, eps, cosine):
    """Cosine ``product / (a_norm * b_norm + eps)``, 0 for a vector of zeros, or the product itself."""
    if not cosine:
        return product
    scale = a_norm * b_norm + eps
    return product / scale if scale > 0 else product * 0


@njit_kernel(fastmath=FAST)
def aligned(
    products,
    a_lengths,
    b_lengths,
    a_norms,
    b_norms,
    eps,
    cosine,
    otam,
    turned,
    gamma,
    start,
    stop,
    first_a,
    first_b,
    out,
):
    """Adds to ``out[first_a + a, first_b + b]`` the distance of each pair; ``turned`` aligns the transposed matrices.

    Work item ``w`` is the block ``w % num_blocks`` of b's against the a numbered ``w // num_blocks``.
    """
    _, n, m, num_b = products.shape
    num_blocks = (num_b + LANES - 1) // LANES
    lanes = min(LANES, num_b)
    width = (n if turned else m) + 2
    total, above = np.empty((width, lanes)), np.empty(lanes)
    row = np.empty((width, lanes), products.dtype)
    rows, columns = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    for item in range(start, stop):
        a, block = item // num_blocks, item % num_blocks
        left = min(block * LANES, num_b - lanes)  # the last block overlaps the one before it
        skipped = block * LANES - left
        for lane in range(lanes):
            rows[lane] = b_lengths[left + lane] if turned else a_lengths[a]
            columns[lane] = a_lengths[a] if turned else b_lengths[left + lane]
        total[:] = np.inf
        if not otam:
            total[0, :] = 0.0
        num_columns = columns.max()
        for i in range(rows.max()):
            for j in range(num_columns + otam):
                if j == num_columns:
                    row[j, :] = 0
                    continue
                x, y = (j, i) if turned else (i, j)
                for lane in range(lanes):
                    s = _similarity(products[a, x, y, left + lane], a_norms[a, x], b_norms[y, left + lane], eps, cosine)
                    row[j, lane] = (1 - s) if j < columns[lane] else 0
            if gamma == 0:
                hard_row(total, above, row, num_columns, columns, otam)
            else:
                soft_row(total, above, row, num_columns, columns, otam, gamma)
            for lane in range(skipped, lanes):
                if rows[lane] - 1 == i:
                    out[first_a + a, first_b + left + lane] += total[columns[lane] + otam, lane]


@njit_kernel(fastmath=FAST)
def best_match(products, a_lengths, b_lengths, a_norms, b_norms, eps, cosine, start, stop, first_a, first_b, out):
    """Writes minus the mean over a's units of the largest similarity to b's units; work items as in ``aligned``."""
    _, _, m, num_b = products.shape
    num_blocks = (num_b + LANES - 1) // LANES
    lanes = min(LANES, num_b)
    best, total = np.empty(lanes, products.dtype), np.empty(lanes)
    for item in range(start, stop):
        a, block = item // num_blocks, item % num_blocks
        left = min(block * LANES, num_b - lanes)
        total[:] = 0
        for i in range(a_lengths[a]):
            best[:] = -np.inf
            for j in range(m):
                for lane in range(lanes):
                    s = _similarity(products[a, i, j, left + lane], a_norms[a, i], b_norms[j, left + lane], eps, cosine)
                    best[lane] = max(best[lane], s) if j < b_lengths[left + lane] else best[lane]
            for lane in range(lanes):
                total[lane] += best[lane]
        for lane in range(lanes):
            out[first_a + a, first_b + left + lane] = -total[lane] / a_lengths[a]
