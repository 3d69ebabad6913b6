"""The TRX head (Perrett et al., CVPR 2021): a query's frame tuples rebuilt by attention from those of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import nn


class TRXVideos(NamedTuple):
    """What the attention needs of some videos, for one cardinality; a slot is a frame at a place in the tuple.

    ``keys``, ``values`` (..., slots, head_size): each slot's share of a tuple's key (centred, bias included) and value
    (without bias). ``key_scale`` (..., tuples): one over the standard deviation of each tuple's key.
    """

    keys: torch.Tensor
    values: torch.Tensor
    key_scale: torch.Tensor

    def take(self, index: Any) -> TRXVideos:
        """The same of some of the videos, chosen along the leading dimensions."""
        return TRXVideos(*(part[index] for part in self))


# Note [Tuples are sums of slots]: the linear layer of a tuple, of its frames end to end, is the sum over its places of
# one layer applied to one frame. So T frames are projected instead of C(T, cardinality) tuples, and an inner product of
# two tuples is a sum of inner products of slots: keys, norms, attention and distances all come from Gram matrices of
# slots, in which selecting tuples is a product with a matrix of zeros and ones. No tuple's vector is ever made.
#
# What is the same for all supports of one softmax cancels in it (the part of a score that belongs to the query's tuple
# alone), and so does what is added to every value (attention sums to one): the layer of values needs no bias.
class TRXCardinality(nn.Module):
    """Tuples of one size: scores and distances over all classes, shots and tuples at once.

    See Note [Tuples are sums of slots]. Layer names follow the published code; its unused parts (the bias of
    ``v_linear``, ``norm_v``) are left out, as nothing depends on them.
    """

    def __init__(self, *, feature_size: int, num_frames: int, cardinality: int, head_size: int, dropout: float):
        super().__init__()
        if not 1 <= cardinality <= num_frames:
            raise ValueError(f"a tuple of {cardinality} frames cannot be taken from {num_frames} frames")
        self.cardinality, self.num_frames, self.head_size = cardinality, num_frames, head_size
        self.dropout = nn.Dropout(dropout)
        self.k_linear = nn.Linear(cardinality * feature_size, head_size)
        self.v_linear = nn.Linear(cardinality * feature_size, head_size, bias=False)
        self.norm_k = nn.LayerNorm(head_size)
        self.positions = nn.Buffer(sine_positions(num_frames, feature_size), persistent=False)
        self.tuples = nn.Buffer(tuple_slots(num_frames, cardinality), persistent=False)

    def project(self, frames: torch.Tensor) -> TRXVideos:
        """Frames (..., T, feature_size) to what :meth:`logits` takes; done once a video."""
        *batch, num_frames, feature_size = frames.shape
        frames = self.dropout(frames + self.positions).reshape(-1, num_frames, feature_size)
        # Place j of a tuple is never one of the first j frames, nor of those that must remain for the places after it.
        width = num_frames - self.cardinality + 1
        placed = frames.unfold(1, width, 1).permute(1, 0, 3, 2).flatten(1, 2)
        keys, values = (self._slots(placed, layer.weight, len(frames)) for layer in (self.k_linear, self.v_linear))
        keys = keys - keys.mean(dim=-1, keepdim=True)
        keys = keys + (self.k_linear.bias - self.k_linear.bias.mean()) / self.cardinality
        gram = self.tuples @ (keys @ keys.mT)
        variance = (gram * self.tuples).sum(dim=-1) / self.head_size
        scale = (variance + self.norm_k.eps).rsqrt()
        return TRXVideos(*(part.unflatten(0, batch) for part in (keys, values, scale)))

    def _slots(self, placed: torch.Tensor, weight: torch.Tensor, num_videos: int) -> torch.Tensor:
        """(places, videos · width, feature_size) to (videos, places · width, head_size)."""
        by_place = weight.unflatten(1, (self.cardinality, -1)).permute(1, 2, 0)
        slots = torch.bmm(placed, by_place).unflatten(1, (num_videos, -1))
        return slots.transpose(0, 1).flatten(1, 2)

    def logits(self, query: TRXVideos, support: TRXVideos) -> torch.Tensor:
        """Query (E, Q, ...) against support (E, way, shot, ...): minus the distances (E, Q, way)."""
        attention = self._attention(query, support)
        weights = attention @ self.tuples  # (E, Q, tuples, way, shot, slots): how much of each slot is in a prototype
        weights = weights.flatten(4, 5).transpose(2, 3).transpose(1, 2).flatten(2, 3)  # (E, way, Q · tuples, slots)
        shift = self._centre(support.values)
        rebuilt_from = (support.values - shift[:, None, None]).flatten(2, 3)
        to_rebuild = query.values - shift[:, None]
        own = ((self.tuples @ (to_rebuild @ to_rebuild.mT)) * self.tuples).sum(dim=(-1, -2))
        cross = self.tuples @ torch.einsum("eqid,ewjd->ewqij", to_rebuild, rebuilt_from)
        quadratic = (weights @ (rebuilt_from @ rebuilt_from.mT) - 2 * cross.flatten(2, 3)) * weights
        of_class = quadratic.sum(dim=-1).unflatten(2, (query.values.shape[1], -1)).sum(dim=-1)
        return -(own[..., None] + of_class.transpose(1, 2)) / len(self.tuples)

    def _attention(self, query: TRXVideos, support: TRXVideos) -> torch.Tensor:
        """(E, Q, tuples, way, shot, tuples), one softmax over the tuples of all shots of a class."""
        gain, bias = self.norm_k.weight, self.norm_k.bias
        (episodes, way, shot), (num_queries, num_slots) = support.keys.shape[:3], query.keys.shape[1:3]
        flat = support.keys.flatten(1, 3)
        slots = (query.keys * gain.square()).flatten(1, 2) @ flat.mT
        slots = slots.view(episodes, num_queries, num_slots, way * shot * num_slots)
        scores = (self.tuples @ slots).unflatten(-1, (way, shot, num_slots)) * query.key_scale[..., None, None, None]
        of_support = support.keys @ (gain * bias)
        scores = (scores + of_support[:, None, None]) @ self.tuples.mT
        scores = scores * (support.key_scale[:, None, None] * self.head_size**-0.5)
        return scores.flatten(4, 5).softmax(dim=-1).unflatten(-1, (shot, -1))

    def _centre(self, values: torch.Tensor) -> torch.Tensor:
        """(E, slots, head_size): the mean of each place, which cancels in every distance but not in its rounding."""
        by_place = values.detach().unflatten(-2, (self.cardinality, -1))
        mean = by_place.mean(dim=(1, 2, 4), keepdim=True)
        return mean.expand_as(by_place[:, :1, :1]).flatten(3, 4)[:, 0, 0]


class TRXHead(nn.Module):
    """Class scores by TRX: the mean over the cardinalities of minus the distance to each class's rebuilt tuples.

    A query's tuples of frames attend to the tuples of all shots of a class; the distance is the mean over tuples of the
    squared length of what the attention cannot rebuild (Perrett et al., CVPR 2021, §3; sizes of the published code).

    Args:
        feature_size: of a frame.
        num_frames: T, of every video.
        cardinalities: sizes of the tuples, each from 1 to T.
        head_size: length of keys and values.
        dropout: after the positions are added.

    Raises:
        ValueError: no cardinality, or one beyond the frames; on call, videos with another number of frames.

    >>> head = TRXHead(feature_size=16, num_frames=8, cardinalities=(2, 3), head_size=12)
    >>> head(torch.rand(1, 10, 8, 16), torch.rand(1, 5, 3, 8, 16)).shape
    torch.Size([1, 10, 5])
    """

    def __init__(
        self,
        *,
        feature_size: int,
        num_frames: int,
        cardinalities: Sequence[int] = (2, 3),
        head_size: int = 1152,
        dropout: float = 0.1,
    ):
        super().__init__()
        if not cardinalities or len(set(cardinalities)) != len(cardinalities):
            raise ValueError(f"cardinalities must be different sizes of tuples, got {tuple(cardinalities)}")
        self.num_frames = num_frames
        self.branches = nn.ModuleList(
            TRXCardinality(
                feature_size=feature_size,
                num_frames=num_frames,
                cardinality=cardinality,
                head_size=head_size,
                dropout=dropout,
            )
            for cardinality in cardinalities
        )

    def forward(self, query: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
        """Scores (E, Q, way) of frames (E, Q, T, feature_size) for supports (E, way, shot, T, feature_size)."""
        if query.shape[-2] != support.shape[-2]:
            raise ValueError(f"queries have {query.shape[-2]} frames and supports {support.shape[-2]}: sample alike")
        # All videos through one product: its cost is mostly that of the weights.
        num_queries, shots = query.shape[1], support.shape[1:3]
        videos = self.project(torch.cat([query, support.flatten(1, 2)], dim=1))
        of_query = [of.take((slice(None), slice(num_queries))) for of in videos]
        of_support = [TRXVideos(*(part[:, num_queries:].unflatten(1, shots) for part in of)) for of in videos]
        return self.logits(of_query, of_support)

    def project(self, frames: torch.Tensor) -> list[TRXVideos]:
        """What :meth:`logits` needs of videos (..., T, feature_size), for each cardinality; done once a video."""
        if frames.shape[-2] != self.num_frames:
            raise ValueError(f"this TRX head takes videos of {self.num_frames} frames, got {frames.shape[-2]}")
        return [branch.project(frames) for branch in self._branches()]

    def logits(self, query: Sequence[TRXVideos], support: Sequence[TRXVideos]) -> torch.Tensor:
        """Scores of projected queries (E, Q, ...) for projected supports (E, way, shot, ...)."""
        scores = [branch.logits(*pair) for branch, *pair in zip(self._branches(), query, support, strict=True)]
        return torch.stack(scores).mean(dim=0)

    def _branches(self) -> Iterator[TRXCardinality]:
        return (branch for branch in self.branches if isinstance(branch, TRXCardinality))


def sine_positions(num_frames: int, feature_size: int) -> torch.Tensor:
    """(T, feature_size): a tenth of the sines and cosines of Vaswani et al. (2017).

    >>> sine_positions(2, 2)
    tensor([[0.0000, 0.1000],
            [0.0841, 0.0540]])
    """
    frequency = torch.exp(-torch.log(torch.tensor(1e4)) * torch.arange(0, feature_size, 2) / feature_size)
    angle = torch.arange(num_frames)[:, None] * frequency
    return 0.1 * torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :feature_size]


def tuple_slots(num_frames: int, cardinality: int) -> torch.Tensor:
    """(tuples, slots) of zeros and ones: which slots, frames at places, each increasing tuple is the sum of.

    Tuples stand in lexicographic order; slot ``place · width + i`` is frame ``place + i``, with ``width`` the number of
    frames that can stand at a place.

    >>> tuple_slots(3, 2).tolist()
    [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]]
    """
    tuples = torch.tensor(list(combinations(range(num_frames), cardinality)))
    width = num_frames - cardinality + 1
    places = torch.arange(cardinality)
    slots = places * width + tuples - places
    return torch.zeros(len(tuples), cardinality * width).scatter_(1, slots, 1.0)
