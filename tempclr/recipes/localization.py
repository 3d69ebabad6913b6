"""Fine-tuning on step localization: videos of tasks with their lists of steps in, a model that finds the steps out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import set_seed

from tempclr.data.files import check_output_folder
from tempclr.data.localization_collation import LocalizationCollator
from tempclr.data.rows import Paragraph, check_recipe
from tempclr.errors import InputError
from tempclr.localization_loss import FRAME_ORDERS, localization_loss
from tempclr.losses import LOSS_MEASURES
from tempclr.recipes.model_folders import read_model
from tempclr.recipes.running import find_checkpoint, run_training
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

__all__ = ["LocalizationArguments", "LocalizationTrainer", "finetune_localization", "hold_out", "share_of_videos"]

LABELS = ("targets", "frame_times", "step_sequence")
STRATEGIES = ("seg_unit", "seg_only")


@dataclass
class LocalizationArguments:
    """The settings of ``tempclr.localization_loss.localization_loss``, and what of the videos is seen."""

    unit_weight: float = field(default=0.88, metadata={"help": "weight of the cross-entropy of frames and steps"})
    sequence_weight: float = field(default=0.12, metadata={"help": "weight of the sequence loss; 0 is the baseline"})
    measure: str = field(default="dtw", metadata={"help": "distance of sequences", "choices": LOSS_MEASURES})
    negatives: str = field(default="seg_unit", metadata={"help": "strategy of negatives", "choices": STRATEGIES})
    num_negatives: int = field(default=31, metadata={"help": "negatives of each video"})
    gamma: float = field(default=0.1, metadata={"help": "softness of the minimum in the distance"})
    sequence_temperature: float = field(default=1.0, metadata={"help": "divides the distances"})
    cosine_eps: float = field(default=0.01, metadata={"help": "added to the norms in the cosine cost"})
    frame_order: str = field(
        default="time", metadata={"help": "time, or window as in the released code", "choices": FRAME_ORDERS}
    )
    max_frames_per_step: int = field(default=10, metadata={"help": "most frames aligned, for each step done"})
    window: int | None = field(default=None, metadata={"help": "features of a window; as many as the model takes"})
    stride: int | None = field(default=None, metadata={"help": "features from one window to the next; half a window"})
    train_fraction: float = field(
        default=1.0, metadata={"help": "share of each task's training videos that is used, as 0.1 or 0.2"}
    )
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of each task's training videos held out, where no eval_dataset is given"}
    )

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction <= 1:
            raise InputError(f"must be above 0 and at most 1, got {self.train_fraction}", field="train_fraction")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(f"must be from 0 to below 1, got {self.validation_fraction}", field="validation_fraction")

    def loss_settings(self) -> dict[str, Any]:
        """The keywords of the loss."""
        others = ("window", "stride", "train_fraction", "validation_fraction")
        return {name: value for name, value in asdict(self).items() if name not in others}


class LocalizationTrainer(TempCLRTrainer):
    """A ``TempCLRTrainer`` whose loss is :func:`tempclr.localization_loss.localization_loss`, a mean over videos.

    Args:
        loss_settings: keywords of that function; the other arguments are those of ``TempCLRTrainer``. Batches are those
            of :class:`tempclr.data.localization_collation.LocalizationCollator`.
    """

    def __init__(self, *positional: Any, loss_settings: Mapping[str, Any] | None = None, **keywords: Any):
        self.loss_settings = dict(loss_settings or {})
        super().__init__(*positional, **keywords)

    averages_rows = True

    def loss_and_parts(
        self, model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor | None], Mapping[str, Any]]:
        labels = {name: inputs[name] for name in LABELS}
        towers = {name: value for name, value in inputs.items() if name not in (*LABELS, "order_seeds")}
        seeds = inputs["order_seeds"].tolist() if "order_seeds" in inputs else [None] * len(labels["targets"])
        outputs = model(**towers, return_loss=False, output_clip_hidden_states=True)
        parts = [
            self._video_loss(outputs, labels, towers["video_mask"].bool(), towers["sentence_mask"].bool(), video, seed)
            for video, seed in enumerate(seeds)
        ]
        means: dict[str, Tensor | None] = {
            name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]
        }
        loss = means.pop("loss")
        assert loss is not None
        return loss, means, outputs

    def objective(self) -> str | None:
        own = {**LocalizationArguments().loss_settings(), **self.loss_settings}
        return (
            f"It was fine-tuned on step localization over {len(self.train_dataset)} videos: a binary cross-entropy of "
            f"frames and steps, weight {own['unit_weight']:g}, and a sequence loss over {own['measure'].upper()} "
            f"distances (gamma {own['gamma']:g}) of the steps as they are done against {own['num_negatives']} wrong "
            f"orders (`{own['negatives']}`), weight {own['sequence_weight']:g}."
        )

    def _video_loss(
        self,
        outputs: Any,
        labels: dict[str, Tensor],
        video_mask: Tensor,
        sentence_mask: Tensor,
        video: int,
        seed: int | None,
    ) -> dict[str, Tensor]:
        real, steps, sequence = video_mask[video], sentence_mask[video], labels["step_sequence"][video]
        generator = None if seed is None else torch.Generator(real.device).manual_seed(seed)
        return localization_loss(
            outputs.text_embeds[video][steps],
            outputs.clip_hidden_states[video][real],
            labels["targets"][video][real][:, steps],
            step_sequence=sequence[sequence >= 0],
            frame_times=labels["frame_times"][video][real],
            generator=generator,
            **self.loss_settings,
        )


def finetune_localization(
    train_paragraphs: Sequence[Paragraph],
    *,
    init_from: str,
    training_arguments: TempCLRTrainingArguments,
    eval_paragraphs: Sequence[Paragraph] | None = None,
    arguments: LocalizationArguments | None = None,
    feature_recipe: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
) -> LocalizationTrainer:
    """Fine-tune a TempCLR model on step localization and save it, with its processor, in the output folder.

    Every evaluation adds ``eval_step_recall``, the mean recall over tasks on the validation videos, so that it may be
    ``metric_for_best_model``. Validation videos are ``eval_paragraphs``, or a share of each task's training videos:
    never the test videos, which this function is not given.

    Args:
        train_paragraphs, eval_paragraphs: rows with features, ``steps`` and ``step_indices``.
        init_from: folder or Hub id of the pretrained model.
        training_arguments: ``resume_from_checkpoint`` may be a checkpoint's folder or ``"last"``.
        feature_recipe: how the features were made; compared with that of the model.

    Raises:
        InputError: a video without steps or features, or of another width than the model's; a video in both sets.

    Source: TempCLR (ICLR 2023) §4.2 and A.2.2.
    """
    arguments = arguments or LocalizationArguments()
    check_output_folder(training_arguments.output_dir)
    checkpoint = find_checkpoint(training_arguments)
    train, validation = _split(train_paragraphs, eval_paragraphs, arguments, seed=training_arguments.seed)
    set_seed(training_arguments.seed)
    model = read_model(checkpoint or init_from)
    check_recipe(model.config.video_config.feature_recipe, feature_recipe, what=f"{init_from!r} and the dataset")
    for paragraph in (*train, *validation):
        _check(paragraph, feature_size=model.config.video_config.feature_size)
    trainer = LocalizationTrainer(
        model=model,
        args=training_arguments,
        train_dataset=list(train),
        eval_dataset=list(validation) or None,
        data_collator=LocalizationCollator(
            model.processor, window=arguments.window, stride=arguments.stride, with_video_ids=True
        ),
        processing_class=model.processor,
        evaluator=_recall_on(validation) if validation else None,
        callbacks=list(callbacks),
        loss_settings=arguments.loss_settings(),
    )
    run_training(trainer, checkpoint=checkpoint)
    return trainer


def share_of_videos(paragraphs: Sequence[Paragraph], fraction: float, *, seed: int) -> list[Paragraph]:
    """A random share of each task's videos, at least one of each, in their order.

    The videos of a smaller fraction are among those of a larger one with the same seed.

    >>> rows = [Paragraph(str(i), ["a"], [0.0], [1.0], task="tea" if i < 8 else "cake") for i in range(12)]
    >>> [sum(row.task == task for row in share_of_videos(rows, 0.25, seed=0)) for task in ("tea", "cake")]
    [2, 1]
    """
    chosen = _chosen_places(paragraphs, fraction, seed=seed)
    return [paragraph for place, paragraph in enumerate(paragraphs) if place in chosen]


def hold_out(paragraphs: Sequence[Paragraph], fraction: float, *, seed: int) -> tuple[list[Paragraph], list[Paragraph]]:
    """(training, validation): a random share of each task's videos is held out; a task of one video keeps it.

    >>> rows = [Paragraph(str(i), ["a"], [0.0], [1.0], task="tea") for i in range(10)]
    >>> [len(part) for part in hold_out(rows, 0.2, seed=0)]
    [8, 2]
    """
    if fraction == 0:
        return list(paragraphs), []
    per_task: dict[str | None, int] = {}
    for paragraph in paragraphs:
        per_task[paragraph.task] = per_task.get(paragraph.task, 0) + 1
    # A generator of its own: otherwise the held-out videos would be the first ones of every training fraction.
    held = _chosen_places(paragraphs, fraction, seed=seed + 1)
    held = {place for place in held if per_task[paragraphs[place].task] > 1}
    return (
        [paragraph for place, paragraph in enumerate(paragraphs) if place not in held],
        [paragraphs[place] for place in sorted(held)],
    )


def _chosen_places(paragraphs: Sequence[Paragraph], fraction: float, *, seed: int) -> set[int]:
    places: dict[str | None, list[int]] = {}
    for place, paragraph in enumerate(paragraphs):
        places.setdefault(paragraph.task, []).append(place)
    generator = np.random.default_rng(seed)
    chosen: set[int] = set()
    for own in places.values():
        order = generator.permutation(len(own))
        chosen |= {own[index] for index in order[: max(1, math.floor(fraction * len(own) + 0.5))]}
    return chosen


def _split(
    train: Sequence[Paragraph],
    validation: Sequence[Paragraph] | None,
    arguments: LocalizationArguments,
    *,
    seed: int,
) -> tuple[Sequence[Paragraph], Sequence[Paragraph]]:
    if not len(train):
        raise InputError("the training dataset holds no videos", field="train_dataset")
    if validation is None:
        train, validation = hold_out(train, arguments.validation_fraction, seed=seed)
    shared = {paragraph.video_id for paragraph in train} & {paragraph.video_id for paragraph in validation}
    if shared:
        raise InputError(
            f"{len(shared)} videos, as {min(shared)!r}, are in the training and in the evaluation dataset: "
            "validation needs videos of its own",
            field="eval_dataset",
        )
    return share_of_videos(train, arguments.train_fraction, seed=seed), validation


def _check(paragraph: Paragraph, *, feature_size: int) -> None:
    where = f"video {paragraph.video_id!r}"
    if paragraph.features is None:
        raise InputError(f"{where} has no features: make them with 'tempclr extract'", field="features")
    if paragraph.features.shape[1] != feature_size:
        raise InputError(
            f"{where} has features of width {paragraph.features.shape[1]}, the model takes {feature_size}",
            field="features",
        )
    if paragraph.steps is None or paragraph.step_indices is None:
        raise InputError(
            f"{where} has no list of its task's steps: 'tempclr prepare crosstask' makes them", field="steps"
        )


def _recall_on(paragraphs: Sequence[Paragraph]) -> Callable[[Any], dict[str, float]]:
    from tempclr.evaluation.localization import evaluate_localization

    def evaluate(model: Any) -> dict[str, float]:
        return {"step_recall": evaluate_localization(model, paragraphs).recall}

    return evaluate
