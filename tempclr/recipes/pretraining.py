"""Pretraining as one function: paragraphs in, a trained and saved TempCLR model out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import AutoTokenizer, set_seed

from tempclr.data.files import check_output_folder
from tempclr.data.rows import Paragraph, check_recipe
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.losses import LOSS_MEASURES
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor, model_from_bert
from tempclr.negatives import STRATEGIES
from tempclr.recipes.model_folders import read_model
from tempclr.recipes.running import find_checkpoint, run_training
from tempclr.recipes.training_data import SamplingArguments, training_data
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

__all__ = ["LossArguments", "ModelArguments", "SamplingArguments", "build_model", "pretrain"]

_log = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    """Which model is trained; a size left out is that of the configuration's default, VideoCLIP's geometry."""

    init_from: str | None = field(default=None, metadata={"help": "folder or Hub id of a model to start from"})
    init_from_bert: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of a BERT: the text tower takes all its layers, the video tower the first"},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "tokenizer by folder or Hub id; otherwise one is trained on the training sentences"},
    )
    model_config: str | None = field(default=None, metadata={"help": "config.json, or its folder, of the new model"})
    vocab_size: int = field(default=2000, metadata={"help": "most tokens of a tokenizer that is trained here"})
    hidden_size: int | None = field(default=None, metadata={"help": "width of both towers"})
    num_text_layers: int | None = field(default=None, metadata={"help": "layers of the text tower"})
    num_video_layers: int | None = field(default=None, metadata={"help": "layers of the video tower"})
    num_attention_heads: int | None = field(default=None, metadata={"help": "heads of both towers; hidden_size / 64"})
    intermediate_size: int | None = field(default=None, metadata={"help": "inner width; 4 times hidden_size"})
    dropout: float | None = field(default=None, metadata={"help": "dropout of hidden states and attention"})
    max_num_features: int | None = field(default=None, metadata={"help": "most features of one clip"})
    max_text_tokens: int | None = field(default=None, metadata={"help": "most tokens of one sentence"})
    max_padding: float | None = field(
        default=None,
        metadata={"help": "share of padding, as 0.1: units run in groups of like length"},
    )


@dataclass
class LossArguments:
    """The settings of ``tempclr.losses.tempclr_loss``; one left out keeps the model's."""

    similarity: str | None = field(
        default=None, metadata={"help": "of the unit loss: cosine or dot", "choices": ("cosine", "dot")}
    )
    temperature: float | None = field(default=None, metadata={"help": "of the unit loss's cosine"})
    unit_weight: float | None = field(default=None, metadata={"help": "weight of the unit loss"})
    sequence_weight: float | None = field(
        default=None, metadata={"help": "weight of the sequence loss; 0 (with unit_weight 1) is the baseline"}
    )
    measure: str | None = field(default=None, metadata={"help": "distance of sequences", "choices": LOSS_MEASURES})
    negatives: str | None = field(default=None, metadata={"help": "strategy of negatives", "choices": STRATEGIES})
    num_negatives: int | None = field(default=None, metadata={"help": "negatives of each paragraph"})
    gamma: float | None = field(default=None, metadata={"help": "softness of the minimum in the distance"})
    sequence_temperature: float | None = field(default=None, metadata={"help": "divides the distances"})
    cosine_eps: float | None = field(default=None, metadata={"help": "added to the norms in the cosine cost"})

    def given(self) -> dict[str, Any]:
        """The settings that were given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def pretrain(
    train_paragraphs: Sequence[Paragraph],
    *,
    training_arguments: TempCLRTrainingArguments,
    eval_paragraphs: Sequence[Paragraph] | None = None,
    model_arguments: ModelArguments | None = None,
    loss_arguments: LossArguments | None = None,
    sampling_arguments: SamplingArguments | None = None,
    feature_recipe: Mapping[str, Any] | None = None,
    evaluator: Callable[[Any], dict[str, float]] | None = None,
    callbacks: Sequence[Any] = (),
) -> TempCLRTrainer:
    """Train a model on paragraphs with features and save it, with its processor, in the output folder.

    Runs with the same seed and settings give the same weights on one machine. What a part of the settings means is told
    by its dataclass and by :func:`tempclr.losses.tempclr_loss`; for the unit loss alone give
    ``LossArguments(unit_weight=1, sequence_weight=0)``.

    Args:
        train_paragraphs, eval_paragraphs: sequences of ``Paragraph``; with ``eval_paragraphs`` the trained model is
            evaluated at the end, and at the steps that ``training_arguments`` ask for.
        training_arguments: ``resume_from_checkpoint`` may be a checkpoint's folder or ``"last"``.
        feature_recipe: how the features were made; recorded in the model, compared with that of ``init_from``.
        evaluator: see :class:`tempclr.trainer.TempCLRTrainer`.
        callbacks: further callbacks of the Trainer.

    Returns:
        The trainer after training: ``trainer.model``, ``trainer.state.log_history``.

    Raises:
        InputError: paragraphs without features or of several widths, or that do not fit the model to start from.
    """
    model_arguments = model_arguments or ModelArguments()
    loss_arguments, sampling = loss_arguments or LossArguments(), sampling_arguments or SamplingArguments()
    check_output_folder(training_arguments.output_dir)
    checkpoint = find_checkpoint(training_arguments)
    feature_size, sentences = _look_through(train_paragraphs)
    # Before the model, so that runs which differ in their loss alone start from the same weights.
    set_seed(training_arguments.seed)
    model = build_model(
        ModelArguments(init_from=checkpoint) if checkpoint else model_arguments,
        loss_arguments,
        feature_size=feature_size,
        sentences=sentences,
        feature_recipe=feature_recipe,
    )
    model.set_max_padding(model_arguments.max_padding)
    if training_arguments.train_parameters == "norm_only" and not (checkpoint or _start(model_arguments)):
        _log.warning(
            "the LayerNorms alone of a model of random weights are trained: to start from one give --init_from"
        )
    data = training_data(
        train_paragraphs,
        eval_paragraphs,
        processor=model.processor,
        sampling=sampling,
        training_arguments=training_arguments,
    )
    trainer = TempCLRTrainer(
        model=model,
        args=training_arguments,
        train_dataset=data.train_dataset,
        eval_dataset=data.eval_dataset,
        data_collator=data.data_collator,
        train_sampler=data.train_sampler,
        processing_class=model.processor,
        evaluator=evaluator,
        callbacks=[*data.callbacks, *callbacks],
    )
    run_training(trainer, checkpoint=checkpoint)
    return trainer


def build_model(
    model_arguments: ModelArguments,
    loss_arguments: LossArguments,
    *,
    feature_size: int,
    sentences: Sequence[str],
    feature_recipe: Mapping[str, Any] | None = None,
) -> TempCLRModel:
    """The model to train, with its processor attached: an existing one, or a new one of the sizes asked for.

    Raises:
        InputError: a model, tokenizer or configuration that cannot be read or does not fit the features.
    """
    start = model_arguments.init_from
    if start is not None:
        model = _existing_model(start, model_arguments, feature_size, feature_recipe)
    elif model_arguments.init_from_bert is not None:
        model = _model_from_bert(model_arguments.init_from_bert, model_arguments, feature_size)
    else:
        model = _new_model(model_arguments, feature_size, sentences)
    if feature_recipe is not None:
        model.config.video_config.feature_recipe = dict(feature_recipe)
    TempCLRConfig(**{**model.config.loss_settings(), **loss_arguments.given()})  # raises what is wrong with them
    for name, value in loss_arguments.given().items():
        setattr(model.config, name, value)
    return model


def _start(model_arguments: ModelArguments) -> str | None:
    return model_arguments.init_from or model_arguments.init_from_bert


def _existing_model(
    start: str, model_arguments: ModelArguments, feature_size: int, feature_recipe: Mapping[str, Any] | None
) -> TempCLRModel:
    _refuse_sizes(start, model_arguments)
    if model_arguments.init_from_bert is not None:
        raise InputError("a model starts from --init_from or from --init_from_bert", field="init_from_bert")
    model = read_model(start, with_processor=False)
    expected = model.config.video_config.feature_size
    if expected != feature_size:
        raise InputError(
            f"{start!r} takes features of width {expected}, the dataset has width {feature_size}", field="features"
        )
    check_recipe(model.config.video_config.feature_recipe, feature_recipe, what=f"{start!r} and the training dataset")
    if model_arguments.tokenizer is not None or model.processor is None:
        if model_arguments.tokenizer is None:
            raise InputError(f"{start!r} has no tokenizer that can be read: give one by --tokenizer", field="tokenizer")
        tokenizer = _fitting_tokenizer(model_arguments.tokenizer, start, model.config)
        model.processor = _processor(tokenizer, model_arguments, model.config)
    elif model_arguments.max_text_tokens is not None:
        model.processor = _processor(model.processor.tokenizer, model_arguments, model.config)
    return model


def _refuse_sizes(start: str, model_arguments: ModelArguments, *, free: Sequence[str] = ()) -> None:
    sizes = {**_sizes(model_arguments), "model_config": model_arguments.model_config}
    for name, value in sizes.items():
        if value is not None and name not in free:
            raise InputError(f"the sizes of {start!r} are given by it: leave --{name} out", field=name)


def _model_from_bert(start: str, model_arguments: ModelArguments, feature_size: int) -> TempCLRModel:
    free = ("num_video_layers", "dropout", "max_num_features")
    _refuse_sizes(start, model_arguments, free=free)
    layers, dropout, features = (getattr(model_arguments, name) for name in free)
    both = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    video = {**both, "feature_size": feature_size} | ({} if features is None else {"max_num_features": features})
    layers = 6 if layers is None else layers
    try:
        model = model_from_bert(start, num_video_layers=layers, text_config=both, video_config=video)
    except (OSError, ValueError) as error:
        raise InputError(str(error), field="init_from_bert") from error
    tokenizer = model.processor.tokenizer if model.processor is not None else None
    if model_arguments.tokenizer is not None:
        tokenizer = _fitting_tokenizer(model_arguments.tokenizer, start, model.config)
    model.processor = _processor(tokenizer, model_arguments, model.config)
    return model


def _fitting_tokenizer(name: str, start: str, config: TempCLRConfig) -> Any:
    tokenizer = _read_tokenizer(name)
    if len(tokenizer) > config.text_config.vocab_size:
        raise InputError(
            f"{name!r} has {len(tokenizer)} tokens, {start!r} knows {config.text_config.vocab_size}", field="tokenizer"
        )
    return tokenizer


def _new_model(model_arguments: ModelArguments, feature_size: int, sentences: Sequence[str]) -> TempCLRModel:
    if model_arguments.tokenizer is not None:
        tokenizer = _read_tokenizer(model_arguments.tokenizer)
    else:
        tokenizer = train_tokenizer(sentences, vocab_size=model_arguments.vocab_size)
    config = _config(model_arguments, feature_size=feature_size, vocab_size=len(tokenizer))
    config.pad_token_id = config.text_config.pad_token_id = tokenizer.pad_token_id
    model = TempCLRModel(config)
    model.processor = _processor(tokenizer, model_arguments, config)
    return model


def _sizes(model_arguments: ModelArguments) -> dict[str, Any]:
    names = ("hidden_size", "num_text_layers", "num_video_layers", "num_attention_heads", "intermediate_size")
    return {name: getattr(model_arguments, name) for name in (*names, "dropout", "max_num_features")}


def _config(model_arguments: ModelArguments, *, feature_size: int, vocab_size: int) -> TempCLRConfig:
    config: dict[str, Any] = {"text_config": {}, "video_config": {}}
    if model_arguments.model_config is not None:
        try:
            config = TempCLRConfig.from_pretrained(model_arguments.model_config).to_dict()
        except (OSError, TypeError) as error:  # TypeError: JSON that is no object
            raise InputError(f"no configuration can be read: {error}", field="model_config") from error
    width, heads = model_arguments.hidden_size, model_arguments.num_attention_heads
    if width is not None and heads is None:
        heads = max(width // 64, 1)
    inner = model_arguments.intermediate_size
    both = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width if inner is None and width is not None else inner,
        "hidden_dropout_prob": model_arguments.dropout,
        "attention_probs_dropout_prob": model_arguments.dropout,
    }
    text = {"num_hidden_layers": model_arguments.num_text_layers, "vocab_size": vocab_size}
    video = {
        "num_hidden_layers": model_arguments.num_video_layers,
        "max_num_features": model_arguments.max_num_features,
        "feature_size": feature_size,
    }
    for name, own in (("text_config", text), ("video_config", video)):
        config[name] = {**config[name], **{key: value for key, value in {**both, **own}.items() if value is not None}}
    return TempCLRConfig(**config)


def _processor(tokenizer: Any, model_arguments: ModelArguments, config: TempCLRConfig) -> TempCLRProcessor:
    asked, longest = model_arguments.max_text_tokens, config.text_config.max_position_embeddings
    if asked is not None and asked < 3:
        raise InputError(f"max_text_tokens must be at least 3, [CLS] word [SEP], got {asked}", field="max_text_tokens")
    return TempCLRProcessor(
        tokenizer,
        max_text_tokens=min(63 if asked is None else asked, longest),
        max_num_features=config.video_config.max_num_features,
    )


def _read_tokenizer(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"no tokenizer can be read from {name!r}: {error}", field="tokenizer") from error


def _look_through(paragraphs: Sequence[Paragraph]) -> tuple[int, list[str]]:
    """The width of the features, which all must share, and all sentences."""
    widths: dict[int, str] = {}
    sentences: list[str] = []
    num_single = 0
    for paragraph in paragraphs:
        if paragraph.features is None:
            raise InputError(
                f"video {paragraph.video_id!r} has no features: make them with 'tempclr extract'", field="features"
            )
        widths.setdefault(paragraph.features.shape[1], paragraph.video_id)
        sentences += paragraph.sentences
        num_single += len(paragraph.sentences) < 2
    if not widths:
        raise InputError("the training dataset holds no paragraphs", field="train_dataset")
    if len(widths) > 1:
        told = ", ".join(f"{width} ({video_id!r})" for width, video_id in widths.items())
        raise InputError(f"all features need one width, found {told}", field="features")
    if num_single:
        _log.warning(
            "%d of %d training paragraphs have a single sentence: without an order to shuffle they count in the unit "
            "loss alone",
            num_single,
            len(paragraphs),
        )
    return next(iter(widths)), sentences
