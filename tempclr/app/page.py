"""The pieces of the page as HTML text: player, timeline, list of sentences, heat map. Everything typed is escaped.

What is to be played from a moment carries it as ``data-seek``, what can be clicked anywhere its duration as
``data-scrub``; ``page.js`` does the rest, and ``page.css`` the looks.
"""

from __future__ import annotations

import base64
import io
from html import escape
from itertools import groupby
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tempclr.inference import Alignment

# Of neighbouring hues none are alike; white on each is readable, and each stands out from a white and a dark page.
COLORS = ("#1f6fc4", "#b85c00", "#21824a", "#b83f8c", "#0d7d86", "#8a6a00")
MAX_TICKS = 6
NUMBERED_SHARE = 0.05  # of the timeline, that a span needs for its number to fit in on a telephone
PATH_NAMES = {"dtw": "the DTW path", "otam": "the OTAM path", "localize": "the chosen moments"}


def render_header(model_name: str | None) -> str:
    """The title, what the page is for, and the model by name."""
    model = f'<p class="tc-model">Model: <code>{escape(model_name)}</code></p>' if model_name else ""
    return (
        '<header class="tc-header"><div><h1>When does each sentence happen?</h1>'
        "<p>Give a video and what happens in it, one sentence a line. TempCLR finds the seconds of each.</p></div>"
        f"{model}</header>"
    )


def render_player(url: str | None, *, name: str = "") -> str:
    """The video of that address with the browser's own controls, or the room for one."""
    if url is None:
        inside = '<p class="tc-empty">Your video appears here.</p>'
    else:
        inside = (
            f'<video controls playsinline preload="metadata" src="{escape(url)}" aria-label="{escape(name)}"></video>'
            '<p class="tc-unplayable" hidden>This browser cannot play the file, but it can be aligned all the same. '
            "An .mp4 file with H.264 plays nearly everywhere.</p>"
        )
    return f'<div class="tc-player">{inside}</div>'


def render_hint(text: str) -> str:
    """What to do next, where a result will be."""
    return f'<p class="tc-hint">{escape(text)}</p>'


def render_problem(message: str) -> str:
    """A mistake, told in words and read out at once by a screen reader."""
    return f'<div class="tc-problem" role="alert"><strong>This did not work:</strong> {escape(message)}</div>'


def render_alignment(alignment: Alignment) -> str:
    """All there is to see of an alignment: a summary, the timeline, the sentences with their times, the heat map."""
    return (
        '<section class="tc-result" aria-label="Alignment">'
        f"{_summary(alignment)}{_timeline(alignment)}{_sentences(alignment)}{_heat_map(alignment)}{_download(alignment)}"
        "</section>"
    )


def clock(seconds: float) -> str:
    """A time as players write it, to a tenth of a second where it is not whole.

    >>> clock(7), clock(67.25), clock(3600)
    ('0:07', '1:07.2', '1:00:00')
    """
    tenths = round(seconds * 10)
    whole, rest = divmod(tenths, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
    return f"{text}.{rest}" if rest else text


def _color(row: int) -> str:
    return COLORS[row % len(COLORS)]


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _share(seconds: float, alignment: Alignment) -> str:
    return _number(100 * seconds / alignment.duration)


def _matched(alignment: Alignment) -> list[tuple[int, dict[str, Any]]]:
    return [(row, span) for row, span in enumerate(alignment.spans) if span["start_seconds"] is not None]


def _summary(alignment: Alignment) -> str:
    found, total = len(_matched(alignment)), len(alignment.spans)
    what = f"{total} sentence{'s' if total > 1 else ''}" if found == total else f"{found} of {total} sentences found"
    return (
        f'<p class="tc-summary" role="status"><strong>{what}</strong> in {clock(alignment.duration)} of video '
        f"by <code>{escape(alignment.measure)}</code></p>"
    )


def _timeline(alignment: Alignment) -> str:
    """Each sentence's span in its colour. A shortcut for the pointer: the list below says the same to everyone."""
    spans = "".join(
        f'<span class="tc-span" style="left:{_share(span["start_seconds"], alignment)}%;'
        f'width:{_share(span["end_seconds"] - span["start_seconds"], alignment)}%;background:{_color(row)}" '
        f'data-seek="{_number(span["start_seconds"])}" data-row="{row}" '
        f'title="{escape(span["sentence"])}">{_label(row, span, alignment)}</span>'
        for row, span in _matched(alignment)
    )
    return (
        f'<div class="tc-timeline" aria-hidden="true" data-scrub="{_number(alignment.duration)}">'
        f'<div class="tc-track">{spans}<i class="tc-playhead"></i></div>{_axis(alignment)}</div>'
    )


def _label(row: int, span: dict[str, Any], alignment: Alignment) -> str:
    wide = span["end_seconds"] - span["start_seconds"] >= NUMBERED_SHARE * alignment.duration
    return f"<b>{row + 1}</b>" if wide else ""


def _axis(alignment: Alignment) -> str:
    steps = [first * ten for ten in (1, 10, 60, 600, 3600) for first in (1, 2, 5)]
    step = next((step for step in steps if alignment.duration / step <= MAX_TICKS), steps[-1])
    ticks = "".join(
        f'<span style="left:{_share(second, alignment)}%">{clock(second)}</span>'
        for second in range(0, int(alignment.duration) + 1, step)
        # The last tick is left out where its label would reach beyond the page.
        if second <= 0.97 * alignment.duration
    )
    return f'<div class="tc-axis">{ticks}</div>'


def _sentences(alignment: Alignment) -> str:
    rows = "".join(f"<li>{_sentence(row, span)}</li>" for row, span in enumerate(alignment.spans))
    return (
        '<h2>Sentences</h2><p class="tc-how">Choose one and the video plays from there.</p>'
        f'<ol class="tc-sentences" role="list">{rows}</ol>'
    )


def _sentence(row: int, span: dict[str, Any]) -> str:
    badge = f'<b class="tc-badge" style="background:{_color(row)}">{row + 1}</b>'
    text = f'<span class="tc-text">{escape(span["sentence"])}</span>'
    if span["start_seconds"] is None:
        return f'<div class="tc-row tc-missing">{badge}{text}<span class="tc-times">not in this video</span></div>'
    start, end = span["start_seconds"], span["end_seconds"]
    return (
        f'<button type="button" class="tc-row" data-seek="{_number(start)}" data-end="{_number(end)}" data-row="{row}">'
        f"{badge}{text}"
        f'<span class="tc-times">{clock(start)} to {clock(end)}'
        f"<small>similarity {span['similarity']:.2f}</small></span></button>"
    )


def _heat_map(alignment: Alignment) -> str:
    similarity = 1 - alignment.cost.double().numpy()
    num_sentences, num_features = similarity.shape
    covered = num_features / alignment.features_per_second
    finite = similarity[np.isfinite(similarity)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    numbers = "".join(f"<span>{row + 1}</span>" for row in range(num_sentences))
    path = _path(alignment)
    row_pixels = max(6, min(26, 300 // num_sentences))
    return (
        '<h2>Similarity</h2><figure class="tc-map">'
        f'<div class="tc-map-grid" style="--rows:{num_sentences};--row-height:{row_pixels}px">'
        f'<div class="tc-map-rows{" tc-dense" if row_pixels < 14 else ""}" aria-hidden="true">{numbers}</div>'
        f'<svg viewBox="0 0 {_number(alignment.duration)} {num_sentences}" preserveAspectRatio="none" role="img" '
        f'aria-label="Heat map of {num_sentences} sentences by {num_features} moments" '
        f'data-scrub="{_number(alignment.duration)}" data-measure="{escape(alignment.measure)}">'
        f'<image href="{_picture(similarity, low, high)}" width="{_number(covered)}" height="{num_sentences}" '
        'preserveAspectRatio="none"/>'
        f'<path class="tc-halo" d="{path}"/><path class="tc-path" d="{path}"/>'
        f'<line class="tc-playhead" x1="-1" x2="-1" y1="0" y2="{num_sentences}"/></svg>{_axis(alignment)}</div>'
        f"<figcaption>Each row is a sentence, each column a moment; darker is more similar, from {low:.2f} to "
        f"{high:.2f}. In orange {PATH_NAMES.get(alignment.measure, 'the path')}.</figcaption></figure>"
    )


def _path(alignment: Alignment) -> str:
    """A line through the middles of the chosen cells; "localize" chooses single moments, which become dots."""
    on_path: NDArray[np.bool_] = (alignment.path.numpy() > 0.5).T
    rate = alignment.features_per_second
    cells = [
        (min((column + 0.5) / rate, alignment.duration), row + 0.5)
        for column, rows in groupby(np.argwhere(on_path).tolist(), key=lambda cell: cell[0])
        for _, row in rows
    ]
    points = [f"{_number(x)} {_number(y)}" for x, y in cells]
    if alignment.measure == "localize":
        return "".join(f"M{point}h0" for point in points)
    return "M" + "L".join(points) + ("h0" if len(points) == 1 else "") if points else ""


def _picture(similarity: NDArray[np.float64], low: float, high: float) -> str:
    """The matrix as a PNG of one pixel a cell, in the colours of the library's other pictures."""
    from matplotlib import colormaps
    from PIL import Image

    shade = np.nan_to_num((similarity - low) / (high - low) if high > low else np.zeros_like(similarity))
    pixels = colormaps["Blues"](shade, bytes=True)[..., :3]
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(written, format="PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def _download(alignment: Alignment) -> str:
    return (
        '<p class="tc-download"><a download="alignment.json" '
        f'href="data:application/json;charset=utf-8,{quote(alignment.to_json())}">Save the times as JSON</a></p>'
    )
