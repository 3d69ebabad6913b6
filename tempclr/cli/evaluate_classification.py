"""Measure an encoder of clips or a classifier: accuracy over videos, or retrieval of videos of the same class."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tempclr.data.clip_sampling import SHORT_VIDEOS
    from tempclr.evaluation.video_retrieval import RETRIEVAL_KS

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
    parser.add_argument("--ks", type=int, nargs="+", default=list(RETRIEVAL_KS), help="of R@k (default 1 5 10 20)")
    parser.add_argument("--train_fraction", type=float, default=1.0, help="share of each class with labels (default 1)")
    parser.add_argument("--subset", type=int, default=0, help="which random share (the paper averages over 0, 1, 2)")
    parser.add_argument("--standardize", action="store_true", help="scale features before the linear layer")
    parser.add_argument("--short_videos", choices=SHORT_VIDEOS, default="loop", help="default loop")
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
    if min(arguments.ks) < 1:
        raise InputError(f"--ks must be at least 1, got {min(arguments.ks)}")
    check_output_file(arguments.output)
    classify = arguments.task == "classification" and is_classifier(arguments.model)
    measured = read_action_videos(arguments.dataset, split=arguments.split, needs_labels=True)
    train = None
    if not classify:
        train = _training_videos(arguments, measured)
    device = pick_device(arguments.device)
    evaluate = _classify if classify else _from_features
    results = evaluate(arguments, measured, train, device)
    protocol = {"num_clips": arguments.num_clips, "skip": arguments.skip, "short_videos": arguments.short_videos}
    write_results(arguments.output, {arguments.task: results, "protocol": protocol})
    print(f"wrote {arguments.output}")
    return 0


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


def _classify(arguments: argparse.Namespace, measured: list[Any], train: Any, device: Any) -> Any:
    from tempclr.evaluation.classification import score_probabilities
    from tempclr.evaluation.classification_features import clip_probabilities
    from tempclr.models.tclr import TCLRForVideoClassification
    from tempclr.recipes.tclr_folders import read_clip_model

    model = read_clip_model(arguments.model, TCLRForVideoClassification).to(device)
    classes = [model.config.id2label[number] for number in range(model.config.num_labels)]
    probabilities, labels = _over_clips(clip_probabilities, model, model.config.backbone_config, measured, arguments)
    result = score_probabilities(probabilities, labels, classes=classes)
    _say(result)
    return result


def _from_features(arguments: argparse.Namespace, measured: list[Any], train: Any, device: Any) -> Any:
    from tempclr.evaluation.classification import LinearSettings, labelled_share, linear_evaluation
    from tempclr.evaluation.classification_features import clip_features, video_vectors
    from tempclr.evaluation.video_retrieval import retrieve_neighbours
    from tempclr.recipes.tclr_folders import read_backbone

    kept = labelled_share([video.label for video in train], arguments.train_fraction, seed=arguments.subset)
    train = [train[place] for place in kept]
    backbone = read_backbone(arguments.model).to(device)
    seen = [_over_clips(clip_features, backbone, backbone.config, videos, arguments) for videos in (train, measured)]
    sides, labels = zip(*seen, strict=True)
    if arguments.task == "nn-retrieval":
        vectors = [video_vectors(side) for side in sides]
        found = retrieve_neighbours(vectors[1], labels[1], vectors[0], labels[0], ks=arguments.ks)
        told = ", ".join(f"R@{k} {100 * value:.1f} %" for k, value in found.recalls.items())
        print(f"{told} of {found.num_queries} videos among {found.num_gallery}")
        return found
    settings = LinearSettings(standardize=arguments.standardize)
    means = [side.mean(dim=2) for side in sides]
    linear = linear_evaluation(means[0], labels[0], means[1], labels[1], settings=settings, seed=arguments.seed)
    _say(linear)
    return linear


def _over_clips(
    function: Any, model: Any, config: Any, videos: list[Any], arguments: argparse.Namespace
) -> tuple[Any, list[str]]:
    """What the function finds, and the classes of the videos, without those dropped as too short; they are told."""
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
        short_side=240,
    )
    loader = DataLoader(
        clips, batch_size=arguments.batch_size, num_workers=arguments.num_workers, collate_fn=action_collate
    )
    found = function(model, loader, num_batches=len(loader), show_progress_bar=not arguments.quiet)
    dropped = set(clips.left_out["too_short"])
    for video_id in sorted(dropped):
        print(f"left out: {video_id} (too short)")
    return found, [video.label for video in videos if video.video_id not in dropped]


def _say(result: Any) -> None:
    clips = f"{result.num_clips} clips averaged; {100 * result.accuracy_one_clip:.1f} % from one"
    print(f"accuracy {100 * result.accuracy:.1f} % of {result.num_videos} videos ({clips})")
