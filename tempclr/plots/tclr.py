"""The pictures of TCLR: slices of the feature map compared, classes in the plane, attention, nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tempclr.plots.style import COLORS, matrix, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Neighbours", "plot_attention", "plot_classes", "plot_neighbours", "plot_slice_similarity"]

MARKERS = "os^DvP*Xhd<>"
RIGHT_COLOR, WRONG_COLOR = COLORS[2], COLORS[1]


@dataclass(frozen=True)
class Neighbours:
    """A query and the gallery videos found for it, nearest first: frames ``(T, H, W, 3)`` uint8 and classes."""

    frames: NDArray
    label: str
    found_frames: Sequence[NDArray]
    found_labels: Sequence[str]


def plot_slice_similarity(similarities: Mapping[str, ArrayLike], *, path: str | PathLike[str] | None = None) -> Figure:
    """How alike the timesteps of a clip's feature map are, one panel a model; after Fig. 13 of the TCLR paper.

    ``similarities``: name of a model -> mean cosine of its timesteps ``(T, T)``, as
    :func:`tempclr.evaluation.classification_features.slice_similarity` gives it. All panels share their colours.
    """
    maps = {name: matrix(values) for name, values in _filled(similarities).items()}
    low = min(0.0, *(float(values.min()) for values in maps.values()))
    figure = new_figure(0.7 + 2.3 * len(maps), 2.9)
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, values) in zip(panels, maps.items(), strict=True):
        image = axes.imshow(values, cmap="Blues", vmin=low, vmax=1.0)
        for row, column in np.ndindex(values.shape):
            dark = (values[row, column] - low) / (1.0 - low) > 0.6
            text = f"{round(float(values[row, column]), 2) + 0.0:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "0.1")
        ticks = range(len(values)), [str(step + 1) for step in range(len(values))]
        axes.set_xticks(*ticks)
        axes.set_yticks(*ticks)
        axes.set_title(name, fontsize=10)
        axes.tick_params(length=0)
    panels[0].set_ylabel("timestep")
    figure.supxlabel("timestep of the same clip", fontsize=9)
    figure.colorbar(image, ax=list(panels), label="mean cosine", shrink=0.85)
    return saved(figure, path)


def plot_classes(
    places: Mapping[str, ArrayLike], labels: Sequence[str], *, path: str | PathLike[str] | None = None
) -> Figure:
    """Videos as points, their class as colour and mark, one panel a model; after Fig. 15 of the TCLR paper.

    ``places``: name of a model -> ``(N, 2)``, as :func:`tempclr.plots.tclr_tsne.tsne` gives it; ``labels``: N classes.
    """
    figure = new_figure(0.4 + 3.3 * len(_filled(places)), 4.0)
    panels = figure.subplots(1, len(places), squeeze=False)[0]
    classes = sorted(set(labels))
    for axes, (name, points) in zip(panels, places.items(), strict=True):
        spots = np.asarray(points, dtype=np.float64)
        if spots.shape != (len(labels), 2):
            raise ValueError(f"{name!r} must be ({len(labels)}, 2), a place for each label, got {spots.shape}")
        for number, label in enumerate(classes):
            own = spots[[one == label for one in labels]]
            look = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
            axes.scatter(own[:, 0], own[:, 1], s=18, linewidths=0.3, edgecolors="white", label=label, **look)
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[:].set_color("0.8")
    handles, names = panels[0].get_legend_handles_labels()
    columns = max(1, min(len(names), 2 + 2 * len(places)))
    figure.legend(
        handles,
        [one.replace("$", r"\$") for one in names],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
    )
    return saved(figure, path)


def plot_attention(
    frames: NDArray,
    attention: Mapping[str, ArrayLike],
    *,
    max_frames: int = 6,
    path: str | PathLike[str] | None = None,
) -> Figure:
    """A row of frames, and below it a row for each model of where its features are strong; after Fig. 17 of the paper.

    Args:
        frames: ``(T, H, W, 3)`` uint8 of one clip.
        attention: name of a model -> ``(T', h, w)`` from 0 to 1, as
            :func:`tempclr.evaluation.classification_features.attention_maps` gives it, of the whole frame; timesteps
            are spread over the clip.
        max_frames: columns.
    """
    pictures = np.asarray(frames)
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or not len(pictures):
        raise ValueError(f"frames must be (T, H, W, 3), got shape {pictures.shape}")
    num_columns = min(max_frames, len(pictures))
    columns = [int((column + 0.5) * len(pictures) / num_columns) for column in range(num_columns)]
    names = ["frames", *_filled(attention)]
    height, width = pictures.shape[1:3]
    cell = 1.25
    figure = new_figure(1.3 + cell * num_columns * width / height, 0.1 + cell * len(names))
    grid = figure.subplots(len(names), num_columns, squeeze=False)
    for row, name in enumerate(names):
        for axes, frame in zip(grid[row], columns, strict=True):
            extent = (0, width, height, 0)
            if row == 0:
                axes.imshow(pictures[frame], extent=extent)
            else:
                maps = np.asarray(attention[name], dtype=np.float64)
                axes.imshow(pictures[frame].mean(axis=-1), cmap="gray", vmin=0, vmax=255, extent=extent)
                step = min(frame * len(maps) // len(pictures), len(maps) - 1)
                look: dict[str, Any] = {"cmap": "inferno", "alpha": 0.6, "vmin": 0, "vmax": 1, "extent": extent}
                axes.imshow(maps[step], interpolation="bilinear", **look)
            _bare(axes)
        grid[row][0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return saved(figure, path)


def plot_neighbours(
    queries: Sequence[Neighbours], *, num_frames: int = 3, path: str | PathLike[str] | None = None
) -> Figure:
    """A row a query: some of its frames, then those of the nearest videos; after Fig. 14 of the TCLR paper.

    A neighbour of the query's class is framed in green and ticked, another one in orange and crossed.
    """
    if not queries:
        raise ValueError("there is no query to draw")
    most = max(len(query.found_frames) for query in queries)
    height, width = np.asarray(queries[0].frames).shape[1:3]
    cell = 0.8
    figure = new_figure(
        0.3 + (1 + most) * (0.15 + cell * num_frames * width / height), 0.3 + (cell + 0.32) * len(queries)
    )
    grid = figure.subplots(len(queries), 1 + most, squeeze=False)
    for row, query in enumerate(queries):
        _draw_strip(grid[row][0], query.frames, num_frames, f"query: {query.label}", "0.2")
        found = zip(query.found_frames, query.found_labels, strict=True)
        for column, (frames, label) in enumerate(found, start=1):
            right = label == query.label
            color = RIGHT_COLOR if right else WRONG_COLOR
            _draw_strip(grid[row][column], frames, num_frames, f"{'✓' if right else '✗'} {label}", color)
        for axes in grid[row][1 + len(query.found_frames) :]:
            axes.set_visible(False)
    return saved(figure, path)


def _draw_strip(axes: Axes, frames: NDArray, num_frames: int, title: str, color: str) -> None:
    pictures = np.asarray(frames)
    chosen = [int((place + 0.5) * len(pictures) / num_frames) for place in range(num_frames)]
    axes.imshow(np.concatenate([pictures[frame] for frame in chosen], axis=1))
    axes.set_title(title.replace("$", r"\$"), fontsize=8, color=color, pad=3)
    _bare(axes)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(color)
    axes.spines[:].set_linewidth(2)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _filled(named: Mapping[str, Any]) -> Mapping[str, Any]:
    if not named:
        raise ValueError("there is no model to draw")
    return named
