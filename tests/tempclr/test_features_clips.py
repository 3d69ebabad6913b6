"""Encoders of clips: thirty frames to one vector, as the released features were made, and any other such encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEModel

from tempclr.cli import main
from tempclr.data.backbones import load_backbone
from tempclr.data.extractor import FeatureExtractor, FeatureRecipe
from tempclr.data.features import extract_features
from tempclr.data.pixels import Preprocessing
from tempclr.data.rows import dataset_recipe, load_rows
from tempclr.data.video import iterate_frames, write_video
from tempclr.errors import InputError
from tempclr.models.s3d import S3DConfig, S3DModel, S3DProcessor

VIDEO = {"stem_sizes": [4, 4, 6], "stages": [[[2] * 6]] * 3, "projection_dim": 5}
TEXT = {"vocab_size": 9, "embedding_size": 4, "hidden_size": 7, "projection_dim": 5}


def save_s3d(folder, *, seed=0, **settings):
    """A narrow S3D-G whose vectors differ from clip to clip."""
    torch.manual_seed(seed)
    model = S3DModel(S3DConfig(text_config=TEXT, video_config=VIDEO))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.1), module.running_var.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    S3DProcessor(**settings).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """With the frames, rate and sizes of the release."""
    return save_s3d(tmp_path_factory.mktemp("s3d"))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return save_s3d(tmp_path_factory.mktemp("s3d"), num_frames=4, fps=8, size=32, crop_size=32)


def noise(num_frames, height=40, width=56, seed=0):
    small = np.random.default_rng(seed).integers(0, 255, (num_frames, height // 8, width // 8, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def test_the_released_recipe_is_read_off_the_folder(released):
    backbone = load_backbone(released)
    assert backbone.preprocessing == Preprocessing(224, (224, 224), (0.0,) * 3, (1.0,) * 3, "bicubic")
    assert (backbone.frames_per_clip, backbone.frames_per_second, backbone.num_features) == (30, 30, 5)
    recipe = FeatureRecipe.of(backbone)
    assert (recipe.frames_per_second, recipe.features_per_second, recipe.l2_normalize) == (30.0, 1.0, True)
    assert (recipe.frames_per_clip, recipe.clips_per_second, recipe.pooling) == (30, 1.0, "video_features")
    assert FeatureRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert "frames_per_clip" not in FeatureRecipe("b", "", 2.0).to_dict()


def test_a_second_is_a_clip_of_thirty_frames(tmp_path, released):
    """Thirty frames a second, shorter side 224, the middle square, values / 255, the last clip filled up with black."""
    write_video(tmp_path / "a.mp4", noise(32, 232, 240), frames_per_second=25)
    features = FeatureExtractor(FeatureRecipe.of(load_backbone(released)), device="cpu").extract(tmp_path / "a.mp4")
    frames = np.stack([frame for _, frame in iterate_frames(tmp_path / "a.mp4", frames_per_second=30)])
    clips = S3DProcessor()(videos=frames)["pixel_values_videos"]
    assert clips.shape[1:] == (30, 3, 224, 224) and len(clips) == len(features) == 2
    with torch.inference_mode():
        expected = S3DModel.from_pretrained(released).eval().get_video_features(clips).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=1)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_note_frames_or_clips(tmp_path, quick):
    """Note [Frames or clips]: another family, whose configuration alone tells the number of frames."""
    torch.manual_seed(0)
    part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = VideoMAEConfig(**part, image_size=32, patch_size=16, num_frames=4, tubelet_size=2)
    model = VideoMAEModel(config).eval()
    model.save_pretrained(tmp_path / "videomae")
    settings = {"size": {"shortest_edge": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "videomae" / "video_preprocessor_config.json").write_text(json.dumps(settings))
    backbone = load_backbone(str(tmp_path / "videomae"))
    assert (backbone.frames_per_clip, backbone.frames_per_second) == (4, None)
    assert backbone.pooling == "mean_last_hidden_state"
    recipe = FeatureRecipe.of(backbone, features_per_second=2, l2_normalize=False)
    assert (recipe.frames_per_second, recipe.clips_per_second) == (8.0, 2.0)
    frames = noise(8, 32, 32)
    features = FeatureExtractor(recipe, device="cpu", batch_size=5).extract(frames, frames_per_second=8)
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.inference_mode():
        expected = model(pixels.unflatten(0, (2, 4))).last_hidden_state.mean(1)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)
    other = tmp_path / "whole"
    save_s3d(other)
    processor = json.loads((other / "processor_config.json").read_text())
    (other / "processor_config.json").write_text(json.dumps({"video_processor": {**processor, "num_frames": 6}}))
    assert load_backbone(str(other), image_size=32).frames_per_clip == 6


def test_clips_that_begin_in_a_span_are_averaged(quick):
    backbone = load_backbone(quick)
    frames = noise(20, 32, 32)
    two = FeatureRecipe.of(backbone, features_per_second=2, l2_normalize=False)
    each = FeatureExtractor(two, device="cpu").extract(frames, frames_per_second=8)
    one = FeatureRecipe.of(backbone, l2_normalize=False)
    mean = FeatureExtractor(one, device="cpu", batch_size=100).extract(frames, frames_per_second=8)
    assert len(each) == 5 and len(mean) == 3
    np.testing.assert_allclose(mean, [each[0:2].mean(0), each[2:4].mean(0), each[4]], atol=1e-6)


def test_batches_hold_whole_clips(quick):
    recipe = FeatureRecipe.of(load_backbone(quick))
    for batch_size, sizes in [(1, [4, 4, 4]), (7, [4, 4, 4]), (8, [8, 4]), (100, [12])]:
        extractor = FeatureExtractor(recipe, device="cpu", batch_size=batch_size)
        batches = list(extractor.prepare(noise(10), frames_per_second=8))
        assert [len(batch) for batch in batches] == sizes
        assert not batches[-1][-2:].any() and batches[-1][-3].any()


def test_bfloat16_agrees_to_its_digits(quick):
    recipe = FeatureRecipe.of(load_backbone(quick))
    exact = FeatureExtractor(recipe, device="cpu").extract(noise(30), frames_per_second=8)
    rough = FeatureExtractor(recipe, device="cpu", precision="bfloat16").extract(noise(30), frames_per_second=8)
    assert rough.dtype == np.float32 and not np.array_equal(exact, rough)
    assert (exact * rough).sum(axis=1).min() > 0.999
    with pytest.raises(InputError, match="precision must be"):
        FeatureExtractor(recipe, device="cpu", precision="float16")


def test_other_clips_are_another_recipe(tmp_path, quick):
    backbone = load_backbone(quick)
    recipe = FeatureRecipe.of(backbone)
    values = {**recipe.to_dict(), "frames_per_clip": 8}
    with pytest.raises(InputError, match=r'expected {"frames_per_clip": 8}, found {"frames_per_clip": 4}'):
        FeatureExtractor(FeatureRecipe.from_dict(values), backbone=backbone)
    with pytest.raises(InputError, match=r"some features would have no clip of 4 frames: 8.0 frames for 3.0"):
        FeatureRecipe.of(backbone, features_per_second=3)
    for number in (0, True, 2.0):
        with pytest.raises(InputError, match="frames_per_clip"):
            FeatureRecipe.from_dict({**values, "frames_per_clip": number})
    with pytest.raises(InputError, match=r"clips of 4 images of 33 x 33 pixels"):
        load_backbone(quick, image_size=33)


def test_the_command_on_clips_goes_on_and_is_checked(tmp_path, quick, capsys):
    for number in range(3):
        write_video(tmp_path / "videos" / f"v{number}.mp4", noise(25, seed=number), frames_per_second=10)
    rows = [
        {"video_id": f"v{n}", "video": f"videos/v{n}.mp4", "sentences": ["a", "b"], "starts": [0, 1], "ends": [1, 2.5]}
        for n in range(3)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["extract", "--videos", str(tmp_path / "train.jsonl"), "--backbone", quick, "--device", "cpu"]
    words += ["--output", str(tmp_path / "out"), "--dtype", "float16"]
    assert main(words) == 0
    assert "3 videos extracted, 0 already there" in capsys.readouterr().out
    recipe = dataset_recipe(tmp_path / "out")
    assert recipe["frames_per_clip"] == 4 and recipe["frames_per_second"] == 8.0
    features = np.load(tmp_path / "out" / "features" / "v1.npy")
    assert features.dtype == np.float16 and features.shape == (3, 5)
    np.testing.assert_allclose(np.linalg.norm(features.astype(np.float32), axis=1), 1, atol=2e-3)
    (tmp_path / "out" / "features" / "v1.npy").unlink()
    assert main(words) == 0
    assert "1 videos extracted, 2 already there" in capsys.readouterr().out
    assert load_rows(tmp_path / "out").num_rows == 3
    assert main([*words, "--frames_per_second", "16"]) == 2
    assert 'expected {"frames_per_second": 16.0}, found {"frames_per_second": 8.0}' in capsys.readouterr().err


def test_workers_do_not_change_features_of_clips(tmp_path, quick):
    for number in range(3):
        write_video(tmp_path / "videos" / f"v{number}.mp4", noise(25, seed=number), frames_per_second=10)
    for num_workers in (1, 3):
        extract_features(
            tmp_path / "videos",
            output_dir=tmp_path / str(num_workers),
            backbone=quick,
            device="cpu",
            num_workers=num_workers,
            show_progress_bar=False,
        )
    for number in range(3):
        one, three = (tmp_path / str(n) / "features" / f"v{number}.npy" for n in (1, 3))
        assert one.read_bytes() == three.read_bytes()


def test_frames_are_close_to_those_of_ffmpegs_filters(tmp_path, released):
    """The released frames came from ffmpeg's fps and scale filters, which work on the colours of the file."""
    av = pytest.importorskip("av")
    row, column = np.ogrid[:240, :320]
    waves = [np.sin(row / 9 + n / 4) + np.cos(column / 7 - n / 5) for n in range(20)]
    frames = (127 + 60 * np.stack([waves, np.multiply(waves, 0.9), np.multiply(waves, 0.8)], -1)).astype(np.uint8)
    write_video(tmp_path / "a.mp4", frames, frames_per_second=30)
    recipe = FeatureRecipe.of(load_backbone(released))
    ours = torch.cat(list(FeatureExtractor(recipe, device="cpu").prepare(tmp_path / "a.mp4")))[:20]
    theirs = []
    with av.open(str(tmp_path / "a.mp4")) as container:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        last = source
        for name, words in [("fps", "30"), ("scale", "298:224"), ("crop", "224:224:37:0"), ("format", "rgb24")]:
            following = graph.add(name, words)
            last.link_to(following)
            last = following
        last.link_to(graph.add("buffersink"))
        graph.configure()
        for frame in [*container.decode(video=0), None]:
            graph.push(frame)
            while True:
                try:
                    theirs.append(graph.pull().to_ndarray())
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    difference = np.abs(ours.permute(0, 2, 3, 1).numpy().astype(int) - np.stack(theirs).astype(int))
    assert difference.mean() < 1.5 and np.percentile(difference, 99) <= 4
