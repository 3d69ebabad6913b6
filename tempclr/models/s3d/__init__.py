"""S3D-G, the video backbone that VideoCLIP's and TempCLR's features come from, loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_s3d import S3DConfig as S3DConfig
    from .configuration_s3d import S3DTextConfig as S3DTextConfig
    from .configuration_s3d import S3DVideoConfig as S3DVideoConfig
    from .modeling_s3d import S3DModel as S3DModel
    from .modeling_s3d import S3DOutput as S3DOutput
    from .modeling_s3d import S3DPreTrainedModel as S3DPreTrainedModel
    from .modeling_s3d import S3DTextModel as S3DTextModel
    from .modeling_s3d import S3DVideoModel as S3DVideoModel
    from .processing_s3d import S3DProcessor as S3DProcessor
    from .tokenization_s3d import S3DTokenizer as S3DTokenizer

_HOME = {
    "S3DConfig": "configuration_s3d",
    "S3DTextConfig": "configuration_s3d",
    "S3DVideoConfig": "configuration_s3d",
    "S3DModel": "modeling_s3d",
    "S3DOutput": "modeling_s3d",
    "S3DPreTrainedModel": "modeling_s3d",
    "S3DTextModel": "modeling_s3d",
    "S3DVideoModel": "modeling_s3d",
    "S3DProcessor": "processing_s3d",
    "S3DTokenizer": "tokenization_s3d",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
