"""What exactly a number measures: one frozen dataclass a protocol, whose ``name`` stands beside the number in every
results file.

The clean protocols measure by the recurrences of :mod:`tempclr_kernels`, lengths as arguments, ties ranked last. They
differ on purpose from the released evaluation code, which scores by raw dot products and lets padding leak into the
path. ``protocol="official"`` does as the released code does, and ends the name with ``/official``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

TASKS = ("retrieval", "clip-retrieval", "moments", "localization", "matching")
PROTOCOLS = ("clean", "official")
BACKGROUNDS = ("removed", "kept")
MEASURES = ("cap_avg", "dtw", "otam", "dtw+cap_avg", "otam+cap_avg")
SIMILARITIES = ("cosine", "dot")
COMBINATIONS = ("standardised", "constant")
DIRECTIONS = ("text-to-video", "video-to-text")
_DEFAULTS = {"protocol": "clean", "combination": "standardised"}


@dataclass(frozen=True)
class RetrievalProtocol:
    """Full-video retrieval: a paragraph is the query, videos are the candidates.

    ``background="removed"``: a video is its annotated segments, one pooled vector each. ``"kept"``: a video is
    consecutive windows of ``window_seconds`` every ``stride_seconds``; for each pair ``dtw`` and ``otam`` see only the
    ``keep_ratio`` · sentences windows that some sentence likes best, ``cap_avg`` sees all. The three are ``None`` when
    the background is removed. ``normalize_length``: distances are divided by sentences · clips of the pair.
    ``combination``: how a distance and Cap. Avg. are added. ``protocol="official"`` takes raw dot products alone.

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
    combination: str = "standardised"
    protocol: str = "clean"

    def __post_init__(self) -> None:
        _check_protocol(self.protocol, self.similarity)
        _check_choice("combination", self.combination, COMBINATIONS)
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
        return f"full-video/background-{self.background}/{self.measure}{_suffix(self.protocol)}"

    def to_dict(self) -> dict[str, Any]:
        return _told(self)


@dataclass(frozen=True)
class ClipRetrievalProtocol:
    """Clip-caption retrieval: each sentence looks for its own segment among all segments of all videos, or the reverse.

    >>> ClipRetrievalProtocol(direction="text-to-video").name
    'clip-caption/text-to-video'
    """

    direction: str
    similarity: str = "cosine"
    protocol: str = "clean"

    def __post_init__(self) -> None:
        _check_protocol(self.protocol, self.similarity)
        _check_choice("direction", self.direction, DIRECTIONS)
        _check_choice("similarity", self.similarity, SIMILARITIES)

    @property
    def name(self) -> str:
        return f"clip-caption/{self.direction}{_suffix(self.protocol)}"

    def to_dict(self) -> dict[str, Any]:
        return _told(self)


@dataclass(frozen=True)
class MomentProtocol:
    """DiDeMo's moment ranking: a sentence ranks all runs of one chunk and all pairs (first, last chunk) of its video.

    A sentence's rank is the mean of the three lowest ranks among its annotators' moments.

    >>> MomentProtocol().name
    'moment-ranking/best-three-annotators'
    """

    similarity: str = "cosine"
    chunk_seconds: float = 5.0
    num_chunks: int = 6
    protocol: str = "clean"

    def __post_init__(self) -> None:
        _check_protocol(self.protocol, self.similarity)
        _check_choice("similarity", self.similarity, SIMILARITIES)
        if not self.chunk_seconds > 0 or self.num_chunks < 1:
            found = f"{self.chunk_seconds} s and {self.num_chunks}"
            raise ValueError(f"chunk_seconds must be positive and num_chunks at least 1, got {found}")

    @property
    def name(self) -> str:
        return f"moment-ranking/best-three-annotators{_suffix(self.protocol)}"

    def to_dict(self) -> dict[str, Any]:
        return _told(self)


@dataclass(frozen=True)
class LocalizationProtocol:
    """Step localization: one frame for each step, in order, the rest of the video is background.

    Steps are those of the task's list where a row has one (``steps``), else the sentences of its paragraph.

    >>> LocalizationProtocol(similarity="dot").name
    'step-localization/one-frame-a-step'
    """

    similarity: str
    temperature: float = 1.0
    protocol: str = "clean"

    def __post_init__(self) -> None:
        _check_protocol(self.protocol, self.similarity)
        _check_choice("similarity", self.similarity, SIMILARITIES)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    @property
    def name(self) -> str:
        return f"step-localization/one-frame-a-step{_suffix(self.protocol)}"

    def to_dict(self) -> dict[str, Any]:
        return _told(self)


@dataclass(frozen=True)
class MatchingProtocol:
    """Share of sentences that the hard DTW path of their own video pairs with their own clip.

    The released code has no such measure; ``protocol="official"`` is ours over raw dot products, unscaled and unpadded.

    >>> MatchingProtocol().name
    'caption-clip-matching/dtw'
    """

    similarity: str = "cosine"
    protocol: str = "clean"

    def __post_init__(self) -> None:
        _check_protocol(self.protocol, self.similarity)
        _check_choice("similarity", self.similarity, SIMILARITIES)

    @property
    def name(self) -> str:
        return f"caption-clip-matching/dtw{_suffix(self.protocol)}"

    def to_dict(self) -> dict[str, Any]:
        return _told(self)


def similarity_of(protocol: str, similarity: str | None = None) -> str:
    """The similarity asked for, or the protocol's own: cosine for ``"clean"``, raw dot products for ``"official"``.

    >>> similarity_of("official")
    'dot'
    """
    if similarity is not None:
        return similarity
    return "dot" if protocol == "official" else "cosine"


def _told(protocol: Any) -> dict[str, Any]:
    """Settings that came later are left out at their defaults, so that equal measurements keep giving equal files."""
    settings = {key: value for key, value in asdict(protocol).items() if _DEFAULTS.get(key, ...) != value}
    return {"name": protocol.name} | settings


def _suffix(protocol: str) -> str:
    return "/official" if protocol == "official" else ""


def _check_protocol(protocol: str, similarity: str) -> None:
    _check_choice("protocol", protocol, PROTOCOLS)
    if protocol == "official" and similarity != "dot":
        raise ValueError(f"protocol='official' takes raw dot products, got similarity={similarity!r}")


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, got {value!r}")
