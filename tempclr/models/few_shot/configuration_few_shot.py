"""Configuration of the video-only model: the encoder of frames, its pretraining loss, and the few-shot head."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PreTrainedConfig

LOSS_MEASURES = ("dtw", "otam")
HEADS = ("otam", "dtw", "mean_pool", "bi_mhm", "trx")


class FewShotConfig(PreTrainedConfig):
    """Sizes of the encoder, and the settings of the losses (so that a checkpoint records what it was trained with).

    The encoder: ``feature_size``, length of a frame's vector; ``max_num_frames``, the most frames of a sequence; width,
    layers and heads under BERT's field names; ``feature_recipe``, how the features were made, where it is known.

    Pretraining contrasts the true order of frames with ``num_negatives`` shuffled ones: distances of ``measure`` with
    softness ``gamma`` over cosine costs, whose denominator has ``cosine_eps`` added, divided by
    ``sequence_temperature`` and weighted by ``sequence_weight``; ``unit_weight`` and ``temperature`` belong to the
    contrast of mean frames between the videos of a batch.

    Episodes: ``head`` scores the classes; ``otam`` and ``dtw`` take ``gamma`` and ``cosine_eps`` from above;
    ``trx_cardinalities``, ``trx_head_size`` and ``trx_dropout`` are the TRX head's, which takes sequences of exactly
    ``max_num_frames``.

    Raises:
        ValueError: a field that no model can be built from, named with its value.

    >>> FewShotConfig(feature_size=512, head="trx").trx_cardinalities
    (2, 3)
    """

    model_type = "tempclr_few_shot"

    feature_size: int = 2048
    max_num_frames: int = 8
    feature_recipe: dict | None = None
    hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    measure: str = "dtw"
    num_negatives: int = 31
    gamma: float | int = 0.1
    cosine_eps: float | int = 0.01
    sequence_temperature: float | int = 1.0
    sequence_weight: float | int = 0.7
    temperature: float | int = 0.05
    unit_weight: float | int = 0.3
    head: str = "otam"
    trx_cardinalities: Any = (2, 3)
    trx_head_size: int = 1152
    trx_dropout: float | int = 0.1

    def __post_init__(self, **kwargs):
        self.trx_cardinalities = tuple(self.trx_cardinalities)  # JSON gives a list
        super().__post_init__(**kwargs)
        _check_choice("measure", self.measure, LOSS_MEASURES)
        _check_choice("head", self.head, HEADS)
        for name in ("feature_size", "max_num_frames", "hidden_size", "num_attention_heads", "intermediate_size"):
            _check_count(name, getattr(self, name))
        for name in ("num_negatives", "trx_head_size"):
            _check_count(name, getattr(self, name))
        _check_count("num_hidden_layers", self.num_hidden_layers, at_least=0)
        if self.hidden_size % self.num_attention_heads:
            sizes = f"{self.hidden_size} and {self.num_attention_heads}"
            raise ValueError(f"hidden_size must be a multiple of num_attention_heads, got {sizes}")
        for name in ("hidden_dropout_prob", "trx_dropout"):
            _check_number(name, getattr(self, name), at_least=0, below=1)
        for name in ("temperature", "sequence_temperature", "layer_norm_eps", "initializer_range"):
            _check_number(name, getattr(self, name), above=0)
        for name in ("gamma", "cosine_eps", "sequence_weight", "unit_weight"):
            _check_number(name, getattr(self, name), at_least=0)
        if self.sequence_weight == 0 and self.unit_weight == 0:
            raise ValueError("unit_weight and sequence_weight are both 0: at least one part of the loss must count")
        self._check_cardinalities()

    def _check_cardinalities(self) -> None:
        sizes = self.trx_cardinalities
        if not sizes or len(set(sizes)) != len(sizes):
            raise ValueError(f"trx_cardinalities must be different sizes of tuples, got {sizes}")
        for size in sizes:
            _check_count("trx_cardinalities", size)
        if self.head == "trx" and max(sizes) > self.max_num_frames:
            frames = f"{self.max_num_frames} frames (max_num_frames)"
            raise ValueError(f"trx_cardinalities {sizes} hold a tuple larger than the {frames} of a sequence")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_number(
    name: str, value: Any, *, above: float | None = None, at_least: float | None = None, below: float | None = None
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be above {above}, got {value!r}")
    if at_least is not None and not value >= at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value!r}")
    if below is not None and not value < below:
        raise ValueError(f"{name} must be below {below}, got {value!r}")


def _check_count(name: str, value: Any, *, at_least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {value!r}")


__all__ = ["FewShotConfig"]
