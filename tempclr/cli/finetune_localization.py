"""Fine-tune a TempCLR model on step localization, by the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataArguments:
    """Where the model and the videos come from."""

    task: str = field(metadata={"help": "localization", "choices": ("localization",)})
    init_from: str = field(metadata={"help": "folder or Hub id of the pretrained model"})
    train_dataset: str = field(metadata={"help": "dataset folder, .parquet, .json, .jsonl or Hub id"})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "validation videos; otherwise a share of the training videos is held out"}
    )
    train_split: str | None = field(default=None, metadata={"help": "split of train_dataset, where it has several"})
    eval_split: str | None = field(default=None, metadata={"help": "split of eval_dataset, where it has several"})
    skip_bad_rows: bool = field(default=False, metadata={"help": "leave bad rows out, count and list them"})


def run_words(words: Sequence[str]) -> int:
    """Train as the words say; see ``tempclr finetune --task localization --help``.

    Raises:
        InputError: any mistake in words, configuration file, datasets or model, told in one line.
    """
    from tempclr.data.rows import check_recipe, dataset_recipe
    from tempclr.errors import InputError
    from tempclr.recipes.localization import finetune_localization

    data, settings, training = _parsed(list(words))
    recipe = dataset_recipe(data.train_dataset)
    train, left_out = _paragraphs(data.train_dataset, data.train_split, data)
    evaluation = None
    if data.eval_split == "test":
        raise InputError(
            "'test' is for `tempclr evaluate localization` alone: validate on another split, or on the share of the "
            "training videos that is held out without --eval_dataset",
            field="eval_split",
        )
    if data.eval_dataset is not None:
        what = f"--train_dataset {data.train_dataset!r} and --eval_dataset {data.eval_dataset!r}"
        check_recipe(recipe, dataset_recipe(data.eval_dataset), what=what)
        evaluation, more_left_out = _paragraphs(data.eval_dataset, data.eval_split, data)
        left_out += more_left_out
    trainer = finetune_localization(
        train,
        init_from=data.init_from,
        training_arguments=training,
        eval_paragraphs=evaluation,
        arguments=settings,
        feature_recipe=recipe,
    )
    if trainer.is_world_process_zero():
        for reason in left_out:
            print(f"left out: {reason}")
        if left_out:
            print(f"{len(left_out)} rows left out")
        recalls = [entry["eval_step_recall"] for entry in trainer.state.log_history if "eval_step_recall" in entry]
        if recalls:
            print(f"step recall on {len(trainer.eval_dataset)} validation videos: {recalls[-1]:.3f}")
        print(f"saved the model of step {trainer.state.global_step} in {training.output_dir}")
    return 0


def _parsed(words: list[str]) -> tuple[Any, ...]:
    from tempclr.recipes.configs import SettingsParser
    from tempclr.recipes.localization import LocalizationArguments
    from tempclr.trainer import TempCLRTrainingArguments

    parser = SettingsParser(
        (DataArguments, LocalizationArguments, TempCLRTrainingArguments),
        command="finetune",
        prog="tempclr finetune --task localization",
        description=__doc__,
    )
    actions = parser.actions()
    actions["output_dir"].required = True
    # So that --resume_from_checkpoint alone means the newest checkpoint of the output folder.
    actions["resume_from_checkpoint"].nargs, actions["resume_from_checkpoint"].const = "?", "last"
    return parser.parse(words)


def _paragraphs(source: str, split: str | None, data: DataArguments) -> tuple[Any, list[str]]:
    from tempclr.data.rows import load_rows, read_paragraphs

    rows = load_rows(source, split=split, skip_bad_rows=data.skip_bad_rows)
    return read_paragraphs(rows, source=source, skip_bad_rows=data.skip_bad_rows)
