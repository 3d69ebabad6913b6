"""Large contrastive batches in little memory: the towers see mini-batches, the loss sees the whole batch.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (RepL4NLP 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["embed_in_mini_batches"]


def embed_in_mini_batches(
    model: nn.Module, inputs: Mapping[str, Any], *, mini_batch_size: int
) -> tuple[Tensor, Tensor]:
    """``text_embeds`` and ``video_embeds`` of a batch, with gradients, while one mini-batch's activations are kept.

    The towers run without a graph, mini-batch by mini-batch. When the gradient of the embeddings is known, each
    mini-batch runs again with its own dropout and is differentiated. Gradients are those of the whole batch at once, up
    to rounding; the price is a second forward pass.

    Args:
        model: a ``TempCLRModel``, also wrapped by ``DistributedDataParallel``, whose ranks then synchronise once.
        inputs: what its ``forward`` takes, as tensors whose first dimension is that of the batch.
        mini_batch_size: rows (videos, or pairs) that the towers see at once.

    Raises:
        ValueError: ``mini_batch_size`` is below 1.
    """
    if mini_batch_size < 1:
        raise ValueError(f"mini_batch_size must be at least 1, got {mini_batch_size}")
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    num_rows = len(next(iter(tensors.values())))
    parts = [
        {name: value[first : first + mini_batch_size] for name, value in tensors.items()}
        for first in range(0, num_rows, mini_batch_size)
    ]
    # autograd calls backward only where an input asks for a gradient; the parameters get theirs on the way.
    anchor = torch.zeros((), requires_grad=True, device=next(iter(tensors.values())).device)
    return _Cached.apply(anchor, model, parts)


class _Cached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, model: nn.Module, parts: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        ctx.model, ctx.parts, ctx.states = model, parts, []
        made = []
        for part in parts:
            ctx.states.append(_random_state(anchor.device))
            output = model(**part, return_loss=False)
            made.append((output.text_embeds, output.video_embeds))
        text, video = (torch.cat(embeds) for embeds in zip(*made, strict=True))
        return text, video

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        text, video = gradients
        first, last = 0, len(ctx.parts) - 1
        for place, (part, state) in enumerate(zip(ctx.parts, ctx.states, strict=True)):
            rows = slice(first, first + len(next(iter(part.values()))))
            first = rows.stop
            with torch.enable_grad(), _replayed(state, text.device), _unsynchronised(ctx.model, place < last):
                output = ctx.model(**part, return_loss=False)
                torch.autograd.backward((output.text_embeds, output.video_embeds), (text[rows], video[rows]))
        return None, None, None


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _replayed(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """The dropout of the first pass again; afterwards the generators go on from where they were."""
    on_cpu, on_device = state
    with torch.random.fork_rng(devices=[device] if on_device is not None else []):
        torch.set_rng_state(on_cpu)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)
        yield


def _unsynchronised(model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
    return model.no_sync() if wanted and hasattr(model, "no_sync") else nullcontext()  # type: ignore[operator]
