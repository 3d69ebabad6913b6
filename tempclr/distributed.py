"""The ranks of a distributed run: which one this is, and how the rows of all come together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional

from tempclr.errors import InputError
from tempclr.rank_watch import JOIN_SECONDS, watched_ranks

__all__ = [
    "first_row",
    "gather_objects",
    "gather_rows",
    "joined_ranks",
    "largest_sizes",
    "mean_over_ranks",
    "num_ranks",
    "rank",
    "shared_map",
]

WAIT_SECONDS = 30 * 24 * 3600.0


def num_ranks() -> int:
    """How many processes work together; 1 where ``torch.distributed`` is not initialised.

    >>> num_ranks()
    1
    """
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def rank() -> int:
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if num_ranks() > 1 else 0


def largest_sizes(sizes: Sequence[int], *, device: torch.device) -> list[int]:
    """The largest of each number over the ranks; waits for all of them."""
    if num_ranks() == 1:
        return list(sizes)
    largest = torch.tensor(list(sizes), device=device)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return largest.tolist()


def gather_rows(rows: Tensor, num_rows: int | None = None) -> Tensor:
    """The rows of all ranks, in the order of the ranks, each rank's filled up with zeros to ``num_rows``.

    Floating rows carry gradients home to the rank that they came from. Dimensions behind the first must agree.

    Args:
        rows: (n, ...) on this rank; n may differ from rank to rank.
        num_rows: the largest n, as :func:`largest_sizes` gives it; None asks for it here.

    Returns:
        (num_ranks · num_rows, ...); this rank's own begin at :func:`first_row`.
    """
    if num_rows is None:
        (num_rows,) = largest_sizes([len(rows)], device=rows.device)
    rows = functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, num_rows - len(rows)))
    if num_ranks() == 1:
        return rows
    if rows.is_floating_point():
        return _GatherWithGradients.apply(rows.contiguous())
    return _gather(rows)


def first_row(num_rows: int) -> int:
    """Where this rank's rows begin in what :func:`gather_rows` gives."""
    return rank() * num_rows


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean over the ranks of a floating tensor; without a gradient."""
    if num_ranks() == 1:
        return values
    values = values.detach().clone()
    torch.distributed.all_reduce(values)
    return values / num_ranks()


def gather_objects(value: Any) -> list[Any]:
    """What each rank gave, on every rank, in their order. Objects travel pickled, among the ranks of this run alone."""
    if num_ranks() == 1:
        return [value]
    found: list[Any] = [None] * num_ranks()
    torch.distributed.all_gather_object(found, value)
    return found


def shared_map(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    across_ranks: bool = True,
    bar: str | None = None,
    unit: str = "video",
    size: Callable[[Any], int] = lambda item: 1,
) -> list[Any]:
    """``function`` of each item, in the order of the items; the ranks share the work and all have all results.

    Args:
        function: its results must not depend on what was done before, or ranks would change them. They travel pickled.
        across_ranks: False does all the work here; True must be called on every rank.
        bar: name of a progress bar, on rank 0.
        unit, size: what the bar counts, and how many of them an item is.

    >>> shared_map(abs, [-2, 1])
    [2, 1]
    """
    from tqdm.auto import tqdm

    first, step = (rank(), num_ranks()) if across_ranks else (0, 1)
    share = items[first::step]
    found = []
    with tqdm(total=sum(map(size, share)), desc=bar, unit=unit, disable=bar is None or first > 0) as progress:
        for item in share:
            found.append(function(item))
            progress.update(size(item))
    if step == 1:
        return found
    shares = gather_objects(found)
    return [shares[place % step][place // step] for place in range(len(items))]


@contextmanager
def joined_ranks() -> Iterator[None]:
    """Within the block this process works together with the others that torchrun or accelerate launch started.

    For commands that are no training (the Trainer joins by itself). Without such a launcher, nothing happens. The ranks
    talk by gloo, whatever the device; each takes a GPU of its own as far as there are so many. They wait for each other
    for 30 days: one may be done hours before another, and those that are gone are found by their silence.

    Raises:
        InputError: the launcher's environment variables are incomplete.
        ConnectionError: not all ranks come within half an hour.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or torch.distributed.is_initialized():
        yield
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is set but not {', '.join(missing)}: start several processes by torchrun")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    store, own_rank, num_joined = _meeting(JOIN_SECONDS)
    wait = timedelta(seconds=WAIT_SECONDS)
    torch.distributed.init_process_group("gloo", store=store, rank=own_rank, world_size=num_joined, timeout=wait)
    try:
        with watched_ranks():
            yield
    finally:
        torch.distributed.destroy_process_group()


def _meeting(seconds: float) -> tuple[Any, int, int]:
    """The store that the ranks share, once all have come; this one's number, and how many there are."""
    timeout = timedelta(seconds=seconds)
    try:
        store, own_rank, num_joined = next(torch.distributed.rendezvous("env://", timeout=timeout))
        store.set(f"rank-{own_rank}", "has come")
        store.wait([f"rank-{number}" for number in range(num_joined)], timeout)
    except RuntimeError as error:
        raise ConnectionError(
            f"cannot meet the other ranks ({str(error).splitlines()[0]}): were all {os.environ['WORLD_SIZE']} started "
            f"within {seconds:.0f} seconds?"
        ) from error
    return store, own_rank, num_joined


class _GatherWithGradients(torch.autograd.Function):
    """Note [Gather with gradients]: a gather of detached rows gives the same loss and, from the second step on, the
    wrong weights, because a rank's units are also the negatives of the other ranks. What the losses of all ranks say
    about a rank's rows is summed here; the mean over ranks that follows in DDP and FSDP makes it that of one process,
    because each rank's loss is a sum over its own rows divided by the mean number of rows a rank."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _gather(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.tensor_split(num_ranks())[rank()]


def _gather(rows: Tensor) -> Tensor:
    parts = [torch.empty_like(rows) for _ in range(num_ranks())]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
