"""Training on the CPU and, with ``-m gpu``, on a CUDA device: the same tests for both."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from tempclr.data.action_videos import read_action_videos
from tempclr.data.collation import ParagraphCollator
from tempclr.data.motion_videos import make_motion_videos
from tempclr.data.sampling import ParagraphDataset
from tempclr.losses import tempclr_loss
from tempclr.recipes.tclr import TCLRClipArguments, TCLRModelArguments, TCLRTrainingArguments, pretrain_tclr
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments
from tempclr_kernels import operators

spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)

CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
KERNELS = {"cpu": "numba", "cuda": "triton"}
QUIET = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the implementations that are asked for."""
    seen = set()
    found = operators.implementation

    def noted(impl: str, device: torch.device):
        seen.add(impl)
        return found(impl, device)

    monkeypatch.setattr(operators, "implementation", noted)
    return seen


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("measure", ["dtw", "otam"])
@pytest.mark.parametrize("device", DEVICES)
def test_training_learns_with_the_kernels_of_the_device(device, measure, bf16, tmp_path, kernels):
    processor = world.make_processor()
    settings = {"max_steps": 40, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "seed": 3}
    trainer = TempCLRTrainer(
        model=world.make_model(measure=measure),
        args=TempCLRTrainingArguments(str(tmp_path), **QUIET, **settings, bf16=bf16, use_cpu=device == "cpu"),
        train_dataset=ParagraphDataset(world.make_paragraphs(32)),
        data_collator=ParagraphCollator(processor),
        processing_class=processor,
    )
    trainer.train()
    assert trainer.model.device.type == device and kernels == {KERNELS[device]}
    for name in ("unit_loss", "sequence_loss"):
        values = [entry[name] for entry in trainer.state.log_history if name in entry]
        assert len(values) == 40 and sum(values[-5:]) < 0.8 * sum(values[:5])
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("measure", ["dtw", "otam"])
@pytest.mark.parametrize("device", DEVICES)
def test_loss_and_gradients_are_those_of_the_cpu_in_float64(device, measure):
    generator = torch.Generator().manual_seed(5)
    text, video = torch.randn(3, 4, 16, generator=generator), torch.randn(3, 9, 16, generator=generator)
    index = (torch.arange(9) // 3).clamp(max=3).expand(3, 9)
    masks = {"sentence_mask": torch.ones(3, 4), "clip_mask": torch.ones(3, 9), "clip_sentence_index": index}
    masks["sentence_mask"][:, 3] = 0

    def step(dtype: torch.dtype, place: str):
        leaves = [one.detach().to(place, dtype, copy=True).requires_grad_() for one in (text, video)]
        where = {name: mask.to(place, torch.bool if "mask" in name else torch.long) for name, mask in masks.items()}
        found = tempclr_loss(*leaves, **where, measure=measure, order_seeds=torch.tensor([3, 4, 5], device=place))
        found["loss"].backward()
        return found["loss"].detach(), *(leaf.grad for leaf in leaves)

    for own, exact in zip(step(torch.float32, device), step(torch.float64, "cpu"), strict=True):
        torch.testing.assert_close(own.cpu().double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_tclr_trains_in_bfloat16(device, tmp_path):
    pytest.importorskip("av", reason="videos are made")
    make_motion_videos(
        tmp_path, num_videos={"train": 2, "test": 1}, labels=("grow", "spin"), image_size=32, show_progress_bar=False
    )
    settings = {"per_device_train_batch_size": 2, "max_steps": 2, "bf16": True, "use_cpu": device == "cpu"}
    trainer = pretrain_tclr(
        read_action_videos(tmp_path / "rows.jsonl", split="train"),
        training_arguments=TCLRTrainingArguments(str(tmp_path / "out"), **QUIET, **settings),
        model_arguments=TCLRModelArguments(variant="r3d_10", width=2),
        clip_arguments=TCLRClipArguments(image_size=16),
    )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.model.device.type == device and len(losses) == 2 and all(map(math.isfinite, losses))
