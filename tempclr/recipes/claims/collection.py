"""All results of a folder in one mapping: what ``claims.json`` holds, and the page is made from."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path
from tempclr.recipes.claims.choice import bases
from tempclr.recipes.claims.grid import (
    CANDIDATES,
    FEW_SHOT_LOSSES,
    MEMORY_RUNS,
    RATE_RUNS,
    RUNS,
    ClaimSettings,
    Job,
)
from tempclr.recipes.claims.measuring import scored
from tempclr.recipes.claims.statements import FEW_SHOT_STATEMENTS, STATEMENTS
from tempclr.recipes.claims.statistics import Interval, careful_interval, student_interval
from tempclr.recipes.claims.work import read_result

__all__ = ["collect", "interval_over_seeds", "machine", "per_seed", "shown_numbers", "write_claims"]

PERTURBED_KEYS = ("seconds", "localization", "clean/kept/dtw/R@1", "clean/removed/dtw/R@1", "num_changed")


def collect(
    output_dir: Path,
    seeds: Sequence[int],
    settings: ClaimSettings,
    *,
    few_shot_sets: Sequence[str] = (),
    choice: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the jobs that are done found; a run that no seed has done is left out.

    ``runs[name]["test"][key]`` and ``["validation"][key]``: one number a seed that did the run; ``differences``: an
    interval for each statement whose runs have a seed in common, else None; ``recommendation``: each candidate against
    the best unit loss, the paper's weights and the released loss; ``few_shot`` and ``few_shot_differences``, by set;
    ``step``, ``memory``, ``spent``.
    """
    test = {name: per_seed(output_dir, seeds, "test", name) for name in RUNS}
    train = {name: per_seed(output_dir, seeds, "train", name) for name in RUNS}
    validated = {*CANDIDATES, *(name for rates in RATE_RUNS.values() for name in rates.values())}
    runs = {}
    for name in RUNS:
        if train[name]:
            runs[name] = {
                "test": shown_numbers([one["test"] for one in test[name].values()]),
                "validation": shown_numbers([one["validation"] for one in train[name].values() if name in validated]),
                "spent": _spent(train[name]),
            }
    found = {name: {seed: one["test"] for seed, one in test[name].items()} for name in RUNS}
    return {
        "settings": settings.to_dict(),
        "machine": machine(),
        "seeds": [seed for seed in seeds if any(seed in one for one in train.values())],
        "test_seeds": [seed for seed in seeds if any(seed in one for one in test.values())],
        "runs": runs,
        "differences": [interval_over_seeds(statement.terms, found) for statement in STATEMENTS],
        "recommendation": _recommendation(found, choice),
        "few_shot": _few_shot(output_dir, seeds, few_shot_sets),
        "few_shot_differences": {name: _few_shot_differences(output_dir, seeds, name) for name in few_shot_sets},
        "step": shown_numbers([{"numbers": one["step"]} for one in per_seed(output_dir, seeds, "step", "").values()]),
        "memory": {name: one for name in MEMORY_RUNS if (one := _memory(output_dir, seeds, name))},
        "spent": _spent_by_kind(output_dir, seeds, few_shot_sets),
        "choice": None if choice is None else dict(choice),
    }


def write_claims(path: Path, results: Mapping[str, Any]) -> None:
    """JSON with a line for every key, so that the difference of two versions can be read."""
    from tempclr.evaluation.report import plain

    with atomic_path(path) as temporary:
        temporary.write_text(_rendered(plain(results, digits=4)) + "\n", encoding="utf-8")


def _rendered(value: Any, indent: str = "") -> str:
    """Mappings, and lists of mappings, take a line an entry; all else one line."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key)}: {_rendered(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return "[\n" + ",\n".join(inner + json.dumps(one) for one in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def machine() -> dict[str, str]:
    """What the numbers were made with."""
    return {"python": platform.python_version(), "torch": _version("torch"), "device": "cpu"}


def per_seed(output_dir: Path, seeds: Sequence[int], kind: str, name: str) -> dict[int, dict[str, Any]]:
    """What jobs left, by seed; those that are not done are left out."""
    found = {seed: read_result(Job(kind, seed, name), output_dir) for seed in seeds}
    return {seed: one for seed, one in found.items() if one is not None}


def shown_numbers(results: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Of the scores of each seed those that a table or a statement has, a number a seed."""
    if not results:
        return {}
    keys = [key for key in results[0]["numbers"] if _is_shown(key) and all(key in one["numbers"] for one in results)]
    return {key: [float(one["numbers"][key]) for one in results] for key in keys}


def _is_shown(key: str) -> bool:
    """Whether a table or a statement has the number: the results file is to stay small."""
    kind, _, plain_key = key.rpartition(": ")
    if kind:
        return plain_key in PERTURBED_KEYS
    if "/" not in key or key.endswith("/R@1") or key.startswith(("seconds/", "share/")):
        return True
    return "/R@" in key and key.startswith(("clean/", "official/")) and key.split("/")[2] in ("dtw", "cap_avg")


def _spent(found: Mapping[int, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Of a job, a number a seed: processor and clock seconds, the process's peak memory where the system tells, and of
    a training the processor's seconds without validation."""
    told = {key: [one["spent"][key] for one in found.values()] for key in ("processor_seconds", "wall_seconds")}
    peaks = [one["spent"]["peak_megabytes"] for one in found.values()]
    told["peak_megabytes"] = [peak for peak in peaks if peak is not None]
    training = [one["training_processor_seconds"] for one in found.values() if "training_processor_seconds" in one]
    return {**told, "training_processor_seconds": training} if training else told


def _spent_by_kind(output_dir: Path, seeds: Sequence[int], sets: Sequence[str]) -> dict[str, list[float]]:
    """Processor seconds of all jobs of a kind, a number a seed that did one."""
    few_shot = [f"{name}/{loss}" for name in sets for loss in FEW_SHOT_LOSSES]
    kinds = {"data": [""], "train": RUNS, "test": RUNS, "few_shot": few_shot, "few_shot_test": few_shot}
    told = {}
    for kind, names in kinds.items():
        totals: dict[int, float] = {}
        for name in names:
            for seed, one in per_seed(output_dir, seeds, kind, name).items():
                totals[seed] = totals.get(seed, 0.0) + one["spent"]["processor_seconds"]
        told[kind] = list(totals.values())
    return told


def _memory(output_dir: Path, seeds: Sequence[int], name: str) -> dict[str, float] | None:
    found = per_seed(output_dir, seeds, "memory", name)
    return next((one["memory"] for one in found.values()), None)


def interval_over_seeds(
    terms: Sequence[tuple[int, str, str]], found: Mapping[str, Mapping[int, Any]]
) -> dict[str, Any] | None:
    """Of the sum of the terms, over the seeds that did all runs in it."""
    seeds = [seed for seed in found[terms[0][1]] if all(seed in found[run] for _, run, _ in terms)]
    if not seeds:
        return None
    arrays = [sum(sign * scored(found[run][seed], key) for sign, run, key in terms) for seed in seeds]
    return careful_interval([np.asarray(one) for one in arrays]).to_dict()


RECOMMENDED_KEYS = {
    "R@1, removed": "clean/removed/{measure}/R@1",
    "R@5, removed": "clean/removed/{measure}/R@5",
    "R@10, removed": "clean/removed/{measure}/R@10",
    "R@1, kept": "clean/kept/{measure}/R@1",
    "R@1, removed, official": "official/removed/{measure}/R@1",
    "R@1, kept, official": "official/kept/{measure}/R@1",
    "localization": "localization",
}


def _recommendation(found: Mapping[str, Mapping[int, Any]], choice: Mapping[str, Any] | None) -> dict[str, Any]:
    """Each candidate by DTW and by the measure chosen, minus each of :func:`bases`."""
    told: dict[str, Any] = {}
    if choice is None:
        return told
    for name in CANDIDATES:
        for base in bases(choice):
            if name == base or not found[name] or not found[base]:
                continue
            for measure in dict.fromkeys((choice["measure"], "dtw")):
                for label, pattern in RECOMMENDED_KEYS.items():
                    key = pattern.format(measure=measure)
                    told[f"{name} minus {base}, {measure}, {label}"] = interval_over_seeds(
                        ((1, name, key), (-1, base, key)), found
                    )
    return told


def _few_shot(output_dir: Path, seeds: Sequence[int], sets: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in sets:
        novel = {loss: per_seed(output_dir, seeds, "few_shot_test", f"{name}/{loss}") for loss in FEW_SHOT_LOSSES}
        base = {loss: per_seed(output_dir, seeds, "few_shot", f"{name}/{loss}") for loss in FEW_SHOT_LOSSES}
        told[name] = {
            loss: {
                "novel": shown_numbers([one["novel"] for one in novel[loss].values()]),
                "base": shown_numbers([one["base"] for one in base[loss].values()]),
                "minus unit": _task_differences(novel[loss], novel["unit"]) if loss != "unit" else {},
            }
            for loss in FEW_SHOT_LOSSES
        }
    return told


def _task_differences(own: Mapping[int, Any], unit: Mapping[int, Any]) -> dict[str, Any]:
    """By measure and shot, over the seeds that have both; none of a single seed. See Note [One number a seed]."""
    pairs = [(own[seed]["novel"]["numbers"], unit[seed]["novel"]["numbers"]) for seed in own if seed in unit]
    told: dict[str, Any] = {}
    for key in pairs[0][0] if pairs else ():
        interval = student_interval([a[key] - b[key] for a, b in pairs])
        if interval is not None:
            told[key] = interval.to_dict()
    return told


def _few_shot_differences(output_dir: Path, seeds: Sequence[int], name: str) -> list[dict[str, Any] | None]:
    """An interval for each of :data:`FEW_SHOT_STATEMENTS`, None with fewer than two seeds."""
    found = {loss: per_seed(output_dir, seeds, "few_shot_test", f"{name}/{loss}") for loss in FEW_SHOT_LOSSES}

    def accuracy(pair: tuple[str, str], seed: int) -> float:
        loss, measure = pair
        return found[loss][seed]["novel"]["numbers"][f"{measure} 1-shot"]

    told: list[Interval | None] = []
    for one in FEW_SHOT_STATEMENTS:
        both = [seed for seed in found[one.own[0]] if seed in found[one.base[0]]]
        told.append(student_interval([accuracy(one.own, seed) - accuracy(one.base, seed) for seed in both]))
    return [None if one is None else one.to_dict() for one in told]


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package).partition("+")[0]
