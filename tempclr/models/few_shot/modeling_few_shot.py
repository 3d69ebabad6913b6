"""TempCLR on video alone: frame embeddings pretrained by their order, and class scores of few-shot episodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_few_shot import FewShotConfig
from .modeling_few_shot_heads import class_scores, sequence_distances
from .modeling_few_shot_trx import TRXCardinality, TRXHead, sine_positions, tuple_slots

NEEDS_PACKAGE = "{what} needs the tempclr package, which cannot be imported here ({error}): pip install tempclr"


@dataclass
class FewShotOutput(ModelOutput):
    """What ``FewShotModel`` returns.

    ``frame_embeds`` (N, T, hidden_size): what the Transformer makes of each frame, the representation that few-shot
    heads match (S_a). ``linear_embeds`` (N, T, hidden_size): the linear layer's, which pretraining shuffles (S_p).
    ``loss`` and its parts ``unit_loss`` and ``sequence_loss`` are there when the loss was asked for. Both embeddings
    are zero for frames that are padding. ``hidden_states``, under ``output_hidden_states=True``: what goes into the
    Transformer and what comes out of each of its layers.
    """

    loss: torch.Tensor | None = None
    unit_loss: torch.Tensor | None = None
    sequence_loss: torch.Tensor | None = None
    frame_embeds: torch.Tensor | None = None
    linear_embeds: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class FewShotEpisodeOutput(ModelOutput):
    """What ``FewShotForEpisodes`` returns: ``logits`` (E, Q, way), and ``loss`` when labels were given."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class FewShotPreTrainedModel(PreTrainedModel):
    """What the few-shot models share: configuration, first weights, saving and loading."""

    config: FewShotConfig
    config_class = FewShotConfig
    base_model_prefix = "few_shot"
    main_input_name = "frame_features"
    input_modalities: tuple[str, ...] = ("video",)
    _can_record_outputs: ClassVar = {"hidden_states": nn.TransformerEncoderLayer}
    # The losses are means over videos and over queries: the Trainer must divide by its accumulation steps itself.
    accepts_loss_kwargs = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FewShotModel):
            init.copy_(module.position_ids, torch.arange(self.config.max_num_frames))
        if isinstance(module, TRXCardinality):
            feature_size = module.positions.shape[1]
            init.copy_(module.positions, sine_positions(module.num_frames, feature_size))
            init.copy_(module.tuples, tuple_slots(module.num_frames, module.cardinality))
            # PyTorch's own, as in the published code: the tuples' long inputs want smaller weights than 0.02.
            bound = 1 / math.sqrt(module.k_linear.in_features)
            for parameter in (module.k_linear.weight, module.k_linear.bias, module.v_linear.weight):
                init.uniform_(parameter, -bound, bound)


class FewShotModel(FewShotPreTrainedModel):
    """The encoder S_a, a pre-norm Transformer over frame features, and the linear layer S_p it is trained against.

    TempCLR §5.2 and A.2.3 say: frozen frame features, six layers, one linear layer; the anchor is S_a of a video, the
    positive its S_p, and the negatives its S_p with frames shuffled. Width, heads and positions are not told there.

    >>> from tempclr.models.few_shot import FewShotConfig, FewShotModel
    >>> config = FewShotConfig(feature_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    >>> output = FewShotModel(config).eval()(torch.rand(3, 8, 8), return_loss=True)
    >>> output.frame_embeds.shape, output.loss.shape
    (torch.Size([3, 8, 32]), torch.Size([]))
    """

    def __init__(self, config: FewShotConfig):
        super().__init__(config)
        self.projection = nn.Linear(config.feature_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_num_frames, config.hidden_size)
        layer = nn.TransformerEncoderLayer(
            config.hidden_size,
            config.num_attention_heads,
            dim_feedforward=config.intermediate_size,
            dropout=config.hidden_dropout_prob,
            activation=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.transformer = nn.TransformerEncoder(layer, config.num_hidden_layers, norm, enable_nested_tensor=False)
        self.linear = nn.Linear(config.feature_size, config.hidden_size)
        self.position_ids = nn.Buffer(torch.arange(config.max_num_frames), persistent=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.projection

    def set_input_embeddings(self, value: Any) -> None:
        self.projection = value

    def embed(self, frame_features: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        """S_a alone: features (..., T, feature_size) to embeddings (..., T, hidden_size), zero for padding."""
        *batch, num_frames, _ = self._checked(frame_features)
        features, real = self._flat(frame_features, frame_mask)
        hidden_states = self.projection(features) + self.position_embeddings(self.position_ids[:num_frames])
        # A row without a real frame attends to its padding: a softmax over nothing would be NaN.
        hidden = ~(real | ~real.any(dim=1, keepdim=True))
        hidden_states = self.transformer(hidden_states, src_key_padding_mask=None if frame_mask is None else hidden)
        return hidden_states.masked_fill(~real[..., None], 0).unflatten(0, batch)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        frame_features: torch.FloatTensor | None = None,
        frame_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Any,
    ) -> tuple | FewShotOutput:
        """Embed ``frame_features`` (N, T, feature_size) under ``frame_mask`` (N, T; 1 or true = real, default all).

        Padding stands behind the real frames and may hold anything. ``return_loss``: None means in training mode only.

        Raises:
            ValueError: features are missing, of another width than the model takes, or too many a sequence.
        """
        if frame_features is None:
            raise ValueError("frame_features is missing")
        frame_embeds = self.embed(frame_features, frame_mask)
        features, real = self._flat(frame_features, frame_mask)
        linear_embeds = self.linear(features).masked_fill(~real[..., None], 0)
        parts = {}
        if self.training if return_loss is None else return_loss:
            parts = self._loss(frame_embeds, linear_embeds, real)
        return FewShotOutput(**parts, frame_embeds=frame_embeds, linear_embeds=linear_embeds)

    def _loss(self, anchor: torch.Tensor, positive: torch.Tensor, real: torch.Tensor) -> dict[str, Any]:
        try:
            from tempclr.losses import sequence_loss, unit_loss
        except ImportError as error:
            raise ImportError(NEEDS_PACKAGE.format(what="return_loss=True", error=error)) from error
        config, unit, sequence = self.config, None, None
        loss = anchor.new_zeros(())
        if config.unit_weight:
            means = (embeds.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp_min(1) for embeds in (anchor, positive))
            unit = unit_loss(*means, similarity="cosine", temperature=config.temperature)
            loss = loss + config.unit_weight * unit
        if config.sequence_weight:
            sequence = sequence_loss(
                anchor,
                positive,
                sentence_mask=real,
                clip_mask=real,
                measure=config.measure,
                negatives="all_unit",
                num_negatives=config.num_negatives,
                gamma=config.gamma,
                temperature=config.sequence_temperature,
                cosine_eps=config.cosine_eps,
            )
            loss = loss + config.sequence_weight * sequence
        return {"loss": loss, "unit_loss": unit, "sequence_loss": sequence}

    def _checked(self, frame_features: torch.Tensor) -> torch.Size:
        num_frames, size = frame_features.shape[-2:]
        if size != self.config.feature_size:
            raise ValueError(f"frame_features hold vectors of {size}, this model takes {self.config.feature_size}")
        if num_frames > self.config.max_num_frames:
            most = self.config.max_num_frames
            raise ValueError(f"the model takes at most {most} frames a sequence, got {num_frames}: sample fewer")
        return frame_features.shape

    def _flat(self, frame_features: torch.Tensor, frame_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        features = frame_features.flatten(0, -3).to(self.projection.weight.dtype)
        if frame_mask is None:
            return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        real = frame_mask.bool().flatten(0, -2)
        return features.masked_fill(~real[..., None], 0), real


class FewShotForEpisodes(FewShotPreTrainedModel):
    """The encoder with a few-shot head: class scores of queries from a handful of labelled supports.

    Loaded from a folder of ``FewShotModel``, the encoder is the pretrained one and the head, if it has weights, is new.

    >>> from tempclr.models.few_shot import FewShotConfig, FewShotForEpisodes
    >>> config = FewShotConfig(feature_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    >>> model = FewShotForEpisodes(config).eval()
    >>> model(support_features=torch.rand(1, 5, 1, 8, 8), query_features=torch.rand(1, 10, 8, 8)).logits.shape
    torch.Size([1, 10, 5])
    """

    main_input_name = "support_features"

    def __init__(self, config: FewShotConfig):
        super().__init__(config)
        self.few_shot = FewShotModel._from_config(config)
        if config.head == "trx":
            self.head = TRXHead(
                feature_size=config.hidden_size,
                num_frames=config.max_num_frames,
                cardinalities=config.trx_cardinalities,
                head_size=config.trx_head_size,
                dropout=config.trx_dropout,
            )
        self.post_init()

    def embed(self, frame_features: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        """See :meth:`FewShotModel.embed`."""
        return self.few_shot.embed(frame_features, frame_mask)

    @can_return_tuple
    def forward(
        self,
        support_features: torch.FloatTensor | None = None,
        query_features: torch.FloatTensor | None = None,
        support_lengths: torch.Tensor | None = None,
        query_lengths: torch.Tensor | None = None,
        query_labels: torch.LongTensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Any,
    ) -> tuple | FewShotEpisodeOutput:
        """Score E episodes: the supports of each class against each query.

        Args:
            support_features: (E, way, shot, T, feature_size); a class is its place along the second dimension.
            query_features: (E, Q, T, feature_size).
            support_lengths, query_lengths: (E, way, shot) and (E, Q) integers, real frames of each; None is all.
            query_labels: (E, Q) places of the queries' classes; -100 for queries that are padding.
            return_loss: False leaves the cross-entropy out although labels are given.

        Raises:
            ValueError: features are missing or of another shape; a TRX head and sequences of different lengths.
        """
        if support_features is None or query_features is None:
            raise ValueError("forward needs support_features and query_features")
        if support_features.ndim != 5 or query_features.ndim != 4:
            shapes = f"{tuple(support_features.shape)} and {tuple(query_features.shape)}"
            raise ValueError(f"expected supports (E, way, shot, T, F) and queries (E, Q, T, F), got {shapes}")
        support = self.embed(support_features, _mask(support_features, support_lengths))
        query = self.embed(query_features, _mask(query_features, query_lengths))
        logits = self.score(query, support, query_lengths, support_lengths)
        loss = None
        if query_labels is not None and return_loss is not False:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), query_labels.flatten())
        return FewShotEpisodeOutput(loss=loss, logits=logits)

    def score(
        self,
        query: torch.Tensor,
        support: torch.Tensor,
        query_lengths: torch.Tensor | None = None,
        support_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The head alone: embeddings (E, Q, T, d) and (E, way, shot, T, d) to scores (E, Q, way)."""
        if self.config.head == "trx":
            for lengths in (query_lengths, support_lengths):
                if lengths is not None and bool((lengths != self.config.max_num_frames).any()):
                    raise ValueError(f"the TRX head takes sequences of exactly {self.config.max_num_frames} frames")
            return self.head(query, support)
        distances = sequence_distances(
            query,
            support.flatten(1, 2),
            query_lengths,
            None if support_lengths is None else support_lengths.flatten(1, 2),
            measure=self.config.head,
            gamma=self.config.gamma,
            eps=self.config.cosine_eps,
        )
        return class_scores(distances, way=support.shape[1])


def _mask(features: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor | None:
    if lengths is None:
        return None
    return torch.arange(features.shape[-2], device=features.device) < lengths[..., None]


__all__ = ["FewShotEpisodeOutput", "FewShotForEpisodes", "FewShotModel", "FewShotOutput", "FewShotPreTrainedModel"]
