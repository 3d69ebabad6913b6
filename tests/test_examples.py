"""Every example runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"few_shot_sensors": "aeon"}  # for the recordings that come with it; installed with --no-deps
SLOW = ("few_shot_sensors",)


def run(path: Path, *words: str) -> str:
    folders = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "hub")]
    code = (
        f"import runpy, sys; sys.path[:0] = {folders}\n"
        "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), *words], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in SLOW else [], id=path.stem) for path in EXAMPLES],
)
def test_it_runs(path: Path, tmp_path: Path):
    package = NEEDS.get(path.stem)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"reads data that come with {package}: pip install --no-deps {package}")
    said = run(path, str(tmp_path))
    if path.stem == "plain_trainer":
        told, shuffled = map(float, re.findall(r": (\d+\.\d+)", said.splitlines()[-1]))
        assert told < shuffled
    if path.stem == "few_shot_sensors":
        gestures = said[: said.index("JapaneseVowels")].splitlines()
        pooled, dtw, _, shuffled = (float(line[42:].split("±")[0]) for line in gestures[3:7])
        # As measured before this package was there: .43, .63 and .39.
        assert pooled > 43 and dtw > 63 and shuffled < dtw - 20
        assert len(re.findall(r"\d ± \d", said)) == 32
