"""Captions of automatic speech recognition: what neighbouring ones repeat of each other is said once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["CAPTION_OVERLAPS", "Caption", "deduplicate_captions"]

CAPTION_OVERLAPS = ("words", "characters")


class Caption(NamedTuple):
    """A text spoken from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str


def deduplicate_captions(
    starts: Sequence[float],
    ends: Sequence[float],
    texts: Sequence[str | None],
    *,
    overlap: str = "words",
    generator: random.Random | None = None,
) -> list[Caption]:
    """Clean a video's captions and take out what each one repeats of the one before it.

    Captions that roll over the screen repeat words of their predecessors. One after another, a caption that its
    predecessor ends with is merged into it; one that begins with its whole predecessor takes its place; of two that
    share the end of the one and the beginning of the other, one of the two, by a fair draw, loses what they share, and
    its time ends or begins where the other's begins or ends. Texts that are no str or blank are left out first, and
    line breaks become spaces. With ``"words"`` every caption keeps a length above 0 and starts ascend, as in a dataset
    row, wherever they did before.

    Args:
        starts, ends: seconds, ``[start, end)``, in ascending order of the starts.
        texts: one a caption.
        overlap: ``"words"`` compares whole words and takes out the longest overlap. ``"characters"`` is the released
            preparation, see Note [Captions lose letters].
        generator: of the draws; None is Python's global one.

    Raises:
        ValueError: another ``overlap``, or lists of several lengths.

    >>> deduplicate_captions([0, 2], [3, 5], ["cut the bread", "cut the bread and butter it"])
    [Caption(start=0, end=5, text='cut the bread and butter it')]
    """
    if overlap not in CAPTION_OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(CAPTION_OVERLAPS)}, got {overlap!r}")
    if not len(starts) == len(ends) == len(texts):
        raise ValueError(f"one start and one end a caption: got {len(starts)}, {len(ends)} for {len(texts)} texts")
    draw = random.random if generator is None else generator.random
    rules = _WORDS if overlap == "words" else _CHARACTERS
    kept: list[Caption] = []
    for start, end, text in zip(starts, ends, texts, strict=True):
        clean = text.replace("\n", " ").strip() if isinstance(text, str) else ""
        if clean:
            _join(kept, Caption(start, end, clean), rules, draw)
    return _ascending(kept) if rules.as_rows else kept


# Note [Captions lose letters]: the released preparation compares characters and takes out the shortest overlap, one
# letter where two captions share it: "... the pot" and "then stir" become "... the po" and "then stir", or "... the
# pot" and "hen stir". Whole words are the default; "characters" reproduces what the released models were trained on,
# with its times too, among which a caption may last 0 seconds or begin after the next one.


class _Rules(NamedTuple):
    """What texts are compared by, which overlap counts, and whether times must be those of a dataset row."""

    joined_by: str
    shortest: bool
    as_rows: bool

    def units(self, text: str) -> list[str]:
        return text.split() if self.joined_by else list(text)

    def shared(self, one: list[str], other: list[str]) -> int:
        """How many units end the one and begin the other, 0 for none."""
        sizes = [size for size in range(1, min(len(one), len(other)) + 1) if one[-size:] == other[:size]]
        return 0 if not sizes else sizes[0] if self.shortest else sizes[-1]


_WORDS = _Rules(" ", shortest=False, as_rows=True)
_CHARACTERS = _Rules("", shortest=True, as_rows=False)


def _join(kept: list[Caption], new: Caption, rules: _Rules, draw: Callable[[], float]) -> None:
    if not kept:
        kept.append(new)
        return
    last = kept[-1]
    one, other = rules.units(last.text), rules.units(new.text)
    if one[-len(other) :] == other:
        kept[-1] = last._replace(end=max(last.end, new.end))
    elif other[: len(one)] == one:
        kept[-1] = Caption(min(last.start, new.start), max(last.end, new.end), new.text)
    else:
        shared = rules.shared(one, other)
        if shared and draw() > 0.5:
            start = max(last.end, new.start)
            if rules.as_rows and start >= new.end:
                start = new.start
            new = Caption(start, max(new.end, start), rules.joined_by.join(other[shared:]).strip())
        elif shared:
            end = min(last.end, new.start)
            if rules.as_rows and end <= last.start:
                end = last.end
            kept[-1] = last._replace(end=end, text=rules.joined_by.join(one[:-shared]).strip())
        kept.append(new)


def _ascending(captions: list[Caption]) -> list[Caption]:
    """A start that moved behind the next caption's goes back to it."""
    for position in reversed(range(len(captions) - 1)):
        start = min(captions[position].start, captions[position + 1].start)
        captions[position] = captions[position]._replace(start=start)
    return captions
