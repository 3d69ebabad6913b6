"""Two ranks that share their negatives train the same model as one process with the joint batch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tempclr.data.collation import ParagraphCollator
from tempclr.data.tokenization import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("ranks_driver.py")
spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


def run(folder, num_ranks, tokenizer):
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"] if num_ranks > 1 else []
    paths = [str(ROOT / name) for name in (".", "kernels", "hub")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(DRIVER), str(folder), str(num_ranks), str(tokenizer)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "results.pt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What one rank and what two ranks found, and the tokenizer."""
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer = train_tokenizer(["cut melt beat pour fry serve the bread butter two eggs milk it well hot"])
    tokenizer.save_pretrained(folder / "tokenizer")
    return *(run(folder / str(ranks), ranks, folder / "tokenizer") for ranks in (1, 2)), tokenizer


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_equal_one_process_on_the_joint_batch(trained):
    """After three steps: a gather without gradients would agree in the first only, Note [Gather with gradients]."""
    one, two, _ = trained
    for name in ("unit", "both"):
        for part, losses in one[name]["logged"].items():
            torch.testing.assert_close(
                torch.tensor(two[name]["logged"][part]), torch.tensor(losses), rtol=1e-5, atol=1e-5
            )
        for key, value in one[name]["weights"].items():
            torch.testing.assert_close(two[name]["weights"][key], value, rtol=0, atol=1e-5, msg=key)
    assert two["both"]["eval_loss"] == pytest.approx(one["both"]["eval_loss"], rel=1e-5)
    assert len(one["both"]["logged"]["sequence_loss"]) == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_clips_may_be_contrasted_with_those_of_their_own_rank_alone(trained):
    """The first loss of two ranks is then the mean of those of each half of the batch by itself."""
    model = world.make_model(similarity="dot", temperature=0.5, unit_weight=1.0, sequence_weight=0.0).eval()
    _, two, tokenizer = trained
    collator = ParagraphCollator(tokenizer, max_text_tokens=16, max_num_features=8)
    videos = world.make_paragraphs(8)
    halves = [model(**collator(videos[first : first + 2]), return_loss=True).loss.item() for first in (0, 2)]
    joint = model(**collator(videos[:4]), return_loss=True).loss.item()
    assert two["own"]["logged"]["loss"][0] == pytest.approx(sum(halves) / 2, rel=1e-3)
    assert two["unit"]["logged"]["loss"][0] == pytest.approx(joint, rel=1e-3)
    assert abs(joint - sum(halves) / 2) > 0.1
