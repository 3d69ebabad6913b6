"""Scores of all pairs, window choice and combination, against plain loops and the released Cap. Avg."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.evaluation import scores as scores_module
from tempclr.evaluation.embeddings import window_spans
from tempclr.evaluation.scores import combine, keep_windows, score_pairs, similarity_chunks
from tempclr_kernels import dtw, otam

GOLDEN = np.load(Path(__file__).parent / "data/evaluation_golden.npz")


def ragged(lengths, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random float64 embeddings; padding is filled with large numbers that would show if it were read."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lengths), max(lengths), size, generator=generator, dtype=torch.float64)
    for index, length in enumerate(lengths):
        values[index, length:] = 1e6
    return values, torch.tensor(lengths)


def from_similarity(similarity: np.ndarray, text_lengths, video_lengths):
    """Embeddings whose dot products are the given (sentences, clips) matrix: rows against one-hot clips."""
    rows = list(torch.from_numpy(similarity).double().split(list(text_lengths)))
    clips = list(torch.eye(similarity.shape[1], dtype=torch.float64).split(list(video_lengths)))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True),
        pad(clips, batch_first=True),
        torch.tensor(text_lengths),
        torch.tensor(video_lengths),
    )


@pytest.mark.parametrize("case", ["full/cosine_like", "full/dot", "bg/typical", "bg/short_video"])
def test_cap_avg_agrees_with_the_released_code(case: str):
    name = "sim_text_by_clip" if case.startswith("full") else "sim_text_by_window"
    lens = (GOLDEN[f"{case}/lens"],) * 2 if case.startswith("full") else None
    text_lengths, video_lengths = lens or (GOLDEN[f"{case}/text_lengths"], GOLDEN[f"{case}/video_lengths"])
    inputs = from_similarity(GOLDEN[f"{case}/{name}"], text_lengths, video_lengths)
    score = score_pairs(*inputs, measures=["cap_avg"], similarity="dot", keep_ratio=1.3)["cap_avg"]
    np.testing.assert_allclose(score.numpy(), GOLDEN[f"{case}/score_cap_avg"], rtol=1e-5, atol=1e-5)


def plain_score(a, b, measure: str, *, similarity: str, normalize: bool, keep_ratio: float | None) -> float:
    if similarity == "cosine":
        a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    cost = 1 - a @ b.T
    if measure == "cap_avg":
        return float((1 - cost).max(dim=1).values.mean())
    if keep_ratio is not None:
        count = min(max(int(keep_ratio * len(a)), len(a)), len(b))
        lowest = cost.min(dim=0).values.tolist()
        chosen = sorted(sorted(range(len(b)), key=lambda column: lowest[column])[:count])
        cost = cost[:, chosen]
    distance = dtw(cost, impl="reference") if measure == "dtw" else otam(cost, both_ways=True, impl="reference")
    return -float(distance) / (cost.numel() if normalize else 1)


@pytest.mark.parametrize("keep_ratio", [None, 1.3, 0.5, 9.0])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("normalize", [True, False])
def test_scores_are_those_of_one_pair_at_a_time(keep_ratio, similarity, normalize, monkeypatch):
    a, a_lengths = ragged([3, 1, 5], 6, seed=0)
    b, b_lengths = ragged([4, 9, 1, 2], 6, seed=1)
    options = {"similarity": similarity, "normalize_length": normalize, "keep_ratio": keep_ratio}
    scores = score_pairs(a, b, a_lengths, b_lengths, measures=["cap_avg", "dtw", "otam"], **options)
    for measure, matrix in scores.items():
        assert matrix.shape == (3, 4)
        for p, n in enumerate(a_lengths):
            for v, m in enumerate(b_lengths):
                expected = plain_score(
                    a[p, :n], b[v, :m], measure, similarity=similarity, normalize=normalize, keep_ratio=keep_ratio
                )
                assert float(matrix[p, v]) == pytest.approx(expected, rel=1e-5, abs=1e-5), (measure, p, v)
    monkeypatch.setattr(scores_module, "MEMORY_CELLS", 1)
    again = score_pairs(a, b, a_lengths, b_lengths, measures=["dtw"], **options)
    torch.testing.assert_close(
        again["dtw"], scores["dtw"], rtol=0, atol=1e-12
    )  # the size of a product may reorder its sums


def test_windows_are_chosen_by_their_best_sentence_and_kept_in_time_order():
    """Note [Windows back in time order] in scores.py."""
    highest = [0.1, 0.9, 0.5, 0.9, 0.3]
    close = torch.zeros(1, 1, 3, 5)
    close[0, 0, 1] = torch.tensor(highest)
    for count, expected in [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])]:
        kept = keep_windows(close, torch.tensor([5]), torch.tensor([[count]]))
        assert kept.shape == (1, 1, 3, count)
        torch.testing.assert_close(kept[0, 0, 1], torch.tensor([highest[i] for i in expected]))
    short = keep_windows(close, torch.tensor([2]), torch.tensor([[2]]))
    assert short[0, 0, 1].tolist() == pytest.approx([0.1, 0.9])  # padded windows are never chosen


def test_similarities_beyond_the_lengths_repeat_the_last_unit():
    """Note [Padding by repetition] in scores.py."""
    a, a_lengths = ragged([3, 1], 6, seed=0)
    b, b_lengths = ragged([2, 4, 1], 6, seed=1)
    ((columns, close),) = similarity_chunks(a, b, a_lengths, b_lengths, similarity="dot")
    assert columns == slice(0, 3) and close.shape == (2, 3, 3, 4)
    for p, n in enumerate(a_lengths.tolist()):
        for v, m in enumerate(b_lengths.tolist()):
            rows, clips = [min(i, n - 1) for i in range(3)], [min(j, m - 1) for j in range(4)]
            torch.testing.assert_close(close[p, v], a[p, rows] @ b[v, clips].T)


@pytest.mark.parametrize(("num_sentences", "num_windows", "expected"), [(3, 9, 3), (4, 9, 5), (10, 13, 13), (5, 4, 4)])
def test_a_pair_keeps_at_least_one_window_a_sentence_and_at_most_all(num_sentences, num_windows, expected):
    """The score is divided by the kept windows: those of the best ``expected`` ones give it, fewer or more do not."""
    a, n = ragged([num_sentences], 4, seed=0)
    b, m = ragged([num_windows], 4, seed=1)
    cost = 1 - torch.nn.functional.normalize(a[0], dim=-1) @ torch.nn.functional.normalize(b[0], dim=-1).T
    for ratio, count in ((1.3, expected), (0.1, min(num_sentences, num_windows))):
        chosen = cost.min(dim=0).values.argsort()[:count].sort().values
        found = score_pairs(a, b, n, m, measures=["dtw"], keep_ratio=ratio)["dtw"]
        assert found.item() == pytest.approx(-float(dtw(cost[:, chosen])) / (num_sentences * count))


def test_combination_is_the_sum_of_standardised_scores():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 5, generator=generator), 100 * torch.rand(4, 5, generator=generator) + 7
    expected = sum((s - s.mean()) / s.std(unbiased=False) for s in (x, y))
    torch.testing.assert_close(combine([x, y]), expected)
    torch.testing.assert_close(combine([3 * x + 1, y / 9]), expected)
    assert torch.equal(combine([x]), x)
    torch.testing.assert_close(combine([x, torch.full_like(x, 0.3)]), (x - x.mean()) / x.std(unbiased=False))


@pytest.mark.parametrize(
    ("duration", "window", "stride", "expected"),
    [
        (6.0, 2.0, 2.0, [(0, 2), (2, 4), (4, 6)]),
        (5.0, 2.0, 2.0, [(0, 2), (2, 4), (4, 5)]),
        (1.0, 16.0, 16.0, [(0, 1)]),
        (4.0, 3.0, 1.0, [(0, 3), (1, 4)]),
        (0.9, 0.3, 0.3, [(0, 0.3), (0.3, 0.6), (0.6, 0.9)]),
    ],
)
def test_windows_cover_the_whole_video(duration, window, stride, expected):
    spans = window_spans(duration, window_seconds=window, stride_seconds=stride)
    assert [value for span in spans for value in span] == pytest.approx([value for span in expected for value in span])
