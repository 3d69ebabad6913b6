"""Damaged and hostile videos by the thousand: nothing crashes, hangs or takes all memory, and the bad ones are named.

    python benchmarks/soak_videos.py                      # 1,000 files: a few minutes
    python benchmarks/soak_videos.py --num_files 24

Small videos in several containers and codecs are changed by bit flips, cuts, edits of the header, numbers that announce
far too much, and pieces left out or repeated; file k is the same in every run. Each is decoded three ways: in one
process that has to live through all of them, by ``IsolatedDecoder``, and at the end by ``tempclr extract`` as one
folder. What became of each file is a line of ``files.jsonl`` in the output folder; run again, files with a line are
passed over. The exit code is 1 if a file was lost: it crashed or hung the process, raised something other than an
InputError, or took more time or memory than allowed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CODECS = (("libx264", ".mp4"), ("libx264", ".mkv"), ("mpeg4", ".avi"), ("mpeg4", ".mp4"), ("mjpeg", ".avi"))
KINDS = ("bits", "header", "cut", "announced", "zeros", "left out", "repeated")
LARGE = (b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\x7f" + b"\xff" * 7, b"\x00\x00\xff\xff", b"\xff\xff\x00\x00")
FRAMES_PER_SECOND = 4.0


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    if arguments.worker:
        return work()
    folder = arguments.output
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    whole = whole_videos(folder / "whole")
    files = [write_mutation(number, whole, folder / "videos") for number in range(arguments.num_files)]
    found = try_all(files, folder / "files.jsonl", arguments)
    lost = [line for line in found if line["lost"]]
    print(summary(found))
    for line in lost:
        print(f"LOST {line['file']}: {line['lost']}")
    named = extract_all(folder, num_files=len(files), isolate=False) + extract_all(folder, len(files), isolate=True)
    print(*named, sep="\n")
    return 1 if lost or any(line.startswith("LOST") for line in named) else 0


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_files", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("runs/soak/videos"))
    parser.add_argument("--max_seconds", type=float, default=30.0, help="allowed for one file")
    parser.add_argument("--max_megabytes", type=float, default=1500.0, help="allowed for the process, all files long")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


# --- the files


def whole_videos(folder: Path) -> list[Path]:
    """One small video of each codec and container that this PyAV can write."""
    from tempclr.data.video import write_video

    pixels = np.random.default_rng(0).integers(0, 255, (30, 12, 16, 3), dtype=np.uint8)
    frames = pixels.repeat(8, axis=1).repeat(8, axis=2)
    made = []
    for codec, suffix in CODECS:
        path = folder / f"{codec}{suffix}"
        if not path.exists():
            with contextlib.suppress(ValueError):  # no such encoder here
                write_video(path, frames, frames_per_second=10, codec=codec)
        if path.exists():
            made.append(path)
    return made


def write_mutation(number: int, whole: list[Path], folder: Path) -> Path:
    """File ``number``: which video is changed, and how, is drawn from the number alone."""
    draw = random.Random(number)
    source, kind = whole[number % len(whole)], draw.choice(KINDS)
    path = folder / f"{number:05d} {source.stem} {kind}{source.suffix}"
    if not path.exists():
        path.write_bytes(mutated(source.read_bytes(), kind, draw))
    return path


def mutated(content: bytes, kind: str, draw: random.Random) -> bytes:
    """A video's bytes with one kind of damage, of an extent that is drawn."""
    data, size = bytearray(content), len(content)
    first, last = sorted((draw.randrange(size), draw.randrange(size)))
    if kind == "bits":
        for _ in range(draw.choice((1, 8, 64, 512))):
            data[draw.randrange(size)] ^= 1 << draw.randrange(8)
    elif kind == "header":  # of mp4 it may stand at the end
        for _ in range(draw.choice((1, 4, 16))):
            data[draw.choice((draw.randrange(min(400, size)), -1 - draw.randrange(min(1500, size))))] = draw.randrange(
                256
            )
    elif kind == "announced":
        for _ in range(draw.choice((1, 3, 8))):
            number = draw.choice(LARGE)
            place = draw.randrange(size - len(number))
            data[place : place + len(number)] = number
    elif kind == "zeros":
        data[first : first + 256] = bytes(len(data[first : first + 256]))
    elif kind == "cut":
        del data[last:]
    elif kind == "left out":
        del data[first : min(last, first + 4096)]
    else:
        data[last:last] = data[first:last]
    return bytes(data)


# --- decoding them


def work() -> int:
    """The process that has to live: a path a line in, what became of it a line of JSON out."""
    import resource

    for line in sys.stdin:
        start = time.monotonic()
        outcome = decoded(line.strip())
        outcome["seconds"] = round(time.monotonic() - start, 3)
        outcome["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(outcome), flush=True)
    return 0


def decoded(path: str, iterate_frames: Any = None) -> dict[str, Any]:
    from tempclr.data import video
    from tempclr.errors import InputError

    num_frames, fault, lost = 0, None, None
    try:
        for _ in (iterate_frames or video.iterate_frames)(path, frames_per_second=FRAMES_PER_SECOND, num_threads=1):
            num_frames += 1
    except InputError as error:
        fault = str(error).removeprefix(f"{path}: ")
    except Exception as error:
        lost = f"raised {error!r}"
    return {"num_frames": num_frames, "fault": fault, "lost": lost}


class Worker:
    """A process that runs :func:`work`, and a clock beside it."""

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def decode(self, path: Path, max_seconds: float) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], max_seconds)[0]:
            return {"lost": f"hangs: more than {max_seconds:.0f} s"}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"lost": f"crashed the process, code {self.process.wait()}"}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def try_all(files: list[Path], record: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from tqdm import tqdm

    known = {line["file"]: line for line in read_lines(record)}
    with record.open("a", encoding="utf-8") as lines:
        new = [file for file in files if file.name not in known]
        for line in tqdm(tried(new, arguments), total=len(new), unit="file"):
            known[line["file"]] = line
            lines.write(json.dumps(line) + "\n")
            lines.flush()
    return [known[file.name] for file in files]


def read_lines(record: Path) -> list[dict[str, Any]]:
    found = []
    for line in record.read_text(encoding="utf-8").splitlines() if record.exists() else []:
        with contextlib.suppress(ValueError):  # the last one, where a run was killed
            found.append(json.loads(line))
    return found


def tried(files: list[Path], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from tempclr.data.isolated_decoding import IsolatedDecoder

    worker = Worker()
    try:
        with IsolatedDecoder(first_seconds=arguments.max_seconds) as decoder:
            for file in files:
                line = worker.decode(file, arguments.max_seconds)
                if line.get("megabytes", 0) > arguments.max_megabytes:
                    line["lost"] = f"the process takes {line['megabytes']} MB"
                if line["lost"]:
                    worker.end()
                    worker = Worker()
                else:
                    isolated = decoded(str(file), decoder.iterate_frames)
                    same = (isolated["num_frames"], isolated["fault"]) == (line["num_frames"], line["fault"])
                    line["lost"] = None if same else f"isolated it became {isolated}"
                yield {"file": file.name, **line}
    finally:
        worker.end()


def summary(found: list[dict[str, Any]]) -> str:
    outcomes = Counter("lost" if line["lost"] else "refused" if line["fault"] else "decoded" for line in found)
    slowest = max(line.get("seconds", 0.0) for line in found)
    megabytes = max(line.get("megabytes", 0) for line in found)
    told = f"{len(found)} files tried: {outcomes['decoded']} decoded, {outcomes['refused']} refused in one line"
    return f"{told}, {outcomes['lost']} lost; the slowest took {slowest:.1f} s, the process at most {megabytes} MB"


# --- extraction of the whole folder


def extract_all(folder: Path, num_files: int, *, isolate: bool) -> list[str]:
    """What ``extract`` says of the folder with an encoder of random weights; every file must be done or named."""
    import torch
    from transformers import ViTConfig, ViTModel

    from tempclr.data.features import extract_features

    encoder = folder / "encoder"
    if not (encoder / "config.json").exists():
        torch.manual_seed(0)
        part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        ViTModel(ViTConfig(**part, image_size=32, patch_size=16)).save_pretrained(encoder)
        settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (encoder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    output = folder / ("features isolated" if isolate else "features")
    report = extract_features(
        folder / "videos", output_dir=output, backbone=str(encoder), device="cpu", skip_bad_rows=True,
        isolate_decoding=isolate,
    )  # fmt: skip
    num_done = report.num_extracted + report.num_kept
    told = f"{num_done} of {num_files} extracted, {len(report.reasons)} named and left out"
    is_whole = num_done + len(report.reasons) == num_files
    return [f"{'' if is_whole else 'LOST '}extract{' --isolate_decoding' if isolate else ''}: {told}"]


if __name__ == "__main__":
    sys.exit(main())
