"""Measure few-shot classification: accuracy and its 95 % interval over episodes of classes no model has seen."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tempclr.data.few_shot_frames import SAMPLINGS
    from tempclr.evaluation.few_shot import FEW_SHOT_MEASURES

    parser.add_argument("task", choices=("few-shot",), help="what to measure")
    parser.add_argument("--model", help="folder or Hub id of a video-only model (default: the features themselves)")
    parser.add_argument("--dataset", required=True, help="dataset folder or file with features and labels, or .npz")
    parser.add_argument("--split", help="split of the dataset, where it has several")
    parser.add_argument("--output", required=True, type=Path, help="where the results go, a .json file")
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=FEW_SHOT_MEASURES,
        help="default: the model's head; without a model all but trx",
    )
    parser.add_argument("--way", type=int, default=5, help="classes of a task (default 5)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5], help="supports of each class (default 1 5)")
    parser.add_argument(
        "--num_queries", type=int, nargs="+", default=[15], help="queries of each class (default 15; public code: 1)"
    )
    parser.add_argument("--num_tasks", type=int, default=10_000, help="tasks (default 10000)")
    parser.add_argument("--gamma", type=float, help="softness of the minimum (default: the model's, else 0.1)")
    parser.add_argument("--num_frames", type=int, help="frames sampled from a sequence (default: all, or the model's)")
    parser.add_argument("--sampling", choices=SAMPLINGS, default="tsn", help="which frames (default tsn)")
    parser.add_argument("--class_weighted", action="store_true", help="a task's accuracy is the mean over its classes")
    parser.add_argument("--shuffle_queries", action="store_true", help="control: frames of queries in random order")
    parser.add_argument("--batch_size", type=int, default=64, help="sequences embedded at once (default 64)")
    parser.add_argument("--device", help="device of the model (default: cuda where present, else cpu)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.data.extractor import pick_device
    from tempclr.data.files import check_output_file
    from tempclr.data.rows import check_recipe, dataset_recipe
    from tempclr.data.sequences import load_sequences
    from tempclr.errors import InputError
    from tempclr.evaluation.few_shot import evaluate_few_shot
    from tempclr.evaluation.report import markdown_table, write_results
    from tempclr.recipes.few_shot import read_few_shot_model

    if arguments.output.suffix != ".json":
        raise InputError(f"--output takes a .json file, got {arguments.output}")
    check_output_file(arguments.output)
    sequences = load_sequences(arguments.dataset, split=arguments.split)
    model, num_frames = None, arguments.num_frames
    if arguments.model is not None:
        model = read_few_shot_model(arguments.model).to(pick_device(arguments.device))
        what = f"model {arguments.model!r} and dataset {arguments.dataset!r}"
        check_recipe(model.config.feature_recipe, dataset_recipe(arguments.dataset), what=what)
        num_frames = model.config.max_num_frames if num_frames is None else num_frames
    measures = arguments.measures or ([None] if model is not None else ["mean_pool", "dtw", "otam", "bi_mhm"])
    results = [
        evaluate_few_shot(
            sequences,
            measure=measure,
            model=model,
            way=arguments.way,
            shot=shot,
            num_queries=num_queries,
            num_tasks=arguments.num_tasks,
            seed=arguments.seed,
            gamma=arguments.gamma,
            num_frames=num_frames,
            sampling=arguments.sampling,
            class_weighted=arguments.class_weighted,
            shuffle_queries=arguments.shuffle_queries,
            batch_size=arguments.batch_size,
            show_progress_bar=not arguments.quiet,
        )
        for measure in dict.fromkeys(measures)
        for shot in dict.fromkeys(arguments.shots)
        for num_queries in dict.fromkeys(arguments.num_queries)
    ]
    write_results(arguments.output, {"few_shot": results})
    rows = [
        [one.protocol.measure, one.protocol.shot, one.protocol.num_queries, 100 * one.accuracy, 100 * one.half_width]
        for one in results
    ]
    print(markdown_table(["measure", "shot", "queries", "accuracy, %", "± 95 %"], rows, digits=2))
    most = max(results, key=lambda one: (one.protocol.shot, one.protocol.num_queries))
    for name, count in most.short_classes.items():
        print(f"class {name!r} has videos for {count} queries only, at {most.protocol.shot} shots")
    for name, count in most.left_out_classes.items():
        print(f"left out: class {name!r} has {count} videos, too few for {most.protocol.shot} shots and a query")
    print(f"wrote {arguments.output}")
    return 0
