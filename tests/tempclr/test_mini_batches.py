"""The towers in mini-batches: gradients are those of the whole batch, dropout is replayed, memory is that of a part."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tempclr.data.collation import ParagraphCollator
from tempclr.losses import tempclr_loss
from tempclr.mini_batches import embed_in_mini_batches
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


def batch_of(count):
    return ParagraphCollator(world.make_processor())(world.make_paragraphs(count))


def loss(text, video, batch, model):
    masks = {name: batch[name] for name in ("sentence_mask", "clip_mask", "clip_sentence_index")}
    return tempclr_loss(text, video, **masks, **model.config.loss_settings())["loss"]


def gradients(model):
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("mini_batch_size", [1, 3, 7, 100])
def test_gradients_are_those_of_the_whole_batch(mini_batch_size):
    model, batch = world.make_model().double().eval(), batch_of(7)
    batch["video_features"] = batch["video_features"].double()
    output = model(**batch, return_loss=False)
    torch.manual_seed(1)
    loss(output.text_embeds, output.video_embeds, batch, model).backward()
    expected = gradients(model)
    text, video = embed_in_mini_batches(model, batch, mini_batch_size=mini_batch_size)
    # Padded rows of a batch are 0, and so they are where a part of the batch is padded less or more.
    torch.testing.assert_close((text, video), (output.text_embeds, output.video_embeds), rtol=1e-12, atol=1e-14)
    torch.manual_seed(1)
    loss(text, video, batch, model).backward()
    found = gradients(model)
    assert set(found) == set(expected) and len(found) > 20
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=float(largest) * 1e-12)


def test_dropout_is_the_same_in_both_passes():
    """In training mode each mini-batch is run twice; only the same dropout gives the gradient of what was embedded."""
    model, batch = world.make_model().double().train(), batch_of(4)
    batch["video_features"] = batch["video_features"].double()
    weights = [torch.randn(1, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2)]

    def value():
        torch.manual_seed(5)
        text, video = embed_in_mini_batches(model, batch, mini_batch_size=2)
        return (text.pow(2).mean() * weights[0] + video.pow(2).mean() * weights[1]).sum()

    parameter = next(p for name, p in model.named_parameters() if name.endswith("intermediate.dense.weight"))
    value().backward()
    slope = parameter.grad[0, 0].item()
    step = 1e-5
    with torch.no_grad():
        parameter[0, 0] += step
        above = value().item()
        parameter[0, 0] -= 2 * step
        below = value().item()
    # Central differences in float64: error of the order step².
    assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-10)


def test_the_generator_goes_on_from_where_it_was():
    model, batch = world.make_model().train(), batch_of(3)
    text, _ = embed_in_mini_batches(model, batch, mini_batch_size=1)
    before = torch.get_rng_state()
    text.sum().backward()
    assert torch.equal(before, torch.get_rng_state())


def test_the_towers_keep_one_mini_batch():
    """What autograd saves of the towers is freed before the next mini-batch."""
    model, batch = world.make_model().train(), batch_of(12)

    def saved_bytes(embed):
        alive, peak = 0, 0

        def pack(tensor):
            nonlocal alive, peak
            alive += tensor.nbytes
            peak = max(peak, alive)
            return _Held(tensor, release)

        def release(tensor):
            nonlocal alive
            alive -= tensor.nbytes

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
            text, video = embed()
            (text.sum() + video.sum()).backward()
        return peak

    def whole():
        output = model(**batch, return_loss=False)
        return output.text_embeds, output.video_embeds

    parts = saved_bytes(lambda: embed_in_mini_batches(model, batch, mini_batch_size=2))
    assert parts < saved_bytes(whole) / 3


class _Held:
    def __init__(self, tensor, release):
        self.tensor, self.release = tensor, release

    def __del__(self):
        self.release(self.tensor)


def test_the_trainer_takes_the_same_steps(tmp_path):
    """With dropout off, training in mini-batches gives the weights of training on whole batches."""
    finals = []
    for mini_batch_size in (None, 3):
        model = world.make_model()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "config"):
                module.config.attention_probs_dropout_prob = 0.0
        arguments = TempCLRTrainingArguments(
            output_dir=str(tmp_path),
            mini_batch_size=mini_batch_size,
            per_device_train_batch_size=8,
            max_steps=3,
            optim="sgd",
            learning_rate=0.1,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = TempCLRTrainer(
            model,
            arguments,
            train_dataset=world.make_paragraphs(24),
            data_collator=ParagraphCollator(world.make_processor(), with_video_ids=True),
        )
        trainer.train()
        finals.append(
            (trainer.state.log_history[0], {name: value.clone() for name, value in model.state_dict().items()})
        )
    (first, whole), (again, parts) = finals
    assert {"unit_loss", "sequence_loss"} <= set(again)
    assert again["loss"] == pytest.approx(first["loss"], rel=1e-5)
    moved = max((whole[name] - start).abs().max() for name, start in world.make_model().state_dict().items())
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=float(moved) * 1e-4)


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="mini_batch_size must be at least 1, got 0"):
        embed_in_mini_batches(world.make_model(), batch_of(2), mini_batch_size=0)
