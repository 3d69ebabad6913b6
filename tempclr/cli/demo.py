"""The main job, end to end, on generated videos: features, pretraining three ways, evaluation, report, publishing."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo"), help="default runs/demo")
    parser.add_argument("--full", action="store_true", help="260 videos at 30 frames a second, three training seeds")
    for split in ("train", "validation", "test"):
        parser.add_argument(f"--num_{split}", type=int, help=f"number of {split} videos")
    parser.add_argument("--num_epochs", type=int, help="passes over the training videos of each run")
    parser.add_argument("--num_workers", type=int, help="processes that draw videos (default 2)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from tempclr.recipes.demo import DemoRun, run_demo

    demo = DemoRun(output_dir=arguments.output_dir, seed=arguments.seed, show_progress_bar=not arguments.quiet)
    if arguments.full:
        demo = demo.full()
    names = ("num_train", "num_validation", "num_test", "num_epochs", "num_workers")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    run_demo(replace(demo, **given))
    return 0
