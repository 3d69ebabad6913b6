"""Push with each strategy, while training or its checkpoints again, on a Hub that fails as it is told."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from tempclr_hub.loopback import Fault, LoopbackHub

SECRET = "hf_planted" + "Secret0123456789abcdef"
STEPS = 4


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def plant(folder: Path) -> None:
    """What is nobody's business, in the places where it lies in real output folders."""
    for name in (".cache", "wandb", "runs", "checkpoint-old"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps({"api_key": SECRET}))
    for name in ("optimizer.pt", "rng_state.pth", "notes.txt", "all_arguments.json", "modeling.log"):
        (folder / name).write_text(SECRET)


def push(
    folder: Path, case: dict[str, Any], repo: str, hub: LoopbackHub, *, trained: Any = None
) -> tuple[dict[str, Any], Any]:
    """Train, or push the checkpoints of ``trained`` once more as the training did; then the push at the end."""
    from toy import weights_sum

    from tempclr.models.tempclr import TempCLRModel
    from tempclr.trainer_push import PushingTrainer

    PushingTrainer.push_wait_seconds = 0.01
    hub.store.lfs_objects.clear()  # what is there already would not be sent again
    heard = Heard()
    logging.getLogger().addHandler(heard)
    hub.faults += [Fault(**fault) for fault in case.get("during", [])]
    answer: dict[str, Any] = {}
    trainer = None
    try:
        with disk_full(case.get("disk_full", False)):
            trainer = again(trained, repo, case["strategy"]) if trained else trains(folder, repo, case["strategy"])
        answer |= {"met": met_faults(hub, case.get("during", [])), "steps": trainer.state.global_step}
        answer |= {"checkpoints": sorted(path.name for path in folder.glob("check*"))}
        answer["before_end"] = sorted(hub.files(repo))
        if "at_end" in case:
            answer |= push_that_fails(trainer, hub, repo, case["at_end"])
        trainer.push_to_hub()
        answer["loaded"] = weights_sum(TempCLRModel.from_pretrained(repo)) == weights_sum(trainer.model)
    except ValueError as error:
        answer["error"] = str(error)
    hub.faults.clear()
    logging.getLogger().removeHandler(heard)
    known = ("model", repo) in hub.store.repositories
    answer["files"] = sorted(hub.files(repo)) if known else []
    answer["warnings"] = [line for line in heard.lines if "was not pushed" in line]
    answer["told"] = SECRET in json.dumps([answer, heard.lines])
    answer["sent"] = known and any(SECRET.encode() in content for content in hub.files(repo).values())
    answer["left_behind"] = sorted(path.name for path in folder.glob(".push-*"))
    pickled = [path for path in folder.rglob("training_args.bin")]
    answer["pickled"] = [SECRET.encode() in path.read_bytes() for path in pickled]
    return answer, trainer


def trains(folder: Path, repo: str, strategy: str) -> Any:
    plant(folder)
    trainer = toy_trainer(folder, repo, strategy)
    trainer.train()
    return trainer


def again(trainer: Any, repo: str, strategy: str) -> Any:
    """A training takes most of the time of a case, and pushes by these calls alone."""
    from transformers.trainer_utils import HubStrategy

    trainer.args.hub_model_id, trainer.args.hub_strategy = repo, HubStrategy(strategy)
    trainer.init_hf_repo()
    for step in (2, 4):
        trainer._push_from_checkpoint(str(Path(trainer.args.output_dir, f"checkpoint-{step}")))
    trainer._finish_current_push()
    return trainer


def push_that_fails(trainer: Any, hub: LoopbackHub, repo: str, faults: list[dict[str, Any]]) -> dict[str, Any]:
    hub.faults += [Fault(**fault) for fault in faults]
    before = local_files(Path(trainer.args.output_dir))
    try:
        trainer.push_to_hub()
        answer: dict[str, Any] = {}
    except ValueError as error:
        answer = {"end_error": str(error), "cause": repr(error.__cause__), "end_met": met_faults(hub, faults)}
    kept = before.items() <= local_files(Path(trainer.args.output_dir)).items()
    return answer | {"kept": kept, "after_failed_end": sorted(hub.files(repo))}


def met_faults(hub: LoopbackHub, asked: list[dict[str, Any]]) -> int:
    """How many of the faults that were asked for came to pass; there are no more afterwards."""
    num_left = sum(fault.times for fault in hub.faults)
    hub.faults.clear()
    return sum(fault["times"] for fault in asked) - num_left


def toy_trainer(folder: Path, repo: str | None, strategy: str = "end") -> Any:
    from datasets import Dataset
    from toy import toy_model, toy_processor, toy_rows

    from tempclr.data.collation import ParagraphCollator
    from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

    hub = {"push_to_hub": True, "hub_model_id": repo, "hub_token": SECRET, "hub_strategy": strategy} if repo else {}
    arguments = TempCLRTrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        save_steps=2,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **hub,
        **({"hub_always_push": True} if repo else {}),
    )
    return TempCLRTrainer(
        toy_model(toy_processor(), seed=0),
        arguments,
        train_dataset=Dataset.from_list(toy_rows(8)),
        data_collator=ParagraphCollator(toy_processor()),
        processing_class=toy_processor(),
    )


@contextlib.contextmanager
def disk_full(full: bool) -> Any:
    """Copies into a staged folder meet a full disk; the checkpoints lie on another."""
    copyfile = shutil.copyfile

    def failing(source: Any, target: Any, **options: Any) -> Any:
        if ".push-" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return copyfile(source, target, **options)

    if full:
        shutil.copyfile = failing
    try:
        yield
    finally:
        shutil.copyfile = copyfile


def local_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.safetensors")}


def resumed_from_the_hub(folder: Path, repo: str) -> dict[str, Any]:
    """Another machine goes on from the pushed state, and ends where the first one did."""
    from huggingface_hub import snapshot_download
    from toy import weights_sum

    from tempclr.models.tempclr import TempCLRModel

    answer = {}
    for place in ("last-checkpoint", "checkpoint-2"):
        pulled = snapshot_download(repo, allow_patterns=[f"{place}/*"])
        if not Path(pulled, place).is_dir():
            continue
        trainer = toy_trainer(folder / place, None)
        trainer.train(resume_from_checkpoint=str(Path(pulled, place)))
        answer[place] = [
            trainer.state.global_step,
            weights_sum(trainer.model) == weights_sum(TempCLRModel.from_pretrained(repo)),
        ]
    return answer


def main(folder: str, cases: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with LoopbackHub({SECRET: "tester"}, lfs_threshold=20_000) as hub:
        # Anonymous but for the argument: what is written with a token is written with that one.
        os.environ.update(hub.environment(Path(folder, "home"), token=""))
        answers = {}
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            import torch

            torch.set_num_threads(1)
            sleep = time.sleep
            time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # the client waits up to 23 s for a cut upload
            trained = None
            for index, (name, case) in enumerate(json.loads(cases).items()):
                anew = trained is None or case.get("trains")
                repo = f"tester/case-{index}"
                output_dir = Path(folder, str(index)) if anew else Path(trained.args.output_dir)
                answers[name], trainer = push(output_dir, case, repo, hub, trained=None if anew else trained)
                trained = trained or trainer
                if case.get("resume"):
                    answers[name]["resumed"] = resumed_from_the_hub(Path(folder, f"again-{index}"), repo)
    streams = SECRET in out.getvalue() or SECRET in err.getvalue()
    print(json.dumps({"cases": answers, "streams": streams, "failures": [str(each) for each in hub.failures()]}))


main(*sys.argv[1:])
