"""3-D residual networks and C3D: a clip of frames to a map of features over time, rows and columns.

Tran et al. 2018 (R3D, R(2+1)D) and 2015 (C3D), with the change that TCLR (Dave et al. 2022) makes to the last stage.
The modules are nested as in torchvision, so that weights of torchvision's names load as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_video_resnet import VideoResNetConfig

Size3D = tuple[int, int, int]


@dataclass
class VideoResNetOutput(ModelOutput):
    """What ``VideoResNetModel`` returns.

    ``last_hidden_state`` (N, C, T', H', W'), the feature map; ``timestep_features`` (N, T', C), its means over rows and
    columns; ``pooler_output`` (N, C), its mean over time too; ``hidden_states``, on request, the output of the stem and
    of each block.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    timestep_features: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


def mid_size(in_size: int, out_size: int) -> int:
    """Channels between the two halves of an R(2+1)D convolution: as many numbers as the 3x3x3 one would have.

    >>> mid_size(64, 64), mid_size(64, 128)
    (144, 230)
    """
    return 27 * in_size * out_size // (9 * in_size + 3 * out_size)


class VideoResNetBlock(GradientCheckpointingLayer):
    """What the stages consist of: computed anew in the backward pass under gradient checkpointing.

    Note [Recomputed statistics]: computing a block a second time would also update the running statistics of batch
    normalisation a second time, so that training with gradient checkpointing would not be the training without it. The
    second time they stay as they are.
    """

    def transform(self, hidden_states: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def __call__(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if self.gradient_checkpointing and self.training:
            kwargs["computed"] = []  # one for both times, because checkpointing hands on the same keywords
        return super().__call__(hidden_states, **kwargs)

    def forward(
        self,
        hidden_states: torch.Tensor,
        computed: list[bool] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        if computed is None:
            return self.transform(hidden_states)
        computed.append(True)
        with fixed_statistics(self) if len(computed) > 1 else nullcontext():
            return self.transform(hidden_states)


@contextmanager
def fixed_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation by the statistics of the batch, which leaves the running ones as they are."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm3d)]
    settings = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Without `track_running_stats` fewer tensors would be saved for the backward pass, which checkpointing refuses.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, setting in zip(norms, settings, strict=True):
            norm.momentum, norm.num_batches_tracked = setting


def _convolution(
    in_size: int,
    out_size: int,
    kernel_size: Size3D = (3, 3, 3),
    *,
    stride: Size3D = (1, 1, 1),
    dilation: Size3D = (1, 1, 1),
    bias: bool = False,
) -> nn.Conv3d:
    """Padded so that without stride the size stays."""
    time, rows, columns = (step * (size // 2) for step, size in zip(dilation, kernel_size, strict=True))
    return nn.Conv3d(in_size, out_size, kernel_size, stride, (time, rows, columns), dilation, bias=bias)


class VideoResNetSeparable(nn.Sequential):
    """R(2+1)D's convolution: over rows and columns to ``mid`` channels, then over time."""

    def __init__(self, config: VideoResNetConfig, in_size: int, out_size: int, *, mid: int, stride: Size3D):
        time, *space = stride
        super().__init__(
            _convolution(in_size, mid, (1, 3, 3), stride=(1, space[0], space[1])),
            _norm(config, mid),
            nn.ReLU(inplace=True),
            _convolution(mid, out_size, (3, 1, 1), stride=(time, 1, 1)),
        )


class VideoResNetBasicBlock(VideoResNetBlock):
    """Two convolutions and a shortcut: (N, in_size, T, H, W) to (N, out_size, T', H', W').

    Note [Middle channels]: as in torchvision, the number of channels inside R(2+1)D's convolutions is computed once a
    block, from its input and output, and the second convolution, whose input is wider, has the same number.
    """

    def __init__(
        self, config: VideoResNetConfig, in_size: int, out_size: int, *, stride: Size3D, dilated: bool = False
    ):
        super().__init__()
        separable = config.variant == "r2plus1d_18"
        mid = mid_size(in_size, out_size)
        if dilated or not separable:
            first: nn.Module = _convolution(in_size, out_size, stride=stride, dilation=(2 if dilated else 1, 1, 1))
        else:
            first = VideoResNetSeparable(config, in_size, out_size, mid=mid, stride=stride)
        second: nn.Module = _convolution(out_size, out_size)
        if separable:
            second = VideoResNetSeparable(config, out_size, out_size, mid=mid, stride=(1, 1, 1))
        self.conv1 = nn.Sequential(first, _norm(config, out_size), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(second, _norm(config, out_size))
        self.downsample: nn.Module | None = None
        if in_size != out_size or stride != (1, 1, 1):
            shortcut = _convolution(in_size, out_size, (1, 1, 1), stride=stride)
            self.downsample = nn.Sequential(shortcut, _norm(config, out_size))

    def transform(self, hidden_states: torch.Tensor) -> torch.Tensor:
        shortcut = hidden_states if self.downsample is None else self.downsample(hidden_states)
        return nn.functional.relu(self.conv2(self.conv1(hidden_states)) + shortcut, inplace=True)


class VideoResNetPlainBlock(VideoResNetBlock):
    """C3D's convolution with bias, normalised; pooling, where there is one, comes first."""

    def __init__(self, config: VideoResNetConfig, in_size: int, out_size: int, *, pool: Size3D | None):
        super().__init__()
        self.pool = nn.Identity() if pool is None else nn.MaxPool3d(pool)
        self.conv1 = nn.Sequential(
            _convolution(in_size, out_size, bias=True), _norm(config, out_size), nn.ReLU(inplace=True)
        )

    def transform(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.conv1(self.pool(hidden_states))


def _norm(config: VideoResNetConfig, size: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(size, eps=config.norm_eps, momentum=config.norm_momentum)


def _stem(config: VideoResNetConfig) -> nn.Sequential:
    size, channels = config.hidden_sizes[0], config.num_channels
    if config.variant == "c3d":
        layers: list[nn.Module] = [_convolution(channels, size, bias=True)]
    elif config.variant == "r2plus1d_18":
        mid = max(1, 45 * size // 64)  # 45 in the released network; in proportion for other widths
        layers = [_convolution(channels, mid, (1, 7, 7), stride=(1, 2, 2)), _norm(config, mid), nn.ReLU(inplace=True)]
        layers.append(_convolution(mid, size, (3, 1, 1)))
    else:
        layers = [_convolution(channels, size, (3, 7, 7), stride=(1, 2, 2))]
    return nn.Sequential(*layers, _norm(config, size), nn.ReLU(inplace=True))


def _stage(config: VideoResNetConfig, index: int) -> nn.Sequential:
    """The blocks of stage ``index`` (0 to 3), the first of which makes the map smaller."""
    in_size, out_size = config.hidden_sizes[index : index + 2]
    keeps_time = index == 3 and config.tclr_conv5
    blocks: list[nn.Module] = []
    for block in range(config.depths[index]):
        sizes = (in_size if block == 0 else out_size, out_size)
        if config.variant == "c3d":
            pool = (1, 2, 2) if index == 0 or keeps_time else (2, 2, 2)
            blocks.append(VideoResNetPlainBlock(config, *sizes, pool=pool if block == 0 else None))
            continue
        stride = (1, 2, 2) if keeps_time else (2, 2, 2)
        stride = stride if block == 0 and index > 0 else (1, 1, 1)
        blocks.append(VideoResNetBasicBlock(config, *sizes, stride=stride, dilated=keeps_time and block == 0))
    return nn.Sequential(*blocks)


class VideoResNetPreTrainedModel(PreTrainedModel):
    """What the networks share: configuration, first weights, saving and loading."""

    config: VideoResNetConfig
    config_class = VideoResNetConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities: tuple[str, ...] = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["VideoResNetBasicBlock", "VideoResNetPlainBlock"]
    _can_record_outputs: ClassVar = {"hidden_states": VideoResNetBlock}
    # Of use only for a momentum that follows the number of batches; converted checkpoints leave it out.
    _keys_to_ignore_on_load_missing: ClassVar = [r"num_batches_tracked"]
    # Of the folders of TCLR's models and of torchvision's files.
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^head\.", r"^classifier\.", r"^fc\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)


class VideoResNetModel(VideoResNetPreTrainedModel):
    """The network without a classifier: frames in [0, 1], (N, T, 3, H, W), to a feature map and its means.

    For clips of 16 frames the map has 4 places in time (2 in the stock networks).

    >>> config = VideoResNetConfig(hidden_sizes=[4, 4, 6, 8, 10])
    >>> output = VideoResNetModel(config).eval()(torch.rand(2, 16, 3, 32, 32))
    >>> output.last_hidden_state.shape, output.timestep_features.shape
    (torch.Size([2, 10, 4, 2, 2]), torch.Size([2, 4, 10]))
    """

    def __init__(self, config: VideoResNetConfig):
        super().__init__(config)
        self.stem: Any = _stem(config)
        self.layer1, self.layer2, self.layer3, self.layer4 = (_stage(config, index) for index in range(4))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.stem[0]

    def set_input_embeddings(self, value: Any) -> None:
        self.stem[0] = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: torch.FloatTensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> VideoResNetOutput:
        """Encode ``pixel_values`` (N, T, 3, H, W): RGB, floating-point from 0 to 1 or uint8, and not normalised.

        Raises:
            ValueError: the pixels are missing or have another shape.
        """
        hidden_states = self.stem(self._normalized(self._checked(pixel_values)).transpose(1, 2))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden_states = stage(hidden_states)
        timestep_features = hidden_states.mean(dim=(3, 4)).transpose(1, 2)
        return VideoResNetOutput(
            last_hidden_state=hidden_states,
            pooler_output=timestep_features.mean(dim=1),
            timestep_features=timestep_features,
        )

    def fold_norms(self) -> Self:
        """Make batch normalisation part of the convolutions, for inference only: the same function in fewer passes."""
        for module in self.modules():
            if isinstance(module, nn.Sequential):
                _fold(module)
        return self

    def _normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.config.channel_order == "bgr":
            pixels = pixels.flip(2)
        if self.config.image_mean is None:
            return pixels
        mean, std = pixels.new_tensor([self.config.image_mean, self.config.image_std])[..., None, None]
        return (pixels - mean) / std

    def _checked(self, pixels: torch.Tensor | None) -> torch.Tensor:
        if pixels is None:
            raise ValueError("pixel_values is missing")
        in_bytes, channels = pixels.dtype == torch.uint8, self.config.num_channels
        if pixels.ndim != 5 or pixels.shape[2] != channels or not (in_bytes or pixels.is_floating_point()):
            found = f"{pixels.dtype} {tuple(pixels.shape)}"
            raise ValueError(f"expected clips (N, T, {channels}, H, W), floating-point or uint8, got {found}")
        return pixels.to(self.dtype) / 255 if in_bytes else pixels.to(self.dtype)


def _fold(layers: nn.Sequential) -> None:
    """Each convolution with the normalisation after it; R(2+1)D's second half stands one level deeper."""
    for index in range(1, len(layers)):
        norm, before = layers[index], layers[index - 1]
        if not isinstance(norm, nn.BatchNorm3d):
            continue
        owner, place = (before, len(before) - 1) if isinstance(before, nn.Sequential) else (layers, index - 1)
        convolution: Any = owner[place]
        owner[place] = nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), norm.eval())
        layers[index] = nn.Identity()


__all__ = ["VideoResNetModel", "VideoResNetOutput", "VideoResNetPreTrainedModel"]
