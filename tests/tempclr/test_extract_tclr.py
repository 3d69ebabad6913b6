"""What TCLR trained makes features: the same ones that the network gives for each second's clip by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from tempclr import TCLRConfig, TCLRForVideoClassification, TCLRModel, VideoResNetModel
from tempclr.cli import main
from tempclr.data.backbones import load_backbone
from tempclr.data.extractor import FeatureExtractor, FeatureRecipe
from tempclr.data.video import read_frames, write_video

RATE = 32


def make_config(**backbone):
    sizes = {"hidden_sizes": [4, 4, 6, 8, 10], "image_size": 32, "resize_size": 40}
    return TCLRConfig(backbone_config={**sizes, **backbone}, projection_size=5, num_labels=3)


@pytest.fixture(scope="module")
def frames():
    """A disc that moves over noise for three and a half seconds, in colour."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :40]
    video = generator.integers(0, 80, (112, 40, 40, 3), dtype=np.uint8)
    for number, frame in enumerate(video):
        disc = (rows - 20) ** 2 + (columns - 5 - number % 30) ** 2 < 30
        frame[disc] = (230, 120, 20)
    return video


def saved(folder, model_class, **backbone):
    torch.manual_seed(0)
    model = model_class(make_config(**backbone))
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm3d):
                norm.running_mean.normal_(std=0.1)
    model.backbone.save_pretrained(folder / "network")
    model.save_pretrained(folder / "whole")
    return model.eval().backbone


def expected_features(network, frames):
    """Every second 16 of the 32 frames, the middle 32 pixels of 40, values from 0 to 1; the last clip ends in black."""
    taken = frames[::2, 4:36, 4:36]
    taken = np.concatenate([taken, np.zeros((64 - len(taken), 32, 32, 3), dtype=np.uint8)])
    clips = torch.tensor(taken).float().div(255).permute(0, 3, 1, 2).unflatten(0, (4, 16))
    with torch.inference_mode():
        return functional.normalize(network(clips).pooler_output, dim=1).numpy()


@pytest.mark.parametrize("model_class", [TCLRModel, TCLRForVideoClassification])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_features_are_those_of_the_network(tmp_path, frames, model_class, channel_order):
    network = saved(tmp_path, model_class, channel_order=channel_order)
    expected = expected_features(network, frames)
    for folder in ("whole", "network"):
        backbone = load_backbone(str(tmp_path / folder))
        assert (backbone.frames_per_clip, backbone.frames_per_second, backbone.pooling) == (16, 16, "pooler_output")
        recipe = FeatureRecipe.of(backbone)
        assert recipe.mean == (0, 0, 0) and recipe.std == (1, 1, 1) and recipe.crop == (32, 32)
        found = FeatureExtractor(recipe, backbone=backbone).extract(frames, frames_per_second=RATE)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    other = "bgr" if channel_order == "rgb" else "rgb"
    reversed_network = VideoResNetModel.from_pretrained(tmp_path / "network", channel_order=other).eval()
    assert np.abs(expected_features(reversed_network, frames) - expected).max() > 1e-3


def test_the_command(tmp_path, frames, capsys):
    network = saved(tmp_path, TCLRModel)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "disc.mp4", frames, frames_per_second=RATE)
    command = ["extract", "--videos", str(tmp_path / "videos"), "--backbone", str(tmp_path / "whole")]
    assert main([*command, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0, capsys.readouterr().err
    decoded, _ = read_frames(tmp_path / "videos" / "disc.mp4", frames_per_second=RATE)
    found = np.load(tmp_path / "out" / "features" / "disc.npy")
    np.testing.assert_allclose(found, expected_features(network, np.asarray(decoded)), atol=1e-5)
