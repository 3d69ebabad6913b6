"""``TempCLRTrainer(push_to_hub=True)``: what it trained is what the Hub gives back, and a run goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tempclr_hub.loopback import LoopbackHub
from tempclr_hub.loopback_api import _card_errors


@pytest.fixture(scope="module")
def trained(run_driver, tmp_path_factory) -> Iterator[tuple[LoopbackHub, dict[str, Any]]]:
    with LoopbackHub() as hub:
        yield hub, run_driver(hub, "hub_trainer.py", tmp_path_factory.mktemp("trainer"))


def test_what_was_trained_is_loaded_bit_equal(trained):
    hub, seen = trained[0], trained[1]["end"]
    assert seen["loaded"] == seen["trained"] and seen["embeddings_equal"]
    files = hub.files("tester/trained")
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files)
    assert "training_args.bin" not in files
    assert not any(path.startswith("checkpoint-") for path in files)


def test_every_checkpoint_is_pushed_and_a_run_resumes_from_one(trained):
    hub, seen = trained[0], trained[1]["all"]
    assert seen["loaded"] == seen["trained"]
    assert seen["halfway"] != seen["trained"]
    assert seen["resumed"] == seen["trained"] and seen["steps"] == 4
    folders = {path.split("/")[0] for path in hub.files("tester/checkpoints") if path.startswith("checkpoint-")}
    assert folders == {"checkpoint-2", "checkpoint-4"}


def test_the_card_is_made_from_the_run(trained):
    card = trained[0].files("tester/trained")["README.md"].decode()
    assert _card_errors(card, kind="model") == []
    assert ModelCard(card).data.library_name == "tempclr"
    assert "| `learning_rate`" in card and "sequence_loss" in card


def test_nothing_asked_for_a_route_that_is_missing(trained):
    assert trained[0].failures() == []
