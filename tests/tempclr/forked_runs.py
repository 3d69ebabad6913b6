"""Programs that tests run beside themselves, in forks of one process: what takes seconds to import is imported once."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

IMPORTED = [
    "torch",
    "transformers",
    "tempclr.cli",
    "tempclr.recipes.running",
    "tempclr.evaluation",
    "tempclr.inference",
]
IMPORTED += ["tempclr.data.features", "tempclr.recipes.pretraining", "datasets", "accelerate.data_loader"]


class Run:
    """A process that runs a file (a path) or a program (a text) with these words."""

    def __init__(self, code, *words, environment=None, folder=None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self.words = [str(code), *map(str, words)]
        self.told, self._readers = {}, []
        pipes = {name: context.Pipe(duplex=False) for name in ("out", "err")}
        own = {"OMP_NUM_THREADS": "1", **(environment or {})}
        writers = [writer for _, writer in pipes.values()]
        self.process = context.Process(target=_work, args=(code, self.words[1:], own, folder, *writers))
        self.process.start()
        for name, (reader, writer) in pipes.items():
            writer.close()
            self._readers.append(threading.Thread(target=self._read, args=(name, reader), daemon=True))
            self._readers[-1].start()

    def _read(self, name, reader):
        self.told[name] = b""
        while content := os.read(reader.fileno(), 1 << 16):
            self.told[name] += content

    def interrupt(self):
        """As Ctrl-C."""
        os.kill(self.process.pid, signal.SIGINT)

    def wait(self, timeout=280):
        """As ``subprocess.run``, with outputs as text."""
        self.process.join(timeout)
        if is_late := self.process.is_alive():
            self.process.kill()
            self.process.join()
        for thread in self._readers:
            thread.join(10)
        out, err = (self.told[name].decode() for name in ("out", "err"))
        if is_late:
            raise TimeoutError(f"{self.words[0]:.60} took more than {timeout} s: {err[-2000:]}")
        return subprocess.CompletedProcess(self.words, self.process.exitcode, out, err)


def run(code, *words, timeout=280, environment=None, folder=None):
    """As ``subprocess.run`` of ``python code words``."""
    return Run(code, *words, environment=environment, folder=folder).wait(timeout)


def _work(code, words, environment, folder, out, err):
    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    import torch

    torch.set_num_threads(1)
    status = 1
    try:
        sys.argv = [str(code) if isinstance(code, Path) else "-c", *words]
        if isinstance(code, Path):
            runpy.run_path(str(code), run_name="__main__")
        else:
            exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
