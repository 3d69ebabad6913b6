"""The video-only model: what it embeds, what its loss contrasts, and that it survives being saved."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel

from tempclr.models.few_shot import FewShotConfig, FewShotForEpisodes, FewShotModel
from tempclr.models.few_shot.modeling_few_shot_trx import sine_positions, tuple_slots

SMALL = {"feature_size": 6, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32, "trx_head_size": 8, "num_negatives": 7}


def episode(way=3, shot=2, num_queries=4, num_frames=8):
    return {
        "support_features": torch.randn(1, way, shot, num_frames, 6),
        "query_features": torch.randn(1, num_queries, num_frames, 6),
        "query_labels": torch.randint(way, (1, num_queries)),
    }


def test_it_is_loaded_as_it_was_saved(tmp_path):
    model = FewShotModel(FewShotConfig(**SMALL, measure="otam")).eval()
    model.save_pretrained(tmp_path)
    frames = torch.randn(2, 8, 6)
    for loaded in (FewShotModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(loaded, FewShotModel) and loaded.config.measure == "otam"
        assert torch.equal(loaded.eval().embed(frames), model.embed(frames))
    assert AutoConfig.from_pretrained(tmp_path).trx_cardinalities == (2, 3)


@pytest.mark.parametrize("head", ["otam", "trx"])
def test_a_head_is_put_on_a_pretrained_encoder_and_taken_off_again(tmp_path, head: str):
    encoder = FewShotModel(FewShotConfig(**SMALL)).eval()
    encoder.save_pretrained(tmp_path / "encoder")
    loaded, loading = FewShotForEpisodes.from_pretrained(tmp_path / "encoder", head=head, output_loading_info=True)
    frames = torch.randn(2, 8, 6)
    assert torch.equal(loaded.eval().embed(frames), encoder.embed(frames))
    assert all(name.startswith("head.") for name in loading["missing_keys"])
    assert bool(loading["missing_keys"]) == (head == "trx")
    if head == "trx":  # buffers that are not saved and weights that were not there
        branch = loaded.head.branches[1]
        assert torch.equal(branch.positions, sine_positions(8, 16)) and torch.equal(branch.tuples, tuple_slots(8, 3))
        assert 0 < branch.k_linear.weight.abs().max() <= 48**-0.5

    loaded.save_pretrained(tmp_path / "episodes")
    again = FewShotForEpisodes.from_pretrained(tmp_path / "episodes").eval()
    task = episode()
    assert torch.equal(again(**task).logits, loaded(**task).logits)
    assert torch.equal(FewShotModel.from_pretrained(tmp_path / "episodes").eval().embed(frames), encoder.embed(frames))


def test_padding_changes_nothing():
    model = FewShotModel(FewShotConfig(**SMALL)).eval()
    frames, lengths = torch.randn(3, 8, 6), torch.tensor([8, 5, 1])
    mask = torch.arange(8) < lengths[:, None]
    output = model(frames.masked_fill(~mask[..., None], torch.nan), mask)
    for row, length in enumerate(lengths):
        alone = model(frames[row, None, :length])
        torch.testing.assert_close(output.frame_embeds[row, :length], alone.frame_embeds[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.linear_embeds[row, :length], alone.linear_embeds[0], rtol=1e-4, atol=1e-5)
        assert not output.frame_embeds[row, length:].any() and not output.linear_embeds[row, length:].any()


def test_a_row_of_padding_alone_stays_finite_in_both_passes():
    model = FewShotModel(FewShotConfig(**SMALL)).train()
    mask = torch.tensor([[True] * 8, [False] * 8, [True] * 4 + [False] * 4])
    model(torch.randn(3, 8, 6), mask).loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_loss_prefers_the_true_order():
    """With S_a equal to S_p the true order is the cheapest path; with S_a turned round it is not."""
    model = FewShotModel(FewShotConfig(**SMALL, unit_weight=0, sequence_weight=1))
    frames, real = torch.eye(8)[None], torch.ones(1, 8, dtype=torch.bool)
    told = model._loss(frames, frames, real)
    turned = model._loss(frames.flip(1), frames, real)
    assert told["unit_loss"] is None and told["sequence_loss"] == told["loss"]
    assert told["loss"] < 0.5 * turned["loss"]


def test_each_part_of_the_loss_counts_by_its_weight():
    frames = torch.randn(4, 8, 6)
    model = FewShotModel(FewShotConfig(**SMALL, hidden_dropout_prob=0.0, unit_weight=0.25, sequence_weight=2.0))
    output = model.eval()(frames, return_loss=True)
    expected = 0.25 * output.unit_loss + 2 * output.sequence_loss
    torch.testing.assert_close(output.loss, expected)
    assert model(frames).loss is None


def test_episodes_score_and_train():
    model = FewShotForEpisodes(FewShotConfig(**SMALL)).train()
    output = model(**episode(), support_lengths=torch.full((1, 3, 2), 5), query_lengths=torch.full((1, 4), 7))
    assert output.logits.shape == (1, 4, 3)
    output.loss.backward()
    assert model.few_shot.projection.weight.grad.abs().sum() > 0
    assert model(**episode(), return_loss=False).loss is None


def test_queries_that_are_padding_do_not_count():
    model = FewShotForEpisodes(FewShotConfig(**SMALL)).eval()
    task = episode()
    padded = {**task, "query_features": torch.cat([task["query_features"], torch.randn(1, 2, 8, 6)], dim=1)}
    padded["query_labels"] = torch.cat([task["query_labels"], torch.full((1, 2), -100)], dim=1)
    torch.testing.assert_close(model(**padded).loss, model(**task).loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "knn"}, "head must be one of otam, dtw, mean_pool, bi_mhm, trx, got 'knn'"),
        ({"measure": "trx"}, "measure must be one of dtw, otam"),
        ({"hidden_size": 15}, "multiple of num_attention_heads"),
        ({"gamma": -1}, "gamma must be at least 0"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"hidden_dropout_prob": 1}, "hidden_dropout_prob must be below 1"),
        ({"gamma": "soft"}, "gamma must be a number"),
        ({"num_negatives": 0}, "num_negatives must be an integer of at least 1"),
        ({"unit_weight": 0, "sequence_weight": 0}, "at least one part of the loss must count"),
        ({"trx_cardinalities": []}, "different sizes of tuples"),
        ({"head": "trx", "trx_cardinalities": (2, 9)}, "hold a tuple larger than the 8 frames"),
    ],
)
def test_a_configuration_nothing_can_be_built_from_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FewShotConfig(**{**SMALL, **changes})


def test_inputs_that_do_not_fit_are_refused():
    model = FewShotModel(FewShotConfig(**SMALL))
    with pytest.raises(ValueError, match="frame_features is missing"):
        model()
    with pytest.raises(ValueError, match="vectors of 5, this model takes 6"):
        model(torch.rand(1, 8, 5))
    with pytest.raises(ValueError, match="at most 8 frames a sequence, got 9"):
        model(torch.rand(1, 9, 6))
    episodes = FewShotForEpisodes(FewShotConfig(**SMALL, head="trx"))
    with pytest.raises(ValueError, match="needs support_features and query_features"):
        episodes()
    with pytest.raises(ValueError, match=r"expected supports \(E, way, shot, T, F\)"):
        episodes(support_features=torch.rand(2, 3, 8, 6), query_features=torch.rand(1, 2, 8, 6))
    with pytest.raises(ValueError, match="takes sequences of exactly 8 frames"):
        episodes(**episode(), query_lengths=torch.tensor([[8, 8, 8, 7]]))
