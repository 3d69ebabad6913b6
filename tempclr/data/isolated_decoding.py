"""Decoding in processes of their own, with limits on time and memory: for videos of unknown origin.

A decoder is a large program in C that reads whatever a stranger has put into a file. Here it may crash, hang or ask for
all memory, and only the one video is lost: its process is ended and the next video gets a new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import PathLike
from typing import Any, BinaryIO

import numpy as np

from tempclr.errors import InputError

__all__ = ["IsolatedDecoder"]

# What the process sends: for each frame this head and the pixels; at the end a head of height 0 and a message of JSON,
# as long as its width says.
_HEAD = struct.Struct("<dII")
_MAX_FRAME_BYTES = 1 << 30
_MAX_MESSAGE_BYTES = 1 << 16


class IsolatedDecoder:
    """``iterate_frames`` of :mod:`tempclr.data.video`, each video in a process that may fail. Use it in a ``with``.

    Processes are kept from video to video and shared out among threads; one that had to be ended is replaced.

    Args:
        first_seconds, seconds_per_second: how long decoding may take, the time in which frames were not asked for not
            counted: so many seconds, and so many more for each second of the video that has been decoded.
        max_memory_bytes: address space of one process; about half a gigabyte of it is the program's own.

    >>> with IsolatedDecoder() as decoder:  # doctest: +SKIP
    ...     frames = list(decoder.iterate_frames("clip.mp4", frames_per_second=1))
    """

    def __init__(
        self, *, first_seconds: float = 60.0, seconds_per_second: float = 10.0, max_memory_bytes: int = 4 << 30
    ) -> None:
        self.first_seconds, self.seconds_per_second = first_seconds, seconds_per_second
        self.max_memory_bytes = max_memory_bytes
        self._idle: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that are kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            _end(process)

    def iterate_frames(
        self, path: str | PathLike[str], *, frames_per_second: float | None = None, num_threads: int = 1
    ) -> Iterator[tuple[float, np.ndarray]]:
        """As :func:`tempclr.data.video.iterate_frames`.

        Raises:
            InputError: also where a limit is reached or the decoder dies.
        """
        process = self._take()
        is_idle = False
        try:
            _send(process, {"path": os.path.abspath(path), "rate": frames_per_second, "num_threads": num_threads})
            fault = yield from self._frames(process, path)
            is_idle = True
        finally:
            if is_idle:
                with self._lock:
                    self._idle.append(process)
            else:
                _end(process)
        if fault is not None:
            raise InputError(fault, file=path)

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        command = [sys.executable, "-m", __name__, str(self.max_memory_bytes)]
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # A session of its own: Ctrl-C is for the program that asks, which then ends this one.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True, bufsize=0
        )

    def _frames(
        self, process: subprocess.Popen[bytes], path: Any
    ) -> Generator[tuple[float, np.ndarray], None, str | None]:
        """The frames; returned is what is wrong with the video, if anything is."""
        clock = _Allowance(self.first_seconds)
        while True:
            seconds, height, width = _HEAD.unpack(self._read(process, _HEAD.size, clock, path))
            if not height:
                return json.loads(self._read(process, min(width, _MAX_MESSAGE_BYTES), clock, path))["fault"]
            if height * width * 3 > _MAX_FRAME_BYTES:
                raise InputError(f"its decoder gave a picture of {height} x {width}", file=path)
            pixels = self._read(process, height * width * 3, clock, path)
            yield seconds, np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)
            clock.allowed = self.first_seconds + self.seconds_per_second * max(seconds, 0.0)

    def _read(self, process: subprocess.Popen[bytes], num_bytes: int, clock: _Allowance, path: Any) -> bytearray:
        """So many bytes, waiting no longer than allowed; a bytearray, because torch wants arrays it may write to."""
        content = bytearray(num_bytes)
        view, stream = memoryview(content), process.stdout
        assert stream is not None
        while view:
            before = time.monotonic()
            ready = select.select([stream], [], [], clock.left())[0]
            clock.spent += time.monotonic() - before
            if not ready:
                raise InputError(f"decoding takes more than {clock.allowed:.0f} s: damaged, or too large", file=path)
            count = stream.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise InputError(f"its decoder {_how_it_ended(process)}: damaged, or too large", file=path)
            view = view[count:]
        return content


class _Allowance:
    """Seconds that may be spent waiting for the decoder."""

    def __init__(self, allowed: float) -> None:
        self.allowed, self.spent = allowed, 0.0

    def left(self) -> float:
        return max(self.allowed - self.spent, 0.0)


def _send(process: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has ended by itself, which the first read then tells
        pass


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    code = process.wait()
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


# --- in the process


def _serve(max_memory_bytes: int) -> None:
    """Answer requests until there are no more: the other side has closed the pipe, or is no longer there."""
    import resource

    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the frames
    for limit, value in ((resource.RLIMIT_AS, max_memory_bytes), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    for line in sys.stdin.buffer:
        _answer(json.loads(line), output, while_decoding=_ended_with_its_program)


def _answer(
    request: dict[str, Any],
    output: BinaryIO,
    *,
    while_decoding: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    from tempclr.data.video import iterate_frames

    fault = None
    try:
        rate, num_threads = request["rate"], request["num_threads"]
        with while_decoding():
            for seconds, frame in iterate_frames(request["path"], frames_per_second=rate, num_threads=num_threads):
                output.write(_HEAD.pack(seconds, *frame.shape[:2]))
                output.write(np.ascontiguousarray(frame).data)
    except MemoryError:
        fault = "decoding it needs more memory than is allowed"
    except InputError as error:
        fault = str(error).removeprefix(f"{error.file}: ")
    except Exception as error:  # whatever a damaged file provokes: this process is here to tell it
        fault = f"cannot be read as video: {error!r:.200}"
    message = json.dumps({"fault": fault}).encode()
    output.write(_HEAD.pack(0.0, 0, len(message)) + message)
    output.flush()


# Note [A decoder is not left behind]: one that hangs, in a loop or asleep, reads no more requests and so does not hear
# that the program is gone. The kernel sends SIGIO when the other end of the pipe of requests is closed, which ends the
# process whatever it is doing. A request would do so too, but none comes while one is answered. (The signal that Linux
# sends when a parent ends would come as soon as the thread ends that began the process.)
@contextmanager
def _ended_with_its_program() -> Iterator[None]:
    flags = fcntl.fcntl(0, fcntl.F_GETFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        poll = select.poll()
        poll.register(0, 0)
        if poll.poll(0):  # it was closed before
            os._exit(1)
        yield
    finally:
        fcntl.fcntl(0, fcntl.F_SETFL, flags)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
