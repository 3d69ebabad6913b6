"""What the README shows is run: the Python as it stands, the commands as make and the installed script know them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", README, re.S) for language in ("python", "sh")}


def test_the_first_screen_shows_code():
    assert README.splitlines().index("```python") < 25
    assert len(BLOCKS["python"][0].strip().splitlines()) <= 8


@pytest.mark.parametrize("number", range(len(BLOCKS["python"])))
def test_python_runs(number: int, demo_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(demo_dir.parent.parent)
    exec(compile(BLOCKS["python"][number], f"README block {number}", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("line", [line for block in BLOCKS["sh"] for line in block.strip().splitlines()])
def test_make_knows_its_targets(line: str):
    """``make -n`` expands every rule without running it; CI runs ``make test`` itself."""
    command = line.split("#")[0].split()
    assert command[0] == "make"
    planned = subprocess.run([*command, "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install" in planned or "pytest" in planned or "tempclr" in planned


def test_every_command_it_names_exists():
    from tempclr.cli import COMMANDS

    named = set(re.findall(r"`tempclr (\w+)`", README))
    assert named and named <= set(COMMANDS)


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "kernels/README.md"])
def test_its_numbers_are_those_of_the_committed_results(name: str):
    """``python benchmarks/readme.py`` writes them, GPU rows from benchmarks/results/<gpu>.json once there is one."""
    code = (
        "import sys; sys.path[:0] = ['.', 'kernels', 'hub', 'benchmarks']\n"
        f"import readme; print(end=readme.renewed(open({name!r}, encoding='utf-8').read(), {name!r}))"
    )
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert made == (ROOT / name).read_text(encoding="utf-8") and "| tempclr" in made.lower()


def test_without_a_gpu_file_its_rows_say_so_and_with_one_they_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import kernel_tables

    monkeypatch.setattr(kernel_tables, "RESULTS", tmp_path)
    cpu = ROOT / "benchmarks" / "results" / "cpu.json"
    (tmp_path / "cpu.json").write_text(cpu.read_text(encoding="utf-8"), encoding="utf-8")
    assert kernel_tables.short_table().count("not measured") == len(kernel_tables.GPU_ROWS)
    row = {"task": "hard value", "implementation": "tempclr", "mode": "eager", "median_ms": 2.0, "ratio": 1.0}
    gemm = {**row, "implementation": "bf16 GEMM alone", "median_ms": 1.0, "ratio": 0.5}
    machine = dict.fromkeys(["gpu", "driver", "torch", "triton", "git_revision"], "some")
    workloads = {"P/436": {"sizes": "all pairs", "times": [row, gemm]}}
    (tmp_path / "some.json").write_text(json.dumps({"machine": machine, "workloads": workloads}), encoding="utf-8")
    short = kernel_tables.short_table()
    assert "bf16 GEMM alone, 1 ms" in short and short.count("not measured") == len(kernel_tables.GPU_ROWS) - 1
    assert "not measured" not in kernel_tables.full_table()
