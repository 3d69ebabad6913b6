"""Numba kernels of the hard minimum: distances, chosen paths, and what follows from those.

``width`` stands for the lanes (``lane_vectors.py``). Totals have the type of ``infinity``.
"""

from __future__ import annotations

import numpy as np

from .lane_blocks import block_scratch, find_rows, read_row, start_block
from .lane_cache import njit_kernel
from .lane_sweeps import chosen_row, hard_row
from .lane_vectors import num_lanes


@njit_kernel()
def hard_distances(cost, lengths, row_orders, column_orders, num_orders, otam, start, stop, width, infinity, out):
    """Distance of the pairs ``start <= p < stop``, into out[matrix, order]."""
    lanes, m = num_lanes(width), cost.shape[2]
    pairs, starts, places, rows, columns, indices = block_scratch(lanes, m, column_orders.size > 0)
    total, row = np.empty((m + 1, lanes), type(infinity)), np.zeros((m + 1, lanes), cost.dtype)
    for first in range(start, stop, lanes):
        height, block_columns, ragged = start_block(
            cost, lengths, column_orders, num_orders, first, stop, pairs, starts, rows, columns, indices
        )
        total[:] = infinity
        broken = 0
        for i in range(height):
            find_rows(row_orders, num_orders, m, i, pairs, starts, rows, places)
            read_row(cost, column_orders, places, indices, row)
            broken |= hard_row(total, row, rows, columns, i, block_columns + otam, otam, ragged, width)
            if ragged or i == height - 1:
                for lane in range(min(lanes, stop - first)):
                    if rows[0, lane] - 1 == i:
                        matrix, k = divmod(pairs[lane], num_orders)
                        nan = (broken >> lane) & 1
                        out[matrix, k] = np.nan if nan else total[columns[0, lane] + otam - 1, lane]
    return


@njit_kernel()
def _trace(downs, rights, lane, num_rows, num_columns, num_real, matrix_rows, indices, ordered, path):
    """Writes one lane's path, last cell first, as positions in its matrix. Returns the number of cells."""
    i, j, length = num_rows - 1, num_columns - 1, 0
    while i >= 0 and j >= 0:
        # Without branches, which nobody could predict, and without the test for negative indices.
        row, column = np.uint64(i), np.uint64(j)
        path[length] = matrix_rows[row] + (indices[column, lane] if ordered else j)
        length += j < num_real
        right = (rights[row, column] >> lane) & 1
        down = (downs[row, column] >> lane) & 1
        i -= 1 - right
        j -= right | (1 - down)
    return length


@njit_kernel()
def hard_paths(
    cost, lengths, row_orders, column_orders, num_orders, otam, start, stop, width, infinity, out, paths, num_cells
):
    """As ``hard_distances``; also each pair's chosen path, positions in its matrix, into paths[matrix, order].

    ``num_cells[matrix, order]`` of them: 0 if no path avoids the forbidden cells, -1 if the distance is NaN.
    """
    lanes, n, m = num_lanes(width), cost.shape[1], cost.shape[2]
    pairs, starts, places, rows, columns, indices = block_scratch(lanes, m, column_orders.size > 0)
    total, row = np.empty((m + 1, lanes), type(infinity)), np.zeros((m + 1, lanes), cost.dtype)
    downs, rights = np.empty((n, m + otam), type(width)), np.empty((n, m + otam), type(width))
    matrix_rows = np.empty(n, np.int64)
    for first in range(start, stop, lanes):
        height, block_columns, ragged = start_block(
            cost, lengths, column_orders, num_orders, first, stop, pairs, starts, rows, columns, indices
        )
        total[:] = infinity
        broken = 0
        count = min(lanes, stop - first)
        for i in range(height):
            find_rows(row_orders, num_orders, m, i, pairs, starts, rows, places)
            read_row(cost, column_orders, places, indices, row)
            broken |= chosen_row(
                total, row, rows, columns, i, block_columns + otam, otam, ragged, width, downs[i], rights[i]
            )
            if ragged or i == height - 1:
                for lane in range(count):
                    if rows[0, lane] - 1 == i:
                        matrix, k = divmod(pairs[lane], num_orders)
                        nan = (broken >> lane) & 1
                        out[matrix, k] = np.nan if nan else total[columns[0, lane] + otam - 1, lane]
        for lane in range(count):
            matrix, k = divmod(pairs[lane], num_orders)
            if (broken >> lane) & 1:
                num_cells[matrix, k] = -1
            elif out[matrix, k] == np.inf:
                num_cells[matrix, k] = 0
            else:
                for i in range(rows[0, lane]):
                    matrix_rows[i] = (row_orders[matrix, k, i] if row_orders.size else i) * m
                num_cells[matrix, k] = _trace(
                    downs,
                    rights,
                    lane,
                    rows[0, lane],
                    columns[0, lane] + otam,
                    columns[0, lane],
                    matrix_rows,
                    indices,
                    column_orders.size > 0,
                    paths[matrix, k],
                )


@njit_kernel()
def spread(lengths, paths, num_cells, grad_distance, start, stop, gradient):
    """Writes the matrices ``start <= b < stop`` of the gradient: each distance's weight on the cells of its path."""
    for matrix in range(start, stop):
        target = gradient[matrix]
        target[:] = 0
        flat = target.reshape(target.size)
        for k in range(paths.shape[1]):
            weight = grad_distance[matrix, k]
            if num_cells[matrix, k] < 0:
                num_rows, num_columns = target.shape
                if lengths.size:
                    num_rows, num_columns = lengths[matrix, 0], lengths[matrix, 1]
                target[:num_rows, :num_columns] = np.nan
            for step in range(num_cells[matrix, k]):
                flat[paths[matrix, k, step]] += weight


@njit_kernel()
def gathered(paths, num_cells, tangent, slope):
    """Writes into slope[matrix, order] the sum of the tangent along each path; NaN where the distance is."""
    for matrix in range(len(paths)):
        flat = tangent[matrix].reshape(tangent[matrix].size)
        for k in range(paths.shape[1]):
            along = 0.0
            for step in range(num_cells[matrix, k]):
                along += flat[paths[matrix, k, step]]
            slope[matrix, k] = np.nan if num_cells[matrix, k] < 0 else along
