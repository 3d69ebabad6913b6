# mypy: disable-error-code="assignment"
"""Triton kernels of all-pairs distances: one pair a lane, so that no lane ever waits for another.

They read dot products as a matrix product leaves them, ``(num_a, n, m, num_b)``, with b in the lanes: every load is
contiguous. Imports triton; `pairwise_triton` loads it on first use and launches what is here.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .wavefront_primitives import INFINITY, smallest

DOT, COSINE, COSINE_EPS = (tl.constexpr(number) for number in range(3))
SIZES = ["n", "m", "num_b", "out_stride", "eps"]


# Note [Clamped, not masked]: rows, columns and lanes beyond the last read the last again. What they hold reaches no
# answer, and loads without masks need neither predicates nor registers for what stands in.


@triton.jit
def load_row_scales(p_scales, i_row, num_rows, stride, SIMILARITY: tl.constexpr, ROWS: tl.constexpr):
    """One scale a row (see `pairwise_triton._scales`), a tuple; empty where similarities are plain products."""
    scales = ()
    if SIMILARITY != DOT:
        for r in tl.static_range(ROWS):
            scales += (tl.load(p_scales + tl.minimum(i_row + r, num_rows - 1) * stride),)
    return scales


@triton.jit
def load_similarities(
    p_cells,
    p_scales,
    row_scales,
    i_row,
    i_column,
    num_rows,
    num_columns,
    row_stride,
    column_stride,
    scale_stride,
    b_eps,
    SIMILARITY: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Similarities of `ROWS` rows in one column, a tuple."""
    i_column = tl.minimum(i_column, num_columns - 1)
    p_column = p_cells + i_column * column_stride
    if SIMILARITY != DOT:
        b_column_scale = tl.load(p_scales + i_column * scale_stride)
    found = ()
    for r in tl.static_range(ROWS):
        b_close = tl.load(p_column + tl.minimum(i_row + r, num_rows - 1) * row_stride)
        if SIMILARITY == COSINE:
            b_close = b_close * row_scales[r] * b_column_scale
        if SIMILARITY == COSINE_EPS:
            b_close = b_close / (row_scales[r] * b_column_scale + b_eps)
        found += (b_close,)
    return found


@triton.jit
def place_pairs(p_a_lengths, p_b_lengths, n, m, num_b, BLOCK: tl.constexpr):
    """The a of this program (int64), its lanes' places among the b's, and all their lengths."""
    num_blocks = tl.cdiv(num_b, BLOCK)
    i_a = (tl.program_id(0) // num_blocks).to(tl.int64)
    o_b = (tl.program_id(0) % num_blocks) * BLOCK + tl.arange(0, BLOCK)
    m_lane = o_b < num_b
    o_b = tl.minimum(o_b, num_b - 1)
    b_a_length = tl.load(p_a_lengths + i_a + o_b * 0).to(tl.int32)
    b_b_length = tl.load(p_b_lengths + o_b).to(tl.int32)
    b_a_length = tl.minimum(tl.maximum(b_a_length, 1), n)
    b_b_length = tl.minimum(tl.maximum(b_b_length, 1), m)
    return i_a, o_b, m_lane, b_a_length, b_b_length


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["p_out"])
def aligned_pairs(
    p_products,
    p_a_lengths,
    p_b_lengths,
    p_a_scales,
    p_b_scales,
    p_scratch,
    p_out,
    n,
    m,
    num_b,
    out_stride,
    eps: tl.float64,
    inverse_gamma: tl.float64,
    gamma_ln2: tl.float64,
    SIMILARITY: tl.constexpr,
    OTAM: tl.constexpr,
    TURNED: tl.constexpr,
    SOFT: tl.constexpr,
    FAST_LOG2: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Distance of every pair, or with `TURNED` what the transposed matrices add to it.

    `ROWS` rows go along the columns together, in registers. The last of them waits in `p_scratch` for the next ones.
    """
    i_a, o_b, m_lane, b_a_length, b_b_length = place_pairs(p_a_lengths, p_b_lengths, n, m, num_b, BLOCK)
    p_cells = p_products + i_a * n * m * num_b + o_b
    p_a_scales += i_a * n + o_b * 0
    p_b_scales += o_b
    if TURNED:
        b_rows = b_b_length
        b_columns = b_a_length
        row_stride, column_stride = num_b.to(tl.int64), m.to(tl.int64) * num_b
        p_row_scales, p_column_scales = p_b_scales, p_a_scales
        row_scale_stride, column_scale_stride = num_b, 1
        width = n + OTAM
    else:
        b_rows = b_a_length
        b_columns = b_b_length
        row_stride, column_stride = m.to(tl.int64) * num_b, num_b.to(tl.int64)
        p_row_scales, p_column_scales = p_a_scales, p_b_scales
        row_scale_stride, column_scale_stride = 1, num_b
        width = m + OTAM
    num_rows = tl.max(b_rows, 0)
    num_columns = tl.max(b_columns, 0)
    o_lane = tl.arange(0, BLOCK)
    p_scratch += tl.program_id(0).to(tl.int64) * width * BLOCK + o_lane

    b_zero = tl.full([BLOCK], 0.0, p_products.dtype.element_ty)
    b_inverse_gamma = tl.full([BLOCK], inverse_gamma, p_products.dtype.element_ty)
    b_gamma_ln2 = tl.full([BLOCK], gamma_ln2, p_products.dtype.element_ty)
    b_eps = tl.full([BLOCK], eps, p_products.dtype.element_ty)
    b_infinity = b_zero + INFINITY
    # wavefront_primitives, Note [The border is data].
    b_left = b_zero if OTAM else b_infinity
    b_corner = b_infinity if OTAM else b_zero
    b_answer = b_infinity
    for i_row in range(0, num_rows, ROWS):
        values = ()
        for _r in tl.static_range(ROWS):
            values += (b_left,)
        b_corner = tl.where(o_lane * 0 + i_row > 0, b_left, b_corner)
        m_above = o_lane * 0 + i_row > 0
        row_scales = load_row_scales(p_row_scales, i_row, num_rows, row_scale_stride, SIMILARITY, ROWS)
        nexts = load_similarities(
            p_cells,
            p_column_scales,
            row_scales,
            i_row,
            0,
            num_rows,
            num_columns,
            row_stride,
            column_stride,
            column_scale_stride,
            b_eps,
            SIMILARITY,
            ROWS,
        )
        b_next_above = tl.load(p_scratch, mask=m_above, other=INFINITY)
        for j in range(0, num_columns + OTAM):
            close = nexts
            b_above = b_next_above
            # What the next column needs is under way while this one is computed.
            nexts = load_similarities(
                p_cells,
                p_column_scales,
                row_scales,
                i_row,
                j + 1,
                num_rows,
                num_columns,
                row_stride,
                column_stride,
                column_scale_stride,
                b_eps,
                SIMILARITY,
                ROWS,
            )
            o_next = tl.minimum(j + 1, num_columns + OTAM - 1) * BLOCK
            b_next_above = tl.load(p_scratch + o_next, mask=m_above, other=INFINITY)
            m_last = j == b_columns - 1 + OTAM
            m_inside = j < b_columns
            m_down = (b_columns * 0 + j == 0) | (j == b_columns)
            b_diagonal = b_corner
            b_corner = b_above
            updated = ()
            for r in tl.static_range(ROWS):
                if OTAM:
                    b_above = tl.where(m_down, b_above, INFINITY)
                b_cost = tl.where(m_inside, 1.0 - close[r], 0.0)
                b_least = smallest(b_diagonal, b_above, values[r], b_inverse_gamma, b_gamma_ln2, SOFT, FAST_LOG2)
                b_value = b_least + b_cost
                b_answer = tl.where(m_last & (i_row + r == b_rows - 1), b_value, b_answer)
                b_diagonal = values[r]
                b_above = b_value
                updated += (b_value,)
            tl.store(p_scratch + j * BLOCK, b_above)
            values = updated
        # Each lane reads what it wrote itself, if the compiler gives loads and stores one layout; nothing promises so.
        tl.debug_barrier()
    p_out += i_a * out_stride + o_b
    if TURNED:
        b_answer += tl.load(p_out, mask=m_lane)
    tl.store(p_out, b_answer, mask=m_lane)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["p_out"])
def best_matches(
    p_products,
    p_a_lengths,
    p_b_lengths,
    p_a_scales,
    p_b_scales,
    p_out,
    n,
    m,
    num_b,
    out_stride,
    eps: tl.float64,
    SIMILARITY: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Minus the mean over a's units of the largest similarity to one of b's."""
    i_a, o_b, m_lane, b_a_length, b_b_length = place_pairs(p_a_lengths, p_b_lengths, n, m, num_b, BLOCK)
    p_cells = p_products + i_a * n * m * num_b + o_b
    num_rows = tl.max(b_a_length, 0)
    num_columns = tl.max(b_b_length, 0)
    b_zero = tl.full([BLOCK], 0.0, p_products.dtype.element_ty)
    b_eps = tl.full([BLOCK], eps, p_products.dtype.element_ty)
    b_total = b_zero
    for i_row in range(0, num_rows, ROWS):
        best = ()
        for _r in tl.static_range(ROWS):
            best += (b_zero - INFINITY,)
        row_scales = load_row_scales(p_a_scales + i_a * n + o_b * 0, i_row, num_rows, 1, SIMILARITY, ROWS)
        for j in range(0, num_columns):
            close = load_similarities(
                p_cells,
                p_b_scales + o_b,
                row_scales,
                i_row,
                j,
                num_rows,
                num_columns,
                m.to(tl.int64) * num_b,
                num_b.to(tl.int64),
                num_b,
                b_eps,
                SIMILARITY,
                ROWS,
            )
            updated = ()
            for r in tl.static_range(ROWS):
                updated += (tl.where(j < b_b_length, tl.maximum(best[r], close[r]), best[r]),)
            best = updated
        for r in tl.static_range(ROWS):
            b_total += tl.where(i_row + r < b_a_length, best[r], 0.0)
    tl.store(p_out + i_a * out_stride + o_b, -b_total / b_a_length, mask=m_lane)
