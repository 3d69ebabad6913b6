"""Numbers of the TempCLR paper (ICLR 2023), to stand beside measured ones. In percent, as printed.

Numbers of other data, features or weights are not comparable; they show what the published models reached on theirs.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PAPER_NUMBERS", "PaperNumber", "paper_numbers"]


class PaperNumber(NamedTuple):
    """One row of a table: ``values`` follow ``metrics`` of its task."""

    task: str
    table: str
    dataset: str
    setting: str
    measure: str
    model: str
    values: tuple[float, ...]


METRICS = {
    "retrieval": ("R@1", "R@5", "R@10"),
    "clip-retrieval": ("R@1", "R@5", "R@10"),
    "moments": ("rank@1", "rank@5"),
    "localization": ("recall",),
    "matching": ("matched",),
}


def _full_video(
    table: str, dataset: str, background: str, rows: dict[str, dict[str, tuple[float, ...]]]
) -> list[PaperNumber]:
    setting = f"background {background}"
    return [
        PaperNumber("retrieval", table, dataset, setting, measure, model, values)
        for model, measures in rows.items()
        for measure, values in measures.items()
    ]


PAPER_NUMBERS: tuple[PaperNumber, ...] = (
    *_full_video(
        "12",
        "YouCook2",
        "removed",
        {
            "VideoCLIP": {
                "dtw": (56.0, 89.9, 96.3),
                "otam": (52.8, 89.2, 95.0),
                "dtw+cap_avg": (85.8, 97.7, 99.1),
                "cap_avg": (74.5, 94.1, 97.9),
            },
            "TempCLR": {
                "dtw": (83.5, 97.2, 99.3),
                "otam": (84.9, 97.9, 99.3),
                "dtw+cap_avg": (86.5, 97.2, 99.3),
                "cap_avg": (74.5, 94.6, 97.0),
            },
        },
    ),
    *_full_video(
        "13",
        "YouCook2",
        "kept",
        {
            "VideoCLIP": {
                "dtw": (55.7, 93.1, 98.9),
                "otam": (56.6, 92.8, 98.9),
                "dtw+cap_avg": (73.8, 95.4, 98.6),
                "otam+cap_avg": (74.5, 95.1, 99.1),
                "cap_avg": (73.6, 94.7, 98.4),
            },
            "TempCLR": {
                "dtw": (70.4, 93.8, 97.9),
                "otam": (72.2, 94.5, 97.7),
                "dtw+cap_avg": (76.7, 95.6, 98.4),
                "otam+cap_avg": (77.5, 95.6, 98.6),
                "cap_avg": (71.7, 94.5, 97.9),
            },
        },
    ),
    *_full_video(
        "10",
        "DiDeMo",
        "removed",
        {
            "VideoCLIP": {
                "dtw": (8.5, 24.4, 37.7),
                "otam": (8.9, 26.6, 38.6),
                "dtw+cap_avg": (10.3, 28.2, 38.6),
                "otam+cap_avg": (10.6, 27.7, 38.8),
                "cap_avg": (8.9, 27.0, 37.9),
            },
            "TempCLR": {
                "dtw": (9.2, 26.6, 39.4),
                "otam": (10.4, 25.6, 39.9),
                "dtw+cap_avg": (9.9, 26.3, 38.4),
                "otam+cap_avg": (10.9, 25.6, 40.6),
                "cap_avg": (9.4, 26.3, 36.4),
            },
        },
    ),
    *_full_video(
        "11",
        "DiDeMo",
        "kept",
        {
            "VideoCLIP": {
                "dtw": (8.6, 21.0, 31.2),
                "otam": (8.1, 22.1, 31.7),
                "dtw+cap_avg": (9.0, 22.6, 32.4),
                "otam+cap_avg": (8.3, 22.6, 32.6),
                "cap_avg": (7.1, 21.0, 31.9),
            },
            "TempCLR": {
                "dtw": (9.0, 21.4, 31.0),
                "otam": (9.3, 21.4, 31.4),
                "dtw+cap_avg": (9.0, 21.7, 31.2),
                "otam+cap_avg": (9.5, 21.7, 31.4),
                "cap_avg": (8.1, 21.7, 32.8),
            },
        },
    ),
    PaperNumber("clip-retrieval", "3", "YouCook2", "", "text-to-video", "VideoCLIP", (22.7, 50.4, 63.1)),
    PaperNumber("clip-retrieval", "3", "YouCook2", "", "text-to-video", "TempCLR", (23.3, 51.0, 64.5)),
    PaperNumber("moments", "9", "DiDeMo", "zero-shot", "", "VideoCLIP", (16.4, 47.1)),
    PaperNumber("moments", "9", "DiDeMo", "zero-shot", "", "TempCLR", (17.7, 48.1)),
    PaperNumber("localization", "4", "CrossTask", "zero-shot", "", "VideoCLIP", (33.9,)),
    PaperNumber("localization", "4", "CrossTask", "zero-shot", "", "TempCLR", (36.9,)),
    PaperNumber("localization", "4", "CrossTask", "supervised", "", "VideoCLIP", (47.3,)),
    PaperNumber("localization", "4", "CrossTask", "supervised", "", "TempCLR", (52.5,)),
    PaperNumber("matching", "6(a)", "YouCook2", "about, by the text", "", "VideoCLIP", (80.0,)),
)


def paper_numbers(task: str, *, setting: str | None = None, measure: str | None = None) -> list[PaperNumber]:
    """The printed rows of a task, in the order of the tables; ``setting`` and ``measure`` narrow them down.

    >>> paper_numbers("retrieval", setting="background kept", measure="otam")[1]
    PaperNumber(task='retrieval', table='13', dataset='YouCook2', setting='background kept', measure='otam', \
model='TempCLR', values=(72.2, 94.5, 97.7))
    """
    return [
        row
        for row in PAPER_NUMBERS
        if row.task == task and setting in (None, row.setting) and measure in (None, row.measure)
    ]
