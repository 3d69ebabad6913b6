"""TCLR: a network of clips and one projection head, for whole clips and for each moment of a clip alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .configuration_tclr import TCLRConfig

HEAD_KEYS = r"^head\."
NEEDS_PACKAGE = "{what} needs the tempclr package, which cannot be imported here ({error}): pip install tempclr"


@dataclass
class TCLROutput(ModelOutput):
    """What ``TCLRModel`` returns; embeddings have unit length.

    ``global_embeds`` (B, 2, E): of the two views of the global clip; ``timestep_embeds`` (B, 2, P, E): of the slices of
    their feature maps; ``local_embeds`` (B, 2, P, E): of both views of the local clips; both None in training with a
    loss of global clips alone. ``loss`` and its named parts, before their weights, are there when the loss was asked
    for and the part counts.
    """

    loss: torch.Tensor | None = None
    instance_loss: torch.Tensor | None = None
    local_instance_loss: torch.Tensor | None = None
    local_local_loss: torch.Tensor | None = None
    global_local_loss: torch.Tensor | None = None
    global_embeds: torch.Tensor | None = None
    timestep_embeds: torch.Tensor | None = None
    local_embeds: torch.Tensor | None = None


class TCLRProjection(nn.Module):
    """Two layers to a vector of unit length, (N, hidden_size) to (N, projection_size)."""

    def __init__(self, config: TCLRConfig):
        super().__init__()
        size, hidden, out = config.backbone_config.hidden_size, config.projection_hidden_size, config.projection_size
        self.dense = nn.Linear(size, hidden)
        self.projection = nn.Linear(hidden, out, bias=not config.head_norm)
        norm: dict[str, Any] = {"eps": config.norm_eps, "momentum": config.norm_momentum}
        self.dense_norm: nn.Module = nn.BatchNorm1d(hidden, **norm) if config.head_norm else nn.Identity()
        self.projection_norm: nn.Module = nn.BatchNorm1d(out, **norm) if config.head_norm else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden_states = nn.functional.relu(self.dense_norm(self.dense(features)))
        # In float32, also under autocast: unit length to two digits would blur the losses' small temperatures.
        projected = self.projection_norm(self.projection(hidden_states)).float()
        return nn.functional.normalize(projected, dim=-1)


class TCLRPreTrainedModel(PreTrainedModel):
    """What pretraining and classification share: configuration, first weights, saving and loading."""

    config: TCLRConfig
    config_class = TCLRConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities: tuple[str, ...] = ("video",)
    supports_gradient_checkpointing = True
    # The losses are means: the Trainer must divide by its accumulation steps itself.
    accepts_loss_kwargs = False
    _no_split_modules: ClassVar = ["VideoResNetBasicBlock", "VideoResNetPlainBlock"]
    _keys_to_ignore_on_load_missing: ClassVar = [r"num_batches_tracked"]
    _keys_to_ignore_on_load_unexpected: ClassVar[Any] = [HEAD_KEYS, r"^classifier\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            # PyTorch's own, as released.
            bound = module.in_features**-0.5
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    init.uniform_(parameter, -bound, bound)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        self.backbone.set_input_embeddings(value)


class TCLRModel(TCLRPreTrainedModel):
    """The network and the head it is trained with; ``backbone`` is the ``VideoResNetModel``.

    >>> from tempclr import TCLRConfig, TCLRModel
    >>> config = TCLRConfig(backbone_config={"hidden_sizes": [4, 4, 6, 8, 10]}, projection_size=5)
    >>> output = TCLRModel(config)(torch.rand(3, 2, 16, 3, 16, 16), torch.rand(3, 2, 4, 16, 3, 16, 16))
    >>> output.global_embeds.shape, output.timestep_embeds.shape, output.loss.shape
    (torch.Size([3, 2, 5]), torch.Size([3, 2, 4, 5]), torch.Size([]))
    """

    main_input_name = "global_clips"

    def __init__(self, config: TCLRConfig):
        super().__init__(config)
        self.backbone: Any = AutoModel.from_config(config.backbone_config)
        self.head = TCLRProjection(config)
        self.post_init()
        # The backbone's list has joined in, which passes over heads; here a head that does not fit is to be told.
        self._keys_to_ignore_on_load_unexpected.discard(HEAD_KEYS)

    @can_return_tuple
    def get_video_features(
        self, pixel_values: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | ModelOutput:
        """The backbone's output for clips (N, T, 3, H, W): vectors (N, hidden_size) as ``pooler_output``."""
        return self.backbone(pixel_values, **{**kwargs, "return_dict": True})

    @can_return_tuple
    def forward(
        self,
        global_clips: torch.Tensor | None = None,
        local_clips: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | TCLROutput:
        """Embed two views of ``global_clips`` (B, 2, T, 3, H, W) and of ``local_clips`` (B, 2, P, T, 3, H, W).

        Pixels are RGB, floating-point from 0 to 1 or uint8. ``return_loss``: None means in training mode only.

        Note [Statistics of each kind of clip]: in training, batch normalisation sees the clips of one view and one
        place at a time (2 global and 2P local batches, and in the head each timestep by itself too), as released. One
        batch of all is quicker, but a clip's features then depend on the other clips of the same video, by whose
        common statistics the positive can be told from the negatives. Where the instance loss of global clips is all
        that counts, clips by themselves let local ones be left out in training: a fifth of the work.

        Raises:
            ValueError: one of the inputs is missing or of another shape, or the feature map's length in time is no
                multiple of the number of timesteps.
        """
        _check_clips(global_clips, local_clips, num_timesteps=self.config.num_timesteps)
        if self.training and self.config.separate_batch_statistics:
            embeds = self._embed_separately(global_clips, local_clips)
        else:
            embeds = self._embed_together(global_clips, local_clips)
        parts: dict[str, Any] = {}
        if self.training if return_loss is None else return_loss:
            loss_function, gather = _loss_function()
            across = {"gather": gather} if self.config.gather_across_ranks else {}
            parts = loss_function(*self._counterparts(*embeds), **across, **self.config.loss_settings())
        names = ("global_embeds", "timestep_embeds", "local_embeds")
        return TCLROutput(**parts, **dict(zip(names, embeds, strict=True)))

    def _embed_separately(self, global_clips: Any, local_clips: Any) -> tuple[torch.Tensor | None, ...]:
        if not self.config.needs_local_clips():
            views = [self.head(self._timestep_features(clips).mean(dim=1)) for clips in global_clips.unbind(dim=1)]
            return torch.stack(views, dim=1), None, None
        of_globals, of_timesteps, of_locals = [], [], []
        for view in range(2):
            features = self._timestep_features(global_clips[:, view])
            of_globals.append(self.head(features.mean(dim=1)))
            slices = self._slices(features).unbind(dim=1)
            of_timesteps.append(torch.stack([self.head(vectors) for vectors in slices], dim=1))
            clips = local_clips[:, view].unbind(dim=1)
            vectors = [self.head(self._timestep_features(clip).mean(dim=1)) for clip in clips]
            of_locals.append(torch.stack(vectors, dim=1))
        return tuple(torch.stack(parts, dim=1) for parts in (of_globals, of_timesteps, of_locals))

    def _embed_together(self, global_clips: Any, local_clips: Any) -> tuple[torch.Tensor, ...]:
        num_videos, _, num_locals = local_clips.shape[:3]
        clips = [global_clips.flatten(0, 1), local_clips.flatten(0, 2)]
        if clips[0].shape[1:] == clips[1].shape[1:]:
            features = self._timestep_features(torch.cat(clips)).split([len(part) for part in clips])
        else:
            features = tuple(map(self._timestep_features, clips))
        slices = self._slices(features[0])
        vectors = [features[0].mean(dim=1), slices.flatten(0, 1), features[1].mean(dim=1)]
        embeds = self.head(torch.cat(vectors)).split([len(part) for part in vectors])
        shapes = ((num_videos, 2), (num_videos, 2, slices.shape[1]), (num_videos, 2, num_locals))
        return tuple(part.unflatten(0, shape) for part, shape in zip(embeds, shapes, strict=True))

    def _counterparts(self, of_globals: Any, of_timesteps: Any, of_locals: Any) -> tuple[torch.Tensor | None, ...]:
        """What the losses compare.

        Note [Views of different skips]: where the second view's global clip covers another time than the local clips,
        its timestep p is not their counterpart. The first view's timesteps then stand in for it: the global-local loss,
        the mean over all pairs of views, is that of the first view, and counts as much as before.
        """
        if of_timesteps is None or self.config.aligned_views:
            return of_globals, of_timesteps, of_locals
        return of_globals, of_timesteps[:, :1].expand_as(of_timesteps), of_locals

    def _timestep_features(self, clips: torch.Tensor) -> torch.Tensor:
        return self.backbone(clips).timestep_features

    def _slices(self, features: torch.Tensor) -> torch.Tensor:
        """(N, T', C) to (N, num_timesteps, C): means of neighbours where the map is longer."""
        wanted, found = self.config.num_timesteps, features.shape[1]
        if found % wanted:
            raise ValueError(
                f"the feature map has {found} places in time, which {wanted} timesteps (num_timesteps) do not divide: "
                "give clips of another length, or a backbone with tclr_conv5=True"
            )
        return features.unflatten(1, (wanted, -1)).mean(dim=2)


class TCLRForVideoClassification(TCLRPreTrainedModel):
    """The network with one linear layer over its mean features: linear evaluation and fine-tuning.

    Loaded from a folder of ``TCLRModel`` or of the backbone alone, the backbone is the trained one, the layer new.

    >>> from tempclr import TCLRConfig, TCLRForVideoClassification
    >>> config = TCLRConfig(backbone_config={"hidden_sizes": [4, 4, 6, 8, 10]}, num_labels=3)
    >>> ten_clips = torch.rand(2, 10, 16, 3, 16, 16)
    >>> TCLRForVideoClassification(config).eval()(ten_clips).logits.exp().sum(dim=1).allclose(torch.ones(2))
    True
    """

    def __init__(self, config: TCLRConfig):
        super().__init__(config)
        self.backbone: Any = AutoModel.from_config(config.backbone_config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.backbone_config.hidden_size, config.num_labels)
        self.post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As in ``nn.Module``; a frozen backbone takes no gradient and, if wholly frozen, stays in evaluation mode.

        Note [A frozen backbone]: the released linear evaluation trains no weight of the backbone but leaves it in
        training mode, so that batch normalisation uses the statistics of each batch and its running statistics drift to
        the new data: "backbone_weights". Frozen to the letter ("backbone"), features do not depend on the batch.
        """
        super().train(mode)
        if self.config.freeze != "none":
            self.backbone.requires_grad_(False)
        if self.config.freeze == "backbone":
            self.backbone.eval()
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | ImageClassifierOutputWithNoAttention:
        """Classify clips (N, T, 3, H, W), or videos by several clips each, (N, K, T, 3, H, W); ``labels`` (N,).

        Pixels are RGB, floating-point from 0 to 1 or uint8. Of several clips the probabilities are averaged, and
        ``logits`` (N, num_labels) are the logarithms of the means.

        Raises:
            ValueError: the pixels are missing or of another shape.
        """
        if pixel_values is None or pixel_values.ndim not in (5, 6):
            found = "nothing" if pixel_values is None else tuple(pixel_values.shape)
            raise ValueError(f"expected pixel_values (N, T, 3, H, W) or (N, K, T, 3, H, W), got {found}")
        videos = pixel_values.shape[: pixel_values.ndim - 4]
        output = self.backbone(pixel_values.flatten(0, -5), **{**kwargs, "return_dict": True})
        logits = self.classifier(self.dropout(output.pooler_output)).float()
        if len(videos) == 2:
            logits = logits.log_softmax(dim=-1).unflatten(0, videos).logsumexp(dim=1) - math.log(videos[1])
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=output.hidden_states)


def _loss_function() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from tempclr.tclr_losses import gather_rows, tclr_loss
    except ImportError as error:
        raise ImportError(NEEDS_PACKAGE.format(what="return_loss=True", error=error)) from error
    return tclr_loss, gather_rows


def _check_clips(global_clips: torch.Tensor | None, local_clips: torch.Tensor | None, *, num_timesteps: int) -> None:
    if global_clips is None or local_clips is None:
        raise ValueError("forward needs global_clips and local_clips; for plain clips use backbone")
    shapes = tuple(global_clips.shape), tuple(local_clips.shape)
    right = (len(shapes[0]), len(shapes[1])) == (6, 7) and shapes[0][:2] == shapes[1][:2] == (shapes[0][0], 2)
    if not right or shapes[1][2] != num_timesteps:
        expected = f"global_clips (B, 2, T, 3, H, W) and local_clips (B, 2, {num_timesteps}, T, 3, H, W)"
        raise ValueError(f"expected {expected}, got {shapes[0]} and {shapes[1]}")


__all__ = ["TCLRForVideoClassification", "TCLRModel", "TCLROutput", "TCLRPreTrainedModel"]
