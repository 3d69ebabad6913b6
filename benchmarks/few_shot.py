"""Time TRX against a loop over classes, and ten thousand tasks; keep both in benchmarks/results/few_shot_speed.json.

python benchmarks/few_shot.py                  # both, a few minutes
python benchmarks/few_shot.py --only tasks     # or trx

Bars: forward and backward of a 5-way 5-shot TRX episode take at most a fifth of the loop's time, with equal results;
10,000 5-way 5-shot tasks of 15 queries a class over 2,857 videos of 8 frames, d = 768, take at most 60 s on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tempclr.benchmark.timing import clock_for, interleaved, machine, num_threads, summary
from tempclr.data.files import atomic_path
from tempclr.data.sequences import SequenceSet
from tempclr.evaluation.few_shot import evaluate_few_shot
from tempclr.models.few_shot import TRXHead

RESULTS = Path(__file__).resolve().parent / "results" / "few_shot_speed.json"
NUM_QUERIES = 25  # five of each class, as in training
SIZES = {"ResNet-50 features": 2048, "encoder of width 768": 768}
# Videos of the 24 test classes of SSv2-OTAM, by the rule that the smallest have 17 and 18.
CLASS_SIZES = [17, 18, *[128] * 21, 134]


def loop_over_classes(head: TRXHead, query: Tensor, support: Tensor) -> Tensor:
    """TRX in plain PyTorch: every tuple's vector, projected once, and then class by class."""
    scores = []
    for branch in head.branches:
        chosen = torch.tensor(list(combinations(range(branch.num_frames), branch.cardinality)))

        def embed(frames: Tensor, branch: Any = branch, chosen: Tensor = chosen) -> tuple[Tensor, Tensor]:
            tuples = branch.dropout(frames + branch.positions)[:, chosen].flatten(2)
            return branch.norm_k(branch.k_linear(tuples)), branch.v_linear(tuples)

        query_keys, query_values = embed(query)
        keys, values = (part.unflatten(0, support.shape[:2]) for part in embed(support.flatten(0, 1)))
        distances = []
        for of_class, to_add in zip(keys, values, strict=True):
            attention = (query_keys @ of_class.flatten(0, 1).T * branch.head_size**-0.5).softmax(dim=-1)
            prototypes = attention @ to_add.flatten(0, 1)
            distances.append((query_values - prototypes).square().sum(dim=(1, 2)) / len(chosen))
        scores.append(-torch.stack(distances, dim=1))
    return torch.stack(scores).mean(dim=0)


def time_trx(num_rounds: int, all_threads: list[int]) -> Iterator[dict[str, Any]]:
    for threads in all_threads:
        for title, feature_size in SIZES.items():
            with num_threads(threads):
                found = _compare(feature_size, num_rounds, clock_for(threads))
            yield {"features": title, "num_queries": NUM_QUERIES, "num_threads": threads, **found}


def _compare(feature_size: int, num_rounds: int, clock: str) -> dict[str, Any]:
    torch.manual_seed(0)
    head = TRXHead(feature_size=feature_size, num_frames=8, dropout=0.0)
    query = torch.rand(NUM_QUERIES, 8, feature_size, requires_grad=True)
    support = torch.rand(5, 5, 8, feature_size, requires_grad=True)
    labels = torch.arange(NUM_QUERIES) % 5

    def step(score: Callable[[], Tensor]) -> list[Tensor]:
        for tensor in (query, support, *head.parameters()):
            tensor.grad = None
        scores = score()
        cross_entropy(scores, labels).backward()
        return [scores.detach(), query.grad, support.grad, *(parameter.grad for parameter in head.parameters())]

    runs = {
        "tempclr": lambda: head(query[None], support[None])[0],
        "loop": lambda: loop_over_classes(head, query, support),
    }
    pairs = zip(*([part.clone() for part in step(run)] for run in runs.values()), strict=True)
    error = max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)
    steps = {name: lambda run=run: step(run) for name, run in runs.items()}
    samples = interleaved(steps, num_rounds=num_rounds, clock=clock)
    ratios = [loop / own for own, loop in zip(samples["tempclr"], samples["loop"], strict=True)]
    return {
        "clock": clock,
        "tempclr": summary(samples["tempclr"]),
        "loop": summary(samples["loop"]),
        "ratio": float(np.median(ratios)),
        "largest_relative_difference": error,
    }


def time_tasks() -> dict[str, Any]:
    labels = [f"test{number}" for number, count in enumerate(CLASS_SIZES) for _ in range(count)]
    random = np.random.default_rng(0)
    centres = random.normal(size=(len(CLASS_SIZES), 8, 768))
    frames = [0.15 * centres[int(label[4:])] + random.normal(size=(8, 768)) for label in labels]
    sequences = SequenceSet(frames, labels)
    evaluate_few_shot(sequences.take(range(100)), measure="otam", way=2, num_tasks=200)  # compiles the kernels
    started, worked = time.perf_counter(), time.process_time()
    result = evaluate_few_shot(sequences, measure="otam", way=5, shot=5, num_queries=15, num_tasks=10_000)
    found = {
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - worked,
        "num_videos": len(sequences),
        "accuracy": result.accuracy,
        "half_width": result.half_width,
        "short_classes": result.short_classes,
    }
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("trx", "tasks"), help="default: both")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of TRX (default 5)")
    # On a machine that does other work, two threads wait for each other at every small operation, and the wall clock
    # measures that; one thread's processor time does not.
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of TRX (default 1, by processor time)")
    arguments = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    torch.set_num_threads(2)
    if arguments.only != "trx":
        kept["tasks"] = time_tasks() | {"machine": machine()}
        _write(kept)
    if arguments.only != "tasks":
        kept["trx"] = {"rows": [], "machine": machine()}
        for row in time_trx(arguments.rounds, arguments.threads):
            print(row, flush=True)
            kept["trx"]["rows"].append(row)
            _write(kept)


def _write(kept: dict[str, Any]) -> None:
    with atomic_path(RESULTS) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
