"""Time feature extraction with S3D-G beside its forward pass alone, in turns, on videos made here.

python benchmarks/extract.py                         # float32 and bfloat16, two videos of ten seconds
python benchmarks/extract.py --settings              # what layout, folding, bfloat16 and torch.compile do for one clip

Extraction decodes, samples, resizes, crops and encodes; the forward pass alone has its pixels ready in memory. Both
have the model loaded and run on as many threads, one a video. Results go to benchmarks/results/extract.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tempclr.benchmark.timing import interleaved, machine, num_threads
from tempclr.data.backbones import Backbone, load_backbone
from tempclr.data.extractor import FeatureExtractor, FeatureRecipe
from tempclr.data.features import _encoded
from tempclr.data.files import atomic_path
from tempclr.data.video import write_video
from tempclr.models.s3d import S3DConfig, S3DModel, S3DProcessor, S3DVideoModel

RESULTS = Path(__file__).resolve().parent / "results" / "extract.json"
SMALL = {"stem_sizes": [16, 16, 48], "stages": [[[16] * 6] * 2, [[32] * 6] * 5, [[64] * 6] * 2]}
PRECISIONS = ("float32", "bfloat16")


def make_model(folder: Path, *, small: bool) -> None:
    """S3D-G with random weights: how long it takes does not depend on them."""
    torch.manual_seed(0)
    text = {"vocab_size": 100, "hidden_size": 32}
    S3DModel(S3DConfig(text_config=text, video_config=SMALL if small else None)).save_pretrained(folder)
    S3DProcessor().save_pretrained(folder)


def make_videos(folder: Path, *, num_videos: int, seconds: int, height: int, width: int) -> None:
    """H.264 of a picture that moves, with noise on it, 30 frames a second."""
    for number in range(num_videos):
        random = np.random.default_rng(number)
        blocks = random.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
        grain = random.integers(0, 16, (height, width, 3), dtype=np.uint8)
        frames = (np.roll(picture, (n, 2 * n), (0, 1))[:height, :width] // 2 + grain for n in range(30 * seconds))
        write_video(folder / f"{number}.mp4", frames, frames_per_second=30)


def compare(folder: Path, *, precision: str, num_workers: int, num_rounds: int) -> dict[str, Any]:
    """Frames a second of both, by the wall clock and by processor time, and the medians of their ratios."""
    backbone = load_backbone(str(folder / "model"))
    recipe = FeatureRecipe.of(backbone)
    extractor = FeatureExtractor(recipe, device="cpu", backbone=backbone, precision=precision)
    videos = sorted((folder / "videos").glob("*.mp4"))
    ready = [[_pixels(batch, recipe) for batch in extractor.prepare(video)] for video in videos]
    num_frames = recipe.frames_per_clip * sum(len(pixels) for batches in ready for pixels in batches)
    runs = {
        "extraction": lambda: _extract(extractor, videos, num_workers),
        "forward pass": lambda: _forward(backbone, ready, precision, num_workers),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(num_rounds + 1):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            spent = _seconds(runs[name])
            if number:  # the first round warms up
                times[name].append(spent)
    result: dict[str, Any] = {"precision": precision, "num_frames": num_frames, "num_workers": num_workers}
    for index, clock in enumerate(("wall", "processor")):
        rates = {name: [num_frames / spent[index] for spent in times[name]] for name in runs}
        ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
        result[clock] = {name: round(median(values), 1) for name, values in rates.items()}
        result[clock]["ratio"] = round(median(ratios), 3)
    return result


def _pixels(batch: torch.Tensor, recipe: FeatureRecipe) -> torch.Tensor:
    pixels = batch.to(torch.float32, memory_format=torch.channels_last) / 255
    return pixels.unflatten(0, (-1, recipe.frames_per_clip))


def _extract(extractor: FeatureExtractor, videos: list[Path], num_workers: int) -> None:
    with _encoded(iter(videos), extractor, num_workers) as results:
        for result in results:
            result()


def _forward(backbone: Backbone, ready: list[list[torch.Tensor]], precision: str, num_workers: int) -> None:
    def encode(batches: list[torch.Tensor]) -> None:
        in_bfloat16 = precision == "bfloat16"
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
            for pixels in batches:
                backbone.module(pixels)

    with num_threads(1), ThreadPoolExecutor(num_workers) as pool:
        list(pool.map(encode, ready))


def _seconds(run: Callable[[], None]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def compare_settings(folder: Path, *, num_rounds: int) -> dict[str, float]:
    """Milliseconds of one thread for one clip of 30 frames of 224 x 224, each setting on top of those before it."""
    pixels = torch.rand(1, 30, 3, 224, 224)

    def load() -> Any:
        return S3DVideoModel.from_pretrained(folder / "model").eval().requires_grad_(False)

    folded = load().fold_norms()
    in_layout = load().fold_norms().to(memory_format=torch.channels_last_3d)
    compiled = torch.compile(load().fold_norms().to(memory_format=torch.channels_last_3d))
    models = {"plain": load(), "folded": folded, "channels_last_3d": in_layout, "torch.compile": compiled}
    runs = {f"{name}, float32": _one_clip(model, pixels, in_bfloat16=False) for name, model in models.items()}
    runs |= {f"{name}, bfloat16": _one_clip(model, pixels, in_bfloat16=True) for name, model in models.items()}
    with num_threads(1):
        samples = interleaved(runs, num_rounds=num_rounds, clock="processor")
    return {name: round(median(values), 1) for name, values in samples.items()}


def _one_clip(model: Any, pixels: torch.Tensor, *, in_bfloat16: bool) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
            model(pixels)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a narrow network instead of the released widths")
    parser.add_argument("--settings", action="store_true", help="compare settings for one clip instead")
    parser.add_argument("--num_videos", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=10, help="of each video")
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--num_workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model", small=options.small)
        if options.settings:
            keep(options.output, "settings_ms", compare_settings(folder, num_rounds=options.rounds))
            return
        size = {"height": options.height, "width": options.width}
        make_videos(folder / "videos", num_videos=options.num_videos, seconds=options.seconds, **size)
        for precision in options.precisions:
            result = compare(folder, precision=precision, num_workers=options.num_workers, num_rounds=options.rounds)
            result["videos"] = {**size, "num_videos": options.num_videos, "seconds": options.seconds}
            keep(options.output, precision + (", small" if options.small else ""), result)


def keep(file: Path, name: str, result: dict[str, Any]) -> None:
    """Put one result among those kept, each with the machine as it was then."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    kept[name] = {**result, "machine": machine()}
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: result}), flush=True)


if __name__ == "__main__":
    main()
