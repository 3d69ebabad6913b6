"""Features of a few frames of each video of few-shot splits, made once by a frozen frame encoder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tempclr.data.backbones import Backbone, load_backbone
from tempclr.data.extractor import pick_device
from tempclr.data.few_shot_frames import SAMPLINGS, read_sampled_frames
from tempclr.data.few_shot_splits import SplitEntry, find_videos, read_splits
from tempclr.data.files import atomic_path, check_output_folder
from tempclr.data.pixels import Preprocessing, resize_and_crop
from tempclr.data.prefetch import Prefetched
from tempclr.data.rows import RECIPE_FILE, check_recipe, dataset_recipe
from tempclr.errors import InputError

__all__ = ["PREPROCESSINGS", "FewShotExtraction", "extract_few_shot_features"]

# What public few-shot code does to pixels at test; "own" is what the encoder was trained with.
PREPROCESSINGS: dict[str, Preprocessing | None] = {
    "own": None,
    "trx": Preprocessing(256, (224, 224), (0.0,) * 3, (1.0,) * 3),
    "hyrsm": Preprocessing((256, 256), (224, 224), (0.45,) * 3, (0.225,) * 3),
}


@dataclass(frozen=True)
class FewShotExtraction:
    """What one run did: videos encoded, videos whose features were there, and videos that are missing or broken."""

    num_extracted: int
    num_kept: int
    left_out: list[str]


def extract_few_shot_features(
    splits: str | PathLike[str] | Mapping[str, Sequence[SplitEntry]],
    *,
    videos: str | PathLike[str],
    output_dir: str | PathLike[str],
    backbone: str,
    num_frames: int = 8,
    sampling: str = "tsn",
    preprocessing: str = "own",
    batch_size: int = 32,
    device: str | None = None,
    skip_missing: bool = False,
    show_progress_bar: bool = True,
) -> FewShotExtraction:
    """Make ``(num_frames, D)`` features of every video of the splits; a run that was interrupted goes on.

    Writes ``features/<class>/<video>.npy``, ``feature_recipe.json``, and for each split ``<split>.jsonl`` with the
    rows that :func:`tempclr.data.sequences.load_sequences` reads. More frames than a model takes are of use: training
    draws its frames from those that are cached, so that it sees different ones.

    Args:
        splits: a folder of split files, or what :func:`tempclr.data.few_shot_splits.read_splits` returns.
        videos: folder of video files or of folders of images, see :func:`tempclr.data.few_shot_splits.find_videos`.
        backbone: see :func:`tempclr.data.backbones.load_backbone`; a folder or Hub id of ResNet-50 is what TempCLR
            takes, and gives D = 2048.
        num_frames, sampling: frames cached of each video, and the rule that picks them, as for tests.
        preprocessing: ``"own"``, the encoder's; ``"trx"``, the shorter side 256 and no normalisation; ``"hyrsm"``.
        batch_size: frames at a time.
        skip_missing: leave out videos that are missing or broken and list them; otherwise the first one stops the run.

    Raises:
        InputError: splits, videos or backbone that cannot be read, or a folder of features made otherwise.

    >>> extract_few_shot_features("splits/ssv2_OTAM", videos="ssv2/", output_dir="features/",
    ...                           backbone="microsoft/resnet-50")  # doctest: +SKIP
    """
    if preprocessing not in PREPROCESSINGS:
        known = ", ".join(PREPROCESSINGS)
        raise InputError(f"must be one of {known}, got {preprocessing!r}", field="preprocessing")
    if sampling not in SAMPLINGS:
        raise InputError(f"must be one of {', '.join(SAMPLINGS)}, got {sampling!r}", field="sampling")
    if num_frames < 1 or batch_size < 1:
        raise InputError(f"num_frames and batch_size must be at least 1, got {num_frames} and {batch_size}")
    output = Path(output_dir)
    check_output_folder(output)
    read = splits if isinstance(splits, Mapping) else read_splits(splits)
    places, missing = find_videos(videos, [entry for entries in read.values() for entry in entries])
    left_out = {entry: f"{entry.label}/{entry.video}: not found in {videos}" for entry in missing}
    if left_out and not skip_missing:
        first = missing[0]
        raise InputError(
            f"{len(missing)} videos of the splits are not there, as {first.label}/{first.video}", file=videos
        )
    encoder = load_backbone(backbone)
    if encoder.frames_per_clip != 1:
        raise InputError(f"{backbone!r} encodes clips, expected an encoder of single frames", field="backbone")
    look = PREPROCESSINGS[preprocessing]
    if look is not None:
        encoder = replace(encoder, preprocessing=look)
    _claim(output, _recipe(encoder, num_frames=num_frames, sampling=sampling))
    todo = {entry: place for entry, place in places.items() if not _file(output, entry).is_file()}
    run = _Run(encoder, pick_device(device), num_frames, sampling, batch_size)
    broken = _extract(run, todo, output, skip_missing, show_progress_bar)
    left_out |= broken
    for name, entries in read.items():
        _write_rows(output, name, [entry for entry in entries if entry not in left_out], places)
    return FewShotExtraction(len(todo) - len(broken), len(places) - len(todo), list(left_out.values()))


@dataclass(frozen=True)
class _Run:
    encoder: Backbone
    device: torch.device
    num_frames: int
    sampling: str
    batch_size: int

    def pixels(self, places: Mapping[SplitEntry, Path]) -> Iterator[tuple[SplitEntry, Tensor | InputError]]:
        """uint8 (num_frames, 3, height, width) of each video, or what is wrong with it."""
        for entry, place in places.items():
            try:
                frames = read_sampled_frames(place, num_samples=self.num_frames, sampling=self.sampling)
                yield entry, torch.cat([resize_and_crop(frame, self.encoder.preprocessing) for frame in frames])
            except InputError as error:
                yield entry, error

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> np.ndarray:
        """Features float32 (num_frames, D) of one video's pixels."""
        look = self.encoder.preprocessing
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (look.mean, look.std))
        parts = [
            self.encoder.module((part.to(self.device).float() / 255 - mean) / std).float().cpu()
            for part in pixels.split(self.batch_size)
        ]
        return torch.cat(parts).numpy()


def _extract(
    run: _Run, todo: Mapping[SplitEntry, Path], output: Path, skip_broken: bool, show: bool
) -> dict[SplitEntry, str]:
    """Encode videos, decoding ahead in a thread; returns what was wrong with those that cannot be read."""
    from tqdm import tqdm

    run.encoder.module.to(run.device)
    broken: dict[SplitEntry, str] = {}
    decoded = Prefetched(run.pixels(todo))
    try:
        for entry, pixels in tqdm(decoded, total=len(todo), desc="extract", unit="video", disable=not show):
            if isinstance(pixels, InputError):
                if not skip_broken:
                    raise pixels
                broken[entry] = str(pixels)
                continue
            with atomic_path(_file(output, entry)) as temporary:
                np.save(temporary, run.encode(pixels), allow_pickle=False)
    finally:
        decoded.close()
    return broken


def _recipe(encoder: Backbone, *, num_frames: int, sampling: str) -> dict[str, Any]:
    look = encoder.preprocessing
    return {
        "backbone": encoder.name,
        "backbone_sha256": encoder.sha256,
        "pooling": encoder.pooling,
        "num_frames": num_frames,
        "sampling": sampling,
        "resize": look.resize,
        "crop": look.crop,
        "mean": look.mean,
        "std": look.std,
        "interpolation": look.interpolation,
    }


def _claim(output: Path, recipe: Mapping[str, Any]) -> None:
    """Make the output folder this recipe's, or refuse one that holds features of another."""
    found = dataset_recipe(output) if output.is_dir() else None
    if found is not None:
        check_recipe(recipe, found, what=f"this run and the features in {output}")
    elif (output / "features").is_dir():
        raise InputError("holds features of an unknown recipe; choose an empty folder", file=output)
    else:
        with atomic_path(output / RECIPE_FILE) as temporary:
            temporary.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _file(output: Path, entry: SplitEntry) -> Path:
    folder = re.sub(r"[^\w.-]+", "_", entry.label)
    return output / "features" / folder / f"{entry.video}.npy"


def _write_rows(output: Path, split: str, entries: Sequence[SplitEntry], places: Mapping[SplitEntry, Path]) -> None:
    rows = [
        {
            "video_id": f"{entry.label}/{entry.video}",
            "label": entry.label,
            "features_path": _file(output, entry).relative_to(output).as_posix(),
        }
        for entry in entries
        if entry in places
    ]
    if rows:
        with atomic_path(output / f"{split}.jsonl") as temporary:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            temporary.write_text(lines, encoding="utf-8")
