"""``docs/claims.md`` and its pictures, from the collected results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.data.files import atomic_path
from tempclr.recipes.claims.cells import Table, described, few_shot_words
from tempclr.recipes.claims.choice_tables import NORMALISATION_WORDS
from tempclr.recipes.claims.pictures import PICTURES, draw
from tempclr.recipes.claims.statistics import student_interval
from tempclr.recipes.claims.summary import summary
from tempclr.recipes.claims.tables import tables
from tempclr.recipes.claims.verdicts import control_rows, counted, first_table, gain_table, tried, verdict_rows

__all__ = ["page", "write_page"]


def page(results: Mapping[str, Any], *, folder: str = "claims") -> str:
    """The Markdown page; ``folder`` is where its pictures lie, beside it."""
    from tempclr.evaluation.report import markdown_table

    lines = [INTRODUCTION.format(**_facts(results))]
    for table in (summary(results), gain_table(results)):
        lines += [f"## {table.title}\n", f"{table.note}\n", markdown_table(table.headers, table.rows), ""]
    lines += [_picture("gains", folder, results), *_rendered(first_table(results))]
    lines += ["\n## Claim by claim\n", f"{counted(results)}.", VERDICT_NOTE]
    lines += [markdown_table(["where", "claim", "paper", "here", "verdict"], verdict_rows(results)), "", GRADIENTS]
    sentences = tried(results)
    if sentences:
        lines += ["### With what was tried\n", *(f"- {sentence}" for sentence in sentences), ""]
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


def write_page(path: Path, results: Mapping[str, Any]) -> None:
    """Write the page and the pictures in a folder of its name beside it."""
    folder = path.with_suffix("")
    draw(folder, results)
    with atomic_path(path) as temporary:
        temporary.write_text(page(results, folder=folder.name), encoding="utf-8")


def _rendered(table: Table) -> list[str]:
    from tempclr.evaluation.report import markdown_table

    note = [f"{table.note}\n"] if table.note else []
    return [f"\n### {table.title}\n", *note, markdown_table(table.headers, table.rows)]


def _picture(name: str, folder: str, results: Mapping[str, Any]) -> str:
    return f"![{PICTURES[name]}]({folder}/{name}.png)\n" if results["test_seeds"] else ""


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
        f'highest score; of the DTW distances, that taken "{NORMALISATION_WORDS[choice["normalisation"]]}" does best '
        "there. Its validation score, the mean of retrieval (R@1, R@5, R@10, both backgrounds) and steps found, "
        f"is {score(choice['recipe'])}; that of the best of the others, {described(choice['runner_up'])}, is "
        f"{score(choice['runner_up'])} (difference {ahead}), that of the best unit loss, "
        f"{described(choice['unit_recipe'])}, {score(choice['unit_recipe'])}, and that of the paper's recipe trained "
        f"from scratch {score(choice['paper_recipe'])}. By retrieval alone {described(best['retrieval'])} is best "
        f"({score(best['retrieval'], 'retrieval')}, ranked by {scores[best['retrieval']]['measure']}), by steps found "
        f"{described(best['localization'])} ({score(best['localization'], 'localization')}). "
        "Temperatures from 0.2 on and smaller weights of the sequence loss joined the candidates after a first look at "
        "validation videos, where 0.1, then the highest, had been best.\n"
    )


def _few_shot_choice(results: Mapping[str, Any]) -> str:
    choice = results["choice"]
    few_shot = {} if choice is None else choice["few_shot"]
    if not few_shot:
        return ""
    scores = few_shot["scores"]
    if few_shot["loss"] == "features":
        trained = max((loss for loss in scores if loss != "features"), key=lambda loss: scores[loss])
        return (
            "**No training beats the features themselves** in tasks over the training classes (accuracy by DTW and "
            f"OTAM in one shot: {100 * scores['features']:.1f}; the best of the trainings, {few_shot_words(trained)}, "
            f"{100 * scores[trained]:.1f}): for recordings like these, match the features and train nothing.\n\n"
        )
    return (
        f"Chosen in tasks over the training classes: **{few_shot_words(few_shot['loss'])}** (accuracy by DTW and OTAM "
        f"in one shot: {100 * scores[few_shot['loss']]:.1f}; the features themselves: "
        f"{100 * scores['features']:.1f}).\n\n"
    )


INTRODUCTION = """# The paper's claims, where they can be run

Made by `python benchmarks/claims.py`; the numbers stand in `benchmarks/results/claims.json`. The real corpora cannot be
shipped: the claims are tested on the generated instructional videos (mp4 files that are made, decoded and embedded like
any others), so that what is reproduced or not is the *direction*, at this size. The recipes for the real corpora are
`tempclr pretrain --config pretrain_howto100m` and `finetune_crosstask`.

Each seed has videos of its own and trainings of its own: {num_train} videos for pretraining, {num_finetune} others
for fine-tuning, {num_validation} for validation, {num_test} for the test; no set of actions occurs in two splits.
Pretraining takes {num_epochs} epochs in batches of {batch_size} from random weights (two layers a tower, width
{hidden_size}); runs that go on from a unit loss, as the paper goes on from VideoCLIP, take as many again, and a run
that only goes on with the unit loss stands beside them. A cell is the mean over seeds ± their standard deviation, in
percent; where a run has fewer seeds, the cell says how many. An interval (95 %) draws seeds, and videos within a seed,
anew.

Seeds run: {seeds}; on test videos: {test_seeds}. {num_runs} trainings a seed, with their validation, took about
{minutes} minutes of processor time, measuring on test videos {test_minutes}, few-shot learning {few_shot_minutes}
(Python {python}, torch {torch}, one thread a run). The command goes on where it stopped; its help tells how it runs
fewer seeds, writes the choice, and renews this page alone.

The test videos stay unseen until `benchmarks/results/claims_choice.json` is committed: the command refuses before.
"""
CONTROLS_NOTE = "Those with a star were written down when the test videos had been seen; all others before."
VERDICT_NOTE = """
A claim that one thing is better is reproduced if the whole interval lies on its side, and not reproduced if it lies on
the other side, or around 0 without reaching the difference that was published. An interval that holds both 0 and the
published difference decides nothing at this size: "not testable here". That two are alike is reproduced if the whole
interval lies within ±3 points, and not testable here if it is wider but holds 0. Not testable, too, is a comparison in
which all runs are at the top. So many comparisons at 95 % let one or two stand out by chance. Columns "here" are
points, with the interval. A control is undecided where its interval holds 0.
"""
GRADIENTS = """
Appendix A.5, the gradients of both losses on two sentences and two clips, is held exactly by
`tests/tempclr/test_claims_gradients.py`: autograd of `unit_loss` and of the sequence loss against the printed
formulas, in double precision. It is **reproduced**, with the cost 1 - m·n, for which the diagonal path is the shortest;
the paper prints the derivative by m₁·n₂ as that of L₂, where it is that of L₁.
"""
FEW_SHOT_NOTE = """Encoders are trained without labels on some classes, and tasks are drawn from others. What is asked
of the losses on instructional videos is asked here where it has a meaning: the encoder of video alone always takes its
own sequence in shuffled order as negatives (all_unit), so that there is no `unpaired` and no `joint`, and other videos
come in by the contrast of mean frames, which stands for section 5.2's frames of other videos as negatives; there is no
text, hence no retrieval; and all sequences are brought to one number of frames, so that dividing a distance by rows and
columns changes no rank.
"""
