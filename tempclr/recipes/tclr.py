"""TCLR as one function: videos in, a trained and saved encoder of clips out; labels take no part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers import set_seed

from tempclr.data.action_videos import ActionVideo, TCLRDataset, tclr_collate
from tempclr.data.augmentations import AUGMENTATIONS, PRETRAINING, AugmentationRecipe
from tempclr.data.clip_sampling import SHORT_VIDEOS, ClipSampler
from tempclr.data.files import check_output_folder
from tempclr.errors import InputError
from tempclr.models.tclr import TCLRConfig, TCLRModel
from tempclr.models.video_resnet import VideoResNetConfig
from tempclr.recipes.running import find_checkpoint, run_training
from tempclr.recipes.short_card import write_short_card
from tempclr.recipes.tclr_folders import read_clip_model
from tempclr.recipes.tclr_schedule import PlateauTrainer, PlateauTrainingArguments
from tempclr.tclr_losses import LOSSES

__all__ = ["TCLRClipArguments", "TCLRModelArguments", "TCLRTrainer", "TCLRTrainingArguments", "pretrain_tclr"]

VARIANTS = ("r3d_18", "r2plus1d_18", "c3d", "r3d_10")
AUGMENTATION_SETS = ("basic", "complex", "none")


@dataclass
class TCLRTrainingArguments(PlateauTrainingArguments):
    """``PlateauTrainingArguments`` with TCLR's numbers: 40 videos a step, 400 epochs.

    Attributes:
        channels_last: keep the weights with channels innermost, which convolutions of few channels are quicker with.
    """

    num_train_epochs: float = field(default=400.0, metadata={"help": "epochs over the videos"})
    per_device_train_batch_size: int = field(default=40, metadata={"help": "videos a step, of 10 clips each"})
    channels_last: bool = field(default=False, metadata={"help": "channels innermost in memory, quicker on some"})


@dataclass
class TCLRModelArguments:
    """Which encoder is trained, and the settings of its losses; one left out is the configuration's default."""

    init_from: str | None = field(default=None, metadata={"help": "folder or Hub id of a TCLR model to start from"})
    variant: str | None = field(default=None, metadata={"help": "the network; r3d_18", "choices": VARIANTS})
    width: int | None = field(default=None, metadata={"help": "channels of its first stage; 64"})
    projection_size: int | None = field(default=None, metadata={"help": "length of the embeddings; 128"})
    head_norm: bool | None = field(default=None, metadata={"help": "batch normalisation in the head, as released"})
    losses: list[str] | None = field(default=None, metadata={"help": "which losses; all", "choices": LOSSES})
    loss_weights: str | None = field(
        default=None, metadata={"help": "paper or official", "choices": ("paper", "official")}
    )
    temperatures: list[float] | None = field(
        default=None, metadata={"help": "of instance, local-local and global-local losses; 0.1 0.1 0.1"}
    )
    separate_batch_statistics: bool | None = field(
        default=None, metadata={"help": "normalise each kind of clip by itself, as released"}
    )

    def settings(self) -> dict[str, Any]:
        """The fields of ``TCLRConfig`` that were given, but for those of the backbone."""
        names = ("projection_size", "head_norm", "losses", "loss_weights", "temperatures", "separate_batch_statistics")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def sizes(self) -> dict[str, Any]:
        """The fields of ``VideoResNetConfig`` that were given."""
        given: dict[str, Any] = {} if self.variant is None else {"variant": self.variant}
        if self.width is not None:
            if self.width < 1:
                raise InputError(f"must be at least 1, got {self.width}", field="width")
            released = VideoResNetConfig(**given).hidden_sizes
            given["hidden_sizes"] = [self.width * size // released[0] for size in released]
        return given


@dataclass
class TCLRClipArguments:
    """Which clips of a video a step sees, and how they are altered."""

    num_frames: int = field(default=16, metadata={"help": "frames of a clip"})
    image_size: int = field(default=112, metadata={"help": "side of a clip in pixels"})
    num_timesteps: int = field(default=4, metadata={"help": "local clips a global one, slices of its feature map"})
    global_skip: list[int] = field(
        default_factory=lambda: [4],
        metadata={"help": "the global clip's frames are so many apart; of several, one is drawn"},
    )
    paired_skip: list[int] | None = field(
        default=None, metadata={"help": "the same of the second view's global clip; that of the first"}
    )
    short_videos: str = field(
        default="loop", metadata={"help": "what becomes of short videos", "choices": SHORT_VIDEOS}
    )
    augmentations: str = field(default="basic", metadata={"help": "which set", "choices": AUGMENTATION_SETS})
    without: list[str] | None = field(
        default=None, metadata={"help": "augmentations left out", "choices": AUGMENTATIONS}
    )
    cutout_size: list[int] | None = field(
        default=None, metadata={"help": "smallest and largest side of the cut-out in pixels; 9 18 at 112"}
    )
    released_crop_bias: bool = field(
        default=False, metadata={"help": "crops never reach the right edge of wide frames, as released"}
    )
    short_side: int | None = field(default=240, metadata={"help": "larger frames are scaled to this side when read"})
    frames_per_second: float | None = field(default=None, metadata={"help": "rate at which frames are counted; own"})
    skip_unreadable: bool = field(default=False, metadata={"help": "leave unreadable videos out, count and list them"})

    def recipe(self) -> AugmentationRecipe:
        """The augmentations.

        Raises:
            InputError: one of them does not exist, or a size that cannot be.
        """
        size = tuple(
            self.cutout_size or [max(1, round(side * self.image_size / 112)) for side in PRETRAINING.cutout_size]
        )
        try:
            recipe = AugmentationRecipe(
                image_size=self.image_size,
                cutout_size=size,  # type: ignore[arg-type]
                released_crop_bias=self.released_crop_bias,
            )
            if self.augmentations == "complex":
                recipe = recipe.with_complex()
            return recipe.without(*(AUGMENTATIONS if self.augmentations == "none" else self.without or ()))
        except (ValueError, TypeError) as error:
            raise InputError(str(error), field="augmentations") from error

    def sampler(self) -> ClipSampler:
        """Which frames make the clips.

        Raises:
            InputError: numbers that do not tile a span.
        """
        skips = tuple(self.global_skip)
        try:
            return ClipSampler(
                num_frames=self.num_frames,
                global_skip=skips[0] if len(skips) == 1 else skips,
                num_timesteps=self.num_timesteps,
                short_videos=self.short_videos,
                paired_skip=None if self.paired_skip is None else tuple(self.paired_skip),
            )
        except ValueError as error:
            name = "paired_skip" if str(error).startswith("paired_skip") else "global_skip"
            raise InputError(str(error), field=name) from error

    def dataset(self, videos: Sequence[ActionVideo], *, seed: int, show_progress_bar: bool = False) -> TCLRDataset:
        """What a loader reads of the videos.

        Those that options leave out, as too short or unreadable, are taken out at once and listed in ``left_out``.
        """
        dataset = TCLRDataset(
            videos,
            sampler=self.sampler(),
            augmentation=self.recipe(),
            seed=seed,
            frames_per_second=self.frames_per_second,
            short_side=self.short_side,
            unreadable_videos="skip" if self.skip_unreadable else "raise",
        )
        dataset.remove_unusable(show_progress_bar=show_progress_bar)
        return dataset


class TCLRTrainer(PlateauTrainer):
    """A ``PlateauTrainer`` of a ``TCLRModel``: each loss is logged beside their sum; it writes TCLR's model card."""

    averages_rows: bool | None = False
    loss_parts = ("instance_loss", "local_instance_loss", "local_local_loss", "global_local_loss")
    subject = "an encoder of clips, trained without labels to tell videos and moments apart"

    def loss_and_parts(self, model: Any, inputs: dict[str, Any]) -> Any:
        return super().loss_and_parts(model, {**inputs, "return_loss": True})

    def create_model_card(self, *positional: Any, **keywords: Any) -> None:
        """Write ``README.md`` in the output folder: what was trained, its settings, and the last numbers of the log."""
        subject = f"[TCLR](https://arxiv.org/abs/2101.07974): {self.subject}."
        write_short_card(self, subject=subject, tag="tclr", module="tempclr")


def pretrain_tclr(
    videos: Sequence[ActionVideo] | TCLRDataset,
    *,
    training_arguments: TCLRTrainingArguments,
    eval_videos: Sequence[ActionVideo] | TCLRDataset | None = None,
    model_arguments: TCLRModelArguments | None = None,
    clip_arguments: TCLRClipArguments | None = None,
    callbacks: Sequence[Any] = (),
) -> TCLRTrainer:
    """Train a ``TCLRModel`` on videos and save it in the output folder.

    Args:
        videos: what :func:`tempclr.data.action_videos.read_action_videos` gives, or a dataset made of it already.
        training_arguments: ``resume_from_checkpoint`` may be a checkpoint's folder or ``"last"``.
        eval_videos: their losses are measured at the end, and when ``training_arguments`` ask for it.
        model_arguments, clip_arguments: None is the published setting.
        callbacks: further callbacks of the Trainer.

    Returns:
        The trainer after training.

    Raises:
        InputError: settings that do not fit one another, or the model to start from.

    Source: TCLR (CVIU 2022), §3 and C.3.
    """
    model_arguments, clips = model_arguments or TCLRModelArguments(), clip_arguments or TCLRClipArguments()
    check_output_folder(training_arguments.output_dir)
    checkpoint = find_checkpoint(training_arguments)
    made: dict[str, Any] = {"seed": training_arguments.seed, "show_progress_bar": not training_arguments.disable_tqdm}
    train, evaluation = (
        one if one is None or isinstance(one, TCLRDataset) else clips.dataset(one, **made)
        for one in (videos, eval_videos)
    )
    assert train is not None
    _check_last_batch(len(train), training_arguments)
    set_seed(training_arguments.seed)
    model = _model(checkpoint, model_arguments, clips, aligned_views=train.sampler.paired_skip is None)
    model = model.to(memory_format=torch.channels_last_3d) if training_arguments.channels_last else model
    trainer = TCLRTrainer(
        model=model,
        args=training_arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=partial(tclr_collate, as_float=True),
        callbacks=list(callbacks),
    )
    run_training(trainer, checkpoint=checkpoint)
    return trainer


def _check_last_batch(num_videos: int, arguments: TCLRTrainingArguments) -> None:
    """A video alone has nothing to be contrasted with, and batch normalisation has no statistics of one vector."""
    batch = arguments.train_batch_size
    joint = batch * arguments.world_size
    if arguments.dataloader_drop_last and num_videos < joint:
        told = f"{num_videos} videos do not fill one batch of {joint}, and --dataloader_drop_last leaves them all out"
        raise InputError(f"{told}: give a smaller size", field="per_device_train_batch_size")
    alone = num_videos % joint == 1 and not arguments.dataloader_drop_last
    if batch == 1 or num_videos == 1 or alone:
        told = f"batches of {batch} of {num_videos} videos leave one video alone"
        raise InputError(f"{told}: give another size, or --dataloader_drop_last", field="per_device_train_batch_size")


def _model(
    checkpoint: str | None, arguments: TCLRModelArguments, clips: TCLRClipArguments, *, aligned_views: bool
) -> TCLRModel:
    """The model of the checkpoint, one that starts from another model, or a new one."""
    # The middle square of tests, 0.8 of the shorter side as published, stands in the configuration for who extracts.
    resize_size = round(clips.image_size / 0.8)
    shape = {"num_frames": clips.num_frames, "image_size": clips.image_size, "resize_size": resize_size}
    settings = {"aligned_views": aligned_views, **arguments.settings()}
    start = checkpoint or arguments.init_from
    if start is None:
        backbone = VideoResNetConfig(**shape, **arguments.sizes())
        return TCLRModel(TCLRConfig(backbone_config=backbone, num_timesteps=clips.num_timesteps, **settings))
    model = read_clip_model(start, TCLRModel)
    _check_built_as_asked(start, model.config, arguments, clips)
    for name, value in settings.items():
        setattr(model.config, name, value)
    for name, value in shape.items():
        setattr(model.config.backbone_config, name, value)
    TCLRConfig(**model.config.to_dict())  # raises what is wrong with the settings
    return model


def _check_built_as_asked(
    start: str, config: TCLRConfig, arguments: TCLRModelArguments, clips: TCLRClipArguments
) -> None:
    """What the weights of a model fix is not to be had otherwise, and not passed over where it was asked for."""
    backbone = config.backbone_config
    asked = {
        "num_timesteps": (config.num_timesteps, clips.num_timesteps),
        "projection_size": (config.projection_size, arguments.projection_size),
        "head_norm": (config.head_norm, arguments.head_norm),
        "variant": (backbone.variant, arguments.variant),
    }
    if arguments.width is not None:
        sizes = replace(arguments, variant=arguments.variant or backbone.variant).sizes()["hidden_sizes"]
        asked["width"] = (list(backbone.hidden_sizes), sizes)
    for name, (found, wanted) in asked.items():
        if wanted is not None and found != wanted:
            told = "hidden_sizes" if name == "width" else name
            raise InputError(f"{start!r} has {told} {found}, asked for is {wanted}", field=name)
