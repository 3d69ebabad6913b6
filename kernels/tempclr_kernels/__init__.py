"""Alignment kernels: DTW and OTAM distances of cost matrices, their alignments, and all-pairs distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import alignment as alignment
    from .api import dtw as dtw
    from .api import otam as otam
    from .pairwise import pairwise_distances as pairwise_distances

_HOMES = {"alignment": "api", "dtw": "api", "otam": "api", "pairwise_distances": "pairwise"}

__all__ = ["alignment", "dtw", "otam", "pairwise_distances"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
