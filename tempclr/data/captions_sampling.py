"""Clips over the captions of automatic speech recognition: drawn so that text and video overlap, and thinned to units.

Such captions neither begin nor end where something is shown. A clip is therefore two spans that share a moment: some
neighbouring captions, and some neighbouring features (VideoCLIP §3.2; TempCLR §3.3 orders them and picks units).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tempclr.data.sampling import evenly_spaced

__all__ = [
    "VIDEO_SPANS",
    "CaptionClip",
    "ClipSampling",
    "grow_captions",
    "grow_features",
    "non_overlapping_clips",
    "sample_clips",
    "sequence_units",
]

VIDEO_SPANS = ("around", "spoken")


class CaptionClip(NamedTuple):
    """Captions ``[text_first, text_last)`` with features ``[video_first, video_last)``, both as positions."""

    text_first: int
    text_last: int
    video_first: int
    video_last: int


@dataclass(frozen=True)
class ClipSampling:
    """How clips are drawn from a video's captions and features; the defaults are the released pretraining's.

    Attributes:
        num_clips: clips of a video.
        min_text_tokens, max_text_tokens: the text of a clip grows to a length drawn between them, both included.
        max_text_seconds: a text that spans so much grows no more.
        min_num_features, max_num_features: the video of a clip has a length drawn between them, both included.
        video_span: ``"around"`` grows the video around a moment of the text, to its drawn length, whatever the text's;
            ``"spoken"`` takes the features that the text spans, at most ``max_num_features`` (what the released code
            embeds videos by to look for similar ones).

    Raises:
        ValueError: a count below 1, a least above its most, another ``video_span``.
    """

    num_clips: int = 16
    min_text_tokens: int = 8
    max_text_tokens: int = 64
    max_text_seconds: float = 256.0
    min_num_features: int = 3
    max_num_features: int = 32
    video_span: str = "around"

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise ValueError(f"num_clips must be at least 1, got {self.num_clips}")
        for name in ("text_tokens", "num_features"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if not 1 <= least <= most:
                raise ValueError(f"expected 1 <= min_{name} <= max_{name}, got {least} and {most}")
        if self.video_span not in VIDEO_SPANS:
            raise ValueError(f"video_span must be one of {', '.join(VIDEO_SPANS)}, got {self.video_span!r}")


def sample_clips(
    num_tokens: Sequence[int],
    starts: Sequence[float],
    ends: Sequence[float],
    *,
    num_features: int,
    features_per_second: float = 1.0,
    sampling: ClipSampling | None = None,
    generator: random.Random,
) -> list[CaptionClip]:
    """Draw the clips of one video and put them in order: by their captions, then by their features.

    For each clip a caption is drawn as its centre and a number of tokens; :func:`grow_captions` makes the text. A
    moment between the text's first start and last end is drawn, and a number of features; :func:`grow_features` makes
    the video. With one feature a second, the clips are those of the released code on the same random stream.

    Args:
        num_tokens: of each caption.
        starts, ends: of each caption, in seconds.
        num_features: of the video.
        sampling: None is the default.
        generator: Python's, whose stream the draws follow.

    Raises:
        ValueError: there is no caption or no feature.

    >>> sample_clips([9], [0.0], [4.0], num_features=2, sampling=ClipSampling(num_clips=1), generator=random.Random(0))
    [CaptionClip(text_first=0, text_last=1, video_first=0, video_last=2)]
    """
    if not num_tokens or num_features < 1:
        raise ValueError(f"expected captions and features, got {len(num_tokens)} and {num_features}")
    settings = sampling or ClipSampling()
    clips = []
    for _ in range(settings.num_clips):
        centre = generator.randint(0, len(num_tokens) - 1)
        first, last = grow_captions(
            num_tokens,
            starts,
            ends,
            centre=centre,
            wanted_tokens=generator.randint(settings.min_text_tokens, settings.max_text_tokens),
            max_seconds=settings.max_text_seconds,
            generator=generator,
        )
        begin = math.floor(starts[first] * features_per_second)
        end = math.ceil(ends[last - 1] * features_per_second)
        if settings.video_span == "spoken":
            video_first = min(begin, num_features - 1)
            video_last = min(max(end, video_first + 1), num_features, video_first + settings.max_num_features)
        else:
            moment = min(max(generator.randint(begin, end), 0), num_features - 1)
            video_first, video_last = grow_features(
                num_features,
                centre=moment,
                wanted_features=generator.randint(settings.min_num_features, settings.max_num_features),
                generator=generator,
            )
        clips.append(CaptionClip(first, last, video_first, video_last))
    return sorted(clips, key=lambda clip: (clip.text_first, clip.video_first, clip.text_last, clip.video_last))


# Note [The released random stream]: growing a text, the released code draws twice a caption, for the side and for
# whether to keep the caption, which it always does; both also where the side is forced. Growing a video, it draws once
# a feature, and not where the side is forced. So do the next two functions, though nothing else asks for it.


def grow_captions(
    num_tokens: Sequence[int],
    starts: Sequence[float],
    ends: Sequence[float],
    *,
    centre: int,
    wanted_tokens: int,
    max_seconds: float = 256.0,
    generator: random.Random,
) -> tuple[int, int]:
    """Captions ``[first, last)`` around the centre: one more at either side, by a fair draw, until they hold
    ``wanted_tokens`` (which the last one may overshoot), span ``max_seconds``, or are all there are.

    >>> grow_captions([3, 3, 3], [0, 4, 8], [4, 8, 12], centre=1, wanted_tokens=9, generator=random.Random(0))
    (0, 3)
    """
    first, last, tokens = centre, centre + 1, num_tokens[centre]
    while (first > 0 or last < len(num_tokens)) and tokens < wanted_tokens:
        if ends[last - 1] - starts[first] >= max_seconds:
            break
        forward = generator.random() > 0.5
        generator.random()
        if (forward and last < len(num_tokens)) or first == 0:
            tokens += num_tokens[last]
            last += 1
        else:
            first -= 1
            tokens += num_tokens[first]
    return first, last


def grow_features(num_features: int, *, centre: int, wanted_features: int, generator: random.Random) -> tuple[int, int]:
    """Features ``[first, last)`` from an empty span at the centre: one more at either side, by a fair draw, until there
    are ``wanted_features`` or the whole video.

    >>> grow_features(100, centre=99, wanted_features=32, generator=random.Random(0))[1]
    100
    """
    first = last = centre
    while last - first < min(wanted_features, num_features):
        if first == 0 or (last < num_features and generator.random() > 0.5):
            last += 1
        else:
            first -= 1
    return first, last


def non_overlapping_clips(clips: Sequence[CaptionClip], *, min_gap: int = 1) -> list[int]:
    """Positions of the ordered clips kept when each that comes too close to the last kept one is left out.

    Kept clips are apart by ``min_gap`` captions and by ``min_gap`` features at least. The released code compares a
    start with the end before it, which is one past the last, by "greater than": a gap of 1.

    >>> clips = [CaptionClip(0, 2, 0, 5), CaptionClip(2, 4, 6, 9), CaptionClip(3, 4, 6, 9)]
    >>> non_overlapping_clips(clips), non_overlapping_clips(clips, min_gap=0)
    ([0, 2], [0, 1])
    """
    kept: list[int] = []
    for position, clip in enumerate(clips):
        last = clips[kept[-1]] if kept else None
        if last is None or (
            clip.text_first >= last.text_last + min_gap and clip.video_first >= last.video_last + min_gap
        ):
            kept.append(position)
    return kept


def sequence_units(clips: Sequence[CaptionClip], *, num_units: int = 5, min_gap: int = 1) -> list[int]:
    """Positions of the ``num_units`` ordered clips whose order the sequence loss contrasts; none where there are fewer.

    They are spread evenly over those that :func:`non_overlapping_clips` keeps.

    >>> sequence_units([CaptionClip(3 * n, 3 * n + 1, 9 * n, 9 * n + 4) for n in range(8)], num_units=3)
    [0, 3, 7]
    """
    kept = non_overlapping_clips(clips, min_gap=min_gap)
    return [kept[place] for place in evenly_spaced(len(kept), num_units)] if len(kept) >= num_units else []
