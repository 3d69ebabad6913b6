"""UCF101, HMDB51, Kinetics and Diving48: small files in the official forms to rows, and every fault by its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tempclr.cli import main
from tempclr.data.action_videos import label_names, read_action_videos
from tempclr.data.readers import (
    prepare_actions,
    read_diving48,
    read_hmdb51,
    read_kinetics,
    read_ucf101,
)
from tempclr.data.readers.records import Findings
from tempclr.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    return file


def ucf101(folder: Path) -> None:
    lists = folder / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n\r\n")
    train = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nHandstandPushups/v_HandStandPushups_g01_c02.avi 2\r\n"
    write(lists / "trainlist01.txt", train + "ApplyEyeMakeup/v_ApplyEyeMakeup_g09_c01.avi 1\r\n")
    write(lists / "testlist01.txt", "HandStandPushups/v_HandStandPushups_g07_c01.avi\r\n")
    touch(
        folder / "videos",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
        "HandstandPushups/v_HandStandPushups_g01_c02.avi",
        "HandstandPushups/v_HandStandPushups_g07_c01.avi",
    )


def hmdb51(folder: Path) -> None:
    odd = "#20_Rhythm_(clap)!_u_nm_np1_fr_goo_0"
    write(folder / "lists/clap_test_split1.txt", f"{odd}.avi 1 \nother&one;_0.avi 2 \nunused_0.avi 0 \n")
    write(folder / "lists/wave_test_split1.txt", "hello_wave_0.avi 2 \n")
    write(folder / "lists/wave_test_split2.txt", "hello_wave_0.avi 1 \n")
    touch(folder / "videos", f"clap/{odd}.avi", "clap/other&one;_0.avi", "wave/hello_wave_0.avi")


def kinetics(folder: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split,is_cc\n"
    write(
        folder / "lists/train.csv", header + 'air drumming,-aaa,1,11,train,0\n"surfing, crowd",b_b,12.0,22.0,train,0\n'
    )
    write(folder / "lists/val.csv", header + "air drumming,ccc,0,10,val,0\n")
    write(folder / "lists/test.csv", "youtube_id,time_start,time_end,split\nddd,3,13,test\n")
    touch(folder / "videos", "air_drumming/-aaa_000001_000011.mp4", "air drumming/ccc.mp4", "ddd_000003_000013.mp4")


def diving48(folder: Path) -> None:
    def entries(*pairs):
        return json.dumps([{"vid_name": name, "label": n, "start_frame": 0, "end_frame": 99} for name, n in pairs])

    write(folder / "lists/Diving48_V2_train.json", entries(("a_00001", 0), ("a_00002", 47)))
    write(folder / "lists/Diving48_V2_test.json", entries(("a_00003", 0)))
    write(folder / "lists/Diving48_train.json", entries(("a_00001", 5)))
    words = [["Back", f"{number}som", "NoTwis", "PIKE"] for number in range(48)]
    write(folder / "lists/Diving48_vocab.json", json.dumps(words))
    touch(folder / "videos", "a_00001.mp4", "a_00002.mp4", "a_00003.mp4")


def listed(reading) -> list[tuple[str, str, str | None]]:
    return [(video.video_id, video.split, video.label) for video in reading.scan(Findings(skip_bad_rows=False))]


def test_ucf101(tmp_path):
    """The class is the folder's, in the case of classInd.txt, whatever the file's name says."""
    ucf101(tmp_path)
    assert listed(read_ucf101([tmp_path / "ucfTrainTestlist"])) == [
        ("v_ApplyEyeMakeup_g08_c01", "train", "ApplyEyeMakeup"),
        ("v_HandStandPushups_g01_c02", "train", "HandstandPushups"),
        ("v_ApplyEyeMakeup_g09_c01", "train", "ApplyEyeMakeup"),
        ("v_HandStandPushups_g07_c01", "test", "HandstandPushups"),
    ]
    only = read_ucf101([tmp_path / "ucfTrainTestlist/trainlist01.txt"])
    assert {label for _, _, label in listed(only)} == {"ApplyEyeMakeup", "HandstandPushups"}


def test_hmdb51(tmp_path):
    hmdb51(tmp_path)
    reading = read_hmdb51([tmp_path / "lists"])
    findings = Findings(skip_bad_rows=False)
    assert [(video.video_id, video.split, video.label) for video in reading.scan(findings)] == [
        ("#20_Rhythm_(clap)!_u_nm_np1_fr_goo_0", "train", "clap"),
        ("other&one;_0", "test", "clap"),
        ("hello_wave_0", "test", "wave"),
    ]
    assert findings.notes == {"videos in neither training nor test": 1}
    assert listed(read_hmdb51([tmp_path / "lists"], fold=2)) == [("hello_wave_0", "train", "wave")]


def test_kinetics(tmp_path):
    kinetics(tmp_path)
    assert listed(read_kinetics([tmp_path / "lists"])) == [
        ("-aaa_000001_000011", "train", "air drumming"),
        ("b_b_000012_000022", "train", "surfing, crowd"),
        ("ccc_000000_000010", "validation", "air drumming"),
        ("ddd_000003_000013", "test", None),
    ]


def test_diving48(tmp_path):
    diving48(tmp_path)
    assert listed(read_diving48([tmp_path / "lists"])) == [
        ("a_00001", "train", "Back 0som NoTwis PIKE"),
        ("a_00002", "train", "Back 47som NoTwis PIKE"),
        ("a_00003", "test", "Back 0som NoTwis PIKE"),
    ]
    numbers = read_diving48([tmp_path / "lists/Diving48_V2_train.json"])
    assert [label for _, _, label in listed(numbers)] == ["00", "47"]
    assert listed(read_diving48([tmp_path / "lists/Diving48_train.json"], version="v1")) == [("a_00001", "train", "05")]


@pytest.mark.parametrize(
    ("corpus", "make", "annotations", "expected", "missing"),
    [
        ("ucf101", ucf101, "ucfTrainTestlist", {"train": 2, "test": 1}, "v_ApplyEyeMakeup_g09_c01"),
        ("hmdb51", hmdb51, "lists", {"train": 1, "test": 2}, None),
        ("kinetics", kinetics, "lists", {"train": 1, "validation": 1, "test": 1}, "b_b_000012_000022"),
        ("diving48", diving48, "lists", {"train": 2, "test": 1}, None),
    ],
)
def test_prepare_writes_rows_that_can_be_read(tmp_path, capsys, corpus, make, annotations, expected, missing):
    make(tmp_path)
    words = ["prepare", corpus, "--annotations", str(tmp_path / annotations), "--videos", str(tmp_path / "videos")]
    assert main([*words, "--output", str(tmp_path / "rows")]) == 0
    out = capsys.readouterr()
    for split, count in expected.items():
        videos = read_action_videos(tmp_path / "rows", split=split)
        assert len(videos) == count and all(video.video.is_file() for video in videos)
        assert f"{split}: {count} of " in out.out
    assert (f"without features or file: {missing}" in out.err) == (missing is not None)
    report = json.loads((tmp_path / "rows/report.json").read_text())
    assert report["corpus"] == corpus and sum(map(len, report["without_media"].values())) == (missing is not None)
    if corpus != "kinetics":
        assert "listed for train, where the corpus has" in out.err  # these are not the whole lists
        assert label_names(read_action_videos(tmp_path / "rows", split="train")) == sorted(
            {label for label in report["labels"]}
            & {v.label for v in read_action_videos(tmp_path / "rows", split="train")}
        )
    assert main([*words, "--output", str(tmp_path / "rows"), "--splits", "test"]) == 0
    assert not (tmp_path / "rows/train.jsonl").exists() and not list(tmp_path.glob(".rows*"))


def fails(function, *paths, message: str, **options) -> None:
    with pytest.raises(InputError, match=message):
        listed(function([str(path) for path in paths], **options))


def test_faults_of_ucf101_are_named(tmp_path):
    ucf101(tmp_path)
    lists = tmp_path / "ucfTrainTestlist"
    fails(read_ucf101, lists, fold=4, message="fold must be 1, 2 or 3")
    fails(read_ucf101, lists / "classInd.txt", message=r"expected trainlist01\.txt or testlist01\.txt")
    fails(read_ucf101, lists / "trainlist01.txt", fold=2, message="is not a list of fold 2")
    fails(read_ucf101, tmp_path, message="holds none of the official files")
    for line, message in (
        ("v_a.avi 1", r"trainlist01\.txt, entry 1: expected Class/video\.avi"),
        ("Juggling/v_a.avi 1", "entry 1, field 'label': expected one of"),
        ("ApplyEyeMakeup/v_a.avi 2", "class 2 is not ApplyEyeMakeup"),
    ):
        write(lists / "trainlist01.txt", line)
        fails(read_ucf101, lists, message=message)
    write(lists / "classInd.txt", "one ApplyEyeMakeup")
    fails(read_ucf101, lists, message=r"classInd\.txt, entry 1: expected a number and a class")


def test_faults_of_hmdb51_are_named(tmp_path):
    hmdb51(tmp_path)
    fails(read_hmdb51, tmp_path / "lists", fold=3, message="no list of fold 3")
    fails(read_hmdb51, tmp_path / "lists", fold=7, message="fold must be")
    fails(read_hmdb51, tmp_path / "none", message="no such file or folder")
    fails(read_hmdb51, write(tmp_path / "a.txt", ""), message="is not a list of HMDB51")
    write(tmp_path / "lists/wave_test_split1.txt", "a.avi 3 \n")
    fails(read_hmdb51, tmp_path / "lists", message="entry 1: expected a video and 0, 1 or 2")


def test_faults_of_kinetics_are_named(tmp_path):
    for row, message in (
        ("a,,1,2,train", r"a\.csv, row 1, field 'youtube_id'"),
        ("a,x,9,2,train", "must end after its start"),
        ("a,x,one,2,train", "field 'time_start': expected a number"),
        ("a,x,1,2,holdout", "field 'split': expected one of"),
        (",x,1,2,train", "field 'label'"),
        ("a,../x,1,2,train", "cannot name a file"),
    ):
        write(tmp_path / "a.csv", f"label,youtube_id,time_start,time_end,split\n{row}\n")
        fails(read_kinetics, tmp_path / "a.csv", message=message)


def test_faults_of_diving48_are_named(tmp_path):
    diving48(tmp_path)
    lists = tmp_path / "lists"
    fails(read_diving48, lists, version="v3", message="version must be v1 or v2")
    fails(read_diving48, lists / "Diving48_train.json", message="is not a list of v2")
    fails(read_diving48, lists / "Diving48_vocab.json", message="no list of v2")
    for text, message in (
        ("{}", "expected a JSON list"),
        ('[{"vid_name": "a", "label": 48}]', "entry 0, field 'label': expected a class from 0 to 47, found 48"),
        ('[{"vid_name": "a", "label": true}]', "found True"),
        ('[{"label": 1}]', "field 'vid_name': missing"),
        ("[1]", "expected named fields"),
    ):
        write(lists / "Diving48_V2_train.json", text)
        fails(read_diving48, lists, message=message)
    diving48(tmp_path)
    write(lists / "Diving48_vocab.json", "[]")
    fails(read_diving48, lists, message=r"Diving48_vocab\.json.*expected a list of 48")


def prepare(tmp_path: Path, **options):
    arguments = {"corpus": "hmdb51", "output_dir": tmp_path / "rows", "videos": tmp_path / "videos", **options}
    return prepare_actions(read_hmdb51([tmp_path / "lists"]), **arguments)


def test_without_videos_it_says_what_is_needed(tmp_path):
    hmdb51(tmp_path)
    with pytest.raises(InputError, match=r"the lists are good \(train 1 videos, test 2 videos\); rows need the videos"):
        prepare(tmp_path, videos=None)
    touch(tmp_path / "none", "readme.txt")
    with pytest.raises(InputError, match="has none of the listed videos"):
        prepare(tmp_path, videos=tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):
        prepare(tmp_path, videos=tmp_path / "nowhere")
    with pytest.raises(InputError, match="no split 'val'; they have test, train"):
        prepare(tmp_path, splits=["val"])
    assert not (tmp_path / "rows").exists()


def test_other_things_in_the_output_stay(tmp_path):
    hmdb51(tmp_path)
    touch(tmp_path / "rows", "thesis.tex")
    with pytest.raises(InputError, match="holds other things"):
        prepare(tmp_path)
    assert (tmp_path / "rows/thesis.tex").exists()
    prepare(tmp_path, output_dir=tmp_path / "new")
    with pytest.raises(InputError, match="holds other things"):
        prepare(tmp_path, output_dir=tmp_path / "new", corpus="ucf101")


def test_bad_records_are_raised_or_listed(tmp_path):
    hmdb51(tmp_path)
    write(tmp_path / "lists/wave_test_split1.txt", "hello_wave_0.avi 2 \nhello_wave_0.avi 2 \nwhat\n")
    with pytest.raises(InputError, match="entry 2, field 'video_id': hello_wave_0 is listed a second time"):
        prepare(tmp_path)
    report = prepare(tmp_path, skip_bad_rows=True)
    assert [reason.split(", ")[1].split(":")[0] for reason in report.reasons] == ["entry 2", "entry 3"]
    assert report.splits["test"] == {"num_videos": 2, "num_labels": 2, "num_listed": 2}


def test_of_two_files_the_one_of_the_class_counts(tmp_path):
    hmdb51(tmp_path)
    touch(tmp_path / "videos", "clap/hello_wave_0.avi")
    prepare(tmp_path)
    (found,) = [v for v in read_action_videos(tmp_path / "rows", split="test") if v.label == "wave"]
    assert found.video.parent.name == "wave"
    touch(tmp_path / "videos", "copies/wave/hello_wave_0.avi")
    with pytest.raises(InputError, match="2 files bear this id"):
        prepare(tmp_path)
