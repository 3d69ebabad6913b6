"""``tempclr prepare``: what it writes, what it says, and that it can be interrupted, repeated and changed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from safetensors.numpy import save_file

from tempclr.cli import main, prepare
from tempclr.data import readers
from tempclr.data.readers import preparation
from tempclr.data.readers.arrow_parts import _batches
from tempclr.data.readers.media import FeatureFiles, FeatureShards, VideoFiles
from tempclr.data.row_files import split_names
from tempclr.data.rows import dataset_recipe, load_rows, read_paragraphs
from tempclr.errors import InputError

spec = importlib.util.spec_from_file_location("corpora_world", Path(__file__).with_name("corpora_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)
datasets.disable_progress_bars()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def official(tmp_path):
    corpus = world.youcook2(tmp_path / "official")
    world.write_features(tmp_path / "features", corpus.seconds)
    return tmp_path


def run(folder, *words, corpus="youcook2", features="features", output="rows"):
    media = ("--features", str(folder / features)) if features else ()
    paths = ("--annotations", str(folder / "official"), *media, "--output", str(folder / output))
    return main(["prepare", corpus, *paths, *map(str, words)])


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def state(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.arrow")}


def test_the_folder_is_a_saved_dataset_that_others_read(official, capsys):
    """See Note [The library writes its own index]."""
    assert run(official) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"4 videos written: {official / 'rows'}"
    assert "train: 2 videos, 4 sentences, 0.0 hours of which 68% background, 1 sentences overlap, 0 end after" in out
    assert "validation_youcook.csv" in err
    assert not list(official.glob(".rows*"))
    loaded = datasets.load_from_disk(str(official / "rows"))
    assert isinstance(loaded, datasets.DatasetDict) and {k: len(v) for k, v in loaded.items()} == {
        "train": 2,
        "validation": 2,
    }
    assert loaded["train"].cache_files  # memory-mapped
    assert str(loaded["train"].split) == "train"
    assert loaded["train"]._fingerprint != loaded["validation"]._fingerprint
    assert loaded["train"].map(lambda row: {"length": len(row["features"])})["length"] == [31, 31]
    streamed = list(loaded["train"].to_iterable_dataset(num_shards=1))
    assert [row["video_id"] for row in streamed] == ["abc", "ab_c"]
    report = json.loads((official / "rows" / "report.json").read_text())
    assert set(report["splits"]) == {"train", "validation"} and report["plan"]["corpus"] == "youcook2"
    assert len(report["plan"]["sha256_of_annotations"]["youcookii_annotations_trainval.json"]) == 64


def test_the_same_run_again_changes_nothing(official, capsys):
    run(official)
    before = state(official / "rows")
    capsys.readouterr()
    assert run(official) == 0
    assert "4 videos already there, from the same files and options" in capsys.readouterr().out
    assert state(official / "rows") == before


def test_changed_files_or_options_replace_the_whole(official):
    run(official)
    first = datasets.load_from_disk(str(official / "rows"))["train"]._fingerprint
    assert run(official, "--splits", "train", "--fp16") == 0
    loaded = datasets.load_from_disk(str(official / "rows"))
    assert list(loaded) == ["train"] and loaded["train"].features["features"].feature.feature.dtype == "float16"
    assert loaded["train"]._fingerprint != first and not (official / "rows" / "validation").exists()
    np.save(official / "features" / "abc.npy", world.features_of(9, 31))
    assert run(official, "--splits", "train", "--fp16") == 0
    paragraphs, _ = read_paragraphs(load_rows(official / "rows"), source=official / "rows")
    np.testing.assert_array_equal(paragraphs[0].features, world.features_of(9, 31).astype(np.float16))
    assert not list(official.glob(".rows*"))


def test_other_things_in_the_output_folder_stay(official, capsys):
    (official / "rows").mkdir()
    (official / "rows" / "thesis.tex").write_text("mine")
    assert run(official) == 2
    assert "holds other things; choose an empty folder" in capsys.readouterr().err
    assert listing(official / "rows") == ["thesis.tex"]
    world.activitynet(official / "anet" / "official")
    world.write_features(official / "anet" / "features", {"v_one": 21})
    assert run(official, output="again") == 0
    (official / "anet" / "again").symlink_to(official / "again")
    assert run(official / "anet", corpus="activitynet", output="again") == 2
    assert "holds other things" in capsys.readouterr().err


def test_without_features_it_says_what_is_needed(official, capsys):
    assert run(official, features=None) == 2
    told = capsys.readouterr().err
    assert "the annotations are good (train 2 videos with 4 sentences, validation 2 videos with 4 sentences)" in told
    assert "abc.npy" in told and "abc.mp4" in told and not (official / "rows").exists()
    (official / "empty").mkdir()
    assert run(official, features="empty") == 2
    assert f"{official / 'empty'} has none of them: expected abc.npy" in capsys.readouterr().err
    assert run(official, features="nowhere") == 2
    assert "no such folder" in capsys.readouterr().err


def test_videos_without_features_are_counted_and_listed(official, capsys):
    (official / "features" / "ab_c.npy").unlink()
    (official / "features" / "abcd.npy").unlink()
    assert run(official) == 0
    err = capsys.readouterr().err
    assert "left out: 1 videos of train without features or file: ab_c" in err
    report = json.loads((official / "rows" / "report.json").read_text())
    assert report["without_media"] == {"train": ["ab_c"], "validation": ["abcd"]}


def test_paths_instead_of_features(official, capsys):
    save_file({"features": np.load(official / "features" / "abc.npy")}, official / "features" / "abc.safetensors")
    (official / "features" / "abc.npy").unlink()
    assert run(official, "--store", "paths") == 0
    loaded = load_rows(official / "rows", split="train")
    assert loaded["features_path"] == ["../features/abc.safetensors", "../features/ab_c.npy"]
    paragraphs, _ = read_paragraphs(loaded, source=official / "rows")
    np.testing.assert_array_equal(paragraphs[0].features, world.features_of(0, 31))
    for words, message in [(("--store", "paths", "--fp16"), "fp16 is for features in the rows")]:
        assert run(official, *words) == 2
        assert message in capsys.readouterr().err
    np.save(official / "features" / "ab_c.npy", np.zeros(4))
    assert run(official, "--store", "paths") == 2
    assert "ab_c.npy: expected shape (T, D)" in capsys.readouterr().err
    (official / "features" / "ab_c.npy").write_bytes(b"not numbers")
    assert run(official, "--store", "paths") == 2
    assert "ab_c.npy cannot be read" in capsys.readouterr().err


def test_videos_instead_of_features(official, capsys):
    (official / "videos" / "113").mkdir(parents=True)
    for name in ("113/abc.mp4", "ab_c.webm", "abcd.mkv", "readme.txt"):
        (official / "videos" / name).touch()
    assert run(official, "--videos", official / "videos", features=None) == 0
    assert "1 videos of validation without features or file: x-1_2" in capsys.readouterr().err
    paragraphs, _ = read_paragraphs(load_rows(official / "rows", split="train"), source=official / "rows")
    assert [Path(each.video).resolve() for each in paragraphs] == [
        (official / "videos" / name).resolve() for name in ("113/abc.mp4", "ab_c.webm")
    ]
    (official / "videos" / "abc.avi").touch()
    assert run(official, "--videos", official / "videos", features=None) == 2
    assert "video 'abc': 2 files bear this id" in capsys.readouterr().err
    assert run(official, "--videos", official / "videos") == 2
    assert "give features or videos, not both" in capsys.readouterr().err


def test_a_video_id_may_be_a_whole_file_name(tmp_path):
    for name in ("a.mov", "a.mp4", "noext.", ".hidden.mp4"):
        (tmp_path / name).touch()
    videos = VideoFiles(tmp_path)
    assert "a.mov" in videos and "noext." in videos and "b" not in videos and ".hidden.mp4" not in videos
    assert videos.path("a.mp4") == tmp_path / "a.mp4"
    with pytest.raises(InputError, match="2 files bear this id"):
        videos.path("a")


def test_the_features_recipe_goes_with_the_rows(official, capsys):
    recipe = {"backbone": "s3d", "features_per_second": 2.0}
    (official / "feature_recipe.json").write_text(
        json.dumps(recipe)
    )  # as extract leaves it: beside the folder features
    assert run(official, "--skip_bad_rows") == 0
    assert dataset_recipe(official / "rows") == recipe
    paragraphs, _ = read_paragraphs(load_rows(official / "rows", split="train"), source=official / "rows")
    assert paragraphs[0].duration_seconds == 15.5 and len(paragraphs[0]) == 2  # the third begins at 20 s
    assert run(official, "--features_per_second", 1) == 2
    assert "features_per_second is 1.0, but their recipe says 2.0" in capsys.readouterr().err
    assert run(official, "--features_per_second", 0) == 2
    assert "must be a positive number" in capsys.readouterr().err


def test_numbers_too_large_for_float16_are_refused(official, capsys):
    np.save(official / "features" / "ab_c.npy", np.full((31, 4), 1e6))
    assert run(official) == 0
    assert run(official, "--fp16") == 2
    assert "video 'ab_c', field 'features': numbers beyond the range of float16" in capsys.readouterr().err


def test_only_the_splits_asked_for(official, capsys):
    assert run(official, "--splits", "validation") == 0
    assert split_names(official / "rows") == ["validation"]
    assert run(official, "--splits", "validation", "test") == 2
    assert "no videos of split test; there are train, validation" in capsys.readouterr().err


def test_a_split_without_a_good_video_is_left_out(official, capsys):
    for name in ("abcd", "x-1_2"):
        np.save(official / "features" / f"{name}.npy", np.full((31, 4), np.inf))
    assert run(official, "--skip_bad_rows") == 0
    assert split_names(official / "rows") == ["train"]
    assert listing(official / "rows") == sorted(
        ["dataset_dict.json", "report.json", "train"]
        + [f"train/{name}" for name in ("data-00000.arrow", "dataset_info.json", "state.json")]
    )
    for name in ("abc", "ab_c"):
        np.save(official / "features" / f"{name}.npy", np.full((31, 4), np.inf))
    assert run(official, "--skip_bad_rows") == 2
    assert "no good video; the first fault" in capsys.readouterr().err


def write_shards(folder, seconds, sizes, prefix="train"):
    """The released layout: videos one below the other, several shards a split."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, numbers = list(seconds), iter(range(len(seconds)))
    meta = {}
    for shard, size in enumerate(sizes):
        meta[shard], ids = ids[:size], ids[size:]
        arrays = [world.features_of(next(numbers), seconds[each]) for each in meta[shard]]
        np.save(folder / f"{prefix}_{shard}_data.npy", np.concatenate(arrays).astype(np.float16))
        starts = np.cumsum([0] + [len(each) for each in arrays])
        np.save(folder / f"{prefix}_{shard}_starts.npy", starts.astype(np.int64))
    (folder / f"{prefix}_meta.pkl").write_bytes(pickle.dumps(meta))


def test_released_shards_are_read(tmp_path, capsys):
    corpus = world.howto100m(tmp_path / "official")
    write_shards(tmp_path / "shards", {"h-one": 12, "h_two": 9}, [1, 1])
    write_shards(tmp_path / "shards", {"hval": 10}, [1], prefix="val")
    lists = ["--lists", *corpus.options["lists"]]
    assert run(tmp_path, *lists, corpus="howto100m", features="shards") == 0
    paragraphs, _ = read_paragraphs(load_rows(tmp_path / "rows", split="train"), source=tmp_path / "rows")
    expected = world.features_of(1, 9).astype(np.float16)
    np.testing.assert_array_equal(paragraphs[1].features, expected)
    assert run(tmp_path, *lists, "--store", "paths", corpus="howto100m", features="shards") == 2
    assert "only store 'rows' can take them" in capsys.readouterr().err
    shards = FeatureShards(tmp_path / "shards")
    assert shards.load("hval").shape == (10, 4) and "other" not in shards


def test_broken_shards_are_named(tmp_path):
    folder = tmp_path / "shards"
    write_shards(folder, {"a": 5, "b": 6, "c": 7}, [2, 1])
    np.save(folder / "train_0_starts.npy", np.array([0, 5, 99]))
    np.save(folder / "train_1_starts.npy", np.array([0]))
    shards = FeatureShards(folder)
    with pytest.raises(InputError, match="shard train_0: starts do not ascend within its 11 rows"):
        shards.load("b")
    with pytest.raises(InputError, match="shard train_1 ends before its video 0"):
        shards.load("c")
    np.save(folder / "train_0_starts.npy", np.array([0.0, 5.0, 11.0]))
    with pytest.raises(InputError, match=r"expected data .* and whole starts"):
        FeatureShards(folder).load("a")
    (folder / "train_0_data.npy").unlink()
    with pytest.raises(InputError, match=r"train_0_data.npy cannot be read"):
        FeatureShards(folder).load("a")
    for meta, words in [
        ({0: ["a", "a"]}, "'a' is in two shards"),
        ({"x": ["a"]}, "shard 'x'"),
        ([], "expected {shard"),
    ]:
        (folder / "train_meta.pkl").write_bytes(pickle.dumps(meta))
        with pytest.raises(InputError, match=f"train_meta.pkl: .*{words}"):
            FeatureShards(folder)


def test_features_change_their_fingerprint(tmp_path):
    world.write_features(tmp_path, {"a": 3, "b": 4})
    before = FeatureFiles(tmp_path).fingerprint()
    assert FeatureFiles(tmp_path).fingerprint() == before
    np.save(tmp_path / "a.npy", np.zeros((9, 4), np.float32))
    assert FeatureFiles(tmp_path).fingerprint() != before


def test_batches_stay_small():
    rows = [{"features": np.zeros((1 << 10, 1 << 10), np.float16)}] * 40
    assert [len(batch) for batch in _batches(rows)] == [16, 16, 8]
    assert [len(batch) for batch in _batches([{"video": "v"}] * 70)] == [32, 32, 6]


def many_videos(folder, count):
    entry = {"duration": 9.0, "timestamps": [[0, 3], [4, 8]], "sentences": ["one", "two"]}
    world.write_json(folder / "official" / "train.json", {f"v_{number}": entry for number in range(count)})
    world.write_features(folder / "features", {f"v_{number}": 9 for number in range(count)})


def test_a_run_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    many_videos(tmp_path, 10)
    monkeypatch.setattr(preparation, "PART_VIDEOS", 3)
    loaded = []
    load = FeatureFiles.load

    def interrupted(self, video_id):
        if len(loaded) == 7:
            raise KeyboardInterrupt
        loaded.append(video_id)
        return load(self, video_id)

    monkeypatch.setattr(FeatureFiles, "load", interrupted)
    assert run(tmp_path, corpus="activitynet") == 130
    assert not (tmp_path / "rows").exists()
    monkeypatch.setattr(FeatureFiles, "load", lambda self, video_id: loaded.append(video_id) or load(self, video_id))
    assert run(tmp_path, corpus="activitynet") == 0
    assert loaded == [f"v_{number}" for number in [*range(7), *range(6, 10)]]  # two parts were whole
    dataset = load_rows(tmp_path / "rows")
    assert dataset["video_id"] == [f"v_{number}" for number in range(10)]
    for number, paragraph in enumerate(read_paragraphs(dataset, source=tmp_path / "rows")[0]):
        np.testing.assert_array_equal(paragraph.features, world.features_of(number, 9))
    assert json.loads((tmp_path / "rows" / "report.json").read_text())["splits"]["train"]["num_sentences"] == 20


def test_parts_of_other_options_are_not_taken_over(tmp_path, monkeypatch):
    many_videos(tmp_path, 6)
    monkeypatch.setattr(preparation, "PART_VIDEOS", 2)
    finish = preparation.PartedDataset.finish

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation.PartedDataset, "finish", interrupted)
    assert run(tmp_path, corpus="activitynet") == 130
    monkeypatch.setattr(preparation.PartedDataset, "finish", finish)
    assert run(tmp_path, "--fp16", corpus="activitynet") == 0
    assert load_rows(tmp_path / "rows").features["features"].feature.feature.dtype == "float16"


def test_a_run_that_ended_just_before_the_name_is_taken_over(tmp_path, monkeypatch):
    many_videos(tmp_path, 3)
    monkeypatch.setattr(preparation.PartedDataset, "_swap", lambda self: None)
    assert run(tmp_path, corpus="activitynet") == 0
    assert not (tmp_path / "rows").exists()
    monkeypatch.undo()
    monkeypatch.setattr(preparation, "_write_parts", None)  # nothing is made again
    assert run(tmp_path, corpus="activitynet") == 0
    assert len(load_rows(tmp_path / "rows")) == 3


def test_parts_of_another_size_are_made_again(tmp_path, monkeypatch):
    many_videos(tmp_path, 10)
    monkeypatch.setattr(preparation, "PART_VIDEOS", 2)
    monkeypatch.setattr(preparation.PartedDataset, "_swap", lambda self: (self.folder / ".progress").mkdir())
    assert run(tmp_path, corpus="activitynet") == 0
    for number in range(5):
        record = {"videos": [f"v_{2 * number}", f"v_{2 * number + 1}"], "totals": {}, "reasons": [], "width": 4}
        world.write_json(tmp_path / ".rows.preparing" / ".progress" / f"train-{number:05d}.json", record)
    plan = json.loads((tmp_path / ".rows.preparing" / "report.json").read_text())["plan"]
    world.write_json(tmp_path / ".rows.preparing" / ".progress" / "plan.json", plan)
    monkeypatch.undo()
    monkeypatch.setattr(preparation, "PART_VIDEOS", 4)
    assert run(tmp_path, corpus="activitynet") == 0
    assert load_rows(tmp_path / "rows")["video_id"] == [f"v_{number}" for number in range(10)]
    assert len(list((tmp_path / "rows" / "train").glob("*.arrow"))) == 3


DRIVER = """
import sys, time
from tempclr.data.readers import preparation, prepare_corpus, read_activitynet
from tempclr.data.readers.media import FeatureFiles

preparation.PART_VIDEOS = 4
load = FeatureFiles.load
FeatureFiles.load = lambda self, video_id: time.sleep(0.1) or load(self, video_id)
official, features, rows = sys.argv[1:]
prepare_corpus(lambda _: read_activitynet([official]), corpus="activitynet", output_dir=rows, features=features)
"""


def test_a_killed_run_leaves_nothing_under_the_name_and_the_next_one_goes_on(tmp_path, monkeypatch):
    many_videos(tmp_path, 60)
    words = [sys.executable, "-c", DRIVER, *(str(tmp_path / name) for name in ("official", "features", "rows"))]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), str(ROOT / "hub")])
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    parts = tmp_path / ".rows.preparing" / "train"
    while len(list(parts.glob("data-*.arrow"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "rows").exists()
    kept = {path.name: path.stat().st_ino for path in parts.glob("data-0000[01].arrow")}
    monkeypatch.setattr(preparation, "PART_VIDEOS", 4)
    assert run(tmp_path, corpus="activitynet") == 0
    assert all((tmp_path / "rows" / "train" / name).stat().st_ino == number for name, number in kept.items())
    paragraphs, reasons = read_paragraphs(load_rows(tmp_path / "rows"), source=tmp_path / "rows")
    assert not reasons and [each.video_id for each in paragraphs] == [f"v_{number}" for number in range(60)]
    for number, paragraph in enumerate(paragraphs):
        np.testing.assert_array_equal(paragraph.features, world.features_of(number, 9))


def test_the_seed_may_stand_before_or_after_the_corpus(tmp_path):
    world.crosstask(tmp_path / "official")
    world.write_features(tmp_path / "features", {f"{name}{number}": 20 for name in "tb" for number in range(6)})
    paths = ["--annotations", str(tmp_path / "official"), "--features", str(tmp_path / "features")]
    options = [*paths, "--num_train_videos", "2", "--output"]
    assert main(["prepare", "--seed", "5", "crosstask", *options, str(tmp_path / "a")]) == 0
    assert main(["prepare", "crosstask", "--seed", "5", *options, str(tmp_path / "b")]) == 0
    assert main(["prepare", "crosstask", *options, str(tmp_path / "c")]) == 0
    drawn = [load_rows(tmp_path / name, split="train")["video_id"] for name in "abc"]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_function_checks_its_options(official):
    def read(_):
        return readers.read_youcook2([official / "official"])

    with pytest.raises(InputError, match="store must be one of rows, paths, got 'cloud'"):
        readers.prepare_corpus(read, corpus="youcook2", output_dir=official / "rows", store="cloud")


def test_many_reasons_are_cut_on_the_terminal_but_not_in_the_report(tmp_path, capsys):
    many_videos(tmp_path, 40)
    for number in range(30):
        np.save(tmp_path / "features" / f"v_{number}.npy", np.zeros((2, 4)))
    assert run(tmp_path, "--skip_bad_rows", corpus="activitynet") == 0
    told = capsys.readouterr().err
    assert told.count("left out:") == 21 and "left out: 10 more, see report.json" in told
    assert len(json.loads((tmp_path / "rows" / "report.json").read_text())["reasons"]) == 30


def test_the_page_on_data_sets_names_commands_and_files_that_are_there():
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8").replace("\\\n", " ")
    corpora = {**prepare.CORPORA, **prepare.ACTIONS}
    parser = argparse.ArgumentParser(exit_on_error=False)
    prepare.add_arguments(parser)
    lines = [
        line.split()[2:] for line in page.splitlines() if line.startswith("tempclr prepare ") and "error" not in line
    ]
    assert {parser.parse_args(words).corpus for words in lines} == set(corpora)
    for file in re.findall(r"\w+\.(?:json|csv|txt|pkl)\b", " ".join(corpora.values())):
        assert file in page, file
