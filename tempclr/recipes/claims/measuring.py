"""All that is measured on one model and one set of videos: numbers by key, and per video what intervals need.

A key reads like a path: ``clean/removed/dtw/R@1``. Shares lie between 0 and 1. Per video stand ranks (keys ending in
``rank``) or shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tempclr.costs import cost_matrix
from tempclr.data.rows import Paragraph
from tempclr.evaluation.embeddings import Embeddings
from tempclr.evaluation.metrics import ranks, recall_at_k

__all__ = ["Scores", "aligned_seconds", "measure_localization", "measure_model", "order_ranks", "scored"]

KS = (1, 5, 10)
NUM_ORDERS = 31
NORMALISATIONS = ("none", "area", "sides", "path")


@dataclass
class Scores:
    """``numbers[key]``, and ``per_video[key]``: one entry a video, in the order of the videos."""

    numbers: dict[str, float] = field(default_factory=dict)
    per_video: dict[str, list[float]] = field(default_factory=dict)

    def add_ranks(self, key: str, found: Any) -> None:
        self.numbers |= {f"{key}/R@{k}": recall_at_k(found, k) for k in KS}
        self.numbers[f"{key}/median"] = float(np.median(found))
        self.per_video[f"{key}/rank"] = np.asarray(found).tolist()

    def add_shares(self, key: str, found: Any) -> None:
        self.numbers[key] = float(np.mean(found))
        self.per_video[key] = np.asarray(found, dtype=np.float64).round(6).tolist()

    def to_dict(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "per_video": self.per_video}


def scored(scores: dict[str, Any], key: str) -> np.ndarray:
    """(num_videos,) what the number of ``key`` is the mean of: shares, or hits where ranks were kept for ``…/R@k``."""
    if key in scores["per_video"]:
        return np.asarray(scores["per_video"][key], dtype=np.float64)
    stem, _, k = key.rpartition("/R@")
    return (np.asarray(scores["per_video"][f"{stem}/rank"]) <= int(k)).astype(np.float64)


def measure_model(model: Any, paragraphs: Sequence[Paragraph], *, window_seconds: float) -> Scores:
    """Retrieval (both backgrounds, both protocols, all measures), localization, matching, order, and normalisations."""
    from tempclr.evaluation.clip_retrieval import clip_retrieval_from_embeddings
    from tempclr.evaluation.matching import matching_from_embeddings
    from tempclr.evaluation.suite import measure_task

    scores = Scores()
    measured = measure_task(
        model, paragraphs, "retrieval", protocols=("clean", "official"), window_seconds=window_seconds
    )
    for name, result in measured.results.items():
        background, _, protocol = name.removeprefix("background ").partition(", ")
        for measure, found in result.ranks.items():
            scores.add_ranks(f"{protocol or 'clean'}/{background}/{measure}", found)
    embeddings = measured.embeddings["background removed"]
    scores.add_shares("matching", matching_from_embeddings(embeddings).per_video)
    clips = clip_retrieval_from_embeddings(embeddings).ranks["text-to-video"]
    by_video = np.split(clips, np.cumsum(embeddings.num_clips.numpy())[:-1])
    for k in KS:
        scores.add_shares(f"clip/R@{k}", [np.mean(one <= k) for one in by_video])
    for name, found in normalised_ranks(embeddings).items():
        scores.add_ranks(f"normalised/{name}", found)
    scores.add_ranks("mean-pooled", mean_pooled_ranks(embeddings))
    scores.add_ranks("order", order_ranks(embeddings))
    for key, shares in measure_localization(model, paragraphs).items():
        scores.add_shares(key, shares)
    return scores


def measure_localization(model: Any, paragraphs: Sequence[Paragraph]) -> dict[str, np.ndarray]:
    """Each video's share of steps found (clean and official protocol), and of seconds that DTW aligns rightly."""
    from tempclr.evaluation.localization import evaluate_localization

    found: dict[str, np.ndarray] = {}
    for protocol in ("clean", "official"):
        result = evaluate_localization(model, paragraphs, protocol=protocol)
        name = "localization" if protocol == "clean" else "localization, official"
        found[name] = np.array([hits.mean() for hits in result.hits])
    found["seconds"] = aligned_seconds(model, paragraphs)
    return found


def aligned_seconds(model: Any, paragraphs: Sequence[Paragraph]) -> np.ndarray:
    """(num_videos,) share of each video's annotated seconds that the hard DTW path gives to a sentence said of them.

    The path runs over every second of the video, background too, by the cosines of hidden states and sentences.
    """
    from tempclr.evaluation.localization import step_frames
    from tempclr.inference import encode_text, hidden_states_of_videos
    from tempclr_kernels import alignment

    sentences = encode_text(model, [sentence for paragraph in paragraphs for sentence in paragraph.sentences])
    of_videos = sentences.split([len(paragraph.sentences) for paragraph in paragraphs])
    hidden = hidden_states_of_videos(model, [paragraph.features for paragraph in paragraphs])
    shares = []
    for paragraph, vectors, states in zip(paragraphs, of_videos, hidden, strict=True):
        cost = cost_matrix(vectors, states)
        inside = step_frames(paragraph, len(states))
        path = alignment(cost, measure="dtw").bool().numpy().T
        shown = inside.any(axis=1)
        shares.append((path & inside)[shown].any(axis=1).mean())
    return np.array(shares)


def normalised_ranks(embeddings: Embeddings, *, similarity: str = "cosine") -> dict[str, np.ndarray]:
    """Ranks by the DTW distance as it is, and divided by rows · columns, by rows + columns, by cells on the path.

    ``"soft"`` is the soft distance (gamma 0.1) divided by rows · columns. Background removed.
    """
    from tempclr_kernels import pairwise_distances

    inputs = (embeddings.sentences, embeddings.clips, embeddings.num_sentences, embeddings.num_clips)
    raw = pairwise_distances(*inputs, measure="dtw", similarity=similarity)
    soft = pairwise_distances(*inputs, measure="dtw", similarity=similarity, gamma=0.1)
    rows, columns = embeddings.num_sentences[:, None], embeddings.num_clips[None, :]
    divisors: dict[str, Any] = {
        "none": 1,
        "area": rows * columns,
        "sides": rows + columns,
        "path": _path_lengths(embeddings, similarity),
    }
    found = {name: ranks((-raw / divisors[name]).numpy()) for name in NORMALISATIONS}
    return {**found, "soft": ranks((-soft / divisors["area"]).numpy())}


def _path_lengths(embeddings: Embeddings, similarity: str) -> Tensor:
    """(num_videos, num_videos) cells on the DTW path of each paragraph and video; a row at a time."""
    from tempclr_kernels import alignment

    found = []
    for sentences, count in zip(embeddings.sentences, embeddings.num_sentences, strict=True):
        cost = cost_matrix(sentences.expand(len(embeddings), -1, -1), embeddings.clips, similarity=similarity)
        lengths = torch.stack([count.expand(len(embeddings)), embeddings.num_clips], dim=1)
        found.append(alignment(cost, lengths, measure="dtw").sum(dim=(1, 2)))
    return torch.stack(found)


def mean_pooled_ranks(embeddings: Embeddings) -> np.ndarray:
    """Ranks by the cosine of the mean sentence and the mean clip: no order, no matching."""
    pooled = []
    for vectors, lengths in (
        (embeddings.sentences, embeddings.num_sentences),
        (embeddings.clips, embeddings.num_clips),
    ):
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        real = torch.arange(vectors.shape[1]) < lengths[:, None]
        pooled.append(torch.nn.functional.normalize((unit * real[..., None]).sum(dim=1), dim=-1))
    return ranks((pooled[0] @ pooled[1].T).numpy())


def order_ranks(embeddings: Embeddings, *, num_orders: int = NUM_ORDERS, seed: int = 0) -> np.ndarray:
    """(num_videos,) rank of the true order of a video's segments among shuffled ones, by DTW to its own paragraph."""
    from tempclr.negatives import sample_negatives
    from tempclr_kernels import dtw

    places = torch.arange(embeddings.clips.shape[1])
    clip_mask = places < embeddings.num_clips[:, None]
    negatives = sample_negatives(
        "seg_only",
        sentence_mask=torch.arange(embeddings.sentences.shape[1]) < embeddings.num_sentences[:, None],
        clip_mask=clip_mask,
        clip_sentence_index=torch.where(clip_mask, places, -1),
        num_negatives=num_orders,
        generator=torch.Generator().manual_seed(seed),
    )
    lengths = torch.stack([embeddings.num_sentences, embeddings.num_clips], dim=1)
    cost = cost_matrix(embeddings.sentences, embeddings.clips)
    found = dtw(cost, lengths, column_orders=negatives.column_orders)
    return ranks(-found.numpy(), targets=np.zeros(len(found), dtype=np.int64))
