"""A model made ready for the videos and sentences of others: checked once, bounded, and told how far it has come."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tempclr.errors import InputError
from tempclr.inference import Alignment

MAX_SENTENCES = 100
MAX_CHARACTERS = 500
MAX_MINUTES = 30.0
KEPT_VIDEOS = 8  # whose features stay in memory, so that other sentences or another measure take no second decoding

Item = TypeVar("Item")


class Aligner:
    """Aligns uploaded videos with typed sentences, by one model that is loaded and checked once.

    Args:
        model: a ``TempCLRModel``.
        max_minutes: longer videos are refused before they are decoded.

    Raises:
        InputError: the model cannot take text or videos: it has no processor, records no feature recipe, or the
            backbone of its recipe is missing or another one.

    >>> Aligner(model).align("video.mp4", "peel it\\nfry it", measure="dtw").spans  # doctest: +SKIP
    """

    def __init__(self, model: Any, *, max_minutes: float = MAX_MINUTES) -> None:
        from tempclr.data.extractor import FeatureExtractor, FeatureRecipe
        from tempclr.data.isolated_decoding import IsolatedDecoder

        recipe = model.config.video_config.feature_recipe
        if model.processor is None:
            raise InputError("this model has no processor, so it cannot read sentences: save one into its folder")
        if recipe is None:
            raise InputError(
                "this model does not record how features are made from videos (video_config.feature_recipe), so it "
                "cannot take a video file: extract features with 'tempclr extract', which records it, and train on them"
            )
        if not (math.isfinite(max_minutes) and max_minutes > 0):
            raise InputError(f"max_minutes must be a positive number, got {max_minutes!r}")
        self.model, self.max_minutes = model, max_minutes
        # What strangers upload is decoded in processes of their own, which end with this one.
        decode = IsolatedDecoder().iterate_frames
        self._extractor = FeatureExtractor(FeatureRecipe.from_dict(recipe), device=model.device, decode=decode)
        self._features: OrderedDict[tuple[str, int, int], np.ndarray] = OrderedDict()

    def align(
        self,
        video: str | Path | None,
        text: str,
        *,
        measure: str,
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> Alignment:
        """The alignment ``model.align`` gives for the file, with the lines of ``text`` as its sentences.

        Its ``video`` is the file's name alone.

        ``on_progress`` hears the share of the video that is read, from 0 to 1.

        Raises:
            InputError: no video, no or too many sentences, a video that is too long or cannot be decoded.
            ValueError: "localize" with fewer features than sentences.
        """
        from tempclr.data.video import probe

        if not video:
            raise InputError("there is no video yet: choose a file, or one of the examples")
        sentences = split_sentences(text)
        seconds = probe(video).duration_seconds
        if seconds is not None and seconds > 60 * self.max_minutes:
            raise InputError(
                f"the video lasts {seconds / 60:.0f} minutes, this page takes up to {self.max_minutes:g}: cut it, or "
                "run 'tempclr align' on it"
            )
        features = self._features_of(Path(video), seconds, on_progress)
        rate = self._extractor.recipe.features_per_second
        alignment = self.model.align(features, sentences, measure=measure, features_per_second=rate)
        duration = alignment.duration if seconds is None else min(seconds, alignment.duration)
        return replace(_ending(alignment, duration), video=Path(video).name)

    def _features_of(self, video: Path, seconds: float | None, on_progress: Callable[[float], None]) -> np.ndarray:
        file = video.stat()
        key = (str(video), file.st_mtime_ns, file.st_size)
        if key not in self._features:
            num_frames = None if seconds is None else seconds * self._extractor.recipe.frames_per_second
            batches = _counted(self._extractor.prepare(video), total=num_frames, on_progress=on_progress)
            self._features[key] = self._extractor.encode(batches)
        self._features.move_to_end(key)
        while len(self._features) > KEPT_VIDEOS:
            self._features.popitem(last=False)
        return self._features[key]


def split_sentences(text: str) -> list[str]:
    """The lines of a text that are not empty, as sentences.

    Raises:
        InputError: there are none, more than MAX_SENTENCES, or one of more than MAX_CHARACTERS characters.

    >>> split_sentences(" peel the onion\\n\\nfry it ")
    ['peel the onion', 'fry it']
    """
    sentences = [" ".join(line.split()) for line in (text or "").splitlines() if line.strip()]
    if not sentences:
        raise InputError("there is no sentence yet: type one on each line, in the order in which they happen")
    if len(sentences) > MAX_SENTENCES:
        raise InputError(f"these are {len(sentences)} sentences, this page takes up to {MAX_SENTENCES}: remove some")
    for number, sentence in enumerate(sentences, start=1):
        if len(sentence) > MAX_CHARACTERS:
            raise InputError(
                f"sentence {number} has {len(sentence)} characters, this page takes up to {MAX_CHARACTERS}: shorten it"
            )
    return sentences


# Note [The video ends within a feature]: features come in whole spans, so the last one may reach beyond the end of the
# video. model.align knows the file and divides the part that is there; here it is given features, for the sake of the
# progress, so the times within the last feature are moved in alike.
def _ending(alignment: Alignment, duration: float) -> Alignment:
    width = 1 / alignment.features_per_second
    last = alignment.duration - width
    shrink = (duration - last) / width

    def moved(seconds: float | None) -> float | None:
        return seconds if seconds is None or seconds <= last else last + (seconds - last) * shrink

    spans = [
        {**span, "start_seconds": moved(span["start_seconds"]), "end_seconds": moved(span["end_seconds"])}
        for span in alignment.spans
    ]
    return replace(alignment, spans=spans, duration=duration)


def _counted(batches: Iterable[Item], *, total: float | None, on_progress: Callable[[float], None]) -> Iterator[Item]:
    """The same batches of frames; says of each how far the video is read."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)  # type: ignore[arg-type]
        if total:
            on_progress(min(done / total, 1.0))
