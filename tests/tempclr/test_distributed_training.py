"""Two ranks train the same model as one process that sees the batches of both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import RandomSampler, SequentialSampler

from tempclr.checkpoints import checkpoint_fault
from tempclr.data.collation import ParagraphCollator
from tempclr.data.rank_padding import PADDING_ID, PaddedDataset, PaddedSampler, PaddingCollator, can_be_padded
from tempclr.data.sampling import ParagraphDataset
from tempclr.evaluation.retrieval import evaluate_retrieval
from tempclr.losses import tempclr_loss
from tempclr.models.tempclr import TempCLRModel
from tempclr.negatives import STRATEGIES, Candidates, sample_negatives
from tempclr.seeded_draws import SeededDraws
from tempclr.sharding import check_sharding

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs
import training_world as world

DRIVER = Path(__file__).parent / "distributed_drivers/training.py"

QUICK = ("unit", "accumulated mini-batches, checkpointed")
QUICK_SHARDED = ("accumulated mini-batches, checkpointed",)
SLOW = (
    *("unit, dot", "seg_unit", "seg_only", "within_seg", "all_unit", "unpaired", "joint"),
    *("visual_anchor", "both", "both, joint, otam", "accumulated", "checkpointed", "mini-batches", "AdamW"),
)
SLOW_SHARDED = (
    "unit",
    "seg_unit",
    "unpaired",
    "both, joint, otam",
    "accumulated",
    "checkpointed",
    "mini-batches",
    "AdamW",
)


def trained(folder, copied, sharded, *, with_others):
    """What one process, two ranks of DDP and two of FSDP found."""
    done = forked_runs.run(DRIVER, folder, ";".join(copied), ";".join(sharded), with_others, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return {file.stem: torch.load(file) for file in folder.glob("*.pt")} | {"folder": folder}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("ranks"), QUICK, QUICK_SHARDED, with_others=True)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("ranks"), SLOW, SLOW_SHARDED, with_others=False)


def check_equal(found, one):
    """Weights, logged parts and evaluation; 1e-5 is the bar, what is left is the order of float32 sums."""
    assert len(one["history"]) == len(found["history"]) == 5
    for key, value in one["weights"].items():
        torch.testing.assert_close(found["weights"][key], value, rtol=0, atol=1e-5, msg=key)
    for alone, shared in zip(one["history"], found["history"], strict=True):
        assert shared == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert found["eval"] == pytest.approx(one["eval"], rel=1e-5, abs=1e-6)
    assert {"eval_loss"} < set(one["eval"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", QUICK)
def test_two_ranks_equal_one_process_after_five_updates(quick, name):
    """Note [Gather with gradients]: with a detached gather only the first of the five updates agrees."""
    check_equal(quick["ddp-2-0"][name], quick["ddp-1-0"][name])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", QUICK_SHARDED)
def test_two_ranks_that_share_the_weights_equal_one_process(quick, name):
    """FSDP 2 by accelerate; Note [FSDP shards layers] in sharding.py."""
    assert quick["fsdp-2-0"][name]["kinds"] == ["DTensor"]
    assert quick["ddp-2-0"][name]["kinds"] == ["Tensor"]
    check_equal(quick["fsdp-2-0"][name], quick["ddp-1-0"][name])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SLOW)
def test_two_ranks_equal_one_process_whatever_the_loss(slow, name):
    check_equal(slow["ddp-2-0"][name], slow["ddp-1-0"][name])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SLOW_SHARDED)
def test_two_ranks_that_share_the_weights_equal_one_process_whatever_the_loss(slow, name):
    check_equal(slow["fsdp-2-0"][name], slow["ddp-1-0"][name])


def test_the_weights_did_move(quick):
    for name in QUICK:
        losses = [entry["loss"] for entry in quick["ddp-1-0"][name]["history"]]
        assert len({round(loss, 3) for loss in losses}) == 5
    moved, other = (quick["ddp-1-0"][name]["weights"] for name in QUICK)
    assert max((moved[key] - other[key]).abs().max().item() for key in moved) > 1e-2


def test_ranks_see_every_video_once_an_epoch(quick):
    """18 videos in joint batches of 4: the fifth holds 2, one of them on each rank, or both on the first."""
    alone = [video_id for batch in quick["ddp-1-0"]["unit"]["seen"] for video_id in batch]
    of_ranks = [quick[f"ddp-2-{rank}"]["unit"]["seen"] for rank in range(2)]
    together = [[*first, *second] for first, second in zip(*of_ranks, strict=True)]
    assert together == quick["ddp-1-0"]["unit"]["seen"]
    assert len(alone) == len(set(alone)) == 18


def test_two_ranks_equal_one_process_where_the_data_set_is_iterable(quick):
    """Note [Each rank reads the stream] in trainer.py: 18 videos fill no joint batches of 4, and 7 none either."""
    check_equal(quick["ddp-2-0"]["streamed"], quick["ddp-1-0"]["streamed"])
    alone, *of_ranks = (quick[name]["streamed"]["seen"] for name in ("ddp-1-0", "ddp-2-0", "ddp-2-1"))
    assert [[*first, *second] for first, second in zip(*of_ranks, strict=True)] == alone
    assert sorted(video_id for batch in alone for video_id in batch) == sorted(
        f"video-0-{number}" for number in range(18)
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_seeded_negatives_depend_on_their_row_alone(strategy):
    """Note [Draws by counting] in seeded_draws.py: padding, place in the batch and neighbours change nothing."""
    seeds = torch.tensor([11, 5, 2**62 + 9])
    index = torch.tensor([[0, 0, 1, 2, -1, -1], [0, 1, 1, 2, 3, 4], [0, 1, -1, -1, -1, -1]])
    sentences = torch.arange(5) < torch.tensor([3, 5, 2])[:, None]
    full = sample_negatives(
        strategy,
        sentence_mask=sentences,
        clip_mask=index >= 0,
        clip_sentence_index=index,
        num_negatives=4,
        order_seeds=seeds,
    )
    rows, width = torch.tensor([2, 0]), 4
    part = sample_negatives(
        strategy,
        sentence_mask=sentences[rows, :3],
        clip_mask=index[rows, :width] >= 0,
        clip_sentence_index=index[rows, :width],
        num_negatives=4,
        order_seeds=seeds[rows],
        candidates=Candidates(torch.tensor([True] * 5), 3, torch.tensor([1, 5, 3, 2**62 + 9, 11])),
    )
    if full.column_orders is not None:
        torch.testing.assert_close(part.column_orders[1], full.column_orders[0, :, :width])
    if full.row_orders is not None:
        torch.testing.assert_close(part.row_orders[1], full.row_orders[0, :, :3])
    if full.other_videos is not None:
        # Of the videos that both batches hold, the order is the same.
        named = [[[11, 5, 2**62 + 9][video] for video in row.tolist()] for row in full.other_videos]
        among = [[[1, 5, 3, 2**62 + 9, 11][video] for video in row.tolist()] for row in part.other_videos]
        assert [seed for seed in among[1] if seed in (5, 2**62 + 9)] == [seed for seed in named[0] if seed != 11]


def test_seeded_draws_are_uniform_and_new_each_time():
    draws = SeededDraws(torch.arange(2000))
    first, second = draws.uniform((2000, 10)), draws.uniform((2000, 10))
    for numbers in (first, second, draws.uniform_between(None)):
        share = torch.histc(numbers.flatten(), bins=10, min=0, max=1) / numbers.numel()
        # Five standard deviations of a share of 0.1 among 20,000.
        assert (share - 0.1).abs().max() < 5 * (0.09 / 20000) ** 0.5
    correlation = torch.corrcoef(torch.cat([first, second], dim=1).T) - torch.eye(20)
    assert correlation.abs().max() < 5 / 2000**0.5
    with pytest.raises(ValueError, match=r"order_seeds must be \(3,\) int64, got \(2,\)"):
        SeededDraws(torch.arange(2), num_rows=3)


def test_rows_that_do_not_count_change_neither_loss_nor_gradient():
    """Note [No row twice] in rank_padding.py."""
    videos = ParagraphDataset(world.make_paragraphs(3))
    collator = PaddingCollator(ParagraphCollator(world.make_processor(), with_video_ids=True))
    padded = PaddedDataset(videos)
    assert len(padded) == 3 and can_be_padded(videos, collator)
    model = world.make_model(negatives="joint").eval()
    found = {}
    for name, positions in (("plain", [1, 2]), ("padded", [1, 2, -1, -1])):
        batch = collator([padded[position] for position in positions])
        assert (
            batch.pop("video_id")
            == [*(videos[place].video_id for place in (1, 2)), PADDING_ID, PADDING_ID][: len(positions)]
        )
        model.zero_grad()
        loss = model(**batch, return_loss=True, order_seeds=torch.arange(len(positions))).loss
        loss.backward()
        found[name] = loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert found["padded"][0] == pytest.approx(found["plain"][0], rel=1e-6)
    torch.testing.assert_close(found["padded"][1], found["plain"][1], rtol=1e-4, atol=1e-6)


def test_a_rank_without_any_video_still_takes_part():
    """Its loss is 0 with gradients of 0, so that it does not keep the other ranks waiting."""
    collator = PaddingCollator(ParagraphCollator(world.make_processor(), with_video_ids=True))
    padded = PaddedDataset(ParagraphDataset(world.make_paragraphs(3)))
    batch = collator([padded[-1], padded[-1]])
    del batch["video_id"]
    model = world.make_model().eval()
    loss = model(**batch, return_loss=True).loss
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_padded_samplers_keep_the_order_of_one_process():
    from accelerate.data_loader import SeedableRandomSampler

    for epoch in range(2):
        alone = SeedableRandomSampler(range(5), data_seed=7)
        padded = PaddedSampler(RandomSampler(range(5)), multiple=4, data_seed=7)
        alone.set_epoch(epoch)
        padded.set_epoch(epoch)
        assert list(padded) == [*alone, -1, -1, -1] and len(padded) == 8
    assert list(PaddedSampler(SequentialSampler(range(4)), multiple=2)) == [0, 1, 2, 3]


def test_rows_of_any_mapping_can_be_padded():
    row = {"video_id": "a", "sentences": ["cut the bread"], "starts": [0.0], "ends": [1.0]}
    row |= {"features": torch.ones(2, 8).numpy(), "features_per_second": 1.0}
    collator = ParagraphCollator(world.make_processor(), with_video_ids=True)
    batch = PaddingCollator(collator)([row, PaddedDataset([row])[-1]])
    assert batch["video_id"] == ["a", PADDING_ID]
    assert batch["sentence_mask"].sum(dim=1).tolist() == batch["clip_mask"].sum(dim=1).tolist() == [1, 0]
    assert not can_be_padded([row], ParagraphCollator(world.make_processor()))


def test_losses_of_one_process_take_seeds_too():
    embeds = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    losses = [
        tempclr_loss(embeds, embeds.roll(1, 1), order_seeds=torch.tensor([seed, 4]))["loss"] for seed in (3, 3, 8)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("how", ["fsdp without a GPU", "fsdp of the environment"])
def test_sharding_on_the_cpu_is_refused(quick, how):
    """accelerate would train by DDP without a word; its launcher asks for FSDP through the environment."""
    assert "fsdp needs GPUs" in quick["ddp-2-0"][how]


def test_the_old_way_of_sharding_is_refused():
    with pytest.raises(ValueError, match="fsdp version 1 is not supported, version 2 is: give accelerate"):
        check_sharding(asked_for=True, device=torch.device("cuda"), plugin=SimpleNamespace(fsdp_version=1))


# --- the other trainers


@pytest.mark.parametrize("name", ["localization", "classification", "episodes"])
def test_two_ranks_equal_one_process_where_the_loss_is_a_mean_over_rows(quick, name):
    """Note [No row twice] in rank_padding.py: of the third joint batch, one row, rank 1 has none; the fourth is of
    another epoch."""
    one, two = quick["ddp-1-0"][name], quick["ddp-2-0"][name]
    assert len(one["history"]) == 4
    for key, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][key], value, rtol=0, atol=1e-5, msg=key)
    for alone, shared in zip(one["history"], two["history"], strict=True):
        assert shared == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert two["eval"] == pytest.approx(one["eval"], rel=1e-4, abs=1e-5)
    assert {"eval_loss"} <= set(one["eval"])


def test_where_rows_are_contrasted_none_may_come_twice(quick):
    told = quick["ddp-2-0"]["told"]
    assert "9 rows do not fill batches of 2 on 2 ranks" in told and "give --dataloader_drop_last True" in told


def test_ranks_follow_one_order_where_their_samplers_have_none_in_common(quick):
    orders = [quick[f"ddp-2-{rank}"]["order"] for rank in range(2)]
    assert orders[0] == orders[1] and sorted(orders[0]) == [-1, *range(7)]


# --- sharded models


def test_a_sharded_model_is_evaluated_whole(quick):
    """Note [Evaluated whole] in sharding.py: three videos on two ranks."""
    found = [quick[f"fsdp-2-{rank}"]["beside forward"] for rank in range(2)]
    assert found[0]["recalls"] == found[1]["recalls"] and len(found[0]["recalls"]) >= 2
    saved = TempCLRModel.from_pretrained(quick["folder"] / "sharded")
    saved.processor = world.make_processor()
    inputs = saved.processor(text=list(world.ACTIONS))
    with torch.no_grad():
        expected = saved.eval().get_text_features(**inputs).pooler_output
    for each in found:
        torch.testing.assert_close(each["text"], expected, rtol=1e-5, atol=1e-6)
    metrics = evaluate_retrieval(saved, world.make_paragraphs(3, seed=1), measures=["dtw"]).metrics["dtw"]
    assert found[0]["recalls"][-1] == metrics["R@1"]


def test_a_sharded_run_saves_whole_weights_and_goes_on(quick):
    """Note [Whole checkpoints under FSDP] in sharding.py."""
    folder = quick["folder"]
    for name in ("sharded", "sharded/checkpoint-2", "resumed"):
        assert json.loads((folder / name / "config.json").read_text())["architectures"] == ["TempCLRModel"]
    whole, resumed = (load_file(folder / name / "model.safetensors") for name in ("sharded", "resumed"))
    halfway = load_file(folder / "sharded" / "checkpoint-2" / "model.safetensors")
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0, msg=key)
    assert any(not torch.equal(halfway[key], whole[key]) for key in whole)
    assert not list(folder.rglob("*.distcp")) and not list(folder.rglob(".metadata"))
    assert checkpoint_fault(folder / "sharded" / "checkpoint-2", num_ranks=2) is None
