"""Cells, intervals and verdicts, from what single seeds and videos gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["VERDICTS", "Interval", "careful_interval", "cell", "student_interval", "two_level_interval", "verdict"]

VERDICTS = ("reproduced", "not reproduced", "not testable here")
NUM_RESAMPLES = 2000
# The 0.975 quantile of Student's distribution, by the number of values.
STUDENT_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; ``per_seed`` are the means of the seeds, ``num_videos`` 0 where they alone made it."""

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


def student_interval(per_seed: Sequence[float]) -> Interval | None:
    """Student's 95 % interval of the mean over seeds, where a seed gives one number; None of fewer than two seeds.

    # Note [One number a seed]: tasks drawn from the few sequences of a seed are not independent, so that drawing them
    anew, as :func:`two_level_interval` draws videos, would make an interval far too narrow. And drawing a handful of
    seeds anew never goes beyond the smallest and the largest.

    >>> student_interval([0.0, 0.02, 0.04]).text
    '+2.0 [-3.0, +7.0]'
    """
    values = np.asarray(per_seed, dtype=np.float64)
    if len(values) > max(STUDENT_95):
        raise ValueError(f"expected at most {max(STUDENT_95)} seeds, got {len(values)}")
    if len(values) < 2:
        return None
    mean, half = values.mean(), STUDENT_95[len(values)] * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(mean), float(mean - half), float(mean + half), tuple(values.tolist()), 0)


def careful_interval(per_seed: Sequence[NDArray[np.floating]]) -> Interval:
    """From the lower of both lower ends to the higher of both upper ends of the two intervals above.

    # Note [Few seeds]: drawing a handful of seeds anew takes their spread for smaller than it is, and Student's
    interval knows nothing of how few videos a seed has. Whichever is wider decides.

    >>> careful_interval([np.zeros(5), np.full(5, 0.02), np.full(5, 0.04)]).text
    '+2.0 [-3.0, +7.0]'
    """
    drawn = two_level_interval(per_seed)
    student = student_interval(drawn.per_seed)
    if student is None:
        return drawn
    return replace(drawn, low=min(drawn.low, student.low), high=max(drawn.high, student.high))


def verdict(interval: Interval, expected: str, *, margin: float = 0.03, effect: float = 0.0) -> str:
    """A word of :data:`VERDICTS`.

    ``expected``: ``"higher"`` or ``"lower"`` want the whole interval above or below 0; ``"same"`` wants it within
    ±``margin``, and what neither lies within nor excludes 0 could not be told with so few videos.

    # Note [Undecided is not refuted]: an interval around 0 says that a difference is not reproduced only where it also
    leaves out the difference that was published, ``effect``; otherwise so few videos cannot tell the two apart.

    >>> verdict(Interval(0.04, -0.04, 0.12, (0.04,), 40), "higher", effect=0.275)
    'not reproduced'
    >>> verdict(Interval(0.02, -0.01, 0.05, (0.02,), 40), "higher", effect=0.03)
    'not testable here'
    """
    if expected not in ("higher", "lower", "same"):
        raise ValueError(f"expected must be higher, lower or same, got {expected!r}")
    around_0 = interval.low <= 0 <= interval.high
    if expected == "same":
        if -margin <= interval.low and interval.high <= margin:
            return VERDICTS[0]
        return VERDICTS[2] if around_0 else VERDICTS[1]
    nearest, best = (interval.low, interval.high) if expected == "higher" else (-interval.high, -interval.low)
    if nearest > 0:
        return VERDICTS[0]
    return VERDICTS[2] if around_0 and best >= effect else VERDICTS[1]


def cell(values: Sequence[float], *, scale: float = 100, num_seeds: int | None = None) -> str | None:
    """``mean ± standard deviation`` over the seeds, times ``scale``; fewer than ``num_seeds`` are told; None of none.

    >>> cell([0.5, 0.6], num_seeds=3)
    '55.0 ± 7.1 (2 seeds)'
    """
    if not len(values):
        return None
    scaled = np.asarray(values, dtype=np.float64) * scale
    text = f"{scaled.mean():.1f}" + (f" ± {scaled.std(ddof=1):.1f}" if len(scaled) > 1 else "")
    few = num_seeds is not None and len(scaled) < num_seeds
    return f"{text} ({len(scaled)} seed{'s' if len(scaled) > 1 else ''})" if few else text
