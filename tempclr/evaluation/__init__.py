"""What a trained model is worth: retrieval, localization, matching, and the files that report it.

The names below are loaded when first asked for, so that reading a protocol's name does not cost loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tempclr.evaluation.clip_retrieval import clip_retrieval_from_embeddings as clip_retrieval_from_embeddings
    from tempclr.evaluation.clip_retrieval import evaluate_clip_retrieval as evaluate_clip_retrieval
    from tempclr.evaluation.embeddings import Embeddings as Embeddings
    from tempclr.evaluation.embeddings import embed_paragraphs as embed_paragraphs
    from tempclr.evaluation.localization import evaluate_localization as evaluate_localization
    from tempclr.evaluation.localization import localize_steps as localize_steps
    from tempclr.evaluation.matching import evaluate_matching as evaluate_matching
    from tempclr.evaluation.matching import matching_from_embeddings as matching_from_embeddings
    from tempclr.evaluation.metrics import paired_bootstrap as paired_bootstrap
    from tempclr.evaluation.moments import evaluate_moments as evaluate_moments
    from tempclr.evaluation.report import write_results as write_results
    from tempclr.evaluation.retrieval import evaluate_retrieval as evaluate_retrieval
    from tempclr.evaluation.retrieval import retrieval_from_embeddings as retrieval_from_embeddings
    from tempclr.evaluation.training import RetrievalCallback as RetrievalCallback
    from tempclr.evaluation.training import RetrievalEvaluator as RetrievalEvaluator
    from tempclr.evaluation.training import keep_embeddings as keep_embeddings
    from tempclr.evaluation.training import retrieval_compute_metrics as retrieval_compute_metrics

_HOME = {
    "Embeddings": "embeddings",
    "embed_paragraphs": "embeddings",
    "evaluate_clip_retrieval": "clip_retrieval",
    "clip_retrieval_from_embeddings": "clip_retrieval",
    "evaluate_localization": "localization",
    "localize_steps": "localization",
    "evaluate_matching": "matching",
    "matching_from_embeddings": "matching",
    "evaluate_moments": "moments",
    "paired_bootstrap": "metrics",
    "write_results": "report",
    "evaluate_retrieval": "retrieval",
    "retrieval_from_embeddings": "retrieval",
    "RetrievalCallback": "training",
    "RetrievalEvaluator": "training",
    "keep_embeddings": "training",
    "retrieval_compute_metrics": "training",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
