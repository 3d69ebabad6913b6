"""What the new seeds say of the recommended loss: the numbers kept, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tempclr.recipes.claims.cells import Table, interval_of, run_cell, told
from tempclr.recipes.claims.collection import interval_over_seeds, machine, per_seed, shown_numbers
from tempclr.recipes.claims.confirmation import COMPARISONS, DECISIVE, QUALITIES, confirmation_jobs
from tempclr.recipes.claims.grid import ClaimSettings
from tempclr.recipes.claims.statistics import Interval

__all__ = ["answer", "collect_confirmation", "confirmation_sentence", "confirmation_table"]


def collect_confirmation(output_dir: Path, seeds: Sequence[int], settings: ClaimSettings) -> dict[str, Any]:
    """Of the seeds whose tests are all done: ``differences``, of each of :data:`COMPARISONS` an interval for each of
    :data:`QUALITIES`, and ``runs[name]["test"][key]``, a number a seed."""
    names = list(dict.fromkeys(job.name for job in confirmation_jobs(seeds) if job.kind == "test"))
    tests = {name: per_seed(output_dir, seeds, "test", name) for name in names}
    done = [seed for seed in seeds if all(seed in found for found in tests.values())]
    found = {name: {seed: tests[name][seed]["test"] for seed in done} for name in names}

    def interval(own: str, base: str, key: str) -> dict[str, Any] | None:
        return interval_over_seeds(((1, own, key), (-1, base, key)), found)

    numbers = {name: shown_numbers(list(one.values())) for name, one in found.items()}
    return {
        "settings": settings.to_dict(),
        "machine": machine(),
        "test_seeds": done,
        "runs": {
            name: {"test": {key: one[key] for key in QUALITIES.values() if key in one}} for name, one in numbers.items()
        },
        "differences": [
            {quality: interval(one.own, one.base, key) for quality, key in QUALITIES.items()} for one in COMPARISONS
        ],
    }


def confirmation_table(confirmation: Mapping[str, Any]) -> Table:
    """The comparisons on the new seeds, in points, and whether they confirm the recommendation."""
    seeds = confirmation["test_seeds"]
    rows = [
        [one.words, *(told(interval_of(found[quality]), len(seeds)) for quality in QUALITIES)]
        for one, found in zip(COMPARISONS, confirmation["differences"], strict=True)
    ]
    note = (
        f"{_seeds(seeds)}, run when the choice had been tested on the others. Which runs are compared, by what, and "
        "what follows was committed before a video of these seeds was made "
        "(`tempclr/recipes/claims/confirmation.py`): the default stays unless the whole interval of the first line, in "
        "R@1 by DTW or in steps found, lies below 0. That the "
        f"recommended loss is above the best unit loss is {_answers(confirmation)}.{_advice(confirmation)} Points with "
        "95 % intervals, of which one in twenty misses by chance; clean protocol, background removed in retrieval, "
        "where nothing else is said."
    )
    return Table("", "The recommendation on new seeds", note, ["difference", *QUALITIES], rows)


def _answers(confirmation: Mapping[str, Any]) -> str:
    """Of the first comparison's decisive qualities, with both runs' scores."""
    first, found = COMPARISONS[0], confirmation["differences"][0]
    answers = []
    for quality in DECISIVE:
        own, base = (run_cell(confirmation, run, QUALITIES[quality]) for run in (first.own, first.base))
        answers.append(f"**{answer(interval_of(found[quality]))}** by {quality} ({own} against {base})")
    return " and ".join(answers)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}"
    return f"Seeds {', '.join(map(str, seeds))}"


def _advice(confirmation: Mapping[str, Any]) -> str:
    """What undecided answers mean for a reader."""
    found = [answer(interval_of(confirmation["differences"][0][quality])) for quality in DECISIVE]
    if set(found) != {"undecided"}:
        return ""
    return " So it stays, and whoever prefers the unit loss alone at that temperature loses nothing that shows here."


def confirmation_sentence(confirmation: Mapping[str, Any]) -> str:
    """The first comparison for a front page."""
    found = confirmation["differences"][0]
    told_each = []
    for quality in DECISIVE:
        interval = interval_of(found[quality])
        told_each.append(f"{'not run yet' if interval is None else interval.text} {quality} ({answer(interval)})")
    num_seeds = len(confirmation["test_seeds"])
    return (
        f"On {num_seeds} new seeds, with what is compared settled before: {COMPARISONS[0].words}, in points, "
        f"{' and '.join(told_each)}."
    )


def answer(interval: Interval | None) -> str:
    """Whether a difference is above 0, in a word.

    >>> answer(Interval(0.02, -0.01, 0.05, (0.02,), 40))
    'undecided'
    """
    if interval is None:
        return "not run yet"
    if interval.low > 0:
        return "confirmed"
    return "refuted" if interval.high < 0 else "undecided"
