"""What a person installs: the sdist, the wheel from it and from the tree; and a root that hides no other package."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"tempclr": "tempclr", "tempclr_kernels": "kernels/tempclr_kernels", "tempclr_hub": "hub/tempclr_hub"}
FOLDERS = ("tempclr", "kernels", "hub", "tests", "benchmarks", "docs", "examples", ".ci")
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.py[cod]", ".*_cache", "*.egg-info", "build", "dist", "*.so")


@dataclass(frozen=True)
class Distributions:
    """A copy of the source and what was built from it."""

    source: Path
    sdist: Path
    wheel: Path
    wheel_from_sdist: Path


def run(command: Sequence[str | Path], *, cwd: Path, **variables: str) -> str:
    """The standard output of a command that must succeed, without this process's ideas of where packages are."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    finished = subprocess.run(command, cwd=cwd, env=environment | variables, capture_output=True, text=True)
    assert finished.returncode == 0, f"{command}\n{finished.stdout[-2000:]}\n{finished.stderr[-4000:]}"
    return finished.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    pytest.importorskip("build", reason="the dev extra installs it")
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.name in FOLDERS:
            shutil.copytree(path, source / path.name, ignore=NOT_SOURCE)
        elif path.is_file() and path.name != ".git":
            shutil.copy(path, source)
    # Without --sdist or --wheel the sdist is built from the tree and the wheel from the sdist.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    run([*build, folder / "first", source], cwd=folder)
    run([*build, folder / "second", "--wheel", source], cwd=folder)
    (sdist,) = (folder / "first").glob("*.tar.gz")
    (wheel_from_sdist,) = (folder / "first").glob("*.whl")
    (wheel,) = (folder / "second").glob("*.whl")
    return Distributions(source, sdist, wheel, wheel_from_sdist)


@pytest.fixture(scope="module")
def python(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with our wheel, and the libraries of the running one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    run([*pip, built.wheel_from_sdist], cwd=folder)
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=folder).strip())
    # A folder named in a .pth file is searched, but its own .pth files, and so an editable install, are not read.
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return python


def members(archive: Path) -> dict[str, bytes]:
    """Every file of a wheel, or of an sdist without its first folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as sdist:
        files = [member for member in sdist.getmembers() if member.isfile()]
        return {member.name.partition("/")[2]: sdist.extractfile(member).read() for member in files}  # type: ignore[union-attr]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_three_packages_and_no_other(built):
    found = {name for name in members(built.wheel) if ".dist-info/" not in name}
    expected = {
        f"{package}/{name}" for package, folder in PACKAGES.items() for name in files_below(built.source / folder)
    }
    assert found == expected
    assert {f"{package}/py.typed" for package in PACKAGES} | {"tempclr_hub/templates/model_card.md"} <= found


@pytest.mark.slow
def test_the_wheel_from_the_sdist_is_the_wheel_from_the_tree(built):
    assert members(built.wheel) == members(built.wheel_from_sdist)


@pytest.mark.slow
def test_the_sdist_holds_what_a_developer_needs(built):
    found = set(members(built.sdist))
    folders = [folder for folder in FOLDERS if (built.source / folder).exists()]
    expected = {f"{folder}/{name}" for folder in folders for name in files_below(built.source / folder)}
    assert expected - found == set()
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff", "Makefile", ".ci/audit"):
        assert name in found
    for name in (
        "constraints-app.txt",
        "docs/app.md",
        "kernels/README.md",
        "tests/test_packaging.py",
        "pyproject.toml",
    ):
        assert name in found
    assert any(name.startswith("benchmarks/") for name in found)


@pytest.mark.slow
def test_the_installed_wheel_works_outside_the_repository(python, tmp_path):
    for package in PACKAGES:
        path = run([python, "-c", f"import {package}; print({package}.__file__)"], cwd=tmp_path).strip()
        assert Path(path).is_relative_to(python.parent.parent)
    code = "from tempclr_hub.card import TEMPLATE; print(TEMPLATE.read_text()[:3])"
    assert run([python, "-c", code], cwd=tmp_path).strip() == "---"
    code = "from tempclr import TempCLRConfig, TempCLRModel, dtw; import torch; print(float(dtw(torch.ones(2, 2))))"
    assert run([python, "-c", code], cwd=tmp_path).strip() == "2.0"


@pytest.mark.slow
def test_the_installed_command_tells_its_commands(python, tmp_path):
    told = run([python.with_name("tempclr"), "--help"], cwd=tmp_path)
    assert all(command in told for command in ("demo", "extract", "pretrain", "evaluate", "align"))


@pytest.mark.slow
def test_the_installed_metadata_names_what_is_needed(python, tmp_path):
    code = "import importlib.metadata as m; print(m.version('tempclr')); print(*m.requires('tempclr'), sep='\\n')"
    version, *requirements = run([python, "-c", code], cwd=tmp_path).splitlines()
    assert version and any(line.startswith("torch>=") for line in requirements)
    assert any(line.startswith("triton") and "linux" in line for line in requirements)


@pytest.mark.parametrize("folder", ["kernels", "hub"])
def test_a_folder_of_the_root_is_no_package(folder):
    """transformers imports a PyPI package named ``kernels``, which a regular package in the root would replace."""
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.slow
@pytest.mark.parametrize("with_kernels", [False, True])
def test_transformers_works_from_the_root(tmp_path, with_kernels):
    """As under ``python -m pytest`` the root comes first on the path; PyPI's ``kernels`` may stand behind it."""
    if with_kernels:
        # A stand-in whose version transformers does not use: what counts is which of the two folders is found.
        for name in ("kernels", "kernels-0.0.1.dist-info"):
            (tmp_path / name).mkdir()
        (tmp_path / "kernels" / "__init__.py").write_text("")
        metadata = "Metadata-Version: 2.1\nName: kernels\nVersion: 0.0.1\n"
        (tmp_path / "kernels-0.0.1.dist-info" / "METADATA").write_text(metadata)
    code = (
        "import sys, importlib.util; assert sys.path[0] == ''; spec = importlib.util.find_spec('kernels'); "
        "from transformers import BertModel; import tempclr; print(spec.origin, tempclr.__file__, BertModel.__name__)"
    )
    origin, ours, model = run([sys.executable, "-c", code], cwd=ROOT, PYTHONPATH=str(tmp_path)).split()
    assert model == "BertModel" and Path(ours) == ROOT / "tempclr" / "__init__.py"
    if with_kernels:
        assert Path(origin) == tmp_path / "kernels" / "__init__.py"
    else:
        # A folder without __init__.py has no origin; where the real package is installed, that one is found.
        assert origin == "None" or not Path(origin).is_relative_to(ROOT)
