"""Batches of similar videos: the searches, the batches, and training by them, also over two processes."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempclr.data import retrieval_batches
from tempclr.data.collation import ParagraphCollator
from tempclr.data.retrieval_batches import (
    RetrievalBatches,
    SimilarVideoSampler,
    embed_videos,
    nearest_videos,
    similar_batches,
)
from tempclr.data.sampling import ParagraphDataset
from tempclr.errors import InputError
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("retrieval_driver.py")
spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


def clusters(count, size, *, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 20 * torch.randn(count, width, generator=generator)
    return (centres[:, None] + torch.randn(count, size, width, generator=generator)).flatten(0, 1)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_the_exact_search_is_a_full_sort_whatever_the_chunks(num_videos, num_neighbours, seed):
    vectors = torch.randn(num_videos, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    centres = list(range(0, num_videos, 3))
    before, retrieval_batches.MAX_DISTANCES = retrieval_batches.MAX_DISTANCES, 2 * num_videos
    try:
        found = nearest_videos(vectors, centres, num_neighbours=num_neighbours, search="exact")
    finally:
        retrieval_batches.MAX_DISTANCES = before
    distances = torch.cdist(vectors, vectors)
    for centre, row in zip(centres, found, strict=True):
        others = [video for video in distances[centre].argsort().tolist() if video != centre]
        assert row == others[:num_neighbours]


def test_videos_that_are_the_same_do_not_hide_the_centre():
    (found,) = nearest_videos(torch.ones(4, 2), [2], num_neighbours=2, search="exact")
    assert len(found) == 2 and found == sorted(found) and 2 not in found


@given(st.integers(2, 30), st.integers(2, 6), st.integers(0, 99))
def test_batches_are_whole_and_hold_no_video_twice(num_videos, batch_size, seed):
    vectors = torch.randn(num_videos, 3, generator=torch.Generator().manual_seed(seed))
    if num_videos < batch_size:
        return
    made = similar_batches(
        vectors, batch_size=batch_size, num_candidates=8, search="exact", generator=random.Random(seed)
    )
    assert len(made) == num_videos // batch_size
    assert all(len(set(batch)) == batch_size and 0 <= min(batch) <= max(batch) < num_videos for batch in made)


def test_a_batch_comes_from_one_neighbourhood():
    vectors = clusters(8, 10)
    made = similar_batches(vectors, batch_size=4, num_candidates=9, search="exact", generator=random.Random(0))
    assert all(len({video // 10 for video in batch}) == 1 for batch in made)
    assert len({tuple(sorted(batch)) for batch in made}) > 8, "several batches of one neighbourhood differ"
    again = similar_batches(vectors, batch_size=4, num_candidates=9, search="exact", generator=random.Random(0))
    assert again == made


def test_faiss_finds_neighbours_of_the_centres_cell():
    pytest.importorskip("faiss")
    vectors = clusters(4, 50)
    found = nearest_videos(vectors, range(0, 200, 10), num_neighbours=8, search="faiss")
    exact = nearest_videos(vectors, range(0, 200, 10), num_neighbours=8, search="exact")
    same = sum(row == other for row, other in zip(found, exact, strict=True))
    assert same >= 15 and all(video // 50 == 10 * n // 50 for n, row in enumerate(found) for video in row)
    assert nearest_videos(vectors, [0], num_neighbours=3) == nearest_videos(
        vectors, [0], num_neighbours=3, search="faiss"
    )


def test_what_the_search_cannot_fill_is_filled_from_all_videos(monkeypatch):
    monkeypatch.setattr(retrieval_batches, "_exact_search", lambda vectors, centres, count: [[c, -1] for c in centres])
    made = similar_batches(
        torch.zeros(9, 2), batch_size=4, num_candidates=8, search="exact", generator=random.Random(1)
    )
    assert all(len(set(batch)) == 4 for batch in made)


def test_without_faiss_the_search_is_exact_and_faiss_by_name_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    vectors = clusters(2, 5)
    assert nearest_videos(vectors, [0], num_neighbours=3) == nearest_videos(
        vectors, [0], num_neighbours=3, search="exact"
    )
    with pytest.raises(ImportError, match="pip install faiss-cpu, or search='exact'"):
        nearest_videos(vectors, [0], num_neighbours=3, search="faiss")


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="faiss, exact, got 'near'"):
        nearest_videos(torch.zeros(3, 2), [0], num_neighbours=1, search="near")
    with pytest.raises(ValueError, match="as many videos, got 3"):
        similar_batches(torch.zeros(3, 2), generator=random.Random(0))
    with pytest.raises(ValueError, match="at least 15, one less than a batch, got 4"):
        similar_batches(torch.zeros(30, 2), num_candidates=4, generator=random.Random(0))
    with pytest.raises(InputError, match="batches of 4 similar videos need as many videos, got 3"):
        SimilarVideoSampler(3, batch_size=4)
    with pytest.raises(InputError, match="field 'retrieval_candidates': must be at least 3"):
        RetrievalBatches(SimilarVideoSampler(9, batch_size=4), None, None, num_candidates=2)


# --- with a model


def test_a_video_is_the_mean_of_its_clips_and_sentences():
    model, videos = world.make_model().train(), world.make_paragraphs(5)
    collator = ParagraphCollator(world.make_processor())
    state = torch.random.get_rng_state()
    vectors = embed_videos(model, ParagraphDataset(videos), collator, batch_size=2)
    assert torch.equal(torch.random.get_rng_state(), state) and model.training
    model.eval()
    for row, video in enumerate(videos):
        output = model(**collator([video]))
        wanted = (output.text_embeds[0] + output.video_embeds[0]).mean(0) / 2
        torch.testing.assert_close(vectors[row], wanted, rtol=1e-5, atol=1e-6)


def training(folder, **changes):
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    arguments = TempCLRTrainingArguments(str(folder), **{**settings, **changes})
    data, collator = ParagraphDataset(world.make_paragraphs(13)), ParagraphCollator(world.make_processor())
    sampler = SimilarVideoSampler(len(data), batch_size=arguments.train_batch_size)
    seen = []

    class Watched(ParagraphCollator):
        def __call__(self, rows):
            seen.append(sorted(row.video_id for row in rows))
            return super().__call__(rows)

    trainer = TempCLRTrainer(
        model=world.make_model(),
        args=arguments,
        train_dataset=data,
        data_collator=Watched(world.make_processor()),
        train_sampler=sampler,
        callbacks=[RetrievalBatches(sampler, data, collator, num_candidates=4, search="exact")],
    )
    return trainer, seen


def test_every_epoch_goes_through_its_own_batches(tmp_path):
    trainer, seen = training(tmp_path)
    trainer.train()
    assert trainer.state.global_step == 3 * (13 // 3)
    written = [json.loads((tmp_path / "retrieval_batches" / f"epoch-{epoch}.json").read_text()) for epoch in range(3)]
    names = [sorted(f"video-0-{row}" for row in batch) for batches in written for batch in batches]
    assert seen == names
    assert written[0] != written[1] != written[2]


def test_a_run_resumed_within_an_epoch_keeps_its_batches(tmp_path):
    """Note [An epoch keeps its batches]."""
    whole, _ = training(tmp_path)
    whole.train()
    for stop in (6, 8):  # within the second epoch, and at its end
        resumed, seen = training(tmp_path)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stop}"))
        assert seen and resumed.state.global_step == 12
        for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(one, other)
    (tmp_path / "retrieval_batches" / "epoch-1.json").unlink()
    with pytest.raises(InputError, match=r"epoch-1.json: no such file: to go on in the middle of an epoch"):
        training(tmp_path)[0].train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_go_through_the_same_batches_as_one(tmp_path):
    """Each rank takes every other batch; together they are those that one process makes of the same weights."""
    paths = [str(ROOT / name) for name in (".", "kernels", "hub")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    found = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        command = [sys.executable, *launcher, str(DRIVER), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found[ranks] = [json.loads(file.read_text()) for file in sorted(folder.glob("rank-*.json"))]
    (alone,), (first, second) = found[1], found[2]
    torch.testing.assert_close(torch.tensor(first["vectors"]), torch.tensor(alone["vectors"]), rtol=1e-5, atol=1e-6)
    assert first["vectors"] == second["vectors"]
    assert first["batches"] == second["batches"] == alone["batches"]
    assert [first["rows"][n // 2] if n % 2 == 0 else second["rows"][n // 2] for n in range(4)] == alone["rows"][:4]
