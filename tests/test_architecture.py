"""The layout rules of the design, held by machine: who may import whom, names, the length of a file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"tempclr": ROOT / "tempclr", "tempclr_kernels": ROOT / "kernels/tempclr_kernels"}
PACKAGES["tempclr_hub"] = ROOT / "hub/tempclr_hub"
MAX_LINES = 450

# A layer may import itself and the layers to its right at module level or inside a function.
LAYERS = {
    "errors": 0,
    "kernels": 0,
    "distributed": 0,
    "rank_watch": 0,
    "seeded_draws": 0,
    "sharding": 0,
    "costs": 1,
    "negatives": 1,
    "models": 1,
    "losses": 2,
    "tclr_losses": 2,
    "mini_batches": 2,
    "finite_checks": 2,
    "similarities": 2,
    "localization_loss": 2,
    "data": 3,
    "plots": 3,
    "inference": 4,
    "checkpoints": 4,
    "evaluation": 5,
    "benchmark": 5,
    "trainer": 5,
    "trainer_push": 5,
    "trainer_checkpoints": 5,
    "hub": 6,
    "recipes": 7,
    "cli": 8,
    "app": 8,
}
# Edges that go the other way, allowed only inside a function: they load when used, so no import is circular.
LAZY_EDGES = {
    ("models", "losses"),
    ("models", "tclr_losses"),
    ("models", "inference"),
    ("inference", "evaluation"),
    ("trainer", "hub"),
    ("trainer_push", "hub"),
    ("plots", "inference"),
}
EXPORTED_FUNCTIONS = {"dtw", "otam", "alignment", "pairwise_distances"}
EXPORTED_FUNCTIONS |= {"unit_loss", "sequence_loss", "tempclr_loss", "tclr_loss"}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


ALL = dict(modules())


def layer(module: str) -> str | None:
    top, _, rest = module.partition(".")
    if top == "tempclr_kernels":
        return "kernels"
    if top == "tempclr_hub":
        return "hub"
    return rest.split(".")[0] or None if top == "tempclr" else None


def imports(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    """Every module named by an import statement, and whether it stands inside a function (loads when used)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    anchor = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*anchor, *([child.module] if child.module else [])])
                yield base, lazy
                yield from ((f"{base}.{alias.name}", lazy) for alias in child.names if f"{base}.{alias.name}" in ALL)
            else:
                yield from visit(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    yield from visit(tree, lazy=False)


@pytest.mark.parametrize("name", [name for name in ALL if name != "tempclr"])
def test_imports_run_one_way(name: str):
    own = layer(name)
    for target, lazy in imports(name, ALL[name]):
        other = layer(target)
        if other is None or other == own:
            continue
        assert other in LAYERS, f"{name} imports {target}: give '{other}' a place in LAYERS"
        downward = LAYERS[other] <= LAYERS[own]
        allowed = downward or (lazy and (own, other) in LAZY_EDGES)
        assert allowed, (
            f"{name} ({own}) must not import {target} ({other}) {'inside a function' if lazy else 'at import'}"
        )


def test_kernels_know_nothing_of_ours_nor_of_hugging_face():
    forbidden = ("tempclr", "tempclr_hub", "transformers", "huggingface_hub", "datasets", "accelerate", "safetensors")
    for name, path in ALL.items():
        if name.split(".")[0] == "tempclr_kernels":
            tops = {target.split(".")[0] for target, _ in imports(name, path)}
            assert not tops.intersection(forbidden), (name, tops)


def test_implementations_of_the_kernels_do_not_import_each_other():
    implementations = ("reference", "lanes", "wavefront")
    for name, path in ALL.items():
        own = next((i for i in implementations if name.startswith(f"tempclr_kernels.{i}")), None)
        if own is None:
            continue
        for target, _ in imports(name, path):
            for other in implementations:
                assert other == own or not target.startswith(f"tempclr_kernels.{other}"), (name, target)


def test_a_model_family_stands_alone():
    """Its files must be able to travel as remote code: nothing of ours at import but siblings of the same folder."""
    for name, path in ALL.items():
        if not name.startswith("tempclr.models."):
            continue
        family = ".".join(name.split(".")[:3])
        for target, lazy in imports(name, path):
            if target.split(".")[0] in PACKAGES and not lazy:
                assert target.startswith(family), (name, target)


def test_nothing_imports_the_command_line():
    for name, path in ALL.items():
        if not name.startswith("tempclr.cli"):
            assert not any(target.startswith("tempclr.cli") for target, _ in imports(name, path)), name


def test_commands_import_the_library_inside_their_functions():
    for name, path in ALL.items():
        if name.startswith("tempclr.cli"):
            eager = {t for t, lazy in imports(name, path) if not lazy and t.split(".")[0] in PACKAGES}
            assert all(t.startswith(("tempclr.cli", "tempclr.errors")) for t in eager), (name, eager)


def test_no_submodule_bears_the_name_of_an_exported_function():
    """Once imported, the submodule would hide the function."""
    for name in ALL:
        assert name.rpartition(".")[2] not in EXPORTED_FUNCTIONS, name


@pytest.mark.parametrize("folder", ["kernels", "hub"])
def test_outer_folders_are_no_packages(folder: str):
    """transformers imports PyPI's ``kernels``; a regular package of that name at the root would shadow it."""
    assert not (ROOT / folder / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("name", list(ALL))
def test_a_file_keeps_to_its_subject(name: str):
    num_lines = len(ALL[name].read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES, f"{name} has {num_lines} lines; past {MAX_LINES} it wants splitting"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_kernels_load_no_optional_part_at_import():
    heavy = ["numba", "triton", "transformers", "av", "matplotlib"]
    code = (
        "import sys; sys.path[:0] = ['.', 'kernels', 'hub']\n"
        f"import tempclr_kernels; print([m for m in {heavy} if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_every_public_name_can_be_had():
    code = (
        "import sys; sys.path[:0] = ['.', 'kernels', 'hub']\n"
        "import tempclr\nfor name in tempclr.__all__: assert getattr(tempclr, name) is not None, name\n"
        "import types; assert not isinstance(tempclr.alignment, types.ModuleType)\nprint('ok')"
    )
    assert run_python(code) == "ok"
