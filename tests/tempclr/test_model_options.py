"""Options of the model that have a name: [CLS] as a key, pooling, the place of [SEP], hidden states of clips."""

from __future__ import annotations

import pytest
import torch

from tempclr.models.tempclr import TempCLRConfig, TempCLRModel

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def make_model(*, text: dict | None = None, video: dict | None = None) -> TempCLRModel:
    torch.manual_seed(0)
    config = TempCLRConfig(
        text_config={**TINY, "vocab_size": 60, "max_position_embeddings": 20, **(text or {})},
        video_config={**TINY, "feature_size": 8, "max_num_features": 6, **(video or {})},
    )
    model = TempCLRModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    lengths = torch.tensor([5, 3, 1])
    return {
        "input_ids": torch.randint(5, 60, (3, 7)),
        "attention_mask": (torch.arange(7) < torch.tensor([[7], [4], [3]])).long(),
        "video_features": torch.randn(3, 5, 8),
        "video_mask": torch.arange(5) < lengths[:, None],
    }


@torch.no_grad()
def test_poolings_of_a_sentence():
    inputs = batch()
    for pooling in ("mean_with_sep", "mean", "cls"):
        model = make_model(text={"pooling": pooling})
        output = model.text_model(inputs["input_ids"], inputs["attention_mask"])
        states = output.last_hidden_state[1]  # [CLS] word word [SEP] and padding
        expected = {"mean_with_sep": states[1:4].mean(0), "mean": states[1:3].mean(0), "cls": states[0]}[pooling]
        torch.testing.assert_close(output.pooler_output[1], expected)


@torch.no_grad()
@pytest.mark.parametrize("sep_position", ["last", "next"])
def test_poolings_of_a_clip(sep_position):
    inputs = batch()
    for pooling in ("mean_with_sep", "mean", "cls"):
        model = make_model(video={"pooling": pooling, "sep_position": sep_position})
        output = model.video_model(inputs["video_features"], inputs["video_mask"], output_hidden_states=True)
        states = output.hidden_states[-1][1]  # [CLS], 3 features, 2 of padding, [SEP]
        expected = {
            "mean_with_sep": torch.cat([states[1:4], states[-1:]]).mean(0),
            "mean": states[1:4].mean(0),
            "cls": states[0],
        }[pooling]
        torch.testing.assert_close(output.pooler_output[1], expected)


@torch.no_grad()
def test_sep_may_come_directly_after_the_last_feature():
    """Note [SEP keeps its place]: the position embedding it gets, and that padding moves it in neither case."""
    features = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(2))
    for sep_position, expected in (("last", 7), ("next", 4)):
        model = make_model(video={"sep_position": sep_position})
        embeddings = model.video_model.embeddings
        special = embeddings.special_token_embeddings.weight[1] + embeddings.token_type_embeddings.weight[0]
        wanted = embeddings.LayerNorm(special + embeddings.position_embeddings.weight[expected])
        for length in (3, 4, 6):
            real = torch.arange(length)[None] < 3
            torch.testing.assert_close(embeddings(features[:, :length], real)[0, -1], wanted)
        padded = model.video_model(features, torch.arange(6)[None] < 3).pooler_output
        torch.testing.assert_close(padded, model.video_model(features[:, :3]).pooler_output)
    assert (
        model.video_model(features).pooler_output - make_model().video_model(features).pooler_output
    ).abs().max() == 0
    other = make_model().video_model(features[:, :3]).pooler_output
    assert (model.video_model(features[:, :3]).pooler_output - other).abs().max() > 1e-3


@torch.no_grad()
def test_hidden_states_of_clips_keep_the_shape_of_the_features():
    model, inputs = make_model(), batch()
    states = model(**inputs, output_clip_hidden_states=True).clip_hidden_states
    plain = model.video_model(inputs["video_features"], inputs["video_mask"]).last_hidden_state
    assert torch.equal(states, plain.masked_fill(~inputs["video_mask"][..., None], 0))
    assert model(**inputs).clip_hidden_states is None

    # Two videos, of 2 clips and of 1.
    index, clip_mask = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[1, 1], [1, 0]])
    paragraphs = {name: value[index] for name, value in inputs.items()}
    units = {"clip_mask": clip_mask, "sentence_mask": clip_mask, "output_clip_hidden_states": True}
    nested = model(**paragraphs, **units).clip_hidden_states
    assert nested.shape == (2, 2, 5, 32)
    torch.testing.assert_close(nested[clip_mask.bool()], states[[0, 1, 2]])
    assert not nested[1, 1].any()
    without_masks = {name: value for name, value in paragraphs.items() if not name.endswith("mask")}
    whole = model(**without_masks, output_clip_hidden_states=True).clip_hidden_states
    torch.testing.assert_close(whole[0, 0], states[0])

    compiled = torch.compile(lambda **kw: model(**kw, **units).clip_hidden_states, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**paragraphs), nested)


@torch.no_grad()
def test_the_options_compile_and_are_saved(tmp_path):
    options = {"sep_position": "next", "pooling": "cls", "attend_cls": False}
    model, inputs = make_model(text={"pooling": "mean"}, video=options), batch()
    expected = model(**inputs)
    compiled = torch.compile(model, backend="eager", fullgraph=True)(**inputs)
    torch.testing.assert_close(compiled.video_embeds, expected.video_embeds)
    torch.testing.assert_close(compiled.text_embeds, expected.text_embeds)
    model.save_pretrained(tmp_path)
    again = TempCLRModel.from_pretrained(tmp_path)
    assert {name: getattr(again.config.video_config, name) for name in options} == options
    assert torch.equal(again(**inputs).video_embeds, expected.video_embeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_config": {"pooling": "max"}}, "pooling must be one of mean_with_sep, mean, cls, got 'max'"),
        ({"video_config": {"pooling": None}}, "pooling must be one of mean_with_sep, mean, cls, got None"),
        ({"video_config": {"sep_position": "first"}}, "sep_position must be one of last, next, got 'first'"),
        ({"video_config": {"attend_cls": "no"}}, "attend_cls must be true or false, got 'no'"),
    ],
)
def test_unknown_options_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TempCLRConfig(**settings)
