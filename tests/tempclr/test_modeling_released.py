"""The towers against outputs of the released code, recorded with a tiny model of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.inference import feature_hidden_states
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel

RECORDED = Path(__file__).parent / "data" / "released_tiny_model.npz"
CLS_ID, SEP_ID = 3, 4
SIZES = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    with np.load(RECORDED) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def released_model(recorded: dict[str, torch.Tensor], *, attend_cls: bool) -> TempCLRModel:
    """The released names differ by prefixes; [CLS] and [SEP] of the video tower are rows of BERT's word embeddings."""
    state = {}
    for name, value in recorded.items():
        if not name.startswith("weights/"):
            continue
        name = name.removeprefix("weights/").replace("text_encoder.", "text_model.")
        name = name.replace("video_encoder.videomlp.", "video_model.embeddings.video_mlp.")
        name = name.replace("video_encoder.bert.", "video_model.")
        if name == "video_model.embeddings.word_embeddings.weight":
            name, value = "video_model.embeddings.special_token_embeddings.weight", value[[CLS_ID, SEP_ID]]
        elif name == "video_model.embeddings.position_embeddings.weight":
            value = value[: 32 + 2]
        state[name] = value.float()
    config = TempCLRConfig(
        text_config={**SIZES, "vocab_size": 89, "num_hidden_layers": 4, "max_position_embeddings": 80},
        video_config={**SIZES, "num_hidden_layers": 2, "attend_cls": attend_cls},
    )
    model = TempCLRModel(config).eval()
    model.load_state_dict(state)
    return model


def without_second_sep(tokens: torch.Tensor) -> torch.Tensor:
    """The released code writes [CLS][SEP] words [SEP] and gives the text tower all but the first [SEP]."""
    return torch.cat([tokens[:, :1], tokens[:, 2:]], dim=1)


@torch.no_grad()
def test_pooled_vectors(recorded):
    output = released_model(recorded, attend_cls=True)(
        without_second_sep(recorded["pooled/caps"]),
        without_second_sep(recorded["pooled/cmasks"]),
        recorded["pooled/vfeats"],
        recorded["pooled/vmasks"],
    )
    torch.testing.assert_close(output.video_embeds, recorded["pooled/pooled_video"], rtol=0, atol=1e-5)
    torch.testing.assert_close(output.text_embeds, recorded["pooled/pooled_text"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_sliding_windows_do_not_attend_to_cls(recorded):
    features, mask = recorded["slide/feat"], recorded["slide/crosstask/vmasks"]
    windows = torch.zeros(3, 32, 512)
    windows[mask] = torch.cat([features[first : first + 32] for first in (0, 16, 32)])
    short = torch.nn.functional.pad(features, (0, 0, 0, 11)).unflatten(0, (4, 16))
    short_mask = torch.arange(64).unflatten(0, (4, 16)) < 53
    errors = {}
    for attend_cls in (False, True):
        model = released_model(recorded, attend_cls=attend_cls)
        states = model.get_video_features(windows, mask).last_hidden_state[mask]
        pooled = model.get_video_features(short, short_mask).pooler_output
        errors[attend_cls] = [
            (states - recorded["slide/crosstask/video_seq"]).abs().max().item(),
            (pooled - recorded["slide/bg/pooled_video"]).abs().max().item(),
        ]
    assert max(errors[False]) < 1e-5
    assert min(errors[True]) > 0.1


@torch.no_grad()
def test_sentences_of_a_sliding_evaluation(recorded):
    pooled = released_model(recorded, attend_cls=False).get_text_features(
        without_second_sep(recorded["slide/caps"]), without_second_sep(recorded["slide/cmasks"])
    )
    torch.testing.assert_close(pooled.pooler_output, recorded["slide/crosstask/pooled_text"], rtol=0, atol=1e-5)


def test_feature_hidden_states_average_the_released_windows(recorded):
    model = released_model(recorded, attend_cls=False)
    actual = feature_hidden_states(model, recorded["slide/feat"])
    seconds = torch.cat([torch.arange(0, 32), torch.arange(16, 48), torch.arange(32, 53)])
    count = torch.bincount(seconds).float()[:, None]
    expected = torch.zeros(53, 48).index_add(0, seconds, recorded["slide/crosstask/video_seq"]) / count
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
