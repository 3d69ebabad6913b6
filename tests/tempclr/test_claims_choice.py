"""The choice is made on validation results, and no test video is looked at before it is committed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tempclr.errors import InputError
from tempclr.recipes.claims.choice import (
    RETRIEVAL_MEASURES,
    choose,
    read_choice,
    refuse_after_test,
    require_commit,
    write_choice,
)
from tempclr.recipes.claims.grid import CANDIDATES, FEW_SHOT_LOSSES, ClaimSettings, Job
from tempclr.recipes.claims.work import Workshop, do_job


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def numbers(total: float, *, best: str = "dtw") -> dict[str, float]:
    found = {"localization": total}
    for measure in RETRIEVAL_MEASURES:
        for background in ("removed", "kept"):
            for k in (1, 5, 10):
                found[f"clean/{background}/{measure}/R@{k}"] = total if measure == best else total / 2
    for kind in ("none", "area", "sides", "path", "soft"):
        found[f"normalised/{kind}/R@1"] = 0.4 + 0.1 * (kind == "sides")
    return found


def put(job: Job, folder: Path, result: dict) -> None:
    file = job.file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in (0, 1):
        for name in CANDIDATES:
            total = {"dtw unpaired": 0.6 + 0.1 * seed, "dtw": 0.59}.get(name, 0.5)
            best = "otam" if name == "dtw unpaired" else "dtw"
            put(Job("train", seed, name), tmp_path, {"validation": {"numbers": numbers(total, best=best)}})
        for loss in FEW_SHOT_LOSSES:
            scores = {f"{one} 1-shot": 0.5 + 0.1 * (loss == "otam") for one in ("dtw", "otam")}
            put(Job("few_shot", seed, f"a/{loss}"), tmp_path, {"base": {"numbers": scores}})
    return tmp_path


def test_the_highest_mean_over_the_seeds_is_chosen_with_its_measure(results: Path):
    found = choose(results, [0, 1], few_shot_sets=["a"])
    assert (found["recipe"], found["measure"], found["normalisation"]) == ("dtw unpaired", "otam", "sides")
    scores = found["scores"]["dtw unpaired"]
    assert scores["measure"] == "otam" and scores["totals"] == pytest.approx([0.6, 0.7])
    assert [scores[key] for key in ("total", "retrieval", "localization")] == pytest.approx([0.65] * 3)
    assert found["runner_up"] == "dtw" and found["lead"] == pytest.approx([0.01, 0.11])
    assert found["best_retrieval"] == found["best_localization"] == "dtw unpaired" and found["unit_recipe"] == "dot"
    assert found["few_shot"]["loss"] == "otam" and found["seeds"] == [0, 1]
    assert choose(results, [0])["recipe"] == "dtw unpaired"


def test_the_simplest_within_one_standard_error_is_chosen(results: Path):
    """Note [One standard error]."""
    for total, chosen in ((0.63, "dtw"), (0.59, "dtw unpaired")):  # 0.02 and 0.06 below the highest; the error is 0.05
        for seed in (0, 1):
            put(Job("train", seed, "dtw"), results, {"validation": {"numbers": numbers(total)}})
        assert choose(results, [0, 1])["recipe"] == chosen
    assert choose(results, [0, 1])["scores"]["dtw unpaired"]["total"] == pytest.approx(0.65)


def test_the_best_by_retrieval_and_by_localization_may_be_others(results: Path):
    for name, key, more in (("cosine t.1", "localization", 0.69), ("otam", "retrieval", 0.7)):
        found = numbers(0.5)
        for one in [one for one in found if (one == "localization") == (key == "localization")]:
            found[one] = more
        put(Job("train", 0, name), results, {"validation": {"numbers": found}})
    made = choose(results, [0])
    assert (made["best_localization"], made["best_retrieval"]) == ("cosine t.1", "otam")
    assert (made["recipe"], made["unit_recipe"]) == ("otam", "cosine t.1")


@pytest.mark.parametrize("kind", ["test", "few_shot_test"])
def test_after_a_test_result_nothing_is_chosen(results: Path, kind: str):
    """Note [No test before the choice]."""
    refuse_after_test(results)
    put(Job(kind, 1, "dot"), results, {})
    with pytest.raises(InputError, match="the choice stands"):
        refuse_after_test(results)


def test_of_equal_scores_the_simpler_is_chosen(results: Path):
    for name in CANDIDATES:
        put(Job("train", 0, name), results, {"validation": {"numbers": numbers(0.5)}})
    assert choose(results, [0])["recipe"] == CANDIDATES[0]


def test_nothing_is_chosen_while_a_run_is_missing(results: Path):
    Job("train", 1, "otam").file(results).unlink()
    with pytest.raises(InputError, match="'otam' is not done"):
        choose(results, [0, 1])
    Job("few_shot", 0, "a/unit").file(results).unlink()
    with pytest.raises(InputError, match="a/unit is not done"):
        choose(results, [0], few_shot_sets=["a"])


def test_a_test_video_waits_for_the_commit(results: Path, tmp_path: Path):
    """Note [No test before the choice]."""
    repository = tmp_path / "repository"
    repository.mkdir()
    file = repository / "choice.json"
    shop = Workshop(tmp_path, ClaimSettings(), {}, choice=file)
    test = Job("test", 0, "dot")

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            do_job(test, shop)
        assert not test.file(tmp_path).exists()

    refused("no choice was made yet")
    write_choice(file, choose(results, [0]))
    refused("not committed as it stands")
    git(repository, "init", "-q")
    refused("not committed as it stands")
    git(repository, "add", "choice.json")
    refused("not committed as it stands")
    git(repository, "commit", "-q", "-m", "Choose")
    require_commit(file)
    assert read_choice(file)["recipe"] == "dtw unpaired"
    file.write_text(file.read_text() + " ")
    refused("not committed as it stands")
