"""One run of the grid: its training, and how much of a step its sequence loss takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from tempclr.data.rows import Paragraph
from tempclr.recipes.claims.data import with_steps
from tempclr.recipes.claims.grid import ClaimSettings, Run
from tempclr.recipes.localization import LocalizationArguments, finetune_localization
from tempclr.recipes.pretraining import LossArguments, ModelArguments, SamplingArguments, pretrain
from tempclr.trainer import TempCLRTrainingArguments

__all__ = ["sequence_share", "train_run", "training_arguments"]


def train_run(
    run: Run,
    splits: Mapping[str, list[Paragraph]],
    *,
    settings: ClaimSettings,
    output_dir: Path,
    seed: int,
    init_from: Path | None = None,
) -> Any:
    """Train ``run`` and leave its model in ``output_dir``; returns the model."""
    localization = run.task == "localization"
    arguments = training_arguments(run, settings, output_dir, seed)
    if localization:
        trainer: Any = finetune_localization(
            with_steps(splits["finetune"]),
            init_from=str(init_from),
            training_arguments=arguments,
            arguments=LocalizationArguments(**run.loss, train_fraction=run.train_fraction, validation_fraction=0.0),
        )
        return trainer.model
    model_arguments = (
        ModelArguments(
            hidden_size=settings.hidden_size, num_text_layers=2, num_video_layers=2, dropout=0.1, max_num_features=32
        )
        if init_from is None
        else ModelArguments(init_from=str(init_from))
    )
    trainer = pretrain(
        splits["train"],
        training_arguments=arguments,
        model_arguments=model_arguments,
        loss_arguments=LossArguments(**run.loss),
        sampling_arguments=SamplingArguments(clip_seconds=1.0),
    )
    return trainer.model


def training_arguments(run: Run, settings: ClaimSettings, output_dir: Path, seed: int) -> TempCLRTrainingArguments:
    """How long and how fast ``run`` is trained."""
    rate = settings.learning_rate if run.start is None else settings.continued_learning_rate
    rate = settings.norm_learning_rate if run.train_parameters == "norm_only" else rate
    rate = rate if run.learning_rate is None else run.learning_rate
    length: dict[str, Any] = {
        "num_train_epochs": settings.num_epochs,
        "per_device_train_batch_size": settings.batch_size,
    }
    if run.task == "localization":
        updates = settings.localization_updates if run.train_fraction == 1 else settings.few_video_updates
        length = {"max_steps": updates, "per_device_train_batch_size": settings.localization_batch_size}
    return TempCLRTrainingArguments(
        output_dir=str(output_dir),
        seed=seed,
        learning_rate=rate,
        train_parameters=run.train_parameters,
        warmup_steps=10,
        lr_scheduler_type="cosine",
        weight_decay=0.05,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **length,
    )


def sequence_share(
    model: Any, paragraphs: list[Paragraph], *, settings: ClaimSettings, num_repeats: int = 5
) -> dict[str, float]:
    """Processor time of a training step (forward and backward) with the unit loss alone and with a sequence loss.

    Returns ``seconds/unit``, ``seconds/dtw``, ``seconds/otam``, ``share/dtw`` and ``share/otam``: medians, interleaved,
    and which part of the step the sequence loss makes up.
    """
    from tempclr.data.collation import ParagraphCollator
    from tempclr.data.sampling import ParagraphDataset

    dataset = ParagraphDataset(paragraphs[: settings.batch_size])
    batch = ParagraphCollator(model.processor, clip_seconds=1.0)([dataset[place] for place in range(len(dataset))])
    kinds: dict[str, dict[str, Any]] = {
        "unit": {"unit_weight": 1.0, "sequence_weight": 0.0},
        "dtw": {"unit_weight": 0.3, "sequence_weight": 0.7, "measure": "dtw"},
        "otam": {"unit_weight": 0.3, "sequence_weight": 0.7, "measure": "otam"},
    }
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    model.train()
    for repeat in range(num_repeats + 1):
        for name, loss in kinds.items():
            for key, value in loss.items():
                setattr(model.config, key, value)
            model.zero_grad()
            start = time.process_time()
            model(**batch, return_loss=True)["loss"].backward()
            if repeat:  # the first compiles
                spent[name].append(time.process_time() - start)
    seconds = {name: median(values) for name, values in spent.items()}
    share = {f"share/{name}": 1 - seconds["unit"] / seconds[name] for name in ("dtw", "otam")}
    return {f"seconds/{name}": value for name, value in seconds.items()} | share
