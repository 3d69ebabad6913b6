"""The tables of time and memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tempclr.recipes.claims.cells import Table, described
from tempclr.recipes.claims.grid import RUNS
from tempclr.recipes.claims.statistics import cell

__all__ = ["time_tables"]

SECTION = "Time and memory"


def time_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """All work by kind, each run, the memory of some trainings, and one training step."""
    words = {
        "data": "videos and features",
        "train": "trainings, with their validation",
        "test": "measuring on test videos",
        "few_shot": "few-shot trainings",
        "few_shot_test": "few-shot tasks of new classes",
    }
    spent = results["spent"]
    rows: list[list[Any]] = [[told, _minutes(spent[kind])] for kind, told in words.items()]
    yield Table(SECTION, "A seed in all", "", ["work", "processor, minutes"], rows)
    keys = ("training_processor_seconds", "processor_seconds", "wall_seconds", "peak_megabytes")
    rows = [
        [described(name), *(_as_measured(results["runs"][name]["spent"].get(key, [])) for key in keys)]
        for name in RUNS
        if name in results["runs"]
    ]
    headers = ["run", "training, processor s", "with validation, processor s", "with validation, clock s", "peak, MB"]
    note = (
        "Mean ± standard deviation over the seeds; one thread a run. Seconds by the clock depend on what else the "
        "machine was doing; two runs were made at a time. The peak is that of the resident memory of the process while "
        "it did the run, with what earlier runs had left in it; the next table is without that."
    )
    yield Table(SECTION, "Each run", note, headers, rows)
    yield from _memory(results)
    yield from _step(results)


def _memory(results: Mapping[str, Any]) -> Iterator[Table]:
    rows = [
        [
            described(name),
            f"{found['start_megabytes']:.0f}",
            f"{found['peak_megabytes'] - found['start_megabytes']:.0f}",
        ]
        for name, found in results["memory"].items()
    ]
    if rows:
        note = "Resident memory of a new process that does this training alone; one seed."
        headers = ["run", "videos and libraries, MB", "and at the peak of training, MB more"]
        yield Table(SECTION, "Memory of a training", note, headers, rows)


def _step(results: Mapping[str, Any]) -> Iterator[Table]:
    step = results["step"]
    if step:
        words = {"unit": "unit loss alone", "dtw": "with DTW", "otam": "with OTAM"}
        rows = [
            [told, cell(step[f"seconds/{kind}"], scale=1000), cell(step.get(f"share/{kind}", []))]
            for kind, told in words.items()
        ]
        headers = ["training step", "processor, ms", "share of the sequence loss, %"]
        title = f"A step of {results['settings']['batch_size']} videos, forward and backward"
        yield Table(SECTION, title, "A share below its deviation is too small to be told from 0 here.", headers, rows)


def _as_measured(values: list[float]) -> str | None:
    return cell(values, scale=1)


def _minutes(seconds: list[float]) -> str | None:
    return cell(seconds, scale=1 / 60)
