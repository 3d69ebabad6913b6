"""``docs/claims.md`` and its pictures, from the collected results alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tempclr.data.files import atomic_path
from tempclr.recipes.claims.grid import CANDIDATES, STRATEGY_RUNS
from tempclr.recipes.claims.statements import STATEMENTS
from tempclr.recipes.claims.statistics import VERDICTS
from tempclr.recipes.claims.tables import (
    NORMALISATION_WORDS,
    control_rows,
    described,
    num_reversed,
    tables,
    verdict_rows,
)

__all__ = ["draw", "page", "write_page"]

PICTURES = {
    "gains": "R@1 of TempCLR minus the unit loss: official protocol (blue), clean (orange), controls (green); 95 %.",
    "strategies": "Steps found, zero-shot, by what the negatives of pretraining are; mean and standard deviation.",
    "candidates": "Candidates on test videos: R@1 by DTW and steps found; mean and standard deviation.",
}


def page(results: Mapping[str, Any], *, folder: str = "claims") -> str:
    """The Markdown page; ``folder`` is where its pictures lie, beside it."""
    from tempclr.evaluation.report import markdown_table

    rows = verdict_rows(results)
    counts = Counter(row[-1] for row in rows)
    told = ", ".join(f"{counts[word]} {word}" for word in VERDICTS)
    told += f" ({num_reversed(results)} of the claims that one thing is better fell the other way)"
    told += f", {counts['']} not run yet" if counts[""] else ""
    lines = [
        INTRODUCTION.format(**_facts(results)),
        "## Claim by claim\n",
        f"{told}.",
    ]
    lines += [VERDICT_NOTE, markdown_table(["where", "claim", "paper", "here", "verdict"], rows), ""]
    lines += [GRADIENTS, _picture("gains", folder, results), "### Controls that the paper does not have\n"]
    lines += [markdown_table(["where", "question", "here", "answer"], control_rows(results))]
    section = None
    for table in tables(results):
        if table.section != section:
            section = table.section
            lines.append(f"\n## {section}\n")
            if section.startswith("Step localization"):
                lines.append(_picture("strategies", folder, results))
            if section.startswith("What to recommend"):
                lines += [_picture("candidates", folder, results), _choice(results)]
        lines += [
            f"\n### {table.title}\n",
            *([f"{table.note}\n"] if table.note else []),
            markdown_table(table.headers, table.rows),
        ]
    return "\n".join(lines).rstrip() + "\n"


def write_page(path: Path, results: Mapping[str, Any]) -> None:
    """Write the page and the pictures in a folder of its name beside it."""
    folder = path.with_suffix("")
    draw(folder, results)
    with atomic_path(path) as temporary:
        temporary.write_text(page(results, folder=folder.name), encoding="utf-8")


def _picture(name: str, folder: str, results: Mapping[str, Any]) -> str:
    return f"![{PICTURES[name]}]({folder}/{name}.png)\n" if results["test_seeds"] else ""


def _facts(results: Mapping[str, Any]) -> dict[str, Any]:
    settings, runs = results["settings"], results["runs"]
    spent = [run["spent"] for run in runs.values()]
    seconds = sum(one["processor_seconds"] for one in spent) + (results["data_spent"]["processor_seconds"] or 0)
    machine = results["machine"]
    return {
        **settings,
        "seeds": ", ".join(map(str, results["seeds"])) or "none",
        "test_seeds": ", ".join(map(str, results["test_seeds"])) or "none yet",
        "num_runs": len(runs),
        "minutes": round(seconds / 60),
        "python": machine["python"],
        "torch": machine["torch"],
    }


def _choice(results: Mapping[str, Any]) -> str:
    choice = results["choice"]
    if choice is None:
        return "No choice has been committed yet, and no test video was looked at.\n"
    seeds = ", ".join(map(str, choice["seeds"]))
    scores = choice["scores"]
    own, paper = (scores[choice[name]][0] for name in ("recipe", "paper_recipe"))
    few_shot = choice.get("few_shot")
    told = (
        f"Chosen on validation videos (seeds {seeds}), committed before the test: **{described(choice['recipe'])}**, "
        f"ranked by {choice['measure']}; of the DTW distances, {NORMALISATION_WORDS[choice['normalisation']]} does "
        "best there. Its validation score, "
        f"the mean of retrieval (R@1, R@5, R@10, both backgrounds) and of steps found, is {100 * own:.1f}; that of the "
        f"paper's recipe trained from scratch is {100 * paper:.1f}."
    )
    if few_shot:
        told += f" For matching sequences of one kind, on training classes: {few_shot['loss']}."
    return told + "\n"


def draw(folder: Path, results: Mapping[str, Any]) -> None:
    """The pictures of :data:`PICTURES`, of what was run; none without test results."""
    if not results["test_seeds"]:
        return
    _draw_gains(folder / "gains.png", results)
    strategies = {name: run for name, run in {"unit loss": "dot>unit", **STRATEGY_RUNS}.items()}
    _draw_means(folder / "strategies.png", results, strategies, {"localization": "steps found, %"})
    candidates = {described(name).removeprefix("unit loss "): name for name in CANDIDATES}
    keys = {"clean/removed/dtw/R@1": "R@1 by DTW, %", "localization": "steps found, %"}
    _draw_means(folder / "candidates.png", results, candidates, keys)


def _draw_gains(path: Path, results: Mapping[str, Any]) -> None:
    from tempclr.plots.style import COLORS, new_figure, quiet, saved

    shown = [
        (statement, found)
        for statement, found in zip(STATEMENTS, results["differences"], strict=True)
        if found is not None and statement.place.startswith(("Table 12, ", "Table 13, "))
    ]
    figure = new_figure(8.0, 0.9 + 0.27 * max(1, len(shown)))
    axes = figure.subplots()
    for row, (statement, found) in enumerate(shown):
        ends = [[100 * (found["mean"] - found["low"])], [100 * (found["high"] - found["mean"])]]
        colour = COLORS[2] if not statement.paper else COLORS[0 if "official" in statement.claim else 1]
        axes.errorbar([100 * found["mean"]], [row], xerr=ends, fmt="o", color=colour, capsize=3, markersize=4)
    axes.axvline(0, color="0.4", linewidth=1)
    background = {"12": "removed", "13": "kept"}
    words = [f"{background[one.place.split()[1].rstrip(',')]}, {one.claim}" for one, _ in shown]
    axes.set_yticks(range(len(shown)), words, fontsize=7)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("points of R@1")
    quiet(axes)
    saved(figure, path)


def _draw_means(path: Path, results: Mapping[str, Any], runs: Mapping[str, str], keys: Mapping[str, str]) -> None:
    import numpy as np

    from tempclr.plots.style import COLORS, new_figure, quiet, saved

    figure = new_figure(4.0 + 2.4 * len(keys), 0.9 + 0.3 * len(runs))
    for place, (key, label) in enumerate(keys.items()):
        axes = figure.add_subplot(1, len(keys), place + 1)
        for row, run in enumerate(runs.values()):
            values = results["runs"].get(run, {}).get("test", {}).get(key, [])
            if values:
                spread = 100 * np.std(values, ddof=1) if len(values) > 1 else 0
                axes.errorbar([100 * np.mean(values)], [row], xerr=[spread], fmt="o", color=COLORS[place], capsize=3)
        axes.set_yticks(range(len(runs)), list(runs) if place == 0 else [], fontsize=7.5)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlabel(label)
        quiet(axes)
    saved(figure, path)


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

Seeds run: {seeds}; on test videos: {test_seeds}. {num_runs} trainings a seed took about {minutes} minutes of processor
time (Python {python}, torch {torch}, one thread a run).

```sh
python benchmarks/claims.py --quick      # seeds 0 to 2; goes on where it stopped
python benchmarks/claims.py              # seeds 0 to 4
python benchmarks/claims.py --choose     # writes what is recommended, by validation videos; to be committed
python benchmarks/claims.py --pages      # only this page
```

The test videos stay unseen until `benchmarks/results/claims_choice.json` is committed: the command refuses before.
"""
VERDICT_NOTE = """
A claim that one thing is better is reproduced if the whole interval lies on its side; that two are alike, if the whole
interval lies within ±3 points. "Not testable here" is a comparison in which all runs are at the top, or whose interval
is too wide to say that two are alike. So many comparisons at 95 % let one or two stand out by chance. Columns "here"
are points, with the interval.
"""
GRADIENTS = """
Appendix A.5, the gradients of both losses on two sentences and two clips, is held exactly by
`tests/tempclr/test_claims_gradients.py`: autograd of `unit_loss` and of the sequence loss against the printed
formulas, in double precision. It is **reproduced**, with the cost 1 - m·n, for which the diagonal path is the shortest;
the paper prints the derivative by m₁·n₂ as that of L₂, where it is that of L₁.
"""
