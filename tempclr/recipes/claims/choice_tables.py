"""The tables of what to recommend: the candidates, and few-shot matching of real recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tempclr.recipes.claims.cells import Table, described, few_shot_words, interval_of, run_cell
from tempclr.recipes.claims.choice import RELEASED_LOSS
from tempclr.recipes.claims.grid import CANDIDATES, FEW_SHOT_LOSSES
from tempclr.recipes.claims.statistics import cell

__all__ = ["NORMALISATION_WORDS", "candidate_tables", "few_shot_tables"]

NORMALISATION_WORDS = {
    "none": "as it is",
    "area": "by rows · columns",
    "sides": "by rows + columns",
    "path": "by the path's cells",
    "soft": "soft, by rows · columns",
}


def candidate_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Every candidate on validation and test videos, and its differences to the best unit loss and the paper's."""
    section = "What to recommend"
    choice = results["choice"]
    for part in ("validation", "test"):
        keys = [f"clean/removed/dtw/R@{k}" for k in (1, 5, 10)]
        keys += ["clean/removed/otam/R@1", "clean/kept/dtw/R@1", "mean-pooled/R@1", "localization"]
        headers = ["run", "DTW R@1", "R@5", "R@10", "OTAM R@1", "DTW R@1, kept", "mean vectors R@1", "steps found"]
        if choice is not None and choice["measure"] != "dtw":
            chosen = choice["measure"]
            keys = [f"clean/{background}/{chosen}/R@1" for background in ("removed", "kept")] + keys
            headers = ["run", f"{chosen} R@1 (chosen measure)", f"{chosen} R@1, kept", *headers[1:]]
        rows = [[described(run), *(run_cell(results, run, key, part=part) for key in keys)] for run in CANDIDATES]
        yield Table(
            section,
            f"Candidates on {part} videos",
            "Clean protocol; background removed where nothing else is said.",
            headers,
            rows,
        )
    rows = [
        [described(run), *(run_cell(results, run, f"normalised/{kind}/R@1") for kind in NORMALISATION_WORDS)]
        for run in dict.fromkeys(
            ("cosine", "dtw", "dtw unpaired", "dtw joint", *([choice["recipe"]] if choice else []))
        )
    ]
    yield Table(
        section,
        "DTW R@1 by what the distance is divided by",
        "Test videos, background removed.",
        ["run", *NORMALISATION_WORDS.values()],
        rows,
    )
    if choice is not None:
        yield from _differences(results, choice, section)


def _differences(results: Mapping[str, Any], choice: Mapping[str, Any], section: str) -> Iterator[Table]:
    words = {
        RELEASED_LOSS: "the released loss, over dot products, trained from scratch*",
        choice["paper_recipe"]: f"the paper's weights, trained from scratch ({described(choice['paper_recipe'])})",
        choice["unit_recipe"]: f"the best unit loss on validation videos ({described(choice['unit_recipe'])})",
    }
    labels = ["R@1, removed", "R@5, removed", "R@10, removed", "R@1, kept", "localization"]
    labels += ["R@1, removed, official", "R@1, kept, official"]
    for base, told in words.items():
        for measure in dict.fromkeys((choice["measure"], "dtw")):
            rows: list[list[Any]] = []
            for name in CANDIDATES:
                found = [results["recommendation"].get(f"{name} minus {base}, {measure}, {label}") for label in labels]
                if any(found):
                    intervals = [interval_of(one) for one in found]
                    rows.append([described(name), *(None if one is None else one.text for one in intervals)])
            if rows:
                headers = ["run", f"{measure} R@1", "R@5", "R@10", f"{measure} R@1, kept", "steps found"]
                headers += ["R@1, official", "R@1, kept, official"]
                title = f"Test videos, by {measure}: minus {told}"
                yield Table(section, title, "Points, 95 % intervals.", headers, rows)


def few_shot_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Accuracies on new classes, and their differences to the contrast between videos alone."""
    section = "Few-shot matching on real recordings"
    for name, losses in results["few_shot"].items():
        keys = [f"{measure} {shot}-shot" for shot in (1, 5) for measure in ("mean_pool", "dtw", "otam")]
        rows: list[list[Any]] = [
            [
                few_shot_words(loss),
                *(cell(losses[loss]["novel"].get(key, []), num_seeds=len(results["test_seeds"])) for key in keys),
            ]
            for loss in FEW_SHOT_LOSSES
        ]
        yield Table(section, f"{name}, new classes, 5-way accuracy", "", ["encoder", *keys], rows)
        rows = []
        for loss in FEW_SHOT_LOSSES:
            intervals = {key: interval_of(one) for key, one in losses[loss]["minus unit"].items()}
            if intervals:
                rows.append([few_shot_words(loss), *(one.text for key in keys if (one := intervals[key]) is not None)])
        if rows:
            note = "Points, with Student's 95 % intervals over the seeds."
            yield Table(section, f"{name}: minus the contrast between videos", note, ["encoder", *keys], rows)
