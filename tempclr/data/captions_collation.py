"""Videos with captions of speech recognition to training batches: clips drawn anew each epoch, then padded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from tempclr.data.captions_sampling import CaptionClip, ClipSampling, sample_clips, sequence_units
from tempclr.data.rows import Paragraph
from tempclr.errors import InputError

__all__ = ["CaptionCollator", "CaptionDataset", "CaptionedVideo"]


@dataclass(frozen=True, eq=False)
class CaptionedVideo:
    """One video's clips as they were drawn.

    Attributes:
        video_id: of the row.
        clips: in order.
        token_ids: of each clip's text, special tokens included.
        features: of each clip, float32 ``(T, F)``.
        paragraphs: positions of the clips, in lists: what the sequence loss takes for one paragraph each.
    """

    video_id: str
    clips: list[CaptionClip]
    token_ids: list[list[int]]
    features: list[np.ndarray]
    paragraphs: list[list[int]]


# Note [Clips beside the sequence]: of a video's clips all take part in the unit loss, but only the units picked by
# sequence_units in the sequence loss, and none where there are too few. The others go into the batch as paragraphs of
# one sentence: such a paragraph has no other order, so that the sequence loss leaves it out, and every model and
# Trainer that takes paragraphs takes these.


class CaptionDataset:
    """Rows whose sentences are captions, for a DataLoader: each item is a video with clips drawn over it.

    What is drawn depends on (seed, epoch, row) alone, not on workers, ranks or what was drawn before. The Trainer
    announces each epoch by ``set_epoch``; workers that persist hear of it too.

    Args:
        paragraphs: anything with ``len`` and integer positions that yields ``Paragraph`` with features.
        processor: a ``TempCLRProcessor``; a clip's text is the tokens of its captions, cut to ``max_text_tokens`` with
            [CLS] in front and [SEP] behind.
        sampling: of the clips; None is the released one. Its ``max_num_features`` may not exceed the processor's.
        num_units: length of the sequences that the sequence loss contrasts; None makes one paragraph of all clips.
        min_gap: see :func:`tempclr.data.captions_sampling.non_overlapping_clips`.
        max_caption_characters, max_caption_tokens: longer captions are cut, in this order.
        seed: of the draws.

    Raises:
        ValueError: clips longer than the processor's, or a tokenizer without [CLS] and [SEP].
        InputError: (on access) a row without features.
    """

    def __init__(
        self,
        paragraphs: Sequence[Paragraph],
        processor: Any,
        *,
        sampling: ClipSampling | None = None,
        num_units: int | None = 5,
        min_gap: int = 1,
        max_caption_characters: int = 96,
        max_caption_tokens: int = 32,
        seed: int = 0,
    ):
        self.paragraphs, self.sampling, self.seed = paragraphs, sampling or ClipSampling(), seed
        self.num_units, self.min_gap = num_units, min_gap
        self.max_caption_characters, self.max_caption_tokens = max_caption_characters, max_caption_tokens
        self.tokenizer, self.max_text_tokens = processor.tokenizer, processor.max_text_tokens
        if self.sampling.max_num_features > processor.max_num_features:
            raise ValueError(
                f"clips of up to {self.sampling.max_num_features} features do not fit a model of "
                f"{processor.max_num_features}: lower max_num_features of the sampling"
            )
        if self.tokenizer.cls_token_id is None or self.tokenizer.sep_token_id is None:
            raise ValueError("captions need a tokenizer with [CLS] and [SEP], as BERT's has")
        # Note [Workers that persist]: they hold a copy of the dataset made before the first epoch; shared memory alone
        # brings them news.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.paragraphs)

    def __getitem__(self, row: int) -> CaptionedVideo:
        return self.draw(row, generator=random.Random(f"{self.seed} {int(self._epoch)} {row}"))

    def draw(self, row: int, *, generator: random.Random) -> CaptionedVideo:
        """The video of a row with clips drawn from the stream of ``generator``."""
        paragraph = self.paragraphs[row]
        if paragraph.features is None:
            raise InputError(
                f"video {paragraph.video_id!r} has no features: make them with 'tempclr extract'", field="features"
            )
        token_ids = self._token_ids(paragraph.sentences)
        clips = sample_clips(
            [len(ids) for ids in token_ids],
            paragraph.starts,
            paragraph.ends,
            num_features=len(paragraph.features),
            features_per_second=cast(float, paragraph.features_per_second),  # Paragraph holds that features have one
            sampling=self.sampling,
            generator=generator,
        )
        return CaptionedVideo(
            paragraph.video_id,
            clips,
            [self._text(token_ids[clip.text_first : clip.text_last]) for clip in clips],
            [paragraph.features[clip.video_first : clip.video_last] for clip in clips],
            self._paragraphs(clips),
        )

    def _token_ids(self, captions: Sequence[str]) -> list[list[int]]:
        cut = [caption[: self.max_caption_characters] for caption in captions]
        encoded = self.tokenizer(cut, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [ids[: self.max_caption_tokens] for ids in encoded]

    def _text(self, captions: list[list[int]]) -> list[int]:
        words = [token for ids in captions for token in ids][: self.max_text_tokens - 2]
        return [self.tokenizer.cls_token_id, *words, self.tokenizer.sep_token_id]

    def _paragraphs(self, clips: list[CaptionClip]) -> list[list[int]]:
        if self.num_units is None:
            return [list(range(len(clips)))]
        units = sequence_units(clips, num_units=self.num_units, min_gap=self.min_gap)
        others = [[position] for position in range(len(clips)) if position not in units]
        return [units, *others] if units else others


class CaptionCollator:
    """Videos of a :class:`CaptionDataset` to the paragraphs-shaped batch that ``TempCLRModel`` takes.

    The batch is that of :class:`tempclr.data.collation.ParagraphCollator`, one row a paragraph, so that a video may
    have several (see Note [Clips beside the sequence]). It draws nothing and can be sent to DataLoader workers.

    Args:
        processor: a ``TempCLRProcessor``.
        with_video_ids: add ``video_id``, a list of str, one a row, which ``TempCLRTrainer`` uses in messages.

    Raises:
        InputError: (on call) features of several widths.
    """

    def __init__(self, processor: Any, *, with_video_ids: bool = False):
        self.processor, self.with_video_ids = processor, with_video_ids
        self.pad_token_id = processor.tokenizer.pad_token_id

    def __call__(self, videos: Sequence[CaptionedVideo]) -> dict[str, Any]:
        widths = {video.features[0].shape[1]: video.video_id for video in videos}
        if len(widths) > 1:
            told = ", ".join(f"{width} ({video_id!r})" for width, video_id in widths.items())
            raise InputError(f"features of one batch must have one width, got {told}", field="features")
        rows = [(video, paragraph) for video in videos for paragraph in video.paragraphs]
        shape = (len(rows), max(len(paragraph) for _, paragraph in rows))
        longest_text = max(len(ids) for video in videos for ids in video.token_ids)
        longest_clip = max(len(features) for video in videos for features in video.features)
        input_ids = np.full((*shape, longest_text), self.pad_token_id, dtype=np.int64)
        attention_mask = np.zeros((*shape, longest_text), dtype=np.int64)
        video_features = np.zeros((*shape, longest_clip, next(iter(widths))), dtype=np.float32)
        video_mask = np.zeros((*shape, longest_clip), dtype=bool)
        index = np.full(shape, -1, dtype=np.int64)
        for row, (video, paragraph) in enumerate(rows):
            for place, position in enumerate(paragraph):
                ids, features = video.token_ids[position], video.features[position]
                input_ids[row, place, : len(ids)], attention_mask[row, place, : len(ids)] = ids, 1
                video_features[row, place, : len(features)], video_mask[row, place, : len(features)] = features, True
                index[row, place] = place
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "sentence_mask": index >= 0}
        arrays |= {"video_features": video_features, "video_mask": video_mask, "clip_mask": index >= 0}
        batch: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batch["clip_sentence_index"] = torch.from_numpy(index)
        if self.with_video_ids:
            batch["video_id"] = [video.video_id for video, _ in rows]
        return batch
