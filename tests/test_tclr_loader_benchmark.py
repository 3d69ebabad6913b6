"""benchmarks/tclr_loader.py runs as a user runs it, and what it reports follows from what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_script_runs_and_its_numbers_agree(tmp_path):
    output = tmp_path / "loader.json"
    words = ["--hidden_sizes", *["4"] * 5, "--image_size", "32", "--num_videos", "1", "--seconds", "3", "--rounds", "1"]
    words += ["--height", "48", "--width", "64", "--output", str(output)]
    script = [sys.executable, str(ROOT / "benchmarks/tclr_loader.py"), *words]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    (result,) = report["results"]
    spent = result["milliseconds_a_sample"]
    assert set(spent) == {"loader", "training step", "decoding", "augmentation"} and min(spent.values()) > 0
    # Both times are rounded.
    assert result["ratio"] == pytest.approx(spent["training step"] / spent["loader"], rel=0.02)
    assert result["is_met"] == (result["ratio"] >= result["bar"]) and report["machine"]["num_threads"] == 1
