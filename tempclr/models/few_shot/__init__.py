"""TempCLR on video alone, and few-shot heads on its frame embeddings, loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_few_shot import FewShotConfig as FewShotConfig
    from .modeling_few_shot import FewShotEpisodeOutput as FewShotEpisodeOutput
    from .modeling_few_shot import FewShotForEpisodes as FewShotForEpisodes
    from .modeling_few_shot import FewShotModel as FewShotModel
    from .modeling_few_shot import FewShotOutput as FewShotOutput
    from .modeling_few_shot import FewShotPreTrainedModel as FewShotPreTrainedModel
    from .modeling_few_shot_heads import class_scores as class_scores
    from .modeling_few_shot_heads import sequence_distances as sequence_distances
    from .modeling_few_shot_trx import TRXHead as TRXHead

_HOME = {
    "FewShotConfig": "configuration_few_shot",
    "FewShotEpisodeOutput": "modeling_few_shot",
    "FewShotForEpisodes": "modeling_few_shot",
    "FewShotModel": "modeling_few_shot",
    "FewShotOutput": "modeling_few_shot",
    "FewShotPreTrainedModel": "modeling_few_shot",
    "class_scores": "modeling_few_shot_heads",
    "sequence_distances": "modeling_few_shot_heads",
    "TRXHead": "modeling_few_shot_trx",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
