"""The videos of a seed and their features, made once; and the same videos with a piece exchanged or put in."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.rows import Paragraph
from tempclr.recipes.claims.grid import ClaimSettings

__all__ = ["demo_settings", "exchange_step", "inject_background", "make_data", "read_splits", "with_steps"]

PARTS = ("train", "finetune", "validation", "test")


def demo_settings(settings: ClaimSettings, seed: int) -> Any:
    """The generator's settings: of the demo, with other numbers of videos."""
    from tempclr.data.demo import DemoSettings

    return DemoSettings(
        seed=seed,
        num_train=settings.num_train + settings.num_finetune,
        num_validation=settings.num_validation,
        num_test=settings.num_test,
        frames_per_second=settings.video_frames_per_second,
    )


def make_data(folder: Path, settings: ClaimSettings, seed: int) -> dict[str, Any]:
    """Write the videos and extract one vector a second from them; what is there already is kept."""
    from tempclr.data.demo import generate
    from tempclr.data.features import extract_features

    generate(folder / "videos", demo_settings(settings, seed), show_progress_bar=False)
    extract_features(
        folder / "videos",
        output_dir=folder / "features",
        image_size=settings.image_size,
        num_workers=1,
        device="cpu",
        show_progress_bar=False,
    )
    return {part: len(rows) for part, rows in read_splits(folder, settings).items()}


def read_splits(folder: Path, settings: ClaimSettings) -> dict[str, list[Paragraph]]:
    """The paragraphs of each part of :data:`PARTS`."""
    from tempclr.data.rows import load_rows, read_paragraphs

    features = folder / "features"
    rows = {
        split: list(read_paragraphs(load_rows(features, split=split), source=features)[0])
        for split in ("train", "validation", "test")
    }
    both = rows.pop("train")
    return {"train": both[: settings.num_train], "finetune": both[settings.num_train :], **rows}


@functools.lru_cache(maxsize=1)
def cached_splits(folder: Path, settings: ClaimSettings) -> dict[str, list[Paragraph]]:
    """:func:`read_splits`, the last one kept: a process does many runs of one seed in a row."""
    return read_splits(folder, settings)


def with_steps(paragraphs: list[Paragraph]) -> list[Paragraph]:
    """The videos as CrossTask has them: the sentences are the list of steps, and no task has a second video."""
    return [
        replace(one, steps=tuple(one.sentences), step_indices=tuple(range(len(one))), task=None) for one in paragraphs
    ]


@functools.lru_cache(maxsize=1)
def action_names(settings: ClaimSettings, seed: int) -> Mapping[str, list[str]]:
    """What is done in each step of each video, by video; the last answer is kept, as planning takes seconds."""
    from tempclr.data.demo import plan_videos

    return {
        plan.video_id: [step.action.name for step in plan.steps] for plan in plan_videos(demo_settings(settings, seed))
    }


def exchange_step(
    paragraphs: list[Paragraph], actions: Mapping[str, list[str]], *, seed: int
) -> tuple[list[Paragraph], int]:
    """One step of each video shown as in another video of the same action (the paper's Fig. 8).

    Both are drawn by ``seed``. Features are cut at whole seconds. Returns the videos and how many were changed: a video
    none of whose actions occurs elsewhere stays as it is.
    """
    generator = np.random.default_rng(seed)
    donors: dict[str, list[tuple[int, int]]] = {}
    for video, paragraph in enumerate(paragraphs):
        for step, action in enumerate(actions[paragraph.video_id]):
            donors.setdefault(action, []).append((video, step))
    changed, count = [], 0
    for video, paragraph in enumerate(paragraphs):
        own = actions[paragraph.video_id]
        choices = [(step, other) for step in range(len(own)) for other in donors[own[step]] if other[0] != video]
        if not choices:
            changed.append(paragraph)
            continue
        step, (other, place) = choices[generator.integers(len(choices))]
        first, last = _seconds(paragraphs[other], place)
        piece = _features(paragraphs[other])[first:last]
        changed.append(_spliced(paragraph, *_seconds(paragraph, step), piece, before=step, own=1))
        count += 1
    return changed, count


def inject_background(paragraphs: list[Paragraph], *, num_seconds: int = 3, seed: int) -> tuple[list[Paragraph], int]:
    """Seconds of background of another video between two steps of each video (the paper's Fig. 9).

    Background are seconds that no step touches. Returns the videos and how many were changed.
    """
    generator = np.random.default_rng(seed)
    idle = [np.flatnonzero(~_shown(paragraph)) for paragraph in paragraphs]
    changed, count = [], 0
    for video, paragraph in enumerate(paragraphs):
        others = [other for other in range(len(paragraphs)) if other != video and len(idle[other])]
        if len(paragraph) < 2 or not others:
            changed.append(paragraph)
            continue
        pieces = []
        for _ in range(num_seconds):
            other = others[generator.integers(len(others))]
            pieces.append(_features(paragraphs[other])[generator.choice(idle[other])])
        step = int(generator.integers(1, len(paragraph)))
        cut = min(int(np.floor(paragraph.starts[step])), len(_features(paragraph)))
        changed.append(_spliced(paragraph, cut, cut, np.stack(pieces), before=step))
        count += 1
    return changed, count


def _features(paragraph: Paragraph) -> np.ndarray:
    assert paragraph.features is not None
    return paragraph.features


def _seconds(paragraph: Paragraph, step: int) -> tuple[int, int]:
    """The whole seconds nearest to a step's span, at least one."""
    most = len(_features(paragraph))
    first = min(round(paragraph.starts[step]), most - 1)
    return first, min(max(round(paragraph.ends[step]), first + 1), most)


def _shown(paragraph: Paragraph) -> np.ndarray:
    shown = np.zeros(len(_features(paragraph)), dtype=bool)
    for start, end in zip(paragraph.starts, paragraph.ends, strict=True):
        shown[int(np.floor(start)) : int(np.ceil(end))] = True
    return shown


def _spliced(paragraph: Paragraph, first: int, last: int, piece: np.ndarray, *, before: int, own: int = 0) -> Paragraph:
    """Seconds ``first`` to ``last`` become ``piece``, which shows the ``own`` steps from ``before`` on.

    Steps before end where it begins, steps behind begin where it ends; each keeps half a second at least.
    """
    features = np.concatenate([_features(paragraph)[:first], piece, _features(paragraph)[last:]])
    shift, most = len(piece) - (last - first), float(len(features))
    spans = []
    for step, (start, end) in enumerate(zip(paragraph.starts, paragraph.ends, strict=True)):
        if step < before:
            spans.append((start, min(end, float(first))))
        elif step < before + own:
            spans.append((float(first), float(first + len(piece))))
        else:
            spans.append((max(start, float(last)) + shift, end + shift))
    starts = np.maximum.accumulate([min(start, most - 0.5) for start, _ in spans]).tolist()
    ends = [min(max(end, start + 0.5), most) for start, (_, end) in zip(starts, spans, strict=True)]
    return replace(paragraph, features=features, starts=starts, ends=ends)
