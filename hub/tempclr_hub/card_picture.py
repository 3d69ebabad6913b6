"""The picture of a model card: the alignment of one video, drawn from the run, and the words that go with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["PICTURE_FILE", "Picture", "draw_alignment", "draw_if_possible", "first_example", "with_picture"]

_log = logging.getLogger(__name__)
PICTURE_FILE = "alignment.png"
NUM_TRIED = 50
NUM_SENTENCES = (3, 12)
_SECTION = re.compile(r"^## Alignment\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Picture:
    """What a card says of ``alignment.png``: to those who do not see it, and below it."""

    alternative: str
    caption: str

    def section(self) -> str:
        return f"## Alignment\n\n![{self.alternative}]({PICTURE_FILE})\n\n{self.caption}\n\n"


def first_example(examples: Iterable[Any], *, source: str = "the examples") -> Any:
    """The paragraph to draw, as a ``Paragraph``: by its place, never by how well it comes out.

    It is the first among the first 50 with features and three to twelve sentences, or else the first of all.
    ``examples``: paragraphs, rows, or a dataset of either; ``source``: where rows are from.

    Raises:
        InputError: there is none, or a row cannot be read.
    """
    from tempclr.errors import InputError

    found = list(islice(_paragraphs(examples, source), NUM_TRIED))
    if not found:
        raise InputError("there is no example to draw")
    least, most = NUM_SENTENCES
    fitting = (one for one in found if one.features is not None and least <= len(one.sentences) <= most)
    return next(fitting, found[0])


def draw_alignment(
    model: Any, paragraph: Any, folder: str | PathLike[str], *, split: str, processor: Any = None
) -> Picture:
    """Align ``paragraph`` by DTW and draw it as ``folder/alignment.png``; returns what to say of it.

    ``split``: the data that the paragraph is of, as in "the validation data". ``processor``: for a model without one.

    Raises:
        InputError: the paragraph has no features, or they are not those that the model takes.
    """
    from tempclr.evaluation.localization import features_and_rate
    from tempclr.inference import align
    from tempclr.plots import plot_alignment

    features, rate = features_and_rate(paragraph)
    own = model.processor
    model.processor = processor if own is None else own
    try:
        aligned = align(model, features, list(paragraph.sentences), measure="dtw", features_per_second=rate)
    finally:
        model.processor = own
    name = _public_name(paragraph.video_id)
    plot_alignment(
        aligned,
        true_spans=list(zip(paragraph.starts, paragraph.ends, strict=True)),
        title=name.replace("$", r"\$"),
        path=Path(folder) / PICTURE_FILE,
    )
    return Picture(
        alternative=f"Heat map: similarity of {len(aligned.spans)} sentences to each second of a video, with the DTW "
        "path from the upper left to the lower right and a frame around each true segment",
        caption=f"Video `{name}` of {split}, aligned by this model with DTW. The darker, the more similar a sentence "
        "is to a second; the line is the path, black frames are the true segments. The video was taken by its place in "
        "the data, not by how well it comes out.",
    )


def draw_if_possible(model: Any, examples: Any, folder: str | PathLike[str], **options: Any) -> Picture | None:
    """:func:`draw_alignment` of the first example; a card without a picture, and a warning, where that cannot be."""
    try:
        return draw_alignment(model, first_example(examples), folder, **options)
    except Exception as error:  # a dataset of any kind may be given, and a card matters less than what it describes
        _log.warning("the card has no picture: %s", " ".join(str(error).split()))
        return None


def with_picture(card: str, picture: Picture | None) -> str:
    """The card with the section of its picture, before its limits; without one for ``None``."""
    card = _SECTION.sub("", card).rstrip() + "\n"
    if picture is None:
        return card
    before, limits, after = card.partition("\n## Limits\n")
    if not limits:
        return f"{before}\n{picture.section().rstrip()}\n"
    return f"{before}\n{picture.section().rstrip()}\n{limits}{after}"


def _paragraphs(examples: Any, source: str) -> Iterator[Any]:
    from tempclr.data.rows import Paragraph, read_paragraph

    for index, row in enumerate(getattr(examples, "paragraphs", examples)):
        yield row if isinstance(row, Paragraph) else read_paragraph(row, source=source, index=index)


def _public_name(video_id: str) -> str:
    name = Path(video_id).name if Path(video_id).is_absolute() else video_id
    return " ".join(name.replace("`", "'").split())
