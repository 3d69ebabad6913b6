"""Measure a model on a dataset: retrieval of whole videos or clips, moments, step localization, matched captions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tempclr.evaluation.protocols import BACKGROUNDS, COMBINATIONS, MEASURES, PROTOCOLS, SIMILARITIES, TASKS

    parser.add_argument(
        "task", choices=TASKS, help="what to measure; another task, with its own options: evaluate few-shot --help"
    )
    parser.add_argument("--model", required=True, help="model folder or Hub id")
    parser.add_argument("--dataset", required=True, help="dataset folder, .parquet, .json, .jsonl or Hub id")
    parser.add_argument("--output", type=Path, help="where the results go, a .json file")
    parser.add_argument(
        "--report", type=Path, help="a folder for results.json, a page beside the paper's numbers, and pictures"
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        default=["clean"],
        help="clean (default); official reproduces the released evaluation, defects included; both may be given",
    )
    parser.add_argument("--split", help="split of the dataset (default: all rows)")
    parser.add_argument("--skip_bad_rows", action="store_true", help="leave bad rows out, count and list them")
    parser.add_argument("--batch_size", type=int, default=64, help="sentences or clips embedded at once (default 64)")
    parser.add_argument("--device", help="device of the model (default: cuda where present, else cpu)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument(
        "--similarity", choices=SIMILARITIES, help="of the clean protocol (default: cosine; localization: the model's)"
    )
    retrieval = parser.add_argument_group("retrieval")
    retrieval.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES), help="default: all")
    retrieval.add_argument(
        "--background", nargs="+", choices=BACKGROUNDS, default=list(BACKGROUNDS), help="default: both"
    )
    retrieval.add_argument(
        "--combination",
        choices=COMBINATIONS,
        help="how a distance and Cap. Avg. add up: standardised (default), or with the released constant (official)",
    )
    retrieval.add_argument(
        "--window_seconds", type=float, default=16.0, help="window where the background is kept (default 16)"
    )
    retrieval.add_argument("--stride_seconds", type=float, help="default: as long as the window")


def run(arguments: argparse.Namespace) -> int:
    """Measure, then write and tell what was found; under torchrun the ranks share the work and the first one tells."""
    from tempclr.distributed import joined_ranks

    with joined_ranks():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from tempclr.data.files import check_output_file, check_output_folder
    from tempclr.data.rows import check_recipe, dataset_recipe, load_rows, read_paragraphs
    from tempclr.distributed import rank
    from tempclr.errors import InputError
    from tempclr.evaluation.report import write_results
    from tempclr.evaluation.report_pages import comparison_tables, write_report
    from tempclr.evaluation.suite import measure_task
    from tempclr.recipes.model_folders import read_config

    if arguments.output is None and arguments.report is None:
        raise InputError("say where the results go: --output results.json, --report FOLDER, or both")
    if arguments.output is not None:
        if arguments.output.suffix != ".json":
            raise InputError(f"--output takes a .json file, got {arguments.output}")
        check_output_file(arguments.output)
    if arguments.report is not None:
        check_output_folder(arguments.report)
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
    measured = measure_task(
        model,
        paragraphs,
        arguments.task,
        protocols=arguments.protocol,
        backgrounds=arguments.background,
        measures=arguments.measures,
        similarity=arguments.similarity,
        combination=arguments.combination,
        window_seconds=arguments.window_seconds,
        stride_seconds=arguments.stride_seconds,
        batch_size=arguments.batch_size,
        show_progress_bar=not arguments.quiet,
    )
    if rank() > 0:
        return 0
    reasons = [_placeless(reason, arguments) for reason in left_out]
    extra = {"left_out": {"num_rows": len(left_out), "reasons": reasons}}
    written = [path for path in (arguments.output, arguments.report) if path is not None]
    if arguments.output is not None:
        write_results(arguments.output, measured.to_dict() | extra)
    if arguments.report is not None:
        write_report(
            arguments.report,
            measured,
            model,
            paragraphs,
            model_name=Path(arguments.model).name,
            dataset_name=Path(arguments.dataset).name,
            extra_results=extra,
            show_progress_bar=not arguments.quiet,
        )
    print(comparison_tables(measured)[0])
    for reason in left_out:
        print(f"left out: {reason}")
    if left_out:
        print(f"{len(paragraphs)} rows measured, {len(left_out)} left out")
    print(f"wrote {', '.join(map(str, written))}")
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
    from tempclr.evaluation.localization import features_and_rate, step_texts

    def check(paragraph: Any) -> None:
        features, _ = features_and_rate(paragraph)
        if features.shape[1] != feature_size:
            raise InputError(f"width {features.shape[1]}, but the model takes {feature_size}", field="features")
        steps = len(step_texts(paragraph))
        if task == "localization" and len(features) < steps:
            what = "sentences" if paragraph.steps is None else "steps"
            found = f"{steps} {what} for {len(features)} features, localization needs one each"
            raise InputError(f"{found}: extract more features a second or leave the row out", field=what)
        if task == "moments" and paragraph.annotator_spans is None:
            raise InputError("missing: moment ranking needs the spans of each annotator", field="annotator_spans")

    return check


def _placeless(reason: str, arguments: argparse.Namespace) -> str:
    """The reason without this machine's folders, so that the results file is the same wherever the dataset lies."""
    _, found, rest = reason.partition(", row ")
    reason = f"row {rest}" if found else reason
    dataset = Path(arguments.dataset)
    folder = dataset if dataset.is_dir() else dataset.parent
    return reason.replace(f"{folder}/", "")
