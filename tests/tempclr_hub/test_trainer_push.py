"""Pushing while training: what is sent with each strategy, and that no bad day of the Hub costs the training."""

from __future__ import annotations

import copy
import fnmatch
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch

from tempclr import trainer_push
from tempclr.trainer import TempCLRTrainingArguments
from tempclr_hub.loopback import LoopbackHub
from tempclr_hub.staging import MODEL_FILES, STATE_FILES

COMMIT, LFS, CREATE = "/commit/", "^/lfs/[0-9a-f]{64}$", "/repos/create"


def fault(pattern: str, status: int | None, times: int = 9999, **more: Any) -> dict[str, Any]:
    method = "PUT" if pattern is LFS else "POST"
    return {"method": method, "pattern": pattern, "status": status, "times": times, **more}


STRATEGIES = ("every_save", "checkpoint", "all_checkpoints", "end")
PASSING = {
    "commit 429": fault(COMMIT, 429, times=1, headers={"Retry-After": "0"}),
    "commit 503": fault(COMMIT, 503, times=2),
    "commit cut": fault(COMMIT, None, times=1),
    "upload cut": fault(LFS, None, times=1),
}
STAYING = {
    "commit 401": ("hf auth login", fault(COMMIT, 401)),
    "commit 403": ("write access", fault(COMMIT, 403)),
    "commit 404": ("no such repository", fault(COMMIT, 404)),
    "commit 409": ("somebody else changed", fault(COMMIT, 409)),
    "commit 500": ("trouble", fault(COMMIT, 500)),
    "upload cut": ("could not be reached", fault(LFS, None)),
}
REFUSED = {"create 401": ("hf auth login", 401), "create 403": ("write access", 403), "create 500": ("trouble", 500)}
CASES: dict[str, dict[str, Any]] = {
    "checkpoint": {"strategy": "checkpoint", "resume": True, "trains": True},
    "all_checkpoints": {"strategy": "all_checkpoints", "resume": True},
    **{name: {"strategy": name} for name in ("every_save", "end")},
    "training goes on": {"strategy": "checkpoint", "during": [fault(COMMIT, 403)], "trains": True},
    **{f"passes: {name}": {"strategy": "every_save", "during": [given]} for name, given in PASSING.items()},
    **{
        f"stays: {name}": {"strategy": "checkpoint", "during": [given], "at_end": [given]}
        for name, (_, given) in STAYING.items()
    },
    **{
        f"refused: {name}": {"strategy": "end", "during": [fault(CREATE, status)]}
        for name, (_, status) in REFUSED.items()
    },
    "disk full": {"strategy": "checkpoint", "disk_full": True},
}


@pytest.fixture(scope="module")
def seen(run_driver, tmp_path_factory) -> dict[str, Any]:
    """What came of each case; one process and two trainings for all, which take most of the time."""
    with LoopbackHub() as unused:
        return run_driver(unused, "hub_trainer_pushes.py", tmp_path_factory.mktemp("pushes"), json.dumps(CASES))


def matching(names: list[str], patterns: tuple[str, ...]) -> bool:
    return all(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for name in names)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_sends_what_it_says_and_nothing_else(seen: dict[str, Any], strategy: str) -> None:
    """Note [A push sends named files]."""
    answer = seen["cases"][strategy]
    states = [name for name in answer["files"] if "/" in name]
    top = [name for name in answer["files"] if "/" not in name and name != ".gitattributes"]
    assert answer["loaded"] and answer["steps"] == 4 and answer["warnings"] == []
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(top)
    assert matching(top, MODEL_FILES)
    folders = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-2", "checkpoint-4"}}
    assert {name.split("/")[0] for name in states} == folders.get(strategy, set())
    assert matching([name.split("/")[1] for name in states], MODEL_FILES + STATE_FILES)
    assert ("optimizer.pt" in {name.split("/")[-1] for name in answer["files"]}) == (strategy in folders)
    early = set(answer["before_end"]) - {".gitattributes"}
    assert bool(early) == (strategy != "end") and ("README.md" in early) == bool(early)


def test_a_run_goes_on_from_what_was_pushed(seen: dict[str, Any]) -> None:
    assert seen["cases"]["checkpoint"]["resumed"] == {"last-checkpoint": [4, True]}
    assert seen["cases"]["all_checkpoints"]["resumed"] == {"checkpoint-2": [4, True]}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(seen: dict[str, Any], name: str) -> None:
    answer = seen["cases"][f"passes: {name}"]
    assert answer["met"] == PASSING[name]["times"] and answer["loaded"] and answer["warnings"] == []


def test_training_outlives_a_push(seen: dict[str, Any]) -> None:
    """Note [Training outlives a push]."""
    answer = seen["cases"]["training goes on"]
    assert answer["steps"] == 4 and {"checkpoint-2", "checkpoint-4"} <= set(answer["checkpoints"])
    assert answer["met"] == 2 and [line.split(" was")[0] for line in answer["warnings"]] == ["step 2", "step 4"]
    assert set(answer["before_end"]) <= {".gitattributes"} and answer["loaded"]


@pytest.mark.parametrize("name", STAYING)
def test_each_failure_is_one_line(seen: dict[str, Any], name: str) -> None:
    answer = seen["cases"][f"stays: {name}"]
    assert answer["steps"] == 4 and {"checkpoint-2", "checkpoint-4"} <= set(answer["checkpoints"])
    assert answer["met"] and len(answer["warnings"]) == 2 and all("\n" not in line for line in answer["warnings"])
    assert all(STAYING[name][0] in line and "training goes on" in line for line in answer["warnings"])
    # Nothing half-published, and all of it once the Hub has recovered.
    assert set(answer["before_end"]) <= {".gitattributes"} and answer["loaded"]


@pytest.mark.parametrize("name", STAYING)
def test_a_last_push_that_fails_is_one_line(seen: dict[str, Any], name: str) -> None:
    answer = seen["cases"][f"stays: {name}"]
    assert answer["end_error"].startswith("tester/case-") and STAYING[name][0] in answer["end_error"]
    assert "\n" not in answer["end_error"] and answer["cause"] == "None"
    assert answer["end_met"] and answer["kept"] and set(answer["after_failed_end"]) <= {".gitattributes"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_repository_that_cannot_be_made_is_told_before_training(seen: dict[str, Any], name: str) -> None:
    answer = seen["cases"][f"refused: {name}"]
    assert REFUSED[name][0] in answer["error"] and "\n" not in answer["error"]
    assert "steps" not in answer and answer["files"] == []


def test_a_full_disk_costs_a_push_alone(seen: dict[str, Any]) -> None:
    answer = seen["cases"]["disk full"]
    assert len(answer["warnings"]) == 2 and all("No space left on device" in line for line in answer["warnings"])
    assert answer["steps"] == 4 and answer["loaded"] and set(answer["before_end"]) <= {".gitattributes"}


@pytest.mark.parametrize("name", CASES)
def test_the_token_stays_here_and_no_copy_is_left(seen: dict[str, Any], name: str) -> None:
    answer = seen["cases"][name]
    assert not answer["told"] and not answer["sent"] and answer["left_behind"] == []
    assert not any(answer["pickled"]) and (len(answer["pickled"]) >= 3 or name.startswith("refused"))


def test_nothing_was_printed_or_asked_in_vain(seen: dict[str, Any]) -> None:
    assert not seen["streams"] and seen["failures"] == []


def test_pickled_arguments_hold_no_token(tmp_path) -> None:
    """Note [No token in training_args.bin]."""
    arguments = TempCLRTrainingArguments(output_dir=str(tmp_path), hub_token="hf_mine", use_cpu=True, seed=3)
    restored = pickle.loads(pickle.dumps(arguments))
    assert restored.hub_token is None and restored.seed == 3 and arguments.hub_token == "hf_mine"


def test_copied_arguments_push_as_before(tmp_path) -> None:
    arguments = TempCLRTrainingArguments(output_dir=str(tmp_path), hub_token="hf_mine", use_cpu=True)
    for made in (copy.copy(arguments), copy.deepcopy(arguments)):
        assert made.hub_token == "hf_mine" and made is not arguments and made.output_dir == str(tmp_path)


def test_what_killed_processes_left_is_removed(tmp_path, monkeypatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = [f".push-{ended.pid}-a", f".push-{os.getpid()}-from_before_a_restart"]
    kept = [f".push-{os.getppid()}-b", f".push-{os.getpid()}-in_use", ".push-by_hand"]
    for name in (*gone, *kept):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(trainer_push, "_STAGED", {tmp_path / kept[1]})
    trainer_push._remove_left(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_no_failure_of_a_push_is_swallowed_or_tells_a_token(tmp_path, caplog) -> None:
    """The client's transfer of large files raises RuntimeError, among others."""
    arguments = TempCLRTrainingArguments(
        output_dir=str(tmp_path), hub_token="corporate", use_cpu=True, report_to="none"
    )
    trainer = trainer_push.PushingTrainer(torch.nn.Linear(1, 1), arguments)

    def fails() -> None:
        raise RuntimeError("cas client:\n no access with corporate")

    trainer._pushes.submit(trainer._or_tell, fails, step=7).result()
    assert caplog.messages[-1] == "step 7 was not pushed, training goes on: cas client: no access with ***"
