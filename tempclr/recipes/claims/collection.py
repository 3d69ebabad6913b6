"""All results of a folder in one mapping: what ``claims.json`` holds, and the page is made from."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path
from tempclr.recipes.claims.grid import CANDIDATES, FEW_SHOT_LOSSES, RUNS, ClaimSettings, Job
from tempclr.recipes.claims.measuring import scored
from tempclr.recipes.claims.statements import STATEMENTS
from tempclr.recipes.claims.statistics import two_level_interval
from tempclr.recipes.claims.work import read_result

__all__ = ["collect", "write_claims"]

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
    the unit loss and against the paper's recipe; ``few_shot``, ``step``, ``spent``.
    """
    test = {name: _per_seed(output_dir, seeds, "test", name) for name in RUNS}
    train = {name: _per_seed(output_dir, seeds, "train", name) for name in RUNS}
    runs = {}
    for name in RUNS:
        if train[name]:
            runs[name] = {
                "test": _numbers([one["test"] for one in test[name].values()]),
                "validation": _numbers([one["validation"] for one in train[name].values() if name in CANDIDATES]),
                "spent": _mean_spent([one["spent"] for one in train[name].values()]),
            }
    found = {name: {seed: one["test"] for seed, one in test[name].items()} for name in RUNS}
    return {
        "settings": settings.to_dict(),
        "machine": {"python": platform.python_version(), "torch": _version("torch"), "device": "cpu"},
        "seeds": [seed for seed in seeds if any(seed in one for one in train.values())],
        "test_seeds": [seed for seed in seeds if any(seed in one for one in test.values())],
        "runs": runs,
        "differences": [_interval(statement.terms, found) for statement in STATEMENTS],
        "recommendation": _recommendation(found, choice),
        "few_shot": _few_shot(output_dir, seeds, few_shot_sets),
        "step": _numbers([{"numbers": one["step"]} for one in _per_seed(output_dir, seeds, "step", "").values()]),
        "data_spent": _mean_spent([one["spent"] for one in _per_seed(output_dir, seeds, "data", "").values()]),
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


def _per_seed(output_dir: Path, seeds: Sequence[int], kind: str, name: str) -> dict[int, dict[str, Any]]:
    found = {seed: read_result(Job(kind, seed, name), output_dir) for seed in seeds}
    return {seed: one for seed, one in found.items() if one is not None}


def _numbers(results: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    if not results:
        return {}
    keys = [key for key in results[0]["numbers"] if _is_shown(key)]
    return {key: [float(one["numbers"][key]) for one in results] for key in keys}


def _is_shown(key: str) -> bool:
    """Whether a table or a statement has the number: the results file is to stay small."""
    kind, _, plain_key = key.rpartition(": ")
    if kind:
        return plain_key in PERTURBED_KEYS
    return "/" not in key or key.endswith("/R@1") or key.startswith(("seconds/", "share/", "clean/removed/dtw/R@"))


def _mean_spent(spent: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key in ("wall_seconds", "processor_seconds", "peak_megabytes"):
        values = [one[key] for one in spent if one.get(key) is not None]
        found[key] = float(np.mean(values)) if values else None
    return found


def _interval(terms: Sequence[tuple[int, str, str]], found: Mapping[str, Mapping[int, Any]]) -> dict[str, Any] | None:
    """Of the sum of the terms, over the seeds that did all runs in it. Clip retrieval has no shares of videos: None."""
    seeds = [seed for seed in found[terms[0][1]] if all(seed in found[run] for _, run, _ in terms)]
    if not seeds:
        return None
    if any(key.startswith("clip/") for _, _, key in terms):
        totals = [sum(sign * found[run][seed]["numbers"][key] for sign, run, key in terms) for seed in seeds]
        return two_level_interval([np.array([one]) for one in totals]).to_dict()
    arrays = [sum(sign * scored(found[run][seed], key) for sign, run, key in terms) for seed in seeds]
    return two_level_interval([np.asarray(one) for one in arrays]).to_dict()


RECOMMENDED_KEYS = {
    "R@1, removed": "clean/removed/{measure}/R@1",
    "R@5, removed": "clean/removed/{measure}/R@5",
    "R@10, removed": "clean/removed/{measure}/R@10",
    "R@1, kept": "clean/kept/{measure}/R@1",
    "localization": "localization",
}


def _recommendation(found: Mapping[str, Mapping[int, Any]], choice: Mapping[str, Any] | None) -> dict[str, Any]:
    """Each candidate, by DTW and by OTAM, minus the unit loss over cosines and minus the paper's recipe."""
    told: dict[str, Any] = {}
    for name in CANDIDATES:
        for base in ("cosine", "dtw"):
            if name == base or not found[name] or not found[base]:
                continue
            for measure in ("dtw", "otam"):
                for label, pattern in RECOMMENDED_KEYS.items():
                    key = pattern.format(measure=measure)
                    told[f"{name} minus {base}, {measure}, {label}"] = _interval(
                        ((1, name, key), (-1, base, key)), found
                    )
    return told


def _few_shot(output_dir: Path, seeds: Sequence[int], sets: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in sets:
        novel = {loss: _per_seed(output_dir, seeds, "few_shot_test", f"{name}/{loss}") for loss in FEW_SHOT_LOSSES}
        base = {loss: _per_seed(output_dir, seeds, "few_shot", f"{name}/{loss}") for loss in FEW_SHOT_LOSSES}
        told[name] = {
            loss: {
                "novel": _numbers([one["novel"] for one in novel[loss].values()]),
                "base": _numbers([one["base"] for one in base[loss].values()]),
                "minus unit": _task_differences(novel[loss], novel["unit"]) if loss != "unit" else {},
            }
            for loss in FEW_SHOT_LOSSES
        }
    return told


def _task_differences(own: Mapping[int, Any], unit: Mapping[int, Any]) -> dict[str, Any]:
    seeds = [seed for seed in own if seed in unit]
    if not seeds:
        return {}
    pairs = [(own[seed]["novel"]["per_task"], unit[seed]["novel"]["per_task"]) for seed in seeds]
    return {
        key: two_level_interval([np.subtract(a[key], b[key]) for a, b in pairs], num_resamples=500).to_dict()
        for key in pairs[0][0]
    }


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package).partition("+")[0]
