"""Time TCLR's loader beside the training step it feeds, in turns: samples a second of one worker and of one thread.

python benchmarks/tclr_loader.py                # R3D-18 as published and a narrow one, 112 px of 240 x 320
python benchmarks/tclr_loader.py --hidden_sizes 16 16 32 64 128 --image_size 64 --rounds 5

A sample is one video: ten clips of 16 frames, decoded, drawn, cropped, resized, coloured and made a batch. The step is
forward, TCLR's losses and backward over it. Both run on one thread and are timed by its processor time, which other
work on the machine does not change. What a sample's parts take is timed as well. Results go to
benchmarks/results/tclr_loader.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tempclr.benchmark.timing import interleaved, machine, num_threads
from tempclr.data.action_videos import ActionVideo, TCLRDataset, tclr_collate
from tempclr.data.augmentations import AugmentationRecipe, augment_clips, draw_augmentation
from tempclr.data.clip_sampling import ClipSampler, read_nominal_frames
from tempclr.data.files import atomic_path
from tempclr.data.video import write_video
from tempclr.data.video_seeking import nominal_frames
from tempclr.models.tclr import TCLRConfig, TCLRModel

RESULTS = Path(__file__).resolve().parent / "results" / "tclr_loader.json"
NARROW = [16, 16, 32, 64, 128]
BAR = 2.0  # samples a second of the loader by those of the step


def make_videos(folder: Path, *, num_videos: int, height: int, width: int, seconds: int) -> list[ActionVideo]:
    """H.264 at 25 frames a second with the encoder's own keyframes: a picture that moves, with noise on it."""
    videos = []
    for number in range(num_videos):
        random = np.random.default_rng(number)
        blocks = random.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
        grain = random.integers(0, 16, (height, width, 3), dtype=np.uint8)
        frames = (np.roll(picture, (n, 2 * n), (0, 1))[:height, :width] // 2 + grain for n in range(25 * seconds))
        write_video(folder / f"{number}.mp4", frames, frames_per_second=25)
        videos.append(ActionVideo(str(number), folder / f"{number}.mp4"))
    return videos


def loading(dataset: TCLRDataset) -> Callable[[], Any]:
    """What a worker does for one sample, another one each time."""
    number = count()
    return lambda: tclr_collate([dataset[next(number) % len(dataset)]])


def parts(videos: list[ActionVideo], recipe: AugmentationRecipe) -> dict[str, Callable[[], Any]]:
    """A sample's decoding alone, and what is done to its frames alone."""
    number, generator = count(), torch.Generator().manual_seed(0)

    def decode() -> torch.Tensor:
        file = videos[next(number) % len(videos)].video
        nominal = nominal_frames(file)
        clips = ClipSampler().sample(nominal.num_frames, generator=generator)
        assert clips is not None
        frames, _ = read_nominal_frames(
            file, [clips.global_frames, clips.local_frames], frames_per_second=nominal.frames_per_second
        )
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    frames = decode()
    clips = [torch.arange(0, 64, 4), *torch.arange(64).view(4, 16)] * 2

    def augment() -> None:
        height, width = frames.shape[-2:]
        drawn = [draw_augmentation(recipe, height=height, width=width, generator=generator) for _ in clips]
        augment_clips(frames, clips, drawn, image_size=recipe.image_size)

    return {"decoding": decode, "augmentation": augment}


def step(hidden_sizes: list[int] | None, batch: dict[str, torch.Tensor]) -> Callable[[], Any]:
    """Forward, losses and backward. One video has no negatives from others; the network's work is the same."""
    torch.manual_seed(0)
    backbone = {"variant": "r3d_18", "hidden_sizes": hidden_sizes, "image_size": batch["global_clips"].shape[-1]}
    model = TCLRModel(TCLRConfig(backbone_config=backbone, separate_batch_statistics=False)).train()

    def run() -> None:
        model.zero_grad(set_to_none=True)
        model(**batch, return_loss=True).loss.backward()

    return run


def compare(
    videos: list[ActionVideo], *, hidden_sizes: list[int] | None, image_size: int, num_rounds: int
) -> dict[str, Any]:
    """Samples a second of both, medians over the rounds, and the median of their ratios."""
    recipe = AugmentationRecipe(image_size=image_size)
    load = loading(TCLRDataset(videos, augmentation=recipe))
    runs = {"loader": load, "training step": step(hidden_sizes, load()), **parts(videos, recipe)}
    with num_threads(1):
        samples = interleaved(runs, num_rounds=num_rounds, clock="processor")
    ratios = [spent / ours for ours, spent in zip(samples["loader"], samples["training step"], strict=True)]
    return {
        "hidden_sizes": hidden_sizes,
        "image_size": image_size,
        "num_rounds": num_rounds,
        "milliseconds_a_sample": {name: round(median(values), 1) for name, values in samples.items()},
        "samples_a_second": {name: round(1000 / median(samples[name]), 3) for name in ("loader", "training step")},
        "ratio": round(median(ratios), 2),
        "bar": BAR,
        "is_met": median(ratios) >= BAR,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hidden_sizes", type=int, nargs=5, help="widths instead of both the published and narrow ones"
    )
    parser.add_argument("--image_size", type=int, default=112)
    parser.add_argument("--num_videos", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=7, help="of each video: UCF101's have seven on average")
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    widths = [arguments.hidden_sizes] if arguments.hidden_sizes else [NARROW, None]
    with tempfile.TemporaryDirectory() as folder:
        videos = make_videos(
            Path(folder),
            num_videos=arguments.num_videos,
            height=arguments.height,
            width=arguments.width,
            seconds=arguments.seconds,
        )
        results = []
        for hidden_sizes in widths:
            result = compare(
                videos, hidden_sizes=hidden_sizes, image_size=arguments.image_size, num_rounds=arguments.rounds
            )
            print(json.dumps(result, indent=2))
            results.append(result)
    torch.set_num_threads(1)
    told = {"machine": machine(), "height": arguments.height, "width": arguments.width, "results": results}
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
