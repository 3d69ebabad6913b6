"""Retrieval as a measure of training: a callback for any Trainer, and a ``compute_metrics`` over its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import TrainerCallback

from tempclr.evaluation.clip_retrieval import clip_retrieval_from_embeddings
from tempclr.evaluation.embeddings import Embeddings
from tempclr.evaluation.retrieval import evaluate_retrieval, retrieval_from_embeddings
from tempclr.sharding import whole_model

if TYPE_CHECKING:
    from transformers import EvalPrediction

    from tempclr.data.rows import Paragraph

__all__ = ["RetrievalCallback", "RetrievalEvaluator", "keep_embeddings", "retrieval_compute_metrics"]

PADDING = -100
"""What a Trainer fills up with where batches differ in their number of sentences or clips."""


class RetrievalEvaluator:
    """Full-video retrieval of fixed paragraphs: call it with a model, get ``{"R@1": ..., "median_rank": ...}``.

    ``TempCLRTrainer(evaluator=RetrievalEvaluator(paragraphs))`` logs ``eval_R@1`` and may choose the best model by it;
    with a plain ``transformers.Trainer`` use :class:`RetrievalCallback`.

    Args:
        paragraphs: queries and candidates.
        measure: a name of :data:`tempclr.evaluation.protocols.MEASURES`.
        options: of :func:`tempclr.evaluation.evaluate_retrieval`, such as ``background`` or ``window_seconds``.
    """

    def __init__(self, paragraphs: Sequence[Paragraph], *, measure: str = "dtw", **options: Any):
        self.paragraphs, self.measure, self.options = paragraphs, measure, options

    def __call__(self, model: Any) -> dict[str, float]:
        result = evaluate_retrieval(whole_model(model), self.paragraphs, measures=[self.measure], **self.options)
        return result.metrics[self.measure]


class RetrievalCallback(TrainerCallback):
    """Adds retrieval to every evaluation of a Trainer, so that it can choose the best model and stop early.

    With ``metric_for_best_model="R@1"`` and ``load_best_model_at_end=True`` the checkpoint that retrieves best is kept;
    ``EarlyStoppingCallback`` sees the same number if it comes after this callback in the list. The numbers are added to
    the metrics that ``evaluate`` returns and to the log history, as ``eval_R@1``, ``eval_R@5``, ``eval_R@10`` and
    ``eval_median_rank``.

    The model needs its processor (``model.processor``, which ``from_pretrained`` attaches); ``processor`` here is set
    where it has none. On several ranks all evaluate, each its part of the scores.

    Args:
        paragraphs, measure, options: as of :class:`RetrievalEvaluator`.
        processor: see above.

    Example:
        >>> from transformers import EarlyStoppingCallback
        >>> callbacks = [RetrievalCallback([]), EarlyStoppingCallback(early_stopping_patience=3)]
    """

    def __init__(self, paragraphs: Sequence[Paragraph], *, measure: str = "dtw", processor: Any = None, **options: Any):
        self.evaluator = RetrievalEvaluator(paragraphs, measure=measure, **options)
        self.processor = processor

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, model: Any = None, **_: Any
    ) -> None:
        # Note [Before the best model is chosen]: the Trainer hands every callback the very dictionary that it then asks
        # for metric_for_best_model, so an entry made here counts. It has been logged already: the history is told here.
        if metrics is None or model is None:
            return
        if getattr(model, "processor", None) is None and self.processor is not None:
            model.processor = self.processor
        found = {f"eval_{name}": float(value) for name, value in self.evaluator(model).items()}
        metrics.update(found)
        state.log_history.append({"step": state.global_step, "epoch": state.epoch, **found})


def keep_embeddings(logits: Any, labels: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A ``preprocess_logits_for_metrics`` for a Trainer: of a batch's outputs only the two embeddings are kept.

    >>> outputs = (torch.tensor(0.5), torch.zeros(2, 3, 4), torch.zeros(2, 5, 4), {"last_hidden_state": None})
    >>> [tuple(part.shape) for part in keep_embeddings(outputs, None)]
    [(2, 3, 4), (2, 5, 4)]
    """
    return _embeddings_of(logits, torch.Tensor)


def retrieval_compute_metrics(
    *, measure: str = "dtw", similarity: str = "cosine"
) -> Callable[[EvalPrediction], dict[str, float]]:
    """A ``compute_metrics`` for a Trainer whose model returns ``text_embeds`` and ``video_embeds``.

    The paragraphs of the evaluation set are queries and candidates. Paragraph batches give full-video retrieval by
    ``measure``, a video being all clips the collator cut; pair batches (N, d) give clip-caption retrieval, text to
    video. A plain ``transformers.Trainer`` calls it only where batches ask for the loss (``return_loss=True`` in what
    the collator returns); ``preprocess_logits_for_metrics=keep_embeddings`` spares it the hidden states.

    Units of padding are recognised by what a batch holds there, zeros, or what the Trainer fills up with.

    Example:
        >>> from types import SimpleNamespace
        >>> vectors = np.eye(4, dtype=np.float32).reshape(2, 2, 4)
        >>> compute = retrieval_compute_metrics(measure="dtw")
        >>> compute(SimpleNamespace(predictions=(vectors, vectors)))["R@1"]
        1.0
    """

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        texts, videos = _embeddings_of(prediction.predictions, np.ndarray)
        if texts.ndim == 2:
            texts, videos = texts[:, None], videos[:, None]
            pairs = Embeddings(*_lengths(texts, "text_embeds"), *_lengths(videos, "video_embeds"))
            return clip_retrieval_from_embeddings(pairs, similarity=similarity, across_ranks=False).metrics[
                "text-to-video"
            ]
        paragraphs = Embeddings(*_lengths(texts, "text_embeds"), *_lengths(videos, "video_embeds"))
        # Every rank has all predictions here, and not every rank need call this: nothing is shared out.
        result = retrieval_from_embeddings(paragraphs, measures=[measure], similarity=similarity, across_ranks=False)
        return result.metrics[measure]

    return compute_metrics


def _embeddings_of(predictions: Any, kind: Any) -> Any:
    """``text_embeds`` and ``video_embeds``: the first two arrays (or tensors) of two or three dimensions."""
    if isinstance(predictions, Mapping):
        predictions = [predictions.get("text_embeds"), predictions.get("video_embeds")]
    found = [part for part in predictions if isinstance(part, kind) and part.ndim in (2, 3)][:2]
    if len(found) != 2 or found[0].ndim != found[1].ndim or found[0].shape[-1] != found[1].shape[-1]:
        shapes = [tuple(part.shape) if isinstance(part, kind) else type(part).__name__ for part in predictions]
        raise ValueError(f"expected predictions (text_embeds, video_embeds, ...), got {shapes}")
    return found[0], found[1]


def _lengths(values: NDArray, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors as a tensor, and how many of each sequence come before its padding."""
    real = ~((values == 0).all(-1) | (values == PADDING).all(-1))
    lengths = real.sum(1)
    if not (real == (np.arange(values.shape[1]) < lengths[:, None])).all() or lengths.min() < 1:
        wrong = int(np.argmax((lengths < 1) | (real != (np.arange(values.shape[1]) < lengths[:, None])).any(1)))
        raise ValueError(f"{name}[{wrong}] has no vector, or padding between its vectors")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), torch.from_numpy(lengths)
