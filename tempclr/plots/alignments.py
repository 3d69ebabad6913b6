"""An alignment: the similarity of each sentence to each second, the path, the true segments and a filmstrip."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tempclr.plots.style import PATH_COLOR, checked_frames, label, matrix, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILMSTRIP_INCHES = 0.72
PLOT_INCHES = 7.4


def plot_alignment(
    alignment: Any,
    *,
    frames: ArrayLike | None = None,
    frame_seconds: ArrayLike | None = None,
    true_spans: Sequence[tuple[float, float]] | None = None,
    span_rows: Sequence[int] | None = None,
    title: str | None = None,
    path: str | PathLike[str] | None = None,
) -> Figure:
    """Similarity of each sentence to each second as a heat map, with the path, the true segments and a filmstrip.

    ``alignment``: a :class:`tempclr.inference.Alignment`, or anything with its ``cost`` (num_sentences, num_features;
    the picture shows 1 - cost), ``path`` (the 0/1 matrix of the same shape), ``spans`` (one mapping a sentence, of
    which ``sentence`` is read), ``features_per_second`` and ``measure``. ``frames``: (N, H, W, 3) uint8 of the same
    video with ``frame_seconds`` (N,), drawn along the time axis. ``true_spans``: ``(start_seconds, end_seconds)`` of
    each sentence, or, with ``span_rows``, of the sentence of that index: any number of spans, several of one sentence.
    After Fig. 3 of the TempCLR paper.
    """
    cost, on_path = matrix(alignment.cost), matrix(alignment.path)
    sentences = [span["sentence"] for span in alignment.spans]
    if cost.shape != on_path.shape or len(sentences) != len(cost):
        raise ValueError(
            f"one row a sentence in cost and path: {len(sentences)} sentences, cost {cost.shape}, path {on_path.shape}"
        )
    if true_spans is not None:
        span_rows = range(len(sentences)) if span_rows is None else span_rows
        if len(true_spans) != len(span_rows):
            raise ValueError(f"one true span a sentence: {len(true_spans)} spans for {len(span_rows)} sentences")
    rate = float(alignment.features_per_second)
    film = checked_frames(frames, frame_seconds)

    labels = [label(sentence) for sentence in sentences]
    row_inches = 0.17 * max(2, *(text.count("\n") + 1 for text in labels)) + 0.14
    map_inches = max(1.2, row_inches * len(labels))
    heights = ([FILMSTRIP_INCHES] if film is not None else []) + [map_inches]
    figure = new_figure(PLOT_INCHES + 3.0, sum(heights) + 1.25)
    grid = figure.add_gridspec(
        len(heights), 2, height_ratios=heights, width_ratios=[PLOT_INCHES, 0.16], hspace=0.02, wspace=0.02
    )
    axes = figure.add_subplot(grid[-1, 0])
    _draw_heat_map(figure, axes, figure.add_subplot(grid[-1, 1]), 1 - cost, labels, rate=rate)
    handles = [_draw_path(axes, on_path, rate=rate, measure=str(getattr(alignment, "measure", "dtw")))]
    if true_spans is not None and span_rows is not None and len(true_spans):
        handles.append(_draw_true_spans(axes, true_spans, span_rows))
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.42 / map_inches), ncols=len(handles), frameon=False
    )
    if film is not None:
        strip = figure.add_subplot(grid[0, 0], sharex=axes)
        _draw_filmstrip(strip, *film, duration_seconds=cost.shape[1] / rate)
    top = figure.axes[-1] if film is not None else axes
    if title:
        top.set_title(title, loc="left")
    return saved(figure, path)


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
        # Around scattered dots the white would be drawn as a line from one to the next.
        path_effects=[Stroke(linewidth=4.4, foreground="white"), Normal()] if chain else None,
        markeredgecolor=PATH_COLOR if chain else "white",
    )
    return line


def _draw_true_spans(axes: Axes, true_spans: Sequence[tuple[float, float]], rows: Sequence[int]) -> Any:
    from matplotlib.patches import Rectangle

    patch: Any = None
    for row, (start, end) in zip(rows, true_spans, strict=True):
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
