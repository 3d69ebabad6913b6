"""Accuracy over episodes: against plain loops over tasks, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tempclr.data.episodes import EpisodeSampler
from tempclr.data.sequences import SequenceSet
from tempclr.errors import InputError
from tempclr.evaluation import few_shot
from tempclr.evaluation.few_shot import FewShotProtocol, evaluate_few_shot, mean_and_half_width, video_distances
from tempclr.evaluation.report import write_results
from tempclr.models.few_shot import FewShotConfig, FewShotForEpisodes, FewShotModel, sequence_distances

SMALL = {"feature_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32, "trx_head_size": 8, "max_num_frames": 6}
PAIRWISE = ["otam", "dtw", "mean_pool", "bi_mhm"]


@pytest.fixture(scope="module")
def noisy() -> SequenceSet:
    random = np.random.default_rng(0)
    paths = random.normal(size=(6, 6, 4))
    labels = [name for name in "abcdef" for _ in range(9)]
    return SequenceSet([paths["abcdef".index(name)] + 1.5 * random.normal(size=(6, 4)) for name in labels], labels)


@pytest.fixture(scope="module")
def ragged(noisy: SequenceSet) -> SequenceSet:
    return SequenceSet([seq[: 2 + index % 5] for index, seq in enumerate(noisy.sequences)], noisy.labels)


@pytest.mark.parametrize("measure", PAIRWISE)
def test_distances_of_all_pairs_are_the_differentiable_ones(ragged, measure):
    """Also where both sides are the same videos, whose two ways are two halves of one matrix."""
    features, lengths = ragged.padded()
    for query, of_query in ((features, lengths), (features[:7], lengths[:7])):
        found = video_distances(query, features, of_query, lengths, measure=measure)
        expected = sequence_distances(query, features, of_query, lengths, measure=measure)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    whole = video_distances(features, features.clone(), measure=measure)
    torch.testing.assert_close(whole, sequence_distances(features, features, measure=measure), rtol=1e-4, atol=1e-4)


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="measure must be one of otam, dtw"):
        video_distances(torch.rand(1, 2, 3), torch.rand(1, 2, 3), measure="trx")
    with pytest.raises(ValueError, match="measure must be one of otam, dtw"):
        FewShotProtocol(measure="edit")
    with pytest.raises(ValueError, match="num_tasks must be at least 1"):
        FewShotProtocol(measure="dtw", num_tasks=0)


@pytest.mark.parametrize("measure", PAIRWISE)
@pytest.mark.parametrize("num_tasks", [4, 60])
def test_accuracy_is_that_of_a_loop_over_tasks(ragged, measure, num_tasks):
    """Few tasks compute their own distances, many look them up; both are what the definition gives."""
    settings = {"way": 3, "shot": 2, "num_queries": 5, "seed": 7}
    result = evaluate_few_shot(ragged, measure=measure, num_tasks=num_tasks, **settings)
    sampler = EpisodeSampler(ragged.labels, **settings)
    for number in range(num_tasks):
        episode, right = sampler.draw(number), []
        for query, label in zip(episode.query, episode.query_labels, strict=True):
            own = torch.from_numpy(ragged.sequences[query])[None]
            of_class = []
            for shots in episode.support:
                others = [torch.from_numpy(ragged.sequences[index])[None] for index in shots]
                of_class.append(np.mean([sequence_distances(own, other, measure=measure).item() for other in others]))
            right.append(int(np.argmin(of_class)) == label)
        assert result.per_task[number] == pytest.approx(np.mean(right), abs=1e-9)
    accuracy, half_width = mean_and_half_width(result.per_task)
    assert (result.accuracy, result.half_width) == (accuracy, half_width)
    assert half_width == pytest.approx(1.96 * result.per_task.std() / num_tasks**0.5)


def test_trx_of_cached_projections_is_the_models_own(noisy):
    model = FewShotForEpisodes(FewShotConfig(**SMALL, head="trx")).eval()
    settings = {"way": 3, "shot": 2, "num_queries": 4, "seed": 1}
    result = evaluate_few_shot(noisy, model=model, num_tasks=12, batch_size=5, **settings)
    sampler, features = EpisodeSampler(noisy.labels, **settings), noisy.padded()[0]
    for number in range(12):
        episode = sampler.draw(number)
        output = model(support_features=features[episode.support][None], query_features=features[episode.query][None])
        right = output.logits[0].argmax(dim=1).numpy() == episode.query_labels
        assert result.per_task[number] == pytest.approx(right.mean())
    assert result.protocol.measure == "trx"
    shuffled = evaluate_few_shot(noisy, model=model, num_tasks=12, shuffle_queries=True, **settings)
    assert not np.array_equal(shuffled.per_task, result.per_task)


def test_a_models_embeddings_are_what_is_compared(noisy):
    model = FewShotModel(FewShotConfig(**SMALL)).train()
    found = evaluate_few_shot(noisy, model=model, measure="dtw", way=3, num_tasks=30)
    assert model.training
    embedded = model.eval().embed(noisy.padded()[0]).detach().numpy()
    expected = evaluate_few_shot(SequenceSet(list(embedded), noisy.labels), measure="dtw", way=3, num_tasks=30)
    np.testing.assert_allclose(found.per_task, expected.per_task, atol=1e-9)
    assert evaluate_few_shot(noisy, model=model, way=3, num_tasks=2).protocol.measure == "otam"


def test_order_is_what_separates_these_classes():
    """Two classes with the same frames: DTW tells them by order, pooled frames cannot, shuffled queries neither."""
    forwards = np.eye(6, dtype=np.float32)
    sequences = SequenceSet([forwards, forwards[::-1]] * 12, ["in", "out"] * 12)
    settings = {"way": 2, "num_tasks": 200, "num_queries": 5}
    assert evaluate_few_shot(sequences, measure="dtw", **settings).accuracy == 1
    # A tie is no success: see Note [Ties rank last].
    assert evaluate_few_shot(sequences, measure="mean_pool", eps=0.0, **settings).accuracy < 0.5
    shuffled = evaluate_few_shot(sequences, measure="dtw", shuffle_queries=True, **settings)
    assert shuffled.accuracy < 0.7 and shuffled.protocol.shuffle_queries


def test_classes_with_few_videos_are_handled_and_reported(tmp_path):
    random = np.random.default_rng(0)
    labels = ["a"] * 20 + ["b"] * 9 + ["c"] * 2
    sequences = SequenceSet(list(random.normal(size=(31, 3, 2))), labels)
    by_query = evaluate_few_shot(sequences, measure="dtw", way=2, shot=5, num_tasks=200)
    by_class = evaluate_few_shot(sequences, measure="dtw", way=2, shot=5, num_tasks=200, class_weighted=True)
    assert by_query.short_classes == {"b": 4} and by_query.left_out_classes == {"c": 2}
    assert (by_query.num_classes, by_query.num_videos) == (2, 29)
    # 15 queries of one class and 4 of the other: a task's accuracy comes in nineteenths, or is a mean of two shares.
    np.testing.assert_allclose(by_query.per_task * 19, np.round(by_query.per_task * 19), atol=1e-9)
    np.testing.assert_allclose(by_class.per_task * 120, np.round(by_class.per_task * 120), atol=1e-9)
    assert not np.allclose(by_query.per_task, by_class.per_task)
    write_results(tmp_path / "results.json", {"few_shot": by_query})
    assert '"short_classes": {\n      "b": 4\n    }' in (tmp_path / "results.json").read_text()


def test_the_same_seed_draws_the_same_tasks_for_every_measure(noisy):
    runs = [evaluate_few_shot(noisy, measure="dtw", num_tasks=20, seed=seed).per_task for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_a_large_set_computes_the_distances_of_each_task(noisy, monkeypatch):
    settings = {"measure": "dtw", "way": 3, "num_tasks": 80, "num_queries": 5}
    looked_up = evaluate_few_shot(noisy, **settings)
    monkeypatch.setattr(few_shot, "MATRIX_BYTES", 16)
    np.testing.assert_allclose(evaluate_few_shot(noisy, **settings).per_task, looked_up.per_task)


def test_sequences_that_do_not_suit_the_model_are_refused(noisy, ragged):
    model = FewShotForEpisodes(FewShotConfig(**SMALL, head="trx"))
    wide = SequenceSet([np.zeros((6, 5))] * 9, list("abc") * 3)
    for sequences, options, message in (
        (wide, {"model": model}, "width 5, but the model takes 4"),
        (SequenceSet([np.zeros((7, 4))] * 9, list("abc") * 3), {"model": model}, "of 7 frames, but the model takes 6"),
        (ragged, {"model": model}, "takes sequences of exactly 6 frames"),
        (noisy, {"model": model, "batch_size": 0}, "field 'batch_size': must be at least 1, got 0"),
        (noisy, {"measure": "trx"}, "needs a model that was trained with that head"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_few_shot(sequences, way=2, num_tasks=2, **options)
    with torch.no_grad():
        model.few_shot.projection.weight.fill_(torch.nan)
    for measure in ("otam", "trx"):
        with pytest.raises(InputError, match="distances hold NaN"):
            evaluate_few_shot(noisy, model=model, measure=measure, way=2, num_tasks=60)


def test_frames_are_sampled_before_they_are_shuffled():
    sequences = SequenceSet([np.arange(40.0)[:, None] + 1] * 12, ["a", "b"] * 6)
    result = evaluate_few_shot(sequences, measure="dtw", num_frames=8, way=2, num_tasks=5, shuffle_queries=True)
    assert (result.protocol.num_frames, result.protocol.sampling) == (8, "tsn")
