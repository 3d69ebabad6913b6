"""Intervals over seeds and videos, verdicts, and cells of the page of claims."""

from __future__ import annotations

import numpy as np
import pytest

from tempclr.recipes.claims.statements import printed_effect
from tempclr.recipes.claims.statistics import (
    Interval,
    careful_interval,
    cell,
    student_interval,
    two_level_interval,
    verdict,
)


def test_a_lucky_training_makes_an_interval_wide():
    """Note [Seeds and videos are both drawn]: the same numbers, all of the difference in one of two seeds."""
    even = [np.array([1.0, 0.0] * 50)] * 2
    lucky = [np.ones(100), np.zeros(100)]
    narrow, wide = two_level_interval(even), two_level_interval(lucky)
    assert narrow.mean == wide.mean == 0.5
    assert narrow.low > 0.4 and wide.low == 0.0 and wide.high == 1.0
    assert wide.per_seed == (1.0, 0.0) and wide.num_videos == 200


def test_one_seed_gives_the_interval_over_its_videos():
    generator = np.random.default_rng(0)
    values = generator.normal(0.2, 1.0, size=400)
    found = two_level_interval([values])
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_equal_inputs_give_equal_intervals_and_seeds_may_differ_in_their_videos():
    arrays = [np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0])]
    assert two_level_interval(arrays) == two_level_interval(arrays)
    assert two_level_interval(arrays).mean == pytest.approx((2 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize("wrong", [[], [np.zeros(0)], [np.zeros((2, 2))]])
def test_what_is_no_vector_a_seed_is_refused(wrong: list[np.ndarray]):
    with pytest.raises(ValueError, match="filled vector a seed"):
        two_level_interval(wrong)


def test_the_wider_interval_decides():
    """Note [Few seeds]: seeds that differ and videos that differ each make it wide."""
    seeds = [np.full(50, value) for value in (0.0, 0.02, 0.04)]
    assert careful_interval(seeds).text == student_interval([0.0, 0.02, 0.04]).text
    videos = [np.array([1.0, -1.0, 0.5, -0.5])] * 3
    assert careful_interval(videos) == two_level_interval(videos) != student_interval([0.0] * 3)
    assert careful_interval(seeds[:1]) == two_level_interval(seeds[:1])


def test_student_knows_how_little_a_few_seeds_tell():
    """Note [One number a seed]: for two seeds 12.7 standard errors, where drawing seeds anew ends at the seeds."""
    found = student_interval([0.1, 0.2])
    assert found is not None
    assert found.mean == pytest.approx(0.15) and found.high - found.mean == pytest.approx(12.706 * 0.05)
    drawn = two_level_interval([np.full(1000, 0.1), np.full(1000, 0.2)])
    assert (drawn.low, drawn.high) == pytest.approx((0.1, 0.2)) and found.low < drawn.low
    of_five = student_interval([0.0, 1.0, 2.0, 3.0, 4.0])
    assert of_five is not None and of_five.high == pytest.approx(2 + 2.776 * np.sqrt(2.5 / 5))
    assert student_interval([0.5]) is None and student_interval([]) is None
    with pytest.raises(ValueError, match="at most 10 seeds, got 11"):
        student_interval([0.0] * 11)


@pytest.mark.parametrize(
    ("low", "high", "effect", "expected", "word"),
    [
        (-0.04, 0.12, 0.275, "higher", "not reproduced"),
        (-0.04, 0.12, 0.03, "higher", "not testable here"),
        (-0.04, 0.12, 0.12, "higher", "not testable here"),
        (0.01, 0.12, 0.275, "higher", "reproduced"),
        (-0.12, -0.01, 0.0, "higher", "not reproduced"),
        (-0.12, 0.04, 0.05, "lower", "not testable here"),
        (-0.12, 0.04, 0.2, "lower", "not reproduced"),
        (0.01, 0.12, 0.0, "lower", "not reproduced"),
    ],
)
def test_an_interval_that_holds_0_and_the_published_effect_decides_nothing(low, high, effect, expected, word):
    """Note [Undecided is not refuted]."""
    interval = Interval((low + high) / 2, low, high, (0.0,), 10)
    assert verdict(interval, expected, effect=effect) == word


def test_the_effect_is_what_the_paper_prints():
    assert printed_effect("56.0 to 83.5") == printed_effect("83.5, 56.0") == 0.275
    assert printed_effect("80 to more") == printed_effect("47.7") == printed_effect("") == 0.0


@pytest.mark.parametrize(
    ("low", "high", "expected", "word"),
    [
        (0.01, 0.05, "higher", "reproduced"),
        (-0.01, 0.05, "higher", "not testable here"),
        (-0.05, -0.01, "higher", "not reproduced"),
        (-0.05, -0.01, "lower", "reproduced"),
        (-0.05, 0.01, "lower", "not testable here"),
        (-0.02, 0.01, "same", "reproduced"),
        (0.01, 0.02, "same", "reproduced"),
        (0.01, 0.05, "same", "not reproduced"),
        (-0.01, 0.05, "same", "not testable here"),
    ],
)
def test_verdicts(low: float, high: float, expected: str, word: str):
    assert verdict(Interval((low + high) / 2, low, high, (0.0,), 10), expected) == word


def test_an_unknown_expectation_is_refused():
    with pytest.raises(ValueError, match="higher, lower or same"):
        verdict(Interval(0, 0, 0, (0.0,), 1), "better")


def test_cells_say_how_many_seeds_there_are():
    assert cell([]) is None
    assert cell([0.5]) == "50.0"
    assert cell([0.5], num_seeds=3) == "50.0 (1 seed)"
    assert cell([0.5, 0.7, 0.6], num_seeds=3) == "60.0 ± 10.0"
    assert cell([2.0, 4.0], scale=1) == "3.0 ± 1.4"
