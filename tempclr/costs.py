"""Cost matrices: how badly each sentence fits each clip."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SIMILARITIES", "cosine_cost", "cost_matrix", "dot_cost"]

SIMILARITIES = ("cosine", "dot")


def cosine_cost(a: Tensor, b: Tensor, *, eps: float = 0.0) -> Tensor:
    """One minus the cosine of every row of ``a`` with every row of ``b``: ``1 - a·b / (|a||b| + eps)``.

    The cost that the sequence loss aligns (TempCLR §3.2, with the released code's ``eps = 0.01``). A vector of zeros
    has cosine 0 with everything, and gradient 0, whatever ``eps`` is.

    Args:
        a: (..., n, d) floating tensor.
        b: (..., m, d) floating tensor; leading dimensions broadcast against those of ``a``.
        eps: added to the product of the norms.

    Returns:
        (..., n, m) costs, computed in float32 also under autocast (float64 when given float64).

    >>> cosine_cost(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    tensor([[0., 1.]])
    """
    a, b = _operands(a, b)
    with torch.autocast(a.device.type, enabled=False):
        norms = _norm(a).unsqueeze(-1) * _norm(b).unsqueeze(-2)
        # The smallest normal number keeps 0 / 0 out when eps is 0; any other product of norms is unchanged by it.
        return 1 - (a @ b.mT) / (norms + eps).clamp_min(torch.finfo(a.dtype).tiny)


def dot_cost(a: Tensor, b: Tensor) -> Tensor:
    """One minus the raw dot product of every row of ``a`` with every row of ``b``; it may be negative.

    Shapes and dtypes are those of :func:`cosine_cost`. The released evaluation uses it.

    >>> dot_cost(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    tensor([[-1.,  1.]])
    """
    a, b = _operands(a, b)
    with torch.autocast(a.device.type, enabled=False):
        return 1 - a @ b.mT


def cost_matrix(a: Tensor, b: Tensor, *, similarity: str = "cosine", eps: float = 0.0) -> Tensor:
    """:func:`cosine_cost` or :func:`dot_cost`, chosen by name; ``eps`` belongs to the cosine alone.

    Raises:
        ValueError: for a similarity other than ``"cosine"`` and ``"dot"``.

    >>> cost_matrix(torch.eye(2), torch.eye(2), similarity="dot")
    tensor([[0., 1.],
            [1., 0.]])
    """
    if similarity == "cosine":
        return cosine_cost(a, b, eps=eps)
    if similarity == "dot":
        return dot_cost(a, b)
    raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}")


def _operands(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"expected embeddings (..., n, d) and (..., m, d) of one width d, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    dtype = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    return a.to(dtype), b.to(dtype)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)
