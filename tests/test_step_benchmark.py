"""The profile of a training step runs and accounts for all of it; how fast anything is, no test asks."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "step.py"


def test_a_small_step_is_taken_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    script = runpy.run_path(str(SCRIPT))
    output = tmp_path / "step.json"
    words = ["--hidden_size", "64", "--num_layers", "1", "1", "--num_videos", "2", "--num_steps", "1"]
    before = torch.get_num_threads()
    assert script["main"]([*words, "--num_rounds", "1", "--output", str(output)]) == 0
    assert torch.get_num_threads() == before
    results = json.loads(output.read_text(encoding="utf-8"))
    step = results["step"]
    assert set(step["seconds"]) == set(script["PARTS"]) and all(value > 0 for value in step["seconds"].values())
    assert step["num_clips"] == 32
    assert [found["length"] for found in results["losses"]] == list(script["BARS"])
    told = capsys.readouterr().out
    assert all(f"| {part} | " in told for part in (*script["PARTS"], "whole step"))
    assert "| 16 videos x 32 orders x 32 x 32 | visual_anchor | " in told


def test_the_parts_together_are_one_step_of_the_trainer():
    """The gradients that the profile's separate backwards leave are those of the whole loss."""
    script = runpy.run_path(str(SCRIPT))
    arguments = script["parse"](["--hidden_size", "64", "--num_layers", "1", "1", "--num_videos", "2"])
    model, dataset, collator = script["make_parts"](arguments)
    for tower in (model.text_model, model.video_model):
        tower.eval()  # without dropout both see the same
    gradients = {}

    class Recorded(torch.optim.SGD):
        def step(self, closure=None):
            gradients.update({name: parameter.grad.clone() for name, parameter in named.items()})

    named = {name: parameter for name, parameter in model.named_parameters()}
    torch.manual_seed(5)
    script["one_step"](model, dataset, collator, Recorded(model.parameters()), device=torch.device("cpu"), bf16=False)
    batch = collator([dataset[row] for row in range(2)])
    model.config.similarity, model.config.negatives = "dot", "visual_anchor"
    model.config.unit_weight, model.config.sequence_weight = 0.3, 0.7  # as released
    torch.manual_seed(5)
    model(**batch, return_loss=True).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    for name, parameter in named.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
