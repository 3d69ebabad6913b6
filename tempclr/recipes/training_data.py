"""What a training step sees: paragraphs to the dataset, the collator and the order of rows that the Trainer takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tempclr.data.captions_collation import CaptionCollator, CaptionDataset
from tempclr.data.captions_sampling import ClipSampling
from tempclr.data.collation import ParagraphCollator
from tempclr.data.retrieval_batches import SEARCHES, RetrievalBatches, SimilarVideoSampler
from tempclr.data.rows import Paragraph
from tempclr.data.sampling import SENTENCE_SAMPLINGS, ParagraphDataset
from tempclr.errors import InputError
from tempclr.trainer import TempCLRTrainingArguments

__all__ = ["CLIP_SAMPLINGS", "SamplingArguments", "TrainingData", "training_data"]

CLIP_SAMPLINGS = ("sentences", "overlapped")


@dataclass
class SamplingArguments:
    """What of a paragraph a step sees, and which paragraphs it sees together."""

    clip_sampling: str = field(
        default="sentences",
        metadata={
            "help": "sentences: clips of the segments; overlapped: clips drawn over rows of captions, as released",
            "choices": CLIP_SAMPLINGS,
        },
    )
    clip_seconds: float | None = field(
        default=None, metadata={"help": "cut segments into clips of so many seconds; otherwise one clip a sentence"}
    )
    keep_background: bool = field(default=False, metadata={"help": "also make clips outside the segments"})
    max_sentences: int | None = field(default=None, metadata={"help": "most sentences of a paragraph in one step"})
    sentence_sampling: str = field(
        default="evenly", metadata={"help": "which sentences are kept", "choices": SENTENCE_SAMPLINGS}
    )
    drop_overlapping: bool = field(
        default=False, metadata={"help": "leave out sentences that begin before the previous kept one ends"}
    )
    clips_per_video: int = field(default=16, metadata={"help": "of --clip_sampling overlapped"})
    units_per_video: int = field(
        default=5, metadata={"help": "of --clip_sampling overlapped: clips whose order the sequence loss contrasts"}
    )
    retrieval_batches: bool = field(
        default=False, metadata={"help": "batches of similar videos, looked for anew at the start of each epoch"}
    )
    retrieval_candidates: int = field(
        default=64, metadata={"help": "nearest videos that a batch is drawn from; of --retrieval_batches"}
    )
    retrieval_search: str | None = field(
        default=None,
        metadata={"help": "faiss, as released, or exact; faiss where it is installed", "choices": SEARCHES},
    )

    def __post_init__(self) -> None:
        if self.clip_sampling == "overlapped":
            unused = {"clip_seconds": None, "max_sentences": None, "keep_background": False, "drop_overlapping": False}
            for name, nothing in unused.items():
                if getattr(self, name) != nothing:
                    raise InputError("has no meaning with --clip_sampling overlapped: leave it out", field=name)
        for name in ("clips_per_video", "units_per_video", "retrieval_candidates"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", field=name)


class TrainingData(NamedTuple):
    """Arguments of ``TempCLRTrainer``."""

    train_dataset: Any
    eval_dataset: Any
    data_collator: Callable[..., dict[str, Any]]
    train_sampler: SimilarVideoSampler | None
    callbacks: list[Any]


def training_data(
    train_paragraphs: Sequence[Paragraph],
    eval_paragraphs: Sequence[Paragraph] | None,
    *,
    processor: Any,
    sampling: SamplingArguments,
    training_arguments: TempCLRTrainingArguments,
) -> TrainingData:
    """Make what the Trainer reads of the paragraphs, as the settings say.

    Raises:
        InputError: fewer training videos than a batch of similar ones takes.
    """
    make: Any = _captioned if sampling.clip_sampling == "overlapped" else _sentenced
    train, collator = make(train_paragraphs, processor, sampling, training_arguments.seed)
    evaluation = None
    if eval_paragraphs is not None:
        evaluation, _ = make(eval_paragraphs, processor, replace(sampling, sentence_sampling="evenly"), 0)
    sampler, callbacks = None, []
    if sampling.retrieval_batches:
        sampler = SimilarVideoSampler(len(train), batch_size=training_arguments.train_batch_size)
        embedded, own_collator = train, collator
        if isinstance(train, CaptionDataset):
            embedded = _captions(train_paragraphs, processor, sampling, training_arguments.seed, spoken=True)
            own_collator = CaptionCollator(processor)
        callbacks.append(
            RetrievalBatches(
                sampler,
                embedded,
                own_collator,
                num_candidates=sampling.retrieval_candidates,
                search=sampling.retrieval_search,
            )
        )
    return TrainingData(train, evaluation, collator, sampler, callbacks)


def _sentenced(paragraphs: Sequence[Paragraph], processor: Any, sampling: SamplingArguments, seed: int) -> Any:
    dataset = ParagraphDataset(
        paragraphs,
        max_sentences=sampling.max_sentences,
        sampling=sampling.sentence_sampling,
        drop_overlapping=sampling.drop_overlapping,
        seed=seed,
    )
    collator = ParagraphCollator(
        processor,
        clip_seconds=sampling.clip_seconds,
        keep_background=sampling.keep_background,
        with_video_ids=True,
    )
    return dataset, collator


def _captioned(paragraphs: Sequence[Paragraph], processor: Any, sampling: SamplingArguments, seed: int) -> Any:
    return _captions(paragraphs, processor, sampling, seed), CaptionCollator(processor, with_video_ids=True)


def _captions(
    paragraphs: Sequence[Paragraph], processor: Any, sampling: SamplingArguments, seed: int, *, spoken: bool = False
) -> CaptionDataset:
    most = min(ClipSampling.max_num_features, processor.max_num_features)
    clips = ClipSampling(
        num_clips=sampling.clips_per_video,
        min_num_features=min(ClipSampling.min_num_features, most),
        max_num_features=most,
        video_span="spoken" if spoken else "around",
    )
    num_units = None if spoken else sampling.units_per_video
    return CaptionDataset(paragraphs, processor, sampling=clips, num_units=num_units, seed=seed)
