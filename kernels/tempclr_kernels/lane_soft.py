"""Numba kernels of the soft minimum for float32 costs: distances and expected visits.

``width`` stands for the lanes (``lane_vectors.py``). Matrices whose costs are too large for gamma are marked in
``refused``; what is written for them means nothing.
"""

from __future__ import annotations

import numpy as np

from .lane_blocks import add_block, block_scratch, find_rows, read_row, start_block, write_row
from .lane_cache import njit_kernel
from .lane_sweeps import EXPONENT_RANGE, FORBIDDEN, LARGEST_SCALED, REACHED, soft_row, visits_row
from .lane_vectors import num_lanes


@njit_kernel()
def _start_table(mantissas, exponents, limits, rows, columns):
    """The border above the first row, and the largest scaled cost of each lane whose exponents stay in range."""
    mantissas[:] = 1
    exponents[:] = FORBIDDEN
    for lane in range(limits.shape[1]):
        num_steps = rows[0, lane] + columns[0, lane] + 1
        limits[0, lane] = min(LARGEST_SCALED, EXPONENT_RANGE / num_steps)


@njit_kernel()
def _capture(mantissas, exponents, i, rows, columns, otam, last):
    """Keeps each lane's last cell, in units of gamma * log 2, when its last row has been swept; inf if forbidden."""
    for lane in range(len(last)):
        if rows[0, lane] - 1 == i:
            j = columns[0, lane] + otam - 1
            reached = exponents[j, lane] > REACHED
            last[lane] = -(exponents[j, lane] + np.log2(mantissas[j, lane])) if reached else np.inf


@njit_kernel()
def _write(out, last, unit, num_orders, first, count, broken, refused_lanes, refused):
    for lane in range(count):
        matrix, k = divmod(first + lane, num_orders)
        out[matrix, k] = np.nan if (broken >> lane) & 1 else last[lane] * unit
        if (refused_lanes >> lane) & 1:
            refused[matrix] = True


@njit_kernel()
def soft_distances(
    cost,
    lengths,
    row_orders,
    column_orders,
    num_orders,
    otam,
    start,
    stop,
    width,
    scale,
    scale_rest,
    unit,
    out,
    refused,
):
    """Distance of the pairs ``start <= p < stop``, into out[matrix, order].

    ``scale + scale_rest`` is 1 / (gamma * log 2), and ``unit`` its inverse.
    """
    lanes, m = num_lanes(width), cost.shape[2]
    pairs, starts, places, rows, columns, indices = block_scratch(lanes, m, column_orders.size > 0)
    mantissas, exponents = np.empty((m + 1, lanes), np.float32), np.empty((m + 1, lanes), np.int32)
    row, limits, last = np.zeros((m + 1, lanes), np.float32), np.empty((1, lanes), np.float32), np.empty(lanes)
    for first in range(start, stop, lanes):
        height, block_columns, ragged = start_block(
            cost, lengths, column_orders, num_orders, first, stop, pairs, starts, rows, columns, indices
        )
        _start_table(mantissas, exponents, limits, rows, columns)
        broken = refused_lanes = 0
        for i in range(height):
            find_rows(row_orders, num_orders, m, i, pairs, starts, rows, places)
            read_row(cost, column_orders, places, indices, row)
            nans, large = soft_row(
                mantissas,
                exponents,
                row,
                rows,
                columns,
                limits,
                i,
                block_columns + otam,
                otam,
                ragged,
                scale,
                scale_rest,
                width,
                False,
                row,
                row,
            )
            broken |= nans
            refused_lanes |= large
            if ragged or i == height - 1:
                _capture(mantissas, exponents, i, rows, columns, otam, last)
        _write(out, last, unit, num_orders, first, min(lanes, stop - first), broken, refused_lanes, refused)


@njit_kernel()
def _seeds(grad_distance, last, num_orders, pairs, broken, seeds):
    """Weight of each lane's distance in the gradient: 0 where no path avoids the forbidden cells, NaN if broken."""
    for lane in range(len(pairs)):
        matrix, k = divmod(pairs[lane], num_orders)
        weight = grad_distance[matrix, k] if grad_distance.size else 1.0
        seeds[lane] = np.nan if (broken >> lane) & 1 else (weight if last[lane] != np.inf else 0.0)


@njit_kernel()
def soft_visits(
    cost,
    lengths,
    row_orders,
    column_orders,
    num_orders,
    otam,
    start,
    stop,
    width,
    scale,
    scale_rest,
    unit,
    grad_distance,
    shares,
    out,
    gradient,
    refused,
):
    """As ``soft_distances``; also ``grad_distance`` (1 if empty) times the visits of all pairs, into ``gradient``.

    ``shares`` has room for two weights of each cell, (2, rows, columns, lanes). Rows are swept in strips of so many
    rows. If there is more than one, the strips are swept again for their weights, last strip first, from the totals
    kept above each.
    """
    lanes, n, m = num_lanes(width), cost.shape[1], cost.shape[2]
    from_above, from_left, strip = shares[0], shares[1], shares.shape[1]
    ordered = row_orders.size + column_orders.size > 0
    pairs, starts, places, rows, columns, indices = block_scratch(lanes, m, column_orders.size > 0)
    mantissas, exponents = np.empty((m + 1, lanes), np.float32), np.empty((m + 1, lanes), np.int32)
    row, limits, last = np.zeros((m + 1, lanes), np.float32), np.empty((1, lanes), np.float32), np.empty(lanes)
    visits, arriving = np.zeros((m + 1, lanes), np.float32), np.empty((m + 1, lanes), np.float32)
    seeds = np.empty(lanes, np.float32)
    by_lane = np.empty((lanes if ordered else 0, strip, m), np.float32)
    num_strips = (n + strip - 1) // strip
    kept_mantissas = np.empty((num_strips if num_strips > 1 else 0, m + 1, lanes), np.float32)
    kept_exponents = np.empty((num_strips if num_strips > 1 else 0, m + 1, lanes), np.int32)
    for first in range(start, stop, lanes):
        height, block_columns, ragged = start_block(
            cost, lengths, column_orders, num_orders, first, stop, pairs, starts, rows, columns, indices
        )
        _start_table(mantissas, exponents, limits, rows, columns)
        broken = refused_lanes = 0
        last_strip = (height - 1) // strip
        arriving[:] = 0
        visits[:] = 0
        if ordered:
            for lane in range(min(lanes, stop - first)):
                if pairs[lane] % num_orders == 0:
                    gradient[pairs[lane] // num_orders] = 0
        else:
            for i in range(height, n):
                find_rows(row_orders, num_orders, m, i, pairs, starts, rows, places)
                write_row(gradient, places, visits)
        # Forward through all strips, then back: step s of 2 * last_strip + 1 sweeps strip s, or its mirror image.
        for step in range(2 * last_strip + 1):
            number = min(step, 2 * last_strip - step)
            top, bottom = number * strip, min((number + 1) * strip, height)
            if step > last_strip:
                mantissas[:] = kept_mantissas[number]
                exponents[:] = kept_exponents[number]
            elif num_strips > 1:
                kept_mantissas[number] = mantissas
                kept_exponents[number] = exponents
            for i in range(top, bottom):
                find_rows(row_orders, num_orders, m, i, pairs, starts, rows, places)
                read_row(cost, column_orders, places, indices, row)
                nans, large = soft_row(
                    mantissas,
                    exponents,
                    row,
                    rows,
                    columns,
                    limits,
                    i,
                    block_columns + otam,
                    otam,
                    ragged,
                    scale,
                    scale_rest,
                    width,
                    step >= last_strip,
                    from_above[i - top],
                    from_left[i - top],
                )
                broken |= nans
                refused_lanes |= large
                if step <= last_strip and (ragged or i == height - 1):
                    _capture(mantissas, exponents, i, rows, columns, otam, last)
            if step < last_strip:
                continue
            if step == last_strip:
                _write(out, last, unit, num_orders, first, min(lanes, stop - first), broken, refused_lanes, refused)
                _seeds(grad_distance, last, num_orders, pairs, broken, seeds)
            for i in range(bottom - 1, top - 1, -1):
                if ragged or i == height - 1:
                    for lane in range(lanes):
                        if rows[0, lane] - 1 == i:
                            arriving[columns[0, lane] + otam - 1, lane] = seeds[lane]
                visits_row(
                    arriving, from_above[i - top], from_left[i - top], columns, block_columns + otam, width, visits
                )
                if ordered:
                    for lane in range(lanes):
                        places[lane] = (lane * by_lane.shape[1] + i - top) * m
                    write_row(by_lane, places, visits)
                else:
                    find_rows(row_orders, num_orders, m, i, pairs, starts, rows, places)
                    write_row(gradient, places, visits)
            if ordered:
                has_columns, count = column_orders.size > 0, min(lanes, stop - first)
                add_block(
                    gradient,
                    by_lane,
                    row_orders,
                    num_orders,
                    top,
                    bottom,
                    count,
                    pairs,
                    rows,
                    columns,
                    indices,
                    has_columns,
                )
