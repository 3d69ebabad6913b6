"""Both towers from one BERT: which tensor comes from where is what the released code was seen to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from tempclr.data.tokenization import train_tokenizer
from tempclr.models.tempclr import TempCLRModel, model_from_bert

PROVENANCE = json.loads((Path(__file__).parent / "data" / "provenance_from_bert.json").read_text())
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 40}
CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of four layers, as the one whose provenance was recorded, with its tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = train_tokenizer(["peel the onion", "fry the onion in butter"])
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=4, **SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ours(name: str) -> str:
    name = name.replace("video_encoder.videomlp.", "video_model.embeddings.video_mlp.")
    return name.replace("video_encoder.bert.", "video_model.").replace("text_encoder.", "text_model.")


def test_every_tensor_comes_from_where_the_released_code_takes_it(bert):
    """Note [Both towers from one BERT]."""
    model = model_from_bert(bert, num_video_layers=2)
    state, source = model.state_dict(), BertModel.from_pretrained(bert).state_dict()
    checked = set()
    for released, name in PROVENANCE.items():
        own = ours(released)
        if name is None:
            assert own.startswith("video_model.embeddings.video_mlp."), released
            checked.add(own)
            continue
        if name.endswith("position_ids") or name.startswith("pooler."):
            assert own not in state
            continue
        expected = source[name]
        if own == "video_model.embeddings.word_embeddings.weight":
            own, expected = "video_model.embeddings.special_token_embeddings.weight", expected[[CLS, SEP]]
        elif own == "video_model.embeddings.position_embeddings.weight":
            expected = expected[:34]
        assert torch.equal(state[own], expected), released
        checked.add(own)
    assert checked == set(state)
    assert len(PROVENANCE) == 118


def test_what_is_new_is_drawn_as_bert_draws(bert):
    torch.manual_seed(1)
    model = model_from_bert(bert, num_video_layers=2)
    mlp = model.video_model.embeddings.video_mlp
    assert mlp.linear1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not mlp.linear1.bias.any() and not mlp.linear2.bias.any()
    torch.manual_seed(1)
    again = model_from_bert(bert, num_video_layers=2)
    assert torch.equal(again.video_model.embeddings.video_mlp.linear1.weight, mlp.linear1.weight)


def test_towers_are_copies(bert):
    model = model_from_bert(bert, num_video_layers=1)
    with torch.no_grad():
        model.text_model.encoder.layer[0].output.dense.weight.zero_()
    assert model.video_model.encoder.layer[0].output.dense.weight.any()


def test_the_text_tower_computes_what_bert_computes(bert):
    model, source = model_from_bert(bert, num_video_layers=1).eval(), BertModel.from_pretrained(bert).eval()
    batch = model.processor(text=["peel the onion", "fry"])
    with torch.no_grad():
        expected, actual = source(**batch).last_hidden_state, model.text_model(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(actual[real], expected[real], rtol=1e-5, atol=1e-5)


def test_sizes_and_settings_that_are_not_berts(bert, tmp_path):
    model = model_from_bert(
        bert,
        num_video_layers=3,
        text_config={"pooling": "cls"},
        video_config={"feature_size": 8, "max_num_features": 5, "sep_position": "next"},
        measure="otam",
        similarity="dot",
    )
    assert model.config.video_config.feature_size == 8 and model.processor.max_num_features == 5
    assert (model.config.measure, model.config.similarity) == ("otam", "dot")
    assert model.encode_text(["fry the onion"]).shape == model.encode_video(torch.rand(5, 8)).shape == (1, 32)
    model.save_pretrained(tmp_path)
    again = TempCLRModel.from_pretrained(tmp_path)
    assert again.processor is not None and again.config.text_config.pooling == "cls"
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_without_a_tokenizer_the_ids_must_be_given(bert, tmp_path):
    BertModel.from_pretrained(bert).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no tokenizer is there .* give special_token_ids"):
        model_from_bert(tmp_path, num_video_layers=2)
    model = model_from_bert(tmp_path, num_video_layers=2, special_token_ids=(7, 8))
    words = model.text_model.embeddings.word_embeddings.weight
    assert torch.equal(model.video_model.embeddings.special_token_embeddings.weight, words[[7, 8]])
    assert model.processor is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_video_layers": 5}, "the video tower wants 5 layers, this BERT has 4"),
        ({"video_config": {"max_num_features": 39}}, "need 41 positions, this BERT has 40"),
        ({"special_token_ids": (1, 4000)}, "special_token_ids must be ids of"),
        ({"text_config": {"pooling": "max"}}, "pooling must be one of"),
        ({"similarity": "l2"}, "similarity must be one of"),
    ],
)
def test_what_does_not_fit_is_told(bert, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        model_from_bert(bert, **{"num_video_layers": 2, **options})
    assert "\n" not in str(caught.value)


def test_another_architecture_or_half_a_bert_is_refused(bert, tmp_path):
    DistilBertModel(DistilBertConfig(dim=32, n_heads=2, n_layers=1, hidden_dim=48)).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="expected a BERT model, this one is of type 'distilbert'"):
        model_from_bert(tmp_path / "other")
    model = BertModel.from_pretrained(bert)
    state = {name: value for name, value in model.state_dict().items() if "layer.3.output" not in name}
    model.save_pretrained(tmp_path / "half", state_dict=state)
    with pytest.raises(ValueError, match=r"lack 4 tensors of BERT, as 'encoder\.layer\.3\.output"):
        model_from_bert(tmp_path / "half", num_video_layers=2, special_token_ids=(2, 3))
