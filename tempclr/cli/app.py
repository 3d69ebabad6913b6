"""A page in the browser: give a video and its sentences, see when each happens, play the video from there."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="model folder ('tempclr demo' makes one) or Hub id")
    parser.add_argument("--examples", help="dataset whose rows have a video (default: a few videos are generated)")
    parser.add_argument("--host", help="address to listen on (default: this machine alone; 0.0.0.0 is every one)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--device", help="device of the model (default: cuda where present, else cpu)")
    parser.add_argument("--max_minutes", type=float, default=30.0, help="longer videos are refused (default 30)")
    parser.add_argument("--space_dir", type=Path, help="write the files of a Hub Space into this folder and end")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.app import serve, write_space

    if arguments.space_dir is not None:
        for path in write_space(arguments.space_dir, arguments.model):
            print(f"wrote {path}")
        return 0
    serve(
        arguments.model,
        examples=arguments.examples,
        host=arguments.host,
        port=arguments.port,
        device=arguments.device,
        max_minutes=arguments.max_minutes,
    )
    return 0
