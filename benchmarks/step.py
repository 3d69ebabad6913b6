"""Where the time of a training step goes, at the size of VideoCLIP with random weights, and what the losses take alone.

    python benchmarks/step.py                                  # 4 videos of 16 clips, on the processor: minutes
    python benchmarks/step.py --num_videos 16 --device cuda    # the released batch of 256 clips
    python benchmarks/step.py --losses_only                    # 16 videos, 32 orders, at 5 x 5 and 32 x 32: seconds
    python benchmarks/step.py --output benchmarks/results/step.json

A step is what `tempclr pretrain --recipe pretrain_howto100m_all` does for a batch: draw clips over captions and pad
them, run both towers forward and backward, the unit loss, the sequence loss (the drawing of its negatives included),
clip the gradients and update the weights. Times are medians over steps; the first step is not counted. One thread is
timed by its processor time, which other work on the machine does not lengthen; several threads and a GPU by the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

PARTS = ("data", "text tower", "video tower", "unit loss", "sequence loss", "optimizer")
BARS = {5: 10.0, 32: 50.0}  # milliseconds of the sequence loss, forward and backward


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    from tempclr.benchmark.timing import machine, num_threads

    results: dict[str, Any] = {"machine": machine()}
    with num_threads(1):
        results["losses"] = [time_losses(length, num_rounds=arguments.num_rounds) for length in BARS]
    print(losses_table(results["losses"]))
    if not arguments.losses_only:
        with num_threads(arguments.num_threads):
            results["step"] = time_steps(arguments)
        print(step_table(results["step"]))
    if arguments.output is not None:
        from tempclr.data.files import atomic_path

        with atomic_path(arguments.output) as written:
            written.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_videos", type=int, default=4, help="of a batch, of 16 clips each")
    parser.add_argument("--num_steps", type=int, default=2, help="that are timed, after one that is not")
    parser.add_argument("--num_rounds", type=int, default=15, help="of the losses alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num_threads", type=int, default=1, help="of the step")
    parser.add_argument("--bf16", action="store_true", help="towers under autocast")
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--num_layers", type=int, nargs=2, default=(12, 6), metavar=("TEXT", "VIDEO"))
    parser.add_argument("--losses_only", action="store_true")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(words)


# --- the losses alone


def time_losses(length: int, *, num_rounds: int, num_videos: int = 16, num_negatives: int = 31) -> dict[str, Any]:
    """Milliseconds of the sequence loss by part, for paragraphs of ``length`` sentences and as many clips."""
    from tempclr.costs import cosine_cost
    from tempclr.losses import contrast_orders, sequence_loss
    from tempclr.negatives import sample_negatives

    generator = torch.Generator().manual_seed(0)
    text, video = (torch.randn(num_videos, length, 768, generator=generator).requires_grad_() for _ in range(2))
    mask, index = torch.ones(num_videos, length, dtype=torch.bool), torch.arange(length).expand(num_videos, length)
    units = {"sentence_mask": mask, "clip_mask": mask, "clip_sentence_index": index}
    found: dict[str, Any] = {"length": length, "num_videos": num_videos, "num_orders": num_negatives + 1}
    for strategy in ("visual_anchor", "seg_unit"):

        def draw(strategy: str = strategy) -> Any:
            return sample_negatives(strategy, **units, num_negatives=num_negatives, generator=generator)

        negatives = draw()

        def contrast(negatives: Any = negatives) -> None:
            contrast_orders(cosine_cost(text, video, eps=0.01), negatives=negatives).mean().backward()

        def whole(strategy: str = strategy) -> None:
            options = {"negatives": strategy, "num_negatives": num_negatives, "generator": generator}
            sequence_loss(text, video, **units, **options).backward()

        found[strategy] = {
            "negatives": milliseconds(draw, num_rounds),
            "costs, distances and backward": milliseconds(contrast, num_rounds),
            "whole loss": milliseconds(whole, num_rounds),
        }
    return found


def milliseconds(run: Callable[[], Any], num_rounds: int) -> float:
    run()
    samples = []
    for _ in range(num_rounds):
        start = time.process_time()
        run()
        samples.append(1000 * (time.process_time() - start))
    return median(samples)


def losses_table(losses: list[dict[str, Any]]) -> str:
    lines = [
        "| sequence loss, forward and backward, one thread | negatives | drawing them | rest | whole, ms | bar, ms |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for found in losses:
        size = f"{found['num_videos']} videos x {found['num_orders']} orders x {found['length']} x {found['length']}"
        for strategy in ("visual_anchor", "seg_unit"):
            drawing, rest, whole = found[strategy].values()
            bar = BARS[found["length"]]
            lines.append(f"| {size} | {strategy} | {drawing:.1f} | {rest:.1f} | {whole:.1f} | {bar:.0f} |")
    return "\n".join(lines)


# --- a whole step


def time_steps(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(arguments.device)
    model, dataset, collator = make_parts(arguments)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.0)
    samples: dict[str, list[float]] = {part: [] for part in PARTS}
    for number in range(arguments.num_steps + 1):
        spent = one_step(model, dataset, collator, optimizer, device=device, bf16=arguments.bf16)
        if number:
            for part in PARTS:
                samples[part].append(spent[part])
    seconds = {part: median(values) for part, values in samples.items()}
    threads = f"{torch.get_num_threads()} threads of the processor"
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else threads.replace("1 threads", "1 thread"),
        "num_threads": torch.get_num_threads(),
        "num_videos": arguments.num_videos,
        "num_clips": 16 * arguments.num_videos,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bf16": arguments.bf16,
        "seconds": seconds,
    }


def make_parts(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """A model of random weights, and videos whose captions are of the length that the released tokens have."""
    from tempclr.data.captions_collation import CaptionCollator, CaptionDataset
    from tempclr.data.rows import Paragraph
    from tempclr.data.tokenization import train_tokenizer
    from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

    draw = random.Random(0)
    words = ["".join(draw.choices("aeioubcdfgklmnprst", k=4)) for _ in range(300)]
    features = np.random.default_rng(0).normal(size=(arguments.num_videos, 400, 512)).astype(np.float32)
    paragraphs = [
        Paragraph(
            f"v{number}",
            [" ".join(draw.choices(words, k=draw.randint(4, 12))) for _ in range(100)],
            [4.0 * caption for caption in range(100)],
            [4.0 * caption + 4.0 for caption in range(100)],
            features=features[number],
            features_per_second=1.0,
        )
        for number in range(arguments.num_videos)
    ]
    sizes = {"hidden_size": arguments.hidden_size, "intermediate_size": 4 * arguments.hidden_size}
    sizes["num_attention_heads"] = max(1, arguments.hidden_size // 64)
    text_layers, video_layers = arguments.num_layers
    torch.manual_seed(0)
    model = TempCLRModel(
        TempCLRConfig(
            text_config={**sizes, "num_hidden_layers": text_layers},
            video_config={**sizes, "num_hidden_layers": video_layers},
        )
    )
    processor = TempCLRProcessor(train_tokenizer(words))
    return model, CaptionDataset(paragraphs, processor), CaptionCollator(processor)


def one_step(
    model: Any, dataset: Any, collator: Any, optimizer: Any, *, device: torch.device, bf16: bool
) -> dict[str, float]:
    """Seconds of each part of a step. The losses are computed on copies of the vectors, so that each part's backward
    can be timed by itself; the gradients are those of the whole."""
    from tempclr.losses import sequence_loss, unit_loss

    spent = dict.fromkeys(PARTS, 0.0)
    # Threads that wait for each other count as busy.
    one_thread = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_thread else time.perf_counter

    def timed(part: str, run: Callable[[], Any]) -> Any:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        result = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent[part] += clock() - start
        return result

    def batch_on_device() -> dict[str, Any]:
        return {
            name: value.to(device) for name, value in collator([dataset[row] for row in range(len(dataset))]).items()
        }

    batch = timed("data", batch_on_device)
    masks = {name: batch[name] for name in ("sentence_mask", "clip_mask", "clip_sentence_index")}

    def text_forward() -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            return model.get_text_features(
                batch["input_ids"], batch["attention_mask"], masks["sentence_mask"]
            ).pooler_output

    def video_forward() -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            return model.get_video_features(
                batch["video_features"], batch["video_mask"], masks["clip_mask"]
            ).pooler_output

    text, video = timed("text tower", text_forward), timed("video tower", video_forward)
    own_text, own_video = text.detach().requires_grad_(), video.detach().requires_grad_()
    timed("unit loss", lambda: (0.3 * unit_loss(own_text, own_video, **masks, similarity="dot")).backward())
    timed(
        "sequence loss",
        lambda: (0.7 * sequence_loss(own_text, own_video, **masks, negatives="visual_anchor")).backward(),
    )
    timed("text tower", lambda: text.backward(own_text.grad))
    timed("video tower", lambda: video.backward(own_video.grad))

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()

    timed("optimizer", update)
    return spent


def step_table(step: dict[str, Any]) -> str:
    seconds = step["seconds"]
    whole = sum(seconds.values())
    head = f"{step['num_clips']} clips of {step['num_videos']} videos, {step['num_parameters'] / 1e6:.0f} M parameters"
    lines = ["", f"| one step of {head}, {step['device']} | ms | share |", "|---|---|---|"]
    lines += [f"| {part} | {1000 * value:.1f} | {value / whole:.2%} |" for part, value in seconds.items()]
    return "\n".join([*lines, f"| whole step | {1000 * whole:.1f} | {1:.0%} |"])


if __name__ == "__main__":
    sys.exit(main())
