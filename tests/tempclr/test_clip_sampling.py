"""Which frames make clips: equal to the released code where it keeps a video, and never short of frames elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.data.clip_sampling import SHORT_VIDEOS, ClipSampler, sample_training_clip, uniform_test_clips

RELEASED = json.loads((Path(__file__).parent / "data/tclr_sampling.json").read_text())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def num_frames_of(name: str) -> int:
    return int(name[1:].split("_")[0])


def plain(clip):
    return None if clip is None else clip.tolist()


@pytest.mark.parametrize("name", RELEASED["tclr_pretrain_frames"])
@pytest.mark.parametrize("short_videos", SHORT_VIDEOS)
def test_pretraining_clips_are_the_released_ones(name, short_videos):
    """Note [What becomes of short videos]: "drop" in every case, the others where the video fills the span."""
    expected, num_frames = RELEASED["tclr_pretrain_frames"][name], num_frames_of(name)
    if short_videos != "drop" and num_frames < 64:
        return
    start = expected["sparse"][0] if expected else 0
    clips = ClipSampler(short_videos=short_videos).clips(num_frames, start=start)
    if expected is None:
        assert clips is None
    else:
        assert clips.global_frames.tolist() == expected["sparse"] and clips.local_frames.tolist() == expected["dense"]


def test_a_truncated_video_is_dropped_or_repaired_as_released():
    """Those whose start is fixed: the header says 64 frames, fewer can be read."""
    for name, expected in RELEASED["tclr_pretrain_frames_truncated"].items():
        header, readable = map(int, re.findall(r"\d+", name))
        if header == 64:
            clips = ClipSampler(short_videos="drop").clips(readable, start=0)
            assert (clips and clips.local_frames.tolist()) == (expected and expected["dense"]), name


@pytest.mark.parametrize("name", RELEASED["tclr_linear_train_frames"])
def test_training_clips_are_the_released_ones(name):
    expected = RELEASED["tclr_linear_train_frames"][name]
    clip = sample_training_clip(num_frames_of(name), start=expected[0] if expected else 0, short_videos="drop")
    assert plain(clip) == expected


@pytest.mark.parametrize("name", RELEASED["tclr_linear_val_frames_10modes"])
def test_test_clips_are_the_released_ones(name):
    """Note [Released test clips]: bunched starts included."""
    clips = uniform_test_clips(num_frames_of(name), short_videos="drop")
    assert [plain(clip) for clip in clips] == RELEASED["tclr_linear_val_frames_10modes"][name]
    if num_frames_of(name) >= 42:
        assert [plain(clip) for clip in uniform_test_clips(num_frames_of(name))] == [plain(clip) for clip in clips]


@pytest.mark.parametrize("name", RELEASED["tclr_retrieval_first_last_9modes"])
def test_nine_clips_of_the_released_retrieval(name):
    clips = uniform_test_clips(num_frames_of(name), num_clips=9, short_videos="drop")
    assert [[int(c[0]), int(c[-1])] for c in clips] == RELEASED["tclr_retrieval_first_last_9modes"][name]


@pytest.mark.parametrize("short_videos", ["loop", "mirror"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 15, 17, 40, 63, 64])
def test_short_videos_give_whole_clips(short_videos, num_frames):
    clips = ClipSampler(short_videos=short_videos).sample(num_frames, generator=generator())
    everything = np.concatenate([clips.global_frames, clips.local_frames.reshape(-1)])
    assert everything.min() >= 0 and everything.max() < num_frames
    assert set(clips.local_frames.reshape(-1)) == set(range(num_frames))
    jumps = np.abs(np.diff(clips.local_frames.reshape(-1)))
    assert set(jumps) <= ({1, num_frames - 1} if short_videos == "loop" else {0, 1})
    for clip in uniform_test_clips(num_frames, short_videos=short_videos):
        assert clip.shape == (16,) and clip.min() >= 0 and clip.max() < num_frames


def test_mirroring_goes_back_and_forth():
    clips = ClipSampler(short_videos="mirror").clips(5, start=0)
    assert clips.local_frames[0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]


def test_every_start_comes_and_no_other():
    """67 frames leave starts 0 to 3; the released rule never comes to the last of them."""
    for short_videos, starts in (("loop", {0, 1, 2, 3}), ("drop", {0, 1, 2})):
        sampler = ClipSampler(short_videos=short_videos)
        draws = generator()
        found = {int(sampler.sample(67, generator=draws).global_frames[0]) for _ in range(100)}
        assert found == starts  # each of four fails to come in 100 draws once in 3e12


@pytest.mark.parametrize(("num_timesteps", "global_skip"), [(2, 4), (4, 4), (4, 8), (8, 8), (1, 3)])
def test_local_clips_tile_the_global_one(num_timesteps, global_skip):
    sampler = ClipSampler(num_timesteps=num_timesteps, global_skip=global_skip)
    clips = sampler.clips(1000, start=7)
    assert clips.local_frames.shape == (num_timesteps, 16)
    in_slices = clips.global_frames.reshape(num_timesteps, -1)
    for local, within in zip(clips.local_frames, in_slices, strict=True):
        assert local[0] == within[0] and local[-1] < within[-1] + global_skip and set(within) <= set(local)


def test_random_skips_draw_each_of_them():
    sampler = ClipSampler(global_skip=(4, 8, 12))
    draws = generator()
    skips = [int(np.diff(sampler.sample(500, generator=draws).global_frames)[0]) for _ in range(300)]
    # Binomial(300, 1/3): 100 with standard deviation 8.2; five of them on either side.
    assert all(59 <= skips.count(skip) <= 141 for skip in (4, 8, 12))


@pytest.mark.parametrize("short_videos", SHORT_VIDEOS)
@pytest.mark.parametrize("paired_skip", [1, 4, 6])
def test_the_second_view_may_have_a_skip_of_its_own(paired_skip, short_videos):
    """All else is as without it, and the longer of both clips lies within the video."""
    sampler = ClipSampler(paired_skip=paired_skip, short_videos=short_videos)
    clips, plain_clips = sampler.clips(200, start=7), ClipSampler().clips(200, start=7)
    assert clips.paired_frames.tolist() == list(range(7, 7 + 16 * paired_skip, paired_skip))
    assert np.array_equal(plain_clips.paired_frames, plain_clips.global_frames)
    for name in ("global_frames", "local_frames"):
        assert np.array_equal(getattr(clips, name), getattr(plain_clips, name))
    span, draws = 16 * max(4, paired_skip), generator()
    starts = {int(sampler.sample(span + 3, generator=draws).paired_frames[0]) for _ in range(100)}
    assert starts == ({0, 1, 2} if short_videos == "drop" else {0, 1, 2, 3})
    shorter = sampler.sample(span - 8, generator=draws)
    assert shorter is None if short_videos == "drop" else shorter.paired_frames.max() < span - 8


def test_skips_of_the_second_view_are_drawn_apart_from_the_first_ones():
    sampler, draws = ClipSampler(global_skip=(4, 8), paired_skip=(1, 2)), generator()
    found = [sampler.sample(500, generator=draws) for _ in range(100)]
    pairs = {(int(np.diff(clips.global_frames)[0]), int(np.diff(clips.paired_frames)[0])) for clips in found}
    assert pairs == {(4, 1), (4, 2), (8, 1), (8, 2)}  # one of four fails to come in 100 draws once in 3e12


def test_equal_generators_draw_equal_clips():
    sampler = ClipSampler()
    one, other = (sampler.sample(300, generator=generator(5)) for _ in range(2))
    assert np.array_equal(one.global_frames, other.global_frames)


def test_random_training_clips_stay_in_the_video():
    draws = generator()
    clips = [sample_training_clip(40, skip=2, generator=draws) for _ in range(200)]
    assert {int(clip[0]) for clip in clips} == set(range(9))
    assert all(np.array_equal(np.diff(clip), np.full(15, 2)) for clip in clips)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_videos": "stretch"}, "short_videos must be one of loop, mirror, drop"),
        ({"global_skip": 3}, "multiples of num_timesteps=4"),
        ({"global_skip": (4, 6)}, "got 6"),
        ({"global_skip": ()}, "at least 1"),
        ({"num_frames": 0}, "at least 1"),
        ({"paired_skip": 0}, "paired_skip must be at least 1, got 0"),
        ({"paired_skip": ()}, "paired_skip must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClipSampler(**options)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="give a generator"):
        sample_training_clip(100)
    with pytest.raises(ValueError, match="num_clips"):
        uniform_test_clips(100, num_clips=0)
    with pytest.raises(ValueError, match="at least one frame"):
        ClipSampler().clips(0, start=0)
    with pytest.raises(ValueError, match="short_videos"):
        uniform_test_clips(100, short_videos="cut")
