"""Blocks of pairs that run side by side: their sizes, and the way of their numbers between matrices and lanes.

A pair is one matrix under one order: pair ``p`` is matrix ``p // num_orders``, order ``p % num_orders``. A block is
as many pairs as there are lanes; the last block fills up with copies of its last pair, whose results are that pair's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .lane_cache import njit_kernel
from .lane_vectors import lanes_of_matrices, matrices_of_lanes


@njit_kernel()
def start_block(cost, lengths, column_orders, num_orders, first, stop, pairs, starts, rows, columns, indices):
    """Fills in, for each lane, pair, position of its matrix, sizes and column order. Returns the largest sizes.

    The third result says whether any lane's sizes are smaller than the largest, or than the matrices.
    """
    _, n, m = cost.shape
    lanes = len(pairs)
    for lane in range(lanes):
        pair = min(first + lane, stop - 1)
        matrix = pair // num_orders
        pairs[lane] = pair
        starts[lane] = matrix * n * m
        rows[0, lane] = lengths[matrix, 0] if lengths.size else n
        columns[0, lane] = lengths[matrix, 1] if lengths.size else m
        if column_orders.size:
            for j in range(m):
                indices[j, lane] = column_orders[matrix, pair % num_orders, j] if j < columns[0, lane] else 0
    height, width = rows.max(), columns.max()
    return height, width, rows.min() < n or columns.min() < m


@njit_kernel()
def find_rows(row_orders, num_orders, m, i, pairs, starts, rows, places):
    """Where row ``i`` of each lane's reordered matrix begins."""
    for lane in range(len(pairs)):
        places[lane] = starts[lane] + i * m
    if row_orders.size:
        for lane in range(len(pairs)):
            if i < rows[0, lane]:
                matrix, k = divmod(pairs[lane], num_orders)
                places[lane] = starts[lane] + row_orders[matrix, k, i] * m


def _by_squares(turn: Any, side: int) -> Any:
    @njit(inline="always")
    def move(matrices, places, row, m):
        for lane in range(0, len(places), side):
            for j in range(0, m, side):
                # The last square overlaps the one before it, and moves some numbers twice.
                turn(matrices, places, min(j, m - side), row, lane, side)

    return move


_read_by_16, _read_by_8, _read_by_4 = (_by_squares(lanes_of_matrices, side) for side in (16, 8, 4))
_write_by_16, _write_by_8, _write_by_4 = (_by_squares(matrices_of_lanes, side) for side in (16, 8, 4))


@njit_kernel()
def read_row(cost, column_orders, places, indices, row):
    """The row of every lane's matrix that begins at its place: row[column, lane]. Rubbish beyond its lengths."""
    m, lanes = cost.shape[2], len(places)
    if column_orders.size:
        flat = cost.reshape(cost.size)
        for j in range(m):
            for lane in range(lanes):
                row[j, lane] = flat[places[lane] + indices[j, lane]]
    elif m >= 16 and lanes >= 16:
        _read_by_16(cost, places, row, m)
    elif m >= 8:
        _read_by_8(cost, places, row, m)
    elif m >= 4:
        _read_by_4(cost, places, row, m)
    else:
        flat = cost.reshape(cost.size)
        for lane in range(lanes):
            for j in range(m):
                row[j, lane] = flat[places[lane] + j]


@njit_kernel()
def write_row(gradient, places, row):
    """Writes row[column, lane] to every lane's place."""
    m, lanes = gradient.shape[2], len(places)
    if m >= 16 and lanes >= 16:
        _write_by_16(gradient, places, row, m)
    elif m >= 8:
        _write_by_8(gradient, places, row, m)
    elif m >= 4:
        _write_by_4(gradient, places, row, m)
    else:
        flat = gradient.reshape(gradient.size)
        for lane in range(lanes):
            for j in range(m):
                flat[places[lane] + j] = row[j, lane]


# Note [Gradients of orders in the order of pairs]: the gradients of a matrix's orders meet in its cells. Were they
# added row by row as the sweep finds them, the order of additions, and with it the last bit, would depend on which
# pairs share a block. So the visits of a block are laid down by lane first, and added lane by lane.
@njit_kernel()
def add_block(gradient, by_lane, row_orders, num_orders, top, bottom, count, pairs, rows, columns, indices, ordered):
    """Adds by_lane[lane, row - top, column] onto the cells they were read from, of the first ``count`` lanes."""
    for lane in range(count):
        matrix, k = divmod(pairs[lane], num_orders)
        target = gradient[matrix]
        for i in range(top, min(bottom, rows[0, lane])):
            into = target[row_orders[matrix, k, i] if row_orders.size else i]
            visits = by_lane[lane, i - top]
            if ordered:
                for j in range(columns[0, lane]):
                    into[indices[j, lane]] += visits[j]
            else:
                for j in range(columns[0, lane]):
                    into[j] += visits[j]


@njit_kernel()
def block_scratch(lanes, m, ordered):
    """Arrays for ``start_block``, ``find_rows`` and ``read_row``: pairs, starts, places, rows, columns, indices."""
    return (
        np.zeros(lanes, np.int64),
        np.zeros(lanes, np.int64),
        np.zeros(lanes, np.int64),
        np.zeros((1, lanes), np.int32),
        np.zeros((1, lanes), np.int32),
        np.zeros((m + 1 if ordered else 0, lanes), np.int32),
    )
