"""examples/pixels_to_alignment.py walks the whole road; its numbers of epochs are cut to what a test can wait for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_goes_from_pixels_to_aligned_sentences(tmp_path: Path):
    packages = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "hub")))
    environment = {**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / "pixels_to_alignment.py"), str(tmp_path), "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spans = [tuple(map(float, found)) for found in re.findall(r"^ *(\d+\.\d) to +(\d+\.\d) s  \w", done.stdout, re.M)]
    assert 4 <= len(spans) <= 6
    assert all(start < end for start, end in spans) and spans == sorted(spans), "in the order the sentences were told"
