"""Features of clips, similarity of timesteps and attention, on small real networks."""

from __future__ import annotations

import pytest
import torch

from tempclr.errors import InputError
from tempclr.evaluation.classification_features import (
    attention_maps,
    clip_features,
    clip_probabilities,
    slice_similarity,
    timestep_similarity,
    video_vectors,
)
from tempclr.models.tclr import TCLRConfig, TCLRForVideoClassification, TCLRModel

SIZES = {"variant": "r3d_10", "hidden_sizes": [2, 2, 4, 6, 8], "image_size": 16}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TCLRModel(TCLRConfig(backbone_config=SIZES, projection_size=5))


def clips(*shape):
    return torch.rand(*shape, 16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_features_are_the_backbones_own_in_evaluation_mode(model):
    pixels = clips(3, 2)
    model.train()
    found = clip_features(model.backbone, [{"pixel_values": pixels[:2]}, {"pixel_values": pixels[2:]}])
    assert model.backbone.training, "the mode is put back"
    model.eval()
    with torch.no_grad():
        expected = torch.stack([model.backbone(video).timestep_features for video in pixels])
    assert found.shape == (3, 2, 4, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    vectors = video_vectors(found)
    assert vectors.shape == (3, 32)
    # Channels come first: the four timesteps of a channel stand side by side.
    torch.testing.assert_close(vectors[0, :4], found[0].mean(dim=0)[:, 0])
    with pytest.raises(ValueError, match=r"pixel_values must be \(B, clips, T, 3, H, W\)"):
        clip_features(model.backbone, [{"pixel_values": pixels[0]}])


def test_batches_that_are_empty_are_passed_over_unless_all_are(model):
    batch = {"pixel_values": clips(2, 1)}
    found = clip_features(model.backbone, [None, batch, None])
    assert torch.equal(found, clip_features(model.backbone, [batch]))
    with pytest.raises(InputError, match="none of the videos could be used"):
        clip_features(model.backbone, [None, None])


def test_probabilities_of_clips_average_to_those_of_the_model():
    torch.manual_seed(0)
    model = TCLRForVideoClassification(TCLRConfig(backbone_config=SIZES, num_labels=3)).eval()
    pixels = clips(2, 4)
    found = clip_probabilities(model, [{"pixel_values": pixels}])
    with torch.no_grad():
        expected = model(pixels).logits.exp()
    torch.testing.assert_close(found.mean(dim=1), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 4))


def test_timesteps_are_compared_behind_the_head(model):
    batch = clips(3)
    found = timestep_similarity(model, [batch[:2], batch[2:]])
    model.eval()
    with torch.no_grad():
        output = model(batch[:, None].repeat(1, 2, 1, 1, 1, 1), batch[:, None, None].repeat(1, 2, 4, 1, 1, 1, 1))
    torch.testing.assert_close(found, slice_similarity(output.timestep_embeds[:, 0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.diagonal(), torch.ones(4))
    torch.testing.assert_close(found, found.T)
    with pytest.raises(ValueError, match=r"timesteps must be \(N, P, E\)"):
        slice_similarity(torch.zeros(4, 4))


def test_attention_is_the_power_of_activations(model):
    batch = clips(2)
    maps = attention_maps(model.backbone, batch)
    seen = []
    handle = model.backbone.layer3.register_forward_hook(lambda module, given, output: seen.append(output))
    model.eval()
    with torch.no_grad():
        model.backbone(batch)
    handle.remove()
    squares = (seen[0] ** 2).sum(dim=1)
    assert maps.shape == squares.shape and not model.backbone.layer3._forward_hooks
    for found, expected in zip(maps, squares, strict=True):
        assert (found.min(), found.max()) == (0.0, 1.0)
        torch.testing.assert_close(found, (expected - expected.min()) / (expected.max() - expected.min()))
    assert attention_maps(model.backbone, batch, layer="layer1", power=1).shape == (2, 16, 8, 8)


def test_attention_goes_where_something_is(model):
    """A bright square in a dark clip: with untrained weights and no bias, what is not there activates nothing."""
    batch = torch.zeros(1, 16, 3, 64, 64)
    batch[..., :16, 48:] = torch.rand(16, 3, 16, 16)
    found = attention_maps(model.backbone, batch, layer="layer2")[0].mean(dim=0)
    height, width = found.shape
    assert found[: height // 3, 2 * width // 3 :].mean() > 3 * found[height // 2 :, : width // 2].mean()
