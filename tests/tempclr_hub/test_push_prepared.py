"""What ``tempclr prepare`` writes goes to the Hub as it is, and comes back whole and as a stream."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tempclr.cli import main
from tempclr_hub.loopback import LoopbackHub

place = Path(__file__).parents[1] / "tempclr" / "corpora_world.py"
spec = importlib.util.spec_from_file_location("corpora_world", place)
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


@pytest.mark.parametrize("words", [(), ("--fp16",)], ids=["float32", "float16"])
def test_a_prepared_corpus_is_pushed_and_streamed(run_driver, tmp_path, words):
    corpus = world.didemo(tmp_path / "official")
    features = world.write_features(tmp_path / "features", corpus.seconds)
    paths = [
        "--annotations",
        str(tmp_path / "official"),
        "--features",
        str(features),
        "--output",
        str(tmp_path / "rows"),
    ]
    assert main(["prepare", "didemo", *paths, *words]) == 0
    with LoopbackHub() as hub:
        seen = run_driver(hub, "hub_prepared.py", tmp_path / "rows")
        assert hub.failures() == []
    assert seen == {
        "splits": ["test", "train"],
        "equal": True,
        "types": "True",
        "stream_equal": True,
        "num_streamed": 1,
        "reasons": [],
        "paragraphs_equal": [True, True],
    }
