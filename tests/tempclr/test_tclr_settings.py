"""What pretraining by TCLR is asked for is what happens, or is refused by name before any step; on tiny videos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tempclr.cli import main
from tempclr.data.action_videos import TCLRDataset, read_action_videos
from tempclr.data.clip_sampling import ClipSampler
from tempclr.data.motion_videos import make_motion_videos
from tempclr.errors import InputError
from tempclr.models.tclr import TCLRModel
from tempclr.recipes.tclr import (
    TCLRClipArguments,
    TCLRModelArguments,
    TCLRTrainer,
    TCLRTrainingArguments,
    pretrain_tclr,
)

QUIET = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True}
TINY = {"variant": "r3d_10", "width": 2}
WORDS = ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true", "--use_cpu", "--max_steps", "1"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("motions")
    made = {"num_videos": {"train": 2, "test": 1}, "labels": ("grow", "spin"), "image_size": 32}
    make_motion_videos(folder, **made, show_progress_bar=False)
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def videos(rows):
    return read_action_videos(rows, split="train")


def pretrained(videos, folder, *, clips=None, model=None, **changes) -> TCLRTrainer:
    settings = {**QUIET, "per_device_train_batch_size": 2, "max_steps": 1, **changes}
    return pretrain_tclr(
        videos,
        training_arguments=TCLRTrainingArguments(str(folder), **settings),
        model_arguments=TCLRModelArguments(**(TINY if model is None else model)),
        clip_arguments=TCLRClipArguments(image_size=16, **(clips or {})),
    )


@pytest.fixture(scope="module")
def encoder(videos, tmp_path_factory) -> Path:
    """A folder of a model, with a checkpoint."""
    folder = tmp_path_factory.mktemp("encoder")
    pretrained(videos, folder, save_strategy="steps", save_steps=1)
    return folder


@pytest.mark.parametrize("field", ["train_split", "eval_split"])
def test_of_several_splits_one_must_be_named(rows, tmp_path, capsys, field):
    """In one file as among the files of a folder; test videos are not trained on unasked."""
    words = ["--train_dataset", str(rows), "--output_dir", str(tmp_path / "o"), "--image_size", "16", *WORDS]
    if field == "eval_split":
        words += ["--train_split", "train", "--eval_dataset", str(rows)]
    assert main(["pretrain", "--method", "tclr", *words]) == 2
    said = capsys.readouterr().err
    assert f"field '{field}': holds the splits test, train; say which by --{field}" in said and said.count("\n") == 1
    assert str(rows) in said and not (tmp_path / "o").exists()


def test_a_file_of_one_split_or_of_none_needs_no_name(rows, tmp_path):
    every = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    train = [{**row, "video": str(rows.parent / row["video"])} for row in every if row["split"] == "train"]
    for name, dropped in (("one", ()), ("none", ("split", "label"))):
        kept = [{key: value for key, value in row.items() if key not in dropped} for row in train]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        words = ["--variant", "r3d_10", "--width", "2", "--image_size", "16", "--per_device_train_batch_size", "2"]
        words += ["--train_dataset", str(file), "--output_dir", str(tmp_path / name), *WORDS]
        assert main(["pretrain", "--method", "tclr", *words]) == 0
        assert (tmp_path / name / "model.safetensors").is_file()


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"head_norm": False}, "has head_norm True, asked for is False"),
        ({"projection_size": 7}, "has projection_size 128, asked for is 7"),
        ({"variant": "c3d", "width": 2}, "has variant r3d_10, asked for is c3d"),
        ({"width": 16}, r"has hidden_sizes \[2, 2, 4, 8, 16\], asked for is \[16, 16, 32, 64, 128\]"),
        ({"variant": "r3d_10", "width": 16}, "has hidden_sizes"),
    ],
)
def test_what_the_weights_fix_is_not_passed_over(videos, encoder, tmp_path, model, told, resume):
    """Neither where training goes on from a checkpoint nor where it starts from another model."""
    start = encoder / "checkpoint-1" if resume else encoder
    given = model if resume else {**model, "init_from": str(encoder)}
    with pytest.raises(InputError, match=f"{start.name}' {told}"):
        pretrained(videos, tmp_path, model=given, resume_from_checkpoint=str(start) if resume else None)
    assert not list(tmp_path.iterdir())


def test_what_fits_may_be_said_again(videos, encoder, tmp_path):
    """As a recipe does, which names its network also where the run starts from a model."""
    same = {**TINY, "head_norm": True, "projection_size": 128}
    started = pretrained(videos, tmp_path / "started", model={**same, "init_from": str(encoder)})
    assert started.model.config.head_norm and started.model.config.backbone_config.variant == "r3d_10"
    _, report = TCLRModel.from_pretrained(tmp_path / "started", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    checkpoint = str(encoder / "checkpoint-1")
    resumed = pretrained(videos, tmp_path / "resumed", model=same, resume_from_checkpoint=checkpoint, max_steps=2)
    assert resumed.state.global_step == 2


@pytest.mark.parametrize("batch", [5, 8])
def test_dropping_every_batch_is_refused_before_training(videos, tmp_path, batch):
    with pytest.raises(InputError, match=f"4 videos do not fill one batch of {batch}") as told:
        pretrained(videos, tmp_path, per_device_train_batch_size=batch, dataloader_drop_last=True, max_steps=-1)
    assert told.value.field == "per_device_train_batch_size"
    whole = {"per_device_train_batch_size": 4, "dataloader_drop_last": True, "max_steps": -1, "num_train_epochs": 1}
    assert pretrained(videos, tmp_path, **whole).state.global_step == 1


def test_videos_that_cannot_be_read_are_taken_out_before_batches_are_counted(videos, tmp_path):
    """Note [Unusable videos are taken out first]: five videos would leave one alone in a batch of two."""
    (tmp_path / "broken.mp4").write_bytes(b"none")
    five = [*videos[:2], replace(videos[0], video_id="broken", video=tmp_path / "broken.mp4"), *videos[2:]]
    whole_epoch = {"max_steps": -1, "num_train_epochs": 1}
    with pytest.warns(UserWarning, match=r"left out: .*broken\.mp4"):
        trainer = pretrained(five, tmp_path / "o", clips={"skip_unreadable": True}, **whole_epoch)
    assert trainer.state.global_step == 2 and trainer.train_dataset.left_out["unreadable"] == ["broken"]
    with pytest.raises(InputError, match="leave one video alone"):
        pretrained(five, tmp_path / "o", **whole_epoch)


def test_released_crops_are_an_option(videos, tmp_path):
    for biased in (False, True):
        trainer = pretrained(videos, tmp_path / str(biased), clips={"released_crop_bias": biased})
        assert trainer.train_dataset.augmentation.released_crop_bias == biased


def test_views_of_different_skips_are_an_option(videos, tmp_path):
    """Note [Views of different skips]: the model is told, also where the dataset came ready made."""
    trainer = pretrained(videos, tmp_path / "given", clips={"paired_skip": [1, 2]})
    assert trainer.train_dataset.sampler.paired_skips == (1, 2)
    assert not TCLRModel.from_pretrained(tmp_path / "given").config.aligned_views
    dataset = TCLRDataset(videos, sampler=ClipSampler(paired_skip=2), augmentation=trainer.train_dataset.augmentation)
    assert not pretrained(dataset, tmp_path / "made").model.config.aligned_views
    start = {"init_from": str(tmp_path / "given")}
    assert pretrained(videos, tmp_path / "plain", model=start).model.config.aligned_views
    with pytest.raises(InputError, match="field 'paired_skip': paired_skip must be at least 1"):
        pretrained(videos, tmp_path / "wrong", clips={"paired_skip": [2, 0]})
