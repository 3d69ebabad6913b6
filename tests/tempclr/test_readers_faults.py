"""Whatever is wrong with official files, all six readers say it in one line that names the file and the record."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from filelock import FileLock

from tempclr.cli import main
from tempclr.data import readers
from tempclr.data.readers.official_files import read_csv, read_pickle
from tempclr.data.readers.records import Findings
from tempclr.data.rows import load_rows
from tempclr.errors import InputError

spec = importlib.util.spec_from_file_location("corpora_world", Path(__file__).with_name("corpora_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)
CORPORA = world.CORPORA
datasets.disable_progress_bars()

MAIN_FILE = {
    "howto100m": "raw_caption.json",
    "youcook2": "youcookii_annotations_trainval.json",
    "crosstask": "annotations/11_t1.csv",
    "didemo": "train_data.json",
    "coin": "COIN.json",
    "activitynet": "train.json",
}
JSON_CORPORA = [name for name, file in MAIN_FILE.items() if file.endswith(".json")]


def run(name, corpus, folder, *words):
    """The command as a user gives it."""
    options = [str(word) for key, value in corpus.options.items() for word in (f"--{key}", *np.atleast_1d(value))]
    paths = ["--annotations", *map(str, corpus.annotations), "--features", str(folder / "features")]
    return main(["prepare", name, *paths, "--output", str(folder / "rows"), *options, *words])


def written(name, folder):
    corpus = CORPORA[name](folder / "official")
    world.write_features(folder / "features", corpus.seconds)
    return corpus


def change_json(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def first(mapping):
    return next(iter(mapping.values()))


def entries_of(name, value):
    return value["database"] if name in ("youcook2", "coin") else value


def change_record(name, path, key, value):
    """Set one field of the first record of a corpus; ``...`` takes it away."""

    def change(found):
        record = found[0] if name == "didemo" else first(entries_of(name, found))
        if value is ...:
            del record[key]
        else:
            record[key] = value

    change_json(path, change)


# For each corpus: a field of its first record, a value it must not have, the record named, the words of the fault.
BAD_RECORDS = [
    ("howto100m", "text", ..., "video 'h-one', field 'text'", "missing"),
    ("howto100m", "text", "take", "video 'h-one', field 'text'", "expected a list"),
    ("howto100m", "start", [0.0], "video 'h-one', field 'start'", "a list of 4"),
    ("howto100m", "start", [0.0, 1.0, "two", 9.0], "video 'h-one', caption 2, field 'start'", "found 'two'"),
    ("howto100m", "start", [0.0, 1.0, 99.0, 9.0], "video 'h-one', caption 2, field 'end'", "ends before it starts"),
    ("howto100m", "end", [3.5, 3.0, float("nan"), 9.0], "video 'h-one', caption 2, field 'end'", "found nan"),
    ("howto100m", "text", ["a", "b", 7, "c"], "video 'h-one', caption 2, field 'text'", "found 7"),
    ("youcook2", "annotations", ..., "video 'abc', field 'annotations'", "missing"),
    ("youcook2", "annotations", [], "video 'abc', field 'annotations'", "has no segments"),
    ("youcook2", "subset", "test", "video 'abc', field 'subset'", "expected one of training, validation"),
    ("youcook2", "duration", "long", "video 'abc', field 'duration'", "found 'long'"),
    (
        "youcook2",
        "duration",
        20,
        "video 'abc', segment 2, field 'segment'",
        "starts at 20.0 s but the video ends at 20",
    ),
    ("youcook2", "recipe_type", 113, "video 'abc', field 'recipe_type'", "expected a text"),
    (
        "youcook2",
        "annotations",
        [{"segment": [5, 2], "sentence": "a"}],
        "segment 0, field 'segment'",
        "after its start",
    ),
    ("youcook2", "annotations", [{"segment": [5], "sentence": "a"}], "segment 0, field 'segment'", "a list of 2"),
    ("youcook2", "annotations", [{"segment": [1, 2]}], "segment 0, field 'sentence'", "missing"),
    ("youcook2", "annotations", [3], "video 'abc', segment 0", "expected named fields, found 3"),
    ("didemo", "video", ..., "sentence 0, field 'video'", "missing"),
    ("didemo", "description", " ", "sentence 0, field 'description'", "not empty"),
    ("didemo", "times", [], "sentence 0, field 'times'", "no annotator"),
    ("didemo", "times", [[2, 6]], "sentence 0, field 'times'", "chunks from 0 to 5"),
    ("didemo", "times", [[3, 1]], "sentence 0, field 'times'", "ends before it starts"),
    ("didemo", "times", [[0.5, 1]], "sentence 0, field 'times'", "chunks from 0 to 5"),
    ("didemo", "num_segments", 60, "sentence 0, field 'num_segments'", "1 to 6"),
    ("didemo", "annotation_id", 2, "sentence 1, field 'annotation_id'", "2 is there twice"),
    ("didemo", "annotation_id", [2], "sentence 0, field 'annotation_id'", "expected a number"),
    ("coin", "annotation", ..., "video 'tyre1', field 'annotation'", "missing"),
    ("coin", "annotation", [], "video 'tyre1', field 'annotation'", "no segments"),
    ("coin", "class", 3, "video 'tyre1', field 'class'", "expected a text"),
    ("coin", "subset", None, "video 'tyre1', field 'subset'", "missing"),
    ("coin", "duration", 10, "video 'tyre1', segment 1, field 'segment'", "the video ends at 10"),
    ("coin", "annotation", [{"id": "x", "label": "a", "segment": [1, 2]}], "segment 0, field 'id'", "number of a step"),
    (
        "coin",
        "annotation",
        [{"id": True, "label": "a", "segment": [1, 2]}],
        "segment 0, field 'id'",
        "number of a step",
    ),
    ("activitynet", "duration", ..., "video 'v_one', field 'duration'", "missing"),
    ("activitynet", "sentences", ["one"], "video 'v_one', field 'sentences'", "a list of 2"),
    ("activitynet", "timestamps", [[0, 1], [9, 3]], "video 'v_one', sentence 1, field 'timestamps'", "after its start"),
    ("activitynet", "timestamps", [[0, 1], [30, 31]], "video 'v_one', sentence 1", "the video ends at 20.4"),
    ("activitynet", "timestamps", [[0, 1], [-1, 3]], "video 'v_one', sentence 1", "found -1"),
    ("activitynet", "sentences", ["one", "\ud800"], "video 'v_one', sentence 1", "not Unicode"),
    ("activitynet", "timestamps", [[0, 1], [0, 10**400]], "video 'v_one', sentence 1", "number of seconds"),
]


@pytest.mark.parametrize(("name", "key", "value", "record", "words"), BAD_RECORDS)
def test_a_bad_record_is_named_or_left_out_and_counted(tmp_path, capsys, name, key, value, record, words):
    corpus = written(name, tmp_path)
    file = tmp_path / "official" / MAIN_FILE[name]
    change_record(name, file, key, value)
    assert run(name, corpus, tmp_path) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith(f"tempclr prepare: error: {file}, ")
    assert record in told[0] and words in told[0], told[0]
    assert not (tmp_path / "rows").exists()
    assert run(name, corpus, tmp_path, "--skip_bad_rows") == 0
    report = json.loads((tmp_path / "rows" / "report.json").read_text())
    assert any(record in reason and words in reason for reason in report["reasons"]), report["reasons"]
    assert f"left out: {report['reasons'][0]}" in capsys.readouterr().err


# Lines of the annotations of one CrossTask video, the place named and the words of the fault.
BAD_STEPS = [
    ("1,2", "row 0", "expected the cells step, start, end, found 2 cells"),
    ("1,2,3,4", "row 0", "found 4 cells"),
    ("1,2,3\n4,1,2", "row 1, field 'step'", "a step from 1 to 3, found '4'"),
    ("0,1,2", "row 0, field 'step'", "a step from 1 to 3"),
    ("1.5,1,2", "row 0, field 'step'", "a step from 1 to 3"),
    ("nan,1,2", "row 0, field 'step'", "a step from 1 to 3"),
    ("one,1,2", "row 0, field 'step'", "expected a number, found 'one'"),
    ("1,later,2", "row 0, field 'start'", "expected a number, found 'later'"),
    ("1,inf,2", "row 0, field 'start'", "number of seconds"),
    ("1,3,3", "row 0, field 'start'", "must end after its start"),
    ("1,20,25", "row 0", "begins at 20.0 s, but the features end at 20.0 s"),
    ("", "video 't1'", "holds no segments"),
    ('1,2,"3', "", "not CSV"),
]


@pytest.mark.parametrize(("text", "record", "words"), BAD_STEPS)
def test_a_bad_line_of_crosstask_is_named_or_left_out_and_counted(tmp_path, capsys, text, record, words):
    corpus = written("crosstask", tmp_path)
    file = tmp_path / "official" / MAIN_FILE["crosstask"]
    file.write_text(text)
    assert run("crosstask", corpus, tmp_path) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert str(file) in told and record in told and words in told, told
    assert run("crosstask", corpus, tmp_path, "--skip_bad_rows") == 0
    reasons = json.loads((tmp_path / "rows" / "report.json").read_text())["reasons"]
    assert any(record in reason and words in reason for reason in reasons)


CROSSTASK_FILES = [
    ("videos.csv", "11,t0,u\n99,t1,u\n", "row 1, field 'task': no task '99'"),
    ("videos.csv", "11,t0,u\n11,t0,u\n", "row 1, field 'video_id': the video 't0' of task 11 is listed twice"),
    ("videos.csv", "11,../t0,u\n", "row 0, field 'video_id': '../t0' cannot name a file"),
    ("videos.csv", "11\n", "row 0: expected the cells task, video_id, address, found 1 cells"),
    ("tasks_primary.txt", "11\nMake Tea\nu\n2\na,b,c\n", "task 0, field 'steps': has 3 steps but says '2'"),
    ("tasks_primary.txt", "11\nMake Tea\n3\na,b,c\n", "task 0: expected 5 lines"),
    ("tasks_primary.txt", "11\nT\nu\n1\na\n\n11\nT\nu\n1\na\n", "task 1, field 'number': task 11 is there twice"),
    ("tasks_primary.txt", "", "tasks_primary.txt: holds no tasks"),
    ("tasks_primary.txt", "11\nT\nu\n2\na,\n", "task 0, field 'steps': expected a text"),
]


@pytest.mark.parametrize(("file", "text", "words"), CROSSTASK_FILES)
def test_the_lists_of_crosstask_are_checked(tmp_path, capsys, file, text, words):
    corpus = written("crosstask", tmp_path)
    (tmp_path / "official" / file).write_text(text)
    assert run("crosstask", corpus, tmp_path) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and f"{tmp_path / 'official' / file}" in told[0] and words in told[0], told


BAD_IDS = ("../../etc/passwd", "/etc/passwd", "a/b", "a\\b", ".hidden", "", "  ", "x\x00y", "x\ny", "v" * 300, "\ud800")


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("video_id", BAD_IDS)
def test_an_id_never_becomes_a_path(tmp_path, capsys, name, video_id):
    corpus = written(name, tmp_path)
    if name == "crosstask":
        if video_id in ("", "  ", "x\ny", "\ud800"):  # not to be had in a CSV cell
            pytest.skip("a text file cannot say this")
        file = tmp_path / "official" / "videos.csv"
        file.write_text(f"11,{video_id},u\n" + file.read_text())
    else:
        file = tmp_path / "official" / MAIN_FILE[name]

        def rename(found):
            if name == "didemo":
                found[0]["video"] = video_id
            else:
                entries = entries_of(name, found)
                entries[video_id] = entries.pop(next(iter(entries)))

        change_json(file, rename)
    assert run(name, corpus, tmp_path) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and str(file) in told[0], told
    assert "cannot name a file" in told[0] or "not empty" in told[0], told
    assert run(name, corpus, tmp_path, "--skip_bad_rows") == 0
    assert json.loads((tmp_path / "rows" / "report.json").read_text())["reasons"]


@pytest.mark.parametrize("name", JSON_CORPORA)
def test_an_id_that_comes_twice_is_named(tmp_path, capsys, name):
    corpus = written(name, tmp_path)
    file = tmp_path / "official" / MAIN_FILE[name]
    if name == "didemo":
        change_json(file, lambda found: [*found, found[0]])
    else:
        text = json.dumps(entries_of(name, json.loads(file.read_text())))
        twice = text[:-1] + ", " + text[1:]
        file.write_text(f'{{"database": {twice}}}' if name in ("youcook2", "coin") else twice)
    assert run(name, corpus, tmp_path) == 2
    assert "is there twice" in capsys.readouterr().err
    assert run(name, corpus, tmp_path, "--skip_bad_rows") == 0
    reasons = json.loads((tmp_path / "rows" / "report.json").read_text())["reasons"]
    assert reasons and all("is there twice" in reason for reason in reasons)


BROKEN_FILES = [b"", b"\xff\xfe\x00\x80", b"null", b"[", b"[]", b"{}", b"7", b'{"a": ', b'"text"', b"[" * 100_000]


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("content", BROKEN_FILES)
def test_a_broken_file_is_named(tmp_path, capsys, name, content):
    corpus = written(name, tmp_path)
    file = tmp_path / "official" / MAIN_FILE[name]
    file.write_bytes(content)
    assert run(name, corpus, tmp_path) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and str(file) in told[0], told
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("name", CORPORA)
def test_sentences_beyond_the_features_are_named_or_left_out(tmp_path, capsys, name):
    corpus = written(name, tmp_path)
    short = next(iter(corpus.seconds)) if name != "didemo" else "12@N01_3_ab.mov"
    np.save(tmp_path / "features" / f"{short}.npy", world.features_of(0, 3))
    assert run(name, corpus, tmp_path) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "but the features end at 3.0 s" in told and str(tmp_path / "official") in told
    assert run(name, corpus, tmp_path, "--skip_bad_rows") == 0
    reasons = json.loads((tmp_path / "rows" / "report.json").read_text())["reasons"]
    assert any("but the features end at 3.0 s" in reason for reason in reasons)


BAD_FEATURES = {
    "not finite": (np.full((31, 4), np.nan), "NaN or infinite value in feature 0"),
    "flat": (np.zeros(31), r"expected shape (T, D)"),
    "none": (np.zeros((0, 4)), r"expected shape (T, D)"),
    "wide": (np.zeros((31, 5)), "features of 5 numbers, where the others have 4"),
    "objects": (np.array([{}]), "cannot be read"),
}


@pytest.mark.parametrize("fault", BAD_FEATURES)
def test_bad_features_are_named_or_left_out(tmp_path, capsys, fault):
    corpus = written("youcook2", tmp_path)
    array, words = BAD_FEATURES[fault]
    np.save(tmp_path / "features" / "ab_c.npy", array, allow_pickle=True)
    assert run("youcook2", corpus, tmp_path) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "video 'ab_c'" in told and words in told
    assert run("youcook2", corpus, tmp_path, "--skip_bad_rows") == 0
    assert load_rows(tmp_path / "rows", split="train")["video_id"] == ["abc"]


def test_a_pickle_may_name_no_function(tmp_path):
    """See Note [A pickle is a program]."""
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(shutil.rmtree))
    with pytest.raises(InputError, match=r"evil.pkl: a pickle that asks for shutil.rmtree"):
        read_pickle(tmp_path / "evil.pkl")
    (tmp_path / "array.pkl").write_bytes(pickle.dumps(np.zeros(3)))
    with pytest.raises(InputError, match=r"array.pkl: a pickle that asks for numpy"):
        read_pickle(tmp_path / "array.pkl")
    for content in (b"", b"\x80\x04", b"not a pickle", pickle.dumps({"a": [1]})[:-3]):
        (tmp_path / "cut.pkl").write_bytes(content)
        with pytest.raises(InputError, match=r"cut.pkl: not a pickle of plain values"):
            read_pickle(tmp_path / "cut.pkl")
    plain = {"a": [1, 2.5, None, True], "b": ("x", {"y"})}
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(plain))
    assert read_pickle(tmp_path / "plain.pkl") == plain
    with pytest.raises(InputError, match=r"none.pkl: cannot be read"):
        read_pickle(tmp_path / "none.pkl")


def test_a_pickle_of_few_bytes_may_mean_a_huge_value(tmp_path):
    """Each list holds the one before twice: it is small to store, and far too large to be written into a message."""
    bomb = []
    for _ in range(200):
        bomb = [bomb, bomb]
    (tmp_path / "raw_caption.pkl").write_bytes(
        pickle.dumps({"a": bomb, "b": {"start": 10**5000, "end": [], "text": []}})
    )
    findings = Findings(skip_bad_rows=True)
    assert not list(readers.read_howto100m([tmp_path / "raw_caption.pkl"]).scan(findings))
    assert len(findings.reasons) == 2 and all(len(reason) < 400 for reason in findings.reasons)


def test_csv_cells_keep_their_quotes(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n"x, y","say ""hi"""\n\n')
    assert read_csv(tmp_path / "a.csv") == [{"a": "x, y", "b": 'say "hi"'}]


def test_two_runs_on_one_output_do_not_meet(tmp_path, capsys):
    corpus = written("youcook2", tmp_path)
    with FileLock(tmp_path / ".rows.preparing.lock"):
        assert run("youcook2", corpus, tmp_path) == 2
    told = capsys.readouterr().err
    assert "rows: is being prepared by another process" in told and len(told.splitlines()) == 1
    assert run("youcook2", corpus, tmp_path) == 0
    assert not list(tmp_path.glob(".rows*"))
