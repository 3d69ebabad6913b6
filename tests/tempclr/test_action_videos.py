"""Data sets of clips: rows checked, samples that depend on seed, epoch and index alone, faults told or counted."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tempclr.data import action_videos
from tempclr.data.action_videos import (
    ActionClips,
    TCLRDataset,
    action_collate,
    label_names,
    read_action_videos,
    tclr_collate,
)
from tempclr.data.augmentations import AUGMENTATIONS, WEAK, AugmentationRecipe
from tempclr.data.clip_sampling import ClipSampler
from tempclr.data.motion_videos import make_motion_videos
from tempclr.data.video import write_video
from tempclr.data.video_seeking import nominal_frames
from tempclr.errors import InputError

SMALL = AugmentationRecipe(image_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("motions")
    make_motion_videos(
        folder,
        num_videos={"train": 2, "test": 1},
        labels=["rise", "spin", "grow"],
        image_size=48,
        seconds=(2.7, 2.9),
        show_progress_bar=False,
    )
    return folder


@pytest.fixture
def videos(folder):
    return read_action_videos(folder / "rows.jsonl", split="train")


@pytest.fixture
def bad_folder(tmp_path) -> Path:
    """A good video, one that is none, and one of 20 frames."""
    frames = np.random.default_rng(0).integers(0, 255, (70, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "good.mp4", frames, frames_per_second=25)
    write_video(tmp_path / "short.mp4", frames[:20], frames_per_second=25)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:500])
    rows = [{"video_id": name, "video": f"{name}.mp4", "label": "a"} for name in ("good", "broken", "short")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def equal(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_rows_are_read_and_checked(folder, videos):
    assert len(videos) == 6 and label_names(videos) == ["grow", "rise", "spin"]
    assert videos[0].video.is_file() and videos[0].split == "train"
    assert len(read_action_videos(folder / "rows.jsonl")) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "none.mp4"}, r"rows\.jsonl, row 0, field 'video': no such file: .*none\.mp4"),
        ({"video": None}, r"rows\.jsonl, row 0, field 'video': missing"),
        ({"video_id": None}, "field 'video_id': missing"),
        ({"label": " "}, "field 'label': expected a text"),
        ({"label": None}, "field 'label': missing: every video needs its class"),
    ],
)
def test_bad_rows_are_named(bad_folder, change, message):
    row = {"video_id": "good", "video": "good.mp4", "label": "a"} | change
    (bad_folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        read_action_videos(bad_folder / "rows.jsonl", needs_labels=True)


def test_a_sample_has_two_views_of_the_same_frames(videos):
    sample = TCLRDataset(videos, augmentation=SMALL)[0]
    assert sample["global_clips"].shape == (2, 16, 3, 32, 32) and sample["global_clips"].dtype == torch.uint8
    assert sample["local_clips"].shape == (2, 4, 16, 3, 32, 32)
    assert not torch.equal(sample["global_clips"][0], sample["global_clips"][1])
    everything_off = SMALL.without(*AUGMENTATIONS)
    sample = TCLRDataset(videos, augmentation=everything_off)[0]
    assert torch.equal(sample["global_clips"][0], sample["global_clips"][1])
    # Local clip p holds the frames of slice p of the global clip: every fourth of it is the same.
    for p in range(4):
        assert torch.equal(sample["local_clips"][0, p, ::4], sample["global_clips"][0, 4 * p : 4 * p + 4])


def test_only_the_second_global_clip_follows_a_skip_of_its_own(videos):
    settings = {"augmentation": SMALL.without(*AUGMENTATIONS)}
    sample = TCLRDataset(videos, sampler=ClipSampler(paired_skip=1), **settings)[0]
    first, second = sample["global_clips"]
    assert torch.equal(first, TCLRDataset(videos, **settings)[0]["global_clips"][0])
    assert torch.equal(sample["local_clips"][0], sample["local_clips"][1])
    assert torch.equal(second, sample["local_clips"][0, 0]) and not torch.equal(first, second)
    for p in range(4):
        assert torch.equal(sample["local_clips"][0, p, ::4], first[4 * p : 4 * p + 4])


def test_two_timesteps(videos):
    sample = TCLRDataset(videos, sampler=ClipSampler(num_timesteps=2), augmentation=SMALL)[1]
    assert sample["local_clips"].shape == (2, 2, 16, 3, 32, 32)


def test_a_sample_depends_on_seed_epoch_and_index_alone(videos):
    """Note [The draw of a sample]"""
    dataset, same = (TCLRDataset(videos, augmentation=SMALL, seed=3) for _ in range(2))
    first = dataset[2]
    _ = dataset[1], dataset[0]
    assert equal(first, dataset[2]) and equal(first, same[2]) and equal(first, dataset[-4])
    assert not equal(first, dataset[3]) and not equal(first, TCLRDataset(videos, augmentation=SMALL, seed=4)[2])
    dataset.set_epoch(1)
    assert not equal(first, dataset[2])
    dataset.set_epoch(0)
    assert equal(first, dataset[2])
    with pytest.raises(IndexError, match="out of range for 6"):
        dataset[6]


def test_the_number_of_workers_changes_nothing_and_epochs_reach_them(videos):
    """Workers that live through two epochs draw the second one's clips."""
    dataset = TCLRDataset(videos, augmentation=SMALL)
    epochs = {}
    for num_workers in (0, 2):
        loader = DataLoader(
            dataset, 4, num_workers=num_workers, collate_fn=tclr_collate, persistent_workers=num_workers > 0
        )
        for epoch in range(2):
            dataset.set_epoch(epoch)
            epochs[num_workers, epoch] = list(loader)
        del loader
    for epoch in range(2):
        assert all(equal(one, other) for one, other in zip(epochs[0, epoch], epochs[2, epoch], strict=True))
    assert not equal(epochs[0, 0][0], epochs[0, 1][0])
    assert [len(batch["global_clips"]) for batch in epochs[2, 0]] == [4, 2]


def test_a_batch_is_bytes_or_floats(videos):
    dataset = TCLRDataset(videos, augmentation=SMALL)
    samples = [dataset[0], dataset[1]]
    plain, floats = tclr_collate(samples), tclr_collate(samples, as_float=True)
    assert plain["local_clips"].dtype == torch.uint8 and floats["local_clips"].dtype == torch.float32
    assert torch.equal((floats["local_clips"] * 255).round().to(torch.uint8), plain["local_clips"])


def test_an_unreadable_video_is_named(bad_folder):
    dataset = TCLRDataset(read_action_videos(bad_folder / "rows.jsonl"), augmentation=SMALL)
    with pytest.raises(InputError, match=r"broken\.mp4: cannot be read as video"):
        dataset[1]


def test_left_out_videos_are_told_and_counted_across_workers(bad_folder):
    dataset = TCLRDataset(
        read_action_videos(bad_folder / "rows.jsonl"),
        sampler=ClipSampler(short_videos="drop"),
        augmentation=SMALL,
        unreadable_videos="skip",
    )
    with pytest.warns(UserWarning, match=r"left out: .*broken\.mp4: cannot be read"):
        assert dataset[1] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a second time is no news
        assert dataset[1] is None
    (samples,) = DataLoader(dataset, 3, num_workers=1, collate_fn=list)
    assert len(samples[0]["global_clips"]) == 2 and samples[1:] == [None, None]
    assert dataset.left_out == {"unreadable": ["broken"], "too_short": ["short"]}
    assert [video.video_id for video in dataset.kept_videos] == ["good"]


def test_a_batch_of_left_out_videos_tells_what_to_do(videos):
    sample = TCLRDataset(videos, augmentation=SMALL)[0]
    remedy = "give --short_videos loop, videos that can be read, or a larger --per_device_train_batch_size"
    with pytest.raises(InputError, match=f"none of the 2 videos of a batch could be used, .*: {remedy}"):
        tclr_collate([None, None])
    with pytest.raises(InputError, match=f"left out were 2 of the 3 videos of a batch, .* contrasted with: {remedy}"):
        tclr_collate([None, sample, None])
    assert len(tclr_collate([sample])["global_clips"]) == 1, "where none was left out, recipes see to it"
    with pytest.raises(InputError, match=remedy):
        action_collate([None, None])
    assert action_collate([None, None], may_be_empty=True) is None
    clip = {"pixel_values": sample["global_clips"][0], "labels": 0}
    assert len(action_collate([None, clip], may_be_empty=True)["labels"]) == 1


def count_openings(monkeypatch) -> list[str]:
    opened = []

    def counted(path, **options):
        opened.append(Path(path).name)
        return nominal_frames(path, **options)

    monkeypatch.setattr(action_videos, "nominal_frames", counted)
    return opened


@pytest.mark.parametrize(
    "kind", [partial(TCLRDataset, sampler=ClipSampler(short_videos="drop")), partial(ActionClips, short_videos="drop")]
)
def test_unusable_videos_are_taken_out_before_training(bad_folder, monkeypatch, kind):
    """Note [Unusable videos are taken out first]: 20 frames are too few for a span of 64, and of 32."""
    dataset = kind(read_action_videos(bad_folder / "rows.jsonl"), augmentation=SMALL, unreadable_videos="skip")
    opened = count_openings(monkeypatch)
    with pytest.warns(UserWarning) as told:
        dataset.remove_unusable()
    assert [str(one.message).partition(": ")[0] for one in told] == ["left out", "left out"]
    assert len(dataset) == 1 and dataset.left_out == {"unreadable": ["broken"], "too_short": ["short"]}
    assert dataset[0] is not None and opened == ["good.mp4", "broken.mp4", "short.mp4"], "lengths are kept"


def test_evenly_placed_clips_need_nine_frames_only(bad_folder):
    """Note [Unusable videos are taken out first]"""
    videos = read_action_videos(bad_folder / "rows.jsonl")
    dataset = ActionClips(
        videos, num_clips=4, augmentation=SMALL, short_videos="drop", skip=4, unreadable_videos="skip"
    )
    with pytest.warns(UserWarning, match="too short"):
        dataset.remove_unusable()
    dataset = ActionClips(
        [videos[0], videos[2]], num_clips=4, augmentation=SMALL, short_videos="drop", unreadable_videos="raise"
    )
    dataset.remove_unusable()
    assert len(dataset) == 2


def test_a_video_is_long_enough_if_the_smallest_skips_are(bad_folder):
    """Note [Unusable videos are taken out first]: 70 frames are too few for a second view of 128."""
    good = read_action_videos(bad_folder / "rows.jsonl")[:1]
    some, none = (ClipSampler(short_videos="drop", paired_skip=skips) for skips in ((8, 2), 8))
    dataset = TCLRDataset(good, sampler=some, augmentation=SMALL)
    dataset.remove_unusable()
    assert len(dataset) == 1
    with pytest.warns(UserWarning), pytest.raises(InputError, match="0 unreadable, 1 too short"):
        TCLRDataset(good, sampler=none).remove_unusable()


def test_nothing_is_taken_out_unasked_and_not_everything(bad_folder, monkeypatch):
    """Note [Unusable videos are taken out first]"""
    good, broken, short = read_action_videos(bad_folder / "rows.jsonl")
    opened = count_openings(monkeypatch)
    dataset = TCLRDataset([good, broken, short], augmentation=SMALL)
    dataset.remove_unusable()
    assert len(dataset) == 3 and not opened
    sampler = ClipSampler(short_videos="drop")
    with pytest.raises(InputError, match=r"broken\.mp4: cannot be read"):
        TCLRDataset([good, broken], sampler=sampler).remove_unusable()
    with (
        pytest.warns(UserWarning),
        pytest.raises(InputError, match="none of the 2 videos can be used: 1 unreadable, 1 too short"),
    ):
        TCLRDataset([broken, short], sampler=sampler, unreadable_videos="skip").remove_unusable()


def test_short_videos_loop_unless_told_otherwise(bad_folder):
    dataset = TCLRDataset(read_action_videos(bad_folder / "rows.jsonl"), augmentation=SMALL)
    assert dataset[2]["global_clips"].shape == (2, 16, 3, 32, 32)


def test_clips_for_a_classifier(videos):
    labels = label_names(videos)
    dataset = ActionClips(videos, labels=labels, augmentation=SMALL)
    sample = dataset[0]
    assert sample["pixel_values"].shape == (16, 3, 32, 32) and sample["labels"] == labels.index(videos[0].label)
    batch = action_collate([dataset[0], dataset[1]])
    assert batch["pixel_values"].shape == (2, 16, 3, 32, 32) and batch["labels"].dtype == torch.int64
    assert torch.equal(dataset[3]["pixel_values"], dataset[3]["pixel_values"])
    dataset.set_epoch(5)
    assert not torch.equal(sample["pixel_values"], dataset[0]["pixel_values"])
    assert dataset.augmentation is SMALL and ActionClips(videos).augmentation is WEAK
    assert "labels" not in ActionClips(videos, augmentation=SMALL)[0]


def test_clips_for_tests_are_fixed_and_cropped_in_the_middle(videos):
    dataset = ActionClips(videos, num_clips=10, augmentation=SMALL)
    first = dataset[0]["pixel_values"]
    dataset.set_epoch(3)
    assert first.shape == (10, 16, 3, 32, 32) and torch.equal(first, dataset[0]["pixel_values"])
    assert not torch.equal(first[0], first[9])
    whole = ActionClips(videos, num_clips=1, augmentation=SMALL, test_crop=1.0)[0]["pixel_values"]
    assert not torch.equal(whole[0], first[0])


def test_dropped_test_clips_are_made_up_for_whatever_the_batch(bad_folder):
    videos = read_action_videos(bad_folder / "rows.jsonl")
    dataset = ActionClips(
        videos, labels=["a"], num_clips=10, augmentation=SMALL, short_videos="drop", unreadable_videos="skip"
    )
    short = dataset[2]["pixel_values"]
    assert len(short) == 10 and torch.equal(short[4:8], short[:4])  # starts 0 to 3 leave nine frames or more
    assert not torch.equal(short[0], short[1]) and torch.equal(short[8:], short[:2])
    with pytest.warns(UserWarning, match="left out"):
        batch = action_collate([dataset[0], dataset[1], dataset[2]])
    assert batch["pixel_values"].shape[:2] == (2, 10) and batch["labels"].tolist() == [0, 0]
    assert torch.equal(batch["pixel_values"][1], short)


def test_frames_counted_at_another_rate(videos):
    """Every frame at 12.5 a second is every second one at 25."""
    off = SMALL.without(*AUGMENTATIONS)
    own = ActionClips(videos, skip=2, num_clips=1, augmentation=off)[0]["pixel_values"]
    half = ActionClips(videos, skip=1, num_clips=1, augmentation=off, frames_per_second=12.5)[0]["pixel_values"]
    assert torch.equal(own, half)


def test_an_unknown_label_is_refused(videos):
    with pytest.raises(InputError, match="field 'label': label 'rise' is none of the 2 classes"):
        ActionClips(videos, labels=["grow", "spin"])


def test_wrong_options_are_refused(videos):
    for make in (partial(TCLRDataset, []), partial(TCLRDataset, videos, unreadable_videos="ignore")):
        with pytest.raises(ValueError, match="videos"):
            make()
