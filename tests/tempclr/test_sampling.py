from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempclr.data.rows import Paragraph
from tempclr.data.sampling import (
    ParagraphDataset,
    evenly_spaced,
    feature_range,
    non_overlapping,
    random_span,
    select_sentences,
)


def paragraph(num_sentences, *, overlap=0.0):
    return Paragraph(
        video_id="v",
        sentences=[f"step {n}" for n in range(num_sentences)],
        starts=[2.0 * n for n in range(num_sentences)],
        ends=[2.0 * n + 2 + overlap for n in range(num_sentences)],
        features=np.zeros((2 * num_sentences + 1, 4), dtype=np.float32),
        features_per_second=1.0,
    )


@given(st.integers(1, 60), st.integers(1, 20))
def test_evenly_spaced_positions_go_from_the_first_to_the_last_in_order(num_items, num_wanted):
    positions = evenly_spaced(num_items, num_wanted)
    assert len(positions) == min(num_items, num_wanted)
    assert positions == sorted(set(positions)) and positions[0] == 0
    if num_wanted > 1:
        assert positions[-1] == num_items - 1


def test_evenly_spaced_truncates_as_the_released_code_does():
    assert evenly_spaced(8, 5) == [int(x) for x in np.linspace(0, 7, 5)] == [0, 1, 3, 5, 7]


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_random_span_is_consecutive_and_repeatable(num_items, num_wanted, seed, epoch, row):
    span = random_span(num_items, num_wanted, seed=seed, epoch=epoch, row=row)
    assert span == random_span(num_items, num_wanted, seed=seed, epoch=epoch, row=row)
    assert span == list(range(span[0], span[0] + min(num_items, num_wanted)))
    assert span[0] >= 0 and span[-1] < num_items


def test_random_span_depends_on_each_of_its_keys():
    for key in ("seed", "epoch", "row"):
        starts = {random_span(100, 2, **{"seed": 0, "epoch": 0, "row": 0, key: n})[0] for n in range(20)}
        assert len(starts) > 10


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        evenly_spaced(3, 0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        random_span(3, 0, seed=0, epoch=0, row=0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=12))
def test_non_overlapping_keeps_the_first_and_no_two_that_meet(spans):
    spans = sorted(spans)
    starts, ends = [s for s, _ in spans], [s + length for s, length in spans]
    kept = non_overlapping(starts, ends)
    assert kept[:1] == ([0] if spans else [])
    assert all(starts[b] >= ends[a] for a, b in pairwise(kept))


@pytest.mark.parametrize(
    ("span", "rate", "expected"),
    [
        ((0.0, 1.0), 1.0, (0, 1)),
        ((0.5, 1.5), 1.0, (0, 2)),
        ((0.3, 0.9), 10.0, (3, 9)),  # 0.3 * 10 is not quite 3 in binary
        ((2.0, 2.1), 1.0, (2, 3)),
        ((9.7, 10.4), 1.0, (9, 10)),
        ((10.2, 10.4), 1.0, (9, 10)),
        ((3.0, 99.0), 2.0, (6, 10)),
    ],
)
def test_feature_range_covers_what_the_span_touches(span, rate, expected):
    assert feature_range(*span, features_per_second=rate, num_features=10) == expected


def test_selected_sentences_keep_their_times_and_the_video():
    whole = paragraph(4)
    part = select_sentences(whole, [0, 2])
    assert (part.sentences, part.starts, part.ends) == (["step 0", "step 2"], [0.0, 4.0], [2.0, 6.0])
    assert part.features is whole.features


def test_selected_sentences_keep_their_steps_and_annotators():
    spans = tuple(((float(n), n + 1.0), (float(n), n + 2.0)) for n in range(3))
    marked = dataclasses.replace(
        paragraph(3), steps=("a", "b", "c", "d"), step_indices=(3, 0, 2), annotator_spans=spans
    )
    part = select_sentences(marked, [0, 2])
    assert (part.steps, part.step_indices) == (("a", "b", "c", "d"), (3, 2))
    assert part.annotator_spans == (spans[0], spans[2])


def test_dataset_cuts_long_paragraphs_and_leaves_short_ones():
    dataset = ParagraphDataset([paragraph(9), paragraph(2)], max_sentences=4)
    assert [len(dataset[row].sentences) for row in range(len(dataset))] == [4, 2]
    assert dataset[0].sentences == ["step 0", "step 2", "step 5", "step 8"]
    assert dataset[1] is dataset.paragraphs[1]


def test_dataset_draws_another_span_each_epoch():
    dataset = ParagraphDataset([paragraph(30)], max_sentences=3, sampling="span", seed=1)
    first = dataset[0].starts
    assert dataset[0].starts == first
    seen = set()
    for epoch in range(8):
        dataset.set_epoch(epoch)
        seen.add(tuple(dataset[0].starts))
    assert len(seen) > 3 and tuple(first) in seen


def test_dataset_leaves_out_overlapping_segments():
    dataset = ParagraphDataset([paragraph(5, overlap=0.5)], drop_overlapping=True)
    assert dataset[0].starts == [0.0, 4.0, 8.0]


def test_dataset_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="evenly, span, got 'random'"):
        ParagraphDataset([], sampling="random")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ParagraphDataset([], max_sentences=0)
