"""Commands of the classifier: what they refuse, what they leave out and tell, and what their results say of it."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.cli import main
from tempclr.data.action_videos import ActionVideo, read_action_videos
from tempclr.data.augmentations import AUGMENTATIONS, draw_augmentation
from tempclr.data.video import write_video
from tempclr.errors import InputError
from tempclr.models.tclr import TCLRConfig, TCLRForVideoClassification, TCLRModel
from tempclr.recipes.configs import SettingsParser
from tempclr.recipes.tclr_classification import (
    ClassificationArguments,
    ClassificationTrainingArguments,
    finetune_classification,
    hold_out_videos,
)

SIZES = {"variant": "r3d_10", "hidden_sizes": [2, 2, 4, 8, 16], "image_size": 16, "num_frames": 16}
QUIET = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "warmup_epochs": 0}
WORDS = ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true", "--use_cpu", "--max_steps", "1"]
SMALL = ["--variant", "r3d_10", "--width", "2", "--image_size", "16", "--num_test_clips", "1", *WORDS]
LENGTHS = {"long": 44, "short": 7}

pytestmark = pytest.mark.usefixtures("one_thread")


def write_rows(folder: Path, *rows: tuple[str, str, str, str | None]) -> str:
    """Rows of (video_id, file, label, split)."""
    fields = ("video_id", "video", "label", "split")
    text = "".join(json.dumps(dict(zip(fields, row, strict=True))) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    return str(folder / "rows.jsonl")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A video of 44 frames, one of 7, and one that is none."""
    frames = np.random.default_rng(0).integers(0, 255, (44, 32, 32, 3), dtype=np.uint8)
    for name, length in LENGTHS.items():
        write_video(tmp_path / f"{name}.mp4", frames[:length], frames_per_second=25)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "long.mp4").read_bytes()[:500])
    return tmp_path


def rows_of(folder: Path, names: str, *, split: str | None = "train") -> str:
    """Rows of these files in their order; labels take turns."""
    files = names.split()
    numbered = (f"{name}{place}" for place, name in enumerate(files))
    return write_rows(
        folder,
        *((one, f"{name}.mp4", "ab"[k % 2], split) for k, (one, name) in enumerate(zip(numbered, files, strict=True))),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    labels = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    TCLRModel(TCLRConfig(backbone_config=SIZES)).save_pretrained(folder / "encoder")
    TCLRForVideoClassification(TCLRConfig(backbone_config=SIZES, **labels)).save_pretrained(folder / "classifier")
    return {name: str(folder / name) for name in ("encoder", "classifier")}


def evaluate(task: str, model: str, rows: str, *words: str) -> int:
    fixed = ["--output", str(Path(rows).parent / "r.json"), "--num_clips", "2", "--quiet"]
    return main(["evaluate", task, "--model", model, "--dataset", rows, *fixed, *words])


def results_beside(rows: str) -> dict:
    return json.loads((Path(rows).parent / "r.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("named", [[], ["--train_split", "train"]])
def test_test_videos_train_nothing_and_validate_nothing(folder, capsys, named):
    """One file with a split column: without a word all rows would be taken, those of the test split too."""
    rows = write_rows(
        folder, ("x", "long.mp4", "a", "train"), ("y", "long.mp4", "b", "train"), ("z", "long.mp4", "a", "test")
    )
    finetune = ["finetune", "--task", "classification", "--train_dataset", rows, "--output_dir", str(folder / "o")]
    code = main([*finetune, *SMALL, *named])
    said = capsys.readouterr()
    if named:
        assert code == 0 and "accuracy" not in said.err
        assert main([*finetune, *SMALL, *named, "--eval_dataset", rows]) == 2
        assert "field 'eval_split': the rows are of 2 splits, test, train: name one by --eval_split" in (
            capsys.readouterr().err
        )
    else:
        assert code == 2
        assert "field 'train_split': the rows are of 2 splits, test, train: name one by --train_split" in said.err


def test_a_dataset_of_test_videos_alone_is_refused(folder, capsys):
    rows = rows_of(folder, "long long", split="test")
    assert main(["finetune", "--task=classification", "--train_dataset", rows, "--output_dir", "o", *SMALL]) == 2
    said = capsys.readouterr().err
    assert "field 'train_split': 2 of the 2 videos, as 'long0', are of the split 'test'" in said
    videos = read_action_videos(rows)
    own = [ActionVideo(f"own{video.video_id}", video.video, video.label) for video in videos]
    with pytest.raises(InputError, match=r"field 'eval_split': 2 of the 2 videos, as 'long0', are of the split 'test'"):
        finetune_classification(
            own,
            training_arguments=ClassificationTrainingArguments(str(folder / "o"), **QUIET),
            eval_videos=videos,
        )


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_a_batch_of_short_videos_alone_is_passed_over(folder, models, capsys, num_workers):
    rows = rows_of(folder, "short short long long short")
    words = ["--short_videos", "drop", "--batch_size", "2", "--num_workers", num_workers]
    with pytest.warns(UserWarning, match="too short") if num_workers == "0" else nullcontext():
        assert evaluate("classification", models["classifier"], rows, *words) == 0
    found = results_beside(rows)
    assert found["classification"]["num_videos"] == 2 and set(found["classification"]["per_class"]) == {"a", "b"}
    assert found["left_out"] == {"dataset": {"too_short": ["short0", "short1", "short4"], "unreadable": []}}
    assert "left out: short4 (too short)" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:left out")
def test_only_where_all_videos_are_left_out_is_it_an_error(folder, models, capsys):
    rows = rows_of(folder, "short short short")
    assert evaluate("classification", models["classifier"], rows, "--short_videos", "drop", "--batch_size", "2") == 2
    assert "none of the videos could be used" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:left out")
def test_unreadable_videos_stop_or_are_listed(folder, models, capsys):
    train = rows_of(folder, "long broken long short")
    kept = folder / "train.jsonl"
    Path(train).rename(kept)
    rows = rows_of(folder, "broken long long")
    measured = Path(rows).read_text(encoding="utf-8").replace('"video_id": "', '"video_id": "test_')
    Path(rows).write_text(measured, encoding="utf-8")
    words = ["--train_dataset", str(kept), "--ks", "1", "3"]
    assert evaluate("nn-retrieval", models["encoder"], rows, *words) == 2
    assert "broken.mp4: cannot be read as video" in capsys.readouterr().err
    assert evaluate("nn-retrieval", models["encoder"], rows, *words, "--skip_unreadable", "--batch_size", "1") == 0
    found = results_beside(rows)
    assert (found["nn-retrieval"]["num_queries"], found["nn-retrieval"]["num_gallery"]) == (2, 3)
    assert found["left_out"] == {
        "dataset": {"too_short": [], "unreadable": ["test_broken0"]},
        "train_dataset": {"too_short": [], "unreadable": ["broken1"]},
    }
    assert "left out: broken1 (unreadable)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "model", "words", "told"),
    [
        ("classification", "classifier", ["--train_dataset", "nowhere"], "--train_dataset"),
        ("classification", "classifier", ["--train_split", "train"], "--train_split"),
        ("classification", "classifier", ["--train_fraction", "0.5"], "--train_fraction"),
        ("classification", "classifier", ["--subset", "0"], "--subset"),
        ("classification", "classifier", ["--standardize"], "--standardize"),
        ("classification", "classifier", ["--ks", "1"], "--ks"),
        ("classification", "encoder", ["--ks", "1"], "--ks"),
        ("nn-retrieval", "encoder", ["--standardize"], "--standardize"),
    ],
)
def test_options_that_change_nothing_are_refused(folder, models, capsys, task, model, words, told):
    rows = rows_of(folder, "long long")
    assert evaluate(task, models[model], rows, *words) == 2
    assert f"{told} changes nothing in {task}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--train_split", "train", "--train_fraction", "-3"], "field 'train_fraction': must be above 0"),
        (["--frames_per_second", "0"], "--frames_per_second must be above 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(folder, models, capsys, words, told):
    rows = write_rows(folder, ("x", "long.mp4", "a", "train"), ("y", "long.mp4", "a", "test"))
    assert evaluate("classification", models["encoder"], rows, "--split", "test", *words) == 2
    assert told in capsys.readouterr().err
    with pytest.raises(InputError, match="frames_per_second"):
        ClassificationArguments(frames_per_second=0.0)


def test_results_say_how_they_were_measured(folder, models):
    rows = write_rows(
        folder,
        *((f"{label}{k}", "long.mp4", label, "train") for label in "ab" for k in range(2)),
        ("y", "long.mp4", "a", "test"),
    )
    of_all = {"num_clips": 2, "skip": 2, "short_videos": "loop", "frames_per_second": None}
    share = ["--split", "test", "--train_split", "train", "--train_fraction", "0.5"]
    assert evaluate("classification", models["classifier"], rows, "--split", "test") == 0
    assert results_beside(rows)["protocol"] == of_all
    words = [*share, "--subset", "2", "--standardize", "--frames_per_second", "10"]
    assert evaluate("classification", models["encoder"], rows, *words) == 0
    linear = {"train_fraction": 0.5, "subset": 2, "standardize": True, "frames_per_second": 10.0, "seed": 0}
    assert results_beside(rows)["protocol"] == of_all | linear
    assert evaluate("nn-retrieval", models["encoder"], rows, *share, "--ks", "2") == 0
    assert results_beside(rows)["protocol"] == of_all | {"train_fraction": 0.5, "subset": 0}
    assert results_beside(rows)["nn-retrieval"]["num_gallery"] == 2


def test_frames_are_counted_at_the_rate_given(folder, models):
    """At 12.5 frames a second every frame is every second one at 25, so equal clips, probabilities and results."""
    rows = rows_of(folder, "long long")
    found = []
    for words in (["--skip", "2"], ["--skip", "1", "--frames_per_second", "12.5"], ["--skip", "1"]):
        assert evaluate("classification", models["classifier"], rows, *words, "--num_clips", "1") == 0
        found.append(results_beside(rows))
    backbone = TCLRForVideoClassification.from_pretrained(models["classifier"]).config.backbone_config
    pixels = []
    for settings in ({"skip": 2}, {"skip": 1, "frames_per_second": 12.5}, {"skip": 1}):
        arguments = ClassificationArguments(num_test_clips=1, **settings)
        clips = arguments.clips(read_action_videos(rows), ["a", "b"], backbone, seed=0, training=False)
        pixels.append(clips[0]["pixel_values"])
    assert torch.equal(pixels[0], pixels[1]) and not torch.equal(pixels[0], pixels[2])
    assert found[0]["classification"] == found[1]["classification"]


@pytest.mark.filterwarnings("ignore:left out")
def test_fine_tuning_goes_without_unusable_videos_and_lists_them(folder, capsys):
    """Batches of two of which most would be empty, were the videos left out one by one."""
    rows = rows_of(folder, "short broken long long short short short long long short")
    words = ["--skip_unreadable", "--short_videos", "drop", "--validation_fraction", "0"]
    words += ["--per_device_train_batch_size", "2", "--frames_per_second", "25", *SMALL]
    finetune = ["finetune", "--task", "classification", "--train_dataset", rows, "--output_dir", str(folder / "o")]
    assert main([*finetune, *words, "--num_train_epochs", "1", "--max_steps", "-1"]) == 0
    said = capsys.readouterr().out
    assert "saved the model of step 2 " in said  # 4 of 10 videos
    assert "left out: broken1 (unreadable)" in said and said.count("(too short)") == 5


def trained(videos, folder, *, settings=None, **arguments):
    return finetune_classification(
        videos,
        training_arguments=ClassificationTrainingArguments(
            str(folder), **{**QUIET, "max_steps": 1, **(settings or {})}
        ),
        arguments=ClassificationArguments(image_size=16, validation_fraction=0.0, **arguments),
    )


def test_another_network_is_not_taken_for_the_one_resumed(folder):
    videos = read_action_videos(rows_of(folder, "long long"))
    sizes = {"variant": "r3d_10", "width": 2}
    trained(videos, folder / "run", settings={"save_strategy": "steps", "save_steps": 1}, **sizes)
    resume = {"resume_from_checkpoint": str(folder / "run" / "checkpoint-1"), "max_steps": 2}
    for changed, told in (
        ({"variant": "r3d_18"}, "field 'variant': the network of .* has variant r3d_10, asked for is r3d_18"),
        ({"variant": "r3d_10", "width": 4}, r"field 'width': the network of .* has hidden_sizes \[2, 2, 4, 8, 16\]"),
    ):
        with pytest.raises(InputError, match=told):
            trained(videos, folder / "again", settings=resume, **changed)
    again = trained(videos, folder / "again", settings=resume, **sizes, dropout=0.5)
    assert again.state.global_step == 2 and again.model.config.classifier_dropout == 0.5
    assert trained(videos, folder / "more", settings=resume).state.global_step == 2, "sizes may be left out"


def test_crop_and_flip_alone_are_a_set_of_their_own():
    recipe = ClassificationArguments(augmentations="crop_flip").recipe(56)
    on = {name for name in AUGMENTATIONS if getattr(recipe, f"{name}_probability") > 0}
    assert on == {"crop", "flip"} and recipe.image_size == 56
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_augmentation(recipe, height=60, width=80, generator=generator) for _ in range(50)]
    assert len({one.crop for one in drawn}) > 40 and {one.flip for one in drawn} == {False, True}
    for name in ("contrast", "hue", "saturation", "brightness", "gamma", "cutout", "dropped_channel", "blur_sigma"):
        assert all(getattr(one, name) is None for one in drawn), name
    assert not any(one.grayscale for one in drawn)


@pytest.mark.parametrize(
    ("name", "augmentations", "short_videos"),
    [("finetune_tclr", "crop_flip", "loop"), ("linear_tclr_official", "weak", "drop")],
)
def test_recipes_take_the_clips_of_their_sources(name, augmentations, short_videos, tmp_path):
    """Fine-tuning by C.4: crop, scale and flip. The released linear evaluation: its weak set, no short videos."""
    types = (ClassificationArguments, ClassificationTrainingArguments)
    parser = SettingsParser(types, command="finetune --task classification")
    settings, _ = parser.parse(["--recipe", name, "--output_dir", str(tmp_path)])
    assert (settings.augmentations, settings.short_videos) == (augmentations, short_videos)


def test_holding_out_of_many_videos_takes_no_time():
    """Counting a class anew for each of 40,000 held-out videos would take half a minute."""
    file = Path("v.mp4")
    videos = [ActionVideo(str(k), file, f"class {k % 400}") for k in range(80_000)]
    start = time.process_time()
    train, held = hold_out_videos(videos, 0.5, seed=0)
    assert time.process_time() - start < 5
    assert len(train) == len(held) == 40_000
