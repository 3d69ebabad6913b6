"""TempCLR itself: configuration, towers, dual encoder and processor, loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_tempclr import TempCLRConfig as TempCLRConfig
    from .configuration_tempclr import TempCLRTextConfig as TempCLRTextConfig
    from .configuration_tempclr import TempCLRVideoConfig as TempCLRVideoConfig
    from .initialization_tempclr import model_from_bert as model_from_bert
    from .modeling_tempclr import TempCLRModel as TempCLRModel
    from .modeling_tempclr import TempCLROutput as TempCLROutput
    from .modeling_tempclr import TempCLRPreTrainedModel as TempCLRPreTrainedModel
    from .modeling_tempclr import TempCLRTextModel as TempCLRTextModel
    from .modeling_tempclr import TempCLRVideoModel as TempCLRVideoModel
    from .processing_tempclr import TempCLRProcessor as TempCLRProcessor

_HOME = {
    "TempCLRConfig": "configuration_tempclr",
    "TempCLRTextConfig": "configuration_tempclr",
    "TempCLRVideoConfig": "configuration_tempclr",
    "model_from_bert": "initialization_tempclr",
    "TempCLRModel": "modeling_tempclr",
    "TempCLROutput": "modeling_tempclr",
    "TempCLRPreTrainedModel": "modeling_tempclr",
    "TempCLRTextModel": "modeling_tempclr",
    "TempCLRVideoModel": "modeling_tempclr",
    "TempCLRProcessor": "processing_tempclr",
}
__all__ = [*_HOME, "carry_code"]


def carry_code() -> None:
    """From now on ``save_pretrained`` and ``push_to_hub`` copy the model's code into the folder as well.

    Who loads such a folder with ``trust_remote_code=True`` needs transformers only; the loss, encoding and aligning
    still need the package.
    """
    from .configuration_tempclr import TempCLRConfig
    from .modeling_tempclr import TempCLRModel
    from .processing_tempclr import TempCLRProcessor

    TempCLRConfig.register_for_auto_class("AutoConfig")
    TempCLRModel.register_for_auto_class("AutoModel")
    TempCLRProcessor.register_for_auto_class("AutoProcessor")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
