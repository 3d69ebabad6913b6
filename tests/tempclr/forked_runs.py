"""Programs that tests run beside themselves, in forks of one process: what takes seconds to import is imported once."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
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


def start(code, *words, environment=None, folder=None):
    """A process that runs a file (a path) or a program (a text) with these words, and where its outputs go."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    outputs = Path(tempfile.mkdtemp(prefix="forked"))
    own = {"OMP_NUM_THREADS": "1", **(environment or {})}
    given = (code, [str(word) for word in words], own, None if folder is None else str(folder), str(outputs))
    process = context.Process(target=_work, args=given)
    process.start()
    return process, outputs


def run(code, *words, timeout=280, environment=None, folder=None):
    """As ``subprocess.run`` of ``python code words``, with outputs as text."""
    process, outputs = start(code, *words, environment=environment, folder=folder)
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"{code!s:.60} took more than {timeout} s: {(outputs / 'err').read_text()[-2000:]}")
    return subprocess.CompletedProcess(
        [str(code), *map(str, words)], process.exitcode, *((outputs / name).read_text() for name in ("out", "err"))
    )


def _work(code, words, environment, folder, outputs):
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(Path(outputs, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
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
        status = (
            end.code if isinstance(end.code, int) else 0 if end.code is None else print(end.code, file=sys.stderr) or 1
        )
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
