"""Configuration of TCLR: the network of clips, the projection head, and the losses it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, configuration_utils
from transformers.configuration_utils import PreTrainedConfig

BACKBONE_TYPE = "video_resnet"
LOSSES = ("instance", "local_local", "global_local")
LOSS_PARTS = ("instance", "local_instance", "local_local", "global_local")
FREEZE = ("none", "backbone", "backbone_weights")


class TCLRConfig(PreTrainedConfig):
    """The backbone's configuration, the head's sizes, and the settings of the losses.

    ``backbone_config``: a ``VideoResNetConfig`` or its fields. ``projection_hidden_size`` (None: the backbone's width)
    and ``projection_size``: of the head; ``head_norm``: with batch normalisation after both layers, as released, or
    without, as the paper tells it.

    ``num_timesteps``: local clips a global one, and slices of its feature map. ``temperatures``: of the losses
    "instance", "local_local", "global_local"; ``losses``: which of them count; ``loss_weights``: "paper", "official"
    or numbers by part (see ``tempclr.tclr_losses.loss_weights``); ``gather_across_ranks``: the negatives of the
    instance loss are those of all ranks. ``separate_batch_statistics``: in training each of the clips of a video is
    normalised among those of its kind, as released; False: all of the batch together, in one pass. ``aligned_views``:
    both views of the global clip cover the time of the local clips; False: the first one alone, and the timesteps of
    the second take no part in the global-local loss.

    Of the classifier: ``classifier_dropout``, and ``freeze``: "none"; "backbone", whose weights and statistics stay as
    they are; or "backbone_weights": its statistics follow the data all the same, as in the released linear evaluation.

    Raises:
        ValueError: a field that no model can be built from, named with its value.

    >>> TCLRConfig(backbone_config={"variant": "c3d"}).backbone_config.hidden_size
    512
    """

    model_type = "tclr"
    # As in S3DConfig: transformers 5.17 reads `sub_configs`, later ones derive it from `sub_configs_defaults`.
    if isinstance(PreTrainedConfig.__dict__.get("sub_configs"), dict):
        sub_configs = {"backbone_config": AutoConfig}
    else:
        sub_configs_defaults = {
            "backbone_config": configuration_utils.SubConfigSpec(config_class=AutoConfig, model_type=BACKBONE_TYPE)
        }

    backbone_config: Any = None
    projection_hidden_size: Any = None
    projection_size: int = 128
    head_norm: bool = True
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    num_timesteps: int = 4
    temperatures: Any = (0.1, 0.1, 0.1)
    loss_weights: Any = "paper"
    losses: Any = LOSSES
    gather_across_ranks: bool = True
    separate_batch_statistics: bool = True
    aligned_views: bool = True
    classifier_dropout: float | int = 0.0
    freeze: str = "none"

    def __post_init__(self, **kwargs):
        if not isinstance(self.backbone_config, PreTrainedConfig):
            fields = {"model_type": BACKBONE_TYPE, **(self.backbone_config or {})}
            self.backbone_config = AutoConfig.for_model(**fields)
        super().__post_init__(**kwargs)
        self.temperatures, self.losses = list(self.temperatures), list(self.losses)
        if self.projection_hidden_size is None:
            self.projection_hidden_size = self.backbone_config.hidden_size
        for name in ("projection_hidden_size", "projection_size", "num_timesteps"):
            _check_count(name, getattr(self, name))
        if len(self.temperatures) != 3 or not all(value > 0 for value in self.temperatures):
            raise ValueError(f"temperatures must be three numbers above 0, for {LOSSES}, got {self.temperatures}")
        if not self.losses or set(self.losses) - set(LOSSES):
            raise ValueError(f"losses must be some of {', '.join(LOSSES)}, got {self.losses}")
        if self.freeze not in FREEZE:
            raise ValueError(f"freeze must be one of {', '.join(FREEZE)}, got {self.freeze!r}")
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout must be at least 0 and below 1, got {self.classifier_dropout!r}")
        weights = self.loss_weights
        by_number = isinstance(weights, Mapping) and not set(weights) - set(LOSS_PARTS)
        if weights not in ("paper", "official") and not by_number:
            known = f"'paper', 'official' or numbers for {', '.join(LOSS_PARTS)}"
            raise ValueError(f"loss_weights must be {known}, got {weights!r}")

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict, dict]:
        """As in ``PreTrainedConfig``; the folder of a backbone alone gives the default configuration around it."""
        fields, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if fields.get("model_type") == BACKBONE_TYPE:
            fields = {"model_type": cls.model_type, "backbone_config": fields}
        return fields, kwargs

    def loss_settings(self) -> dict[str, Any]:
        """The settings of ``tempclr.tclr_losses.tclr_loss``, but for ``gather``."""
        return {"weights": self.loss_weights, "temperatures": self.temperatures, "losses": self.losses}

    def needs_local_clips(self) -> bool:
        """Whether a part of the loss looks at local clips.

        >>> TCLRConfig(losses=["instance"]).needs_local_clips()
        False
        """
        weights = self.loss_weights
        counted = weights == "official" or (isinstance(weights, Mapping) and weights.get("local_instance", 0.0) > 0)
        return counted or set(self.losses) != {"instance"}


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


__all__ = ["TCLRConfig"]
