"""Jobs shared out among processes, each after what it needs; stopped in good order, and taken up where it stopped."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from tempclr.recipes.claims.grid import Job
from tempclr.recipes.claims.work import Workshop, do_job

__all__ = ["do_jobs", "quiet"]


def do_jobs(
    jobs: Sequence[Job],
    shop: Workshop,
    *,
    num_processes: int = 1,
    minutes: float | None = None,
    tell: Callable[[str], None] = print,
) -> int:
    """Do what is not done, in the order given as far as needs allow; returns how many jobs are left.

    Each process takes one thread, which models of this size use best. After ``minutes`` no further job is begun. One
    process is this process.

    Raises:
        ValueError: a job needs another that is neither done nor among ``jobs``.
    """
    shop.claim()
    left = [job for job in jobs if not job.file(shop.output_dir).exists()]
    _check_needs(left, shop.output_dir)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    total = len(jobs)

    def late() -> bool:
        return deadline is not None and time.monotonic() > deadline

    if num_processes == 1:
        with _one_thread():
            while left and not late():
                job = next(one for one in left if _ready(one, shop.output_dir))
                do_job(job, shop)
                left.remove(job)
                tell(_told(job, total - len(left), total))
        return len(left)
    with _pool(num_processes) as pool:
        return _in_processes(left, shop, pool, num_processes=num_processes, late=late, total=total, tell=tell)


def _in_processes(
    left: list[Job],
    shop: Workshop,
    pool: ProcessPoolExecutor,
    *,
    num_processes: int,
    late: Callable[[], bool],
    total: int,
    tell: Callable[[str], None],
) -> int:
    waiting = list(left)
    num_done = total - len(left)
    futures: dict[Future[None], Job] = {}
    try:
        while waiting or futures:
            while not late() and len(futures) < num_processes:
                job = next((one for one in waiting if _ready(one, shop.output_dir)), None)
                if job is None:
                    break
                waiting.remove(job)
                futures[pool.submit(do_job, job, shop)] = job
            if not futures:
                break
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                job = futures.pop(future)
                future.result()
                num_done += 1
                tell(_told(job, num_done, total))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return total - num_done


def _pool(num_processes: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the parent may hold threads of torch or numba, whose locks a fork would copy as they are.
    context = multiprocessing.get_context("spawn")
    # Before the processes start, so that their libraries take it up.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    return ProcessPoolExecutor(num_processes, mp_context=context, initializer=quiet)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def quiet() -> None:
    """What a process that does jobs begins with: one thread, few words, and an end when its parent is gone."""
    import logging

    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: the next call of the command may do the same job."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _ready(job: Job, output_dir: Path) -> bool:
    return all(one.file(output_dir).exists() for one in job.needs())


def _check_needs(jobs: Sequence[Job], output_dir: Path) -> None:
    known = set(jobs)
    for job in jobs:
        for need in job.needs():
            if need not in known and not need.file(output_dir).exists():
                raise ValueError(f"{job} needs {need}, which is neither done nor among the jobs")


def _told(job: Job, num_done: int, total: int) -> str:
    return f"[{num_done}/{total}] seed {job.seed}: {job.kind} {job.name}".rstrip()
