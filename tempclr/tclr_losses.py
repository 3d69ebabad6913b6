"""TCLR's objectives, as pure functions of embeddings: which clips, and which moments of a clip, belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tempclr import distributed

__all__ = [
    "LOSSES",
    "LossWeights",
    "gather_rows",
    "global_local_loss",
    "instance_loss",
    "local_local_loss",
    "loss_weights",
    "tclr_loss",
]

LOSSES = ("instance", "local_local", "global_local")
PRESETS = ("paper", "official")


class LossWeights(NamedTuple):
    """What each part counts in the sum; every part is a mean cross-entropy an anchor, so weights are comparable.

    ``instance``: global clips; ``local_instance``: local clips, contrasted between videos as the global ones are.
    """

    instance: float = 1.0
    local_instance: float = 0.0
    local_local: float = 4.0
    global_local: float = 8.0


def loss_weights(weights: str | Mapping[str, float], *, num_timesteps: int, num_videos: int) -> LossWeights:
    """Weights by name, or from a mapping of the fields of :class:`LossWeights` (those not named are 0).

    Note [Weights of the parts]: equation 5 adds the three losses, of which the local-local one sums over the timesteps
    and the global-local one over timesteps and both directions: P and 2P mean cross-entropies for P timesteps. The
    released code adds its terms without weights too, but they are sums of another kind: over the videos of the batch
    in the local-local loss, over all pairs of views in the global-local one, and over a quarter of the ordered pairs of
    local clips in an instance loss of local clips that the paper does not have. With 4 timesteps and B videos that is
    1, 14, B and 16, against the paper's 1, 0, 4 and 8; so the batch size changes what is learned.

    Args:
        weights: "paper", "official" (the released code's), or the numbers.
        num_timesteps: P, local clips a global one.
        num_videos: B, of the batch over all ranks.

    Raises:
        ValueError: another name, an unknown field, or a weight below 0.

    >>> loss_weights("official", num_timesteps=4, num_videos=40)
    LossWeights(instance=1.0, local_instance=14.0, local_local=40.0, global_local=16.0)
    """
    if weights == "paper":
        return LossWeights(1.0, 0.0, float(num_timesteps), 2.0 * num_timesteps)
    if weights == "official":
        ordered_pairs = 2 * num_timesteps * (2 * num_timesteps - 1)
        return LossWeights(1.0, ordered_pairs / 4, float(num_videos), 4.0 * num_timesteps)
    if isinstance(weights, str) or set(weights) - set(LossWeights._fields):
        known = f"{' or '.join(map(repr, PRESETS))}, or numbers for {', '.join(LossWeights._fields)}"
        raise ValueError(f"weights must be {known}; got {weights!r}")
    if any(not weight >= 0 for weight in weights.values()):
        raise ValueError(f"weights must be at least 0, got {dict(weights)}")
    return LossWeights(**{name: float(weights.get(name, 0.0)) for name in LossWeights._fields})


def instance_loss(view_a: Tensor, view_b: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Contrast videos: a clip against another view of itself and both views of all other videos (TCLR eq. 1).

    The mean over the anchors of both views.

    Args:
        view_a, view_b: (N, d), rows of unit length.
        temperature: divides the dot products.

    Returns:
        () float32 (float64 for float64 embeddings), also under autocast; 0 for a single video.

    >>> round(instance_loss(torch.eye(3), torch.eye(3), temperature=1.0).item(), 4)
    0.9048
    """
    _check_alike(view_a, view_b, num_dimensions=2)
    return _contrast(torch.stack([view_a, view_b]), temperature)


def local_local_loss(view_a: Tensor, view_b: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Contrast the moments of one video: a local clip against itself and all other local clips of its video (eq. 2).

    The mean over the anchors of both views; the paper writes the sum over those of one.

    Args:
        view_a, view_b: (B, P, d), rows of unit length, local clip p of both at the same time.
        temperature: divides the dot products.

    Returns:
        () float32 (float64 for float64 embeddings), also under autocast.

    >>> clips = torch.eye(4)[None]
    >>> bool(local_local_loss(clips, clips) < local_local_loss(clips, clips.flip(1)))
    True
    """
    _check_alike(view_a, view_b, num_dimensions=3)
    return _contrast(torch.stack([view_a, view_b], dim=1), temperature)


def global_local_loss(timesteps: Tensor, local_clips: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Contrast moments at two scales: a timestep of the global clip against the local clips of its video (eq. 3, 4).

    And each local clip against the timesteps; the mean over the anchors of both. There are no other negatives.

    Args:
        timesteps: (B, P, d), slices of the global clip's feature map, rows of unit length.
        local_clips: (B, P, d), local clip p at the time of slice p.
        temperature: divides the dot products.

    Returns:
        () float32 (float64 for float64 embeddings), also under autocast.

    >>> round(global_local_loss(torch.eye(4)[None], torch.eye(4)[None], temperature=1.0).item(), 4)
    0.7437
    """
    _check_alike(timesteps, local_clips, num_dimensions=3)
    with torch.autocast(timesteps.device.type, enabled=False):
        logits = _full(timesteps) @ _full(local_clips).mT / temperature
        own = logits.diagonal(dim1=1, dim2=2)
        return (logits.logsumexp(dim=2) + logits.logsumexp(dim=1) - 2 * own).mean() / 2


def tclr_loss(
    global_embeds: Tensor,
    timestep_embeds: Tensor | None,
    local_embeds: Tensor | None,
    *,
    weights: str | Mapping[str, float] = "paper",
    temperatures: Sequence[float] = (0.1, 0.1, 0.1),
    losses: Sequence[str] = LOSSES,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor | None]:
    """TCLR's training objective (eq. 5): a weighted sum of the losses chosen, each by its mean over the anchors.

    The global-local loss is the mean over the four pairs of a view of the global clip and a view of the local ones.

    Args:
        global_embeds: (B, 2, d), two views of each video's global clip, of unit length.
        timestep_embeds: (B, 2, P, d), of the slices of their feature maps.
        local_embeds: (B, 2, P, d), two views of the local clips; this and the one before may be None where global clips
            alone count.
        weights: see :func:`loss_weights`.
        temperatures: of the instance, local-local and global-local loss.
        losses: which of "instance", "local_local" and "global_local" count; the first has both instance parts.
        gather: rows (B, n) of this rank to those of all ranks, one rank after the other, with gradients to all of them;
            None: this rank's alone. Every rank then computes the loss of the joint batch, so that gradients averaged
            over the ranks are those of one process with the joint batch.

    Returns:
        ``loss`` and its parts ``instance_loss``, ``local_instance_loss``, ``local_local_loss`` and
        ``global_local_loss``, scalars before their weights; a part that does not count is None.

    Raises:
        ValueError: shapes that do not belong together, an unknown loss, or nothing that counts.

    >>> views = torch.eye(8).view(1, 8, 8)
    >>> parts = tclr_loss(views[:, :2], views.view(1, 2, 4, 8), views.view(1, 2, 4, 8), losses=["global_local"])
    >>> parts["instance_loss"], bool(parts["loss"] == 8 * parts["global_local_loss"])
    (None, True)
    """
    chosen = _chosen(losses)
    if timestep_embeds is None or local_embeds is None:
        timestep_embeds = local_embeds = _no_moments(global_embeds, chosen)
    _check_step(global_embeds, timestep_embeds, local_embeds)
    if gather is not None:
        together = torch.cat([_full(part).flatten(1) for part in (global_embeds, timestep_embeds, local_embeds)], dim=1)
        sizes = [part[0].numel() for part in (global_embeds, timestep_embeds, local_embeds)]
        of_all = gather(together).split(sizes, dim=1)
        shapes = (global_embeds.shape[1:], timestep_embeds.shape[1:], local_embeds.shape[1:])
        parts = [rows.unflatten(1, shape) for rows, shape in zip(of_all, shapes, strict=True)]
        global_embeds, timestep_embeds, local_embeds = parts
    weight = loss_weights(weights, num_timesteps=local_embeds.shape[2] or 1, num_videos=len(global_embeds))
    if weight.local_instance and "instance" in chosen and not local_embeds.shape[2]:
        raise ValueError(f"weights {weights!r} count local clips, but there are no local_embeds")
    of_instances, of_locals, of_scales = temperatures
    values: dict[str, Tensor | None] = dict.fromkeys(LossWeights._fields)
    if "instance" in chosen and weight.instance:
        values["instance"] = instance_loss(*global_embeds.unbind(1), temperature=of_instances)
    if "instance" in chosen and weight.local_instance:
        values["local_instance"] = _contrast(local_embeds.flatten(1, 2).transpose(0, 1), of_instances)
    if "local_local" in chosen and weight.local_local:
        values["local_local"] = local_local_loss(*local_embeds.unbind(1), temperature=of_locals)
    if "global_local" in chosen and weight.global_local:
        scales, clips = torch.broadcast_tensors(timestep_embeds[:, :, None], local_embeds[:, None])
        values["global_local"] = global_local_loss(scales.flatten(0, 2), clips.flatten(0, 2), temperature=of_scales)
    terms = [getattr(weight, name) * value for name, value in values.items() if value is not None]
    if not terms:
        raise ValueError(f"nothing counts in the loss: losses {list(losses)} with weights {weights!r}")
    return {"loss": sum(terms[1:], terms[0]), **{f"{name}_loss": value for name, value in values.items()}}


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (N, n) of this rank to those of all ranks, one after the other, with gradients to all of them.

    Ranks may have different numbers of rows. Without ``torch.distributed`` the rows come back as they are.

    >>> gather_rows(torch.eye(2)).shape
    torch.Size([2, 2])
    """
    if distributed.num_ranks() == 1:
        return rows
    real = distributed.gather_rows(torch.ones(len(rows), dtype=torch.bool, device=rows.device))
    return distributed.gather_rows(rows)[real]


def _contrast(clips: Tensor, temperature: float) -> Tensor:
    """Rows of (..., V, N, d): each of the V slots against each other one, the N rows of both being the candidates.

    For each ordered pair of slots (u, v) and each row i the cross-entropy of v's row i among the rows of v and the
    other rows of u; the mean over all of them.
    """
    with torch.autocast(clips.device.type, enabled=False):
        clips = _full(clips)
        num_slots, num_rows = clips.shape[-3:-1]
        flat = clips.flatten(-3, -2)
        logits = (flat @ flat.mT / temperature).unflatten(-1, (num_slots, num_rows))
        logits = logits.unflatten(-3, (num_slots, num_rows)).transpose(-3, -2)  # (..., u, v, i, j)
        itself = torch.eye(num_rows, dtype=torch.bool, device=clips.device)
        own = logits.diagonal(dim1=-4, dim2=-3).movedim(-1, -3)  # (..., u, i, j)
        # The lowest finite number, not -inf: a single row has no other ones, and the gradient must stay finite.
        others = own.masked_fill(itself, torch.finfo(own.dtype).min).logsumexp(dim=-1)
        total = torch.logaddexp(others[..., :, None, :], logits.logsumexp(dim=-1))
        losses = total - logits.diagonal(dim1=-2, dim2=-1)
        different = ~torch.eye(num_slots, dtype=torch.bool, device=clips.device)
        return losses[..., different, :].mean()


def _full(embeds: Tensor) -> Tensor:
    return embeds if embeds.dtype == torch.float64 else embeds.float()


def _chosen(losses: Sequence[str]) -> set[str]:
    unknown = sorted(set(losses) - set(LOSSES))
    if unknown or not losses or isinstance(losses, str):
        raise ValueError(f"losses must be some of {', '.join(LOSSES)}, got {losses!r}")
    return set(losses)


def _no_moments(global_embeds: Tensor, chosen: set[str]) -> Tensor:
    """Embeddings of no local clips, (B, 2, 0, d)."""
    if chosen != {"instance"}:
        raise ValueError(f"{', '.join(sorted(chosen - {'instance'}))} needs timestep_embeds and local_embeds, got None")
    return global_embeds[:, :, None][:, :, :0]


def _check_alike(a: Tensor, b: Tensor, *, num_dimensions: int) -> None:
    if a.shape != b.shape or a.dim() != num_dimensions:
        shape = "(N, d)" if num_dimensions == 2 else "(B, P, d)"
        raise ValueError(f"expected two tensors of one shape {shape}, got {tuple(a.shape)} and {tuple(b.shape)}")


def _check_step(global_embeds: Tensor, timestep_embeds: Tensor, local_embeds: Tensor) -> None:
    shapes = [tuple(part.shape) for part in (global_embeds, timestep_embeds, local_embeds)]
    of_global, of_timesteps, of_locals = shapes
    alike = of_timesteps == of_locals and len(of_locals) == 4 and of_global == (*of_locals[:2], of_locals[3])
    if not alike or of_locals[1] != 2:
        raise ValueError(f"expected embeddings (B, 2, d), (B, 2, P, d) and (B, 2, P, d), got {shapes}")
