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
    from tempclr_hub.publish import send, verify_model
    from tempclr_hub.snippet import run_snippet
    from tempclr_hub.staging import describe, stage_dataset, stage_kernel_repository, stage_model

    if source is None:
        staged = stage_kernel_repository(target)
    elif arguments.dataset:
        from tempclr_hub.dataset_card import dataset_card

        staged = stage_dataset(source, target, card=dataset_card(source, repo_id=repo_id))
    else:
        staged = stage_model(source, target)
        deviation = verify_model(staged)
        print(f"loaded in a new process: embeddings moved by {deviation:.1g} of their size")
        if not arguments.skip_snippet:
            print("its usage snippet runs" if run_snippet(staged.folder) else "README.md has no usage snippet")
    print(f"{'sending' if arguments.yes else 'would send'} to {repo_id} ({staged.kind}):")
    print("\n".join(describe(staged)))
    if not arguments.yes:
        print("nothing was sent; --yes sends it")
        return 0
    published = send(staged, repo_id, private=arguments.private, tag=arguments.tag, message=arguments.message)
    print(f"sent: {published.url} at {published.tag} ({published.commit[:12]})")
    return 0
