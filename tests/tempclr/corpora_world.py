"""Small official files of each corpus, in the formats of the releases, and features to go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FEATURE_SIZE = 4


class Corpus(NamedTuple):
    """What was written: the annotation files or folder, the reader's options, and the seconds of each video."""

    annotations: list[Path]
    seconds: dict[str, int]
    options: dict[str, Any]


def write_features(folder: Path, seconds: dict[str, int], *, dtype: str = "float32") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (video_id, length) in enumerate(seconds.items()):
        np.save(folder / f"{video_id}.npy", features_of(number, length).astype(dtype))
    return folder


def features_of(number: int, length: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(length, FEATURE_SIZE)).astype(np.float32)


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def youcook2(folder: Path) -> Corpus:
    def video(subset: str, *segments: list[int]) -> dict[str, Any]:
        entries = [{"segment": span, "id": k, "sentence": f"step {k}  of {subset}"} for k, span in enumerate(segments)]
        return {"duration": 30.5, "subset": subset, "recipe_type": "113", "annotations": entries, "video_url": "u"}

    database = {
        "abc": video("training", [2, 5], [4, 9], [20, 30]),
        "ab_c": video("training", [0, 3]),
        "abcd": video("validation", [1, 7], [1, 7], [9, 12]),
        "x-1_2": video("validation", [3, 4]),
    }
    file = write_json(folder / "youcookii_annotations_trainval.json", {"database": database})
    return Corpus([file], dict.fromkeys(database, 31), {})


def activitynet(folder: Path) -> Corpus:
    def video(*spans: list[float]) -> dict[str, Any]:
        return {"duration": 20.4, "timestamps": spans, "sentences": [f" Someone does {k}." for k in range(len(spans))]}

    train = {"v_one": video([0.0, 4.4], [3, 9.25]), "v_two": video([5, 20.4])}
    files = [write_json(folder / "train.json", train)]
    files.append(write_json(folder / "val_1.json", {"v_three": video([0.5, 3.5], [4, 5])}))
    files.append(write_json(folder / "val_2.json", {"v_three": video([6, 12.5])}))
    return Corpus(files, {"v_one": 21, "v_two": 21, "v_three": 21}, {})


def coin(folder: Path) -> Corpus:
    def video(subset: str, task: str, *steps: tuple[str, str, list[float]]) -> dict[str, Any]:
        annotation = [{"id": step, "label": label, "segment": span} for step, label, span in steps]
        entry = {"duration": 40.25, "class": task, "video_url": "u", "start": 1.0, "end": 40.0, "recipe_type": 13}
        return {**entry, "annotation": annotation, "subset": subset}

    jack, tighten = ("260", "jack up the car"), ("263", "tighten the screws")
    database = {
        "tyre1": video("training", "ChangeCarTire", (*jack, [3.0, 9.0]), (*tighten, [12.0, 20.5])),
        "tyre2": video("testing", "ChangeCarTire", ("259", "unscrew the screw", [1.0, 4.0]), (*tighten, [5.0, 8.0])),
        "disk": video("training", "ReplaceDrive", ("212", "take it out", [2.0, 6.0])),
    }
    return Corpus([write_json(folder / "COIN.json", {"database": database})], dict.fromkeys(database, 41), {})


def didemo(folder: Path) -> Corpus:
    def entry(number: int, video: str, *times: list[int], num_segments: int = 6) -> dict[str, Any]:
        text = {"description": f"moment {number}.", "annotation_id": number, "dl_link": "u"}
        return {**text, "video": video, "times": times, "num_segments": num_segments}

    one, other = "12@N01_3_ab.mov", "12@N01_3_ab.mp4"
    train = [entry(1, one, [3, 4], [3, 4], [0, 0], [3, 4]), entry(2, one, [0, 0], [1, 1], [1, 2], [1, 1])]
    test = [entry(3, "noext.", [5, 5], [5, 5], [4, 5]), entry(4, other, [2, 2], [0, 1], [0, 1], num_segments=5)]
    files = [write_json(folder / "train_data.json", train), write_json(folder / "test_data.json", test)]
    return Corpus(files, {one: 30, other: 24, "noext.": 28}, {})


def crosstask(folder: Path) -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    block = "{}\n{}\nhttp://www.example.org\n{}\n{}\n\n"
    primary = block.format("11", "Make Tea", 3, "boil water,add tea,pour")
    primary += block.format("22", "Make Toast", 2, "cut bread,toast bread")
    (folder / "tasks_primary.txt").write_text(primary)
    (folder / "tasks_related.txt").write_text(block.format("33", "Make Cocoa", 2, "heat milk,stir"))
    pairs = [(task, f"{name}{number}") for number in range(6) for task, name in (("11", "t"), ("22", "b"), ("33", "c"))]
    (folder / "videos.csv").write_text("".join(f"{task},{video},http://u\n" for task, video in pairs))
    (folder / "videos_val.csv").write_text("11,t0,http://u\n22,b0,http://u\n")
    (folder / "annotations").mkdir()
    for task, video in pairs:
        if task != "33":
            lines = "2,8.5,12.25\n1,1.5,6\n2,14.0,19.5\n"
            (folder / "annotations" / f"{task}_{video}.csv").write_text(lines)
    return Corpus([folder], {video: 20 for task, video in pairs if task != "33"}, {"num_train_videos": 2})


def howto100m(folder: Path) -> Corpus:
    def captions(*entries: tuple[float, float, str | None]) -> dict[str, list[Any]]:
        starts, ends, texts = zip(*entries, strict=True)
        return {"start": list(starts), "end": list(ends), "text": list(texts)}

    raw = {
        "h-one": captions((0.0, 3.5, "take the pan"), (3.0, 5.5, None), (4.0, 8.0, "the pan\nand oil"), (9, 9, "um")),
        "h_two": captions((1.25, 2.5, "hello"), (2.5, 7.75, "hello again")),
        "hval": captions((0.0, 4.0, "mix it"), (4.0, 9.0, " ")),
    }
    file = write_json(folder / "raw_caption.json", raw)
    (folder / "how2_train.lst").write_text("h-one\nh_two\nnever\n")
    (folder / "how2_val.lst").write_text("hval\n")
    lists = [str(folder / name) for name in ("how2_train.lst", "how2_val.lst")]
    return Corpus([file], {"h-one": 12, "h_two": 12, "hval": 12}, {"lists": lists})


CORPORA = {
    "howto100m": howto100m,
    "youcook2": youcook2,
    "crosstask": crosstask,
    "didemo": didemo,
    "coin": coin,
    "activitynet": activitynet,
}
