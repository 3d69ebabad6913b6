"""Train TempCLR on video alone: sequences of frame features against their own shuffled order, without any label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class SequenceArguments:
    """Where the sequences come from; their labels take no part."""

    train_dataset: str = field(metadata={"help": "dataset folder or file with features and labels, or .npz"})
    video_only: bool = field(default=True, metadata={"help": "pretrain on video alone, as here"})
    eval_dataset: str | None = field(default=None, metadata={"help": "the same, for evaluation while training"})
    train_split: str | None = field(default=None, metadata={"help": "split of train_dataset, where it has several"})
    eval_split: str | None = field(default=None, metadata={"help": "split of eval_dataset, where it has several"})


def run_words(words: Sequence[str]) -> int:
    """Train as the words say; see ``tempclr pretrain --video_only --help``.

    Raises:
        InputError: any mistake in words, configuration file, datasets or model, told in one line.
    """
    from tempclr.cli.finetune_few_shot import parsed, read_datasets
    from tempclr.recipes.few_shot import (
        EncoderArguments,
        OrderArguments,
        VideoOnlyTrainingArguments,
        pretrain_video_only,
    )

    types = (SequenceArguments, EncoderArguments, OrderArguments, VideoOnlyTrainingArguments)
    data, encoder, order, training = parsed(list(words), types, command="pretrain --video_only", description=__doc__)
    train, evaluation, recipe = read_datasets(data)
    trainer = pretrain_video_only(
        train,
        training_arguments=training,
        eval_sequences=evaluation,
        encoder=encoder,
        order=order,
        feature_recipe=recipe,
    )
    if trainer.is_world_process_zero():
        print(f"saved the model of step {trainer.state.global_step} in {training.output_dir}")
    return 0
