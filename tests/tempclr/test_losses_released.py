"""The losses against numbers that the released pretraining code computed (float64 to 1e-9, float32 to 1e-5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.losses import sequence_loss, unit_loss
from tempclr.negatives import Negatives

CLIPS_PER_VIDEO = 16


@pytest.fixture(scope="module")
def released():
    with np.load(Path(__file__).parent / "data" / "loss_pretrain.npz") as arrays:
        return dict(arrays)


def recorded_orders(case, released):
    permutations = torch.from_numpy(released[f"{case}/negative_text_permutations"])
    identity = torch.arange(5).expand(len(permutations), 1, 5)
    orders = torch.cat([identity, permutations], dim=1)
    return Negatives(row_orders=orders, order_mask=torch.ones(len(orders), dtype=torch.bool))


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize("measure", ["dtw", "otam"])
@pytest.mark.parametrize("case", ["mixed", "all", "none"])
def test_values_and_gradients_are_those_of_the_released_code(case, measure, precision, released):
    dtype, tolerance = {"f64": (torch.float64, 1e-9), "f32": (torch.float32, 1e-5)}[precision]
    text = torch.from_numpy(released[f"{case}/pooled_text"]).to(dtype).requires_grad_()
    video = torch.from_numpy(released[f"{case}/pooled_video"]).to(dtype).requires_grad_()
    units = torch.from_numpy(
        released[f"{case}/used_video"][:, None] * CLIPS_PER_VIDEO + released[f"{case}/unit_indices_in_video"]
    )
    sequence = sequence_loss(
        text[units], video[units], measure=measure, negatives=recorded_orders(case, released), gamma=0.1
    )
    unit = unit_loss(text, video, similarity="dot")
    total = 0.3 * unit + 0.7 * sequence
    total.backward()

    expected = {name: released[f"{case}/{measure}/{precision}/{name}"] for name in ("L_seq", "MMContraLoss", "total")}
    for value, name in ((sequence, "L_seq"), (unit, "MMContraLoss"), (total, "total")):
        np.testing.assert_allclose(value.item(), expected[name], rtol=tolerance, atol=tolerance)
    for gradient, name in ((text.grad, "text"), (video.grad, "video")):
        wanted = released[f"{case}/{measure}/{precision}/grad_pooled_{name}"]
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())
