"""Configurations of TempCLR: a text tower, a video tower, and the settings of the loss that trains them together."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PreTrainedConfig

SIMILARITIES = ("cosine", "dot")
LOSS_MEASURES = ("dtw", "otam")
POOLINGS = ("mean_with_sep", "mean", "cls")
SEP_POSITIONS = ("last", "next")
NEGATIVES = ("seg_unit", "seg_only", "within_seg", "all_unit", "unpaired", "joint", "visual_anchor")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_number(name: str, value: Any, *, above: float | None = None, at_least: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be above {above}, got {value!r}")
    if at_least is not None and not value >= at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value!r}")


def _check_count(name: str, value: Any, *, at_least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {value!r}")


def _check_encoder(config: PreTrainedConfig) -> None:
    for name in ("hidden_size", "num_attention_heads", "intermediate_size"):
        _check_count(name, getattr(config, name))
    _check_count("num_hidden_layers", config.num_hidden_layers, at_least=0)
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size must be a multiple of num_attention_heads, got {config.hidden_size} and "
            f"{config.num_attention_heads}"
        )
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        value = getattr(config, name)
        _check_number(name, value, at_least=0)
        if value >= 1:
            raise ValueError(f"{name} must be below 1, got {value!r}")
    _check_number("layer_norm_eps", config.layer_norm_eps, above=0)
    _check_number("initializer_range", config.initializer_range, above=0)


class TempCLRTextConfig(PreTrainedConfig):
    """Geometry of the text tower, under BERT's field names; the defaults are those of bert-base-uncased.

    ``pooling``: a sentence's vector is the mean of the last layer over words and [SEP] ("mean_with_sep", as released),
    over words alone ("mean"), or [CLS] ("cls").

    Raises:
        ValueError: a field that no encoder can be built from, named with its value.

    >>> TempCLRTextConfig(hidden_size=64, num_attention_heads=4).hidden_size
    64
    """

    model_type = "tempclr_text_model"
    base_config_key = "text_config"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    pooling: str = "mean_with_sep"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        _check_encoder(self)
        _check_choice("pooling", self.pooling, POOLINGS)
        for name in ("vocab_size", "max_position_embeddings", "type_vocab_size"):
            _check_count(name, getattr(self, name))


class TempCLRVideoConfig(PreTrainedConfig):
    """Geometry of the video tower: an MLP on one vector a time step, then a 6-layer encoder over [CLS] features [SEP].

    ``feature_size``: length of one feature vector. ``max_num_features``: the most features a clip may have; [CLS] and
    [SEP] come on top. ``attend_cls``: whether features attend to [CLS] (the released pretraining does, its evaluation
    over sliding windows does not). ``sep_position``: [SEP] has the last position of all, ``max_num_features + 1``
    ("last", as released), or the one after the clip's last feature ("next"). ``pooling``: as for the text tower, over
    features. ``feature_recipe``: how the features were made, as ``tempclr.data.features.FeatureRecipe.to_dict`` writes
    it, or None where it is not known.

    Raises:
        ValueError: a field that no encoder can be built from, named with its value.

    >>> TempCLRVideoConfig(feature_size=2048).max_num_features
    32
    """

    model_type = "tempclr_video_model"
    base_config_key = "video_config"

    feature_size: int = 512
    max_num_features: int = 32
    attend_cls: bool = True
    sep_position: str = "last"
    pooling: str = "mean_with_sep"
    feature_recipe: dict | None = None
    hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        _check_encoder(self)
        for name in ("feature_size", "max_num_features", "type_vocab_size"):
            _check_count(name, getattr(self, name))
        if not isinstance(self.attend_cls, bool):
            raise ValueError(f"attend_cls must be true or false, got {self.attend_cls!r}")
        _check_choice("sep_position", self.sep_position, SEP_POSITIONS)
        _check_choice("pooling", self.pooling, POOLINGS)
        if self.feature_recipe is not None and not isinstance(self.feature_recipe, dict):
            raise ValueError(f"feature_recipe must be a dict or None, got {type(self.feature_recipe).__name__}")


class TempCLRConfig(PreTrainedConfig):
    """Both towers, and the settings of the loss (so that a checkpoint records what it was trained with).

    The unit loss contrasts clips with sentences: ``similarity`` ("cosine" with ``temperature``, or "dot" as released),
    weighted by ``unit_weight``. The sequence loss contrasts the true order with ``num_negatives`` shuffled ones, made
    by the strategy ``negatives``: distances of ``measure`` with softness ``gamma`` over cosine costs, whose denominator
    has ``cosine_eps`` added, divided by ``sequence_temperature`` and weighted by ``sequence_weight``. The defaults are
    what did best on validation videos (docs/claims.md); the paper's weights are 0.3 and 0.7.

    Raises:
        ValueError: a setting outside its range, or towers whose hidden sizes differ (their vectors are compared as
            they are, without a projection).

    >>> config = TempCLRConfig(video_config={"feature_size": 1280}, measure="otam")
    >>> config.video_config.feature_size, config.loss_settings()["measure"]
    (1280, 'otam')
    """

    model_type = "tempclr"
    # Note [Sub-configurations on two versions]: transformers 5.17 reads the class attribute `sub_configs`; later ones
    # read `sub_configs_defaults` and derive the former from it.
    if isinstance(PreTrainedConfig.__dict__.get("sub_configs"), dict):
        sub_configs = {"text_config": TempCLRTextConfig, "video_config": TempCLRVideoConfig}
    else:
        sub_configs_defaults = {"text_config": TempCLRTextConfig, "video_config": TempCLRVideoConfig}

    text_config: Any = None
    video_config: Any = None
    similarity: str = "cosine"
    temperature: float | int = 0.3
    unit_weight: float | int = 0.7
    sequence_weight: float | int = 0.3
    measure: str = "dtw"
    negatives: str = "seg_unit"
    num_negatives: int = 31
    gamma: float | int = 0.1
    sequence_temperature: float | int = 1.0
    cosine_eps: float | int = 0.01

    def __post_init__(self, **kwargs):
        # 5.17 leaves dictionaries as they are; see Note [Sub-configurations on two versions].
        for name, config_class in (("text_config", TempCLRTextConfig), ("video_config", TempCLRVideoConfig)):
            value = getattr(self, name)
            if value is None:
                setattr(self, name, config_class())
            elif isinstance(value, dict):
                setattr(self, name, config_class(**value))
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        if self.text_config.hidden_size != self.video_config.hidden_size:
            raise ValueError(
                f"both towers need the same hidden_size, got {self.text_config.hidden_size} for text_config and "
                f"{self.video_config.hidden_size} for video_config"
            )
        _check_choice("similarity", self.similarity, SIMILARITIES)
        _check_choice("measure", self.measure, LOSS_MEASURES)
        _check_choice("negatives", self.negatives, NEGATIVES)
        _check_count("num_negatives", self.num_negatives)
        for name in ("temperature", "sequence_temperature"):
            _check_number(name, getattr(self, name), above=0)
        for name in ("unit_weight", "sequence_weight", "gamma", "cosine_eps"):
            _check_number(name, getattr(self, name), at_least=0)

    def to_diff_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds: of the loss also what is equal to the default.

        # Note [A checkpoint tells its whole loss]: transformers leaves out what equals a default. A later version may
        have other defaults, and the temperature is used in localization, too.
        """
        return super().to_diff_dict() | self.loss_settings()

    def loss_settings(self) -> dict[str, Any]:
        """The keyword settings of ``tempclr.losses.tempclr_loss`` that this configuration records."""
        names = (
            "similarity",
            "temperature",
            "unit_weight",
            "sequence_weight",
            "measure",
            "negatives",
            "num_negatives",
            "gamma",
            "sequence_temperature",
            "cosine_eps",
        )
        return {name: getattr(self, name) for name in names}


__all__ = ["TempCLRConfig", "TempCLRTextConfig", "TempCLRVideoConfig"]
