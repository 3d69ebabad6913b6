"""All pairs on a GPU: a matrix product writes costs with b in the lanes, then a program takes 32 pairs at a time.

One lane runs one pair, as on the CPU (`pairwise_kernels`), so nothing is transposed and lanes exchange nothing.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from . import pairwise, wavefront

BLOCK = 32
ROWS = {torch.float32: 4, torch.float64: 2}


def sweep_products(
    a: Tensor,
    b: Tensor,
    a_lengths: Tensor,
    b_lengths: Tensor,
    out: Tensor,
    measure: str,
    gamma: float,
    both_ways: bool,
    similarity: str,
    eps: float,
) -> None:
    """Writes all distances into ``out (A, B)``, chunk by chunk; arguments as `pairwise_distances` has checked them."""
    n, m, d = a.shape[1], b.shape[1], a.shape[2]
    num_bytes = out.element_size()
    dtype = a.dtype if _half_product(a, b) else out.dtype
    # A fourth for the b's, which are turned once; of the rest most for products, 1 / n or 1 / m of it for waiting rows.
    waiting = max(n, m) + 1
    b_step = pairwise._step(pairwise.WORKING_MEMORY_BYTES // 4, 2 * m * d * num_bytes, len(b))
    each_a = (n * m + waiting) * _whole_blocks(b_step) * BLOCK + 2 * n * d
    a_step = pairwise._step(pairwise.WORKING_MEMORY_BYTES // 2, each_a * num_bytes, len(a))
    products = wavefront._empty((a_step * n * m * b_step,), out)
    scratch = wavefront._empty((a_step * _whole_blocks(b_step) * BLOCK * waiting,), out)
    guard = torch.cuda.device(out.device) if out.is_cuda else nullcontext()
    with guard:
        for b_start, b_stop in pairwise._ranges(len(b), b_step):
            columns = b[b_start:b_stop].to(dtype).transpose(0, 1).contiguous()
            b_scales = _scales(columns, out.dtype, similarity, eps)
            for a_start, a_stop in pairwise._ranges(len(a), a_step):
                rows = a[a_start:a_stop].to(dtype)
                used = products[: rows.shape[0] * n * columns.shape[0] * columns.shape[1]]
                _multiply(rows.flatten(0, 1), columns.flatten(0, 1).T, used.view(rows.shape[0] * n, -1))
                _launch(
                    measure,
                    gamma,
                    both_ways,
                    p_products=used,
                    p_a_lengths=a_lengths[a_start:a_stop],
                    p_b_lengths=b_lengths[b_start:b_stop],
                    p_a_scales=_scales(rows, out.dtype, similarity, eps),
                    p_b_scales=b_scales,
                    p_scratch=scratch,
                    p_out=out[a_start:a_stop, b_start:b_stop],
                    n=n,
                    m=m,
                    eps=float(eps),
                    SIMILARITY=0 if similarity == "dot" else 2 if eps else 1,
                )


def constants(measure: str, gamma: float, dtype: torch.dtype, *, turned: bool, nvidia: bool) -> dict[str, Any]:
    """The constants that `aligned_pairs` is compiled for, but for the similarity."""
    return {
        "OTAM": int(measure == "otam"),
        "TURNED": turned,
        "SOFT": gamma > 0,
        "FAST_LOG2": nvidia and dtype == torch.float32,
        "ROWS": ROWS[dtype],
        "BLOCK": BLOCK,
    }


def _launch(measure: str, gamma: float, both_ways: bool, **shared: Any) -> None:
    from . import pairwise_triton_kernels as kernels

    out = shared["p_out"]
    num_a, num_b = out.shape
    grid = (num_a * _whole_blocks(num_b),)
    shared |= {"num_b": num_b, "out_stride": out.stride(0), "num_warps": 1}
    if measure == "cap_avg":
        del shared["p_scratch"]
        kernels.best_matches[grid](**shared, ROWS=ROWS[out.dtype], BLOCK=BLOCK)
        return
    nvidia = out.is_cuda and torch.version.hip is None and not wavefront._interpreted(kernels.aligned_pairs)
    for turned in (False, True)[: 1 + both_ways]:
        kernels.aligned_pairs[grid](
            **shared,
            inverse_gamma=wavefront.LOG2_E / gamma if gamma else 0.0,
            gamma_ln2=gamma * math.log(2),
            **constants(measure, gamma, out.dtype, turned=turned, nvidia=nvidia),
        )


def _half_product(a: Tensor, b: Tensor) -> bool:
    """Whether the GPU can multiply halves as they are: their products are exact in float32, where it sums them."""
    return a.is_cuda and a.dtype == b.dtype and a.dtype in (torch.float16, torch.bfloat16)


def _multiply(rows: Tensor, columns: Tensor, out: Tensor) -> None:
    if rows.dtype == out.dtype:
        torch.mm(rows, columns, out=out)
    else:
        torch.mm(rows, columns, out_dtype=out.dtype, out=out)


def _scales(sequences: Tensor, dtype: torch.dtype, similarity: str, eps: float) -> Tensor:
    """What the kernels make cosines with: norms where eps is added to their product, else 1 / norm; 0 for zeros."""
    if similarity == "dot":
        return sequences.new_empty(0, dtype=dtype)
    norms = torch.linalg.vector_norm(sequences, dim=-1, dtype=dtype)
    if eps:
        return norms
    return torch.where(norms >= torch.finfo(dtype).tiny, 1 / norms, 0.0)


def _whole_blocks(num_b: int) -> int:
    return -(-num_b // BLOCK)
