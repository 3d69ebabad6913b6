"""Claim by claim: what the paper prints, what came out here, and a word on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tempclr.recipes.claims.cells import Table, interval_of, run_cell, told
from tempclr.recipes.claims.statements import CONTROL, FEW_SHOT_STATEMENTS, STATEMENTS, UNTESTABLE, Statement
from tempclr.recipes.claims.statistics import VERDICTS, Interval, verdict

__all__ = [
    "control_rows",
    "counted",
    "first_table",
    "gain_table",
    "num_reversed",
    "tried",
    "tried_with",
    "verdict_rows",
]

# What the paper's Table 1 prints, R@1, R@5, R@10.
FIRST_TABLE = (
    ("dot", "removed", "cap_avg", (74.5, 94.5, 97.9)),
    ("dot", "removed", "dtw", (56.0, 89.9, 96.3)),
    ("dot>dtw", "removed", "cap_avg", (74.5, 94.6, 97.0)),
    ("dot>dtw", "removed", "dtw", (83.5, 97.2, 99.3)),
    ("dot", "kept", "dtw", (55.7, 93.1, 98.9)),
    ("dot>dtw", "kept", "dtw", (70.4, 93.8, 97.9)),
)
# What a claim that did not reproduce was tried with, by the place in the paper.
TRIED = {
    "Table 1": "DTW and OTAM; the unit loss over dot products and over cosines at six temperatures; from the unit "
    "loss on, as the paper does, and from scratch; a hard and a soft minimum; both protocols; with the background and "
    "without; beside as many further epochs of the unit loss.",
    "Table 3": 'the same trainings as for whole videos, those over cosines and from scratch among them (below, "What '
    'lies behind it").',
    "5.3": "DTW and OTAM from the unit loss on, from scratch, over dot products and over cosines, and fine-tuned.",
    "Table 6(a)": "the share of matched pairs without background, and the seconds of the whole video that are aligned "
    "rightly; beside as many further epochs of the unit loss and the loss over cosines.",
    "Table 7": "all seven strategies from one unit loss on; in fine-tuning seg_unit and seg_only; from scratch "
    "unpaired and joint, with DTW and OTAM, a hard minimum and another sequence temperature.",
    "Table 17": "16, 32 and 64 sequences, by steps found and by R@1.",
    "Table 4": "DTW and OTAM, all parameters and norms alone, beside as many further epochs of the unit loss; from "
    "scratch over cosines, with a hard and a soft minimum.",
    "Table 14": "DTW and OTAM, in pretraining, in fine-tuning and in both; all parameters and norms alone; beside as "
    "many further epochs of the unit loss.",
    "Table 16": "10 %, 20 % and all of the videos, with as many updates for both.",
    "Fig.": "five trainings, by seconds aligned, steps found and R@1, background removed and kept.",
    "5.2": "two sets of recordings; DTW and OTAM, a soft and a hard minimum, order alone, two temperatures.",
}


def verdict_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """place, claim, the paper's numbers, ours with the interval, the verdict; and what cannot be tested here."""
    num_seeds = len(results["test_seeds"])
    rows: list[list[Any]] = []
    for statement, found in _stated(results, controls=False):
        word = "" if found is None else _verdict(statement, found, results)
        rows.append([statement.place, statement.claim, statement.paper, told(found, num_seeds), word])
    for name, statement, found in _few_shot_stated(results, controls=False):
        claim = f"few-shot, {name}: {statement.claim}"
        rows.append(
            [
                statement.place,
                claim,
                statement.paper,
                _few_shot_told(found, num_seeds),
                _few_shot_word(statement, found),
            ]
        )
    return rows + [[place, claim, "", why, "not testable here"] for place, claim, why in UNTESTABLE]


def control_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """place, question, ours with the interval, and ``yes``, ``no`` or ``undecided``."""
    answers = {**dict(zip(VERDICTS, ("yes", "no", "undecided"), strict=True)), "": ""}
    num_seeds = len(results["test_seeds"])
    rows: list[list[Any]] = []
    for statement, found in _stated(results, controls=True):
        word = "" if found is None else _verdict(statement, found, results)
        rows.append([statement.place, statement.claim, told(found, num_seeds), answers[word]])
    for name, statement, found in _few_shot_stated(results, controls=True):
        word = answers[_few_shot_word(statement, found)]
        rows.append([statement.place, f"few-shot, {name}: {statement.claim}", _few_shot_told(found, num_seeds), word])
    return rows


def num_reversed(results: Mapping[str, Any]) -> int:
    """How many claims that one thing is better have their whole interval on the other side."""
    other = {"higher": "lower", "lower": "higher"}
    stated = [*_stated(results, controls=False)]
    stated += [(one, found) for _, one, found in _few_shot_stated(results, controls=False)]
    return sum(
        found is not None and one.expected in other and verdict(found, other[one.expected]) == VERDICTS[0]
        for one, found in stated
    )


def counted(results: Mapping[str, Any]) -> str:
    """How many claims have which verdict, in words."""
    counts = Counter(row[-1] for row in verdict_rows(results))
    told = ", ".join(f"{counts[word]} {word}" for word in VERDICTS)
    told += f" ({num_reversed(results)} of the claims that one thing is better fell the other way)"
    return told + (f", {counts['']} not run yet" if counts[""] else "")


def tried(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each place where a claim did not reproduce: what it was tried with."""
    places = [row[0] for row in verdict_rows(results) if row[4] == VERDICTS[1]]
    grouped: dict[str, list[str]] = {}
    for place in dict.fromkeys(places):
        grouped.setdefault(tried_with(place), []).append(place)
    return [f"{'; '.join(own)}: tried with {words}" for words, own in grouped.items()]


def tried_with(place: str) -> str:
    """Of a statement's place."""
    plain = place.replace("Tables 4, 14", "Table 4").replace("Tables 6, 14", "Table 14").split(",")[0]
    names = {"Table 12": "Table 1", "Table 13": "Table 1", "Fig. 8": "Fig.", "Fig. 9": "Fig.", "Table 8": "5.2"}
    return TRIED[names.get(plain, plain)]


def gain_table(results: Mapping[str, Any]) -> Table:
    """How much of the published gain a correct evaluation would have shown, as far as these videos tell."""
    found = {one.terms: interval_of(interval) for one, interval in _all_stated(results)}
    rows, shown = [], []
    for background in ("removed", "kept"):
        for measure in ("dtw", "otam"):
            ours = f"dot>{measure}"
            official, clean = (f"{protocol}/{background}/{measure}/R@1" for protocol in ("official", "clean"))
            gains = [((1, ours, key), (-1, "dot", key)) for key in (official, clean)]
            apart = (*gains[0], (1, "dot", clean), (-1, ours, clean))
            published = next(one for one in STATEMENTS if one.terms == gains[0]).effect
            cells = [told(found[terms], len(results["test_seeds"])) for terms in (*gains, apart)]
            rows.append([f"{measure.upper()}, background {background}", f"{100 * published:+.1f}", *cells])
            shown += [[verdict(one, "higher") == VERDICTS[0] for one in map(found.get, (*gains, apart)) if one]]
    headers = ["measure", "published", "here, official protocol", "here, clean protocol", "official minus clean"]
    note = (
        "Gain of TempCLR over the unit loss it begins with, points of R@1 with 95 % intervals; the published gains "
        "were measured by the official protocol."
    )
    if all(len(one) == 3 for one in shown):
        official, clean, apart = (sum(column) for column in zip(*shown, strict=True))
        note += (
            f" Of the four gains, {official} lie above 0 under the official protocol and {clean} under the clean one; "
            f"in {apart} the official protocol shows a larger gain than the clean one. What as many further epochs of "
            "the unit loss gain, without any sequence loss, stands among the controls."
        )
    return Table("", "How much of the gain a correct evaluation shows", note, headers, rows)


def first_table(results: Mapping[str, Any]) -> Table:
    """The paper's Table 1 beside ours, with R@5 and R@10."""
    rows = []
    for run, background, measure, printed in FIRST_TABLE:
        name = "unit loss" if run == "dot" else "TempCLR"
        paper = " / ".join(f"{value:.1f}" for value in printed)
        own = [
            run_cell(results, run, f"{protocol}/{background}/{measure}/R@{k}")
            for protocol in ("official", "clean")
            for k in (1, 5, 10)
        ]
        rows.append([name, measure, background, paper, *own])
    recalls = [f"{protocol}, R@{k}" for protocol in ("official", "clean") for k in (1, 5, 10)]
    return Table("", "Table 1", "", ["run", "measure", "background", "paper, R@1 / 5 / 10", *recalls], rows)


def _all_stated(results: Mapping[str, Any]) -> list[tuple[Statement, Mapping[str, Any] | None]]:
    return list(zip(STATEMENTS, results["differences"], strict=True))


def _stated(results: Mapping[str, Any], *, controls: bool) -> Iterator[tuple[Any, Interval | None]]:
    for statement, found in _all_stated(results):
        if (statement.paper == CONTROL) == controls:
            yield statement, interval_of(found)


def _few_shot_stated(results: Mapping[str, Any], *, controls: bool) -> Iterator[tuple[str, Any, Interval | None]]:
    for name, differences in results["few_shot_differences"].items():
        for statement, found in zip(FEW_SHOT_STATEMENTS, differences, strict=True):
            if (statement.paper == CONTROL) == controls:
                yield name, statement, interval_of(found)


def _few_shot_told(interval: Interval | None, num_seeds: int) -> str:
    return "needs two seeds" if interval is None else told(interval, num_seeds)


def _few_shot_word(statement: Any, interval: Interval | None) -> str:
    if interval is None:
        return ""
    return verdict(interval, statement.expected, margin=statement.margin, effect=statement.effect)


def _verdict(statement: Any, interval: Interval, results: Mapping[str, Any]) -> str:
    """A score that all runs of a statement have in full leaves nothing to tell them by."""
    scores = [results["runs"][run]["test"][key] for _, run, key in statement.terms]
    if statement.expected != "same" and all(min(values) > 0.995 for values in scores):
        return "not testable here"
    return verdict(interval, statement.expected, margin=statement.margin, effect=statement.effect)
