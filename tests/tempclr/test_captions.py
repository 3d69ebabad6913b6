"""Caption de-duplication against what the released preparation made of the same captions, and its word-wise default."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempclr.data.captions import Caption, deduplicate_captions
from tempclr.data.rows import Paragraph

RECORDED = Path(__file__).parent / "data" / "captions_released.json"


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def test_characters_give_what_the_released_preparation_gave(recorded):
    """Note [Captions lose letters]: the last caption but five ends in the "p" that "pan" lost to it."""
    generator = random.Random(recorded["seed"])
    for video_id, raw in recorded["raw"].items():
        made = deduplicate_captions(raw["start"], raw["end"], raw["text"], overlap="characters", generator=generator)
        assert len(made) == recorded["num_captions"][video_id]
        wanted = recorded["deduplicated"].get(video_id)
        if wanted is not None:
            assert [list(caption) for caption in made] == [list(each) for each in zip(*wanted.values(), strict=True)]


def test_words_stay_whole_by_default(recorded):
    known = {word for raw in recorded["raw"].values() for text in raw["text"] if text for word in text.split()}
    for released in ("characters", "words"):
        made = [
            word
            for raw in recorded["raw"].values()
            for caption in deduplicate_captions(
                raw["start"], raw["end"], raw["text"], overlap=released, generator=random.Random(0)
            )
            for word in caption.text.split()
        ]
        assert set(made) <= known if released == "words" else set(made) - known, released


def joined(*texts, seed=0, overlap="words"):
    starts, ends = [2.0 * n for n in range(len(texts))], [2.0 * n + 3 for n in range(len(texts))]
    return deduplicate_captions(starts, ends, texts, overlap=overlap, generator=random.Random(seed))


def test_a_repeated_end_merges_and_a_repeated_beginning_replaces():
    assert joined("now cut the bread", "the bread") == [Caption(0, 5, "now cut the bread")]
    assert joined("cut", "cut the bread") == [Caption(0, 5, "cut the bread")]
    assert [caption.text for caption in joined("the pot", "then stir")] == ["the pot", "then stir"]


def test_the_longest_overlap_of_words_is_taken_out_of_either_side():
    sides = {tuple(joined("so we cut and cut", "cut and cut it", seed=seed)) for seed in range(9)}
    assert sides == {
        (Caption(0, 2, "so we"), Caption(2, 5, "cut and cut it")),
        (Caption(0, 3, "so we cut and cut"), Caption(3, 5, "it")),
    }


def test_what_is_no_text_is_left_out_and_lines_are_joined():
    assert [caption.text for caption in joined(None, "  ", "cut\nit ", float("nan"))] == ["cut it"]
    assert deduplicate_captions([], [], []) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 9), st.lists(st.sampled_from("abc"), min_size=1, max_size=4)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 3),
)
def test_the_default_always_makes_a_row(spans, seed):
    spans = sorted(spans)
    starts, ends = [start for start, _, _ in spans], [start + length for start, length, _ in spans]
    made = deduplicate_captions(starts, ends, [" ".join(words) for _, _, words in spans], generator=random.Random(seed))
    Paragraph("v", [each.text for each in made], [each.start for each in made], [each.end for each in made])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="words, characters, got 'letters'"):
        deduplicate_captions([0], [1], ["a"], overlap="letters")
    with pytest.raises(ValueError, match="got 1, 2 for 1 texts"):
        deduplicate_captions([0], [1, 2], ["a"])


def test_the_global_generator_serves_where_none_is_given():
    texts = ["a b", "b c"] * 8
    random.seed(3)
    one = deduplicate_captions(range(16), range(1, 17), texts)
    random.seed(3)
    assert deduplicate_captions(range(16), range(1, 17), texts) == one
