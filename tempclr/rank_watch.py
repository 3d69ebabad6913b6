"""A rank that dies or hangs must not leave the others waiting: they notice, say so in one line, and stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed

__all__ = ["SILENCE_SECONDS", "RankWatch", "is_lost_rank", "watched_ranks"]

SILENCE_SECONDS = 40.0
BEAT_SECONDS = 5.0
EXIT_CODE = 75
LOST = (
    "stops because another rank has stopped: look for what that one said. Run again to go on, training with "
    "--resume_from_checkpoint"
)
_SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "DistBackendError", "Socket Timeout")


# Note [Silence means death]: a collective operation waits for its slowest rank as long as the process group allows,
# half an hour by default, because a rank may well save or evaluate for minutes. So life is told apart from progress: a
# thread of each rank counts up a number in the run's key-value store every few seconds, and reads those of the others.
# A rank whose number stands still has died, or its machine has, or it is stopped; a rank that waits goes on counting.


class RankWatch:
    """Tells this rank's life to the others and calls ``on_silence`` when one of them is silent.

    Args:
        store: a ``torch.distributed.Store`` that all ranks share.
        rank, num_ranks: of this process.
        silence_seconds: how long a rank may be silent.
        beat_seconds: how often life is told.
        on_silence: called once in the watching thread with a message; None prints it and ends the process, which no
            exception could, since the main thread may be waiting inside a collective operation.
    """

    def __init__(
        self,
        store: Any,
        *,
        rank: int,
        num_ranks: int,
        silence_seconds: float = SILENCE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        on_silence: Callable[[str], None] | None = None,
    ):
        self.store, self.rank, self.num_ranks = store, rank, num_ranks
        self.silence_seconds, self.beat_seconds = silence_seconds, beat_seconds
        self.on_silence = on_silence or _stop
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rank-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take leave of the others, so that this rank's silence alarms none."""
        self._ends.set()
        self._thread.join(self.beat_seconds + 1)
        try:
            self.store.set(_key(self.rank), "left")
        except RuntimeError:
            return  # the store went with rank 0, which has left before

    def _run(self) -> None:
        last = {rank: ("", time.monotonic()) for rank in range(self.num_ranks) if rank != self.rank}
        count, reached = 0, time.monotonic()
        while not self._ends.wait(self.beat_seconds):
            count += 1
            try:
                self.store.set(_key(self.rank), str(count))
                found = {rank: self._read(rank) for rank in last}
            except RuntimeError as error:
                if time.monotonic() - reached > self.silence_seconds and not self._ends.is_set():
                    self.on_silence(f"rank {self.rank} cannot reach rank 0 ({_line(error)}) and {LOST}")
                    return
                continue
            reached = time.monotonic()
            for rank, value in found.items():
                if value != last[rank][0]:
                    last[rank] = value, reached
                elif value != "left" and reached - last[rank][1] > self.silence_seconds:
                    self.on_silence(
                        f"rank {rank} has given no sign of life for {reached - last[rank][1]:.0f} seconds; rank "
                        f"{self.rank} {LOST}"
                    )
                    return

    def _read(self, rank: int) -> str:
        key = _key(rank)
        return self.store.get(key).decode() if self.store.check([key]) else ""


@contextmanager
def watched_ranks(*, silence_seconds: float = SILENCE_SECONDS) -> Iterator[None]:
    """Within the block a rank that dies or hangs stops all ranks; nothing happens where there is one rank alone.

    ``torch.distributed`` is initialised already. SIGTERM, which torchrun sends to the ranks that are left when one has
    failed, is told in one line too.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        yield
        return
    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    beat_seconds = min(BEAT_SECONDS, silence_seconds / 4)
    watch = RankWatch(
        _own_store(), rank=rank, num_ranks=num_ranks, silence_seconds=silence_seconds, beat_seconds=beat_seconds
    )
    before: Any = None
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        told = (
            f"rank {rank} was told to end: another rank has failed, see what it said, or the run is ended from outside"
        )
        before = signal.signal(signal.SIGTERM, lambda *_: _stop(told))
    watch.start()
    try:
        yield
    finally:
        watch.stop()
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def is_lost_rank(error: BaseException) -> bool:
    """Whether an operation among the ranks failed because one of them is gone."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "RuntimeError" in names and any(sign in f"{type(error).__name__} {error}" for sign in _SIGNS)


def _own_store() -> Any:
    """A second connection to the run's store: a read that waits on the first one would hold up this one."""
    store = torch.distributed.distributed_c10d._get_default_store()
    store = torch.distributed.PrefixStore("tempclr-life", store.clone() if hasattr(store, "clone") else store)
    store.set_timeout(timedelta(seconds=BEAT_SECONDS))
    return store


def _key(rank: int) -> str:
    return f"rank-{rank}"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _stop(message: str) -> None:
    print(f"tempclr: {message}", file=sys.stderr, flush=True)
    os._exit(EXIT_CODE)
