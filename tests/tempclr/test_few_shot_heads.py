"""The few-shot heads against values of the public code, and against plain loops."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tempclr.models.few_shot import TRXHead, class_scores, sequence_distances
from tempclr_kernels import otam

DATA = Path(__file__).parent / "data"


def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(DATA / name) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def matched() -> dict[str, torch.Tensor]:
    """Supports grouped by class, as our heads take them."""
    values = {key.removeprefix("head/"): value for key, value in golden("few_shot_otam.npz").items()}
    order = values["support_labels"].argsort(stable=True)
    values |= {name: values[name][order] for name in ("support", "grad_support")}
    values["hyrsm_bimhm_per_support"] = values["hyrsm_bimhm_per_support"][:, order]
    return values


def test_otam_scores_losses_and_gradients_are_those_of_the_public_code(matched):
    support, query = (matched[name].clone().requires_grad_() for name in ("support", "query"))
    logits = class_scores(sequence_distances(query, support), way=5)
    loss = cross_entropy(logits, matched["targets"])
    loss.backward()
    assert relative(logits, matched["logits"]) < 1e-5
    assert loss.item() == pytest.approx(matched["ce"].item(), rel=1e-5)
    assert relative(support.grad, matched["grad_support"]) < 1e-5
    assert relative(query.grad, matched["grad_query"]) < 1e-5


@pytest.mark.parametrize("gamma", [0.1, 0.5])
@pytest.mark.parametrize("case", ["sq8", "rect5x8", "rect8x5", "t1x1", "t1x4", "t4x1", "t2x2"])
def test_soft_otam_and_its_gradient_are_those_of_the_public_code(case: str, gamma: float):
    values = golden("few_shot_otam.npz")
    published = {name: values[f"{case}/otam_hyrsm_l{gamma}/{name}"] for name in ("out", "w", "gradD")}
    cost = values[f"{case}/D"].float().requires_grad_()
    distance = otam(cost, gamma=gamma)
    (distance * published["w"]).sum().backward()
    assert relative(distance, published["out"]) < 1e-5
    assert relative(cost.grad, published["gradD"]) < 1e-5
    if gamma == 0.1:  # both ways were recorded with this softness alone
        assert relative(otam(cost, gamma=0.1, both_ways=True), values[f"{case}/otam_hyrsm_l0.1/bidir_sum"]) < 1e-5


def test_mean_pool_and_hausdorff_are_those_of_the_public_code(matched):
    pooled = sequence_distances(matched["query"], matched["support"], measure="mean_pool")
    assert relative(1 + class_scores(pooled, way=5), matched["tsn_cos_logits"]) < 1e-5
    hausdorff = sequence_distances(matched["query"], matched["support"], measure="bi_mhm")
    assert relative(hausdorff, matched["hyrsm_bimhm_per_support"]) < 1e-5


@pytest.mark.parametrize("measure", ["otam", "dtw", "mean_pool", "bi_mhm"])
def test_what_lies_behind_a_sequence_changes_nothing(measure: str):
    query, support = torch.randn(2, 3, 6, 4), torch.randn(2, 4, 5, 4)
    query_lengths, support_lengths = torch.randint(1, 7, (2, 3)), torch.randint(1, 6, (2, 4))
    found = sequence_distances(query, support, query_lengths, support_lengths, measure=measure)
    spoilt = query.masked_fill((torch.arange(6) >= query_lengths[..., None])[..., None], torch.nan)
    again = sequence_distances(spoilt, support, query_lengths, support_lengths, measure=measure)
    assert torch.equal(found, again)
    for episode in range(2):
        for row, first in enumerate(query_lengths[episode]):
            for column, second in enumerate(support_lengths[episode]):
                pair = query[episode, row, None, :first], support[episode, column, None, :second]
                alone = sequence_distances(*pair, measure=measure)
                torch.testing.assert_close(found[episode, row, column], alone[0, 0], rtol=1e-5, atol=1e-5)


def test_an_unknown_measure_is_named():
    with pytest.raises(ValueError, match=r"measure must be one of otam, dtw, mean_pool, bi_mhm, got 'edit'"):
        sequence_distances(torch.rand(1, 2, 3), torch.rand(1, 2, 3), measure="edit")


@pytest.mark.parametrize(
    ("tag", "cardinalities", "head_size"), [("small_2_3", (2, 3), 12), ("oneshot_2", (2,), 6), ("c1_4", (1, 4), 8)]
)
def test_trx_scores_losses_and_gradients_are_those_of_the_published_code(tag, cardinalities, head_size):
    prefix = f"{tag}/"
    values = {key.removeprefix(prefix): value for key, value in golden("few_shot_trx.npz").items() if prefix in key}
    order = values["support_labels"].argsort(stable=True)
    support, query = (values[name].clone().requires_grad_() for name in ("support", "query"))
    way, (_, num_frames, size) = len(values["support_labels"].unique()), support.shape
    head = TRXHead(feature_size=size, num_frames=num_frames, cardinalities=cardinalities, head_size=head_size).eval()
    for cardinality, branch in zip(cardinalities, head.branches, strict=True):
        stored = {name: values[f"card{cardinality}/sd/{name}"] for name in branch.state_dict()}
        branch.load_state_dict(stored)
        torch.testing.assert_close(branch.positions, values[f"card{cardinality}/sd/pe.pe"][0, :num_frames])

    supports = support[order].unflatten(0, (way, -1))
    for cardinality, branch in zip(cardinalities, head.branches, strict=True):
        of_branch = branch.logits(branch.project(query[None]), branch.project(supports[None]))[0]
        assert relative(of_branch, values[f"card{cardinality}/logits"]) < 1e-5
    logits = head(query[None], supports[None])[0]
    loss = cross_entropy(logits, values["targets"], reduction="sum")
    loss.backward()
    assert relative(logits, values["logits_mean"]) < 1e-5
    right = logits.argmax(dim=1) == values["targets"]
    assert right.float().mean().item() == pytest.approx(values["accuracy"].item())
    assert loss.item() == pytest.approx(values["loss_sum_over_queries"].item(), rel=1e-5)
    assert relative(query.grad, values["grad_query"]) < 1e-5
    assert relative(support.grad, values["grad_support"]) < 1e-5
    for cardinality, branch in zip(cardinalities, head.branches, strict=True):
        for name, parameter in branch.named_parameters():
            assert relative(parameter.grad, values[f"card{cardinality}/grad/{name}"]) < 1e-5, name


def trx_by_loops(branch, query: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """The definition: one tuple, one class, one query at a time, with a value bias that must cancel."""
    tuples = list(combinations(range(branch.num_frames), branch.cardinality))
    bias = torch.linspace(-1, 1, branch.head_size, dtype=query.dtype)

    def embedded(frames):
        frames = frames + branch.positions
        vectors = torch.stack([frames[list(chosen)].flatten() for chosen in tuples])
        return branch.norm_k(branch.k_linear(vectors)), branch.v_linear(vectors) + bias

    scores = query.new_empty(len(query), len(support))
    for row, frames in enumerate(query):
        query_keys, query_values = embedded(frames)
        for column, shots in enumerate(support):
            pairs = [embedded(shot) for shot in shots]
            keys, values = (torch.cat(part) for part in zip(*pairs, strict=True))
            prototypes = (query_keys @ keys.T / branch.head_size**0.5).softmax(dim=1) @ values
            scores[row, column] = -(query_values - prototypes).square().sum() / len(tuples)
    return scores


@pytest.mark.parametrize("cardinality", [1, 2, 3, 6])
def test_trx_without_tuples_is_trx_with_them(cardinality: int):
    """Note [Tuples are sums of slots]."""
    head = TRXHead(feature_size=5, num_frames=6, cardinalities=(cardinality,), head_size=7, dropout=0.0).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    query, support = torch.randn(4, 6, 5, dtype=torch.float64), torch.randn(3, 2, 6, 5, dtype=torch.float64)
    found = head(query[None], support[None])[0]
    torch.testing.assert_close(found, trx_by_loops(head.branches[0], query, support), rtol=1e-10, atol=1e-10)


def test_trx_of_several_episodes_is_that_of_each():
    head = TRXHead(feature_size=6, num_frames=4, cardinalities=(2, 3), head_size=8).eval()
    query, support = torch.randn(3, 5, 4, 6), torch.randn(3, 2, 2, 4, 6)
    together = head(query, support)
    for number in range(3):
        torch.testing.assert_close(together[number], head(query[number, None], support[number, None])[0])


def test_trx_keeps_its_precision_far_from_the_origin():
    """Distances come from Gram matrices: what all videos have in common must not drown what tells them apart."""
    head = TRXHead(feature_size=8, num_frames=4, cardinalities=(2,), head_size=16, dropout=0.0)
    query, support = 100 + torch.randn(1, 6, 4, 8), 100 + torch.randn(1, 3, 2, 4, 8)
    exact = TRXHead(feature_size=8, num_frames=4, cardinalities=(2,), head_size=16, dropout=0.0).double()
    exact.load_state_dict(head.state_dict())
    expected = exact(query.double(), support.double())
    assert relative(head(query, support).double(), expected) < 1e-4


def test_trx_refuses_what_it_cannot_take():
    with pytest.raises(ValueError, match="different sizes of tuples"):
        TRXHead(feature_size=4, num_frames=4, cardinalities=(2, 2))
    with pytest.raises(ValueError, match="a tuple of 5 frames cannot be taken from 4 frames"):
        TRXHead(feature_size=4, num_frames=4, cardinalities=(5,))
    head = TRXHead(feature_size=4, num_frames=4, cardinalities=(2,), head_size=4)
    with pytest.raises(ValueError, match="takes videos of 4 frames, got 5"):
        head(torch.rand(1, 1, 5, 4), torch.rand(1, 2, 1, 5, 4))
