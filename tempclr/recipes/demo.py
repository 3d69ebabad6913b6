"""The main job, end to end: make videos, extract features, pretrain three ways, evaluate, report, publish, load back.

The paper's comparison on generated videos: from the same weights and with the same seed, the unit loss alone (over dot
products, as released, and over cosines with a temperature) and TempCLR (unit and sequence loss).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tempclr.errors import InputError

RUNS: dict[str, dict[str, Any]] = {
    "unit loss, dot product": {"similarity": "dot", "unit_weight": 1.0, "sequence_weight": 0.0},
    "unit loss, cosine": {"similarity": "cosine", "unit_weight": 1.0, "sequence_weight": 0.0},
    "TempCLR": {"similarity": "cosine", "unit_weight": 0.7, "sequence_weight": 0.3},
}
TEMPCLR = "TempCLR"
REPO_ID = "tester/tempclr-demo"


@dataclass(frozen=True)
class DemoRun:
    """What the demo does; the defaults are ``make demo``, :meth:`full` is ``tempclr demo --full``."""

    output_dir: Path
    seed: int = 0
    num_train: int = 100
    num_validation: int = 20
    num_test: int = 60
    video_frames_per_second: int = 10
    num_training_seeds: int = 1
    num_epochs: int = 20
    num_workers: int = 2
    image_size: int = 112
    window_seconds: float = 2.0
    show_progress_bar: bool = True
    timings: dict[str, float] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in ("num_train", "num_validation", "num_test", "num_training_seeds", "num_epochs", "num_workers"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", field=name)

    def full(self) -> DemoRun:
        """The larger version: 260 videos at 30 frames a second, three training seeds."""
        return replace(
            self, num_train=160, num_validation=30, num_test=70, video_frames_per_second=30, num_training_seeds=3
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a part of the work and note how long it takes."""
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.num_training_seeds)


def run_demo(demo: DemoRun) -> dict[str, Any]:
    """Do all of it below ``demo.output_dir`` and return what ``results.json`` holds.

    Leaves ``report.md`` with ``figures/``, ``results.json`` (the same for the same seed), ``timings.json``, the trained
    models below ``runs/`` and the TempCLR model of the first seed as ``model/``. Videos and features of an interrupted
    run are kept.
    """
    from tempclr.data.files import check_output_folder
    from tempclr.data.rows import dataset_recipe, load_rows, read_paragraphs
    from tempclr.evaluation.report import write_results

    check_output_folder(demo.output_dir)
    features_dir = make_features(demo)
    splits = {
        split: list(read_paragraphs(load_rows(features_dir, split=split), source=features_dir)[0])
        for split in ("train", "validation", "test")
    }
    recipe = dataset_recipe(features_dir)
    trained = {seed: train_all(demo, splits, recipe, seed=seed) for seed in demo.seeds}
    models = {seed: {name: trainer.model for name, trainer in runs.items()} for seed, runs in trained.items()}
    with demo.stage("evaluation"):
        measured = {split: evaluate_all(demo, models, splits[split]) for split in ("validation", "test")}
    results: dict[str, Any] = {split: means for split, (means, _) in measured.items()}
    results["test_differences"] = differences(measured["test"][1], seed=demo.seed)
    results["settings"] = {name: getattr(demo, name) for name in ("seed", "num_train", "num_validation", "num_test")}
    write_results(demo.output_dir / "results.json", results)

    first = trained[demo.seed]
    with demo.stage("model folder, push and load back"):
        model_dir = save_model(demo, first[TEMPCLR], results["test"], test_paragraphs=splits["test"])
        from tempclr.recipes.hub_round_trip import on_loopback

        hub = on_loopback(model_dir, REPO_ID)
    with demo.stage("report"):
        from tempclr.recipes.demo_report import write_report

        write_report(
            demo.output_dir,
            results,
            window_seconds=demo.window_seconds,
            histories={name: trainer.state.log_history for name, trainer in first.items()},
            paragraph=splits["test"][0],
            model=first[TEMPCLR].model,
            model_dir=model_dir,
            hub=hub,
        )
    write_results(demo.output_dir / "timings.json", demo.timings)
    seconds = sum(demo.timings.values())
    print(f"{demo.output_dir / 'report.md'}: all of it took {seconds:.0f} s")
    return results


def make_features(demo: DemoRun) -> Path:
    """Generate the videos and extract one vector a second from them; returns the folder of the feature dataset."""
    from tempclr.data.demo import DemoSettings, generate
    from tempclr.data.features import extract_features

    settings = DemoSettings(
        seed=demo.seed,
        num_train=demo.num_train,
        num_validation=demo.num_validation,
        num_test=demo.num_test,
        frames_per_second=demo.video_frames_per_second,
    )
    videos_dir, features_dir = demo.output_dir / "dataset", demo.output_dir / "features"
    with demo.stage("videos"):
        generate(videos_dir, settings, num_workers=demo.num_workers, show_progress_bar=demo.show_progress_bar)
    with demo.stage("features"):
        extract_features(
            videos_dir,
            output_dir=features_dir,
            image_size=demo.image_size,
            show_progress_bar=demo.show_progress_bar,
        )
    return features_dir


def train_all(
    demo: DemoRun, splits: Mapping[str, Any], recipe: Mapping[str, Any] | None, *, seed: int
) -> dict[str, Any]:
    """One trainer a run of :data:`RUNS`, from the same weights and over the same batches; the loss alone differs."""
    import torch

    from tempclr.recipes.pretraining import LossArguments, ModelArguments, SamplingArguments, pretrain
    from tempclr.trainer import TempCLRTrainingArguments

    trainers = {}
    for name, loss in RUNS.items():
        with demo.stage(f"pretraining: {name}"):
            arguments = TempCLRTrainingArguments(
                output_dir=str(demo.output_dir / "runs" / f"{_slug(name)}-seed{seed}"),
                seed=seed,
                num_train_epochs=demo.num_epochs,
                per_device_train_batch_size=25,
                per_device_eval_batch_size=25,
                learning_rate=1e-3,
                warmup_steps=10,
                lr_scheduler_type="cosine",
                weight_decay=0.05,
                eval_strategy="steps",
                eval_steps=20,
                logging_steps=10,
                save_strategy="no",
                dataloader_pin_memory=torch.cuda.is_available(),
                disable_tqdm=not demo.show_progress_bar,
            )
            trainers[name] = pretrain(
                splits["train"],
                eval_paragraphs=splits["validation"],
                training_arguments=arguments,
                model_arguments=ModelArguments(
                    hidden_size=128, num_text_layers=2, num_video_layers=2, dropout=0.1, max_num_features=32
                ),
                loss_arguments=LossArguments(**loss),
                sampling_arguments=SamplingArguments(clip_seconds=1.0),
                feature_recipe=recipe,
            )
    return trainers


def evaluate_all(
    demo: DemoRun, models: Mapping[int, Mapping[str, Any]], paragraphs: Sequence[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of each run, as means over the training seeds, and the retrieval hits of each query.

    Hits: ``hits[name][background, measure]``, (num_queries,): share of the seeds that ranked the own video first.
    """
    import numpy as np

    from tempclr.evaluation.localization import evaluate_localization
    from tempclr.evaluation.matching import evaluate_matching
    from tempclr.evaluation.retrieval import evaluate_retrieval

    scores: dict[str, Any] = {}
    hits: dict[str, Any] = {}
    for name in RUNS:
        per_seed, hits[name] = [], {}
        for seed in models:
            model = models[seed][name]
            retrieval = {}
            for background in ("removed", "kept"):
                result = evaluate_retrieval(
                    model, paragraphs, background=background, window_seconds=demo.window_seconds
                )
                retrieval[background] = {
                    measure: {"protocol": result.protocols[measure].to_dict(), **metrics}
                    for measure, metrics in result.metrics.items()
                }
                for measure, query_ranks in result.ranks.items():
                    hits[name].setdefault((background, measure), []).append(query_ranks == 1)
            per_seed.append(
                {
                    "retrieval": retrieval,
                    "localization": evaluate_localization(model, paragraphs).to_dict(),
                    "matching": evaluate_matching(model, paragraphs).to_dict(),
                }
            )
        scores[name] = _mean(per_seed)
        hits[name] = {key: np.mean(parts, axis=0) for key, parts in hits[name].items()}
    return scores, hits


def differences(hits: Mapping[str, Mapping[Any, Any]], *, seed: int) -> list[dict[str, Any]]:
    """TempCLR minus each unit loss, R@1 of the test queries, with paired bootstrap intervals."""
    from dataclasses import asdict
    from itertools import product

    from tempclr.evaluation.metrics import paired_bootstrap

    found = []
    for name in (run for run in RUNS if run != TEMPCLR):
        for background, measure in product(("removed", "kept"), ("dtw", "otam", "cap_avg")):
            ours, theirs = (hits[run][background, measure] for run in (TEMPCLR, name))
            interval = paired_bootstrap(ours, theirs, seed=seed)
            pair = {"run": TEMPCLR, "minus": name, "measure": measure, "background": background}
            found.append({**pair, "num_queries": len(ours), **asdict(interval)})
    return found


def save_model(demo: DemoRun, trainer: Any, test_scores: Mapping[str, Any], *, test_paragraphs: Sequence[Any]) -> Path:
    """Copy the finished model folder of a run to ``model/``, with a card that has the test results."""
    from tempclr.data.files import atomic_path
    from tempclr_hub.card import model_card
    from tempclr_hub.card_picture import draw_if_possible

    target = demo.output_dir / "model"
    staging = demo.output_dir / ".model"
    for folder in (staging, target):
        shutil.rmtree(folder, ignore_errors=True)
    trainer.model.save_pretrained(staging)
    trainer.processing_class.save_pretrained(staging)
    with atomic_path(staging / "README.md") as temporary:
        card = model_card(
            trainer.model,
            model_name=REPO_ID,
            training_arguments=trainer.args,
            log_history=trainer.state.log_history,
            results=test_scores[TEMPCLR],
            dataset_name="generated instructional videos",
            dataset_split="test",
            picture=draw_if_possible(
                trainer.model, test_paragraphs, staging, split="the test split", processor=trainer.processing_class
            ),
        )
        temporary.write_text(card, encoding="utf-8")
    staging.rename(target)
    return target


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers, entry by entry through mappings; what is no number must agree in all."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, float | int) and not isinstance(first, bool):
        return sum(values) / len(values)
    return first
