"""Released VideoCLIP and TempCLR checkpoints to a model folder that ``TempCLRModel.from_pretrained`` loads."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from tempclr.errors import InputError
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
from tempclr_hub.checkpoint_files import read_checkpoint
from tempclr_hub.conversion import (
    DTYPES,
    Conversion,
    check_new_folder,
    check_tensors,
    file_sha256,
    new_folder,
    write_model_folder,
)
from tempclr_hub.probe import store_probe

__all__ = ["KINDS", "MappedState", "convert_checkpoint", "map_state"]

# The losses each was trained with. VideoCLIP is the unit loss alone; TempCLR adds the sequence loss, whose negatives
# permute the sentences.
KINDS: dict[str, dict[str, Any]] = {
    "videoclip": {"similarity": "dot", "unit_weight": 1.0, "sequence_weight": 0.0},
    "tempclr": {"similarity": "dot", "unit_weight": 0.3, "sequence_weight": 0.7, "negatives": "visual_anchor"},
}
WRAPPER = "mmmodel."
# The beginnings of names in the released state and in ours; what follows is the same, as both follow BERT.
PREFIXES = (
    ("video_encoder.videomlp.", "video_model.embeddings.video_mlp."),
    ("video_encoder.bert.", "video_model."),
    ("text_encoder.", "text_model."),
)
UNUSED = (
    (re.compile(r"(text|video)_model\.embeddings\.position_ids"), "a buffer that counts 0, 1, 2, …"),
    (
        re.compile(r"(text|video)_model\.pooler\.dense\.(weight|bias)"),
        "BERT's pooler, whose output the released model does not use",
    ),
)
WORDS = "video_encoder.bert.embeddings.word_embeddings.weight"
POSITIONS = "video_encoder.bert.embeddings.position_embeddings.weight"
SPECIALS = "video_model.embeddings.special_token_embeddings.weight"
BERT_VOCAB_SIZE, BERT_CLS_AND_SEP = 30522, (101, 102)  # bert-base-uncased
SIZE_OF_A_HEAD = 64
MAX_TEXT_TOKENS = 63


@dataclass
class MappedState:
    """A released state under our names, what was left out of it, and the configuration its shapes give."""

    tensors: dict[str, Tensor]
    config: TempCLRConfig
    dropped: dict[str, str] = field(default_factory=dict)
    shortened: dict[str, str] = field(default_factory=dict)


def convert_checkpoint(
    checkpoint: str | PathLike[str],
    output_dir: str | PathLike[str],
    *,
    kind: str = "tempclr",
    num_attention_heads: int | None = None,
    tokenizer: str | None = None,
    dtype: str = "float32",
    special_token_ids: tuple[int, int] | None = None,
    max_num_features: int = 32,
    attend_cls: bool = True,
    stand_ins: Collection[str] = (),
    show_progress_bar: bool = False,
) -> Conversion:
    """Write a model folder from a released checkpoint; nothing of the checkpoint runs (see ``read_checkpoint``).

    Every tensor of the checkpoint is mapped, or listed as dropped with the reason; one that is not known, is missing or
    has another shape is an error that names it. The folder appears when it is whole.

    Args:
        checkpoint: a file as fairseq writes it (the weights under ``"model"``), or a plain state dictionary.
        output_dir: a folder that is not there yet, or is empty.
        kind: ``"videoclip"`` or ``"tempclr"``; they differ in the loss that the configuration records.
        num_attention_heads: of both towers, which no shape tells; the hidden size / 64 when left out.
        tokenizer: the one the checkpoint was trained with: folder, Hub id or BERT's vocab.txt. Without it the model is
            written alone.
        dtype: "float32", "float16" or "bfloat16".
        special_token_ids: the ids of [CLS] and [SEP]; the tokenizer's when left out, else those of bert-base-uncased
            where the vocabulary has its size.
        max_num_features: most features of a clip, 32 in the released configurations (no shape tells).
        attend_cls: False hides [CLS] from the features, as the released step localization does.
        stand_ins: see :func:`tempclr_hub.checkpoint_files.read_checkpoint`.

    Returns:
        What was done.

    Raises:
        InputError: whatever is wrong with checkpoint, tokenizer, options or folder, in one line.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    check_new_folder(output_dir)
    tokens = None if tokenizer is None else _read_tokenizer(tokenizer)
    saved = read_checkpoint(checkpoint, stand_ins=stand_ins)
    try:
        state = released_state(saved)
        mapped = map_state(
            state,
            num_attention_heads=num_attention_heads,
            special_token_ids=_special_token_ids(state, special_token_ids, tokens),
            max_num_features=max_num_features,
            attend_cls=attend_cls,
            **KINDS[kind],
        )
        if tokens is not None:
            _check_tokenizer(tokens, tokenizer, mapped.config)
        processor = None if tokens is None else _processor(tokens, mapped.config)
    except InputError as error:
        if error.file is not None or error.field is not None:
            raise
        raise InputError(str(error), file=checkpoint) from error
    conversion = Conversion(
        kind=kind,
        source=Path(checkpoint).name,
        source_sha256=file_sha256(checkpoint),
        num_source_tensors=len(state),
        num_mapped=len(state) - len(mapped.dropped),
        num_parameters=sum(value.numel() for value in mapped.tensors.values()),
        dtype=dtype,
        dropped=mapped.dropped,
        shortened=mapped.shortened,
        options={
            "num_attention_heads": mapped.config.text_config.num_attention_heads,
            "max_num_features": max_num_features,
            "attend_cls": attend_cls,
            "tokenizer": None if tokenizer is None else Path(tokenizer).name if Path(tokenizer).exists() else tokenizer,
        },
    )
    conversion.notes += _notes(kind, mapped.config, processor)
    with new_folder(output_dir) as folder:
        write_model_folder(
            folder,
            model_class=TempCLRModel,
            config=mapped.config,
            tensors=mapped.tensors,
            conversion=conversion,
            processor=processor,
            show_progress_bar=show_progress_bar,
        )
        store_probe(folder)
    return conversion


def _notes(kind: str, config: TempCLRConfig, processor: Any) -> list[str]:
    notes = []
    if processor is None:
        notes.append("no tokenizer was given, so the folder holds the model alone: give --tokenizer for text")
    if kind == "videoclip":
        notes.append(
            "its loss is VideoCLIP's, the unit loss alone: to go on from here as TempCLR, give 'tempclr pretrain' the "
            "weights of both losses, or a recipe"
        )
    notes.append(
        f"its features are {config.video_config.feature_size} numbers a second: the released models take those of "
        "S3D-G, L2-normalised (tempclr convert s3d, tempclr extract)"
    )
    return notes


def released_state(saved: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint by their released names, without the wrapper's prefix."""
    weights = saved.get("model", saved)
    if not isinstance(weights, dict) or not weights:
        raise InputError("expected the weights in a dictionary under 'model', found none")
    state = {}
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"expected names and tensors, found {str(name)[:80]!r} with a {type(value).__name__}")
        short = name.removeprefix(WRAPPER)
        if short in state:
            raise InputError(f"the tensor {short!r} is there twice")
        state[short] = value
    return state


def map_state(
    state: Mapping[str, Tensor],
    *,
    special_token_ids: tuple[int, int],
    num_attention_heads: int | None = None,
    max_num_features: int = 32,
    attend_cls: bool = True,
    check_values: bool = True,
    **settings: Any,
) -> MappedState:
    """Released tensors under our names, with the configuration that their shapes give.

    Of the video tower's word embeddings our model has the two rows it uses, [CLS] and [SEP], and of its positions as
    many as a clip has.

    Args:
        state: released names, without the prefix ``mmmodel.``, to tensors.
        check_values: see :func:`tempclr_hub.conversion.check_tensors`.
        settings: of :class:`TempCLRConfig`.

    Raises:
        InputError: a tensor that is not known, missing, or of another shape than the others tell.
    """
    tensors: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    for name, value in state.items():
        ours = _our_name(name)
        reason = next((why for pattern, why in UNUSED if pattern.fullmatch(ours)), None)
        if reason is not None:
            dropped[name] = reason
        else:
            tensors[ours] = value
    config = _config(
        state,
        num_attention_heads=num_attention_heads,
        max_num_features=max_num_features,
        attend_cls=attend_cls,
        **settings,
    )
    shortened = _shorten(tensors, state, special_token_ids, max_num_features)
    check_tensors(tensors, TempCLRModel, config, source_name=_released_name, check_values=check_values)
    return MappedState(tensors, config, dropped, shortened)


def _our_name(name: str) -> str:
    for released, ours in PREFIXES:
        if name.startswith(released):
            return ours + name.removeprefix(released)
    raise InputError(
        f"the tensor {name[:80]!r} is not of a VideoCLIP or TempCLR model, whose names begin with "
        f"{WRAPPER}video_encoder or {WRAPPER}text_encoder"
    )


def _released_name(name: str) -> str:
    if name == SPECIALS:
        return WORDS
    for released, ours in PREFIXES:
        if name.startswith(ours):
            return released + name.removeprefix(ours)
    return name


def _config(
    state: Mapping[str, Tensor],
    *,
    num_attention_heads: int | None,
    max_num_features: int,
    attend_cls: bool,
    **settings: Any,
) -> TempCLRConfig:
    vocab_size, hidden_size = _shape(state, "text_encoder.embeddings.word_embeddings.weight", 2)
    if num_attention_heads is None:
        if hidden_size % SIZE_OF_A_HEAD:
            raise InputError(
                f"the hidden size {hidden_size} is no multiple of {SIZE_OF_A_HEAD}, so the number of heads cannot be "
                "told: give --num_attention_heads",
                field="num_attention_heads",
            )
        num_attention_heads = hidden_size // SIZE_OF_A_HEAD
    text, video = "text_encoder.", "video_encoder.bert."
    both = {"hidden_size": hidden_size, "num_attention_heads": num_attention_heads}
    text_config = {
        **both,
        "vocab_size": vocab_size,
        "num_hidden_layers": _num_layers(state, text),
        "intermediate_size": _shape(state, f"{text}encoder.layer.0.intermediate.dense.weight", 2)[0],
        "max_position_embeddings": _shape(state, f"{text}embeddings.position_embeddings.weight", 2)[0],
        "type_vocab_size": _shape(state, f"{text}embeddings.token_type_embeddings.weight", 2)[0],
    }
    video_config = {
        **both,
        "feature_size": _shape(state, "video_encoder.videomlp.linear1.weight", 2)[1],
        "max_num_features": max_num_features,
        "attend_cls": attend_cls,
        "num_hidden_layers": _num_layers(state, video),
        "intermediate_size": _shape(state, f"{video}encoder.layer.0.intermediate.dense.weight", 2)[0],
        "type_vocab_size": _shape(state, f"{video}embeddings.token_type_embeddings.weight", 2)[0],
    }
    try:
        return TempCLRConfig(text_config=text_config, video_config=video_config, **settings)
    except ValueError as error:
        raise InputError(str(error)) from error


def _shape(state: Mapping[str, Tensor], name: str, num_dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise InputError(f"the checkpoint lacks the tensor {name!r}: expected a VideoCLIP or TempCLR model")
    shape = tuple(state[name].shape)
    if len(shape) != num_dimensions or 0 in shape:
        raise InputError(f"{name!r} is {shape}, expected {num_dimensions} sizes above 0")
    return shape


def _num_layers(state: Mapping[str, Tensor], tower: str) -> int:
    pattern = re.compile(re.escape(tower) + r"encoder\.layer\.(\d{1,4})\.")
    layers = {int(match[1]) for match in map(pattern.match, state) if match}
    if layers != set(range(len(layers))):
        absent = min(set(range(len(layers))) - layers)
        raise InputError(f"the checkpoint lacks the tensors of {tower}encoder.layer.{absent}")
    return len(layers)


def _shorten(
    tensors: dict[str, Tensor], state: Mapping[str, Tensor], special_token_ids: tuple[int, int], max_num_features: int
) -> dict[str, str]:
    """Cut the two tensors of which the video tower uses some rows; returns what was kept of each."""
    num_words, num_positions = _shape(state, WORDS, 2)[0], _shape(state, POSITIONS, 2)[0]
    cls, sep = special_token_ids
    if not 0 <= min(cls, sep) <= max(cls, sep) < num_words or cls == sep:
        raise InputError(f"[CLS] and [SEP] cannot be the ids {cls} and {sep} of {num_words}", field="special_token_ids")
    kept = max_num_features + 2
    if kept > num_positions:
        raise InputError(
            f"{max_num_features} features, [CLS] and [SEP] need {kept} positions, the checkpoint has {num_positions}",
            field="max_num_features",
        )
    del tensors[_our_name(WORDS)]
    tensors[SPECIALS] = state[WORDS][[cls, sep]]
    tensors[_our_name(POSITIONS)] = state[POSITIONS][:kept]
    return {
        WORDS: f"rows {cls} and {sep} of {num_words}, [CLS] and [SEP]: the video tower reads no other word",
        POSITIONS: f"the first {kept} of {num_positions}: [CLS], {max_num_features} features, [SEP]",
    }


def _special_token_ids(state: Mapping[str, Tensor], given: tuple[int, int] | None, tokens: Any) -> tuple[int, int]:
    own = None if tokens is None else (tokens.cls_token_id, tokens.sep_token_id)
    if given is not None and own not in (None, tuple(given)):
        raise InputError(f"the tokenizer has the ids {own} of [CLS] and [SEP], got {given}", field="special_token_ids")
    if own is not None or given is not None:
        return own or given  # type: ignore[return-value]
    vocab_size = _shape(state, "text_encoder.embeddings.word_embeddings.weight", 2)[0]
    if vocab_size != BERT_VOCAB_SIZE:
        raise InputError(
            f"a vocabulary of {vocab_size} is not that of bert-base-uncased ({BERT_VOCAB_SIZE}), so the ids of [CLS] "
            "and [SEP] are not known: give --tokenizer, or --special_token_ids",
            field="special_token_ids",
        )
    return BERT_CLS_AND_SEP


def _read_tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer, BertTokenizer

    try:
        if Path(source).is_file():
            words = Path(source).read_text(encoding="utf-8").splitlines()
            cased = any(word != word.lower() for word in words if not word.startswith("["))
            tokens = BertTokenizer(vocab=str(source), do_lower_case=not cased)
        else:
            tokens = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"no tokenizer can be read from {source!r}: {reason}", field="tokenizer") from error
    for name in ("cls_token", "sep_token", "pad_token"):
        if getattr(tokens, f"{name}_id") is None:
            raise InputError(f"the tokenizer {source!r} has no {name}, which the model needs", field="tokenizer")
    return tokens


def _check_tokenizer(tokens: Any, source: str | None, config: TempCLRConfig) -> None:
    expected = config.text_config.vocab_size
    if len(tokens) != expected:
        raise InputError(
            f"the tokenizer {source!r} has {len(tokens)} tokens, the checkpoint's text tower {expected}: give the one "
            "it was trained with",
            field="tokenizer",
        )


def _processor(tokens: Any, config: TempCLRConfig) -> TempCLRProcessor:
    config.pad_token_id = config.text_config.pad_token_id = tokens.pad_token_id
    return TempCLRProcessor(
        tokens,
        max_text_tokens=min(MAX_TEXT_TOKENS, config.text_config.max_position_embeddings),
        max_num_features=config.video_config.max_num_features,
    )
