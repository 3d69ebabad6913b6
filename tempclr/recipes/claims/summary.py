"""The page in a few lines: what each choice changes in retrieval and in localization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tempclr.recipes.claims.cells import Table, described, interval_of, told
from tempclr.recipes.claims.choice import RELEASED_LOSS
from tempclr.recipes.claims.grid import TEMPERATURE_RUNS
from tempclr.recipes.claims.statements import STATEMENTS

__all__ = ["summary"]

QUALITIES = {"clean/removed/dtw/R@1": "R@1, removed", "localization": "localization"}


def summary(results: Mapping[str, Any]) -> Table:
    """Differences on test videos, in points."""
    rows = [[question, *_differences(results, run, base)] for question, run, base in _questions(results)]
    note = (
        "Test videos, clean protocol, points with 95 % intervals; background removed in retrieval. Which rows to show "
        "here was settled when the test videos had been seen."
    )
    return Table("", "In short", note, ["difference", "R@1 by DTW", "steps found"], rows)


def _questions(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Words, and the two runs that are compared."""
    choice = results["choice"]
    if choice is not None:
        chosen, unit, paper = choice["recipe"], choice["unit_recipe"], choice["paper_recipe"]
        told = {
            unit: f"recommended, {described(chosen)}, minus the best unit loss, {described(unit)}",
            paper: f"recommended minus the paper's weights, {described(paper)}, all from scratch",
            RELEASED_LOSS: "recommended minus the released loss, over dot products, from scratch",
        }
        yield from ((words, chosen, base) for base, words in told.items() if base != chosen)
    yield "TempCLR minus the unit loss, from scratch over dot products", "dot+dtw", "dot"
    for temperature in (0.05, 0.3):
        runs = [TEMPERATURE_RUNS[loss][temperature] for loss in ("unit loss + DTW", "unit loss")]
        yield f"TempCLR minus the unit loss, from scratch over cosines divided by {temperature:g}", runs[0], runs[1]
    yield "TempCLR that goes on from a unit loss (the paper's way) minus that unit loss", "dot>dtw", "dot"
    yield "the same at a fifth of the rate", "dot>dtw r1e-4", "dot"
    yield "the same at a twenty-fifth of the rate", "dot>dtw r2e-5", "dot"
    yield "the same, LayerNorms alone", "dot>dtw norm", "dot"
    yield "the same, LayerNorms alone at five times the rate", "dot>dtw norm r5e-3", "dot"
    yield "as many further epochs of the unit loss minus the unit loss they begin with", "dot>unit", "dot"
    yield "TempCLR minus as many further epochs of the unit loss", "dot>dtw", "dot>unit"
    yield "OTAM instead of DTW in the loss, from scratch (cosine / 0.05)", "otam", "dtw"
    yield "hard minimum instead of the soft one in the loss, from scratch", "dtw hard", "dtw"
    yield "negatives of other videos (unpaired) instead of other orders, from scratch", "dtw unpaired", "dtw"
    yield "both kinds of negatives (joint) instead of other orders, from scratch", "dtw joint", "dtw"


def _differences(results: Mapping[str, Any], run: str, base: str) -> list[str]:
    stated = {one.terms: found for one, found in zip(STATEMENTS, results["differences"], strict=True)}
    cells = []
    for key, label in QUALITIES.items():
        found = stated.get(((1, run, key), (-1, base, key)))
        if found is None:
            found = results["recommendation"].get(f"{run} minus {base}, dtw, {label}")
        cells.append(told(interval_of(found), len(results["test_seeds"])))
    return cells
