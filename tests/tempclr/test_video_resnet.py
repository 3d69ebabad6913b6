"""The networks of clips: their shapes, their training, and what loading and folding must not change."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from tempclr import VideoResNetConfig, VideoResNetModel
from tempclr.models.video_resnet.modeling_video_resnet import mid_size

NETS = json.loads((Path(__file__).resolve().parents[1] / "tempclr_hub" / "data" / "tclr_nets.json").read_text())
VARIANTS = ("r3d_18", "r3d_10", "r2plus1d_18", "c3d")
SIZES = [4, 4, 6, 8, 10]


def small(variant="r3d_18", **fields):
    torch.manual_seed(0)
    model = VideoResNetModel(VideoResNetConfig(variant=variant, hidden_sizes=SIZES, **fields))
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm3d):
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.5, 2)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(std=0.1)
    return model.eval()


def clips(number=2, frames=16, size=32, seed=1):
    return torch.rand((number, frames, 3, size, size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_as_many_as_published(variant):
    with torch.device("meta"):
        model = VideoResNetModel(VideoResNetConfig(variant=variant))
    assert sum(value.numel() for value in model.parameters()) == NETS["num_parameters"][variant]


def test_c3d_has_the_tensors_of_the_published_one():
    with torch.device("meta"):
        model = VideoResNetModel(VideoResNetConfig(variant="c3d"))
    found = sorted(list(value.shape) for name, value in model.state_dict().items())
    assert found == sorted(NETS["keys"]["c3d"].values())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("tclr_conv5", "length"), [(True, 4), (False, 2)])
def test_the_changed_stage_keeps_four_places_in_time(variant, tclr_conv5, length):
    model = small(variant, tclr_conv5=tclr_conv5)
    output = model(clips(), output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 10, length, 2, 2)
    assert output.timestep_features.shape == (2, length, 10)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.mean(dim=(2, 3, 4)))
    torch.testing.assert_close(output.timestep_features, output.last_hidden_state.mean(dim=(3, 4)).mT)
    assert len(output.hidden_states) == 1 + sum(model.config.depths)
    assert output.hidden_states[-1] is not None and torch.equal(output.hidden_states[-1], output.last_hidden_state)


def test_two_layers_alone_are_changed():
    """The other convolutions of the last stage are not dilated, and the weights' shapes are the stock network's."""
    changed, stock = small(), small(tclr_conv5=False)
    assert {name: value.shape for name, value in changed.state_dict().items()} == {
        name: value.shape for name, value in stock.state_dict().items()
    }
    pairs = zip(changed.named_modules(), stock.modules(), strict=True)
    different = [
        name
        for (name, one), other in pairs
        if isinstance(one, torch.nn.Conv3d) and one.extra_repr() != other.extra_repr()
    ]
    assert different == ["layer4.0.conv1.0", "layer4.0.downsample.0"]
    first, shortcut = changed.layer4[0].conv1[0], changed.layer4[0].downsample[0]
    assert (first.stride, first.padding, first.dilation) == ((1, 2, 2), (2, 1, 1), (2, 1, 1))
    assert (shortcut.stride, shortcut.padding, shortcut.dilation) == ((1, 2, 2), (0, 0, 0), (1, 1, 1))


def test_middle_channels():
    """Note [Middle channels]."""
    with torch.device("meta"):
        model = VideoResNetModel(VideoResNetConfig(variant="r2plus1d_18"))
    found = [model.stem[0].out_channels]
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            second = block.conv2[0][0].out_channels
            first = block.conv1[0]
            assert isinstance(first, torch.nn.Conv3d) or first[0].out_channels == second
            found.append(second)
    assert found == [45, 144, 144, 230, 288, 460, 576, 921, 1152]
    assert isinstance(model.layer4[0].conv1[0], torch.nn.Conv3d)
    # As many numbers as the full convolution has, to one middle channel.
    for sizes in ((64, 64), (128, 256)):
        per_channel = 9 * sizes[0] + 3 * sizes[1]
        assert 0 <= 27 * sizes[0] * sizes[1] - mid_size(*sizes) * per_channel < per_channel


@pytest.mark.parametrize("variant", VARIANTS)
def test_folding_changes_nothing(variant):
    model = small(variant)
    expected = model(clips())
    folded = copy.deepcopy(model).fold_norms()
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    found = folded(clips())
    for name in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("variant", ["r2plus1d_18", "c3d"])
def test_checkpointing_trains_the_same_model(variant, use_reentrant):
    """Note [Recomputed statistics]."""
    plain, sparing = small(variant).train(), small(variant).train()
    sparing.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    for model in (plain, sparing):
        for seed in range(2):
            model(clips(size=16, seed=seed)).pooler_output.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=0, msg=name)
    for (name, one), other in zip(plain.named_buffers(), sparing.buffers(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0, msg=name)


def test_pixels_may_be_bytes_in_any_order_of_channels():
    model = small()
    bytes_ = (clips() * 255).to(torch.uint8)
    expected = model(bytes_.float() / 255).pooler_output
    torch.testing.assert_close(model(bytes_).pooler_output, expected)
    reversed_model = VideoResNetModel(VideoResNetConfig(hidden_sizes=SIZES, channel_order="bgr")).eval()
    reversed_model.load_state_dict(model.state_dict())
    torch.testing.assert_close(reversed_model(bytes_.flip(2)).pooler_output, expected)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    normalizing = VideoResNetModel(VideoResNetConfig(hidden_sizes=SIZES, image_mean=mean, image_std=std)).eval()
    normalizing.load_state_dict(model.state_dict())
    normalized = (clips() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalizing(clips()).pooler_output, model(normalized).pooler_output)


def test_bfloat16_stays_close():
    model = small()
    expected = model(clips()).pooler_output
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(clips()).pooler_output
    whole = copy.deepcopy(model).bfloat16()(clips()).pooler_output
    assert whole.dtype == torch.bfloat16
    scale = float(expected.detach().abs().max())
    for found in (mixed, whole):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * scale)


def test_a_folder_comes_back_as_it_was(tmp_path):
    model = small("r2plus1d_18", image_mean=[0.5] * 3, image_std=[0.5] * 3)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, VideoResNetModel) and isinstance(AutoConfig.from_pretrained(tmp_path), VideoResNetConfig)
    assert loaded.config.to_diff_dict() | {"_name_or_path": ""} == model.config.to_diff_dict() | {"_name_or_path": ""}
    assert torch.equal(loaded(clips()).pooler_output, model(clips()).pooler_output)


def test_training_reaches_every_weight():
    for variant in VARIANTS:
        model = small(variant).train()
        model(clips(size=16)).timestep_features.square().sum().backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters()), variant


def test_a_new_network_keeps_the_size_of_what_passes():
    torch.manual_seed(0)
    model = VideoResNetModel(VideoResNetConfig(hidden_sizes=[16, 16, 24, 32, 48])).train()
    states = model(clips(4), output_hidden_states=True).hidden_states
    assert all(0.1 < float(state.detach().std()) < 10 for state in states)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "r3d_34"}, "variant must be one of"),
        ({"channel_order": "grb"}, "channel_order must be one of"),
        ({"hidden_sizes": [4, 4]}, "hidden_sizes must be 5 numbers"),
        ({"depths": [1, 1, 0, 1]}, "each of depths must be an integer"),
        ({"image_size": 0}, "image_size must be an integer"),
        ({"frames_per_second": 0}, "frames_per_second must be above 0"),
        ({"norm_momentum": 1.5}, "norm_momentum must be above 0"),
        ({"image_mean": [0.5] * 3}, "come together"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "must be 3 numbers"),
    ],
)
def test_settings_that_make_no_network(fields, message):
    with pytest.raises(ValueError, match=message):
        VideoResNetConfig(**fields)


def test_pixels_that_are_no_clips():
    model = small()
    with pytest.raises(ValueError, match="pixel_values is missing"):
        model()
    for wrong in (clips()[0], clips().transpose(1, 2), clips().long()):
        with pytest.raises(ValueError, match="expected clips"):
            model(wrong)
