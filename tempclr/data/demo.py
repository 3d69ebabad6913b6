"""The demo's own instructional videos: planned from seeds, drawn, and written as real mp4 files.

Every video performs a *task*: 4 to 9 ordered steps, each an action of one shared set, with unrelated scenes before,
between and after. ``plan_videos`` decides what happens (cheap and pure), ``render_video`` draws it, ``generate`` writes
``<output_dir>/videos/<split>/<video_id>.mp4`` and one dataset file ``<output_dir>/<split>.jsonl`` a split.

The knobs of :class:`DemoSettings`, and which way they turn the difficulty:

What identifies a video
    ``orders_per_action_set``      tasks made of the same actions in different orders. A bag of actions cannot tell
                                   these videos apart, so Cap. Avg. retrieval falls as it rises; the order can.
    ``num_swaps``                  how different those orders are: None shuffles freely; a number swaps that many pairs
                                   of the first order, so that 1 is hard for every measure.
    ``one_action_variants``        tasks that replace one action of the set, by a look-alike where there is one. Harder
                                   for every measure.
    ``sibling_probability``        how often the next action of a set is a look-alike of one already in it: steps of one
                                   video become harder to tell apart, and localization and matching with them.
    ``num_actions``                fewer actions: the videos have more in common.
    ``actions_per_task``           fewer steps: less to go by.
    ``videos_per_task``            above 1, several videos perform the very same task: R@1 is then about 1 in that many.
What a second of video shows
    ``noise_level``                standard deviation of the sensor noise, in grey levels.
    ``jitter_pixels``              how far the camera shakes and drifts.
    ``num_distractors``            at most this many idle objects lie about in a scene.
    ``lighting_variation``         spread of colour cast, brightness and contrast between videos; colours tell less.
    ``colour_variation``           spread of an item's hue and of the tools' colours between videos.
    ``layout_variation``           spread of position and size of what is seen.
    ``blur_probability``           share of the steps filmed out of focus.
    ``gap_probability``, ``gap_seconds``   unrelated scenes between steps; matter when background is kept.
    ``idle_gap_probability``       share of those scenes that show the workbench with idle objects: background that
                                   looks like the steps.
    ``step_seconds``               shorter steps: fewer features each.
What the sentences say
    ``vague_probability``          how often a sentence leaves its item, or its place, open ("cut the vegetable").
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.demo_actions import CATALOGUE
from tempclr.data.demo_planning import MOST_VIDEOS, SPLITS, VideoPlan
from tempclr.data.demo_planning import plan_videos as plan_videos
from tempclr.data.files import atomic_path
from tempclr.errors import InputError

ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "ultrafast", "crf": "30"}),
    "mpeg4": ("mpeg4", {"b": "1000000"}),
}
# Counted up when the same settings begin to mean other videos, so that old and new ones never mix in one folder.
GENERATOR_VERSION = 1
SETTINGS_FILE = ".demo_settings.json"


@dataclass(frozen=True)
class DemoSettings:
    """Everything that decides what videos there are. Equal settings give equal bytes (with one version of PyAV).

    ``sizes`` are (height, width) in pixels; ``step_seconds``, ``gap_seconds`` and ``actions_per_task`` are inclusive
    ranges. The module's docstring says what each knob does. Checks itself.

    Raises:
        InputError: a value out of its range, named by ``field``.

    >>> DemoSettings(num_train=4, num_validation=2, num_test=2).num_actions
    24
    """

    num_train: int = 100
    num_validation: int = 20
    num_test: int = 60
    seed: int = 0
    num_actions: int = 24
    actions_per_task: tuple[int, int] = (4, 9)
    orders_per_action_set: int = 2
    num_swaps: int | None = 1
    one_action_variants: int = 1
    sibling_probability: float = 0.45
    videos_per_task: int = 1
    step_seconds: tuple[float, float] = (1.0, 4.0)
    gap_probability: float = 0.6
    gap_seconds: tuple[float, float] = (0.5, 2.0)
    idle_gap_probability: float = 0.2
    max_seconds: float = 25.0
    frames_per_second: int = 10
    sizes: tuple[tuple[int, int], ...] = ((192, 256), (200, 200), (180, 320), (240, 180))
    codec: str = "h264"
    vague_probability: float = 0.35
    noise_level: float = 10.0
    jitter_pixels: float = 2.0
    num_distractors: int = 4
    lighting_variation: float = 0.7
    colour_variation: float = 0.7
    layout_variation: float = 0.7
    blur_probability: float = 0.15

    def __post_init__(self) -> None:
        for split in SPLITS:
            self._check_range(f"num_{split}", 0, MOST_VIDEOS[split])
        for name in ("orders_per_action_set", "videos_per_task"):
            self._check_range(name, 1, 1000)
        self._check_range("seed", 0, 2**63 - 1)
        self._check_range("num_actions", 4, len(CATALOGUE))
        self._check_range("one_action_variants", 0, 1000)
        self._check_range("num_distractors", 0, 8)
        self._check_range("frames_per_second", 1, 60)
        self._check_range("noise_level", 0, 60)
        self._check_range("jitter_pixels", 0, 8)
        for name in DemoSettings.__dataclass_fields__:
            if name.endswith("_probability") or name.endswith("_variation"):
                self._check_range(name, 0, 1)
        if self.num_swaps is not None:
            self._check_range("num_swaps", 1, 1000)
        self._check_pair("actions_per_task", 1, self.num_actions)
        self._check_pair("step_seconds", 1 / self.frames_per_second, 3600)
        self._check_pair("gap_seconds", 1 / self.frames_per_second, 3600)
        if self.codec not in ENCODERS:
            raise InputError(f"unknown codec {self.codec!r}; one of {', '.join(ENCODERS)}", field="codec")
        self._check_sizes()
        self._check_time()

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        whole = "int" in DemoSettings.__annotations__[name]
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise InputError(f"must be {'a whole number' if whole else 'a number'}, got {value!r}", field=name)
        if not low <= value <= high:
            raise InputError(f"must lie between {low} and {high}, got {value!r}", field=name)

    def _check_pair(self, name: str, low: float, high: float) -> None:
        least, most = getattr(self, name)
        if not low <= least <= most <= high:
            raise InputError(f"must be (least, most) within {low:g} and {high:g}, got ({least}, {most})", field=name)

    def _check_sizes(self) -> None:
        for size in self.sizes:
            if len(size) != 2 or any(side % 2 or not 64 <= side <= 720 for side in size):
                raise InputError(f"needs even (height, width) between 64 and 720, got {size}", field="sizes")
        if not self.sizes:
            raise InputError("needs at least one (height, width)", field="sizes")

    def _check_time(self) -> None:
        num_steps = self.actions_per_task[1]
        least = num_steps * self.step_seconds[0] + (num_steps + 1) * self.gap_seconds[0]
        if self.max_seconds < least:
            raise InputError(
                f"{num_steps} of the shortest steps and the gaps around them last {least:g} s, more than "
                f"{self.max_seconds:g}; raise max_seconds or lower actions_per_task, step_seconds or gap_seconds",
                field="max_seconds",
            )


def render_video(plan: VideoPlan) -> Iterator[np.ndarray]:
    """Draw a video, frame after frame: uint8 RGB ``(height, width, 3)``. A pure function of the plan.

    >>> plan = plan_videos(DemoSettings(num_train=1, num_validation=0, num_test=0))[0]
    >>> next(render_video(plan)).shape == (plan.height, plan.width, 3)
    True
    """
    from tempclr.data.demo_rendering import render

    return render(plan)


def generate(
    output_dir: str | os.PathLike[str],
    settings: DemoSettings | None = None,
    *,
    num_workers: int = 1,
    show_progress_bar: bool = True,
) -> dict[str, Path]:
    """Write the videos and one dataset file a split; what an earlier, interrupted run finished is kept.

    Args:
        output_dir: gets ``videos/<split>/<video_id>.mp4`` and ``<split>.jsonl`` (rows with ``video_id``, ``sentences``,
            ``starts``, ``ends``, ``video``, ``task``, ``label``, ``split``). ``video`` is relative to the file's
            folder, so the folder can be moved. ``task`` names the ordered steps, ``label`` the set of actions behind.
        num_workers: processes that draw and encode; 1 stays in this process. The bytes do not depend on it.

    Returns:
        The dataset file of each split that has videos.

    Raises:
        InputError: the folder holds videos of other settings (another number of videos is no contradiction).

    >>> files = generate("runs/demo/videos", DemoSettings(), num_workers=2)  # doctest: +SKIP
    """
    settings = settings or DemoSettings()
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    folder = Path(output_dir)
    plans = plan_videos(settings)
    _claim_folder(folder, settings)
    missing = [(plan, folder / video_path(plan)) for plan in plans if not (folder / video_path(plan)).exists()]
    _write_videos(missing, settings.codec, num_workers, show_progress_bar)
    return {split: _write_rows(folder, split, plans) for split in SPLITS if any(plan.split == split for plan in plans)}


def video_path(plan: VideoPlan) -> Path:
    """Where a video lies below the output folder: ``videos/<split>/<video_id>.mp4``."""
    return Path("videos", plan.split, f"{plan.video_id}.mp4")


def _claim_folder(folder: Path, settings: DemoSettings) -> None:
    wanted = _identity(settings)
    file = folder / SETTINGS_FILE
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if different:
            name = different[0]
            raise InputError(
                f"the folder holds videos made with {name}={found.get(name)!r}, asked for {wanted.get(name)!r}; "
                "choose another output_dir or delete this one",
                file=file,
                field=name,
            )
        return
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def _identity(settings: DemoSettings) -> dict[str, Any]:
    """What must agree for two runs to share a folder. More videos of the same settings only add to the first ones."""
    counts = {f"num_{split}" for split in SPLITS}
    values = {name: value for name, value in asdict(settings).items() if name not in counts}
    return json.loads(json.dumps({"generator_version": GENERATOR_VERSION, **values}))


def _write_videos(jobs: list[tuple[VideoPlan, Path]], codec: str, num_workers: int, show_progress_bar: bool) -> None:
    from tqdm import tqdm

    with tqdm(total=len(jobs), desc="videos", unit="video", disable=not show_progress_bar) as bar:
        if num_workers == 1 or len(jobs) <= 1:
            for plan, path in jobs:
                _write_one(plan, path, codec)
                bar.update()
            return
        # Spawned, not forked: the parent may hold threads of torch or numba, whose locks a fork would copy as they are.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_workers, len(jobs)), mp_context=context) as pool:
            futures = [pool.submit(_write_one, plan, path, codec) for plan, path in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "a worker process died; in a script of your own, call generate() below "
                    "`if __name__ == '__main__':` or with num_workers=1"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)


def _write_one(plan: VideoPlan, path: Path, codec: str) -> None:
    from tempclr.data.video import write_video

    encoder, options = ENCODERS[codec]
    write_video(path, render_video(plan), frames_per_second=plan.frames_per_second, codec=encoder, options=options)


def _write_rows(folder: Path, split: str, plans: list[VideoPlan]) -> Path:
    file = folder / f"{split}.jsonl"
    rows = [_row(plan) for plan in plans if plan.split == split]
    with atomic_path(file) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _row(plan: VideoPlan) -> dict[str, Any]:
    return {
        "video_id": plan.video_id,
        "sentences": [step.sentence for step in plan.steps],
        "starts": [step.start_seconds for step in plan.steps],
        "ends": [step.end_seconds for step in plan.steps],
        "video": video_path(plan).as_posix(),
        "task": plan.task,
        "label": plan.label,
        "split": plan.split,
    }
