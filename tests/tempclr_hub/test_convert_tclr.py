"""TCLR's released checkpoints: files as the training wrote them, and outputs recorded from the released networks.

The outputs were recorded with weights and pixels that follow from formulas: see ``recorded_values`` and ``pixels``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from tempclr import TCLRForVideoClassification, TCLRModel, VideoResNetConfig, VideoResNetModel
from tempclr.cli import main
from tempclr.errors import InputError
from tempclr_hub.convert_tclr import convert_tclr, our_name

DATA = Path(__file__).resolve().parent / "data"
RECORDED = np.load(DATA / "tclr_nets.npz")
NETS = json.loads((DATA / "tclr_nets.json").read_text())
KEYS = NETS["keys"]
CASES = {"r3d_18": ("r3d18_56", 3, 56), "r2plus1d_18": ("r21d_tclr_56", 3, 56), "r3d_10": ("r3d_prp_56", 3, 56)}


def recorded_values(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The weights of the recording, by the place of each tensor in the list and of each number in the tensor."""
    values = {}
    for place, (name, shape) in enumerate(shapes.items()):
        if name.endswith("num_batches_tracked"):
            values[name] = torch.tensor(0)
            continue
        waves = 43758.5453 * np.sin(12.9898 * np.arange(math.prod(shape), dtype=np.float64) + 78.233 * place)
        noise = 2 * (waves - np.floor(waves)) - 1
        if name.endswith("running_var"):
            noise = 1 + 0.25 * noise
        elif len(shape) == 1:
            noise = 1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise
        else:
            noise *= math.sqrt(3) * math.sqrt(2 / math.prod(shape[1:]))
        values[name] = torch.tensor(noise, dtype=torch.float32).reshape(shape)
    return values


def pixels(num_clips: int, size: int) -> torch.Tensor:
    """The clips of the recording, (N, T, 3, H, W), as the released networks take them: blue first."""
    shape = (num_clips, 3, 16, size, size)
    waves = 43758.5453 * np.sin(0.7297 * np.arange(math.prod(shape), dtype=np.float64) + 0.3)
    b, c, t, h, w = np.ogrid[:num_clips, :3, :16, :size, :size]
    smooth = 0.5 + 0.5 * np.sin(2 * np.pi * (h * (b + 1.0) / size + w * (c + 1.0) / size + t * (b + c + 1.0) / 16))
    noise = (waves - np.floor(waves)).reshape(shape)
    return torch.tensor(0.3 * noise + 0.7 * smooth, dtype=torch.float32).transpose(1, 2)


def whole(network: str) -> dict[str, list[int]]:
    head = {f"1.{name}": shape for name, shape in KEYS["head"].items()}
    return {**{f"0.{name}": shape for name, shape in KEYS[network].items()}, **head}


def shrunk(network: str, factor: int = 8) -> dict[str, torch.Tensor]:
    """The same architecture an eighth as wide; pixels' channels and kernels stay."""
    sizes: dict[str, list[int]] = {}
    for name, shape in whole(network).items():
        sizes[name] = [size if size in (1, 3, 7) else max(1, size // factor) for size in shape]
    if network == "r2plus1d_18":  # the middle channels are no multiples
        sizes |= {
            f"0.{name}": list(value.shape)
            for name, value in VideoResNetModel(small_config("r2plus1d_18")).state_dict().items()
        }
    return recorded_values(sizes)


def small_config(variant: str) -> VideoResNetConfig:
    return VideoResNetConfig(variant=variant, hidden_sizes=[8, 8, 16, 32, 64])


def saved_by_training(weights: dict[str, torch.Tensor], file: Path, *, prefix: str = "") -> Path:
    """As the training saves it: the scaler is an object, after a step with an optimizer."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], lr=1e-3, weight_decay=1e-9)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(parameter.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    saved = {
        "epoch": 81,
        "state_dict": {prefix + name: value for name, value in weights.items()},
        "optimizer": optimizer.state_dict(),
        "learning_rate": 1e-3,
        "amp_scaler": scaler,
        "best_score": np.float64(37.5),
        "scheduler_epoch": 3,
    }
    torch.save(saved, file)
    return file


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Folder and report of the full-size network asked for, converted once."""
    done = {}

    def convert(variant):
        if variant not in done:
            folder = tmp_path_factory.mktemp(variant)
            file = saved_by_training(recorded_values(whole(variant)), folder / "model.pth", prefix="module.")
            done[variant] = folder / "out", convert_tclr(file, folder / "out")
            file.unlink()
        return done[variant]

    return convert


def check_outputs(model, clips, tag):
    with torch.inference_mode():
        output = model.backbone(clips, output_hidden_states=True)
        global_embeds = model.head(output.pooler_output)
        slices = [model.head(output.timestep_features[:, place]) for place in range(4)]
    features = output.timestep_features[..., ::8].mT
    np.testing.assert_allclose(features, RECORDED[f"{tag}/feat"], atol=1e-5, rtol=1e-6)
    np.testing.assert_allclose(global_embeds, RECORDED[f"{tag}/z_d"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(global_embeds, RECORDED[f"{tag}/z_s_gsr"], atol=1e-5, rtol=0)
    for place, embeds in enumerate(slices):
        np.testing.assert_allclose(embeds, RECORDED[f"{tag}/z_s_s{place}"], atol=1e-5, rtol=0)
    for place, stage in enumerate(["stem", "layer1", "layer2", "layer3", "layer4"]):
        if f"{tag}/act/{stage}/stats" in RECORDED:
            flat = output.hidden_states[2 * place].double().flatten()
            numbers = [flat.mean(), flat.std(correction=0), flat.abs().max(), flat[0], flat[-1], flat[len(flat) // 2]]
            expected = RECORDED[f"{tag}/act/{stage}/stats"]
            found = np.array([*map(float, numbers), float(flat[12345 % len(flat)])])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=stage)


@pytest.mark.parametrize("variant", ["r3d_10", "r2plus1d_18", pytest.param("r3d_18", marks=pytest.mark.slow)])
def test_features_and_embeddings_are_those_of_the_released_networks(converted, variant):
    folder, report = converted(variant)
    assert report.num_parameters == NETS["num_parameters"][variant] + NETS["num_parameters"]["head"]
    assert report.num_mapped + len(report.dropped) == len(whole(variant)) == report.num_source_tensors
    tag, num_clips, size = CASES[variant]
    model = AutoModel.from_pretrained(folder).eval()
    assert isinstance(model, TCLRModel) and model.config.loss_weights == "official"
    check_outputs(model, pixels(num_clips, size).flip(2), tag)


SLOW_STEPS = [pytest.param(variant, marks=pytest.mark.slow) for variant in ("r3d_18", "r2plus1d_18")]


@pytest.mark.parametrize("variant", ["r3d_10", *SLOW_STEPS])
def test_a_training_step_is_that_of_the_released_networks(converted, variant):
    """Statistics of the batch, running statistics, and the gradient of every weight."""
    tag, num_clips, size = CASES[variant]
    model = TCLRModel.from_pretrained(converted(variant)[0]).train()
    # Statistics of three rows amplify rounding, so the sums are to be taken in the order of the recording.
    stem = model.backbone.stem[0].weight
    stem.data = stem.data.flip(1)
    embeds = model.head(model.backbone(pixels(num_clips, size)).pooler_output)
    (embeds * torch.tensor(RECORDED[f"{tag}/train/w"])).sum().backward()
    np.testing.assert_allclose(embeds.detach(), RECORDED[f"{tag}/train/z_d"], atol=5e-5, rtol=0)
    norm = model.head.projection_norm
    np.testing.assert_allclose(norm.running_mean, RECORDED[f"{tag}/train/bn_mlp2_running_mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, RECORDED[f"{tag}/train/bn_mlp2_running_var"], rtol=1e-4, atol=1e-5)
    found = {name: float(value.grad.norm()) for name, value in model.named_parameters()}
    expected = {our_name(name): value for name, value in NETS["grad_norms"][tag].items()}
    assert set(found) == set(expected)
    # A bias before batch normalisation has no gradient but rounding.
    scale = max(expected.values())
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-2, abs=1e-6 * scale), name


@pytest.mark.slow
def test_features_at_the_released_size_of_images(converted):
    model = TCLRModel.from_pretrained(converted("r3d_18")[0]).eval()
    check_outputs(model, pixels(2, 112).flip(2), "r3d18_112")


@pytest.mark.parametrize("variant", CASES)
def test_every_name_of_the_release_has_one_of_ours(variant):
    with torch.device("meta"):
        model = VideoResNetModel(VideoResNetConfig(variant=variant))
    expected = {f"backbone.{name}": list(value.shape) for name, value in model.state_dict().items()}
    assert {our_name(name): shape for name, shape in KEYS[variant].items()} == expected
    for name in ("layer5.0.conv1.0.weight", "1.fc3.weight", "conv6.block1.bn1.weight", "features.0.weight"):
        with pytest.raises(InputError, match="none of"):
            our_name(name)


@pytest.mark.parametrize("variant", CASES)
def test_the_files_of_training_in_any_wrapping(variant, tmp_path):
    weights = shrunk(variant)
    clips = torch.rand(1, 16, 3, 16, 16)
    vectors = []
    for number, prefix in enumerate(["", "module."]):
        file = saved_by_training(weights, tmp_path / f"{number}.pth", prefix=prefix)
        report = convert_tclr(file, tmp_path / str(number), fold_channel_order=number == 0)
        assert "amp_scaler" in " ".join(report.notes) and "optimizer" in " ".join(report.notes)
        assert all(name.endswith("num_batches_tracked") for name in report.dropped)
        model_class = (TCLRModel, TCLRForVideoClassification)[number]
        vectors.append(model_class.from_pretrained(tmp_path / str(number)).eval().backbone(clips).pooler_output)
        model = VideoResNetModel.from_pretrained(tmp_path / str(number)).eval()
        assert model.config.channel_order == ("rgb", "bgr")[number] and model.config.variant == variant
        vectors.append(model(clips).pooler_output)
    released = VideoResNetModel(small_config(variant)).eval()
    of_network = {our_name(name)[9:]: value for name, value in weights.items() if name.startswith("0.")}
    released.load_state_dict(of_network)
    expected = released(clips.flip(2)).pooler_output
    scale = float(expected.abs().max())
    for found in vectors:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
    assert not torch.allclose(released(clips).pooler_output, expected, rtol=0, atol=1e-3 * scale)


def test_files_of_the_network_alone(tmp_path):
    weights = {name[2:]: value for name, value in shrunk("r3d_18").items() if name.startswith("0.")}
    torch.save({"bb_state_dict": {**weights, "fc.weight": torch.ones(9, 64), "fc.bias": torch.ones(9)}}, tmp_path / "a")
    report = convert_tclr(tmp_path / "a", tmp_path / "out", dtype="bfloat16")
    assert "no projection head" in " ".join(report.notes) and "classifier" in report.dropped["fc.weight"]
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(model, VideoResNetModel) and model.dtype == torch.bfloat16 and model.config.tclr_conv5
    assert torch.equal(model.stem[0].weight.flip(1), weights["stem.0.weight"].bfloat16())
    whole_model, loading = TCLRModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert {name.split(".")[0] for name in loading["missing_keys"]} == {"head"}
    assert torch.equal(whole_model.backbone.layer4[1].conv2[0].weight, model.layer4[1].conv2[0].weight)


@pytest.mark.parametrize("variant", ["r3d_18", "r2plus1d_18"])
def test_weights_of_torchvision(variant, tmp_path):
    """They are for normalised RGB, which the model then does; R3D's may be given TCLR's last stage or the stock one."""
    shapes = KEYS[f"torchvision_{variant}"]
    with torch.device("meta"):
        stock = VideoResNetModel(VideoResNetConfig(variant=variant, tclr_conv5=False)).state_dict()
    fc = {"fc.weight": [400, 512], "fc.bias": [400]}
    assert {**{name: list(value.shape) for name, value in stock.items()}, **fc} == shapes
    network = VideoResNetModel(
        VideoResNetConfig(variant=variant, hidden_sizes=[8, 8, 16, 32, 64], tclr_conv5=False)
    ).eval()
    torch.save({**network.state_dict(), "fc.weight": torch.ones(4, 64), "fc.bias": torch.ones(4)}, tmp_path / "a.pth")
    convert_tclr(tmp_path / "a.pth", tmp_path / "stock", conv5="stock")
    model = VideoResNetModel.from_pretrained(tmp_path / "stock").eval()
    clips = torch.rand(1, 16, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.config.image_mean, model.config.image_std))
    expected = network((clips - mean) / std).pooler_output
    torch.testing.assert_close(model(clips).pooler_output, expected, rtol=1e-5, atol=1e-5)
    if variant == "r3d_18":
        convert_tclr(tmp_path / "a.pth", tmp_path / "tclr")
        changed = VideoResNetModel.from_pretrained(tmp_path / "tclr")
        assert changed(clips).last_hidden_state.shape[2] == 4 and model(clips).last_hidden_state.shape[2] == 2
    else:
        with pytest.raises(InputError, match="has no weights for --conv5 tclr"):
            convert_tclr(tmp_path / "a.pth", tmp_path / "tclr", conv5="tclr")


def test_the_command(tmp_path, capsys):
    """Note [Channels of the release]."""
    file = saved_by_training(shrunk("r3d_10"), tmp_path / "model.pth")
    command = ["convert", "tclr", str(file)]
    assert main([*command, str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "RGB now" in told and "left out, since it is no weight: epoch, optimizer" in told
    assert main([*command, str(tmp_path / "kept"), "--keep_channel_order", "--conv5", "stock"]) == 0
    config = VideoResNetConfig.from_pretrained(tmp_path / "kept")
    assert config.channel_order == "bgr" and not config.tclr_conv5
    assert main([*command, str(tmp_path / "other"), "--tokenizer", "words"]) == 2
    assert "--tokenizer is not an option of 'tempclr convert tclr'" in capsys.readouterr().err
    assert main(["convert", "s3d", str(file), str(tmp_path / "other"), "--from", "tclr"]) == 2
    assert "--from is not an option" in capsys.readouterr().err


class Harmful:
    def __reduce__(self):
        return (open, ("harm", "w"))


DAMAGES = {
    "does not tell whose weights": lambda weights: {name[2:]: v for name, v in weights.items() if name[0] == "0"},
    "lacks 1 tensors": lambda weights: {
        "state_dict": {k: v for k, v in weights.items() if k != "0.layer2.0.conv1.0.weight"}
    },
    "lacks a proper": lambda weights: {"state_dict": {k: v for k, v in weights.items() if "conv2.1" not in k}},
    "none of": lambda weights: {"state_dict": {**weights, "0.layer9.0.weight": torch.ones(2)}},
    "expected names and tensors": lambda weights: {"state_dict": {**weights, "0.stem.0.weight": "text"}},
    "not finite": lambda weights: {"state_dict": {**weights, "1.fc1.bias": torch.full((64,), math.nan)}},
    "expected \\(": lambda weights: {"state_dict": {**weights, "1.fc1.bias": torch.ones(64, 2)}},
    "holds no state dictionary": lambda weights: {"state_dict": {}},
    "refused, and nothing": lambda weights: {"state_dict": weights, "amp_scaler": Harmful()},
}


@pytest.mark.parametrize("message", DAMAGES)
def test_files_that_are_none(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(DAMAGES[message](shrunk("r3d_18")), tmp_path / "model.pth")
    with pytest.raises(InputError, match=message):
        convert_tclr(tmp_path / "model.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "harm").exists()


@pytest.mark.parametrize("options", [{"source": "vcop"}, {"conv5": "wide"}, {"dtype": "int8"}])
def test_options_that_are_none(options, tmp_path):
    with pytest.raises(InputError, match="must be one of"):
        convert_tclr(tmp_path / "model.pth", tmp_path / "out", **options)
