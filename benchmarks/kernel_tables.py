"""Tables of the kernels' times, from benchmarks/results/cpu.json and what benchmarks/gpu.py leaves beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
NOT_MEASURED = "not measured"
OURS = "tempclr"
# Workload and task, and whom the row names beside us: a yardstick, or None for the best peer.
CPU_ROWS = (
    ("A2", "hard value", None),
    ("A2", "soft value+grad", None),
    ("S", "hard value", None),
    ("C", "hard value", "GEMM alone"),
    ("W1", "soft value+grad", "one GEMM per order"),
)
GPU_ROWS = (
    ("W1", "soft value+grad", "graph", None),
    ("L", "soft value+grad", "eager", "torch by anti-diagonals"),
    ("P/436", "hard value", "eager", "bf16 GEMM alone"),
)
HEADERS = ["what", "task", "tempclr, ms", "others, as multiples of it (* from a part of the pairs)"]
YARDSTICKS = {
    "tempclr, dtw instead",
    "tempclr by anti-diagonals",
    "tempclr, a warp a pair",
    "GEMM alone",
    "one GEMM per order",
    "torch by anti-diagonals",
    "bf16 GEMM alone",
}


def gpu_files() -> list[Path]:
    """Results of GPUs: the files whose machine has one."""
    files = sorted(RESULTS.glob("*.json"))
    return [path for path in files if "gpu" in json.loads(path.read_text(encoding="utf-8")).get("machine", {})]


def short_table() -> str:
    """A handful of rows for the README."""
    from tempclr.evaluation.report import markdown_table

    cpu = _read(RESULTS / "cpu.json")
    rows = [_short_row("CPU", cpu, name, task, "eager", beside) for name, task, beside in CPU_ROWS]
    for where, results in [(path.stem, _read(path)) for path in gpu_files()] or [("GPU", None)]:
        rows += [_short_row(where, results, name, task, mode, beside) for name, task, mode, beside in GPU_ROWS]
    headers = ["", "what", "task", "tempclr", "beside", "times ours"]
    return f"{_cpu_line(cpu)}.\n\n{markdown_table(headers, rows)}"


def full_table() -> str:
    """Every time that was taken."""
    from tempclr.evaluation.report import markdown_table

    cpu = _read(RESULTS / "cpu.json")
    parts = [f"{_cpu_line(cpu)}.", _full_rows(cpu, markdown_table)]
    parts += [f"{peer}: {reason}." for peer, reason in cpu["skipped"].items()]
    for path in gpu_files():
        results = _read(path)
        parts += [f"{_gpu_line(results['machine'])}.", _full_rows(results, markdown_table)]
    if not gpu_files():
        from tempclr.benchmark import gpu

        empty = [[str(w), ", ".join(map(str, gpu.tasks(w))), NOT_MEASURED, ""] for w in gpu.WORKLOADS]
        parts += ["GPU: no results file yet; `python benchmarks/gpu.py` on a machine with one writes it."]
        parts += [markdown_table(HEADERS, empty)]
    return "\n\n".join(parts)


def _full_rows(results: dict[str, Any], markdown_table: Any) -> str:
    """A row a workload and task, with everybody else's time as a multiple of ours."""
    rows = []
    for workload in results["workloads"].values():
        for task in dict.fromkeys(row["task"] for row in workload["times"]):
            times = sorted((row for row in workload["times"] if row["task"] == task), key=lambda row: row["ratio"])
            ours = {
                row.get("mode", "eager"): _digits(row["median_ms"]) for row in times if row["implementation"] == OURS
            }
            own = ours["eager"] + (f" (graph {ours['graph']})" if "graph" in ours else "")
            others = [
                f"{row['implementation']} {_digits(row['ratio'])}{'*' if row.get('extrapolated') else ''}"
                for row in times
                if row["implementation"] != OURS
            ]
            rows.append([workload["sizes"], task, own, "; ".join(others)])
    return markdown_table(HEADERS, rows)


def _short_row(
    where: str, results: dict[str, Any] | None, name: str, task: str, mode: str, beside: str | None
) -> list[str]:
    workload = None if results is None else results["workloads"].get(name)
    if workload is None:
        from tempclr.benchmark import gpu

        sizes = next((str(workload) for workload in gpu.WORKLOADS if workload.name == name), name)
        return [where, sizes, f"{task}{_in(mode)}", NOT_MEASURED, "", ""]
    times = [row for row in workload["times"] if row["task"] == task]
    ours = next(row for row in times if row["implementation"] == OURS and row.get("mode", "eager") == mode)
    others = [row for row in times if row["implementation"] == beside]
    if beside is None:
        others = [row for row in times if row["implementation"] not in {OURS, *YARDSTICKS}]
    best = min(others, key=lambda row: row["median_ms"], default=None)
    ratio = "" if best is None else f"{best['median_ms'] / ours['median_ms']:.2f}"
    named = "no peer" if best is None else f"{best['implementation']}, {_digits(best['median_ms'])} ms"
    return [where, workload["sizes"], f"{task}{_in(mode)}", f"{_digits(ours['median_ms'])} ms", named, ratio]


def _in(mode: str) -> str:
    return ", in a graph" if mode == "graph" else ""


def _digits(number: float) -> str:
    """Three digits.

    >>> [_digits(value) for value in (0.04567, 4.567, 4567.8)]
    ['0.0457', '4.57', '4568']
    """
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _cpu_line(results: dict[str, Any]) -> str:
    where, settings = results["machine"], results["settings"]
    return (
        f"CPU: {where['cpu']}, threads: {where['num_threads']}, torch {where['torch']}, numba {where['numba']}, commit "
        f"{(where['git_revision'] or 'unknown')[:7]}; medians of {settings['num_rounds']} rounds"
    )


def _gpu_line(where: dict[str, Any]) -> str:
    return (
        f"{where['gpu']}, driver {where['driver']}, torch {where['torch']}, triton {where['triton']}, commit "
        f"{(where['git_revision'] or 'unknown')[:7]}"
    )


def _read(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results
