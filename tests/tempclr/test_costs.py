from __future__ import annotations

import numpy as np
import pytest
import torch

from tempclr.costs import cosine_cost, cost_matrix, dot_cost


def test_cosine_cost_is_the_formula_in_float64():
    a, b = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    x, y = a.numpy(), b.numpy()
    norms = np.linalg.norm(x, axis=-1)[:, :, None] * np.linalg.norm(y, axis=-1)[:, None, :]
    expected = 1 - np.einsum("pnd,pmd->pnm", x, y) / (norms + 0.01)
    np.testing.assert_allclose(cosine_cost(a, b, eps=0.01).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_a_zero_vector_costs_one_and_has_a_finite_gradient(eps):
    a = torch.zeros(2, 3, requires_grad=True)
    b = torch.zeros(2, 3)
    b[0, 0] = 2.0
    cost = cosine_cost(a, b, eps=eps)
    assert torch.equal(cost, torch.ones(2, 2))
    cost.sum().backward()
    assert torch.isfinite(a.grad).all()


def test_gradient_of_the_cosine_is_right():
    a = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: cosine_cost(x, y, eps=0.01), (a, b))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("function", [cosine_cost, dot_cost])
def test_low_precision_is_computed_in_float32_also_under_autocast(dtype, function):
    a, b = torch.randn(3, 64).to(dtype), torch.randn(5, 64).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = function(a, b)
    assert cost.dtype == torch.float32
    torch.testing.assert_close(cost, function(a.double(), b.double()).float(), rtol=1e-5, atol=1e-5)


def test_cost_matrix_chooses_by_name():
    a, b = torch.randn(3, 4), torch.randn(2, 4)
    assert torch.equal(cost_matrix(a, b, eps=0.1), cosine_cost(a, b, eps=0.1))
    assert torch.equal(cost_matrix(a, b, similarity="dot"), 1 - a @ b.T)
    with pytest.raises(ValueError, match="cosine, dot, got 'euclid'"):
        cost_matrix(a, b, similarity="euclid")


def test_embeddings_of_two_widths_are_refused():
    with pytest.raises(ValueError, match=r"one width d, got \(3, 4\) and \(2, 5\)"):
        cosine_cost(torch.zeros(3, 4), torch.zeros(2, 5))
