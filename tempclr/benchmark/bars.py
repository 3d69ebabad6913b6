"""What the kernels are meant to reach, as ratios within one run, and whether they did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .ours import COPIED, GEMM, OURS, OURS_DTW
from .peers import PEERS
from .workloads import Task

STEP_MILLISECONDS = 20.0
SQUARE_ENOUGH = ("A1", "A2", "A3", "B")  # where the soft minimum is to be ten times as fast as any peer
HARD, SOFT = Task(soft=False, gradient=False), Task(soft=True, gradient=False)
HARD_GRADIENT, SOFT_GRADIENT = Task(soft=False, gradient=True), Task(soft=True, gradient=True)

Medians = Mapping[tuple[str, str], float]


class Bar(NamedTuple):
    """A figure and the limit it must reach, from above or from below."""

    text: str
    figure: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def bars(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every bar the measured workloads say something about: ``bar``, ``figure`` and ``met``.

    Figures are ratios of medians, but for the training step's milliseconds.
    """
    found = []
    for name, workload in measured.items():
        medians = {(time["task"], time["implementation"]): time["median_ms"] for time in workload["times"]}
        rules = [_against_peers, _within_ours, _all_pairs, _step]
        if name in SQUARE_ENOUGH:
            rules.insert(0, _soft_against_peers)
        for rule in rules:
            found += [{"bar": f"{name} {bar.text}", "figure": bar.figure, "met": bar.met} for bar in rule(medians)]
    return found


def _soft_against_peers(medians: Medians) -> Iterator[Bar]:
    own = medians.get((str(SOFT_GRADIENT), OURS.name))
    with_gradient = [(medians[key], key[1]) for key in _peer_keys(SOFT_GRADIENT) if key in medians]
    if own and with_gradient:
        time, peer = min(with_gradient)
        yield Bar(f"{SOFT_GRADIENT} at least 10 times the speed of the best peer ({peer})", time / own, 10, True)


def _against_peers(medians: Medians) -> Iterator[Bar]:
    own = medians.get((str(HARD), OURS.name))
    for peer, limit in (("dtw-python", 10), ("librosa", 10), ("torchdtw", 2)):
        theirs = medians.get((str(HARD), peer))
        if own and theirs:
            yield Bar(f"{HARD} at least {limit} times the speed of {peer}", theirs / own, limit, True)


def _peer_keys(task: Task) -> list[tuple[str, str]]:
    return [(str(task), peer.name) for peer in PEERS]


def _within_ours(medians: Medians) -> Iterator[Bar]:
    for value, gradient in ((HARD, HARD_GRADIENT), (SOFT, SOFT_GRADIENT)):
        both = medians.get((str(gradient), OURS.name))
        alone = medians.get((str(value), OURS.name))
        instead = medians.get((str(gradient), OURS_DTW.name))
        if both and alone:
            yield Bar(f"{gradient} at most 3 times {value}", both / alone, 3, False)
        if both and instead:
            yield Bar(f"{gradient} at most 1.5 times that of DTW", both / instead, 1.5, False)


def _all_pairs(medians: Medians) -> Iterator[Bar]:
    own, gemm = (medians.get((str(HARD), name)) for name in (OURS.name, GEMM.name))
    if own and gemm:
        yield Bar(f"{HARD} at most 2 times the GEMM alone", own / gemm, 2, False)
        for peer in ("tslearn", "dtaidistance"):
            theirs = medians.get((str(HARD), peer))
            if theirs:
                yield Bar(f"{HARD} at least 30 times the speed of {peer}", theirs / own, 30, True)


def _step(medians: Medians) -> Iterator[Bar]:
    own, copied = (medians.get((str(SOFT_GRADIENT), name)) for name in (OURS.name, COPIED.name))
    if own and copied:
        text = f"soft step within {STEP_MILLISECONDS:.0f} ms, where one GEMM per order takes {copied:.0f} ms"
        yield Bar(text, own, STEP_MILLISECONDS, False)
