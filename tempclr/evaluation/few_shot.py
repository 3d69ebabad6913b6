"""Few-shot classification: accuracy over thousands of episodes, from distances that are computed once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tempclr.costs import cosine_cost
from tempclr.data.episodes import Episode, EpisodeSampler
from tempclr.data.sequences import SequenceSet
from tempclr.errors import InputError
from tempclr_kernels import pairwise_distances

__all__ = [
    "FEW_SHOT_MEASURES",
    "FewShotProtocol",
    "FewShotResult",
    "embed_sequences",
    "evaluate_few_shot",
    "mean_and_half_width",
    "video_distances",
]

FEW_SHOT_MEASURES = ("otam", "dtw", "mean_pool", "bi_mhm", "trx")
MATRIX_BYTES = 4 << 30  # the largest matrix of distances that is held; beyond it each task computes its own
Scorer = Callable[[Episode], NDArray[np.floating]]


@dataclass(frozen=True)
class FewShotProtocol:
    """N-way K-shot classification by the mean distance to each class's supports, ``num_tasks`` episodes.

    ``num_queries`` of each class: 15 as TempCLR writes, 1 as public code does. ``class_weighted``: a task's accuracy is
    the mean over its classes instead of its queries, which differ where a class has few videos. ``shuffle_queries``:
    the frames of every query stand in a random order, a control for how much a measure owes to order.

    >>> FewShotProtocol(measure="otam", shot=5).name
    'few-shot/5-way-5-shot/otam'
    """

    measure: str
    way: int = 5
    shot: int = 1
    num_queries: int = 15
    num_tasks: int = 10_000
    seed: int = 0
    gamma: float = 0.1
    eps: float = 0.01
    num_frames: int | None = None
    sampling: str = "tsn"
    class_weighted: bool = False
    shuffle_queries: bool = False

    def __post_init__(self) -> None:
        if self.measure not in FEW_SHOT_MEASURES:
            raise ValueError(f"measure must be one of {', '.join(FEW_SHOT_MEASURES)}, got {self.measure!r}")
        if self.num_tasks < 1:
            raise ValueError(f"num_tasks must be at least 1, got {self.num_tasks}")

    @property
    def name(self) -> str:
        """Task and measure, as ``few-shot/5-way-1-shot/otam``."""
        return f"few-shot/{self.way}-way-{self.shot}-shot/{self.measure}"

    def to_dict(self) -> dict[str, Any]:
        """The name and every setting, for a results file."""
        return {"name": self.name} | asdict(self)


@dataclass(frozen=True)
class FewShotResult:
    """``accuracy`` is the mean of ``per_task``; ``accuracy ± half_width`` its 95 % interval.

    ``short_classes`` and ``left_out_classes`` are those of :class:`tempclr.data.episodes.EpisodeSampler`.
    """

    protocol: FewShotProtocol
    accuracy: float
    half_width: float
    num_classes: int
    num_videos: int
    short_classes: dict[str, int]
    left_out_classes: dict[str, int]
    per_task: NDArray[np.float64] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The part that goes into a results file."""
        names = ("accuracy", "half_width", "num_classes", "num_videos", "short_classes", "left_out_classes")
        return {"protocol": self.protocol.to_dict()} | {name: getattr(self, name) for name in names}


def mean_and_half_width(per_task: ArrayLike) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval: ``1.96 · std / sqrt(n)``, the deviation with divisor n.

    >>> mean_and_half_width([0.0, 1.0, 0.0, 1.0])
    (0.5, 0.49)
    """
    values = np.asarray(per_task, dtype=np.float64)
    return float(values.mean()), float(1.96 * values.std() / math.sqrt(values.size))


def evaluate_few_shot(
    sequences: SequenceSet,
    *,
    measure: str | None = None,
    model: Any = None,
    way: int = 5,
    shot: int = 1,
    num_queries: int = 15,
    num_tasks: int = 10_000,
    seed: int = 0,
    gamma: float | None = None,
    eps: float | None = None,
    num_frames: int | None = None,
    sampling: str = "tsn",
    class_weighted: bool = False,
    shuffle_queries: bool = False,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> FewShotResult:
    """Accuracy over episodes drawn from the classes of ``sequences``, which should be none the model was trained on.

    Distances between distinct videos are computed once, not once a task. The same seed draws the same tasks, so that
    two runs can be compared task by task. A query whose own class shares its score with another counts as wrong.

    Args:
        sequences: features of frames; with ``model``, what it takes.
        measure: see :class:`FewShotProtocol`; None is the head of a ``FewShotForEpisodes``, otherwise ``"otam"``.
            ``"trx"`` needs a model with that head.
        model: a ``FewShotForEpisodes`` or ``FewShotModel`` whose embeddings are compared; None compares the features.
        way, shot, num_queries, num_tasks, seed, class_weighted, shuffle_queries: see :class:`FewShotProtocol`.
        gamma, eps: of the distance; None is the model's, or 0.1 and 0.01.
        num_frames: frames sampled from each sequence; None takes sequences as they are.
        sampling: rule of :func:`tempclr.data.few_shot_frames.sample_frames`.
        batch_size: sequences embedded at once.

    Raises:
        InputError: too few classes with enough videos, or sequences that do not suit the model.

    >>> gestures = SequenceSet([np.eye(4)[[0, 1]], np.eye(4)[[1, 0]]] * 9, ["push", "pull"] * 9)
    >>> evaluate_few_shot(gestures, way=2, num_tasks=20).accuracy
    1.0
    """
    config = getattr(model, "config", None)
    protocol = FewShotProtocol(
        measure=measure or (model.config.head if hasattr(model, "score") else "otam"),
        way=way,
        shot=shot,
        num_queries=num_queries,
        num_tasks=num_tasks,
        seed=seed,
        gamma=_first(gamma, getattr(config, "gamma", None), 0.1),
        eps=_first(eps, getattr(config, "cosine_eps", None), 0.01),
        num_frames=num_frames,
        sampling=sampling,
        class_weighted=class_weighted,
        shuffle_queries=shuffle_queries,
    )
    sampler = EpisodeSampler(sequences.labels, way=way, shot=shot, num_queries=num_queries, seed=seed)
    # Before frames are sampled: an order of frames that were sampled already would shuffle what the sampling chose.
    support = sequences if num_frames is None else sequences.sampled(num_frames, sampling=sampling)
    query = support.shuffled(seed=seed) if shuffle_queries else support
    scorer = _scorer(protocol, sampler, query, support, model, batch_size)
    per_task = _run(sampler, scorer, protocol, show_progress_bar)
    accuracy, half_width = mean_and_half_width(per_task)
    return FewShotResult(
        protocol=protocol,
        accuracy=accuracy,
        half_width=half_width,
        num_classes=len(sampler.classes),
        num_videos=sum(len(members) for members in sampler.members.values()),
        short_classes=sampler.short_classes,
        left_out_classes=sampler.left_out_classes,
        per_task=per_task,
    )


def video_distances(
    query: Tensor,
    support: Tensor,
    query_lengths: Tensor | None = None,
    support_lengths: Tensor | None = None,
    *,
    measure: str = "otam",
    gamma: float = 0.1,
    eps: float = 0.01,
) -> Tensor:
    """Distances of all pairs, as :func:`tempclr.models.few_shot.sequence_distances` defines them; not differentiable.

    Args:
        query: (A, T, d), padded behind. support: (B, U, d). query_lengths, support_lengths: (A,), (B,); None is all.

    Returns:
        (A, B) float32 (float64 for float64 embeddings).

    >>> frames = torch.eye(3)[None]
    >>> video_distances(frames, torch.cat([frames, frames.flip(1)]), measure="dtw", gamma=0.0, eps=0.0)
    tensor([[0., 2.]])
    """
    lengths = (query_lengths, support_lengths)
    # The cost of (b, a) is that of (a, b) turned: among the same videos the other way is the other half of the matrix.
    same = query is support and query_lengths is support_lengths
    if measure in ("otam", "dtw"):
        turn = measure == "otam" and not same
        there = pairwise_distances(query, support, *lengths, measure=measure, gamma=gamma, both_ways=turn, eps=eps)
        return there + there.T if measure == "otam" and same else there
    if measure == "mean_pool":
        return cosine_cost(_means(query, query_lengths), _means(support, support_lengths), eps=eps)
    if measure != "bi_mhm":
        raise ValueError(f"measure must be one of otam, dtw, mean_pool, bi_mhm, got {measure!r}")
    # cap_avg is minus the mean best similarity of a's units, so 1 + cap_avg is their mean least cost.
    there = 1 + pairwise_distances(query, support, *lengths, measure="cap_avg")
    back = there if same else 1 + pairwise_distances(support, query, *lengths[::-1], measure="cap_avg")
    of_query, of_support = _sizes(query, query_lengths), _sizes(support, support_lengths)
    return there * of_query[:, None] + back.T * of_support


@torch.no_grad()
def embed_sequences(model: Any, sequences: SequenceSet, *, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """What ``model.embed`` makes of every sequence: ``(embeddings, lengths)``, (N, longest, d) and (N,), on its device.

    Raises:
        InputError: sequences of another width than the model's, or longer than it takes; no batch_size.
    """
    if batch_size < 1:
        raise InputError(f"must be at least 1, got {batch_size}", field="batch_size")
    config = model.config
    if sequences.feature_size != config.feature_size:
        found = f"width {sequences.feature_size}, but the model takes {config.feature_size}"
        raise InputError(found, field="features")
    if max(sequences.lengths) > config.max_num_frames:
        found = f"a sequence of {max(sequences.lengths)} frames, but the model takes {config.max_num_frames}"
        raise InputError(f"{found}: sample them (num_frames)", field="features")
    was_training, device = model.training, next(model.parameters()).device
    features, lengths = (part.to(device) for part in sequences.padded())
    mask = torch.arange(features.shape[1], device=device) < lengths[:, None]
    model.eval()
    try:
        parts = zip(features.split(batch_size), mask.split(batch_size), strict=True)
        return torch.cat([model.embed(*part) for part in parts]).float(), lengths
    finally:
        model.train(was_training)


def _scorer(
    protocol: FewShotProtocol,
    sampler: EpisodeSampler,
    query: SequenceSet,
    support: SequenceSet,
    model: Any,
    batch_size: int,
) -> Scorer:
    """A function from an episode to its scores (Q, way)."""

    def embedded(sequences: SequenceSet) -> tuple[Tensor, Tensor]:
        return sequences.padded() if model is None else embed_sequences(model, sequences, batch_size=batch_size)

    supports = embedded(support)
    queries = supports if query is support else embedded(query)
    if protocol.measure == "trx":
        return _trx_scorer(model, queries, supports, batch_size)
    settings: dict[str, Any] = {"measure": protocol.measure, "gamma": protocol.gamma, "eps": protocol.eps}
    used = np.sort(np.concatenate(list(sampler.members.values())))
    pairs_of_tasks = protocol.num_tasks * protocol.way**2 * protocol.shot * protocol.num_queries
    if 4 * len(used) ** 2 > MATRIX_BYTES or len(used) ** 2 > pairs_of_tasks:
        return _scorer_by_task(queries, supports, settings)
    place = np.zeros(used[-1] + 1, dtype=np.int64)
    place[used] = np.arange(len(used))
    frames, lengths = (part[used] for part in supports)
    query_frames, query_lengths = (frames, lengths) if queries is supports else (part[used] for part in queries)
    distances = video_distances(query_frames, frames, query_lengths, lengths, **settings).cpu().numpy()
    _check_numbers(distances)

    def score(episode: Episode) -> NDArray[np.floating]:
        between = distances[place[episode.query][:, None], place[episode.support.ravel()]]
        return -between.reshape(len(between), *episode.support.shape).mean(axis=2)

    return score


def _scorer_by_task(
    queries: tuple[Tensor, Tensor], supports: tuple[Tensor, Tensor], settings: dict[str, Any]
) -> Scorer:
    (query_frames, query_lengths), (frames, lengths) = queries, supports

    def score(episode: Episode) -> NDArray[np.floating]:
        own, others = episode.query, episode.support.ravel()
        distances = video_distances(query_frames[own], frames[others], query_lengths[own], lengths[others], **settings)
        between = distances.cpu().numpy()
        _check_numbers(between)
        return -between.reshape(len(between), *episode.support.shape).mean(axis=2)

    return score


def _trx_scorer(model: Any, queries: tuple[Tensor, Tensor], supports: tuple[Tensor, Tensor], batch_size: int) -> Scorer:
    if getattr(getattr(model, "config", None), "head", None) != "trx":
        raise InputError("measure 'trx' needs a model that was trained with that head", field="measure")
    num_frames = model.config.max_num_frames
    if any(bool((lengths != num_frames).any()) for _, lengths in (queries, supports)):
        raise InputError(f"the TRX head takes sequences of exactly {num_frames} frames: sample them", field="features")

    @torch.no_grad()
    def projected(frames: Tensor) -> list[Any]:
        parts = [model.head.project(part) for part in frames.split(batch_size)]
        return [type(of[0])(*map(torch.cat, zip(*of, strict=True))) for of in zip(*parts, strict=True)]

    was_training = model.training
    model.eval()
    try:
        by_support = projected(supports[0])
        by_query = by_support if queries is supports else projected(queries[0])
    finally:
        model.train(was_training)

    @torch.no_grad()
    def score(episode: Episode) -> NDArray[np.floating]:
        query, support = torch.from_numpy(episode.query), torch.from_numpy(episode.support)
        chosen = ([of.take(query[None]) for of in by_query], [of.take(support[None]) for of in by_support])
        scores = model.head.logits(*chosen)[0].cpu().numpy()
        _check_numbers(scores)
        return scores

    return score


def _run(sampler: EpisodeSampler, scorer: Scorer, protocol: FewShotProtocol, show: bool) -> NDArray[np.float64]:
    from tqdm import tqdm

    per_task = np.empty(protocol.num_tasks)
    for number in tqdm(range(protocol.num_tasks), desc=protocol.name, unit="task", disable=not show):
        episode = sampler.draw(number)
        right = _is_right(scorer(episode), episode.query_labels)
        if protocol.class_weighted:
            counts = np.bincount(episode.query_labels, minlength=protocol.way)
            per_task[number] = (np.bincount(episode.query_labels, right, minlength=protocol.way) / counts).mean()
        else:
            per_task[number] = right.mean()
    return per_task


def _is_right(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the own class alone scores best; see Note [Ties rank last] in tempclr.evaluation.metrics."""
    rows = np.arange(len(labels))
    own = scores[rows, labels]
    return (scores >= own[:, None]).sum(axis=1) == 1


def _check_numbers(values: NDArray[np.floating]) -> None:
    if np.isnan(values).any():
        raise InputError("distances hold NaN: check the features and the model's weights")


def _sizes(frames: Tensor, lengths: Tensor | None) -> Tensor:
    return torch.full((len(frames),), frames.shape[1], device=frames.device) if lengths is None else lengths


def _means(frames: Tensor, lengths: Tensor | None) -> Tensor:
    sizes = _sizes(frames, lengths)
    beyond = torch.arange(frames.shape[1], device=frames.device) >= sizes[:, None]
    return frames.masked_fill(beyond[..., None], 0).sum(dim=1) / sizes[:, None]


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
