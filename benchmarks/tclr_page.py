"""What ``benchmarks/tclr_claims.py`` writes into docs/tclr.md: the tables, what they say, and the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PUBLISHED = {"random": 17.15, "instance": 54.58, "+ local-local": 62.70, "+ global-local": 64.55, "TCLR": 69.91}
PUBLISHED_R1 = {"random": 9.77, "instance": 40.76, "+ local-local": 51.10, "+ global-local": 47.32, "TCLR": 56.17}
# Student's t for the interval over so many seeds.
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}

MARK = "<!-- Below this line all is written by benchmarks/tclr_claims.py. -->"
CLAIMS = """## Do the losses over time help?

Made by `benchmarks/tclr_claims.py`; the numbers stand in `benchmarks/results/tclr_claims.json`.

Generated videos of {num_classes} motions ({num_train} training and {num_measured} test videos, {size} pixels). The
thing that moves and the background look the same in all of them; the camera drifts, and other things stand around, as
each video has it. A small R3D ({network}) sees clips of 16 frames at {clip} pixels for {epochs} epochs, {batch} videos
a step, at a rate of {rate:g}. Variants share initial weights, order, clips and augmentations and differ in the losses
alone. Settings were chosen on other videos (the part `validation`), by seed 0. `random` has untrained weights,
`supervised` was trained on the labels.

Linear evaluation here scales every feature to mean 0 and deviation 1 over the training videos first, which the released
code does not; features of small networks need it. A cell is the mean over {num_seeds} seeds ± half of its 95 % interval
(Student's t). One of {num_classes} classes is {chance:.1f} % by chance.
"""

TRIED = """
### What was tried

* Videos whose things and backgrounds all differ (6 and 16 motions; 10 to 30 epochs; rates 1e-3 and 3e-3; clips of 16
  and 24 pixels): linear evaluation of every variant at chance, 14 to 23 % of 6 classes; with labels the network told
  38 % of its training clips. Looks alone tell such videos apart, and in so few steps nothing else is learned.
* 4 looks, 8 classes: instances alone 23 %, as untrained, and 84 % with labels. 2 looks, 16 classes: instances 38 %,
  untrained 41 %.
* One look and nothing else in the picture: instances 86 %, TCLR 82 %, labels 92 % of 16 classes, on 128 videos: too
  near the top to tell losses apart. With drifting cameras and other things: untrained 41 %, instances 68 %, TCLR 78 %,
  labels 91 %. That setting was taken, and the test videos made anew.
* The head that the paper tells of, without batch normalisation: the losses over time stayed where all moments of a
  video are alike (log 7 and log 4) for the 90 steps that were tried.
"""


def mean_and_half(values: list[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % interval; of one seed, there is none."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    return float(np.mean(values)), T_95[len(values)] * float(np.std(values, ddof=1)) / len(values) ** 0.5


def page(text: str, results: dict[str, Any]) -> str:
    """The page with all below its mark renewed."""
    return f"{text.split(MARK)[0]}{MARK}\n\n{_claims(results)}"


def _claims(results: dict[str, Any]) -> str:
    from tempclr.evaluation.report import markdown_table

    runs, settings = results["runs"], results["settings"]
    names = _names(runs)
    seeds = sorted({int(key.split("/")[1]) for key in runs})
    one = next(iter(runs.values()))
    counts = {"num_train": one["num_train"], "num_measured": one["num_measured"], "num_seeds": len(seeds)}
    lines = [CLAIMS.format(**settings, **counts, chance=100 / settings["num_classes"])]
    columns = {
        "linear": "linear",
        "linear_one_clip": "linear, one clip",
        **{f"R@{k}": f"R@{k}" for k in (1, 5, 10, 20)},
    }
    headers = ["accuracy in %", *columns.values(), "published: linear", "published: R@1"]
    rows = [
        [
            name,
            *(_cell([run[key] for run in _of(runs, name)]) for key in columns),
            *(_published(numbers, name) for numbers in (PUBLISHED, PUBLISHED_R1)),
        ]
        for name in names
    ]
    lines += [markdown_table(headers, rows), "\n" + verdict(runs) + "\n"]
    pairs = [[name, *(_cell(_differences(runs, name, key)) for key in columns)] for name in names if name in _TIMED]
    lines += [markdown_table(["minus instance, by seed", *columns.values()], pairs)]
    lines += [PICTURES, _costs(runs, results["machine"]), TRIED]
    return "\n".join(lines)


_TIMED = ("+ local-local", "+ global-local", "TCLR")
PICTURES = """
Cosine of the timesteps of a test video's feature map, behind the head, mean over videos and seeds:

![similarity of timesteps](tclr_slices.png)

The test videos by t-SNE of their retrieval vectors, of seed 0:

![classes in the plane](tclr_classes.png)

Where the third stage of the network is active in a test video, of seed 0:

![attention](tclr_attention.png)

Some test videos and the training videos found nearest to them by TCLR, of seed 0:

![neighbours](tclr_neighbours.png)
"""


def verdict(runs: dict[str, Any]) -> str:
    """In words, for each loss over time: better or worse than instances alone, beyond the interval or not."""
    told = []
    for name in _TIMED:
        for key, word in (("linear", "linear evaluation"), ("R@1", "R@1")):
            values = _differences(runs, name, key)
            if values:
                mean, half = mean_and_half(values)
                sure = f"{'beyond' if abs(mean) > half else 'within'} its interval" if half == half else "of one seed"
                direction = "better" if mean > 0 else "worse"
                told.append(f"{name}: {word} {100 * abs(mean):.1f} points {direction}, {sure}")
    return "Against instances alone: " + "; ".join(told) + "." if told else "No run is there to compare with instances."


def _names(runs: dict[str, Any]) -> list[str]:
    """The variants that were run, as the paper orders them, whatever the order of the file."""
    return [name for name in (*PUBLISHED, "supervised") if _of(runs, name)]


def _of(runs: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [run for key, run in runs.items() if key.split("/")[0] == name]


def _differences(runs: dict[str, Any], name: str, key: str) -> list[float]:
    seeds = [one.split("/")[1] for one in runs if one.split("/")[0] == name]
    return [runs[f"{name}/{seed}"][key] - runs[f"instance/{seed}"][key] for seed in seeds if f"instance/{seed}" in runs]


def _cell(values: list[float]) -> str:
    mean, half = mean_and_half(values) if values else (float("nan"), float("nan"))
    return f"{100 * mean:.1f}" + (f" ± {100 * half:.1f}" if np.isfinite(half) else "")


def _published(numbers: dict[str, float], name: str) -> str:
    return f"{numbers[name]:.1f}" if name in numbers else ""


def _costs(runs: dict[str, Any], machine: dict[str, Any]) -> str:
    wall, busy = (sum(run["seconds"][name] for run in runs.values()) / 60 for name in ("wall", "processor"))
    longest = max(run["seconds"]["processor"] for run in runs.values()) / 60
    return (
        f"The {len(runs)} runs took {busy:.0f} minutes of processor time in all, the longest {longest:.1f} (one thread "
        f"each, {machine['cpu']}, torch {machine['torch']}); {wall:.0f} minutes on their clocks, where other work ran "
        "beside them."
    )


def draw(root: Path, results: dict[str, Any], pictures: dict[str, Any]) -> None:
    """The pictures of the page; ``pictures`` holds what needs the trained models, where they are at hand."""
    from tempclr.plots.tclr import plot_attention, plot_classes, plot_neighbours, plot_slice_similarity

    runs = results["runs"]
    names = [name for name in _names(runs) if "slices" in _of(runs, name)[0]]
    slices = {name: np.mean([run["slices"] for run in _of(runs, name)], axis=0) for name in names}
    plot_slice_similarity(slices, path=root / "docs" / "tclr_slices.png")
    if pictures:
        plot_classes(pictures["places"], pictures["labels"], path=root / "docs" / "tclr_classes.png")
        plot_attention(pictures["frames"], pictures["attention"], path=root / "docs" / "tclr_attention.png")
        plot_neighbours(pictures["neighbours"], path=root / "docs" / "tclr_neighbours.png")
