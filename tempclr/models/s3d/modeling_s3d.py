"""S3D-G: a clip of frames, or a sentence, to a vector of one joint space. The frozen backbone of VideoCLIP and TempCLR.

Xie et al. 2018 (separable convolutions, gating), trained as Miech et al. 2020 did; the wiring is that of their release,
so that its weights load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_s3d import S3DConfig, S3DTextConfig, S3DVideoConfig, block_size

Size3D = tuple[int, int, int]


@dataclass
class S3DOutput(ModelOutput):
    """What ``S3DModel`` returns: ``text_embeds`` and ``video_embeds`` (N, projection_dim) and the towers' outputs."""

    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    video_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(part.to_tuple() if isinstance(part, ModelOutput) else part for part in self.values())


def space_to_depth(pixels: torch.Tensor) -> torch.Tensor:
    """Fold each 2x2x2 cube of (N, C, T, H, W) into channels (N, 8C, T/2, H/2, W/2), ordered (time, row, column, C)."""
    rows, channels, *sizes = pixels.shape
    frames, height, width = (size // 2 for size in sizes)
    cubes = pixels.reshape(rows, channels, frames, 2, height, 2, width, 2)
    return cubes.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(rows, 8 * channels, frames, height, width)


class S3DConvolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        config: S3DVideoConfig,
        in_size: int,
        out_size: int,
        *,
        kernel_size: Size3D = (1, 1, 1),
        padding: Size3D = (0, 0, 0),
    ):
        super().__init__()
        self.convolution: Any = nn.Conv3d(in_size, out_size, kernel_size, padding=padding, bias=False)
        self.norm: Any = nn.BatchNorm3d(out_size, eps=config.norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.norm(self.convolution(hidden_states)), inplace=True)

    def fold_norm(self) -> None:
        if not isinstance(self.norm, nn.Identity):
            self.convolution = nn.utils.fusion.fuse_conv_bn_eval(self.convolution.eval(), self.norm.eval())
            self.norm = nn.Identity()


def separable(config: S3DVideoConfig, in_size: int, out_size: int) -> list[nn.Module]:
    """A 3x3x3 convolution in two steps: over rows and columns, then over time."""
    return [
        S3DConvolution(config, in_size, out_size, kernel_size=(1, 3, 3), padding=(0, 1, 1)),
        S3DConvolution(config, out_size, out_size, kernel_size=(3, 1, 1), padding=(1, 0, 0)),
    ]


class S3DGate(nn.Module):
    """Scales each channel by a number from 0 to 1 that depends on the means of all channels over the clip."""

    def __init__(self, size: int):
        super().__init__()
        self.dense = nn.Linear(size, size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weights = torch.sigmoid(self.dense(hidden_states.mean(dim=(2, 3, 4))))
        return hidden_states * weights[:, :, None, None, None]


class S3DPool(nn.Module):
    """TensorFlow's "same" maximum pooling: zeros around, one more after than before, then windows that may stick out.

    Note [Same padding of pools]: the padding does not depend on the size of the input, unlike TensorFlow's own, and is
    zero rather than minus infinity. Both follow the release; what is pooled is never negative, so zero never wins.
    """

    def __init__(self, kernel_size: Size3D, stride: Size3D):
        super().__init__()
        missing = [max(kernel - step, 0) for kernel, step in zip(kernel_size, stride, strict=True)]
        self.padding = [side for total in reversed(missing) for side in (total // 2, total - total // 2)]
        self.pool = nn.MaxPool3d(kernel_size, stride, ceil_mode=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.pool(nn.functional.pad(hidden_states, self.padding))


class S3DBlock(GradientCheckpointingLayer):
    """Four branches side by side, each with a gate of its own: (N, in_size, T, H, W) to (N, block_size, T, H, W)."""

    def __init__(self, config: S3DVideoConfig, in_size: int, block: list[int]):
        super().__init__()
        direct, first_squeeze, first, second_squeeze, second, pooled = block
        self.branches = nn.ModuleList(
            [
                nn.Sequential(S3DConvolution(config, in_size, direct)),
                nn.Sequential(S3DConvolution(config, in_size, first_squeeze), *separable(config, first_squeeze, first)),
                nn.Sequential(
                    S3DConvolution(config, in_size, second_squeeze), *separable(config, second_squeeze, second)
                ),
                nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), S3DConvolution(config, in_size, pooled)),
            ]
        )
        self.gates = nn.ModuleList([S3DGate(size) for size in (direct, first, second, pooled)])

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        pairs = zip(self.gates, self.branches, strict=True)
        return torch.cat([gate(branch(hidden_states)) for gate, branch in pairs], dim=1)


class S3DPreTrainedModel(PreTrainedModel):
    """What the towers and the model of both share: configuration, first weights, saving and loading."""

    config: S3DConfig
    config_class = S3DConfig
    base_model_prefix = "s3d"
    main_input_name = "pixel_values_videos"
    input_modalities: tuple[str, ...] = ("video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["S3DBlock"]
    _can_compile_fullgraph = True
    _can_record_outputs: ClassVar = {"hidden_states": S3DBlock}
    # Of use only for a momentum that follows the number of batches; converted checkpoints leave it out.
    _keys_to_ignore_on_load_missing: ClassVar = [r"num_batches_tracked"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):
            # Dozens of ReLU layers without a shortcut: the variance of what passes must stay, or nothing arrives.
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")

    def fold_norms(self) -> Self:
        """Make batch normalisation part of the convolutions, for inference only: the same function in fewer passes."""
        for module in self.modules():
            if isinstance(module, S3DConvolution):
                module.fold_norm()
        return self


class S3DTextModel(S3DPreTrainedModel):
    """The text module: ids of known words, 0 = padding, to one vector a sentence."""

    config: S3DTextConfig
    config_class = S3DTextConfig
    base_model_prefix = "text_model"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    supports_gradient_checkpointing = False
    _input_embed_layer = "word_embeddings"
    _can_record_outputs: ClassVar = {}
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^video_model\."]

    def __init__(self, config: S3DTextConfig):
        super().__init__(config)
        # Padding has a vector of its own that is trained like any other, so there is no padding_idx.
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dense = nn.Linear(config.embedding_size, config.hidden_size)
        self.projection = nn.Linear(config.hidden_size, config.projection_dim)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.word_embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.word_embeddings = value

    @can_return_tuple
    def forward(
        self, input_ids: torch.LongTensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Encode ``input_ids`` (N, L), L at most ``max_num_words``; ``pooler_output`` is (N, projection_dim).

        ``last_hidden_state`` (N, max_num_words, hidden_size) is what the largest value is taken over.

        Note [Padding takes part]: the released module takes the largest value over 16 positions, padding included, so
        a sentence's vector depends on whether it fills them. Shorter input is therefore filled up here, and batches of
        other lengths give the same vectors.

        Raises:
            ValueError: the ids are missing, or more than ``max_num_words`` a sentence.
        """
        if input_ids is None:
            raise ValueError("input_ids is missing")
        missing = self.config.max_num_words - input_ids.shape[1]
        if missing < 0:
            most = self.config.max_num_words
            raise ValueError(f"the text module takes at most {most} words a sentence, got {input_ids.shape[1]}")
        words = self.word_embeddings(nn.functional.pad(input_ids, (0, missing), value=self.config.pad_token_id))
        hidden_states = nn.functional.relu(self.dense(words))
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=self.projection(hidden_states.amax(dim=1))
        )


class S3DVideoModel(S3DPreTrainedModel):
    """The video network: frames in [0, 1], (N, T, 3, H, W) with T, H and W even, to one vector a clip.

    >>> config = S3DVideoConfig(stem_sizes=[4, 4, 6], stages=[[[2] * 6]] * 3, projection_dim=5)
    >>> S3DVideoModel(config).eval()(torch.rand(2, 6, 3, 32, 32)).pooler_output.shape
    torch.Size([2, 5])
    """

    config: S3DVideoConfig
    config_class = S3DVideoConfig
    base_model_prefix = "video_model"
    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^text_model\."]

    def __init__(self, config: S3DVideoConfig):
        super().__init__(config)
        first, second, third = config.stem_sizes
        self.stem: Any = nn.Sequential(
            S3DConvolution(config, 8 * 3, first, kernel_size=(2, 4, 4), padding=(1, 2, 2)),
            S3DConvolution(config, first, second),
            *separable(config, second, third),
        )
        self.stem_gate = S3DGate(third)
        self.spatial_pool = S3DPool((1, 3, 3), (1, 2, 2))
        self.pools = nn.ModuleList([S3DPool((3, 3, 3), (2, 2, 2)), S3DPool((2, 2, 2), (2, 2, 2))])
        self.stages: Any = nn.ModuleList()
        size = third
        for blocks in config.stages:
            sizes = [size, *map(block_size, blocks)]
            self.stages.append(nn.ModuleList([S3DBlock(config, *pair) for pair in zip(sizes, blocks, strict=False)]))
            size = sizes[-1]
        self.projection = nn.Linear(size, config.projection_dim)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.stem[0].convolution

    def set_input_embeddings(self, value: Any) -> None:
        self.stem[0].convolution = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values_videos: torch.FloatTensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Encode ``pixel_values_videos`` (N, T, 3, H, W), values from 0 to 1.

        ``pooler_output`` (N, projection_dim) is in the joint space; ``last_hidden_state`` (N, hidden_size, t, h, w) is
        the last feature map, whose mean over time and space the projection takes.

        Raises:
            ValueError: the pixels are missing or have another shape.
        """
        hidden_states = self._stem(_checked(pixel_values_videos).to(self.dtype))
        for index, blocks in enumerate(self.stages):
            hidden_states = self.pools[index - 1](hidden_states) if index else hidden_states
            for block in blocks:
                hidden_states = block(hidden_states, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=self.projection(hidden_states.mean(dim=(2, 3, 4)))
        )

    def _stem(self, pixels: torch.Tensor) -> torch.Tensor:
        cubes = space_to_depth(pixels.transpose(1, 2))
        # An even kernel, padded on both sides, gives one position too many: the first is left out.
        hidden_states = self.stem[0](cubes)[:, :, 1:, 1:, 1:]
        hidden_states = self.stem[1](self.spatial_pool(hidden_states))
        return self.spatial_pool(self.stem_gate(self.stem[2:](hidden_states)))


class S3DModel(S3DPreTrainedModel):
    """Both towers; what they return can be compared by dot product.

    >>> from tempclr import S3DConfig, S3DModel
    >>> video = {"stem_sizes": [4, 4, 6], "stages": [[[2] * 6]] * 3, "projection_dim": 5}
    >>> text = {"vocab_size": 20, "embedding_size": 4, "hidden_size": 8, "projection_dim": 5}
    >>> model = S3DModel(S3DConfig(text_config=text, video_config=video)).eval()
    >>> output = model(pixel_values_videos=torch.rand(1, 6, 3, 32, 32), input_ids=torch.tensor([[3, 7], [4, 0]]))
    >>> (output.text_embeds @ output.video_embeds.T).shape
    torch.Size([2, 1])
    """

    config: S3DConfig
    config_class = S3DConfig

    def __init__(self, config: S3DConfig):
        super().__init__(config)
        self.text_model = S3DTextModel._from_config(config.text_config)
        self.video_model = S3DVideoModel._from_config(config.video_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.LongTensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        """Vectors of sentences, as ``pooler_output`` (N, projection_dim)."""
        return self.text_model(input_ids, **{**kwargs, "return_dict": True})

    @can_return_tuple
    def get_video_features(
        self, pixel_values_videos: torch.FloatTensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        """Vectors of clips, as ``pooler_output`` (N, projection_dim)."""
        return self.video_model(pixel_values_videos, **{**kwargs, "return_dict": True})

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | S3DOutput:
        """Encode clips (N, T, 3, H, W) and sentences (M, L); N and M may differ.

        Raises:
            ValueError: one of the two is missing.
        """
        if pixel_values_videos is None or input_ids is None:
            raise ValueError(
                "forward needs pixel_values_videos and input_ids; for one of the two use get_video_features or "
                "get_text_features"
            )
        options = {**kwargs, "return_dict": True}
        text_output = self.get_text_features(input_ids, **options)
        video_output = self.get_video_features(pixel_values_videos, **options)
        return S3DOutput(
            text_embeds=text_output.pooler_output,
            video_embeds=video_output.pooler_output,
            text_model_output=text_output,
            video_model_output=video_output,
        )


def _checked(pixels: torch.Tensor | None) -> torch.Tensor:
    if pixels is None:
        raise ValueError("pixel_values_videos is missing")
    if pixels.ndim != 5 or pixels.shape[2] != 3 or any(pixels.shape[axis] % 2 for axis in (1, 3, 4)):
        raise ValueError(f"expected clips (N, T, 3, H, W) with T, H and W even, got {tuple(pixels.shape)}")
    return pixels


__all__ = ["S3DModel", "S3DOutput", "S3DPreTrainedModel", "S3DTextModel", "S3DVideoModel"]
