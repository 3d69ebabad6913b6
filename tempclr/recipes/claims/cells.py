"""What the tables of the page are made of: cells, intervals, and runs in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tempclr.recipes.claims.grid import BOTH, RUNS, in_decimals, lineage
from tempclr.recipes.claims.statistics import Interval, cell

__all__ = ["Table", "described", "few_shot_words", "interval_of", "run_cell", "told"]


@dataclass(frozen=True)
class Table:
    section: str
    title: str
    note: str
    headers: list[str]
    rows: list[list[Any]]


def run_cell(results: Mapping[str, Any], run: str, key: str, *, part: str = "test") -> str | None:
    """A run's score over the seeds, or None where it was not run."""
    values = results["runs"].get(run, {}).get(part, {}).get(key, [])
    return cell(values, num_seeds=len(results["test_seeds" if part == "test" else "seeds"]))


def interval_of(found: Mapping[str, Any] | None) -> Interval | None:
    """From the results file."""
    return None if found is None else Interval(**{**found, "per_seed": tuple(found["per_seed"])})


def told(interval: Interval | None, num_seeds: int) -> str:
    """An interval; where it is over fewer seeds than ``num_seeds`` it says how many.

    >>> told(Interval(0.031, 0.01, 0.05, (0.031,), 40), 3)
    '+3.1 [+1.0, +5.0], 1 seed'
    """
    if interval is None:
        return "not run yet"
    found = len(interval.per_seed)
    return interval.text + (f", {found} seed{'s' if found > 1 else ''}" if found != num_seeds else "")


def described(name: str) -> str:
    """A run in words.

    >>> described("dot>dtw norm|unit")
    'unit loss (dot), then + DTW, norms alone; fine-tuned on the unit loss'
    """
    words = [_described(one) for one in lineage(name)]
    tuned = RUNS[name].task == "localization"
    told = ", then ".join(words[:-1] if tuned else words)
    return f"{told}; fine-tuned {words[-1]}" if tuned else told


def _described(name: str) -> str:
    run = RUNS[name]
    loss = dict(run.loss)
    measure = str(loss.get("measure", "dtw")).upper()
    if run.task == "localization":
        what = "on the unit loss" if loss["sequence_weight"] == 0 else f"with {measure}"
        what += ", seg_only" if loss.get("negatives") == "seg_only" else ""
        return what + (f", {run.train_fraction:.0%} of the videos" if run.train_fraction < 1 else "")
    first = run.start is None
    divided = f" / {loss['temperature']:g}" if "temperature" in loss else ""
    similarity = f" ({loss['similarity']}{divided})" if first else ""
    ending = ", norms alone" if run.train_parameters == "norm_only" else ""
    ending += f", rate {in_decimals(run.learning_rate)}" if run.learning_rate is not None else ""
    if loss["sequence_weight"] == 0:
        return f"unit loss{similarity}{ending}"
    told = f"{f'unit loss{similarity} ' if first else ''}+ {measure}"
    if loss["sequence_weight"] != BOTH["sequence_weight"]:
        told += f", weights {loss['unit_weight']:g} and {loss['sequence_weight']:g}"
    if "negatives" in loss:
        told += f" against {loss['negatives']}"
    if "num_negatives" in loss:
        told += f", {loss['num_negatives'] + 1} sequences"
    if loss.get("gamma") == 0:
        told += ", hard minimum"
    if "sequence_temperature" in loss:
        told += f", sequence temperature {loss['sequence_temperature']}"
    return told + ending


def few_shot_words(loss: str) -> str:
    """A loss of ``FEW_SHOT_LOSSES`` in words."""
    words = {
        "features": "the features themselves",
        "unit": "contrast between videos",
        "unit t.02": "contrast between videos, temperature 0.02",
        "dtw": "+ order, DTW (0.3 / 0.7)",
        "otam": "+ order, OTAM (0.3 / 0.7)",
        "dtw t.1": "+ order, DTW, temperature 0.1 of the contrast",
        "dtw hard": "+ order, DTW, hard minimum",
        "dtw alone": "order alone, DTW",
    }
    return words[loss]
