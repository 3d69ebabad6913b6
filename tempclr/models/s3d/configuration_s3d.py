"""Configurations of S3D-G: a separable 3-D network over clips, and a bag of words, into one joint space."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PreTrainedConfig

# For each block its branches: 1x1x1; 1x1x1 then 3x3x3; 1x1x1 then 3x3x3; pooling then 1x1x1.
RELEASED_STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


class S3DTextConfig(PreTrainedConfig):
    """Geometry of the text module: word vectors, a hidden layer, the largest value over the words, a projection.

    ``vocab_size`` counts the padding word, id 0. ``max_num_words``: a sentence is its first so many known words.

    Raises:
        ValueError: a size that is not a positive integer.

    >>> S3DTextConfig(vocab_size=100).max_num_words
    16
    """

    model_type = "s3d_text_model"
    base_config_key = "text_config"

    vocab_size: int = 66250
    embedding_size: int = 300
    hidden_size: int = 2048
    projection_dim: int = 512
    max_num_words: int = 16
    initializer_range: float = 0.02
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in ("vocab_size", "embedding_size", "hidden_size", "projection_dim", "max_num_words"):
            _check_count(name, getattr(self, name))


class S3DVideoConfig(PreTrainedConfig):
    """Geometry of the video network; the defaults are those of the released S3D-G.

    ``stem_sizes``: channels of the three convolutions before the first stage. ``stages``: for each of the three stages
    its blocks, each the six channel counts of its branches: (1x1x1), (1x1x1, 3x3x3), (1x1x1, 3x3x3), (after pooling).
    ``projection_dim``: of the joint space.

    Raises:
        ValueError: a size that is not a positive integer, or lists of another length.

    >>> S3DVideoConfig().hidden_size
    1024
    """

    model_type = "s3d_video_model"
    base_config_key = "video_config"

    stem_sizes: Any = (64, 64, 192)
    stages: Any = RELEASED_STAGES
    projection_dim: int = 512
    norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.stem_sizes = list(self.stem_sizes)
        self.stages = [[list(block) for block in stage] for stage in self.stages]
        if len(self.stem_sizes) != 3 or len(self.stages) != 3 or not all(self.stages):
            found = f"{len(self.stem_sizes)} stem_sizes and {len(self.stages)} stages"
            raise ValueError(f"expected three stem_sizes and three stages of at least one block, got {found}")
        for block in (block for stage in self.stages for block in stage):
            if len(block) != 6:
                raise ValueError(f"a block of stages has six channel counts, got {block}")
        sizes = [*self.stem_sizes, *(size for stage in self.stages for block in stage for size in block)]
        for size in sizes:
            _check_count("every channel count", size)
        _check_count("projection_dim", self.projection_dim)
        if not self.norm_eps > 0:
            raise ValueError(f"norm_eps must be above 0, got {self.norm_eps!r}")

    @property
    def hidden_size(self) -> int:
        """Channels of the last feature map."""
        return block_size(self.stages[-1][-1])


def block_size(block: list[int]) -> int:
    """Channels that come out of a block: those of its four branches together.

    >>> block_size([64, 96, 128, 16, 32, 32])
    256
    """
    direct, _, second, _, third, pooled = block
    return direct + second + third + pooled


class S3DConfig(PreTrainedConfig):
    """Both towers of S3D-G.

    Raises:
        ValueError: the towers end in spaces of different size (their vectors are compared).

    >>> S3DConfig().video_config.projection_dim
    512
    """

    model_type = "s3d"
    # As in TempCLRConfig: transformers 5.17 reads `sub_configs`, later ones derive it from `sub_configs_defaults`.
    if isinstance(PreTrainedConfig.__dict__.get("sub_configs"), dict):
        sub_configs = {"text_config": S3DTextConfig, "video_config": S3DVideoConfig}
    else:
        sub_configs_defaults = {"text_config": S3DTextConfig, "video_config": S3DVideoConfig}

    text_config: Any = None
    video_config: Any = None

    def __post_init__(self, **kwargs):
        for name, config_class in (("text_config", S3DTextConfig), ("video_config", S3DVideoConfig)):
            value = getattr(self, name)
            if value is None:
                setattr(self, name, config_class())
            elif isinstance(value, dict):
                setattr(self, name, config_class(**value))
        super().__post_init__(**kwargs)
        if self.text_config.projection_dim != self.video_config.projection_dim:
            raise ValueError(
                f"both towers need the same projection_dim, got {self.text_config.projection_dim} for text_config and "
                f"{self.video_config.projection_dim} for video_config"
            )


__all__ = ["S3DConfig", "S3DTextConfig", "S3DVideoConfig"]
