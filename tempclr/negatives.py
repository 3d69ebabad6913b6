"""Shuffled orders: the negative sequences that the true order of a video is contrasted with (TempCLR §5.2, Table 7)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from tempclr.seeded_draws import SeededDraws

__all__ = [
    "NEEDS_OTHER_VIDEOS",
    "STEP_STRATEGIES",
    "STRATEGIES",
    "Candidates",
    "Negatives",
    "sample_negatives",
    "sample_step_negatives",
]

STRATEGIES = ("seg_unit", "seg_only", "within_seg", "all_unit", "unpaired", "joint", "visual_anchor")
STEP_STRATEGIES = ("seg_unit", "seg_only")
NEEDS_OTHER_VIDEOS = ("unpaired", "joint")
MAX_LISTED_UNITS = 6
_Source = torch.Generator | SeededDraws | None
_LISTED_ORDERS = torch.tensor(list(permutations(range(MAX_LISTED_UNITS))))


@dataclass(frozen=True)
class Negatives:
    """Which negative sequences each of B paragraphs is contrasted with; only indices, never copies of data.

    Attributes:
        column_orders: (B, 1 + k, C) int64 orders of the clips, or None. Row 0 is the true order: the clips that belong
            to a sentence in their order in time, all others behind them. Rows 1 to k are the negatives.
        row_orders: (B, 1 + k, S) int64 orders of the sentences, or None; row 0 is the true order.
        order_mask: (B,) bool, the paragraphs whose rows 1 to k are real negatives.
        other_videos: (B, u) int64 positions in the batch of the videos that serve as negatives, or None; where
            candidates were given, positions among them.
        other_mask: (B, u) bool, which of them are real.
    """

    column_orders: Tensor | None = None
    row_orders: Tensor | None = None
    order_mask: Tensor | None = None
    other_videos: Tensor | None = None
    other_mask: Tensor | None = None

    @property
    def qualifies(self) -> Tensor:
        """(B,) bool: the paragraphs that have at least one negative; the others contribute nothing to a loss."""
        masks = [] if self.order_mask is None else [self.order_mask]
        if self.other_mask is not None:
            masks.append(self.other_mask.any(dim=1))
        return torch.stack(masks).any(dim=0)

    @property
    def num_skipped(self) -> Tensor:
        """() int64: how many paragraphs of the batch have no negative."""
        return (~self.qualifies).sum()


@dataclass(frozen=True)
class Candidates:
    """The V videos that ``unpaired`` draws from, where they are more than those of the batch.

    Attributes:
        usable: (V,) bool, which of them have clips.
        first: the position of the batch's first video; its others follow.
        order_seeds: (V,) int64, or None; see :func:`sample_negatives`.
    """

    usable: Tensor
    first: int
    order_seeds: Tensor | None = None


def sample_negatives(
    strategy: str,
    *,
    sentence_mask: Tensor,
    clip_mask: Tensor,
    clip_sentence_index: Tensor,
    num_negatives: int = 31,
    order_seeds: Tensor | None = None,
    generator: torch.Generator | None = None,
    candidates: Candidates | None = None,
) -> Negatives:
    """Draw the negatives of a batch of paragraphs by one of the seven strategies of TempCLR's Table 7.

    A *segment* is a run of consecutive clips that one sentence describes. Clips with ``clip_sentence_index`` −1 are
    background and take no part.

    ================ ======================================================== ==============================
    strategy         a negative is                                            needs
    ================ ======================================================== ==============================
    ``seg_only``     the segments in another order, clips inside in order     2 segments
    ``seg_unit``     the same, then the clips inside each segment shuffled    2 segments
    ``within_seg``   the segments in order, the clips inside shuffled         a segment of 2 clips
    ``all_unit``     all clips shuffled                                       2 clips
    ``visual_anchor`` the sentences in another order, the video as it is      2 sentences
    ``unpaired``     another video of the batch                               another video with clips
    ``joint``        those of ``seg_unit`` and those of ``unpaired``          either
    ================ ======================================================== ==============================

    The shuffling strategies need two sentences and two clips besides: with one of either no order can be told from
    another. Orders are drawn independently (two negatives may coincide) from the sort of random keys, but for
    ``visual_anchor``, whose few orders do not come twice: see Note [Orders without replacement]. Nothing waits for the
    device, and with ``generator=None`` the function compiles into one graph.

    Args:
        strategy: a name of :data:`STRATEGIES`.
        sentence_mask: (B, S) bool or int, 1 = real.
        clip_mask: (B, C) bool or int, 1 = real.
        clip_sentence_index: (B, C) int, the sentence of each clip, −1 for background.
        num_negatives: k, shuffled orders a paragraph; ``unpaired`` takes at most so many other videos, without
            replacement, and ``joint`` so many of each kind.
        order_seeds: (B,) int64 ≥ 0, one a paragraph, that its negatives are drawn by: they then depend neither on the
            paragraphs beside it nor on padding, device or ranks. Other videos are drawn by theirs too.
        generator: source of randomness where there are no ``order_seeds``; None is the global one of the tensors'
            device.
        candidates: the videos that ``unpaired`` and ``joint`` draw from; None: those of the batch.

    Raises:
        ValueError: for an unknown strategy, ``num_negatives`` < 1, or ``order_seeds`` of another shape.

    >>> masks = dict(sentence_mask=torch.ones(1, 2), clip_mask=torch.ones(1, 3))
    >>> drawn = sample_negatives("seg_only", **masks, clip_sentence_index=torch.tensor([[0, 0, 1]]), num_negatives=1)
    >>> drawn.column_orders
    tensor([[[0, 1, 2],
             [2, 0, 1]]])
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"negatives must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives}")
    sentence_mask = sentence_mask.bool()
    clip_mask = clip_mask.bool() & (clip_sentence_index >= 0)
    source: _Source = generator
    if order_seeds is not None:
        source = SeededDraws(order_seeds, num_rows=len(clip_mask))
    if strategy == "visual_anchor":
        return _row_orders(sentence_mask, clip_mask, num_negatives, source)
    orders: dict[str, Tensor] = {}
    if strategy != "unpaired":
        orders = _column_orders(strategy, sentence_mask, clip_mask, clip_sentence_index, num_negatives, source)
    if strategy in NEEDS_OTHER_VIDEOS:
        if candidates is None:
            candidates = Candidates(clip_mask.any(dim=1), 0, order_seeds)
        orders |= _other_videos(sentence_mask, clip_mask, candidates, num_negatives, source)
    return Negatives(**orders)


def sample_step_negatives(
    strategy: str,
    *,
    step_sequence: Tensor,
    frame_steps: Tensor,
    num_negatives: int = 31,
    generator: torch.Generator | None = None,
) -> Negatives:
    """Draw the negatives of one video of a task, whose sequence names a step as often as it is done (TempCLR A.2.2).

    A negative is the steps in another order, and for ``"seg_unit"`` the frames shuffled inside each run of frames of
    one step (``"seg_only"`` leaves them). An order that names the same steps as the true one, as the exchange of two
    equal steps does, is replaced by a rotation by one. Orders are drawn independently.

    Args:
        strategy: a name of :data:`STEP_STRATEGIES`.
        step_sequence: (S,) int, the steps as they are done; neighbours differ.
        frame_steps: (M,) int, the step that each frame shows, in the order of the frames.
        num_negatives: k.
        generator: source of randomness; None is the global one of the tensors' device.

    Returns:
        ``row_orders`` (1, 1 + k, S) and ``column_orders`` (1, 1 + k, M) or None, the true orders in row 0.

    Raises:
        ValueError: for an unknown strategy or ``num_negatives`` < 1.

    >>> steps = torch.tensor([0, 1])
    >>> sample_step_negatives("seg_only", step_sequence=steps, frame_steps=steps, num_negatives=1).row_orders
    tensor([[[0, 1],
             [1, 0]]])
    """
    if strategy not in STEP_STRATEGIES:
        raise ValueError(f"negatives of steps must be one of {', '.join(STEP_STRATEGIES)}, got {strategy!r}")
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives}")
    place = torch.arange(len(step_sequence), device=step_sequence.device)
    keys = _uniform((num_negatives, len(place)), device=place.device, source=generator)
    orders = keys.argsort(dim=1)
    same = (step_sequence[orders] == step_sequence).all(dim=1, keepdim=True)
    orders = torch.where(same, place.roll(1), orders)
    column_orders = None
    if strategy == "seg_unit":
        segment = _segments(frame_steps[None])
        real = torch.ones_like(segment, dtype=torch.bool)
        shuffled = _shuffled_inside(segment, segment, real, num_negatives, generator, must_differ=False)
        column = torch.arange(len(frame_steps), device=place.device).expand(1, 1, -1)
        column_orders = torch.cat([column, shuffled], dim=1)
    return Negatives(
        row_orders=torch.cat([place[None], orders])[None],
        column_orders=column_orders,
        order_mask=torch.tensor([len(place) >= 2], device=place.device),
    )


def _column_orders(
    strategy: str,
    sentence_mask: Tensor,
    clip_mask: Tensor,
    clip_sentence_index: Tensor,
    num_negatives: int,
    source: _Source,
) -> dict[str, Tensor]:
    true_order = _real_first(clip_mask)
    num_clips = clip_mask.sum(dim=1)
    position = torch.arange(clip_mask.shape[1], device=clip_mask.device)
    real = position < num_clips[:, None]
    sentence = clip_sentence_index.gather(1, true_order)
    segment = torch.zeros_like(true_order) + position if strategy == "all_unit" else _segments(sentence)
    segment_lengths = torch.zeros_like(true_order).scatter_add(1, segment, real.long())
    num_segments = (segment_lengths > 0).sum(dim=1)

    if strategy == "within_seg":
        outer = segment[:, None]
        possible = (segment_lengths >= 2).any(dim=1)
    else:
        ranks = _shuffled_ranks(num_segments, num_negatives, segment.shape[1], source)
        outer = ranks.gather(2, segment[:, None].expand_as(ranks))
        possible = num_segments >= 2
    if strategy in ("within_seg", "seg_unit", "joint"):
        must_differ = strategy == "within_seg"
        inner = _shuffled_inside(segment, segment_lengths, real, num_negatives, source, must_differ=must_differ)
    else:
        inner = position
    # Ranks are whole numbers below C, so that (outer, inner) sorts as one key; padding stays behind, as it was.
    width = clip_mask.shape[1]
    keys = torch.where(real[:, None], outer * width + inner, width * width + position)
    shuffled = true_order[:, None].expand_as(keys).gather(2, keys.argsort(dim=2))
    return {
        "column_orders": torch.cat([true_order[:, None], shuffled], dim=1),
        "order_mask": possible & _orders_can_differ(sentence_mask, clip_mask),
    }


def _row_orders(sentence_mask: Tensor, clip_mask: Tensor, num_negatives: int, source: _Source) -> Negatives:
    true_order = _real_first(sentence_mask)
    ranks = _distinct_ranks(sentence_mask.sum(dim=1), num_negatives, sentence_mask.shape[1], source)
    shuffled = true_order[:, None].expand_as(ranks).gather(2, ranks.argsort(dim=2))
    return Negatives(
        row_orders=torch.cat([true_order[:, None], shuffled], dim=1),
        order_mask=_orders_can_differ(sentence_mask, clip_mask),
    )


def _other_videos(
    sentence_mask: Tensor, clip_mask: Tensor, candidates: Candidates, num_negatives: int, source: _Source
) -> dict[str, Tensor]:
    batch, num_videos, device = len(clip_mask), len(candidates.usable), clip_mask.device
    itself = torch.arange(batch, device=device)[:, None] + candidates.first == torch.arange(num_videos, device=device)
    usable = candidates.usable & ~itself
    if isinstance(source, SeededDraws):
        keys = source.uniform_between(candidates.order_seeds)
    else:
        keys = _uniform((batch, num_videos), device=device, source=source)
    order = torch.where(usable, keys, 2.0).argsort(dim=1, stable=True)
    other_videos = order[:, : min(num_negatives, num_videos - 1)]
    complete = sentence_mask.any(dim=1) & clip_mask.any(dim=1)
    return {"other_videos": other_videos, "other_mask": usable.gather(1, other_videos) & complete[:, None]}


def _orders_can_differ(sentence_mask: Tensor, clip_mask: Tensor) -> Tensor:
    return (sentence_mask.sum(dim=1) >= 2) & (clip_mask.sum(dim=1) >= 2)


def _real_first(mask: Tensor) -> Tensor:
    """(B, n) positions: the real ones in their order, then the others in theirs."""
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)


def _segments(sentence: Tensor) -> Tensor:
    """(B, C) number of each clip's segment, counted from 0; a new one starts where the sentence changes."""
    changes = (sentence[:, 1:] != sentence[:, :-1]).long()
    return torch.nn.functional.pad(changes.cumsum(dim=1), (1, 0))


# Note [No identity among the negatives]: an order drawn as the identity (probability 1/n! for n units) would make the
# positive its own negative. It is replaced by a rotation, whose shift is drawn uniformly from 1 to n - 1. Drawing again
# would need a loop that waits for the device; the rotation makes n orders of n! slightly more likely than the others.


def _shuffled_ranks(num_units: Tensor, num_negatives: int, width: int, source: _Source) -> Tensor:
    """(B, k, width) new place of each unit; units from ``num_units`` on keep theirs. See Note [No identity …]."""
    unit = torch.arange(width, device=num_units.device)
    num_units = num_units[:, None, None]
    real = unit < num_units
    shape = (num_units.shape[0], num_negatives, width)
    keys = torch.where(real, _uniform(shape, device=unit.device, source=source), 2.0 + unit)
    ranks = keys.argsort(dim=2, stable=True)
    shift = _shift(_uniform((*shape[:2], 1), device=unit.device, source=source), num_units)
    rotated = torch.where(real, (unit + shift) % num_units.clamp_min(1), unit)
    return torch.where((ranks == unit).all(dim=2, keepdim=True), rotated, ranks)


# Note [Orders without replacement]: the released pretraining permutes the five sentences of a sequence and takes 31
# different ones of their 119 wrong orders. Up to six sentences all orders are listed and drawn without replacement;
# where there are fewer than asked for, each comes again only when all have come. Of the 5039 and more wrong orders of
# longer paragraphs 31 independent draws hardly ever coincide.


def _distinct_ranks(num_units: Tensor, num_negatives: int, width: int, source: _Source) -> Tensor:
    """(B, k, width) new place of each unit, as :func:`_shuffled_ranks`, but different ones. See Note [Orders …]."""
    drawn = _shuffled_ranks(num_units, num_negatives, width, source)
    # In lexicographic order the first n! orders permute the last n of the listed units; turned around, the first n.
    listed = (MAX_LISTED_UNITS - 1 - _LISTED_ORDERS.flip(1)).to(num_units.device)
    order = torch.arange(1, len(listed), device=num_units.device)
    factorial = torch.ones_like(num_units)
    for count in range(2, MAX_LISTED_UNITS + 1):
        factorial = torch.where(num_units >= count, factorial * count, factorial)
    keys = _uniform((len(num_units), len(order)), device=order.device, source=source)
    order = torch.where(order < factorial[:, None], keys, 2.0).argsort(dim=1, stable=True) + 1
    place = torch.arange(num_negatives, device=order.device) % (factorial - 1).clamp_min(1)[:, None]
    chosen = listed[torch.where(factorial[:, None] > 1, order.gather(1, place), 0)]
    chosen = chosen[..., :width] if width <= MAX_LISTED_UNITS else _continued(chosen, width)
    return torch.where(num_units[:, None, None] <= MAX_LISTED_UNITS, chosen, drawn)


def _continued(ranks: Tensor, width: int) -> Tensor:
    rest = torch.arange(ranks.shape[2], width, device=ranks.device)
    return torch.cat([ranks, rest.expand(*ranks.shape[:2], -1)], dim=2)


def _shuffled_inside(
    segment: Tensor,
    segment_lengths: Tensor,
    real: Tensor,
    num_negatives: int,
    source: _Source,
    *,
    must_differ: bool,
) -> Tensor:
    """(B, k, C) new place of each clip among all clips when every segment is shuffled on its own."""
    position = torch.arange(segment.shape[1], device=segment.device)
    shape = (segment.shape[0], num_negatives, segment.shape[1])
    # Half the unit interval, so that rounding never carries a key into the next segment.
    keys = segment[:, None] + 0.5 * _uniform(shape, device=segment.device, source=source)
    places = torch.where(real[:, None], keys, segment.shape[1] + position).argsort(dim=2, stable=True)
    if not must_differ:
        return places
    length = segment_lengths.gather(1, segment)[:, None]
    start = (segment_lengths.cumsum(dim=1) - segment_lengths).gather(1, segment)[:, None]
    draws = _uniform(shape, device=segment.device, source=source)
    shift = _shift(draws.gather(2, segment[:, None].expand(shape)), length)
    rotated = start + (position - start + shift) % length.clamp_min(1)
    same = ((places == position) | ~real[:, None]).all(dim=2, keepdim=True)
    return torch.where(same, rotated, places)


def _shift(draws: Tensor, num_units: Tensor) -> Tensor:
    """Whole numbers from 1 to ``num_units - 1``, uniform when the draws are uniform in [0, 1)."""
    return torch.minimum(1 + (draws * (num_units - 1)).long(), (num_units - 1).clamp_min(0))


def _uniform(shape: tuple[int, ...], *, device: torch.device, source: _Source) -> Tensor:
    if source is None:
        return torch.rand(shape, device=device)
    if isinstance(source, SeededDraws):
        return source.uniform(shape)
    return torch.rand(shape, device=source.device, generator=source).to(device)
