"""Two ranks that share their negatives train the same model as one process with the joint batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tempclr.data.tokenization import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("ranks_driver.py")


def run(folder, num_ranks, tokenizer):
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"] if num_ranks > 1 else []
    paths = [str(ROOT / name) for name in (".", "kernels", "hub")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(DRIVER), str(folder), str(num_ranks), str(tokenizer)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "results.pt")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_equal_one_process_on_the_joint_batch(tmp_path):
    """After three steps: a gather without gradients would agree in the first only, Note [Gather with gradients]."""
    train_tokenizer(["cut melt beat pour fry serve the bread butter two eggs milk it well hot"]).save_pretrained(
        tmp_path / "tokenizer"
    )
    one, two = (run(tmp_path / str(ranks), ranks, tmp_path / "tokenizer") for ranks in (1, 2))
    for name in ("unit", "both"):
        for part, losses in one[name]["logged"].items():
            torch.testing.assert_close(
                torch.tensor(two[name]["logged"][part]), torch.tensor(losses), rtol=1e-5, atol=1e-5
            )
        for key, value in one[name]["weights"].items():
            torch.testing.assert_close(two[name]["weights"][key], value, rtol=0, atol=1e-5, msg=key)
    assert two["both"]["eval_loss"] == pytest.approx(one["both"]["eval_loss"], rel=1e-5)
    assert len(one["both"]["logged"]["sequence_loss"]) == 3
