"""Claim by claim: what the paper prints, what came out here, and a word on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tempclr.recipes.claims.cells import Table, interval_of, run_cell, told
from tempclr.recipes.claims.statements import (
    CONTROL,
    FEW_SHOT_STATEMENTS,
    PUBLISHED,
    STATEMENTS,
    UNTESTABLE,
    FewShotStatement,
    Statement,
    Term,
    printed_effect,
)
from tempclr.recipes.claims.statistics import VERDICTS, Interval, verdict

__all__ = [
    "REFUTED",
    "control_rows",
    "counted",
    "first_table",
    "gain_table",
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
REFUTED = ("the other way round", "without the difference", "not alike")
# What a claim that did not reproduce was tried with, by the place in the paper.
TRIED = {
    "Table 1": "DTW and OTAM; the unit loss over dot products and over cosines at six temperatures; from the unit "
    "loss on, as the paper does, all parameters at three rates and norms alone at two, and from scratch; a hard and a "
    "soft minimum; both protocols; with the background and without; beside as many further epochs of the unit loss.",
    "Table 3": 'the same trainings as for whole videos, those over cosines and from scratch among them (below, "What '
    'lies behind it").',
    "5.3": "DTW and OTAM from the unit loss on, from scratch, over dot products and over cosines, and fine-tuned.",
    "Table 6(a)": "the share of matched pairs without background, and the seconds of the whole video that are aligned "
    "rightly; beside as many further epochs of the unit loss and the loss over cosines.",
    "Table 7": "all seven strategies from one unit loss on; in fine-tuning seg_unit and seg_only; from scratch "
    "unpaired and joint, with DTW and OTAM, a hard minimum, another sequence temperature and two temperatures of the "
    "unit loss.",
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
    rows: list[list[Any]] = []
    for one in _judged(results, controls=False):
        rows.append([one.statement.place, one.claim, one.statement.paper, one.told(results), one.word])
    return rows + [[place, claim, "", why, VERDICTS[2]] for place, claim, why in UNTESTABLE]


def control_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """place, question, ours with the interval, and ``yes``, ``no`` or ``undecided``."""
    answers = {**dict(zip(VERDICTS, ("yes", "no", "undecided"), strict=True)), "": ""}
    judged = _judged(results, controls=True)
    return [[one.statement.place, one.claim, one.told(results), answers[one.word]] for one in judged]


def counted(results: Mapping[str, Any]) -> str:
    """How many claims have which verdict, in words."""
    judged = list(_judged(results, controls=False))
    counts = Counter(one.word for one in judged)
    counts[VERDICTS[2]] += len(UNTESTABLE)
    how = Counter(one.how_refuted for one in judged)
    told = f"{counts[VERDICTS[0]]} {VERDICTS[0]}, {counts[VERDICTS[1]]} {VERDICTS[1]}"
    ways = ", ".join(f"{how[way]} {way}" for way in REFUTED if how[way])
    told += (f" ({ways})" if ways else "") + f", {counts[VERDICTS[2]]} {VERDICTS[2]}"
    return told + (f", {counts['']} not run yet" if counts[""] else "")


def tried(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each place where a claim did not reproduce: what it was tried with."""
    places = [row[0].rstrip("*") for row in verdict_rows(results) if row[4] == VERDICTS[1]]
    grouped: dict[str, list[str]] = {}
    for place in dict.fromkeys(places):
        grouped.setdefault(tried_with(place), []).append(place)
    return [f"{'; '.join(own)}: tried with {words}" for words, own in grouped.items()]


def tried_with(place: str) -> str:
    """Of a statement's place."""
    plain = place.rstrip("*").replace("Tables 4, 14", "Table 4").replace("Tables 6, 14", "Table 14").split(",")[0]
    names = {"Table 12": "Table 1", "Table 13": "Table 1", "Fig. 8": "Fig.", "Fig. 9": "Fig.", "Table 8": "5.2"}
    return TRIED[names.get(plain, plain)]


def gain_table(results: Mapping[str, Any]) -> Table:
    """How much of the published gain a correct evaluation would have shown, as far as these videos tell."""
    found = {one.terms: interval_of(interval) for one, interval in _all_stated(results)}
    rows, shown = [], []
    for trained, ending in (("all parameters", ""), ("norms alone", " norm")):
        for (background, measure), printed in PUBLISHED.items():
            ours = f"dot>{measure}{ending}"
            official, clean = (f"{protocol}/{background}/{measure}/R@1" for protocol in ("official", "clean"))
            gains: list[tuple[Term, ...]] = [((1, ours, key), (-1, "dot", key)) for key in (official, clean)]
            terms = [*gains, (*gains[0], (1, "dot", clean), (-1, ours, clean))]
            cells = [told(found[one], len(results["test_seeds"])) for one in terms]
            place = f"{measure.upper()}, background {background}"
            rows.append([trained, place, f"{100 * printed_effect(printed):+.1f}", *cells])
            shown += [[verdict(one, "higher") == VERDICTS[0] for one in map(found.get, terms) if one]]
    headers = [
        "trained",
        "measure",
        "published",
        "here, official protocol",
        "here, clean protocol",
        "official minus clean",
    ]
    return Table("", "How much of the gain a correct evaluation shows", _gain_note(results, shown), headers, rows)


def _gain_note(results: Mapping[str, Any], shown: Sequence[Sequence[bool]]) -> str:
    note = (
        "Gain of TempCLR over the unit loss it begins with, points of R@1 with 95 % intervals. The published gains "
        "were measured by the official protocol, most of them with the checkpoint whose norms alone were trained."
    )
    if not all(len(one) == 3 for one in shown):
        return note
    official, clean, apart = (sum(column) for column in zip(*shown, strict=True))
    note += (
        f" Of the {len(shown)} gains here, {official} lie above 0 under the official protocol and {clean} under the "
        f"clean one; in {apart} the official protocol shows a larger gain than the clean one"
    )
    note += "; so there is no gain here that it could have inflated." if official == 0 else "."
    scores = [run_cell(results, "dot", f"{protocol}/removed/dtw/R@1") for protocol in ("official", "clean")]
    return note + (
        " The protocols differ more than the losses: of one and the same model, that of the unit loss, DTW's R@1 with "
        f"the background removed is {scores[0]} by the official protocol and {scores[1]} by the clean one."
    )


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


@dataclass(frozen=True)
class Judged:
    """A statement with what was found: ``word`` is of :data:`VERDICTS`, empty where it was not run."""

    statement: Statement | FewShotStatement
    found: Interval | None
    word: str
    few_shot_set: str = ""

    @property
    def claim(self) -> str:
        return f"few-shot, {self.few_shot_set}: {self.statement.claim}" if self.few_shot_set else self.statement.claim

    def told(self, results: Mapping[str, Any]) -> str:
        if self.found is None and self.few_shot_set:
            return "needs two seeds"
        return told(self.found, len(results["test_seeds"]))

    @property
    def how_refuted(self) -> str:
        """Of :data:`REFUTED` where it was not reproduced, else empty."""
        if self.found is None or self.word != VERDICTS[1]:
            return ""
        if self.statement.expected == "same":
            return REFUTED[2]
        other = {"higher": "lower", "lower": "higher"}[self.statement.expected]
        return REFUTED[0] if verdict(self.found, other) == VERDICTS[0] else REFUTED[1]


def _judged(results: Mapping[str, Any], *, controls: bool) -> Iterator[Judged]:
    for statement, interval in _all_stated(results):
        found = interval_of(interval)
        if (statement.paper == CONTROL) == controls:
            yield Judged(statement, found, "" if found is None else _verdict(statement, found, results))
    for name, differences in results["few_shot_differences"].items():
        for one, interval in zip(FEW_SHOT_STATEMENTS, differences, strict=True):
            found = interval_of(interval)
            if (one.paper == CONTROL) == controls:
                kept = {"margin": one.margin, "effect": one.effect}
                yield Judged(one, found, "" if found is None else verdict(found, one.expected, **kept), name)


def _verdict(statement: Any, interval: Interval, results: Mapping[str, Any]) -> str:
    """A score that all runs have in full leaves nothing to tell them by, nor does one that the videos decide."""
    if statement.by_design:
        return VERDICTS[2]
    scores = [results["runs"][run]["test"][key] for _, run, key in statement.terms]
    if statement.expected != "same" and all(min(values) > 0.995 for values in scores):
        return "not testable here"
    return verdict(interval, statement.expected, margin=statement.margin, effect=statement.effect)
