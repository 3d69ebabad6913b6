"""Linear evaluation, averaging over clips, fewer labels and nearest neighbours, on plain features."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from tempclr.errors import InputError
from tempclr.evaluation import classification
from tempclr.evaluation.classification import (
    LinearSettings,
    class_indices,
    labelled_share,
    linear_evaluation,
    score_probabilities,
    train_linear,
)
from tempclr.evaluation.report import plain
from tempclr.evaluation.video_retrieval import nearest_neighbours, retrieve_neighbours


def clouds(num_videos, *, num_clips=3, width=8, noise=0.5, seed=0, labels=("run", "sit", "walk")):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(77).normal(size=(len(labels), width))
    own = [labels[index % len(labels)] for index in range(num_videos)]
    features = np.stack(
        [centres[labels.index(label)] + noise * random.normal(size=(num_clips, width)) for label in own]
    )
    return torch.from_numpy(features), own


def test_probabilities_of_clips_are_averaged_not_voted():
    of_clips = torch.tensor([[[0.51, 0.49], [0.51, 0.49], [0.1, 0.9]], [[0.9, 0.1]] * 3, [[0.6, 0.4]] * 3])
    result = score_probabilities(of_clips, ["b", "a", "b"], classes=["a", "b"])
    assert result.accuracy == pytest.approx(2 / 3) and result.accuracy_one_clip == pytest.approx(1 / 3)
    assert result.per_class == {"a": 1.0, "b": 0.5} and (result.num_videos, result.num_clips) == (3, 3)
    assert plain(result)["accuracy"] == pytest.approx(0.666667)


def test_a_linear_layer_learns_what_is_linear():
    train, test = clouds(60), clouds(30, seed=1)
    result = linear_evaluation(*train, *test)
    assert result.accuracy > 0.95 and set(result.per_class) == {"run", "sit", "walk"}
    again = linear_evaluation(*train, *test)
    assert again == result, "a seed decides all of it"
    nothing = linear_evaluation(train[0], list(np.random.default_rng(0).permutation(train[1])), *test)
    assert nothing.accuracy < 0.75


def test_averaging_more_clips_helps_where_clips_are_noisy():
    train, test = clouds(120, num_clips=10, noise=3.0), clouds(90, num_clips=10, noise=3.0, seed=1)
    result = linear_evaluation(*train, *test)
    assert result.accuracy > result.accuracy_one_clip + 0.1


def test_features_of_another_scale_want_standardizing():
    train, test = clouds(60), clouds(30, seed=1)
    tiny = [(1e-4 * features + 5.0, labels) for features, labels in (train, test)]
    plainly = linear_evaluation(*tiny[0], *tiny[1])
    scaled = linear_evaluation(*tiny[0], *tiny[1], settings=LinearSettings(standardize=True))
    assert scaled.accuracy > 0.95 > plainly.accuracy


def rates_of(monkeypatch, losses, **settings):
    """The learning rate of each epoch of one batch, where the epochs' losses are these."""
    told, seen = iter(losses), []
    step = torch.optim.Adam.step

    def watched(self, *positional, **keywords):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *positional, **keywords)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    monkeypatch.setattr(classification.F, "cross_entropy", lambda logits, wanted: 0 * logits.sum() + next(told))
    settings = LinearSettings(**{"num_epochs": len(losses), **settings})
    train_linear(torch.zeros(4, 1, 2), torch.tensor([0, 1, 0, 1]), 2, settings=settings, seed=0)
    return seen


def test_the_rate_falls_until_training_ends(monkeypatch):
    """After 3 epochs above the lowest loss, again and again, down to the lowest rate; no further epoch is begun."""
    seen = rates_of(monkeypatch, [1.0] + 99 * [2.0])
    assert seen == pytest.approx(4 * [1e-2] + 3 * [1e-3] + 3 * [1e-4] + 3 * [1e-5], rel=1e-9)
    monkeypatch.undo()
    assert rates_of(monkeypatch, 30 * [1.0]) == 30 * [1e-2], "an equal loss is not above the lowest"
    monkeypatch.undo()
    assert len(rates_of(monkeypatch, 3 * [1.0])) == 3


def test_patience_counts_epochs_that_are_not_in_a_row(monkeypatch):
    """Worse are the epochs 2, 4 and 6, each followed by a new lowest loss; from the seventh on the rate is a tenth."""
    seen = rates_of(monkeypatch, [5.0, 6.0, 4.0, 5.0, 3.0, 4.0, 2.0, 3.0, 1.0, 3.0, 0.5, 3.0, 0.4])
    assert seen == pytest.approx(6 * [1e-2] + 6 * [1e-3] + [1e-4], rel=1e-9)


def test_classes_no_one_trained_are_named():
    train, test = clouds(12), clouds(6, labels=("run", "swim", "walk"))
    with pytest.raises(InputError, match=r"class 'swim' is none of the 3 classes trained: run, sit, walk"):
        linear_evaluation(*train, *test)
    with pytest.raises(ValueError, match=r"must be \(videos, clips, D\)"):
        linear_evaluation(train[0][:, 0], train[1], *clouds(3))
    with pytest.raises(ValueError, match=r"\(2, clips, 1\), got \(1, 1, 1\)"):
        score_probabilities(torch.ones(1, 1, 1), ["a", "a"], classes=["a"])
    assert class_indices(["b", "a"], ["a", "b"]).tolist() == [1, 0]


def test_a_share_of_labels_is_stratified_nested_and_seeded():
    labels = [f"class {index % 7}" for index in range(700)]
    shares = {fraction: labelled_share(labels, fraction, seed=3) for fraction in (0.01, 0.1, 0.2, 0.5, 1.0)}
    for fraction, places in shares.items():
        counts = {label: sum(labels[place] == label for place in places) for label in set(labels)}
        assert set(counts.values()) == {max(1, round(100 * fraction))}, fraction
    ordered = list(shares.values())
    assert all(set(small) <= set(large) for small, large in pairwise(ordered))
    assert shares[0.1] != labelled_share(labels, 0.1, seed=4) and shares[0.1] == labelled_share(labels, 0.1, seed=3)
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="train_fraction"):
            labelled_share(labels, wrong, seed=0)


def test_recall_is_what_counting_gives():
    random = np.random.default_rng(0)
    queries, gallery = torch.from_numpy(random.normal(size=(40, 6))), torch.from_numpy(random.normal(size=(25, 6)))
    labels = [str(one) for one in random.integers(0, 5, size=65)]
    result = retrieve_neighbours(queries, labels[:40], gallery, labels[40:])
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=-1).numpy()
    for k, recall in result.recalls.items():
        found = [
            labels[query] in {labels[40 + place] for place in np.argsort(-cosines[query])[:k]} for query in range(40)
        ]
        assert recall == pytest.approx(np.mean(found)), k
    assert (result.num_queries, result.num_gallery, result.feature_size) == (40, 25, 6)
    assert list(plain(result)["recalls"]) == ["R@1", "R@10", "R@20", "R@5"]


def test_neighbours_do_not_heed_lengths_and_take_the_first_of_equals():
    gallery = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 1e-3], [-1.0, 0.0]])
    assert nearest_neighbours(torch.tensor([[5.0, 0.0], [0.0, 9.0]]), gallery, k=4).tolist() == [
        [0, 1, 2, 3],
        [2, 0, 1, 3],
    ]
    many = torch.randn(3000, 4)
    assert torch.equal(nearest_neighbours(many, many, k=1)[:, 0], torch.arange(3000))
    assert nearest_neighbours(many[:0], many, k=2).shape == (0, 2)


def test_retrieval_says_what_is_wrong():
    vectors = torch.randn(3, 2)
    with pytest.raises(InputError, match=r"R@20 needs 20 gallery videos, there are 3: give smaller --ks"):
        retrieve_neighbours(vectors, ["a"] * 3, vectors, ["a"] * 3)
    with pytest.raises(InputError, match="queries need one label each, got 0 vectors and 0 labels"):
        retrieve_neighbours(vectors[:0], [], vectors, ["a"] * 3, ks=(1,))
    with pytest.raises(ValueError, match="of one width"):
        nearest_neighbours(vectors, torch.randn(3, 4), k=1)
    with pytest.raises(ValueError, match="k must be from 1 to the 3"):
        nearest_neighbours(vectors, vectors, k=4)
