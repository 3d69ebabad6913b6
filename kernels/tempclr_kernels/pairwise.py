"""Distances of all pairs of two sets of embedded sequences, chunk by chunk: one matrix product, one sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from . import operators
from .api import choose_implementation
from .checks import check_gamma, check_lengths, check_measure, check_tensor, checked_sizes

WORKING_MEMORY_BYTES = 256 << 20
CACHE_BYTES = 8 << 20
MANY_PAIRS = 4096  # on a GPU, from here on a lane each; fewer would leave it idle, and get a warp each
SIMILARITIES = ("cosine", "dot")


@torch.no_grad()
def pairwise_distances(
    a: Tensor,
    b: Tensor,
    a_lengths: Tensor | None = None,
    b_lengths: Tensor | None = None,
    *,
    measure: str = "dtw",
    gamma: float = 0.0,
    both_ways: bool = False,
    similarity: str = "cosine",
    eps: float = 0.0,
    impl: str | None = None,
) -> Tensor:
    """Distance of every sequence of ``a`` to every sequence of ``b``. Not differentiable: the result is detached.

    The cost of a pair of units is 1 minus their similarity. Costs are made and consumed in chunks: beyond inputs and
    result at most 256 MB are in use (more only if one single pair needs it), however many pairs there are.

    Args:
        a: ``(A, n, d)`` floating tensor, the queries: rows of the cost matrices.
        b: ``(B, m, d)``, on the same device: columns of the cost matrices.
        a_lengths: ``(A,)`` integers, the valid units of each sequence, at least 1; default: all. What lies beyond may
            hold anything. A number that is not finite within the lengths makes the distances of its sequence NaN.
        b_lengths: ``(B,)``, as a_lengths.
        measure: ``"dtw"``, ``"otam"``, or ``"cap_avg"``: minus the mean over a's units of the largest similarity to a
            unit of b.
        gamma: softness of the minimum of dtw and otam, >= 0; cap_avg knows no gamma.
        both_ways: of otam, add the distance of the transposed matrix.
        similarity: ``"cosine"``: ``x·y / (|x||y| + eps)``, 0 for a vector of zeros; or ``"dot"``: ``x·y``.
        eps: added to the product of the norms; the official implementation uses 0.01.
        impl: None (Triton on CUDA, numba on CPU), ``"reference"``, ``"numba"`` or ``"triton"``.

    Returns:
        ``(A, B)``: float64 if ``a`` or ``b`` is, else float32.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`tempclr_kernels.dtw`.

    Example:
        >>> import torch
        >>> a = torch.eye(3).unsqueeze(0)
        >>> pairwise_distances(a, torch.cat([a, a.flip(1)]))
        tensor([[0., 2.]])
    """
    check_measure(measure, known=("dtw", "otam", "cap_avg"), both_ways=both_ways)
    check_gamma(gamma)
    if measure == "cap_avg" and gamma != 0:
        raise ValueError(f"measure 'cap_avg' knows no gamma, got gamma={gamma}: leave it out")
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and >= 0, got {eps}")
    _check_sequences(a, b)
    impl = choose_implementation(impl, a.device)
    distance = operators.implementation(impl, a.device).distance
    sizes = (_lengths(a, a_lengths, "a_lengths"), _lengths(b, b_lengths, "b_lengths"))
    dtype = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    out = torch.zeros(len(a), len(b), dtype=dtype, device=a.device)
    if out.numel() == 0:
        return out
    with torch.autocast(a.device.type, enabled=False):  # the products are to be as precise as the result
        if impl == "numba":
            _sweep_products(a, b, *sizes, out, measure, gamma, both_ways, similarity, eps)
        elif impl == "triton" and out.numel() >= MANY_PAIRS:
            from . import pairwise_triton

            pairwise_triton.sweep_products(a, b, *sizes, out, measure, gamma, both_ways, similarity, eps)
        else:
            _sweep_costs(a, b, *sizes, out, measure, gamma, both_ways, similarity, eps, distance)
    out[_broken(a, sizes[0])] = torch.nan
    out[:, _broken(b, sizes[1])] = torch.nan
    return out


def _sweep_products(
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
    """On the CPU: the matrix product writes (a, row, column, b), which the kernels read with b in the lanes."""
    from . import pairwise_kernels
    from .lanes import run_in_threads

    n, m, d = a.shape[1], b.shape[1], a.shape[2]
    num_bytes, values = out.element_size(), out.numpy()
    # Blocks that stay in the cache while they are multiplied and swept, as long as all lanes are in use.
    wide = min(len(b), pairwise_kernels.LANES)
    b_step = min(
        _step(WORKING_MEMORY_BYTES // 2, 2 * m * d * num_bytes, len(b)),
        max(wide, _step(CACHE_BYTES, 2 * m * d * num_bytes, len(b))),
    )
    a_step = _step(CACHE_BYTES, max(n * d, n * m * b_step) * num_bytes, len(a))
    buffer = out.new_empty(a_step * n * m * b_step)
    for b_start, b_stop in _ranges(len(b), b_step):
        columns = _valid(b[b_start:b_stop], b_lengths[b_start:b_stop], out.dtype).transpose(0, 1).contiguous()
        b_norms = columns.norm(dim=-1).numpy()
        for a_start, a_stop in _ranges(len(a), a_step):
            rows = a[a_start:a_stop].to(out.dtype)
            shape = (a_stop - a_start, n, m, b_stop - b_start)
            products = buffer[: shape[0] * n * m * shape[3]].view(shape[0] * n, m * shape[3])
            torch.mm(rows.flatten(0, 1), columns.flatten(0, 1).T, out=products)
            shared = (
                products.view(shape).numpy(),
                a_lengths[a_start:a_stop].numpy(),
                b_lengths[b_start:b_stop].numpy(),
                rows.norm(dim=-1).numpy(),
                b_norms,
                out.new_tensor(eps).numpy()[()],
                int(similarity == "cosine"),
            )
            where = (a_start, b_start, values)

            def run(start: int, stop: int, shared: tuple = shared, where: tuple = where) -> None:
                if measure == "cap_avg":
                    pairwise_kernels.best_match(*shared, start, stop, *where)
                    return
                for turned in range(1 + both_ways):
                    way = (int(measure == "otam"), turned, float(gamma))
                    pairwise_kernels.aligned(*shared, *way, start, stop, *where)

            num_blocks = -(-shape[3] // pairwise_kernels.LANES)
            run_in_threads(run, shape[0] * num_blocks, cells=products.numel())


def _sweep_costs(
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
    distance: Callable[..., Tensor],
) -> None:
    """Elsewhere: chunks of whole cost matrices, handed to the implementation's ``distance``."""
    n, m, d = a.shape[1], b.shape[1], a.shape[2]
    num_bytes = out.element_size()
    # Similarities, their denominators, costs, and a transposed copy live at once: four matrices a pair.
    b_step = _step(WORKING_MEMORY_BYTES // 4, (m * d + 4 * n * m) * num_bytes, len(b))
    a_step = _step(WORKING_MEMORY_BYTES // 2, (n * d + 4 * n * m * b_step) * num_bytes, len(a))
    for b_start, b_stop in _ranges(len(b), b_step):
        columns = _valid(b[b_start:b_stop], b_lengths[b_start:b_stop], out.dtype)
        for a_start, a_stop in _ranges(len(a), a_step):
            rows = _valid(a[a_start:a_stop], a_lengths[a_start:a_stop], out.dtype)
            close = _similarities(rows, columns, similarity, eps)
            lengths = torch.cartesian_prod(a_lengths[a_start:a_stop], b_lengths[b_start:b_stop]).view(-1, 2)
            if measure == "cap_avg":
                values = _best_match(close, lengths)
            else:
                cost = (1 - close).contiguous()
                values = distance(cost, lengths, None, None, measure=measure, gamma=gamma)
                if both_ways:
                    turned, back = cost.mT.contiguous(), lengths.flip(-1).contiguous()
                    values = values + distance(turned, back, None, None, measure=measure, gamma=gamma)
            out[a_start:a_stop, b_start:b_stop] = values.view(a_stop - a_start, b_stop - b_start)


def _similarities(rows: Tensor, columns: Tensor, similarity: str, eps: float) -> Tensor:
    """``(num_a * num_b, n, m)``."""
    products = torch.einsum("aid,bjd->abij", rows, columns)
    if similarity == "cosine":
        norms = torch.einsum("ai,bj->abij", rows.norm(dim=-1), columns.norm(dim=-1)) + eps
        products = torch.where(norms > 0, products / norms, 0.0)
    return products.flatten(0, 1)


def _best_match(close: Tensor, lengths: Tensor) -> Tensor:
    n, m = close.shape[-2:]
    beyond_rows = torch.arange(n, device=close.device) >= lengths[:, :1]
    beyond_columns = torch.arange(m, device=close.device) >= lengths[:, 1:]
    best = close.masked_fill(beyond_columns.unsqueeze(1), -torch.inf).amax(-1)
    return -best.masked_fill(beyond_rows, 0).sum(-1) / lengths[:, 0]


def _check_sequences(a: Tensor, b: Tensor) -> None:
    for name, sequences in (("a", a), ("b", b)):
        check_tensor(sequences, name)
        if sequences.dim() != 3:
            raise ValueError(f"{name} must have shape (sequences, units, d), got {tuple(sequences.shape)}")
        if not sequences.is_floating_point():
            raise TypeError(f"{name} must be a floating tensor, got {sequences.dtype}: use {name}.float()")
    if a.shape[2] != b.shape[2]:
        raise ValueError(f"a and b must embed into one space, got d = {a.shape[2]} and {b.shape[2]}")
    if a.device != b.device:
        raise ValueError(f"a is on {a.device}, b on {b.device}: use b.to({str(a.device)!r})")


def _lengths(sequences: Tensor, lengths: Tensor | None, name: str) -> Tensor:
    count, size = sequences.shape[:2]
    if lengths is None:
        lengths = torch.full((count,), size, dtype=torch.int64, device=sequences.device)
    check_lengths(lengths, (count,), sequences.device, name=name)
    return checked_sizes(lengths.long().contiguous(), size, name=name)


def _valid(sequences: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """``sequences`` with zeros beyond the lengths."""
    beyond = torch.arange(sequences.shape[1], device=sequences.device) >= lengths.unsqueeze(1)
    return sequences.to(dtype).masked_fill(beyond.unsqueeze(-1), 0)


def _broken(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Sequences with a number that is not finite within their lengths: ``(count,)`` bool."""
    beyond = torch.arange(sequences.shape[1], device=sequences.device) >= lengths.unsqueeze(1)
    step = _step(WORKING_MEMORY_BYTES // 4, sequences[0].numel() * 4, len(sequences))
    finite = [sequences[start:stop].isfinite().all(-1) for start, stop in _ranges(len(sequences), step)]
    return ~(torch.cat(finite) | beyond).all(-1)


def _step(available_bytes: int, bytes_each: int, count: int) -> int:
    """How many of ``count`` fit: a multiple of 32 where possible, at least 1."""
    fitting = available_bytes // max(1, bytes_each)
    fitting = fitting // 32 * 32 if 32 <= fitting < count else fitting
    return max(1, min(fitting, count))


def _ranges(count: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, step):
        yield start, min(start + step, count)
