"""Measure a model on a dataset: full-video retrieval, step localization, or the share of matched captions and clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "retrieval, localization and matching"
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
    from tempclr.data.rows import check_recipe, dataset_recipe, load_rows, read_paragraphs
    from tempclr.errors import InputError
    from tempclr.evaluation.report import write_results

    if arguments.output.suffix != ".json":
        raise InputError(f"--output takes a .json file, got {arguments.output}")
    # Loading the model comes last, so that mistakes are told at once.
    config = load_config(arguments.model)
    check_recipe(
        config.video_config.feature_recipe,
        dataset_recipe(arguments.dataset),
        what=f"model {arguments.model!r} and dataset {arguments.dataset!r}",
    )
    rows = load_rows(arguments.dataset, split=arguments.split)
    paragraphs, left_out = read_paragraphs(rows, source=arguments.dataset, skip_bad_rows=arguments.skip_bad_rows)
    model = load_model(arguments.model, device=arguments.device)
    results, table = _evaluate(model, paragraphs, arguments)
    results["left_out"] = {"num_rows": len(left_out), "reasons": [_placeless(reason, arguments) for reason in left_out]}
    write_results(arguments.output, results)
    print(table)
    for reason in left_out:
        print(f"left out: {reason}")
    print(f"wrote {arguments.output}")
    return 0


def load_config(source: str) -> Any:
    """The model's configuration; a folder that holds no whole model is told in one line."""
    from tempclr.errors import InputError
    from tempclr.models.tempclr import TempCLRConfig

    folder = Path(source)
    if not folder.exists() and (folder.is_absolute() or source.startswith(".") or len(folder.parts) != 2):
        raise InputError(f"no model folder {source}: give a folder that save_pretrained wrote, or a Hub id owner/name")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError("no config.json here: give a folder that save_pretrained wrote", file=source)
        if not any(folder.glob("*.safetensors")):
            raise InputError(
                "this model folder has no weights (*.safetensors): did its training end early?", file=source
            )
    return TempCLRConfig.from_pretrained(source)


def load_model(source: str, *, device: str | None = None) -> Any:
    """The model in evaluation mode, on ``device`` or CUDA where there is one; checks as :func:`load_config`."""
    import torch

    from tempclr.models.tempclr import TempCLRModel

    config = load_config(source)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return TempCLRModel.from_pretrained(source, config=config).to(chosen).eval()


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
