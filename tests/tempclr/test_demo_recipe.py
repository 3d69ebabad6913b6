"""The demo at its smallest: every stage runs for real on a dozen videos."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tempclr.cli import main
from tempclr.recipes.demo import RUNS, TEMPCLR, _mean
from tempclr.recipes.demo_report import reading


def test_the_report_has_what_it_promises(demo_dir: Path):
    report = (demo_dir / "report.md").read_text(encoding="utf-8")
    for name in RUNS:
        assert report.count(f"\n| {name} ") >= 2, name  # once for the test videos, once for the validation videos
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", report)
    assert len(pictures) == 3
    for picture in pictures:
        assert (demo_dir / picture).read_bytes().startswith(b"\x89PNG")
    assert report.count("| kept ") == 2 * 3  # two baselines, three measures


def test_results_hold_no_times_and_no_paths(demo_dir: Path):
    text = (demo_dir / "results.json").read_text(encoding="utf-8")
    assert str(demo_dir) not in text
    results = json.loads(text)
    assert set(results["test"]) == set(RUNS)
    protocol = results["test"][TEMPCLR]["retrieval"]["kept"]["dtw"]["protocol"]
    assert protocol["name"] == "full-video/background-kept/dtw"
    assert "videos" in json.loads((demo_dir / "timings.json").read_text(encoding="utf-8"))


def test_the_runs_differ_in_their_loss_alone(demo_dir: Path):
    configs = [json.loads(file.read_text()) for file in sorted(demo_dir.glob("runs/*/config.json"))]
    assert len(configs) == len(RUNS)
    settings = {"similarity", "unit_weight", "sequence_weight"}
    first, *others = ({key: value for key, value in config.items() if key not in settings} for config in configs)
    assert all(other == first for other in others)


def test_the_model_aligns_a_video_file_as_the_report_says(demo_dir: Path, tmp_path: Path, capsys):
    video = sorted(demo_dir.glob("dataset/videos/test/*.mp4"))[0]
    steps = tmp_path / "steps.txt"
    steps.write_text("cut the carrot\npour the juice\n", encoding="utf-8")
    words = ["align", "--model", str(demo_dir / "model"), "--video", str(video), "--sentences", str(steps)]
    assert main([*words, "--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]) == 0
    spans = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["spans"]
    assert [span["sentence"] for span in spans] == ["cut the carrot", "pour the juice"]
    assert spans[0]["start_seconds"] == 0 and spans[0]["end_seconds"] <= spans[1]["start_seconds"]
    assert (tmp_path / "out.png").exists()


def test_the_model_folder_is_the_tempclr_run(demo_dir: Path):
    from tempclr import TempCLRModel

    kept = TempCLRModel.from_pretrained(demo_dir / "model").state_dict()
    trained = TempCLRModel.from_pretrained(demo_dir / "runs" / "tempclr-seed0").state_dict()
    assert kept.keys() == trained.keys() and all(torch.equal(kept[name], trained[name]) for name in kept)


@pytest.mark.parametrize("name", ["num_train", "num_validation", "num_test", "num_epochs", "num_workers"])
def test_empty_runs_are_refused_before_any_work(name: str, tmp_path: Path, capsys):
    assert main(["demo", "--output_dir", str(tmp_path), f"--{name}", "0"]) == 2
    assert capsys.readouterr().err.splitlines() == [f"tempclr demo: error: field {name!r}: must be at least 1, got 0"]
    assert not any(tmp_path.iterdir())


def test_the_output_must_be_a_folder(tmp_path: Path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--output_dir", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_means_over_seeds_go_through_mappings():
    assert _mean([{"a": 1.0, "b": {"name": "x"}}, {"a": 3.0, "b": {"name": "x"}}]) == {"a": 2.0, "b": {"name": "x"}}


def test_the_reading_names_what_the_intervals_leave_out():
    entry = {"minus": "unit loss", "measure": "dtw", "background": "kept", "difference": 0.1}
    undecided, clear = {**entry, "low": -0.1, "high": 0.3}, {**entry, "measure": "otam", "low": 0.02, "high": 0.2}
    assert reading([undecided, undecided]).startswith("all 2 intervals include 0")
    assert reading([undecided, clear]).startswith("the interval leaves 0 out for otam against unit loss")
    assert "dtw" not in reading([undecided, clear])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results(demo_dir: Path, demo_words: list[str], tmp_path: Path):
    assert main(["demo", "--output_dir", str(tmp_path), *demo_words]) == 0
    assert (tmp_path / "results.json").read_bytes() == (demo_dir / "results.json").read_bytes()
