"""A model goes to the Hub and comes back bit-equal: by tag, by the Auto classes, and without our packages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tempclr_hub.loopback import LoopbackHub


@pytest.fixture(scope="module")
def pushed(run_driver) -> Iterator[tuple[LoopbackHub, dict[str, Any]]]:
    with LoopbackHub(lfs_threshold=20_000) as hub:
        yield hub, run_driver(hub, "hub_model.py", "push")


def test_a_tag_gives_back_the_very_weights(pushed):
    seen = pushed[1]
    assert seen["at_tag"] == seen["pushed"] != seen["later"] == seen["at_main"]
    assert seen["embeddings_at_tag"] == seen["embeddings"]
    assert seen["processor_attached"] == "TempCLRProcessor"


def test_the_repository_holds_one_model_with_its_processor_and_card(pushed):
    hub, seen = pushed
    files = hub.files("tester/toy")
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "README.md"} <= set(files)
    assert not any(path.endswith(".py") for path in files)
    assert seen["info"] == ["tempclr", "feature-extraction", "tempclr"]


def test_the_auto_classes_load_it_in_a_fresh_process(run_driver, pushed):
    hub, sent = pushed
    seen = run_driver(hub, "hub_model.py", "load")
    assert seen["classes"] == ["TempCLRModel", "TempCLRProcessor", "TempCLRConfig"]
    assert seen["weights"] == sent["pushed"] and seen["embeddings"] == sent["embeddings"]
    assert "tester/absent" in seen["missing"]


def test_carried_code_runs_without_our_packages(run_driver, pushed):
    hub, sent = pushed
    assert "modeling_tempclr.py" in hub.files("tester/toy-with-code")
    seen = run_driver(hub, "hub_model.py", "load_with_code")
    assert seen["modules"] == ["transformers_modules", "transformers_modules"]
    assert seen["embeddings"] == sent["embeddings"]
    assert "pip install tempclr" in seen["refused"]


def test_nothing_asked_for_a_route_that_is_missing(pushed):
    assert pushed[0].failures() == []
