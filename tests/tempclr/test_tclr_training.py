"""TCLR from videos to classes: pretraining, resuming to the bit, fine-tuning, commands; on tiny generated videos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tempclr.cli import main
from tempclr.data.action_videos import read_action_videos
from tempclr.data.motion_videos import make_motion_videos
from tempclr.errors import InputError
from tempclr.models.tclr import TCLRForVideoClassification, TCLRModel
from tempclr.recipes.tclr import (
    TCLRClipArguments,
    TCLRModelArguments,
    TCLRTrainer,
    TCLRTrainingArguments,
    pretrain_tclr,
)
from tempclr.recipes.tclr_classification import (
    ClassificationArguments,
    ClassificationTrainingArguments,
    finetune_classification,
    hold_out_videos,
)
from tempclr.recipes.tclr_schedule import WarmupPlateau

QUIET = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True}
LABELS = ("grow", "spin", "slide")
TINY = {"variant": "r3d_10", "width": 2}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("motions")
    num_videos = {"train": 3, "test": 2}
    make_motion_videos(folder, num_videos=num_videos, labels=LABELS, image_size=32, show_progress_bar=False)
    return str(folder / "rows.jsonl")


@pytest.fixture(scope="module")
def videos(rows):
    return read_action_videos(rows, split="train")


def pretrained(videos, folder, *, clips=None, model=None, **changes) -> TCLRTrainer:
    settings = {**QUIET, "per_device_train_batch_size": 3, "num_train_epochs": 1, "warmup_epochs": 1, **changes}
    return pretrain_tclr(
        videos,
        training_arguments=TCLRTrainingArguments(str(folder), **settings),
        model_arguments=TCLRModelArguments(**{**TINY, **(model or {})}),
        clip_arguments=TCLRClipArguments(image_size=16, **(clips or {})),
    )


@pytest.fixture(scope="module")
def encoder(videos, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    pretrained(videos, folder, num_train_epochs=2)
    return str(folder)


def test_every_loss_is_logged_and_the_model_is_saved_whole(videos, encoder):
    log = json.loads(Path(encoder, "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    parts = ("instance_loss", "local_local_loss", "global_local_loss")
    for entry in log[:-1]:  # the last one tells the time
        weights = dict(zip(parts, (1, 4, 8), strict=True))
        assert entry["loss"] == pytest.approx(sum(weights[part] * entry[part] for part in parts), rel=1e-4)
    assert [entry["learning_rate"] for entry in log[:-1]] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3, 1e-3, 1e-3])
    saved = TCLRModel.from_pretrained(encoder)
    backbone = saved.config.backbone_config
    assert (backbone.image_size, backbone.variant, backbone.hidden_sizes) == (16, "r3d_10", [2, 2, 4, 8, 16])
    assert "TCLRModel" in Path(encoder, "README.md").read_text(encoding="utf-8")


def test_losses_fall_when_training_goes_on(videos, tmp_path):
    trainer = pretrained(videos, tmp_path, num_train_epochs=6, model={"width": 4}, learning_rate=3e-3)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize(
    ("model", "clips", "expected"),
    [
        ({"losses": ["instance"]}, {}, {"losses": ["instance"]}),
        ({"temperatures": [0.1, 0.5, 0.5]}, {}, {"temperatures": [0.1, 0.5, 0.5]}),
        ({"projection_size": 256}, {"num_timesteps": 2}, {"projection_size": 256, "num_timesteps": 2}),
        ({"loss_weights": "official"}, {"global_skip": [4, 8]}, {"loss_weights": "official"}),
        ({}, {"augmentations": "complex", "without": ["cutout"]}, {}),
    ],
)
def test_each_ablation_is_one_option(videos, tmp_path, model, clips, expected):
    trainer = pretrained(videos[:3], tmp_path, model=model, clips=clips, max_steps=1)
    for name, value in expected.items():
        assert getattr(trainer.model.config, name) == value
    logged = trainer.state.log_history[0]
    assert ("local_local_loss" in logged) == ("losses" not in model)
    dataset = trainer.train_dataset
    assert dataset[0]["local_clips"].shape[1] == clips.get("num_timesteps", 4)
    assert dataset.sampler.global_skips == tuple(clips.get("global_skip", [4]))
    assert dataset.augmentation.blur_probability == (0.3 if clips.get("augmentations") else 0.0)
    assert dataset.augmentation.cutout_probability == (0.0 if clips.get("without") else 0.5)


def test_a_video_left_alone_in_a_batch_is_refused_before_training(videos, tmp_path):
    for batch, count in ((4, 9), (1, 9), (3, 1)):
        with pytest.raises(InputError, match=f"batches of {batch} of {count} videos leave one video alone"):
            pretrained(videos[:count], tmp_path, per_device_train_batch_size=batch)
    dropped = pretrained(videos, tmp_path, per_device_train_batch_size=4, dataloader_drop_last=True)
    assert dropped.state.global_step == dropped.steps_per_epoch() == 2


def weights_of(folder: Path | str) -> dict[str, torch.Tensor]:
    return TCLRModel.from_pretrained(folder).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_stopped_at_any_step_and_resumed_ends_with_the_same_bits(videos, tmp_path):
    """Three steps an epoch: within epochs, at their ends, before and after a fall of the learning rate."""
    settings = {"num_train_epochs": 3, "plateau_patience": 1, "warmup_epochs": 0, "learning_rate": 0.05}
    whole = pretrained(videos, tmp_path / "whole", **settings)
    schedule = whole.lr_scheduler
    assert isinstance(schedule, WarmupPlateau) and whole.state.global_step == 9
    saving = {**settings, "save_strategy": "steps", "save_steps": 1}
    pretrained(videos, tmp_path / "kept", **saving)
    expected = weights_of(tmp_path / "whole")
    assert same(weights_of(tmp_path / "kept"), expected)
    for step in (1, 3, 5, 6, 8):
        folder = tmp_path / f"after_{step}"
        resume = {"resume_from_checkpoint": str(tmp_path / "kept" / f"checkpoint-{step}")}
        again = pretrained(videos, folder, **settings, **resume)
        assert again.state.global_step == 9 and same(weights_of(folder), expected), step
        assert again.lr_scheduler.state_dict() == schedule.state_dict()
    assert schedule.num_decays > 0, "the learning rate should have fallen for this test to mean something"


DRIVER = """
import sys
from tempclr.data.action_videos import read_action_videos
from tempclr.recipes.tclr import *
rows, folder, resume = sys.argv[1:]
if __name__ == "__main__":
    import torch
    torch.set_num_threads(1)
    pretrain_tclr(
        read_action_videos(rows, split="train"),
        training_arguments=TCLRTrainingArguments(
            folder, per_device_train_batch_size=3, num_train_epochs=3, warmup_epochs=1, report_to=[], use_cpu=True,
            save_strategy="steps", save_steps=1, disable_tqdm=True, dataloader_num_workers=2,
            resume_from_checkpoint=resume or None),
        model_arguments=TCLRModelArguments(variant="r3d_10", width=2),
        clip_arguments=TCLRClipArguments(image_size=16))
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_process_killed_again_and_again_goes_on_to_the_same_bits(rows, tmp_path):
    """SIGKILL, with two workers: within an epoch, at the end of one (step 3), and once more after resuming."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER, encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "kernels", root / "hub")))}

    def start(folder: Path, resume: str = "") -> subprocess.Popen:
        words = [sys.executable, str(driver), rows, str(folder), resume]
        return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(timeout=300) == 0
    killed = tmp_path / "killed"
    for resume, step in (("", 2), ("last", 3), ("last", 7)):
        process = start(killed, resume)
        deadline = time.monotonic() + 300
        while not list(killed.glob(f"checkpoint-{step}/trainer_state.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and not (killed / "model.safetensors").exists(), step
    assert start(killed, "last").wait(timeout=300) == 0
    assert same(weights_of(killed), weights_of(tmp_path / "whole"))


def test_workers_change_nothing(videos, tmp_path):
    alone = pretrained(videos, tmp_path / "alone")
    two = pretrained(videos, tmp_path / "two", dataloader_num_workers=2)
    assert same(alone.model.state_dict(), two.model.state_dict())


def test_half_precision_and_channels_last_train(videos, tmp_path):
    plain = pretrained(videos[:3], tmp_path / "plain", max_steps=1)
    first = plain.state.log_history[0]["loss"]
    last = pretrained(videos[:3], tmp_path / "last", max_steps=1, channels_last=True)
    assert last.state.log_history[0]["loss"] == pytest.approx(first, rel=1e-4)
    assert last.model.backbone.layer1[0].conv1[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    half = pretrained(videos[:3], tmp_path / "half", max_steps=1, bf16=True)
    assert half.state.log_history[0]["loss"] == pytest.approx(first, rel=0.05)
    assert half.state.log_history[0]["loss"] != first
    assert next(half.model.parameters()).dtype == torch.float32


def test_accumulated_steps_count_as_one_and_the_schedule_may_be_another(videos, tmp_path):
    trainer = pretrained(videos, tmp_path, gradient_accumulation_steps=2, num_train_epochs=2)
    assert trainer.steps_per_epoch() == 2 and trainer.state.global_step == 4
    assert trainer.lr_scheduler.steps_done == 4
    epoch_mean = sum(entry["loss"] for entry in trainer.state.log_history[:2]) / 2
    later_mean = sum(entry["loss"] for entry in trainer.state.log_history[2:4]) / 2
    assert trainer.lr_scheduler.lowest_loss == pytest.approx(min(epoch_mean, later_mean), rel=1e-4)
    constant = pretrained(videos[:3], tmp_path, plateau=False, lr_scheduler_type="constant", max_steps=2)
    assert not isinstance(constant.lr_scheduler, WarmupPlateau)
    assert [entry["learning_rate"] for entry in constant.state.log_history[:2]] == [1e-3, 1e-3]


def test_a_rate_below_the_lowest_one_ends_training(videos, tmp_path):
    rates = {"learning_rate": 0.2, "min_learning_rate": 0.1, "plateau_patience": 1, "warmup_epochs": 0}
    trainer = pretrained(videos[:3], tmp_path, num_train_epochs=40, **rates)
    assert 1 < trainer.state.global_step < 40 and trainer.lr_scheduler.num_decays == 1


def classifier(videos, folder, *, arguments=None, eval_videos=None, **changes):
    settings = {**QUIET, "per_device_train_batch_size": 4, "num_train_epochs": 1, "warmup_epochs": 0, **changes}
    given = {"num_test_clips": 2, **(arguments or {})}
    return finetune_classification(
        videos,
        training_arguments=ClassificationTrainingArguments(str(folder), **settings),
        eval_videos=eval_videos,
        arguments=ClassificationArguments(**given),
    )


@pytest.mark.parametrize("freeze", ["none", "backbone", "backbone_weights"])
def test_what_is_frozen_stays_and_the_rest_learns(videos, encoder, tmp_path, freeze):
    trainer = classifier(
        videos,
        tmp_path,
        arguments={"init_from": encoder, "freeze": freeze, "validation_fraction": 0.3},
        learning_rate=0.01,
    )
    before, after = TCLRModel.from_pretrained(encoder).backbone.state_dict(), trainer.model.backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert {"none": changed > statistics, "backbone": not changed, "backbone_weights": changed == statistics}[freeze]
    assert trainer.model.config.id2label == dict(enumerate(sorted(LABELS)))
    assert len(trainer.eval_dataset) == 3 and len(trainer.train_dataset) == 6
    evaluated = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert 0 <= evaluated[-1]["eval_accuracy"] <= 1 and "accuracy" in trainer.state.log_history[0]


def test_few_labels_leave_the_validation_videos_alone(videos, tmp_path):
    few = classifier(
        videos,
        tmp_path,
        arguments={**TINY, "image_size": 16, "train_fraction": 0.01, "validation_fraction": 0.34},
        max_steps=1,
    )
    many = classifier(videos, tmp_path, arguments={**TINY, "image_size": 16, "validation_fraction": 0.34}, max_steps=1)
    names = [[video.video_id for video in trainer.train_dataset.videos] for trainer in (few, many)]
    assert len(names[0]) == 3 and set(names[0]) < set(names[1])
    held = [[video.video_id for video in trainer.eval_dataset.videos] for trainer in (few, many)]
    assert held[0] == held[1] and not set(held[0]) & set(names[1])


def test_a_resumed_fine_tuning_ends_with_the_same_weights(videos, tmp_path):
    arguments = {**TINY, "image_size": 16, "validation_fraction": 0.0}
    saving = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
    whole = classifier(videos, tmp_path / "whole", arguments=arguments, **saving)
    resume = str(tmp_path / "whole" / "checkpoint-2")
    again = classifier(videos, tmp_path / "again", arguments=arguments, **saving, resume_from_checkpoint=resume)
    assert same(whole.model.state_dict(), again.model.state_dict())
    with pytest.raises(InputError, match="was trained on other classes"):
        fewer = [video for video in videos if video.label != "spin"]
        classifier(fewer, tmp_path / "other", arguments=arguments, resume_from_checkpoint=resume)


def test_held_out_videos_are_stratified(videos):
    train, held = hold_out_videos(videos, 0.34, seed=0)
    assert sorted(video.label for video in held) == sorted(LABELS) and len(train) == 6
    assert hold_out_videos(videos, 0.0, seed=0) == (videos, [])
    single = [videos[0]]
    assert hold_out_videos(single, 0.5, seed=0) == (single, [])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"freeze": "backbone"}, "freezes an encoder that is not trained"),
        ({"init_from": "nowhere/at"}, "nowhere/at"),
        ({"init_from": "ENCODER", "width": 3}, "the sizes of .* are given by it"),
    ],
)
def test_what_does_not_fit_is_refused(videos, encoder, tmp_path, arguments, told):
    arguments = {name: encoder if value == "ENCODER" else value for name, value in arguments.items()}
    with pytest.raises(InputError, match=told):
        classifier(videos, tmp_path, arguments=arguments)
    with pytest.raises(InputError, match=r"9 videos, as .* are in the training and in the evaluation dataset"):
        classifier(videos, tmp_path, eval_videos=videos, arguments=TINY)
    for wrong in ({"train_fraction": 0.0}, {"validation_fraction": 1.0}, {"num_test_clips": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ClassificationArguments(**wrong)


def test_pretraining_goes_on_from_an_encoder_of_the_same_kind(videos, encoder, tmp_path):
    start = {"init_from": encoder, "width": None, "variant": None}
    trainer = pretrained(videos[:3], tmp_path, model={**start, "losses": ["instance"]}, max_steps=1)
    assert trainer.model.config.losses == ["instance"] and trainer.model.config.backbone_config.hidden_sizes[0] == 2
    for model, clips, told in (
        ({**start, "projection_size": 7}, {}, "has projection_size 128, asked for is 7"),
        (start, {"num_timesteps": 2}, "has num_timesteps 4, asked for is 2"),
        ({"width": 0}, {}, "field 'width'"),
        ({}, {"global_skip": [3]}, "field 'global_skip'"),
        ({}, {"cutout_size": [9, 3]}, "field 'augmentations'"),
    ):
        with pytest.raises(InputError, match=told):
            pretrained(videos[:3], tmp_path, model=model, clips=clips, max_steps=1)


TRAINING_WORDS = ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true", "--use_cpu"]


def test_the_commands_follow_one_another(rows, tmp_path, capsys):
    data = ["--train_dataset", rows, "--train_split", "train"]
    words = [*data, "--variant", "r3d_10", "--width", "2", "--image_size", "16", "--max_steps", "2", *TRAINING_WORDS]
    encoder, whole = str(tmp_path / "encoder"), str(tmp_path / "whole")
    assert main(["pretrain", "--method=tclr", *words, "--output_dir", encoder]) == 0
    assert "saved the model of step 2" in capsys.readouterr().out
    words = [*data, "--init_from", encoder, "--max_steps", "2", "--num_test_clips", "2", *TRAINING_WORDS]
    assert main(["finetune", "--task", "classification", *words, "--train_fraction", "0.5", "--output_dir", whole]) == 0
    assert "accuracy on 3 validation videos" in capsys.readouterr().out
    measured = [
        "--dataset",
        rows,
        "--split",
        "test",
        "--quiet",
        "--num_clips",
        "2",
        "--output",
        str(tmp_path / "r.json"),
    ]

    def results() -> dict:
        return json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))

    assert main(["evaluate", "classification", "--model", whole, *measured]) == 0
    assert results()["classification"]["num_videos"] == 6 and results()["protocol"]["num_clips"] == 2
    assert TCLRForVideoClassification.from_pretrained(whole).config.num_labels == 3
    words = ["--train_split", "train", *measured]
    assert main(["evaluate", "classification", "--model", encoder, "--standardize", *words]) == 0
    linear = results()["classification"]
    assert f"accuracy {100 * linear['accuracy']:.1f} % of 6 videos" in capsys.readouterr().out
    for model in (encoder, whole):
        assert main(["evaluate", "nn-retrieval", "--model", model, "--ks", "1", "5", *words]) == 0
        assert set(results()["nn-retrieval"]["recalls"]) == {"R@1", "R@5"}
        assert results()["nn-retrieval"]["feature_size"] == 4 * 16


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pretrain", "--method", "tclr", "--output_dir", "o"], "--train_dataset"),
        (["pretrain", "--method", "tclr", "--output_dir", "o", "--train_dataset", "no.jsonl"], "no.jsonl"),
        (
            ["pretrain", "--method", "tclr", "--output_dir", "o", "--train_dataset", "ROWS", "--eval_split", "a"],
            "needs",
        ),
        (["pretrain", "--recipe", "tclr_ucf101", "--output_dir", "o"], "recipe of 'tempclr pretrain --method tclr'"),
        (
            [
                "finetune",
                "--task",
                "classification",
                "--output_dir",
                "o",
                "--train_dataset",
                "ROWS",
                "--train_split",
                "test",
            ],
            "'test' is for `tempclr evaluate classification` alone",
        ),
        (
            [
                "finetune",
                "--task",
                "classification",
                "--output_dir",
                "o",
                "--train_dataset",
                "ROWS",
                "--train_split",
                "train",
                "--eval_dataset",
                "ROWS",
                "--eval_split",
                "test",
            ],
            "field 'eval_split': 'test' is for",
        ),
        (
            ["finetune", "--task=classification", "--output_dir", "o", "--train_dataset", "ROWS", "--eval_split", "b"],
            "needs --eval_dataset",
        ),
        (["evaluate", "nn-retrieval", "--model", "ENCODER", "--dataset", "ROWS", "--output", "r.txt"], "takes a .json"),
        (
            ["evaluate", "nn-retrieval", "--model", "ENCODER", "--dataset", "ROWS", "--output", "r.json"],
            "--train_split",
        ),
        (
            [
                "evaluate",
                "nn-retrieval",
                "--model",
                "ENCODER",
                "--dataset",
                "ROWS",
                "--split",
                "test",
                "--train_split",
                "test",
                "--output",
                "r.json",
            ],
            "are among the training videos and measured too",
        ),
        (
            ["evaluate", "nn-retrieval", "--model", "ENCODER", "--dataset", "ROWS", "--ks", "0", "--output", "r.json"],
            "--ks",
        ),
        (["evaluate", "classification", "--model", ".", "--dataset", "ROWS", "--output", "r.json"], "config.json"),
        (
            [
                "evaluate",
                "classification",
                "--model",
                "ENCODER",
                "--dataset",
                "ROWS",
                "--skip",
                "0",
                "--output",
                "r.json",
            ],
            "--skip must be at least 1",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(rows, encoder, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    places = {"ROWS": rows, "ENCODER": encoder}
    assert main([places.get(word, word) for word in words]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["pretrain", "--method", "tclr"], ["finetune", "--task", "classification"], ["evaluate", "nn-retrieval"]]
)
def test_every_command_tells_its_options(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    assert f"usage: tempclr {words[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["tclr_ucf101", "tclr_official", "finetune_tclr", "linear_tclr_official"])
def test_recipes_are_read_whole(name, rows, tmp_path):
    from tempclr.recipes import RECIPES
    from tempclr.recipes.configs import SettingsParser

    command = RECIPES[name].command
    types = (
        (TCLRModelArguments, TCLRClipArguments, TCLRTrainingArguments)
        if command.startswith("pretrain")
        else (ClassificationArguments, ClassificationTrainingArguments)
    )
    *settings, training = SettingsParser(types, command=command).parse(
        ["--recipe", name, "--output_dir", str(tmp_path)]
    )
    if name == "tclr_official":
        assert (settings[0].loss_weights, settings[1].short_videos) == ("official", "drop")
        assert settings[1].recipe().released_crop_bias and not TCLRClipArguments().recipe().released_crop_bias
        assert training.warmup_factors == [0.01, 0.05, 0.1, 0.5, 1.0] and training.plateau_patience == 9
    if name == "tclr_ucf101":
        assert (training.learning_rate, training.warmup_epochs, training.num_train_epochs) == (1e-3, 10, 400)
    if name == "linear_tclr_official":
        assert settings[0].freeze == "backbone_weights" and not training.plateau_in_a_row
        assert (training.learning_rate, training.min_learning_rate, training.plateau_patience) == (1e-2, 1e-5, 3)


def test_a_folder_of_another_model_is_told(videos, encoder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(InputError, match="is no TCLR model: its model_type is 'bert'"):
        classifier(videos, tmp_path / "o", arguments={"init_from": str(tmp_path)})
    (tmp_path / "config.json").write_text(Path(encoder, "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="the weights cannot be read"):
        classifier(videos, tmp_path / "o", arguments={"init_from": str(tmp_path)})
