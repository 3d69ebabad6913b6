"""Two processes that share the rows of the scores rank exactly as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from tempclr.evaluation import shards

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("retrieval_ranks_driver.py")


def run(folder, num_ranks):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"] if num_ranks > 1 else []
    paths = [str(ROOT / name) for name in (".", "kernels", "hub")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(DRIVER), str(folder), str(num_ranks)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"ranks-{num_ranks}-{rank}.pt") for rank in range(num_ranks)]


def test_two_processes_rank_exactly_as_one(tmp_path):
    """Note [Blocks do not depend on the ranks] in shards.py: 300 queries are three blocks, so the ranks share them."""
    (alone,) = run(tmp_path, 1)
    assert len(alone) == 2 * 2 * 5 + 2 + 1
    assert len(set(alone["clean", "kept", "dtw"])) > 20  # the task is neither trivial nor hopeless
    for found in run(tmp_path, 2):
        assert found == alone


def test_blocks_fill_every_row_once():
    outputs = {"row": torch.zeros(300, dtype=torch.int64)}
    seen = []

    def score(rows):
        seen.append((rows.start, rows.stop))
        return {"row": torch.arange(300)[rows]}

    shards.fill_rows(outputs, score, across_ranks=False)
    assert seen == [(0, 128), (128, 256), (256, 300)]
    assert outputs["row"].tolist() == list(range(300))
