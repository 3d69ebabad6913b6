"""Run the usage snippet of a model card as a reader would, in a process of its own.

``python -m tempclr_hub.snippet FOLDER`` runs the first Python block of ``FOLDER/README.md`` on the model in FOLDER.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from os import PathLike
from pathlib import Path

import numpy as np

from tempclr.errors import InputError

__all__ = ["run_snippet", "snippet_of"]

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LOADED = re.compile(r"from_pretrained\(\"[^\"]+\"\)")
NUM_SECONDS = 6


def snippet_of(folder: str | PathLike[str]) -> str | None:
    """The first Python block of the folder's README.md, or ``None``."""
    card = Path(folder) / "README.md"
    found = _BLOCK.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    return found.group(1) if found else None


def run_snippet(folder: str | PathLike[str]) -> bool:
    """Run the card's snippet on ``folder`` in a new process without a network; whether there was one.

    The files it names, ``video.mp4`` or ``features.npy``, are made for it: six seconds of noise.

    Raises:
        InputError: it did not run to its end; told is its last line.
    """
    if snippet_of(folder) is None:
        return False
    command = [sys.executable, "-m", "tempclr_hub.snippet", str(Path(folder).absolute())]
    packages = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": packages}
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(command, env=environment, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"the usage snippet of README.md does not run: {reason}", file=folder)
    return True


def main(folder: str) -> None:
    from tempclr.models.tempclr import TempCLRConfig

    snippet = snippet_of(folder)
    if snippet is None:
        raise InputError("no Python block", file=Path(folder) / "README.md")
    if '"features.npy"' in snippet:
        size = TempCLRConfig.from_pretrained(folder).video_config.feature_size
        np.save("features.npy", np.random.default_rng(0).normal(size=(NUM_SECONDS, size)).astype(np.float32))
    if '"video.mp4"' in snippet:
        from tempclr.data.video import write_video

        frames = np.random.default_rng(0).integers(0, 255, size=(NUM_SECONDS * 4, 96, 128, 3), dtype=np.uint8)
        write_video("video.mp4", frames, frames_per_second=4)
    local = _LOADED.sub(f"from_pretrained({folder!r})", snippet, count=1)
    exec(compile(local, "README.md", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main(sys.argv[1])
