"""Heads without weights: distances of two frame sequences, and the rule that makes class scores of them."""

from __future__ import annotations

import torch

MEASURES = ("otam", "dtw", "mean_pool", "bi_mhm")


def sequence_distances(
    query: torch.Tensor,
    support: torch.Tensor,
    query_lengths: torch.Tensor | None = None,
    support_lengths: torch.Tensor | None = None,
    *,
    measure: str = "otam",
    gamma: float = 0.1,
    eps: float = 0.01,
) -> torch.Tensor:
    """Distance of every query to every support, differentiable by their frames.

    ============= ==========================================================================================
    measure       distance
    ============= ==========================================================================================
    ``otam``      ordered temporal alignment, the sum of both ways (Cao et al., CVPR 2020)
    ``dtw``       dynamic time warping
    ``mean_pool`` one minus the cosine of the mean frames
    ``bi_mhm``    the least cost of each frame of either side, summed (bi-directional mean Hausdorff metric)
    ============= ==========================================================================================

    Costs are ``1 - cosine``, with ``eps`` added to the product of the norms; ``bi_mhm`` takes the plain cosine, as
    published. ``gamma`` softens the minimum of ``otam`` and ``dtw``.

    Args:
        query: (..., Q, T, d) floating tensor of frame embeddings, padded behind.
        support: (..., S, U, d), with the same leading dimensions.
        query_lengths, support_lengths: (..., Q) and (..., S) integers, frames of each; None is all. Padding may hold
            anything.

    Returns:
        (..., Q, S) distances in float32 (float64 for float64 embeddings).

    Raises:
        ValueError: for another measure.

    >>> frames = torch.eye(3)[None]
    >>> sequence_distances(frames, torch.cat([frames, frames.flip(1)]), measure="dtw", gamma=0.0, eps=0.0)
    tensor([[0., 2.]])
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    query, query_lengths = _masked(query, query_lengths)
    support, support_lengths = _masked(support, support_lengths)
    if measure == "mean_pool":
        from tempclr.costs import cosine_cost

        return cosine_cost(_mean(query, query_lengths), _mean(support, support_lengths), eps=eps)
    cost = _costs(query, support, eps=0.0 if measure == "bi_mhm" else eps)
    pair = torch.broadcast_tensors(query_lengths[..., :, None], support_lengths[..., None, :])
    lengths = torch.stack(pair, dim=-1)
    if measure == "bi_mhm":
        return _bi_mhm(cost, lengths)
    from tempclr_kernels import dtw, otam

    if measure == "dtw":
        return dtw(cost, lengths, gamma=gamma)
    return otam(cost, lengths, gamma=gamma, both_ways=True)


def class_scores(distances: torch.Tensor, *, way: int) -> torch.Tensor:
    """Scores (..., Q, way) from distances (..., Q, way · shot): minus the mean over the shots of each class.

    >>> class_scores(torch.tensor([[1.0, 3.0, 5.0, 5.0]]), way=2)
    tensor([[-2., -5.]])
    """
    return -distances.unflatten(-1, (way, -1)).mean(dim=-1)


def _masked(frames: torch.Tensor, lengths: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames with zeros behind their lengths, and the lengths."""
    size = frames.shape[-2]
    if lengths is None:
        return frames, torch.full(frames.shape[:-2], size, device=frames.device)
    beyond = torch.arange(size, device=frames.device) >= lengths[..., None]
    return frames.masked_fill(beyond[..., None], 0), lengths


def _mean(frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return frames.sum(dim=-2) / lengths[..., None]


def _costs(query: torch.Tensor, support: torch.Tensor, *, eps: float) -> torch.Tensor:
    """(..., Q, S, T, U), made by one matrix product."""
    from tempclr.costs import cosine_cost

    flat = cosine_cost(query.flatten(-3, -2), support.flatten(-3, -2), eps=eps)
    cost = flat.unflatten(-2, query.shape[-3:-1]).unflatten(-1, support.shape[-3:-1])
    return cost.transpose(-3, -2)


def _bi_mhm(cost: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(cost.shape[-2], device=cost.device) < lengths[..., :1]
    columns = torch.arange(cost.shape[-1], device=cost.device) < lengths[..., 1:]
    of_rows = cost.masked_fill(~columns[..., None, :], torch.inf).amin(dim=-1)
    of_columns = cost.masked_fill(~rows[..., None], torch.inf).amin(dim=-2)
    return of_rows.masked_fill(~rows, 0).sum(dim=-1) + of_columns.masked_fill(~columns, 0).sum(dim=-1)
