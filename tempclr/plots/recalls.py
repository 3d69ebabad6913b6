"""Bars: recalls of retrieval, and the recall of each task."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from tempclr.plots.style import COLORS, label, new_figure, quiet, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_retrieval(
    results: Mapping[str, Any], *, metric: str = "R@1", path: str | PathLike[str] | None = None
) -> Figure:
    """Bars of one metric: a group a measure, a bar a model. ``results``: name -> RetrievalResult (all with the same
    measures)."""
    measures = list(next(iter(results.values())).metrics)
    for name, result in results.items():
        if list(result.metrics) != measures:
            raise ValueError(f"{name!r} has the measures {list(result.metrics)}, the first model {measures}")
    figure = new_figure(max(4.5, 1.1 + 0.5 * len(measures) * (len(results) + 0.8)), 3.4)
    axes = figure.subplots()
    width = 0.8 / len(results)
    for index, (name, result) in enumerate(results.items()):
        values = [result.metrics[measure][metric] for measure in measures]
        places = np.arange(len(measures)) + (index - (len(results) - 1) / 2) * width
        bars = axes.bar(places, values, width=0.92 * width, color=COLORS[index % len(COLORS)], label=name)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=1)
    axes.set_xticks(range(len(measures)), [measure.replace("+", "\n+ ") for measure in measures])
    axes.set_ylabel(metric)
    if metric.startswith("R@"):
        axes.set_ylim(0, 1.05)
    quiet(axes)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=min(3, len(results)), frameon=False)
    return saved(figure, path)


def plot_recalls(results: Mapping[str, Mapping[str, float]], *, path: str | PathLike[str] | None = None) -> Figure:
    """Bars of every recall: a group a row of ``results``, a bar for each of its entries named ``R@k``.

    ``results``: name -> {"R@1": share, ...}, all with the same entries.
    """
    names = list(results)
    recalls = [key for key in results[names[0]] if key.startswith("R@")]
    for name in names:
        if [key for key in results[name] if key.startswith("R@")] != recalls:
            raise ValueError(f"{name!r} has the entries {list(results[name])}, the first row {recalls}")
    figure = new_figure(max(5.0, 1.2 + 0.62 * len(names) * len(recalls) / 1.6), 3.8)
    axes = figure.subplots()
    width = 0.84 / len(recalls)
    for index, recall in enumerate(recalls):
        places = np.arange(len(names)) + (index - (len(recalls) - 1) / 2) * width
        values = [100 * results[name][recall] for name in names]
        bars = axes.bar(places, values, width=0.94 * width, color=COLORS[index % len(COLORS)], label=recall)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.set_xticks(range(len(names)), [name.replace(", ", "\n").replace("+", "\n+ ") for name in names], fontsize=8)
    axes.set_ylabel("recall, %")
    axes.set_ylim(0, 108)
    quiet(axes)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(recalls), frameon=False)
    return saved(figure, path)


def plot_tasks(recall_per_task: Mapping[str, float], *, mean: float, path: str | PathLike[str] | None = None) -> Figure:
    """One horizontal bar a task, best first, and the mean over tasks as a line."""
    order = sorted(recall_per_task, key=lambda task: (-recall_per_task[task], task))
    figure = new_figure(6.4, 1.1 + 0.27 * len(order))
    axes = figure.subplots()
    bars = axes.barh(range(len(order)), [100 * recall_per_task[task] for task in order], color=COLORS[0], height=0.72)
    for text in axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=3):
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    line = axes.axvline(100 * mean, color=COLORS[1], linestyle="--", linewidth=1.6, label=f"mean {100 * mean:.1f}")
    axes.set_yticks(range(len(order)), [label(task) for task in order], fontsize=8.5)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xlabel("recall, %")
    quiet(axes)
    axes.grid(axis="y", visible=False)
    figure.legend(handles=[line], loc="outside upper center", frameon=False)
    return saved(figure, path)
