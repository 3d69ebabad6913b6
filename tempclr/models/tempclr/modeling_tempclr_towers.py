"""The two towers of TempCLR: an encoder with BERT's shape and parameter names, once over words and once over features.

Wiring and pooling are those of the released models (VideoCLIP's, which TempCLR starts from), so their weights load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tempclr import TempCLRConfig, TempCLRTextConfig, TempCLRVideoConfig


def masked_mean(hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of (rows, length, d) over the positions where ``mask`` (rows, length) is true; zero where none is."""
    weights = mask.to(hidden_states.dtype)[..., None]
    return (hidden_states * weights).sum(1) / weights.sum(1).clamp_min(1)


def pool(hidden_states: torch.Tensor, real: torch.Tensor, is_sep: torch.Tensor, *, pooling: str) -> torch.Tensor:
    """One vector a row of (rows, length, d), [CLS] standing first; see ``pooling`` in the configurations.

    ``real``, ``is_sep`` (rows, length): where tokens stand that are neither padding nor [CLS], and which are [SEP].
    """
    if pooling == "cls":
        return hidden_states[:, 0]
    return masked_mean(hidden_states, real if pooling == "mean_with_sep" else real & ~is_sep)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class TempCLRSelfAttention(nn.Module):
    def __init__(self, config: TempCLRTextConfig | TempCLRVideoConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // self.num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        head_shape = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        query = self.query(hidden_states).view(head_shape).transpose(1, 2)
        key = self.key(hidden_states).view(head_shape).transpose(1, 2)
        value = self.value(hidden_states).view(head_shape).transpose(1, 2)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            is_causal=self.is_causal,
            dropout=self.config.attention_probs_dropout_prob if self.training else 0.0,
            **kwargs,
        )
        return attended.reshape(hidden_states.shape).contiguous(), weights


class TempCLRResidual(nn.Module):
    """The end of each half of a layer: dense, dropout, add the input, normalise."""

    def __init__(self, config: TempCLRTextConfig | TempCLRVideoConfig, *, input_size: int):
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


class TempCLRAttention(nn.Module):
    def __init__(self, config: TempCLRTextConfig | TempCLRVideoConfig):
        super().__init__()
        self.self = TempCLRSelfAttention(config)
        self.output = TempCLRResidual(config, input_size=config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attended, _ = self.self(hidden_states, attention_mask, **kwargs)
        return self.output(attended, hidden_states)


class TempCLRIntermediate(nn.Module):
    def __init__(self, config: TempCLRTextConfig | TempCLRVideoConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(hidden_states))


class TempCLRLayer(GradientCheckpointingLayer):
    def __init__(self, config: TempCLRTextConfig | TempCLRVideoConfig):
        super().__init__()
        self.attention = TempCLRAttention(config)
        self.intermediate = TempCLRIntermediate(config)
        self.output = TempCLRResidual(config, input_size=config.intermediate_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        hidden_states = self.attention(hidden_states, attention_mask, **kwargs)
        return self.output(self.intermediate(hidden_states), hidden_states)


class TempCLREncoder(nn.Module):
    def __init__(self, config: TempCLRTextConfig | TempCLRVideoConfig):
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([TempCLRLayer(config) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        for layer in self.layer:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        return hidden_states


class TempCLREmbeddings(nn.Module):
    """What both towers do to their tokens: add positions and token type 0, normalise, drop out."""

    def __init__(self, config: TempCLRTextConfig | TempCLRVideoConfig, *, num_positions: int):
        super().__init__()
        self.position_embeddings = nn.Embedding(num_positions, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.position_ids = nn.Buffer(torch.arange(num_positions)[None], persistent=False)

    def add_positions(self, tokens: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.token_type_embeddings(torch.zeros_like(position_ids))
        tokens = tokens + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(tokens))


class TempCLRTextEmbeddings(TempCLREmbeddings):
    def __init__(self, config: TempCLRTextConfig):
        super().__init__(config, num_positions=config.max_position_embeddings)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)

    def forward(self, input_ids: torch.Tensor | None = None, inputs_embeds: torch.Tensor | None = None) -> torch.Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        length, most = inputs_embeds.shape[1], self.position_ids.shape[1]
        if length > most:
            raise ValueError(f"the text tower takes at most {most} tokens a sentence, got {length}: truncate the text")
        return self.add_positions(inputs_embeds, self.position_ids[:, :length])


class TempCLRVideoMLP(nn.Module):
    """One feature vector to one token. The norm keeps torch's own eps of 1e-5, unlike those of the encoder."""

    def __init__(self, config: TempCLRVideoConfig):
        super().__init__()
        self.linear1 = nn.Linear(config.feature_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=1e-5)
        self.linear2 = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.LayerNorm(nn.functional.gelu(self.linear1(features))))


class TempCLRVideoEmbeddings(TempCLREmbeddings):
    """(rows, T, feature_size) to (rows, T + 2, hidden_size): [CLS], one token a feature, [SEP].

    Note [SEP keeps its place]: feature i stands at position i + 1 and [SEP] always at ``max_num_features + 1``, however
    few features there are, so a clip's vectors do not depend on how far its batch was padded. Where the configuration
    says ``sep_position="next"``, it comes after the clip's last real feature instead, which padding does not move
    either.
    """

    def __init__(self, config: TempCLRVideoConfig):
        super().__init__(config, num_positions=config.max_num_features + 2)
        self.video_mlp = TempCLRVideoMLP(config)
        self.special_token_embeddings = nn.Embedding(2, config.hidden_size)
        self.feature_size, self.max_num_features = config.feature_size, config.max_num_features
        self.sep_position = config.sep_position

    def forward(self, video_features: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        rows, length, size = video_features.shape
        if size != self.feature_size:
            raise ValueError(f"video_features hold vectors of {size}, this model takes {self.feature_size}")
        if length > self.max_num_features:
            raise ValueError(
                f"the video tower takes at most {self.max_num_features} features a clip, got {length}: cut the clip"
            )
        tokens = self.video_mlp(video_features.to(self.video_mlp.linear1.weight.dtype))
        specials = self.special_token_embeddings(self.position_ids[:, :2]).expand(rows, -1, -1)
        tokens = torch.cat([specials[:, :1], tokens, specials[:, 1:]], dim=1)
        before_sep, sep = self.position_ids[:, : length + 1], self.position_ids[:, -1:]
        if self.sep_position == "next":
            before_sep, sep = before_sep.expand(rows, -1), 1 + (real * before_sep[:, 1:]).amax(1, keepdim=True)
        return self.add_positions(tokens, torch.cat([before_sep, sep], dim=1))


class TempCLRPreTrainedModel(PreTrainedModel):
    """What the towers and the model of both share: configuration, first weights, saving and loading."""

    config: TempCLRConfig
    config_class = TempCLRConfig
    base_model_prefix = "tempclr"
    main_input_name = "input_ids"
    input_modalities: tuple[str, ...] = ("video", "text")
    supports_gradient_checkpointing = True
    # The loss is a mean over pairs and paragraphs: the Trainer must divide by its accumulation steps itself.
    accepts_loss_kwargs = False
    _no_split_modules: ClassVar = ["TempCLRLayer", "TempCLRTextEmbeddings", "TempCLRVideoEmbeddings"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs: ClassVar = {"hidden_states": TempCLRLayer, "attentions": TempCLRSelfAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TempCLREmbeddings):
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[1])[None])


class TempCLRTextModel(TempCLRPreTrainedModel):
    """The text tower: ids of [CLS] words [SEP] PAD, padded on the right, to one vector a sentence."""

    config: TempCLRTextConfig
    config_class = TempCLRTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    _input_embed_layer = "word_embeddings"
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^video_model\."]

    def __init__(self, config: TempCLRTextConfig):
        super().__init__(config)
        self.embeddings = TempCLRTextEmbeddings(config)
        self.encoder = TempCLREncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode ``input_ids`` (N, L) under ``attention_mask`` (N, L; 1 or true = real, default all).

        ``pooler_output`` (N, hidden_size) is by default the mean of the last layer over real tokens but [CLS], [SEP]
        included: see ``pooling`` in the configuration. The last real token is taken for [SEP].
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        hidden_states = self.embeddings(input_ids=input_ids, inputs_embeds=inputs_embeds)
        if attention_mask is None:
            attention_mask = hidden_states.new_ones(hidden_states.shape[:2])
        real = attention_mask.bool()
        is_cls = self.embeddings.position_ids[:, : real.shape[1]] == 0
        # [CLS] is a key even of a row that is all padding: a softmax over no key at all would give NaN.
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=real | is_cls)
        hidden_states = self.encoder(hidden_states, mask, **kwargs)
        positions = self.embeddings.position_ids[:, : real.shape[1]]
        is_sep = positions == (positions * real).amax(1, keepdim=True)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states,
            pooler_output=pool(hidden_states, real & ~is_cls, is_sep, pooling=self.config.pooling),
        )


class TempCLRVideoModel(TempCLRPreTrainedModel):
    """The video tower: one feature vector a time step, padded on the right, to one vector a clip."""

    config: TempCLRVideoConfig
    config_class = TempCLRVideoConfig
    base_model_prefix = "video_model"
    main_input_name = "video_features"
    input_modalities = ("video",)
    _input_embed_layer = "video_mlp"
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^text_model\."]

    def __init__(self, config: TempCLRVideoConfig):
        super().__init__(config)
        self.embeddings = TempCLRVideoEmbeddings(config)
        self.encoder = TempCLREncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.video_mlp

    def set_input_embeddings(self, value: Any) -> None:
        self.embeddings.video_mlp = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        video_features: torch.FloatTensor | None = None,
        video_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode ``video_features`` (N, T, feature_size) under ``video_mask`` (N, T; 1 or true = real, default all).

        ``last_hidden_state`` (N, T, hidden_size) is that of the features alone; ``hidden_states`` and ``attentions``
        have [CLS] before and [SEP] after them. ``pooler_output`` (N, hidden_size) is by default the mean of the last
        layer over real features and [SEP]: see ``pooling`` in the configuration. What stands in padding, NaN included,
        changes nothing.
        """
        if video_features is None:
            raise ValueError("video_features is missing")
        if video_mask is None:
            video_mask = video_features.new_ones(video_features.shape[:2])
        real = video_mask.bool()
        hidden_states = self.embeddings(video_features.masked_fill(~real[..., None], 0), real)
        one = torch.ones_like(real[:, :1])
        cls_key = one if self.config.attend_cls else ~one
        mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=torch.cat([cls_key, real, one], dim=1),
        )
        hidden_states = self.encoder(hidden_states, mask, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states[:, 1:-1],
            pooler_output=pool(
                hidden_states,
                torch.cat([~one, real, one], dim=1),
                torch.cat([~one, torch.zeros_like(real), one], dim=1),
                pooling=self.config.pooling,
            ),
        )


__all__ = ["TempCLRPreTrainedModel", "TempCLRTextModel", "TempCLRVideoModel"]
