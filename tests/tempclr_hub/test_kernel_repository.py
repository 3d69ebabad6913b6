"""The kernels as a kernel repository of the Hub: its files are whole, and load beside the installed package.

Loading is judged in a process of its own (this file as a script), which chooses what it can import.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]


def load(repository: Path, *, loader: str) -> ModuleType:
    """The build variant for the CPU, under the name in its metadata, by PyPI's ``kernels`` or by Python alone."""
    if loader == "kernels":
        from kernels import get_local_kernel

        return get_local_kernel(repository, backend="cpu")
    variant = repository / "build" / "torch-cpu"
    name = json.loads((variant / "metadata.json").read_text())["id"]
    spec = importlib.util.spec_from_file_location(name, variant / "__init__.py")
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def value_and_gradient(module: Any, impl: str | None) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(3, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([[6, 7], [4, 7], [1, 2]])
    value = module.dtw(cost, lengths=lengths, gamma=0.1, impl=impl)
    return [value.tolist(), torch.autograd.grad(value.sum(), cost)[0].tolist()]


def drive(repository: Path, loader: str, impl: str) -> dict[str, Any]:
    if impl != "numba":
        sys.modules.update(numba=None, llvmlite=None)  # type: ignore[arg-type]
    import tempclr_kernels

    loaded = load(repository, loader=loader)
    answer: dict[str, Any] = {"name": loaded.__name__, "file": loaded.dtw.__globals__["__file__"]}
    answer |= {"installed": value_and_gradient(tempclr_kernels, impl), "loaded": value_and_gradient(loaded, impl)}
    answer["reference"] = value_and_gradient(loaded, "reference")
    answer["namespaces"] = sorted(
        schema.name.partition("::")[0]
        for schema in torch._C._jit_get_all_schemas()
        if re.fullmatch(r"\w*tempclr_kernels\w*::distance_vjp", schema.name)
    )
    if impl == "numba":
        compiled = torch.compile(loaded.dtw, fullgraph=True, backend="aot_eager")
        answer["compiled"] = compiled(torch.ones(2, 3)).item()
    else:
        try:
            value_and_gradient(loaded, None)
        except RuntimeError as error:
            answer["error"] = str(error)
    return answer


LOADERS = ["python", "kernels"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tempclr_hub.kernel_repository import stage_kernels

    return stage_kernels(tmp_path_factory.mktemp("staged") / "repository")


@pytest.fixture(scope="module")
def used_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is loaded, and so gets Python's and numba's caches."""
    from tempclr_hub.kernel_repository import stage_kernels

    return stage_kernels(tmp_path_factory.mktemp("used") / "repository")


def driven(repository: Path, *words: str, **variables: str) -> dict[str, Any]:
    packages = os.pathsep.join([str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": packages, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, str(Path(__file__)), str(repository), *words]
    finished = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-4000:]
    answer = json.loads(finished.stdout.splitlines()[-1])
    variant = repository / "build" / "torch-cpu"
    assert Path(answer["file"]) == variant / "api.py"
    assert answer["name"] == json.loads((variant / "metadata.json").read_text())["id"]
    return answer


def assert_close(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_copy_loads_beside_the_installed_package_and_needs_no_numba(used_repository: Path, loader: str) -> None:
    """Note [Operator namespace]: each has operators under the name it was imported by."""
    pytest.importorskip("triton", reason="triton is made for Linux")
    answer = driven(used_repository, loader, "triton", TRITON_INTERPRET="1")
    assert answer["namespaces"] == sorted([answer["name"], "tempclr_kernels"])
    assert_close(answer["loaded"], answer["installed"])
    assert_close(answer["loaded"], answer["reference"])
    assert "pip install numba" in answer["error"]


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_a_copy_uses_numba_where_it_is(used_repository: Path, loader: str) -> None:
    answer = driven(used_repository, loader, "numba")
    assert_close(answer["loaded"], answer["installed"])
    assert_close(answer["loaded"], answer["reference"])
    assert answer["compiled"] == 3.0  # the diagonal and one more cell


def test_the_repository_holds_what_the_hub_asks_for(repository: Path) -> None:
    assert {path.name for path in repository.iterdir()} == {"build", "build.toml", "CARD.md", "LICENSE", "README.md"}
    sources = {path.name: path.read_bytes() for path in (ROOT / "kernels" / "tempclr_kernels").glob("*.py")}
    ids = set()
    for backend in ("cpu", "cuda", "rocm"):
        variant = repository / "build" / f"torch-{backend}"
        found = {path.name: path.read_bytes() for path in variant.iterdir()}
        metadata = json.loads(found.pop("metadata.json"))
        assert found == sources
        assert metadata["backend"] == {"type": backend} and metadata["name"] == "tempclr-kernels"
        assert metadata["id"].isidentifier()
        ids.add(metadata["id"])
    assert len(ids) == 3


def test_the_card_is_filled_in(repository: Path) -> None:
    card = (repository / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    assert 'get_kernel("tempclr/tempclr-kernels", version=0' in body
    assert "{{" not in card and "{{" in (repository / "CARD.md").read_text()


def test_kernels_accepts_the_build_file_and_the_digests(repository: Path) -> None:
    from kernels._rust import Build, Digest, Metadata

    assert [str(backend).lower() for backend in Build.open(repository).general.backends] == ["cpu", "cuda", "rocm"]
    for variant in (repository / "build").iterdir():
        digest = Metadata.read_from_file(variant / "metadata.json").digest
        assert digest is not None
        digest.validate(Digest.hash_variant(digest.algorithm, variant))


def test_the_kernels_import_themselves_relatively() -> None:
    """The name ``tempclr_kernels`` is the installed package, if any, and not the loaded copy."""
    for path in (ROOT / "kernels" / "tempclr_kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "tempclr_kernels" for name in names), (path.name, node.lineno)


def test_the_same_sources_give_the_same_files(repository: Path, tmp_path: Path) -> None:
    from tempclr_hub.kernel_repository import stage_kernels

    again = stage_kernels(tmp_path)
    files = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    assert files and all((again / name).read_bytes() == (repository / name).read_bytes() for name in files)


def test_a_changed_source_has_another_name(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tempclr_hub import kernel_repository

    (tmp_path / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
    sources = tmp_path / "kernels" / "tempclr_kernels"
    sources.mkdir(parents=True)
    for name in ("build.toml", "CARD.md"):
        (sources.parent / name).write_bytes((ROOT / "kernels" / name).read_bytes())
    (sources / "__init__.py").write_text("answer = 1\n")
    monkeypatch.setattr(kernel_repository, "SOURCES", sources)
    changed = kernel_repository.stage_kernels(tmp_path / "changed")
    name = Path("build/torch-cpu/metadata.json")
    assert json.loads((changed / name).read_text())["id"] != json.loads((repository / name).read_text())["id"]


def test_what_cannot_be_staged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tempclr_hub import kernel_repository

    (tmp_path / "old.py").write_text("")
    with pytest.raises(FileExistsError, match="not empty"):
        kernel_repository.stage_kernels(tmp_path)
    monkeypatch.setattr(kernel_repository, "SOURCES", tmp_path / "tempclr_kernels")
    with pytest.raises(FileNotFoundError, match="from a checkout"):
        kernel_repository.stage_kernels(tmp_path / "new")


if __name__ == "__main__":
    print(json.dumps(drive(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
