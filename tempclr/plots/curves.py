"""Loss curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from tempclr.plots.style import COLORS, LINE_STYLES, new_figure, quiet, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_losses(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    parts: Sequence[str] = ("unit_loss", "sequence_loss"),
    path: str | PathLike[str] | None = None,
) -> Figure:
    """Loss curves: one panel a part, one colour a run, validation (``eval_`` entries) as hollow points on a dashed
    line.

    ``histories``: run name -> ``trainer.state.log_history``. A part that no run logged gets no panel; if that leaves
    none, it is a ValueError.
    """
    shown = [part for part in parts if any(_curve(h, p)[0] for h in histories.values() for p in (part, f"eval_{part}"))]
    if not shown:
        logged = sorted({key for history in histories.values() for entry in history for key in entry})
        raise ValueError(f"none of {', '.join(parts)} is in the histories, which hold {', '.join(logged) or 'nothing'}")
    figure = new_figure(0.6 + 4.2 * len(shown), 3.4)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for part, axes in zip(shown, panels, strict=True):
        for index, (name, history) in enumerate(histories.items()):
            color, style = COLORS[index % len(COLORS)], LINE_STYLES[index % len(LINE_STYLES)]
            steps, values = _curve(history, part)
            if steps:
                axes.plot(steps, values, color=color, linestyle=style, linewidth=1.6, label=name)
            steps, values = _curve(history, f"eval_{part}")
            if steps:
                axes.plot(
                    steps,
                    values,
                    color=color,
                    linestyle=":",
                    linewidth=1.2,
                    marker="o",
                    markersize=4,
                    markerfacecolor="white",
                    label=f"{name}, validation",
                )
        axes.set_title(part.replace("_", " "), loc="left")
        axes.set_xlabel("step")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        quiet(axes)
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)), frameon=False
    )
    return saved(figure, path)


def _curve(history: Sequence[Mapping[str, Any]], part: str) -> tuple[list[float], list[float]]:
    points = [(entry["step"], entry[part]) for entry in history if part in entry and "step" in entry]
    return [step for step, _ in points], [value for _, value in points]
