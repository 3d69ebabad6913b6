"""What two ranks do when something goes wrong on one of them; run by test_distributed_faults.py."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import time
from contextlib import redirect_stderr
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import training_world as world
from forked import fork_ranks
from transformers import TrainerCallback

import tempclr.recipes.running
from tempclr.cli import main as tempclr_command
from tempclr.data.collation import ParagraphCollator
from tempclr.data.sampling import ParagraphDataset
from tempclr.rank_watch import watched_ranks
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

EXTREME = "video-0-7"
SIGNALS = {
    "killed": signal.SIGKILL,
    "stopped": signal.SIGSTOP,
    "stopped behind training": signal.SIGSTOP,
    "interrupted": signal.SIGINT,
}


class ExtremeCollator(ParagraphCollator):
    def __call__(self, rows):
        batch = super().__call__(rows)
        for place, row in enumerate(rows):
            if row.video_id == EXTREME:
                batch["video_features"][place] = float("nan")
        return batch


class BreakWeights(TrainerCallback):
    """As an update that went too far."""

    def on_step_end(self, args, state, control, model=None, **others):
        if state.global_step == 2:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))


def train(folder, *, collator=ParagraphCollator, callbacks=(), resume=None, **options):
    settings = {"max_steps": 6, "per_device_train_batch_size": 2, "save_steps": 1, "logging_steps": 1, "seed": 1}
    settings |= {"train_sampling_strategy": "sequential"}
    arguments = TempCLRTrainingArguments(
        str(folder), use_cpu=True, disable_tqdm=True, report_to=[], **{**settings, **options}
    )
    trainer = TempCLRTrainer(
        model=world.make_model(),
        args=arguments,
        train_dataset=ParagraphDataset(world.make_paragraphs(16)),
        data_collator=collator(world.make_processor(), with_video_ids=True),
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def refusals(folder):
    """Loss and weights that are not finite, with their messages; and a run that is interrupted and goes on."""
    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    told = {}
    runs = {
        "loss": {"collator": ExtremeCollator},
        "loss, own clips": {"collator": ExtremeCollator, "gather_across_ranks": False},
        "weights": {"callbacks": [BreakWeights()]},
    }
    for name, options in runs.items():
        try:
            train(folder / name, **options)
        except ValueError as error:
            told[name] = str(error)
    whole = train(folder / "whole", save_steps=3)
    resumed = train(folder / "resumed", save_steps=3, resume=str(folder / "whole" / "checkpoint-3"))
    pairs = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    told["resumed"] = all(torch.equal(one, other) for one, other in pairs)
    (folder / f"refusals-{rank}.json").write_text(json.dumps(told))


def bad_day(folder, how, silence_seconds):
    """Pretraining by the command; something happens when the first checkpoint is there."""
    torch.set_num_threads(1)
    tempclr.recipes.running.watched_ranks = functools.partial(watched_ranks, silence_seconds=silence_seconds)
    output, rank = folder / how, os.environ["RANK"]
    if how == "raised" and rank == "1":
        TempCLRTrainer.training_step = raises(TempCLRTrainer.training_step, output)
    elif how == "stopped behind training" and rank == "1":
        tempclr.recipes.running._save = lambda trainer: signalled(output, how)
    elif how in SIGNALS and rank == "1":
        threading.Thread(target=signalled, args=(output, how), daemon=True).start()
    words = ["pretrain", "--train_dataset", str(folder / "rows.jsonl"), "--output_dir", str(output), "--use_cpu"]
    words += ["--hidden_size", "16", "--num_text_layers", "1", "--num_video_layers", "1"]
    words += ["--max_steps", "2" if how == "stopped behind training" else "100000"]
    words += ["--save_steps", "2", "--save_total_limit", "1", "--per_device_train_batch_size", "2"]
    words += ["--disable_tqdm", "True", "--report_to", "none", "--logging_steps", "100000"]
    # The message of a watch ends the process past Python, and so needs the file that a shell would give.
    log = os.open(folder / f"{how}-{rank}.err", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    with open(2, "w", buffering=1, closefd=False) as err, redirect_stderr(err):
        sys.exit(tempclr_command(words))


def signalled(output, how):
    while not list(output.glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.05)
    (output.parent / f"{how}.time").write_text(str(time.time()))
    if how == "interrupted":
        os.killpg(os.getpgrp(), SIGNALS[how])
    else:
        os.kill(os.getpid(), SIGNALS[how])


def raises(training_step, output):
    """As a disk that goes away, from the third step on."""

    def step(trainer, *positional):
        if trainer.state.global_step < 2:
            return training_step(trainer, *positional)
        (output.parent / "raised.time").write_text(str(time.time()))
        raise OSError("the disk went away")

    return step


def main():
    folder = Path(sys.argv[1])
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for paragraph in world.make_paragraphs(16):
            row = {name: getattr(paragraph, name) for name in ("video_id", "sentences", "starts", "ends")}
            row |= {"features": paragraph.features.tolist(), "features_per_second": 1.0}
            file.write(json.dumps(row) + "\n")
    fork_ranks(refusals, 2, folder)
    found = {}
    for how in (*SIGNALS, "raised"):
        silence_seconds = 10.0 if "stopped" in how else 40.0
        ends_by_itself = how in ("interrupted", "raised")
        options = {"must_end_well": None if ends_by_itself else False, "in_own_group": how == "interrupted"}
        codes = fork_ranks(bad_day, 2, folder, how, silence_seconds, **options)
        found[how] = {"codes": codes, "seconds": time.time() - float((folder / f"{how}.time").read_text())}
    (folder / "lost.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
