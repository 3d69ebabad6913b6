"""A rank that fails, is stopped or vanishes must not leave the others waiting: they notice, say so, and stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed

__all__ = ["JOIN_SECONDS", "SILENCE_SECONDS", "RankWatch", "is_lost_rank", "lost_rank_reason", "watched_ranks"]

SILENCE_SECONDS = 40.0
BEAT_SECONDS = 4.0
CONNECT_SECONDS = 20.0
JOIN_SECONDS = 1800.0
EXIT_CODE = 75
LOST = (
    "stops because another rank has stopped: look for what that one said. Run again to go on, training with "
    "--resume_from_checkpoint"
)
LATE = (
    "stops because an operation among the ranks took longer than --ddp_timeout allows: another rank is stuck or far "
    "behind. Run again to go on, training with --resume_from_checkpoint"
)
_SIGNS = {
    "Connection closed by peer": LOST,
    "Connection reset by peer": LOST,
    "Broken pipe": LOST,
    "DistBackendError": LOST,
    "Socket Timeout": LOST,
    "Timed out waiting": LATE,
}
_STOPPED, _LEFT = "stopped", "left"


# Note [Silence means death]: a collective operation waits for its slowest rank as long as the process group allows,
# half an hour by default, because a rank may well save or evaluate for minutes. So life is told apart from progress: a
# thread of each rank counts up a number in the run's key-value store every few seconds, and reads that of the next one.
# A rank whose number stands still has died, or its machine has, or it is stopped; a rank that waits goes on counting,
# and so does one whose program is stuck, which --ddp_timeout ends. A rank that has not begun to count may still read
# its data, and is given as long as that. What passes while this rank cannot look is nobody's silence, so a look counts
# for two beats at most: ranks that Ctrl-Z or a scheduler has stopped together go on together.
# Who finds a rank silent, or fails itself, leaves the reason in the store, where all others read it.


class RankWatch:
    """Tells this rank's life to the others and calls ``on_silence`` when one of them is silent or has failed.

    Args:
        store: a ``torch.distributed.Store`` that all ranks share.
        rank, num_ranks: of this process. It watches the next rank; the one after that where the next took leave.
        silence_seconds: how long a rank that has begun may be silent.
        join_seconds: how long a rank may take to begin.
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
        join_seconds: float = JOIN_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        on_silence: Callable[[str], None] | None = None,
    ):
        self.store, self.rank, self.num_ranks = store, rank, num_ranks
        self.silence_seconds, self.join_seconds, self.beat_seconds = silence_seconds, join_seconds, beat_seconds
        self.on_silence = on_silence or _stop
        self._watched = (rank + 1) % num_ranks
        self._last, self._silence, self._looked = (self._watched, ""), 0.0, time.monotonic()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rank-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, failed: bool = False) -> None:
        """Take leave of the others, so that this rank's silence alarms none; or tell them that it has failed.

        Rank 0 waits until all have left, at most ``silence_seconds``.
        """
        self._ends.set()
        self._thread.join(self.beat_seconds + 1)
        try:
            if failed:
                self._tell(f"rank {self.rank} has failed")
            self.store.set(_key(self.rank), _LEFT)
            if self.rank == 0 and not failed:
                self._wait_for_leaves()
        except RuntimeError:
            return  # the store went with rank 0, which has left before

    def _wait_for_leaves(self) -> None:
        """The store may end with this process; ranks a moment later would meet torch's many lines about that."""
        end = time.monotonic() + self.silence_seconds
        for rank in range(1, self.num_ranks):
            while self._read(_key(rank)) != _LEFT:
                if time.monotonic() > end or self._read(_STOPPED):
                    return
                time.sleep(self.beat_seconds / 40)

    def _run(self) -> None:
        count, reached = 0, time.monotonic()
        while not self._ends.is_set():
            count += 1
            try:
                self.store.set(_key(self.rank), str(count))
                message, reached = self._found(), time.monotonic()
            except RuntimeError as error:
                is_gone = time.monotonic() - reached > self.silence_seconds
                message = f"rank {self.rank} cannot reach rank 0 ({_line(error)}) and {LOST}" if is_gone else ""
            if message and not self._ends.is_set():
                self.on_silence(message)
                return
            self._ends.wait(self.beat_seconds)

    def _found(self) -> str:
        """Why this rank must stop; nothing while all is well."""
        if reason := self._read(_STOPPED):
            # The same fault may be about to end this rank too, with a message of its own that says more.
            self._ends.wait(self.beat_seconds)
            return f"{reason}; rank {self.rank} {LOST}"
        while (value := self._read(_key(self._watched))) == _LEFT:
            self._watched = (self._watched + 1) % self.num_ranks  # ends at this rank, which has not taken leave
        silence = self._counted_silence(value)
        if silence <= (self.silence_seconds if value else self.join_seconds):
            return ""
        told = "given no sign of life for" if value else "not begun after"
        reason = f"rank {self._watched} has {told} {silence:.0f} seconds"
        reason += "" if value else ", which in training is --ddp_timeout"
        self._tell(reason)
        if self.rank == 0:
            self._ends.wait(1.5 * self.beat_seconds)  # the store may end with this process: let the others read it
        return f"{reason}; rank {self.rank} {LOST}"

    def _counted_silence(self, value: str) -> float:
        """Seconds for which the watched rank's number has been this one, as far as this rank has looked."""
        now = time.monotonic()
        if (self._watched, value) != self._last:
            self._last, self._silence = (self._watched, value), 0.0
        else:
            self._silence += min(now - self._looked, 2 * self.beat_seconds)
        self._looked = now
        return self._silence

    def _tell(self, reason: str) -> None:
        if not self._read(_STOPPED):
            self.store.set(_STOPPED, reason)

    def _read(self, key: str) -> str:
        return self.store.get(key).decode() if self.store.check([key]) else ""


class _Blocks:
    """How many blocks this process has watched, and whether it is in one. Each has keys of its own in the store, or the
    leave that a rank took of the block before would be read in the next."""

    count = 0
    is_open = False


@contextmanager
def watched_ranks(*, silence_seconds: float = SILENCE_SECONDS, join_seconds: float = JOIN_SECONDS) -> Iterator[None]:
    """Within the block a rank that fails, is stopped or vanishes stops all ranks; nothing happens where there is one
    rank alone, and a block within the block changes nothing.

    ``torch.distributed`` is initialised already, and every rank enters as many blocks. SIGTERM, which torchrun sends to
    the ranks that are left when one has failed, is told in one line too.

    Args:
        silence_seconds: how long a rank may give no sign of life.
        join_seconds: how much later than others a rank may enter.

    Raises:
        ConnectionError: rank 0 is gone already.
    """
    is_alone = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
    if is_alone or _Blocks.is_open:
        yield
        return
    rank = torch.distributed.get_rank()
    _Blocks.count += 1
    watch = RankWatch(
        _own_store(_Blocks.count, rank=rank),
        rank=rank,
        num_ranks=torch.distributed.get_world_size(),
        silence_seconds=silence_seconds,
        join_seconds=join_seconds,
        beat_seconds=min(BEAT_SECONDS, silence_seconds / 4),
    )
    told = f"rank {rank} was told to end: another rank has failed, see what it said, or the run is ended from outside"
    _Blocks.is_open = True
    watch.start()
    try:
        with _ended_by_sigterm(told):
            yield
    except BaseException:
        watch.stop(failed=True)
        raise
    else:
        watch.stop()
    finally:
        _Blocks.is_open = False


def is_lost_rank(error: BaseException) -> bool:
    """Whether an operation among the ranks failed because one of them is gone, or did not come in time."""
    return lost_rank_reason(error) != ""


def lost_rank_reason(error: BaseException) -> str:
    """What to say of an error that :func:`is_lost_rank`; nothing for another."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "RuntimeError" not in names:
        return ""
    return next((reason for sign, reason in _SIGNS.items() if sign in f"{type(error).__name__} {error}"), "")


def _own_store(block: int, *, rank: int) -> Any:
    """A second connection to the run's store: a read that waits on the first one would hold up this one."""
    shared: Any = torch.distributed.distributed_c10d._get_default_store()
    timeout = shared.timeout
    shared.set_timeout(timedelta(seconds=CONNECT_SECONDS))
    try:
        store = shared.clone()
    except RuntimeError as error:
        raise ConnectionError(f"rank {rank} cannot reach rank 0 ({_line(error)}) and {LOST}") from error
    finally:
        shared.set_timeout(timeout)
    store = torch.distributed.PrefixStore(f"tempclr-life-{block}", store)
    store.set_timeout(timedelta(seconds=BEAT_SECONDS))
    return store


# Note [Deaf while it waits]: Python runs the handler of a signal in the main thread and between two instructions, which
# do not come while that waits inside a collective operation; torchrun would kill the rank half a minute later without a
# word. But the number of the signal is written into a pipe at once, which a thread reads. Forked children have the pipe
# too and must not write into it when somebody ends them: they get the former handler back, and hear no SIGTERM before.


class _Handlers:
    before: Any = None
    is_ours = False
    forking = threading.local()


@contextmanager
def _ended_by_sigterm(message: str) -> Iterator[None]:
    """Within the block SIGTERM ends the process with this message, whatever the main thread waits for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ear = threading.Thread(target=_hear, args=(reader, message), name="sigterm", daemon=True)
    ear.start()
    _Handlers.before = signal.signal(signal.SIGTERM, lambda *_: None) or signal.SIG_DFL
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _Handlers.is_ours = True
    try:
        yield
    finally:
        _Handlers.is_ours = False
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, _Handlers.before)
        os.write(writer, _END)
        ear.join()
        for end in (reader, writer):
            os.close(end)


_END = b"\0"  # the number of no signal


def _hear(reader: int, message: str) -> None:
    numbers = b""
    while _END not in numbers:
        numbers = os.read(reader, 64)
        if signal.SIGTERM in numbers:
            _stop(message)


def _before_fork() -> None:
    block = {signal.SIGTERM} if _Handlers.is_ours else set()
    _Handlers.forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, block)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _Handlers.forking.mask)


def _in_child() -> None:
    if _Handlers.is_ours:
        _Handlers.is_ours = False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, _Handlers.before)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


def _key(rank: int) -> str:
    return f"rank-{rank}"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _stop(message: str) -> None:
    os.write(2, f"tempclr: {message}\n".encode())  # past Python's own stream, whose lock the main thread may hold
    os._exit(EXIT_CODE)
