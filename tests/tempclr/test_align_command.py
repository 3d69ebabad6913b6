"""``tempclr align`` on a real video file, and the mistakes it tells in one line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tempclr.cli import main
from tempclr.cli.align import read_sentences


@pytest.fixture
def sentences(tmp_path) -> Path:
    path = tmp_path / "steps.txt"
    path.write_text("\ufeffpeel the onion\n\n  fry it  \r\nserve it hot\n", encoding="utf-8")
    return path


def test_sentences_are_the_lines_that_are_not_empty(sentences):
    assert read_sentences(sentences) == ["peel the onion", "fry it", "serve it hot"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "none.mp4"}, "none.mp4: no such video file"),
        ({"sentences": "none.txt"}, "none.txt: no such file of sentences"),
        ({"sentences": "blank.txt"}, "blank.txt: expected one sentence a line, the file has none"),
        ({"sentences": "latin.txt"}, "latin.txt: expected UTF-8 text, got other bytes at position 3"),
        ({"model": "weightless"}, "weightless: this model folder has no weights"),
        ({"model": "none/of/these"}, "none/of/these: no such model folder"),
        ({"plot": "picture.pdf"}, "--plot takes a .png file"),
        ({"json": "spans.yaml"}, "--json takes a .json file"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, sentences, capsys, change, message):
    (tmp_path / "film.mp4").write_bytes(b"not decoded before the other mistakes are told")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless/config.json").write_text("{}")
    options = {"model": "weightless", "video": "film.mp4", "sentences": sentences.name} | change
    given = [word for key, value in options.items() for word in (f"--{key}", str(tmp_path / value))]
    assert main(["align", *given]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """A model whose features come from a tiny ResNet of the same folder, and a video of five seconds."""
    from transformers import ResNetConfig, ResNetModel

    from tempclr.data.backbones import load_backbone
    from tempclr.data.extractor import FeatureRecipe
    from tempclr.data.tokenization import train_tokenizer
    from tempclr.data.video import write_video
    from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("align")
    encoder = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"))
    encoder.save_pretrained(folder / "encoder")
    size = {"height": 32, "width": 32}
    (folder / "encoder/preprocessor_config.json").write_text(json.dumps({"size": size, "do_resize": True}))
    recipe = FeatureRecipe.of(load_backbone(str(folder / "encoder")), frames_per_second=4, features_per_second=2)
    tokenizer = train_tokenizer(["peel the onion", "fry it", "serve it hot"], vocab_size=60)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    tower |= {"vocab_size": len(tokenizer), "initializer_range": 0.5}
    model = TempCLRModel(
        TempCLRConfig(text_config=tower, video_config={**tower, "feature_size": 12, "feature_recipe": recipe.to_dict()})
    )
    model.processor = TempCLRProcessor(tokenizer)
    model.save_pretrained(folder / "model")
    frames = (np.linspace(0, 255, 50)[:, None, None, None] * np.ones((1, 48, 64, 3))).astype(np.uint8)
    write_video(folder / "film.mp4", frames, frames_per_second=10)
    return folder


@pytest.mark.parametrize("measure", ["dtw", "otam", "localize"])
def test_the_command_prints_draws_and_writes_the_alignment(model_folder, sentences, tmp_path, capsys, measure):
    given = ["--model", str(model_folder / "model"), "--video", str(model_folder / "film.mp4"), "--measure", measure]
    outputs = ["--sentences", str(sentences), "--plot", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json")]
    assert main(["align", *given, *outputs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["|", "sentence", "|", "start", "|", "end", "|", "similarity", "|"]
    found = json.loads((tmp_path / "a.json").read_text())
    assert [span["sentence"] for span in found["spans"]] == ["peel the onion", "fry it", "serve it hot"]
    for line, span in zip(lines[2:5], found["spans"], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == span["sentence"]
        if span["start_seconds"] is None:
            assert measure == "otam" and cells[1] == "–"  # noqa: RUF001
        else:
            assert float(cells[1]) == pytest.approx(span["start_seconds"], abs=0.006)
    matched = [span for span in found["spans"] if span["start_seconds"] is not None]
    starts = [span["start_seconds"] for span in matched]
    assert starts == sorted(starts) and all(span["end_seconds"] <= 5.0 for span in matched)
    if measure == "dtw":
        assert starts[0] == 0.0 and matched[-1]["end_seconds"] == 5.0
        assert all(a["end_seconds"] == b["start_seconds"] for a, b in itertools.pairwise(matched))
    if measure == "localize":
        assert all(span["end_seconds"] - span["start_seconds"] == pytest.approx(0.5) for span in matched)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 900


def test_a_video_that_cannot_be_decoded_is_told(model_folder, sentences, tmp_path, capfd):
    (tmp_path / "film.mp4").write_bytes(b"no video")
    given = ["--model", str(model_folder / "model"), "--sentences", str(sentences)]
    assert main(["align", *given, "--video", str(tmp_path / "film.mp4"), "--json", str(tmp_path / "a.json")]) == 2
    error = capfd.readouterr().err.strip().splitlines()
    assert error[-1].startswith("tempclr align: error:") and "film.mp4" in error[-1]
    assert not (tmp_path / "a.json").exists()
