"""Videos to feature vectors, one a second, by a frozen encoder. Run again after an interruption, it goes on."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``tempclr extract``."""
    parser.add_argument("--videos", required=True, help="a folder of video files, or a dataset whose rows name videos")
    parser.add_argument("--output", required=True, help="folder for features, rows and feature_recipe.json")
    parser.add_argument(
        "--backbone",
        required=True,
        help="efficientnet_lite0, or folder or Hub id of a Hugging Face vision or video model (S3D-G)",
    )
    parser.add_argument("--split", help="only this split of the dataset (default: all)")
    parser.add_argument(
        "--frames_per_second", type=float, help="frames sampled (default: as the backbone asks, else 2)"
    )
    parser.add_argument("--features_per_second", type=float, default=1.0, help="features made of them (default 1)")
    parser.add_argument("--image_size", type=int, help="side of what the encoder sees, in pixels (default: its own)")
    parser.add_argument("--no_l2_normalize", action="store_true", help="leave features at the length they have")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the feature files")
    parser.add_argument(
        "--batch_size", type=int, default=32, help="frames encoded at a time, at least a clip (default 32)"
    )
    parser.add_argument("--num_workers", type=int, help="videos worked on at the same time (default: one a core)")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), help="of the encoder (default: float32, on CUDA bfloat16)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--isolate_decoding", action="store_true", help="decode in processes with limits: for videos of unknown origin"
    )
    parser.add_argument("--skip_bad_rows", action="store_true", help="leave bad rows and videos out, and list them")


def run(arguments: argparse.Namespace) -> int:
    """Extract, then say in one line what was done; rows left out are listed on standard error."""
    from tempclr.distributed import joined_ranks

    with joined_ranks():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from tempclr.data.features import extract_features
    from tempclr.distributed import rank

    report = extract_features(
        arguments.videos,
        output_dir=arguments.output,
        backbone=arguments.backbone,
        split=arguments.split,
        frames_per_second=arguments.frames_per_second,
        features_per_second=arguments.features_per_second,
        image_size=arguments.image_size,
        l2_normalize=not arguments.no_l2_normalize,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        device=arguments.device,
        precision=arguments.precision,
        skip_bad_rows=arguments.skip_bad_rows,
        isolate_decoding=arguments.isolate_decoding,
    )
    if rank() > 0:
        return 0
    for reason in report.reasons:
        print(f"left out: {reason}", file=sys.stderr)
    done = f"{report.num_extracted} videos extracted, {report.num_kept} already there"
    print(f"{done}, {report.num_rows} rows written, {len(report.reasons)} left out: {arguments.output}")
    return 0
