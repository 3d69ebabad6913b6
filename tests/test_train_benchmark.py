"""The benchmark of whole training steps runs at a small size, and says of what it cannot run why."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "train.py"))
SMALL = ["--hidden_size", "64", "--num_layers", "1", "1", "--num_videos", "2", "--num_steps", "1"]


def test_small_steps_are_measured_and_kept(tmp_path, capsys):
    output = tmp_path / "train.json"
    output.write_text('{"gpu": {"kept": true}}')
    only = ["--only", "fp32 sdpa", "fp32 sdpa, max_padding 0.1", "--no_resnet"]
    assert SCRIPT["main"]([*SMALL, *only, "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["gpu"] == {"kept": True}
    plain, grouped = found["cpu"]["steps"]
    for run in (plain, grouped):
        assert run["clips_per_second"] > 0 and run["peak_bytes"] > 0 and run["num_clips"] == 32
        assert sum(run["shares"].values()) == pytest.approx(1) and run["share_of_product"] > 0
    assert grouped["padding"]["both"] <= 0.1 < plain["padding"]["both"]
    assert grouped["tower_operations"] < plain["tower_operations"]
    assert "| fp32 sdpa | " in capsys.readouterr().out


def test_what_cannot_run_is_kept_with_its_reason():
    setting = SCRIPT["Setting"]("bf16 flash", attention="flash_attention_2")
    arguments = SCRIPT["parse"](SMALL)
    run = SCRIPT["attempted"](
        {"name": setting.name}, lambda: SCRIPT["measure"](setting, arguments, torch.device("cpu"), 1e9)
    )
    assert "flash" in run["failed"].lower() and "not run: " in SCRIPT["row"](run)


def test_operations_of_the_towers_are_those_of_their_sizes():
    """Twice the parameters of a layer for each token, and three times that with the backward pass, is most of it."""
    arguments = SCRIPT["parse"](SMALL)
    model, dataset, collator = SCRIPT["step"].make_parts(arguments)
    batch = collator([dataset[index] for index in range(2)])
    operations, _ = SCRIPT["counted"](model, batch, SCRIPT["Setting"]("x", bf16=False), torch.device("cpu"))
    tokens = {"text": batch["attention_mask"].shape[-1], "video": batch["video_mask"].shape[-1] + 2}
    of_units = {"text": int(batch["sentence_mask"].sum()), "video": int(batch["clip_mask"].sum())}
    expected = 0
    for name, tower in (("text", model.text_model), ("video", model.video_model)):
        weights = sum(p.numel() for p in tower.encoder.parameters() if p.ndim == 2)
        length = tokens[name]
        expected += of_units[name] * 3 * (2 * weights * length + 2 * 2 * length**2 * arguments.hidden_size)
    features = 512 * 64 * 2 + 64 * 64 * 2
    expected += of_units["video"] * (tokens["video"] - 2) * 3 * features
    assert operations == pytest.approx(expected, rel=0.1)


def test_the_resnet_is_measured_at_a_small_size(monkeypatch):
    monkeypatch.setitem(SCRIPT["resnet"].__globals__, "RESNET_CLIP", (4, 32))
    arguments = SCRIPT["parse"](["--num_steps", "1", "--num_resnet_clips", "1"])
    run = SCRIPT["resnet"]("bf16", arguments, torch.device("cpu"))
    assert run["clips_per_second"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_in_one_line(capsys):
    assert SCRIPT["main"]([*SMALL, "--device", "cuda"]) == 2
    assert "sees no CUDA device here" in capsys.readouterr().err
