"""Ranks, recalls and the bootstrap interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tempclr.evaluation.metrics import (
    median_rank,
    paired_bootstrap,
    ranks,
    recall_at_k,
    retrieval_metrics,
    step_recall,
)

GOLDEN = np.load(Path(__file__).parent / "data/evaluation_golden.npz")


def test_the_best_candidate_ranks_first_whatever_the_scale():
    scores = np.array([[3.0, 2.0, 1.0], [-5.0, -9.0, -7.0], [0.0, 1e-9, 1.0]])
    assert ranks(scores).tolist() == [1, 3, 1]
    assert ranks(1000 * scores).tolist() == [1, 3, 1]


def test_ties_rank_last():
    """Note [Ties rank last] in metrics.py."""
    assert ranks(np.zeros((4, 4))).tolist() == [4, 4, 4, 4]
    assert ranks([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]).tolist() == [2, 1]


def test_infinite_scores_are_ordinary_numbers():
    assert ranks([[-np.inf, 0.0], [0.0, np.inf]]).tolist() == [2, 1]


def test_targets_name_the_own_candidate():
    assert ranks([[0.1, 0.9], [0.8, 0.2], [0.3, 0.4]], targets=[1, 0, 0]).tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("similarity", "targets", "message"),
    [
        ([1.0, 2.0], None, "filled matrix"),
        (np.zeros((0, 0)), None, "filled matrix"),
        (np.zeros((3, 2)), None, "3 queries but only 2 candidates"),
        (np.zeros((2, 2)), [0, 2], "targets must be 2 candidate indices below 2"),
        (np.zeros((2, 2)), [0], "targets must be 2 candidate indices"),
        ([[0.0, 1.0], [np.nan, 1.0]], None, "query 1 holds NaN"),
    ],
)
def test_bad_similarity_is_told(similarity, targets, message):
    with pytest.raises(ValueError, match=message):
        ranks(similarity, targets)


def test_recalls_agree_with_the_released_code_where_there_are_no_ties():
    found = retrieval_metrics(ranks(GOLDEN["clip/r50/sim"]))
    assert found == {"R@1": 0.48, "R@5": 0.8, "R@10": 0.9, "median_rank": 2.0}


def test_recall_counts_up_to_and_including_k():
    assert recall_at_k([1, 5, 6, 10], k=5) == 0.5
    assert median_rank([1, 2, 10, 20]) == 6.0
    with pytest.raises(ValueError, match="k must be at least 1"):
        recall_at_k([1], k=0)
    with pytest.raises(ValueError, match="at least one entry"):
        median_rank([])


def test_step_recall_agrees_with_the_released_code():
    matched, total = {}, {}
    for task in "123":
        matched[task] = total[task] = 0
        for video in range(4):
            true, chosen = GOLDEN[f"recall/{task}/v{video}/true"], GOLDEN[f"recall/{task}/v{video}/pred"]
            matched[task] += int((true * chosen).sum())
            total[task] += int(true.any(axis=0).sum())
    assert step_recall(matched, total) == pytest.approx(0.19444444444444445, abs=1e-12)


def test_step_recall_leaves_out_tasks_without_steps():
    assert step_recall({"a": 1, "b": 0}, {"a": 2, "b": 0}) == 0.5
    with pytest.raises(ValueError, match="no task has an annotated step"):
        step_recall({"b": 0}, {"b": 0})
    with pytest.raises(ValueError, match="different tasks"):
        step_recall({"a": 1}, {"b": 1})


def test_the_bootstrap_interval_is_seeded_and_straddles_the_difference():
    generator = np.random.default_rng(0)
    a, b = generator.random(60) < 0.6, generator.random(60) < 0.4
    first = paired_bootstrap(a, b, seed=3, num_resamples=2000)
    assert first == paired_bootstrap(a, b, seed=3, num_resamples=2000)
    assert first.difference == pytest.approx(a.mean() - b.mean(), abs=1e-12)
    assert first.low < first.difference < first.high
    narrower = paired_bootstrap(a, b, seed=3, num_resamples=2000, confidence=0.5)
    assert first.low < narrower.low < narrower.high < first.high


def test_the_bootstrap_interval_has_the_width_of_the_normal_one():
    """For 1,000 pairs the percentile interval and mean ± 1.96 standard errors agree to a few percent."""
    generator = np.random.default_rng(1)
    a, b = generator.normal(0.3, 1, 1000), generator.normal(0, 1, 1000)
    interval = paired_bootstrap(a, b, seed=0)
    expected = 2 * 1.96 * (a - b).std() / np.sqrt(1000)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.05)


def test_the_same_system_twice_differs_by_nothing():
    interval = paired_bootstrap([0, 1, 1], [0, 1, 1], seed=0, num_resamples=10)
    assert (interval.difference, interval.low, interval.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"confidence": 1.0}, "confidence"), ({"num_resamples": 0}, "num_resamples")],
)
def test_bad_bootstrap_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap([0.0, 1.0], [1.0, 1.0], seed=0, **options)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="same queries in both: got 2 and 1"):
        paired_bootstrap([0, 1], [1], seed=0)
