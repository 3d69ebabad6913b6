"""Train a classifier of videos from an encoder of clips: whole, its last layer alone (--freeze), or with few labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class VideoArguments:
    """Where the labelled videos come from."""

    train_dataset: str = field(
        metadata={"help": "dataset folder, .parquet, .json, .jsonl or Hub id, videos with labels"}
    )
    task: str = field(default="classification", metadata={"help": "classification", "choices": ("classification",)})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "validation videos; otherwise a share of the training videos is held out"}
    )
    train_split: str | None = field(default=None, metadata={"help": "split of train_dataset, where it has several"})
    eval_split: str | None = field(default=None, metadata={"help": "split of eval_dataset, where it has several"})


def run_words(words: Sequence[str]) -> int:
    """Train as the words say; see ``tempclr finetune --task classification --help``.

    Raises:
        InputError: any mistake in words, configuration file, videos or model, told in one line.
    """
    from tempclr.cli.finetune_few_shot import parsed
    from tempclr.data.action_videos import read_action_videos
    from tempclr.errors import InputError
    from tempclr.recipes.tclr_classification import (
        ClassificationArguments,
        ClassificationTrainingArguments,
        finetune_classification,
    )

    types = (VideoArguments, ClassificationArguments, ClassificationTrainingArguments)
    data, settings, training = parsed(list(words), types, command="finetune --task classification", description=__doc__)
    for name in ("train_split", "eval_split"):
        if getattr(data, name) == "test":
            told = "is for `tempclr evaluate classification` alone: validate on another split, or on the share of the"
            raise InputError(f"'test' {told} training videos that is held out without --eval_dataset", field=name)
    if data.eval_dataset is None and data.eval_split is not None:
        raise InputError("needs --eval_dataset", field="eval_split")
    videos = read_action_videos(data.train_dataset, split=data.train_split, needs_labels=True)
    _check_splits(videos, data.train_split, field="train_split")
    validation = None
    if data.eval_dataset is not None:
        validation = read_action_videos(data.eval_dataset, split=data.eval_split, needs_labels=True)
        _check_splits(validation, data.eval_split, field="eval_split")
    trainer = finetune_classification(videos, training_arguments=training, eval_videos=validation, arguments=settings)
    if trainer.is_world_process_zero():
        for dataset in (trainer.train_dataset, trainer.eval_dataset):
            _tell_left_out(dataset)
        reached = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
        if reached:
            print(f"accuracy on {len(trainer.eval_dataset.kept_videos)} validation videos: {100 * reached[-1]:.1f} %")
        print(f"saved the model of step {trainer.state.global_step} in {training.output_dir}")
    return 0


def _check_splits(videos: Sequence[Any], named: str | None, *, field: str) -> None:
    from tempclr.errors import InputError

    splits = sorted({video.split for video in videos if video.split is not None})
    if named is None and len(splits) > 1:
        raise InputError(
            f"the rows are of {len(splits)} splits, {', '.join(splits)}: name one by --{field}", field=field
        )


def _tell_left_out(dataset: Any) -> None:
    for reason, video_ids in ({} if dataset is None else dataset.left_out).items():
        for video_id in video_ids:
            print(f"left out: {video_id} ({reason.replace('_', ' ')})")
