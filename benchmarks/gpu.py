"""Check the kernels on this machine's GPU, time them, and keep the numbers in benchmarks/results/<gpu>.json.

python benchmarks/gpu.py                     # the tests marked gpu, then every workload: minutes
python benchmarks/gpu.py --workloads W1 L    # some of them
python benchmarks/gpu.py --minutes 4         # starts no workload after four minutes; the next call goes on from there

A workload already in the file, of the same commit and the same packages, is not timed again (--again does).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (ROOT, ROOT / "kernels", ROOT / "hub")
KEPT = "gpu", "driver", "torch", "triton", "cuda", "git_revision"


def main(words: list[str] | None = None) -> int:
    """Exit code 0; 1 where the tests fail; 2 where there is no GPU or a word is wrong."""
    from tempclr.benchmark import gpu

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=gpu.NAMES, default=list(gpu.NAMES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each time (default: 7)")
    parser.add_argument("--minutes", type=float, default=8.0, help="start no workload after so long (default: 8)")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="time what the file already has, too")
    chosen = parser.parse_args(words)
    if chosen.rounds < 1:
        parser.error(f"--rounds {chosen.rounds}: expected at least 1")
    stop = time.monotonic() + 60 * chosen.minutes
    try:
        device = gpu.cuda_device()
    except RuntimeError as error:
        print(f"benchmarks/gpu.py: {error}", file=sys.stderr)
        return 2
    if not tests_pass():
        print("benchmarks/gpu.py: the tests marked gpu fail, so nothing is timed", file=sys.stderr)
        return 1
    machine = gpu.machine(device)
    output = chosen.output_dir / f"{file_name(machine['gpu'])}.json"
    results = begun(output, machine, again=chosen.again)
    rates = gpu.device_rates(device)
    results |= {"machine": machine, "rates": vars(rates)}
    samplers = {gpu.EAGER: gpu.by_events, gpu.GRAPH: gpu.by_graph}
    for workload in gpu.WORKLOADS:
        if workload.name not in chosen.workloads or workload.name in results["workloads"]:
            continue
        if time.monotonic() > stop:
            print(f"{workload.name}: not measured, {chosen.minutes:g} minutes are over; call again to go on")
            continue
        print(f"{workload.name}: {workload}", flush=True)
        results["workloads"][workload.name] = gpu.measure(workload, device, rates, samplers, num_rounds=chosen.rounds)
        results["bars"] = gpu.bars(results["workloads"])
        write(output, results)
    print(table(results))
    return 0


def tests_pass() -> bool:
    """Whether every test marked gpu passes here, in a process of its own."""
    path = os.pathsep.join([*map(str, PACKAGES), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-rs", str(ROOT / "tests" / "tempclr_kernels")]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}).returncode == 0


def file_name(gpu: str) -> str:
    """`NVIDIA H100 80GB HBM3` -> `nvidia_h100_80gb_hbm3`."""
    return re.sub(r"[^a-z0-9]+", "_", gpu.lower()).strip("_")


def begun(output: Path, machine: dict[str, Any], *, again: bool) -> dict[str, Any]:
    """What an earlier call left, if it measured the same code on the same stack."""
    if not again and output.exists():
        results: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        if all(results["machine"].get(name) == machine[name] for name in KEPT):
            return results
    return {"workloads": {}, "bars": []}


def write(output: Path, results: dict[str, Any]) -> None:
    from tempclr.data.files import atomic_path

    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def table(results: dict[str, Any]) -> str:
    """One line a time, and the bars."""
    lines = [
        f"{name:6} {row['task']:15} {row['implementation']:25} {row['mode']:6} {row['median_ms']:10.4f} ms"
        f"  {row['ratio']:8.2f} of ours  floor {row['floor_ms']:.4f}"
        for name, workload in results["workloads"].items()
        for row in workload["times"]
    ]
    lines += [f"{name}: {key}: {why}" for name, w in results["workloads"].items() for key, why in w["wrong"].items()]
    lines += [f"{'met' if bar['met'] else 'MISSED'}: {bar['bar']}: {bar['figure']:.4g}" for bar in results["bars"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.path[:0] = map(str, PACKAGES)
    sys.exit(main())
