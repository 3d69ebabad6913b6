"""What a trained model is worth: retrieval, localization, matching, and the files that report it.

The names below are loaded when first asked for, so that reading a protocol's name does not cost loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tempclr.evaluation.localization import evaluate_localization as evaluate_localization
    from tempclr.evaluation.localization import localize_steps as localize_steps
    from tempclr.evaluation.matching import evaluate_matching as evaluate_matching
    from tempclr.evaluation.metrics import paired_bootstrap as paired_bootstrap
    from tempclr.evaluation.report import write_results as write_results
    from tempclr.evaluation.retrieval import evaluate_retrieval as evaluate_retrieval

_HOME = {
    "evaluate_localization": "localization",
    "localize_steps": "localization",
    "evaluate_matching": "matching",
    "paired_bootstrap": "metrics",
    "write_results": "report",
    "evaluate_retrieval": "retrieval",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
