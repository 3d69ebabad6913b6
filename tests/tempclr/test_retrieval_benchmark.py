"""benchmarks/retrieval.py runs, whole and in part; how fast it is, no test asks."""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "retrieval.py"


@pytest.mark.parametrize(("background", "num_queries"), [("removed", 0), ("kept", 0), ("kept", 5)])
@pytest.mark.parametrize("protocol", ["clean", "official"])
def test_it_measures_time_cells_and_memory(background, num_queries, protocol):
    measure = runpy.run_path(str(SCRIPT))["measure"]
    arguments = argparse.Namespace(
        num_videos=9,
        num_queries=num_queries,
        num_sentences=3,
        num_clips=6,
        size=8,
        background=[background],
        protocol=[protocol],
        measures=["dtw", "otam+cap_avg"],
        num_threads=1,
    )
    found = measure(arguments)
    assert found["num_queries"] == (num_queries or 9) and found["num_videos"] == 9
    assert found["cells"] > 9 and found["wall_seconds"] > 0 and found["peak_megabytes"] > 50
    json.dumps(found)
