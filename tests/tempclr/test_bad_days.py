"""Ctrl-C in a training, and files that are there but cannot be read: one line, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tempclr.cli import main
from tempclr.data.video import iterate_frames, probe
from tempclr.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs
import training_world as world

COMMAND = "import sys\nfrom tempclr.cli import main\nsys.exit(main(sys.argv[1:]))"
SMALL = ["--hidden_size", "16", "--num_text_layers", "1", "--num_video_layers", "1", "--num_attention_heads", "2"]
STEPS = ["--use_cpu", "--save_steps", "2", "--save_total_limit", "2", "--per_device_train_batch_size", "2"]
QUIET = ["--disable_tqdm", "true", "--report_to", "none", "--logging_steps", "100000"]


def write_rows(file, count=12):
    with open(file, "w", encoding="utf-8") as stream:
        for paragraph in world.make_paragraphs(count):
            row = {name: getattr(paragraph, name) for name in ("video_id", "sentences", "starts", "ends")}
            row |= {"features": paragraph.features.tolist(), "features_per_second": 1.0, "task": "cook"}
            row |= {"steps": world.ACTIONS, "step_indices": [world.ACTIONS.index(text) for text in row["sentences"]]}
            stream.write(json.dumps(row) + "\n")
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad days")
    write_rows(folder / "train.jsonl")
    model = world.make_model()
    model.processor = world.make_processor()
    model.save_pretrained(folder / "model")
    return folder


def training(name, folder, output, steps):
    words = {
        "pretrain": ["pretrain", *SMALL, "--streaming", "--shuffle_rows", "4", "--vocab_size", "60"],
        "finetune": ["finetune", "--task", "localization", "--init_from", folder / "model"],
    }[name]
    given = ["--train_dataset", folder / "train.jsonl", "--output_dir", output, "--max_steps", steps]
    return [str(word) for word in (*words, *given, *STEPS, *QUIET)]


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_ctrl_c_leaves_whole_checkpoints_to_go_on_from(name, folder, tmp_path):
    running = forked_runs.Run(COMMAND, *training(name, folder, tmp_path, 100_000))
    while not list(tmp_path.glob("checkpoint-*/trainer_state.json")):
        assert running.process.is_alive(), running.wait().stderr
        time.sleep(0.05)
    running.interrupt()
    done = running.wait(60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "tempclr: interrupted" and "Traceback" not in done.stderr
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    assert steps and not list(tmp_path.glob(".saving")) and not (tmp_path / "model.safetensors").exists()
    assert main([*training(name, folder, tmp_path, steps[-1] + 2), "--resume_from_checkpoint"]) == 0
    assert all(weight.isfinite().all() for weight in load_file(tmp_path / "model.safetensors").values())


# --- files that are there and cannot be read


def folder_instead(file):
    file.mkdir()


def broken_link(file):
    file.symlink_to(file.parent / "nowhere")


def pipe(file):
    os.mkfifo(file)


def forbidden(file):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    file.write_text("{}")
    file.chmod(0)


UNREADABLE = [folder_instead, broken_link, pipe, forbidden]


def refused(capfd, *words):
    """What a command says in one line; a pipe that nobody writes to would keep it waiting for ever."""
    assert main([str(word) for word in words]) == 2
    told = capfd.readouterr().err.splitlines()
    assert len([line for line in told if ": error: " in line]) == 1 and "Traceback" not in "".join(told)
    return told[-1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", UNREADABLE)
@pytest.mark.parametrize("streamed", [True, False])
def test_rows_that_cannot_be_read_are_named(make, streamed, tmp_path, capfd):
    rows = tmp_path / "rows.jsonl"
    make(rows)
    how = ["--streaming"] if streamed else []
    words = ["pretrain", "--train_dataset", rows, "--output_dir", tmp_path / "out", "--max_steps", "1", *how]
    assert "rows.jsonl" in refused(capfd, *words, "--use_cpu")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", UNREADABLE)
def test_features_that_cannot_be_read_are_named(make, folder, tmp_path, capfd):
    row = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    del row["features"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"features_path": "f.npy"}))
    make(tmp_path / "f.npy")
    words = ["evaluate", "retrieval", "--model", folder / "model", "--dataset", tmp_path / "rows.jsonl"]
    assert "f.npy" in refused(capfd, *words, "--output", tmp_path / "r.json", "--device", "cpu")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", UNREADABLE)
def test_videos_that_cannot_be_read_are_named(make, folder, tmp_path, capfd):
    make(tmp_path / "v.mp4")
    (tmp_path / "steps.txt").write_text("cut the bread\n")
    words = ["align", "--model", folder / "model", "--video", tmp_path / "v.mp4", "--sentences", tmp_path / "steps.txt"]
    told = refused(capfd, *words)
    # The model takes features alone, so that a file which is there is not even opened.
    reason = "this model does not record how" if make is forbidden else f"{tmp_path / 'v.mp4'}: no such video file"
    assert told.startswith(f"tempclr align: error: {reason}")


@pytest.mark.timeout(60)
def test_a_forbidden_video_is_named(tmp_path):
    forbidden(tmp_path / "v.mp4")
    for read in (probe, lambda file: list(iterate_frames(file))):
        with pytest.raises(InputError, match=r"v\.mp4: cannot be read as video \(Permission denied\)"):
            read(tmp_path / "v.mp4")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("make", UNREADABLE)
def test_models_that_cannot_be_read_are_named(make, name, folder, tmp_path, capfd):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    (model / name).unlink()
    make(model / name)
    words = ["evaluate", "retrieval", "--model", model, "--dataset", folder / "train.jsonl", "--device", "cpu"]
    assert str(model) in refused(capfd, *words, "--output", tmp_path / "r.json")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", UNREADABLE)
def test_checkpoints_that_cannot_be_read_are_not_gone_on_from(make, folder, tmp_path, capfd):
    words = training("pretrain", folder, tmp_path, 2)
    assert main(words) == 0
    (tmp_path / "checkpoint-2" / "optimizer.pt").unlink()
    make(tmp_path / "checkpoint-2" / "optimizer.pt")
    assert "no whole checkpoint in" in refused(capfd, *words, "--resume_from_checkpoint")
