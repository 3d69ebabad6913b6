"""The recommended loss on new seeds: what was settled before, and what is made of the results."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tempclr.errors import InputError
from tempclr.recipes.claims.cells import interval_of
from tempclr.recipes.claims.collection import write_claims
from tempclr.recipes.claims.confirmation import COMPARISONS, DECISIVE, NEW_SEEDS, QUALITIES, confirmation_jobs
from tempclr.recipes.claims.confirmation_results import (
    answer,
    collect_confirmation,
    confirmation_sentence,
    confirmation_table,
)
from tempclr.recipes.claims.grid import RUNS, ClaimSettings, Job
from tempclr.recipes.claims.statistics import Interval, careful_interval

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ClaimSettings(num_test=8)
RUN_NAMES = {name for one in COMPARISONS for name in (one.own, one.base)}


def leave(job: Job, folder: Path) -> dict[str, Any]:
    """A test job's result, as the jobs leave it, with other ranks and shares for each seed and run."""
    draw = np.random.default_rng([job.seed, sorted(RUN_NAMES).index(job.name)])
    ranks = {
        f"{protocol}/{background}/dtw/rank": draw.integers(1, 4, size=SETTINGS.num_test).tolist()
        for protocol, background in (("clean", "removed"), ("clean", "kept"), ("official", "kept"))
    }
    shares = draw.random(SETTINGS.num_test).tolist()
    numbers = {key.replace("rank", "R@1"): float(np.mean(np.array(found) == 1)) for key, found in ranks.items()}
    result = {"numbers": {**numbers, "localization": float(np.mean(shares))}}
    result["per_video"] = {**ranks, "localization": shares}
    file = job.file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"test": result}))
    return result


def test_the_plan_compares_the_choice_that_was_committed(claims_command: ModuleType):
    choice = json.loads(claims_command.CHOICE.read_text(encoding="utf-8"))
    first = COMPARISONS[0]
    assert (first.own, first.base) == (choice["recipe"], choice["unit_recipe"])
    assert {one.base for one in COMPARISONS if one.own == choice["recipe"]} >= {choice["paper_recipe"], "dot+dtw"}
    assert set(NEW_SEEDS).isdisjoint(choice["seeds"]) and len(NEW_SEEDS) == 10
    assert set(DECISIVE) <= set(QUALITIES)


def test_every_run_that_is_compared_is_trained_and_tested_after_what_it_goes_on_from():
    jobs = confirmation_jobs([5, 6])
    assert {job.kind for job in jobs} == {"data", "train", "test"} and {job.seed for job in jobs} == {5, 6}
    trained = [job.name for job in jobs if job.kind == "train" and job.seed == 5]
    assert set(trained) == RUN_NAMES == {job.name for job in jobs if job.kind == "test"}
    for name in trained:
        start = RUNS[name].start
        assert start is None or trained.index(start) < trained.index(name)


def test_differences_are_those_of_the_videos_over_seeds_that_are_done(tmp_path: Path):
    jobs = [job for job in confirmation_jobs([5, 6, 7]) if job.kind == "test"]
    left = {(job.seed, job.name): leave(job, tmp_path) for job in jobs if (job.seed, job.name) != (7, jobs[-1].name)}
    found = collect_confirmation(tmp_path, [5, 6, 7], SETTINGS)
    assert found["test_seeds"] == [5, 6]
    for place, comparison in enumerate(COMPARISONS):
        own, base = ([left[seed, run]["per_video"] for seed in (5, 6)] for run in (comparison.own, comparison.base))
        differences = [np.subtract(a["localization"], b["localization"]) for a, b in zip(own, base, strict=True)]
        assert found["differences"][place]["steps found"] == careful_interval(differences).to_dict()
        key = "official/kept/dtw/rank"
        hits = [np.equal(a[key], 1) * 1.0 - np.equal(b[key], 1) for a, b in zip(own, base, strict=True)]
        assert found["differences"][place]["R@1, kept, official"] == careful_interval(hits).to_dict()
    numbers = [left[seed, "dot"]["numbers"]["clean/kept/dtw/R@1"] for seed in (5, 6)]
    assert found["runs"]["dot"]["test"]["clean/kept/dtw/R@1"] == numbers


def test_the_table_answers_by_the_first_comparison(tmp_path: Path):
    for job in confirmation_jobs([5, 6]):
        if job.kind == "test":
            leave(job, tmp_path)
    write_claims(tmp_path / "kept.json", collect_confirmation(tmp_path, [5, 6], SETTINGS))
    kept = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))
    table = confirmation_table(kept)
    assert [row[0] for row in table.rows] == [one.words for one in COMPARISONS]
    first = interval_of(kept["differences"][0]["steps found"])
    assert first is not None and table.rows[0][2] == first.text
    assert f"{first.text} steps found ({answer(first)})" in confirmation_sentence(kept)
    assert f"**{answer(first)}** by steps found" in table.note and "2 seeds, 5 to 6, run" in table.note


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.001, 0.1, "confirmed"), (-0.1, 0.0, "undecided"), (-0.1, -0.001, "refuted")]
)
def test_an_interval_answers(low: float, high: float, word: str):
    assert answer(Interval((low + high) / 2, low, high, (0.0,), 8)) == word


def test_the_command_waits_for_the_commit_and_leaves_few_seeds_aside(
    claims_command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The jobs leave results of their form without training; test_claims_benchmark.py does real ones."""
    for name in ("CONFIRMATION", "RESULTS", "PAGE"):
        monkeypatch.setattr(claims_command, name, tmp_path / f"{name.lower()}.md")
    asked: list[Path] = []
    monkeypatch.setattr(claims_command, "require_commit", asked.append)

    def left(jobs: list[Job], shop: Any, **options: Any) -> int:
        for job in jobs:
            if job.kind == "test":
                leave(job, shop.output_dir)
        return 0

    monkeypatch.setattr(claims_command, "do_jobs", left)
    words = ["--confirm", "--output_dir", str(tmp_path / "out")]
    claims_command.main([*words, "--seeds", "5", "6"], settings=SETTINGS)
    assert set(asked) == {claims_command.PLAN, claims_command.CHOICE} and claims_command.PLAN.is_file()
    assert "2 seeds" in capsys.readouterr().out and (tmp_path / "out" / claims_command.CONFIRMATION.name).is_file()
    assert not claims_command.CONFIRMATION.exists() and not claims_command.PAGE.exists()
    with pytest.raises(SystemExit, match="2"):
        claims_command.main([*words, "--quick"])
    assert "leave --quick out" in capsys.readouterr().err

    def refuse(file: Path) -> None:
        raise InputError("not committed", file=file)

    monkeypatch.setattr(claims_command, "require_commit", refuse)
    monkeypatch.setattr(claims_command, "do_jobs", lambda *_, **__: pytest.fail("a job was begun"))
    with pytest.raises(InputError, match="not committed"):
        claims_command.main(words, settings=SETTINGS)
