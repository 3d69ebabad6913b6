"""Few-shot learning as two functions: sequences in, a pretrained encoder out; and episodes in, a trained head out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from tempclr.data.episodes import EpisodeDataset, FrameDataset, collate_episodes, collate_frames
from tempclr.data.few_shot_frames import SAMPLINGS
from tempclr.data.files import check_output_folder
from tempclr.data.rows import check_recipe
from tempclr.data.sequences import SequenceSet
from tempclr.errors import InputError
from tempclr.evaluation.few_shot import evaluate_few_shot
from tempclr.losses import LOSS_MEASURES
from tempclr.models.few_shot import FewShotConfig, FewShotForEpisodes, FewShotModel
from tempclr.models.few_shot.configuration_few_shot import HEADS
from tempclr.recipes.running import find_checkpoint, run_training
from tempclr.recipes.short_card import write_short_card
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

__all__ = [
    "EncoderArguments",
    "EpisodeArguments",
    "EpisodeTrainingArguments",
    "FewShotTrainer",
    "OrderArguments",
    "VideoOnlyTrainingArguments",
    "finetune_few_shot",
    "pretrain_video_only",
    "read_few_shot_model",
]


@dataclass
class VideoOnlyTrainingArguments(TempCLRTrainingArguments):
    """``TempCLRTrainingArguments`` with TempCLR's settings for video alone (A.2.3): Adam at 1e-3, cosine annealing."""

    learning_rate: float = field(default=1e-3, metadata={"help": "highest learning rate"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule of the learning rate"})
    weight_decay: float = field(default=0.0, metadata={"help": "0 makes AdamW Adam"})
    num_train_epochs: float = field(default=100.0, metadata={"help": "epochs over the sequences"})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "sequences a step"})


@dataclass
class EpisodeTrainingArguments(TempCLRTrainingArguments):
    """``TempCLRTrainingArguments`` with a step every episode, on which OTAM's published accuracy depends."""

    learning_rate: float = field(default=1e-4, metadata={"help": "highest learning rate"})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "schedule of the learning rate"})
    weight_decay: float = field(default=0.0, metadata={"help": "0 makes AdamW Adam"})
    num_train_epochs: float = field(default=1.0, metadata={"help": "epochs of --num_episodes episodes"})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "episodes a step"})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "episodes at once"})


@dataclass
class EncoderArguments:
    """Which encoder is trained; a size left out is the configuration's default."""

    init_from: str | None = field(default=None, metadata={"help": "folder or Hub id of a model to start from"})
    num_frames: int = field(default=8, metadata={"help": "frames sampled from a sequence"})
    sampling: str = field(default="tsn", metadata={"help": "which frames: tsn or trx", "choices": SAMPLINGS})
    hidden_size: int | None = field(default=None, metadata={"help": "width of the encoder"})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "its layers"})
    num_attention_heads: int | None = field(default=None, metadata={"help": "its heads; hidden_size / 64"})
    intermediate_size: int | None = field(default=None, metadata={"help": "inner width; 4 times hidden_size"})
    dropout: float | None = field(default=None, metadata={"help": "dropout of the encoder"})

    def sizes(self) -> dict[str, Any]:
        """The fields of ``FewShotConfig`` that were given."""
        width, heads, inner = self.hidden_size, self.num_attention_heads, self.intermediate_size
        if width is not None:
            heads, inner = heads or max(width // 64, 1), inner or 4 * width
        given = {
            "hidden_size": width,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": heads,
            "intermediate_size": inner,
            "hidden_dropout_prob": self.dropout,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class OrderArguments:
    """The settings of the pretraining loss; one left out keeps the model's."""

    measure: str | None = field(default=None, metadata={"help": "distance of sequences", "choices": LOSS_MEASURES})
    num_negatives: int | None = field(default=None, metadata={"help": "shuffled orders of each sequence"})
    gamma: float | None = field(default=None, metadata={"help": "softness of the minimum in the distance"})
    sequence_temperature: float | None = field(default=None, metadata={"help": "divides the distances"})
    sequence_weight: float | None = field(default=None, metadata={"help": "weight of the sequence loss"})
    unit_weight: float | None = field(default=None, metadata={"help": "weight of the contrast of mean frames"})
    temperature: float | None = field(default=None, metadata={"help": "of that contrast"})
    cosine_eps: float | None = field(default=None, metadata={"help": "added to the norms in the cosine cost"})


@dataclass
class EpisodeArguments:
    """The episodes and the head that scores them."""

    head: str = field(default="otam", metadata={"help": "what scores the classes", "choices": HEADS})
    way: int = field(default=5, metadata={"help": "classes of an episode"})
    shot: int = field(default=1, metadata={"help": "supports of each class"})
    num_queries: int = field(default=5, metadata={"help": "queries of each class in training"})
    num_episodes: int = field(default=10_000, metadata={"help": "episodes of one epoch"})
    num_eval_queries: int = field(default=15, metadata={"help": "queries of each class in evaluation"})
    num_eval_tasks: int = field(default=1000, metadata={"help": "tasks of an evaluation"})
    trx_cardinalities: list[int] | None = field(default=None, metadata={"help": "sizes of TRX's tuples; 2 3"})
    trx_head_size: int | None = field(default=None, metadata={"help": "length of TRX's keys and values; 1152"})

    def head_settings(self) -> dict[str, Any]:
        """The fields of ``FewShotConfig`` that were given."""
        given = {"head": self.head, "trx_cardinalities": self.trx_cardinalities, "trx_head_size": self.trx_head_size}
        return {name: value for name, value in given.items() if value is not None}


SUBJECT = """[TempCLR](https://arxiv.org/abs/2212.13738) on video alone: it embeds sequences of frame features, to be
matched by OTAM, DTW or TRX."""


class FewShotTrainer(TempCLRTrainer):
    """A ``TempCLRTrainer`` for models that return their loss themselves; it writes the few-shot model card."""

    @property
    def averages_rows(self) -> bool:
        """The loss of episodes is a mean over them; pretraining contrasts its sequences with each other."""
        return isinstance(self.model, FewShotForEpisodes)

    def loss_and_parts(
        self, model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor | None], Mapping[str, Any]]:
        outputs = model(**inputs, return_loss=True)
        return outputs["loss"], {name: outputs.get(name) for name in ("unit_loss", "sequence_loss")}, outputs

    def create_model_card(self, *positional: Any, **keywords: Any) -> None:
        """Write ``README.md`` in the output folder: what was trained, its settings, and the last numbers of the log."""
        module = "tempclr.models.few_shot"
        write_short_card(self, subject=SUBJECT, tag="few-shot", module=module, without=("feature_recipe",))


def pretrain_video_only(
    sequences: SequenceSet,
    *,
    training_arguments: VideoOnlyTrainingArguments,
    eval_sequences: SequenceSet | None = None,
    encoder: EncoderArguments | None = None,
    order: OrderArguments | None = None,
    feature_recipe: Mapping[str, Any] | None = None,
    callbacks: list[Any] | None = None,
) -> FewShotTrainer:
    """Train a ``FewShotModel`` to tell the true order of frames from shuffled ones, and save it; labels take no part.

    Args:
        sequences, eval_sequences: features of frames; which ones a step sees is drawn anew in every epoch.
        training_arguments: ``resume_from_checkpoint`` may be a checkpoint's folder or ``"last"``.
        encoder, order: sizes and settings of the loss.
        feature_recipe: how the features were made; recorded in the model, compared with that of ``init_from``.
        callbacks: further callbacks of the Trainer.

    Returns:
        The trainer after training.

    Raises:
        InputError: sequences that do not suit the model to start from, or settings no model can be built from.
    """
    encoder, order = encoder or EncoderArguments(), order or OrderArguments()
    check_output_folder(training_arguments.output_dir)
    if eval_sequences is not None:
        _check_width(sequences, eval_sequences)
    checkpoint = find_checkpoint(training_arguments)
    set_seed(training_arguments.seed)
    given = {name: value for name, value in asdict(order).items() if value is not None}
    model = _model(FewShotModel, checkpoint, encoder, given, sequences, feature_recipe)
    frames: dict[str, Any] = {"num_frames": encoder.num_frames, "sampling": encoder.sampling}
    trainer = FewShotTrainer(
        model=model,
        args=training_arguments,
        train_dataset=FrameDataset(sequences, seed=training_arguments.seed, **frames),
        eval_dataset=None if eval_sequences is None else FrameDataset(eval_sequences, training=False, **frames),
        data_collator=collate_frames,
        callbacks=callbacks,
    )
    run_training(trainer, checkpoint=checkpoint)
    return trainer


def finetune_few_shot(
    sequences: SequenceSet,
    *,
    training_arguments: EpisodeTrainingArguments,
    eval_sequences: SequenceSet | None = None,
    encoder: EncoderArguments | None = None,
    episodes: EpisodeArguments | None = None,
    feature_recipe: Mapping[str, Any] | None = None,
    callbacks: list[Any] | None = None,
) -> FewShotTrainer:
    """Train a ``FewShotForEpisodes`` on episodes of the training classes (meta-training), and save it.

    Args:
        sequences: of the training classes.
        training_arguments: a step is ``per_device_train_batch_size`` episodes; ``metric_for_best_model="accuracy"``
            keeps the model that does best on the validation classes.
        eval_sequences: of the validation classes, none of which may be a training class; measured by
            ``eval_accuracy`` and ``eval_half_width`` over the same tasks each time.
        encoder: ``init_from`` may be a folder that :func:`pretrain_video_only` wrote; None starts from scratch.
        episodes: episodes and head.
        feature_recipe, callbacks: see :func:`pretrain_video_only`.

    Returns:
        The trainer after training.

    Raises:
        InputError: too few classes or videos for the episodes, or a class in both sets; see also
            :func:`pretrain_video_only`.
    """
    encoder, episodes = encoder or EncoderArguments(), episodes or EpisodeArguments()
    check_output_folder(training_arguments.output_dir)
    checkpoint = find_checkpoint(training_arguments)
    set_seed(training_arguments.seed)
    model = _model(FewShotForEpisodes, checkpoint, encoder, episodes.head_settings(), sequences, feature_recipe)
    drawn: dict[str, Any] = {
        **{"num_frames": encoder.num_frames, "sampling": encoder.sampling},
        **{"way": episodes.way, "shot": episodes.shot, "seed": training_arguments.seed},
    }
    train_dataset = EpisodeDataset(
        sequences, num_episodes=episodes.num_episodes, num_queries=episodes.num_queries, **drawn
    )
    eval_dataset = evaluator = None
    if eval_sequences is not None:
        _check_width(sequences, eval_sequences)
        _check_new_classes(sequences, eval_sequences)
        if episodes.num_eval_tasks < 1:
            raise InputError(f"must be at least 1, got {episodes.num_eval_tasks}", field="num_eval_tasks")
        queries: dict[str, Any] = {"num_queries": episodes.num_eval_queries}
        # The loss is measured on a tenth of the tasks: one episode at a time, it takes longer than the accuracy.
        num_episodes = max(episodes.num_eval_tasks // 10, 1)
        eval_dataset = EpisodeDataset(eval_sequences, num_episodes=num_episodes, training=False, **queries, **drawn)
        evaluator = _evaluator(eval_sequences, encoder, episodes, training_arguments.seed)
    for name, count in train_dataset.sampler.left_out_classes.items():
        logging.getLogger(__name__).warning("class %r has %d videos, too few to take part", name, count)
    trainer = FewShotTrainer(
        model=model,
        args=training_arguments,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=collate_episodes,
        evaluator=evaluator,
        callbacks=callbacks,
    )
    run_training(trainer, checkpoint=checkpoint)
    return trainer


def read_few_shot_model(source: str) -> Any:
    """The ``FewShotModel`` or ``FewShotForEpisodes`` of a folder or Hub id, on the CPU and in evaluation mode.

    Raises:
        InputError: it cannot be read, or is a model of another kind.
    """
    config, problem = _config_of(source), None
    kind = FewShotForEpisodes if "FewShotForEpisodes" in (config.architectures or []) else FewShotModel
    try:
        model, loading = kind.from_pretrained(source, output_loading_info=True)
    except Exception as error:  # damaged weights raise whatever their content provokes
        raise InputError(f"the weights cannot be read: {' '.join(str(error).split())[:300]}", file=source) from error
    if loading["missing_keys"]:
        problem = f"the weights lack {len(loading['missing_keys'])} tensors, as {min(loading['missing_keys'])!r}"
        raise InputError(problem, file=source)
    return model.eval()


def _config_of(source: str) -> FewShotConfig:
    try:
        values, _ = FewShotConfig.get_config_dict(source)
        if values.get("model_type") != FewShotConfig.model_type:
            raise InputError(f"is no video-only model: its model_type is {values.get('model_type')!r}")
        return FewShotConfig.from_pretrained(source)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(" ".join(str(error).split())[:300], file=source) from error


def _model(
    kind: type,
    checkpoint: str | None,
    encoder: EncoderArguments,
    settings: dict[str, Any],
    sequences: SequenceSet,
    feature_recipe: Mapping[str, Any] | None,
) -> Any:
    """The model to train: that of the checkpoint, one that starts from another model, or a new one."""
    start = checkpoint or encoder.init_from
    if start is None:
        sizes = {"feature_size": sequences.feature_size, "max_num_frames": encoder.num_frames}
        recipe = None if feature_recipe is None else dict(feature_recipe)
        return kind(FewShotConfig(**sizes, feature_recipe=recipe, **encoder.sizes(), **settings))
    if encoder.init_from is not None and encoder.sizes():
        name = next(iter(encoder.sizes()))
        raise InputError(f"the sizes of {encoder.init_from!r} are given by it: leave them out", field=name)
    config = _config_of(start)
    found = {"feature_size": sequences.feature_size, "max_num_frames": encoder.num_frames, **encoder.sizes()}
    for name, value in found.items():
        if getattr(config, name) != value:
            raise InputError(f"{start!r} has {name} {getattr(config, name)}, asked for is {value}", field=name)
    check_recipe(config.feature_recipe, feature_recipe, what=f"{start!r} and the training dataset")
    FewShotConfig(**{**config.to_dict(), **settings})  # raises what is wrong with the settings
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a head that is new is what was asked for
    try:
        return kind.from_pretrained(start, dtype=torch.float32, **settings)  # type: ignore[attr-defined]
    finally:
        transformers_logging.set_verbosity(verbosity)


def _check_width(training: SequenceSet, validation: SequenceSet) -> None:
    if validation.feature_size != training.feature_size:
        widths = f"{validation.feature_size}, those of training {training.feature_size}"
        raise InputError(f"holds vectors of {widths}: one model takes one width", field="eval_dataset")


def _check_new_classes(training: SequenceSet, validation: SequenceSet) -> None:
    shared = sorted(set(training.classes) & set(validation.classes))
    if shared:
        told = f"class {shared[0]!r} is a training class too ({len(shared)} in all); few-shot classes must be new"
        raise InputError(told, field="eval_dataset")


def _evaluator(
    sequences: SequenceSet, encoder: EncoderArguments, episodes: EpisodeArguments, seed: int
) -> Callable[[nn.Module], dict[str, float]]:
    def evaluate(model: nn.Module) -> dict[str, float]:
        result = evaluate_few_shot(
            sequences,
            model=model,
            way=episodes.way,
            shot=episodes.shot,
            num_queries=episodes.num_eval_queries,
            num_tasks=episodes.num_eval_tasks,
            seed=seed,
            num_frames=encoder.num_frames,
            sampling=encoder.sampling,
        )
        return {"accuracy": result.accuracy, "half_width": result.half_width}

    return evaluate
