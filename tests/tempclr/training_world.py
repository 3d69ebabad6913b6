"""A small world that a small model learns in seconds: each action has a direction in feature space."""

from __future__ import annotations

import functools

import numpy as np

from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

ACTIONS = ("cut the bread", "melt the butter", "beat two eggs", "pour the milk", "fry it well", "serve it hot")
FEATURE_SIZE = 8


def make_paragraphs(count, *, seed=0, num_sentences=(2, 5)):
    directions = np.random.default_rng(99).normal(size=(len(ACTIONS), FEATURE_SIZE))
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        actions = random.permutation(len(ACTIONS))[: random.integers(num_sentences[0], num_sentences[1] + 1)]
        lengths = random.integers(1, 4, size=len(actions))
        ends = np.cumsum(lengths + 1)
        starts = ends - lengths
        features = random.normal(scale=0.5, size=(int(ends[-1]) + 1, FEATURE_SIZE))
        for action, start, end in zip(actions, starts, ends, strict=True):
            features[start:end] += directions[action]
        made.append(
            Paragraph(
                video_id=f"video-{seed}-{number}",
                sentences=[ACTIONS[action] for action in actions],
                starts=starts.tolist(),
                ends=ends.tolist(),
                features=features.astype(np.float32),
                features_per_second=1.0,
            )
        )
    return made


@functools.cache
def make_tokenizer():
    return train_tokenizer(ACTIONS, vocab_size=80)


def make_processor():
    return TempCLRProcessor(make_tokenizer(), max_text_tokens=16, max_num_features=8)


def make_config(**changes):
    geometry = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    text = {**geometry, "vocab_size": 80, "max_position_embeddings": 16}
    video = {**geometry, "feature_size": FEATURE_SIZE, "max_num_features": 8}
    return TempCLRConfig(text_config=text, video_config=video, **{"num_negatives": 5, **changes})


def make_model(**changes):
    import torch

    torch.manual_seed(0)
    return TempCLRModel(make_config(**changes))
