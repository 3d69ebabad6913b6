"""What happens in the demo's videos: seeds, splits, orders, time, wording."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import pickle
from collections import Counter

import numpy as np
import pytest

from tempclr.data.demo import DemoSettings, plan_videos
from tempclr.data.demo_actions import CATALOGUE, ITEMS, PLACES, VERBS, siblings, word_sentence
from tempclr.data.demo_planning import split_of
from tempclr.errors import InputError


@pytest.fixture(scope="module")
def plans():
    return plan_videos(DemoSettings())


def sequence(plan):
    return tuple(step.action for step in plan.steps)


def test_default_settings_plan_the_demos_numbers(plans):
    assert Counter(plan.split for plan in plans) == {"train": 100, "validation": 20, "test": 60}
    assert len({plan.video_id for plan in plans}) == 180


def test_plans_are_pure_and_travel_to_other_processes(plans):
    again = plan_videos(DemoSettings())
    assert again == plans
    assert pickle.loads(pickle.dumps(plans[0])) == plans[0]


def test_another_seed_gives_other_videos(plans):
    other = plan_videos(DemoSettings(seed=1))
    assert [sequence(plan) for plan in other] != [sequence(plan) for plan in plans]


def test_more_videos_leave_the_first_ones_as_they_were(plans):
    fewer = plan_videos(DemoSettings(num_train=7, num_validation=3, num_test=5))
    known = {plan.video_id: plan for plan in plans}
    assert len(fewer) == 15
    assert all(known[plan.video_id] == plan for plan in fewer)


def test_generator_seeds_tell_the_splits_apart(plans):
    """Note [Seeds of the splits]"""
    seeds = {
        split: [plan.seed[1] for plan in plans if plan.split == split] for split in ("train", "validation", "test")
    }
    assert min(seeds["train"]) == 100_000
    assert seeds["validation"] == list(range(20))
    assert seeds["test"] == list(range(1000, 1060))
    with pytest.raises(InputError, match="num_validation"):
        DemoSettings(num_validation=1001)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_test_task_has_the_actions_of_a_training_task(seed):
    """Note [Splits by composition]"""
    plans = plan_videos(DemoSettings(seed=seed, num_train=150, num_validation=40, num_test=60))
    sets = {split: {frozenset(sequence(p)) for p in plans if p.split == split} for split in ("train", "test")}
    assert not sets["train"] & sets["test"]
    assert all(split_of(sequence(plan)) == plan.split for plan in plans)


def test_tasks_share_their_actions(plans):
    """Note [Splits by composition] keeps sets of actions apart, never the actions."""
    of_split = {s: {a for p in plans if p.split == s for a in sequence(p)} for s in ("train", "test")}
    assert of_split["train"] == set(CATALOGUE[:24])
    assert of_split["test"] <= of_split["train"]


def test_every_task_is_performed_once_by_default(plans):
    assert len({(plan.split, sequence(plan)) for plan in plans}) == 180
    assert len({plan.task for plan in plans}) == 180


@pytest.mark.parametrize(("orders", "variants"), [(1, 0), (3, 1), (4, 2)])
def test_a_set_of_actions_gives_several_orders_and_variants(orders, variants):
    plans = plan_videos(
        DemoSettings(
            num_train=60, num_validation=0, num_test=0, orders_per_action_set=orders, one_action_variants=variants
        )
    )
    groups = {}
    for plan in plans:
        groups.setdefault(plan.label, []).append(sequence(plan))
    whole = list(groups.values())[:-1]  # the last one may be cut short
    assert {len(group) for group in whole} == {orders + variants}
    for group in whole:
        assert {frozenset(one) for one in group[:orders]} == {frozenset(group[0])}
        assert len(set(group)) == len(group)
        for variant in group[orders:]:
            assert any(
                sum(a != b for a, b in zip(variant, base, strict=True)) == 1 for base in group if base != variant
            )


def test_num_swaps_keeps_orders_close():
    plans = plan_videos(
        DemoSettings(
            num_train=40, num_validation=0, num_test=0, num_swaps=1, one_action_variants=0, actions_per_task=(6, 6)
        )
    )
    first = {}
    for plan in plans:
        base = first.setdefault(plan.label, sequence(plan))
        assert sum(a != b for a, b in zip(base, sequence(plan), strict=True)) in (0, 2)


def test_sibling_probability_makes_the_steps_of_a_task_alike():
    def share_with_look_alike(probability):
        settings = DemoSettings(num_train=120, num_validation=0, num_test=0, sibling_probability=probability)
        actions = CATALOGUE[:24]
        alike = [
            any(other in siblings(action, actions) for other in sequence(plan))
            for plan in plan_videos(settings)
            for action in sequence(plan)
        ]
        return np.mean(alike)

    assert share_with_look_alike(1.0) > share_with_look_alike(0.0) + 0.1


def test_videos_per_task_repeats_tasks():
    plans = plan_videos(DemoSettings(num_train=12, num_validation=0, num_test=0, videos_per_task=3))
    assert set(Counter(plan.task for plan in plans).values()) == {3}
    assert len({plan.seed for plan in plans}) == 12


@pytest.mark.parametrize("rate", [10, 30])
def test_steps_and_gaps_tile_the_video(rate):
    for plan in plan_videos(DemoSettings(num_train=80, num_validation=0, num_test=0, frames_per_second=rate)):
        spans = sorted((part.start_seconds, part.end_seconds) for part in (*plan.steps, *plan.gaps))
        assert spans[0][0] == 0.0
        assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
        assert spans[-1][1] == plan.duration_seconds <= 25.0
        assert 4 <= len(plan.steps) <= 9
        lengths = [step.end_seconds - step.start_seconds for step in plan.steps]
        assert min(lengths) >= 1.0 - 1e-9
        assert max(lengths) <= 4.0 + 1 / rate + 1e-9


def test_gaps_follow_their_knobs():
    def kinds(**knobs):
        return {
            gap.kind for plan in plan_videos(DemoSettings(num_validation=0, num_test=0, **knobs)) for gap in plan.gaps
        }

    assert kinds(gap_probability=0.0) == set()
    assert kinds(idle_gap_probability=1.0) == {"idle"}
    assert kinds(idle_gap_probability=0.0) == {"landscape", "street", "speaker", "shelf", "sea", "card"}


def test_every_action_can_be_said():
    rng = np.random.default_rng(0)
    assert len({action.name for action in CATALOGUE}) == len(CATALOGUE)
    for action in CATALOGUE:
        assert action.motion in VERBS and action.item in ITEMS
        assert not action.target or (action.motion, action.target) in PLACES
        wordings = {word_sentence(action, rng, vague_probability=0.2) for _ in range(60)}
        assert len(wordings) > 15
        assert all(wording == " ".join(wording.split()) for wording in wordings)


def test_vague_sentences_name_neither_item_nor_place():
    rng = np.random.default_rng(0)
    pour = CATALOGUE[0]
    exact = [word_sentence(pour, rng, vague_probability=0.0) for _ in range(50)]
    vague = [word_sentence(pour, rng, vague_probability=1.0) for _ in range(50)]
    assert all("red" in one or "tomato" in one for one in exact) and all("bowl" in one for one in exact)
    assert not any("red" in one or "tomato" in one or "bowl" in one for one in vague)


def test_look_alikes_are_mutual():
    for action in CATALOGUE:
        assert all(action in siblings(other, CATALOGUE) for other in siblings(action, CATALOGUE))
        assert action not in siblings(action, CATALOGUE)


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        ({"num_train": -1}, "num_train"),
        ({"num_train": 2.5}, "num_train"),
        ({"noise_level": "8"}, "noise_level"),
        ({"num_actions": 99}, "num_actions"),
        ({"actions_per_task": (9, 4)}, "actions_per_task"),
        ({"actions_per_task": (4, 30)}, "actions_per_task"),
        ({"step_seconds": (0.01, 4.0)}, "step_seconds"),
        ({"max_seconds": 8.0}, "max_seconds"),
        ({"codec": "av1"}, "codec"),
        ({"sizes": ((201, 200),)}, "sizes"),
        ({"sizes": ()}, "sizes"),
        ({"blur_probability": 1.5}, "blur_probability"),
        ({"colour_variation": -0.1}, "colour_variation"),
        ({"num_swaps": 0}, "num_swaps"),
        ({"noise_level": float("nan")}, "noise_level"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_name_what_is_wrong(knobs, field):
    with pytest.raises(InputError) as caught:
        DemoSettings(**knobs)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_too_few_different_tasks_is_an_error_that_says_so():
    with pytest.raises(InputError, match="different tasks"):
        plan_videos(DemoSettings(num_actions=4, actions_per_task=(4, 4), num_train=100, num_validation=0, num_test=100))


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DemoSettings().seed = 3


@pytest.mark.parametrize("module", ["demo", "demo_actions", "demo_planning", "demo_sprites"])
def test_examples_in_the_docstrings_run(module):
    results = doctest.testmod(importlib.import_module(f"tempclr.data.{module}"))
    assert results.attempted > 0 and results.failed == 0
