"""A dataset card made from the rows alone: what they hold, how much of it, how features were made."""

from __future__ import annotations

import json
import re
from os import PathLike
from typing import Any

import numpy as np

from tempclr.evaluation.report import markdown_table

COLUMNS = {
    "video_id": "name of the video",
    "sentences": "the sentences of its paragraph, in the order of their segments",
    "starts": "start of each segment, seconds",
    "ends": "end of each segment, seconds, exclusive",
    "features": "one vector a feature, (T, D)",
    "features_per_second": "how many features a second",
    "task": "what is done in the video",
    "label": "its class",
    "split": "the split it belongs to",
    "steps": "all steps of the task, in order",
    "step_indices": "the step of each segment, counted from 0",
    "annotator_spans": "for each sentence the [start, end) seconds each annotator marked",
}


def dataset_card(
    source: str | PathLike[str], *, repo_id: str, license: str | None = None, citation: str | None = None
) -> str:
    """The text of a README.md for a dataset of rows: front matter, counts of each split, columns, feature recipe.

    ``source``: what ``tempclr.data.rows.load_rows`` takes, or a folder of several splits. ``license``: its name on the
    Hub, as "cc-by-4.0"; "unknown" where the caller does not tell it, because annotations and features have the licence
    of their makers, which no row tells. ``citation``: BibTeX of the makers' publication.

    Raises:
        InputError: the rows cannot be read.
    """
    from tempclr.data.rows import dataset_recipe
    from tempclr_hub.portable_rows import all_splits, portable_columns

    splits = all_splits(source)
    rows = [[f"`{split}`", *_counts(part)] for split, part in splits.items()]
    names = portable_columns(next(iter(splits.values())).column_names)
    columns = [[f"`{name}`", COLUMNS.get(name, "")] for name in names]
    recipe = dataset_recipe(source)
    return "\n".join(
        [
            *_front_matter(license, splits, num_rows=sum(len(part) for part in splits.values())),
            f"# {repo_id}",
            "",
            "Paragraphs of sentences with their segments in videos: rows for [tempclr](https://pypi.org/project/tempclr).",
            "",
            markdown_table(["split", "videos", "sentences", "hours", "features a second"], rows),
            "",
            "## Columns",
            "",
            markdown_table(["column", "what it holds"], columns),
            "",
            "## Use",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            f'rows = load_dataset("{repo_id}", split="{next(iter(splits))}")',
            "row = rows[0]",
            'for sentence, start, end in zip(row["sentences"], row["starts"], row["ends"]):',
            "    print(start, end, sentence)",
            "```",
            "",
            "## Features",
            "",
            *_recipe_lines(recipe),
            "",
            "## Licence",
            "",
            *_licence_lines(license),
            "",
            "## Citation",
            "",
            *_citation_lines(citation, repo_id),
            "",
        ]
    )


def _front_matter(license: str | None, splits: dict[str, Any], *, num_rows: int) -> list[str]:
    from yaml import safe_dump

    edges = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    size = next((name for edge, name in edges if num_rows < edge), "1M<n<10M")
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    fields: dict[str, Any] = {
        "tags": ["tempclr", "video-text-retrieval", "temporal-alignment"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    fields["license"] = license or "unknown"
    return ["---", safe_dump(fields, sort_keys=False).strip(), "---", ""]


def _licence_lines(license: str | None) -> list[str]:
    makers = "Videos, annotations and features have the licence of their makers."
    return [f"These rows: {license}. {makers}" if license else f"Not stated. {makers}"]


def _citation_lines(citation: str | None, repo_id: str) -> list[str]:
    makers = "Cite those who made the videos and the annotations"
    if citation is not None:
        return [f"{makers}:", "", "```bibtex", citation.strip(), "```"]
    name, title = re.sub(r"\W", "", repo_id.rpartition("/")[2]), repo_id.rpartition("/")[2]
    address = f"https://huggingface.co/datasets/{repo_id}"
    entry = [f"@misc{{{name},", f"  title = {{{title}}},", f"  howpublished = {{\\url{{{address}}}}}", "}"]
    return [f"{makers}, whom the rows do not tell. These rows themselves:", "", "```bibtex", *entry, "```"]


def _counts(rows: Any) -> list[Any]:
    num_sentences = sum(len(sentences) for sentences in rows["sentences"])
    rates: list[Any] = rows["features_per_second"] if "features_per_second" in rows.column_names else []
    known = sorted({float(rate) for rate in rates if rate is not None})
    hours = sum(max(ends, default=0.0) for ends in rows["ends"]) / 3600
    rate = " to ".join(f"{value:g}" for value in dict.fromkeys([known[0], known[-1]])) if known else "none"
    return [len(rows), num_sentences, float(np.round(hours, 2)), rate]


def _recipe_lines(recipe: dict[str, Any] | None) -> list[str]:
    if recipe is None:
        return ["How the features were made is not recorded with these rows."]
    from tempclr_hub.portable_rows import portable_recipe

    return ["They were made by this recipe:", "", "```json", json.dumps(portable_recipe(recipe), indent=2), "```"]
