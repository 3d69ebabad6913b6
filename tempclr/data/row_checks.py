"""Checks of a paragraph's fields: each takes what was found and gives it back in its plain type, or says why not."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from tempclr.errors import InputError

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 4, 8, 8, 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60

Spans = tuple[tuple[float, float], ...]


def check_text(value: Any, field: str) -> None:
    """Refuse what is not a text, or an empty one."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"expected a text that is not empty, found {shortened(value)}", field=field)


def sentence_list(values: Any, field: str = "sentences") -> list[str]:
    """One or more texts."""
    _check_list(values, f"a list of {field}", field)
    if not len(values):
        raise InputError(f"empty paragraph: expected at least one of the {field}", field=field)
    for number, text in enumerate(values):
        if not isinstance(text, str) or not text.strip():
            message = f"{field[:-1]} {number} must be a text that is not empty, found {shortened(text)}"
            raise InputError(message, field=field)
    return [str(text) for text in values]


def seconds_list(values: Any, field: str, num_sentences: int) -> list[float]:
    """One time a sentence, in seconds from the start of the video."""
    _check_list(values, "a list of seconds", field)
    _check_count(values, field, num_sentences)
    for number, value in enumerate(values):
        if not _is_finite(value):
            raise InputError(f"entry {number} must be a finite number of seconds, found {value!r}", field=field)
        if value < 0:
            raise InputError(f"entry {number} is negative: {value!r} seconds", field=field)
    return [float(value) for value in values]


def check_order(starts: Sequence[float], ends: Sequence[float]) -> None:
    """Spans come by their start, and none is empty."""
    for number in range(1, len(starts)):
        if starts[number] < starts[number - 1]:
            found = f"entry {number} ({starts[number]}) comes before entry {number - 1} ({starts[number - 1]})"
            raise InputError(f"must be in ascending order: {found}; sort the sentences by time", field="starts")
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end <= start:
            raise InputError(f"entry {number} must be after its start: [{start}, {end})", field="ends")


def ends_within(starts: Sequence[float], ends: Sequence[float], duration_seconds: float) -> list[float]:
    """The ends, cut to where the features end; a start beyond that is an error."""
    for number, start in enumerate(starts):
        if start >= duration_seconds:
            found = f"entry {number} starts at {start} s but the features end at {duration_seconds} s"
            raise InputError(found, field="starts")
    return [min(end, duration_seconds) for end in ends]


def step_tuples(steps: Any, step_indices: Any, num_sentences: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """All steps of a task in their order, and which of them each sentence is; neither comes without the other."""
    for field, value, other in (("steps", steps, "step_indices"), ("step_indices", step_indices, "steps")):
        if value is None:
            raise InputError(f"missing: {other} are given, and the two belong together", field=field)
    texts = sentence_list(steps, "steps")
    _check_list(step_indices, "a list of step numbers", "step_indices")
    _check_count(step_indices, "step_indices", num_sentences)
    for number, index in enumerate(step_indices):
        if isinstance(index, bool) or not isinstance(index, Integral) or not 0 <= int(index) < len(texts):
            message = f"entry {number} must be a number from 0 to {len(texts) - 1}, found {shortened(index)}"
            raise InputError(message, field="step_indices")
    return tuple(texts), tuple(int(index) for index in step_indices)


def annotator_span_tuples(values: Any, num_sentences: int) -> tuple[Spans, ...]:
    """For each sentence the ``[start, end)`` seconds of every annotator, one or more."""
    field = "annotator_spans"
    _check_list(values, "a list of the annotators' spans of each sentence", field)
    _check_count(values, field, num_sentences)
    return tuple(_spans(spans, number, field) for number, spans in enumerate(values))


def _spans(spans: Any, number: int, field: str) -> Spans:
    _check_list(spans, f"for sentence {number} a list of [start, end)", field)
    if not len(spans):
        raise InputError(f"sentence {number} has no annotator's span", field=field)
    for span in spans:
        if isinstance(span, str) or not isinstance(span, Sequence | np.ndarray) or len(span) != 2:
            raise InputError(f"sentence {number}: expected [start, end), found {shortened(span)}", field=field)
        if not all(_is_finite(value) for value in span) or not 0 <= span[0] < span[1]:
            message = f"sentence {number}: expected seconds with 0 <= start < end, found {shortened(span)}"
            raise InputError(message, field=field)
    return tuple((float(start), float(end)) for start, end in spans)


def feature_array(values: Any) -> np.ndarray:
    """Float32 ``(T, D)`` of finite numbers, and writeable."""
    try:
        array = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InputError(f"expected (T, D) numbers, found {shortened(values)}: {error}", field="features") from None
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"expected shape (T, D) with T, D > 0, found {array.shape}", field="features")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InputError(f"NaN or infinite value in feature {int(np.argmin(finite))}", field="features")
    return array if array.flags.writeable else array.copy()  # torch.from_numpy warns of arrays it could not write to


def positive_rate(value: Any) -> float:
    """Features a second."""
    if value is None:
        raise InputError("missing: features need their rate", field="features_per_second")
    if not _is_finite(value) or value <= 0:
        raise InputError(f"expected a positive number, found {value!r}", field="features_per_second")
    return float(value)


def shortened(value: Any) -> str:
    """A value in at most 60 characters of one line, however large or deep it is."""
    try:
        text = _SHORT.repr(value).replace("\n", " ")
    except ValueError:  # a whole number of thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_list(values: Any, expected: str, field: str) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise InputError(f"expected {expected}, found {shortened(values)}", field=field)


def _check_count(values: Any, field: str, num_sentences: int) -> None:
    if len(values) != num_sentences:
        raise InputError(f"expected one entry a sentence: {len(values)} for {num_sentences} sentences", field=field)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
