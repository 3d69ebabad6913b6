"""Split files of the public benchmarks, the videos they mean, and features of a few frames of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from tempclr.cli import main
from tempclr.data.few_shot_features import extract_few_shot_features
from tempclr.data.few_shot_frames import sample_frames
from tempclr.data.few_shot_splits import SplitEntry, find_videos, read_split, read_splits
from tempclr.data.sequences import load_sequences
from tempclr.data.video import write_video
from tempclr.errors import InputError

# Lines of the public files, as they stand there.
LINES = {
    "blasting sand/-kYzxMKp514_000086_000096": ("blasting sand", "-kYzxMKp514_000086_000096"),
    "Twisting (wringing) something wet until water comes out/88644": (
        "Twisting (wringing) something wet until water comes out",
        "88644",
    ),
    "cartwheel/(Rad)Schlag_die_Bank!_cartwheel_f_cm_np1_le_med_0": (
        "cartwheel",
        "(Rad)Schlag_die_Bank!_cartwheel_f_cm_np1_le_med_0",
    ),
    "BlowingCandles/v_BlowingCandles_g01_c01": ("BlowingCandles", "v_BlowingCandles_g01_c01"),
    "test18/195025": ("test18", "195025"),
    "test0//videos/BlowingCandles/v_BlowingCandles_g01_c01.avi": ("test0", "v_BlowingCandles_g01_c01"),
    "Moving up/down something/17": ("Moving up/down something", "17"),
}


def write_splits(folder: Path, **lines: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, of_split in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(of_split) + "\n", encoding="utf-8")
    return folder


def test_every_public_form_of_a_line_is_read(tmp_path):
    file = write_splits(tmp_path, test=list(LINES)) / "test.txt"
    assert read_split(file) == [SplitEntry(*expected) for expected in LINES.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no videos"),
        ("a/1\nnothing\n", "row 1: expected class/video, found 'nothing'"),
        ("a/1\nb/2\na/1\n", "row 2: 'a/1' stands in row 0 already"),
    ],
)
def test_a_faulty_split_file_is_told_by_line(tmp_path, text, message):
    (tmp_path / "test.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_split(tmp_path / "test.txt")


def test_splits_of_a_folder_share_no_class(tmp_path):
    folder = write_splits(tmp_path / "splits", train=["a/1", "a/2"], test=["b/3"])
    (folder / "val.list").write_text("c/4\n", encoding="utf-8")
    assert {name: len(entries) for name, entries in read_splits(folder).items()} == {"train": 2, "val": 1, "test": 1}
    write_splits(folder, test=["b/3", "a/9"])
    with pytest.raises(InputError, match="class 'a' stands in train and in test"):
        read_splits(folder)
    with pytest.raises(InputError, match="holds no split files"):
        read_splits(tmp_path)
    with pytest.raises(InputError, match="cannot be read as a split file"):
        read_split(tmp_path / "none.txt")


def test_videos_are_found_however_they_lie(tmp_path):
    """Files and frame folders, with or without their class, in other spelling, Kinetics by id."""
    for place in (
        "Blasting_Sand/-kYzxMKp514.mp4",
        "195025.webm",
        "deep/down/BlowingCandles/v_BlowingCandles_g01_c01.avi",
        "frames/cartwheel/clip one/00000001.jpg",
        "twice/wave/x.mp4",
        "again/wave/x.avi",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    entries = [
        SplitEntry("blasting sand", "-kYzxMKp514_000086_000096"),
        SplitEntry("test18", "195025"),
        SplitEntry("test0", "v_BlowingCandles_g01_c01"),
        SplitEntry("cartwheel", "clip one"),
        SplitEntry("cartwheel", "clip two"),
    ]
    found, missing = find_videos(tmp_path, entries)
    assert [found[entry].relative_to(tmp_path).parts[-1] for entry in entries[:4]] == [
        "-kYzxMKp514.mp4",
        "195025.webm",
        "v_BlowingCandles_g01_c01.avi",
        "clip one",
    ]
    assert missing == [entries[4]]
    with pytest.raises(InputError, match=r"wave/x may be .*: leave one"):
        find_videos(tmp_path, [SplitEntry("wave", "x")])
    with pytest.raises(InputError, match="no such folder of videos"):
        find_videos(tmp_path / "nowhere", entries)


def test_a_name_alone_never_means_the_video_of_another_class(tmp_path):
    """Where every class counts its videos from one, a missing video must not become another class's of that number."""
    (tmp_path / "clap").mkdir()
    (tmp_path / "clap" / "0001.mp4").touch()
    clap, wave = SplitEntry("clap", "0001"), SplitEntry("wave", "0001")
    assert find_videos(tmp_path, [wave, clap]) == ({clap: tmp_path / "clap" / "0001.mp4"}, [wave])


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Path:
    """A ResNet of bottleneck layers, as ResNet-50 has them, of random weights and small."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("resnet")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="bottleneck")
    ResNetModel(config).eval().save_pretrained(folder)
    settings = {
        **{"do_resize": True, "size": {"shortest_edge": 40}, "crop_pct": 0.875, "resample": 3, "do_rescale": True},
        **{"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture
def world(tmp_path) -> tuple[Path, Path]:
    """Two classes of two videos: files for one class, folders of images for the other. Frame i is grey 10 i."""
    frames = np.repeat(np.arange(20, dtype=np.uint8) * 10, 64 * 64 * 3).reshape(20, 64, 64, 3)
    for number in range(2):
        (tmp_path / "videos" / "wave").mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "videos" / "wave" / f"w{number}.mp4", frames, frames_per_second=10)
        folder = tmp_path / "videos" / "clap" / f"c{number}"
        folder.mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{index:04d}.png")
    splits = write_splits(tmp_path / "splits", train=["wave/w0", "wave/w1"], test=["clap/c0", "clap/c1"])
    return splits, tmp_path / "videos"


def test_features_are_those_of_the_encoder_on_the_sampled_frames(world, resnet, tmp_path):
    splits, videos = world
    output = tmp_path / "features"
    options = {"videos": videos, "output_dir": output, "backbone": str(resnet), "show_progress_bar": False}
    report = extract_few_shot_features(splits, preprocessing="trx", **options)
    assert (report.num_extracted, report.num_kept, report.left_out) == (4, 0, [])
    found = load_sequences(output, split="test")
    assert found.labels == ["clap", "clap"] and found.names == ["clap/c0", "clap/c1"] and found.lengths == [8, 8]

    model = ResNetModel.from_pretrained(resnet).eval()
    grey = torch.tensor([10 * index / 255 for index in sample_frames(20)])
    with torch.no_grad():
        expected = model(grey.view(8, 1, 1, 1).expand(8, 3, 224, 224)).pooler_output.flatten(1)
    torch.testing.assert_close(torch.from_numpy(found.sequences[0]), expected, rtol=1e-4, atol=1e-5)
    recipe = json.loads((output / "feature_recipe.json").read_text(encoding="utf-8"))
    assert (recipe["num_frames"], recipe["sampling"], recipe["mean"]) == (8, "tsn", [0.0, 0.0, 0.0])

    written = {file: file.stat().st_mtime_ns for file in (output / "features").rglob("*.npy")}
    (output / "features" / "wave" / "w1.npy").unlink()
    again = extract_few_shot_features(splits, preprocessing="trx", **options)
    assert (again.num_extracted, again.num_kept) == (1, 3)
    changed = [file.name for file, when in written.items() if file.stat().st_mtime_ns != when]
    assert changed == ["w1.npy"]
    with pytest.raises(InputError, match=r"feature recipes of this run and the features in .* differ"):
        extract_few_shot_features(splits, preprocessing="hyrsm", **options)
    (output / "feature_recipe.json").unlink()
    with pytest.raises(InputError, match="features of an unknown recipe"):
        extract_few_shot_features(splits, **options)


def test_the_command_lists_what_it_leaves_out(world, resnet, tmp_path, capsys):
    splits, videos = world
    write_splits(splits, val=["jump/j0", "jump/j1", "jump/j2"])
    (videos / "jump").mkdir()
    write_video(videos / "jump" / "j0.mp4", np.zeros((3, 64, 64, 3), np.uint8), frames_per_second=10)
    (videos / "jump" / "j1.mp4").write_bytes(b"no video")
    words = ["extract", "--few_shot", str(splits), "--videos", str(videos), "--backbone", str(resnet)]
    words += ["--output", str(tmp_path / "features"), "--quiet"]
    assert main(words) == 2
    assert "1 videos of the splits are not there, as jump/j2" in capsys.readouterr().err
    assert main([*words, "--skip_missing"]) == 0
    said = capsys.readouterr().out
    assert "jump/j2: not found in" in said and "j1.mp4" in said
    assert "5 extracted, 0 already there, 2 left out" in said
    kept = load_sequences(tmp_path / "features", split="val")
    assert kept.names == ["jump/j0"] and kept.lengths == [8]


def test_a_broken_video_stops_a_run_that_may_not_leave_it_out(world, resnet, tmp_path):
    splits, videos = world
    (videos / "wave" / "w1.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"w1\.mp4"):
        extract_few_shot_features(
            splits, videos=videos, output_dir=tmp_path / "f", backbone=str(resnet), show_progress_bar=False
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preprocessing": "none"}, "must be one of own, trx, hyrsm"),
        ({"sampling": "dense"}, "must be one of tsn, trx"),
        ({"num_frames": 0}, "must be at least 1, got 0 and 32"),
    ],
)
def test_settings_that_make_no_features_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        extract_few_shot_features("splits", videos="v", output_dir=tmp_path, backbone="b", **options)
