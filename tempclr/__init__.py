"""Temporal alignment learning: embed clips and sentences, align them in time order, contrast it with shuffled ones.

Everything here is loaded when it is first asked for, so ``from tempclr import dtw`` costs torch and nothing more. With
``import tempclr``, before or after transformers, ``AutoConfig``, ``AutoModel`` and ``AutoProcessor`` know the models.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tempclr.models import register as _register

if TYPE_CHECKING:
    from tempclr.inference import Alignment as Alignment
    from tempclr.losses import sequence_loss as sequence_loss
    from tempclr.losses import tempclr_loss as tempclr_loss
    from tempclr.losses import unit_loss as unit_loss
    from tempclr.models.few_shot import FewShotConfig as FewShotConfig
    from tempclr.models.few_shot import FewShotForEpisodes as FewShotForEpisodes
    from tempclr.models.few_shot import FewShotModel as FewShotModel
    from tempclr.models.s3d import S3DConfig as S3DConfig
    from tempclr.models.s3d import S3DModel as S3DModel
    from tempclr.models.s3d import S3DProcessor as S3DProcessor
    from tempclr.models.tclr import TCLRConfig as TCLRConfig
    from tempclr.models.tclr import TCLRForVideoClassification as TCLRForVideoClassification
    from tempclr.models.tclr import TCLRModel as TCLRModel
    from tempclr.models.tempclr import TempCLRConfig as TempCLRConfig
    from tempclr.models.tempclr import TempCLRModel as TempCLRModel
    from tempclr.models.tempclr import TempCLRProcessor as TempCLRProcessor
    from tempclr.models.tempclr import TempCLRTextConfig as TempCLRTextConfig
    from tempclr.models.tempclr import TempCLRTextModel as TempCLRTextModel
    from tempclr.models.tempclr import TempCLRVideoConfig as TempCLRVideoConfig
    from tempclr.models.tempclr import TempCLRVideoModel as TempCLRVideoModel
    from tempclr.models.video_resnet import VideoResNetConfig as VideoResNetConfig
    from tempclr.models.video_resnet import VideoResNetModel as VideoResNetModel
    from tempclr.tclr_losses import tclr_loss as tclr_loss
    from tempclr.trainer import TempCLRTrainer as TempCLRTrainer
    from tempclr.trainer import TempCLRTrainingArguments as TempCLRTrainingArguments
    from tempclr_kernels import alignment as alignment
    from tempclr_kernels import dtw as dtw
    from tempclr_kernels import otam as otam
    from tempclr_kernels import pairwise_distances as pairwise_distances

__version__ = "0.1.0.dev0"

_HOME = {
    "dtw": "tempclr_kernels",
    "otam": "tempclr_kernels",
    "alignment": "tempclr_kernels",
    "pairwise_distances": "tempclr_kernels",
    "unit_loss": "tempclr.losses",
    "sequence_loss": "tempclr.losses",
    "tempclr_loss": "tempclr.losses",
    "tclr_loss": "tempclr.tclr_losses",
    "Alignment": "tempclr.inference",
    "FewShotConfig": "tempclr.models.few_shot",
    "FewShotForEpisodes": "tempclr.models.few_shot",
    "FewShotModel": "tempclr.models.few_shot",
    "S3DConfig": "tempclr.models.s3d",
    "S3DModel": "tempclr.models.s3d",
    "S3DProcessor": "tempclr.models.s3d",
    "TCLRConfig": "tempclr.models.tclr",
    "TCLRForVideoClassification": "tempclr.models.tclr",
    "TCLRModel": "tempclr.models.tclr",
    "TempCLRConfig": "tempclr.models.tempclr",
    "TempCLRTextConfig": "tempclr.models.tempclr",
    "TempCLRVideoConfig": "tempclr.models.tempclr",
    "TempCLRModel": "tempclr.models.tempclr",
    "TempCLRTextModel": "tempclr.models.tempclr",
    "TempCLRVideoModel": "tempclr.models.tempclr",
    "TempCLRProcessor": "tempclr.models.tempclr",
    "VideoResNetConfig": "tempclr.models.video_resnet",
    "VideoResNetModel": "tempclr.models.video_resnet",
    "TempCLRTrainer": "tempclr.trainer",
    "TempCLRTrainingArguments": "tempclr.trainer",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tempclr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_register()
