"""A tiny model that takes videos, a video for it, and a running page: what the tests of the page share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

SENTENCES = ["peel the onion", "fry it", "serve it hot"]


def make_model(folder: Path) -> Path:
    """A model folder whose features, two a second, come from a tiny ResNet beside it."""
    from transformers import ResNetConfig, ResNetModel

    from tempclr.data.backbones import load_backbone
    from tempclr.data.extractor import FeatureRecipe
    from tempclr.data.tokenization import train_tokenizer
    from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

    torch.manual_seed(0)
    encoder = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"))
    encoder.save_pretrained(folder / "encoder")
    size = {"height": 32, "width": 32}
    (folder / "encoder/preprocessor_config.json").write_text(json.dumps({"size": size, "do_resize": True}))
    recipe = FeatureRecipe.of(load_backbone(str(folder / "encoder")), frames_per_second=4, features_per_second=2)
    tokenizer = train_tokenizer(SENTENCES, vocab_size=60)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    tower |= {"vocab_size": len(tokenizer), "initializer_range": 0.5}
    model = TempCLRModel(
        TempCLRConfig(text_config=tower, video_config={**tower, "feature_size": 12, "feature_recipe": recipe.to_dict()})
    )
    model.processor = TempCLRProcessor(tokenizer)
    model.save_pretrained(folder / "model")
    return folder / "model"


def make_video(path: Path, *, seconds: float = 5.3, frames_per_second: int = 10) -> Path:
    """Shades from black to white, so that every moment differs."""
    from tempclr.data.video import write_video

    num_frames = round(seconds * frames_per_second)
    frames = (np.linspace(0, 255, num_frames)[:, None, None, None] * np.ones((1, 48, 64, 3))).astype(np.uint8)
    write_video(path, frames, frames_per_second=frames_per_second)
    return path


def make_examples(folder: Path, *, count: int = 2) -> Path:
    """A dataset of such videos."""
    rows = []
    for number in range(count):
        make_video(folder / f"film{number}.mp4", seconds=4 + number)
        starts, ends = [0.0, 1.0, 2.0], [1.0, 2.0, 3.0]
        video = {"video_id": f"film{number}", "video": f"film{number}.mp4"}
        rows.append({**video, "sentences": SENTENCES, "starts": starts, "ends": ends})
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
