"""Rows that name files of this machine, as given to others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from tempclr.data.rows import load_rows, read_paragraphs
from tempclr.errors import InputError
from tempclr_hub.dataset_card import dataset_card
from tempclr_hub.portable_rows import all_splits
from tempclr_hub.staging import describe, stage_dataset


def write_split(folder: Path, split: str, *, num_rows: int, **fields: object) -> list[np.ndarray]:
    """Rows as ``tempclr extract`` writes them, their feature files and videos; the features."""
    (folder / "features").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(num_rows)
    lines, arrays = [], []
    for number in range(num_rows):
        arrays.append(random.normal(size=(4 + number, 3)).astype(np.float32))
        file = f"features/{split}_{number}.npy"
        np.save(folder / file, arrays[-1])
        row = {
            "video_id": f"{split}_{number}",
            "sentences": ["peel the onion", "chop it"],
            "starts": [0.0, 2.0],
            "ends": [2.0, 4.0],
            "video": "../videos/not-for-others.mp4",
            "features_path": file,
            "features_per_second": 1.0,
            **fields,
        }
        lines.append(json.dumps({name: value for name, value in row.items() if value is not None}))
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return arrays


def test_what_extract_writes_holds_its_features_for_others(tmp_path: Path):
    source = tmp_path / "data"
    made = {split: write_split(source, split, num_rows=num) for split, num in (("train", 20), ("test", 2))}
    recipe = {"backbone": "/home/me/encoder", "backbone_sha256": "ab", "resize": 128}
    (source / "feature_recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    card = dataset_card(source, repo_id="me/rows")
    staged = stage_dataset(source, tmp_path / "staged", card=card)

    assert {name for name, _ in staged.files()} == {
        "README.md",
        "feature_recipe.json",
        "data/train-00000-of-00001.parquet",
        "data/test-00000-of-00001.parquet",
    }
    assert not any(path.is_dir() and path.name != "data" for path in staged.folder.iterdir()), "no scratch is left"
    assert list(describe(staged))[-1] == "stays here: column features_path, column video"
    sent = b"".join(path.read_bytes() for path in staged.folder.rglob("*") if path.is_file())
    assert not any(word in sent for word in (b"not-for-others", b"train_0.npy", b"/home/me", bytes(tmp_path)))
    assert "| `features`" in card and "`features_path`" not in card and '"backbone": "encoder"' in card
    for split, arrays in made.items():
        paragraphs, left_out = read_paragraphs(load_rows(staged.folder, split=split), source=staged.folder)
        assert not left_out and len(paragraphs) == len(arrays)
        for paragraph, array in zip(paragraphs, arrays, strict=True):
            np.testing.assert_array_equal(paragraph.features, array)


def test_a_reader_without_tempclr_can_load_them(tmp_path: Path):
    (array,) = write_split(tmp_path / "data", "train", num_rows=1)
    staged = stage_dataset(tmp_path / "data" / "train.jsonl", tmp_path / "staged", card="")
    rows = load_dataset(str(staged.folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(np.float32(rows[0]["features"]), array) and "video" not in rows.column_names


@pytest.mark.parametrize(
    ("file", "split"), [("train.jsonl", "train"), ("test.jsonl", "test"), ("kitchen-1.jsonl", "train")]
)
def test_a_file_is_a_split(tmp_path: Path, file: str, split: str):
    write_split(tmp_path, Path(file).stem, num_rows=1)
    assert list(all_splits(tmp_path / file)) == [split]


def test_files_of_other_names_are_splits_with_names_that_datasets_takes(tmp_path: Path):
    for name in ("kitchen-1", "kitchen-2"):
        write_split(tmp_path, name, num_rows=1)
    assert list(all_splits(tmp_path)) == ["kitchen_1", "kitchen_2"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"features_path": None}, "train.jsonl.*: has rows without features: make them by `tempclr extract` first"),
        ({"features_path": "features/gone.npy"}, "train.jsonl, row 0, field 'features_path': no such file"),
        ({"ends": [0.0, 0.0]}, "train.jsonl, row 0, field 'ends'"),
    ],
)
def test_rows_that_cannot_be_given_are_named(tmp_path: Path, fields: dict, said: str):
    write_split(tmp_path / "data", "train", num_rows=1, **fields)
    with pytest.raises(InputError, match=said):
        stage_dataset(tmp_path / "data" / "train.jsonl", tmp_path / "staged", card="")


def test_some_rows_without_features_are_named(tmp_path: Path):
    write_split(tmp_path, "train", num_rows=1)
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8")
    other = json.dumps({**json.loads(lines), "features_path": None})
    (tmp_path / "train.jsonl").write_text(f"{lines}{other}\n", encoding="utf-8")
    with pytest.raises(InputError, match="row 1, field 'features': missing: make it by `tempclr extract` first"):
        stage_dataset(tmp_path / "train.jsonl", tmp_path / "staged", card="")


def test_rows_that_hold_their_features_lose_the_name_of_the_video_alone(tmp_path: Path):
    row = {"video_id": "a", "sentences": ["x"], "starts": [0.0], "ends": [1.0], "video": "/home/me/a.mp4"}
    Dataset.from_list([{**row, "features": [[1.0, 2.0]], "features_per_second": 1.0}]).save_to_disk(tmp_path / "rows")
    staged = stage_dataset(tmp_path / "rows", tmp_path / "staged", card="")
    (kept,) = load_rows(staged.folder, split="train")
    assert kept["features"] == [[1.0, 2.0]] and "video" not in kept and staged.left_out == ("column video",)
