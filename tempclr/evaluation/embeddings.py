"""What retrieval compares, embedded once: the sentences of each paragraph, the clips or windows of each video."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tempclr.data.sampling import cut_clips
from tempclr.distributed import shared_map
from tempclr.errors import InputError
from tempclr.evaluation.localization import features_and_rate, video_groups

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = [
    "Embeddings",
    "embed_paragraphs",
    "embed_segments",
    "embed_sentences",
    "embed_windows",
    "hidden_cls",
    "window_spans",
]


@dataclass(frozen=True)
class Embeddings:
    """Paragraphs and videos as padded sequences of vectors; paragraph i belongs to video i.

    Attributes:
        sentences: (num_videos, n, d) floating tensor, one vector a sentence.
        num_sentences: (num_videos,) int64, how many of them are real, at least 1.
        clips: (num_videos, m, d), one vector a segment or window, on the same device.
        num_clips: (num_videos,) int64.
        window_seconds, stride_seconds: None where the clips are annotated segments (background removed).

    What lies beyond the lengths may hold anything.

    Raises:
        ValueError: shapes, devices or lengths that do not fit, or a vector that is not finite.

    >>> one = torch.ones(2, 1, 4)
    >>> Embeddings(one, torch.tensor([1, 1]), one, torch.tensor([1, 1])).background
    'removed'
    """

    sentences: Tensor
    num_sentences: Tensor
    clips: Tensor
    num_clips: Tensor
    window_seconds: float | None = None
    stride_seconds: float | None = None

    def __post_init__(self) -> None:
        count = len(self.sentences)
        for name, lengths_name in (("sentences", "num_sentences"), ("clips", "num_clips")):
            values, lengths = getattr(self, name), getattr(self, lengths_name)
            if values.dim() != 3 or not values.is_floating_point() or not count:
                raise ValueError(f"{name} must be floating (num_videos, length, d), got {tuple(values.shape)}")
            if len(values) != count or lengths.shape != (count,):
                shapes = f"{tuple(values.shape)} and {tuple(lengths.shape)}"
                raise ValueError(f"{name} and {lengths_name} must have one entry for {count} videos, got {shapes}")
            if lengths.min() < 1 or lengths.max() > values.shape[1]:
                wrong = int(((lengths < 1) | (lengths > values.shape[1])).long().argmax())
                raise ValueError(f"{lengths_name}[{wrong}] is {int(lengths[wrong])}, expected 1 to {values.shape[1]}")
            broken = broken_sequences(values, lengths)
            if broken.any():
                place = f"{name}[{int(broken.long().argmax())}]"
                raise ValueError(f"{place} holds a vector that is not finite: check the features and the weights")
        if self.sentences.shape[2] != self.clips.shape[2] or self.sentences.device != self.clips.device:
            raise ValueError(
                f"sentences and clips must embed into one space on one device, got widths {self.sentences.shape[2]} "
                f"and {self.clips.shape[2]} on {self.sentences.device} and {self.clips.device}"
            )

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def background(self) -> str:
        """``"removed"`` for annotated segments, ``"kept"`` for windows over the whole video."""
        return "removed" if self.window_seconds is None else "kept"


def broken_sequences(values: Tensor, lengths: Tensor) -> Tensor:
    """(num_sequences,) bool: which hold a number that is not finite within their lengths."""
    beyond = torch.arange(values.shape[1], device=values.device) >= lengths[:, None]
    finite = torch.stack([sequence.isfinite().all(-1) for sequence in values])
    return ~(finite | beyond).all(-1)


def embed_paragraphs(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    background: str = "removed",
    window_seconds: float = 16.0,
    stride_seconds: float | None = None,
    sentences: tuple[Tensor, Tensor] | None = None,
    batch_size: int = 64,
    show_progress_bar: bool = False,
    across_ranks: bool = True,
) -> Embeddings:
    """Embed the paragraphs and their videos for :func:`tempclr.evaluation.retrieval_from_embeddings`.

    ``background="removed"``: one vector an annotated segment; ``"kept"``: one a window of ``window_seconds`` every
    ``stride_seconds`` (default: as long as the window). ``sentences``: what :func:`embed_sentences` gave before, so
    that a second background embeds no text again. Under ``torch.distributed`` the ranks share the work and all have all
    vectors, those of one process; every rank must call this, or one with ``across_ranks=False``. Raises
    :class:`InputError` for no paragraphs or no features.
    """
    if not len(paragraphs):
        raise InputError("no videos to evaluate: the dataset is empty")
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    options["across_ranks"] = across_ranks
    texts = embed_sentences(model, paragraphs, **options) if sentences is None else sentences
    if background == "removed":
        return Embeddings(*texts, *embed_segments(model, paragraphs, **options))
    stride_seconds = window_seconds if stride_seconds is None else stride_seconds
    clips = embed_windows(model, paragraphs, window_seconds=window_seconds, stride_seconds=stride_seconds, **options)
    return Embeddings(*texts, *clips, window_seconds=window_seconds, stride_seconds=stride_seconds)


def embed_sentences(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    batch_size: int = 64,
    show_progress_bar: bool = False,
    across_ranks: bool = True,
) -> tuple[Tensor, Tensor]:
    """(num_paragraphs, n, d) float32, zero padded, and (num_paragraphs,) lengths, on the model's device.

    A sentence that several paragraphs have is embedded once.
    """
    from tempclr.inference import encode_text

    sentences = [paragraph.sentences for paragraph in paragraphs]
    distinct = list(dict.fromkeys(chain.from_iterable(sentences)))
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    rows = dict(zip(distinct, encode_text(model, distinct, across_ranks=across_ranks, **options), strict=True))
    return _padded([torch.stack([rows[text] for text in own]) for own in sentences], device=model.device)


def embed_segments(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    batch_size: int = 64,
    show_progress_bar: bool = False,
    across_ranks: bool = True,
) -> tuple[Tensor, Tensor]:
    """One pooled vector for each annotated segment: (num_videos, m, d), zero padded, and (num_videos,) lengths."""

    def segments(paragraph: Paragraph) -> list[tuple[float, float]]:
        return list(zip(paragraph.starts, paragraph.ends, strict=True))

    bar = "embed videos" if show_progress_bar else None
    return _embed_spans(model, paragraphs, segments, batch_size=batch_size, bar=bar, across_ranks=across_ranks)


def embed_windows(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    window_seconds: float,
    stride_seconds: float,
    batch_size: int = 64,
    show_progress_bar: bool = False,
    across_ranks: bool = True,
) -> tuple[Tensor, Tensor]:
    """One pooled vector for each window over the whole video: (num_videos, m, d), zero padded, and (num_videos,)
    lengths."""

    def windows(paragraph: Paragraph) -> list[tuple[float, float]]:
        features, rate = features_and_rate(paragraph)
        return window_spans(len(features) / rate, window_seconds=window_seconds, stride_seconds=stride_seconds)

    bar = "embed videos" if show_progress_bar else None
    return _embed_spans(model, paragraphs, windows, batch_size=batch_size, bar=bar, across_ranks=across_ranks)


def window_spans(duration_seconds: float, *, window_seconds: float, stride_seconds: float) -> list[tuple[float, float]]:
    """Windows ``[start, end)`` over the whole video; the last one is cut at the end and is the first to reach it.

    >>> window_spans(5.0, window_seconds=2.0, stride_seconds=2.0)
    [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)]
    """
    num_windows = 1 + max(0, math.ceil(round((duration_seconds - window_seconds) / stride_seconds, 6)))
    starts = [index * stride_seconds for index in range(num_windows)]
    return [(start, min(start + window_seconds, duration_seconds)) for start in starts]


@contextmanager
def hidden_cls(model: Any) -> Iterator[None]:
    """Within the block features do not attend to [CLS], as in the released code's sliding windows."""
    config = model.video_model.config
    attended, config.attend_cls = config.attend_cls, False
    try:
        yield
    finally:
        config.attend_cls = attended


def _embed_spans(
    model: Any,
    paragraphs: Sequence[Paragraph],
    spans_of: Callable[[Paragraph], list[tuple[float, float]]],
    *,
    batch_size: int,
    bar: str | None,
    across_ranks: bool,
) -> tuple[Tensor, Tensor]:
    from tempclr.inference import encode_cut_clips, feature_array

    most = model.config.video_config.max_num_features

    def cut(index: int) -> list[np.ndarray]:
        paragraph = paragraphs[index]
        features, rate = features_and_rate(paragraph)
        array = feature_array(model, features)
        return cut_clips(array, spans_of(paragraph), features_per_second=rate, max_num_features=most)

    def embed(group: range) -> list[tuple[Tensor, list[bytes]]]:
        clips = [cut(index) for index in group]
        digests = [[blake2b(clip.tobytes(), digest_size=16).digest() for clip in own] for own in clips]
        return list(zip(encode_cut_clips(model, clips, batch_size=batch_size), digests, strict=True))

    groups = video_groups(len(paragraphs))
    embedded = list(chain.from_iterable(shared_map(embed, groups, across_ranks=across_ranks, bar=bar, size=len)))
    # Note [Equal clips have equal vectors]: the last bits of a vector depend on the batch that the clip is in. So that
    # videos that show the same tie, the first vector found for some features stands for all clips that have them.
    known: dict[bytes, Tensor] = {}
    vectors = [
        torch.stack([known.setdefault(digest, row) for digest, row in zip(digests, rows, strict=True)])
        for rows, digests in embedded
    ]
    return _padded(vectors, device=model.device)


def _padded(sequences: list[Tensor], *, device: torch.device) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    return pad_sequence(sequences, batch_first=True).to(device), lengths
