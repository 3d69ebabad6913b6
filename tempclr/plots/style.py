"""What all pictures share: colours, labels, checks, and a figure that is saved whole or not at all."""

from __future__ import annotations

import textwrap
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


def label(sentence: str) -> str:
    lines = textwrap.wrap(sentence, LABEL_WIDTH, max_lines=MAX_LABEL_LINES, placeholder=" …") or [""]
    # A dollar sign would start a formula.
    return "\n".join(lines).replace("$", r"\$")


def matrix(values: Any) -> NDArray[np.float64]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    filled = np.asarray(values, dtype=np.float64)
    if filled.ndim != 2 or 0 in filled.shape:
        raise ValueError(f"expected a filled matrix (num_sentences, num_features), got shape {filled.shape}")
    return filled


def checked_frames(frames: ArrayLike | None, frame_seconds: ArrayLike | None) -> tuple[NDArray, NDArray] | None:
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


def new_figure(width_inches: float, height_inches: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), dpi=120, layout="constrained")


def quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def saved(figure: Figure, path: str | PathLike[str] | None) -> Figure:
    from tempclr.data.files import atomic_path

    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary)
    return figure
