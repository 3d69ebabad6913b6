"""What people do with a model elsewhere: torch.export of each tower, LoRA adapters on both."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.export import Dim, export

from tempclr.data.collation import ParagraphCollator
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


class Pooled(torch.nn.Module):
    """A tower as a function of two tensors, which is what an exported program is."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, units, mask):
        return self.tower(units, mask, return_dict=True).pooler_output


def masked(values, lengths):
    mask = torch.arange(values.shape[1]) < torch.tensor(lengths)[:, None]
    return values, mask.long()


@pytest.mark.parametrize("tower", ["text_model", "video_model"])
def test_an_exported_tower_takes_other_sizes(tower):
    model = world.make_model().eval()
    generator = torch.Generator().manual_seed(0)

    def inputs(count, length, lengths):
        if tower == "text_model":
            return masked(torch.randint(5, 80, (count, length), generator=generator), lengths)
        return masked(torch.randn(count, length, world.FEATURE_SIZE, generator=generator), lengths)

    pooled = Pooled(getattr(model, tower))
    most = 16 if tower == "text_model" else 8
    shapes = {0: Dim("num_units", min=2, max=4096), 1: Dim("length", min=3, max=most)}
    program = export(pooled, inputs(3, 5, [5, 3, 4]), dynamic_shapes=(shapes, shapes))
    other = inputs(5, 7, [7, 1, 2, 6, 7])
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*other), pooled(*other), rtol=1e-6, atol=1e-6)


def test_lora_trains_adapters_of_both_towers_alone(tmp_path):
    import peft

    torch.manual_seed(0)
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"])
    model = peft.get_peft_model(world.make_model(), settings)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = TempCLRTrainingArguments(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=6,
        max_steps=3,
        learning_rate=0.05,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = TempCLRTrainer(
        model,
        arguments,
        train_dataset=world.make_paragraphs(18),
        data_collator=ParagraphCollator(world.make_processor(), with_video_ids=True),
    )
    trainer.train()
    assert {"loss", "unit_loss", "sequence_loss"} <= set(trainer.state.log_history[0])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved and all("lora_" in name for name in moved)
    assert any("text_model" in name for name in moved) and any("video_model" in name for name in moved)

    trainer.save_model(str(tmp_path / "adapter"))
    assert {path.name for path in (tmp_path / "adapter").glob("*.safetensors")} == {"adapter_model.safetensors"}
    loaded = peft.PeftModel.from_pretrained(world.make_model(), tmp_path / "adapter").eval()
    batch = ParagraphCollator(world.make_processor())(world.make_paragraphs(4, seed=1))
    merged = loaded.merge_and_unload()
    with torch.no_grad():
        ours = model.eval()(**batch, return_loss=False)
        again = merged(**batch, return_loss=False)
    # Merging rounds W + BA to float32 once more.
    torch.testing.assert_close(again.text_embeds, ours.text_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again.video_embeds, ours.video_embeds, rtol=1e-4, atol=1e-5)
