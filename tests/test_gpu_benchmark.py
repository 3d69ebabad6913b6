"""The GPU benchmark without a GPU: its runs on the CPU, its file, its refusals. Only the clock is not the real one."""

from __future__ import annotations

import importlib.util
import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tempclr.benchmark import gpu
from tempclr.benchmark.ours import Implementation, Outcome
from tempclr.benchmark.workloads import ALL_PAIRS
from tempclr_kernels import rowscan

ROOT = Path(__file__).resolve().parent.parent
CPU, RATES = torch.device("cpu"), gpu.Rates(4e12, 8e14)
MACHINE = {"gpu": "Some GPU 80GB", **dict.fromkeys(["driver", "torch", "triton", "cuda", "git_revision"], "1")}


def counting_sampler(run: gpu.Run):
    """Runs once for each sample and says 1 ms, 2 ms, and so on."""
    numbers = itertools.count(1)

    def sample() -> float:
        run()
        return float(next(numbers))

    return sample


SAMPLERS = {gpu.EAGER: counting_sampler, gpu.GRAPH: counting_sampler}


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_script", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("workload", gpu.WORKLOADS, ids=lambda workload: workload.name)
def test_every_workload_is_checked_and_timed(workload):
    small = workload.small(count=4, side=8)
    measured = gpu.measure(small, CPU, RATES, SAMPLERS, num_rounds=3)
    assert not measured["wrong"] and measured["sizes"] == str(small)
    for task in gpu.tasks(small):
        ours = [row for row in measured["times"] if (row["task"], row["implementation"]) == (str(task), "tempclr")]
        assert {row["mode"] for row in ours} == ({"eager"} if small.kind == ALL_PAIRS else {"eager", "graph"})
        assert all(row["median_ms"] == 2 and row["ratio"] == 1 and row["floor_ms"] > 0 for row in ours)
    others = {row["implementation"] for row in measured["times"]} - {"tempclr"}
    expected = "bf16 GEMM alone" if workload.kind == ALL_PAIRS else "torch by anti-diagonals"
    assert expected in others or workload.measure == "otam"


def test_what_our_thresholds_turn_down_is_timed_too():
    names = {}
    for workload in gpu.WORKLOADS:
        case = gpu.make_case(workload.small(count=2, side=3), CPU)
        full = replace(case, workload=workload, cost=torch.empty(workload.count, workload.rows, workload.columns))
        found = [implementation for _, implementation, *_ in gpu.entries(full)]
        names[workload.name] = {implementation.name for implementation in found}
    assert {name for name in names if "tempclr by anti-diagonals" in names[name]} == {"S/160", "S/16"}
    assert {name for name in names if "tempclr, a warp a pair" in names[name]} == {"P/436"}


def test_a_threshold_is_back_in_its_place_after_the_run(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    run = gpu._with(rowscan, "MOST_PAIRS", 0, lambda: Outcome(torch.tensor(seen.append(rowscan.MOST_PAIRS) or 1.0)))
    run()
    assert seen == [0] and rowscan.MOST_PAIRS > 0


def test_what_differs_from_ours_or_fails_is_named_and_not_timed(monkeypatch: pytest.MonkeyPatch):
    def off_by_one(case, task):
        run = gpu.OURS.prepare(case, task)
        return lambda: Outcome(run().value + 1)

    def broken(case, task):
        raise RuntimeError("no such\nluck")

    peers = [
        Implementation("wrong", off_by_one),
        Implementation("broken", lambda case, task: lambda: broken(case, task)),
    ]
    monkeypatch.setattr(gpu, "implementations", lambda kind: [gpu.OURS, *peers])
    measured = gpu.measure(gpu.WORKLOADS[2].small(), CPU, RATES, SAMPLERS, num_rounds=1)
    assert measured["wrong"]["hard value: wrong"] == "differs from ours, not timed"
    assert measured["wrong"]["soft value: broken"] == "RuntimeError: no such luck"
    assert {row["implementation"] for row in measured["times"]} == {"tempclr"}


def test_our_own_failure_is_not_passed_over(monkeypatch: pytest.MonkeyPatch):
    def broken(run: gpu.Run):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        gpu.measure(gpu.WORKLOADS[2].small(), CPU, RATES, {gpu.EAGER: broken, gpu.GRAPH: broken}, num_rounds=1)


def test_bars_speak_of_what_was_measured():
    def row(task: str, name: str, mode: str, milliseconds: float) -> dict[str, Any]:
        return {"task": task, "implementation": name, "mode": mode, "median_ms": milliseconds}

    step = [row("soft value+grad", "tempclr", "graph", 0.03), row("soft value+grad", "tempclr", "eager", 0.2)]
    pairs = [row("hard value", "tempclr", "eager", 3.0), row("hard value", "bf16 GEMM alone", "eager", 1.0)]
    found = gpu.bars({"W1": {"times": step}, "P/10k": {"times": pairs, "peak_bytes": 2 * 10**9}})
    assert [(bar["figure"], bar["met"]) for bar in found] == [(0.03, True), (0.2, False), (3.0, False), (2.0, True)]
    assert gpu.bars({}) == []


def test_without_a_gpu_it_says_so(script: ModuleType, capsys: pytest.CaptureFixture[str]):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert script.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_it_keeps_each_workload_and_goes_on_where_it_stopped(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    timed: list[str] = []

    def measure(workload, *rest, **more):
        timed.append(workload.name)
        return {"sizes": str(workload), "times": [], "wrong": {}, "peak_bytes": None}

    monkeypatch.setattr(gpu, "cuda_device", lambda: CPU)
    monkeypatch.setattr(gpu, "machine", lambda device: dict(MACHINE))
    monkeypatch.setattr(gpu, "device_rates", lambda device: RATES)
    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(script, "tests_pass", lambda: True)
    words = ["--output_dir", str(tmp_path), "--workloads", "W1", "L"]
    assert script.main([*words[:3], "W1"]) == 0
    assert script.main(words) == 0 and timed == ["W1", "L"]
    assert script.main([*words, "--minutes", "-1", "--again"]) == 0 and timed == ["W1", "L"]
    assert "W1: not measured" in capsys.readouterr().out
    kept = json.loads((tmp_path / "some_gpu_80gb.json").read_text())
    assert set(kept["workloads"]) == {"W1", "L"} and kept["machine"]["gpu"] == "Some GPU 80GB"
    monkeypatch.setattr(gpu, "machine", lambda device: {**MACHINE, "git_revision": "2"})
    assert script.main(words) == 0 and timed == ["W1", "L", "W1", "L"]
    monkeypatch.setattr(script, "tests_pass", lambda: False)
    assert script.main(words) == 1 and "nothing is timed" in capsys.readouterr().err


def test_words_that_are_wrong_are_told(script: ModuleType, capsys: pytest.CaptureFixture[str]):
    for words in (["--rounds", "0"], ["--workloads", "Z"]):
        with pytest.raises(SystemExit) as leaving:
            script.main(words)
        assert leaving.value.code == 2
    assert "expected at least 1" in capsys.readouterr().err
