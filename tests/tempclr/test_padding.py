"""Units of like length together: the same vectors and gradients, and hardly any padding on real lengths."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.data.padding import padding_share
from tempclr.models.tempclr.modeling_tempclr import group_bounds

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world


def ragged_batch(num_videos=3, *, seed=0):
    random = np.random.default_rng(seed)
    sentences, clips, tokens, features = num_videos + 1, 5, 12, 8
    generator = torch.Generator().manual_seed(seed)
    text_lengths = torch.from_numpy(random.integers(2, tokens + 1, (num_videos, sentences)))
    video_lengths = torch.from_numpy(random.integers(1, features + 1, (num_videos, clips)))
    sentence_mask = (
        torch.arange(sentences)[None] < torch.from_numpy(random.integers(2, sentences + 1, num_videos))[:, None]
    )
    clip_mask = torch.arange(clips)[None] < torch.from_numpy(random.integers(2, clips + 1, num_videos))[:, None]
    video_mask = (torch.arange(features) < video_lengths[..., None]) & clip_mask[..., None]
    return {
        "input_ids": torch.randint(5, 80, (num_videos, sentences, tokens), generator=generator),
        "attention_mask": (torch.arange(tokens) < text_lengths[..., None]) & sentence_mask[..., None],
        "sentence_mask": sentence_mask,
        "video_features": torch.randn(num_videos, clips, features, world.FEATURE_SIZE, generator=generator),
        "video_mask": video_mask,
        "clip_mask": clip_mask,
        "clip_sentence_index": torch.where(clip_mask, torch.arange(clips)[None] % 2, -1),
    }


@pytest.mark.parametrize("max_padding", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("sep_position", ["last", "next"])
def test_vectors_states_and_gradients_follow_note_units_of_like_length_together(max_padding, sep_position):
    """Note [Units of like length together]: a unit's vector does not depend on what it is padded to."""
    model = world.make_model().double().eval()
    model.video_model.embeddings.sep_position = sep_position
    batch = ragged_batch()
    batch["video_features"] = batch["video_features"].double()
    found = []
    for share in (None, max_padding):
        model.set_max_padding(share)
        torch.manual_seed(0)
        output = model(**batch, return_loss=True, output_clip_hidden_states=True)
        model.zero_grad()
        output.loss.backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        found.append((output.text_embeds, output.video_embeds, output.clip_hidden_states, output.loss, gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_tower_computes_what_is_counted(monkeypatch):
    model, batch, computed = world.make_model().eval(), ragged_batch(), []
    for tower, name in ((model.text_model, "text"), (model.video_model, "video")):
        special = 2 if name == "video" else 0
        tower.register_forward_hook(
            lambda module, given, output, special=special: computed.append(
                given[0].shape[0] * (given[0].shape[1] + special)
            )
        )
    for share in (None, 0.1, 0.3):
        computed.clear()
        model.set_max_padding(share)
        model(**batch, return_loss=False)
        real = int(batch["attention_mask"].sum()) + int(batch["video_mask"].sum()) + 2 * int(batch["clip_mask"].sum())
        assert padding_share(batch, max_padding=share)["both"] == pytest.approx(1 - real / sum(computed))


def test_hidden_states_are_given_as_without_groups():
    model, batch = world.make_model().eval(), ragged_batch()
    model.set_max_padding(0.1)
    output = model(**batch, return_loss=False, output_hidden_states=True)
    assert output.video_model_output.hidden_states is not None
    with pytest.raises(ValueError, match="max_padding must be at least 0 and below 1, got 1"):
        model.set_max_padding(1)


def batch_of_lengths(text_lengths, video_lengths):
    masks = [np.arange(lengths.max()) < lengths[..., None] for lengths in (text_lengths, video_lengths)]
    return {"attention_mask": masks[0], "video_mask": masks[1]}


def realistic(kind, random, num_videos=16, num_units=16):
    """Tokens of a unit and features of a clip, as in pretraining (clips of 3 to 32 s, captions at two to three words a
    second) and as annotated (steps of YouCook2: nine words, twenty seconds, both with a long tail)."""
    shape = (num_videos, num_units)
    if kind == "captions":
        seconds = random.integers(3, 33, shape)
        words = random.normal(2.4, 0.6, shape).clip(0.5) * seconds
        return (2 + 1.2 * words).clip(3, 63).astype(int), seconds
    words, seconds = random.lognormal(np.log(8.5), 0.45, shape), random.lognormal(np.log(15), 0.7, shape)
    return (2 + 1.3 * words).clip(4, 63).astype(int), seconds.clip(1, 32).astype(int)


@pytest.mark.parametrize("kind", ["captions", "steps"])
def test_padding_is_at_most_a_tenth_on_real_lengths(kind):
    random = np.random.default_rng(0)
    for _ in range(20):
        batch = batch_of_lengths(*realistic(kind, random))
        assert padding_share(batch)["both"] > 0.25
        shares = padding_share(batch, max_padding=0.1)
        assert max(shares.values()) <= 0.1 and shares["both"] <= 0.07


def test_each_tower_runs_in_few_groups():
    random = np.random.default_rng(0)
    for kind in ("captions", "steps"):
        for lengths in realistic(kind, random):
            assert len(group_bounds(sorted(lengths.flatten().tolist()), 0.1)) <= 24
