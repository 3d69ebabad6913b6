"""TCLR: clips contrasted across videos and over time; its encoder as a classifier. Loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_tclr import TCLRConfig as TCLRConfig
    from .modeling_tclr import TCLRForVideoClassification as TCLRForVideoClassification
    from .modeling_tclr import TCLRModel as TCLRModel
    from .modeling_tclr import TCLROutput as TCLROutput
    from .modeling_tclr import TCLRPreTrainedModel as TCLRPreTrainedModel

_HOME = {
    "TCLRConfig": "configuration_tclr",
    "TCLRForVideoClassification": "modeling_tclr",
    "TCLRModel": "modeling_tclr",
    "TCLROutput": "modeling_tclr",
    "TCLRPreTrainedModel": "modeling_tclr",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
