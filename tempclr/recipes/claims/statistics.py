"""Cells, intervals and verdicts, from what single seeds and videos gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["VERDICTS", "Interval", "cell", "two_level_interval", "verdict"]

VERDICTS = ("reproduced", "not reproduced", "not testable here")
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile interval; ``per_seed`` are the means of the seeds."""

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    num_videos: int
    confidence: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def text(self) -> str:
        """In points of a percentage.

        >>> Interval(0.031, 0.01, 0.05, (0.031,), 40).text
        '+3.1 [+1.0, +5.0]'
        """
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def two_level_interval(
    per_seed: Sequence[NDArray[np.floating]],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the mean over seeds of the mean over videos; for differences give paired differences.

    # Note [Seeds and videos are both drawn]: a seed has its own videos and its own training. Each resample draws seeds
    with replacement and then videos within each, so that an interval holds for new trainings, too; drawing videos alone
    would call a difference certain that comes from one lucky training.

    ``per_seed``: one (num_videos,) array a seed. With one seed the interval is over its videos alone.

    >>> two_level_interval([np.ones(5), np.ones(5)]).low
    1.0
    """
    arrays = [np.asarray(one, dtype=np.float64) for one in per_seed]
    if not arrays or any(one.ndim != 1 or not len(one) for one in arrays):
        raise ValueError(f"expected a filled vector a seed, got shapes {[one.shape for one in arrays]}")
    generator = np.random.default_rng(seed)
    # (seed, resample, slot): a mean of redrawn videos for every time the seed may be drawn.
    redrawn = np.stack(
        [
            one[generator.integers(0, len(one), size=(num_resamples, len(arrays), len(one)))].mean(axis=2)
            for one in arrays
        ]
    )
    seeds = generator.integers(0, len(arrays), size=(num_resamples, len(arrays)))
    resample, slot = np.ogrid[:num_resamples, : len(arrays)]
    means = redrawn[seeds, resample, slot].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    own = [float(one.mean()) for one in arrays]
    return Interval(
        mean=float(np.mean(own)),
        low=float(low),
        high=float(high),
        per_seed=tuple(own),
        num_videos=sum(len(one) for one in arrays),
        confidence=confidence,
    )


def verdict(interval: Interval, expected: str, *, margin: float = 0.03) -> str:
    """A word of :data:`VERDICTS`.

    ``expected``: ``"higher"`` or ``"lower"`` want the whole interval above or below 0; ``"same"`` wants it within
    ±``margin``, and what neither lies within nor excludes 0 could not be told with so few videos.

    >>> verdict(Interval(0.02, -0.01, 0.05, (0.02,), 40), "higher")
    'not reproduced'
    """
    if expected not in ("higher", "lower", "same"):
        raise ValueError(f"expected must be higher, lower or same, got {expected!r}")
    if expected == "same":
        if -margin <= interval.low and interval.high <= margin:
            return VERDICTS[0]
        return VERDICTS[2] if interval.low <= 0 <= interval.high else VERDICTS[1]
    apart = interval.low > 0 if expected == "higher" else interval.high < 0
    return VERDICTS[0] if apart else VERDICTS[1]


def cell(values: Sequence[float], *, percent: bool = True, num_seeds: int | None = None) -> str | None:
    """``mean ± standard deviation`` over the seeds; fewer than ``num_seeds`` are told; None without any.

    >>> cell([0.5, 0.6], num_seeds=3)
    '55.0 ± 7.1 (2 seeds)'
    """
    if not len(values):
        return None
    scaled = np.asarray(values, dtype=np.float64) * (100 if percent else 1)
    text = f"{scaled.mean():.1f}" + (f" ± {scaled.std(ddof=1):.1f}" if len(scaled) > 1 else "")
    few = num_seeds is not None and len(scaled) < num_seeds
    return f"{text} ({len(scaled)} seed{'s' if len(scaled) > 1 else ''})" if few else text
