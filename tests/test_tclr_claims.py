"""The benchmark of TCLR's claims on a scrap of its videos: it goes on after a kill and says which way it fell."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def claims():
    before = list(sys.path), torch.get_num_threads()
    sys.path.append(str(ROOT / "benchmarks"))
    import tclr_claims

    yield tclr_claims
    sys.path[:] = before[0]
    torch.set_num_threads(before[1])


@pytest.fixture
def small(claims, tmp_path, monkeypatch):
    for name, value in {
        "WORK": tmp_path / "work",
        "LABELS": ("grow", "shrink", "pulse", "spin", "swing", "orbit"),
        "NUM_VIDEOS": {part: {"train": 4, "test": 1} for part in ("validation", "test")},
        "NETWORK": {"variant": "r3d_10", "width": 2},
        "CLIP_SIZE": 16,
        "NUM_TEST_CLIPS": 2,
    }.items():
        monkeypatch.setattr(claims, name, value)
    monkeypatch.setattr(
        claims, "TRAINING", {**claims.TRAINING, "num_train_epochs": 2, "per_device_train_batch_size": 12}
    )
    monkeypatch.setattr(claims, "SUPERVISED", {**claims.SUPERVISED, "num_train_epochs": 1})
    return claims


class Killed(RuntimeError):
    pass


def test_a_run_killed_in_its_training_goes_on_and_is_kept(small, monkeypatch):
    job = ("TCLR", 0)
    seen = small.Clock.on_save

    def killed(self, *given, **others):
        seen(self, *given, **others)
        raise Killed

    with monkeypatch.context() as once:
        once.setattr(small.Clock, "on_save", killed)
        with pytest.raises(Killed):
            small.work("test", [job])
    assert not small.result_file("test", *job).exists()
    spent = json.loads((small.run_folder("test", *job) / "seconds.json").read_text())
    small.work("test", [job])
    kept = json.loads(small.result_file("test", *job).read_text())
    assert kept["seconds"]["processor"] > spent["processor"] > 0
    assert (kept["num_train"], kept["num_measured"], np.shape(kept["slices"])) == (24, 6, (4, 4))
    assert {"linear", "linear_one_clip", "R@1", "R@20"} <= set(kept) and 0 <= kept["linear"] <= 1
    assert {"instance_loss", "local_local_loss", "global_local_loss"} <= set(kept["last_epoch"])
    monkeypatch.setattr(small, "trained", None)
    small.work("test", [job])  # a run that is done is left alone


def test_validation_looks_at_no_test_video(small):
    """Its videos are others altogether: no two files of the parts are equal."""
    files = [[one.video.read_bytes() for side in small.data(part) for one in side] for part in ("validation", "test")]
    assert len(files[0]) == len(files[1]) == 30 and not set(files[0]) & set(files[1])


def run(linear, recall, **others):
    same = {"linear_one_clip": linear, "R@5": recall, "R@10": recall, "R@20": recall}
    seconds = {"wall": 60.0, "processor": 30.0}
    return {"linear": linear, "R@1": recall, **same, "num_train": 48, "num_measured": 16, "seconds": seconds, **others}


def test_the_page_says_which_way_it_fell(claims, tmp_path, monkeypatch):
    import tclr_page

    slices = [[1.0, 0.5], [0.5, 1.0]]
    runs = {f"instance/{seed}": run(0.3 + 0.01 * seed, 0.5, slices=slices) for seed in range(3)}
    runs |= {f"TCLR/{seed}": run(0.5 + 0.01 * seed, 0.5 - 0.1 * (seed == 1), slices=slices) for seed in range(3)}
    results = {"machine": {"cpu": "one", "torch": "2"}, "settings": claims.settings(), "runs": runs}
    text = tclr_page.page("by hand\n" + tclr_page.MARK + "\nof before", results)
    assert text.startswith("by hand\n") and "of before" not in text
    assert "TCLR: linear evaluation 20.0 points better, beyond its interval" in text
    assert "TCLR: R@1 3.3 points worse, within its interval" in text
    assert "| 31.0 ± 2.5" in text and "69.9" in text
    mean, half = tclr_page.mean_and_half([0.3, 0.31, 0.32])
    assert (mean, half) == pytest.approx((0.31, 4.303 * 0.01 / 3**0.5))
    (tmp_path / "docs").mkdir()
    tclr_page.draw(tmp_path, results, {})
    assert (tmp_path / "docs" / "tclr_slices.png").is_file()


def test_one_seed_has_no_interval_and_runs_of_other_settings_are_refused(claims, tmp_path, monkeypatch):
    import tclr_page

    assert "of one seed" in tclr_page.verdict({"instance/0": run(0.3, 0.5), "TCLR/0": run(0.5, 0.5)})
    assert tclr_page.verdict({"TCLR/0": run(0.5, 0.5)}) == "No run is there to compare with instances."
    monkeypatch.setattr(claims, "WORK", tmp_path)
    claims.check_settings()
    claims.check_settings()
    monkeypatch.setattr(claims, "CLIP_SIZE", 24)
    with pytest.raises(SystemExit, match="made with other settings"):
        claims.check_settings()


def test_the_committed_page_is_that_of_the_committed_results(claims):
    import tclr_page

    if not claims.RESULTS.is_file():
        pytest.skip("the runs have not been made")
    page = claims.PAGE.read_text(encoding="utf-8")
    assert page == tclr_page.page(page, json.loads(claims.RESULTS.read_text(encoding="utf-8")))
