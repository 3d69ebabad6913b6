"""Measure an encoder of clips or a classifier: accuracy over videos, or retrieval of videos of the same class."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tempclr.data.clip_sampling import SHORT_VIDEOS
    from tempclr.evaluation.video_retrieval import RETRIEVAL_KS

    neighbours = " ".join(map(str, RETRIEVAL_KS))
    parser.add_argument("task", choices=("classification", "nn-retrieval"), help="what to measure")
    parser.add_argument(
        "--model",
        required=True,
        help="folder or Hub id: a classifier, or an encoder, on which a linear layer is trained",
    )
    parser.add_argument("--dataset", required=True, help="dataset of the videos to measure: a folder, .jsonl, .parquet")
    parser.add_argument("--split", default=None, help="split of the dataset, where it has several")
    parser.add_argument(
        "--train_dataset", help="videos that train the linear layer, or among which neighbours are sought; --dataset"
    )
    parser.add_argument("--train_split", help="split of those (needed with an encoder, or for nn-retrieval)")
    parser.add_argument("--output", required=True, type=Path, help="where the results go, a .json file")
    parser.add_argument("--num_clips", type=int, default=10, help="clips of a video, evenly placed (default 10)")
    parser.add_argument("--skip", type=int, default=2, help="a clip's frames are so many apart (default 2)")
    parser.add_argument("--ks", type=int, nargs="+", help=f"of R@k, for nn-retrieval (default {neighbours})")
    parser.add_argument(
        "--train_fraction", type=float, help="share of each class's training videos with labels (default 1)"
    )
    parser.add_argument("--subset", type=int, help="which random share, default 0 (the paper averages over 0, 1, 2)")
    parser.add_argument(
        "--standardize", action="store_true", default=None, help="scale features before the linear layer"
    )
    parser.add_argument("--short_videos", choices=SHORT_VIDEOS, default="loop", help="default loop")
    parser.add_argument("--frames_per_second", type=float, help="rate at which frames are counted (default: their own)")
    parser.add_argument("--skip_unreadable", action="store_true", help="leave unreadable videos out and list them")
    parser.add_argument("--batch_size", type=int, default=4, help="videos at once (default 4)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read videos (default 0)")
    parser.add_argument("--device", help="device of the model (default: cuda where present, else cpu)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.data.action_videos import read_action_videos
    from tempclr.data.extractor import pick_device
    from tempclr.data.files import check_output_file
    from tempclr.errors import InputError
    from tempclr.evaluation.report import write_results
    from tempclr.recipes.tclr_folders import is_classifier

    if arguments.output.suffix != ".json":
        raise InputError(f"--output takes a .json file, got {arguments.output}")
    for name in ("num_clips", "skip", "batch_size"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    if arguments.frames_per_second is not None and not arguments.frames_per_second > 0:
        raise InputError(f"--frames_per_second must be above 0, got {arguments.frames_per_second}")
    check_output_file(arguments.output)
    classify = arguments.task == "classification" and is_classifier(arguments.model)
    protocol = _protocol(arguments, classify)
    measured = read_action_videos(arguments.dataset, split=arguments.split, needs_labels=True)
    train = None
    if not classify:
        train = _training_videos(arguments, measured)
    device = pick_device(arguments.device)
    evaluate = _classify if classify else _from_features
    results, left_out = evaluate(arguments, measured, train, device)
    write_results(arguments.output, {arguments.task: results, "protocol": protocol, "left_out": left_out})
    print(f"wrote {arguments.output}")
    return 0


# What each way of measuring takes beyond the options of all; the rest would change nothing, so it is refused.
_TAKEN = {
    "classification by a classifier": (),
    "classification by an encoder": ("train_dataset", "train_split", "train_fraction", "subset", "standardize"),
    "nn-retrieval": ("train_dataset", "train_split", "train_fraction", "subset", "ks"),
}


def _protocol(arguments: argparse.Namespace, classify: bool) -> dict[str, Any]:
    """Fill in the defaults of the options that this way of measuring takes; what the results file says of them."""
    from tempclr.errors import InputError
    from tempclr.evaluation.video_retrieval import RETRIEVAL_KS

    way = arguments.task
    if way == "classification":
        way += " by a classifier" if classify else " by an encoder"
    for name in ("train_dataset", "train_split", "train_fraction", "subset", "standardize", "ks"):
        if getattr(arguments, name) is not None and name not in _TAKEN[way]:
            raise InputError(f"--{name} changes nothing in {way}: leave it out")
    defaults = {"train_fraction": 1.0, "subset": 0, "standardize": False, "ks": list(RETRIEVAL_KS)}
    for name, default in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    if min(arguments.ks) < 1:
        raise InputError(f"--ks must be at least 1, got {min(arguments.ks)}")
    told = ["num_clips", "skip", "short_videos", "frames_per_second"]
    told += [name for name in ("train_fraction", "subset", "standardize") if name in _TAKEN[way]]
    told += ["seed"] if way == "classification by an encoder" else []
    return {name: getattr(arguments, name) for name in told}


def _training_videos(arguments: argparse.Namespace, measured: list[Any]) -> list[Any]:
    from tempclr.data.action_videos import read_action_videos
    from tempclr.errors import InputError

    if arguments.train_dataset is None and arguments.train_split is None:
        use = "neighbours are sought among" if arguments.task == "nn-retrieval" else "a linear layer is trained on"
        raise InputError(f"{use} training videos: name them by --train_dataset, --train_split or both")
    source = arguments.train_dataset or arguments.dataset
    videos = read_action_videos(source, split=arguments.train_split, needs_labels=True)
    shared = {video.video_id for video in videos} & {video.video_id for video in measured}
    if shared:
        raise InputError(f"{len(shared)} videos, as {min(shared)!r}, are among the training videos and measured too")
    return videos


def _classify(arguments: argparse.Namespace, measured: list[Any], train: Any, device: Any) -> tuple[Any, Any]:
    from tempclr.evaluation.classification import score_probabilities
    from tempclr.evaluation.classification_features import clip_probabilities
    from tempclr.models.tclr import TCLRForVideoClassification
    from tempclr.recipes.tclr_folders import read_clip_model

    model = read_clip_model(arguments.model, TCLRForVideoClassification).to(device)
    classes = [model.config.id2label[number] for number in range(model.config.num_labels)]
    probabilities, labels, left_out = _over_clips(
        clip_probabilities, model, model.config.backbone_config, measured, arguments
    )
    result = score_probabilities(probabilities, labels, classes=classes)
    _say(result)
    return result, {"dataset": left_out}


def _from_features(arguments: argparse.Namespace, measured: list[Any], train: Any, device: Any) -> tuple[Any, Any]:
    from tempclr.evaluation.classification import LinearSettings, labelled_share, linear_evaluation
    from tempclr.evaluation.classification_features import clip_features, video_vectors
    from tempclr.evaluation.video_retrieval import retrieve_neighbours
    from tempclr.recipes.tclr_folders import read_backbone

    kept = labelled_share([video.label for video in train], arguments.train_fraction, seed=arguments.subset)
    train = [train[place] for place in kept]
    backbone = read_backbone(arguments.model).to(device)
    seen = [_over_clips(clip_features, backbone, backbone.config, videos, arguments) for videos in (train, measured)]
    sides, labels, left_out = zip(*seen, strict=True)
    both = dict(zip(("train_dataset", "dataset"), left_out, strict=True))
    if arguments.task == "nn-retrieval":
        vectors = [video_vectors(side) for side in sides]
        found = retrieve_neighbours(vectors[1], labels[1], vectors[0], labels[0], ks=arguments.ks)
        told = ", ".join(f"R@{k} {100 * value:.1f} %" for k, value in found.recalls.items())
        print(f"{told} of {found.num_queries} videos among {found.num_gallery}")
        return found, both
    settings = LinearSettings(standardize=arguments.standardize)
    means = [side.mean(dim=2) for side in sides]
    linear = linear_evaluation(means[0], labels[0], means[1], labels[1], settings=settings, seed=arguments.seed)
    _say(linear)
    return linear, both


def _over_clips(
    function: Any, model: Any, config: Any, videos: list[Any], arguments: argparse.Namespace
) -> tuple[Any, list[str], dict[str, list[str]]]:
    """What the function finds, the classes of the videos, and which of them were left out, which is told."""
    from functools import partial

    from torch.utils.data import DataLoader

    from tempclr.data.action_videos import ActionClips, action_collate
    from tempclr.recipes.tclr_classification import ClassificationArguments

    clips = ActionClips(
        videos,
        num_clips=arguments.num_clips,
        num_frames=config.num_frames,
        skip=arguments.skip,
        augmentation=ClassificationArguments().recipe(config.image_size),
        short_videos=arguments.short_videos,
        frames_per_second=arguments.frames_per_second,
        short_side=240,
        unreadable_videos="skip" if arguments.skip_unreadable else "raise",
    )
    loader = DataLoader(
        clips,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        collate_fn=partial(action_collate, may_be_empty=True),
    )
    found = function(model, loader, num_batches=len(loader), show_progress_bar=not arguments.quiet)
    for reason, video_ids in clips.left_out.items():
        for video_id in video_ids:
            print(f"left out: {video_id} ({reason.replace('_', ' ')})")
    return found, [str(video.label) for video in clips.kept_videos], clips.left_out


def _say(result: Any) -> None:
    clips = f"{result.num_clips} clips averaged; {100 * result.accuracy_one_clip:.1f} % from one"
    print(f"accuracy {100 * result.accuracy:.1f} % of {result.num_videos} videos ({clips})")
