"""Step localization: one frame for each step, in order, the rest of the video is background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempclr.data.sampling import feature_range
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
    """Step localization of a set of videos. ``recall`` is the mean of ``recall_per_task``; frames and hits are per
    video."""

    protocol: LocalizationProtocol
    recall: float
    recall_per_task: dict[str, float]
    num_videos: int
    num_steps: int
    frames: tuple[NDArray[np.int64], ...]
    hits: tuple[NDArray[np.bool_], ...]

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


def evaluate_localization(
    model: Any, paragraphs: Sequence[Paragraph], *, batch_size: int = 64, show_progress_bar: bool = False
) -> LocalizationResult:
    """Recall of the annotated steps: one frame is chosen for each sentence and must fall into that sentence's segment.

    Frames are the video tower's hidden states, one a feature (:func:`tempclr.inference.feature_hidden_states`). The
    similarity is ``model.config.similarity``: ``"dot"`` takes raw products as released, ``"cosine"`` divides by
    ``model.config.temperature``. Recall is taken within each ``task`` and averaged over tasks; videos without a task
    form one group, ``"all"``. Raises :class:`InputError` for a video with fewer features than sentences.
    """
    from tqdm.auto import tqdm

    from tempclr.inference import encode_text, feature_hidden_states

    if not len(paragraphs):
        raise InputError("no videos to evaluate: the dataset is empty")
    similarity = model.config.similarity
    protocol = LocalizationProtocol(
        similarity=similarity, temperature=model.config.temperature if similarity == "cosine" else 1.0
    )
    frames, hits = [], []
    matched: dict[str, int] = {}
    total: dict[str, int] = {}
    for paragraph in tqdm(paragraphs, desc="localize", unit="video", disable=not show_progress_bar):
        features, rate = features_and_rate(paragraph)
        if len(features) < len(paragraph.sentences):
            raise InputError(
                f"video {paragraph.video_id!r} has {len(features)} features for {len(paragraph.sentences)} sentences; "
                "localization needs one each: extract more features a second or leave the video out"
            )
        cost = step_costs(
            feature_hidden_states(model, features),
            encode_text(model, list(paragraph.sentences), batch_size=batch_size),
            similarity=similarity,
            temperature=protocol.temperature,
        )
        chosen = localize_steps(cost)
        spans = [
            feature_range(start, end, features_per_second=rate, num_features=len(features))
            for start, end in zip(paragraph.starts, paragraph.ends, strict=True)
        ]
        first, last = np.array(spans).T
        hit = (first <= chosen) & (chosen < last)
        task = paragraph.task if paragraph.task is not None else ALL_TASKS
        matched[task] = matched.get(task, 0) + int(hit.sum())
        total[task] = total.get(task, 0) + len(hit)
        frames.append(chosen)
        hits.append(hit)
    return LocalizationResult(
        protocol=protocol,
        recall=step_recall(matched, total),
        recall_per_task={task: matched[task] / total[task] for task in sorted(total)},
        num_videos=len(frames),
        num_steps=sum(total.values()),
        frames=tuple(frames),
        hits=tuple(hits),
    )


def features_and_rate(paragraph: Paragraph) -> tuple[NDArray, float]:
    """The paragraph's features and how many a second, or an :class:`InputError` that says how to get them."""
    if paragraph.features is None or paragraph.features_per_second is None:
        raise InputError(
            f"video {paragraph.video_id!r} has no features: run `tempclr extract` on the dataset first",
            field="features",
        )
    return paragraph.features, paragraph.features_per_second
