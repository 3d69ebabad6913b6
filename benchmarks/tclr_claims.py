"""Do TCLR's losses over time help? Generated videos whose classes are motions, a small network, three seeds, resumable.

python benchmarks/tclr_claims.py                      # goes on where it stopped, in the middle of a training too
python benchmarks/tclr_claims.py --part validation    # what the settings were chosen by: test videos are not looked at
python benchmarks/tclr_claims.py --pages              # only renews docs/tclr.md and its pictures

Every variant sees the same videos, clips and augmentations in the same order from the same initial weights; only the
losses differ. All settings were chosen on other videos, by seed 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tclr_page import draw, mean_and_half, page
from transformers import TrainerCallback

from tempclr.benchmark.timing import machine
from tempclr.data.motion_videos import MOTIONS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "tclr_claims.json"
PAGE = ROOT / "docs" / "tclr.md"
WORK = ROOT / "runs" / "tclr_claims"
SEEDS = (0, 1, 2)
VARIANTS: dict[str, list[str] | None] = {
    "random": None,
    "instance": ["instance"],
    "+ local-local": ["instance", "local_local"],
    "+ global-local": ["instance", "global_local"],
    "TCLR": ["instance", "local_local", "global_local"],
    "supervised": None,
}
PRETRAINED = [name for name, losses in VARIANTS.items() if losses]
LABELS = tuple(MOTIONS)
# Of each motion. The settings were chosen by videos of a seed of their own.
NUM_VIDEOS = {"validation": {"train": 10, "test": 8}, "test": {"train": 14, "test": 20}}
DATA_SEEDS = {"validation": 5, "test": 2}
VIDEO_SIZE, CLIP_SIZE, NUM_LOOKS = 32, 16, 1
NETWORK = {"variant": "r3d_10", "width": 8}
TRAINING: dict[str, Any] = {
    **{"num_train_epochs": 40, "per_device_train_batch_size": 16, "learning_rate": 3e-3},
    # The published schedule is made for hundreds of epochs.
    **{"plateau": False, "lr_scheduler_type": "cosine", "warmup_steps": 12},
}
SUPERVISED: dict[str, Any] = {
    **{"num_train_epochs": 40, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "warmup_epochs": 2}
}
NUM_TEST_CLIPS = 10


def frames_of(videos: Any) -> dict[Path, torch.Tensor]:
    """All frames of all videos, uint8 ``(N, 3, H, W)``: decoded once, as they are read hundreds of times."""
    from tempclr.data.video import read_frames

    return {one.video: torch.from_numpy(read_frames(one.video, num_threads=1)[0]).permute(0, 3, 1, 2) for one in videos}


def in_memory(kind: type, frames: dict[Path, torch.Tensor]) -> type:
    """A dataset of that kind that takes its frames from there."""

    class InMemory(kind):  # type: ignore[misc]
        def _read(self, video: Any, clips: Any, rate: float) -> Any:
            return frames[video.video], [torch.from_numpy(clip) for clip in clips]

    return InMemory


def data(part: str) -> tuple[list[Any], list[Any]]:
    """(training videos, videos to measure)."""
    from tempclr.data.action_videos import read_action_videos
    from tempclr.data.motion_videos import make_motion_videos

    folder = WORK / f"videos_{part}"
    looks = {"image_size": VIDEO_SIZE, "num_looks": NUM_LOOKS, "seed": DATA_SEEDS[part]}
    make_motion_videos(folder, num_videos=NUM_VIDEOS[part], labels=LABELS, show_progress_bar=False, **looks)
    train, measured = (read_action_videos(folder / "rows.jsonl", split=split) for split in ("train", "test"))
    return train, measured


class Clock(TrainerCallback):
    """Adds up the time of a run over kills: what was spent up to each checkpoint is kept beside it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "seconds.json"
        self.before = json.loads(self.file.read_text()) if self.file.is_file() else {"wall": 0.0, "processor": 0.0}
        self.start = time.perf_counter(), time.process_time()

    def total(self) -> dict[str, float]:
        now = time.perf_counter(), time.process_time()
        spent = [end - start for end, start in zip(now, self.start, strict=True)]
        return {name: self.before[name] + seconds for name, seconds in zip(("wall", "processor"), spent, strict=True)}

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        from tempclr.data.files import atomic_path

        with atomic_path(self.file) as temporary:
            temporary.write_text(json.dumps(self.total()), encoding="utf-8")


def arguments_of(kind: type, folder: Path, seed: int, settings: dict[str, Any]) -> Any:
    quiet = {"report_to": [], "disable_tqdm": True, "logging_strategy": "epoch", "use_cpu": True}
    saving = {"save_strategy": "epoch", "save_total_limit": 1}
    resume = "last" if any(folder.glob("checkpoint-*/trainer_state.json")) else None
    return kind(str(folder), seed=seed, resume_from_checkpoint=resume, **quiet, **saving, **settings)


def trained(name: str, seed: int, train: list[Any], frames: dict[Path, torch.Tensor], folder: Path) -> tuple[Any, Any]:
    """The encoder, and what was logged in its last epoch."""
    from tempclr.data.action_videos import TCLRDataset
    from tempclr.recipes.tclr import TCLRClipArguments, TCLRModelArguments, TCLRTrainingArguments, pretrain_tclr
    from tempclr.recipes.tclr_classification import (
        ClassificationArguments,
        ClassificationTrainingArguments,
        finetune_classification,
    )

    clock = Clock(folder)
    clips = TCLRClipArguments(image_size=CLIP_SIZE, short_side=None)
    if name == "supervised":
        supervised = ClassificationArguments(
            **NETWORK,
            image_size=CLIP_SIZE,
            short_side=None,
            validation_fraction=0.0,  # type: ignore[arg-type]
        )
        arguments = arguments_of(ClassificationTrainingArguments, folder, seed, SUPERVISED)
        trainer: Any = finetune_classification(
            train, training_arguments=arguments, arguments=supervised, callbacks=[clock]
        )
    else:
        # Untrained weights, but statistics of batch normalisation that fit the videos.
        settings = TRAINING if name != "random" else {**TRAINING, "num_train_epochs": 1, "learning_rate": 0.0}
        dataset = in_memory(TCLRDataset, frames)(train, sampler=clips.sampler(), augmentation=clips.recipe(), seed=seed)
        trainer = pretrain_tclr(
            dataset,
            training_arguments=arguments_of(TCLRTrainingArguments, folder, seed, {"channels_last": True, **settings}),
            model_arguments=TCLRModelArguments(losses=VARIANTS[name], **NETWORK),  # type: ignore[arg-type]
            clip_arguments=clips,
            callbacks=[clock],
        )
    logged: dict[str, Any] = {}
    for entry in trainer.state.log_history:
        logged |= {key: value for key, value in entry.items() if key == "loss" or key.endswith(("_loss", "accuracy"))}
    return trainer.model, {"last_epoch": logged, "seconds": clock.total()}


def features_of(model: Any, videos: list[Any], frames: dict[Path, torch.Tensor]) -> torch.Tensor:
    from torch.utils.data import DataLoader

    from tempclr.data.action_videos import ActionClips, action_collate
    from tempclr.evaluation.classification_features import clip_features
    from tempclr.recipes.tclr_classification import ClassificationArguments

    recipe = ClassificationArguments(augmentations="none").recipe(CLIP_SIZE)
    clips = in_memory(ActionClips, frames)(videos, num_clips=NUM_TEST_CLIPS, augmentation=recipe)
    return clip_features(model.backbone, DataLoader(clips, batch_size=8, collate_fn=action_collate))


def slices_of(model: Any, videos: list[Any], frames: dict[Path, torch.Tensor]) -> Any:
    """The picture of the paper's appendix H: of the middle span of each video, without augmentation."""
    from tempclr.data.augmentations import centre_crop
    from tempclr.data.clip_sampling import ClipSampler
    from tempclr.evaluation.classification_features import timestep_similarity

    batches = []
    for video in videos:
        seen = frames[video.video]
        clip = ClipSampler().clips(len(seen), start=(len(seen) - 64) // 2)
        assert clip is not None
        batches.append(centre_crop(seen[clip.global_frames], image_size=CLIP_SIZE)[None].float() / 255)
    return timestep_similarity(model, batches).tolist()


def run(part: str, name: str, seed: int, train: list[Any], measured: list[Any], frames: Any) -> dict[str, Any]:
    from tempclr.evaluation.classification import LinearSettings, linear_evaluation
    from tempclr.evaluation.classification_features import video_vectors
    from tempclr.evaluation.video_retrieval import retrieve_neighbours

    model, kept = trained(name, seed, train, frames, run_folder(part, name, seed))
    sides = [features_of(model, videos, frames) for videos in (train, measured)]
    labels = [[str(video.label) for video in videos] for videos in (train, measured)]
    pooled = [side.mean(dim=2) for side in sides]
    scaled = LinearSettings(standardize=True)
    linear = linear_evaluation(pooled[0], labels[0], pooled[1], labels[1], settings=scaled, seed=seed)
    vectors = [video_vectors(side) for side in sides]
    found = retrieve_neighbours(vectors[1], labels[1], vectors[0], labels[0])
    kept |= {"linear": linear.accuracy, "linear_one_clip": linear.accuracy_one_clip, "per_class": linear.per_class}
    kept |= {f"R@{k}": value for k, value in found.recalls.items()}
    if name != "supervised":
        kept["slices"] = slices_of(model, measured, frames)
    return {**kept, "num_train": len(train), "num_measured": len(measured)}


def run_folder(part: str, name: str, seed: int) -> Path:
    return WORK / part / f"{name.replace('+ ', 'with_')}_{seed}"


def result_file(part: str, name: str, seed: int) -> Path:
    return run_folder(part, name, seed) / "result.json"


def work(part: str, jobs: list[tuple[str, int]]) -> None:
    """Do these runs, one after the other; those that are done are left alone."""
    from tempclr.data.files import atomic_path
    from tempclr.evaluation.report import plain

    torch.set_num_threads(1)
    jobs = [job for job in jobs if not result_file(part, *job).is_file()]
    if not jobs:
        return
    train, measured = data(part)
    frames = frames_of([*train, *measured])
    for name, seed in jobs:
        kept = run(part, name, seed, train, measured, frames)
        with atomic_path(result_file(part, name, seed)) as temporary:
            temporary.write_text(json.dumps(plain(kept), indent=1) + "\n", encoding="utf-8")
        seconds, share = kept["seconds"], f"linear {100 * kept['linear']:.1f}, R@1 {100 * kept['R@1']:.1f}"
        spent = f"{seconds['wall']:.0f} s on a clock, {seconds['processor']:.0f} s of processor time"
        print(f"{part}, {name}, seed {seed}: {share}; {spent}", flush=True)


def share_out(part: str, jobs: list[tuple[str, int]], num_processes: int) -> None:
    """The runs in processes of one thread each, which small convolutions use best."""
    data(part)
    words = [sys.executable, __file__, "--part", part, "--jobs"]
    shares = [[f"{name}/{seed}" for name, seed in jobs[start::num_processes]] for start in range(num_processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([*words, *share], env=environment) for share in shares if share]
    try:
        codes = [process.wait() for process in running]
    except BaseException:
        for process in running:
            process.terminate()
        raise
    if any(codes):
        raise SystemExit("a run failed; what it said stands above, and the next call goes on where this one stopped")


def settings() -> dict[str, Any]:
    network = f"{NETWORK['variant']}, width {NETWORK['width']}"
    names = {"epochs": "num_train_epochs", "batch": "per_device_train_batch_size", "rate": "learning_rate"}
    numbers = {name: TRAINING[field] for name, field in names.items()} | {
        "training": TRAINING,
        "supervised": SUPERVISED,
    }
    numbers |= {"num_videos": NUM_VIDEOS, "data_seeds": DATA_SEEDS, "num_looks": NUM_LOOKS}
    return {"num_classes": len(LABELS), "size": VIDEO_SIZE, "clip": CLIP_SIZE, "network": network, **numbers}


def collect(part: str, seeds: Sequence[int]) -> dict[str, Any]:
    """All runs of these seeds that are done, whichever were asked for."""
    jobs = [(name, seed) for seed in seeds for name in VARIANTS]
    done = [job for job in jobs if result_file(part, *job).is_file()]
    return {f"{name}/{seed}": json.loads(result_file(part, name, seed).read_text()) for name, seed in done}


def check_settings() -> None:
    """Refuse a folder of runs that other settings made: their results would stand under the headline of these."""
    file, wanted = WORK / "settings.json", json.loads(json.dumps(settings()))
    if file.is_file() and json.loads(file.read_text()) != wanted:
        raise SystemExit(f"error: {file}: its runs were made with other settings; remove the folder, or restore them")
    WORK.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(wanted, indent=1) + "\n")


def write(results: dict[str, Any]) -> None:
    """The results file, the page, and its pictures; those of models only where the models of seed 0 are at hand."""
    from tempclr.data.files import atomic_path
    from tempclr.evaluation.report import plain

    with atomic_path(RESULTS) as temporary:
        temporary.write_text(json.dumps(plain(results), indent=1) + "\n", encoding="utf-8")
    with atomic_path(PAGE) as temporary:
        temporary.write_text(page(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    draw(ROOT, results, models_seen())


def models_seen() -> dict[str, Any]:
    """What the pictures of models show: classes in the plane, attention, neighbours; empty without the models."""
    import numpy as np

    from tempclr.data.augmentations import centre_crop
    from tempclr.evaluation.classification_features import attention_maps, video_vectors
    from tempclr.evaluation.video_retrieval import nearest_neighbours
    from tempclr.models.tclr import TCLRModel
    from tempclr.plots.tclr import Neighbours
    from tempclr.plots.tclr_tsne import tsne

    shown = [name for name in ("random", "instance", "TCLR") if (run_folder("test", name, 0) / "config.json").is_file()]
    if "TCLR" not in shown:
        return {}
    train, measured = data("test")
    frames = frames_of([*train, *measured])
    models = {name: TCLRModel.from_pretrained(run_folder("test", name, 0)).eval() for name in shown}
    labels = [str(video.label) for video in measured]
    places, vectors = {}, {}
    for name, model in models.items():
        vectors[name] = [video_vectors(features_of(model, videos, frames)) for videos in (train, measured)]
        places[name] = tsne(vectors[name][1].numpy(), perplexity=min(15.0, (len(labels) - 2) / 3))
    middle = {one.video: centre_crop(frames[one.video], image_size=CLIP_SIZE) for one in (*train, *measured)}
    shot = next(one for one in measured if one.label == "orbit")
    clip = middle[shot.video][torch.arange(16) * 4][None].float() / 255
    attention = {name: attention_maps(model.backbone, clip)[0].numpy() for name, model in models.items()}
    queries = [labels.index(label) for label in LABELS[:4]]
    nearest = nearest_neighbours(vectors["TCLR"][1][queries], vectors["TCLR"][0], k=4)

    def pictures(video: Any) -> np.ndarray:
        return frames[video.video].permute(0, 2, 3, 1).numpy()

    neighbours = [
        Neighbours(
            pictures(measured[query]),
            labels[query],
            [pictures(train[place]) for place in found],
            [str(train[place].label) for place in found],
        )
        for query, found in zip(queries, nearest.tolist(), strict=True)
    ]
    seen = {"places": places, "labels": labels, "attention": attention}
    return {
        **seen,
        "frames": middle[shot.video][torch.arange(16) * 4].permute(0, 2, 3, 1).numpy(),
        "neighbours": neighbours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--num_processes", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--jobs", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--pages", action="store_true", help="only write the page and its pictures")
    arguments = parser.parse_args()
    if arguments.jobs:
        work(arguments.part, [(job.split("/")[0], int(job.split("/")[1])) for job in arguments.jobs])
        return
    if arguments.pages:
        write(json.loads(RESULTS.read_text(encoding="utf-8")))
        return
    check_settings()
    jobs = [(name, seed) for seed in arguments.seeds for name in arguments.variants]
    share_out(arguments.part, jobs, arguments.num_processes)
    found = collect(arguments.part, sorted({*SEEDS, *arguments.seeds}))
    results = {"machine": machine(), "settings": settings(), "runs": found}
    for name in VARIANTS:
        runs = [run for key, run in results["runs"].items() if key.split("/")[0] == name]
        if runs:
            told = [f"{key} {100 * mean_and_half([one[key] for one in runs])[0]:.1f}" for key in ("linear", "R@1")]
            print(f"{name}: {', '.join(told)} ({len(runs)} seeds)")
    if arguments.part == "test":
        missing = [f"{name}/{seed}" for seed in SEEDS for name in VARIANTS if f"{name}/{seed}" not in found]
        if missing:
            print(f"the page waits for {', '.join(missing)}")
        else:
            write(results)


if __name__ == "__main__":
    main()
