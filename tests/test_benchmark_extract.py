"""benchmarks/extract.py: both sides of the comparison see the same frames, and the numbers are kept."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tempclr.models.s3d import S3DConfig, S3DModel, S3DProcessor

SCRIPT = str(Path(__file__).resolve().parent.parent / "benchmarks" / "extract.py")
VIDEO = {"stem_sizes": [4, 4, 6], "stages": [[[2] * 6]] * 3, "projection_dim": 5}
TEXT = {"vocab_size": 9, "embedding_size": 4, "hidden_size": 7, "projection_dim": 5}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_are_timed_on_the_same_frames(tmp_path, precision):
    script = runpy.run_path(SCRIPT)
    S3DModel(S3DConfig(text_config=TEXT, video_config=VIDEO)).save_pretrained(tmp_path / "model")
    S3DProcessor(num_frames=6, fps=12, size=32, crop_size=32).save_pretrained(tmp_path / "model")
    script["make_videos"](tmp_path / "videos", num_videos=2, seconds=1, height=32, width=48)
    threads = torch.get_num_threads()
    result = script["compare"](tmp_path, precision=precision, num_workers=2, num_rounds=1)
    assert (result["num_frames"], result["num_workers"], result["precision"]) == (24, 2, precision)
    for clock in ("wall", "processor"):
        # Each number is rounded for itself.
        ratio = result[clock]["extraction"] / result[clock]["forward pass"]
        assert result[clock]["ratio"] == pytest.approx(ratio, rel=0.1)
    assert torch.get_num_threads() == threads


def test_help_says_what_is_compared(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["extract.py", "--help"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(SCRIPT, run_name="__main__")
    assert leaving.value.code == 0 and "forward pass" in capsys.readouterr().out


def test_results_are_kept_one_by_one(tmp_path):
    keep = runpy.run_path(SCRIPT)["keep"]
    keep(tmp_path / "a.json", "float32", {"ratio": 1})
    keep(tmp_path / "a.json", "bfloat16", {"ratio": 2})
    kept = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert {name: result["ratio"] for name, result in kept.items()} == {"float32": 1, "bfloat16": 2}
    assert kept["float32"]["machine"]["torch"] == torch.__version__
