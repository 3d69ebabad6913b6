"""One run of the benchmark: check against the reference, then time what was right, then say which bars are met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .bars import bars
from .ours import OURS, YARDSTICKS, Implementation, Outcome, Run, expected_of, prepare_reference
from .peers import PEERS, load
from .timing import clock_for, installed_otherwise, interleaved, machine, num_threads, seconds_of, summary
from .workloads import GAMMA, Case, Task, Workload, make_case, select

# A check in float32 of sums of a few dozen numbers below 1; a wrong recurrence is off by far more.
TOLERANCE = 1e-4
SECONDS_PER_SAMPLE = 0.25

Tell = Callable[[str], None]


def compare(
    names: Sequence[str],
    *,
    threads: int = 1,
    num_rounds: int = 7,
    quick: bool = False,
    seed: int = 0,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Time our kernels and every installed peer on the workloads of these names.

    An implementation whose values or gradients differ from the float64 reference on a small case is not timed, and
    told as wrong. One that goes through pairs in a loop and would take more than a quarter of a second is timed on the
    part that takes about that long; its times are scaled up and marked ``extrapolated``. Times are processor time on
    one thread, else those of the wall clock.

    Args:
        names: of :data:`tempclr.benchmark.workloads.NAMES`.
        threads: of torch and numba.
        num_rounds: samples of each time.
        quick: tiny sizes, to see that everything runs; the times mean nothing.
        seed: of the data.
        tell: called with a line before each workload.

    Returns:
        ``machine``, ``settings``, ``skipped`` (peer -> reason), ``installed_otherwise`` (peer -> how, where pip alone
        would not have done it), ``workloads`` and ``bars``, all of plain types.

    Raises:
        ValueError: an unknown workload, or more threads than the machine has.
    """
    skipped: dict[str, str] = {}
    present = [OURS, *YARDSTICKS]
    with num_threads(threads):
        for peer in PEERS:
            reason = load(peer)
            if reason is None:
                present.append(peer)
            else:
                skipped[peer.name] = " ".join(reason.split())
        # What a peer's import sets on its own account does not count.
        torch.set_num_threads(threads)
        measured = {}
        for workload in select(names):
            sized = workload.small(count=4, side=8) if quick else workload
            tell(f"{workload.name}: {sized}")
            measured[workload.name] = _measure(sized, present, num_rounds=num_rounds, seed=seed)
        return {
            "machine": machine() | {"peers": {peer.name: _peer_version(peer) for peer in present if peer.package}},
            "installed_otherwise": {
                peer.name: how for peer in present if peer.package and (how := installed_otherwise(peer.name))
            },
            "settings": {
                "num_rounds": num_rounds,
                "clock": clock_for(threads),
                "gamma": GAMMA,
                "quick": quick,
                "seed": seed,
            },
            "skipped": skipped,
            "workloads": measured,
            "bars": [] if quick else bars(measured),
        }


def _measure(workload: Workload, present: list[Implementation], *, num_rounds: int, seed: int) -> dict[str, Any]:
    case, small = make_case(workload, seed=seed), make_case(workload.small(), seed=seed + 1)
    runs: dict[tuple[str, str], Run] = {}
    scales: dict[tuple[str, str], float] = {}
    errors: dict[tuple[str, str], float | None] = {}
    wrong: dict[str, str] = {}
    for task in workload.tasks:
        reference = prepare_reference(small, task)()
        for implementation in present:
            key = (str(task), implementation.name)
            try:
                checked = implementation.prepare(small, task)
                if checked is None:
                    continue
                expected = expected_of(implementation, reference, small)
                errors[key] = worst_error(checked(), expected) if implementation.checked else None
                runs[key], scales[key] = _sized(implementation, case, task)
            except Exception as error:  # somebody else's package may fail in any way; ours may not
                if implementation is OURS:
                    raise
                wrong[": ".join(key)] = f"{type(error).__name__}: {' '.join(str(error).split())}"
                continue
            if (errors[key] or 0.0) > TOLERANCE:
                wrong[": ".join(key)] = f"off by {errors[key]:.1e} from the reference, not timed"
                del runs[key]
    samples = interleaved(runs, num_rounds=num_rounds, clock=clock_for(torch.get_num_threads()))
    times: list[dict[str, Any]] = [
        {
            "task": key[0],
            "implementation": key[1],
            **summary(samples[key], scale=scales[key]),
            "part": round(1 / scales[key], 6),
            "extrapolated": scales[key] != 1,
            "error": None if errors[key] is None else float(f"{errors[key]:.1e}"),
        }
        for key in runs
    ]
    ours = {time["task"]: time["median_ms"] for time in times if time["implementation"] == OURS.name}
    for time in times:
        time["ratio"] = time["median_ms"] / ours[time["task"]]
    return {"sizes": str(workload), "times": times, "wrong": wrong}


def _sized(implementation: Implementation, case: Case, task: Task) -> tuple[Run, float]:
    """The run on the whole case, or on the part of it that takes about a quarter of a second, and its scale."""
    whole = implementation.prepare(case, task)
    assert whole is not None
    if not implementation.loops:
        return whole, 1.0
    one = implementation.prepare(case.part(1), task)
    assert one is not None
    one()
    part = min(case.workload.count, max(1, int(SECONDS_PER_SAMPLE / seconds_of(one))))
    run = implementation.prepare(case.part(part), task)
    assert run is not None
    return run, case.workload.count / part


def worst_error(outcome: Outcome, expected: Outcome) -> float:
    """Largest difference of values, relative to the largest value, or of gradients; NaN counts as infinite.

    A value that sums the batch is compared with the sum.
    """
    value = expected.value.double()
    if outcome.value.ndim == 0 and value.ndim:
        value = value.sum()
    if outcome.value.shape != value.shape:
        return float("inf")
    error = ((outcome.value.double() - value).abs().max() / value.abs().max().clamp_min(1.0)).item()
    if outcome.gradient is not None and expected.gradient is not None:
        error = max(error, (outcome.gradient.double() - expected.gradient).abs().max().item())
    return error if error == error else float("inf")


def _peer_version(peer: Implementation) -> str:
    from importlib.metadata import version

    return version(peer.name)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: a row an implementation and task, with its time as a multiple of ours."""
    from tempclr.evaluation.report import markdown_table

    rows = [
        [
            name,
            time["task"],
            time["implementation"] + (f" ({time['part']:.3g} of the pairs)" if time["extrapolated"] else ""),
            time["median_ms"],
            f"{time['p20_ms']:.3f}–{time['p80_ms']:.3f}",  # noqa: RUF001 (a range)
            f"{time['ratio']:.2f}x",
        ]
        for name, workload in results["workloads"].items()
        for time in sorted(workload["times"], key=lambda time: (str(time["task"]), time["ratio"]))
    ]
    where, settings = results["machine"], results["settings"]
    versions = f"{where['cpu']}, torch {where['torch']}, numba {where['numba']}"
    how = f"medians of {settings['num_rounds']} rounds of {settings['clock']} time, threads: {where['num_threads']}"
    lines = [f"{versions}; {how}", ""]
    lines += [markdown_table(["workload", "task", "implementation", "ms", "20–80 %", "of ours"], rows)]  # noqa: RUF001
    lines += [f"{name}: {reason}" for name, reason in results["skipped"].items()]
    lines += [f"{name}: {how}" for name, how in results["installed_otherwise"].items()]
    lines += [f"{name}: {key}: {why}" for name, w in results["workloads"].items() for key, why in w["wrong"].items()]
    lines += [f"{'met' if bar['met'] else 'MISSED'}: {bar['bar']}: {bar['figure']:.3g}" for bar in results["bars"]]
    return "\n".join(lines)
