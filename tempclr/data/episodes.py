"""Few-shot episodes: N classes, K labelled supports of each, and queries to be told apart; drawn by seed and number."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tempclr.data.few_shot_frames import sample_frames
from tempclr.data.sequences import SequenceSet, pad_sequences
from tempclr.errors import InputError

__all__ = ["Episode", "EpisodeDataset", "EpisodeSampler", "collate_episodes", "collate_frames"]

PADDING_LABEL = -100


@dataclass(frozen=True, eq=False)
class Episode:
    """One task; all numbers are positions in the list of labels it was drawn from.

    ``classes`` (way,) the words; ``support`` (way, shot); ``query`` (Q,) and ``query_labels`` (Q,), places in classes.
    """

    classes: tuple[str, ...]
    support: NDArray[np.int64]
    query: NDArray[np.int64]
    query_labels: NDArray[np.int64]


class EpisodeSampler:
    """Draws N-way K-shot episodes: classes uniformly without replacement, then distinct videos of each.

    The episode of a number depends on seed and number alone, so that any of them can be drawn again, in any order.

    Note [Classes with few videos]: two test classes of SSv2-OTAM have 17 and 18 videos, too few for 5 shots and 15
    queries. Such a class gives the queries it has, ``min(num_queries, videos - shot)``, and stands in
    ``short_classes``; a class without any video left for a query takes no part, and stands in ``left_out_classes``.

    Args:
        labels: the class of each video.
        way, shot: classes of an episode, supports of each.
        num_queries: queries of each class; public code takes 1 at test, TempCLR 15.
        seed: of every draw.

    Attributes:
        classes: those that take part, sorted.
        short_classes: queries that each class gives which has too few videos.
        left_out_classes: number of videos of each class left out.

    Raises:
        InputError: fewer than ``way`` classes take part.

    >>> sampler = EpisodeSampler(["run"] * 4 + ["walk"] * 9, way=2, shot=2, num_queries=5)
    >>> sampler.short_classes, len(sampler.draw(0).query)
    ({'run': 2}, 7)
    """

    def __init__(self, labels: Sequence[str], *, way: int = 5, shot: int = 1, num_queries: int = 15, seed: int = 0):
        for name, value in (("way", way), ("shot", shot), ("num_queries", num_queries)):
            if value < 1:
                raise InputError(f"must be at least 1, got {value}", field=name)
        self.way, self.shot, self.num_queries, self.seed = way, shot, num_queries, seed
        members: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            members.setdefault(str(label), []).append(index)
        self.left_out_classes = {name: len(of) for name, of in sorted(members.items()) if len(of) <= shot}
        self.members = {name: np.array(of) for name, of in sorted(members.items()) if len(of) > shot}
        self.classes = list(self.members)
        left = {name: len(of) - shot for name, of in self.members.items()}
        self.short_classes = {name: count for name, count in left.items() if count < num_queries}
        if len(self.classes) < way:
            needed = f"{way} classes of at least {shot + 1} videos"
            raise InputError(
                f"{way}-way {shot}-shot episodes need {needed}, there are {len(self.classes)}", field="way"
            )

    def draw(self, number: int) -> Episode:
        """The episode of that number, from 0 on."""
        generator = np.random.default_rng((self.seed, number))
        chosen = generator.choice(len(self.classes), self.way, replace=False)
        support, query, query_labels = [], [], []
        for place, index in enumerate(chosen):
            members = self.members[self.classes[index]]
            count = min(self.shot + self.num_queries, len(members))
            videos = members[generator.choice(len(members), count, replace=False)]
            support.append(videos[: self.shot])
            query.append(videos[self.shot :])
            query_labels.append(np.full(count - self.shot, place))
        return Episode(
            classes=tuple(self.classes[index] for index in chosen),
            support=np.stack(support),
            query=np.concatenate(query),
            query_labels=np.concatenate(query_labels),
        )


class EpisodeDataset(torch.utils.data.Dataset):
    """Episodes for a DataLoader: item i of epoch e is another episode than item i of any other epoch.

    Args:
        sequences: of the training classes.
        num_episodes: how many make an epoch.
        num_frames: frames of a sequence, sampled anew each time; None takes sequences as they are.
        sampling: rule of :func:`tempclr.data.few_shot_frames.sample_frames`.
        way, shot, num_queries, seed: see :class:`EpisodeSampler`.
        training: False takes the frames by the rule for tests, and the same episodes in every epoch.

    >>> walks = SequenceSet([np.zeros((9, 3))] * 12, ["run", "walk"] * 6)
    >>> item = EpisodeDataset(walks, num_episodes=3, num_frames=8, way=2, shot=1, num_queries=2)[0]
    >>> len(item["support"]), item["query"][0].shape
    (2, (8, 3))
    """

    def __init__(
        self,
        sequences: SequenceSet,
        *,
        num_episodes: int,
        num_frames: int | None = None,
        sampling: str = "tsn",
        way: int = 5,
        shot: int = 1,
        num_queries: int = 5,
        seed: int = 0,
        training: bool = True,
    ):
        if num_episodes < 1:
            raise InputError(f"must be at least 1, got {num_episodes}", field="num_episodes")
        self.sampler = EpisodeSampler(sequences.labels, way=way, shot=shot, num_queries=num_queries, seed=seed)
        self.sequences, self.num_episodes, self.num_frames = sequences, num_episodes, num_frames
        self.sampling, self.training, self.epoch = sampling, training, 0

    def set_epoch(self, epoch: int) -> None:
        """What is drawn from now on is that of this epoch; the Trainer says so."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_episodes

    def __getitem__(self, item: int) -> dict[str, Any]:
        number = item + (self.epoch * self.num_episodes if self.training else 0)
        episode = self.sampler.draw(number)
        rng = random.Random(f"{self.sampler.seed}/{number}") if self.training else None
        return {
            "way": self.sampler.way,
            "support": [self._frames(index, rng) for index in episode.support.ravel().tolist()],
            "query": [self._frames(index, rng) for index in episode.query.tolist()],
            "query_labels": episode.query_labels,
        }

    def _frames(self, index: int, rng: random.Random | None) -> np.ndarray:
        sequence = self.sequences.sequences[index]
        if self.num_frames is None:
            return sequence
        return sequence[sample_frames(len(sequence), num_samples=self.num_frames, sampling=self.sampling, rng=rng)]


class FrameDataset(torch.utils.data.Dataset):
    """Single sequences for pretraining, their frames sampled anew in every epoch; labels take no part.

    Args:
        sequences: any.
        num_frames: frames of a sequence; None takes sequences as they are.
        sampling: rule of :func:`tempclr.data.few_shot_frames.sample_frames`.
        seed: of the sampling.
        training: False takes the frames by the rule for tests.
    """

    def __init__(
        self,
        sequences: SequenceSet,
        *,
        num_frames: int | None = None,
        sampling: str = "tsn",
        seed: int = 0,
        training: bool = True,
    ):
        self.sequences, self.num_frames, self.sampling = sequences, num_frames, sampling
        self.seed, self.training, self.epoch = seed, training, 0

    def set_epoch(self, epoch: int) -> None:
        """What is drawn from now on is that of this epoch; the Trainer says so."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, item: int) -> np.ndarray:
        sequence = self.sequences.sequences[item]
        if self.num_frames is None:
            return sequence
        rng = random.Random(f"{self.seed}/{self.epoch}/{item}") if self.training else None
        return sequence[sample_frames(len(sequence), num_samples=self.num_frames, sampling=self.sampling, rng=rng)]


def collate_frames(sequences: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """What ``FewShotModel`` takes: ``frame_features`` (N, T, F) and ``frame_mask`` (N, T).

    >>> collate_frames([np.zeros((2, 3)), np.zeros((4, 3))])["frame_mask"].sum()
    tensor(6)
    """
    features, lengths = pad_sequences(sequences)
    return {"frame_features": features, "frame_mask": torch.arange(features.shape[1]) < lengths[:, None]}


def collate_episodes(items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """What ``FewShotForEpisodes`` takes, of one or several items of :class:`EpisodeDataset`.

    Episodes with fewer queries than others are filled up with their first query, labelled -100, which no loss counts.
    """
    most = max(len(item["query"]) for item in items)
    support, support_lengths = pad_sequences([sequence for item in items for sequence in item["support"]])
    queries, labels = [], []
    for item in items:
        missing = most - len(item["query"])
        queries += [*item["query"], *[item["query"][0]] * missing]
        labels.append(np.concatenate([item["query_labels"], np.full(missing, PADDING_LABEL)]))
    query, query_lengths = pad_sequences(queries)
    episodes, way = len(items), items[0]["way"]
    return {
        "support_features": support.unflatten(0, (episodes, way, -1)),
        "support_lengths": support_lengths.unflatten(0, (episodes, way, -1)),
        "query_features": query.unflatten(0, (episodes, most)),
        "query_lengths": query_lengths.unflatten(0, (episodes, most)),
        "query_labels": torch.from_numpy(np.stack(labels)),
    }
