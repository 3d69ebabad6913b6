"""Measure a model on a dataset: full-video retrieval, step localization, or the share of matched captions and clips."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

TASKS = ("retrieval", "localization", "matching")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tempclr.evaluation.protocols import BACKGROUNDS, MEASURES, SIMILARITIES

    parser.add_argument("task", choices=TASKS, help="what to measure")
    parser.add_argument("--model", required=True, help="model folder or Hub id")
    parser.add_argument("--dataset", required=True, help="dataset folder, .parquet, .json, .jsonl or Hub id")
    parser.add_argument("--output", required=True, type=Path, help="where the results go, a .json file")
    parser.add_argument("--split", help="split of the dataset (default: all rows)")
    parser.add_argument("--skip_bad_rows", action="store_true", help="leave bad rows out, count and list them")
    parser.add_argument("--batch_size", type=int, default=64, help="sentences or clips embedded at once (default 64)")
    parser.add_argument("--device", help="device of the model (default: cuda where present, else cpu)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    retrieval = parser.add_argument_group("retrieval")
    retrieval.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES), help="default: all")
    retrieval.add_argument(
        "--background", nargs="+", choices=BACKGROUNDS, default=list(BACKGROUNDS), help="default: both"
    )
    retrieval.add_argument("--similarity", choices=SIMILARITIES, default="cosine", help="default: cosine")
    retrieval.add_argument(
        "--window_seconds", type=float, default=16.0, help="window where the background is kept (default 16)"
    )
    retrieval.add_argument("--stride_seconds", type=float, help="default: as long as the window")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.data.files import check_output_file
    from tempclr.data.rows import check_recipe, dataset_recipe, load_rows, read_paragraphs
    from tempclr.errors import InputError
    from tempclr.evaluation.report import write_results
    from tempclr.recipes.model_folders import read_config

    if arguments.output.suffix != ".json":
        raise InputError(f"--output takes a .json file, got {arguments.output}")
    check_output_file(arguments.output)
    # Loading the model comes last, so that mistakes are told at once.
    config = read_config(arguments.model)
    check_recipe(
        config.video_config.feature_recipe,
        dataset_recipe(arguments.dataset),
        what=f"model {arguments.model!r} and dataset {arguments.dataset!r}",
    )
    rows = load_rows(arguments.dataset, split=arguments.split, skip_bad_rows=arguments.skip_bad_rows)
    paragraphs, left_out = read_paragraphs(
        rows,
        source=arguments.dataset,
        skip_bad_rows=arguments.skip_bad_rows,
        check=_suits(arguments.task, config.video_config.feature_size),
    )
    model = load_model(arguments.model, device=arguments.device)
    results, table = _evaluate(model, paragraphs, arguments)
    results["left_out"] = {"num_rows": len(left_out), "reasons": [_placeless(reason, arguments) for reason in left_out]}
    write_results(arguments.output, results)
    print(table)
    for reason in left_out:
        print(f"left out: {reason}")
    if left_out:
        print(f"{len(paragraphs)} rows measured, {len(left_out)} left out")
    print(f"wrote {arguments.output}")
    return 0


def load_model(source: str, *, device: str | None = None) -> Any:
    """The whole model in evaluation mode, on ``device`` or CUDA where there is one."""
    from tempclr.data.extractor import pick_device
    from tempclr.recipes.model_folders import read_model

    chosen = pick_device(device)
    return read_model(source).to(chosen)


def _suits(task: str, feature_size: int) -> Callable[[Any], None]:
    """What a paragraph must have, beyond being sound, to be measured."""
    from tempclr.errors import InputError
    from tempclr.evaluation.localization import features_and_rate

    def check(paragraph: Any) -> None:
        features, _ = features_and_rate(paragraph)
        if features.shape[1] != feature_size:
            raise InputError(f"width {features.shape[1]}, but the model takes {feature_size}", field="features")
        if task == "localization" and len(features) < len(paragraph):
            found = f"{len(paragraph)} sentences for {len(features)} features, localization needs one each"
            raise InputError(f"{found}: extract more features a second or leave the row out", field="sentences")

    return check


def _placeless(reason: str, arguments: argparse.Namespace) -> str:
    """The reason without this machine's folders, so that the results file is the same wherever the dataset lies."""
    _, found, rest = reason.partition(", row ")
    reason = f"row {rest}" if found else reason
    dataset = Path(arguments.dataset)
    folder = dataset if dataset.is_dir() else dataset.parent
    return reason.replace(f"{folder}/", "")


def _evaluate(model: Any, paragraphs: Any, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from tempclr.evaluation.localization import evaluate_localization
    from tempclr.evaluation.matching import evaluate_matching
    from tempclr.evaluation.report import markdown_table, retrieval_table
    from tempclr.evaluation.retrieval import evaluate_retrieval

    options: dict[str, Any] = {"batch_size": arguments.batch_size, "show_progress_bar": not arguments.quiet}
    if arguments.task == "localization":
        localized = evaluate_localization(model, paragraphs, **options)
        rows = [*localized.recall_per_task.items(), ("mean", localized.recall)]
        return {"localization": localized}, markdown_table(["task", "recall"], [list(row) for row in rows])
    if arguments.task == "matching":
        matched = evaluate_matching(model, paragraphs, similarity=arguments.similarity, **options)
        return {"matching": matched}, markdown_table(
            ["videos", "matched sentences"], [[matched.num_videos, matched.match_share]]
        )
    results = {
        f"background {background}": evaluate_retrieval(
            model,
            paragraphs,
            background=background,
            measures=list(dict.fromkeys(arguments.measures)),
            similarity=arguments.similarity,
            window_seconds=arguments.window_seconds,
            stride_seconds=arguments.stride_seconds,
            **options,
        )
        for background in dict.fromkeys(arguments.background)
    }
    return {"retrieval": results}, retrieval_table(results, first_column="protocol")
