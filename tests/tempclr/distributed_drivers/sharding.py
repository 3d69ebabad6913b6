"""Runs commands on one process and on two ranks; run by test_distributed_commands.py."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import training_world as world
from forked import fork_ranks

from tempclr.cli import main as tempclr
from tempclr.models.tempclr import TempCLRModel

TASKS = ("retrieval", "clip-retrieval", "matching", "localization", "moments")
NUM_VIDEOS = 150  # two blocks of scores


def write_world(folder):
    """A model, and rows that all tasks take."""
    config = world.make_config()
    for tower in (config.text_config, config.video_config):
        tower.initializer_range = 0.3
    config.video_config.max_num_features = 32
    torch.manual_seed(0)
    model = TempCLRModel(config)
    model.processor = world.make_processor()
    model.save_pretrained(folder / "model")
    for name, count in (("many", NUM_VIDEOS), ("few", 9)):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for paragraph in world.make_paragraphs(count):
                row = {name: getattr(paragraph, name) for name in ("video_id", "sentences", "starts", "ends")}
                row |= {"features": paragraph.features.tolist(), "features_per_second": 1.0}
                row["annotator_spans"] = [[[0.0, 1.0]] * 3 for _ in paragraph.sentences]
                file.write(json.dumps(row) + "\n")


def evaluate(folder, num_ranks, task):
    rows = folder / ("many.jsonl" if "retrieval" in task else "few.jsonl")
    words = ["evaluate", task, "--model", str(folder / "model"), "--dataset", str(rows)]
    words += ["--protocol", "clean", "official", "--measures", "dtw", "cap_avg", "--device", "cpu"]
    told(folder / f"{task}-{num_ranks}", [*words, "--output", str(folder / f"{task}-{num_ranks}.json")])


def extract(folder, num_ranks, name):
    words = ["extract", "--videos", str(folder / "rows"), "--backbone", str(folder / "vit"), "--device", "cpu"]
    words += ["--output", str(folder / f"extracted-{num_ranks}"), "--skip_bad_rows"]
    told(folder / f"{name}-{num_ranks}", words)


def extract_broken(folder):
    """The second of two videos, rank 1's, cannot be read, and is not to be left out."""
    words = ["extract", "--videos", str(folder / "broken.jsonl"), "--backbone", str(folder / "vit"), "--device", "cpu"]
    told(folder / "broken-2", [*words, "--output", str(folder / "broken")])


def told(prefix, words):
    """What a command prints and logs goes into files, one a rank."""
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    with (
        open(f"{prefix}-{rank}.out", "w") as out,
        open(f"{prefix}-{rank}.err", "w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = tempclr(words)
    if code and "broken" in str(prefix):
        raise SystemExit(code)
    if code:
        raise SystemExit(Path(f"{prefix}-{rank}.err").read_text())


def main():
    folder = Path(sys.argv[1])
    write_world(folder)
    # Ranks of their own for each command, as launchers make them: on the port of the command before, a quick rank would
    # meet the store of that one, which a slow rank has not closed yet.
    for num_ranks in (1, 2):
        for task in TASKS:
            fork_ranks(evaluate, num_ranks, folder, num_ranks, task)
        fork_ranks(extract, num_ranks, folder, num_ranks, "extract")
        (folder / f"extracted-{num_ranks}" / "features" / "v1.npy").unlink()
        fork_ranks(extract, num_ranks, folder, num_ranks, "again")
    (folder / "broken.codes").write_text(repr(fork_ranks(extract_broken, 2, folder, must_end_well=None)))


if __name__ == "__main__":
    main()
