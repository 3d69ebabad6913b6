"""The pictures of the page, from the collected results alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tempclr.recipes.claims.cells import described
from tempclr.recipes.claims.grid import CANDIDATES, PERTURBED, STRATEGY_RUNS, TEMPERATURE_RUNS
from tempclr.recipes.claims.statements import STATEMENTS, Statement

__all__ = ["PICTURES", "draw"]

PICTURES = {
    "gains": "Points of R@1 by which TempCLR is above the unit loss under the official protocol (blue) and the clean "
    "one (orange), above its controls (green), and by which the official gain is larger than the clean (pink); 95 %.",
    "strategies": "Steps found, zero-shot, by what the negatives of pretraining are; mean and standard deviation.",
    "perturbed": "As filmed (circle), with a step exchanged (square), with background put in (triangle); mean and "
    "standard deviation.",
    "temperatures": "From scratch over cosines, by the temperature of the unit loss: R@1 by DTW and steps found on "
    "test videos; mean and standard deviation.",
    "candidates": "Candidates on test videos: R@1 by DTW and steps found; mean and standard deviation.",
}
OFFICIAL, CLEAN, CONTROLS, APART = 0, 1, 2, 3
QUALITIES = {"clean/removed/dtw/R@1": "R@1 by DTW, %", "localization": "steps found, %"}
MARKERS = {"": "o", "exchanged: ": "s", "injected: ": "^"}


def draw(folder: Path, results: Mapping[str, Any]) -> None:
    """The pictures of :data:`PICTURES`, of what was run; none without test results."""
    if not results["test_seeds"]:
        return
    _draw_gains(folder / "gains.png", results)
    strategies = {name: run for name, run in {"unit loss": "dot>unit", **STRATEGY_RUNS}.items()}
    _draw_means(folder / "strategies.png", results, strategies, {"localization": "steps found, %"})
    perturbed = {described(name): name for name in PERTURBED}
    keys = {"seconds": "seconds aligned rightly, %", "clean/kept/dtw/R@1": "R@1 by DTW, background kept, %"}
    _draw_means(folder / "perturbed.png", results, perturbed, keys, markers=MARKERS)
    _draw_temperatures(folder / "temperatures.png", results)
    chosen = None if results["choice"] is None else results["choice"]["recipe"]
    candidates = {_short(name) + (" (chosen)" if name == chosen else ""): name for name in CANDIDATES}
    _draw_means(folder / "candidates.png", results, candidates, QUALITIES)


def _short(name: str) -> str:
    """A candidate in words; what all have in common is left out where more follows."""
    words = described(name)
    return words.removeprefix("unit loss ") if "+" in words else words


def _is_gain(statement: Statement) -> bool:
    return statement.place.startswith(("Table 12, ", "Table 13, "))


def _colour(statement: Statement) -> int:
    if statement.paper:
        return OFFICIAL if "official" in statement.claim else CLEAN
    return APART if len(statement.terms) == 4 else CONTROLS


def _draw_gains(path: Path, results: Mapping[str, Any]) -> None:
    from tempclr.plots.style import COLORS, new_figure, quiet, saved

    shown = [
        (statement, found)
        for statement, found in zip(STATEMENTS, results["differences"], strict=True)
        if found is not None and _is_gain(statement)
    ]
    figure = new_figure(8.0, 0.9 + 0.27 * max(1, len(shown)))
    axes = figure.subplots()
    for row, (statement, found) in enumerate(shown):
        ends = [[100 * (found["mean"] - found["low"])], [100 * (found["high"] - found["mean"])]]
        colour = COLORS[_colour(statement)]
        axes.errorbar([100 * found["mean"]], [row], xerr=ends, fmt="o", color=colour, capsize=3, markersize=4)
    axes.axvline(0, color="0.4", linewidth=1)
    background = {"12": "removed", "13": "kept"}
    words = [f"{background[one.place.split()[1].rstrip(',')]}, {one.claim}" for one, _ in shown]
    axes.set_yticks(range(len(shown)), words, fontsize=7)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("points of R@1")
    quiet(axes)
    saved(figure, path)


def _draw_temperatures(path: Path, results: Mapping[str, Any]) -> None:
    """A line a loss over the temperature, a column a quality."""
    import numpy as np

    from tempclr.plots.style import COLORS, new_figure, quiet, saved

    figure = new_figure(9.0, 3.2)
    for place, (key, label) in enumerate(QUALITIES.items()):
        axes = figure.add_subplot(1, len(QUALITIES), place + 1)
        for number, (told, runs) in enumerate(TEMPERATURE_RUNS.items()):
            found = {at: results["runs"].get(run, {}).get("test", {}).get(key, []) for at, run in runs.items()}
            found = {at * 1.02 ** (number - 1): 100 * np.asarray(values) for at, values in found.items() if values}
            spread = [values.std(ddof=1) if len(values) > 1 else 0.0 for values in found.values()]
            means = [values.mean() for values in found.values()]
            axes.errorbar(
                list(found), means, spread, fmt="o-", color=COLORS[number], capsize=3, markersize=4, label=told
            )
        axes.set_xscale("log")
        ticks = list(TEMPERATURE_RUNS["unit loss"])
        axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
        axes.minorticks_off()
        axes.set_xlabel("temperature of the unit loss")
        axes.set_ylabel(label)
        quiet(axes)
        if place == 0:
            axes.legend(frameon=False, fontsize=8)
    saved(figure, path)


def _draw_means(
    path: Path,
    results: Mapping[str, Any],
    runs: Mapping[str, str],
    keys: Mapping[str, str],
    *,
    markers: Mapping[str, str] | None = None,
) -> None:
    """A row a run, a column a key; ``markers``: prefix of the key -> marker, one below the other."""
    import numpy as np

    from tempclr.plots.style import COLORS, new_figure, quiet, saved

    markers = markers or {"": "o"}
    figure = new_figure(4.0 + 2.4 * len(keys), 0.9 + (0.2 + 0.1 * len(markers)) * len(runs))
    for place, (key, label) in enumerate(keys.items()):
        axes = figure.add_subplot(1, len(keys), place + 1)
        for row, run in enumerate(runs.values()):
            for number, (prefix, marker) in enumerate(markers.items()):
                values = results["runs"].get(run, {}).get("test", {}).get(prefix + key, [])
                if values:
                    spread = 100 * np.std(values, ddof=1) if len(values) > 1 else 0
                    at = row + 0.25 * (number - (len(markers) - 1) / 2)
                    colour = COLORS[number if len(markers) > 1 else place]
                    axes.errorbar([100 * np.mean(values)], [at], xerr=[spread], fmt=marker, color=colour, capsize=3)
        axes.set_yticks(range(len(runs)), list(runs) if place == 0 else [], fontsize=7.5)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlabel(label)
        quiet(axes)
    saved(figure, path)
