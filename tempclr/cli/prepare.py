"""Official files of a corpus to dataset rows. Run again after an interruption, it goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

CORPORA = {
    "howto100m": "raw_caption.json or .pkl, and lists of ids",
    "youcook2": "youcookii_annotations_trainval.json",
    "crosstask": "the folder of the release, which has tasks_primary.txt",
    "didemo": "train_data.json, val_data.json, test_data.json",
    "coin": "COIN.json",
    "activitynet": "train.json, val_1.json, val_2.json of ActivityNet-Captions",
}
ACTIONS = {
    "ucf101": "the folder ucfTrainTestlist",
    "hmdb51": "the folder of <class>_test_split1.txt and so on",
    "kinetics": "train.csv, val.csv, test.csv of Kinetics-400, -600 or -700",
    "diving48": "Diving48_V2_train.json, Diving48_V2_test.json and Diving48_vocab.json",
}
_MAX_REASONS = 20  # of those on the terminal; the report has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``tempclr prepare``, those of each corpus under its name."""
    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True)
    for name, files in CORPORA.items():
        corpus = corpora.add_parser(name, help=f"from {files}", description=f"{name}: from {files}.")
        told = files if name == "crosstask" else f"{files}; or the folder that has them"
        corpus.add_argument("--annotations", required=True, nargs="+", metavar="PATH", help=told)
        _add_common(corpus)
        if name in _OPTIONS:
            _OPTIONS[name](corpus)
    for name, files in ACTIONS.items():
        corpus = corpora.add_parser(name, help=f"labelled videos, from {files}", description=f"{name}: from {files}.")
        _add_actions(corpus, name, files)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", metavar="DIR", help="folder with <video_id>.npy or .safetensors, or shards")
    parser.add_argument("--videos", metavar="DIR", help="folder with video files instead, for tempclr extract")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the rows and report.json")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="only these splits (default: all)")
    parser.add_argument(
        "--store",
        choices=("rows", "paths"),
        default="rows",
        help="features within the rows, to move, push and stream (default), or the paths of their files",
    )
    parser.add_argument("--fp16", action="store_true", help="features within the rows as float16 (default: float32)")
    parser.add_argument("--features_per_second", type=float, help="of the features (default: their recipe's, else 1)")
    parser.add_argument("--skip_bad_rows", action="store_true", help="leave bad records out, and list them")
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="seed of every random choice (default 0)")


def _add_actions(parser: argparse.ArgumentParser, name: str, files: str) -> None:
    parser.add_argument("--annotations", required=True, nargs="+", metavar="PATH", help=files)
    parser.add_argument("--videos", metavar="DIR", help="folder with the video files, sub-folders included")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the rows and report.json")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="only these splits (default: all)")
    parser.add_argument("--skip_bad_rows", action="store_true", help="leave bad records out, and list them")
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="as every command; nothing is random here")
    if name in ("ucf101", "hmdb51"):
        parser.add_argument("--fold", type=int, choices=(1, 2, 3), default=1, help="official split (default 1)")
    if name == "diving48":
        parser.add_argument("--version", choices=("v1", "v2"), default="v2", help="of the labels (default v2)")


def _add_howto100m(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lists", nargs="+", default=[], metavar="FILE", help="ids of a split, named train, val or test"
    )
    parser.add_argument(
        "--deduplicate",
        choices=("words", "characters"),
        help="say once what neighbouring captions repeat: by words, or by characters as released (default: neither)",
    )


def _add_youcook2(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--validation_clips", metavar="FILE", help="keep only these validation clips: validation_youcook.csv"
    )


def _add_crosstask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split_rule",
        choices=("fixed", "released"),
        default="fixed",
        help="draw the split from videos.csv (default), or as released from the features that are there",
    )
    parser.add_argument("--num_train_videos", type=int, default=30, help="drawn from each task (default 30)")


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "howto100m": _add_howto100m,
    "youcook2": _add_youcook2,
    "crosstask": _add_crosstask,
}


def run(arguments: argparse.Namespace) -> int:
    """Prepare, then say what was done and what was left out."""
    if arguments.corpus in ACTIONS:
        return _run_actions(arguments)
    from tempclr.data.readers import prepare_corpus

    report = prepare_corpus(
        lambda available: _read(arguments, available),
        corpus=arguments.corpus,
        output_dir=arguments.output,
        features=arguments.features,
        videos=arguments.videos,
        splits=arguments.splits,
        store=arguments.store,
        fp16=arguments.fp16,
        features_per_second=arguments.features_per_second,
        skip_bad_rows=arguments.skip_bad_rows,
    )
    _print_left_out(report)
    for split, totals in report.splits.items():
        print(f"{split}: {_told(totals)}")
    state = "written" if report.is_new else "already there, from the same files and options"
    print(f"{sum(total['num_videos'] for total in report.splits.values())} videos {state}: {arguments.output}")
    return 0


def _run_actions(arguments: argparse.Namespace) -> int:
    from tempclr.data import readers

    options = {name: getattr(arguments, name) for name in ("fold", "version") if hasattr(arguments, name)}
    report = readers.prepare_actions(
        getattr(readers, f"read_{arguments.corpus}")(arguments.annotations, **options),
        corpus=arguments.corpus,
        output_dir=arguments.output,
        videos=arguments.videos,
        splits=arguments.splits,
        skip_bad_rows=arguments.skip_bad_rows,
    )
    _print_left_out(report)
    for split, totals in report.splits.items():
        print(f"{split}: {totals['num_videos']} of {totals['num_listed']} videos, {totals['num_labels']} classes")
    print(f"{sum(total['num_videos'] for total in report.splits.values())} videos written: {arguments.output}")
    return 0


def _read(arguments: argparse.Namespace, available: Any) -> Any:
    from tempclr.data import readers

    options: dict[str, Any] = {}
    if arguments.corpus == "howto100m":
        options = {"lists": arguments.lists, "deduplicate": arguments.deduplicate, "seed": arguments.seed}
    elif arguments.corpus == "youcook2":
        options = {"validation_clips": arguments.validation_clips}
    elif arguments.corpus == "crosstask":
        options = {name: getattr(arguments, name) for name in ("split_rule", "num_train_videos", "seed")}
        options["available"] = available
    return getattr(readers, f"read_{arguments.corpus}")(arguments.annotations, **options)


def _print_left_out(report: Any) -> None:
    for reason in report.reasons[:_MAX_REASONS]:
        print(f"left out: {reason}", file=sys.stderr)
    if len(report.reasons) > _MAX_REASONS:
        print(f"left out: {len(report.reasons) - _MAX_REASONS} more, see report.json", file=sys.stderr)
    for split, ids in report.without_media.items():
        shown = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
        print(f"left out: {len(ids)} videos of {split} without features or file: {shown}", file=sys.stderr)
    for what, count in report.notes.items():
        print(f"note: {what}: {count}", file=sys.stderr)
    for hint in getattr(report, "hints", ()):
        print(f"note: {hint}", file=sys.stderr)


def _told(totals: dict[str, float]) -> str:
    told = f"{totals['num_videos']} videos, {totals['num_sentences']} sentences"
    if not totals.get("video_seconds"):
        return told
    background = totals["background_seconds"] / totals["video_seconds"]
    told += f", {totals['video_seconds'] / 3600:.1f} hours of which {background:.0%} background"
    return f"{told}, {totals['num_overlapping']} sentences overlap, {totals['num_ends_cut']} end after the features"
