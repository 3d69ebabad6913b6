"""Models whose weights are shared out among ranks (FSDP): made ready for saving, evaluated whole."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

__all__ = ["check_sharding", "is_sharded", "prepare_sharding", "register_towers", "whole_model"]

TRUE = ("1", "true", "yes", "on")


def is_sharded(model: nn.Module) -> bool:
    """Whether a rank holds parts of the weights alone.

    >>> is_sharded(nn.Linear(2, 2))
    False
    """
    return any(hasattr(weight, "full_tensor") for weight in model.state_dict().values())


def check_sharding(*, asked_for: bool, device: torch.device, plugin: Any) -> None:
    """Refuse sharding that would not happen, or that nobody has tried.

    Args:
        asked_for: by the training's arguments; ``accelerate launch --use_fsdp`` asks through the environment.
        device: of the training.
        plugin: accelerate's, None where it does not shard.

    Raises:
        ValueError: on a CPU, or FSDP 1.

    >>> check_sharding(asked_for=True, device=torch.device("cpu"), plugin=None)
    Traceback (most recent call last):
    ValueError: fsdp needs GPUs: on the CPU accelerate would copy the model to every rank. Leave fsdp out
    """
    asked_for = asked_for or os.environ.get("ACCELERATE_USE_FSDP", "").lower() in TRUE
    if asked_for and plugin is None and device.type == "cpu":
        raise ValueError("fsdp needs GPUs: on the CPU accelerate would copy the model to every rank. Leave fsdp out")
    if plugin is not None and plugin.fsdp_version != 2:
        raise ValueError(
            f"fsdp version {plugin.fsdp_version} is not supported, version 2 is: give accelerate --fsdp_version 2"
        )


# Note [FSDP shards layers]: accelerate shards the classes of _no_split_modules, and then the input embeddings by
# themselves, which fails where one of those classes holds them.
#
# Note [Whole checkpoints under FSDP]: of a sharded checkpoint the final model would be missing, it could go on with the
# same number of ranks alone, and its table of contents is a pickle, which is run when it is read. A whole one is read
# as tensors.
def prepare_sharding(plugin: Any, model: nn.Module) -> None:
    """Set accelerate's plugin: which layers are sharded, and checkpoints that hold whole weights."""
    plugin.state_dict_config = plugin.optim_state_dict_config = None
    plugin.set_state_dict_type("FULL_STATE_DICT")
    if getattr(plugin, "transformer_cls_names_to_wrap", None):
        return
    try:
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
    except NotImplementedError:  # a model of pixels
        return
    holders = {type(module).__name__ for module in model.modules() if embeddings in module.modules()}
    plugin.transformer_cls_names_to_wrap = [
        name for name in getattr(model, "_no_split_modules", None) or () if name not in holders
    ]


# Note [Evaluated whole]: every forward pass of a sharded model is a collective operation. Where ranks share out videos,
# one makes more passes than another and would wait for ever; and get_text_features passes by the hooks that bring a
# model's own weights together. So an evaluation sees a whole copy, on every rank, for as long as it lasts.
def whole_model(model: Any) -> Any:
    """A model that this rank may run alone: the model itself, or, of a sharded one, a whole copy in the same mode.

    Every rank must call this. The copy takes the memory of all weights; changes to it are lost.

    Args:
        model: a ``PreTrainedModel``.

    >>> from tempclr.models.few_shot import FewShotConfig, FewShotModel
    >>> small = FewShotModel(FewShotConfig(feature_size=4, hidden_size=8, num_attention_heads=2))
    >>> whole_model(small) is small
    True
    """
    if not is_sharded(model):
        return model
    weights = {name: _whole(weight) for name, weight in model.state_dict().items()}
    from torch.distributed.fsdp import FSDPModule

    kind: Any = next(one for one in type(model).__mro__ if not issubclass(one, FSDPModule))
    with torch.random.fork_rng(devices=[]):  # the random weights of a new model must not move the training's numbers
        copy = kind(model.config)
    copy.load_state_dict(weights, assign=True)
    for name in ("processor", "generation_config"):
        if getattr(model, name, None) is not None:
            setattr(copy, name, getattr(model, name))
    copy.requires_grad_(False)
    return copy.to(model.device).train(model.training)


def register_towers(model: Any) -> None:
    """Let the methods of a sharded model that run one tower bring its own weights together, as ``forward`` does."""
    if is_sharded(model):
        from torch.distributed.fsdp import register_fsdp_forward_method

        for name in ("get_text_features", "get_video_features"):
            if hasattr(model, name):
                register_fsdp_forward_method(model, name)


def _whole(weight: torch.Tensor) -> torch.Tensor:
    return (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach()
