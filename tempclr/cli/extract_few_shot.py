"""Features of a few frames of each video of few-shot splits. Run again after an interruption, it goes on."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tempclr.data.few_shot_features import PREPROCESSINGS
    from tempclr.data.few_shot_frames import SAMPLINGS

    parser.add_argument("--few_shot", required=True, metavar="SPLITS", help="folder of train, val and test split files")
    parser.add_argument("--videos", required=True, help="folder of video files, or of folders of images")
    parser.add_argument("--output", required=True, help="folder for features, rows and feature_recipe.json")
    parser.add_argument("--backbone", required=True, help="folder or Hub id of ResNet-50 or another vision model")
    parser.add_argument("--num_frames", type=int, default=8, help="frames cached of each video (default 8)")
    parser.add_argument("--sampling", choices=SAMPLINGS, default="tsn", help="which frames (default tsn)")
    parser.add_argument(
        "--preprocessing", choices=list(PREPROCESSINGS), default="own", help="of pixels (default: the encoder's own)"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="frames encoded at a time (default 32)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--skip_missing", action="store_true", help="leave out videos missing or broken, and list them")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.data.few_shot_features import extract_few_shot_features

    report = extract_few_shot_features(
        arguments.few_shot,
        videos=arguments.videos,
        output_dir=arguments.output,
        backbone=arguments.backbone,
        num_frames=arguments.num_frames,
        sampling=arguments.sampling,
        preprocessing=arguments.preprocessing,
        batch_size=arguments.batch_size,
        device=arguments.device,
        skip_missing=arguments.skip_missing,
        show_progress_bar=not arguments.quiet,
    )
    for reason in report.left_out:
        print(f"left out: {reason}")
    told = f"{report.num_extracted} extracted, {report.num_kept} already there, {len(report.left_out)} left out"
    print(f"{told}; wrote {arguments.output}")
    return 0
