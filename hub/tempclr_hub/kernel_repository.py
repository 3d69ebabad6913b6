"""``tempclr_kernels`` as a kernel repository of the Hub: the files that ``get_kernel`` downloads and imports."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import tempclr_kernels

SOURCES = Path(tempclr_kernels.__file__).parent


def stage_kernels(target_dir: str | Path) -> Path:
    """Write the kernel repository of ``tempclr_kernels`` into ``target_dir``, a new or empty folder, and return it.

    It holds ``build.toml``, ``CARD.md`` and, filled in from it, ``README.md``; ``LICENSE``; and for every backend of
    ``build.toml`` a build variant ``build/torch-<backend>``: the sources and the ``metadata.json`` that names them.
    The same sources give the same files. Upload it with ``kernel-builder upload`` or ``HfApi.upload_folder``.

    Raises:
        FileNotFoundError: the package is not in a checkout of the repository, where those files lie beside it.
        FileExistsError: ``target_dir`` is not empty.

    Source: https://huggingface.co/docs/kernels/kernel-requirements

    >>> import tempfile
    >>> repository = stage_kernels(tempfile.mkdtemp())
    >>> sorted(path.name for path in (repository / "build").iterdir())
    ['torch-cpu', 'torch-cuda', 'torch-rocm']
    """
    folder = SOURCES.parent
    texts = {"build.toml": folder / "build.toml", "CARD.md": folder / "CARD.md", "LICENSE": folder.parent / "LICENSE"}
    for path in texts.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is not there: stage the kernels from a checkout, not from an installed wheel"
            )
    target = Path(target_dir)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty: give a new folder, what a repository no longer holds must go")
    for name, path in texts.items():
        shutil.copyfile(path, target / name)
    general = tomllib.loads(texts["build.toml"].read_text(encoding="utf-8"))["general"]
    (target / "README.md").write_text(_card(texts["CARD.md"].read_text(encoding="utf-8"), general), encoding="utf-8")
    for backend in general["backends"]:
        _stage_variant(target / "build" / f"torch-{backend}", backend=backend, general=general)
    return target


def _card(template: str, general: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    card = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(template)
    fields = {name: general[name] for name in ("name", "version", "license")}
    return card.render(**fields, repo_id=general["hub"]["repo-id"])


def _stage_variant(folder: Path, *, backend: str, general: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    digests = {}
    for path in sorted(SOURCES.glob("*.py")):
        shutil.copyfile(path, folder / path.name)
        digests[path.name] = base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    # The module is imported under its id, which therefore tells apart both versions and variants.
    version = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:10]
    metadata = {
        "id": f"_{general['name'].replace('-', '_')}_{backend}_{version}",
        "name": general["name"],
        "version": general["version"],
        "license": general["license"],
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": digests},
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
