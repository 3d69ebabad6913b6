"""A tiny model, processor and paragraphs: the same in each process."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
import torch

from tempclr.data.tokenization import train_tokenizer
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

SENTENCES = ["peel the onion", "chop it", "heat the oil", "fry it in oil", "serve it on a plate"]
FEATURE_SIZE = 8


@functools.cache
def toy_processor() -> TempCLRProcessor:
    return TempCLRProcessor(train_tokenizer(SENTENCES))


def toy_model(processor: TempCLRProcessor, *, seed: int) -> TempCLRModel:
    torch.manual_seed(seed)
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = TempCLRConfig(
        text_config=tower | {"vocab_size": len(processor.tokenizer)},
        video_config=tower | {"feature_size": FEATURE_SIZE},
        num_negatives=3,
    )
    return TempCLRModel(config).eval()


def toy_rows(count: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    rows = []
    for index in range(count):
        order = generator.permutation(len(SENTENCES))[:3]
        features = generator.normal(size=(9, FEATURE_SIZE)).astype(np.float32)
        rows.append(
            {
                "video_id": f"video_{index}",
                "sentences": [SENTENCES[place] for place in order],
                "starts": [0.0, 3.0, 6.0],
                "ends": [3.0, 6.0, 9.0],
                "features": features,
                "features_per_second": 1.0,
            }
        )
    return rows


def embeddings(model: Any, processor: Any) -> list[list[float]]:
    """Vectors of fixed sentences and clips, exactly as computed."""
    video_features = np.linspace(-1, 1, 2 * 4 * FEATURE_SIZE, dtype=np.float32).reshape(2, 4, FEATURE_SIZE)
    batch = processor(text=SENTENCES[:2], video_features=video_features)
    with torch.no_grad():
        output = model(**batch, return_loss=False)
    return torch.cat([output.text_embeds, output.video_embeds]).tolist()


def weights_sum(model: Any) -> str:
    """A name for the exact bits of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
