"""Problems to align: ragged matrices with poisoned padding, and orders of their valid units."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def _ragged(sizes: list[tuple[int, int]], *, dtype: torch.dtype = torch.float64, padding: float = torch.nan) -> Tensor:
    """Random signed costs, one matrix a pair of sizes; ``padding`` beyond them."""
    n, m = max(size[0] for size in sizes), max(size[1] for size in sizes)
    cost = torch.full((len(sizes), n, m), padding, dtype=dtype)
    for matrix, (rows, columns) in zip(cost, sizes, strict=True):
        matrix[:rows, :columns] = torch.randn(rows, columns, dtype=dtype)
    return cost


def _orders(counts: list[int], num_orders: int, size: int) -> Tensor:
    """``(len(counts), num_orders, size)``: permutations of the first ``count`` positions, and rubbish after them."""
    orders = torch.full((len(counts), num_orders, size), -7)
    for each, count in zip(orders, counts, strict=True):
        for order in each:
            order[:count] = torch.randperm(count)
    return orders


@pytest.fixture
def make_ragged() -> Callable[..., Tensor]:
    return _ragged


@pytest.fixture
def make_orders() -> Callable[..., Tensor]:
    return _orders
