"""Moment ranking: candidates, the rule over annotators, padding, and the whole way through a real model."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world

from tempclr.data.rows import Paragraph
from tempclr.errors import InputError
from tempclr.evaluation.moments import annotated_moments, candidate_moments, evaluate_moments, moment_rank
from tempclr.evaluation.protocols import MomentProtocol

CHUNKS = {"chunk_seconds": 2.0, "num_chunks": 4}  # eight features, as many as the small model takes


def make_row(num_features: int = 8, seed: int = 0, spans=None) -> Paragraph:
    features = np.random.default_rng(seed).normal(size=(num_features, world.FEATURE_SIZE)).astype(np.float32)
    return Paragraph(
        f"video-{seed}",
        ["cut the bread", "fry it well"],
        [0.0, 2.0],
        [2.0, 4.0],
        features=features,
        features_per_second=1.0,
        annotator_spans=spans or (((0.0, 2.0), (0.0, 4.0), (2.0, 4.0), (0.0, 2.0)), ((4.0, 8.0),)),
    )


@pytest.fixture(scope="module")
def model():
    model = world.make_model().eval()
    model.processor = world.make_processor()
    return model


def test_six_chunks_make_twenty_one_moments():
    assert len(candidate_moments()) == 21
    assert set(candidate_moments(4)) == {(first, last) for first in range(4) for last in range(first, 4)}


def test_the_best_three_annotators_count():
    scores = [0.4, 0.9, 0.2, 0.6]
    assert moment_rank(scores, [1, 1, 1, 2]) == 1.0  # the fourth annotator errs
    assert moment_rank(scores, [1, 1, 3, 2]) == pytest.approx(4 / 3)
    assert moment_rank(scores, [0]) == 3.0


def test_ties_and_missing_moments_differ_between_the_protocols():
    tied = [0.5, 0.5, 0.1]
    assert moment_rank(tied, [0]) == 2.0 and moment_rank(tied, [1]) == 2.0
    assert moment_rank(tied, [0], official=True) == 1.0 and moment_rank(tied, [1], official=True) == 2.0
    assert moment_rank(tied, [0, None], official=True) == 1.0
    assert moment_rank(tied, [0, None]) == 3.0  # mean of 2 and of 4, the rank after the last
    assert np.isnan(moment_rank(tied, [None], official=True)) and moment_rank(tied, [None]) == 4.0


def test_official_ranks_are_those_of_a_sorted_list():
    """The released rule, spelled out: positions in the list sorted downwards, the three lowest averaged."""
    random = np.random.default_rng(0)
    for _ in range(20):
        scores, marked = random.normal(size=21), random.integers(0, 21, size=4).tolist()
        listed = sorted(range(21), key=lambda candidate: -scores[candidate])
        expected = np.mean(sorted(listed.index(position) + 1 for position in marked)[:3])
        assert moment_rank(scores, marked, official=True) == pytest.approx(expected)
        assert moment_rank(scores, marked) == pytest.approx(expected)


@pytest.mark.parametrize(("num_features", "protocol"), [(8, "clean"), (5, "clean"), (5, "official")])
def test_ranks_are_those_of_one_moment_at_a_time(model, num_features, protocol):
    paragraph = make_row(num_features, spans=(((0.0, 2.0), (0.0, 4.0)), ((2.0, 6.0),)))
    found = evaluate_moments(model, [paragraph], protocol=protocol, **CHUNKS)
    rows = torch.zeros(1, 8, world.FEATURE_SIZE)
    rows[0, :num_features] = torch.from_numpy(paragraph.features)
    with torch.inference_mode():
        states = model.get_video_features(rows, torch.arange(8)[None] < num_features)["last_hidden_state"][0]
        texts = model.encode_text(paragraph.sentences)
    moments = [(chunk, chunk) for chunk in range(4)] + list(combinations(range(4), 2))
    moments = [moment for moment in moments if 2 * moment[protocol == "clean"] < num_features]
    vectors = []
    for first, last in moments:
        end = 2 * (last + 1) if protocol == "official" else min(2 * (last + 1), num_features)
        vectors.append(states[2 * first : end].mean(0))
    scores = texts @ torch.stack(vectors).T
    if protocol == "clean":
        scores = torch.nn.functional.cosine_similarity(texts[:, None], torch.stack(vectors)[None], dim=-1)
    marked = [[(0, 0), (0, 1)], [(1, 2)]]
    for sentence, own in enumerate(scores):
        order = sorted(range(len(moments)), key=lambda candidate: -float(own[candidate]))
        ranks = [order.index(moments.index(moment)) + 1 for moment in marked[sentence]]
        assert found.ranks[sentence] == pytest.approx(np.mean(ranks))
    assert found.num_sentences == 2 and found.rank_at_5 == float((found.ranks <= 5).mean())
    assert found.to_dict()["protocol"]["name"].startswith("moment-ranking/")
    assert 0 <= found.mean_iou <= 1


def test_moments_that_end_beyond_the_video_are_cut_to_it(model):
    """Note [Moments end with the video] in moments.py: without the cut every annotator's moment would tie."""
    past, within = (((4.0, 8.0),), ((2.0, 8.0),)), (((4.0, 6.0),), ((2.0, 6.0),))
    found = [evaluate_moments(model, [make_row(5, spans=spans)], **CHUNKS).ranks.tolist() for spans in (past, within)]
    assert found[0] == found[1]
    assert max(found[0]) <= 6  # three chunks and their three runs


def test_spans_become_chunks():
    protocol = MomentProtocol(chunk_seconds=5.0, num_chunks=6)
    spans = (((0.0, 5.0), (5.0, 15.0), (25.0, 27.3)), ((20.0, 30.4),))
    assert annotated_moments(make_row(spans=spans), protocol) == [[(0, 0), (1, 2), (5, 5)], [(4, 5)]]


def test_what_cannot_be_ranked_is_told(model):
    bare = replace(make_row(), annotator_spans=None)
    with pytest.raises(InputError, match="'video-0' has no annotator_spans"):
        evaluate_moments(model, [bare], **CHUNKS)
    with pytest.raises(InputError, match=r"begins beyond 4 chunks of 2\.0 s"):
        evaluate_moments(model, [make_row(spans=(((8.0, 10.0),), ((0.0, 2.0),)))], **CHUNKS)
    with pytest.raises(InputError, match="are 30 features, the model takes 1 a chunk to 8"):
        evaluate_moments(model, [make_row()])
    with pytest.raises(InputError, match="the dataset is empty"):
        evaluate_moments(model, [])
    with pytest.raises(ValueError, match="num_chunks at least 1"):
        MomentProtocol(num_chunks=0)
