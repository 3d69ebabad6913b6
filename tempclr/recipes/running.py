"""What every training of ours does around ``Trainer.train``: resume, save whole folders, leave nothing half-written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from tempclr.checkpoints import whole_checkpoint
from tempclr.models.tempclr import TempCLRModel
from tempclr.rank_watch import watched_ranks
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments
from tempclr_hub.probe import store_probe

__all__ = ["find_checkpoint", "run_training"]


def run_training(trainer: TempCLRTrainer, *, checkpoint: str | None = None) -> None:
    """Train, from ``checkpoint`` on if there is one, and write model, processor, metrics, state and card.

    With evaluation data the trained model is evaluated at the end. An interruption leaves whole checkpoints only. A
    rank that fails or is lost stops the others at any time, to the end of the last push.
    """
    with watched_ranks(join_seconds=trainer.args.ddp_timeout):
        _train_and_save(trainer, checkpoint)


def _train_and_save(trainer: TempCLRTrainer, checkpoint: str | None) -> None:
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
    """The checkpoint that ``resume_from_checkpoint`` asks for, if any: see
    :func:`tempclr.checkpoints.whole_checkpoint`."""
    given = training_arguments.resume_from_checkpoint
    if given is None:
        return None
    with_optimizer, num_ranks = not training_arguments.save_only_model, training_arguments.world_size
    return whole_checkpoint(given, training_arguments.output_dir, with_optimizer=with_optimizer, num_ranks=num_ranks)


def _drop_half_written(trainer: TempCLRTrainer) -> None:
    """Remove the checkpoint that was being written when training was interrupted."""
    checkpoint = Path(trainer.args.output_dir, f"checkpoint-{trainer.state.global_step}")
    if trainer.is_world_process_zero() and checkpoint.is_dir() and not (checkpoint / TRAINER_STATE_NAME).is_file():
        shutil.rmtree(checkpoint)


def _save(trainer: TempCLRTrainer) -> None:
    """Write model and processor, the weights last, each under its final name only when it is whole."""
    folder = Path(trainer.args.output_dir)
    staging = folder / ".saving"
    if trainer.is_world_process_zero() and staging.exists():  # of a run that was killed
        shutil.rmtree(staging)
    trainer.accelerator.wait_for_everyone()
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
