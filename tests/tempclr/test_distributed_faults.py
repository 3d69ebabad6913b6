"""Bad numbers and lost ranks: all ranks stop, say why, and leave good checkpoints alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tempclr.checkpoints import checkpoint_fault
from tempclr.finite_checks import MAX_VIDEOS_TOLD, check_loss, check_norm, check_weights

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).parent / "distributed_drivers/faults.py"


def environment():
    paths = [str(ROOT / name) for name in (".", "kernels", "hub")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    done = forked_runs.run(DRIVER, folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def told(folder):
    return [json.loads((folder / f"refusals-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["loss", "loss, own clips"])
def test_a_loss_that_is_not_finite_stops_both_ranks(told, name):
    """Video 7 is in the second joint batch of four, on rank 1; without the gather rank 0's own loss is finite."""
    assert told[0][name] == told[1][name]
    assert told[0][name].startswith("the loss is nan at step 2 (unit_loss nan, sequence_loss nan; videos ")
    videos = told[0][name].split("videos ")[1].split(")")[0].split(", ")
    assert videos == [f"video-0-{number}" for number in ((4, 5, 6, 7) if name == "loss" else (6, 7))]


def test_weights_that_are_not_finite_are_not_saved(told):
    assert told[0]["weights"] == told[1]["weights"]
    assert told[0]["weights"].startswith("after step 2 the weight ")
    assert "nothing is saved" in told[0]["weights"]


def test_good_checkpoints_are_left_and_no_others(folder):
    for name in ("loss", "loss, own clips", "weights"):
        kept = sorted(path.name for path in (folder / name).glob("checkpoint-*"))
        assert kept == ["checkpoint-1"], name
        assert (folder / name / "checkpoint-1" / "trainer_state.json").is_file()
        weights = load_file(folder / name / "checkpoint-1" / "model.safetensors")
        assert all(weight.isfinite().all() for weight in weights.values())


def test_two_ranks_that_go_on_end_with_the_weights_of_a_run_without_a_break(told):
    assert told[0]["resumed"] is told[1]["resumed"] is True


@pytest.mark.parametrize("how", ["killed", "stopped", "stopped behind training"])
def test_when_a_rank_is_lost_the_other_says_so_and_ends(folder, how):
    """Note [Silence means death] in rank_watch.py. The bar is 60 seconds; the silence was set to 10. Behind training
    rank 1 writes no model, for which rank 0 waits."""
    found = json.loads((folder / "lost.json").read_text())[how]
    assert found["codes"][0] in (2, 75) and found["codes"][1] == -signal.SIGKILL
    assert found["seconds"] < 50
    lines = [line for line in (folder / f"{how}-0.err").read_text().splitlines() if line.startswith("tempclr")]
    assert len(lines) == 1 and "another rank has stopped" in lines[0]
    if how != "killed":
        assert "rank 1 has given no sign of life for" in lines[0]


def test_when_a_rank_raises_the_other_ends(folder):
    found = json.loads((folder / "lost.json").read_text())["raised"]
    assert found["codes"][0] in (2, 75) and found["codes"][1] == 2 and found["seconds"] < 30
    texts = [(folder / f"raised-{rank}.err").read_text() for rank in range(2)]
    lines = [[line for line in text.splitlines() if line.startswith("tempclr")] for text in texts]
    assert len(lines[0]) == 1 and "another rank has stopped" in lines[0][0]
    assert lines[1] == ["tempclr pretrain: error: rank 1: the disk went away"]
    assert not any("Traceback" in text for text in texts)


def test_ctrl_c_ends_both_ranks_and_leaves_whole_checkpoints(folder):
    found = json.loads((folder / "lost.json").read_text())["interrupted"]
    assert found["codes"] == [130, 130] and found["seconds"] < 30
    for rank in range(2):
        text = (folder / f"interrupted-{rank}.err").read_text()
        assert [line for line in text.splitlines() if line.startswith("tempclr")] == ["tempclr: interrupted"]
        assert "Traceback" not in text
    kept = [path.parent for path in (folder / "interrupted").glob("checkpoint-*/trainer_state.json")]
    assert kept and not any(checkpoint_fault(path, num_ranks=2) for path in kept)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("launcher", ["torch.distributed.run", "accelerate.commands.launch"])
def test_a_rank_killed_under_a_launcher_ends_the_run(folder, tmp_path, launcher):
    words = ["pretrain", "--train_dataset", str(folder / "rows.jsonl"), "--output_dir", str(tmp_path / "out")]
    words += ["--use_cpu", "--hidden_size", "16", "--num_text_layers", "1", "--num_video_layers", "1"]
    words += ["--max_steps", "100000", "--save_steps", "2", "--save_total_limit", "1", "--report_to", "none"]
    words += ["--disable_tqdm", "True", "--logging_steps", "100000", "--per_device_train_batch_size", "2"]
    options = ["--standalone", "--nproc_per_node=2"]
    if "accelerate" in launcher:
        options = ["--multi_gpu", "--num_processes=2", "--main_process_port=0"]
    command = [sys.executable, "-m", launcher, *options, "-m", "tempclr.cli", *words]
    with open(tmp_path / "log", "w") as log:
        running = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
        while not list((tmp_path / "out").glob("checkpoint-*")):
            assert running.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        ranks = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        last = max(ranks, key=lambda pid: rank_of(pid))
        begin = time.monotonic()
        os.kill(int(last), signal.SIGKILL)
        assert running.wait(timeout=60) != 0
    assert time.monotonic() - begin < 60
    text = (tmp_path / "log").read_text()
    assert any(line.startswith("tempclr") and "another rank has" in line for line in text.splitlines()), text[-3000:]


def rank_of(pid):
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"RANK":
            return int(value)
    return -1


def test_numbers_that_are_not_finite_are_told():
    one, bad = torch.tensor(1.0), torch.tensor(torch.inf)
    check_loss(one, {}, step=1)
    with pytest.raises(ValueError, match=r"^the loss is inf at step 4; the weights"):
        check_loss(bad, {"unit_loss": None}, step=4)
    videos = [f"v{number}" for number in range(MAX_VIDEOS_TOLD + 3)]
    with pytest.raises(ValueError, match=r"\(unit_loss inf, sequence_loss 1; videos v0, .* and 3 more\)"):
        check_loss(bad, {"unit_loss": bad, "sequence_loss": one}, step=4, video_ids=videos)
    check_norm(2.0, step=1)
    check_norm(None, step=1)
    with pytest.raises(ValueError, match=r"the gradients of step 7 have the norm nan though the loss is finite"):
        check_norm(torch.tensor(torch.nan), step=7)
    layer = torch.nn.Linear(2, 2)
    check_weights(layer, step=1)
    for weight in layer.parameters():
        weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"after step 1 the weight weight and 1 more is not finite"):
        check_weights(layer, step=1)
