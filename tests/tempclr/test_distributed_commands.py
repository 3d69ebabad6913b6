"""``tempclr extract`` and ``tempclr evaluate`` on two ranks write what one process writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from tempclr.data.video import write_video
from tempclr.distributed import gather_objects, gather_rows, joined_ranks, largest_sizes, mean_over_ranks, shared_map
from tempclr.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).parent / "distributed_drivers/sharding.py"
TASKS = ("retrieval", "clip-retrieval", "matching", "localization", "moments")


def environment():
    paths = [str(ROOT / name) for name in (".", "kernels", "hub")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def write_videos(folder):
    """Five videos, one of them broken, in rows of two splits; and a tiny encoder."""
    (folder / "rows").mkdir()
    rows = []
    for number in range(5):
        file = folder / "videos" / f"v{number}.mp4"
        frames = np.random.default_rng(number).integers(0, 255, (15, 32, 32, 3), dtype=np.uint8)
        write_video(file, frames, frames_per_second=10, codec="mpeg4")
        row = {"video_id": f"v{number}", "video": f"../videos/v{number}.mp4", "sentences": ["cut"]}
        rows.append({**row, "starts": [0.0], "ends": [1.0]})
    file.write_bytes(b"no video")
    for name, own in (("train", rows[:3]), ("test", rows[3:])):
        (folder / "rows" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, own)))
    places = [{**row, "video": row["video"].removeprefix("../")} for row in (rows[0], rows[4])]
    (folder / "broken.jsonl").write_text("\n".join(map(json.dumps, places)))
    torch.manual_seed(0)
    part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**part, image_size=32, patch_size=16)).save_pretrained(folder / "vit")
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "vit" / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    write_videos(folder)
    done = forked_runs.run(DRIVER, folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("task", TASKS)
def test_two_ranks_measure_what_one_process_measures(folder, task):
    """Byte for byte; Note [Blocks do not depend on the ranks] in shards.py."""
    alone, together = ((folder / f"{task}-{num_ranks}.json").read_bytes() for num_ranks in (1, 2))
    assert together == alone
    assert (folder / f"{task}-2-0.out").read_text().replace(f"{task}-2.json", f"{task}-1.json") == (
        folder / f"{task}-1-0.out"
    ).read_text()


def test_the_second_rank_says_nothing(folder):
    for name in (*TASKS, "extract", "again"):
        assert (folder / f"{name}-2-1.out").read_text() == ""
        assert "%|" not in (folder / f"{name}-2-1.err").read_text()
    assert "%|" in (folder / "extract-2-0.err").read_text()
    assert "%|" in (folder / "retrieval-2-0.err").read_text()


def test_two_ranks_extract_what_one_process_extracts(folder):
    files = {
        num_ranks: {
            str(file.relative_to(folder / f"extracted-{num_ranks}")): file.read_bytes()
            for file in (folder / f"extracted-{num_ranks}").rglob("*")
            if file.is_file()
        }
        for num_ranks in (1, 2)
    }
    assert files[1] == files[2]
    assert {"features/v0.npy", "train.jsonl", "test.jsonl", "feature_recipe.json"} <= set(files[1])
    assert "features/v4.npy" not in files[1]


def test_what_the_ranks_left_out_is_told_once_and_a_second_run_goes_on(folder):
    told = {name: (folder / f"{name}-2-0.out").read_text() for name in ("extract", "again")}
    assert "4 videos extracted, 0 already there, 4 rows written, 1 left out" in told["extract"]
    assert "1 videos extracted, 3 already there, 4 rows written, 1 left out" in told["again"]
    for name in told:
        reasons = [line for line in (folder / f"{name}-2-0.err").read_text().splitlines() if "left out:" in line]
        assert len(reasons) == 1 and "row 1" in reasons[0]


def test_a_video_that_one_rank_cannot_read_ends_all_of_them(folder):
    assert (folder / "broken.codes").read_text() == "[2, 2]"
    lines = [(folder / f"broken-2-{rank}.err").read_text().splitlines() for rank in range(2)]
    errors = [[line for line in own if line.startswith("tempclr")] for own in lines]
    assert [len(own) for own in errors] == [1, 1] and not any("Traceback" in line for own in lines for line in own)
    assert "rank 1: " in errors[1][0] and "v4.mp4" in errors[1][0]
    assert "rank 0: stops because another rank has stopped" in errors[0][0]
    assert not (folder / "broken" / "broken.jsonl").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("launcher", ["torch.distributed.run", "accelerate.commands.launch"])
def test_the_launchers_that_users_run(folder, tmp_path, launcher):
    options = ["--standalone", "--nproc_per_node=2"]
    if "accelerate" in launcher:
        options = ["--multi_gpu", "--num_processes=2", "--main_process_port=0"]

    def launched(*words):
        command = [sys.executable, "-m", launcher, *options, "-m", "tempclr.cli", *map(str, words), "--device", "cpu"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=140, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    words = ["evaluate", "retrieval", "--model", folder / "model", "--dataset", folder / "many.jsonl"]
    words += ["--protocol", "clean", "official", "--measures", "dtw", "cap_avg"]
    told = launched(*words, "--output", tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == (folder / "retrieval-1.json").read_bytes()
    assert told.count("wrote") == 1
    words = ["extract", "--videos", folder / "rows", "--backbone", folder / "vit", "--skip_bad_rows"]
    assert "4 videos extracted" in launched(*words, "--output", tmp_path / "extracted")
    for name in ("features/v0.npy", "features/v2.npy", "feature_recipe.json"):
        assert (tmp_path / "extracted" / name).read_bytes() == (folder / "extracted-1" / name).read_bytes()


def test_one_process_is_a_run_of_one_rank():
    rows = torch.ones(2, 3, requires_grad=True)
    assert gather_rows(rows).tolist() == rows.tolist() and gather_rows(rows, 3).shape == (3, 3)
    assert (largest_sizes([4, 2], device=rows.device), gather_objects("a")) == ([4, 2], ["a"])
    assert mean_over_ranks(rows) is rows
    assert shared_map(str, [3, 1, 2]) == ["3", "1", "2"]
    with joined_ranks():
        assert not torch.distributed.is_initialized()


def test_an_incomplete_launch_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(InputError, match="MASTER_ADDR, MASTER_PORT: start several processes by torchrun"),
        joined_ranks(),
    ):
        raise AssertionError
