"""The generated motions: what a class is, what it is not, and files that come out alike and whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tempclr.data import motion_videos
from tempclr.data.motion_videos import (
    DIRECTED_MOTIONS,
    MOTIONS,
    make_motion_videos,
    motion_path,
    render_motion_video,
)
from tempclr.data.video import probe, read_frames
from tempclr.errors import InputError

SMALL = {"image_size": 32, "seconds": (0.4, 0.6), "show_progress_bar": False}


def path_of(label: str, seed: int):
    return motion_path(label, 60, np.random.default_rng(seed))


@pytest.mark.parametrize("label", [*MOTIONS, *DIRECTED_MOTIONS])
def test_every_motion_moves(label: str):
    path = path_of(label, 0)
    spread = [np.ptp(values) for values in (path.x, path.y, path.scale, path.angle)]
    assert max(spread) > 0.3 and all(np.isfinite(spread))


@pytest.mark.parametrize("label", MOTIONS)
def test_motions_go_to_either_side(label: str):
    """Note [Motions that mirrors keep]: a mirrored example is as likely an example of its class."""
    paths = [path_of(label, seed) for seed in range(60)]
    for values in ([path.x for path in paths], [path.angle for path in paths]):
        signs = [np.sign(np.sum(np.diff(each) * np.linspace(2, 1, 59))) for each in values if np.ptp(each) > 0.1]
        # A fair coin thrown 60 times stays within 30 ± 20 but for one time in ten million.
        assert not signs or 10 <= sum(sign > 0 for sign in signs) <= len(signs) - 10
    assert all(np.allclose(path.scale[0], paths[0].scale[0], rtol=0.4) for path in paths)


def test_the_two_orders_differ_in_order_alone():
    for one, other in (("slide_then_rise", "rise_then_slide"), ("grow_then_slide", "slide_then_grow")):
        first, second = path_of(one, 3), path_of(other, 3)
        early = slice(0, 15)
        moves = {
            name: (np.ptp(path.x[early]) > 0.05, np.ptp(path.y[early]) + np.ptp(path.scale[early]) > 0.05)
            for name, path in ((one, first), (other, second))
        }
        assert sorted(moves.values()) == [(False, True), (True, False)], moves
        assert np.ptp(first.x) == pytest.approx(np.ptp(second.x))


def test_directed_motions_go_one_way():
    assert all(path_of("left", seed).x[-1] < path_of("left", seed).x[0] for seed in range(10))
    assert all(path_of("clockwise", seed).angle[-1] > 0 for seed in range(10))


def test_what_is_drawn_moves_as_the_path_says():
    """The pixels that change between first and last frame lie where a rising thing was and is."""
    frames = render_motion_video("rise", rng=np.random.default_rng(5), num_frames=40).astype(int)
    assert frames.shape == (40, 64, 64, 3)
    changed = np.abs(frames[-1] - frames[0]).sum(-1) > 60
    rows = np.flatnonzero(changed.any(1))
    assert rows.max() - rows.min() > 20


def test_frame_statistics_do_not_tell_the_class():
    """Mean colours of two classes' videos agree within what random colours give (four standard errors)."""
    means = {
        label: np.stack(
            [
                render_motion_video(label, rng=np.random.default_rng([n, 7]), num_frames=6).mean((0, 1, 2))
                for n in range(24)
            ]
        )
        for label in ("slide_then_rise", "rise_then_slide")
    }
    one, other = means.values()
    error = np.sqrt(one.var(0) / 24 + other.var(0) / 24)
    assert (np.abs(one.mean(0) - other.mean(0)) < 4 * error).all()


def test_looks_are_shared_by_classes_and_splits(tmp_path):
    """A still background: the middle frame's corner tells the look, which goes by the video's number alone."""
    looks = {"num_looks": 2, "clutter": False, **SMALL, "image_size": 64}
    rows = make_motion_videos(tmp_path, num_videos={"train": 3, "test": 2}, labels=["grow", "pulse"], **looks)
    corners = {row["video_id"]: read_frames(row["video"])[0][5, :10, :10].astype(int) for row in rows}

    def alike(one, other):
        return np.abs(corners[one] - corners[other]).mean() < 6  # what the codec leaves of the grain, 2 of 255

    assert alike("train_grow_0000", "train_pulse_0000") and alike("train_grow_0000", "test_grow_0000")
    assert alike("train_grow_0000", "train_grow_0002") and not alike("train_grow_0000", "train_grow_0001")
    with pytest.raises(InputError, match="were made with"):
        make_motion_videos(tmp_path, num_videos={"train": 1}, labels=["grow"], **{**looks, "num_looks": 3})


def test_without_clutter_nothing_but_the_thing_changes():
    frames = render_motion_video("pulse", rng=np.random.default_rng(5), num_frames=20, clutter=False).astype(int)
    still = np.abs(frames - frames[:1]).sum(-1).max(0) == 0
    assert still[:6].all() and still[-6:].all() and not still.all()


def test_files_and_rows(tmp_path):
    rows = make_motion_videos(tmp_path, num_videos={"train": 2, "test": 1}, labels=["rise", "spin"], **SMALL)
    assert [(row["split"], row["label"]) for row in rows].count(("train", "rise")) == 2 and len(rows) == 6
    written = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [tmp_path / row["video"] for row in written] == [tmp_path / row["video"] for row in rows]
    info = probe(rows[0]["video"])
    assert (info.height, info.width, info.frames_per_second) == (32, 32, 25.0) and 10 <= info.num_frames <= 15


def test_equal_arguments_give_equal_videos_however_many_and_by_how_many_threads(tmp_path):
    make_motion_videos(tmp_path / "a", num_videos={"train": 1}, labels=["rise"], **SMALL)
    make_motion_videos(tmp_path / "b", num_videos={"train": 3}, labels=["spin", "rise"], num_workers=2, **SMALL)
    make_motion_videos(tmp_path / "c", num_videos={"train": 1}, labels=["rise"], seed=1, **SMALL)
    one, same, other = (read_frames(tmp_path / name / "train/train_rise_0000.mp4")[0] for name in "abc")
    assert np.array_equal(one, same) and not (one.shape == other.shape and np.array_equal(one, other))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    arguments = {"num_videos": {"train": 3}, "labels": ["rise"], **SMALL}
    render = motion_videos.render_motion_video

    def fails_at_the_second(label, **options):
        if len(list((tmp_path / "train").glob("*.mp4"))) == 1:
            raise KeyboardInterrupt
        return render(label, **options)

    monkeypatch.setattr(motion_videos, "render_motion_video", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make_motion_videos(tmp_path, **arguments)
    monkeypatch.undo()
    first = next((tmp_path / "train").glob("*.mp4"))
    before = first.stat().st_mtime_ns
    make_motion_videos(tmp_path, **arguments)
    assert first.stat().st_mtime_ns == before and len(list((tmp_path / "train").glob("*.mp4"))) == 3
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_of_other_videos_is_refused(tmp_path):
    make_motion_videos(tmp_path, num_videos={"train": 1}, labels=["rise"], **SMALL)
    with pytest.raises(InputError, match="choose another folder"):
        make_motion_videos(tmp_path, num_videos={"train": 1}, labels=["rise"], **{**SMALL, "seed": 4})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        make_motion_videos(tmp_path, num_videos={"train": 1}, labels=["rise"], **SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": ["fly"]},
        {"labels": []},
        {"labels": ["rise", "rise"]},
        {"num_videos": {}},
        {"num_videos": {"validation": 1}},
        {"num_videos": {"train": 0}},
        {"image_size": 33},
        {"seconds": (2, 1)},
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(ValueError, match="got"):
        make_motion_videos(tmp_path / "new", **{"num_videos": {"train": 1}, **wrong})
    assert not (tmp_path / "new").exists()


def test_an_unknown_motion_is_refused():
    with pytest.raises(ValueError, match="no motion 'fly'"):
        motion_path("fly", 10, np.random.default_rng(0))
