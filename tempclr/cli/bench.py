"""Time the alignment kernels beside every peer that is installed, each checked against the reference first."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tempclr.benchmark.workloads import NAMES

    parser.add_argument("--workloads", nargs="+", choices=NAMES, default=list(NAMES), help="default: all")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and numba (default 1)")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each time (default 7)")
    parser.add_argument("--output", type=Path, help="where the results go as well, a .json file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether all runs, not how fast")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.benchmark.comparison import compare, table
    from tempclr.data.files import check_output_file
    from tempclr.errors import InputError
    from tempclr.evaluation.report import write_results

    if arguments.rounds < 1:
        raise InputError(f"--rounds takes at least 1, got {arguments.rounds}")
    if arguments.output is not None:
        if arguments.output.suffix != ".json":
            raise InputError(f"--output takes a .json file, got {arguments.output}")
        check_output_file(arguments.output)
    results = compare(
        list(dict.fromkeys(arguments.workloads)),
        threads=arguments.threads,
        num_rounds=arguments.rounds,
        quick=arguments.quick,
        seed=arguments.seed,
        tell=lambda line: print(line, flush=True),
    )
    print(table(results))
    if arguments.output is not None:
        write_results(arguments.output, results)
        print(f"wrote {arguments.output}")
    return 0
