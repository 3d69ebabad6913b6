"""Ranks that are late, fail, are told to end or vanish, without any training; run by test_distributed_waiting.py."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import redirect_stderr
from datetime import timedelta
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from forked import fork_ranks

import tempclr.distributed
import tempclr.rank_watch
from tempclr.distributed import gather_objects, joined_ranks
from tempclr.rank_watch import lost_rank_reason, watched_ranks

FOR_EVER = 100  # and then a rank that still waits says where
SILENCE = 10.0  # on a busy machine a process may not be heard for seconds


def enters_late():
    """More than a silence later than rank 0, and again: the leave of the first block is none of the second."""
    for first in ("0", "1"):
        if os.environ["RANK"] != first:
            time.sleep(1.5 * SILENCE)
        with watched_ranks(silence_seconds=SILENCE):
            torch.distributed.barrier()


def never_enters():
    if os.environ["RANK"] == "1":
        time.sleep(FOR_EVER)
    with watched_ranks(silence_seconds=SILENCE, join_seconds=3):
        time.sleep(FOR_EVER)


def finds_nobody():
    """Rank 0, whose process holds the store, is gone."""
    tempclr.rank_watch.CONNECT_SECONDS = 2.0
    torch.distributed.barrier()
    if os.environ["RANK"] == "0":
        os._exit(0)
    time.sleep(0.5)
    try:
        with watched_ranks():
            time.sleep(FOR_EVER)
    except ConnectionError as error:
        sys.exit(str(error))


def told_to_end():
    if os.environ["RANK"] == "1":
        time.sleep(FOR_EVER)

    def tell():
        os.write(2, f"asked at {time.monotonic()}\n".encode())
        os.kill(os.getpid(), signal.SIGTERM)

    with watched_ranks():
        threading.Timer(1, tell).start()
        torch.distributed.barrier()


def told_to_end_afterwards():
    with watched_ranks():
        torch.distributed.barrier()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(FOR_EVER)


def stopped_for_a_while():
    """As by Ctrl-Z and fg, for longer than a silence; rank 1 wakes up later than rank 0."""
    with watched_ranks(silence_seconds=SILENCE):
        torch.distributed.barrier()
        if os.environ["RANK"] == "1" and os.fork() == 0:
            group, rank_1 = os.getpgrp(), os.getppid()
            os.setsid()
            os.killpg(group, signal.SIGSTOP)
            time.sleep(1.5 * SILENCE)
            for process in (group, rank_1):
                os.kill(process, signal.SIGCONT)
                time.sleep(1)
            os._exit(0)
        for _ in range(int(10 * SILENCE)):  # that one sleep would be over when it goes on
            time.sleep(0.1)


def ends_a_child():
    """As a loader's worker or an encoder's process, which is ended by SIGTERM."""
    with watched_ranks():
        for _ in range(20):
            child = os.fork()
            if child == 0:
                time.sleep(FOR_EVER)
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(0.5)


def fails():
    """A rank whose process goes on after its error, while the other one does not wait for it in any operation."""
    try:
        with watched_ranks(silence_seconds=SILENCE), watched_ranks():
            if os.environ["RANK"] == "1":
                raise ValueError("of its own")
            time.sleep(FOR_EVER)
    except ValueError:
        time.sleep(2 * SILENCE)


def fail_together():
    """Each with its own message."""
    with watched_ranks():
        torch.distributed.barrier()
        raise SystemExit(f"rank {os.environ['RANK']} speaks for itself")


def vanishes():
    """Rank 2 of 3: rank 0 watches rank 1, which is alive, and must hear of it."""
    with watched_ranks(silence_seconds=SILENCE):
        torch.distributed.barrier()
        time.sleep(SILENCE / 2)
        if os.environ["RANK"] == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(FOR_EVER)


def waits_too_long():
    """The ranks meet with time to spare, on a busy machine too; then operations are given less."""
    torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=2))
    if os.environ["RANK"] == "1":
        time.sleep(FOR_EVER)
    try:
        torch.distributed.barrier()
    except RuntimeError as error:
        sys.exit(lost_rank_reason(error) or str(error))


def joins():
    """As a command does; the ranks may be done hours one after another."""
    with joined_ranks():
        assert gather_objects(os.environ["RANK"]) == ["0", "1"]
        group = torch.distributed.distributed_c10d._get_default_group()
        timeout = group._get_backend(torch.device("cpu")).options._timeout
    assert timeout > timedelta(days=7)


def joins_alone():
    tempclr.distributed.JOIN_SECONDS = 2.0
    if os.environ["RANK"] == "1":
        time.sleep(FOR_EVER)
    try:
        with joined_ranks():
            pass
    except ConnectionError as error:
        sys.exit(str(error))


def work(folder, scene, timeout):
    log = os.open(folder / f"{scene.__name__}-{os.environ['RANK']}.err", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    faulthandler.dump_traceback_later(FOR_EVER, exit=True, file=2)
    torch.set_num_threads(1)
    if timeout is not None:
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    with open(2, "w", buffering=1, closefd=False) as err, redirect_stderr(err):
        scene()


def play(folder, scene, must_end_well):
    """Writes the exit codes of a scene's ranks, and how long it took."""
    timeout = None if scene in (joins, joins_alone) else 50
    begin = time.monotonic()
    num_ranks = 3 if scene is vanishes else 2
    options = {"must_end_well": must_end_well, "in_own_group": scene is stopped_for_a_while}
    codes = fork_ranks(work, num_ranks, folder, scene, timeout, **options)
    end = time.monotonic()
    found = {"codes": codes, "seconds": end - begin, "end": end}
    (folder / f"{scene.__name__}.json").write_text(json.dumps(found))


def main():
    """All scenes at once, since they sleep; ranks that are left when rank 0 has ended are killed unless the scene is
    about both."""
    folder = Path(sys.argv[1])
    scenes = {enters_late: None, never_enters: False, finds_nobody: None, told_to_end: False}
    scenes |= {told_to_end_afterwards: None, ends_a_child: None, fails: None, fail_together: None, vanishes: None}
    scenes |= {stopped_for_a_while: None, waits_too_long: False, joins: None, joins_alone: False}
    context = multiprocessing.get_context("fork")
    playing = [context.Process(target=play, args=(folder, *scene)) for scene in scenes.items()]
    for process in playing:
        process.start()
    for process in playing:
        process.join()


if __name__ == "__main__":
    main()
