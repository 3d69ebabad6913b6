"""Step localization: one frame for each step, in order, the rest of the video is background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempclr.data.sampling import feature_range
from tempclr.distributed import shared_map
from tempclr.errors import InputError
from tempclr.evaluation.metrics import step_recall
from tempclr.evaluation.protocols import LocalizationProtocol

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

ALL_TASKS = "all"


def localize_steps(cost: Tensor | NDArray) -> NDArray[np.int64]:
    """The strictly increasing frames, one a step, of the lowest total cost.

    ``cost``: (num_frames, num_steps), any real numbers; every other frame is background at cost 0, so only the chosen
    cells count. Returns (num_steps,) int64 frame indices. Needs num_frames >= num_steps (the released code returns all
    zeros where they are equal). Among equal totals the earliest last frame wins, then the earliest one before it. NaN
    is an error; +inf forbids a cell. The search of CrossTask (Zhukov et al. 2019), one frame a step.

    >>> localize_steps(np.array([[5.0, 0.0], [1.0, 5.0], [0.0, 2.0], [5.0, 2.0]])).tolist()
    [2, 3]
    """
    costs = cost.detach().cpu().double().numpy() if isinstance(cost, Tensor) else np.asarray(cost, dtype=np.float64)
    if costs.ndim != 2 or 0 in costs.shape:
        raise ValueError(f"cost must be a filled matrix (num_frames, num_steps), got shape {costs.shape}")
    num_frames, num_steps = costs.shape
    if num_frames < num_steps:
        raise ValueError(
            f"{num_steps} steps need at least as many frames, got {num_frames}: sample more features a second "
            "or cut the list of steps"
        )
    if np.isnan(costs).any():
        raise ValueError(f"cost holds NaN, first at frame and step {np.argwhere(np.isnan(costs))[0].tolist()}")
    # Note [Steps by running minima]: best[t] is the lowest total of the steps so far with the last of them at frame t.
    # The next step at frame t may follow any earlier frame, so it only needs the running minimum of best up to t - 1.
    # Step k cannot stand before frame k, nor so late that the steps after it find no frame; both ends stay inf.
    best = costs[:, 0].copy()
    previous = np.empty((num_steps, num_frames), dtype=np.int64)
    for step in range(1, num_steps):
        running, where = _running_minimum(best)
        previous[step, 1:] = where[:-1]
        best = np.full(num_frames, np.inf)
        best[step:] = running[step - 1 : -1] + costs[step:, step]
    frames = np.empty(num_steps, dtype=np.int64)
    frames[-1] = best.argmin()
    if not math.isfinite(best[frames[-1]]):
        raise ValueError("no strictly increasing choice of frames avoids the infinite cells of cost")
    for step in range(num_steps - 1, 0, -1):
        frames[step - 1] = previous[step, frames[step]]
    return frames


def _running_minimum(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Minimum of each prefix and the earliest index that holds it."""
    running = np.minimum.accumulate(values)
    improves = np.ones(len(values), dtype=bool)
    improves[1:] = running[1:] < running[:-1]
    return running, np.maximum.accumulate(np.where(improves, np.arange(len(values)), 0))


@dataclass(frozen=True)
class LocalizationResult:
    """Step localization of a set of videos.

    ``recall`` is the mean of ``recall_per_task``. ``frames``, ``hits`` and ``annotated`` have one array a video with
    one entry a step: the chosen frame (-1 where the official search finds none), whether it lies in the step's own
    segments, and whether the video has any (only such steps count).
    """

    protocol: LocalizationProtocol
    recall: float
    recall_per_task: dict[str, float]
    num_videos: int
    num_steps: int
    frames: tuple[NDArray[np.int64], ...]
    hits: tuple[NDArray[np.bool_], ...]
    annotated: tuple[NDArray[np.bool_], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The part that goes into a results file."""
        return {
            "protocol": self.protocol.to_dict(),
            "recall": self.recall,
            "recall_per_task": self.recall_per_task,
            "num_videos": self.num_videos,
            "num_steps": self.num_steps,
        }


def step_costs(frames: Tensor, steps: Tensor, *, similarity: str, temperature: float = 1.0) -> Tensor:
    """-log p(step | frame): (num_frames, d), (num_steps, d) -> (num_frames, num_steps).

    The probabilities are a softmax over the steps of the video's own paragraph, of the dot product (as released) or of
    cosine / temperature.
    """
    if similarity == "cosine":
        frames, steps = torch.nn.functional.normalize(frames, dim=-1), torch.nn.functional.normalize(steps, dim=-1)
    return -torch.log_softmax(frames @ steps.T / temperature, dim=-1)


def merge_windows(logits: Tensor, num_frames: int, *, window: int, stride: int) -> Tensor:
    """Mean of the logits of overlapping windows: (rows of all windows one after the other, K) -> (num_frames, K).

    Windows of ``window`` frames start every ``stride`` frames; the last one is the first to reach the end, where it is
    cut. So the released localization merges them; averaging hidden states, as :func:`evaluate_localization` does,
    gives the same dot products.

    Raises:
        ValueError: the windows of so many frames have another number of rows.

    >>> merge_windows(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), 3, window=2, stride=1).flatten().tolist()
    [0.0, 3.0, 6.0]
    """
    starts = torch.arange(0, max(1, num_frames - window + stride), stride)
    place = starts[:, None] + torch.arange(window)
    place = place[place < num_frames]
    if len(place) != len(logits):
        raise ValueError(
            f"windows of {window} every {stride} over {num_frames} frames have {len(place)} rows, got {len(logits)}"
        )
    place = place.to(logits.device)
    total = logits.new_zeros(num_frames, logits.shape[1]).index_add_(0, place, logits)
    return total / torch.bincount(place, minlength=num_frames)[:, None]


def evaluate_localization(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    protocol: str = "clean",
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> LocalizationResult:
    """Recall of the annotated steps: one frame is chosen for each step and must fall into one of the step's segments.

    The steps are those of the row's ``steps``, all of them in the task's order, whether or not the video shows them, as
    CrossTask evaluates; a step counts once a video if ``step_indices`` names it. Rows without ``steps`` take their
    sentences, each with its own segment.

    Frames are the video tower's hidden states, one a feature (:func:`tempclr.inference.feature_hidden_states`: windows
    of 32 every 16 at the released geometry, averaged where they overlap). ``model.config.similarity`` says how they
    are compared: ``"dot"`` takes raw products as released, ``"cosine"`` divides by ``model.config.temperature``. Recall
    is taken within each ``task`` and averaged over tasks; videos without a task form one group, ``"all"``.

    ``protocol="official"``: raw products, [CLS] hidden from the features, and no step found in a video with no more
    features than steps (the released search reads beyond its table there). Under ``torch.distributed`` every rank must
    call this; the videos are divided among them.

    Raises:
        InputError: no videos, a video without features, or (clean) with fewer features than steps.
    """
    if not len(paragraphs):
        raise InputError("no videos to evaluate: the dataset is empty")
    official = protocol == "official"
    similarity = "dot" if official else model.config.similarity
    temperature = model.config.temperature if similarity == "cosine" else 1.0
    settings = LocalizationProtocol(similarity=similarity, temperature=temperature, protocol=protocol)

    def localized(group: range) -> list[tuple[str, Any, Any, Any]]:
        own = [paragraphs[index] for index in group]
        costs = _paragraph_costs(model, own, settings, batch_size=batch_size)
        return [_chosen_frames(paragraph, cost, official=official) for paragraph, cost in zip(own, costs, strict=True)]

    bar = "localize" if show_progress_bar else None
    found = list(chain.from_iterable(shared_map(localized, video_groups(len(paragraphs)), bar=bar, size=len)))
    matched: dict[str, int] = {}
    total: dict[str, int] = {}
    for task, _, hits, annotated in found:
        matched[task] = matched.get(task, 0) + int(hits.sum())
        total[task] = total.get(task, 0) + int(annotated.sum())
    return LocalizationResult(
        protocol=settings,
        recall=step_recall(matched, total),
        recall_per_task={task: matched[task] / total[task] for task in sorted(total) if total[task]},
        num_videos=len(found),
        num_steps=sum(total.values()),
        frames=tuple(chosen for _, chosen, _, _ in found),
        hits=tuple(hits for _, _, hits, _ in found),
        annotated=tuple(np.atleast_1d(annotated) for _, _, _, annotated in found),
    )


def video_groups(num_videos: int) -> list[range]:
    """Which videos share batches: eight at a time, whose clips about fill one, so that few features are held at once.

    Ranks share the groups, which are the same on any number of them, and so are the vectors.

    >>> video_groups(10)
    [range(0, 8), range(8, 10)]
    """
    return [range(first, min(first + 8, num_videos)) for first in range(0, num_videos, 8)]


def step_texts(paragraph: Paragraph) -> list[str]:
    """The texts that are localized: all steps of the task where the row lists them, else its sentences."""
    return list(paragraph.sentences if paragraph.steps is None else paragraph.steps)


def step_frames(paragraph: Paragraph, num_frames: int, *, official: bool = False) -> NDArray[np.bool_]:
    """(num_frames, num_steps): which frames lie in a segment of which step.

    A segment has the frames it touches, at least one. The released code takes floor(start) to ceil(end) as they are.
    """
    _, rate = features_and_rate(paragraph)
    inside = np.zeros((num_frames, len(step_texts(paragraph))), dtype=bool)
    indices = range(len(paragraph)) if paragraph.step_indices is None else paragraph.step_indices
    for start, end, step in zip(paragraph.starts, paragraph.ends, indices, strict=True):
        if official:
            first, last = math.floor(start * rate), math.ceil(end * rate)
        else:
            first, last = feature_range(start, end, features_per_second=rate, num_features=num_frames)
        inside[first:last, step] = True
    return inside


def _chosen_frames(paragraph: Paragraph, cost: Tensor, *, official: bool) -> tuple[str, Any, Any, Any]:
    """A video's task, and of each step the frame that is chosen, whether it is right, and whether it can be."""
    inside = step_frames(paragraph, len(cost), official=official)
    lost = official and len(cost) <= cost.shape[1]
    chosen = np.full(cost.shape[1], -1) if lost else localize_steps(cost)
    hits = (chosen >= 0) & inside[chosen, np.arange(len(chosen))]
    return paragraph.task if paragraph.task is not None else ALL_TASKS, chosen, hits, inside.any(axis=0)


def _paragraph_costs(
    model: Any, paragraphs: Sequence[Paragraph], protocol: LocalizationProtocol, *, batch_size: int
) -> list[Tensor]:
    """(num_frames, num_steps) of each video; a step that several of them have is embedded once."""
    from tempclr.evaluation.embeddings import hidden_cls
    from tempclr.inference import encode_text, hidden_states_of_videos

    official = protocol.protocol == "official"
    features = [_features_for_steps(paragraph, official=official) for paragraph in paragraphs]
    with hidden_cls(model) if official else nullcontext():
        states = hidden_states_of_videos(model, features, batch_size=batch_size)
    texts = [step_texts(paragraph) for paragraph in paragraphs]
    distinct = list(dict.fromkeys(chain.from_iterable(texts)))
    rows = dict(zip(distinct, encode_text(model, distinct, batch_size=batch_size), strict=True))
    options: dict[str, Any] = {"similarity": protocol.similarity, "temperature": protocol.temperature}
    return [
        step_costs(frames, torch.stack([rows[text] for text in steps]), **options)
        for frames, steps in zip(states, texts, strict=True)
    ]


def _features_for_steps(paragraph: Paragraph, *, official: bool) -> NDArray:
    features, _ = features_and_rate(paragraph)
    num_steps = len(step_texts(paragraph))
    if len(features) < num_steps and not official:
        what = "sentences" if paragraph.steps is None else "steps"
        raise InputError(
            f"video {paragraph.video_id!r} has {len(features)} features for {num_steps} {what}; "
            "localization needs one each: extract more features a second or leave the video out"
        )
    return features


def features_and_rate(paragraph: Paragraph) -> tuple[NDArray, float]:
    """The paragraph's features and how many a second, or an :class:`InputError` that says how to get them."""
    if paragraph.features is None or paragraph.features_per_second is None:
        raise InputError(
            f"video {paragraph.video_id!r} has no features: run `tempclr extract` on the dataset first",
            field="features",
        )
    return paragraph.features, paragraph.features_per_second
