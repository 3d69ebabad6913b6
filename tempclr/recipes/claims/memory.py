"""The memory that a training takes, in a process that does nothing else."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from tempclr.recipes.claims.grid import RUNS, ClaimSettings
from tempclr.recipes.claims.work import forget_peak, peak_memory

__all__ = ["memory_of_training", "train_and_watch"]


def memory_of_training(
    name: str, folder: Path, settings: ClaimSettings, *, seed: int, init_from: Path | None
) -> dict[str, float] | None:
    """Train the run ``name`` again, in a process of its own, and leave nothing but the numbers.

    # Note [Memory is measured in a new process]: a process keeps what earlier trainings freed, so that the peak of the
    tenth run in it tells of all ten.

    ``folder`` holds the seed's videos and features. Returns ``start_megabytes``, with the videos and the libraries
    loaded and what they compile compiled by an epoch of two videos, and ``peak_megabytes``, both resident; None where
    Linux does not tell.
    """
    from tempclr.recipes.claims.queue import quiet

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=quiet) as pool:
        return pool.submit(train_and_watch, name, folder, settings, seed, init_from).result()


def train_and_watch(
    name: str, folder: Path, settings: ClaimSettings, seed: int, init_from: Path | None
) -> dict[str, float] | None:
    """What :func:`memory_of_training` does in the process of its own."""
    import torch

    from tempclr.recipes.claims.data import read_splits
    from tempclr.recipes.claims.training import train_run

    def train(settings: ClaimSettings, num_train: int) -> None:
        some = {**splits, "train": splits["train"][:num_train]}
        with tempfile.TemporaryDirectory() as output_dir, redirect_stdout(sys.stderr):
            train_run(RUNS[name], some, settings=settings, output_dir=Path(output_dir), seed=seed, init_from=init_from)

    torch.set_num_threads(1)
    splits = read_splits(folder, settings)
    train(replace(settings, num_epochs=1, batch_size=2), 2)
    if not forget_peak():
        return None
    start = peak_memory()
    train(settings, settings.num_train)
    peak = peak_memory()
    return None if start is None or peak is None else {"start_megabytes": start, "peak_megabytes": peak}
