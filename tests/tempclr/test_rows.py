"""Dataset rows: every fault has its own line naming file, row and field."""

from __future__ import annotations

import json
import math

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tempclr.data.row_files import split_names
from tempclr.data.rows import (
    Paragraph,
    Paragraphs,
    check_recipe,
    dataset_recipe,
    load_rows,
    read_paragraph,
    read_paragraphs,
)
from tempclr.errors import InputError

datasets.disable_progress_bars()


def good_row(number=0, **changes):
    features = np.random.default_rng(number).normal(size=(6 + number, 4)).astype(np.float32)
    row = {
        "video_id": f"v{number}",
        "sentences": ["open the box", "close it"],
        "starts": [0.0, 2.5],
        "ends": [2.0, 5.0],
        "features": features.tolist(),
        "features_per_second": 1.0,
        "task": "box",
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not None}


def write_lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


NAN = [[0.0, 1.0], [math.nan, 0.0]] * 4
FAULTS = [
    ({"video_id": None}, "video_id", "missing"),
    ({"video_id": " "}, "video_id", "not empty"),
    ({"sentences": []}, "sentences", "empty paragraph"),
    ({"sentences": ["a", ""]}, "sentences", "sentence 1 must be a text"),
    ({"starts": [0.0]}, "starts", "1 for 2 sentences"),
    ({"ends": [1.0, 2.0, 3.0]}, "ends", "3 for 2 sentences"),
    ({"starts": [2.5, 0.0]}, "starts", "ascending order"),
    ({"starts": [-1.0, 2.5]}, "starts", "entry 0 is negative"),
    ({"starts": [math.nan, 2.5]}, "starts", "finite"),
    ({"ends": [math.inf, 5.0]}, "ends", "finite"),
    ({"starts": [None, 2.5]}, "starts", "finite"),
    ({"ends": [2.0, 2.5]}, "ends", "entry 1 must be after its start"),
    ({"starts": [0.0, 6.0], "ends": [2.0, 8.0]}, "starts", "features end at 6.0 s"),
    ({"features": NAN}, "features", "NaN or infinite value in feature 1"),
    ({"features": [[1.0, 2.0], [1.0]]}, "features", "expected"),
    ({"features": [[1.0], None]}, "features", "expected"),
    ({"features": []}, "features", r"\(T, D\)"),
    ({"features": None}, "features", "one of features, features_path and video"),
    ({"features_per_second": None}, "features_per_second", "missing"),
    ({"features_per_second": 0.0}, "features_per_second", "positive"),
    ({"features_path": "x.npy"}, "features_path", "both"),
    ({"features_path": "x.npy", "features": None}, "features_path", "no such file"),
    ({"video": "x.mp4"}, "video", "no such file"),
    ({"label": ""}, "label", "not empty"),
    ({"steps": ["open", "close"]}, "step_indices", "belong together"),
    ({"step_indices": [0, 1]}, "steps", "belong together"),
    ({"steps": ["open", " "], "step_indices": [0, 1]}, "steps", "step 1 must be a text"),
    ({"steps": ["open"], "step_indices": [0, 1]}, "step_indices", "entry 1 must be a number from 0 to 0, found 1"),
    ({"steps": ["open", "close"], "step_indices": [-1, 1]}, "step_indices", "entry 0"),
    ({"steps": ["open", "close"], "step_indices": [0]}, "step_indices", "1 for 2 sentences"),
    ({"annotator_spans": [[[0.0, 5.0]]]}, "annotator_spans", "1 for 2 sentences"),
    ({"annotator_spans": [[[0.0, 5.0]], []]}, "annotator_spans", "sentence 1 has no annotator's span"),
    ({"annotator_spans": [[[0.0, 5.0]], [[5.0]]]}, "annotator_spans", "sentence 1: expected"),
    ({"annotator_spans": [[[5.0, 5.0]], [[5.0, 9.0]]]}, "annotator_spans", "sentence 0: expected seconds"),
    ({"annotator_spans": [[[math.nan, 5.0]], [[5.0, 9.0]]]}, "annotator_spans", "sentence 0: expected seconds"),
]


@pytest.mark.parametrize(("changes", "field", "words"), FAULTS)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_each_fault_names_file_row_and_field(tmp_path, changes, field, words, suffix):
    rows = [good_row(0), good_row(0, **changes)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    if suffix == ".parquet":
        path = tmp_path / "rows.parquet"
        load_rows(tmp_path / "rows.jsonl").to_parquet(path)
    with pytest.raises(InputError, match=words) as error:
        read_paragraphs(load_rows(path), source=path)
    assert (error.value.file, error.value.row, error.value.field) == (str(path), 1, field)
    assert str(error.value).startswith(f"{path}, row 1, field '{field}': ") and "\n" not in str(error.value)
    paragraphs, reasons = read_paragraphs(load_rows(path), source=path, skip_bad_rows=True)
    assert len(paragraphs) == 1 and reasons == [str(error.value)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sentences": "one"}, "sentences"),
        ({"starts": 3}, "starts"),
        ({"starts": [[0.0], [1.0]]}, "starts"),
        ({"features": 2}, "features"),
        ({"features_per_second": [1.0]}, "features_per_second"),
        ({"steps": "ab", "step_indices": [0, 1]}, "steps"),
        ({"steps": ["a", "b"], "step_indices": [0.0, 1.0]}, "step_indices"),
        ({"steps": ["a", "b"], "step_indices": [True, False]}, "step_indices"),
        ({"annotator_spans": [[0.0, 5.0], [5.0, 9.0]]}, "annotator_spans"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(changes, field):
    with pytest.raises(InputError) as error:
        read_paragraph({**good_row(), **changes}, source="rows.jsonl", index=4)
    assert (error.value.row, error.value.field) == (4, field)


def test_a_wrong_type_in_json_is_named(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [good_row(), good_row(), good_row(starts="soon")])
    with pytest.raises(InputError, match=r"rows.jsonl, row 2, field 'starts': expected a list.*found 'soon'"):
        load_rows(path)
    path = write_lines(tmp_path / "more.jsonl", [good_row(other=1), good_row(other="x")])
    with pytest.raises(InputError, match=r"more.jsonl, field 'other': the rows do not agree on a type"):
        load_rows(path)


def test_broken_files_are_named(tmp_path):
    (tmp_path / "half.jsonl").write_text(json.dumps(good_row()) + '\n{"video_id": "v')
    (tmp_path / "half.json").write_text('[{"video_id": ')
    (tmp_path / "list.jsonl").write_text("3\n")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 or not")
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "rows.csv").write_text("a,b\n")
    words = {
        "half.jsonl": "row 1: not JSON",
        "half.json": "not JSON",
        "list.jsonl": "row 0: expected an object",
        "bytes.jsonl": "not JSON text",
        "no.parquet": "not a Parquet file",
        "none.jsonl": "holds no rows",
        "rows.csv": "expected a .parquet",
        "missing.jsonl": "no such dataset",
        "missing/folder": "no such dataset",
    }
    for name, found in words.items():
        with pytest.raises(InputError, match=found) as error:
            load_rows(tmp_path / name)
        assert name in str(error.value)


def test_every_kind_of_source_gives_the_same_paragraphs(tmp_path):
    rows = [good_row(number) for number in range(4)]
    write_lines(tmp_path / "rows.jsonl", rows)
    (tmp_path / "list.json").write_text(json.dumps(rows))
    dataset = load_rows(tmp_path / "rows.jsonl")
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=dataset, test=dataset.select([0])).save_to_disk(tmp_path / "two")
    (tmp_path / "files" / "data").mkdir(parents=True)
    dataset.select([0]).to_parquet(tmp_path / "files" / "data" / "train-00000-of-00002.parquet")
    dataset.select([1, 2, 3]).to_parquet(tmp_path / "files" / "data" / "train-00001-of-00002.parquet")
    write_lines(tmp_path / "files" / "test.jsonl", rows[:1])
    write_lines(tmp_path / "files" / "features.jsonl", [{"video_id": "not a row"}])
    sources = [("rows.jsonl", None), ("list.json", None), ("rows.parquet", None), ("one", None), ("two", "train")]
    for name, split in [*sources, ("files", "train")]:
        loaded = load_rows(tmp_path / name, split=split)
        paragraphs, reasons = read_paragraphs(loaded, source=tmp_path / name)
        assert not reasons and [each.video_id for each in paragraphs] == ["v0", "v1", "v2", "v3"]
        for each, row in zip(paragraphs, rows, strict=True):
            np.testing.assert_array_equal(each.features, np.float32(row["features"]))
            assert (each.sentences, each.starts, each.ends) == (row["sentences"], row["starts"], row["ends"])
            assert each.task == "box" and each.features.flags.writeable and len(each) == 2
    assert split_names(tmp_path / "two") == ["train", "test"] and split_names(tmp_path / "rows.jsonl") == []
    assert set(split_names(tmp_path / "files")) == {"train", "test"}


STEPS = {"steps": ["find the box", "open it", "close it"], "step_indices": [1, 2]}
SPANS = {"annotator_spans": [[[0.0, 5.0], [0.0, 10.0]], [[5.0, 10.0]]]}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "disk"])
def test_steps_and_annotators_survive_every_kind_of_file(tmp_path, name):
    write_lines(tmp_path / "rows.jsonl", [good_row(0, **STEPS), good_row(1, **SPANS), good_row(2)])
    dataset = load_rows(tmp_path / "rows.jsonl")
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.save_to_disk(tmp_path / "disk")
    (stepped, marked, plain), _ = read_paragraphs(load_rows(tmp_path / name), source=tmp_path / name)
    assert (stepped.steps, stepped.step_indices) == (("find the box", "open it", "close it"), (1, 2))
    assert marked.annotator_spans == (((0.0, 5.0), (0.0, 10.0)), ((5.0, 10.0),))  # beyond the 7 s of features: not cut
    assert (plain.steps, plain.step_indices, plain.annotator_spans, marked.steps) == (None, None, None, None)


def test_steps_of_a_wrong_type_in_json_are_named(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [good_row(**STEPS), good_row(**{**STEPS, "step_indices": [0.5, 1]})])
    with pytest.raises(InputError, match=r"row 1, field 'step_indices': expected a list of whole numbers"):
        load_rows(path)


def test_splits_are_asked_for_by_name(tmp_path):
    write_lines(tmp_path / "train.jsonl", [good_row(0, split="seen"), good_row(1, split="unseen")])
    assert load_rows(tmp_path / "train.jsonl", split="unseen")["video_id"] == ["v1"]
    assert load_rows(tmp_path, split="seen")["video_id"] == ["v0"]
    with pytest.raises(InputError, match="no rows of split 'test', only seen, unseen"):
        load_rows(tmp_path / "train.jsonl", split="test")
    write_lines(tmp_path / "test.jsonl", [good_row()])
    with pytest.raises(InputError, match="holds the splits test, train; say which"):
        load_rows(tmp_path)
    with pytest.raises(InputError, match="has no split 'dev'"):
        load_rows(tmp_path, split="dev")
    with pytest.raises(InputError, match="without a split column"):
        load_rows(tmp_path / "test.jsonl", split="dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no dataset"):
        load_rows(tmp_path / "empty")
    (tmp_path / "empty" / "state.json").write_text("{")
    with pytest.raises(InputError, match="cannot be loaded as a saved dataset"):
        load_rows(tmp_path / "empty")


def test_what_looks_like_a_hub_id_is_looked_for_there():
    with pytest.raises(InputError, match="nobody/nothing: no such local file or folder, and not to be had"):
        load_rows("nobody/nothing")


def test_an_error_in_a_folder_names_the_split_file(tmp_path):
    write_lines(tmp_path / "train.jsonl", [good_row()])
    write_lines(tmp_path / "test.jsonl", [good_row(), good_row(starts=[1.0, 0.0])])
    with pytest.raises(InputError, match="ascending") as error:
        read_paragraphs(load_rows(tmp_path, split="test"), source=tmp_path)
    assert error.value.file == str(tmp_path / "test.jsonl")


@pytest.mark.parametrize("kind", ["npy", "half", "safetensors", "named"])
def test_feature_files_are_found_beside_the_rows(tmp_path, kind):
    features = np.arange(24, dtype=np.float32).reshape(6, 4)
    name = "v.npy" if kind in ("npy", "half") else "v.safetensors"
    if kind == "npy" or kind == "half":
        np.save(tmp_path / name, features.astype(np.float16) if kind == "half" else features)
    else:
        others = {"other": np.zeros(3, np.float32)} if kind == "named" else {}
        save_file({"features": features, **others}, tmp_path / name)
    path = write_lines(tmp_path / "rows.jsonl", [good_row(features=None, features_path=name)])
    paragraphs, _ = read_paragraphs(load_rows(path), source=path)
    np.testing.assert_array_equal(paragraphs[0].features, features)
    assert paragraphs[0].features.dtype == np.float32


def test_bad_feature_files_are_named(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((6, 4), np.nan))
    np.save(tmp_path / "object.npy", np.array([None]), allow_pickle=True)
    np.save(tmp_path / "whole.npy", np.ones((6, 4)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-40])
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "cut.safetensors").write_bytes(b"123")
    save_file({"a": np.ones((6, 4)), "b": np.ones(2)}, tmp_path / "two.safetensors")
    words = {
        "nan.npy": "NaN or infinite value in feature 0",
        "object.npy": "cannot be read",
        "cut.npy": "cannot be read",
        "cut.safetensors": "cannot be read",
        "two.safetensors": "name one of them 'features'",
        "text.txt": r"expected a \.npy or \.safetensors",
    }
    for name, found in words.items():
        row = good_row(features=None, features_path=name)
        with pytest.raises(InputError, match=found) as error:
            read_paragraph(row, source=tmp_path / "rows.jsonl", index=7)
        assert (error.value.row, error.value.field) == (7, "features_path") and name in str(error.value)
    with pytest.raises(InputError, match="is relative, but a Hub dataset has no folder"):
        read_paragraph(good_row(features=None, features_path="v.npy"), source="user/data", index=0)


def test_a_video_column_may_be_a_mapping_or_a_path(tmp_path):
    (tmp_path / "v.mp4").touch()
    for video in ("v.mp4", {"path": "v.mp4", "bytes": None}):
        row = good_row(features=None, features_per_second=None, video=video)
        paragraph = read_paragraph(row, source=tmp_path / "rows.jsonl", index=0)
        assert paragraph.video == str(tmp_path / "v.mp4") and paragraph.features is None
        assert paragraph.duration_seconds == 5.0


def test_paragraphs_are_read_on_demand(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((6, 4)))
    path = write_lines(tmp_path / "rows.jsonl", [good_row(features=None, features_path="v.npy")] * 5)
    paragraphs, _ = read_paragraphs(load_rows(path), source=path)
    np.save(tmp_path / "v.npy", np.ones((6, 4)))
    assert paragraphs[-1].features.min() == 1.0
    part = paragraphs[1:4]
    assert isinstance(part, Paragraphs) and len(part) == 3 and len(list(part)) == 3
    with pytest.raises(IndexError):
        paragraphs[5]


def test_array2d_columns_and_plain_lists_are_read():
    features = datasets.Features(
        {
            **{"video_id": datasets.Value("string"), "sentences": datasets.List(datasets.Value("string"))},
            **{"starts": datasets.List(datasets.Value("float64")), "ends": datasets.List(datasets.Value("float64"))},
            "features": datasets.Array2D((None, 4), "float32"),
            "features_per_second": datasets.Value("float64"),
        }
    )
    rows = [{key: value for key, value in good_row(number).items() if key != "task"} for number in range(3)]
    dataset = datasets.Dataset.from_list(rows, features=features)
    for source in (dataset, rows):
        paragraphs, _ = read_paragraphs(source, source="memory")
        np.testing.assert_array_equal(paragraphs[2].features, np.float32(rows[2]["features"]))


def test_no_good_row_is_an_error():
    with pytest.raises(InputError, match=r"rows.jsonl: no good row; the first: rows.jsonl, row 0, field 'sentences'"):
        read_paragraphs([good_row(sentences=[])], source="rows.jsonl", skip_bad_rows=True)
    with pytest.raises(InputError, match="holds no rows"):
        read_paragraphs([], source="rows.jsonl")


@given(
    spans=st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 20)), min_size=1, max_size=8),
    num_features=st.integers(1, 80),
    rate=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_spans_end_within_the_features_or_the_row_is_refused(spans, num_features, rate):
    spans = sorted(spans)
    starts, ends = [start for start, _ in spans], [start + length for start, length in spans]
    features, sentences = np.zeros((num_features, 2)), ["x"] * len(spans)
    duration = num_features / rate
    if max(starts) >= duration:
        with pytest.raises(InputError, match="features end at"):
            Paragraph("v", sentences, starts, ends, features=features, features_per_second=rate)
        return
    paragraph = Paragraph("v", sentences, starts, ends, features=features, features_per_second=rate)
    assert paragraph.duration_seconds == duration and paragraph.starts == starts
    assert paragraph.ends == [min(end, duration) for end in ends]


def test_recipes_are_compared_and_both_shown(tmp_path, caplog):
    one = {"backbone": "a", "backbone_sha256": "1", "crop": (8, 8), "mean": [0.5]}
    check_recipe(one, {**one, "crop": [8, 8]}, what="x")
    check_recipe(one, {**one, "backbone": "moved/a"}, what="x")  # the same weights in another place
    check_recipe(None, None, what="x")
    assert not caplog.records
    check_recipe(one, None, what="model and dataset")
    assert "model and dataset" in caplog.text
    with pytest.raises(InputError, match=r'of x differ: expected {"mean": \[0.5\]}, found {"mean": \[0.1\]}'):
        check_recipe(one, {**one, "mean": [0.1]}, what="x")
    with pytest.raises(InputError, match='"backbone": "a"'):
        check_recipe(one, {**one, "backbone": "b", "backbone_sha256": "2"}, what="x")
    assert dataset_recipe(tmp_path) is None
    (tmp_path / "feature_recipe.json").write_text(json.dumps(one))
    assert dataset_recipe(tmp_path / "rows.jsonl") == dataset_recipe(tmp_path) == json.loads(json.dumps(one))
    (tmp_path / "feature_recipe.json").write_text("{")
    with pytest.raises(InputError, match="not a feature recipe"):
        dataset_recipe(tmp_path)
