"""Train TempCLR on paragraphs and their features, by the Hugging Face Trainer; on video alone: --video_only --help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class DatasetArguments:
    """Where the paragraphs come from."""

    train_dataset: str = field(metadata={"help": "dataset folder, .parquet, .json, .jsonl or Hub id"})
    eval_dataset: str | None = field(default=None, metadata={"help": "the same, for evaluation while training"})
    train_split: str | None = field(default=None, metadata={"help": "split of train_dataset, where it has several"})
    eval_split: str | None = field(default=None, metadata={"help": "split of eval_dataset, where it has several"})
    skip_bad_rows: bool = field(default=False, metadata={"help": "leave bad rows out, count and list them"})
    streaming: bool = field(
        default=False,
        metadata={"help": "read train_dataset shard by shard and never as a whole; needs --max_steps"},
    )
    shuffle_rows: int = field(
        default=1024, metadata={"help": "of --streaming: rows shuffled among each other, and held, by each worker"}
    )


def run_words(words: Sequence[str]) -> int:
    """Train as the words say; see ``tempclr pretrain --help``.

    Raises:
        InputError: any mistake in words, configuration file, datasets or model, told in one line.
    """
    from tempclr.recipes.pretraining import pretrain

    data, model, loss, sampling, training = _parsed(list(words))
    recipe = _common_recipe(data)
    one_width = _OneWidth()
    train: Any = None
    left_out: list[str] = []
    if not data.streaming:
        train, left_out = _paragraphs(data.train_dataset, data.train_split, data, one_width)
    evaluation = None
    if data.eval_dataset is not None:
        evaluation, more_left_out = _paragraphs(data.eval_dataset, data.eval_split, data, one_width)
        left_out += more_left_out
    given = {
        "eval_paragraphs": evaluation,
        "training_arguments": training,
        "model_arguments": model,
        "loss_arguments": loss,
        "sampling_arguments": sampling,
        "feature_recipe": recipe,
    }
    trainer = pretrain(train, **given) if train is not None else _pretrain_on_stream(data, **given)
    if trainer.is_world_process_zero():
        for reason in left_out:
            print(f"left out: {reason}")
        if left_out:
            print(f"{len(left_out)} rows left out")
        print(f"saved the model of step {trainer.state.global_step} in {training.output_dir}")
    return 0


def _pretrain_on_stream(data: DatasetArguments, **given: Any) -> Any:
    from tempclr.recipes.streaming import pretrain_on_stream

    return pretrain_on_stream(
        data.train_dataset,
        split=data.train_split,
        shuffle_rows=data.shuffle_rows,
        skip_bad_rows=data.skip_bad_rows,
        **given,
    )


def _parsed(words: list[str]) -> tuple[Any, ...]:
    from tempclr.recipes.configs import SettingsParser
    from tempclr.recipes.pretraining import LossArguments, ModelArguments
    from tempclr.recipes.training_data import SamplingArguments
    from tempclr.trainer import TempCLRTrainingArguments

    parser = SettingsParser(
        (DatasetArguments, ModelArguments, LossArguments, SamplingArguments, TempCLRTrainingArguments),
        command="pretrain",
        prog="tempclr pretrain",
        description=__doc__,
    )
    actions = parser.actions()
    actions["output_dir"].required = True
    # So that --resume_from_checkpoint alone means the newest checkpoint of the output folder.
    actions["resume_from_checkpoint"].nargs, actions["resume_from_checkpoint"].const = "?", "last"
    return parser.parse(words)


def _common_recipe(data: DatasetArguments) -> dict[str, Any] | None:
    from tempclr.data.rows import check_recipe, dataset_recipe

    recipe = dataset_recipe(data.train_dataset)
    if data.eval_dataset is not None:
        what = f"--train_dataset {data.train_dataset!r} and --eval_dataset {data.eval_dataset!r}"
        check_recipe(recipe, dataset_recipe(data.eval_dataset), what=what)
    return recipe


class _OneWidth:
    """Refuses paragraphs without features, or with features of another width than the first one's."""

    def __init__(self) -> None:
        self.width: int | None = None

    def __call__(self, paragraph: Any) -> None:
        from tempclr.errors import InputError

        if paragraph.features is None:
            message = f"video {paragraph.video_id!r} has no features: make them with 'tempclr extract'"
            raise InputError(message, field="features")
        width = paragraph.features.shape[1]
        self.width = self.width or width
        if width != self.width:
            raise InputError(f"width {width}, but the rows before have {self.width}: all need one", field="features")


def _paragraphs(source: str, split: str | None, data: DatasetArguments, check: _OneWidth) -> tuple[Any, list[str]]:
    from tempclr.data.rows import load_rows, read_paragraphs

    rows = load_rows(source, split=split, skip_bad_rows=data.skip_bad_rows)
    return read_paragraphs(rows, source=source, skip_bad_rows=data.skip_bad_rows, check=check)
