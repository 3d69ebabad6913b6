"""Classification of videos: probabilities averaged over clips, linear evaluation of features, and fewer labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempclr.errors import InputError

__all__ = [
    "ClassificationResult",
    "LinearSettings",
    "class_indices",
    "labelled_share",
    "linear_evaluation",
    "score_probabilities",
    "train_linear",
]


@dataclass(frozen=True)
class ClassificationResult:
    """Accuracy over videos.

    Attributes:
        accuracy: share of videos whose class is named first.
        accuracy_one_clip: the same from the middle one of each video's clips, without averaging.
        per_class: accuracy of each class that occurs.
        num_videos, num_clips: videos, and clips averaged for each.
    """

    accuracy: float
    accuracy_one_clip: float
    per_class: Mapping[str, float]
    num_videos: int
    num_clips: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a results file."""
        return asdict(self)


@dataclass(frozen=True)
class LinearSettings:
    """How a linear layer is trained on frozen features: the released settings, whose plateau never forgets.

    Attributes:
        learning_rate, num_epochs, batch_size: of Adam.
        patience: epochs with a loss above the lowest one, in a row or not, after which the rate is divided by ten.
        min_learning_rate: below it training ends.
        standardize: scale every feature to mean 0 and deviation 1 over the training videos first. Not in the released
            code; features of small networks need it.
    """

    learning_rate: float = 1e-2
    num_epochs: int = 100
    batch_size: int = 32
    patience: int = 3
    min_learning_rate: float = 1e-5
    standardize: bool = False


def score_probabilities(
    probabilities: Tensor, labels: Sequence[str], *, classes: Sequence[str]
) -> ClassificationResult:
    """Average each video's probabilities over its clips and name the most probable class.

    Args:
        probabilities: ``(N, clips, C)``, those of each clip adding up to 1.
        labels: the class of each video.
        classes: the names of the C classes, in order.

    Raises:
        InputError: a label that is no class.

    Source: TCLR C.4 (10 uniform clips, averaged).

    >>> of_clips = torch.tensor([[[0.6, 0.4], [0.1, 0.9]]])
    >>> score_probabilities(of_clips, ["run"], classes=["walk", "run"]).accuracy
    1.0
    """
    if probabilities.ndim != 3 or len(probabilities) != len(labels) or probabilities.shape[2] != len(classes):
        expected = f"({len(labels)}, clips, {len(classes)})"
        raise ValueError(f"probabilities must be (N, clips, C), {expected}, got {tuple(probabilities.shape)}")
    wanted = class_indices(labels, classes)
    right = probabilities.mean(dim=1).argmax(dim=1).cpu() == wanted
    one = probabilities[:, probabilities.shape[1] // 2].argmax(dim=1).cpu() == wanted
    per_class = {
        name: float(right[wanted == number].double().mean())
        for number, name in enumerate(classes)
        if bool((wanted == number).any())
    }
    accuracies = float(right.double().mean()), float(one.double().mean())
    return ClassificationResult(*accuracies, per_class, len(labels), probabilities.shape[1])


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """The number of each label among the classes.

    Raises:
        InputError: naming the first label that is no class.

    >>> class_indices(["run", "walk"], ["walk", "run"])
    tensor([1, 0])
    """
    numbers = {name: number for number, name in enumerate(classes)}
    for label in labels:
        if label not in numbers:
            known = ", ".join(list(numbers)[:5]) + (", …" if len(numbers) > 5 else "")
            raise InputError(f"class {label!r} is none of the {len(numbers)} classes trained: {known}", field="label")
    return torch.tensor([numbers[label] for label in labels], dtype=torch.long)


def linear_evaluation(
    train_features: Tensor,
    train_labels: Sequence[str],
    test_features: Tensor,
    test_labels: Sequence[str],
    *,
    settings: LinearSettings | None = None,
    seed: int = 0,
) -> ClassificationResult:
    """Train a linear layer on frozen features and measure it; nothing is chosen by the test videos.

    Args:
        train_features: ``(N, clips, D)``; in every epoch one clip of each video is drawn.
        test_features: ``(M, clips, D)``; probabilities are averaged over the clips.
        train_labels, test_labels: classes.
        settings: of the training; None is that of the released code.
        seed: of initial weights, clips and order.

    Raises:
        InputError: a class of the test videos that no training video has.

    Source: TCLR §4.1 and its code (Adam at 1e-2, batches of 32, at most 100 epochs).

    >>> ones = torch.ones(8, 1, 2) * torch.tensor([1.0, -1.0] * 4)[:, None, None]
    >>> linear_evaluation(ones, ["a", "b"] * 4, ones, ["a", "b"] * 4).accuracy
    1.0
    """
    for features in (train_features, test_features):
        if features.ndim != 3:
            raise ValueError(f"features must be (videos, clips, D), got shape {tuple(features.shape)}")
    settings, classes = settings or LinearSettings(), sorted(set(train_labels))
    shift, scale = torch.zeros(()), torch.ones(())
    if settings.standardize:
        flat = train_features.flatten(0, 1).float()
        shift, scale = flat.mean(dim=0), flat.std(dim=0).clamp_min(1e-6)
    wanted = class_indices(train_labels, classes)
    layer = train_linear((train_features.float() - shift) / scale, wanted, len(classes), settings=settings, seed=seed)
    with torch.no_grad():
        probabilities = layer((test_features.float() - shift) / scale).softmax(dim=-1)
    return score_probabilities(probabilities, test_labels, classes=classes)


def train_linear(
    features: Tensor, wanted: Tensor, num_classes: int, *, settings: LinearSettings, seed: int
) -> nn.Linear:
    """The layer itself: features ``(N, clips, D)``, numbers of classes ``(N,)``; on the CPU, repeatable by its seed."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(features.shape[2], num_classes)
    with torch.no_grad():  # nn.Linear's own distribution, from a generator that is no one else's
        bound = 1 / math.sqrt(features.shape[2])
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.Adam(layer.parameters(), lr=settings.learning_rate)
    lowest, worse = math.inf, 0
    for _ in range(settings.num_epochs):
        clips = torch.randint(features.shape[1], (len(features),), generator=generator)
        seen, total = features[torch.arange(len(features)), clips], 0.0
        for batch in torch.randperm(len(features), generator=generator).split(settings.batch_size):
            loss = F.cross_entropy(layer(seen[batch]), wanted[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        worse += total > lowest
        lowest = min(lowest, total)
        if worse == settings.patience:
            worse, rate = 0, optimizer.param_groups[0]["lr"] / 10
            if rate < settings.min_learning_rate:
                break
            optimizer.param_groups[0]["lr"] = rate
    return layer.requires_grad_(False).eval()


def labelled_share(labels: Sequence[str], fraction: float, *, seed: int) -> list[int]:
    """Which videos keep their labels: a random share of each class, at least one of each, in their order.

    The videos of a smaller fraction are among those of a larger one with the same seed.

    Raises:
        InputError: a fraction that is not above 0 and at most 1.

    Source: TCLR §4.1 (1, 10, 20 and 50 %, three subsets). The released code takes the head of a list sorted by class.

    >>> labels = ["run"] * 8 + ["walk"] * 4
    >>> [labels[place] for place in labelled_share(labels, 0.25, seed=0)]
    ['run', 'run', 'walk']
    """
    if not 0 < fraction <= 1:
        raise InputError(f"must be above 0 and at most 1, got {fraction}", field="train_fraction")
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in sorted(places):
        own = places[label]
        order = random.permutation(len(own))
        chosen += [own[index] for index in order[: max(1, math.floor(fraction * len(own) + 0.5))]]
    return sorted(chosen)
