"""3-D residual networks of clips (R3D, R(2+1)D) and C3D, the encoders that TCLR trains, loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_video_resnet import VideoResNetConfig as VideoResNetConfig
    from .modeling_video_resnet import VideoResNetModel as VideoResNetModel
    from .modeling_video_resnet import VideoResNetOutput as VideoResNetOutput
    from .modeling_video_resnet import VideoResNetPreTrainedModel as VideoResNetPreTrainedModel

_HOME = {
    "VideoResNetConfig": "configuration_video_resnet",
    "VideoResNetModel": "modeling_video_resnet",
    "VideoResNetOutput": "modeling_video_resnet",
    "VideoResNetPreTrainedModel": "modeling_video_resnet",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
