"""The benchmark of the paper's claims on a scrap of its videos: killed, taken up, held back, and told on its page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tempclr.data.sequences import SequenceSet
from tempclr.errors import InputError
from tempclr.models.tempclr import TempCLRConfig
from tempclr.recipes import load_recipe
from tempclr.recipes.claims import work
from tempclr.recipes.claims.cells import described, interval_of
from tempclr.recipes.claims.collection import collect, write_claims
from tempclr.recipes.claims.grid import (
    CANDIDATES,
    FEW_SHOT_LOSSES,
    MEMORY_RUNS,
    OTHER_RATES,
    PERTURBED,
    RATE_RUNS,
    RUNS,
    STRATEGY_RUNS,
    TEMPERATURE_RUNS,
    UNIT_CANDIDATES,
    ClaimSettings,
    Job,
    folder_name,
    jobs_of,
    lineage,
)
from tempclr.recipes.claims.measuring import scored
from tempclr.recipes.claims.memory import train_and_watch
from tempclr.recipes.claims.page import page, write_page
from tempclr.recipes.claims.pictures import PICTURES
from tempclr.recipes.claims.queue import do_jobs
from tempclr.recipes.claims.statements import FEW_SHOT_STATEMENTS, STATEMENTS, Statement
from tempclr.recipes.claims.statistics import VERDICTS
from tempclr.recipes.claims.summary import summary
from tempclr.recipes.claims.tables import short_table, tables
from tempclr.recipes.claims.training import training_arguments
from tempclr.recipes.claims.verdicts import (
    REFUTED,
    control_rows,
    counted,
    first_table,
    gain_table,
    tried,
    tried_with,
    verdict_rows,
)
from tempclr.recipes.claims.work import Workshop, model_folder, read_result

ROOT = Path(__file__).resolve().parent.parent
TINY = ClaimSettings(
    num_train=4,
    num_finetune=3,
    num_validation=3,
    num_test=3,
    video_frames_per_second=2,
    image_size=32,
    num_epochs=1,
    batch_size=4,
    localization_updates=1,
    few_video_updates=1,
    localization_batch_size=2,
    hidden_size=32,
    few_shot_tasks=4,
)
SOME = {name: RUNS[name] for name in ("dot", "dtw", "dot>dtw", "dot>dtw|dtw 10%")}


def toy_sequences(*, seed: int) -> tuple[SequenceSet, SequenceSet, dict[str, Any]]:
    generator = np.random.default_rng(seed)
    sets = [
        SequenceSet(list(generator.normal(size=(30, 8, 4)).astype(np.float32)), [f"{part}{i % 5}" for i in range(30)])
        for part in ("base", "new")
    ]
    sizes = {"num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return sets[0], sets[1], {"encoder": sizes, "num_epochs": 1, "base_way": 4}


class Killed(RuntimeError):
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, list[str]]:
    """A folder whose jobs were killed in a training, and then gone on with."""
    shop = Workshop(tmp_path_factory.mktemp("claims"), TINY, {"toy": toy_sequences})
    jobs = [job for job in jobs_of([0], few_shot_sets=["toy"], test=True, runs=SOME) if _is_wanted(job)]
    told: list[str] = []
    whole = work.KINDS["train"]

    def killed(job: Job, shop: Workshop) -> dict[str, Any]:
        result = whole(job, shop)
        if job.name == "dtw":
            raise Killed
        return result

    with pytest.MonkeyPatch.context() as once:
        once.setitem(work.KINDS, "train", killed)
        with pytest.raises(Killed):
            do_jobs(jobs, shop, tell=told.append)
    assert (
        read_result(Job("train", 0, "dot"), shop.output_dir)
        and not Job("train", 0, "dtw").file(shop.output_dir).exists()
    )
    assert do_jobs(jobs, shop, tell=told.append) == 0
    return shop, told


def _is_wanted(job: Job) -> bool:
    """The memory has tests of its own."""
    few = "few_shot" not in job.kind or job.name in ("toy/features", "toy/unit", "toy/otam")
    return few and job.kind != "memory"


def test_a_run_is_done_once_and_a_killed_one_again(done):
    shop, told = done
    assert len(told) == len(set(told)) and sum("train dot" in line for line in told) == 3
    assert do_jobs([Job("train", 0, "dot")], shop, tell=told.append) == 0
    assert len(told) == len(set(told))  # nothing was told again, so nothing was done again
    result = read_result(Job("train", 0, "dtw"), shop.output_dir)
    assert result is not None
    assert 0 < result["training_processor_seconds"] < result["spent"]["processor_seconds"]
    assert result["spent"]["peak_megabytes"] is None or result["spent"]["peak_megabytes"] > 100
    assert not list(shop.output_dir.glob("seed-0/models/.*"))


def test_every_statement_names_what_a_run_measures(done):
    """Of each kind of run one was done; what the statements ask of others of the kind is measured there, too."""
    shop, _ = done
    kinds = {"pretraining": "dtw", "perturbed": "dot>dtw", "localization": "dot>dtw|dtw 10%"}
    measured = {}
    for kind, name in kinds.items():
        result = read_result(Job("test", 0, name), shop.output_dir)
        assert result is not None
        measured[kind] = result["test"]
    for statement in STATEMENTS:
        for sign, run, key in statement.terms:
            kind = "perturbed" if run in PERTURBED else RUNS[run].task
            assert sign in (-1, 1) and key in measured[kind]["numbers"], (statement.claim, run, key)
    assert len(measured["perturbed"]["per_video"]["exchanged: seconds"]) == TINY.num_test
    ranks = measured["pretraining"]["per_video"]["clean/kept/dtw+cap_avg/rank"]
    assert np.mean(np.array(ranks) <= 1) == measured["pretraining"]["numbers"]["clean/kept/dtw+cap_avg/R@1"]
    clips = scored(measured["pretraining"], "clip/R@5")  # shares of a video's clips, not hits
    assert len(clips) == TINY.num_test and clips.mean() == pytest.approx(
        measured["pretraining"]["numbers"]["clip/R@5"], abs=1e-6
    )


def test_the_page_tells_what_was_run_and_what_was_not(done, tmp_path: Path):
    shop, _ = done
    results = collect(shop.output_dir, [0, 1], TINY, few_shot_sets=["toy"])
    write_claims(tmp_path / "claims.json", results)
    kept = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert kept["seeds"] == kept["test_seeds"] == [0] and set(kept["runs"]) == set(SOME)
    write_page(tmp_path / "claims.md", kept)
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert text == page(kept)  # from the file alone
    peaks = [read_result(Job("train", 0, name), shop.output_dir)["spent"]["peak_megabytes"] for name in SOME]
    assert [kept["runs"][name]["spent"]["peak_megabytes"] for name in SOME] == [
        [round(peak, 4)] if peak else [] for peak in peaks
    ]
    assert "on test videos: 0." in text and "not run yet" in text and "No choice has been committed" in text
    assert {path.name for path in (tmp_path / "claims").iterdir()} == {f"{name}.png" for name in PICTURES}
    assert all(f"(claims/{name}.png)" in text for name in PICTURES) and "```" not in text
    titles = [table.title for table in tables(kept)]
    assert len(titles) == len(set(titles)) and sum("toy" in title for title in titles) == 1
    assert re.search(r"a step was exchanged in \d of 3 videos a seed; background was put into 3 of 3", text)
    rows = {(row[0], row[1]): row for row in verdict_rows(kept)}
    told = rows["Table 12, background removed", "DTW: TempCLR above the unit loss, clean protocol"]
    assert re.fullmatch(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", told[3]) and told[4] in VERDICTS
    short = {row[0]: row[1:] for row in summary(kept).rows}
    assert short["TempCLR that goes on from a unit loss (the paper's way) minus that unit loss"][0] == told[3]
    assert "recommended" not in " ".join(short) and ["not run yet"] * 2 in short.values()
    gains = gain_table(kept).rows
    assert [row[2] for row in gains] == ["+27.5", "+32.1", "+14.7", "+15.6"] * 2 and gains[0][4] == told[3]
    assert gains[0][3:5] != ["not run yet"] * 2 and gains[1][3:] == ["not run yet"] * 3  # OTAM was not trained
    whole = first_table(kept).rows
    assert len(whole) == 6 and whole[3][3] == "83.5 / 97.2 / 99.3" and all(None not in row for row in whole)
    few = rows["5.3", "few-shot, toy: training and matching by OTAM like by DTW"]
    assert few[3:] == ["needs two seeds", ""]  # of one seed there is no interval
    assert len(tried(kept)) <= sum(row[4] == VERDICTS[1] for row in rows.values())
    assert {row[4] for row in verdict_rows(kept)} <= {*VERDICTS, ""}
    assert {row[3] for row in control_rows(kept)} <= {"yes", "no", "undecided", ""}
    front = short_table({**kept, "choice": CHOICE})
    assert front.rows[0][2:] != front.rows[-1][2:] == [None] * 5 and front.rows[-1][1] == described("dtw joint")
    assert front.rows[-1][0].startswith("**recommended**")
    told = counted(kept)
    parts = {word.strip(): int(number) for number, word in re.findall(r"(\d+) ((?:the|with|not|rep)[a-z ]*)", told)}
    assert parts[VERDICTS[1]] == sum(parts.get(way, 0) for way in REFUTED) and "not run yet" in told


def test_what_the_videos_decide_is_not_testable(done):
    shop, _ = done
    rows = [row for row in verdict_rows(collect(shop.output_dir, [0], TINY)) if "DTW below Cap. Avg." in row[1]]
    assert len(rows) == 6 and {row[4] for row in rows} == {VERDICTS[2]}


def test_without_test_results_there_is_no_picture(done, tmp_path: Path):
    shop, _ = done
    results = collect(shop.output_dir, [5], TINY)
    assert results["runs"] == {} and results["step"] == {}
    write_page(tmp_path / "claims.md", results)
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "none yet" in text and ".png" not in text and not (tmp_path / "claims").exists()


def test_a_folder_belongs_to_its_settings(done):
    shop, _ = done
    other = replace(shop, settings=replace(TINY, num_epochs=2))
    with pytest.raises(InputError, match="num_epochs=1, asked for 2"):
        do_jobs([], other)


def test_late_jobs_are_left(done, tmp_path: Path):
    shop = replace(done[0], output_dir=tmp_path)
    assert do_jobs([Job("data", 0)], shop, minutes=-1.0) == 1


def test_a_job_that_cannot_begin_is_an_error(tmp_path: Path):
    shop = Workshop(tmp_path, TINY, {})
    with pytest.raises(ValueError, match="neither done nor among the jobs"):
        do_jobs([Job("train", 0, "dot")], shop)


def test_the_grid_holds_together():
    files = {folder_name(name) for name in RUNS}
    assert len(files) == len(RUNS) and not any(set(file) & set("/>|% ") for file in files)
    assert all(start in RUNS for name in RUNS for start in lineage(name))
    assert len({described(name) for name in RUNS}) == len(RUNS)
    assert set(CANDIDATES) | set(PERTURBED) | set(STRATEGY_RUNS.values()) <= set(RUNS)
    assert RUNS["dot>dtw 16"].loss["num_negatives"] == 15  # the positive is the sixteenth
    first = jobs_of([3], few_shot_sets=["a"], test=False)
    assert len(first) == 2 + len(RUNS) + len(FEW_SHOT_LOSSES) + len(MEMORY_RUNS)
    assert {job.kind for job in first} == {"data", "train", "step", "memory", "few_shot"}
    assert len(jobs_of([3], few_shot_sets=["a"], test=True)) == 2 * len(first) - 2 - len(MEMORY_RUNS)
    assert {job.seed for job in jobs_of([3, 4], test=False) if job.kind == "memory"} == {3}
    assert set(UNIT_CANDIDATES) < set(CANDIDATES) and all(
        not RUNS[name].loss.get("measure") for name in UNIT_CANDIDATES
    )
    pairs = {pair[0] for one in FEW_SHOT_STATEMENTS for pair in (one.own, one.base)}
    assert pairs <= set(FEW_SHOT_LOSSES)
    places = {one.place for one in (*STATEMENTS, *FEW_SHOT_STATEMENTS) if one.paper}
    assert all(tried_with(place) for place in places)
    for told, rates in RATE_RUNS.items():
        for rate, name in rates.items():
            arguments = training_arguments(RUNS[name], ClaimSettings(), Path("unused"), 0)
            assert arguments.learning_rate == rate and RUNS[name].start == "dot"
            assert (arguments.train_parameters == "norm_only") == told.endswith("norms alone")
    assert set(OTHER_RATES) < {name for rates in RATE_RUNS.values() for name in rates.values()}
    for runs in TEMPERATURE_RUNS.values():
        assert all(RUNS[name].loss["temperature"] == temperature for temperature, name in runs.items())
    assert all("temperature" in run.loss for run in RUNS.values() if run.loss.get("similarity") == "cosine")


def test_the_default_loss_is_the_one_that_was_chosen():
    choice = json.loads((ROOT / "benchmarks" / "results" / "claims_choice.json").read_text(encoding="utf-8"))
    assert RUNS[choice["recipe"]].loss.items() <= TempCLRConfig().loss_settings().items()
    paper, small_paper = RUNS[choice["paper_recipe"]].loss, load_recipe("small_paper")
    assert paper.items() <= small_paper.items()


def test_the_central_claims_have_a_line():
    def found(words: str) -> list[Statement]:
        return [one for one in STATEMENTS if words in one.claim]

    below = found("unit loss: DTW below Cap. Avg.")
    assert {one.paper for one in below} == {"74.5, 56.0", "73.6, 55.7"} and len(below) == 4
    assert {one.expected for one in below} == {"lower"} and {one.effect for one in below} == {0.185, 0.179}
    assert {(one.paper, one.expected) for one in found("TempCLR: DTW")[-4:]} == {
        ("74.5, 83.5", "higher"),
        ("71.7, 70.4", "lower"),
    }
    assert found("OTAM + Cap. Avg.")[0].effect == 0.03 and found("by OTAM above by DTW")[0].effect == 0.018
    assert found("unpaired slightly above the unit loss")[0].effect == 0.007
    assert found("norms alone with the sequence loss")[0].effect == 0.017
    assert all(one.claim.startswith("in pretraining, zero-shot") for one in STATEMENTS if one.place == "Table 7")


def test_memory_is_that_of_one_training(done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Note [Memory is measured in a new process]: what that process does; the slow test below does it in one."""
    shop, _ = done
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = torch.get_num_threads()
    splits = shop.output_dir / "seed-0" / "videos_and_features"
    try:
        found = train_and_watch("dot>dtw", splits, TINY, 0, model_folder(shop.output_dir, 0, "dot"))
    finally:
        torch.set_num_threads(before)
    assert found is None or 0 < found["start_megabytes"] <= found["peak_megabytes"]
    assert not list(tmp_path.iterdir())


def test_settings_are_checked():
    with pytest.raises(InputError, match="must be above 0"):
        ClaimSettings(num_test=0)


def test_the_command_looks_at_no_test_video_before_the_choice(claims_command, done, tmp_path, monkeypatch, capsys):
    for name in ("RESULTS", "CHOICE", "CONFIRMATION", "PAGE"):
        monkeypatch.setattr(claims_command, name, tmp_path / f"{name.lower()}.md")
    seen: list[Job] = []

    def noted(jobs: list[Job], shop: Workshop, **options: Any) -> int:
        seen.extend(jobs)
        return 0

    monkeypatch.setattr(claims_command, "do_jobs", noted)
    claims_command.main(["--quick", "--without_few_shot", "--output_dir", str(tmp_path / "out")])
    assert {job.kind for job in seen} == {"data", "train", "step", "memory"} and {job.seed for job in seen} == {0, 1, 2}
    assert {job.name for job in seen if job.kind == "train"} == set(RUNS) - set(OTHER_RATES)
    assert "test videos are left alone" in capsys.readouterr().out and not (tmp_path / "page.md").exists()
    monkeypatch.setattr(claims_command, "require_commit", lambda path: None)
    (tmp_path / "choice.md").write_text(json.dumps(CHOICE))
    shop, _ = done
    seen.clear()
    claims_command.main(["--seeds", "0", "--without_few_shot", "--output_dir", str(shop.output_dir)], settings=TINY)
    assert "test" in {job.kind for job in seen}
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "**unit loss (cosine / 0.05) + DTW against joint**" in text
    claims_command.main(["--pages"])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text
    with pytest.raises(InputError, match="the choice stands"):
        claims_command.main(["--choose", "--without_few_shot", "--output_dir", str(shop.output_dir)])


@pytest.mark.parametrize("more", [{"test_seeds": [0, 1]}, {"few_shot": {"toy": {}}}])
def test_fewer_results_do_not_replace_more(claims_command, done, more, tmp_path, monkeypatch, capsys):
    shop, _ = done
    for name in ("RESULTS", "CONFIRMATION", "PAGE"):
        monkeypatch.setattr(claims_command, name, tmp_path / f"{name.lower()}.md")
    results = collect(shop.output_dir, [0], TINY)
    (tmp_path / "results.md").write_text(before := json.dumps({**results, **more}))
    claims_command.keep(results, tmp_path / "out")
    assert (tmp_path / "results.md").read_text() == before and not (tmp_path / "page.md").exists()
    kept = json.loads((tmp_path / "out" / "claims.json").read_text(encoding="utf-8"))
    assert (tmp_path / "out" / "claims.md").read_text(encoding="utf-8") == page(kept)
    assert "stays as it is" in capsys.readouterr().out
    (tmp_path / "results.md").write_text(json.dumps(results))
    claims_command.keep(results, tmp_path / "out")
    assert (tmp_path / "page.md").is_file()


CHOICE: dict[str, Any] = {
    "recipe": "dtw joint",
    "paper_recipe": "dtw",
    "unit_recipe": "cosine t.1",
    "runner_up": "dtw",
    "lead": [0.1],
    "best_retrieval": "dtw joint",
    "best_localization": "dtw",
    "measure": "otam",
    "normalisation": "area",
    "normalisations": {"none": 0.5, "area": 0.6, "sides": 0.6, "path": 0.4, "soft": 0.5},
    "seeds": [0],
    "scores": {
        name: {"measure": "otam", "retrieval": 0.6, "localization": 0.5, "total": 0.55, "totals": [0.55]}
        for name in ("dtw joint", "dtw", "cosine t.1")
    },
    "few_shot": {"loss": "otam", "scores": {"features": 0.6, "unit": 0.5, "otam": 0.7}},
}


def test_the_page_tells_what_the_choice_is_held_against(done):
    shop, _ = done
    choice = {**CHOICE, "unit_recipe": "dot"}
    choice["scores"] = {**CHOICE["scores"], "dot": CHOICE["scores"]["dtw"]}
    results = collect(shop.output_dir, [0], TINY, few_shot_sets=["toy"], choice=choice)
    assert any(key.startswith("dtw minus dot, otam, ") for key in results["recommendation"])
    assert not any(" minus cosine" in key for key in results["recommendation"])
    short = summary(results).rows
    assert short[0][0].startswith("recommended, ") and short[1][0].startswith("recommended minus the paper's weights")
    assert short[0][1:] == ["not run yet"] * 2  # "dtw joint" was not trained
    alike = summary({**results, "choice": {**choice, "recipe": "dtw", "paper_recipe": "cosine"}}).rows
    found = results["recommendation"]["dtw minus dot, dtw, localization"]
    assert alike[0][2] == interval_of(found).text and alike[1][1:] == ["not run yet"] * 2
    text = page(json.loads(json.dumps(results)))
    assert "| otam R@1 (chosen measure) |" in text and "Test videos, by otam: minus the best unit loss" in text
    assert (
        "+10.0 in the only seed" in text and "By retrieval alone unit loss (cosine / 0.05) + DTW against joint" in text
    )
    assert (
        "Chosen over both sets: **+ order, OTAM (0.3 / 0.7)**." in text and "\n* toy: the features themselves" in text
    )
    assert '"by rows · columns" and "by rows + columns" do equally well' in text and "without seed 0" not in text
    plain = {**choice, "few_shot": {"loss": "features", "scores": CHOICE["few_shot"]["scores"]}}
    text = page(json.loads(json.dumps({**results, "choice": plain})))
    assert "**the features themselves**, so no training" in text and "there is no `unpaired`" in text


def test_recordings_have_what_an_encoder_needs(claims_command):
    pytest.importorskip("aeon", reason="its data are read")
    base, novel, options = claims_command.recordings("JapaneseVowels", seed=0)
    assert set(base.labels).isdisjoint(novel.labels) and options["base_way"] == 4
    assert set(options["encoder"]) == {"num_frames", "hidden_size", "num_hidden_layers", "num_attention_heads"}


def test_the_committed_page_is_that_of_the_committed_results(claims_command):
    if not claims_command.RESULTS.is_file():
        pytest.skip("the runs have not been made")
    results = json.loads(claims_command.RESULTS.read_text(encoding="utf-8"))
    confirmation = claims_command.read(claims_command.CONFIRMATION) if claims_command.CONFIRMATION.is_file() else None
    assert claims_command.PAGE.read_text(encoding="utf-8") == page(results, confirmation=confirmation)


def _is_alive(process: str) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are looked up in /proc")
def test_processes_share_the_jobs_and_a_kill_loses_the_running_ones_alone(tmp_path: Path):
    """A process of its own, killed when the first run is done, and gone on with in two processes."""
    script = tmp_path / "small.py"
    script.write_text(
        "from pathlib import Path\n"
        "from tempclr.recipes.claims.grid import RUNS, ClaimSettings, jobs_of\n"
        "from tempclr.recipes.claims.queue import do_jobs\n"
        "from tempclr.recipes.claims.work import Workshop\n"
        "if __name__ == '__main__':\n"
        f"    shop = Workshop(Path({str(tmp_path / 'out')!r}), ClaimSettings(**{TINY.to_dict()!r}), {{}})\n"
        f"    jobs = jobs_of([0], test=True, runs={{name: RUNS[name] for name in {list(SOME)!r}}})\n"
        "    print(do_jobs(jobs, shop, num_processes=2, tell=lambda line: print(line, flush=True)), flush=True)\n"
    )
    words = [sys.executable, str(script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "train" in line:
                workers = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
                first.kill()
                break
    deadline = time.monotonic() + 60
    while any(_is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived the command"
        time.sleep(0.2)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("seed-0/*/*.json")}
    assert finished
    second = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    assert second.stdout.splitlines()[-1] == "0"
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    assert model_folder(tmp_path / "out", 0, "dot>dtw").is_dir()
    memory = read_result(Job("memory", 0, "dot>dtw"), tmp_path / "out")
    assert memory is not None and 0 < memory["memory"]["start_megabytes"] < memory["memory"]["peak_megabytes"]
