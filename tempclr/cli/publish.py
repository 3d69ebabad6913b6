"""Send a model folder, a dataset or the kernels to the Hugging Face Hub: a dry run that shows what would be sent,
until --yes."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", help="model folder, or with --dataset a dataset; none with --kernels")
    parser.add_argument("repo_id", nargs="?", help="namespace/name on the Hub")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dataset", action="store_true", help="the source is a dataset of rows")
    what.add_argument("--kernels", action="store_true", help="send the alignment kernels as a kernel repository")
    parser.add_argument("--yes", action="store_true", help="send; without it nothing leaves this machine")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--tag", help="name of the revision (default: the next free v1, v2, …)")
    parser.add_argument("--message", default="Publish with tempclr", help="title of the commit")
    parser.add_argument(
        "--skip_snippet", action="store_true", help="do not run the card's usage snippet before sending"
    )
    parser.add_argument(
        "--examples", help="rows with features: one video of them is aligned and drawn for the model's card"
    )
    parser.add_argument("--license", help="of a dataset, by its name on the Hub, as cc-by-4.0 (default: unknown)")
    parser.add_argument("--citation", type=Path, help="BibTeX file of those who made a dataset")
    parser.add_argument("--stage_dir", type=Path, help="keep the staged files here, in a new folder")


def run(arguments: argparse.Namespace) -> int:
    from tempclr.errors import InputError

    repo_id, source = _words(arguments)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise InputError(f"{repo_id!r} is no repository: give namespace/name")
    if arguments.stage_dir is not None:
        return _publish(arguments, source=source, repo_id=repo_id, target=arguments.stage_dir)
    with tempfile.TemporaryDirectory(prefix="tempclr-publish-") as folder:
        return _publish(arguments, source=source, repo_id=repo_id, target=Path(folder))


def _words(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """(repo_id, source): --kernels takes the repository alone, the others both."""
    from tempclr.errors import InputError

    given = [word for word in (arguments.source, arguments.repo_id) if word is not None]
    wanted = ["REPO_ID"] if arguments.kernels else ["DATASET" if arguments.dataset else "MODEL_DIR", "REPO_ID"]
    if len(given) != len(wanted):
        raise InputError(f"expected {' '.join(wanted)}, got {' '.join(given) or 'nothing'}; see tempclr publish --help")
    return given[-1], None if arguments.kernels else given[0]


def _publish(arguments: argparse.Namespace, *, source: str | None, repo_id: str, target: Path) -> int:
    from tempclr.errors import InputError
    from tempclr_hub.publish import send, verify_model
    from tempclr_hub.staging import describe, stage_dataset, stage_kernel_repository, stage_model

    if source is None:
        staged = stage_kernel_repository(target)
    elif arguments.dataset:
        from tempclr_hub.dataset_card import dataset_card

        citation = None if arguments.citation is None else arguments.citation.read_text(encoding="utf-8")
        card = dataset_card(source, repo_id=repo_id, license=arguments.license, citation=citation)
        staged = stage_dataset(source, target, card=card)
    else:
        staged = stage_model(source, target)
        if arguments.examples is not None and not (staged.folder / "README.md").is_file():
            raise InputError("the model has no README.md to show a picture in: leave it out", field="examples")
        deviation = verify_model(staged)
        print(f"loaded in a new process: embeddings moved by {deviation:.1g} of their size")
        if arguments.examples is not None:
            _draw(staged.folder, arguments.examples)
    if source is not None:
        _check_snippet(staged.folder, skip=arguments.skip_snippet)
    print(f"{'sending' if arguments.yes else 'would send'} to {repo_id} ({staged.kind}):")
    print("\n".join(describe(staged)))
    if not arguments.yes:
        print("nothing was sent; --yes sends it")
        return 0
    published = send(staged, repo_id, private=arguments.private, tag=arguments.tag, message=arguments.message)
    print(f"sent: {published.url} at {published.tag} ({published.commit[:12]})")
    return 0


def _check_snippet(folder: Path, *, skip: bool) -> None:
    from tempclr_hub.snippet import run_snippet, tell_run

    ran = not skip and run_snippet(folder)
    tell_run(folder, ran=ran)
    if not skip:
        print("its usage snippet runs" if ran else "README.md has no usage snippet")


def _draw(folder: Path, examples: str) -> None:
    """Draw one of ``examples`` into the staged folder and show it in its card."""
    from tempclr.data.rows import load_rows
    from tempclr.models.tempclr import TempCLRModel
    from tempclr_hub.card_picture import draw_alignment, first_example, with_picture

    card = folder / "README.md"
    paragraph = first_example(load_rows(examples), source=examples)
    picture = draw_alignment(TempCLRModel.from_pretrained(folder), paragraph, folder, split=f"`{Path(examples).name}`")
    card.write_text(with_picture(card.read_text(encoding="utf-8"), picture), encoding="utf-8")
