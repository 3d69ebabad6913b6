"""Training a classifier of videos from an encoder of clips: all of it, its last layer alone, or with few labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import set_seed

from tempclr.data.action_videos import ActionClips, ActionVideo, action_collate, label_names
from tempclr.data.augmentations import AUGMENTATIONS, PRETRAINING, WEAK, AugmentationRecipe
from tempclr.data.clip_sampling import SHORT_VIDEOS
from tempclr.data.files import check_output_folder
from tempclr.errors import InputError
from tempclr.evaluation.classification import labelled_share
from tempclr.models.tclr import TCLRConfig, TCLRForVideoClassification
from tempclr.models.video_resnet import VideoResNetConfig
from tempclr.recipes.running import find_checkpoint, run_training
from tempclr.recipes.tclr import TCLRModelArguments, TCLRTrainer
from tempclr.recipes.tclr_folders import read_clip_model
from tempclr.recipes.tclr_schedule import PlateauTrainingArguments

__all__ = [
    "ClassificationArguments",
    "ClassificationTrainer",
    "ClassificationTrainingArguments",
    "finetune_classification",
    "hold_out_videos",
]

AUGMENTATION_SETS = {
    "weak": WEAK,
    "crop_flip": WEAK.without("contrast", "hue", "saturation", "brightness", "grayscale", "gamma", "cutout"),
    "basic": PRETRAINING,
    "none": PRETRAINING.without(*AUGMENTATIONS),
}
FREEZE = ("none", "backbone", "backbone_weights")


@dataclass
class ClassificationTrainingArguments(PlateauTrainingArguments):
    """``PlateauTrainingArguments`` for fine-tuning: Adam at 1e-4, 32 videos a step, 100 epochs."""

    learning_rate: float = field(default=1e-4, metadata={"help": "highest learning rate"})
    num_train_epochs: float = field(default=100.0, metadata={"help": "epochs over the videos"})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "videos a step, of one clip each"})
    per_device_eval_batch_size: int = field(default=4, metadata={"help": "videos at once, of several clips each"})


@dataclass
class ClassificationArguments:
    """Which classifier, which of the videos, and which clips of them."""

    init_from: str | None = field(default=None, metadata={"help": "folder or Hub id of an encoder; none: from scratch"})
    variant: str | None = field(default=None, metadata={"help": "of a network from scratch; r3d_18"})
    width: int | None = field(default=None, metadata={"help": "channels of its first stage; 64"})
    freeze: str = field(
        default="none",
        metadata={
            "help": "none; backbone: linear evaluation; backbone_weights: the same as released, with statistics of "
            "batch normalisation that follow the data",
            "choices": FREEZE,
        },
    )
    train_fraction: float = field(default=1.0, metadata={"help": "share of each class's videos with labels, as 0.1"})
    subset: int = field(default=0, metadata={"help": "which random share; the paper averages over 0, 1 and 2"})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of each class's training videos held out, where no eval_dataset is given"}
    )
    num_frames: int | None = field(default=None, metadata={"help": "frames of a clip; the encoder's"})
    image_size: int | None = field(default=None, metadata={"help": "side of a clip in pixels; the encoder's"})
    skip: int = field(default=2, metadata={"help": "a clip's frames are so many apart"})
    augmentations: str = field(default="weak", metadata={"help": "which set", "choices": tuple(AUGMENTATION_SETS)})
    num_test_clips: int = field(default=10, metadata={"help": "clips of a video in evaluation"})
    short_videos: str = field(
        default="loop", metadata={"help": "what becomes of short videos", "choices": SHORT_VIDEOS}
    )
    short_side: int | None = field(default=240, metadata={"help": "larger frames are scaled to this side when read"})
    frames_per_second: float | None = field(default=None, metadata={"help": "rate at which frames are counted; own"})
    skip_unreadable: bool = field(default=False, metadata={"help": "leave unreadable videos out, count and list them"})
    dropout: float = field(default=0.0, metadata={"help": "before the last layer"})

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction <= 1:
            raise InputError(f"must be above 0 and at most 1, got {self.train_fraction}", field="train_fraction")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(f"must be from 0 to below 1, got {self.validation_fraction}", field="validation_fraction")
        for name in ("num_test_clips", "skip"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", field=name)
        if self.frames_per_second is not None and not self.frames_per_second > 0:
            raise InputError(f"must be above 0, got {self.frames_per_second}", field="frames_per_second")

    def recipe(self, image_size: int) -> AugmentationRecipe:
        """The augmentations of training clips of that size."""
        from dataclasses import replace

        chosen = AUGMENTATION_SETS[self.augmentations]
        smallest, largest = (max(1, round(side * image_size / 112)) for side in chosen.cutout_size)
        return replace(chosen, image_size=image_size, cutout_size=(smallest, largest))

    def clips(
        self,
        videos: Sequence[ActionVideo],
        labels: Sequence[str],
        backbone: Any,
        *,
        seed: int,
        training: bool,
        show_progress_bar: bool = False,
    ) -> ActionClips:
        """What a loader reads of the videos: for training one random clip of each, else ``num_test_clips``.

        Videos that options leave out, as too short or unreadable, are taken out at once and listed in ``left_out``.
        """
        clips = ActionClips(
            videos,
            labels=labels,
            num_clips=None if training else self.num_test_clips,
            num_frames=backbone.num_frames,
            skip=self.skip,
            augmentation=self.recipe(backbone.image_size),
            short_videos=self.short_videos,
            seed=seed,
            frames_per_second=self.frames_per_second,
            short_side=self.short_side,
            unreadable_videos="skip" if self.skip_unreadable else "raise",
        )
        clips.remove_unusable(show_progress_bar=show_progress_bar)
        return clips


class ClassificationTrainer(TCLRTrainer):
    """A ``TCLRTrainer`` of a ``TCLRForVideoClassification``: accuracy is logged beside the loss.

    In evaluation it is that of the videos, their probabilities averaged over clips, as ``eval_accuracy``.
    """

    averages_rows = True
    subject = "a classifier of videos"

    def loss_and_parts(self, model: Any, inputs: dict[str, Any]) -> Any:
        outputs = model(**inputs)
        accuracy = (outputs["logits"].argmax(dim=-1) == inputs["labels"]).float().mean()
        return outputs["loss"], {"accuracy": accuracy}, outputs


def finetune_classification(
    videos: Sequence[ActionVideo],
    *,
    training_arguments: ClassificationTrainingArguments,
    eval_videos: Sequence[ActionVideo] | None = None,
    arguments: ClassificationArguments | None = None,
    callbacks: Sequence[Any] = (),
) -> ClassificationTrainer:
    """Train a ``TCLRForVideoClassification`` and save it, with the names of its classes, in the output folder.

    Validation videos are ``eval_videos``, or a share of each class's training videos: never the test videos, which this
    function is not given. ``metric_for_best_model="accuracy"`` keeps the model that does best on them.

    Args:
        videos: labelled training videos.
        training_arguments: ``resume_from_checkpoint`` may be a checkpoint's folder or ``"last"``.
        arguments: ``init_from`` may be a folder that :func:`tempclr.recipes.tclr.pretrain_tclr` wrote.
        callbacks: further callbacks of the Trainer.

    Raises:
        InputError: videos without labels or of the split ``test``, a video in both sets, or settings that do not fit
            the encoder.

    Source: TCLR §4.1 and C.4.
    """
    arguments = arguments or ClassificationArguments()
    check_output_folder(training_arguments.output_dir)
    checkpoint = find_checkpoint(training_arguments)
    labels, train, validation = _split(videos, eval_videos, arguments, seed=training_arguments.seed)
    set_seed(training_arguments.seed)
    model = _classifier(checkpoint, arguments, labels)
    backbone = model.config.backbone_config
    made: dict[str, Any] = {"seed": training_arguments.seed, "show_progress_bar": not training_arguments.disable_tqdm}
    trainer = ClassificationTrainer(
        model=model,
        args=training_arguments,
        train_dataset=arguments.clips(train, labels, backbone, training=True, **made),
        eval_dataset=arguments.clips(validation, labels, backbone, training=False, **made) if validation else None,
        data_collator=action_collate,
        callbacks=list(callbacks),
    )
    run_training(trainer, checkpoint=checkpoint)
    return trainer


def hold_out_videos(
    videos: Sequence[ActionVideo], fraction: float, *, seed: int
) -> tuple[list[ActionVideo], list[ActionVideo]]:
    """(training, validation): a random share of each class's videos is held out; a class of one video keeps it."""
    if fraction == 0:
        return list(videos), []
    labels = [str(video.label) for video in videos]
    counts = Counter(labels)
    # A generator of its own: otherwise the held-out videos would be the first ones of every training share.
    held = {place for place in labelled_share(labels, fraction, seed=seed + 1000) if counts[labels[place]] > 1}
    return [video for place, video in enumerate(videos) if place not in held], [videos[place] for place in sorted(held)]


def _split(
    videos: Sequence[ActionVideo],
    eval_videos: Sequence[ActionVideo] | None,
    arguments: ClassificationArguments,
    *,
    seed: int,
) -> tuple[list[str], list[ActionVideo], list[ActionVideo]]:
    if not videos:
        raise InputError("the training dataset holds no videos", field="train_dataset")
    for video in videos:
        if video.label is None:
            raise InputError("missing: every video needs its class", file=video.video, field="label")
    _refuse_test_videos(videos, "train")
    _refuse_test_videos(eval_videos or (), "eval")
    labels = label_names(videos)
    train = list(videos)
    if eval_videos is None:
        train, validation = hold_out_videos(train, arguments.validation_fraction, seed=seed)
    else:
        validation = list(eval_videos)
    shared = {video.video_id for video in train} & {video.video_id for video in validation}
    if shared:
        raise InputError(
            f"{len(shared)} videos, as {min(shared)!r}, are in the training and in the evaluation dataset: "
            "validation needs videos of its own",
            field="eval_dataset",
        )
    kept = labelled_share([str(video.label) for video in train], arguments.train_fraction, seed=arguments.subset)
    return labels, [train[place] for place in kept], validation


def _refuse_test_videos(videos: Sequence[ActionVideo], use: str) -> None:
    tested = [video.video_id for video in videos if video.split == "test"]
    if tested:
        raise InputError(
            f"{len(tested)} of the {len(videos)} videos, as {tested[0]!r}, are of the split 'test', which is for "
            f"`tempclr evaluate classification` alone: name another one by --{use}_split",
            field=f"{use}_split",
        )


def _classifier(checkpoint: str | None, arguments: ClassificationArguments, labels: Sequence[str]) -> Any:
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    own: dict[str, Any] = {**names, "freeze": arguments.freeze, "classifier_dropout": arguments.dropout}
    given = {name: getattr(arguments, name) for name in ("num_frames", "image_size") if getattr(arguments, name)}
    sizes = TCLRModelArguments(variant=arguments.variant, width=arguments.width).sizes()
    start = checkpoint or arguments.init_from
    if start is None:
        if arguments.freeze != "none":
            raise InputError("freezes an encoder that is not trained: give --init_from", field="freeze")
        return TCLRForVideoClassification(TCLRConfig(backbone_config=VideoResNetConfig(**given, **sizes), **own))
    if arguments.init_from is not None and sizes:
        name = "width" if arguments.variant is None else "variant"
        raise InputError(f"the sizes of {arguments.init_from!r} are given by it: leave them out", field=name)
    if checkpoint is None:
        model = read_clip_model(start, TCLRForVideoClassification, new_parts=True, **own)
    else:
        asked = {name: own[name] for name in ("freeze", "classifier_dropout")}
        model = read_clip_model(start, TCLRForVideoClassification, **asked)
        _check_sizes(model.config.backbone_config, sizes, checkpoint)
        if list(model.config.id2label.values()) != list(labels):
            raise InputError(f"{checkpoint!r} was trained on other classes", field="resume_from_checkpoint")
    for name, value in given.items():
        setattr(model.config.backbone_config, name, value)
    return model


def _check_sizes(backbone: VideoResNetConfig, asked: Mapping[str, Any], checkpoint: str) -> None:
    """A run goes on with the network it began with: asking for another one is a mistake."""
    for name, value in asked.items():
        if getattr(backbone, name) != value:
            field = "width" if name == "hidden_sizes" else "variant"
            told = f"the network of {checkpoint!r} has {name} {getattr(backbone, name)}, asked for is {value}"
            raise InputError(f"{told}: leave it out to go on with that network", field=field)
