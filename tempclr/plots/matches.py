"""Captions against clips: one video as the paper shows it, and the queries that were answered worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tempclr.plots.style import PATH_COLOR, label, matrix, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNIT_COLOR = "#0072B2"
MAX_NUMBERED = 16
"""Cells have their number written in them up to so many clips."""


@dataclass(frozen=True)
class Match:
    """A paragraph against one video: ``similarity`` and 0/1 ``path``, both (num_sentences, num_clips)."""

    video_id: str
    similarity: ArrayLike
    path: ArrayLike


@dataclass(frozen=True)
class Failure:
    """A query, the ``rank`` of its own video, and the video that was ranked first instead."""

    sentences: Sequence[str]
    rank: int
    own: Match
    first: Match


def plot_matches(
    similarity: ArrayLike,
    on_path: ArrayLike,
    sentences: Sequence[str],
    *,
    thumbnails: Sequence[NDArray] | None = None,
    clip_labels: Sequence[str] | None = None,
    measure: str = "DTW",
    title: str | None = None,
    path: str | PathLike[str] | None = None,
) -> Figure:
    """Every sentence against every clip of a video, the path outlined, the sentence's own best clip marked.

    After Fig. 3 to 7 of the TempCLR paper: captions down the side, clips along the top, similarities in the cells.
    Where the best clip of a sentence alone is not on the path, order has corrected (or misled) the match.

    Args:
        similarity: (num_sentences, num_clips).
        on_path: 0/1, of the same shape.
        sentences: one a row.
        thumbnails: one (H, W, 3) uint8 picture a clip, drawn above its column.
        clip_labels: written below the columns, e.g. the seconds; default: numbers.
        measure: what the path is called.
        title, path: as everywhere in this package.
    """
    values, chosen = matrix(similarity), matrix(on_path) > 0.5
    if values.shape != chosen.shape or len(values) != len(sentences):
        raise ValueError(
            f"one row a sentence: {len(sentences)} sentences, similarity {values.shape}, path {chosen.shape}"
        )
    num_clips = values.shape[1]
    for name, parts in (("thumbnails", thumbnails), ("clip_labels", clip_labels)):
        if parts is not None and len(parts) != num_clips:
            raise ValueError(f"one of {name} a clip: {len(parts)} for {num_clips} clips")
    cell = min(0.95, max(0.42, 9.0 / num_clips))
    strip = [0.75 * cell] if thumbnails is not None else []
    rows = 0.52 * len(values)
    figure = new_figure(3.2 + cell * num_clips, sum(strip) + rows + 1.15)
    grid = figure.add_gridspec(len(strip) + 1, 1, height_ratios=[*strip, rows], hspace=0.02)
    axes = figure.add_subplot(grid[-1])
    _draw_cells(axes, values, chosen, numbered=num_clips <= MAX_NUMBERED)
    axes.set_yticks(range(len(sentences)), [label(sentence) for sentence in sentences], fontsize=8.5)
    axes.set_xticks(range(num_clips), clip_labels or [str(clip + 1) for clip in range(num_clips)], fontsize=8)
    axes.set_xlabel("clips, in time order")
    _legend(figure, measure)
    top = axes
    if thumbnails is not None:
        top = figure.add_subplot(grid[0], sharex=axes)
        for clip, picture in enumerate(thumbnails):
            top.imshow(picture, extent=(clip - 0.47, clip + 0.47, 0, 1), aspect="auto", interpolation="antialiased")
        top.set_xlim(-0.5, num_clips - 0.5)
        top.set_ylim(0, 1)
        top.set_yticks([])
        top.tick_params(axis="x", length=0, labelbottom=False)
        top.spines[:].set_visible(False)
    if title:
        top.set_title(title.replace("$", r"\$"), loc="left", fontsize=10)
    return saved(figure, path)


def plot_failures(
    failures: Sequence[Failure], *, measure: str = "DTW", path: str | PathLike[str] | None = None
) -> Figure:
    """A row a query: its paragraph against its own video, and against the video that was ranked first.

    Both maps of a row share their colours, so the eye can tell which of them is closer, and where.
    """
    if not failures:
        raise ValueError("there is no failure to draw")
    heights = [0.62 + 0.2 * max(2, len(failure.sentences)) for failure in failures]
    figure = new_figure(11.0, sum(heights) + 0.5)
    grid = figure.add_gridspec(len(failures), 2, height_ratios=heights)
    for row, failure in enumerate(failures):
        maps = [matrix(match.similarity) for match in (failure.own, failure.first)]
        low, high = min(values.min() for values in maps), max(values.max() for values in maps)
        titles = (f"own video {failure.own.video_id}, rank {failure.rank}", f"ranked first: {failure.first.video_id}")
        for column, (match, values, title) in enumerate(zip((failure.own, failure.first), maps, titles, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            _draw_cells(axes, values, matrix(match.path) > 0.5, numbered=False, limits=(low, high))
            axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=8.5, pad=3)
            texts = [_short(sentence) for sentence in failure.sentences] if column == 0 else []
            axes.set_yticks(range(len(texts)), texts, fontsize=7)
            axes.set_xticks([])
    _legend(figure, measure)
    return saved(figure, path)


def _draw_cells(
    axes: Axes, values: NDArray, chosen: NDArray, *, numbered: bool, limits: tuple[float, float] | None = None
) -> None:
    from matplotlib.patches import Rectangle

    low, high = limits or (values.min(), values.max())
    axes.imshow(values, cmap="Greys", aspect="auto", vmin=low, vmax=high + 0.35 * (high - low), interpolation="nearest")
    best = values.argmax(axis=1)
    for row, column in np.ndindex(values.shape):
        if numbered:
            dark = high > low and (values[row, column] - low) / (high - low) > 0.7
            axes.text(
                column, row, f"{round(float(values[row, column]), 2) + 0.0:.2f}", ha="center", va="center", fontsize=7,
                color="white" if dark else "0.15",
            )  # fmt: skip
        if chosen[row, column]:
            axes.add_patch(
                Rectangle((column - 0.46, row - 0.43), 0.92, 0.86, fill=False, edgecolor=PATH_COLOR, linewidth=2)
            )
    off_path = [row for row in range(len(values)) if not chosen[row, best[row]]]
    axes.plot(
        best[off_path] - 0.32,
        np.array(off_path) - 0.26,
        linestyle="",
        marker="o",
        markersize=5,
        color=UNIT_COLOR,
        markeredgecolor="white",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _legend(figure: Figure, measure: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(fill=False, edgecolor=PATH_COLOR, linewidth=2, label=f"{measure} path"),
        Line2D(
            [], [], linestyle="", marker="o", color=UNIT_COLOR, markeredgecolor="white",
            label="best clip of the sentence alone, off the path",
        ),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)


def _short(sentence: str) -> str:
    cut = sentence if len(sentence) <= 30 else f"{sentence[:28]} …"
    return cut.replace("$", r"\$")
