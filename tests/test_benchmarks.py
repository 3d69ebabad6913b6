"""The benchmark runs, refuses what is wrong, and its own arithmetic holds; how fast anything is, no test asks."""

from __future__ import annotations

import json
import runpy
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from tempclr.benchmark import comparison
from tempclr.benchmark.bars import bars
from tempclr.benchmark.ours import (
    OURS,
    YARDSTICKS,
    Implementation,
    Outcome,
    expected_of,
    prepare_ours,
    prepare_reference,
)
from tempclr.benchmark.peers import PEERS, load
from tempclr.benchmark.timing import (
    clock_for,
    git_revision,
    installed_otherwise,
    interleaved,
    num_threads,
    seconds_of,
    summary,
)
from tempclr.benchmark.workloads import NAMES, TASKS, WORKLOADS, make_case, select
from tempclr.cli import main

ROOT = Path(__file__).resolve().parent.parent


def test_the_command_writes_a_table_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "cpu.json"
    words = ["bench", "--quick", "--workloads", "A1", "C", "W1", "--rounds", "1", "--output", str(output)]
    assert main(words) == 0
    results = json.loads(output.read_text(encoding="utf-8"))
    assert results["machine"]["torch"] == torch.__version__
    assert results["machine"]["num_threads"] == 1
    assert list(results["workloads"]) == ["A1", "C", "W1"]
    assert not any(workload["wrong"] for workload in results["workloads"].values())
    times = results["workloads"]["A1"]["times"]
    ours = {time["task"]: time for time in times if time["implementation"] == "tempclr"}
    assert set(ours) == {str(task) for task in TASKS}
    assert all(time["ratio"] == 1 and time["median_ms"] > 0 and time["error"] < 1e-5 for time in ours.values())
    assert {peer.name for peer in PEERS} == {*results["skipped"], *results["machine"]["peers"]}
    table = capsys.readouterr().out
    assert "| A1 " in table and "torch by anti-diagonals" in table and "one GEMM per order" in table


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_every_yardstick_computes_what_the_reference_does(workload):
    case = make_case(workload.small())
    for task in workload.tasks:
        expected = prepare_reference(case, task)()
        for implementation in (OURS, *YARDSTICKS):
            run = implementation.prepare(case, task)
            if run is not None and implementation.checked:
                assert comparison.worst_error(run(), expected) < 1e-5, (implementation.name, str(task))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_an_installed_peer_agrees_with_the_reference(peer: Implementation):
    reason = load(peer)
    if reason is not None:
        pytest.skip(reason)
    for workload in WORKLOADS:
        case = make_case(workload.small())
        for task in workload.tasks:
            run = peer.prepare(case, task)
            if run is not None:
                expected = expected_of(peer, prepare_reference(case, task)(), case)
                error = comparison.worst_error(run(), expected)
                assert error < comparison.TOLERANCE, (str(workload), str(task))


def test_what_is_wrong_or_fails_is_told_and_not_timed(monkeypatch: pytest.MonkeyPatch):
    def too_much(case, task):
        run = prepare_ours(case, task)
        return lambda: Outcome(run().value + 1)

    def broken(case, task):
        raise RuntimeError("no such\nluck")

    monkeypatch.setattr(comparison, "PEERS", (Implementation("wrong", too_much), Implementation("broken", broken)))
    measured = comparison.compare(["O"], num_rounds=1, quick=True)["workloads"]["O/16x16"]
    assert "off by" in measured["wrong"]["hard value: wrong"]
    assert measured["wrong"]["soft value: broken"] == "RuntimeError: no such luck"
    assert {time["implementation"] for time in measured["times"]} == {"tempclr", "tempclr, dtw instead"}


def test_a_slow_loop_is_timed_in_part_and_scaled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparison, "SECONDS_PER_SAMPLE", 0.0)
    monkeypatch.setattr(comparison, "PEERS", (Implementation("loop", prepare_ours, loops=True),))
    results = comparison.compare(["A1"], num_rounds=2, quick=True)
    loop = next(time for time in results["workloads"]["A1"]["times"] if time["implementation"] == "loop")
    assert loop["extrapolated"] and loop["part"] == 0.25
    assert "loop (0.25 of the pairs)" in comparison.table(results)


def test_errors_are_seen():
    right = Outcome(torch.tensor([1.0, 2.0]), torch.ones(2, 3))
    assert comparison.worst_error(right, right) == 0
    assert comparison.worst_error(Outcome(torch.tensor(3.0)), right) == 0
    assert comparison.worst_error(Outcome(right.value, right.gradient * 2), right) == 1
    assert comparison.worst_error(Outcome(torch.tensor([1.0, float("nan")])), right) == float("inf")
    assert comparison.worst_error(Outcome(torch.ones(3)), right) == float("inf")


def test_a_distance_per_step_is_the_distance_over_the_cells_of_its_path():
    cost = torch.tensor([[[0.0, 1.0, 1.0], [1.0, 0.5, 1.0]]])
    case = replace(make_case(WORKLOADS[0].small(count=1)), cost=cost)
    expected = expected_of(replace(OURS, per_step=True), Outcome(torch.tensor([1.5])), case)
    assert expected.value.tolist() == [0.5]


def test_rounds_time_every_entry_and_summaries_scale():
    calls: list[str] = []
    samples = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, num_rounds=3)
    assert {key: len(value) for key, value in samples.items()} == {"a": 3, "b": 3}
    assert calls.count("a") == calls.count("b") > 3
    assert summary([1.0], scale=2.0) == {"median_ms": 2.0, "p20_ms": 2.0, "p80_ms": 2.0}


def test_one_thread_is_not_charged_for_what_others_do():
    """Note [The clock of one thread]."""
    assert [clock_for(1), clock_for(2)] == ["processor", "wall"]
    assert seconds_of(lambda: time.sleep(0.05), clock="processor") < 0.04 < seconds_of(lambda: time.sleep(0.05))


def test_threads_are_set_and_given_back():
    before = torch.get_num_threads()
    with num_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="what this machine has"), num_threads(0):
        pass


def test_bars_tell_what_was_met():
    def time(task: str, name: str, milliseconds: float) -> dict[str, object]:
        return {"task": task, "implementation": name, "median_ms": milliseconds}

    matrices = [time("hard value", "tempclr", 1.0), time("hard value", "librosa", 9.0)]
    matrices += [time("soft value", "tempclr", 1.0), time("soft value+grad", "tempclr", 3.0)]
    matrices += [time("soft value+grad", "ddtw", 40.0), time("soft value+grad", "pysdtw", 30.0)]
    matrices += [time("soft value+grad", "tempclr, dtw instead", 1.0)]
    pairs = [time("hard value", "tempclr", 3.0), time("hard value", "GEMM alone", 2.0)]
    pairs += [time("hard value", "tslearn", 90.0)]
    step = [time("soft value+grad", "tempclr", 21.0), time("soft value+grad", "one GEMM per order", 450.0)]
    found = bars({"A1": {"times": matrices}, "C": {"times": pairs}, "W1": {"times": step}})
    assert [(bar["bar"], bar["figure"], bar["met"]) for bar in found] == [
        ("A1 soft value+grad at least 10 times the speed of the best peer (pysdtw)", 10.0, True),
        ("A1 hard value at least 10 times the speed of librosa", 9.0, False),
        ("A1 soft value+grad at most 3 times soft value", 3.0, True),
        ("A1 soft value+grad at most 1.5 times that of DTW", 3.0, False),
        ("C hard value at most 2 times the GEMM alone", 1.5, True),
        ("C hard value at least 30 times the speed of tslearn", 30.0, True),
        ("W1 soft step within 20 ms, where one GEMM per order takes 450 ms", 21.0, False),
    ]


def test_no_bar_asks_of_skinny_matrices_what_is_asked_of_square_ones():
    times = [
        {"task": "soft value+grad", "implementation": name, "median_ms": ms}
        for name, ms in (("tempclr", 1.0), ("ddtw", 9.0))
    ]
    assert len(bars({"B": {"times": times}})) == 1 and bars({"S": {"times": times}}) == []


def test_what_pip_would_not_have_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert installed_otherwise("pytest") is None
    for name, extra in (("strict", "INSTALLER"), ("unpacked", "WHEEL")):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        needs = "Requires-Dist: numpy<1\nRequires-Dist: no-such-package; extra == 'all'\n" if name == "strict" else ""
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}", encoding="utf-8"
        )
        (folder / extra).write_text("pip\n" if extra == "INSTALLER" else "Tag: cp312-abi3-any\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_otherwise("strict") == f"without its numpy<1 (here: {version('numpy')})"
    assert installed_otherwise("unpacked") == "unpacked by hand from its wheel (cp312-abi3-any)"


def test_names_select_all_their_variants():
    assert [workload for name in NAMES for workload in select([name])] == list(WORKLOADS)
    with pytest.raises(ValueError, match="no workload 'Z'"):
        select(["Z"])


def test_a_peer_that_cannot_be_imported_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "too_old.py").write_text("raise RuntimeError('needs another torch')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert load(replace(OURS, package="too_old")) == "import failed: RuntimeError: needs another torch"
    assert "not installed" in (load(replace(OURS, package="not_there_at_all")) or "")


def test_the_revision_is_that_of_our_checkout_only():
    revision = git_revision()
    assert (revision is not None) == (ROOT / ".git").exists()


@pytest.mark.parametrize(
    ("words", "complaint"), [(["--rounds", "0"], "at least 1"), (["--output", "results.txt"], "takes a .json file")]
)
def test_mistakes_are_told_before_the_work(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_the_script_hands_its_words_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--rounds", "0"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(ROOT / "benchmarks/cpu.py"), run_name="__main__")
    assert leaving.value.code == 2
