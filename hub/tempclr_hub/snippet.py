"""Run the usage snippet of a card as a reader would, in a process of its own.

``python -m tempclr_hub.snippet FOLDER`` runs the first Python block of ``FOLDER/README.md`` on the model or dataset in
FOLDER.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from os import PathLike
from pathlib import Path

import numpy as np

import tempclr
from tempclr.errors import InputError

__all__ = ["bare_environment", "run_snippet", "snippet_of", "tell_run"]

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LOADED = re.compile(r"(from_pretrained|load_dataset)\(\"[^\"]+\"")
_NOTE = re.compile(r"^It was run before it was sent, .*\n\n?", re.MULTILINE)
MADE_FILES = ("video.mp4", "features.npy")
NUM_SECONDS = 6
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HF_API_TOKEN")


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
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**bare_environment(), "HF_DATASETS_CACHE": scratch}
        done = subprocess.run(command, env=environment, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"the usage snippet of README.md does not run: {reason}", file=folder)
    return True


def bare_environment() -> dict[str, str]:
    """This process's environment for one that runs what lies in a folder: no network, and no access token."""
    kept = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
    packages = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "PYTHONPATH": packages}


def tell_run(folder: str | PathLike[str], *, ran: bool) -> None:
    """Let README.md say below its snippet that it was run, and with which versions; or, where it was not, say nothing.

    What it said of an earlier run is taken away.
    """
    card = Path(folder) / "README.md"
    if not card.is_file():
        return
    text = _NOTE.sub("", card.read_text(encoding="utf-8"))
    if ran and (block := _BLOCK.search(text)):
        after = text[block.end() :].lstrip("\n")
        text = f"{text[: block.end()]}\n\n{_note(block.group(1))}\n\n{after}"
    card.write_text(text, encoding="utf-8")


def _note(snippet: str) -> str:
    used = "datasets" if "load_dataset" in snippet else "transformers"
    ours = [f"Python {platform.python_version()}", f"tempclr {tempclr.__version__}"]
    told = ", ".join([*ours, *(f"{name} {version(name)}" for name in (used, "torch"))])
    made = next((name for name in MADE_FILES if f'"{name}"' in snippet), None)
    noise = "" if made is None else f" `{made}` was {NUM_SECONDS} seconds of noise."
    return f"It was run before it was sent, in a new process and on these files, with {told}.{noise}"


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
    local = _LOADED.sub(lambda found: f"{found[1]}({folder!r}", snippet, count=1)
    exec(compile(local, "README.md", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main(sys.argv[1])
