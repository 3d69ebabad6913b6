"""Clips over captions, against what the released samplers drew from the same random stream."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tempclr.data.captions_collation import CaptionCollator, CaptionDataset
from tempclr.data.captions_sampling import (
    CaptionClip,
    ClipSampling,
    grow_captions,
    grow_features,
    non_overlapping_clips,
    sample_clips,
    sequence_units,
)
from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.models.tempclr import TempCLRProcessor

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def recorded():
    with np.load(DATA / "caption_clips_released.npz") as arrays:
        return dict(arrays)


def test_texts_grow_as_released(recorded):
    """Note [The released random stream]: two draws a caption."""
    generator = random.Random(3)
    starts, ends = recorded["text_sampler/start_ends"]
    for centre, wanted, first, last in recorded["text_sampler/cases"].tolist():
        grown = grow_captions(
            recorded["text_sampler/num_tokens"].tolist(),
            starts,
            ends,
            centre=centre,
            wanted_tokens=wanted,
            generator=generator,
        )
        assert grown == (first, last)


def test_videos_grow_as_released(recorded):
    """Note [The released random stream]: one draw a feature, none at a border."""
    generator = random.Random(4)
    for num_features, wanted, centre, first, last in recorded["video_sampler/cases"].tolist():
        grown = grow_features(num_features, centre=centre, wanted_features=wanted, generator=generator)
        assert grown == (first, last)


class RecordedTokenizer:
    """Gives the recorded ids of a caption, which is written as its number."""

    cls_token_id, sep_token_id, pad_token_id = 3, 4, 0

    def __init__(self, ids):
        self.ids = ids

    def __call__(self, captions, **_):
        return {
            "input_ids": [[token for token in self.ids[int(caption)].tolist() if token >= 0] for caption in captions]
        }


def recorded_video(recorded, video):
    starts, ends = recorded[f"video{video}/start_ends"].T.astype(float).tolist()
    return Paragraph(
        video_id=f"video{video}",
        sentences=[str(number) for number in range(len(starts))],
        starts=starts,
        ends=ends,
        features=recorded[f"video{video}/features"],
        features_per_second=1.0,
    )


@pytest.mark.parametrize("videos_before", [0, 1])
def test_a_batch_of_two_videos_is_the_released_one(recorded, videos_before):
    """All sixteen clips of each: captions, features, order, tokens and padding."""
    generator = random.Random(13)
    for video in range(videos_before + 1):
        tokenizer = RecordedTokenizer(recorded[f"video{video}/caption_ids"])
        processor = TempCLRProcessor.__new__(TempCLRProcessor)
        processor.tokenizer, processor.max_text_tokens, processor.max_num_features = tokenizer, 63, 32
        dataset = CaptionDataset([recorded_video(recorded, video)], processor, num_units=None)
        drawn = dataset.draw(0, generator=generator)
    names = ("text_start", "text_end", "video_start", "video_end")
    wanted = zip(*(recorded[f"item/{name}"][videos_before].tolist() for name in names), strict=True)
    assert [tuple(clip) for clip in drawn.clips] == list(wanted)

    batch = CaptionCollator(processor)([drawn])
    released_ids = torch.from_numpy(recorded["item/caps"][videos_before].astype(np.int64))
    released_ids = torch.cat([released_ids[:, :1], released_ids[:, 2:]], dim=1)  # without the second [SEP]
    length = batch["input_ids"].shape[2]
    assert torch.equal(batch["input_ids"][0], released_ids[:, :length]) and not released_ids[:, length:].any()
    num_features = batch["video_features"].shape[2]
    assert np.array_equal(batch["video_mask"][0], recorded["item/vmasks"][videos_before][:, :num_features])
    features = recorded["item/vfeats"][videos_before][:, :num_features].astype(np.float32)
    assert np.array_equal(batch["video_features"][0], features)


@pytest.mark.parametrize("case", ["mixed", "all", "none"])
def test_units_are_the_released_ones(case, recorded):
    of_case = {name.rpartition("/")[2]: value for name, value in recorded.items() if f"selection/{case}/" in name}
    spans = [of_case[name].reshape(-1, 16) for name in ("text_start", "text_end", "video_start", "video_end")]
    found = {}
    for video, kept in enumerate(of_case["nonoverlapped_indices"].tolist()):
        clips = [CaptionClip(*map(int, clip)) for clip in zip(*(span[video] for span in spans), strict=True)]
        assert non_overlapping_clips(clips) == [position for position in kept if position >= 0]
        if sequence_units(clips):
            found[video] = sequence_units(clips)
    assert list(found) == of_case["used_video"].tolist()
    assert list(found.values()) == of_case["unit_indices_in_video"].tolist()


def captions(count, *, seconds=4.0):
    return [3] * count, [seconds * n for n in range(count)], [seconds * n + seconds for n in range(count)]


@given(st.integers(1, 40), st.integers(1, 300), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 99), st.booleans())
def test_clips_stay_inside_and_in_order(num_captions, num_features, rate, seed, spoken):
    sampling = ClipSampling(video_span="spoken" if spoken else "around")
    clips = sample_clips(
        *captions(num_captions),
        num_features=num_features,
        features_per_second=rate,
        sampling=sampling,
        generator=random.Random(seed),
    )
    assert len(clips) == 16
    assert clips == sorted(clips, key=lambda c: (c.text_first, c.video_first, c.text_last, c.video_last))
    for clip in clips:
        assert 0 <= clip.text_first < clip.text_last <= num_captions
        assert 0 <= clip.video_first < clip.video_last <= num_features
        least = 1 if spoken else min(3, num_features)
        assert least <= clip.video_last - clip.video_first <= 32


def test_the_text_stops_at_its_tokens_or_seconds():
    num_tokens, starts, ends = captions(60, seconds=30.0)
    first, last = grow_captions(num_tokens, starts, ends, centre=30, wanted_tokens=99, generator=random.Random(0))
    assert 256 <= ends[last - 1] - starts[first] < 256 + 30
    first, last = grow_captions(num_tokens, starts, ends, centre=30, wanted_tokens=8, generator=random.Random(0))
    assert last - first == 3


def test_spoken_video_is_what_the_text_spans():
    sampling = ClipSampling(video_span="spoken", num_clips=4)
    for clip in sample_clips(*captions(9), num_features=99, sampling=sampling, generator=random.Random(1)):
        assert clip.video_first == 4 * clip.text_first
        assert clip.video_last == min(4 * clip.text_last, clip.video_first + 32)


def test_a_gap_of_none_keeps_clips_that_touch():
    touching = [CaptionClip(n, n + 1, n, n + 1) for n in range(6)]
    assert sequence_units(touching) == [] and non_overlapping_clips(touching) == [0, 2, 4]
    assert sequence_units(touching, min_gap=0) == [0, 1, 2, 3, 5]
    assert non_overlapping_clips([]) == []


def test_settings_that_cannot_be_drawn_from_are_refused():
    with pytest.raises(ValueError, match="num_clips must be at least 1, got 0"):
        ClipSampling(num_clips=0)
    with pytest.raises(ValueError, match="1 <= min_num_features <= max_num_features, got 5 and 4"):
        ClipSampling(min_num_features=5, max_num_features=4)
    with pytest.raises(ValueError, match="around, spoken, got 'all'"):
        ClipSampling(video_span="all")
    with pytest.raises(ValueError, match="captions and features, got 0 and 3"):
        sample_clips([], [], [], num_features=3, generator=random.Random(0))


# --- rows to batches

WORDS = ("cut", "the", "bread", "melt", "butter", "pour", "milk", "stir")


@pytest.fixture(scope="module")
def processor():
    return TempCLRProcessor(train_tokenizer([" ".join(WORDS)]), max_text_tokens=20, max_num_features=8)


SHORT = ClipSampling(num_clips=6, max_text_tokens=12, max_num_features=8)


def video(number, *, num_captions=30, width=4, **changes):
    draw = np.random.default_rng(number)
    starts = [4.0 * n for n in range(num_captions)]
    fields = {
        "video_id": f"v{number}",
        "sentences": [" ".join(draw.choice(WORDS, size=3)) for _ in starts],
        "starts": starts,
        "ends": [start + 4 for start in starts],
        "features": draw.normal(size=(4 * num_captions, width)).astype(np.float32),
        "features_per_second": 1.0,
    }
    return Paragraph(**{**fields, **changes})


def test_a_batch_holds_every_clip_once_and_the_units_together(processor):
    """Note [Clips beside the sequence]."""
    dataset = CaptionDataset([video(0), video(1, num_captions=2)], processor, sampling=SHORT, num_units=3)
    drawn = [dataset[0], dataset[1]]
    batch = CaptionCollator(processor, with_video_ids=True)(drawn)
    assert drawn[0].paragraphs[0] == sequence_units(drawn[0].clips, num_units=3) and len(drawn[0].paragraphs) == 4
    assert drawn[1].paragraphs == [[n] for n in range(6)], "two captions leave no three units"
    assert batch["video_id"] == ["v0"] * 4 + ["v1"] * 6
    assert batch["clip_mask"].sum(1).tolist() == [3, 1, 1, 1] + [1] * 6
    assert torch.equal(batch["clip_mask"], batch["sentence_mask"])
    assert torch.equal(batch["clip_sentence_index"] >= 0, batch["clip_mask"])
    together = torch.cat([torch.from_numpy(features) for each in drawn for features in each.features])
    assert batch["video_features"].sum() == pytest.approx(together.sum().item(), rel=1e-4)
    assert batch["video_mask"].sum() == len(together)
    tokens = batch["input_ids"][0, 0][batch["attention_mask"][0, 0].bool()].tolist()
    clip = drawn[0].clips[drawn[0].paragraphs[0][0]]
    text = " ".join(video(0).sentences[clip.text_first : clip.text_last])
    assert tokens == processor.tokenizer(text, truncation=True, max_length=20)["input_ids"]


def test_captions_are_cut_before_they_are_joined(processor):
    long = video(0, sentences=[" ".join(["bread"] * 9)] * 30)
    dataset = CaptionDataset([long], processor, sampling=SHORT, max_caption_tokens=4)
    assert all(len(ids) <= 4 for ids in dataset._token_ids(long.sentences))
    dataset = CaptionDataset([long], processor, sampling=SHORT, max_caption_characters=11)
    assert [processor.tokenizer.decode(ids) for ids in dataset._token_ids(long.sentences[:1])] == ["bread bread"]


def test_draws_depend_on_seed_epoch_and_row_alone(processor):
    """Note [Workers that persist]."""

    def clips(seed=0, epoch=0, row=0, workers=0):
        dataset = CaptionDataset([video(0), video(0)], processor, sampling=SHORT, seed=seed)
        dataset.set_epoch(epoch)
        if not workers:
            return dataset[row].clips
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=True)
        list(loader)
        dataset.set_epoch(epoch + 1)
        list(loader)
        dataset.set_epoch(epoch)
        return list(loader)[row].clips

    first = clips()
    assert clips() == first == clips(workers=2)
    assert all(clips(**{name: 1}) != first for name in ("seed", "epoch", "row"))
    assert clips(epoch=1, row=1, workers=2) == clips(epoch=1, row=1)


def test_what_cannot_be_made_a_batch_of_is_named(processor):
    with pytest.raises(ValueError, match="up to 32 features do not fit a model of 8"):
        CaptionDataset([], processor)
    bare = dataclasses.replace(video(3), features=None, features_per_second=None, video="x.mp4")
    with pytest.raises(InputError, match="'v3' has no features"):
        CaptionDataset([bare], processor, sampling=SHORT)[0]
    mixed = CaptionDataset([video(0), video(1, width=5)], processor, sampling=SHORT)
    with pytest.raises(InputError, match=r"one width, got 4 \('v0'\), 5 \('v1'\)"):
        CaptionCollator(processor)([mixed[0], mixed[1]])
    without = TempCLRProcessor.__new__(TempCLRProcessor)
    without.tokenizer, without.max_text_tokens, without.max_num_features = RecordedTokenizer({}), 20, 8
    without.tokenizer.cls_token_id = None
    with pytest.raises(ValueError, match=r"a tokenizer with \[CLS\] and \[SEP\]"):
        CaptionDataset([], without, sampling=SHORT)
