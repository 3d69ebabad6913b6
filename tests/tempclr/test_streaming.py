"""Streams of shards: every row once a pass, shared out, shuffled, and taken up at the exact row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from tempclr.cli import main
from tempclr.data import shards as shards_module
from tempclr.data.shards import find_pieces, find_shards, read_piece
from tempclr.data.streaming import ParagraphStream, StreamLoader, first_paragraphs
from tempclr.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world

NUM_ROWS = 50


def rows():
    names = ("video_id", "sentences", "starts", "ends", "features_per_second")
    return [
        {**{name: getattr(each, name) for name in names}, "features": each.features.tolist()}
        for each in world.make_paragraphs(NUM_ROWS)
    ]


IDS = [row["video_id"] for row in rows()]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same rows as Parquet shards of small row groups, as JSON lines, and as save_to_disk writes them."""
    folder, made = tmp_path_factory.mktemp("shards"), rows()
    for name in ("parquet", "jsonl"):
        (folder / name).mkdir()
    for number, first in enumerate((0, 20, 40)):
        part, name = made[first : first + 20], f"train-{number:05d}-of-00003"
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(part), folder / "parquet" / f"{name}.parquet", row_group_size=4
        )
        (folder / "jsonl" / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in part) + "\n")
    datasets.Dataset.from_list(made).save_to_disk(folder / "arrow", num_shards=3)
    return folder


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(shards_module, "LINES_BYTES", 2000)


def ids(items):
    return [paragraph.video_id for paragraph, _, _ in items]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "arrow"])
def test_the_pieces_hold_every_row_once(kind, places):
    shards = find_shards(places / kind)
    pieces = find_pieces(shards)
    assert len(shards) == 3 and len(pieces) >= 3
    found = []
    for piece in pieces:
        read = read_piece(shards, piece)
        assert piece.num_rows in (None, len(read))
        found += [shards_module.Rows.__getitem__(read, index) for index in range(len(read))]
    names = [row["video_id"] if isinstance(row, dict) else row.column("video_id")[0].as_py() for row in found]
    assert names == IDS


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "arrow"])
@pytest.mark.parametrize("shuffle_rows", [1, 7, 1000])
def test_a_pass_gives_every_row_once_and_the_next_in_another_order(kind, shuffle_rows, places):
    stream = ParagraphStream(places / kind, shuffle_rows=shuffle_rows)
    given = ids(islice(iter(stream), 2 * NUM_ROWS))
    assert sorted(given[:NUM_ROWS]) == sorted(given[NUM_ROWS:]) == sorted(IDS)
    assert given[:NUM_ROWS] != IDS and given[:NUM_ROWS] != given[NUM_ROWS:]
    assert given == ids(islice(iter(ParagraphStream(places / kind, shuffle_rows=shuffle_rows)), 2 * NUM_ROWS))
    other = ParagraphStream(places / kind, shuffle_rows=shuffle_rows, seed=1)
    assert given != ids(islice(iter(other), 2 * NUM_ROWS))


def test_rows_are_those_of_the_dataset(places):
    whole = {each.video_id: each for each in world.make_paragraphs(NUM_ROWS)}
    for kind in ("parquet", "jsonl", "arrow"):
        for paragraph, _, _ in islice(iter(ParagraphStream(places / kind)), NUM_ROWS):
            expected = whole[paragraph.video_id]
            np.testing.assert_array_equal(paragraph.features, expected.features)
            assert (paragraph.sentences, paragraph.starts) == (expected.sentences, expected.starts)


def collate(items):
    return {"video_id": [item.video_id for item in items]}


def loader(place, *, num_workers, rank=0, num_ranks=1, shuffle_rows=7):
    stream = ParagraphStream(place, shuffle_rows=shuffle_rows, rank=rank, num_ranks=num_ranks)
    return StreamLoader(stream, batch_size=3, collate=collate, num_workers=num_workers)


def test_readers_of_all_ranks_and_workers_together_see_every_row_once(places):
    """Note [Shuffled by blocks]: the pieces of a pass are dealt out."""
    seen = []
    for rank in range(2):
        for worker in range(2):
            stream = ParagraphStream(places / "parquet", rank=rank, num_ranks=2)
            items = stream._items(worker, 2)
            seen += [item.video_id for item, position in islice(items, NUM_ROWS) if position.epoch == 0]
    assert sorted(seen) == sorted(IDS)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_stream_is_taken_up_at_the_exact_row(kind, num_workers, places, monkeypatch):
    """Note [The next worker comes first]: with workers too, over the end of a pass too."""
    whole = [batch["video_id"] for batch in islice(loader(places / kind, num_workers=num_workers), 40)]
    for stop in (1, 2, 5, 23):
        first = loader(places / kind, num_workers=num_workers)
        before = [batch["video_id"] for batch in islice(first, stop)]
        state = json.loads(json.dumps(first.state_dict()))
        second = loader(places / kind, num_workers=num_workers)
        second.load_state_dict(state)
        after = [batch["video_id"] for batch in islice(second, 40 - stop)]
        assert before + after == whole, stop


def test_a_stream_taken_up_reads_one_block_again_and_no_more(places, monkeypatch):
    first = loader(places / "parquet", num_workers=0)
    list(islice(first, 14))
    read = []
    monkeypatch.setattr(
        "tempclr.data.streaming.read_piece", lambda shards, piece: read.append(piece) or read_piece(shards, piece)
    )
    second = loader(places / "parquet", num_workers=0)
    second.load_state_dict(first.state_dict())
    next(iter(second))
    assert len(read) <= 4  # seven rows are two pieces of four; a batch of three may need the next two


@pytest.mark.parametrize("change", [{"num_workers": 1}, {"shuffle_rows": 8}, {"rank": 1, "num_ranks": 2}])
def test_another_arrangement_cannot_be_taken_up(change, places):
    state = loader(places / "parquet", num_workers=0).state_dict()
    other = loader(places / "parquet", **{"num_workers": 0, **change})
    with pytest.raises(InputError, match="cannot go on within the stream: "):
        other.load_state_dict(state)


def test_other_shards_of_the_same_number_cannot_be_taken_up(places, tmp_path):
    state = loader(places / "parquet", num_workers=0).state_dict()
    shutil.copytree(places / "parquet", tmp_path / "copy")
    loader(tmp_path / "copy", num_workers=0).load_state_dict(state)
    for number, file in enumerate(sorted((tmp_path / "copy").iterdir())):
        file.rename(tmp_path / "copy" / f"test-{number:05d}-of-00003.parquet")
    with pytest.raises(InputError, match="cannot go on within the stream: pieces was"):
        loader(tmp_path / "copy", num_workers=0).load_state_dict(state)


def test_more_readers_than_pieces_are_an_error(places):
    stream = ParagraphStream(places / "arrow", num_ranks=9)
    with pytest.raises(InputError, match="3 pieces for 9 readers: write smaller row groups or use fewer workers"):
        next(iter(stream))


# --- what can be wrong


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "holds no shards to stream"),
        (lambda folder: (folder / "a.json").write_text("[]"), "holds no shards to stream"),
        (lambda folder: [(folder / f"{name}.jsonl").write_text("{}") for name in "ab"], "holds the splits a, b"),
        (lambda folder: (folder / "a.parquet").write_bytes(b"PAR1"), r"a\.parquet: is damaged or cannot be read"),
        (lambda folder: (folder / "a.jsonl").write_text(""), "holds no rows"),
    ],
)
def test_what_cannot_be_streamed_is_told(make, told, tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=told):
        ParagraphStream(tmp_path)


def test_a_hub_dataset_is_to_be_fetched_first():
    with pytest.raises(InputError, match="fetch its files first"):
        ParagraphStream("owner/recipes")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_row_is_told_by_note_faults_come_as_batches(num_workers, tmp_path):
    """Note [Faults come as batches]: of a worker too, with its file, row and field and without a traceback."""
    made = rows()[:6]
    made[2] = {"video_id": "bad"}
    (tmp_path / "train.jsonl").write_text("\n\n".join(json.dumps(row) for row in made))
    assert len(find_pieces(find_shards(tmp_path))) > 2
    with pytest.raises(InputError) as told:
        list(islice(loader(tmp_path, num_workers=num_workers), 4))
    file = tmp_path / "train.jsonl"
    assert str(told.value) == f"{file}, row 2, field 'sentences': missing"
    assert (told.value.file, told.value.row, told.value.field) == (file, 2, "sentences")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_the_collator_refuses_is_told_too(num_workers, places):
    def refuse(items):
        raise InputError("several widths", field="features")

    stream = ParagraphStream(places / "parquet")
    with pytest.raises(InputError, match=r"^field 'features': several widths$"):
        next(iter(StreamLoader(stream, batch_size=3, collate=refuse, num_workers=num_workers)))


def test_the_loader_has_the_options_of_a_data_loader(places, monkeypatch):
    given = {}
    monkeypatch.setattr("tempclr.data.streaming.DataLoader", lambda stream, **options: given.update(options) or [])
    settings = {"prefetch_factor": 3, "pin_memory": True, "persistent_workers": True}
    stream = ParagraphStream(places / "parquet")
    list(StreamLoader(stream, batch_size=3, collate=collate, num_workers=2, **settings))
    assert {name: given[name] for name in settings} == settings


def test_large_row_groups_are_warned_of(places, monkeypatch, caplog):
    find_pieces(find_shards(places / "parquet"))
    assert not caplog.records
    monkeypatch.setattr(shards_module, "LARGE_GROUP_BYTES", 100)
    for kind in ("jsonl", "arrow"):
        find_pieces(find_shards(places / kind))
    assert not caplog.records
    find_pieces(find_shards(places / "parquet"))
    assert len(caplog.records) == 1 and "a row group of 4 rows takes" in caplog.text and ".parquet" in caplog.text


def test_bad_rows_are_named_or_left_out(tmp_path, caplog):
    made = rows()[:6]
    made[2] = {"video_id": "bad"}
    lines = [json.dumps(row) for row in made]
    lines[4] = "{"
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"train\.jsonl.*"):
        list(islice(iter(ParagraphStream(tmp_path)), 6))
    given = ids(islice(iter(ParagraphStream(tmp_path, skip_bad_rows=True)), 8))
    assert sorted(given[:4]) == sorted(given[4:]) == [IDS[place] for place in (0, 1, 3, 5)]
    assert "left out: " in caplog.text and "row 2, field 'sentences': missing" in caplog.text
    assert "train.jsonl, row 4: not JSON" in caplog.text
    (tmp_path / "train.jsonl").write_text("{}\n{}\n")
    with pytest.raises(InputError, match="no good row"):
        next(iter(ParagraphStream(tmp_path, skip_bad_rows=True)))


def test_a_shard_damaged_in_its_middle_is_named(places, tmp_path):
    source = find_shards(places / "parquet")[0]
    content = bytearray(source.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"train\.parquet"):
        list(islice(iter(ParagraphStream(tmp_path)), 20))


def test_the_first_rows_are_few_and_end_with_the_first_pass(places):
    assert len(first_paragraphs(places / "parquet", 5)) == 5
    for kind in ("parquet", "jsonl"):
        assert len(first_paragraphs(places / kind, 500)) == NUM_ROWS


# --- through the Trainer

SIZES = ["--hidden_size", "16", "--num_attention_heads", "2", "--num_text_layers", "1", "--num_video_layers", "1"]


def words(place, output, *extra):
    steps = ["--max_steps", "6", "--save_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu"]
    given = ["--train_dataset", str(place), "--output_dir", str(output), "--streaming", "--shuffle_rows", "8"]
    return ["pretrain", *given, *steps, *SIZES, "--vocab_size", "80", "--disable_tqdm", "true", *extra]


@pytest.mark.parametrize(
    "extra",
    [
        [
            "--dataloader_num_workers",
            "2",
            "--sentence_sampling",
            "span",
            "--max_sentences",
            "2",
            "--max_padding",
            "0.1",
        ],
        ["--gradient_accumulation_steps", "2", "--dataloader_num_workers", "0"],
        ["--clip_sampling", "overlapped", "--clips_per_video", "3", "--dataloader_num_workers", "2"],
    ],
)
def test_pretraining_on_a_stream_goes_on_to_the_same_weights(extra, places, tmp_path):
    torch.set_num_threads(1)
    assert main(words(places / "parquet", tmp_path / "whole", *extra)) == 0
    assert main(words(places / "parquet", tmp_path / "cut", *extra, "--max_steps", "6")) == 0
    for step in (4, 6):
        for file in (tmp_path / "cut" / f"checkpoint-{step}").iterdir():
            file.unlink()
    assert main(words(places / "parquet", tmp_path / "cut", *extra, "--resume_from_checkpoint")) == 0
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    torch.set_num_threads(2)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--max_steps", "-1"], "a stream has no end: give the number of updates"),
        (["--retrieval_batches"], "similar videos cannot be looked for in a stream"),
        (["--train_split", "test"], "holds no shards of split 'test' to stream"),
        (["--resume_from_checkpoint"], "no checkpoint in"),
    ],
)
def test_mistakes_are_one_line(extra, told, places, tmp_path, capsys):
    assert main(words(places / "parquet", tmp_path / "out", *extra)) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_two_ranks_go_on_to_the_same_weights(places, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29623"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def train(name, *extra):
        given = words(places / "parquet", tmp_path / name, "--dataloader_num_workers", "1", *extra)
        subprocess.run([*launch, "-m", "tempclr.cli", *given], env=environment, check=True, capture_output=True)
        return (tmp_path / name / "model.safetensors").read_bytes()

    whole = train("whole")
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    assert train("cut", "--resume_from_checkpoint") == whole
