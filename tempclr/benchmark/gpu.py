"""What is timed on a GPU, and how: device events and replayed graphs, in rounds, beside what the device itself can do.

``python benchmarks/gpu.py`` runs it. Nothing here needs a GPU but the clock, so tests run the rest without one.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from tempclr_kernels import alignment, pairwise, rowscan

from .comparison import worst_error
from .ours import COPIED, OURS, TORCH, Implementation, Outcome, Run, diagonal_dtw
from .peers import PEERS, load
from .timing import machine as host
from .timing import summary
from .workloads import ALL_PAIRS, MATRICES, STEP, TASKS, Case, Task, Workload

HARD, SOFT = Task(soft=False, gradient=False), Task(soft=True, gradient=False)
HARD_GRADIENT, SOFT_GRADIENT = Task(soft=False, gradient=True), Task(soft=True, gradient=True)
WORKLOADS = (
    Workload("W1", STEP, 16, 32, 32, width=768, num_orders=32),
    Workload("L", MATRICES, 32, 512, 512),
    *(Workload(f"M/{count}", MATRICES, count, 64, 64) for count in (64, 128, 256, 528)),
    Workload("S/160", MATRICES, 160, 10, 650),
    Workload("S/16", MATRICES, 16, 10, 1000),
    Workload("O", MATRICES, 528, 32, 32, measure="otam"),
    Workload("P/436", ALL_PAIRS, 436, 8, 60, width=512),
    Workload("P/2k", ALL_PAIRS, 2000, 12, 280, width=768),
    Workload("P/10k", ALL_PAIRS, 10000, 12, 280, width=768),
)
NAMES = tuple(workload.name for workload in WORKLOADS)
ON_GPU = ("torchdtw", "ddtw", "pysdtw")
SAMPLE_MILLISECONDS, MAX_REPEATS = 2.0, 50
# Of float32 beside our own of the same costs; peers divide and normalise in ways of their own.
TOLERANCE = 1e-3
EAGER, GRAPH = "eager", "graph"

Sampler = Callable[[Run], Callable[[], float]]


@dataclass(frozen=True)
class Rates:
    """What the device reaches on work with nothing in its way: bytes and bf16 operations a second."""

    bytes_per_second: float
    operations_per_second: float

    def floor_ms(self, num_bytes: float, num_operations: float) -> float:
        """Milliseconds below which no implementation can come.

        >>> Rates(1e12, 1e15).floor_ms(2e9, 1e9)
        2.0
        """
        return 1000 * max(num_bytes / self.bytes_per_second, num_operations / self.operations_per_second)


def make_case(workload: Workload, device: torch.device, *, seed: int = 0) -> Case:
    """Random data of a workload's sizes, made on the device; features of all pairs are bf16."""
    generator = torch.Generator(device).manual_seed(seed)
    count, rows, columns = workload.count, workload.rows, workload.columns
    empty = torch.empty(0, device=device)
    if workload.kind == MATRICES:
        cost = torch.rand(count, rows, columns, generator=generator, device=device)
        return Case(workload, cost, empty, empty, empty.long())
    dtype = torch.bfloat16 if workload.kind == ALL_PAIRS else torch.float32
    a, b = (
        torch.randn(count, length, workload.width, generator=generator, device=device, dtype=dtype)
        for length in (rows, columns)
    )
    orders = torch.rand(count, workload.num_orders, columns, generator=generator, device=device).argsort(dim=-1)
    return Case(workload, empty, a, b, orders)


def least_work(workload: Workload, task: Task) -> tuple[float, float]:
    """Bytes that must be read or written once, and operations of the matrix products.

    >>> least_work(WORKLOADS[1], Task(soft=True, gradient=True))
    (67109120.0, 0.0)
    """
    count, cells, width = workload.count, workload.rows * workload.columns, workload.width
    if workload.kind == MATRICES:
        return 4.0 * count * (cells * (1 + task.gradient) + 1 + task.gradient), 0.0
    features = count * (workload.rows + workload.columns) * width
    if workload.kind == STEP:
        return 4.0 * features * 2, 3 * 2.0 * count * cells * width
    return 2.0 * features + 4.0 * count**2, 2.0 * count**2 * cells * width


def entries(case: Case) -> Iterator[tuple[Task, Implementation, Run, tuple[str, ...]]]:
    """Every run with the ways it is timed, ``EAGER`` and for ours of short matrices ``GRAPH``. Ours comes first."""
    kind, is_short = case.workload.kind, case.workload.rows * case.workload.columns <= 64 * 64
    for task in tasks(case.workload):
        for implementation in implementations(kind):
            run = implementation.prepare(case, task)
            if run is not None:
                with_graph = implementation is OURS and kind != ALL_PAIRS and is_short
                yield task, implementation, run, (EAGER, GRAPH) if with_graph else (EAGER,)


def tasks(workload: Workload) -> tuple[Task, ...]:
    """Soft alone where the matrices are long; hard alone for all pairs."""
    if workload.kind == ALL_PAIRS:
        return (HARD, SOFT) if workload.count < 1000 else (HARD,)
    if workload.name == "L":
        return (SOFT_GRADIENT,)
    return tuple(task for task in TASKS if task.gradient or workload.kind == MATRICES)


def implementations(kind: str) -> list[Implementation]:
    peers = [peer for peer in PEERS if peer.name in ON_GPU and load(peer) is None]
    return {
        STEP: [OURS, COPIED, TORCH_STEP],
        MATRICES: [OURS, BY_DIAGONALS, TORCH, *peers],
        ALL_PAIRS: [OURS, A_WARP_EACH, BF16_GEMM],
    }[kind]


def _prepare_torch_step(case: Case, task: Task) -> Run:
    from tempclr.costs import cosine_cost

    device = case.a.device
    videos = torch.arange(len(case.a), device=device)[:, None, None, None]
    rows = torch.arange(case.workload.rows, device=device)[:, None]

    def run() -> Outcome:
        text, video = (features.detach().requires_grad_() for features in (case.a, case.b))
        copies = cosine_cost(text, video)[videos, rows, case.orders[:, :, None, :]]
        distance = diagonal_dtw(copies.flatten(0, 1), gamma=task.gamma).view(case.orders.shape[:2])
        loss = torch.nn.functional.cross_entropy(-distance, distance.new_zeros(len(distance), dtype=torch.int64))
        gradients = torch.autograd.grad(loss, (text, video))
        return Outcome(loss.detach(), torch.cat([gradient.flatten() for gradient in gradients]))

    return run


def _prepare_gemm(case: Case, task: Task) -> Run | None:
    """All products, a block after the other into the same memory; the least that any way through all costs can take."""
    if task.soft:
        return None
    a, b = case.a.flatten(0, 1), case.b.flatten(0, 1)
    block_rows, block_columns = min(len(a), 1 << 14), min(len(b), 1 << 15)
    result = a.new_empty(block_rows, block_columns)

    def run() -> Outcome:
        for rows in a.split(block_rows):
            for columns in b.split(block_columns):
                torch.mm(rows, columns.T, out=result[: len(rows), : len(columns)])
        return Outcome(result)

    return run


def _prepare_by_diagonals(case: Case, task: Task) -> Run | None:
    """Ours along anti-diagonals, where ours would scan rows."""
    workload = case.workload
    if not rowscan.suits(case.cost, 1, workload.measure, task.gamma):
        return None
    return _with(rowscan, "MOST_PAIRS", 0, OURS.prepare(case, task))


def _prepare_a_warp_each(case: Case, task: Task) -> Run | None:
    """Ours of whole cost matrices, where all pairs would take a lane each; of the few pairs it is done with in time."""
    if case.workload.count > 500:
        return None
    return _with(pairwise, "MANY_PAIRS", case.workload.count**2 + 1, OURS.prepare(case, task))


def _with(module: ModuleType, name: str, value: int, run: Run | None) -> Run:
    """The run with a threshold of ours set aside."""
    assert run is not None

    def aside() -> Outcome:
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            return run()
        finally:
            setattr(module, name, before)

    return aside


BY_DIAGONALS = Implementation("tempclr by anti-diagonals", _prepare_by_diagonals)
A_WARP_EACH = Implementation("tempclr, a warp a pair", _prepare_a_warp_each)
TORCH_STEP = Implementation("torch by anti-diagonals", _prepare_torch_step)
BF16_GEMM = Implementation("bf16 GEMM alone", _prepare_gemm, checked=False)


def measure(
    workload: Workload, device: torch.device, rates: Rates, samplers: Mapping[str, Sampler], *, num_rounds: int
) -> dict[str, Any]:
    """Check every entry of a workload against ours, time them in rounds, and set them beside the floor.

    Args:
        workload: one of ``WORKLOADS``, or a smaller one.
        device: where the data is made.
        rates: of the device.
        samplers: for ``EAGER`` and ``GRAPH``, what makes a run into a function that gives the milliseconds of a sample.
        num_rounds: samples of each time.

    Returns:
        ``sizes``, ``times``, ``wrong`` (entry -> why it was not timed), ``peak_bytes`` of all pairs, of plain types.
    """
    case = make_case(workload, device)
    clocks: dict[tuple[str, str, str], Callable[[], float]] = {}
    wrong: dict[str, str] = {}
    ours: dict[Task, Outcome] = {}
    for task, implementation, run, modes in entries(case):
        name = implementation.name
        try:
            outcome = run()
            if implementation is OURS:
                ours[task] = outcome
            elif implementation.checked and _error(implementation, case, outcome, ours[task]) > TOLERANCE:
                wrong[f"{task}: {name}"] = "differs from ours, not timed"
                continue
            for mode in modes:
                clocks[str(task), name, mode] = samplers[mode](run)
        except Exception as error:  # somebody else's package may fail in any way; ours may not
            if implementation is OURS:
                raise
            wrong[f"{task}: {name}"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    peak = _peak_bytes(case) if workload.kind == ALL_PAIRS and device.type == "cuda" else None
    samples = interleaved(clocks, num_rounds=num_rounds)
    times = []
    for (task_name, name, mode), milliseconds in samples.items():
        num_bytes, num_operations = least_work(workload, next(task for task in TASKS if str(task) == task_name))
        row: dict[str, Any] = {"task": task_name, "implementation": name, "mode": mode, **summary(milliseconds)}
        row["floor_ms"] = rates.floor_ms(num_bytes, num_operations)
        row["gigabytes_per_second"] = num_bytes / row["median_ms"] / 1e6
        row["teraflops_per_second"] = num_operations / row["median_ms"] / 1e9
        times.append(row)
    own = {row["task"]: row["median_ms"] for row in times if (row["implementation"], row["mode"]) == (OURS.name, EAGER)}
    for row in times:
        row["ratio"] = row["median_ms"] / own[row["task"]]
    return {"sizes": str(workload), "times": times, "wrong": wrong, "peak_bytes": peak, "num_rounds": num_rounds}


def _error(implementation: Implementation, case: Case, outcome: Outcome, ours: Outcome) -> float:
    if implementation.per_step:
        ours = Outcome(ours.value / alignment(case.cost, measure=case.workload.measure).sum(dim=(1, 2)))
    return worst_error(outcome, ours)


def _peak_bytes(case: Case) -> int:
    """Memory beyond inputs and result that our all pairs take at most."""
    run = OURS.prepare(case, HARD)
    assert run is not None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = run().value
    return torch.cuda.max_memory_allocated() - before - result.numel() * result.element_size()


def interleaved(
    clocks: Mapping[tuple[str, str, str], Callable[[], float]], *, num_rounds: int
) -> dict[tuple[str, str, str], list[float]]:
    """Samples of every clock; each round reads each clock once and begins with another one."""
    keys = list(clocks)
    samples: dict[tuple[str, str, str], list[float]] = {key: [] for key in keys}
    for number in range(num_rounds):
        first = number % max(1, len(keys))
        for key in keys[first:] + keys[:first]:
            gc.collect(0)
            samples[key].append(clocks[key]())
    return samples


def by_events(run: Callable[[], Any]) -> Callable[[], float]:
    """Milliseconds a call takes on the device, the host's share included where the device waits for it."""

    def sample(repeats: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / repeats

    run()
    repeats = min(MAX_REPEATS, max(1, round(SAMPLE_MILLISECONDS / max(sample(1), 1e-3))))
    return lambda: sample(repeats)


def by_graph(run: Callable[[], Any]) -> Callable[[], float]:
    """The same for a run captured once and replayed: launches cost next to nothing."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return by_events(graph.replay)


def device_rates(device: torch.device) -> Rates:
    """Rates of a large copy, read and written bytes counted, and of a large bf16 matrix product of random numbers."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copy = by_events(lambda: target.copy_(source))
    left, right = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    result = torch.empty_like(left)
    product = by_events(lambda: torch.mm(left, right, out=result))
    copy_ms, product_ms = (statistics.median(clock() for _ in range(5)) for clock in (copy, product))
    return Rates(2 * source.numel() / copy_ms * 1000, 2 * 8192**3 / product_ms * 1000)


def bars(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures that were aimed at before any was measured, for the workloads that are there."""

    def median(workload: str, task: Task, mode: str = EAGER, name: str = OURS.name) -> float | None:
        times: Sequence[dict[str, Any]] = measured.get(workload, {}).get("times", ())
        wanted = (str(task), name, mode)
        found = [row for row in times if (row["task"], row["implementation"], row["mode"]) == wanted]
        return found[0]["median_ms"] if found else None

    def ratio(workload: str) -> float | None:
        own, gemm = median(workload, HARD), median(workload, HARD, name=BF16_GEMM.name)
        return own / gemm if own is not None and gemm is not None else None

    peak = measured.get("P/10k", {}).get("peak_bytes")
    wanted = (
        ("W1 soft value+grad in a graph, ms", median("W1", SOFT_GRADIENT, GRAPH), 0.040),
        ("W1 soft value+grad eager, ms", median("W1", SOFT_GRADIENT), 0.150),
        ("32x512x512 soft value+grad, ms", median("L", SOFT_GRADIENT), 1.0),
        ("all pairs 436x436 over the bf16 GEMM alone", ratio("P/436"), 4.0),
        ("all pairs 10000x10000 over the bf16 GEMM alone", ratio("P/10k"), 2.5),
        ("all pairs 10000x10000, GB beyond inputs and result", None if peak is None else peak / 1e9, 8.0),
    )
    return [
        {"bar": f"{text}: at most {limit:g}", "figure": figure, "met": figure <= limit}
        for text, figure, limit in wanted
        if figure is not None
    ]


def machine(device: torch.device) -> dict[str, Any]:
    """GPU, driver, torch, triton, python and git revision: what a time means nothing without."""
    import triton

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", f"--id={device.index or 0}"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = None
    properties = torch.cuda.get_device_properties(device)
    return {
        **{name: value for name, value in host().items() if name not in ("num_threads", "load_average")},
        "gpu": properties.name,
        "memory_bytes": properties.total_memory,
        "num_multiprocessors": properties.multi_processor_count,
        "driver": driver,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
    }


def cuda_device() -> torch.device:
    """The device to measure on.

    Raises:
        RuntimeError: there is none.
    """
    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} sees no CUDA device here, so nothing can be measured")
    return torch.device("cuda", torch.cuda.current_device())
