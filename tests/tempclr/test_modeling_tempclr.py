"""The towers and the dual encoder as citizens of transformers, and what padding must not change."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch
from torch import nn

from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRTextModel, TempCLRVideoModel

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def make_config(**changes) -> TempCLRConfig:
    text = {**TINY, "vocab_size": 60, "max_position_embeddings": 20, **changes.pop("text_config", {})}
    video = {**TINY, "feature_size": 8, "max_num_features": 6, **changes.pop("video_config", {})}
    return TempCLRConfig(text_config=text, video_config=video, **changes)


def make_model(**changes) -> TempCLRModel:
    model = TempCLRModel(make_config(**changes)).eval()
    # Larger weights than at initialisation, so that what should not matter would show if it did.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def pairs(num_pairs: int = 4) -> dict[str, torch.Tensor]:
    input_ids = torch.randint(5, 60, (num_pairs, 7))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1:, 5:] = 0
    video_mask = torch.ones(num_pairs, 5, dtype=torch.bool)
    video_mask[1:, 3:] = False
    return {
        "input_ids": input_ids * attention_mask,
        "attention_mask": attention_mask,
        "video_features": torch.randn(num_pairs, 5, 8),
        "video_mask": video_mask,
    }


def paragraphs() -> dict[str, torch.Tensor]:
    """Two videos, of 2 and 3 sentences, and of 3 and 1 clips."""
    sentence_mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    clip_mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    attention_mask = torch.ones(2, 3, 6, dtype=torch.long)
    attention_mask[1, 1, 4:] = 0
    return {
        "input_ids": torch.randint(5, 60, (2, 3, 6)),
        "attention_mask": attention_mask * sentence_mask[..., None],
        "video_features": torch.randn(2, 3, 4, 8),
        "video_mask": (torch.tensor([4, 2, 3])[None, :, None] > torch.arange(4)).repeat(2, 1, 1),
        "sentence_mask": sentence_mask,
        "clip_mask": clip_mask,
        "clip_sentence_index": torch.tensor([[0, 0, 1], [2, -1, -1]]),
    }


def assert_same(actual: torch.Tensor, expected: torch.Tensor, *, atol: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=atol)


def test_pairs_keep_the_leading_dimension():
    output = make_model()(**pairs())
    assert output.text_embeds.shape == output.video_embeds.shape == (4, 32)
    assert output.text_model_output.last_hidden_state.shape == (4, 7, 32)
    assert output.video_model_output.last_hidden_state.shape == (4, 5, 32)
    assert output.loss is None


def test_pooling_leaves_out_cls_and_keeps_sep():
    model, batch = make_model(), pairs()
    text = model.text_model(batch["input_ids"], batch["attention_mask"])
    assert_same(text.pooler_output[1], text.last_hidden_state[1, 1:5].mean(0))
    video = model.video_model(batch["video_features"], batch["video_mask"], output_hidden_states=True)
    last = video.hidden_states[-1]
    assert last.shape == (4, 7, 32)
    assert_same(video.pooler_output[1], torch.cat([last[1, 1:4], last[1, -1:]]).mean(0))
    assert torch.equal(video.last_hidden_state, last[:, 1:-1])


def test_sep_keeps_its_place():
    """Note [SEP keeps its place]: padding further does not move it."""
    model, batch = make_model(), pairs()
    short = model.video_model(batch["video_features"][:, :3]).pooler_output
    padded = model.video_model(batch["video_features"][:, :5], torch.arange(5).expand(4, 5) < 3).pooler_output
    assert_same(padded, short)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_is_invisible_even_if_it_is_nan(implementation):
    model, batch = make_model(), pairs()
    model.set_attn_implementation(implementation)
    expected = model(**batch)
    batch["video_features"] = batch["video_features"].masked_fill(~batch["video_mask"][..., None], float("nan"))
    batch["input_ids"] = torch.where(batch["attention_mask"] == 0, 17, batch["input_ids"])
    actual = model(**batch)
    assert_same(actual.video_embeds, expected.video_embeds)
    assert_same(actual.text_embeds, expected.text_embeds)


def test_batching_is_invisible():
    model, batch = make_model(), pairs()
    together = model(**batch)
    for index in range(4):
        alone = model(**{name: value[index : index + 1] for name, value in batch.items()})
        assert_same(alone.text_embeds[0], together.text_embeds[index])
        assert_same(alone.video_embeds[0], together.video_embeds[index])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_masks_of_any_type_mean_the_same(dtype):
    model = make_model()
    for batch in (pairs(), paragraphs()):
        expected = model(**batch)
        converted = {name: value.to(dtype) if name.endswith("_mask") else value for name, value in batch.items()}
        actual = model(**converted)
        assert torch.equal(actual.video_embeds, expected.video_embeds)
        assert torch.equal(actual.text_embeds, expected.text_embeds)


def test_missing_masks_mean_all_real():
    model, batch = make_model(), pairs()
    whole = {name: batch[name] for name in ("input_ids", "video_features")}
    ones = {"attention_mask": torch.ones(4, 7), "video_mask": torch.ones(4, 5)}
    assert_same(model(**whole).video_embeds, model(**whole, **ones).video_embeds)
    assert_same(model(**whole).text_embeds, model(**whole, **ones).text_embeds)


def test_padding_costs_nothing():
    """Note [Padding costs nothing]: only real units go through the towers, and each as it would alone."""
    model, batch = make_model(), paragraphs()
    rows = {}
    for name in ("text_model", "video_model"):
        getattr(model, name).encoder.register_forward_pre_hook(
            lambda module, arguments, name=name: rows.__setitem__(name, len(arguments[0]))
        )
    output = model(**batch)
    assert rows == {"text_model": 5, "video_model": 4}
    assert output.text_embeds.shape == output.video_embeds.shape == (2, 3, 32)
    assert output.text_embeds[0, 2].abs().sum() == 0 == output.video_embeds[1, 1:].abs().sum()
    alone = model.video_model(batch["video_features"][0], batch["video_mask"][0]).pooler_output
    assert_same(output.video_embeds[0], alone)
    alone = model.text_model(batch["input_ids"][1], batch["attention_mask"][1]).pooler_output
    assert_same(output.text_embeds[1], alone)
    assert len(output.video_model_output.last_hidden_state) == 4


def test_paragraphs_without_unit_masks_are_all_real():
    model, batch = make_model(), paragraphs()
    video = model.get_video_features(batch["video_features"], batch["video_mask"])
    assert video.pooler_output.shape == (2, 3, 32)
    assert video.last_hidden_state.shape == (6, 4, 32)


def test_a_batch_without_any_real_unit_gives_zeros():
    model, batch = make_model(), paragraphs()
    output = model.get_video_features(batch["video_features"], batch["video_mask"], torch.zeros(2, 3))
    assert torch.equal(output.pooler_output, torch.zeros(2, 3, 32))


@pytest.mark.parametrize("make_batch", [pairs, paragraphs])
def test_compiles_to_one_graph(make_batch):
    model, batch = make_model(), make_batch()
    expected = model(**batch)
    torch.compiler.reset()
    actual = torch.compile(model, fullgraph=True, backend="eager")(**batch)
    assert_same(actual.text_embeds, expected.text_embeds)
    assert_same(actual.video_embeds, expected.video_embeds)


@pytest.mark.slow
def test_compiles_with_inductor_and_the_loss():
    model, batch = make_model(), paragraphs()
    torch.compiler.reset()
    loss = torch.compile(model, fullgraph=True)(**batch, return_loss=True).loss
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.video_model.encoder.parameters())


@pytest.mark.parametrize("implementation", ["sdpa", pytest.param("flex_attention", marks=pytest.mark.slow)])
@torch.no_grad()
def test_attention_implementations_agree(implementation):
    model, batch = make_model(), pairs()
    model.set_attn_implementation("eager")
    expected = model(**batch)
    model.set_attn_implementation(implementation)
    actual = model(**batch)
    assert_same(actual.text_embeds, expected.text_embeds, atol=1e-5)
    assert_same(actual.video_embeds, expected.video_embeds, atol=1e-5)


def test_hidden_states_and_attentions():
    model, batch = make_model(), pairs()
    model.set_attn_implementation("eager")
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    text, video = output.text_model_output, output.video_model_output
    assert [state.shape for state in text.hidden_states] == [(4, 7, 32)] * 3
    assert [state.shape for state in video.hidden_states] == [(4, 7, 32)] * 3
    assert [weights.shape for weights in video.attentions] == [(4, 4, 7, 7)] * 2
    assert_same(text.attentions[0].sum(-1), torch.ones(4, 4, 7))
    assert text.attentions[0][1, :, :, 5:].abs().max() == 0


def test_cls_key_is_masked_on_request():
    weights = []
    for attend_cls in (True, False):
        model = make_model(video_config={"attend_cls": attend_cls})
        model.set_attn_implementation("eager")
        batch = pairs()
        output = model.video_model(batch["video_features"], batch["video_mask"], output_attentions=True)
        weights.append(output.attentions[0][..., 0].abs().max())
    assert weights[0] > 0
    assert weights[1] == 0


def test_return_dict_false_gives_tuples():
    model, batch = make_model(), pairs()
    named, plain = model(**batch), model(**batch, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], named.text_embeds)
    assert torch.equal(plain[2][1], named.text_model_output.pooler_output)
    features = model.get_text_features(batch["input_ids"], batch["attention_mask"], return_dict=False)
    assert torch.equal(features[1], named.text_embeds)


def test_features_are_those_of_forward():
    model = make_model()
    for batch in (pairs(), paragraphs()):
        output = model(**batch)
        text = model.get_text_features(batch["input_ids"], batch["attention_mask"], batch.get("sentence_mask"))
        video = model.get_video_features(batch["video_features"], batch["video_mask"], batch.get("clip_mask"))
        assert torch.equal(text.pooler_output, output.text_embeds)
        assert torch.equal(video.pooler_output, output.video_embeds)


@pytest.mark.parametrize("make_batch", [pairs, paragraphs])
def test_gradient_checkpointing_gives_the_same_gradients(make_batch):
    model, batch = make_model(), make_batch()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.text_model.config.attention_probs_dropout_prob = model.video_model.config.attention_probs_dropout_prob = 0
        model.zero_grad()
        output = model(**batch, return_loss=False)
        (output.text_embeds.square().sum() + output.video_embeds.square().sum()).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert model.is_gradient_checkpointing
    for name, gradient in gradients[0].items():
        assert_same(gradients[1][name], gradient, atol=1e-5)


def test_bfloat16_stays_close():
    model, batch = make_model(), pairs()
    exact = model(**batch)
    rounded = model.to(torch.bfloat16)(**batch)
    assert rounded.video_embeds.dtype == torch.bfloat16
    # Two post-norm layers of unit-sized values at 8 bits of mantissa.
    for name in ("text_embeds", "video_embeds"):
        error = (rounded[name].float() - exact[name]).abs().max() / exact[name].abs().max()
        assert error < 0.05


@pytest.mark.parametrize("make_batch", [pairs, paragraphs])
def test_return_loss_gives_named_parts(make_batch):
    output = make_model()(**make_batch(), return_loss=True)
    assert output.loss.isfinite()
    assert output.unit_loss is not None
    assert (output.sequence_loss is not None) == (make_batch is paragraphs)


def test_loss_is_the_default_in_training_mode_only():
    model, batch = make_model(), pairs()
    assert model(**batch).loss is None
    model.train()
    assert model(**batch).loss is not None
    assert model(**batch, return_loss=False).loss is None


def test_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tempclr.losses", None)
    with pytest.raises(ImportError, match=r"return_loss=True needs the tempclr package.*pip install tempclr"):
        make_model()(**pairs(), return_loss=True)
    monkeypatch.setitem(sys.modules, "tempclr.inference", None)
    monkeypatch.delattr("tempclr.inference", raising=False)
    with pytest.raises(ImportError, match="encoding and aligning needs the tempclr package"):
        make_model().encode_text(["a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "forward needs input_ids and video_features"),
        ({"video_features": torch.zeros(4, 1, 5, 8)}, r"expected pairs.*got \(4, 7\) with \(4, 1, 5, 8\)"),
        ({"video_features": torch.zeros(4, 5, 9)}, "vectors of 9, this model takes 8"),
        ({"video_features": torch.zeros(4, 7, 8), "video_mask": None}, "at most 6 features a clip, got 7"),
        ({"input_ids": torch.ones(4, 21, dtype=torch.long), "attention_mask": None}, "at most 20 tokens.*got 21"),
    ],
)
def test_errors_say_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        make_model()(**{**pairs(), **change})


def test_towers_need_their_input():
    model = make_model()
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model.text_model()
    with pytest.raises(ValueError, match="video_features is missing"):
        model.video_model()


def test_inputs_embeds_replace_input_ids():
    model, batch = make_model().text_model, pairs()
    embeds = model.get_input_embeddings()(batch["input_ids"])
    expected = model(batch["input_ids"], batch["attention_mask"]).pooler_output
    assert torch.equal(model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).pooler_output, expected)


def test_input_embeddings_can_be_set():
    model = make_model()
    words, mlp = nn.Embedding(60, 32), model.video_model.get_input_embeddings()
    model.set_input_embeddings(words)
    assert model.get_input_embeddings() is words is model.text_model.embeddings.word_embeddings
    model.video_model.set_input_embeddings(mlp)
    assert model.video_model.embeddings.video_mlp is mlp


def test_initialisation():
    model = TempCLRModel(make_config(text_config={"vocab_size": 2000}))
    words = model.text_model.embeddings.word_embeddings.weight
    assert words[0].abs().max() == 0
    assert words[1:].std().item() == pytest.approx(0.02, rel=0.02)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert (module.bias == 0).all()


def test_norms_are_found_by_name():
    """Norm-only training selects parameters whose second-last name component is exactly "LayerNorm"."""
    model = make_model()
    by_name = {name for name, _ in model.named_parameters() if name.split(".")[-2] == "LayerNorm"}
    by_type = {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in ("weight", "bias")
    }
    assert by_name == by_type
    assert len(by_name) == 2 * (2 + 1 + 2 * 4)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_equal(copier):
    model, batch = make_model(), pairs()
    assert torch.equal(copier(model)(**batch).video_embeds, model(**batch).video_embeds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_models_are_equal(tmp_path, dtype):
    model, batch = make_model().to(dtype), pairs()
    model.save_pretrained(tmp_path)
    loaded, report = TempCLRModel.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.processor is None
    assert not loaded.training
    assert torch.equal(loaded(**batch).video_embeds, model(**batch).video_embeds)


@pytest.mark.parametrize("tower", [TempCLRTextModel, TempCLRVideoModel])
def test_towers_load_from_the_whole_checkpoint(tmp_path, tower):
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded, report = tower.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    own = getattr(model, tower.base_model_prefix).state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())


def test_a_folder_without_weights_is_a_clear_error(tmp_path):
    make_config().save_pretrained(tmp_path)
    with pytest.raises(OSError, match="no file named"):
        TempCLRModel.from_pretrained(tmp_path)


def test_a_plain_trainer_trains_it(tmp_path):
    from transformers import Trainer, TrainingArguments

    batch = paragraphs()
    rows = [{name: value[index] for name, value in batch.items()} for index in range(2)]
    model = make_model()
    before = model.video_model.embeddings.video_mlp.linear1.weight.clone()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    assert not trainer.model_accepts_loss_kwargs
    assert trainer.train().training_loss > 0
    assert not torch.equal(before, model.video_model.embeddings.video_mlp.linear1.weight)
