"""Train a few-shot head and its encoder on episodes of labelled sequences, by the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SequenceArguments:
    """Where the labelled sequences come from."""

    train_dataset: str = field(metadata={"help": "dataset folder or file with features and labels, or .npz"})
    eval_dataset: str | None = field(default=None, metadata={"help": "the same, with other classes"})
    train_split: str | None = field(default=None, metadata={"help": "split of train_dataset, where it has several"})
    eval_split: str | None = field(default=None, metadata={"help": "split of eval_dataset, where it has several"})
    task: str = field(default="few-shot", metadata={"help": "few-shot", "choices": ("few-shot",)})


def run_words(words: Sequence[str]) -> int:
    """Train as the words say; see ``tempclr finetune --task few-shot --help``.

    Raises:
        InputError: any mistake in words, configuration file, datasets or model, told in one line.
    """
    from tempclr.recipes.few_shot import (
        EncoderArguments,
        EpisodeArguments,
        EpisodeTrainingArguments,
        finetune_few_shot,
    )

    types = (SequenceArguments, EncoderArguments, EpisodeArguments, EpisodeTrainingArguments)
    data, encoder, episodes, training = parsed(
        list(words), types, command="finetune --task few-shot", description=__doc__
    )
    train, evaluation, recipe = read_datasets(data)
    trainer = finetune_few_shot(
        train,
        training_arguments=training,
        eval_sequences=evaluation,
        encoder=encoder,
        episodes=episodes,
        feature_recipe=recipe,
    )
    if trainer.is_world_process_zero():
        reached = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
        if reached:
            accuracy, half_width = (100 * reached[-1][f"eval_{name}"] for name in ("accuracy", "half_width"))
            print(f"{episodes.way}-way {episodes.shot}-shot accuracy: {accuracy:.1f} ± {half_width:.1f} %")
        print(f"saved the model of step {trainer.state.global_step} in {training.output_dir}")
    return 0


def parsed(words: list[str], types: tuple[type, ...], *, command: str, description: str | None) -> tuple[Any, ...]:
    """One instance of each dataclass, the last one being the training arguments."""
    from tempclr.recipes.configs import SettingsParser

    parser = SettingsParser(types, command=command, prog=f"tempclr {command}", description=description)
    actions = parser.actions()
    actions["output_dir"].required = True
    # So that --resume_from_checkpoint alone means the newest checkpoint of the output folder.
    actions["resume_from_checkpoint"].nargs, actions["resume_from_checkpoint"].const = "?", "last"
    return parser.parse(words)


def read_datasets(data: Any) -> tuple[Any, Any, dict[str, Any] | None]:
    """Training sequences, evaluation sequences or None, and how the features of both were made."""
    from tempclr.data.rows import check_recipe, dataset_recipe
    from tempclr.data.sequences import load_sequences
    from tempclr.errors import InputError

    recipe = dataset_recipe(data.train_dataset)
    train = load_sequences(data.train_dataset, split=data.train_split)
    if data.eval_dataset is None:
        if data.eval_split is not None:
            raise InputError("needs --eval_dataset", field="eval_split")
        return train, None, recipe
    what = f"--train_dataset {data.train_dataset!r} and --eval_dataset {data.eval_dataset!r}"
    check_recipe(recipe, dataset_recipe(data.eval_dataset), what=what)
    return train, load_sequences(data.eval_dataset, split=data.eval_split), recipe
