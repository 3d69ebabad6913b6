"""A disk that is full in the middle of a command: one line, nothing half-written, and the next run works."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tempclr.cli import main

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs

spec = importlib.util.spec_from_file_location("security_world", Path(__file__).with_name("test_security.py"))
security = importlib.util.module_from_spec(spec)
spec.loader.exec_module(security)
spec = importlib.util.spec_from_file_location("corpora_world", Path(__file__).with_name("corpora_world.py"))
corpora = importlib.util.module_from_spec(spec)
spec.loader.exec_module(corpora)

SMALL = ["--hidden_size", "16", "--num_text_layers", "1", "--num_video_layers", "1", "--num_attention_heads", "2"]
STEPS = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--use_cpu", "--save_steps", "1"]

# A limit on the size of files stands for a disk with that much room: writing beyond it fails in the same way.
FULL = """
import resource, sys
from tempclr.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Videos with rows, their features, and a model of them."""
    folder = tmp_path_factory.mktemp("full disk")
    security.make_videos(folder)
    corpora.write_features(folder / "official features", corpora.youcook2(folder / "official").seconds)
    assert main(command("extract", folder, folder / "features")) == 0
    assert main(command("pretrain", folder, folder / "model")) == 0
    return folder


def command(name, folder, output):
    words = {
        "extract": ["--videos", folder / "rows.jsonl", "--backbone", folder / "encoder", "--output", output],
        "pretrain": [
            "--train_dataset",
            folder / "features",
            "--output_dir",
            output,
            "--vocab_size",
            "60",
            *SMALL,
            *STEPS,
        ],
        "evaluate": [
            "retrieval",
            "--model",
            folder / "model",
            "--dataset",
            folder / "features",
            "--output",
            output / "r.json",
        ],
        "prepare": [
            "youcook2",
            "--annotations",
            folder / "official",
            "--features",
            folder / "official features",
            "--output",
            output,
        ],
    }[name]
    return [name, *map(str, words)]


@pytest.mark.parametrize(
    ("name", "room"), [("extract", 100), ("pretrain", 20_000), ("evaluate", 100), ("prepare", 100)]
)
def test_a_full_disk_is_one_line_and_the_next_run_works(name, room, ready, tmp_path):
    words = command(name, ready, tmp_path / "out")
    done = forked_runs.run(FULL, room, *words)
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if f"tempclr {name}: error: " in line]
    assert len(told) == 1 and "Traceback" not in done.stderr, done.stderr
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    final = {".npy", ".safetensors", ".jsonl", ".arrow"} if name != "pretrain" else {".safetensors"}
    assert not [path for path in left if path.suffix in final or path.name == "r.json"], left
    assert main(words) == 0


def test_publishing_without_room_leaves_the_model_alone(ready, tmp_path):
    before = {path.name: path.read_bytes() for path in (ready / "model").iterdir() if path.is_file()}
    code = FULL.replace("from tempclr.cli import main", "from tempclr_hub.staging import stage_model").replace(
        "sys.exit(main(sys.argv[2:]))", "stage_model(*sys.argv[2:])"
    )
    done = forked_runs.run(code, 5000, ready / "model", tmp_path / "staged")
    assert done.returncode == 1 and "OSError" in done.stderr.splitlines()[-1]
    assert before == {path.name: path.read_bytes() for path in (ready / "model").iterdir() if path.is_file()}
