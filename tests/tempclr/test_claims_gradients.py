"""Appendix A.5 of the paper: gradients on two sentences and two clips, autograd against the printed formulas."""

from __future__ import annotations

import math

import pytest
import torch

from tempclr.losses import contrast_orders, unit_loss
from tempclr.negatives import Negatives

CASES = [[[0.8, 0.1], [0.3, 0.6]], [[0.2, 0.7], [0.5, 0.4]], [[0.0, 0.0], [0.0, 0.0]], [[-0.4, 0.9], [0.95, -0.1]]]


def exponentials(products: list[list[float]]) -> list[list[float]]:
    return [[math.exp(one) for one in row] for row in products]


def tempclr_by_formula(products: list[list[float]]) -> torch.Tensor:
    """The printed derivatives by m1·n1 and m1·n2; those by m2·n2 and m2·n1 follow by exchanging the indices."""
    (a, b), (c, d) = exponentials(products)
    by_positive = -b / (a * (d / c) + b)
    by_negative = b * c / (a * d + b * c)
    other_positive = -c / (d * (a / b) + c)
    return torch.tensor([[by_positive, by_negative], [by_negative, other_positive]], dtype=torch.float64)


def videoclip_by_formula(products: list[list[float]]) -> torch.Tensor:
    """L1 + L2, whose anchors are the rows."""
    (a, b), (c, d) = exponentials(products)
    return torch.tensor([[-b / (a + b), b / (a + b)], [c / (c + d), -c / (c + d)]], dtype=torch.float64)


@pytest.mark.parametrize("products", CASES)
def test_the_gradient_of_the_sequence_loss_is_the_printed_one(products: list[list[float]]):
    leaf = torch.tensor(products, dtype=torch.float64, requires_grad=True)
    exchanged = Negatives(column_orders=torch.tensor([[[0, 1], [1, 0]]]), order_mask=torch.tensor([True]))
    # Costs 1 - m·n of products up to 1 are not negative, so that the diagonal is the path of both orders.
    contrast_orders(1 - leaf[None], negatives=exchanged, measure="dtw", gamma=0.0, temperature=1.0).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, tempclr_by_formula(products), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("products", CASES)
def test_the_gradient_of_the_unit_loss_is_the_printed_one_of_both_directions(products: list[list[float]]):
    """The paper writes the loss of the rows; ``unit_loss`` adds that of the columns, a mean over the two pairs each."""
    leaf = torch.tensor(products, dtype=torch.float64, requires_grad=True)
    unit_loss(leaf, torch.eye(2, dtype=torch.float64), similarity="dot").backward()
    columns = [list(column) for column in zip(*products, strict=True)]
    expected = (videoclip_by_formula(products) + videoclip_by_formula(columns).T) / 2
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-14, atol=1e-15)


def test_the_sequence_loss_alone_knows_its_context():
    """What the paper draws from it: how m2 fits changes the gradient by m1·n1 of the sequence loss, not of L1 + L2."""
    near, far = [[0.8, 0.1], [0.3, 0.6]], [[0.8, 0.1], [0.6, 0.3]]
    assert videoclip_by_formula(near)[0, 0] == videoclip_by_formula(far)[0, 0]
    assert tempclr_by_formula(near)[0, 0] > tempclr_by_formula(far)[0, 0]
    ratio = tempclr_by_formula(near)[0, 0] / videoclip_by_formula(near)[0, 0]
    (a, b), (c, d) = exponentials(near)
    assert ratio.item() == pytest.approx((a + b) / (a * d / c + b), rel=1e-14)
