"""Find each sentence of a text file in one video and print when it starts and ends."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

MEASURES = ("dtw", "otam", "localize")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="model folder or Hub id")
    parser.add_argument("--video", required=True, type=Path, help="video file")
    parser.add_argument("--sentences", required=True, type=Path, help="text file, one sentence a line, in time order")
    parser.add_argument(
        "--measure",
        choices=MEASURES,
        default="dtw",
        help="dtw gives each second to a sentence, otam may leave the ends, localize picks one second a sentence",
    )
    parser.add_argument("--plot", type=Path, help="also draw the alignment, a .png file")
    parser.add_argument("--json", type=Path, help="also write the alignment, a .json file")
    parser.add_argument("--device", help="device of the model (default: cuda where present, else cpu)")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.cli.evaluate import load_model
    from tempclr.data.files import atomic_path, check_output_file
    from tempclr.errors import InputError
    from tempclr.evaluation.report import markdown_table

    for option, suffix in (("plot", ".png"), ("json", ".json")):
        wanted = getattr(arguments, option)
        if wanted is not None and wanted.suffix != suffix:
            raise InputError(f"--{option} takes a {suffix} file, got {wanted}")
        if wanted is not None:
            check_output_file(wanted)
    sentences = read_sentences(arguments.sentences)
    if not arguments.video.is_file():
        raise InputError("no such video file", file=arguments.video)
    model = load_model(arguments.model, device=arguments.device)
    alignment = model.align(str(arguments.video), sentences, measure=arguments.measure)
    rows = [
        [span["sentence"], span["start_seconds"], span["end_seconds"], span["similarity"]] for span in alignment.spans
    ]
    print(markdown_table(["sentence", "start", "end", "similarity"], rows, digits=2))
    if arguments.json is not None:
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(alignment.to_json() + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    if arguments.plot is not None:
        _plot(alignment, arguments)
        print(f"wrote {arguments.plot}")
    return 0


def read_sentences(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, stripped, empty ones left out."""
    from tempclr.errors import InputError

    if not path.is_file():
        raise InputError("no such file of sentences", file=path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8 text, got other bytes at position {error.start}", file=path) from error
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        raise InputError("expected one sentence a line, the file has none", file=path)
    return sentences


def _plot(alignment: Any, arguments: argparse.Namespace) -> None:
    from tempclr.data.video import read_frames
    from tempclr.plots import plot_alignment

    frames, frame_seconds = read_frames(arguments.video, frames_per_second=alignment.features_per_second)
    plot_alignment(
        alignment, frames=frames, frame_seconds=frame_seconds, title=arguments.video.name, path=arguments.plot
    )
