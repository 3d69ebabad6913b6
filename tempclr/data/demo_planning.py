"""What happens in each of the demo's videos, decided from seeds before anything is drawn."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tempclr.data.demo_actions import CATALOGUE, Action, siblings, word_sentence
from tempclr.errors import InputError

if TYPE_CHECKING:
    from tempclr.data.demo import DemoSettings

SPLITS = ("train", "validation", "test")
# Note [Seeds of the splits]: a video's generator seed is its split's first seed plus its number. Difficulty is set on
# validation videos (seeds below 1000) alone, so no choice of sizes may make a test seed a training or validation seed.
FIRST_SEED = {"train": 100_000, "validation": 0, "test": 1_000}
MOST_VIDEOS = {"train": 900_000, "validation": 1_000, "test": 99_000}

BACKGROUNDS = ("landscape", "street", "speaker", "shelf", "sea", "card")
TABLES = ("wood", "marble", "cloth", "steel", "slate")
# How often a group of tasks is drawn anew, because it repeats what there is, before the settings are called too narrow.
MOST_ATTEMPTS = 300

Sequence = tuple[Action, ...]


@dataclass(frozen=True)
class PlannedStep:
    """One step, ``[start_seconds, end_seconds)``, and the sentence that describes it."""

    action: Action
    start_seconds: float
    end_seconds: float
    sentence: str


@dataclass(frozen=True)
class PlannedGap:
    """A scene between steps, ``[start_seconds, end_seconds)``: one of ``BACKGROUNDS``, or ``"idle"``, the workbench."""

    kind: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class VideoStyle:
    """How one video looks. ``gains`` are the light's red, green and blue; the knobs explain the other fields."""

    table: str
    gains: tuple[float, float, float]
    gamma: float
    zoom: float
    noise_level: float
    jitter_pixels: float
    num_distractors: int
    colour_variation: float
    layout_variation: float
    blur_probability: float


@dataclass(frozen=True)
class VideoPlan:
    """One video: all that :func:`tempclr.data.demo.render_video` needs. ``seed`` is (settings.seed, generator seed).

    ``task`` names the ordered steps, ``label`` the set of actions they were drawn from.
    """

    video_id: str
    split: str
    task: str
    label: str
    seed: tuple[int, int]
    height: int
    width: int
    frames_per_second: int
    num_frames: int
    steps: tuple[PlannedStep, ...]
    gaps: tuple[PlannedGap, ...]
    style: VideoStyle

    @property
    def duration_seconds(self) -> float:
        """Length of the video."""
        return self.num_frames / self.frames_per_second


def plan_videos(settings: DemoSettings) -> list[VideoPlan]:
    """Plan all videos: training, validation, test, in this order. Cheap, pure, and prefix-stable.

    Prefix-stable: asking for more videos of a split leaves its first ones, and the other splits, as they were.

    Raises:
        InputError: the settings allow fewer tasks than videos were asked for.

    >>> from tempclr.data.demo import DemoSettings
    >>> plans = plan_videos(DemoSettings(num_train=2, num_validation=1, num_test=1))
    >>> [plan.video_id for plan in plans]
    ['train-0000', 'train-0001', 'validation-0000', 'test-0000']
    """
    plans = []
    for split in SPLITS:
        num_videos = getattr(settings, f"num_{split}")
        for number, (label, task, sequence) in zip(range(num_videos), _tasks(settings, split), strict=False):
            plans.append(_plan_video(settings, split, number, label, task, sequence))
    return plans


def split_of(sequence: Sequence) -> str:
    """The split that may use a sequence of actions: it follows from the *set* of actions alone.

    # Note [Splits by composition]: so no order of a test task's actions, let alone the task itself, occurs in training,
    # and that holds for any numbers of videos and any seed.
    """
    names = "|".join(sorted(action.name for action in sequence))
    return SPLITS[int.from_bytes(hashlib.sha256(names.encode()).digest()[:4], "big") % len(SPLITS)]


def _tasks(settings: DemoSettings, split: str) -> Iterator[tuple[str, str, Sequence]]:
    """Label, task name and actions of a split's videos, without end."""
    seen: set[Sequence] = set()
    number = 0
    for set_number in itertools.count(1):
        failures = 0
        while True:
            rng = np.random.default_rng([settings.seed, FIRST_SEED[split] + number, failures])
            group = [sequence for sequence in _task_group(settings, split, rng) if sequence not in seen]
            if group:
                break
            failures += 1
            if failures == MOST_ATTEMPTS:
                raise InputError(
                    f"found only {len(seen)} different tasks for the {split} split with num_actions="
                    f"{settings.num_actions} and actions_per_task={settings.actions_per_task}; raise one of them"
                )
        seen.update(group)
        for order, sequence in enumerate(group):
            for _ in range(settings.videos_per_task):
                number += 1
                yield f"{split}-set-{set_number:03d}", f"{split}-set-{set_number:03d}-task-{order:02d}", sequence


def _task_group(settings: DemoSettings, split: str, rng: np.random.Generator) -> list[Sequence]:
    """Tasks of one set of actions: its orders, then its variants by one action. Empty if the set is another split's."""
    actions = CATALOGUE[: settings.num_actions]
    first = _draw_set(settings, actions, rng)
    if split_of(first) != split:
        return []
    group = [first]
    for _ in range(20 * settings.orders_per_action_set):
        if len(group) >= settings.orders_per_action_set:
            break
        order = _reorder(first, settings.num_swaps, rng)
        if order not in group:
            group.append(order)
    for _ in range(settings.one_action_variants):
        variant = _replace_one(group, actions, split, rng)
        if variant is not None:
            group.append(variant)
    return group


def _draw_set(settings: DemoSettings, actions: Sequence, rng: np.random.Generator) -> Sequence:
    least, most = settings.actions_per_task
    chosen: list[Action] = []
    for _ in range(int(rng.integers(least, most + 1))):
        free = [action for action in actions if action not in chosen]
        alike = [action for action in free if any(action in siblings(one, actions) for one in chosen)]
        pool = alike if alike and rng.random() < settings.sibling_probability else free
        chosen.append(pool[int(rng.integers(len(pool)))])
    return tuple(chosen[i] for i in rng.permutation(len(chosen)))


def _reorder(sequence: Sequence, num_swaps: int | None, rng: np.random.Generator) -> Sequence:
    if num_swaps is None:
        return tuple(sequence[i] for i in rng.permutation(len(sequence)))
    order = list(sequence)
    for _ in range(num_swaps if len(order) > 1 else 0):
        i, j = rng.choice(len(order), size=2, replace=False)
        order[i], order[j] = order[j], order[i]
    return tuple(order)


def _replace_one(group: list[Sequence], actions: Sequence, split: str, rng: np.random.Generator) -> Sequence | None:
    """A task of the group with one action replaced, by a look-alike if that stays in the split."""
    base = group[int(rng.integers(len(group)))]
    for place in rng.permutation(len(base)):
        free = [action for action in actions if action not in base]
        alike = siblings(base[place], actions)
        shuffled = [free[i] for i in rng.permutation(len(free))]
        for action in sorted(shuffled, key=lambda one: one not in alike):
            variant = (*base[:place], action, *base[place + 1 :])
            if split_of(variant) == split and variant not in group:
                return variant
    return None


def _plan_video(
    settings: DemoSettings, split: str, number: int, label: str, task: str, sequence: Sequence
) -> VideoPlan:
    seed = (settings.seed, FIRST_SEED[split] + number)
    rng = np.random.default_rng([*seed, 1_000_000])
    spans, gaps, num_frames = _plan_time(settings, len(sequence), rng)
    rate = settings.frames_per_second
    vague = settings.vague_probability
    steps = tuple(
        PlannedStep(action, start / rate, end / rate, word_sentence(action, rng, vague_probability=vague))
        for action, (start, end) in zip(sequence, spans, strict=True)
    )
    planned_gaps = tuple(
        PlannedGap(_gap_kind(settings, rng), start / rate, end / rate) for start, end in gaps if end > start
    )
    height, width = settings.sizes[int(rng.integers(len(settings.sizes)))]
    return VideoPlan(
        video_id=f"{split}-{number:04d}",
        split=split,
        task=task,
        label=label,
        seed=seed,
        height=height,
        width=width,
        frames_per_second=rate,
        num_frames=num_frames,
        steps=steps,
        gaps=planned_gaps,
        style=_draw_style(settings, rng),
    )


def _plan_time(
    settings: DemoSettings, num_steps: int, rng: np.random.Generator
) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
    """Spans of the steps and of the gaps before, between and after them, in frames; and the number of frames."""
    rate = settings.frames_per_second
    steps = rng.uniform(*settings.step_seconds, size=num_steps)
    gaps = rng.uniform(*settings.gap_seconds, size=num_steps + 1)
    gaps[rng.random(num_steps + 1) >= settings.gap_probability] = 0.0
    # A gap goes down to its least, a step likewise, each in proportion to what it has above it.
    least_gaps = np.minimum(gaps, settings.gap_seconds[0])
    least = num_steps * settings.step_seconds[0] + least_gaps.sum()
    total = steps.sum() + gaps.sum()
    share = min(1.0, (settings.max_seconds - least) / max(total - least, 1e-9))
    steps = settings.step_seconds[0] + share * (steps - settings.step_seconds[0])
    gaps = least_gaps + share * (gaps - least_gaps)
    lengths = np.empty(2 * num_steps + 1)
    lengths[0::2], lengths[1::2] = gaps, steps
    # Rounding the ends, not the lengths, keeps the sum within max_seconds.
    ends = np.floor(np.cumsum(lengths) * rate + 1e-6).astype(int).tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    return spans[1::2], spans[0::2], ends[-1]


def _gap_kind(settings: DemoSettings, rng: np.random.Generator) -> str:
    if rng.random() < settings.idle_gap_probability:
        return "idle"
    return BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]


def _draw_style(settings: DemoSettings, rng: np.random.Generator) -> VideoStyle:
    spread = settings.lighting_variation
    brightness, cast = 1 + 0.3 * spread * rng.uniform(-1, 1), 0.25 * spread * rng.uniform(-1, 1, size=3)
    red, green, blue = (float(brightness * (1 + value)) for value in cast)
    return VideoStyle(
        table=TABLES[int(rng.integers(len(TABLES)))],
        gains=(red, green, blue),
        gamma=float(2.0 ** (0.7 * spread * rng.uniform(-1, 1))),
        zoom=float(1 + 0.3 * settings.layout_variation * rng.uniform(-1, 1)),
        noise_level=settings.noise_level,
        jitter_pixels=settings.jitter_pixels,
        num_distractors=settings.num_distractors,
        colour_variation=settings.colour_variation,
        layout_variation=settings.layout_variation,
        blur_probability=settings.blur_probability,
    )
