"""What every training of ours does around ``Trainer.train``: resume, save whole folders, leave nothing half-written."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from tempclr.errors import InputError
from tempclr.models.tempclr import TempCLRModel
from tempclr.recipes.checkpoints import checkpoint_fault, checkpoint_step
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments
from tempclr_hub.probe import store_probe

__all__ = ["find_checkpoint", "run_training"]

_log = logging.getLogger(__name__)


def run_training(trainer: TempCLRTrainer, *, checkpoint: str | None = None) -> None:
    """Train, from ``checkpoint`` on if there is one, and write model, processor, metrics, state and card.

    With evaluation data the trained model is evaluated at the end. An interruption leaves whole checkpoints only.
    """
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint)
    except BaseException:  # Ctrl-C too
        _drop_half_written(trainer)
        raise
    _save(trainer)
    trainer.save_metrics("train", result.metrics, combined=False)
    if trainer.eval_dataset is not None:
        trainer.save_metrics("eval", trainer.evaluate(), combined=False)
    trainer.save_state()
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.create_model_card()


def find_checkpoint(training_arguments: TempCLRTrainingArguments) -> str | None:
    """The whole checkpoint that ``resume_from_checkpoint`` asks for: a folder, or ``"last"`` for the newest one.

    A newest one that is not whole (see :func:`tempclr.recipes.checkpoints.checkpoint_fault`) is passed over with a
    warning that names it; one that was named is an error.

    Raises:
        InputError: there is none.
    """
    given, field = training_arguments.resume_from_checkpoint, "resume_from_checkpoint"
    if given is None:
        return None
    if given == "last":
        return _newest(Path(training_arguments.output_dir), training_arguments)
    if not Path(given).is_dir():
        raise InputError(f"no checkpoint folder {given!r}", field=field)
    fault = checkpoint_fault(given, **_parts(training_arguments))
    if fault is not None:
        raise InputError(f"{given!r} is no whole checkpoint: {fault}", field=field)
    return given


def _newest(folder: Path, training_arguments: TempCLRTrainingArguments) -> str:
    found = {step: path for path in folder.glob("checkpoint-*") if (step := checkpoint_step(path)) is not None}
    for step in sorted(found, reverse=True):
        fault = checkpoint_fault(found[step], **_parts(training_arguments))
        if fault is None:
            return str(found[step])
        _log.warning("%s is passed over, it is not whole: %s", found[step], fault)
    told = f"no whole checkpoint in {folder}" if found else f"no checkpoint in {folder}"
    raise InputError(f"{told} to resume from", field="resume_from_checkpoint")


def _parts(training_arguments: TempCLRTrainingArguments) -> dict[str, Any]:
    with_optimizer = not training_arguments.save_only_model
    return {"with_optimizer": with_optimizer, "num_ranks": training_arguments.world_size}


def _drop_half_written(trainer: TempCLRTrainer) -> None:
    """Remove the checkpoint that was being written when training was interrupted."""
    checkpoint = Path(trainer.args.output_dir, f"checkpoint-{trainer.state.global_step}")
    if trainer.is_world_process_zero() and checkpoint.is_dir() and not (checkpoint / TRAINER_STATE_NAME).is_file():
        shutil.rmtree(checkpoint)


def _save(trainer: TempCLRTrainer) -> None:
    """Write model and processor, the weights last, each under its final name only when it is whole."""
    folder = Path(trainer.args.output_dir)
    staging = folder / ".saving"
    try:
        trainer.save_model(str(staging), _internal_call=True)
        if trainer.is_world_process_zero():
            if isinstance(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False), TempCLRModel):
                # What publishing compares with: the folder may go through other hands first.
                store_probe(staging)
            for path in sorted(staging.iterdir(), key=lambda path: path.suffix == ".safetensors"):
                os.replace(path, folder / path.name)
    finally:
        if trainer.is_world_process_zero():
            shutil.rmtree(staging, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
