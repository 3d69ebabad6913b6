"""A new TempCLR model from BERT: both towers start from the same pretrained encoder, as the released models did."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, BertModel
from transformers.utils import logging

from .configuration_tempclr import TempCLRConfig
from .modeling_tempclr import TempCLRModel
from .processing_tempclr import TempCLRProcessor

SHARED_FIELDS = (
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
)
TEXT_FIELDS = ("vocab_size", "num_hidden_layers", "max_position_embeddings", "pad_token_id")
MAX_TEXT_TOKENS = 63
SPECIALS = "video_model.embeddings.special_token_embeddings.weight"
POSITIONS = "video_model.embeddings.position_embeddings.weight"


def model_from_bert(
    source: str | PathLike[str],
    *,
    num_video_layers: int = 6,
    special_token_ids: tuple[int, int] | None = None,
    text_config: dict[str, Any] | None = None,
    video_config: dict[str, Any] | None = None,
    **settings: Any,
) -> TempCLRModel:
    """A ``TempCLRModel`` whose towers are BERT's: the text tower all layers, the video tower the first ones.

    Note [Both towers from one BERT]: the video tower takes BERT's embeddings too, of words the two rows of [CLS] and
    [SEP], of positions as many as a clip has. Its MLP is new (drawn from the global generator), the poolers are left
    out. The two towers are copies: training moves them apart.

    Args:
        source: folder or Hub id of a BERT model; the processor is made of the tokenizer found there.
        num_video_layers: 6 as released; at most BERT's.
        special_token_ids: ids of [CLS] and [SEP]; the tokenizer's when left out.
        text_config, video_config: fields that are not BERT's, such as ``{"feature_size": 1280}`` or ``{"pooling": …}``.
        settings: of :class:`TempCLRConfig`, such as ``measure="otam"``.

    Raises:
        ValueError: the source is not a BERT, has no tokenizer (and no ids are given) or too few layers or positions.

    >>> import tempfile
    >>> from transformers import BertConfig
    >>> bert = BertModel(BertConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bert.save_pretrained(folder)
    ...     model = model_from_bert(folder, num_video_layers=2, special_token_ids=(101, 102))
    >>> model.config.text_config.num_hidden_layers, model.config.video_config.num_hidden_layers
    (3, 2)
    """
    bert_config = AutoConfig.from_pretrained(source)
    if bert_config.model_type != "bert":
        raise ValueError(f"{source}: expected a BERT model, this one is of type {bert_config.model_type!r}")
    tokenizer = _tokenizer(source)
    cls_and_sep = special_token_ids or _cls_and_sep(tokenizer, source)
    shared = {name: getattr(bert_config, name) for name in SHARED_FIELDS}
    text = {**shared, **{name: getattr(bert_config, name) for name in TEXT_FIELDS}, **(text_config or {})}
    video = {**shared, "num_hidden_layers": num_video_layers, **(video_config or {})}
    config = TempCLRConfig(text_config=text, video_config=video, **settings)
    _check_room(source, bert_config, config, cls_and_sep)
    bert = _weights(source)
    model = TempCLRModel(config)
    model.load_state_dict({**model.state_dict(), **_towers(bert, config, cls_and_sep)})
    if tokenizer is not None:
        model.config.pad_token_id = model.config.text_config.pad_token_id = tokenizer.pad_token_id
        model.processor = TempCLRProcessor(
            tokenizer,
            max_text_tokens=min(MAX_TEXT_TOKENS, config.text_config.max_position_embeddings),
            max_num_features=config.video_config.max_num_features,
        )
    return model


def _tokenizer(source: str | PathLike[str]) -> Any:
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return None
    return AutoTokenizer.from_pretrained(source)


def _cls_and_sep(tokenizer: Any, source: str | PathLike[str]) -> tuple[int, int]:
    cls, sep = getattr(tokenizer, "cls_token_id", None), getattr(tokenizer, "sep_token_id", None)
    if cls is None or sep is None:
        raise ValueError(f"{source}: no tokenizer is there to tell the ids of [CLS] and [SEP]: give special_token_ids")
    return cls, sep


def _weights(source: str | PathLike[str]) -> dict[str, torch.Tensor]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # its table of heads and poolers that are not wanted here
    try:
        bert, loading = BertModel.from_pretrained(
            source, add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ValueError(f"{source}: the weights lack {len(missing)} tensors of BERT, as {missing[0]!r}")
    return bert.state_dict()


def _check_room(source: Any, bert_config: Any, config: TempCLRConfig, cls_and_sep: tuple[int, int]) -> None:
    video = config.video_config
    if video.num_hidden_layers > bert_config.num_hidden_layers:
        raise ValueError(
            f"{source}: the video tower wants {video.num_hidden_layers} layers, this BERT has "
            f"{bert_config.num_hidden_layers}"
        )
    if video.max_num_features + 2 > bert_config.max_position_embeddings:
        raise ValueError(
            f"{source}: [CLS], {video.max_num_features} features and [SEP] need {video.max_num_features + 2} "
            f"positions, this BERT has {bert_config.max_position_embeddings}"
        )
    if not 0 <= min(cls_and_sep) <= max(cls_and_sep) < bert_config.vocab_size:
        raise ValueError(f"special_token_ids must be ids of {bert_config.vocab_size} words, got {cls_and_sep}")


def _towers(
    bert: dict[str, torch.Tensor], config: TempCLRConfig, cls_and_sep: tuple[int, int]
) -> dict[str, torch.Tensor]:
    kept = tuple(f"encoder.layer.{layer}." for layer in range(config.video_config.num_hidden_layers))
    bert = {name: value for name, value in bert.items() if not name.endswith("position_ids")}
    towers = {f"text_model.{name}": value for name, value in bert.items()}
    for name, value in bert.items():
        if name.startswith(("embeddings.", *kept)):
            towers[f"video_model.{name}"] = value
    words = towers.pop("video_model.embeddings.word_embeddings.weight")
    towers[SPECIALS] = words[list(cls_and_sep)]
    towers[POSITIONS] = towers[POSITIONS][: config.video_config.max_num_features + 2]
    return towers


__all__ = ["model_from_bert"]
