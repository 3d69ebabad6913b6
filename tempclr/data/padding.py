"""How much of a batch is padding, as the towers see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tempclr.models.tempclr.modeling_tempclr import group_bounds

__all__ = ["padding_share"]

_SPECIAL_FEATURES = 2  # the video tower's own [CLS] and [SEP] of each clip


def padding_share(batch: Mapping[str, Any], *, max_padding: float | None = None) -> dict[str, float]:
    """The share of the tokens a tower computes that are padding: of ``"text"``, of ``"video"``, and of ``"both"``.

    Units that are padding as a whole count as nothing, since they never reach the towers.

    Args:
        batch: what a collator gives, pairs or paragraphs.
        max_padding: as set by ``TempCLRModel.set_max_padding``.

    >>> batch = {"attention_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]]), "video_mask": np.ones((2, 6))}
    >>> padding_share(batch)
    {'text': 0.25, 'video': 0.0, 'both': 0.0833...}
    """
    text = _counts(batch["attention_mask"], batch.get("sentence_mask"), max_padding, 0)
    video = _counts(batch["video_mask"], batch.get("clip_mask"), max_padding, _SPECIAL_FEATURES)
    both = tuple(sum(pair) for pair in zip(text, video, strict=True))
    return {name: 1 - real / all_ for name, (real, all_) in (("text", text), ("video", video), ("both", both))}


def _counts(mask: Any, unit_mask: Any, max_padding: float | None, num_special: int) -> tuple[int, int]:
    """Real tokens, and tokens computed."""
    real = np.asarray(mask).astype(bool)
    real = real.reshape(-1, real.shape[-1])
    if unit_mask is not None:
        real = real[np.asarray(unit_mask).astype(bool).reshape(-1)]
    lengths = np.sort((real * np.arange(1, real.shape[1] + 1)).max(axis=1))
    if max_padding is None:
        computed = len(lengths) * (real.shape[1] + num_special)
    else:
        groups = group_bounds(lengths.tolist(), max_padding)
        computed = sum((end - begin) * (int(lengths[end - 1]) + num_special) for begin, end in groups)
    return int(real.sum()) + num_special * len(lengths), computed
