"""S3D-G as a citizen of transformers; that it computes what the release does is held by test_convert_s3d.py."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

from tempclr.models.s3d import (
    S3DConfig,
    S3DModel,
    S3DProcessor,
    S3DTextModel,
    S3DTokenizer,
    S3DVideoConfig,
    S3DVideoModel,
)
from tempclr.models.s3d.modeling_s3d import S3DPool, space_to_depth

VIDEO = {"stem_sizes": [4, 4, 6], "stages": [[[2] * 6, [3] * 6], [[2, 3, 4, 5, 6, 7]], [[4] * 6]], "projection_dim": 5}
TEXT = {"vocab_size": 9, "embedding_size": 4, "hidden_size": 7, "projection_dim": 5, "max_num_words": 6}


def make_model() -> S3DModel:
    torch.manual_seed(0)
    return S3DModel(S3DConfig(text_config=TEXT, video_config=VIDEO)).eval()


def batch(num_frames: int = 6) -> dict[str, torch.Tensor]:
    return {"pixel_values_videos": torch.rand(2, num_frames, 3, 32, 48), "input_ids": torch.randint(1, 9, (3, 4))}


@pytest.fixture
def tokenizer(tmp_path) -> S3DTokenizer:
    (tmp_path / "words.txt").write_text("add\noil\ndon't\npad\nöl\n", encoding="utf-8")
    return S3DTokenizer(str(tmp_path / "words.txt"))


def test_both_towers_end_in_one_space():
    output = make_model()(**batch(), output_hidden_states=True)
    assert output.video_embeds.shape == (2, 5) and output.text_embeds.shape == (3, 5)
    assert output.video_model_output.last_hidden_state.shape[:2] == (2, 16)
    assert [states.shape[1] for states in output.video_model_output.hidden_states] == [6, 8, 12, 19, 16]
    assert output.to_tuple()[0] is output.text_embeds


def test_space_to_depth_orders_channels_by_time_row_column_colour():
    pixels = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).view(2, 3, 4, 6, 8)
    cubes = space_to_depth(pixels)
    assert cubes.shape == (2, 24, 2, 3, 4)
    for channel in range(24):
        late, low, right, colour = channel // 12, channel // 6 % 2, channel // 3 % 2, channel % 3
        assert torch.equal(cubes[:, channel], pixels[:, colour, late::2, low::2, right::2])


def test_note_same_padding_of_pools():
    """Note [Same padding of pools]: one zero after, none before, whatever the size; windows may stick out."""
    row = torch.tensor([3.0, 1, 2, 5, 4, 1, 9]).view(1, 1, 1, 1, 7)
    pool = S3DPool((1, 1, 3), (1, 1, 2))
    assert pool(row).flatten().tolist() == [3, 5, 9, 9]
    assert pool(row[..., :6]).flatten().tolist() == [3, 5, 4]
    assert pool(-row).flatten().tolist() == [-1, -2, -1, 0]  # zero would win over what is never there
    assert S3DPool((2, 2, 2), (2, 2, 2))(torch.rand(1, 1, 3, 5, 4)).shape == (1, 1, 2, 3, 2)


def test_note_padding_takes_part():
    """Note [Padding takes part]: a batch's width changes nothing, and padding has a vector like any word."""
    model = make_model().text_model
    ids = torch.tensor([[3, 7]])
    wide = torch.tensor([[3, 7, 0, 0, 0, 0]])
    torch.testing.assert_close(model(ids).pooler_output, model(wide).pooler_output)
    hidden = torch.relu(model.dense(model.word_embeddings(wide))).amax(1)
    torch.testing.assert_close(model(ids).pooler_output, model.projection(hidden))
    with torch.no_grad():
        model.word_embeddings.weight[0] += 5
    assert not torch.allclose(model(ids).pooler_output, model.projection(hidden))
    with pytest.raises(ValueError, match="at most 6 words a sentence, got 7"):
        model(torch.zeros(1, 7, dtype=torch.long))


def test_saved_and_loaded_whole_or_in_part(tmp_path, tokenizer):
    model, inputs = make_model(), batch()
    expected = model(**inputs)
    model.save_pretrained(tmp_path / "m")
    S3DProcessor(tokenizer, num_frames=6, size=40, crop_size=32).save_pretrained(tmp_path / "m")
    again = AutoModel.from_pretrained(tmp_path / "m").eval()
    assert type(again) is S3DModel and type(AutoConfig.from_pretrained(tmp_path / "m")) is S3DConfig
    assert again.config.video_config.stages == model.config.video_config.stages
    torch.testing.assert_close(again(**inputs).video_embeds, expected.video_embeds, rtol=0, atol=0)
    video = S3DVideoModel.from_pretrained(tmp_path / "m").eval()
    torch.testing.assert_close(video(inputs["pixel_values_videos"]).pooler_output, expected.video_embeds)
    text = S3DTextModel.from_pretrained(tmp_path / "m").eval()
    torch.testing.assert_close(text(inputs["input_ids"]).pooler_output, expected.text_embeds)
    processor = AutoProcessor.from_pretrained(tmp_path / "m")
    assert type(processor) is S3DProcessor and (processor.num_frames, processor.size) == (6, 40)
    assert AutoTokenizer.from_pretrained(tmp_path / "m")("add oil")["input_ids"] == [1, 2]
    (tmp_path / "v").mkdir()
    video.save_pretrained(tmp_path / "v")
    assert type(AutoModel.from_pretrained(tmp_path / "v")) is S3DVideoModel


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter(checkpointing):
    model, inputs = make_model().train(), batch(num_frames=16)
    if checkpointing:
        model.gradient_checkpointing_enable()
    output = model(**inputs)
    (output.text_embeds @ output.video_embeds.T).pow(2).sum().backward()
    lacking = [name for name, values in model.named_parameters() if values.grad is None or not values.grad.any()]
    # A ReLU that no input of this small batch opens stays without a gradient, so single biases may be zero.
    assert len(lacking) < 0.2 * len(list(model.parameters())) and not [name for name in lacking if "gates" in name]


def test_checkpointing_changes_nothing():
    model, inputs = make_model(), batch()
    plain = torch.autograd.grad(model(**inputs).video_embeds.sum(), model.video_model.stem[0].convolution.weight)
    model.train().gradient_checkpointing_enable()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.eval()
    again = torch.autograd.grad(model(**inputs).video_embeds.sum(), model.video_model.stem[0].convolution.weight)
    torch.testing.assert_close(plain, again)


def test_a_new_network_passes_signals_on():
    torch.manual_seed(0)
    model = S3DVideoModel(S3DVideoConfig(stages=[[[32] * 6]] * 3)).train()
    states = model(torch.rand(4, 8, 3, 32, 32)).last_hidden_state
    assert states.std() > 0.05 and torch.isfinite(states).all()


def test_folding_keeps_the_function():
    model = make_model().video_model
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            (
                module.running_mean.normal_(0, 0.1),
                module.running_var.uniform_(0.5, 2),
                module.weight.data.uniform_(0.5, 2),
            )
    pixels = batch()["pixel_values_videos"]
    with torch.inference_mode():
        expected = model(pixels).pooler_output
        torch.testing.assert_close(model.fold_norms().fold_norms()(pixels).pooler_output, expected)
    assert not [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm3d)]


def test_inputs_and_sizes_that_cannot_be():
    model = make_model()
    for pixels in (torch.rand(1, 6, 3, 32, 33), torch.rand(1, 5, 3, 32, 32), torch.rand(6, 3, 32, 32), None):
        with pytest.raises(ValueError, match=r"pixel_values_videos is missing|T, H and W even"):
            model.get_video_features(pixels)
    with pytest.raises(ValueError, match="get_video_features or get_text_features"):
        model(input_ids=torch.tensor([[1]]))
    with pytest.raises(ValueError, match="input_ids is missing"):
        model.text_model()
    for changes, words in [
        ({"stem_sizes": [4, 4]}, "three stem_sizes"),
        ({"stages": [[[2] * 6], [[2] * 5], [[2] * 6]]}, "six channel counts"),
        ({"stages": [[[0] * 6]] * 3}, "every channel count"),
        ({"norm_eps": 0}, "norm_eps"),
        ({"projection_dim": 4}, "the same projection_dim"),
    ]:
        with pytest.raises(ValueError, match=words):
            S3DConfig(text_config=TEXT, video_config={**VIDEO, **changes})


def test_words_are_counted_from_one_and_unknown_ones_left_out(tokenizer, tmp_path):
    sentences = ["Add the OIL, don't add_oil!", "<pad> Öl", "...", "add " * 20]
    ids = tokenizer(sentences, padding="max_length", truncation=True)["input_ids"]
    assert [row[:3] for row in ids] == [[1, 2, 3], [4, 5, 0], [0, 0, 0], [1, 1, 1]]
    assert {len(row) for row in ids} == {16}
    assert (tokenizer.vocab_size, tokenizer.decode([2, 0])) == (6, "oil <pad>")
    tokenizer.save_pretrained(tmp_path / "t")
    assert S3DTokenizer.from_pretrained(tmp_path / "t")(sentences)["input_ids"] == tokenizer(sentences)["input_ids"]


def test_frames_become_clips_of_pixels(tokenizer):
    processor = S3DProcessor(tokenizer, num_frames=4, size=16, crop_size=16)
    frames = np.random.default_rng(0).integers(0, 255, (6, 16, 24, 3), dtype=np.uint8)
    inputs = processor(text="oil", videos=frames)
    pixels = inputs["pixel_values_videos"]
    assert pixels.shape == (2, 4, 3, 16, 16) and inputs["input_ids"].shape == (1, 16)
    np.testing.assert_allclose(pixels[0, 1].numpy(), frames[1, :, 4:20].transpose(2, 0, 1) / 255, atol=1e-7)
    assert not pixels[1, 2:].any()
    assert S3DProcessor(num_frames=2, size=8, crop_size=8)(videos=frames)["pixel_values_videos"].shape[2:] == (3, 8, 8)
    for changes, words in [({"fps": 0}, "fps"), ({"resample": 1}, "resample")]:
        with pytest.raises(ValueError, match=words):
            S3DProcessor(**changes)
    with pytest.raises(ValueError, match="expected uint8 frames"):
        processor(videos=frames / 255)
    with pytest.raises(ValueError, match="give text, videos or both"):
        processor()


@pytest.mark.parametrize("first", ["tempclr", "transformers"])
def test_the_auto_classes_know_it(tmp_path, first):
    make_model().save_pretrained(tmp_path)
    code = f"import {first}, tempclr; from transformers import AutoModel as M; "
    code += f"print(type(M.from_pretrained({str(tmp_path)!r})).__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert said.stdout.strip() == "S3DModel", said.stderr
