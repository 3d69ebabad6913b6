"""Labelled videos as TCLR takes them: rows, the clips of pretraining, and the clips of a classifier.

A row has ``video_id`` and ``video`` (a path; relative ones start at the folder of the dataset file), and optionally
``label`` and ``split``. ``tempclr prepare`` and :func:`tempclr.data.motion_videos.make_motion_videos` write such rows.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tempclr.data.augmentations import (
    PRETRAINING,
    WEAK,
    AugmentationRecipe,
    augment_clips,
    centre_crop,
    draw_augmentation,
)
from tempclr.data.clip_sampling import (
    ClipSampler,
    read_nominal_frames,
    sample_training_clip,
    uniform_test_clips,
)
from tempclr.data.row_checks import check_text
from tempclr.data.row_files import load_rows, row_source
from tempclr.data.video_seeking import NominalFrames, nominal_frames
from tempclr.errors import InputError

__all__ = [
    "ActionClips",
    "ActionVideo",
    "TCLRDataset",
    "action_collate",
    "label_names",
    "read_action_videos",
    "tclr_collate",
]

UNREADABLE_VIDEOS = ("raise", "skip")
_REMEDY = "give --short_videos loop, videos that can be read, or a larger --per_device_train_batch_size"
_GOOD, _UNREADABLE, _TOO_SHORT = 0, 1, 2
_REASONS = {_UNREADABLE: "unreadable", _TOO_SHORT: "too_short"}


@dataclass(frozen=True)
class ActionVideo:
    """One video of a corpus: its name, its file, and what is known of it."""

    video_id: str
    video: Path
    label: str | None = None
    split: str | None = None


def read_action_videos(
    source: str | PathLike[str], *, split: str | None = None, needs_labels: bool = False
) -> list[ActionVideo]:
    """Read and check the rows of a dataset: a folder, a ``.jsonl``, ``.json`` or ``.parquet`` file.

    Args:
        source: what :func:`tempclr.data.row_files.load_rows` takes.
        split: only these rows; None is all.
        needs_labels: a row without ``label`` is a fault.

    Raises:
        InputError: naming file, row and field of the first bad row; no rows.

    >>> read_action_videos("rows.jsonl", split="train")[0].label
    'wave'
    """
    dataset = load_rows(source, split=split)
    place = row_source(source, dataset)
    folder = Path(place) if Path(place).is_dir() else Path(place).parent
    videos = []
    for index in range(len(dataset)):
        row = dataset[index]
        try:
            videos.append(_action_video(row, folder, needs_labels))
        except InputError as error:
            message = str(error).removeprefix(f"field {error.field!r}: ")
            raise InputError(message, file=place, row=index, field=error.field) from None
    if not videos:
        raise InputError("holds no rows" if split is None else f"holds no rows of split {split!r}", file=source)
    return videos


def _action_video(row: Mapping[str, Any], folder: Path, needs_labels: bool) -> ActionVideo:
    video = row.get("video")
    video = video.get("path") if isinstance(video, Mapping) else video
    for field, value in (("video_id", row.get("video_id")), ("video", video)):
        if value is None:
            raise InputError("missing", field=field)
        check_text(value, field)
    for field in ("label", "split"):
        if row.get(field) is not None:
            check_text(row[field], field)
    if needs_labels and row.get("label") is None:
        raise InputError("missing: every video needs its class", field="label")
    path = folder / str(video)
    if not path.is_file():
        raise InputError(f"no such file: {path}", field="video")
    return ActionVideo(row["video_id"], path, row.get("label"), row.get("split"))


def label_names(videos: Iterable[ActionVideo]) -> list[str]:
    """All labels, sorted: their order numbers the classes, and is kept with the model."""
    return sorted({video.label for video in videos if video.label is not None})


# Note [The draw of a sample]: the numbers that make a sample depend on seed, epoch and index alone. So it is the same
# whatever worker makes it and whatever samples came before, and a run that goes on in the middle of an epoch sees what
# the uninterrupted one saw. The epoch is in shared memory: workers that live through epochs see it change.
class _ClipDataset(Dataset[Any], ABC):
    """What both data sets share: drawing, reading, and what becomes of videos that cannot be read or are too short."""

    def __init__(
        self,
        videos: Sequence[ActionVideo],
        *,
        seed: int,
        frames_per_second: float | None,
        short_side: int | None,
        short_videos: str,
        unreadable_videos: str,
    ) -> None:
        if not len(videos):
            raise ValueError("videos must hold at least one video")
        if unreadable_videos not in UNREADABLE_VIDEOS:
            raise ValueError(f"unreadable_videos must be one of {UNREADABLE_VIDEOS}, got {unreadable_videos!r}")
        self.videos, self.seed, self.frames_per_second = list(videos), seed, frames_per_second
        self.short_side, self.short_videos, self.unreadable_videos = short_side, short_videos, unreadable_videos
        self._counted: dict[Path, NominalFrames] = {}
        self._removed: dict[str, list[str]] = {name: [] for name in _REASONS.values()}
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._states = torch.zeros(len(self.videos), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        """Draw anew: call it before each epoch (the Trainer does)."""
        self._epoch.fill_(epoch)

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Ids of the videos met so far, by any worker, that could not be read or were dropped as too short."""
        states = self._states.tolist()
        met = {
            name: [video.video_id for video, found in zip(self.videos, states, strict=True) if found == state]
            for state, name in _REASONS.items()
        }
        return {name: self._removed[name] + met[name] for name in met}

    @property
    def kept_videos(self) -> list[ActionVideo]:
        """The videos without those left out so far, in their order."""
        return [video for video, state in zip(self.videos, self._states.tolist(), strict=True) if state == _GOOD]

    # Note [Unusable videos are taken out first]: a video left out within a batch makes the batch smaller, and a batch
    # of such videos alone cannot be trained on. So recipes look for them before training, where options allow leaving
    # out. What the header does not betray, as a stream that breaks off, is still left out of its batch.
    def remove_unusable(self, *, show_progress_bar: bool = False) -> None:
        """Take out the videos that are too short or cannot be opened, and list them in ``left_out``.

        Each is opened once, and decoded where its header does not tell its length. Nothing is done where options leave
        nothing out.

        Raises:
            InputError: no video is left.
        """
        from tqdm.auto import tqdm

        if self.short_videos != "drop" and self.unreadable_videos == "raise":
            return
        for index, video in enumerate(tqdm(self.videos, desc="videos", disable=not show_progress_bar)):
            try:
                if not self._is_long_enough(self._nominal(video).num_frames):
                    self._leave_out(index, _TOO_SHORT, _too_short(video))
            except InputError as error:
                if self.unreadable_videos == "raise":
                    raise
                self._leave_out(index, _UNREADABLE, str(error))
        kept = self.kept_videos
        if not kept:
            counts = ", ".join(f"{len(ids)} {name.replace('_', ' ')}" for name, ids in self.left_out.items())
            raise InputError(f"none of the {len(self.videos)} videos can be used: {counts}", field="train_dataset")
        self._removed, self.videos = self.left_out, kept
        self._states = torch.zeros(len(kept), dtype=torch.uint8).share_memory_()

    def _generator(self, index: int) -> torch.Generator:
        entropy = np.random.SeedSequence([self.seed, int(self._epoch), index]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(entropy[0]) << 31 | int(entropy[1]) >> 1)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} videos")
        index %= len(self)
        video = self.videos[index]
        try:
            sample = self._sample(video, self._generator(index))
        except InputError as error:
            if self.unreadable_videos == "raise":
                raise
            self._leave_out(index, _UNREADABLE, str(error))
            return None
        if sample is None:
            self._leave_out(index, _TOO_SHORT, _too_short(video))
        return sample

    def _leave_out(self, index: int, state: int, reason: str) -> None:
        if self._states[index] != state:
            self._states[index] = state
            warnings.warn(f"left out: {reason}", stacklevel=3)

    @abstractmethod
    def _sample(self, video: ActionVideo, generator: torch.Generator) -> dict[str, Any] | None:
        """The tensors of a video; None where it is too short."""

    @abstractmethod
    def _is_long_enough(self, num_video_frames: int) -> bool: ...

    def _nominal(self, video: ActionVideo) -> NominalFrames:
        if video.video not in self._counted:
            self._counted[video.video] = nominal_frames(video.video, frames_per_second=self.frames_per_second)
        return self._counted[video.video]

    def _read(self, video: ActionVideo, clips: Sequence[np.ndarray], rate: float) -> tuple[Tensor, list[Tensor]]:
        """uint8 frames ``(N, 3, height, width)``, channels innermost in memory, and each clip's places among them."""
        frames, places = read_nominal_frames(video.video, clips, frames_per_second=rate, short_side=self.short_side)
        return torch.from_numpy(frames).permute(0, 3, 1, 2), [torch.from_numpy(place) for place in places]


def _too_short(video: ActionVideo) -> str:
    return f"{video.video}: too short for its clips, dropped"


class TCLRDataset(_ClipDataset):
    """The clips of TCLR's pretraining: of each video one global and several local clips, each in two views.

    Args:
        videos: what :func:`read_action_videos` gives.
        sampler: which frames make the clips.
        augmentation: how clips are altered, each clip and view by its own draw.
        seed: with epoch and index it determines a sample (Note [The draw of a sample]).
        frames_per_second: nominal rate at which frames are counted; None is each video's own.
        short_side: frames whose shorter side is longer are scaled to it while decoding (240 as released); None leaves
            them.
        unreadable_videos: ``"raise"`` stops with an InputError that names the file; ``"skip"`` gives None, which
            :func:`tclr_collate` leaves out, warns, and lists it in ``left_out``.

    A sample holds uint8 ``global_clips`` ``(2, T, 3, size, size)`` and ``local_clips`` ``(2, P, T, 3, size, size)``.

    >>> dataset = TCLRDataset(read_action_videos("rows.jsonl", split="train"))
    >>> loader = torch.utils.data.DataLoader(dataset, 40, shuffle=True, num_workers=4, collate_fn=tclr_collate)
    """

    def __init__(
        self,
        videos: Sequence[ActionVideo],
        *,
        sampler: ClipSampler | None = None,
        augmentation: AugmentationRecipe = PRETRAINING,
        seed: int = 0,
        frames_per_second: float | None = None,
        short_side: int | None = None,
        unreadable_videos: str = "raise",
    ) -> None:
        self.sampler, self.augmentation = sampler or ClipSampler(), augmentation
        super().__init__(
            videos,
            seed=seed,
            frames_per_second=frames_per_second,
            short_side=short_side,
            short_videos=self.sampler.short_videos,
            unreadable_videos=unreadable_videos,
        )

    def _is_long_enough(self, num_video_frames: int) -> bool:
        skips = {"skip": min(self.sampler.global_skips), "paired_skip": min(self.sampler.paired_skips, default=None)}
        return self.sampler.clips(num_video_frames, start=0, **skips) is not None

    def _sample(self, video: ActionVideo, generator: torch.Generator) -> dict[str, Any] | None:
        nominal = self._nominal(video)
        clips = self.sampler.sample(nominal.num_frames, generator=generator)
        if clips is None:
            return None
        read = [clips.global_frames, clips.paired_frames, *clips.local_frames]
        frames, (first, second, *moments) = self._read(video, read, nominal.frames_per_second)
        places = [first, *moments, second, *moments]
        height, width = frames.shape[-2:]
        drawn = [draw_augmentation(self.augmentation, height=height, width=width, generator=generator) for _ in places]
        size = self.augmentation.image_size
        views = augment_clips(frames, places, drawn, image_size=size).unflatten(0, (2, 1 + len(moments)))
        return {"global_clips": views[:, 0].clone(), "local_clips": views[:, 1:].clone()}


class ActionClips(_ClipDataset):
    """The clips of a classifier: one at random and altered, for training, or several evenly placed, for tests.

    Args:
        videos: what :func:`read_action_videos` gives.
        labels: names of the classes in their order, what :func:`label_names` gives; None leaves ``labels`` out.
        num_clips: None draws one clip at random; a number takes that many evenly placed ones (10 as published).
        num_frames, skip: of a clip: 16 frames, every second one.
        augmentation: of random clips (``WEAK`` as in the released linear evaluation); evenly placed clips are cropped
            in the middle.
        test_crop: that crop's side, relative to the shorter side.
        short_videos: ``"loop"``, ``"mirror"`` or ``"drop"``, which may leave a test video fewer clips: they are then
            repeated in turn.
        seed, frames_per_second, short_side, unreadable_videos: as those of :class:`TCLRDataset`.

    A sample holds uint8 ``pixel_values`` ``(T, 3, size, size)``, with ``num_clips`` ``(clips, T, 3, size, size)``, and
    ``labels``, the number of the class.

    Raises:
        InputError: a video whose label is not among ``labels``.
    """

    def __init__(
        self,
        videos: Sequence[ActionVideo],
        *,
        labels: Sequence[str] | None = None,
        num_clips: int | None = None,
        num_frames: int = 16,
        skip: int = 2,
        augmentation: AugmentationRecipe = WEAK,
        test_crop: float = 0.8,
        short_videos: str = "loop",
        seed: int = 0,
        frames_per_second: float | None = None,
        short_side: int | None = None,
        unreadable_videos: str = "raise",
    ) -> None:
        super().__init__(
            videos,
            seed=seed,
            frames_per_second=frames_per_second,
            short_side=short_side,
            short_videos=short_videos,
            unreadable_videos=unreadable_videos,
        )
        self.num_clips, self.num_frames, self.skip = num_clips, num_frames, skip
        self.augmentation, self.test_crop = augmentation, test_crop
        self.label_ids = None if labels is None else {label: number for number, label in enumerate(labels)}
        if self.label_ids is not None:
            for video in self.videos:
                if video.label not in self.label_ids:
                    message = f"label {video.label!r} is none of the {len(self.label_ids)} classes known"
                    raise InputError(message, file=video.video, field="label")

    def _sample(self, video: ActionVideo, generator: torch.Generator) -> dict[str, Any] | None:
        nominal = self._nominal(video)
        kept = self._frame_numbers(nominal.num_frames, generator=generator)
        if not kept:
            return None
        frames, places = self._read(video, kept, nominal.frames_per_second)
        sample: dict[str, Any] = {"pixel_values": self._pixels(frames, places, generator)}
        if self.label_ids is not None:
            sample["labels"] = self.label_ids[video.label or ""]
        return sample

    def _is_long_enough(self, num_video_frames: int) -> bool:
        return bool(self._frame_numbers(num_video_frames, start=0))

    def _frame_numbers(self, num_video_frames: int, **start: Any) -> list[np.ndarray]:
        """Of each clip; empty where the video is dropped."""
        options: dict[str, Any] = {"num_frames": self.num_frames, "skip": self.skip, "short_videos": self.short_videos}
        if self.num_clips is None:
            clips = [sample_training_clip(num_video_frames, **start, **options)]
        else:
            clips = uniform_test_clips(num_video_frames, num_clips=self.num_clips, **options)
        kept = [clip for clip in clips if clip is not None]
        return [kept[place % len(kept)] for place in range(len(clips))] if kept else []

    def _pixels(self, frames: Tensor, places: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        size = self.augmentation.image_size
        if self.num_clips is not None:
            cropped = centre_crop(frames, image_size=size, scale=self.test_crop)
            return torch.stack([cropped[place] for place in places])
        height, width = frames.shape[-2:]
        drawn = draw_augmentation(self.augmentation, height=height, width=width, generator=generator)
        return augment_clips(frames, places, [drawn], image_size=size)[0]


def tclr_collate(samples: Sequence[dict[str, Tensor] | None], *, as_float: bool = False) -> dict[str, Tensor]:
    """Samples of :class:`TCLRDataset` to a batch; samples left out are left out.

    Args:
        samples: of one batch.
        as_float: float32 in [0, 1]; False leaves uint8, which the models take too, a quarter of the size.

    Raises:
        InputError: of the batch's samples all were left out, or all but one, which has nothing to be contrasted with.

    >>> sample = {"global_clips": torch.zeros(2, 16, 3, 8, 8, dtype=torch.uint8)}
    >>> tclr_collate([sample, None, sample])["global_clips"].shape
    torch.Size([2, 2, 16, 3, 8, 8])
    """
    kept = _kept(samples)
    if len(kept) == 1 < len(samples):
        told = f"left out were {len(samples) - 1} of the {len(samples)} videos of a batch, see the warnings before this"
        raise InputError(f"{told}; one alone has nothing to be contrasted with: {_REMEDY}", field="short_videos")
    return _stacked(kept, as_float)


def action_collate(
    samples: Sequence[dict[str, Any] | None], *, as_float: bool = False, may_be_empty: bool = False
) -> dict[str, Tensor] | None:
    """The same for samples of :class:`ActionClips`, whose ``labels`` become int64 ``(B,)``; one alone is a batch too.

    Args:
        may_be_empty: a batch of which all samples were left out is None, not an error.
    """
    if may_be_empty and all(sample is None for sample in samples):
        return None
    kept = _kept(samples)
    batch = _stacked([{"pixel_values": sample["pixel_values"]} for sample in kept], as_float)
    if "labels" in kept[0]:
        batch["labels"] = torch.tensor([sample["labels"] for sample in kept])
    return batch


def _kept(samples: Sequence[dict[str, Any] | None]) -> list[dict[str, Any]]:
    kept = [sample for sample in samples if sample is not None]
    if not kept:
        told = f"none of the {len(samples)} videos of a batch could be used, see the warnings before this"
        raise InputError(f"{told}: {_REMEDY}", field="short_videos")
    return kept


def _stacked(samples: Sequence[dict[str, Tensor]], as_float: bool) -> dict[str, Tensor]:
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    return {name: values.float().div_(255) if as_float else values for name, values in batch.items()}
