"""Videos with a step exchanged or background put in: features and spans move together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tempclr.data.rows import Paragraph
from tempclr.evaluation.embeddings import Embeddings
from tempclr.recipes.claims.data import exchange_step, inject_background, with_steps
from tempclr.recipes.claims.measuring import mean_pooled_ranks, normalised_ranks, order_ranks


def video(number: int, *, num_seconds: int = 10) -> Paragraph:
    """Second t has the features (number, t); steps at 1 to 3.4, 3.6 to 6 and 8 to 9.2."""
    features = np.stack([np.full(num_seconds, number), np.arange(num_seconds)], axis=1).astype(np.float32)
    spans = [(1.0, 3.4), (3.6, 6.0), (8.0, 9.2)]
    return Paragraph(
        f"v{number}",
        ["a", "b", "c"],
        [start for start, _ in spans],
        [end for _, end in spans],
        features=features,
        features_per_second=1.0,
        task="tea",
    )


VIDEOS = [video(number) for number in range(4)]


def test_a_step_comes_from_another_video_and_the_rest_moves():
    # Only the second steps are of one action, so that it is clear which step is exchanged.
    actions = {one.video_id: [f"a{one.video_id}", "b", f"c{one.video_id}"] for one in VIDEOS}
    changed, count = exchange_step(VIDEOS, actions, seed=0)
    assert count == 4
    for own, (before, after) in enumerate(zip(VIDEOS, changed, strict=True)):
        assert after.features is not None and before.features is not None
        assert after.features[:4].tolist() == before.features[:4].tolist()
        assert set(after.features[4:6, 0]) != {own} and after.features[4:6, 1].tolist() == [4, 5]
        assert after.features[6:].tolist() == before.features[6:].tolist()
        assert (after.starts, after.ends) == ([1.0, 4.0, 8.0], [3.4, 6.0, 9.2])


def test_a_step_of_another_length_shifts_what_comes_behind():
    longer = Paragraph("long", ["b"], [0.0], [5.0], features=np.full((5, 2), 9.0), features_per_second=1.0)
    actions = {"v0": ["a", "b", "c"], "long": ["b"]}
    changed, count = exchange_step([VIDEOS[0], longer], actions, seed=0)
    assert count == 2
    first, second = changed
    assert first.features is not None and second.features is not None
    assert len(first.features) == 13 and (first.features[4:9] == 9).all()
    assert (first.starts[1:], first.ends[1:]) == ([4.0, 11.0], [9.0, 12.2])
    assert second.features[:, 1].tolist() == [4, 5] and (second.starts, second.ends) == ([0.0], [2.0])


def test_without_a_like_step_a_video_stays():
    actions = {one.video_id: [one.video_id + step for step in "abc"] for one in VIDEOS}
    changed, count = exchange_step(VIDEOS, actions, seed=0)
    assert count == 0 and all(one is other for one, other in zip(changed, VIDEOS, strict=True))


def test_background_comes_from_seconds_without_a_step():
    changed, count = inject_background(VIDEOS, num_seconds=3, seed=1)
    assert count == 4
    for own, after in enumerate(changed):
        assert after.features is not None and len(after.features) == 13
        foreign = np.flatnonzero(after.features[:, 0] != own)
        assert len(foreign) == 3 and set(after.features[foreign, 1]) <= {0.0, 6.0, 7.0}
        assert foreign.tolist() == list(range(foreign[0], foreign[0] + 3))
        for start, end in zip(after.starts, after.ends, strict=True):
            assert end <= foreign[0] or start >= foreign[-1] + 1
        lasted = np.subtract(after.ends, after.starts)
        assert (lasted >= 0.5).all() and lasted == pytest.approx([2.4, 2.4, 1.2], abs=0.61)


def test_the_same_seed_changes_the_same():
    one, _ = inject_background(VIDEOS, seed=1)
    other, _ = inject_background(VIDEOS, seed=1)
    assert all(np.array_equal(a.features, b.features) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]


def test_a_video_of_steps_alone_takes_none_and_gives_none():
    full = Paragraph("full", ["a"], [0.0], [4.0], features=np.zeros((4, 2)), features_per_second=1.0)
    changed, count = inject_background([full, full], seed=0)
    assert count == 0 and changed[0] is full


def test_steps_are_the_sentences():
    (one,) = with_steps([VIDEOS[0]])
    assert one.steps == ("a", "b", "c") and one.step_indices == (0, 1, 2) and one.task is None


def test_orders_and_means_of_vectors_that_are_known():
    units = torch.eye(6)
    sentences = torch.stack([units[:3], units[[2, 1, 0]], units[3:]])
    lengths = torch.tensor([3, 3, 3])
    embeddings = Embeddings(sentences, lengths, sentences.clone(), lengths)
    assert order_ranks(embeddings, num_orders=5).tolist() == [1, 1, 1]
    # The first two hold the same vectors: their means cannot be told apart, and ties rank last.
    assert mean_pooled_ranks(embeddings).tolist() == [2, 2, 1]
    found = normalised_ranks(embeddings)
    assert set(found) == {"none", "area", "sides", "path", "soft"}
    assert all(ranks.tolist() == [1, 1, 1] for ranks in found.values())
    backwards = Embeddings(sentences, lengths, sentences.flip(1), lengths)
    assert (order_ranks(backwards, num_orders=20) > 1).all()


def test_a_distance_by_the_cells_of_its_path_is_a_mean_cost():
    """A long video of poor fit has a longer path: by its sum it loses, by its mean it may win."""
    a = torch.tensor(
        [[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]]
    )
    clips = torch.tensor([[[0.8, 0.6]] * 4, [[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]])
    embeddings = Embeddings(a, torch.tensor([2, 2]), clips, torch.tensor([4, 2]))
    found = normalised_ranks(embeddings)
    # Own video: 4 cells of cost .2; the other: 2 cells of cost .4.
    assert found["path"].tolist() == [1, 1] and found["none"].tolist() == [2, 1]
