"""A million rows, streamed: how long until the first batch, how much memory, and where a run goes on.

    python benchmarks/streaming.py                      # a million rows: minutes, most of them to write the shards
    python benchmarks/streaming.py --num_rows 20000
    python benchmarks/streaming.py --output benchmarks/results/streaming.json

The rows are those of a corpus as large as HowTo100M: ten sentences each, and the path of a feature file, here one file
that all rows share. The shards are written once and kept. A new process opens the stream, takes a batch, takes as many
as asked for, and goes on from its state in another new process; that must give the same batches. The exit code is 1 if
it does not, or if start-up or memory are beyond the bars.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

MAX_START_SECONDS, MAX_MEGABYTES = 5.0, 1024.0
ROWS_OF_SHARD, ROWS_OF_GROUP = 10_000, 500
WORDS = ("cut", "the", "bread", "melt", "butter", "beat", "two", "eggs", "pour", "some", "milk", "fry", "it", "well")


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    if arguments.reader is not None:
        return read(arguments)
    folder = arguments.folder / str(arguments.num_rows)
    write_seconds = write_rows(folder, arguments.num_rows)
    found = {"num_rows": arguments.num_rows, "seconds_to_write": round(write_seconds, 1), "runs": []}
    for num_workers in arguments.num_workers:
        found["runs"].append(measured(folder, num_workers, arguments.num_batches))
        print(json.dumps(found["runs"][-1]))
    if arguments.output is not None:
        from tempclr.benchmark.timing import machine
        from tempclr.data.files import atomic_path

        with atomic_path(arguments.output) as written:
            written.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(run["passed"] for run in found["runs"]) else 1


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_rows", type=int, default=1_000_000)
    parser.add_argument("--num_batches", type=int, default=200, help="of 16 rows")
    parser.add_argument("--num_workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/soak/streaming"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def write_rows(folder: Path, num_rows: int) -> float:
    """The shards, each under its name only when it is whole; those that are there are kept."""
    import pyarrow
    import pyarrow.parquet
    from tqdm import tqdm

    from tempclr.data.files import atomic_path

    start, num_shards = time.monotonic(), -(-num_rows // ROWS_OF_SHARD)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "features.npy", np.ones((60, 512), np.float16), allow_pickle=False)
    for number in tqdm(range(num_shards), unit="shard"):
        path = folder / f"train-{number:05d}-of-{num_shards:05d}.parquet"
        if path.exists():
            continue
        first = number * ROWS_OF_SHARD
        rows = [make_row(index) for index in range(first, min(first + ROWS_OF_SHARD, num_rows))]
        with atomic_path(path) as temporary:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary, row_group_size=ROWS_OF_GROUP)
    return time.monotonic() - start


def make_row(index: int) -> dict[str, Any]:
    sentences = [" ".join(WORDS[(index + place + step) % len(WORDS)] for step in range(8)) for place in range(10)]
    starts = [6.0 * place for place in range(10)]
    spans = {"sentences": sentences, "starts": starts, "ends": [start + 5.0 for start in starts]}
    return {"video_id": f"v{index:07d}", **spans, "features_path": "features.npy", "features_per_second": 1.0}


def measured(folder: Path, num_workers: int, num_batches: int) -> dict[str, Any]:
    first = in_new_process(folder, num_workers, num_batches, None)
    second = in_new_process(folder, num_workers, num_batches, first["half_state"], half=True)
    same = first["second_half"] == second["second_half"]
    start = max(first["start_seconds"], second["start_seconds"])
    megabytes = max(first["megabytes"], second["megabytes"])
    return {
        "num_workers": num_workers,
        "start_seconds": first["start_seconds"],
        "seconds_to_go_on": second["start_seconds"],
        "rows_per_second": first["rows_per_second"],
        "megabytes": megabytes,
        "megabytes_of_imports": first["megabytes_of_imports"],
        "same_batches": same,
        "passed": same and start <= MAX_START_SECONDS and megabytes <= MAX_MEGABYTES,
    }


def in_new_process(
    folder: Path, num_workers: int, num_batches: int, state: Any, *, half: bool = False
) -> dict[str, Any]:
    request = {
        "folder": str(folder),
        "num_workers": num_workers,
        "num_batches": num_batches,
        "state": state,
        "half": half,
    }
    command = [sys.executable, __file__, "--reader", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def collate(items: list[Any]) -> dict[str, Any]:
    return {"video_id": [item.video_id for item in items], "num_features": sum(len(item.features) for item in items)}


def read(arguments: argparse.Namespace) -> int:
    """One process: open, take the first batch, take the others; memory is that of it and its workers together."""
    from tempclr.data.streaming import ParagraphStream, StreamLoader

    request = json.loads(arguments.reader)
    imports = resident_megabytes()
    start = time.monotonic()
    stream = ParagraphStream(request["folder"])
    loader = StreamLoader(stream, batch_size=16, collate=collate, num_workers=request["num_workers"])
    if request["state"] is not None:
        loader.load_state_dict(request["state"])
    batches = iter(loader)
    digest, half_state, megabytes = hashlib.sha256(), None, 0.0
    first = next(batches)
    started = time.monotonic()
    half = request["num_batches"] // 2
    remaining = half if request["half"] else request["num_batches"]
    for number, batch in enumerate(islice(chained(first, batches), remaining)):
        if request["half"] or number >= half:
            digest.update(json.dumps(batch).encode())
        if number == half - 1:
            half_state = loader.state_dict()
        if number % 20 == 0:
            megabytes = max(megabytes, resident_megabytes())
    seconds = time.monotonic() - started
    found = {"start_seconds": round(started - start, 2), "half_state": half_state, "second_half": digest.hexdigest()}
    found |= {"megabytes": round(megabytes), "megabytes_of_imports": round(imports)}
    print(json.dumps({**found, "rows_per_second": round(16 * remaining / seconds)}))
    return 0


def chained(first: Any, others: Any) -> Any:
    yield first
    yield from others


def resident_megabytes() -> float:
    """Of this process and its workers together, a page that several hold counted once."""
    total = 0.0
    own = str(os.getpid())
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
            if place.name == own or parent == own:
                lines = (place / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        except (OSError, StopIteration, IndexError):
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
