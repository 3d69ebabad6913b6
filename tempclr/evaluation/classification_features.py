"""What a trained encoder makes of clips: features, how alike its timesteps are, and where in the frame it looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempclr.errors import InputError

__all__ = [
    "attention_maps",
    "clip_features",
    "clip_probabilities",
    "slice_similarity",
    "timestep_similarity",
    "video_vectors",
]


def clip_features(
    backbone: nn.Module,
    batches: Iterable[Mapping[str, Any] | None],
    *,
    num_batches: int | None = None,
    show_progress_bar: bool = False,
) -> Tensor:
    """The backbone's features of every clip, pooled over space alone: ``(N, clips, T', C)`` float32 on the CPU.

    Args:
        backbone: a ``VideoResNetModel``; it is put in evaluation mode for the length of the call.
        batches: mappings with ``pixel_values`` ``(B, clips, T, 3, H, W)``, one entry of the first dimension a video;
            None, a batch whose videos were all left out, is passed over.
        num_batches: of the progress bar.

    Raises:
        InputError: no batch holds a video.

    Source: TCLR C.4; its code pools (None, 1, 1).
    """

    def features(pixels: Tensor) -> Tensor:
        found = backbone(pixels.flatten(0, 1)).timestep_features
        return found.unflatten(0, pixels.shape[:2])

    return _over_batches(backbone, features, batches, num_batches, show_progress_bar)


def clip_probabilities(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any] | None],
    *,
    num_batches: int | None = None,
    show_progress_bar: bool = False,
) -> Tensor:
    """Probabilities of every clip, ``(N, clips, classes)``, by a ``TCLRForVideoClassification``; as above."""

    def probabilities(pixels: Tensor) -> Tensor:
        return model(pixels.flatten(0, 1)).logits.softmax(dim=-1).unflatten(0, pixels.shape[:2])

    return _over_batches(model, probabilities, batches, num_batches, show_progress_bar)


def video_vectors(features: Tensor) -> Tensor:
    """One vector a video for retrieval, ``(N, clips, T', C)`` to ``(N, C * T')``: the mean over clips, channels first.

    >>> video_vectors(torch.zeros(3, 10, 4, 512)).shape
    torch.Size([3, 2048])
    """
    return features.mean(dim=1).transpose(1, 2).flatten(1)


def slice_similarity(timestep_embeds: Tensor) -> Tensor:
    """Mean cosine ``(P, P)`` of the timesteps of clips ``(N, P, E)``; TCLR, appendix H.

    >>> slice_similarity(torch.eye(2)[None])
    tensor([[1., 0.],
            [0., 1.]])
    """
    if timestep_embeds.ndim != 3 or not len(timestep_embeds):
        raise ValueError(f"timesteps must be (N, P, E), got shape {tuple(timestep_embeds.shape)}")
    unit = F.normalize(timestep_embeds.float(), dim=-1)
    return (unit @ unit.transpose(1, 2)).mean(dim=0)


@torch.no_grad()
def timestep_similarity(model: Any, batches: Iterable[Tensor]) -> Tensor:
    """:func:`slice_similarity` of a ``TCLRModel``'s own timesteps, by backbone and head, of global clips.

    Args:
        model: a ``TCLRModel``; it is put in evaluation mode for the length of the call.
        batches: global clips ``(B, T, 3, H, W)``.
    """
    embeds = []
    with _evaluating(model):
        for clips in batches:
            features = model.backbone(clips.to(_device(model))).timestep_features
            vectors = features.unflatten(1, (model.config.num_timesteps, -1)).mean(dim=2)
            embeds.append(model.head(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2]).float().cpu())
    return slice_similarity(torch.cat(embeds))


@torch.no_grad()
def attention_maps(backbone: nn.Module, clips: Tensor, *, layer: str = "layer3", power: int = 2) -> Tensor:
    """Where the activations of a layer are strong: the sum over channels of their powers, from 0 to 1 in each clip.

    Args:
        backbone: a ``VideoResNetModel``.
        clips: ``(B, T, 3, H, W)``.
        layer: of the backbone; ``layer3`` is the fourth convolutional block, as in the paper.
        power: 2 is the activation-based attention of the reference.

    Returns:
        ``(B, T', H', W')`` float32 on the CPU, of the layer's own size.

    Source: TCLR, appendix K, after Zagoruyko and Komodakis, "Paying more attention to attention" (2017).
    """
    seen: list[Tensor] = []
    handle = backbone.get_submodule(layer).register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        with _evaluating(backbone):
            backbone(clips.to(_device(backbone)))
    finally:
        handle.remove()
    strength = seen[0].float().abs().pow(power).sum(dim=1)
    low, high = (getattr(strength.flatten(1), name)(dim=1)[:, None, None, None] for name in ("amin", "amax"))
    return ((strength - low) / (high - low).clamp_min(1e-12)).cpu()


@torch.no_grad()
def _over_batches(model: nn.Module, function: Any, batches: Any, num_batches: int | None, show: bool) -> Tensor:
    from tqdm.auto import tqdm

    device, found = _device(model), []
    with _evaluating(model):
        for batch in tqdm(batches, total=num_batches, desc="clips", disable=not show):
            if batch is None:
                continue
            pixels = batch["pixel_values"]
            if pixels.ndim != 6:
                raise ValueError(f"pixel_values must be (B, clips, T, 3, H, W), got shape {tuple(pixels.shape)}")
            found.append(function(pixels.to(device)).float().cpu())
    if not found:
        raise InputError("none of the videos could be used; see the warnings before this")
    return torch.cat(found)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
