"""The tables of the page, each from the results alone: a title, what it shows, headers and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tempclr.recipes.claims.grid import CANDIDATES, FEW_SHOT_LOSSES, PERTURBED, RUNS, STRATEGY_RUNS, lineage
from tempclr.recipes.claims.statements import CONTROL, STATEMENTS, UNTESTABLE
from tempclr.recipes.claims.statistics import VERDICTS, Interval, cell, verdict

__all__ = [
    "NORMALISATION_WORDS",
    "Table",
    "control_rows",
    "described",
    "num_reversed",
    "short_table",
    "tables",
    "verdict_rows",
]

MEASURES = ("cap_avg", "dtw", "otam", "dtw+cap_avg", "otam+cap_avg")
RETRIEVAL_ROWS = (
    "dot",
    "dot>unit",
    "dot>dtw",
    "dot>otam",
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


NORMALISATION_WORDS = {
    "none": "as it is",
    "area": "by rows · columns",
    "sides": "by rows + columns",
    "path": "by the path's cells",
    "soft": "soft, by rows · columns",
}


@dataclass(frozen=True)
class Table:
    section: str
    title: str
    note: str
    headers: list[str]
    rows: list[list[Any]]


def tables(results: Mapping[str, Any]) -> list[Table]:
    """All of them, in the order of the page."""
    return [
        *_retrieval(results),
        *_localization(results),
        *_perturbed(results),
        *_candidates(results),
        *_few_shot(results),
        *_spent(results),
    ]


def verdict_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """place, claim, the paper's numbers, ours with the interval, the verdict; and what cannot be tested here."""
    rows: list[list[Any]] = []
    for statement, found in _stated(results, controls=False):
        word = "" if found is None else _verdict(statement, found, results)
        rows.append([statement.place, statement.claim, statement.paper, _told(found), word])
    return rows + [[place, claim, "", why, "not testable here"] for place, claim, why in UNTESTABLE]


def control_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """place, question, ours with the interval, and ``yes``, ``no`` or ``undecided``."""
    answers = dict(zip(VERDICTS, ("yes", "no", "undecided"), strict=True))
    rows: list[list[Any]] = []
    for statement, found in _stated(results, controls=True):
        word = "" if found is None else answers[_verdict(statement, found, results)]
        rows.append([statement.place, statement.claim, _told(found), word])
    return rows


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
    names = ["dot", "dot>unit", "dot>dtw", "cosine", "dtw", *([] if choice is None else [choice["recipe"]])]
    rows = [[described(name), *(_cell(results, name, key) for key in keys.values())] for name in dict.fromkeys(names)]
    num_seeds = len(results["test_seeds"])
    note = f"{num_seeds} seeds of {results['settings']['num_test']} test videos each; mean ± standard deviation, in %."
    return Table("", "The paper's comparison on generated videos", note, ["run", *keys], rows)


def num_reversed(results: Mapping[str, Any]) -> int:
    """How many claims that one thing is better have their whole interval on the other side."""
    other = {"higher": "lower", "lower": "higher"}
    return sum(
        found is not None and one.expected in other and verdict(found, other[one.expected]) == VERDICTS[0]
        for one, found in _stated(results, controls=False)
    )


def _stated(results: Mapping[str, Any], *, controls: bool) -> Iterator[tuple[Any, Interval | None]]:
    for statement, found in zip(STATEMENTS, results["differences"], strict=True):
        if (statement.paper == CONTROL) == controls:
            yield statement, None if found is None else _interval(found)


def _told(interval: Interval | None) -> str:
    if interval is None:
        return "not run yet"
    return f"{interval.text}, {len(interval.per_seed)} seed{'s' if len(interval.per_seed) > 1 else ''}"


def _verdict(statement: Any, interval: Interval, results: Mapping[str, Any]) -> str:
    """A score that all runs of a statement have in full leaves nothing to tell them by."""
    scores = [results["runs"][run]["test"][key] for _, run, key in statement.terms]
    if statement.expected != "same" and all(min(values) > 0.995 for values in scores):
        return "not testable here"
    return verdict(interval, statement.expected, margin=statement.margin)


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(**{**found, "per_seed": tuple(found["per_seed"])})


def _cell(results: Mapping[str, Any], run: str, key: str, *, part: str = "test") -> str | None:
    values = results["runs"].get(run, {}).get(part, {}).get(key, [])
    return cell(values, num_seeds=len(results["test_seeds" if part == "test" else "seeds"]))


def described(name: str) -> str:
    """A run in words.

    >>> described("dot>dtw norm|unit")
    'unit loss (dot), then + DTW, norms alone; fine-tuned on the unit loss'
    """
    words = [_described(one) for one in lineage(name)]
    tuned = RUNS[name].task == "localization"
    told = ", then ".join(words[:-1] if tuned else words)
    return f"{told}; fine-tuned {words[-1]}" if tuned else told


def _described(name: str) -> str:
    run = RUNS[name]
    loss = dict(run.loss)
    measure = str(loss.get("measure", "dtw")).upper()
    if run.task == "localization":
        what = "on the unit loss" if loss["sequence_weight"] == 0 else f"with {measure}"
        what += ", seg_only" if loss.get("negatives") == "seg_only" else ""
        return what + (f", {run.train_fraction:.0%} of the videos" if run.train_fraction < 1 else "")
    first = run.start is None
    similarity = f" ({loss['similarity']})" if first else ""
    if loss["sequence_weight"] == 0:
        temperature = f", temperature {loss['temperature']}" if "temperature" in loss else ""
        return f"unit loss{similarity}{temperature}"
    told = f"{f'unit loss{similarity} ' if first else ''}+ {measure}"
    if "negatives" in loss:
        told += f" against {loss['negatives']}"
    if "num_negatives" in loss:
        told += f", {loss['num_negatives'] + 1} sequences"
    if loss.get("gamma") == 0:
        told += ", hard minimum"
    if "sequence_temperature" in loss:
        told += f", temperature {loss['sequence_temperature']}"
    return told + (", norms alone" if run.train_parameters == "norm_only" else "")


def _retrieval(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "Full-video retrieval (Tables 1, 12, 13)"
    for background, number in (("removed", 12), ("kept", 13)):
        for protocol in ("official", "clean"):
            rows = [
                [
                    described(run),
                    *(_cell(results, run, f"{protocol}/{background}/{measure}/R@1") for measure in MEASURES),
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
    rows = [[described(run), *(_cell(results, run, key) for key in pooled)] for run in RETRIEVAL_ROWS]
    note = (
        "Mean vectors know no order; the true order is that of a video's segments, against 31 shuffled ones, by DTW to "
        "its own paragraph; matched pairs are Table 6(a)'s; seconds are those that DTW over the whole video gives to a "
        "sentence said of them."
    )
    yield Table(section, "What lies behind it", note, headers, rows)


def _localization(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "Step localization (Tables 6, 7, 14, 16, 17)"
    zero_shot = "localization"
    other = "clean/removed/dtw/R@1"
    strategies = {"unit loss": "dot>unit", **STRATEGY_RUNS}
    rows = [
        [name, described(run), _cell(results, run, zero_shot), _cell(results, run, other)]
        for name, run in strategies.items()
    ]
    note = (
        "Zero-shot: the strategies make the negatives of pretraining. The paper fine-tunes with them; the released "
        "fine-tuning, and ours, know seg_unit and seg_only, whose comparison stands last."
    )
    yield Table(section, "Negatives (Table 7)", note, ["strategy", "run", "steps found", "DTW R@1"], rows)
    rows = [[described(run), _cell(results, run, zero_shot)] for run in ("dot|unit", "dot|seg_only", "dot|dtw")]
    yield Table(section, "Negatives in fine-tuning", "", ["run", "steps found"], rows)
    rows = [
        [size, _cell(results, run, zero_shot), _cell(results, run, other)]
        for size, run in (("16", "dot>dtw 16"), ("32", "dot>dtw"), ("64", "dot>dtw 64"))
    ]
    yield Table(section, "Sequences contrasted (Table 17)", "", ["sequences", "steps found", "DTW R@1"], rows)
    rows = [
        [described(run), _cell(results, run, zero_shot)]
        for run in ("dot", "dot>unit", "dot>dtw", "dot>otam", "dot>dtw norm", "dot>otam norm")
    ]
    yield Table(section, "Zero-shot (Table 14, left)", "", ["run", "steps found"], rows)
    rows = [
        [described(start), *(_cell(results, f"{start}|{loss}", zero_shot) for loss in ("unit", "otam", "dtw"))]
        for start in ("dot", "dot>unit", "dot>dtw", "dot>dtw norm")
    ]
    headers = ["pretraining", "fine-tuned on the unit loss", "with OTAM", "with DTW"]
    yield Table(section, "Fine-tuned (Table 14, right; Table 6)", "", headers, rows)
    rows = [
        [
            told,
            *(_cell(results, f"{run} {share}", zero_shot) for share in ("10%", "20%")),
            _cell(results, run, zero_shot),
        ]
        for told, run in (("unit loss throughout", "dot|unit"), ("TempCLR throughout", "dot>dtw|dtw"))
    ]
    yield Table(section, "Few videos (Table 16)", "", ["run", "10 %", "20 %", "all"], rows)


def _perturbed(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "Scene change and background (Figures 8, 9)"
    for key, title in (
        ("seconds", "Seconds aligned rightly by DTW"),
        ("localization", "Steps found"),
        ("clean/kept/dtw/R@1", "R@1 by DTW, background kept"),
        ("clean/removed/dtw/R@1", "R@1 by DTW, background removed"),
    ):
        rows = [
            [described(run), *(_cell(results, run, f"{kind}{key}") for kind in ("", "exchanged: ", "injected: "))]
            for run in PERTURBED
        ]
        yield Table(section, title, "", ["run", "as filmed", "a step exchanged", "background put in"], rows)


def _candidates(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "What to recommend"
    for part in ("validation", "test"):
        keys = [f"clean/removed/dtw/R@{k}" for k in (1, 5, 10)]
        keys += ["clean/removed/otam/R@1", "clean/kept/dtw/R@1", "mean-pooled/R@1", "localization"]
        headers = ["run", "DTW R@1", "R@5", "R@10", "OTAM R@1", "DTW R@1, kept", "mean vectors R@1", "steps found"]
        rows = [[described(run), *(_cell(results, run, key, part=part) for key in keys)] for run in CANDIDATES]
        yield Table(
            section,
            f"Candidates on {part} videos",
            "Background removed, clean protocol, but for one column.",
            headers,
            rows,
        )
    rows = [
        [described(run), *(_cell(results, run, f"normalised/{kind}/R@1") for kind in NORMALISATION_WORDS)]
        for run in ("cosine", "dtw", "dtw unpaired", "dtw joint")
    ]
    yield Table(
        section,
        "DTW R@1 by what the distance is divided by",
        "Test videos, background removed.",
        ["run", *NORMALISATION_WORDS.values()],
        rows,
    )
    for base, told in (("cosine", "the unit loss over cosines"), ("dtw", "the paper's recipe, trained from scratch")):
        rows = []
        for name in CANDIDATES:
            found = [
                results["recommendation"].get(f"{name} minus {base}, dtw, {label}")
                for label in ("R@1, removed", "R@5, removed", "R@10, removed", "R@1, kept", "localization")
            ]
            if any(found):
                rows.append([described(name), *(None if one is None else _interval(one).text for one in found)])
        if rows:
            headers = ["run", "DTW R@1", "R@5", "R@10", "DTW R@1, kept", "steps found"]
            yield Table(section, f"Test videos: minus {told}", "Points, 95 % intervals.", headers, rows)


def _few_shot(results: Mapping[str, Any]) -> Iterator[Table]:
    for name, losses in results["few_shot"].items():
        keys = [f"{measure} {shot}-shot" for shot in (1, 5) for measure in ("mean_pool", "dtw", "otam")]
        rows: list[list[Any]] = [
            [
                _few_shot_words(loss),
                *(cell(losses[loss]["novel"].get(key, []), num_seeds=len(results["test_seeds"])) for key in keys),
            ]
            for loss in FEW_SHOT_LOSSES
        ]
        for loss in FEW_SHOT_LOSSES:
            found = losses[loss]["minus unit"]
            if found:
                rows.append(
                    [f"*{_few_shot_words(loss)}, minus the unit loss*", *(_interval(found[key]).text for key in keys)]
                )
        yield Table(
            "Few-shot matching on real recordings", f"{name}, new classes, 5-way accuracy", "", ["encoder", *keys], rows
        )


def _few_shot_words(loss: str) -> str:
    words = {
        "features": "the features themselves",
        "unit": "contrast between videos",
        "dtw": "+ order, DTW (0.3 / 0.7)",
        "otam": "+ order, OTAM (0.3 / 0.7)",
        "dtw hard": "+ order, DTW, hard minimum",
        "dtw alone": "order alone, DTW",
    }
    return words[loss]


def _spent(results: Mapping[str, Any]) -> Iterator[Table]:
    section = "Time and memory"
    rows = []
    for name in (one for one in RUNS if one in results["runs"]):
        spent = results["runs"][name]["spent"]
        rows.append(
            [
                described(name),
                *(_rounded(spent[key]) for key in ("processor_seconds", "wall_seconds", "peak_megabytes")),
            ]
        )
    headers = ["run, with its validation", "processor, s", "clock, s", "peak memory, MB"]
    yield Table(section, "Each run, mean over the seeds", "One thread a run.", headers, rows)
    step = results["step"]
    if step:
        words = {"unit": "unit loss alone", "dtw": "with DTW", "otam": "with OTAM"}
        rows = [
            [told, _milliseconds(step[f"seconds/{kind}"]), cell(step.get(f"share/{kind}", []))]
            for kind, told in words.items()
        ]
        headers = ["training step", "processor, ms", "share of the sequence loss, %"]
        title = f"A step of {results['settings']['batch_size']} videos, forward and backward"
        yield Table(section, title, "", headers, rows)


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * sum(seconds) / len(seconds):.0f}"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
