"""One task under one or both protocols, every part of the data embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempclr.evaluation.clip_retrieval import clip_retrieval_from_embeddings
from tempclr.evaluation.embeddings import Embeddings, embed_paragraphs, embed_sentences, hidden_cls
from tempclr.evaluation.localization import evaluate_localization
from tempclr.evaluation.matching import matching_from_embeddings
from tempclr.evaluation.moments import evaluate_moments
from tempclr.evaluation.protocols import BACKGROUNDS, MEASURES, TASKS
from tempclr.evaluation.retrieval import retrieval_from_embeddings

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = ["Measured", "measure_task"]


@dataclass(frozen=True)
class Measured:
    """What :func:`measure_task` found: results by name, and the vectors behind each retrieval result."""

    task: str
    results: dict[str, Any]
    embeddings: dict[str, Embeddings]

    def to_dict(self) -> dict[str, Any]:
        """The part that goes into a results file: retrieval in one mapping by background and protocol."""
        return {"retrieval": self.results} if self.task == "retrieval" else dict(self.results)


def measure_task(
    model: Any,
    paragraphs: Sequence[Paragraph],
    task: str,
    *,
    protocols: Sequence[str] = ("clean",),
    backgrounds: Sequence[str] = BACKGROUNDS,
    measures: Sequence[str] = MEASURES,
    similarity: str | None = None,
    combination: str | None = None,
    window_seconds: float = 16.0,
    stride_seconds: float | None = None,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> Measured:
    """Measure a model on a task of :data:`tempclr.evaluation.protocols.TASKS`.

    Backgrounds, measures, combination and windows are those of retrieval.

    ``similarity`` (cosine by default) is that of the clean protocol; the official one takes raw products, and
    localization what the model's configuration says. Results are named by task or background, those of the official
    protocol with ``", official"`` behind.

    Raises:
        ValueError: an unknown task; else what the task's own function raises.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    chosen = list(dict.fromkeys(protocols))
    results: dict[str, Any] = {}
    if task in ("localization", "moments"):
        for protocol in chosen:
            if task == "localization":
                results[_named(task, protocol)] = evaluate_localization(model, paragraphs, protocol=protocol, **options)
            else:
                own = similarity if protocol == "clean" else None
                results[_named(task, protocol)] = evaluate_moments(
                    model, paragraphs, protocol=protocol, similarity=own, **options
                )
        return Measured(task, results, {})
    if task in ("matching", "clip-retrieval"):
        embeddings = embed_paragraphs(model, paragraphs, **options)
        of_embeddings: Any = matching_from_embeddings if task == "matching" else clip_retrieval_from_embeddings
        for protocol in chosen:
            own = similarity if protocol == "clean" else None
            results[_named(task, protocol)] = of_embeddings(embeddings, protocol=protocol, similarity=own)
        return Measured(task, results, dict.fromkeys(results, embeddings))
    if task != "retrieval":
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    made = _retrieval_embeddings(
        model,
        paragraphs,
        [(background, protocol) for background in dict.fromkeys(backgrounds) for protocol in chosen],
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
        **options,
    )
    for (background, protocol), embeddings in made.items():
        results[_named(f"background {background}", protocol)] = retrieval_from_embeddings(
            embeddings,
            measures=list(dict.fromkeys(measures)),
            protocol=protocol,
            similarity=similarity if protocol == "clean" else None,
            combination=combination,
            show_progress_bar=show_progress_bar,
        )
    return Measured(task, results, dict(zip(results, made.values(), strict=True)))


def _retrieval_embeddings(
    model: Any,
    paragraphs: Sequence[Paragraph],
    wanted: Sequence[tuple[str, str]],
    *,
    window_seconds: float,
    stride_seconds: float | None,
    **options: Any,
) -> dict[tuple[str, str], Embeddings]:
    """Sentences are embedded once, segments once; windows once, and once more with [CLS] hidden if both are wanted."""
    sentences = embed_sentences(model, paragraphs, **options) if len(paragraphs) else None
    made: dict[tuple[str, bool], Embeddings] = {}
    found = {}
    for background, protocol in wanted:
        hide = background == "kept" and protocol == "official" and model.video_model.config.attend_cls
        if (background, hide) not in made:
            with hidden_cls(model) if hide else nullcontext():
                made[background, hide] = embed_paragraphs(
                    model,
                    paragraphs,
                    background=background,
                    window_seconds=window_seconds,
                    stride_seconds=stride_seconds,
                    sentences=sentences,
                    **options,
                )
        found[background, protocol] = made[background, hide]
    return found


def _named(name: str, protocol: str) -> str:
    return name if protocol == "clean" else f"{name}, {protocol}"
