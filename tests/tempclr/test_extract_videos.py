"""``tempclr extract``: whole datasets and bare folders, interruptions, bad videos, other recipes."""

from __future__ import annotations

import json
import os

import datasets
import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from tempclr.cli import main
from tempclr.data import features as features_module
from tempclr.data.features import FeatureExtractor, FeatureRecipe, extract_features
from tempclr.data.rows import dataset_recipe, load_rows, read_paragraphs
from tempclr.data.video import write_video
from tempclr.errors import InputError


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**part, image_size=32, patch_size=16)).save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture
def world(tmp_path):
    """Five videos of 2.5 s in videos/, and a dataset of two splits in rows/."""
    (tmp_path / "rows").mkdir()
    for number in range(5):
        frames = np.random.default_rng(number).integers(0, 255, (25, 32, 48, 3), dtype=np.uint8)
        write_video(tmp_path / "videos" / f"v{number}.mp4", frames, frames_per_second=10, codec="mpeg4")
    write_rows(tmp_path / "rows" / "train.jsonl", [row(0), row(1), row(2, sentences=["wipe", "rinse"])])
    write_rows(tmp_path / "rows" / "test.jsonl", [row(3), row(4)])
    return tmp_path


def row(number, **changes):
    values = {"video_id": f"v{number}", "video": f"../videos/v{number}.mp4", "sentences": ["Öl", "dry"], "task": "t"}
    return {**values, "starts": [0.0, 1.0], "ends": [1.0, 9.0], "level": number, **changes}


def write_rows(path, rows):
    path.write_text("\n".join(json.dumps(each) for each in rows))


def extract(world, vit, source="rows", **options):
    options = {"show_progress_bar": False, "device": "cpu", "backbone": vit, **options}
    return extract_features(world / source, output_dir=world / "out", **options)


def test_a_dataset_becomes_a_dataset(world, vit):
    report = extract(world, vit)
    assert (report.num_extracted, report.num_kept, report.num_rows, report.reasons) == (5, 0, 5, [])
    recipe = FeatureRecipe.from_dict(dataset_recipe(world / "out"))
    assert recipe.backbone == vit and recipe.frames_per_second == 2.0
    rows = load_rows(world / "out", split="train")
    assert rows["level"] == [0, 1, 2] and rows["sentences"][2] == ["wipe", "rinse"]
    assert "Öl" in (world / "out" / "test.jsonl").read_text(encoding="utf-8")
    paragraphs, reasons = read_paragraphs(rows, source=world / "out")
    assert not reasons
    extractor = FeatureExtractor(recipe, device="cpu")
    for each in paragraphs:
        assert each.features.shape == (3, 16) and each.ends == [1.0, 3.0]
        assert os.path.samefile(each.video, world / "videos" / f"{each.video_id}.mp4")
        np.testing.assert_allclose(each.features, extractor.extract(each.video), atol=1e-6)
    names = {path.name for path in world.glob("out/**/*") if path.is_file()}
    assert names == {f"v{n}.npy" for n in range(5)} | {"feature_recipe.json", "train.jsonl", "test.jsonl"}


@pytest.mark.parametrize("num_workers", [1, 3])
def test_note_one_thread_a_video(world, vit, num_workers):
    """Note [One thread a video]: the same bytes with any number of workers and threads; the threads are given back."""
    threads = torch.get_num_threads()
    extract(world, vit, num_workers=num_workers)
    assert torch.get_num_threads() == threads
    expected = world / "again"
    extract_features(world / "rows", output_dir=expected, backbone=vit, device="cpu", show_progress_bar=False)
    for number in range(5):
        name = f"features/v{number}.npy"
        assert (world / "out" / name).read_bytes() == (expected / name).read_bytes()


def test_an_interrupted_run_goes_on(world, vit, monkeypatch):
    save, saved = features_module._save, []

    def interrupted(file, *rest):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(file)
        save(file, *rest)

    monkeypatch.setattr(features_module, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(world, vit)
    assert len(list((world / "out" / "features").iterdir())) == 2 and not list((world / "out").glob("*.jsonl"))
    monkeypatch.setattr(features_module, "_save", save)
    report = extract(world, vit)
    assert (report.num_extracted, report.num_kept, report.num_rows) == (3, 2, 5)
    assert extract(world, vit).num_kept == 5


def test_a_video_that_changed_is_made_again(world, vit):
    extract(world, vit)
    later = (world / "out" / "features" / "v1.npy").stat().st_mtime + 10
    os.utime(world / "videos" / "v1.mp4", (later, later))
    assert (extract(world, vit).num_extracted, extract(world, vit, dtype="float16").num_extracted) == (1, 5)
    assert np.load(world / "out" / "features" / "v0.npy").dtype == np.float16


def test_another_recipe_needs_another_folder(world, vit):
    extract(world, vit)
    with pytest.raises(InputError, match=r'expected {"frames_per_second": 4.0}, found {"frames_per_second": 2.0}'):
        extract(world, vit, frames_per_second=4)
    (world / "out" / "feature_recipe.json").unlink()
    with pytest.raises(InputError, match="features of an unknown recipe"):
        extract(world, vit)


def test_bare_videos_get_an_index(world, vit):
    report = extract(world, vit, source="videos", features_per_second=2)
    assert (report.num_extracted, report.num_rows) == (5, 5)
    lines = [json.loads(line) for line in (world / "out" / "features.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "video_id": "v0",
        "video": "../videos/v0.mp4",
        "features_path": "features/v0.npy",
        "features_per_second": 2.0,
    }
    assert np.load(world / "out" / "features" / "v0.npy").shape == (5, 16)
    with pytest.raises(InputError, match="holds no dataset"):
        load_rows(world / "out")


@pytest.mark.parametrize(
    "other", ['{"id": "a", "title": "Cake"}', '[{"id": "a"}]', "[]", "not JSON", "﻿{}", '{"id":\n "video_id"}']
)
def test_other_files_beside_videos_are_passed_over(world, vit, other, caplog):
    (world / "videos" / "a.info.json").write_text(other)
    report = extract(world, vit, "videos")
    assert report.num_extracted == report.num_rows > 1
    assert "a.info.json holds no rows and is passed over" in caplog.text


@pytest.mark.parametrize("damaged", ['{"video_id": "a", "video": ', '[{"video_id": "a"}]', '{"video_id": "a"}\n{'])
def test_rows_beside_their_videos_are_not_passed_over(world, vit, damaged):
    (world / "videos" / "rows.json").write_text(damaged)
    with pytest.raises(InputError, match=r"rows\.json"):
        extract(world, vit, "videos")


def test_saved_datasets_and_single_files_are_taken(world, vit):
    datasets.disable_progress_bars()
    absolute = [row(number, video=str(world / "videos" / f"v{number}.mp4")) for number in range(2)]
    dataset = datasets.Dataset.from_list([{**each, "features": [[1.0]]} for each in absolute])
    dataset.save_to_disk(world / "saved")
    assert extract(world, vit, source="saved").num_rows == 2
    assert load_rows(world / "out", split="rows").num_rows == 2
    report = extract(world, vit, source="rows/train.jsonl")
    assert (report.num_extracted, report.num_kept) == (1, 2)
    assert extract(world, vit, split="test").num_rows == 2


def test_two_paragraphs_share_their_video(world, vit):
    write_rows(world / "rows" / "train.jsonl", [row(0), row(0, sentences=["again", "and"])])
    report = extract(world, vit, split="train")
    assert (report.num_extracted, report.num_rows) == (1, 2)
    write_rows(world / "rows" / "train.jsonl", [row(0), row(0, video="../videos/v1.mp4")])
    with pytest.raises(InputError, match=r"train.jsonl, row 1, field 'video_id': 'v0' also names the video"):
        extract(world, vit, split="train")


BAD = {
    "video": [("missing", "no such file"), ("empty", "0 bytes"), ("cut", "cannot be read as video"), (None, "missing")],
    "video_id": [("a/b", "cannot name a file"), (".a", "cannot name a file")],
    "starts": [([0.0, 5.0], "features end at 3.0 s"), ([1.0], "1 for 2 sentences")],
}


@pytest.mark.parametrize(
    ("field", "value", "words"), [(field, *each) for field, cases in BAD.items() for each in cases]
)
def test_bad_rows_are_named_or_left_out(world, vit, field, value, words):
    (world / "videos" / "empty.mp4").touch()
    (world / "videos" / "cut.mp4").write_bytes((world / "videos" / "v0.mp4").read_bytes()[:-300])
    if field == "video" and value is not None:
        value = f"../videos/{value}.mp4"
    path = world / "rows" / "train.jsonl"
    write_rows(
        path, [row(0), row(1, video_id="other", **{field: value}) if field != "video_id" else row(1, video_id=value)]
    )
    with pytest.raises(InputError, match=words) as error:
        extract(world, vit, split="train")
    assert (error.value.file, error.value.row, error.value.field) == (str(path), 1, field)
    assert "\n" not in str(error.value)
    report = extract(world, vit, split="train", skip_bad_rows=True)
    assert report.num_rows == 1 and report.reasons == [str(error.value)]
    assert load_rows(world / "out")["video_id"] == ["v0"]
    assert not [file for file in world.glob("out/**/.*")]


def test_a_bad_video_in_a_bare_folder(world, vit):
    (world / "videos" / "v1.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"v1\.mp4: cannot be read"):
        extract(world, vit, source="videos")
    report = extract(world, vit, source="videos", skip_bad_rows=True)
    assert report.num_rows == 4 and len(report.reasons) == 1 and "v1.mp4" in report.reasons[0]
    for number in range(5):
        (world / "videos" / f"v{number}.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="no good row or video"):
        extract(world, vit, source="videos", skip_bad_rows=True)


def test_settings_that_make_no_sense(world, vit):
    (world / "none").mkdir()
    for options, words in [
        ({"dtype": "int8"}, "dtype must be"),
        ({"num_workers": 0}, "num_workers"),
        ({"source": "none"}, "neither rows nor video files"),
        ({"source": "nowhere"}, "no such dataset"),
        ({"source": "out"}, "the dataset's own folder"),
    ]:
        if options.get("source") == "out":
            extract(world, vit)
        with pytest.raises(InputError, match=words):
            extract(world, vit, **options)


def test_the_command(world, vit, capsys):
    words = ["extract", "--videos", str(world / "rows"), "--backbone", vit, "--output", str(world / "out")]
    write_rows(world / "rows" / "test.jsonl", [row(3), row(4, sentences=[])])
    assert main([*words, "--device", "cpu"]) == 2
    assert capsys.readouterr().err.count("test.jsonl, row 1, field 'sentences': empty paragraph") == 1
    assert main([*words, "--device", "cpu", "--skip_bad_rows", "--dtype", "float16", "--no_l2_normalize"]) == 0
    said = capsys.readouterr()
    assert "4 videos extracted, 0 already there, 4 rows written, 1 left out" in said.out
    assert "left out: " in said.err and "row 1, field 'sentences'" in said.err
    assert dataset_recipe(world / "out")["l2_normalize"] is False


def test_damaged_feature_files_are_made_again(world, vit, caplog):
    extract(world, vit)
    files = [world / "out" / "features" / f"v{number}.npy" for number in range(3)]
    whole = [file.read_bytes() for file in files]
    files[1].write_bytes(b"")
    files[2].write_bytes(whole[2][:90])
    assert extract(world, vit).num_extracted == 2
    assert [file.read_bytes() for file in files] == whole
    assert "v1.npy is damaged and made again" in caplog.text and "v2.npy is damaged" in caplog.text


def test_isolated_decoding_gives_the_same_features_and_names_bad_videos(world, vit):
    extract(world, vit)
    expected = {file.name: file.read_bytes() for file in (world / "out" / "features").iterdir()}
    (world / "videos" / "v1.mp4").write_bytes(b"no video")
    report = extract_features(
        world / "rows", output_dir=world / "isolated", backbone=vit, device="cpu", show_progress_bar=False,
        isolate_decoding=True, skip_bad_rows=True,
    )  # fmt: skip
    assert report.num_extracted == 4 and "v1.mp4: cannot be read as video" in report.reasons[0]
    made = {file.name: file.read_bytes() for file in (world / "isolated" / "features").iterdir()}
    assert made == {name: content for name, content in expected.items() if name != "v1.npy"}
