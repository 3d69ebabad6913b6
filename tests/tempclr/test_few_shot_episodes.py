"""Sequences, the frames that stand for a video, and the episodes drawn from them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tempclr.data.episodes import EpisodeDataset, EpisodeSampler, FrameDataset, collate_episodes, collate_frames
from tempclr.data.few_shot_frames import read_sampled_frames, sample_frames
from tempclr.data.sequences import SequenceSet, load_sequences, save_sequences
from tempclr.data.video import write_video
from tempclr.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "data" / "few_shot_sampling.json").read_text(encoding="utf-8"))


def numbered(counts: dict[str, int], *, length=12) -> SequenceSet:
    """Sequences whose every value is their own position in the set, so that frames tell where they are from."""
    labels = [name for name, count in counts.items() for _ in range(count)]
    return SequenceSet([np.full((length, 2), index, dtype=np.float32) for index in range(len(labels))], labels)


@pytest.mark.parametrize("case", GOLDEN["trx"])
def test_frames_by_the_rule_of_trx(case: str):
    """Published: ``test_n20`` or ``train_n20_seed0``."""
    kind, count, *seed = case.split("_")
    rng = random.Random(int(seed[0].removeprefix("seed"))) if kind == "train" else None
    assert sample_frames(int(count[1:]), sampling="trx", rng=rng) == GOLDEN["trx"][case]


@pytest.mark.parametrize("case", [case for case in GOLDEN["segment_centre"] if case != "n8"])
def test_frames_in_the_middle_of_segments(case: str):
    assert sample_frames(int(case[1:])) == GOLDEN["segment_centre"][case]


def test_as_many_frames_as_segments_are_all_taken():
    """Note [Frames in the middle of segments]: the published rule would take frame 2 twice and never frame 1."""
    assert GOLDEN["segment_centre"]["n8"] != list(range(8))
    assert sample_frames(8) == sample_frames(8, rng=random.Random(0)) == list(range(8))


@pytest.mark.parametrize("num_frames", [1, 3, 7, 9, 16, 61])
def test_random_frames_come_one_from_each_segment(num_frames: int):
    rng = random.Random(0)
    drawn = [sample_frames(num_frames, rng=rng) for _ in range(200)]
    for frames in drawn:
        assert frames == sorted(frames) and frames[0] >= 0 and frames[-1] < num_frames
    if num_frames == 16:
        assert [set(seen) for seen in zip(*drawn, strict=True)] == [{2 * i, 2 * i + 1} for i in range(8)]


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="sampling must be one of tsn, trx"):
        sample_frames(9, sampling="dense")
    with pytest.raises(ValueError, match="at least one frame and one sample, got 0 and 8"):
        sample_frames(0)


def test_frames_of_a_folder_and_of_a_file(tmp_path):
    """Each frame's grey value is its number; the file goes through a lossy codec."""
    frames = np.repeat(np.arange(20, dtype=np.uint8) * 10, 32 * 32 * 3).reshape(20, 32, 32, 3)
    (tmp_path / "images").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "images" / f"{number:08d}.png")
    write_video(tmp_path / "video.mp4", frames, frames_per_second=10)
    expected = [10 * index for index in sample_frames(20)]
    for source in ("images", "video.mp4"):
        read = read_sampled_frames(tmp_path / source)
        assert [frame.shape for frame in read] == [(32, 32, 3)] * 8
        assert [frame.mean() for frame in read] == pytest.approx(expected, abs=3)


def test_faults_of_frame_sources_name_the_place(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        read_sampled_frames(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"a\.jpg: cannot be read as an image"):
        read_sampled_frames(tmp_path)
    with pytest.raises(InputError, match=r"nowhere\.mp4"):
        read_sampled_frames(tmp_path / "nowhere.mp4")


def test_an_episode_holds_distinct_videos_of_its_classes():
    sequences = numbered({"a": 8, "b": 9, "c": 10, "d": 11})
    sampler = EpisodeSampler(sequences.labels, way=3, shot=2, num_queries=5, seed=3)
    for number in range(50):
        episode = sampler.draw(number)
        videos = [*episode.support.ravel(), *episode.query]
        assert len(set(videos)) == 3 * (2 + 5)
        assert len(set(episode.classes)) == 3
        for place, name in enumerate(episode.classes):
            assert {sequences.labels[index] for index in episode.support[place]} == {name}
            assert {sequences.labels[index] for index in episode.query[episode.query_labels == place]} == {name}


def test_an_episode_depends_on_seed_and_number_alone():
    labels = numbered({"a": 9, "b": 9, "c": 9}).labels
    sampler, again, other = (EpisodeSampler(labels, way=2, num_queries=3, seed=seed) for seed in (1, 1, 2))
    backwards = [again.draw(number) for number in (4, 3, 2, 1, 0)][::-1]
    for number, episode in enumerate(backwards):
        assert np.array_equal(sampler.draw(number).query, episode.query)
    assert any(not np.array_equal(sampler.draw(n).query, other.draw(n).query) for n in range(5))


def test_classes_and_videos_are_drawn_evenly():
    sampler = EpisodeSampler(numbered(dict.fromkeys("abcdef", 6)).labels, way=2, shot=1, num_queries=1, seed=0)
    episodes = [sampler.draw(number) for number in range(3000)]
    counts = np.bincount(np.concatenate([episode.support.ravel() for episode in episodes]), minlength=36)
    expected = 3000 * 2 / 36
    assert abs(counts - expected).max() < 5 * expected**0.5


def test_a_class_with_few_videos_gives_the_queries_it_has():
    """Note [Classes with few videos]: the numbers of SSv2-OTAM's test20 and test12."""
    sampler = EpisodeSampler(numbered({"test20": 17, "test12": 18, "test0": 40, "test1": 5}).labels, way=3, shot=5)
    assert sampler.short_classes == {"test12": 13, "test20": 12}
    assert sampler.left_out_classes == {"test1": 5}
    episode = sampler.draw(0)
    counts = dict(zip(episode.classes, np.bincount(episode.query_labels), strict=True))
    assert counts == {"test20": 12, "test12": 13, "test0": 15}


def test_too_few_classes_are_told():
    with pytest.raises(InputError, match="3-way 2-shot episodes need 3 classes of at least 3 videos, there are 2"):
        EpisodeSampler(numbered({"a": 9, "b": 3, "c": 2}).labels, way=3, shot=2)
    with pytest.raises(InputError, match="field 'shot': must be at least 1, got 0"):
        EpisodeSampler(["a"], shot=0)


def test_training_episodes_change_with_the_epoch_and_come_back():
    sequences = numbered({"a": 9, "b": 9, "c": 9})
    settings = {"num_episodes": 4, "num_frames": 8, "way": 2, "shot": 1, "num_queries": 3}
    dataset = EpisodeDataset(sequences, **settings)
    assert len(dataset) == 4
    first = collate_episodes([dataset[0]])
    dataset.set_epoch(1)
    assert not torch.equal(collate_episodes([dataset[0]])["query_features"], first["query_features"])
    dataset.set_epoch(0)
    assert torch.equal(collate_episodes([dataset[0]])["query_features"], first["query_features"])

    fixed = EpisodeDataset(sequences, **settings, training=False)
    before = collate_episodes([fixed[2]])
    fixed.set_epoch(7)
    assert torch.equal(collate_episodes([fixed[2]])["query_features"], before["query_features"])
    with pytest.raises(InputError, match="num_episodes"):
        EpisodeDataset(sequences, **{**settings, "num_episodes": 0})


def test_a_batch_of_episodes_is_padded_in_frames_and_in_queries():
    lengths = [3 + index % 4 for index in range(14)]
    sequences = SequenceSet([np.full((n, 2), i) for i, n in enumerate(lengths)], ["few"] * 3 + ["many"] * 11)
    dataset = EpisodeDataset(sequences, num_episodes=2, way=2, shot=2, num_queries=4)
    items = [dataset[0], {**dataset[1], "query": dataset[1]["query"][:3], "query_labels": np.array([0, 0, 0])}]
    batch = collate_episodes(items)
    longest = max(len(sequence) for item in items for sequence in item["query"])
    assert batch["support_features"].shape == (2, 2, 2, 6, 2) and batch["query_features"].shape == (2, 5, longest, 2)
    assert batch["query_labels"][1].tolist() == [0, 0, 0, -100, -100]
    for item, features, of_length in zip(items, batch["support_features"], batch["support_lengths"], strict=True):
        for sequence, row, length in zip(item["support"], features.flatten(0, 1), of_length.flatten(), strict=True):
            assert length == len(sequence) and np.array_equal(row[:length], sequence) and not row[length:].any()


def test_frames_for_pretraining_are_sampled_anew_each_epoch():
    sequences = SequenceSet([np.arange(80).reshape(40, 2)], ["a"])
    dataset = FrameDataset(sequences, num_frames=8)
    first = dataset[0]
    dataset.set_epoch(1)
    assert first.shape == (8, 2) and not np.array_equal(dataset[0], first)
    tested = FrameDataset(sequences, num_frames=8, training=False)[0]
    assert np.array_equal(tested, sequences.sequences[0][sample_frames(40)])
    assert len(FrameDataset(sequences)[0]) == 40
    batch = collate_frames([first, first[:3]])
    assert batch["frame_features"].shape == (2, 8, 2) and batch["frame_mask"].sum(dim=1).tolist() == [8, 3]


def test_sequences_are_kept_in_one_file(tmp_path):
    base, novel = numbered({"a": 2, "b": 1}, length=3), numbered({"c": 2}, length=5)
    novel = SequenceSet(novel.sequences, novel.labels, ["x", "y"])
    save_sequences(tmp_path / "set.npz", {"train": base, "test": novel})
    found = load_sequences(tmp_path / "set.npz", split="test")
    assert (found.labels, found.names, found.lengths) == (["c", "c"], ["x", "y"], [5, 5])
    assert np.array_equal(found.sequences[1], novel.sequences[1])
    with pytest.raises(InputError, match="holds the splits test, train; say which"):
        load_sequences(tmp_path / "set.npz")
    with pytest.raises(InputError, match="has no split 'val', only test, train"):
        load_sequences(tmp_path / "set.npz", split="val")


def test_sequences_are_read_from_rows(tmp_path):
    np.save(tmp_path / "one.npy", np.ones((4, 2), dtype=np.float32))
    rows = [
        {"video_id": "v1", "label": "a", "features_path": "one.npy"},
        {"video_id": "v2", "label": "b", "features": [[1, 2], [3, 4]]},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = load_sequences(file)
    assert (found.names, found.classes, found.lengths) == (["v1", "v2"], ["a", "b"], [4, 2])

    for change, message in (
        ({"label": None}, "rows.jsonl, row 1, field 'label'"),
        ({"features": None}, "rows.jsonl, row 1, field 'features': missing"),
        ({"features": None, "features_path": "none.npy"}, "none.npy cannot be read"),
    ):
        file.write_text("\n".join(map(json.dumps, [rows[0], {**rows[1], **change}])), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load_sequences(file)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.zeros((2, 3, 1))}, "has no 'labels'"),
        ({"features": np.zeros((2, 3)), "labels": ["a", "b"]}, r"features are \(2, 3\), expected \(N, T, D\)"),
        ({"features": np.full((1, 3, 1), np.nan), "labels": ["a"]}, "sequence 0: NaN or infinite"),
        ({"features": np.zeros((2, 3, 1)), "labels": ["a"]}, r"every array needs one entry a sequence, found .*2.*1"),
    ],
)
def test_a_file_of_sequences_that_will_not_do(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_sequences(tmp_path / "set.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"broken\.npz: cannot be read as \.npz"):
        load_sequences(tmp_path / "broken.npz")


def test_a_set_checks_itself():
    one = np.zeros((2, 3))
    for arguments, message in (
        (([], []), "holds no sequences"),
        (([one, np.zeros((2, 4))], ["a", "b"]), "all sequences need one width, found 3 .*, 4"),
        (([one, one], ["a", "b"], ["x", "x"]), "'x' names two sequences"),
        (([np.zeros(3)], ["a"]), r"sequence 0: expected shape \(T, D\)"),
    ):
        with pytest.raises(InputError, match=message):
            SequenceSet(*arguments)
    with pytest.raises(InputError, match="no sequence is of class 'z'"):
        SequenceSet([one], ["a"]).of_classes(["z"])


def test_choosing_sampling_and_shuffling():
    sequences = SequenceSet([np.arange(20)[:, None], np.arange(16)[:, None]], ["b", "a"])
    assert sequences.of_classes(["a"]).lengths == [16]
    sampled = sequences.sampled(8)
    assert sampled.sequences[0][:, 0].tolist() == sample_frames(20)
    shuffled = sampled.shuffled(seed=1)
    assert sorted(shuffled.sequences[0][:, 0]) == sorted(sampled.sequences[0][:, 0])
    assert shuffled.sequences[0].tolist() != sampled.sequences[0].tolist()
    assert np.array_equal(shuffled.sequences[0], sampled.shuffled(seed=1).sequences[0])
