"""The search for one frame a step."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tempclr.evaluation.localization import localize_steps, step_costs

GOLDEN = np.load(Path(__file__).parent / "data/evaluation_golden.npz")


@pytest.mark.parametrize("case", ["dp0", "dp1", "dp2", "dp3", "dp4"])
def test_agrees_with_the_released_search(case: str):
    frames = localize_steps(GOLDEN[f"{case}/cost"])
    expected = GOLDEN[f"{case}/assignment"]
    assert expected.sum() == len(frames)
    assert frames.tolist() == expected.argmax(axis=0).tolist()


@pytest.mark.parametrize("case", range(5))
def test_agrees_with_the_released_path_from_logits_to_frames(case: str):
    logits = torch.from_numpy(GOLDEN[f"ct{case}/mean_logits"])
    expected = GOLDEN[f"ct{case}/assignment"]
    assert localize_steps(-logits.log_softmax(-1)).tolist() == expected.argmax(axis=0).tolist()


@settings(max_examples=60, deadline=None)
@given(
    cost=st.integers(1, 4).flatmap(
        lambda steps: hnp.arrays(
            np.float64,
            st.tuples(st.integers(steps, 7), st.just(steps)),
            elements=st.integers(-4, 4).map(float),
        )
    )
)
def test_no_choice_of_increasing_frames_is_cheaper(cost):
    """Note [Steps by running minima] in localization.py: proved by listing all choices, ties included."""
    frames = localize_steps(cost)
    num_frames, num_steps = cost.shape
    steps = np.arange(num_steps)
    assert (np.diff(frames) > 0).all()
    best = min(cost[list(choice), steps].sum() for choice in combinations(range(num_frames), num_steps))
    assert cost[frames, steps].sum() == best


def test_ties_go_to_the_earliest_frames():
    assert localize_steps(np.zeros((6, 3))).tolist() == [0, 1, 2]


def test_as_many_frames_as_steps_leaves_one_choice():
    assert localize_steps(np.random.default_rng(0).random((5, 5))).tolist() == [0, 1, 2, 3, 4]
    assert localize_steps(torch.zeros(1, 1)).tolist() == [0]


def test_infinite_cells_are_avoided():
    cost = np.zeros((4, 2))
    cost[:2, 0] = np.inf
    assert localize_steps(cost).tolist() == [2, 3]
    cost[:3, 0] = np.inf
    with pytest.raises(ValueError, match="avoids the infinite cells"):
        localize_steps(cost)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (np.zeros((2, 3)), "3 steps need at least as many frames, got 2"),
        (np.zeros((2, 0)), "filled matrix"),
        (np.zeros(3), "filled matrix"),
        (np.array([[0.0], [np.nan]]), r"NaN, first at frame and step \[1, 0\]"),
    ],
)
def test_bad_costs_are_told(cost, message):
    with pytest.raises(ValueError, match=message):
        localize_steps(cost)


def test_step_costs_are_negative_log_probabilities():
    generator = torch.Generator().manual_seed(0)
    frames, steps = torch.randn(5, 8, generator=generator), torch.randn(3, 8, generator=generator)
    dot = step_costs(frames, steps, similarity="dot")
    torch.testing.assert_close((-dot).exp().sum(-1), torch.ones(5))
    torch.testing.assert_close(dot, -(frames @ steps.T).log_softmax(-1))
    cosine = step_costs(3 * frames, 7 * steps, similarity="cosine", temperature=0.05)
    torch.testing.assert_close(cosine, step_costs(frames, steps, similarity="cosine", temperature=0.05))
