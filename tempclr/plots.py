"""Pictures: an alignment over its own video's frames, loss curves, retrieval bars.

All functions build a ``matplotlib.figure.Figure`` of their own, touch no global state, need no display, and return the
figure; with ``path`` they also save it, whole or not at all. Colours are Okabe and Ito's, which colour-blind readers
tell apart; line styles differ as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
PATH_COLOR = "#D55E00"
LABEL_WIDTH = 32
MAX_LABEL_LINES = 3
FILMSTRIP_INCHES = 0.72
PLOT_INCHES = 7.4


def plot_alignment(
    alignment: Any,
    *,
    frames: ArrayLike | None = None,
    frame_seconds: ArrayLike | None = None,
    true_spans: Sequence[tuple[float, float]] | None = None,
    title: str | None = None,
    path: str | PathLike[str] | None = None,
) -> Figure:
    """Similarity of each sentence to each second as a heat map, with the path, the true segments and a filmstrip.

    ``alignment``: a :class:`tempclr.inference.Alignment`, or anything with its ``cost`` (num_sentences, num_features;
    the picture shows 1 - cost), ``path`` (the 0/1 matrix of the same shape), ``spans`` (one mapping a sentence, of
    which ``sentence`` is read), ``features_per_second`` and ``measure``. ``frames``: (N, H, W, 3) uint8 of the same
    video with ``frame_seconds`` (N,), drawn along the time axis. ``true_spans``: ``(start_seconds, end_seconds)`` of
    each sentence. After Fig. 3 of the TempCLR paper.
    """
    cost, on_path = _matrix(alignment.cost), _matrix(alignment.path)
    sentences = [span["sentence"] for span in alignment.spans]
    if cost.shape != on_path.shape or len(sentences) != len(cost):
        raise ValueError(
            f"one row a sentence in cost and path: {len(sentences)} sentences, cost {cost.shape}, path {on_path.shape}"
        )
    if true_spans is not None and len(true_spans) != len(sentences):
        raise ValueError(f"one true span a sentence: {len(true_spans)} spans for {len(sentences)} sentences")
    rate = float(alignment.features_per_second)
    film = _checked_frames(frames, frame_seconds)

    labels = [_label(sentence) for sentence in sentences]
    row_inches = 0.17 * max(2, *(label.count("\n") + 1 for label in labels)) + 0.14
    map_inches = max(1.2, row_inches * len(labels))
    heights = ([FILMSTRIP_INCHES] if film is not None else []) + [map_inches]
    figure = _figure(PLOT_INCHES + 3.0, sum(heights) + 1.25)
    grid = figure.add_gridspec(
        len(heights), 2, height_ratios=heights, width_ratios=[PLOT_INCHES, 0.16], hspace=0.02, wspace=0.02
    )
    axes = figure.add_subplot(grid[-1, 0])
    _draw_heat_map(figure, axes, figure.add_subplot(grid[-1, 1]), 1 - cost, labels, rate=rate)
    handles = [_draw_path(axes, on_path, rate=rate, measure=str(getattr(alignment, "measure", "dtw")))]
    if true_spans is not None:
        handles.append(_draw_true_spans(axes, true_spans))
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.42 / map_inches), ncols=len(handles), frameon=False
    )
    if film is not None:
        strip = figure.add_subplot(grid[0, 0], sharex=axes)
        _draw_filmstrip(strip, *film, duration_seconds=cost.shape[1] / rate)
    top = figure.axes[-1] if film is not None else axes
    if title:
        top.set_title(title, loc="left")
    return _saved(figure, path)


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
    figure = _figure(0.6 + 4.2 * len(shown), 3.4)
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
        _quiet(axes)
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)), frameon=False
    )
    return _saved(figure, path)


def plot_retrieval(
    results: Mapping[str, Any], *, metric: str = "R@1", path: str | PathLike[str] | None = None
) -> Figure:
    """Bars of one metric: a group a measure, a bar a model. ``results``: name -> RetrievalResult (all with the same
    measures)."""
    measures = list(next(iter(results.values())).metrics)
    for name, result in results.items():
        if list(result.metrics) != measures:
            raise ValueError(f"{name!r} has the measures {list(result.metrics)}, the first model {measures}")
    figure = _figure(max(4.5, 1.1 + 0.5 * len(measures) * (len(results) + 0.8)), 3.4)
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
    _quiet(axes)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=min(3, len(results)), frameon=False)
    return _saved(figure, path)


def _draw_heat_map(
    figure: Figure, axes: Axes, bar_axes: Axes, similarity: NDArray, labels: Sequence[str], *, rate: float
) -> None:
    num_sentences, num_features = similarity.shape
    image = axes.imshow(
        similarity,
        cmap="Blues",
        aspect="auto",
        interpolation="nearest",
        extent=(0, num_features / rate, num_sentences, 0),
    )
    axes.set_yticks(np.arange(num_sentences) + 0.5, labels, fontsize=9.5, linespacing=1.05)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(np.arange(1, num_sentences), minor=True)
    axes.grid(axis="y", which="minor", color="white", linewidth=1.2)
    axes.tick_params(axis="y", which="minor", length=0)
    axes.set_xlabel("seconds")
    figure.colorbar(image, cax=bar_axes, label="similarity")


def _draw_path(axes: Axes, on_path: NDArray, *, rate: float, measure: str) -> Any:
    """A line through the chosen cells where they form one chain, else a dot on each."""
    from matplotlib.patheffects import Normal, Stroke

    columns, rows = np.nonzero(on_path.T > 0.5)
    order = np.lexsort((rows, columns))
    columns, rows = columns[order], rows[order]
    steps = np.stack([np.diff(columns), np.diff(rows)])
    chain = len(columns) > 1 and bool(((steps >= 0) & (steps <= 1)).all())
    marker_size = (4 if on_path.shape[1] <= 80 else 0) if chain else 7
    (line,) = axes.plot(
        (columns + 0.5) / rate,
        rows + 0.5,
        color=PATH_COLOR,
        linewidth=2.4 if chain else 0,
        marker="o",
        markersize=marker_size,
        solid_joinstyle="round",
        label={"dtw": "DTW path", "otam": "OTAM path", "localize": "chosen seconds"}.get(measure, f"{measure} path"),
        path_effects=[Stroke(linewidth=4.4 if chain else 2, foreground="white"), Normal()],
    )
    return line


def _draw_true_spans(axes: Axes, true_spans: Sequence[tuple[float, float]]) -> Any:
    from matplotlib.patches import Rectangle

    patch: Any = None
    for row, (start, end) in enumerate(true_spans):
        patch = Rectangle(
            (start, row + 0.06), end - start, 0.88, fill=False, edgecolor="black", linewidth=1.7, label="true segment"
        )
        axes.add_patch(patch)
    return patch


def _draw_filmstrip(axes: Axes, frames: NDArray, seconds: NDArray, *, duration_seconds: float) -> None:
    height, width = frames.shape[1:3]
    # Wide frames lose their sides, so that the film still has a frame every few seconds.
    num_slots = max(1, round(PLOT_INCHES / (FILMSTRIP_INCHES * min(width / height, 1.25))))
    slot_seconds = duration_seconds / num_slots
    crop = min(width, max(1, round(height * PLOT_INCHES / num_slots / FILMSTRIP_INCHES)))
    left = (width - crop) // 2
    for slot in range(num_slots):
        start = slot * slot_seconds
        nearest = int(np.abs(seconds - (start + slot_seconds / 2)).argmin())
        axes.imshow(
            frames[nearest, :, left : left + crop],
            extent=(start, start + slot_seconds, 0, 1),
            aspect="auto",
            interpolation="antialiased",
        )
        axes.axvline(start, color="white", linewidth=1.5)
    axes.set_xlim(0, duration_seconds)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.spines[:].set_visible(False)


def _curve(history: Sequence[Mapping[str, Any]], part: str) -> tuple[list[float], list[float]]:
    points = [(entry["step"], entry[part]) for entry in history if part in entry and "step" in entry]
    return [step for step, _ in points], [value for _, value in points]


def _label(sentence: str) -> str:
    lines = textwrap.wrap(sentence, LABEL_WIDTH, max_lines=MAX_LABEL_LINES, placeholder=" …") or [""]
    # A dollar sign would start a formula.
    return "\n".join(lines).replace("$", r"\$")


def _matrix(values: Any) -> NDArray[np.float64]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"expected a filled matrix (num_sentences, num_features), got shape {matrix.shape}")
    return matrix


def _checked_frames(frames: ArrayLike | None, frame_seconds: ArrayLike | None) -> tuple[NDArray, NDArray] | None:
    if frames is None and frame_seconds is None:
        return None
    if frames is None or frame_seconds is None:
        raise ValueError("frames and frame_seconds come together: the pictures and when each was taken")
    pictures, seconds = np.asarray(frames), np.asarray(frame_seconds, dtype=np.float64)
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or not len(pictures) or seconds.shape != (len(pictures),):
        raise ValueError(
            f"frames must be (N, H, W, 3) with frame_seconds (N,), got {pictures.shape} and {seconds.shape}"
        )
    return pictures, seconds


def _figure(width_inches: float, height_inches: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), dpi=120, layout="constrained")


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _saved(figure: Figure, path: str | PathLike[str] | None) -> Figure:
    from tempclr.data.files import atomic_path

    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary)
    return figure
