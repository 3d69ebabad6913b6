"""When each sentence happens: the spans of each measure, on costs made so that the answer is known."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from tempclr import inference
from tempclr.errors import InputError
from tempclr.inference import Alignment, align
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel

STEPS = ["peel", "fry", "serve"]
TINY = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}


@pytest.fixture
def model(monkeypatch) -> TempCLRModel:
    """A model whose sentences are three axes, and whose features are their own hidden states."""
    config = TempCLRConfig(
        text_config={**TINY, "vocab_size": 9}, video_config={**TINY, "feature_size": 4}, cosine_eps=0.0
    )
    monkeypatch.setattr(inference, "encode_text", lambda model, sentences, **options: torch.eye(4)[: len(sentences)])
    monkeypatch.setattr(inference, "feature_hidden_states", lambda model, array, **options: torch.from_numpy(array))
    return TempCLRModel(config)


def video(*axes: int) -> np.ndarray:
    """One feature a second along the given axis; axis 3 is like no sentence."""
    return np.eye(4, dtype=np.float32)[list(axes)]


def times(alignment: Alignment) -> list[tuple[float | None, float | None]]:
    return [(span["start_seconds"], span["end_seconds"]) for span in alignment.spans]


def test_dtw_gives_each_moment_to_one_sentence(model):
    alignment = align(model, video(0, 0, 1, 1, 1, 2), STEPS, features_per_second=1.0)
    assert times(alignment) == [(0, 2), (2, 5), (5, 6)]
    assert [span["sentence"] for span in alignment.spans] == STEPS
    assert [span["similarity"] for span in alignment.spans] == [1.0, 1.0, 1.0]
    assert (alignment.duration, alignment.measure, alignment.video) == (6.0, "dtw", None)
    assert torch.equal(alignment.path.sum(0), torch.ones(6))


def test_times_follow_the_rate(model):
    alignment = align(model, video(0, 0, 1, 1, 1, 2), STEPS, features_per_second=2.5)
    assert times(alignment) == [(0, 0.8), (0.8, 2.0), (2.0, 2.4)]


def test_the_rate_of_the_recipe_is_the_default(model):
    model.config.video_config.feature_recipe = {"features_per_second": 0.5}
    assert align(model, video(0, 1, 2), STEPS).duration == 6.0


def test_shared_features_are_divided():
    """Note [Shared features]: fewer features than sentences, so some second belongs to several of them in turn."""
    path = torch.tensor([[1, 0], [1, 0], [1, 1]])
    spans = inference._spans(STEPS, torch.zeros(3, 2), path, features_per_second=2.0, duration=0.8)
    seconds = [time for span in spans for time in (span["start_seconds"], span["end_seconds"])]
    assert seconds == pytest.approx([0, 0.5 / 3, 0.5 / 3, 1 / 3, 1 / 3, 0.8])


@pytest.mark.parametrize("num_features", [1, 2, 3, 7])
def test_dtw_leaves_no_gap_and_no_empty_sentence(model, num_features):
    array = np.random.default_rng(0).normal(size=(num_features, 4)).astype(np.float32)
    spans = times(align(model, array, STEPS, features_per_second=3.0))
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(num_features / 3)
    assert all(end == pytest.approx(start) for (_, end), (start, _) in pairwise(spans))
    assert all(end > start for start, end in spans)


def test_otam_leaves_out_sentences_at_both_ends(model):
    alignment = align(model, video(1, 1, 1), STEPS, measure="otam", features_per_second=1.0)
    assert times(alignment) == [(None, None), (0, 3), (None, None)]
    assert alignment.spans[0]["similarity"] is None


def test_localize_picks_one_feature_a_sentence(model):
    alignment = align(model, video(3, 0, 3, 3, 1, 2, 3), STEPS, measure="localize", features_per_second=1.0)
    assert times(alignment) == [(1, 2), (4, 5), (5, 6)]
    assert alignment.path.sum() == 3
    with pytest.raises(ValueError, match="3 steps need at least as many frames, got 2"):
        align(model, video(0, 1), STEPS, measure="localize", features_per_second=1.0)


def test_localize_takes_raw_products_where_the_model_does(model):
    array = np.array([[9, 0, 0, 0], [1, 0.2, 0, 0], [0, 5, 0, 0]], dtype=np.float32)
    model.config.similarity = "dot"
    alignment = align(model, array, STEPS[:2], measure="localize", features_per_second=1.0)
    assert times(alignment) == [(0, 1), (2, 3)]


def test_json_holds_all_but_the_matrices(model):
    alignment = align(model, video(0, 1, 2), STEPS, measure="otam", features_per_second=1.0)
    plain = json.loads(alignment.to_json())
    assert set(plain) == {"video", "duration", "measure", "features_per_second", "spans"}
    assert plain["spans"] == alignment.spans


def test_plot_draws_the_alignment(model, tmp_path):
    alignment = align(model, video(0, 1, 2), STEPS, features_per_second=1.0)
    figure = alignment.plot(true_spans=[(0, 1), (1, 2), (2, 3)], path=tmp_path / "picture.png")
    assert figure.axes
    assert (tmp_path / "picture.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("sentences", "options", "message"),
    [
        (STEPS, {"measure": "cap_avg"}, "measure must be one of dtw, otam, localize, got 'cap_avg'"),
        ([], {"features_per_second": 1.0}, "there is no sentence to align"),
        (STEPS, {}, "does not record how many features a second it takes: give features_per_second"),
    ],
)
def test_mistakes_are_named(model, sentences, options, message):
    with pytest.raises(InputError, match=message):
        align(model, video(0, 1, 2), sentences, **options)
