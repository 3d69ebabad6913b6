"""What exactly a number measures: one frozen dataclass a protocol, whose ``name`` stands beside the number in every
results file.

These are the clean protocols: distances by the recurrences of :mod:`tempclr_kernels`, lengths as arguments, ties ranked
last. They differ on purpose from the released evaluation code, which scores by raw dot products and lets padding leak
into the path.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

BACKGROUNDS = ("removed", "kept")
MEASURES = ("cap_avg", "dtw", "otam", "dtw+cap_avg", "otam+cap_avg")
SIMILARITIES = ("cosine", "dot")


@dataclass(frozen=True)
class RetrievalProtocol:
    """Full-video retrieval: a paragraph is the query, videos are the candidates.

    ``background="removed"``: a video is its annotated segments, one pooled vector each. ``"kept"``: a video is
    consecutive windows of ``window_seconds`` every ``stride_seconds``; for each pair ``dtw`` and ``otam`` see only the
    ``keep_ratio`` · sentences windows that some sentence likes best, ``cap_avg`` sees all. The three are ``None`` when
    the background is removed. ``normalize_length``: distances are divided by sentences · clips of the pair.

    >>> RetrievalProtocol(background="removed", measure="dtw").name
    'full-video/background-removed/dtw'
    """

    background: str
    measure: str
    similarity: str = "cosine"
    normalize_length: bool = True
    window_seconds: float | None = None
    stride_seconds: float | None = None
    keep_ratio: float | None = None

    def __post_init__(self) -> None:
        _check_choice("background", self.background, BACKGROUNDS)
        _check_choice("measure", self.measure, MEASURES)
        _check_choice("similarity", self.similarity, SIMILARITIES)
        windows = (self.window_seconds, self.stride_seconds, self.keep_ratio)
        if self.background == "removed":
            if any(value is not None for value in windows):
                raise ValueError(f"windows belong to background='kept', got {windows} with background='removed'")
        elif any(value is None or not value > 0 for value in windows):
            raise ValueError(
                f"background='kept' needs positive window_seconds, stride_seconds and keep_ratio, got {windows}"
            )

    @property
    def name(self) -> str:
        return f"full-video/background-{self.background}/{self.measure}"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


@dataclass(frozen=True)
class LocalizationProtocol:
    """Step localization: one frame for each sentence, in the order of the paragraph, the rest of the video is
    background.

    >>> LocalizationProtocol(similarity="dot").name
    'step-localization/one-frame-a-step'
    """

    similarity: str
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_choice("similarity", self.similarity, SIMILARITIES)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    @property
    def name(self) -> str:
        return "step-localization/one-frame-a-step"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


@dataclass(frozen=True)
class MatchingProtocol:
    """Share of sentences that the hard DTW path of their own video pairs with their own clip.

    >>> MatchingProtocol().name
    'caption-clip-matching/dtw'
    """

    similarity: str = "cosine"

    def __post_init__(self) -> None:
        _check_choice("similarity", self.similarity, SIMILARITIES)

    @property
    def name(self) -> str:
        return "caption-clip-matching/dtw"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self)


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, got {value!r}")
