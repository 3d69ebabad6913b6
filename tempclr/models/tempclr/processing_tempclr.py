"""The processor of TempCLR: sentences to ids, clips of features to one padded tensor, nested lists to paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

MASKS = ("sentence_mask", "video_mask", "clip_mask")
OPTIONS = ("return_tensors", "padding", "truncation", "max_length")
OPTION_GROUPS = ("text_kwargs", "common_kwargs")


class TempCLRProcessor(ProcessorMixin):
    """A tokenizer, and the padding of clips. (How features are made is recorded in the model's configuration.)

    ``max_text_tokens``: sentences are truncated to so many tokens, [CLS] and [SEP] included (63 as released), or to
    the tokenizer's own ``model_max_length`` where that is less. ``max_num_features``: clips are cut to their first so
    many features (32 as released). The first is filled with ``tokenizer.pad_token`` on the right.

    >>> from tempclr.data.tokenization import train_tokenizer
    >>> processor = TempCLRProcessor(train_tokenizer(["peel the onion", "fry it"]))
    >>> batch = processor(text=[["peel the onion", "fry it"]], video_features=[[np.zeros((3, 4)), np.zeros((2, 4))]])
    >>> {name: tuple(value.shape) for name, value in batch.items() if name in ("input_ids", "video_features")}
    {'input_ids': (1, 2, 5), 'video_features': (1, 2, 3, 4)}
    """

    # Not keyword-only: ProcessorMixin restores only what it sees among the positional parameters.
    def __init__(self, tokenizer: Any, max_text_tokens: int = 63, max_num_features: int = 32):
        super().__init__(tokenizer)
        for name, value in (("max_text_tokens", max_text_tokens), ("max_num_features", max_num_features)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        self.max_text_tokens, self.max_num_features = max_text_tokens, max_num_features

    @property
    def model_input_names(self) -> list[str]:
        return [
            "input_ids",
            "attention_mask",
            "video_features",
            "video_mask",
            "sentence_mask",
            "clip_mask",
            "clip_sentence_index",
        ]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        video_features: Any = None,
        *,
        clip_sentence_index: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Make the inputs of ``TempCLRModel`` from sentences, from clips, or from both.

        ``text``: a sentence, a list of sentences, or a list of paragraphs (lists of sentences). ``video_features``: a
        clip (T, F), a list of clips (any lengths) or an array (N, T, F), or a list of lists of clips. The nested forms
        give the shape of paragraphs, with ``sentence_mask`` (B, S) and ``clip_mask`` (B, C); ``clip_sentence_index``,
        for each clip the index of its sentence or -1, is then padded with -1.

        ``return_tensors``: "pt" (default), "np", or None for lists. ``padding``, ``truncation`` and ``max_length`` of
        the tokenizer may be given too, also in ``text_kwargs`` or ``common_kwargs``, as by transformers' processors.

        Returns ``input_ids``, ``attention_mask`` (int64), ``video_features`` (float32) and the masks (bool).

        Raises:
            ValueError: nothing was given, something is nested in another way, or text and clips disagree.
            TypeError: an option that is none of these.
        """
        options = _options(kwargs)
        return_tensors = options.pop("return_tensors", "pt")
        if text is None and video_features is None:
            raise ValueError("give text, video_features or both")
        arrays: dict[str, np.ndarray] = {}
        text_depth = feature_depth = None
        if text is not None:
            text_depth = _text_depth(text)
            arrays.update(
                self._tokenize_paragraphs(text, options) if text_depth == 2 else self._tokenize(_listed(text), options)
            )
        if video_features is not None:
            feature_depth = _feature_depth(video_features)
            arrays.update(
                self._pad_paragraphs(video_features)
                if feature_depth == 4
                else self._pad([video_features] if feature_depth == 2 else list(video_features))
            )
        _check_agreement(text_depth, feature_depth, arrays)
        if clip_sentence_index is not None:
            arrays["clip_sentence_index"] = _pad_index(clip_sentence_index, arrays.get("clip_mask"))
        if return_tensors is None:
            return BatchFeature({name: array.tolist() for name, array in arrays.items()})
        return BatchFeature(arrays, tensor_type=return_tensors)

    def _tokenize(self, sentences: Sequence[str], options: dict[str, Any]) -> dict[str, np.ndarray]:
        if not sentences:
            raise ValueError("text is an empty list")
        most = min(self.max_text_tokens, self.tokenizer.model_max_length)
        encoded = self.tokenizer(
            list(sentences),
            **{"padding": True, "truncation": True, "max_length": most, **options},
            padding_side="right",
            return_token_type_ids=False,
            return_attention_mask=True,
            return_tensors="np",
        )
        return {name: np.asarray(encoded[name], dtype=np.int64) for name in ("input_ids", "attention_mask")}

    def _tokenize_paragraphs(
        self, paragraphs: Sequence[Sequence[str]], options: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        mask = _lengths_mask([len(paragraph) for paragraph in paragraphs])
        flat = self._tokenize([sentence for paragraph in paragraphs for sentence in paragraph], options)
        arrays = {name: _unflatten(array, mask) for name, array in flat.items()}
        arrays["input_ids"][~mask] = self.tokenizer.pad_token_id
        return {**arrays, "sentence_mask": mask}

    def _pad(self, clips: Sequence[Any]) -> dict[str, np.ndarray]:
        clips = [_clip_array(clip)[: self.max_num_features] for clip in clips]
        if not clips:
            raise ValueError("video_features is an empty list")
        sizes = sorted({clip.shape[1] for clip in clips})
        if len(sizes) > 1:
            raise ValueError(f"all clips need features of one size, got {', '.join(map(str, sizes))}")
        mask = _lengths_mask([len(clip) for clip in clips])
        features = np.zeros((*mask.shape, sizes[0]), dtype=np.float32)
        for row, clip in zip(features, clips, strict=True):
            row[: len(clip)] = clip
        return {"video_features": features, "video_mask": mask}

    def _pad_paragraphs(self, paragraphs: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
        mask = _lengths_mask([len(clips) for clips in paragraphs])
        flat = self._pad([clip for clips in paragraphs for clip in clips])
        return {**{name: _unflatten(array, mask) for name, array in flat.items()}, "clip_mask": mask}

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        return self.tokenizer.batch_decode(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> str:
        return self.tokenizer.decode(*args, **kwargs)


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options in ``kwargs``, those in its groups included; one that is given twice may not differ."""
    options = {name: value for name, value in kwargs.items() if name not in OPTION_GROUPS}
    for group in OPTION_GROUPS:
        for name, value in (kwargs.get(group) or {}).items():
            if name in options and options[name] != value:
                raise ValueError(f"{name} is given twice, as {options[name]!r} and in {group} as {value!r}")
            options[name] = value
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"got an unexpected option {name!r}: this processor takes {', '.join(OPTIONS)}")
    return options


def _listed(text: Any) -> Sequence[str]:
    return [text] if isinstance(text, str) else text


def _text_depth(text: Any) -> int:
    if isinstance(text, str):
        return 0
    if isinstance(text, (list, tuple)) and all(isinstance(item, str) for item in text):
        return 1
    if isinstance(text, (list, tuple)) and all(
        isinstance(item, (list, tuple)) and all(isinstance(sentence, str) for sentence in item) for item in text
    ):
        return 2
    raise ValueError("text must be a sentence, a list of sentences or a list of lists of sentences")


def _feature_depth(features: Any) -> int:
    """Number of dimensions that nested lists and the arrays inside them have together: 2, 3 or 4."""
    depth = _depth(features)
    if depth not in (2, 3, 4):
        raise ValueError(
            "video_features must be a clip (T, F), a list of clips or a list of lists of clips, "
            f"got {depth} dimensions in all"
        )
    return depth


def _depth(value: Any) -> int:
    if hasattr(value, "ndim"):
        return value.ndim
    if isinstance(value, (list, tuple)):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0


def _clip_array(clip: Any) -> np.ndarray:
    if hasattr(clip, "detach"):
        clip = clip.detach().cpu().float()
    array = np.asarray(clip, dtype=np.float32)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"a clip must be a non-empty (T, F) array, got shape {array.shape}")
    return array


def _lengths_mask(lengths: Sequence[int]) -> np.ndarray:
    if not lengths or max(lengths) == 0:
        raise ValueError("every paragraph is empty")
    return np.arange(max(lengths))[None] < np.asarray(lengths)[:, None]


def _unflatten(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    padded = np.zeros((*mask.shape, *rows.shape[1:]), dtype=rows.dtype)
    padded[mask] = rows
    return padded


def _pad_index(index: Sequence[Sequence[int]], clip_mask: np.ndarray | None) -> np.ndarray:
    if clip_mask is None:
        raise ValueError("clip_sentence_index goes with video_features given as a list of lists of clips")
    given, expected = [len(row) for row in index], clip_mask.sum(1).tolist()
    if given != expected:
        raise ValueError(f"clip_sentence_index needs one entry a clip: got {given} entries for {expected} clips")
    padded = np.full(clip_mask.shape, -1, dtype=np.int64)
    padded[clip_mask] = [entry for row in index for entry in row]
    return padded


def _check_agreement(text_depth: int | None, feature_depth: int | None, arrays: dict[str, np.ndarray]) -> None:
    if text_depth is None or feature_depth is None:
        return
    if (text_depth == 2) != (feature_depth == 4):
        raise ValueError("text and video_features must both be lists of paragraphs (lists of lists), or neither")
    texts, clips = len(arrays["input_ids"]), len(arrays["video_features"])
    if text_depth == 2 and texts != clips:
        raise ValueError(f"text has {texts} paragraphs, video_features has {clips}")


__all__ = ["TempCLRProcessor"]
