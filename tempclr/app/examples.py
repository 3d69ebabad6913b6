"""What there is to try: rows of a dataset whose videos are files, or a few that the demo's generator makes."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tempclr.errors import InputError

MAX_EXAMPLES = 4
NUM_MADE = 3


@dataclass(frozen=True)
class Example:
    """A video file and its sentences."""

    video: Path
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences as one types them."""
        return "\n".join(self.sentences)


def read_examples(source: str | PathLike[str]) -> list[Example]:
    """The first rows of a dataset (anything ``load_rows`` takes) as examples, at most MAX_EXAMPLES.

    Raises:
        InputError: the dataset cannot be read, or a row has no video that is there.
    """
    from tempclr.data.row_files import load_rows, row_source
    from tempclr.data.rows import read_paragraph

    rows = load_rows(source)
    place = row_source(source, rows)
    return [
        _example(read_paragraph(rows[row], source=place, index=row), place, row)
        for row in range(min(len(rows), MAX_EXAMPLES))
    ]


def _example(paragraph: Any, source: str, row: int) -> Example:
    if paragraph.video is None or not Path(paragraph.video).is_file():
        raise InputError(
            f"an example needs a video file, found {paragraph.video!r}", file=source, row=row, field="video"
        )
    return Example(Path(paragraph.video), tuple(paragraph.sentences))


def make_examples(folder: str | PathLike[str]) -> list[Example]:
    """Generated videos that perform a few steps each, of the kind ``tempclr demo`` tests its models on."""
    from tempclr.data.demo import DemoSettings, generate

    settings = DemoSettings(num_train=0, num_validation=0, num_test=NUM_MADE)
    return read_examples(generate(folder, settings, show_progress_bar=False)["test"])
