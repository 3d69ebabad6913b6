"""Pretraining killed at random moments and taken up again: the weights are those of a run that nobody killed.

    python benchmarks/soak_resume.py                        # 20 kills of each of two runs: some minutes
    python benchmarks/soak_resume.py --num_kills 3 --ways rows

`tempclr pretrain` is started, ended by SIGKILL at a moment that is drawn, and started again with
`--resume_from_checkpoint`, until it has been killed so often and has then come to its end. It saves after every second
step; the moment is so many checkpoints and so many milliseconds after the start of training, or, for every second kill,
when a certain file of a checkpoint appears, which is then being written. What each kill did is a line of
``kills.jsonl``; run again, it goes on from there. The exit code is 1 if the final weights differ in a single bit, or a
run could not be taken up.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAYS = ("rows", "stream")
NUM_STEPS, SAVE_STEPS = 120, 2
FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    dataset = write_dataset(arguments.output / "dataset")
    passed = [soak(way, dataset, arguments) for way in arguments.ways]
    return 0 if all(passed) else 1


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_kills", type=int, default=20)
    parser.add_argument("--num_steps", type=int, default=NUM_STEPS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="rows looked through, or streamed")
    parser.add_argument("--output", type=Path, default=Path("runs/soak/resume"))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def write_dataset(folder: Path) -> Path:
    """Sixty-four small videos as Parquet of small row groups."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    from tempclr.data.files import atomic_path

    path = folder / "train.parquet"
    if path.exists():
        return folder
    draw = np.random.default_rng(0)
    rows = []
    for number in range(64):
        starts = [4.0 * place for place in range(5)]
        sentences = [" ".join(draw.choice(["cut", "melt", "beat", "pour", "fry", "serve"], 4)) for _ in starts]
        features = draw.normal(size=(20, 8)).astype(np.float32).tolist()
        spans = {"sentences": sentences, "starts": starts, "ends": [start + 3.0 for start in starts]}
        rows.append({"video_id": f"v{number}", **spans, "features": features, "features_per_second": 1.0})
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary, row_group_size=4)
    return folder


def command(way: str, dataset: Path, output: Path, num_steps: int) -> list[str]:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_text_layers": 2, "num_video_layers": 1, "vocab_size": 60}
    options: dict[str, Any] = {"train_dataset": dataset, "output_dir": output, "max_steps": num_steps, **sizes}
    options |= {"save_strategy": "steps", "save_steps": SAVE_STEPS, "save_total_limit": 3, "use_cpu": True}
    options |= {"per_device_train_batch_size": 8, "disable_tqdm": True, "dropout": 0.1, "report_to": "none"}
    options |= {"sentence_sampling": "span", "max_sentences": 3}
    if way == "stream":
        options |= {"streaming": True, "shuffle_rows": 16, "dataloader_num_workers": 2}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "tempclr.cli", "pretrain", *words]


# --- kills


def soak(way: str, dataset: Path, arguments: argparse.Namespace) -> bool:
    folder = arguments.output / way
    folder.mkdir(parents=True, exist_ok=True)
    words = command(way, dataset, folder / "whole", arguments.num_steps)
    whole = folder / "whole" / "model.safetensors"
    if not whole.exists():
        code, told = run(words, None, folder)
        if code:
            print(f"LOST {way}: the run that nobody kills ended with code {code}: {told}")
            return False
    words = command(way, dataset, folder / "killed", arguments.num_steps)
    record = folder / "kills.jsonl"
    kills = read_lines(record)
    while len(kills) < arguments.num_kills:
        kill = one_kill(len(kills), words, folder, arguments.seed)
        kills.append(kill)
        with record.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(kill) + "\n")
        print(f"{way}: kill {len(kills)} of {arguments.num_kills}: {kill['told']}", flush=True)
    code, told = run(resumed(words, folder / "killed"), None, folder)
    same = not code and sha256(whole) == sha256(folder / "killed" / "model.safetensors")
    cut = sum(bool(kill["cut"]) for kill in kills)
    ended = sum(kill["ended"] for kill in kills)
    verdict = (
        "the weights are those of the run that nobody killed" if same else f"LOST: weights differ, code {code} {told}"
    )
    print(
        f"{way}: {len(kills)} kills, {cut} while a checkpoint was written, {ended} found the run at its end; {verdict}"
    )
    return same


@dataclass(frozen=True)
class Moment:
    """When to kill: so many checkpoints after the start, as a file of that one appears, or so much later."""

    num_saves: int
    file: str | None
    delay_seconds: float

    def __str__(self) -> str:
        when = f"as its {self.file} appears" if self.file else f"{1000 * self.delay_seconds:.0f} ms after it appears"
        return f"checkpoint {self.num_saves} of this start, {when}"


def one_kill(number: int, words: list[str], folder: Path, seed: int) -> dict[str, Any]:
    """Start or take up the run, and end it at a moment that is drawn from the number alone."""
    draw = random.Random(f"{seed} {number}")
    output = folder / "killed"
    before = newest(output)
    file = draw.choice(FILES) if number % 2 else None
    moment = Moment(draw.randint(1, 3), file, 0.0 if file else draw.uniform(0.0, 0.2))
    code, told = run(resumed(words, output), moment, folder)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"LOST: taken up before kill {number}, it ended with code {code}: {told}")
    cut = not_whole(output)
    what = f"from step {before} to {newest(output)}; not whole: {', '.join(cut) or 'none'}"
    return {"number": number, "ended": code == 0, "cut": cut, "told": f"{moment}: {what}"}


def resumed(words: list[str], output: Path) -> list[str]:
    """Words that take a run up, or begin it anew where it was killed before its first checkpoint was whole."""
    if newest(output) is None:
        return words
    return [*words, "--resume_from_checkpoint"]


def run(words: list[str], moment: Moment | None, folder: Path) -> tuple[int, str]:
    """The exit code and last line of a run that is killed at a moment, or left alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    log = folder / "last.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            if moment is not None:
                wait_for(process, folder / "killed", moment)
        finally:
            if process.poll() is None and moment is not None:
                os.killpg(process.pid, signal.SIGKILL)  # its workers too, as a machine that goes down would
        code = process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return code, lines[-1] if lines else ""


def wait_for(process: subprocess.Popen[bytes], output: Path, moment: Moment) -> None:
    """Until the moment has come, or the run its end. A folder that a kill left half-written is written again."""
    known = written_files(output)
    seen: list[Path] = []
    while process.poll() is None:
        for path, modified in written_files(output).items():
            if path.parent not in seen and known.get(path) != modified:
                seen.append(path.parent)
        if len(seen) >= moment.num_saves:
            last = seen[moment.num_saves - 1]
            if moment.file is None or (last / moment.file).exists():
                time.sleep(moment.delay_seconds)
                return
        time.sleep(0.0005)


def written_files(output: Path) -> dict[Path, int]:
    """When each file of each checkpoint was last written; the run may remove old ones at any moment."""
    found = {}
    for folder in output.glob("checkpoint-*"):
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                found[path] = path.stat().st_mtime_ns
    return found


def newest_number(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints(output: Path) -> list[Path]:
    return sorted(output.glob("checkpoint-*"), key=newest_number)


def newest(output: Path) -> int | None:
    """The step of the newest checkpoint that is whole."""
    from tempclr.checkpoints import checkpoint_fault

    whole = [newest_number(path) for path in checkpoints(output) if checkpoint_fault(path) is None]
    return whole[-1] if whole else None


def not_whole(output: Path) -> list[str]:
    from tempclr.checkpoints import checkpoint_fault

    return [f"{path.name}: {fault}" for path in checkpoints(output) if (fault := checkpoint_fault(path)) is not None]


def sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def read_lines(record: Path) -> list[dict[str, Any]]:
    found = []
    for line in record.read_text(encoding="utf-8").splitlines() if record.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


if __name__ == "__main__":
    sys.exit(main())
