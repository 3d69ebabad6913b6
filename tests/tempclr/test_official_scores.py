"""The official protocol against the recorded outputs of the released code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.evaluation import official_scores
from tempclr.evaluation.clip_retrieval import clip_retrieval_from_embeddings
from tempclr.evaluation.embeddings import Embeddings
from tempclr.evaluation.localization import localize_steps, merge_windows
from tempclr.evaluation.metrics import retrieval_metrics
from tempclr.evaluation.official_metrics import official_clip_positions, official_ranks
from tempclr.evaluation.official_scores import official_otam_table, official_padding, official_score_pairs
from tempclr.evaluation.retrieval import retrieval_from_embeddings
from tempclr_kernels import dtw

DATA = Path(__file__).parent / "data"
CLEAN, GOLDEN = np.load(DATA / "evaluation_golden.npz"), np.load(DATA / "official_evaluation.npz")
PADDED = sorted({key.split("/")[1] for key in GOLDEN.files if key.startswith("pad/")})
# R@1, R@5, R@10 that the released code printed for these inputs.
RECALLS = {
    "full/dot": {"cap_avg": (1.0, 1.0, 1.0), "dtw": (1.0, 1.0, 1.0), "otam": (1.0, 1.0, 1.0)},
    "full/cosine_like": {"cap_avg": (2 / 3, 1.0, 1.0), "dtw": (5 / 12, 1.0, 1.0), "otam": (1 / 12, 1.0, 1.0)},
    "full/equal_len": {"cap_avg": (0.8, 1.0, 1.0), "dtw": (0.9, 1.0, 1.0), "otam": (0.1, 0.5, 1.0)},
    "bg/typical": {"cap_avg": (1.0, 1.0, 1.0), "dtw": (0.875, 0.875, 1.0), "otam": (1.0, 1.0, 1.0)},
    "bg/dot": {"cap_avg": (0.875, 1.0, 1.0), "dtw": (0.75, 1.0, 1.0), "otam": (1.0, 1.0, 1.0)},
    "bg/short_video": {"cap_avg": (1.0, 1.0, 1.0), "dtw": (1.0, 1.0, 1.0), "otam": (0.75, 1.0, 1.0)},
}


def recorded(case: str) -> Embeddings:
    """Embeddings whose dot products are the recorded similarities: rows of the matrix against one-hot clips."""
    source = CLEAN if f"{case}/lens" in CLEAN.files or f"{case}/text_lengths" in CLEAN.files else GOLDEN
    full = case.startswith("full")
    similarity = source[f"{case}/sim_text_by_{'clip' if full else 'window'}"]
    names = ("lens", "lens") if full else ("text_lengths", "video_lengths")
    texts, videos = (source[f"{case}/{name}"].tolist() for name in names)
    pad = torch.nn.utils.rnn.pad_sequence
    return Embeddings(
        pad(list(torch.from_numpy(similarity).double().split(texts)), batch_first=True),
        torch.tensor(texts),
        pad(list(torch.eye(similarity.shape[1], dtype=torch.float64).split(videos)), batch_first=True),
        torch.tensor(videos),
        **({} if full else {"window_seconds": 16.0, "stride_seconds": 16.0}),
    )


@pytest.mark.parametrize("case", list(RECALLS))
def test_scores_and_recalls_are_those_of_the_released_code(case, monkeypatch):
    embeddings = recorded(case)
    inputs = (embeddings.sentences, embeddings.clips, embeddings.num_sentences, embeddings.num_clips)
    scores = official_score_pairs(*inputs, background=embeddings.background)
    result = retrieval_from_embeddings(embeddings, protocol="official")
    for measure, recalls in RECALLS[case].items():
        # The similarities were stored in float32, and the released tables are float32.
        expected = GOLDEN[f"{case}/score_{measure}"]
        np.testing.assert_allclose(scores[measure].numpy(), expected, rtol=2e-5, atol=2e-5)
        assert tuple(result.metrics[measure][f"R@{k}"] for k in (1, 5, 10)) == recalls, measure
        assert result.protocols[measure].name.endswith(f"/{measure}/official")
    assert torch.equal(scores["dtw+cap_avg"], scores["cap_avg"] + 0.012 * scores["dtw"])
    monkeypatch.setattr(official_scores, "_smallest_target", lambda cost, target: target)
    whole = official_score_pairs(*inputs, background=embeddings.background)
    for measure, score in scores.items():
        """Note [One column of padding stands for all] in official_scores.py."""
        torch.testing.assert_close(whole[measure], score, rtol=0, atol=0)


@pytest.mark.parametrize("case", PADDED)
def test_padding_and_tables_are_those_of_the_released_code(case):
    cost = torch.from_numpy(GOLDEN[f"pad/{case}/D"])
    lengths, target = torch.tensor(cost.shape), tuple(GOLDEN[f"pad/{case}/target"].tolist())
    padded = official_padding(cost, lengths, target)
    np.testing.assert_array_equal(padded, GOLDEN[f"pad/{case}/dtw_pad"])
    assert float(dtw(padded)) == pytest.approx(GOLDEN[f"pad/{case}/dtw_cum"][-1, -1], abs=1e-9)
    sides = official_padding(cost, lengths, target, both_sides=True)
    np.testing.assert_array_equal(sides, GOLDEN[f"pad/{case}/otam_pad"])
    np.testing.assert_allclose(official_otam_table(sides), GOLDEN[f"pad/{case}/otam_cum"], rtol=0, atol=1e-9)


def test_many_matrices_are_padded_as_one_by_one():
    costs = [torch.from_numpy(GOLDEN[f"pad/{case}/D"]) for case in PADDED if case.endswith("_6x6")]
    stacked = torch.full((len(costs), 6, 6), torch.nan, dtype=torch.float64)
    for row, cost in zip(stacked, costs, strict=True):
        row[: cost.shape[0], : cost.shape[1]] = cost
    lengths = torch.tensor([cost.shape for cost in costs])
    for both_sides in (False, True):
        together = official_padding(stacked, lengths, (6, 6), both_sides=both_sides)
        for cost, own in zip(costs, together, strict=True):
            alone = official_padding(cost, torch.tensor(cost.shape), (6, 6), both_sides=both_sides)
            assert torch.equal(own, alone)


def test_defects_move_the_recall_where_costs_are_of_cosine_scale():
    """Clean DTW and OTAM find every video where the released ones lose most."""
    embeddings = recorded("full/cosine_like")
    clean = retrieval_from_embeddings(embeddings, similarity="dot")
    official = retrieval_from_embeddings(embeddings, protocol="official")
    for measure in ("dtw", "otam"):
        assert clean.metrics[measure]["R@1"] > 0.9 > 0.5 > official.metrics[measure]["R@1"]


def test_tied_clip_queries_count_once_a_position():
    similarity = torch.from_numpy(CLEAN["clip/ties/sim"])[:, None].double()
    one = torch.ones(3, dtype=torch.long)
    embeddings = Embeddings(similarity, one, torch.eye(3, dtype=torch.float64)[:, None], one)
    found = clip_retrieval_from_embeddings(embeddings, protocol="official")
    assert len(found.ranks["text-to-video"]) == 4  # of three queries
    recorded_metrics = {"R@1": 0.5, "R@5": 1.0, "R@10": 1.0, "median_rank": 1.5}
    assert found.metrics == {"text-to-video": recorded_metrics}
    assert found.tie_rule == "every tied position is a query"
    assert retrieval_metrics(official_clip_positions([0, 3], [1, 1]))["R@1"] == 0.5


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("r50", {"R@1": 0.48, "R@5": 0.8, "R@10": 0.9, "median_rank": 2.0}),
        ("r200", {"R@1": 0.06, "R@5": 0.25, "R@10": 0.33, "median_rank": 24.0}),
    ],
)
def test_the_recorded_clip_retrieval(case, expected):
    name = f"clip/{case}/sim"
    similarity = torch.from_numpy((CLEAN if name in CLEAN.files else GOLDEN)[name])[:, None].double()
    one = torch.ones(len(similarity), dtype=torch.long)
    embeddings = Embeddings(similarity, one, torch.eye(len(similarity), dtype=torch.float64)[:, None], one)
    for protocol, similar in (("official", None), ("clean", "dot")):
        found = clip_retrieval_from_embeddings(embeddings, protocol=protocol, similarity=similar)
        assert found.metrics["text-to-video"] == expected


def test_among_equal_scores_the_later_video_wins():
    assert official_ranks(np.zeros((3, 3))).tolist() == [3, 2, 1]
    scores = np.random.default_rng(0).integers(0, 4, size=(8, 8)).astype(float)
    order = np.argsort(scores, axis=1, kind="stable")
    expected = [8 - int(np.flatnonzero(order[query] == query)[0]) for query in range(8)]
    assert official_ranks(scores).tolist() == expected


@pytest.mark.parametrize("item", range(5))
def test_windows_are_merged_and_searched_as_released(item):
    recorded_item = {key: GOLDEN[f"ct_item{item}/{key}"] for key in ("window_logits", "mean_logits", "assignment")}
    logits = torch.from_numpy(recorded_item["window_logits"])
    merged = merge_windows(logits, len(recorded_item["mean_logits"]), window=32, stride=16)
    np.testing.assert_allclose(merged, recorded_item["mean_logits"], rtol=1e-6, atol=1e-6)
    frames = localize_steps(-merged.log_softmax(-1))
    assert frames.tolist() == recorded_item["assignment"].argmax(axis=0).tolist()
    with pytest.raises(ValueError, match="windows of 32 every 16"):
        merge_windows(logits[1:], len(merged), window=32, stride=16)


def test_settings_that_the_released_code_does_not_have_are_refused():
    embeddings = recorded("full/equal_len")
    with pytest.raises(ValueError, match="takes raw dot products"):
        retrieval_from_embeddings(embeddings, protocol="official", similarity="cosine")
    with pytest.raises(ValueError, match=r"keeps 1\.3 windows a sentence"):
        retrieval_from_embeddings(embeddings, protocol="official", normalize_length=False)
