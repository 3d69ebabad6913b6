"""Each corpus: its official files give the rows that its own documentation describes."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest

from tempclr.data import readers
from tempclr.data.readers.crosstask import crosstask_splits
from tempclr.data.readers.didemo import agreed_span
from tempclr.data.readers.records import Findings
from tempclr.data.row_files import split_names
from tempclr.data.rows import load_rows, read_paragraphs
from tempclr.errors import InputError

spec = importlib.util.spec_from_file_location("corpora_world", Path(__file__).with_name("corpora_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)
CORPORA, features_of, write_features = world.CORPORA, world.features_of, world.write_features
datasets.disable_progress_bars()
GOLDEN = Path(__file__).parent / "data" / "released_readers.json"


def prepare(name, corpus, output, **options):
    kept = ("splits", "store", "fp16", "features_per_second", "skip_bad_rows", "features", "videos")
    rest = {key: options.pop(key) for key in kept if key in options}

    def read(available):
        told = {"available": available} if name == "crosstask" else {}
        return getattr(readers, f"read_{name}")(corpus.annotations, **{**corpus.options, **options, **told})

    return readers.prepare_corpus(read, corpus=name, output_dir=output, show_progress_bar=False, **rest)


def prepared(name, tmp_path, **options):
    """The paragraphs of each split by video id, and the report."""
    corpus = CORPORA[name](tmp_path / "official")
    features = write_features(tmp_path / "features", corpus.seconds)
    report = prepare(name, corpus, tmp_path / "rows", features=features, **options)
    return rows_of(tmp_path / "rows"), report


def rows_of(folder):
    found = {}
    for split in split_names(folder):
        paragraphs, reasons = read_paragraphs(load_rows(folder, split=split), source=folder)
        assert not reasons
        found[split] = {each.video_id: each for each in paragraphs}
    return found


def scanned(reading):
    findings = Findings(skip_bad_rows=False)
    return list(reading.scan(findings)), findings


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_gives_rows_with_its_own_features(tmp_path, name):
    rows, report = prepared(name, tmp_path)
    ids = list(CORPORA[name](tmp_path / "again").seconds)
    assert {video_id for split in rows.values() for video_id in split} == set(ids)
    for split in rows.values():
        for video_id, paragraph in split.items():
            expected = features_of(ids.index(video_id), len(paragraph.features))
            np.testing.assert_array_equal(paragraph.features, expected)
            assert paragraph.features_per_second == 1.0
    totals = report.splits
    assert {split: total["num_videos"] for split, total in totals.items()} == {k: len(v) for k, v in rows.items()}
    assert sum(total["num_sentences"] for total in totals.values()) == sum(
        len(p) for v in rows.values() for p in v.values()
    )
    assert report.is_new and not report.reasons and not report.without_media


def test_youcook2_counts_background_and_overlap(tmp_path):
    rows, report = prepared("youcook2", tmp_path)
    assert {split: set(videos) for split, videos in rows.items()} == {
        "train": {"abc", "ab_c"},
        "validation": {"abcd", "x-1_2"},
    }
    paragraph = rows["train"]["abc"]
    assert (paragraph.starts, paragraph.ends) == ([2.0, 4.0, 20.0], [5.0, 9.0, 30.0])
    assert paragraph.sentences[1] == "step 1 of training" and paragraph.task == "113"
    # abc: 7 of [2, 9) and 10 of [20, 30) in 31 s; ab_c: 3 of 31
    assert report.splits["train"]["video_seconds"] == 62 and report.splits["train"]["background_seconds"] == 62 - 20
    assert report.splits["train"]["num_overlapping"] == 1 and report.splits["validation"]["num_overlapping"] == 1
    assert "436" in report.hints[0]


@pytest.mark.parametrize("kind", ["csv", "pkl"])
def test_youcook2_keeps_the_listed_clips_of_the_validation_set(tmp_path, kind):
    """See Note [Ids are compared whole]: abc is part of abcd, and an id may hold the mark that ends it."""
    if kind == "csv":
        listed = tmp_path / "validation_youcook.csv"
        listed.write_text(
            "end,start,task,text,video_id\n12,9,113,c,abcd\n7,1,113,a,abcd\n4,3,113,d,x-1_2\n7,1,113,b,abcd\n"
        )
    else:
        listed = tmp_path / "youcook_val.pkl"
        ids = ["abcd_2", "abcd_0", "x-1_2_0", "abcd_1"]
        listed.write_bytes(pickle.dumps([{"id": each, "caption": "words"} for each in ids]))
    rows, report = prepared("youcook2", tmp_path, validation_clips=listed)
    assert set(rows["train"]) == {"abc", "ab_c"} and report.hints == []
    assert rows["validation"]["abcd"].sentences == [f"step {k} of validation" for k in range(3)]
    assert len(rows["validation"]["x-1_2"]) == 1 and report.notes == {}


def test_youcook2_counts_what_the_list_leaves_out_and_refuses_what_is_not_there(tmp_path):
    corpus = CORPORA["youcook2"](tmp_path)
    listed = tmp_path / "clips.csv"
    listed.write_text("end,start,task,text,video_id\n7,1,113,a,abcd\n")
    _, findings = scanned(readers.read_youcook2(corpus.annotations, validation_clips=listed))
    assert findings.notes == {
        "validation segments not in the list of clips": 3,
        "validation videos not in the list of clips": 1,
    }
    for row, words in [
        ("8,1,113,a,abcd", "no such validation segment"),
        ("5,2,113,a,abc", "no such validation segment"),
    ]:
        listed.write_text(f"end,start,task,text,video_id\n{row}\n")
        with pytest.raises(InputError, match=f"clips.csv, row 0: .*{words}"):
            scanned(readers.read_youcook2(corpus.annotations, validation_clips=listed))
    with pytest.raises(InputError, match="a list of clips already"):
        readers.read_youcook2([listed], validation_clips=listed)


def test_youcook2_clips_alone_make_a_validation_set(tmp_path):
    listed = tmp_path / "validation_youcook.csv"
    listed.write_text("end,start,task,text,video_id\n9,5,226,chop,a_b\n4,1,226,mix,a_b\n8,2,101,fry,c\n")
    videos, _ = scanned(readers.read_youcook2([listed]))
    assert [(each.video_id, each.split, each.task, len(each.sentences)) for each in videos] == [
        ("a_b", "validation", "226", 2),
        ("c", "validation", "101", 1),
    ]


def test_youcook2_agrees_with_the_released_reader(tmp_path):
    golden = json.loads(GOLDEN.read_text())["youcook2"]
    official = world.write_json(tmp_path / "official.json", golden["annotations"])
    listed = tmp_path / "youcook_val.pkl"
    listed.write_bytes(pickle.dumps([{"id": each, "caption": "words"} for each in golden["clip_ids"]]))
    findings = Findings(skip_bad_rows=True)
    videos = list(readers.read_youcook2([official], validation_clips=listed).scan(findings))
    assert len(findings.reasons) == 1 and "'missing_vid' has no such validation segment" in findings.reasons[0]
    clips = []
    for video in videos:
        num_features = golden["num_features"].get(video.video_id, 0)
        for each in video.sentences if num_features else ():
            length = min(32, min(each.end, num_features) - each.start)
            clips.append([video.video_id, str(int(each.start)), str(int(each.end)), int(length)])
    assert clips == golden["clips"]


def test_crosstask_rows_have_all_steps_of_the_task(tmp_path):
    rows, report = prepared("crosstask", tmp_path)
    paragraph = rows["validation"]["t0"]
    assert paragraph.steps == ("boil water", "add tea", "pour") and paragraph.step_indices == (0, 1, 1)
    assert paragraph.sentences == ["boil water", "add tea", "add tea"]
    assert paragraph.starts == [1.5, 8.5, 14.0] and (paragraph.task, paragraph.label) == ("Make Tea", "11")
    assert {split: len(videos) for split, videos in rows.items()} == {"train": 4, "validation": 2, "test": 6}
    assert report.notes == {"videos.csv names videos without annotations": 6}


def test_crosstask_segments_come_by_time_whatever_the_order_of_the_file(tmp_path):
    corpus = CORPORA["crosstask"](tmp_path / "official")
    features = write_features(tmp_path / "features", corpus.seconds)
    prepare("crosstask", corpus, tmp_path / "in_order", features=features)
    file = tmp_path / "official" / "annotations" / "11_t0.csv"
    lines = file.read_text().splitlines()
    assert len(lines) == 3
    file.write_text("\n".join([lines[2], lines[0], lines[1]]) + "\n")
    prepare("crosstask", corpus, tmp_path / "mixed", features=features)
    expected, found = (rows_of(tmp_path / name)["validation"]["t0"] for name in ("in_order", "mixed"))
    assert (found.starts, found.ends, found.step_indices) == (expected.starts, expected.ends, expected.step_indices)
    assert found.sentences == expected.sentences


def test_crosstask_split_does_not_change_with_missing_files(tmp_path):
    """See Note [A split that no missing file changes]."""
    whole, _ = prepared("crosstask", tmp_path / "whole")
    corpus = CORPORA["crosstask"](tmp_path / "part")
    missing = {"t3", "b2"}
    present = {video: seconds for video, seconds in corpus.seconds.items() if video not in missing}
    features = write_features(tmp_path / "some", present)
    report = prepare("crosstask", corpus, tmp_path / "fixed", features=features)
    fixed = rows_of(tmp_path / "fixed")
    assert {split: set(videos) - missing for split, videos in whole.items()} == {k: set(v) for k, v in fixed.items()}
    assert sorted(each for ids in report.without_media.values() for each in ids) == sorted(missing)
    prepare("crosstask", corpus, tmp_path / "released", features=features, split_rule="released")
    released = rows_of(tmp_path / "released")
    assert {k: set(v) for k, v in released.items()} != {k: set(v) for k, v in fixed.items()}
    both, _ = prepared("crosstask", tmp_path / "all", split_rule="released")
    assert {k: set(v) for k, v in both.items()} == {k: set(v) for k, v in whole.items()}


def write_released_crosstask(folder):
    golden = json.loads(GOLDEN.read_text())["crosstask"]
    (folder / "annotations").mkdir(parents=True)
    for name, text in golden["files"].items():
        (folder / name).write_text(text)
    for name, text in golden["annotations"].items():
        (folder / "annotations" / name).write_text(text)
    return golden


def test_crosstask_agrees_with_the_released_reader(tmp_path):
    golden = write_released_crosstask(tmp_path)
    reading = readers.read_crosstask(
        [tmp_path], split_rule="released", num_train_videos=3, available=golden["num_features"]
    )
    videos, findings = scanned(reading)
    pairs = {split: [[v.label, v.video_id] for v in videos if v.split == split] for split in ("train", "test")}
    assert sorted(pairs["train"]) == sorted(golden["split"]["train"])
    assert pairs["test"] == golden["split"]["test"] == golden["split"]["valid"]
    assert findings.notes["annotated videos left out by the released rule: no features or file"] == 1
    tables = np.load(GOLDEN.with_suffix(".npz"))
    tests = {video.video_id: video for video in videos if video.split == "test"}
    for number, (_, video_id, num_seconds) in enumerate(golden["items"]):
        table = np.zeros((num_seconds, len(tests[video_id].steps)), np.uint8)
        for each in tests[video_id].sentences:
            table[int(np.floor(each.start)) : int(np.ceil(each.end)), each.step_index] = 1
        np.testing.assert_array_equal(table, tables[f"steps_of_seconds_{number}"])


def test_crosstask_splits_are_those_of_numpys_generator():
    pairs = [("1", str(number)) for number in range(8)] + [("2", "x")]
    splits = crosstask_splits(pairs, primary_tasks={"1", "2"}, validation={("1", "0")}, num_train_videos=3, seed=4)
    drawn = np.random.RandomState(4).choice([str(number) for number in range(1, 8)], 3, replace=False)
    assert {video for (task, video), split in splits.items() if split == "train" and task == "1"} == set(drawn)
    assert splits["1", "0"] == "validation" and splits["2", "x"] == "train"


def test_crosstask_is_one_folder_of_the_release(tmp_path):
    corpus = CORPORA["crosstask"](tmp_path / "official")
    with pytest.raises(InputError, match="read from one folder"):
        readers.read_crosstask([tmp_path / "official" / "videos.csv"])
    with pytest.raises(InputError, match="split_rule must be one of fixed, released"):
        readers.read_crosstask(corpus.annotations, split_rule="lucky")
    with pytest.raises(InputError, match="num_train_videos must be at least 1"):
        readers.read_crosstask(corpus.annotations, num_train_videos=0)
    (tmp_path / "official" / "videos.csv").unlink()
    with pytest.raises(InputError, match=r"videos.csv: no such file"):
        readers.read_crosstask(corpus.annotations)


def test_didemo_rows_have_what_each_annotator_marked(tmp_path):
    rows, _ = prepared("didemo", tmp_path)
    assert set(rows["train"]) == {"12@N01_3_ab.mov"} and set(rows["test"]) == {"12@N01_3_ab.mp4", "noext."}
    paragraph = rows["train"]["12@N01_3_ab.mov"]
    assert paragraph.sentences == ["moment 2.", "moment 1."]  # by the start of the agreed span
    assert (paragraph.starts, paragraph.ends) == ([5.0, 15.0], [10.0, 25.0])
    assert paragraph.annotator_spans[0] == ((0.0, 5.0), (5.0, 10.0), (5.0, 15.0), (5.0, 10.0))
    last = rows["test"]["noext."]
    assert last.ends == [28.0] and last.annotator_spans[0][0] == (25.0, 30.0)  # the last chunk is shorter


def test_annotators_agree_on_the_most_marked_span():
    """See Note [What several annotators agree on]."""
    assert agreed_span(((0, 5), (0, 5), (5, 10))) == (0, 5)
    assert agreed_span(((0, 5), (0, 10), (5, 10))) == (0, 10)  # it overlaps both of the others
    assert agreed_span(((20, 25), (0, 5))) == (0, 5)
    assert agreed_span(((5, 20),)) == (5, 20)


def test_coin_steps_are_those_of_the_whole_task(tmp_path):
    rows, _ = prepared("coin", tmp_path)
    steps = ("unscrew the screw", "jack up the car", "tighten the screws")
    assert rows["train"]["tyre1"].steps == rows["test"]["tyre2"].steps == steps
    assert rows["train"]["tyre1"].step_indices == (1, 2) and rows["test"]["tyre2"].step_indices == (0, 2)
    assert rows["train"]["disk"].steps == ("take it out",) and rows["train"]["disk"].task == "ReplaceDrive"


def test_activitynet_keeps_its_two_validation_sets_apart(tmp_path):
    rows, _ = prepared("activitynet", tmp_path)
    assert {split: len(videos) for split, videos in rows.items()} == {"train": 2, "val_1": 1, "val_2": 1}
    assert rows["val_1"]["v_three"].starts == [0.5, 4.0] and rows["val_2"]["v_three"].starts == [6.0]
    assert rows["train"]["v_one"].sentences == ["Someone does 0.", "Someone does 1."]


def test_howto100m_counts_what_is_no_caption(tmp_path):
    rows, report = prepared("howto100m", tmp_path)
    assert {split: list(videos) for split, videos in rows.items()} == {
        "train": ["h-one", "h_two"],
        "validation": ["hval"],
    }
    assert rows["train"]["h-one"].sentences == ["take the pan", "the pan and oil"]
    assert report.notes == {
        "captions that last no time": 1,
        "captions without text": 2,
        "listed videos without captions": 1,
    }


def test_howto100m_says_repeated_words_once(tmp_path):
    rows, _ = prepared("howto100m", tmp_path, deduplicate="words")
    assert rows["train"]["h_two"].sentences == ["hello again"] and rows["train"]["h_two"].starts == [1.25]
    again, _ = prepared("howto100m", tmp_path / "again", deduplicate="words")
    assert again["train"]["h-one"].sentences == rows["train"]["h-one"].sentences
    with pytest.raises(InputError, match="deduplicate must be one of words, characters"):
        prepared("howto100m", tmp_path / "other", deduplicate="letters")


def test_howto100m_reads_pickles_of_json(tmp_path):
    golden = json.loads(GOLDEN.read_text())["howto100m"]
    deduplicated = tmp_path / "raw_caption_dedup.pkl"
    deduplicated.write_bytes(pickle.dumps(golden["raw_caption_dedup"]))
    videos, _ = scanned(readers.read_howto100m([deduplicated]))
    starts, ends = golden["startends_video0"]
    found = np.float32([[each.start for each in videos[0].sentences], [each.end for each in videos[0].sentences]])
    lasting = np.float32(ends) > np.float32(starts)
    np.testing.assert_array_equal(found, np.float32([starts, ends])[:, lasting])
    raw = world.write_json(tmp_path / "raw_caption.json", golden["raw_caption"])
    plain, findings = scanned(readers.read_howto100m([raw]))
    assert [each.video_id for each in plain] == [each.video_id for each in videos]
    texts = [text for video in golden["raw_caption"].values() for text in video["text"]]
    assert findings.notes["captions without text"] == sum(not (text or "").strip() for text in texts)
    with pytest.raises(
        InputError, match=r"expected one annotation file, found .*raw_caption.json.*name the one to use"
    ):
        readers.read_howto100m([tmp_path])


def test_howto100m_lists_tell_their_split(tmp_path):
    corpus = CORPORA["howto100m"](tmp_path)
    videos, findings = scanned(readers.read_howto100m(corpus.annotations, lists=corpus.options["lists"][1:]))
    assert [(each.video_id, each.split) for each in videos] == [("hval", "validation")]
    assert findings.notes["captioned videos in no list"] == 2
    (tmp_path / "ids.lst").write_text("hval\n")
    with pytest.raises(InputError, match=r"ids.lst: cannot tell the split"):
        readers.read_howto100m(corpus.annotations, lists=[tmp_path / "ids.lst"])
    (tmp_path / "test.lst").write_text("hval\n")
    both = [corpus.options["lists"][1], tmp_path / "test.lst"]
    with pytest.raises(InputError, match=r"test.lst, line 1, field 'video_id': 'hval' is listed twice"):
        scanned(readers.read_howto100m(corpus.annotations, lists=both))
