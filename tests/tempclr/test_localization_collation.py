"""Windows of features and per-frame targets, against what the released reader gave for the same annotations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.data.localization_collation import LocalizationCollator, frame_targets, window_starts
from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.localization_loss import localization_loss
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

ITEMS = json.loads((Path(__file__).parent / "data" / "crosstask_items.json").read_text(encoding="utf-8"))["items"]
WIDTH = 6


def video(item):
    indices = [step - 1 for step, _, _ in item["segments"]]
    return Paragraph(
        item["video_id"],
        [item["steps"][index] for index in indices],
        [start for _, start, _ in item["segments"]],
        [end for _, _, end in item["segments"]],
        features=np.random.default_rng(0).normal(size=(item["num_features"], WIDTH)),
        features_per_second=1.0,
        task=item["task"],
        steps=tuple(item["steps"]),
        step_indices=tuple(indices),
    )


def processor(*, max_num_features=32):
    words = sorted({word for item in ITEMS for step in item["steps"] for word in step.split()})
    return TempCLRProcessor(train_tokenizer(words), max_text_tokens=16, max_num_features=max_num_features)


def digits(rows):
    return torch.tensor([[int(digit) for digit in row] for row in rows])


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["video_id"])
def test_windows_and_targets_are_the_released_ones(item):
    batch = LocalizationCollator(processor())([video(item)])
    assert batch["video_mask"][0].sum(1).tolist() == item["frames_per_window"]
    mask = batch["video_mask"]
    assert torch.equal(batch["targets"][mask], digits(item["targets"]).float())
    times = batch["frame_times"][mask]
    assert torch.equal(digits(item["y_true"])[times].float(), batch["targets"][mask])
    assert torch.equal(batch["video_features"][mask], torch.from_numpy(video(item).features)[times])
    assert batch["step_sequence"].tolist() == [item["sequence_targets"]]
    assert batch["sentence_mask"].tolist() == [[True] * len(item["steps"])]


def test_a_batch_of_several_videos_is_each_of_them_padded():
    videos = [video(ITEMS[0]), video(ITEMS[3])]
    collator = LocalizationCollator(processor(), with_video_ids=True)
    together, alone = collator(videos), [collator([each]) for each in videos]
    assert together["video_id"] == ["ct11_1", "ct22_1"]
    for number, one in enumerate(alone):
        mask = together["video_mask"][number]
        assert int(mask.sum()) == int(one["video_mask"].sum())
        steps = one["targets"].shape[3]
        assert torch.equal(together["targets"][number][mask][:, :steps], one["targets"][0][one["video_mask"][0]])
        assert not together["targets"][number][..., steps:].any()
        assert (together["frame_times"][number][~mask] == -1).all()
        sequence = together["step_sequence"][number]
        assert sequence[sequence >= 0].tolist() == one["step_sequence"][0].tolist()


def test_the_batch_feeds_the_model_and_the_loss():
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**tiny, "vocab_size": 200}
    model = TempCLRModel(TempCLRConfig(text_config=text, video_config={**tiny, "feature_size": WIDTH}))
    batch = LocalizationCollator(processor())([video(ITEMS[4])])
    steps = model.get_text_features(batch["input_ids"], batch["attention_mask"], batch["sentence_mask"]).pooler_output
    states = model.get_video_features(batch["video_features"], batch["video_mask"], batch["clip_mask"])
    mask = batch["video_mask"][0]
    parts = localization_loss(
        steps[0],
        states.last_hidden_state[mask],
        batch["targets"][0][mask],
        step_sequence=batch["step_sequence"][0],
        frame_times=batch["frame_times"][0][mask],
    )
    parts["loss"].backward()
    assert parts["sequence_loss"] > 0
    assert model.text_model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_other_rates_and_windows_count_in_features():
    spans = {"sentences": ["serve"], "starts": [1.0], "ends": [2.0], "steps": ("serve",), "step_indices": (0,)}
    half = Paragraph("v", **spans, features=np.ones((8, WIDTH)), features_per_second=2.0)
    assert frame_targets(half)[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    batch = LocalizationCollator(processor(max_num_features=4), stride=3)([half])
    assert batch["frame_times"][0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, -1, -1]]
    assert window_starts(8, window=4, stride=4) == [0, 4]


def test_what_cannot_be_localized_is_named():
    whole = video(ITEMS[0])
    collator = LocalizationCollator(processor())
    with pytest.raises(InputError, match="'ct11_1' has no list of its task's steps"):
        collator([dataclasses.replace(whole, steps=None, step_indices=None)])
    with pytest.raises(InputError, match="'ct11_1' has no features"):
        collator([dataclasses.replace(whole, features=None, features_per_second=None, video="x.mp4")])
    with pytest.raises(ValueError, match="from 1 to the model's 32 positions, got 64"):
        LocalizationCollator(processor(), window=64)
    with pytest.raises(ValueError, match="from 1 to the window of 8, got 9"):
        LocalizationCollator(processor(), window=8, stride=9)
