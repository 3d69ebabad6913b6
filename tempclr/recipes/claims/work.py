"""One job done: its result written whole when it ends, with the time and memory it took."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tempclr.data.files import atomic_path
from tempclr.errors import InputError
from tempclr.recipes.claims.grid import PERTURBED, RUNS, ClaimSettings, Job, Run, folder_name

__all__ = ["Workshop", "do_job", "forget_peak", "model_folder", "peak_memory", "read_result"]

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Workshop:
    """Where and by which settings jobs are done.

    ``few_shot``: name of a set of sequences -> function of a seed that other processes can import. It returns the
    ``SequenceSet`` of the training classes, that of new ones, and ``{"encoder": fields of EncoderArguments,
    "num_epochs", "base_way"}``.
    ``choice``: the file without which no test video is looked at; None where nothing is held back (tests of the code).
    """

    output_dir: Path
    settings: ClaimSettings
    few_shot: Mapping[str, Callable[..., Any]]
    choice: Path | None = None

    def claim(self) -> None:
        """Take the folder for these settings.

        Raises:
            InputError: it holds results of others.
        """
        file = self.output_dir / SETTINGS_FILE
        wanted = self.settings.to_dict()
        if not file.exists():
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
            return
        found = json.loads(file.read_text(encoding="utf-8"))
        for name in wanted:
            if found.get(name) != wanted[name]:
                raise InputError(
                    f"the folder holds runs with {name}={found.get(name)!r}, asked for {wanted[name]!r}; choose "
                    "another --output_dir",
                    file=file,
                    field=name,
                )


def do_job(job: Job, shop: Workshop) -> None:
    """Do a job whose needs are done, unless it is done itself."""
    file = job.file(shop.output_dir)
    if file.exists():
        return
    if job.kind in ("test", "few_shot_test") and shop.choice is not None:
        from tempclr.recipes.claims.choice import require_commit

        require_commit(shop.choice)
    with _spent() as spent, redirect_stdout(sys.stderr):  # where the Trainer tells what it does
        result = KINDS[job.kind](job, shop)
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps({**result, "spent": spent}) + "\n", encoding="utf-8")


def read_result(job: Job, output_dir: Path) -> dict[str, Any] | None:
    """What a job left, or None where it is not done."""
    file = job.file(output_dir)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def model_folder(output_dir: Path, seed: int, name: str) -> Path:
    """Where the model of a run lies."""
    return output_dir / f"seed-{seed}" / "models" / folder_name(name)


def _seed_folder(shop: Workshop, seed: int) -> Path:
    return shop.output_dir / f"seed-{seed}" / "videos_and_features"


def _data(job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.claims.data import make_data

    return {"num_videos": make_data(_seed_folder(shop, job.seed), shop.settings, job.seed)}


def _train(job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.claims.data import cached_splits
    from tempclr.recipes.claims.training import train_run

    run, target = RUNS[job.name], model_folder(shop.output_dir, job.seed, job.name)
    staging = target.with_name(f".{target.name}")
    for folder in (staging, target):
        shutil.rmtree(folder, ignore_errors=True)
    splits = cached_splits(_seed_folder(shop, job.seed), shop.settings)
    start = time.process_time()
    model = train_run(
        run,
        splits,
        settings=shop.settings,
        output_dir=staging,
        seed=job.seed,
        init_from=None if run.start is None else model_folder(shop.output_dir, job.seed, run.start),
    )
    seconds = time.process_time() - start
    staging.rename(target)
    return {"validation": _scores(model, run, "validation", job, shop), "training_processor_seconds": seconds}


def _test(job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.model_folders import read_model

    model = read_model(str(model_folder(shop.output_dir, job.seed, job.name)))
    return {"test": _scores(model, RUNS[job.name], "test", job, shop)}


def _scores(model: Any, run: Run, part: str, job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.claims.data import action_names, cached_splits, exchange_step, inject_background
    from tempclr.recipes.claims.measuring import Scores, measure_localization, measure_model

    model.eval()
    paragraphs = cached_splits(_seed_folder(shop, job.seed), shop.settings)[part]
    if run.task == "localization":
        scores = Scores()
        for key, shares in measure_localization(model, paragraphs).items():
            scores.add_shares(key, shares)
        return scores.to_dict()
    window = shop.settings.window_seconds
    measured = {"plain": measure_model(model, paragraphs, window_seconds=window)}
    if run.name in PERTURBED:
        actions = action_names(shop.settings, job.seed)
        exchanged, num_exchanged = exchange_step(paragraphs, actions, seed=job.seed)
        injected, num_injected = inject_background(paragraphs, seed=job.seed)
        for name, changed, count in (("exchanged", exchanged, num_exchanged), ("injected", injected, num_injected)):
            measured[name] = measure_model(model, changed, window_seconds=window)
            measured[name].numbers["num_changed"] = count
    merged = measured.pop("plain").to_dict()
    for name, scores in measured.items():
        for kind, values in scores.to_dict().items():
            merged[kind] |= {f"{name}: {key}": value for key, value in values.items()}
    return merged


def _step(job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.claims.data import cached_splits
    from tempclr.recipes.claims.training import sequence_share
    from tempclr.recipes.model_folders import read_model

    model = read_model(str(model_folder(shop.output_dir, job.seed, "dtw")))
    train = cached_splits(_seed_folder(shop, job.seed), shop.settings)["train"]
    return {"step": sequence_share(model, train, settings=shop.settings)}


def _memory(job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.claims.memory import memory_of_training

    run = RUNS[job.name]
    splits = _seed_folder(shop, job.seed)
    start = None if run.start is None else model_folder(shop.output_dir, job.seed, run.start)
    return {"memory": memory_of_training(job.name, splits, shop.settings, seed=job.seed, init_from=start)}


def _few_shot(job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.claims.few_shot import base_accuracy, train_encoder

    name, _, loss = job.name.partition("/")
    folder = model_folder(shop.output_dir, job.seed, job.name.replace("/", "_"))
    base, _, options = shop.few_shot[name](seed=job.seed)
    model = train_encoder(base, loss, options, folder, seed=job.seed)
    return {"base": base_accuracy(base, model, options, seed=job.seed, num_tasks=shop.settings.few_shot_tasks)}


def _few_shot_test(job: Job, shop: Workshop) -> dict[str, Any]:
    from tempclr.recipes.claims.few_shot import load_encoder, novel_accuracy

    name, _, loss = job.name.partition("/")
    folder = model_folder(shop.output_dir, job.seed, job.name.replace("/", "_"))
    _, novel, options = shop.few_shot[name](seed=job.seed)
    model = load_encoder(loss, folder)
    return {"novel": novel_accuracy(novel, model, options, seed=job.seed, num_tasks=shop.settings.few_shot_tasks)}


KINDS: dict[str, Callable[[Job, Workshop], dict[str, Any]]] = {
    "data": _data,
    "train": _train,
    "test": _test,
    "step": _step,
    "memory": _memory,
    "few_shot": _few_shot,
    "few_shot_test": _few_shot_test,
}


@contextmanager
def _spent() -> Iterator[dict[str, Any]]:
    """Wall and processor seconds, and the process's peak in MB, with what earlier jobs left, where the system tells."""
    spent: dict[str, Any] = {}
    reset = forget_peak()
    wall, processor = time.perf_counter(), time.process_time()
    yield spent
    spent["wall_seconds"] = time.perf_counter() - wall
    spent["processor_seconds"] = time.process_time() - processor
    spent["peak_megabytes"] = peak_memory() if reset else None


def forget_peak() -> bool:
    """Let :func:`peak_memory` begin anew; False where the system does not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> float | None:
    """The largest resident size of this process since it was last forgotten, in MB; None where Linux does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
