"""The tables of the page, each from the results alone: retrieval, localization, and changed videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tempclr.recipes.claims.cells import Table, described, run_cell
from tempclr.recipes.claims.choice_tables import candidate_tables, few_shot_tables
from tempclr.recipes.claims.grid import PERTURBED, RATE_RUNS, STRATEGY_RUNS, in_decimals
from tempclr.recipes.claims.time_tables import time_tables

__all__ = ["short_table", "tables"]

MEASURES = ("cap_avg", "dtw", "otam", "dtw+cap_avg", "otam+cap_avg")
RETRIEVAL_ROWS = (
    "dot",
    "dot>unit",
    "dot>dtw",
    "dot>otam",
    "dot>dtw norm",
    "dot>otam norm",
    "dot+dtw",
    "cosine",
    "cosine>unit",
    "cosine>dtw",
    "cosine>otam",
)
# What Tables 12 and 13 print, R@1 by measure.
PUBLISHED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "removed": {"VideoCLIP": (74.5, 56.0, 52.8, 85.8, None), "TempCLR": (74.5, 83.5, 84.9, 86.5, None)},
    "kept": {"VideoCLIP": (73.6, 55.7, 56.6, 73.8, 74.5), "TempCLR": (71.7, 70.4, 72.2, 76.7, 77.5)},
}


def tables(results: Mapping[str, Any]) -> list[Table]:
    """All of them, in the order of the page."""
    return [
        *_retrieval(results),
        *_localization(results),
        *_perturbed(results),
        *candidate_tables(results),
        *few_shot_tables(results),
        *time_tables(results),
    ]


def short_table(results: Mapping[str, Any]) -> Table:
    """What a front page has room for: the paper's comparison, its control, and what is recommended; test videos."""
    keys = {
        "DTW R@1, official": "official/removed/dtw/R@1",
        "DTW R@1, clean": "clean/removed/dtw/R@1",
        "Cap. Avg. R@1, clean": "clean/removed/cap_avg/R@1",
        "DTW R@1, clean, background kept": "clean/kept/dtw/R@1",
        "steps found": "localization",
    }
    choice = results["choice"]
    words = {
        "dot": "the unit loss (VideoCLIP's)",
        "dot>unit": "the same for as many epochs more",
        "dot>dtw": "TempCLR from there, all parameters",
        "dot>unit r1e-4": "further epochs at a fifth of the rate",
        "dot>dtw r1e-4": "TempCLR at a fifth of the rate",
        "dot>dtw norm": "TempCLR from there, norms alone",
        "dot+dtw": "the released loss, from scratch",
        "dtw": "`--recipe small_paper`",
    }
    if choice is not None:
        words |= {choice["unit_recipe"]: "the best unit loss", choice["recipe"]: "**recommended**: `--recipe small`"}
    rows = [
        [told, described(name), *(run_cell(results, name, key) for key in keys.values())]
        for name, told in words.items()
    ]
    num_seeds = len(results["test_seeds"])
    note = f"{num_seeds} seeds of {results['settings']['num_test']} test videos each; mean ± standard deviation, in %."
    return Table("", "The paper's comparison on generated videos", note, ["what", "run", *keys], rows)


def _retrieval(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "Full-video retrieval (Tables 1, 12, 13)"
    for background, number in (("removed", 12), ("kept", 13)):
        for protocol in ("official", "clean"):
            rows = [
                [
                    described(run),
                    *(run_cell(results, run, f"{protocol}/{background}/{measure}/R@1") for measure in MEASURES),
                ]
                for run in RETRIEVAL_ROWS
            ]
            if protocol == "official":
                for name, values in PUBLISHED[background].items():
                    printed = [None if value is None else f"{value:.1f}" for value in values]
                    rows.append([f"*{name}, YouCook2, Table {number}*", *printed])
            yield Table(section, f"R@1, background {background}, {protocol} protocol", "", ["run", *MEASURES], rows)
    pooled = ["mean-pooled/R@1", "order/R@1", "clip/R@1", "matching", "seconds"]
    headers = ["run", "mean vectors, R@1", "true order first of 32", "clips, R@1", "matched pairs", "seconds aligned"]
    rows = [[described(run), *(run_cell(results, run, key) for key in pooled)] for run in RETRIEVAL_ROWS]
    note = (
        "Mean vectors know no order; the true order is that of a video's segments, against 31 shuffled ones, by DTW to "
        "its own paragraph; matched pairs are Table 6(a)'s; seconds are those that DTW over the whole video gives to a "
        "sentence said of them; clips count by video: the mean of each video's share."
    )
    yield Table(section, "What lies behind it", note, headers, rows)
    yield _rates(results)


def _rates(results: Mapping[str, Any]) -> Table:
    """What the paper's way of going on from a unit loss comes to at other rates."""
    keys = ("clean/removed/dtw/R@1", "localization")
    test_keys = (*keys, "clean/kept/dtw/R@1", "official/removed/dtw/R@1", "official/kept/dtw/R@1")
    runs: list[tuple[str, float | None, str]] = [("what all begin with", None, "dot")]
    runs += [(told, rate, run) for told, rates in RATE_RUNS.items() for rate, run in rates.items()]
    rows: list[list[Any]] = [
        [
            told,
            None if rate is None else in_decimals(rate),
            *(run_cell(results, run, key, part="validation") for key in keys),
            *(run_cell(results, run, key) for key in test_keys),
        ]
        for told, rate, run in runs
    ]
    note = (
        "From the unit loss over dot products on, as many epochs again. These rates came in when the test videos had "
        "been seen, and not in --quick; validation videos are told beside, so that nobody has to choose by the others."
    )
    headers = ["loss", "rate", "validation: DTW R@1", "steps found", "test: DTW R@1", "steps found", "DTW R@1, kept"]
    headers += ["DTW R@1, official", "DTW R@1, kept, official"]
    return Table("Full-video retrieval (Tables 1, 12, 13)", "Rates of going on", note, headers, rows)


def _localization(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "Step localization (Tables 6, 7, 14, 16, 17)"
    zero_shot = "localization"
    other = "clean/removed/dtw/R@1"
    strategies = {"unit loss": "dot>unit", **STRATEGY_RUNS}
    rows = [
        [name, described(run), run_cell(results, run, zero_shot), run_cell(results, run, other)]
        for name, run in strategies.items()
    ]
    note = (
        "Zero-shot: the strategies make the negatives of pretraining. The paper fine-tunes with them; the released "
        "fine-tuning, and ours, know seg_unit and seg_only, whose comparison stands last."
    )
    yield Table(section, "Negatives (Table 7)", note, ["strategy", "run", "steps found", "DTW R@1"], rows)
    rows = [[described(run), run_cell(results, run, zero_shot)] for run in ("dot|unit", "dot|seg_only", "dot|dtw")]
    yield Table(section, "Negatives in fine-tuning", "", ["run", "steps found"], rows)
    rows = [
        [size, run_cell(results, run, zero_shot), run_cell(results, run, other)]
        for size, run in (("16", "dot>dtw 16"), ("32", "dot>dtw"), ("64", "dot>dtw 64"))
    ]
    yield Table(section, "Sequences contrasted (Table 17)", "", ["sequences", "steps found", "DTW R@1"], rows)
    rows = [
        [described(run), run_cell(results, run, zero_shot), run_cell(results, run, "localization, official")]
        for run in ("dot", "dot>unit", "dot>dtw", "dot>otam", "dot>dtw norm", "dot>otam norm")
    ]
    yield Table(section, "Zero-shot (Table 14, left)", "", ["run", "steps found", "official protocol"], rows)
    rows = [
        [described(start), *(run_cell(results, f"{start}|{loss}", zero_shot) for loss in ("unit", "otam", "dtw"))]
        for start in ("dot", "dot>unit", "dot>dtw", "dot>dtw norm")
    ]
    headers = ["pretraining", "fine-tuned on the unit loss", "with OTAM", "with DTW"]
    yield Table(section, "Fine-tuned (Table 14, right; Table 6)", "", headers, rows)
    rows = [
        [
            told,
            *(run_cell(results, f"{run} {share}", zero_shot) for share in ("10%", "20%")),
            run_cell(results, run, zero_shot),
        ]
        for told, run in (("unit loss throughout", "dot|unit"), ("TempCLR throughout", "dot>dtw|dtw"))
    ]
    yield Table(section, "Few videos (Table 16)", "", ["run", "10 %", "20 %", "all"], rows)


def _perturbed(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "Scene change and background (Figures 8, 9)"
    note = _num_changed(results)
    for key, title in (
        ("seconds", "Seconds aligned rightly by DTW"),
        ("localization", "Steps found"),
        ("clean/kept/dtw/R@1", "R@1 by DTW, background kept"),
        ("clean/removed/dtw/R@1", "R@1 by DTW, background removed"),
    ):
        rows = [
            [described(run), *(run_cell(results, run, f"{kind}{key}") for kind in ("", "exchanged: ", "injected: "))]
            for run in PERTURBED
        ]
        yield Table(section, title, note, ["run", "as filmed", "a step exchanged", "background put in"], rows)
        note = ""


def _num_changed(results: Mapping[str, Any]) -> str:
    """How many of a seed's test videos were changed: a video without another of the same step stays as it is."""
    found = results["runs"].get(PERTURBED[0], {}).get("test", {})
    words = {"exchanged": "a step was exchanged in", "injected": "background was put into"}
    most = results["settings"]["num_test"]
    parts = [
        f"{told} {', '.join(f'{count:.0f}' for count in found[f'{kind}: num_changed'])} of {most} videos a seed"
        for kind, told in words.items()
        if f"{kind}: num_changed" in found
    ]
    return f"Of the test videos, {'; '.join(parts)}." if parts else ""
