"""The demo's pictures and files: drawn from the plan alone, written whole or not at all, the same every time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from tempclr.data import demo
from tempclr.data.demo import DemoSettings, generate, plan_videos, render_video
from tempclr.data.demo_actions import CATALOGUE
from tempclr.data.demo_planning import BACKGROUNDS, PlannedGap, PlannedStep
from tempclr.errors import InputError

SMALL = DemoSettings(
    num_train=2,
    num_validation=1,
    num_test=1,
    sizes=((96, 128), (128, 96)),
    actions_per_task=(4, 4),
    step_seconds=(1.0, 1.2),
    gap_seconds=(0.2, 0.4),
)


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.mp4"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    files = generate(folder, SMALL, show_progress_bar=False)
    return folder, files


def one_scene_plan(part, **style):
    plan = plan_videos(SMALL)[0]
    steps, gaps = ((part,), ()) if isinstance(part, PlannedStep) else ((), (part,))
    seconds = part.end_seconds
    looks = dataclasses.replace(plan.style, **style)
    return dataclasses.replace(plan, steps=steps, gaps=gaps, num_frames=round(10 * seconds), style=looks)


def test_frames_are_a_pure_function_of_the_plan():
    plan = plan_videos(SMALL)[1]
    first, second = list(render_video(plan)), list(render_video(plan))
    assert len(first) == plan.num_frames
    assert all(frame.shape == (plan.height, plan.width, 3) and frame.dtype == np.uint8 for frame in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("action", CATALOGUE, ids=lambda action: action.name)
def test_every_action_changes_what_is_seen(action):
    plan = one_scene_plan(PlannedStep(action, 0.0, 1.0, ""), noise_level=0.0, jitter_pixels=0.0, blur_probability=0.0)
    frames = np.stack(list(render_video(plan))).astype(float)
    assert frames.std() > 20  # a picture, not an empty page
    assert np.abs(frames[-1] - frames[0]).mean() > 0.5


@pytest.mark.parametrize("kind", [*BACKGROUNDS, "idle"])
def test_every_background_moves(kind):
    frames = np.stack(list(render_video(one_scene_plan(PlannedGap(kind, 0.0, 2.0))))).astype(float)
    assert frames.std() > 15
    assert np.abs(frames[-1] - frames[0]).mean() > 0.5


def test_knobs_of_the_camera_do_what_they_say():
    step = PlannedStep(CATALOGUE[0], 0.0, 1.0, "")
    still = {"jitter_pixels": 0.0, "blur_probability": 0.0, "num_distractors": 0}

    def detail(**style):
        frames = np.stack(list(render_video(one_scene_plan(step, **(still | style))))).astype(float)
        return np.abs(np.diff(frames, axis=2)).mean()

    assert detail(noise_level=20.0) > detail(noise_level=0.0) + 5
    assert detail(noise_level=0.0, blur_probability=1.0) < 0.7 * detail(noise_level=0.0)


def test_files_hold_what_was_planned(made):
    from tempclr.data.video import read_frames

    folder, files = made
    assert set(files) == {"train", "validation", "test"}
    rows = [json.loads(line) for file in files.values() for line in file.read_text().splitlines()]
    plans = plan_videos(SMALL)
    assert [row["video_id"] for row in rows] == [plan.video_id for plan in plans]
    for row, plan in zip(rows, plans, strict=True):
        assert set(row) == {"video_id", "sentences", "starts", "ends", "video", "task", "label", "split"}
        assert row["sentences"] == [step.sentence for step in plan.steps]
        assert all(start < end for start, end in zip(row["starts"], row["ends"], strict=True))
        frames, _ = read_frames(folder / row["video"])
        assert frames.shape == (plan.num_frames, plan.height, plan.width, 3)
        drawn = np.stack(list(render_video(plan)))
        # A lossy codec and 4:2:0 colour cost some grey levels; another video would be 40 and more away.
        assert np.abs(frames.astype(float) - drawn).mean() < 12


def test_same_settings_same_bytes_for_any_number_of_workers(made, tmp_path):
    folder, _ = made
    generate(tmp_path, SMALL, num_workers=2, show_progress_bar=False)
    assert digests(tmp_path) == digests(folder)
    assert (tmp_path / "train.jsonl").read_bytes() == (folder / "train.jsonl").read_bytes()


def test_an_interrupted_run_is_taken_up(made, tmp_path, monkeypatch):
    folder, _ = made
    whole = demo.render_video

    def breaks_in_second(plan):
        for i, frame in enumerate(whole(plan)):
            if plan.video_id == "train-0001" and i == 5:
                raise KeyboardInterrupt
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(demo, "render_video", breaks_in_second)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, SMALL, show_progress_bar=False)
    left = [file.name for file in (tmp_path / "videos").rglob("*") if file.is_file()]
    assert left == ["train-0000.mp4"]
    before = (tmp_path / "videos/train/train-0000.mp4").stat().st_mtime_ns
    generate(tmp_path, SMALL, show_progress_bar=False)
    assert (tmp_path / "videos/train/train-0000.mp4").stat().st_mtime_ns == before
    assert digests(tmp_path) == digests(folder)


def test_other_settings_do_not_mix_into_a_folder(made):
    folder, _ = made
    with pytest.raises(InputError, match=r"noise_level=10\.0") as caught:
        generate(folder, dataclasses.replace(SMALL, noise_level=3.0), show_progress_bar=False)
    assert caught.value.field == "noise_level"


def test_more_videos_are_added_to_a_folder(made, tmp_path):
    folder, _ = made
    fewer = dataclasses.replace(SMALL, num_train=1, num_test=0)
    assert set(generate(tmp_path, fewer, show_progress_bar=False)) == {"train", "validation"}
    generate(tmp_path, SMALL, show_progress_bar=False)
    assert digests(tmp_path) == digests(folder)


def test_mpeg4_is_written_too(tmp_path):
    from tempclr.data.video import probe

    settings = dataclasses.replace(SMALL, num_train=1, num_validation=0, num_test=0, codec="mpeg4")
    generate(tmp_path, settings, show_progress_bar=False)
    info = probe(tmp_path / "videos/train/train-0000.mp4")
    assert info.frames_per_second == 10
    assert info.num_frames == plan_videos(settings)[0].num_frames


def test_drawing_loads_no_heavy_library():
    """So that worker processes start in a fraction of a second."""
    code = (
        "import sys, tempclr.data.demo as d, tempclr.data.demo_rendering;"
        "d.plan_videos(d.DemoSettings(num_train=2));"
        "print([m for m in ('torch', 'transformers', 'numba', 'av', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_script_without_main_guard_is_told_what_to_do(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from tempclr.data.demo import DemoSettings, generate\n"
        f"generate({str(tmp_path / 'out')!r}, DemoSettings(num_train=2, num_validation=0, num_test=0), num_workers=2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_no_workers_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="num_workers"):
        generate(tmp_path, SMALL, num_workers=0)
