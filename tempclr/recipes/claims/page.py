"""``docs/claims.md`` and its pictures, from the collected results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path
from tempclr.recipes.claims.cells import Table, described, few_shot_words
from tempclr.recipes.claims.choice_tables import NORMALISATION_WORDS
from tempclr.recipes.claims.confirmation_results import confirmation_table
from tempclr.recipes.claims.pictures import PICTURES, draw
from tempclr.recipes.claims.statistics import student_interval
from tempclr.recipes.claims.summary import summary
from tempclr.recipes.claims.tables import tables
from tempclr.recipes.claims.verdicts import control_rows, counted, first_table, gain_table, tried, verdict_rows
from tempclr.recipes.claims.words import (
    CONTROLS_NOTE,
    FEW_SHOT_NOTE,
    GRADIENTS,
    HOW_CHOSEN,
    INTRODUCTION,
    TERMS,
    VERDICT_NOTE,
)

__all__ = ["page", "write_page"]


def page(results: Mapping[str, Any], *, confirmation: Mapping[str, Any] | None = None, folder: str = "claims") -> str:
    """The Markdown page; ``confirmation`` is what new seeds gave, ``folder`` where the pictures lie, beside it."""
    from tempclr.evaluation.report import markdown_table

    lines = [INTRODUCTION.format(**_facts(results)), TERMS]
    confirmed = [] if confirmation is None else [confirmation_table(confirmation)]
    for table in (summary(results), *confirmed, gain_table(results)):
        lines += [f"## {table.title}\n", f"{table.note}\n", markdown_table(table.headers, table.rows), ""]
    lines += [_picture("gains", folder, results), *_rendered(first_table(results))]
    lines += ["\n## Claim by claim\n", f"{counted(results)}.", VERDICT_NOTE.format(**results["settings"])]
    lines += [markdown_table(["where", "claim", "paper", "here", "verdict"], verdict_rows(results)), "", GRADIENTS]
    sentences = tried(results)
    if sentences:
        lines += [
            "### What was tried where a claim did not reproduce\n",
            *(f"- {sentence}" for sentence in sentences),
            "",
        ]
    lines += ["### Controls that the paper does not have\n", f"{CONTROLS_NOTE}\n"]
    lines += [markdown_table(["where", "question", "here", "answer"], control_rows(results))]
    before = {
        "Step localization": lambda: _picture("strategies", folder, results),
        "Scene change": lambda: _picture("perturbed", folder, results),
        "What to recommend": lambda: _recommended(folder, results),
        "Few-shot": lambda: _few_shot_choice(results) + FEW_SHOT_NOTE,
    }
    section = None
    for table in tables(results):
        if table.section != section:
            section = table.section
            lines.append(f"\n## {section}\n")
            lines += [tell() for start, tell in before.items() if section.startswith(start)]
        lines += _rendered(table)
    return "\n".join(lines).rstrip() + "\n"


def write_page(path: Path, results: Mapping[str, Any], *, confirmation: Mapping[str, Any] | None = None) -> None:
    """Write the page and the pictures in a folder of its name beside it."""
    folder = path.with_suffix("")
    draw(folder, results)
    with atomic_path(path) as temporary:
        temporary.write_text(page(results, confirmation=confirmation, folder=folder.name), encoding="utf-8")


def _rendered(table: Table) -> list[str]:
    from tempclr.evaluation.report import markdown_table

    note = [f"{table.note}\n"] if table.note else []
    return [f"\n### {table.title}\n", *note, markdown_table(table.headers, table.rows)]


def _picture(name: str, folder: str, results: Mapping[str, Any]) -> str:
    return f"![{name}]({folder}/{name}.png)\n\n*{PICTURES[name]}*\n" if results["test_seeds"] else ""


def _facts(results: Mapping[str, Any]) -> dict[str, Any]:
    machine, spent = results["machine"], results["spent"]
    few_shot = sum(map(_mean_minutes, (spent["few_shot"], spent["few_shot_test"])))
    return {
        **results["settings"],
        "seeds": ", ".join(map(str, results["seeds"])) or "none",
        "test_seeds": ", ".join(map(str, results["test_seeds"])) or "none yet",
        "num_runs": len(results["runs"]),
        "minutes": round(_mean_minutes(spent["train"])),
        "test_minutes": round(_mean_minutes(spent["test"])),
        "few_shot_minutes": round(few_shot),
        "python": machine["python"],
        "torch": machine["torch"],
    }


def _mean_minutes(seconds: Sequence[float]) -> float:
    return float(np.mean(seconds)) / 60 if seconds else 0.0


def _recommended(folder: str, results: Mapping[str, Any]) -> str:
    pictures = [_picture(name, folder, results) for name in ("temperatures", "candidates")]
    return "\n".join([*pictures, _choice(results)])


def _choice(results: Mapping[str, Any]) -> str:
    choice = results["choice"]
    if choice is None:
        return "No choice has been committed yet, and no test video was looked at.\n"
    seeds = ", ".join(map(str, choice["seeds"]))
    scores = choice["scores"]

    def score(name: str, key: str = "total") -> str:
        return f"{100 * scores[name][key]:.1f}"

    lead = student_interval(choice["lead"])
    ahead = f"{100 * choice['lead'][0]:+.1f} in the only seed" if lead is None else f"{lead.text} over the seeds"
    best = {key: choice[f"best_{key}"] for key in ("retrieval", "localization")}
    return (
        f"Chosen on validation videos (seeds {seeds}), committed before the test: **{described(choice['recipe'])}**, "
        f"ranked by {choice['measure']}: the simplest run that lies within one standard error of the "
        f"highest score. {_best_division(choice)} "
        "Its validation score, the mean of retrieval (R@1, R@5, R@10, both backgrounds) and steps found, "
        f"is {score(choice['recipe'])}; that of the best of the others, {described(choice['runner_up'])}, is "
        f"{score(choice['runner_up'])} (difference {ahead}), that of the best unit loss, "
        f"{described(choice['unit_recipe'])}, {score(choice['unit_recipe'])}, and that of the paper's weights, "
        f"{described(choice['paper_recipe'])}, {score(choice['paper_recipe'])}. By retrieval alone "
        f"{described(best['retrieval'])} is best ({score(best['retrieval'], 'retrieval')}, ranked by "
        f"{scores[best['retrieval']]['measure']}), by steps found {described(best['localization'])} "
        f"({score(best['localization'], 'localization')}). {_without_first_seed(results)}\n\n{HOW_CHOSEN}\n"
    )


def _best_division(choice: Mapping[str, Any]) -> str:
    """By what the distance is divided in evaluation alone; training never divides it."""
    found = choice["normalisations"]
    best = [f'"{told}"' for kind, told in NORMALISATION_WORDS.items() if found[kind] > max(found.values()) - 1e-6]
    does = "does best" if len(best) == 1 else "do equally well, and best"
    return f"Of what DTW's distance may be divided by in evaluation, {' and '.join(best)} {does} for it there."


ENDS = ("R@1 by DTW", "steps found")


def _without_first_seed(results: Mapping[str, Any]) -> str:
    """The headline on the seeds whose test videos nobody had seen before."""
    choice = results["choice"]
    key = f"{choice['recipe']} minus {choice['unit_recipe']}, dtw, "
    found = [results["recommendation"].get(key + label) for label in ("R@1, removed", "localization")]
    rest = [None if one is None else student_interval(one["per_seed"][1:]) for one in found]
    if results["test_seeds"][:1] != [0] or None in rest:
        return ""
    told = " and ".join(f"{one.text} {what}" for one, what in zip(rest, ENDS, strict=True) if one)
    return f"On test videos without seed 0 it is above the best unit loss by {told}."


def _few_shot_choice(results: Mapping[str, Any]) -> str:
    choice = results["choice"]
    few_shot = {} if choice is None else choice["few_shot"]
    if not few_shot:
        return ""
    lines = [
        "Accuracy by DTW and OTAM in one shot, over the training classes, by which a loss is chosen, and over new "
        "ones; of the trainings the best over that set's training classes:\n"
    ]
    lines += [_by_set(results, name) for name in results["few_shot"]]
    chosen = f"**{few_shot_words(few_shot['loss'])}**"
    if few_shot["loss"] == "features":
        chosen += ", so no training; what is right for one set may be wrong for another"
    return "\n".join([*lines, f"\nChosen over both sets: {chosen}.\n\n"])


def _by_set(results: Mapping[str, Any], name: str) -> str:
    """The features, and the training that is best over the set's training classes."""
    losses = results["few_shot"][name]

    def accuracy(loss: str, part: str) -> float:
        return float(np.mean([losses[loss][part][f"{measure} 1-shot"] for measure in ("dtw", "otam")]))

    done = [loss for loss in losses if losses[loss]["base"] and losses[loss]["novel"]]
    trained = sorted(set(done) - {"features"}, key=lambda loss: -accuracy(loss, "base"))
    told = [
        f"{few_shot_words(loss)} {100 * accuracy(loss, 'base'):.1f} and {100 * accuracy(loss, 'novel'):.1f}"
        for loss in [*(loss for loss in done if loss == "features"), *trained[:1]]
    ]
    return f"* {name}: {'; '.join(told) or 'not run yet'}."
