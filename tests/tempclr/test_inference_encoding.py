"""Vectors of sentences, clips and features: order, batching, devices, modes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tempclr import inference
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.inference import (
    encode_clips,
    encode_cut_clips,
    encode_text,
    encode_video,
    feature_hidden_states,
    hidden_states_of_videos,
    similarity,
)
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
from tempclr_kernels import dtw, otam

SENTENCES = ["peel the onion", "fry", "add salt and the onion to the oil", "stir it"]
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def model() -> TempCLRModel:
    tokenizer = train_tokenizer(SENTENCES)
    config = TempCLRConfig(
        text_config={**TINY, "vocab_size": len(tokenizer)},
        video_config={**TINY, "feature_size": 3, "max_num_features": 4},
    )
    model = TempCLRModel(config)
    model.processor = TempCLRProcessor(tokenizer)
    return model


def features(length: int) -> np.ndarray:
    return np.random.default_rng(length).normal(size=(length, 3)).astype(np.float32)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_text_keeps_its_order_in_any_batches(model, batch_size):
    actual = encode_text(model, SENTENCES, batch_size=batch_size)
    model.eval()
    expected = torch.cat([model.get_text_features(**model.processor(text=one)).pooler_output for one in SENTENCES])
    close(actual, expected.detach())
    assert actual.dtype == torch.float32


def test_one_sentence_and_none(model):
    assert encode_text(model, "fry").shape == (1, 16)
    assert encode_text(model, []).shape == (0, 16)


def test_results_are_ordinary_tensors_and_modes_come_back(model):
    model.text_model.embeddings.eval()
    before = [module.training for module in model.modules()]
    vectors = encode_text(model, SENTENCES)
    assert [module.training for module in model.modules()] == before
    assert not vectors.requires_grad
    assert not vectors.is_inference()
    weight = torch.ones(16, requires_grad=True)
    (vectors @ weight).sum().backward()
    assert torch.equal(encode_text(model, SENTENCES), vectors)


def test_modes_come_back_after_an_error(model):
    def fail(*arguments, **options):
        raise RuntimeError("no")

    model.get_text_features = fail
    with pytest.raises(RuntimeError, match="no"):
        encode_text(model, SENTENCES)
    assert all(module.training for module in model.modules())


def test_bfloat16_models_give_float32(model):
    assert encode_text(model.to(torch.bfloat16), SENTENCES).dtype == torch.float32


def test_progress_bar_is_optional(model, capsys):
    encode_text(model, SENTENCES)
    encode_video(model, features(9))
    assert capsys.readouterr().err == ""
    encode_text(model, SENTENCES, show_progress_bar=True)
    encode_video(model, features(9), show_progress_bar=True)
    shown = capsys.readouterr().err
    assert "encode text: 100%" in shown
    assert "encode video: 100%" in shown


def test_text_needs_a_processor(model):
    model.processor = None
    with pytest.raises(InputError, match=r"no processor.*model.processor = TempCLRProcessor\(tokenizer\)"):
        model.encode_text(SENTENCES)


def test_batch_size_is_checked(model):
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        encode_text(model, SENTENCES, batch_size=0)


def test_sentences_must_be_strings(model):
    with pytest.raises(InputError, match="sentences must be strings, entry 1 is int"):
        encode_text(model, ["fry", 3])


def test_clips_are_the_features_their_spans_touch(model):
    array = features(10)
    spans = [(0.0, 2.0), (4.5, 4.9), (0.0, 10.0), (9.5, 30.0)]
    actual = encode_clips(model, array, spans, features_per_second=1.0, batch_size=2)
    model.eval()
    rows = [array[:2], array[4:5], array[:4], array[9:]]
    expected = [model.get_video_features(torch.from_numpy(row)[None]).pooler_output[0] for row in rows]
    close(actual, torch.stack(expected).detach())
    twice = encode_clips(model, array, [(0.0, 1.0)], features_per_second=2.0)
    close(twice, actual[:1])
    assert encode_clips(model, array, [], features_per_second=1.0).shape == (0, 16)


def test_video_is_cut_into_consecutive_clips(model):
    array = features(9)
    actual = model.encode_video(torch.from_numpy(array), batch_size=2)
    spans = [(0.0, 4.0), (4.0, 8.0), (8.0, 9.0)]
    close(actual, encode_clips(model, array, spans, features_per_second=1.0))


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((3, 4)), r"non-empty \(T, 3\) array for this model, got shape \(3, 4\)"),
        (np.zeros((0, 3)), r"got shape \(0, 3\)"),
        (np.zeros(3), r"video must be a file, uint8 frames.*got shape \(3,\)"),
        (
            np.zeros((2, 4, 4, 3), np.uint8),
            r"does not record how its features are made \(video_config.feature_recipe\)",
        ),
        ("film.mp4", "does not record how its features are made"),
    ],
)
def test_other_videos_are_refused(model, video, message):
    with pytest.raises(InputError, match=message):
        encode_video(model, video)


def test_a_list_of_videos_gives_a_list(model, capsys):
    videos = [features(length) for length in (9, 1, 4)]
    encoded = model.encode_video(videos, batch_size=2, show_progress_bar=True)
    assert "encode videos: 100%" in capsys.readouterr().err
    assert [len(one) for one in encoded] == [3, 1, 1]
    for video, one in zip(videos, encoded, strict=True):
        close(one, encode_video(model, video))
    assert model.encode_video([]) == []
    with pytest.raises(InputError, match=r"video 1 of 2: features must be a non-empty \(T, 3\) array"):
        model.encode_video([features(2), features(2)[:, :1]])
    with pytest.raises(InputError, match=r"video 0 of 2: video must be a file.*got int"):
        model.encode_video([1, 2])


def test_arrays_instead_of_tensors(model):
    sentences = model.encode_text(SENTENCES, convert_to_numpy=True)
    assert isinstance(sentences, np.ndarray) and sentences.dtype == np.float32
    np.testing.assert_array_equal(sentences, model.encode_text(SENTENCES).numpy())
    assert model.encode_text([], convert_to_numpy=True).shape == (0, 16)
    videos = model.encode_video([features(9), features(4)], convert_to_numpy=True)
    assert [type(one) for one in videos] == [np.ndarray, np.ndarray]
    np.testing.assert_array_equal(model.encode_video(features(9), convert_to_numpy=True), videos[0])
    found = model.similarity([sentences], videos, measure="dtw", convert_to_numpy=True)
    assert isinstance(found, np.ndarray) and found.shape == (1, 2)
    np.testing.assert_array_equal(found, model.similarity([sentences], videos, measure="dtw").numpy())


@pytest.mark.parametrize(("length", "window", "stride"), [(9, None, None), (4, None, None), (2, None, 1), (7, 3, 3)])
def test_hidden_states_are_means_over_windows(model, length, window, stride):
    array = features(length)
    actual = feature_hidden_states(model, array, window=window, stride=stride, batch_size=2)
    model.eval()
    window, stride = window or 4, stride or 2
    states: list[list[torch.Tensor]] = [[] for _ in range(length)]
    first = 0
    while True:
        rows = torch.from_numpy(array[first : first + window])
        for offset, state in enumerate(model.get_video_features(rows[None]).last_hidden_state[0].detach()):
            states[first + offset].append(state)
        if first + window >= length:
            break
        first += stride
    close(actual, torch.stack([torch.stack(own).mean(0) for own in states]))


def test_videos_that_share_batches_give_what_each_gives_alone(model):
    """One of them has no clip; batches of two end in the midst of videos, and hold clips of other lengths."""
    videos = [features(length) for length in (9, 2, 1, 7)]
    clips = [[videos[0][:2], videos[0][4:5], videos[0][3:7]], [], [videos[2]], [videos[3][1:4], videos[3][6:]]]
    for own, found in zip(clips, encode_cut_clips(model, clips, batch_size=2), strict=True):
        assert found.shape == (len(own), 16)
        for clip, vector in zip(own, found, strict=True):
            close(vector, encode_cut_clips(model, [[clip]])[0][0])
    assert encode_cut_clips(model, []) == hidden_states_of_videos(model, []) == []
    for video, found in zip(videos, hidden_states_of_videos(model, videos, batch_size=2), strict=True):
        close(found, feature_hidden_states(model, video, batch_size=1))


def test_the_windows_of_long_videos_are_not_held_together(model, monkeypatch):
    """A batch of two has room for 8 features: the first video is longer, the two behind it fit together."""
    held = []
    original = inference._run_clips
    monkeypatch.setattr(
        inference, "_run_clips", lambda *given, **options: (held.append(len(given[1])), original(*given, **options))[1]
    )
    hidden_states_of_videos(model, [features(length) for length in (9, 2, 1, 7)], batch_size=2)
    assert held == [1, 2, 1]


def test_windows_leave_nothing_out(model):
    with pytest.raises(InputError, match="window must be from 1 to the model's 4 positions, got 5"):
        feature_hidden_states(model, features(9), window=5)
    with pytest.raises(InputError, match="stride must be from 1 to the window of 3, got 4"):
        feature_hidden_states(model, features(9), window=3, stride=4)


def test_similarity_of_vectors(model):
    a, b = torch.randn(3, 16), torch.randn(2, 16)
    close(similarity(a, b, measure="dot"), a @ b.T)
    close(similarity(a, b), torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T)
    assert torch.equal(model.similarity(a.numpy(), b), similarity(a, b))


def test_similarity_of_sequences(model):
    a = [torch.randn(length, 16) for length in (3, 1)]
    b = [torch.randn(length, 16) for length in (2, 4, 3)]
    for measure in ("dtw", "otam"):
        actual = model.similarity(a, b, measure=measure)
        for row, own in enumerate(a):
            for column, other in enumerate(b):
                cost = 1 - similarity(own, other)
                distance = dtw(cost) if measure == "dtw" else otam(cost, both_ways=True)
                torch.testing.assert_close(actual[row, column], -distance, rtol=1e-4, atol=1e-5)
    best = torch.stack([torch.stack([similarity(own, other).amax(1).mean() for other in b]) for own in a])
    torch.testing.assert_close(similarity(a, b, measure="cap_avg"), best, rtol=1e-4, atol=1e-5)
    assert similarity(a[0], b, measure="dtw").shape == (1, 3)


@pytest.mark.parametrize("measure", ["dtw", "otam", "cap_avg"])
def test_sequences_are_compared_in_batches(model, measure, capsys):
    a = [torch.randn(length, 16) for length in (3, 1, 4, 2, 2)]
    b = [torch.randn(length, 16) for length in (2, 4)]
    whole = similarity(a, b, measure=measure)
    assert capsys.readouterr().err == ""
    close(similarity(a, b, measure=measure, batch_size=2, show_progress_bar=True), whole)
    assert "similarity: 100%" in capsys.readouterr().err


def test_similarities_of_nothing():
    for measure in ("cosine", "dtw"):
        assert similarity([], [], measure=measure).shape == (0, 0)
    assert similarity(torch.zeros(0, 4), torch.eye(4)).shape == (0, 4)
    assert similarity([torch.eye(4)], [], measure="otam").shape == (1, 0)


@pytest.mark.parametrize(
    ("a", "measure", "message"),
    [
        ([torch.eye(4), torch.eye(4)[:2]], "cosine", "'cosine' compares vectors, got a list of sequences: dtw, otam"),
        (torch.ones(4), "dot", r"'dot' compares vectors, \(n, d\); got shape \(4,\)"),
        ([torch.ones(4)], "dtw", r"'dtw' compares sequences.*entry 0 has shape \(4,\)"),
        ([torch.eye(4), torch.zeros(0, 4)], "otam", r"entry 1 has shape \(0, 4\)"),
    ],
)
def test_vectors_and_sequences_are_told_apart(a, measure, message):
    with pytest.raises(InputError, match=message):
        similarity(a, torch.eye(4), measure=measure)


def test_a_list_of_vectors_will_do():
    assert torch.equal(similarity(list(torch.eye(3)), np.eye(3)), torch.eye(3))


def test_similarity_checks_its_batch_size():
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        similarity([torch.eye(2)], [torch.eye(2)], measure="dtw", batch_size=0)


def test_unknown_measures_are_named():
    with pytest.raises(InputError, match="measure must be one of cosine, dot, dtw, otam, cap_avg, got 'l2'"):
        similarity(torch.eye(2), torch.eye(2), measure="l2")


def test_files_and_frames_go_through_the_recipe(model, monkeypatch):
    """The extractor has tests of its own; here, that it gets the model's recipe and its features are used."""
    pytest.importorskip("tempclr.data.features")
    from tempclr.data import features as module

    made = []

    class Extractor:
        def __init__(self, recipe, *, device):
            made.append((recipe.backbone, str(device)))
            self.recipe = recipe

        def extract(self, video, *, frames_per_second=None):
            assert frames_per_second == (None if isinstance(video, str) else 8.0)
            return features(5)

    monkeypatch.setattr(module, "FeatureExtractor", Extractor)
    inference._extractor.cache_clear()
    recipe = {"backbone": "net", "backbone_sha256": "", "frames_per_second": 4.0, "features_per_second": 2.0}
    model.config.video_config.feature_recipe = recipe
    expected = encode_video(model, features(5))
    close(encode_video(model, "film.mp4"), expected)
    frames = np.zeros((18, 4, 4, 3), np.uint8)
    close(encode_video(model, frames, frames_per_second=8.0), expected)
    assert made == [("net", "cpu")]
    alignment = model.align(frames, ["fry", "stir it"], frames_per_second=8.0)
    assert (alignment.features_per_second, alignment.duration) == (2.0, 18 / 8)
    assert alignment.spans[-1]["end_seconds"] == 18 / 8
    with pytest.raises(InputError, match="frames need their frames_per_second"):
        encode_video(model, frames)
    with pytest.raises(InputError, match=r"features_per_second is 2\.0 by the recipe, got 1\.0"):
        model.align(frames, ["fry"], frames_per_second=8.0, features_per_second=1.0)
    inference._extractor.cache_clear()
