"""Numba kernels of the soft minimum with sums in double: blocks of pairs through the rows of ``lane_rows.py``.

A pair is one matrix under one order: pair ``p`` is matrix ``p // num_orders``, order ``p % num_orders``. A block of
``lanes`` pairs runs together. ``lane_doubles.py`` holds the Python side.
"""

from __future__ import annotations

import numpy as np

from .lane_cache import njit_kernel
from .lane_rows import (
    FAST,
    backward_row,
    backward_slope_row,
    slope_row,
    soft_row,
    weighted_row,
)


@njit_kernel()
def _start_block(lengths, num_orders, first, count, otam, rows, columns, total, row, broken):
    """Lengths of the lanes (0 without a pair) and the border above the first row. Returns the largest lengths."""
    rows[:] = 0
    columns[:] = 0
    broken[:] = False
    row[:] = 0
    total[:] = np.inf
    if not otam:
        total[0, :] = 0.0
    for lane in range(count):
        matrix = (first + lane) // num_orders
        rows[lane] = lengths[matrix, 0]
        columns[lane] = lengths[matrix, 1]
    return rows.max(), columns.max()


@njit_kernel()
def _read_row(cost, row_orders, column_orders, num_orders, first, count, i, rows, columns, row, broken):
    """Row ``i`` of every lane's reordered matrix: row[column, lane]. Beyond a lane's lengths it is left alone."""
    for lane in range(count):
        if i >= rows[lane]:
            continue
        matrix, k = divmod(first + lane, num_orders)
        source = row_orders[matrix, k, i] if row_orders.size else i
        found_nan = False
        for j in range(columns[lane]):
            x = cost[matrix, source, column_orders[matrix, k, j] if column_orders.size else j]
            is_nan = x != x
            found_nan |= is_nan
            row[j, lane] = 0 if is_nan else x
        broken[lane] |= found_nan


@njit_kernel()
def _read_tangent_row(cost, tangent, row_orders, column_orders, num_orders, first, count, i, rows, columns, row):
    """As ``_read_row``, of the tangent; 0 at forbidden cells, whose tangent cannot move the distance."""
    for lane in range(count):
        if i >= rows[lane]:
            continue
        matrix, k = divmod(first + lane, num_orders)
        source = row_orders[matrix, k, i] if row_orders.size else i
        for j in range(columns[lane]):
            c = column_orders[matrix, k, j] if column_orders.size else j
            row[j, lane] = 0 if cost[matrix, source, c] == np.inf else tangent[matrix, source, c]


@njit_kernel()
def _add_row(gradient, row_orders, column_orders, num_orders, first, count, i, rows, columns, row, broken):
    """Adds row[column, lane] onto the matrix each lane was read from; NaN for broken lanes."""
    for lane in range(count):
        if i >= rows[lane]:
            continue
        matrix, k = divmod(first + lane, num_orders)
        target = row_orders[matrix, k, i] if row_orders.size else i
        for j in range(columns[lane]):
            x = np.nan if broken[lane] else row[j, lane]
            gradient[matrix, target, column_orders[matrix, k, j] if column_orders.size else j] += x


@njit_kernel()
def _capture(values, i, rows, columns, otam, last):
    """Keeps each lane's last cell when its last row has been swept."""
    for lane in range(len(rows)):
        if rows[lane] - 1 == i:
            last[lane] = values[columns[lane] + otam, lane]


@njit_kernel()
def _write(out, last, num_orders, first, count, broken):
    for lane in range(count):
        pair = first + lane
        out[pair // num_orders, pair % num_orders] = np.nan if broken[lane] else last[lane]


@njit_kernel()
def _seeds(grad_distance, last, num_orders, first, count, seeds):
    """Weight of each lane's distance in the gradient; 0 where no path avoids the forbidden cells."""
    seeds[:] = 0
    for lane in range(count):
        pair = first + lane
        if last[lane] != np.inf:
            seeds[lane] = grad_distance[pair // num_orders, pair % num_orders]


@njit_kernel(fastmath=FAST)
def distances(cost, lengths, row_orders, column_orders, num_orders, otam, gamma, lanes, start, stop, out):
    """Distance of the pairs ``start <= p < stop``, into out[matrix, order]."""
    width = cost.shape[2] + otam + 4
    total, above = np.empty((width, lanes)), np.empty(lanes)
    row = np.empty((width, lanes), cost.dtype)
    rows, columns = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    broken, last = np.empty(lanes, np.bool_), np.empty(lanes)
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        height, block_columns = _start_block(lengths, num_orders, first, count, otam, rows, columns, total, row, broken)
        for i in range(height):
            _read_row(cost, row_orders, column_orders, num_orders, first, count, i, rows, columns, row, broken)
            soft_row(total, above, row, block_columns, columns, otam, gamma)
            _capture(total, i, rows, columns, otam, last)
        _write(out, last, num_orders, first, count, broken)


@njit_kernel(fastmath=FAST)
def soft_vjp(
    cost, lengths, row_orders, column_orders, num_orders, otam, gamma, lanes, start, stop, grad_distance, gradient
):
    """Adds ``grad_distance`` times the expected visits of each pair's cells onto ``gradient``."""
    table_columns = cost.shape[2] + otam
    width = table_columns + 4
    total, above = np.empty((width, lanes)), np.empty(lanes)
    row, arriving = np.empty((width, lanes), cost.dtype), np.empty((width, lanes), cost.dtype)
    rows, columns = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    broken, last, seeds = np.empty(lanes, np.bool_), np.empty(lanes), np.empty(lanes, cost.dtype)
    w0 = np.empty((cost.shape[1], table_columns, lanes), cost.dtype)
    w1 = np.empty((cost.shape[1], table_columns, lanes), cost.dtype)
    w2 = np.empty((cost.shape[1], table_columns, lanes), cost.dtype)
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        height, block_columns = _start_block(lengths, num_orders, first, count, otam, rows, columns, total, row, broken)
        for i in range(height):
            _read_row(cost, row_orders, column_orders, num_orders, first, count, i, rows, columns, row, broken)
            weighted_row(total, above, row, block_columns, columns, otam, gamma, w0[i], w1[i], w2[i])
            _capture(total, i, rows, columns, otam, last)
        _seeds(grad_distance, last, num_orders, first, count, seeds)
        arriving[:] = 0
        for i in range(height - 1, -1, -1):
            for lane in range(count):
                if rows[lane] - 1 == i:
                    arriving[columns[lane] + otam - 1, lane] = seeds[lane]
            backward_row(arriving, block_columns + otam, w0[i], w1[i], w2[i], row)
            _add_row(gradient, row_orders, column_orders, num_orders, first, count, i, rows, columns, row, broken)


@njit_kernel(fastmath=FAST)
def soft_second(
    cost,
    lengths,
    row_orders,
    column_orders,
    num_orders,
    otam,
    gamma,
    lanes,
    start,
    stop,
    grad_distance,
    tangent,
    product,
    slope,
):
    """Adds the Hessian of ``(grad_distance * distance).sum()`` times ``tangent`` onto ``product``.

    The derivative of each distance along ``tangent`` goes into ``slope``. Tangents are carried forward with the table
    and its weights; then the visits and their changes flow back.
    """
    table_columns = cost.shape[2] + otam
    width = table_columns + 4
    total, slopes, above = np.empty((width, lanes)), np.empty((width, lanes)), np.empty(lanes)
    row, tangent_row = np.empty((width, lanes), cost.dtype), np.empty((width, lanes), cost.dtype)
    arriving, arriving_change = np.empty((width, lanes), cost.dtype), np.empty((width, lanes), cost.dtype)
    rows, columns = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    broken, seeds = np.empty(lanes, np.bool_), np.empty(lanes, cost.dtype)
    last, last_slope = np.empty(lanes), np.empty(lanes)
    scratch = (cost.shape[1], table_columns, lanes)
    w0, w1, w2 = np.empty(scratch, cost.dtype), np.empty(scratch, cost.dtype), np.empty(scratch, cost.dtype)
    c0, c1, c2 = np.empty(scratch, cost.dtype), np.empty(scratch, cost.dtype), np.empty(scratch, cost.dtype)
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        height, block_columns = _start_block(lengths, num_orders, first, count, otam, rows, columns, total, row, broken)
        slopes[:] = 0
        tangent_row[:] = 0
        for i in range(height):
            _read_row(cost, row_orders, column_orders, num_orders, first, count, i, rows, columns, row, broken)
            _read_tangent_row(
                cost, tangent, row_orders, column_orders, num_orders, first, count, i, rows, columns, tangent_row
            )
            weighted_row(total, above, row, block_columns, columns, otam, gamma, w0[i], w1[i], w2[i])
            slope_row(slopes, above, tangent_row, block_columns + otam, gamma, w0[i], w1[i], w2[i], c0[i], c1[i], c2[i])
            _capture(total, i, rows, columns, otam, last)
            _capture(slopes, i, rows, columns, otam, last_slope)
        _seeds(grad_distance, last, num_orders, first, count, seeds)
        for lane in range(count):
            if last[lane] == np.inf:
                last_slope[lane] = 0
        _write(slope, last_slope, num_orders, first, count, broken)
        arriving[:] = 0
        arriving_change[:] = 0
        for i in range(height - 1, -1, -1):
            for lane in range(count):
                if rows[lane] - 1 == i:
                    arriving[columns[lane] + otam - 1, lane] = seeds[lane]
            backward_slope_row(
                arriving, arriving_change, block_columns + otam, w0[i], w1[i], w2[i], c0[i], c1[i], c2[i], row
            )
            _add_row(product, row_orders, column_orders, num_orders, first, count, i, rows, columns, row, broken)
