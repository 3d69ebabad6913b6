"""What a Space of the Hub needs to show the page: a few small files, and the model where it is a folder."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from os import PathLike
from pathlib import Path

from tempclr.app.interface import TITLE, load_gradio, public_name
from tempclr.data.files import atomic_path, check_output_folder
from tempclr.errors import InputError

README = """\
---
title: {title}
emoji: 🎬
colorFrom: blue
colorTo: green
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
license: apache-2.0
tags: [tempclr, video-text-alignment]
{models}---

Give a video and its steps, one sentence a line; see when each of them happens. Made by `tempclr app --space_dir`.
"""
APP = """\
from tempclr.app import serve

serve({source!r}, tell_on_page=True)
"""
REQUIREMENTS = "tempclr[app,demo]\n"


def write_space(folder: str | PathLike[str], source: str) -> list[Path]:
    """Write README.md, app.py and requirements.txt; a model folder is copied beside them, a Hub id is named.

    Returns:
        the files, each with its folder.

    Raises:
        InputError: there is no such model, ``folder`` cannot be written to or holds other things, or gradio, whose
            version a Space states, is not installed.

    >>> write_space("space", "me/tempclr-recipes")  # doctest: +SKIP
    [PosixPath('space/README.md'), PosixPath('space/app.py'), PosixPath('space/requirements.txt')]
    """
    from tempclr.recipes.model_folders import read_config

    load_gradio()
    read_config(source)
    target, is_folder, model_name = Path(folder), Path(source).is_dir(), public_name(source)
    check_output_folder(target)
    if target.exists() and any(target.iterdir()):
        raise InputError("holds files already: give a new folder for the Space", file=target)
    texts = {
        "README.md": README.format(
            title=TITLE,
            gradio=version("gradio"),
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            models="" if is_folder else f"models: [{source}]\n",
        ),
        "app.py": APP.format(source=model_name if is_folder else source),
        "requirements.txt": REQUIREMENTS,
    }
    for name, text in texts.items():
        with atomic_path(target / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    written = [target / name for name in texts]
    if is_folder:
        shutil.copytree(
            source, target / model_name, ignore=shutil.ignore_patterns(".*", "checkpoint-*", "*.pt", "*.bin")
        )
        written += sorted(path for path in (target / model_name).rglob("*") if path.is_file())
    return written
