"""Ten thousand steps of a small model: memory stays where it was after the warm-up, and no file stays open.

    python benchmarks/soak_memory.py                     # minutes
    python benchmarks/soak_memory.py --num_steps 600

`pretrain` trains with logging, checkpoints, evaluation and data workers, as in earnest. Every so many steps the
resident memory of the process and its numbers of open files and threads are a line of ``samples.jsonl``; run again
after an interruption, training goes on from its last checkpoint, and the warm-up is that of the new process. The exit
code is 1 if memory grows by more than 2 % from the warm-up to the end, or files stay open.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

MAX_GROWTH = 0.02
WARM_UP = 0.2  # of a process's steps


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    record = arguments.output / "samples.jsonl"
    finished = arguments.output / "model" / "train_results.json"
    if not finished.exists():
        train(arguments, record)
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    passed = [judged([line for line in lines if line["process"] == process]) for process in processes(lines)]
    return 0 if all(passed) else 1


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
    """Resident kilobytes, open files and threads of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "kilobytes": int(status["VmRSS"].split()[0]),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


def processes(lines: list[dict[str, Any]]) -> list[int]:
    return list(dict.fromkeys(line["process"] for line in lines))


def judged(lines: list[dict[str, Any]]) -> bool:
    """Medians of the first and the last fifth after the warm-up, in one process."""
    kept = lines[int(WARM_UP * len(lines)) :]
    if len(kept) < 10:
        print(f"steps {lines[0]['step']} to {lines[-1]['step']}: too few to judge")
        return True
    count = len(kept) // 5
    before, after = medians(kept[:count]), medians(kept[-count:])
    growth = after["kilobytes"] / before["kilobytes"] - 1
    held = growth <= MAX_GROWTH and after["files"] <= before["files"] and after["threads"] <= before["threads"]
    told = f"{before['kilobytes'] / 1024:.1f} to {after['kilobytes'] / 1024:.1f} MB ({growth:+.2%})"
    files = ", ".join(f"{before[name]:.0f} to {after[name]:.0f} {name}" for name in ("files", "threads"))
    print(f"{'' if held else 'LOST '}steps {kept[0]['step']} to {kept[-1]['step']}: {told}, {files} open")
    return held


def medians(lines: list[dict[str, Any]]) -> dict[str, float]:
    return {name: median(line[name] for line in lines) for name in ("kilobytes", "files", "threads")}


if __name__ == "__main__":
    sys.exit(main())
