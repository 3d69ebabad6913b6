from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempclr.negatives import STRATEGIES, sample_negatives

SHUFFLES = ("seg_unit", "seg_only", "within_seg", "all_unit")


def batch(rows, *, num_sentences, padding=0):
    """Rows are the sentence of each clip (-1 background); sentences are as many as ``num_sentences`` says, per row."""
    width = max(map(len, rows)) + padding
    index = torch.full((len(rows), width), -1)
    clip_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, values in enumerate(rows):
        index[row, : len(values)] = torch.tensor(values)
        clip_mask[row, : len(values)] = True
    sentences = torch.tensor(num_sentences)
    sentence_mask = torch.arange(int(sentences.max()) + padding) < sentences[:, None]
    return {"sentence_mask": sentence_mask, "clip_mask": clip_mask, "clip_sentence_index": index}


def runs(values):
    return [(key, list(group)) for key, group in groupby(values)]


@st.composite
def paragraphs(draw):
    rows, counts = [], []
    for _ in range(draw(st.integers(1, 3))):
        lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
        clips = [sentence for sentence, length in enumerate(lengths) for _ in range(length)]
        gaps = draw(st.lists(st.integers(0, len(clips)), max_size=2))
        # Background stands between segments or around them; inside a segment there is none.
        for gap in sorted(gaps, reverse=True):
            if gap in (0, len(clips)) or clips[gap - 1] != clips[gap]:
                clips.insert(gap, -1)
        rows.append(clips)
        counts.append(len(lengths))
    return rows, counts


@settings(max_examples=60, deadline=None)
@given(paragraphs(), st.sampled_from(SHUFFLES), st.integers(0, 2), st.integers(0, 2**31))
def test_every_shuffled_order_obeys_its_strategy(drawn, strategy, padding, seed):
    rows, counts = drawn
    inputs = batch(rows, num_sentences=counts, padding=padding)
    generator = torch.Generator().manual_seed(seed)
    negatives = sample_negatives(strategy, **inputs, num_negatives=5, generator=generator)
    for row, clips in enumerate(rows):
        orders = negatives.column_orders[row].tolist()
        true = [place for place, sentence in enumerate(clips) if sentence >= 0]
        assert orders[0][: len(true)] == true
        segments = [[place for place in true if clips[place] == sentence] for sentence in range(counts[row])]
        for order in orders:
            assert sorted(order) == list(range(inputs["clip_mask"].shape[1]))
            assert sorted(order[: len(true)]) == true, "the clips that belong to sentences stay in front"
        possible = {"within_seg": any(len(s) > 1 for s in segments), "all_unit": len(true) > 1}
        expected = possible.get(strategy, len(segments) > 1) and len(segments) > 1 and len(true) > 1
        assert negatives.order_mask[row].item() == expected
        if not expected:
            continue
        for order in orders[1:]:
            order = order[: len(true)]
            assert order != true, "Note [No identity among the negatives]"
            found = runs([clips[place] for place in order])
            if strategy in ("seg_only", "seg_unit"):
                assert len(found) == len(segments), "segments stay whole"
                assert [sentence for sentence, _ in found] != list(range(len(segments))), "and change their order"
            if strategy == "seg_only":
                assert all([p for p in order if clips[p] == s] == segment for s, segment in enumerate(segments))
            if strategy == "within_seg":
                assert [sentence for sentence, _ in found] == list(range(len(segments)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 2**31))
def test_visual_anchor_permutes_the_sentences(counts, seed):
    inputs = batch([[0] * 3 for _ in counts], num_sentences=counts, padding=1)
    generator = torch.Generator().manual_seed(seed)
    negatives = sample_negatives("visual_anchor", **inputs, num_negatives=4, generator=generator)
    assert negatives.column_orders is None
    for row, count in enumerate(counts):
        orders = negatives.row_orders[row].tolist()
        assert orders[0] == list(range(len(orders[0])))
        assert negatives.order_mask[row].item() == (count > 1)
        for order in orders[1:]:
            assert sorted(order[:count]) == list(range(count))
            assert count == 1 or order != orders[0]


def test_unpaired_takes_other_videos_that_have_clips_without_repetition():
    inputs = batch([[0, 1], [0, 1], [-1, -1], [0, 0]], num_sentences=[2, 2, 2, 1])
    negatives = sample_negatives("unpaired", **inputs, num_negatives=31)
    assert negatives.other_videos.shape == (4, 3)
    for row in range(4):
        real = negatives.other_videos[row][negatives.other_mask[row]].tolist()
        assert sorted(real) == ([] if row == 2 else sorted({0, 1, 3} - {row}))
    assert negatives.qualifies.tolist() == [True, True, False, True]
    assert negatives.num_skipped == 1


def test_unpaired_draws_each_other_video_equally_often():
    inputs = batch([[0, 1]] * 3, num_sentences=[2] * 3)
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(
        sample_negatives("unpaired", **inputs, num_negatives=1, generator=generator).other_videos[0].item()
        for _ in range(400)
    )
    assert set(drawn) == {1, 2} and abs(drawn[1] - 200) < 60  # six standard deviations


def test_joint_is_seg_unit_and_unpaired_together():
    inputs = batch([[0, 0, 1], [0]], num_sentences=[2, 1])
    negatives = sample_negatives("joint", **inputs, num_negatives=4)
    assert negatives.column_orders.shape == (2, 5, 3) and negatives.other_videos.shape == (2, 1)
    assert negatives.order_mask.tolist() == [True, False]
    assert negatives.qualifies.all(), "a paragraph of one segment still has the other video"


def test_a_batch_of_one_video_has_no_unpaired_negative():
    negatives = sample_negatives("unpaired", **batch([[0, 1]], num_sentences=[2]))
    assert negatives.other_videos.shape == (1, 0)
    assert negatives.num_skipped == 1


@pytest.mark.parametrize("num_units", [3, 4])
def test_orders_cover_all_permutations_nearly_evenly(num_units):
    inputs = batch([list(range(num_units))], num_sentences=[num_units])
    generator = torch.Generator().manual_seed(0)
    orders = sample_negatives("all_unit", **inputs, num_negatives=12000, generator=generator).column_orders[0, 1:]
    counts = Counter(map(tuple, orders.tolist()))
    factorial = {3: 6, 4: 24}[num_units]
    assert len(counts) == factorial - 1
    # Without the replaced identity each order has probability 1/n!; the rotations get its share on top.
    rotation_share = 1 / factorial * (1 + 1 / (num_units - 1))
    deviation = (12000 * rotation_share) ** 0.5
    for order, count in counts.items():
        rotated = all((b - a) % num_units == 1 for a, b in pairwise(order))
        assert abs(count - 12000 * (rotation_share if rotated else 1 / factorial)) < 5 * deviation


def test_ten_thousand_units_need_no_list_of_permutations():
    inputs = batch([list(range(10000))], num_sentences=[10000])
    assert sample_negatives("seg_unit", **inputs, num_negatives=2).column_orders.shape == (1, 3, 10000)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_generator_repeats_itself_and_leaves_the_global_one_alone(strategy):
    inputs = batch([[0, 0, 1, 2], [0, 1, 1, 1]], num_sentences=[3, 2])
    state = torch.get_rng_state()
    drawn = [sample_negatives(strategy, **inputs, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("column_orders", "row_orders", "other_videos"):
        first, second = (getattr(negatives, name) for negatives in drawn)
        assert (first is None and second is None) or torch.equal(first, second)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_global_generator_seeds_the_draws_too(strategy):
    inputs = batch([[0, 0, 1, 2], [0, 1, 1, 1]], num_sentences=[3, 2])
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(sample_negatives(strategy, **inputs))
    assert all(
        getattr(drawn[0], name) is None or torch.equal(getattr(drawn[0], name), getattr(drawn[1], name))
        for name in ("column_orders", "row_orders", "other_videos")
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_compiles_into_one_graph(strategy):
    def drawn(sentence_mask, clip_mask, clip_sentence_index):
        negatives = sample_negatives(
            strategy,
            sentence_mask=sentence_mask,
            clip_mask=clip_mask,
            clip_sentence_index=clip_sentence_index,
            num_negatives=3,
        )
        return negatives.qualifies, negatives.num_skipped

    inputs = batch([[0, 0, 1, 2], [0, 1, 1, 1], [0, 0]], num_sentences=[3, 2, 1])
    compiled = torch.compile(drawn, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(**inputs)[0], drawn(**inputs)[0])


def test_bad_requests_name_what_is_allowed():
    inputs = batch([[0, 1]], num_sentences=[2])
    with pytest.raises(ValueError, match=r"must be one of seg_unit, .* got 'seg_units'"):
        sample_negatives("seg_units", **inputs)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sample_negatives("seg_only", **inputs, num_negatives=0)


@pytest.mark.parametrize(("count", "orders"), [(2, 1), (3, 5), (4, 23), (5, 119), (6, 719)])
@pytest.mark.parametrize("padding", [0, 4])
def test_visual_anchor_does_not_repeat_an_order_before_all_have_come(count, orders, padding):
    """Note [Orders without replacement]."""
    inputs = batch([list(range(count)), [0]], num_sentences=[count, 1], padding=padding)
    for asked in (31, orders, orders + 2):
        drawn = sample_negatives("visual_anchor", **inputs, num_negatives=asked).row_orders
        times = Counter(tuple(order[:count]) for order in drawn[0, 1:].tolist())
        assert tuple(range(count)) not in times
        assert len(times) == min(asked, orders) and max(times.values()) - min(times.values()) <= 1 - (asked <= orders)
        assert (drawn[0, :, count:] == torch.arange(count, drawn.shape[2])).all()
        assert (drawn[1] == torch.arange(drawn.shape[2])).all()


def test_visual_anchor_draws_every_order_equally_often():
    inputs = batch([list(range(4))] * 2300, num_sentences=[4] * 2300)
    generator = torch.Generator().manual_seed(0)
    drawn = sample_negatives("visual_anchor", **inputs, num_negatives=3, generator=generator).row_orders
    times = Counter(tuple(order) for order in drawn[:, 1:].flatten(0, 1).tolist())
    assert len(times) == 23 and max(abs(count - 300) for count in times.values()) < 5 * 300**0.5
