"""Two processes that share the rows of the scores rank exactly as one."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tempclr.evaluation import shards

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs

DRIVER = Path(__file__).with_name("retrieval_ranks_driver.py")


RANKS = """
import runpy, sys
sys.path.insert(0, sys.argv[3])
from forked import fork_ranks
driver, sys.argv[0] = sys.argv[4], sys.argv[4]
fork_ranks(lambda: runpy.run_path(driver, run_name="__main__"), int(sys.argv[2]))
"""


def run(folder, num_ranks):
    done = forked_runs.run(RANKS, folder, num_ranks, DRIVER.with_name("distributed_drivers"), DRIVER)
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
