"""What a training step costs as a whole, at the size of VideoCLIP with random weights, and how near the peak it comes.

    python benchmarks/train.py                                     # on the processor, small batches: minutes
    python benchmarks/train.py --device cuda                       # bf16, compiled, kinds of attention, a 3D ResNet
    python benchmarks/train.py --only "bf16 sdpa" --num_steps 50
    python benchmarks/train.py --output benchmarks/results/train.json

For each setting: samples (clips) a second and the peak of memory of whole steps, nothing waited for between parts; the
share of data, towers, losses and optimizer from steps that are waited for part by part (`benchmarks/step.py`); and
the operations of the towers' matrix products, counted by torch, over the towers' time, as a share of what one large
bf16 product reaches here. A setting that this machine or this torch cannot run is kept with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parent))
import step

TOWERS = ("text tower", "video tower")
LOSSES = ("unit loss", "sequence loss")
RESNET_CLIP = (16, 112)  # frames, pixels of a side


@dataclass(frozen=True)
class Setting:
    """One way to run the same model: ``attention`` is a name of transformers, ``max_padding`` as in ``pretrain``."""

    name: str
    bf16: bool = True
    attention: str = "sdpa"
    compiled: bool = False
    max_padding: float | None = None


ON_GPU = (
    Setting("fp32 eager", bf16=False, attention="eager"),
    Setting("fp32 sdpa", bf16=False),
    Setting("bf16 eager", attention="eager"),
    Setting("bf16 sdpa"),
    Setting("bf16 flash", attention="flash_attention_2"),
    Setting("bf16 flex", attention="flex_attention"),
    Setting("bf16 sdpa, max_padding 0.1", max_padding=0.1),
    Setting("bf16 sdpa, compiled", compiled=True),
)
ON_CPU = (
    Setting("fp32 eager", bf16=False, attention="eager"),
    Setting("fp32 sdpa", bf16=False),
    Setting("fp32 sdpa, max_padding 0.1", bf16=False, max_padding=0.1),
    Setting("bf16 sdpa"),
)


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"benchmarks/train.py: torch {torch.__version__} sees no CUDA device here", file=sys.stderr)
        return 2
    from tempclr.benchmark.timing import num_threads

    with num_threads(arguments.num_threads):
        found = measure_all(arguments, device)
    if arguments.output is not None:
        save(found, arguments.output)
    return 0


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--num_videos", type=int, help="of a batch, of 16 clips each (2 on a processor, 16 on a GPU)")
    parser.add_argument("--num_steps", type=int, help="that are timed, after two that are not (3, on a GPU 30)")
    parser.add_argument("--num_threads", type=int, default=1, help="of the processor")
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--num_layers", type=int, nargs=2, default=(12, 6), metavar=("TEXT", "VIDEO"))
    parser.add_argument("--only", nargs="+", help="settings by name")
    parser.add_argument("--no_resnet", action="store_true", help="leave the 3D ResNet out")
    parser.add_argument("--num_resnet_clips", type=int, help="of a batch of 16 frames of 112 pixels (1, on a GPU 32)")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(words)
    on_gpu = arguments.device != "cpu"
    for name, values in (("num_videos", (2, 16)), ("num_steps", (3, 30)), ("num_resnet_clips", (1, 32))):
        if getattr(arguments, name) is None:
            setattr(arguments, name, values[on_gpu])
    return arguments


def measure_all(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything of one device, told as it comes."""
    peak = product_rate(device)
    print(f"one large bf16 product: {peak / 1e12:.2f} T operations a second")
    settings = [
        setting
        for setting in (ON_CPU if device.type == "cpu" else ON_GPU)
        if arguments.only is None or setting.name in arguments.only
    ]
    found: dict[str, Any] = {"machine": machine(device), "product_operations_per_second": peak, "steps": []}
    found |= {"num_videos": arguments.num_videos, "num_threads": torch.get_num_threads()}
    print(HEAD)
    for setting in settings:
        found["steps"].append(
            attempted(asdict(setting), lambda setting=setting: measure(setting, arguments, device, peak))
        )
        print(row(found["steps"][-1]), flush=True)
    if not arguments.no_resnet:
        for precision in ("fp32", "bf16"):
            run = attempted(
                {"name": f"R3D-18 {precision}"}, lambda precision=precision: resnet(precision, arguments, device)
            )
            found.setdefault("video_resnet", []).append(run)
            print(f"R3D-18 {precision}: {run.get('clips_per_second', run.get('failed'))} clips a second")
    return found


def attempted(setting: dict[str, Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures of a setting, or why there are none: this machine or this torch may not be able to run it."""
    try:
        return {**setting, **run()}
    except Exception as error:  # whatever a missing kernel, compiler or memory raises
        return {**setting, "failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def machine(device: torch.device) -> dict[str, Any]:
    import transformers

    from tempclr.benchmark import gpu, timing

    told = timing.machine() if device.type == "cpu" else gpu.machine(device)
    return {**told, "transformers": transformers.__version__}


def product_rate(device: torch.device) -> float:
    """Operations a second of a large bf16 product of matrices."""
    if device.type == "cuda":
        from tempclr.benchmark.gpu import device_rates

        return device_rates(device).operations_per_second
    size = 1024
    left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


# --- the model


def measure(setting: Setting, arguments: argparse.Namespace, device: torch.device, peak: float) -> dict[str, Any]:
    """Shares of the parts, then whole steps."""
    model, dataset, collator = step.make_parts(arguments)
    model.set_attn_implementation(setting.attention)
    model.set_max_padding(setting.max_padding)
    model.to(device).train()
    batch = collator([dataset[index] for index in range(len(dataset))])
    operations, tokens = counted(model, batch, setting, device)
    if setting.compiled:
        for tower in (model.text_model, model.video_model):
            tower.encoder = torch.compile(tower.encoder, dynamic=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    parts = shares(model, dataset, collator, optimizer, setting, arguments, device)
    whole = whole_steps(model, dataset, collator, optimizer, setting, arguments, device)
    reached = operations / sum(parts[name] for name in TOWERS)
    return {
        **whole,
        "seconds": parts,
        "shares": {name: value / sum(parts.values()) for name, value in parts.items()},
        "tower_operations": operations,
        "tower_operations_per_second": reached,
        "share_of_product": reached / peak,
        "padding": tokens,
        "num_clips": 16 * arguments.num_videos,
    }


def counted(model: Any, batch: dict[str, Any], setting: Setting, device: torch.device) -> tuple[int, dict[str, float]]:
    """Operations of the towers' products, forward and backward, and how much of the batch is padding.

    Counted with the attention written out, whose products every kind has to do.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from tempclr.data.padding import padding_share

    model.set_attn_implementation("eager")
    given = {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
    with FlopCounterMode(display=False) as counter, autocast(setting, device):
        output = model(**given, return_loss=False)
        (output.text_embeds.float().sum() + output.video_embeds.float().sum()).backward()
    model.zero_grad()
    model.set_attn_implementation(setting.attention)
    return counter.get_total_flops(), padding_share(batch, max_padding=setting.max_padding)


def autocast(setting: Setting, device: torch.device) -> Any:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=setting.bf16)


def shares(
    model: Any, dataset: Any, collator: Any, optimizer: Any, setting: Setting, arguments: Any, device: torch.device
) -> dict[str, float]:
    """Seconds of each part of a step, the device waited for after each."""
    samples: dict[str, list[float]] = {part: [] for part in step.PARTS}
    for number in range(arguments.num_steps + 2):
        dataset.set_epoch(number)  # other clips in every step
        spent = step.one_step(model, dataset, collator, optimizer, device=device, bf16=setting.bf16)
        if number > 1:
            for part, seconds in spent.items():
                samples[part].append(seconds)
    return {part: median(values) for part, values in samples.items()}


def whole_steps(
    model: Any, dataset: Any, collator: Any, optimizer: Any, setting: Setting, arguments: Any, device: torch.device
) -> dict[str, Any]:
    """Clips a second and peak memory of steps as a Trainer does them, on batches that lie ready."""
    ready = []
    for number in range(4):
        dataset.set_epoch(100 + number)
        batch = collator([dataset[index] for index in range(len(dataset))])
        ready.append({name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)})

    def one(number: int) -> None:
        with autocast(setting, device):
            loss = model(**ready[number % len(ready)], return_loss=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()

    with peak_memory(device) as memory:
        for number in range(len(ready)):
            one(number)
        wait(device)
        start = time.perf_counter()
        for number in range(arguments.num_steps):
            one(number)
        wait(device)
        seconds = (time.perf_counter() - start) / arguments.num_steps
    clips = 16 * arguments.num_videos
    return {"step_seconds": seconds, "clips_per_second": clips / seconds, **memory}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, Any]]:
    found: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    else:
        import resource

        found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- the 3D ResNet


def resnet(precision: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Training of R3D-18 alone on clips of 16 frames: float32 as it stands, or bf16 with the channels last."""
    from tempclr.models.video_resnet import VideoResNetConfig, VideoResNetModel

    torch.manual_seed(0)
    model = VideoResNetModel(VideoResNetConfig(variant="r3d_18")).to(device).train()
    num_frames, size = RESNET_CLIP
    pixels = torch.rand(arguments.num_resnet_clips, num_frames, 3, size, size, device=device)
    in_bf16 = precision == "bf16"
    if in_bf16:
        model = model.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def one() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bf16):
            loss = model(pixels).pooler_output.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with peak_memory(device) as memory:
        one()
        wait(device)
        start = time.perf_counter()
        for _ in range(arguments.num_steps):
            one()
        wait(device)
    seconds = (time.perf_counter() - start) / arguments.num_steps
    return {"clips_per_second": round(arguments.num_resnet_clips / seconds, 2), "step_seconds": seconds, **memory}


# --- what is told


HEAD = (
    "| setting | clips/s | step, ms | GB | data | towers | unit loss | sequence loss | optimizer | of the product |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def row(run: dict[str, Any]) -> str:
    if "failed" in run:
        return f"| {run['name']} | not run: {run['failed'][:120]} |"
    share = run["shares"]
    towers = sum(share[name] for name in TOWERS)
    cells = [f"{run['clips_per_second']:.1f}", f"{1000 * run['step_seconds']:.1f}", f"{run['peak_bytes'] / 1e9:.2f}"]
    cells += [
        f"{value:.1%}" for value in (share["data"], towers, *(share[name] for name in LOSSES), share["optimizer"])
    ]
    return f"| {run['name']} | {' | '.join(cells)} | {run['share_of_product']:.1%} |"


def save(found: dict[str, Any], path: Path) -> None:
    """One entry a kind of device, so that a run on one keeps what another has left."""
    from tempclr.data.files import atomic_path

    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept["gpu" if "gpu" in found["machine"] else "cpu"] = found
    with atomic_path(path) as written:
        written.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
