"""Time full-video retrieval from cached embeddings, each size in a process of its own, with the memory it takes.

    python benchmarks/retrieval.py                            # YouCook2's size, both protocols and backgrounds
    python benchmarks/retrieval.py --num_videos 2000 --num_sentences 12 --num_clips 200 --background kept
    python benchmarks/retrieval.py --output benchmarks/results/retrieval.json

Lengths are uniform around the numbers given (half to one and a half of them), vectors random, of 768 numbers. A small
run goes before, which compiles the kernels, once per machine. Memory is the peak of the whole process: Python, torch
and the embeddings included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tempclr.evaluation import retrieval_from_embeddings

    torch.set_num_threads(arguments.num_threads)
    embeddings = make_embeddings(arguments, num_videos=arguments.num_videos)
    num_queries = min(arguments.num_queries or arguments.num_videos, arguments.num_videos)
    options = {"protocol": arguments.protocol[0], "measures": arguments.measures}
    retrieval_from_embeddings(make_embeddings(arguments, num_videos=16), **options)
    wall, cpu = time.perf_counter(), time.process_time()
    if num_queries < arguments.num_videos:
        score_some(embeddings, num_queries, **options)
    else:
        retrieval_from_embeddings(embeddings, **options, show_progress_bar=arguments.num_videos > 1000)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    cells = int(embeddings.num_sentences[:num_queries].sum()) * int(embeddings.num_clips.sum())
    return {
        "num_queries": num_queries,
        "num_videos": arguments.num_videos,
        "num_sentences": arguments.num_sentences,
        "num_clips": arguments.num_clips,
        "background": arguments.background[0],
        "protocol": arguments.protocol[0],
        "measures": arguments.measures,
        "cells": cells,
        "wall_seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "nanoseconds_a_cell": round(1e9 * wall / cells, 3),
        "cpu_nanoseconds_a_cell": round(1e9 * cpu / cells, 3),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def score_some(embeddings: Any, num_queries: int, *, protocol: str, measures: list[str]) -> None:
    """The first queries against all videos: a part of the rows costs that part of the time."""
    from tempclr.evaluation.official_scores import official_score_pairs
    from tempclr.evaluation.scores import score_pairs

    inputs = (
        embeddings.sentences[:num_queries],
        embeddings.clips,
        embeddings.num_sentences[:num_queries],
        embeddings.num_clips,
    )
    if protocol == "official":
        official_score_pairs(*inputs, measures=measures, background=embeddings.background, show_progress_bar=True)
    else:
        ratio = 1.3 if embeddings.background == "kept" else None
        score_pairs(*inputs, measures=measures, keep_ratio=ratio, show_progress_bar=True)


def make_embeddings(arguments: argparse.Namespace, *, num_videos: int) -> Any:
    import torch

    from tempclr.evaluation import Embeddings

    generator = torch.Generator().manual_seed(0)

    def lengths(mean: int) -> torch.Tensor:
        return torch.randint(max(1, mean // 2), mean + mean // 2 + 1, (num_videos,), generator=generator)

    kept = arguments.background[0] == "kept"
    num_sentences = lengths(arguments.num_sentences)
    num_clips = lengths(arguments.num_clips) if kept else num_sentences
    longest = (int(num_sentences.max()), int(num_clips.max()))
    vectors = [torch.randn(num_videos, length, arguments.size, generator=generator) for length in longest]
    windows = {"window_seconds": 16.0, "stride_seconds": 16.0} if kept else {}
    return Embeddings(vectors[0], num_sentences, vectors[1], num_clips, **windows)


def run(words: list[str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *words, "--alone"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    from tempclr.evaluation.protocols import BACKGROUNDS, MEASURES, PROTOCOLS
    from tempclr.evaluation.report import markdown_table, write_results

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_videos", type=int, default=436)
    parser.add_argument("--num_queries", type=int, default=0, help="score so many queries only (default: all)")
    parser.add_argument("--num_sentences", type=int, default=8)
    parser.add_argument("--num_clips", type=int, default=60, help="windows of a video where the background is kept")
    parser.add_argument("--size", type=int, default=768, help="numbers of a vector")
    parser.add_argument("--background", nargs="+", choices=BACKGROUNDS, default=list(BACKGROUNDS))
    parser.add_argument("--protocol", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="also write the numbers as JSON")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments)))
        return
    shared = ["--num_videos", "--num_queries", "--num_sentences", "--num_clips", "--size", "--num_threads"]
    words = [word for name in shared for word in (name, str(getattr(arguments, name[2:])))]
    words += ["--measures", *arguments.measures]
    rows = [
        run([*words, "--background", background, "--protocol", protocol])
        for background, protocol in product(arguments.background, arguments.protocol)
    ]
    columns = ["background", "protocol", "num_queries", "num_videos", "wall_seconds", "cpu_seconds"]
    columns += ["nanoseconds_a_cell", "cpu_nanoseconds_a_cell", "peak_megabytes"]
    print(markdown_table(columns, [[row[column] for column in columns] for row in rows], digits=2))
    if arguments.output is not None:
        write_results(arguments.output, {"retrieval": rows})


if __name__ == "__main__":
    main()
