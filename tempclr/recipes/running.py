"""What every training of ours does around ``Trainer.train``: resume, save whole folders, leave nothing half-written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tempclr.errors import InputError
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

__all__ = ["find_checkpoint", "run_training"]

STATE_FILE = "trainer_state.json"  # the last file of a checkpoint to be written: with it, the checkpoint is whole


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

    Raises:
        InputError: there is none.
    """
    given = training_arguments.resume_from_checkpoint
    if given is None:
        return None
    if given == "last":
        folder = Path(training_arguments.output_dir)
        whole = [file.parent for file in folder.glob(f"checkpoint-*/{STATE_FILE}") if _step(file.parent) is not None]
        if not whole:
            raise InputError(f"no checkpoint in {folder} to resume from", field="resume_from_checkpoint")
        return str(max(whole, key=lambda checkpoint: _step(checkpoint) or 0))
    if not Path(given).is_dir():
        raise InputError(f"no checkpoint folder {given!r}", field="resume_from_checkpoint")
    if not Path(given, STATE_FILE).is_file():
        raise InputError(f"{given!r} is no checkpoint: it has no {STATE_FILE}", field="resume_from_checkpoint")
    return given


def _step(checkpoint: Path) -> int | None:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else None


def _drop_half_written(trainer: TempCLRTrainer) -> None:
    """Remove the checkpoint that was being written when training was interrupted."""
    checkpoint = Path(trainer.args.output_dir, f"checkpoint-{trainer.state.global_step}")
    if trainer.is_world_process_zero() and checkpoint.is_dir() and not (checkpoint / STATE_FILE).is_file():
        shutil.rmtree(checkpoint)


def _save(trainer: TempCLRTrainer) -> None:
    """Write model and processor, the weights last, each under its final name only when it is whole."""
    folder = Path(trainer.args.output_dir)
    staging = folder / ".saving"
    try:
        trainer.save_model(str(staging), _internal_call=True)
        if trainer.is_world_process_zero():
            for path in sorted(staging.iterdir(), key=lambda path: path.suffix == ".safetensors"):
                os.replace(path, folder / path.name)
    finally:
        if trainer.is_world_process_zero():
            shutil.rmtree(staging, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
