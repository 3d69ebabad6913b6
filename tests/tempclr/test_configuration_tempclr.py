"""Configurations: what they refuse, what they record, and that they come back as they were saved."""

from __future__ import annotations

import inspect
import json

import pytest
from transformers import AutoConfig

import tempclr.models
from tempclr import costs, losses, negatives
from tempclr.models.tempclr import TempCLRConfig, TempCLRTextConfig, TempCLRVideoConfig, configuration_tempclr


def test_defaults_are_the_released_geometry():
    config = TempCLRConfig()
    assert (config.text_config.num_hidden_layers, config.video_config.num_hidden_layers) == (12, 6)
    assert (config.video_config.feature_size, config.video_config.max_num_features) == (512, 32)
    assert config.video_config.attend_cls
    assert config.video_config.feature_recipe is None


def test_loss_settings_are_keywords_of_the_loss():
    """So that a plain Trainer and every other caller train by what the checkpoint records."""
    settings = TempCLRConfig().loss_settings()
    keywords = inspect.signature(losses.tempclr_loss).parameters
    assert set(settings) <= set(keywords)
    assert all(keywords[name].default == value for name, value in settings.items())


def test_it_names_the_choices_that_the_loss_has():
    """The file travels as remote code, so it repeats the names instead of importing them."""
    assert configuration_tempclr.NEGATIVES == negatives.STRATEGIES
    assert configuration_tempclr.LOSS_MEASURES == losses.LOSS_MEASURES
    assert sorted(configuration_tempclr.SIMILARITIES) == sorted(costs.SIMILARITIES)


def test_round_trip(tmp_path):
    """Note [Sub-configurations on two versions]."""
    recipe = {"backbone": "net", "features_per_second": 2.0}
    config = TempCLRConfig(
        text_config=TempCLRTextConfig(vocab_size=77),
        video_config={"feature_size": 9, "feature_recipe": recipe, "attend_cls": False},
        measure="otam",
        similarity="dot",
    )
    config.save_pretrained(tmp_path)
    loaded = TempCLRConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.video_config.feature_recipe == recipe
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "tempclr"


def test_a_checkpoint_tells_its_whole_loss(tmp_path):
    """Note [A checkpoint tells its whole loss]."""
    config = TempCLRConfig(gamma=0.0)
    config.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    assert {name: told[name] for name in config.loss_settings()} == config.loss_settings()
    assert told["gamma"] == 0 and told["temperature"] == TempCLRConfig().temperature


def test_towers_load_from_the_whole_configuration(tmp_path):
    TempCLRConfig(text_config={"vocab_size": 77}, video_config={"feature_size": 9}).save_pretrained(tmp_path)
    assert TempCLRTextConfig.from_pretrained(tmp_path).vocab_size == 77
    assert TempCLRVideoConfig.from_pretrained(tmp_path).feature_size == 9


def test_auto_config_knows_it(tmp_path):
    tempclr.models.register()
    TempCLRConfig(gamma=0.25).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).gamma == 0.25
    assert isinstance(AutoConfig.for_model("tempclr_video_model", feature_size=3), TempCLRVideoConfig)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarity": "l2"}, "similarity must be one of cosine, dot, got 'l2'"),
        ({"measure": "cap_avg"}, "measure must be one of dtw, otam, got 'cap_avg'"),
        ({"negatives": "some"}, "negatives must be one of seg_unit"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"sequence_temperature": "hot"}, "sequence_temperature must be a number, got 'hot'"),
        ({"gamma": -0.1}, "gamma must be at least 0, got -0.1"),
        ({"unit_weight": True}, "unit_weight must be a number, got True"),
        ({"num_negatives": 0}, "num_negatives must be an integer of at least 1, got 0"),
        ({"num_negatives": 1.5}, "num_negatives must be an integer of at least 1, got 1.5"),
        ({"text_config": {"hidden_size": 24}}, "same hidden_size, got 24 for text_config and 768 for video_config"),
        ({"text_config": {"hidden_size": 10}}, "multiple of num_attention_heads, got 10 and 12"),
        ({"text_config": {"vocab_size": 0}}, "vocab_size must be an integer of at least 1, got 0"),
        ({"text_config": {"hidden_dropout_prob": 1}}, "hidden_dropout_prob must be below 1, got 1"),
        ({"video_config": {"layer_norm_eps": 0}}, "layer_norm_eps must be above 0"),
        ({"video_config": {"max_num_features": -3}}, "max_num_features must be an integer of at least 1, got -3"),
        ({"video_config": {"feature_recipe": "s3d"}}, "feature_recipe must be a dict or None, got str"),
    ],
)
def test_values_are_checked(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        TempCLRConfig(**settings)
    assert "\n" not in str(caught.value)
