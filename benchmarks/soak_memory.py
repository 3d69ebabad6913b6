"""Ten thousand steps of a small model: memory stays where it was after the warm-up, and no file stays open.

    python benchmarks/soak_memory.py                     # minutes
    python benchmarks/soak_memory.py --num_steps 600

`pretrain` trains with logging, checkpoints, evaluation and data workers, as in earnest. Every so many steps the
resident memory of the process and of its data workers and its numbers of open files and threads are a line of
``samples.jsonl``; run again after an interruption, training goes on from its last checkpoint, and the warm-up is that
of the new process. The exit code is 1 if memory grows by more than 2 % from the warm-up to the end, if files stay open,
or if no process ran for long enough to be judged.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

MAX_GROWTH = 0.02
MEMORY = {"kilobytes": "training", "worker_kilobytes": "largest data worker"}
WARM_UP = 0.2  # of a process's steps


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    record = arguments.output / "samples.jsonl"
    finished = arguments.output / "model" / "train_results.json"
    if not finished.exists():
        train(arguments, record)
    lines = read_lines(record)
    passed = [judged([line for line in lines if line["process"] == process]) for process in processes(lines)]
    return 0 if True in passed and False not in passed else 1


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_steps", type=int, default=10_000)
    parser.add_argument("--num_workers", type=int, default=1, help="of the DataLoader")
    parser.add_argument("--output", type=Path, default=Path("runs/soak/memory"))
    return parser.parse_args(words)


def make_paragraphs(count: int) -> list[Any]:
    from tempclr.data.rows import Paragraph

    draw = np.random.default_rng(0)
    made = []
    for number in range(count):
        length = int(draw.integers(2, 7))
        starts = [4.0 * place for place in range(length)]
        made.append(
            Paragraph(
                f"v{number}",
                [" ".join(draw.choice(["cut", "melt", "beat", "pour", "fry"], draw.integers(2, 9))) for _ in starts],
                starts,
                [start + float(draw.integers(1, 4)) for start in starts],
                features=draw.normal(size=(4 * length, 16)).astype(np.float32),
                features_per_second=1.0,
            )
        )
    return made


def train(arguments: argparse.Namespace, record: Path) -> None:
    """Train, or go on from the last whole checkpoint."""
    from transformers import TrainerCallback

    from tempclr.recipes.pretraining import ModelArguments, pretrain
    from tempclr.recipes.running import find_checkpoint
    from tempclr.trainer import TempCLRTrainingArguments

    every = max(arguments.num_steps // 100, 1)

    class Sample(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step % every == 0:
                gc.collect()
                line = {"process": os.getpid(), "step": state.global_step, **sample()}
                with record.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(line) + "\n")

    folder = arguments.output / "model"
    training = TempCLRTrainingArguments(
        str(folder),
        max_steps=arguments.num_steps,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        eval_strategy="steps",
        eval_steps=max(arguments.num_steps // 20, 1),
        save_strategy="steps",
        save_steps=max(arguments.num_steps // 20, 1),
        save_total_limit=2,
        logging_steps=10,
        dataloader_num_workers=arguments.num_workers,
        use_cpu=True,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
    )
    if any(folder.glob("checkpoint-*")):
        training.resume_from_checkpoint = "last"
        print(f"goes on from {find_checkpoint(training)}")
    paragraphs = make_paragraphs(400)
    sizes = ModelArguments(
        hidden_size=32, num_text_layers=1, num_video_layers=1, num_attention_heads=2, vocab_size=60, max_padding=0.2
    )
    pretrain(
        paragraphs[:384],
        eval_paragraphs=paragraphs[384:],
        training_arguments=training,
        model_arguments=sizes,
        callbacks=[Sample()],
    )


def sample() -> dict[str, int]:
    """Resident kilobytes, open files and threads of this process, and kilobytes of its largest data worker.

    Their number changes when an epoch or an evaluation begins, so that a sum would say nothing.
    """
    own = status("self")
    workers = [status(str(child.pid)).get("VmRSS", "0 kB") for child in multiprocessing.active_children()]
    return {
        "kilobytes": int(own["VmRSS"].split()[0]),
        "worker_kilobytes": max((int(size.split()[0]) for size in workers), default=0),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(own["Threads"]),
    }


def status(process: str) -> dict[str, str]:
    """What the kernel tells of a process; nothing of one that has just ended."""
    try:
        lines = Path("/proc", process, "status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in lines)


def read_lines(record: Path) -> list[dict[str, Any]]:
    """The samples; a line that a killed run has left half-written is none."""
    found = []
    for line in record.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def processes(lines: list[dict[str, Any]]) -> list[int]:
    return list(dict.fromkeys(line["process"] for line in lines))


def judged(lines: list[dict[str, Any]]) -> bool | None:
    """Medians of the first and the last fifth after the warm-up, in one process; None where samples are too few."""
    kept = lines[int(WARM_UP * len(lines)) :]
    if len(kept) < 10:
        print(f"steps {lines[0]['step']} to {lines[-1]['step']}: too few to judge")
        return None
    count = len(kept) // 5
    before, after = medians(kept[:count]), medians(kept[-count:])
    growths = {name: after[name] / before[name] - 1 for name in MEMORY if before[name]}
    held = all(growth <= MAX_GROWTH for growth in growths.values())
    held = held and after["files"] <= before["files"] and after["threads"] <= before["threads"]
    told = ", ".join(
        f"{MEMORY[name]} {before[name] / 1024:.1f} to {after[name] / 1024:.1f} MB ({growth:+.2%})"
        for name, growth in growths.items()
    )
    files = ", ".join(f"{before[name]:.0f} to {after[name]:.0f} {name}" for name in ("files", "threads"))
    print(f"{'' if held else 'LOST '}steps {kept[0]['step']} to {kept[-1]['step']}: {told}, {files} open")
    return held


def medians(lines: list[dict[str, Any]]) -> dict[str, float]:
    return {name: median(line[name] for line in lines) for name in (*MEMORY, "files", "threads")}


if __name__ == "__main__":
    sys.exit(main())
