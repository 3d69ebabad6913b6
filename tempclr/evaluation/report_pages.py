"""The folder of ``tempclr evaluate --report``: results.json, report.md beside the paper's numbers, and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempclr.evaluation.paper import METRICS, paper_numbers
from tempclr.evaluation.report import markdown_table, write_results
from tempclr.evaluation.report_pictures import Pictures, draw_pictures
from tempclr.evaluation.suite import Measured

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = ["comparison_tables", "write_report"]

PAGE = """# {title}

{num_videos} videos of `{dataset}`, model `{model}`.

## Results

{table}

Values are percentages, but for the median rank. `clean` and `official` name the protocol: the official one reproduces
the released evaluation with its padding, sign and scaling defects, the clean one does not have them; their numbers
differ on purpose.

## Beside the paper

{paper}

The paper's numbers are those of its own data, features and weights: YouCook2, CrossTask or DiDeMo with the S3D features
and models of its authors, by the released (official) evaluation. **Numbers of other data are not comparable with
them**, and those of the same data only under the official protocol.

{pictures}
"""
TITLES = {
    "retrieval": "Full-video retrieval",
    "clip-retrieval": "Clip-caption retrieval",
    "moments": "Moment ranking",
    "localization": "Step localization",
    "matching": "Matched captions and clips",
}


def write_report(
    folder: Path,
    measured: Measured,
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    model_name: str,
    dataset_name: str,
    extra_results: Mapping[str, Any] | None = None,
    show_progress_bar: bool = False,
) -> None:
    """Write results.json, figures/ and, last, report.md, each of them whole or not at all.

    A report that is there already is replaced: figures that it shows and the new one does not are removed, other files
    of the folder stay.
    ``extra_results`` stand in results.json beside the measured ones, such as the rows left out. Pictures take frames of
    the rows' ``video`` where the file is there; the page says where it is not.
    """
    from tempclr.data.files import atomic_path

    earlier = _figures_shown(folder / "report.md")
    write_results(folder / "results.json", measured.to_dict() | dict(extra_results or {}))
    pictures = draw_pictures(folder / "figures", measured, model, paragraphs, show_progress_bar=show_progress_bar)
    table, paper = comparison_tables(measured)
    text = PAGE.format(
        title=TITLES[measured.task],
        num_videos=len(paragraphs),
        dataset=dataset_name,
        model=model_name,
        table=table,
        paper=paper,
        pictures=_gallery(pictures),
    )
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")
    for name in earlier - _figures_shown(folder / "report.md"):
        (folder / "figures" / name).unlink(missing_ok=True)


def comparison_tables(measured: Measured) -> tuple[str, str]:
    """The measured numbers, and the same measures in the paper, both in percent, as Markdown tables."""
    if measured.task == "retrieval":
        return _retrieval_tables(measured.results)
    rows = _rows(measured)
    metrics = METRICS[measured.task]
    printed = []
    for row in paper_numbers(measured.task):
        setting = " ".join(part for part in (row.setting, row.measure) if part)
        printed.append([f"Table {row.table}", row.dataset, setting, row.model, *row.values])
    width = max(len(row) for row in rows) - 2
    names = ["", "protocol", *metrics, *(["median rank"] if width > len(metrics) else [])]
    if measured.task == "moments":
        names = ["", "protocol", *metrics, "mean IoU"]
    paper = markdown_table(
        ["table", "data", "setting", "model", *(f"{name}, %" for name in metrics)], printed, digits=1
    )
    return markdown_table(names, rows, digits=1), paper


def _retrieval_tables(results: Mapping[str, Any]) -> tuple[str, str]:
    recalls = METRICS["retrieval"]
    rows: list[list[Any]] = []
    settings: dict[tuple[str, str], None] = {}
    for name, result in results.items():
        setting, _, official = name.partition(", ")
        for measure, metrics in result.metrics.items():
            values = [100 * metrics[recall] for recall in recalls]
            rows.append([setting, official or "clean", measure, *values, metrics["median_rank"]])
            settings[setting, measure] = None
    table = markdown_table(["", "protocol", "measure", *recalls, "median rank"], rows, digits=1)
    columns = [(dataset, model) for dataset in ("YouCook2", "DiDeMo") for model in ("VideoCLIP", "TempCLR")]
    printed = []
    for setting, measure in settings:
        found = {(row.dataset, row.model): row for row in paper_numbers("retrieval", setting=setting, measure=measure)}
        cells = [" / ".join(map(str, found[key].values)) if key in found else None for key in columns]
        printed.append([setting, measure, *cells])
    headers = ["R@1 / R@5 / R@10", "measure", *(f"{model}, {dataset}" for dataset, model in columns)]
    return table, markdown_table(headers, printed) + "\n\nYouCook2: Tables 12 and 13; DiDeMo: Tables 10 and 11."


def _rows(measured: Measured) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for name, result in measured.results.items():
        protocol = name.partition(", ")[2] or "clean"
        if measured.task == "clip-retrieval":
            for direction, metrics in result.metrics.items():
                values = [100 * metrics[recall] for recall in METRICS["clip-retrieval"]]
                rows.append([direction, protocol, *values, metrics["median_rank"]])
        elif measured.task == "moments":
            values = [result.rank_at_1, result.rank_at_5, result.mean_iou]
            rows.append([f"{result.num_sentences} sentences", protocol, *(100 * value for value in values)])
        elif measured.task == "localization":
            rows += [[task, protocol, 100 * recall] for task, recall in result.recall_per_task.items()]
            rows.append(["**mean over tasks**", protocol, 100 * result.recall])
        else:
            rows.append([f"{result.num_videos} videos", protocol, 100 * result.match_share])
    return rows


def _gallery(pictures: Pictures) -> str:
    parts = []
    for title, caption, files in pictures.sections:
        images = "\n\n".join(f"![{alt}](figures/{name})" for name, alt in files)
        parts.append("\n\n".join(part for part in (f"## {title}", caption, images) if part))
    if pictures.notes:
        parts.append("\n".join(f"- {note}" for note in pictures.notes))
    return "\n\n".join(parts)


def _figures_shown(page: Path) -> set[str]:
    """Names of the figures that a report shows; none where there is no report."""
    if not page.is_file():
        return set()
    return set(re.findall(r"\]\(figures/([\w-]+\.png)\)", page.read_text(encoding="utf-8", errors="replace")))
