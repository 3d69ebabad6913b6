"""Training stops, on all ranks together, before a number that is not finite gets into the weights or a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tempclr.distributed import gather_objects, largest_sizes

__all__ = ["check_loss", "check_norm", "check_weights"]

REMEDY = "look for extreme features, or lower the learning rate"
MAX_VIDEOS_TOLD = 32


def check_loss(
    loss: Tensor, parts: Mapping[str, Tensor | None], *, step: int, video_ids: Sequence[str] | None = None
) -> None:
    """Raise where the loss of this rank or of another is not finite; every rank must call this.

    Args:
        loss: of the batch.
        parts: its named parts; None is a part that was not computed.
        step: the update that the batch belongs to, from 1.
        video_ids: of the batch.

    Raises:
        ValueError: on all ranks alike, naming step, parts and the videos of the ranks whose loss it is.

    >>> check_loss(torch.tensor(torch.nan), {"unit_loss": torch.tensor(torch.nan)}, step=3, video_ids=["a", "b"])
    Traceback (most recent call last):
    ValueError: the loss is nan at step 3 (unit_loss nan; videos a, b); the weights are those of the step before: \
look for extreme features, or lower the learning rate
    """
    is_bad = not bool(torch.isfinite(loss).all())
    if not any(largest_sizes([int(is_bad)], device=loss.device)):
        return
    value = loss.detach().float().mean().item()
    values = {name: part.detach().float().mean().item() for name, part in parts.items() if part is not None}
    found = [told for told in gather_objects((value, values, list(video_ids or ())) if is_bad else None) if told]
    videos = list(dict.fromkeys(video_id for _, _, ids in found for video_id in ids))
    value, values, _ = found[0]
    for _, others, _ in found:  # of a part that is finite on some ranks alone, the number that is not
        values |= {name: part for name, part in others.items() if not math.isfinite(part)}
    told = [", ".join(f"{name} {part:.4g}" for name, part in values.items())]
    if videos:
        more = len(videos) - MAX_VIDEOS_TOLD
        told.append(f"videos {', '.join(videos[:MAX_VIDEOS_TOLD])}" + (f" and {more} more" if more > 0 else ""))
    where = f" ({'; '.join(filter(None, told))})" if any(told) else ""
    raise ValueError(f"the loss is {value:g} at step {step}{where}; the weights are those of the step before: {REMEDY}")


def check_norm(norm: Tensor | float | None, *, step: int) -> None:
    """Raise where the norm of the gradients, which all ranks share, is not finite.

    Raises:
        ValueError: naming the step.
    """
    if norm is not None and not math.isfinite(float(norm)):
        raise ValueError(
            f"the gradients of step {step} have the norm {float(norm):g} though the loss is finite; the weights are "
            f"those of the step before: {REMEDY}"
        )


@torch.no_grad()
def check_weights(model: nn.Module, *, step: int) -> None:
    """Raise before weights are saved that hold a number that is not finite; every rank must call this.

    Raises:
        ValueError: on all ranks alike, naming step and weight.
    """
    broken = []
    for name, weight in model.named_parameters():
        own = weight.to_local() if hasattr(weight, "to_local") else weight
        if not torch.isfinite(own).all():
            broken.append(name)
    broken = list(dict.fromkeys(name for names in gather_objects(broken) for name in names))
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(
            f"after step {step} the weight {broken[0]}{more} is not finite: nothing is saved, what was saved stays "
            f"untouched; {REMEDY}"
        )
