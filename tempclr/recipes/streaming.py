"""Pretraining on a set too large to look through: rows are streamed from shards, and a run goes on at the exact row."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import set_seed

from tempclr.data.files import atomic_path, check_output_folder
from tempclr.data.rows import Paragraph
from tempclr.data.streaming import ParagraphStream, StreamLoader, first_paragraphs
from tempclr.errors import InputError
from tempclr.recipes.pretraining import LossArguments, ModelArguments, build_model
from tempclr.recipes.running import find_checkpoint, run_training
from tempclr.recipes.training_data import SamplingArguments, training_data
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

__all__ = ["StreamTrainer", "pretrain_on_stream"]

NUM_TOKENIZER_ROWS = 2000


class StreamTrainer(TempCLRTrainer):
    """Trains on a :class:`tempclr.data.streaming.ParagraphStream`; a checkpoint holds where each of its readers stands.

    The arguments are those of :class:`tempclr.trainer.TempCLRTrainer`.
    """

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        super().__init__(*positional, **keywords)
        self._loader: StreamLoader | None = None
        # The rows before a checkpoint are not read again to be skipped: the stream goes on behind them by itself.
        self.args.ignore_data_skip = True

    def get_train_dataloader(self) -> Any:
        """The stream's own loader: each rank reads its part, so that accelerate has nothing to share out."""
        loader = StreamLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
        )
        if self.resumed_from is not None:
            file = _state_file(self.resumed_from, self.args.process_index)
            try:
                loader.load_state_dict(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"does not tell where the stream was: {error}", file=file) from error
        self._loader = loader
        return loader

    def _save_rng_state(self, output_dir: str) -> None:
        """Also where the stream is, before all ranks wait for each other: see Note [The state comes last]."""
        if self._loader is not None:
            with atomic_path(_state_file(output_dir, self.args.process_index)) as file:
                file.write_text(json.dumps(self._loader.state_dict()), encoding="utf-8")
        super()._save_rng_state(output_dir)


def _state_file(checkpoint: str, rank: int) -> Path:
    return Path(checkpoint, f"stream_state_{rank}.json")


class _Cut:
    """The dataset of the path without streaming, asked for one paragraph at a time."""

    def __init__(self, dataset: Any, given: _Given) -> None:
        self.dataset, self.given, self._process = dataset, given, os.getpid()

    def __call__(self, paragraph: Paragraph, epoch: int, number: int) -> Any:
        self.given.paragraph = paragraph
        if self._process != os.getpid():  # a worker: what the dataset shares with others is another reader's pass
            self._process, self.dataset = os.getpid(), copy.copy(self.dataset)
            if hasattr(self.dataset, "_epoch"):
                self.dataset._epoch = self.dataset._epoch.clone()
        self.dataset.set_epoch(epoch)
        return self.dataset[number]


class _Given(Sequence[Paragraph]):
    """Stands for all rows of the stream: whichever is asked for, it is the one at hand."""

    paragraph: Paragraph | None = None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return self.paragraph


def pretrain_on_stream(
    source: str | PathLike[str],
    *,
    training_arguments: TempCLRTrainingArguments,
    split: str | None = None,
    shuffle_rows: int = 1024,
    skip_bad_rows: bool = False,
    eval_paragraphs: Sequence[Paragraph] | None = None,
    model_arguments: ModelArguments | None = None,
    loss_arguments: LossArguments | None = None,
    sampling_arguments: SamplingArguments | None = None,
    feature_recipe: Mapping[str, Any] | None = None,
    evaluator: Callable[[Any], dict[str, float]] | None = None,
    callbacks: Sequence[Any] = (),
) -> TempCLRTrainer:
    """:func:`tempclr.recipes.pretraining.pretrain` on shards that are never looked through as a whole.

    Rows are checked when they are read. A tokenizer that is trained here sees the sentences of the first rows of the
    stream. Runs with the same seed, ranks and workers give the same weights, also where they were interrupted.

    Args:
        source, split, shuffle_rows, skip_bad_rows: see :class:`tempclr.data.streaming.ParagraphStream`.
        training_arguments: with ``max_steps``, since a stream has no end.

    The others are those of ``pretrain``.

    Raises:
        InputError: as ``pretrain``; no ``max_steps``, or batches of similar videos, which need to know all.
    """
    model_arguments, sampling = model_arguments or ModelArguments(), sampling_arguments or SamplingArguments()
    _check(training_arguments, sampling)
    check_output_folder(training_arguments.output_dir)
    checkpoint = find_checkpoint(training_arguments)
    stream = ParagraphStream(
        source,
        split=split,
        shuffle_rows=shuffle_rows,
        seed=training_arguments.seed if training_arguments.data_seed is None else training_arguments.data_seed,
        rank=training_arguments.process_index,
        num_ranks=training_arguments.world_size,
        skip_bad_rows=skip_bad_rows,
    )
    start = ModelArguments(init_from=checkpoint) if checkpoint else model_arguments
    is_new = start.init_from is None and start.init_from_bert is None and start.tokenizer is None
    first = first_paragraphs(source, NUM_TOKENIZER_ROWS if is_new else 1, split=split, skip_bad_rows=skip_bad_rows)
    set_seed(training_arguments.seed)
    model = build_model(
        start,
        loss_arguments or LossArguments(),
        feature_size=_width(first),
        sentences=[sentence for paragraph in first for sentence in paragraph.sentences],
        feature_recipe=feature_recipe,
    )
    model.set_max_padding(model_arguments.max_padding)
    given = _Given()
    data = training_data(
        given, eval_paragraphs, processor=model.processor, sampling=sampling, training_arguments=training_arguments
    )
    stream.cut = _Cut(data.train_dataset, given)
    trainer = StreamTrainer(
        model=model,
        args=training_arguments,
        train_dataset=stream,
        eval_dataset=data.eval_dataset,
        data_collator=data.data_collator,
        processing_class=model.processor,
        evaluator=evaluator,
        callbacks=list(callbacks),
    )
    run_training(trainer, checkpoint=checkpoint)
    return trainer


def _check(training_arguments: TempCLRTrainingArguments, sampling: SamplingArguments) -> None:
    if training_arguments.max_steps < 1:
        raise InputError("a stream has no end: give the number of updates, --max_steps", field="max_steps")
    if sampling.retrieval_batches:
        raise InputError("similar videos cannot be looked for in a stream: leave it out", field="retrieval_batches")


def _width(paragraphs: Sequence[Paragraph]) -> int:
    features = paragraphs[0].features
    if features is None:
        raise InputError(
            f"video {paragraphs[0].video_id!r} has no features: make them with 'tempclr extract'", field="features"
        )
    return features.shape[1]
