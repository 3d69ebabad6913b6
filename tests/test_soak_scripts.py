"""The soak scripts judge as they say; at their full size they run by ``make soak``."""

from __future__ import annotations

import json
import multiprocessing
import runpy
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(name):
    return runpy.run_path(str(BENCHMARKS / f"{name}.py"))


def samples(count=100, *, growth=0.0, of_workers=0.0, files=0, process=1):
    return [
        {
            "process": process,
            "step": step,
            "kilobytes": 500_000 * (1 + growth * step / count),
            "worker_kilobytes": 300_000 * (1 + of_workers * step / count),
            "files": 20 + files * step,
            "threads": 4,
        }
        for step in range(count)
    ]


@pytest.mark.parametrize(
    ("lines", "held"),
    [
        (samples(), True),
        (samples(growth=0.01, of_workers=0.01), True),
        (samples(growth=0.1), False),
        (samples(of_workers=0.1), False),
        (samples(files=1), False),
    ],
)
def test_growth_of_memory_and_open_files_is_seen(lines, held, capsys):
    assert script("soak_memory")["judged"](lines) is held
    assert capsys.readouterr().out.startswith("LOST ") != held


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (samples(9), 1),
        ([*samples(9, growth=1.0), *samples(process=2)], 0),
        ([*samples(growth=0.1), *samples(process=2)], 1),
        ([], 1),
    ],
)
def test_something_must_have_been_judged(lines, code, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "train_results.json").write_text("{}")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "samples.jsonl").write_text('{"process": 1, "st\n' + text + '{"process": 1, "step"')
    assert script("soak_memory")["main"](["--output", str(tmp_path)]) == code


def test_a_sample_sees_the_data_workers():
    sample = script("soak_memory")["sample"]
    assert sample()["worker_kilobytes"] == 0
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    try:
        assert sample()["worker_kilobytes"] > 1000
    finally:
        worker.kill()
        worker.join()
    assert sample()["worker_kilobytes"] == 0


def test_a_sample_counts_what_is_open(tmp_path):
    sample = script("soak_memory")["sample"]
    before = sample()
    with (tmp_path / "a").open("w"):
        assert sample()["files"] == before["files"] + 1
    assert sample()["files"] == before["files"] and before["kilobytes"] > 10_000


@pytest.mark.slow
def test_a_short_run_is_sampled_and_taken_up(tmp_path, capsys):
    main = script("soak_memory")["main"]
    words = ["--num_steps", "100", "--num_workers", "0", "--output", str(tmp_path)]
    assert main(words) == 0
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 101))
    assert main(words) == 0 and (tmp_path / "samples.jsonl").read_text().splitlines() == lines


@pytest.mark.slow
@pytest.mark.parametrize("way", ["rows", "stream"])
def test_killed_runs_end_with_the_same_weights(way, tmp_path, capsys):
    words = ["--num_kills", "2", "--num_steps", "16", "--ways", way, "--output", str(tmp_path)]
    assert script("soak_resume")["main"](words) == 0
    told = capsys.readouterr().out
    assert "2 kills, " in told and "the weights are those of the run that nobody killed" in told


def test_kills_are_the_same_in_every_run_and_every_second_hits_a_checkpoint(monkeypatch, tmp_path):
    resume, moments = script("soak_resume"), []

    def run(words, moment, folder):
        moments.append(str(moment))
        return 0, ""

    monkeypatch.setitem(resume["one_kill"].__globals__, "run", run)
    for _ in range(2):
        for number in range(4):
            resume["one_kill"](number, ["tempclr"], tmp_path, 0)
    assert moments[:4] == moments[4:] and len(set(moments)) == 4
    assert [("as its" in moment) for moment in moments[:4]] == [False, True, False, True]


@pytest.mark.slow
def test_streaming_is_measured_at_a_small_size(tmp_path, capsys):
    words = ["--num_rows", "2000", "--num_batches", "20", "--num_workers", "0", "2", "--folder", str(tmp_path)]
    assert script("streaming")["main"](words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["num_workers"] for line in lines] == [0, 2] and all(line["same_batches"] for line in lines)
