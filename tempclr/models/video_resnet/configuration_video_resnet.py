"""Configuration of the networks of clips that TCLR trains: R3D-18, R(2+1)D-18, R3D with one block a stage, C3D."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PreTrainedConfig

# Of each variant the channels after the stem and after each of the four stages, and the blocks of each stage.
RESNET_SIZES = (64, 64, 128, 256, 512)
VARIANTS: dict[str, dict[str, tuple[int, ...]]] = {
    "r3d_18": {"hidden_sizes": RESNET_SIZES, "depths": (2, 2, 2, 2)},
    "r3d_10": {"hidden_sizes": RESNET_SIZES, "depths": (1, 1, 1, 1)},
    "r2plus1d_18": {"hidden_sizes": RESNET_SIZES, "depths": (2, 2, 2, 2)},
    "c3d": {"hidden_sizes": (64, 128, 256, 512, 512), "depths": (1, 2, 2, 2)},
}
CHANNEL_ORDERS = ("rgb", "bgr")


class VideoResNetConfig(PreTrainedConfig):
    """Geometry of the network, and what clips it was made for.

    ``variant``: "r3d_18" and "r2plus1d_18" (torchvision's networks), "r3d_10" (R3D with one block a stage, as PRP and
    VCOP have it) or "c3d" (VCOP's, with batch normalisation). ``hidden_sizes``: channels after the stem and after each
    of the four stages; ``depths``: blocks of each stage, for C3D convolutions; both default to the variant's own.

    ``tclr_conv5``: TCLR's change, which keeps four places in time for 16 frames: the first block of the last stage has
    no stride in time and its first convolution looks two places far; in R(2+1)D that convolution is a full 3-D one, as
    released; in C3D the last pooling leaves time alone. False gives the stock networks, with two places.

    ``num_frames``, ``frames_per_second``, ``resize_size`` and ``image_size`` record which clips it is to be given for
    features: frames taken so many a second (by default those of one second are a clip), the shorter side scaled to
    ``resize_size``, the middle square of ``image_size`` cut out. Pixels are always given in RGB, from 0 to 1; what else
    the weights were trained with the model does itself: ``channel_order`` "bgr" reverses the channels, ``image_mean``
    is subtracted from them and ``image_std`` divides them (None, as in TCLR: neither).

    Raises:
        ValueError: a field that no network can be built from, named with its value.

    >>> VideoResNetConfig(variant="c3d").hidden_sizes
    [64, 128, 256, 512, 512]
    """

    model_type = "video_resnet"
    base_config_key = "backbone_config"

    variant: str = "r3d_18"
    hidden_sizes: Any = None
    depths: Any = None
    tclr_conv5: bool = True
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    num_channels: int = 3
    channel_order: str = "rgb"
    num_frames: int = 16
    image_size: int = 112
    resize_size: int = 140
    image_mean: Any = None
    image_std: Any = None
    frames_per_second: float | int = 16

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}")
        if self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order must be one of {', '.join(CHANNEL_ORDERS)}, got {self.channel_order!r}")
        self.hidden_sizes = self._sizes("hidden_sizes", 5)
        self.depths = self._sizes("depths", 4)
        for name in ("num_channels", "num_frames", "image_size", "resize_size"):
            _check_count(name, getattr(self, name))
        for name in ("norm_eps", "frames_per_second"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        if not 0 < self.norm_momentum <= 1:
            raise ValueError(f"norm_momentum must be above 0 and at most 1, got {self.norm_momentum!r}")

        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError("image_mean and image_std come together, got one of them only")
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_channels:
                raise ValueError(f"{name} must be {self.num_channels} numbers, one a channel, got {values}")

    def _sizes(self, name: str, number: int) -> list[int]:
        values = getattr(self, name)
        values = list(VARIANTS[self.variant][name] if values is None else values)
        if len(values) != number:
            raise ValueError(f"{name} must be {number} numbers, got {values}")
        for value in values:
            _check_count(f"each of {name}", value)
        return values

    @property
    def hidden_size(self) -> int:
        """Channels of the feature map."""
        return self.hidden_sizes[-1]


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


__all__ = ["VideoResNetConfig"]
