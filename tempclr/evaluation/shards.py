"""Work on the rows of a score matrix, divided among the ranks of a distributed run and brought together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tempclr.distributed import num_ranks, rank

__all__ = ["ROW_BLOCK", "fill_rows"]

ROW_BLOCK = 128


def fill_rows(
    outputs: Mapping[str, Tensor],
    score: Callable[[slice], Mapping[str, Tensor]],
    *,
    across_ranks: bool = True,
    bar: str | None = None,
) -> None:
    """Fill the rows of ``outputs`` (all of one length, zeros to begin with) by ``score(rows)``, block by block.

    With ``torch.distributed`` initialised and ``across_ranks``, each rank scores its own blocks and all ranks end with
    all rows; every rank must then call this. ``bar`` names a progress bar, on rank 0.

    >>> outputs = {"double": torch.zeros(3)}
    >>> fill_rows(outputs, lambda rows: {"double": 2 * torch.arange(3.0)[rows]})
    >>> outputs["double"].tolist()
    [0.0, 2.0, 4.0]
    """
    from tqdm.auto import tqdm

    # Note [Blocks do not depend on the ranks]: a matrix product of another shape may add in another order, and a score
    # that differs in its last bit may change a rank. The blocks are the same however many ranks share them, so two
    # processes rank exactly as one.
    num_rows = len(next(iter(outputs.values())))
    blocks = [slice(start, min(start + ROW_BLOCK, num_rows)) for start in range(0, num_rows, ROW_BLOCK)]
    first, step = (rank(), num_ranks()) if across_ranks else (0, 1)
    for rows in tqdm(blocks[first::step], desc=bar, unit="block", disable=bar is None or first > 0):
        for name, values in score(rows).items():
            outputs[name][rows] = values
    if step > 1:
        # Every row is filled on one rank and zero on the others, so the sum changes no bit.
        for name in outputs:
            torch.distributed.all_reduce(outputs[name])
