"""The objectives, as pure functions of embeddings: unit loss, sequence loss, and their weighted sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tempclr.costs import SIMILARITIES, cosine_cost
from tempclr.distributed import first_row, gather_rows, largest_sizes, mean_over_ranks, num_ranks
from tempclr.negatives import NEEDS_OTHER_VIDEOS, Candidates, Negatives, sample_negatives
from tempclr_kernels import dtw, otam

__all__ = ["LOSS_MEASURES", "contrast_orders", "sequence_loss", "tempclr_loss", "unit_loss"]

LOSS_MEASURES = ("dtw", "otam")


def tempclr_loss(
    text_embeds: Tensor,
    video_embeds: Tensor,
    *,
    sentence_mask: Tensor | None = None,
    clip_mask: Tensor | None = None,
    clip_sentence_index: Tensor | None = None,
    similarity: str = "cosine",
    temperature: float = 0.3,
    unit_weight: float = 0.7,
    sequence_weight: float = 0.3,
    measure: str = "dtw",
    negatives: str | Negatives = "seg_unit",
    num_negatives: int = 31,
    gamma: float = 0.1,
    sequence_temperature: float = 1.0,
    cosine_eps: float = 0.01,
    gather_across_ranks: bool = True,
    order_seeds: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor | None]:
    """TempCLR's training objective, ``unit_weight · unit_loss + sequence_weight · sequence_loss``.

    What each part pulls together and pushes apart is told by :func:`unit_loss` and :func:`sequence_loss`. The defaults
    did best on validation videos (docs/claims.md); the released weights are 0.3 and 0.7 (TempCLR A.2.3). Nothing is
    rescaled: for the unit loss alone give ``unit_weight=1, sequence_weight=0``. A part of weight 0 is not computed. In
    the pairs shape (two-dimensional embeddings) there is no order to contrast and the loss is the unit loss itself,
    without its weight.

    Args:
        text_embeds: (N, d), or (B, S, d) with the masks below.
        video_embeds: (N, d), or (B, C, d).
        sentence_mask, clip_mask, clip_sentence_index: (B, S), (B, C), (B, C); see :func:`sequence_loss`.
        similarity, temperature: of the unit loss. Of both parts: gather_across_ranks. All others: of the sequence loss.

    Returns:
        ``loss`` and its parts ``unit_loss`` and ``sequence_loss``, scalars; a part that was not computed is None.

    >>> parts = tempclr_loss(torch.eye(3), torch.eye(3), similarity="dot")
    >>> round(parts["loss"].item(), 4), parts["sequence_loss"]
    (1.1029, None)
    """
    of_units: dict[str, Any] = {"similarity": similarity, "temperature": temperature}
    of_units["gather_across_ranks"] = gather_across_ranks
    if text_embeds.dim() == 2:
        alone = unit_loss(text_embeds, video_embeds, **of_units)
        return {"loss": alone, "unit_loss": alone, "sequence_loss": None}
    masks: dict[str, Any] = {
        "sentence_mask": sentence_mask,
        "clip_mask": clip_mask,
        "clip_sentence_index": clip_sentence_index,
    }
    unit = sequence = None
    terms = []
    if unit_weight != 0:
        unit = unit_loss(text_embeds, video_embeds, **of_units, **masks)
        terms.append(unit_weight * unit)
    if sequence_weight != 0:
        sequence = sequence_loss(
            text_embeds,
            video_embeds,
            **masks,
            measure=measure,
            negatives=negatives,
            num_negatives=num_negatives,
            gamma=gamma,
            temperature=sequence_temperature,
            cosine_eps=cosine_eps,
            gather_across_ranks=gather_across_ranks,
            order_seeds=order_seeds,
            generator=generator,
        )
        terms.append(sequence_weight * sequence)
    if not terms:
        raise ValueError("unit_weight and sequence_weight are both 0: at least one part of the loss must count")
    return {"loss": sum(terms[1:], terms[0]), "unit_loss": unit, "sequence_loss": sequence}


def unit_loss(
    text_embeds: Tensor,
    video_embeds: Tensor,
    *,
    sentence_mask: Tensor | None = None,
    clip_mask: Tensor | None = None,
    clip_sentence_index: Tensor | None = None,
    similarity: str = "cosine",
    temperature: float = 0.3,
    gather_across_ranks: bool = True,
) -> Tensor:
    """Contrast single units: the sum of two cross-entropies, clip to sentence and sentence to clip (VideoCLIP's loss).

    Pulls every clip to its sentence and pushes it from all other sentences of the batch, those of its own video too;
    and the same from the sentence's side. A sentence with several clips counts the mean of their log-probabilities, so
    that with one clip a sentence both directions are plain cross-entropies. Background clips (index −1) and padding
    take no part, whatever their embeddings hold.

    Under ``torch.distributed`` the negatives are those of all ranks, with gradients to all of them, and both means are
    over all ranks: averaged over the ranks, value and gradient are those of one process with the joint batch.

    Args:
        text_embeds: (N, d) with sentence i belonging to clip i, or (B, S, d).
        video_embeds: (N, d), or (B, C, d).
        sentence_mask: (B, S) bool or int, 1 = real; required for (B, S, d), like the next two.
        clip_mask: (B, C) bool or int, 1 = real.
        clip_sentence_index: (B, C) int, the sentence of each clip, −1 for background.
        similarity: ``"dot"``, as released, or ``"cosine"`` divided by ``temperature``.
        temperature: of the cosine; dot products are taken as they are.
        gather_across_ranks: whether to look beyond this rank when ``torch.distributed`` is initialised.

    Returns:
        () float32 (float64 for float64 embeddings), also under autocast; a differentiable 0 when no clip
        has a sentence.

    >>> round(unit_loss(torch.eye(2), torch.eye(2), similarity="dot").item(), 4)
    0.6265
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}")
    if text_embeds.dim() == 2:
        units = _pairs(text_embeds, video_embeds)
    else:
        units = _paragraph_units(text_embeds, video_embeds, sentence_mask, clip_mask, clip_sentence_index)
    text, video, text_mask, video_mask, target = units
    with torch.autocast(text.device.type, enabled=False):
        if similarity == "cosine":
            text, video = functional.normalize(text, dim=-1), functional.normalize(video, dim=-1)
            text = text / temperature
        across = gather_across_ranks and num_ranks() > 1
        world = (_gathered if across else _World)(text, video, text_mask, video_mask)
        clip_to_sentence = _log_probabilities(video @ world.text.T, world.text_mask)
        sentence_to_clip = _log_probabilities(text @ world.video.T, world.video_mask)
        clip = torch.arange(len(video), device=video.device)
        of_clips = clip_to_sentence[clip, target + world.text_offset]
        of_sentences = sentence_to_clip[target, clip + world.video_offset]

        clips_of_sentence = video.new_zeros(len(text)).scatter_add(0, target, video_mask.to(video.dtype))
        weight = 1 / clips_of_sentence.clamp_min(1)[target]
        counts = torch.stack([video_mask.sum(), (clips_of_sentence > 0).sum()]).to(video.dtype)
        counts = mean_over_ranks(counts) if across else counts
        num_clips, num_sentences = counts.clamp_min(torch.finfo(video.dtype).tiny).unbind()
        per_clip = of_clips / num_clips + weight * of_sentences / num_sentences
        return -torch.where(video_mask, per_clip, 0).sum()


def sequence_loss(
    text_embeds: Tensor,
    video_embeds: Tensor,
    *,
    sentence_mask: Tensor | None = None,
    clip_mask: Tensor | None = None,
    clip_sentence_index: Tensor | None = None,
    measure: str = "dtw",
    negatives: str | Negatives = "seg_unit",
    num_negatives: int = 31,
    gamma: float = 0.1,
    temperature: float = 1.0,
    cosine_eps: float = 0.01,
    gather_across_ranks: bool = True,
    order_seeds: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Contrast whole sequences: the paragraph with its video in the true order against wrong orders (TempCLR eq. 2).

    Pulls a paragraph to its own video in order and pushes it from the negatives that ``negatives`` names (see
    :func:`tempclr.negatives.sample_negatives`): a cross-entropy over ``−distance / temperature``, the positive first.
    The distance is soft-DTW or OTAM over the costs ``1 − a·b / (|a||b| + cosine_eps)``; all orders of one video share
    one cost matrix. (Equation 2 prints ``+distance``; its text and the released code mean ``−distance``.)

    A paragraph that has no negative (a single segment, say) contributes nothing; the loss is the mean over the others,
    and a differentiable 0 when there is none. Background clips and padding take no part.

    Under ``torch.distributed`` unpaired videos are those of all ranks, with gradients to all of them, and the mean is
    over the paragraphs of all ranks, as in :func:`unit_loss`.

    Args:
        text_embeds: (B, S, d).
        video_embeds: (B, C, d), the clips in their order in time.
        sentence_mask: (B, S) bool or int, 1 = real; None: all.
        clip_mask: (B, C) bool or int, 1 = real; None: all.
        clip_sentence_index: (B, C) int, the sentence of each clip, −1 for background; None: clip j shows sentence j.
        measure: ``"dtw"``, or ``"otam"``, summed over both ways.
        negatives: a strategy by name, or :class:`~tempclr.negatives.Negatives` that were drawn before.
        num_negatives: shuffled orders a paragraph.
        gamma: softness of the minimum; 0 is the hard one.
        temperature: divides the distances.
        cosine_eps: see :func:`tempclr.costs.cosine_cost`.
        gather_across_ranks: whether to look beyond this rank when ``torch.distributed`` is initialised.
        order_seeds, generator: source of the negatives; see :func:`tempclr.negatives.sample_negatives`.

    Returns:
        () float32 (float64 for float64 embeddings), also under autocast.

    >>> clips = torch.eye(3)[None]
    >>> shuffled = sequence_loss(clips, clips, negatives="seg_only", num_negatives=4)
    >>> bool(shuffled < sequence_loss(clips, clips.flip(1), negatives="seg_only", num_negatives=4))
    True
    """
    if measure not in LOSS_MEASURES:
        raise ValueError(f"measure must be one of {', '.join(LOSS_MEASURES)}, got {measure!r}")
    units = _paragraphs(text_embeds, video_embeds, sentence_mask, clip_mask, clip_sentence_index)
    across = gather_across_ranks and num_ranks() > 1
    others = None
    if isinstance(negatives, str):
        if across and negatives in NEEDS_OTHER_VIDEOS:
            others = _videos_of_all_ranks(units, order_seeds)
        negatives = sample_negatives(
            negatives,
            sentence_mask=units.text_mask,
            clip_mask=units.video_mask,
            clip_sentence_index=units.target,
            num_negatives=num_negatives,
            order_seeds=order_seeds,
            generator=generator,
            candidates=None if others is None else others.candidates,
        )
    # A paragraph without units has no negatives either: length 1 keeps the kernels content, the mask keeps it out.
    lengths = torch.stack([units.text_mask.sum(dim=1), units.video_mask.sum(dim=1)], dim=1).clamp_min(1)
    losses = contrast_orders(
        _costs(units, others, cosine_eps, with_others=negatives.other_videos is not None),
        lengths,
        negatives=negatives,
        measure=measure,
        gamma=gamma,
        temperature=temperature,
        first_video=0 if others is None else others.candidates.first,
        num_clips=None if others is None else others.num_clips,
    )
    used = negatives.qualifies
    num_used = used.sum().to(losses.dtype)
    num_used = mean_over_ranks(num_used) if across else num_used
    return torch.where(used, losses, 0).sum() / num_used.clamp_min(torch.finfo(losses.dtype).tiny)


def contrast_orders(
    costs: Tensor,
    lengths: Tensor | None = None,
    *,
    negatives: Negatives,
    measure: str = "dtw",
    gamma: float = 0.1,
    temperature: float = 1.0,
    first_video: int = 0,
    num_clips: Tensor | None = None,
) -> Tensor:
    """The cross-entropy of each paragraph's true order against its negatives, over ``−distance / temperature``.

    Args:
        costs: (B, n, m) of each paragraph with its own video; with ``negatives.other_videos`` (B, V, n, m), of each
            paragraph with every video.
        lengths: (B, 2) int, real rows and columns; None: all.
        negatives: whose row 0 is the true order.
        measure, gamma, temperature: see :func:`sequence_loss`.
        first_video: position among the V videos of paragraph 0's own; those of the others follow.
        num_clips: (V,) int, real columns of each video; needed with ``lengths`` where V is not B.

    Returns:
        (B,); what stands for a paragraph that has no negative (see ``negatives.qualifies``) means nothing.

    >>> costs, orders = 1 - torch.eye(2)[None], torch.tensor([[[0, 1], [1, 0]]])
    >>> drawn = Negatives(row_orders=orders, order_mask=torch.tensor([True]))
    >>> contrast_orders(costs, negatives=drawn, gamma=0.0)
    tensor([0.1269])
    """
    paired = torch.arange(len(costs), device=costs.device)
    with_others = negatives.other_videos is not None
    own_costs = costs[paired, paired + first_video] if with_others else costs
    if negatives.column_orders is not None:  # the videos of other ranks may be longer
        own_costs = own_costs[..., : negatives.column_orders.shape[2]]
    own = _distance(
        own_costs,
        lengths,
        measure=measure,
        gamma=gamma,
        row_orders=negatives.row_orders,
        column_orders=negatives.column_orders,
    )
    distances = [own if negatives.order_mask is not None else own[:, None]]
    masks = [own.new_ones((len(costs), 1), dtype=torch.bool)]
    if negatives.order_mask is not None:
        masks.append(negatives.order_mask[:, None].expand(-1, own.shape[1] - 1))
    if negatives.other_videos is not None and negatives.other_mask is not None:
        other = negatives.other_videos
        if lengths is None:
            lengths = torch.tensor(costs.shape[-2:], device=costs.device).expand(len(costs), 2)
        columns = lengths[:, 1] if num_clips is None else num_clips
        of_pairs = torch.stack([lengths[:, :1].expand_as(other), columns[other]], dim=2)
        distances.append(_distance(costs[paired[:, None], other], of_pairs, measure=measure, gamma=gamma))
        masks.append(negatives.other_mask)
    logits = -torch.cat(distances, dim=1) / temperature
    logits = torch.where(torch.cat(masks, dim=1), logits, torch.finfo(logits.dtype).min)
    return functional.cross_entropy(logits, torch.zeros_like(paired), reduction="none")


class _Units(NamedTuple):
    text: Tensor
    video: Tensor
    text_mask: Tensor
    video_mask: Tensor
    target: Tensor


def _pairs(text: Tensor, video: Tensor) -> _Units:
    if text.shape != video.shape:
        raise ValueError(
            f"pairs need one sentence a clip: got {tuple(text.shape)} sentences, {tuple(video.shape)} clips"
        )
    mask = torch.ones(len(text), dtype=torch.bool, device=text.device)
    return _Units(_full(text), _full(video), mask, mask, torch.arange(len(text), device=text.device))


def _paragraphs(
    text: Tensor, video: Tensor, text_mask: Tensor | None, video_mask: Tensor | None, index: Tensor | None
) -> _Units:
    """Paragraphs with real units in front (kernels take lengths) and zeros behind them (padding may hold anything)."""
    if text.dim() != 3 or video.dim() != 3 or (text.shape[0], text.shape[2]) != (video.shape[0], video.shape[2]):
        raise ValueError(
            f"expected text_embeds (B, S, d), video_embeds (B, C, d), got {tuple(text.shape)} and {tuple(video.shape)}"
        )
    if text_mask is None:
        text_mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    if video_mask is None:
        video_mask = torch.ones(video.shape[:2], dtype=torch.bool, device=video.device)
    if index is None:
        index = torch.arange(video.shape[1], device=video.device).expand(video.shape[:2])
    text_mask = text_mask.bool()
    inside = (index >= 0) & (index < text.shape[1])
    index = index.clamp(0, text.shape[1] - 1)
    video_mask = video_mask.bool() & inside & text_mask.gather(1, index)

    text_order = (~text_mask).to(torch.uint8).argsort(dim=1, stable=True)
    video_order = (~video_mask).to(torch.uint8).argsort(dim=1, stable=True)
    new_place = text_order.argsort(dim=1)
    text_mask, video_mask = text_mask.gather(1, text_order), video_mask.gather(1, video_order)
    return _Units(
        _full(_taken(text, text_order)).masked_fill(~text_mask[..., None], 0),
        _full(_taken(video, video_order)).masked_fill(~video_mask[..., None], 0),
        text_mask,
        video_mask,
        new_place.gather(1, index).gather(1, video_order),
    )


def _paragraph_units(
    text: Tensor, video: Tensor, text_mask: Tensor | None, video_mask: Tensor | None, index: Tensor | None
) -> _Units:
    """The units of all paragraphs of the batch in one row, with the sentence of each clip as a position in it."""
    units = _paragraphs(text, video, text_mask, video_mask, index)
    first = torch.arange(text.shape[0], device=text.device)[:, None] * text.shape[1]
    return _Units(
        units.text.flatten(0, 1),
        units.video.flatten(0, 1),
        units.text_mask.flatten(),
        units.video_mask.flatten(),
        (units.target + first).flatten(),
    )


def _taken(embeds: Tensor, order: Tensor) -> Tensor:
    return embeds.gather(1, order[..., None].expand(*order.shape, embeds.shape[2]))


def _full(embeds: Tensor) -> Tensor:
    return embeds if embeds.dtype == torch.float64 else embeds.float()


def _log_probabilities(logits: Tensor, mask: Tensor) -> Tensor:
    # The lowest finite number, not -inf: a row without any candidate stays finite and is left out by the caller's mask.
    return torch.where(mask, logits, torch.finfo(logits.dtype).min).log_softmax(dim=1)


class _Videos(NamedTuple):
    """Clips of the videos of all ranks, and what negatives among them are drawn by."""

    clips: Tensor
    num_clips: Tensor
    candidates: Candidates


def _videos_of_all_ranks(units: _Units, order_seeds: Tensor | None) -> _Videos:
    num_rows, num_clips = largest_sizes(units.video.shape[:2], device=units.video.device)
    own = functional.pad(units.video, (0, 0, 0, num_clips - units.video.shape[1]))
    counts = gather_rows(units.video_mask.sum(dim=1), num_rows)
    seeds = None if order_seeds is None else gather_rows(order_seeds, num_rows)
    candidates = Candidates(counts > 0, first_row(num_rows), seeds)
    return _Videos(gather_rows(own, num_rows), counts.clamp_min(1), candidates)


def _costs(units: _Units, others: _Videos | None, eps: float, *, with_others: bool) -> Tensor:
    """(B, S, C) costs of each paragraph and its video, or (B, V, S, C) of each paragraph and every video."""
    if not with_others:
        return cosine_cost(units.text, units.video, eps=eps)
    videos = units.video if others is None else others.clips
    flat = cosine_cost(units.text.flatten(0, 1), videos.flatten(0, 1), eps=eps)
    return flat.unflatten(1, videos.shape[:2]).unflatten(0, units.text.shape[:2]).transpose(1, 2)


def _distance(
    cost: Tensor,
    lengths: Tensor | None,
    *,
    measure: str,
    gamma: float,
    row_orders: Tensor | None = None,
    column_orders: Tensor | None = None,
) -> Tensor:
    if measure == "dtw":
        return dtw(cost, lengths, gamma=gamma, row_orders=row_orders, column_orders=column_orders)
    return otam(cost, lengths, gamma=gamma, both_ways=True, row_orders=row_orders, column_orders=column_orders)


class _World(NamedTuple):
    text: Tensor
    video: Tensor
    text_mask: Tensor
    video_mask: Tensor
    text_offset: int = 0
    video_offset: int = 0


def _gathered(text: Tensor, video: Tensor, text_mask: Tensor, video_mask: Tensor) -> _World:
    """The units of all ranks; those of other ranks carry gradients home."""
    num_text, num_video = largest_sizes((len(text), len(video)), device=text.device)
    return _World(
        gather_rows(text, num_text),
        gather_rows(video, num_video),
        gather_rows(text_mask, num_text),
        gather_rows(video_mask, num_video),
        first_row(num_text),
        first_row(num_video),
    )
