"""One training step of the released code, from the checkpoint to the gradients, done with the converted model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr import TempCLRModel
from tempclr.losses import sequence_loss, unit_loss
from tempclr.negatives import Negatives
from tempclr_hub.convert import convert_checkpoint

DATA = Path(__file__).parent / "data"
CLIPS_PER_VIDEO = 16


@pytest.fixture(scope="module")
def step() -> dict[str, torch.Tensor]:
    with np.load(DATA / "released_training_step.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def features(step: dict[str, torch.Tensor], model: TempCLRModel) -> torch.Tensor:
    """To save room, the file holds W x of each feature x, W being the first layer: a y with W y = W x serves."""
    weight = model.video_model.embeddings.video_mlp.linear1.weight.detach().double()
    rebuilt = step["projected_features"].double() @ torch.linalg.pinv(weight).T
    batch = torch.zeros(*step["video_mask"].shape, weight.shape[1])
    batch[step["video_mask"]] = rebuilt.float()
    return batch


def our_name(name: str) -> str:
    name = name.replace("video_encoder.videomlp.", "video_model.embeddings.video_mlp.")
    return name.replace("video_encoder.bert.", "video_model.").replace("text_encoder.", "text_model.")


def test_loss_and_gradients_of_every_norm_are_those_of_the_released_code(tmp_path, step):
    """Two videos of 16 clips, DTW, 0.3 · unit + 0.7 · sequence, dropout off."""
    tokenizer = str(DATA / "vocab_tiny.txt")
    convert_checkpoint(DATA / "fairseq_checkpoint_tiny.pt", tmp_path / "m", num_attention_heads=4, tokenizer=tokenizer)
    model = TempCLRModel.from_pretrained(tmp_path / "m").eval()
    ids, mask = (torch.cat([step[name][:, :1], step[name][:, 2:]], dim=1).long() for name in ("caps", "cmasks"))
    text = model.get_text_features(ids, mask).pooler_output
    video = model.get_video_features(features(step, model), step["video_mask"]).pooler_output

    settings = model.config.loss_settings()
    orders = step["negative_text_permutations"].long()
    orders = torch.cat([torch.arange(5).expand(len(orders), 1, 5), orders], dim=1)
    negatives = Negatives(row_orders=orders, order_mask=torch.ones(len(orders), dtype=torch.bool))
    units = step["used_video"][:, None] * CLIPS_PER_VIDEO + step["unit_indices_in_video"].long()
    sequence = sequence_loss(
        text[units],
        video[units],
        negatives=negatives,
        measure=settings["measure"],
        gamma=settings["gamma"],
        temperature=settings["sequence_temperature"],
        cosine_eps=settings["cosine_eps"],
    )
    loss = settings["unit_weight"] * unit_loss(text, video, similarity=settings["similarity"])
    loss = loss + settings["sequence_weight"] * sequence
    loss.backward()
    assert loss.item() == pytest.approx(step["loss"].item(), rel=1e-5)

    gradients = {name.removeprefix("grad/"): value for name, value in step.items() if name.startswith("grad/")}
    assert len(gradients) == 30
    parameters = dict(model.named_parameters())
    for name, expected in gradients.items():
        actual = parameters[our_name(name)].grad
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
