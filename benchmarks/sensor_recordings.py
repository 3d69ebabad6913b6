"""Recordings that come inside the package aeon (BSD-3), as sequences for few-shot learning; for few_shot_claims.py.

Half of the classes train an encoder, without their labels; tasks are drawn from the others.

pip install --no-deps aeon   # its data alone are read, none of its code runs
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tempclr.data.sequences import SequenceSet
from tempclr.recipes.few_shot import (
    EncoderArguments,
    OrderArguments,
    VideoOnlyTrainingArguments,
    pretrain_video_only,
)

# Frames of a sequence, bins of a reading, classes and epochs of pretraining; settled on the training classes alone.
SETTINGS = {
    "PickupGestureWiimoteZ": {"num_frames": 32, "num_bins": 8, "num_base": 5, "num_epochs": 60},
    "JapaneseVowels": {"num_frames": 16, "num_bins": 4, "num_base": 4, "num_epochs": 15},
    "ACSF1": {"num_frames": 32, "num_bins": 8, "num_base": 5, "num_epochs": 40},
}


def read_series(name: str) -> tuple[list[np.ndarray], list[str]]:
    """All recordings (T, channels) of one of aeon's packaged sets, and their classes."""
    spec = find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this reads data that come with aeon: pip install --no-deps aeon")
    folder = Path(spec.submodule_search_locations[0], "datasets", "data", name)
    series, labels = [], []
    for part in ("TRAIN", "TEST"):
        text = (folder / f"{name}_{part}.ts").read_text(encoding="utf-8", errors="replace")
        for line in text.split("@data")[1].split():
            *channels, label = line.split(":")
            series.append(np.array([[float(value) for value in channel.split(",")] for channel in channels]).T)
            labels.append(label)
    return series, labels


def make_frames(series: np.ndarray, mean: np.ndarray, std: np.ndarray, num_frames: int, num_bins: int) -> np.ndarray:
    """A recording as ``num_frames`` vectors whose cosines mean something: soft bins of each reading and its slope."""
    ticks, places = np.arange(len(series)), np.linspace(0, len(series) - 1, num_frames)
    values = np.stack([np.interp(places, ticks, channel) for channel in ((series - mean) / std).T], axis=1)
    values = np.concatenate([values, np.gradient(values, axis=0) * num_frames / 16], axis=1)
    centres = np.linspace(-2.5, 2.5, num_bins)
    bins = np.exp(-0.5 * ((values[..., None] - centres) / (centres[1] - centres[0])) ** 2)
    return bins.reshape(num_frames, -1)


def load(name: str, *, seed: int = 0) -> tuple[SequenceSet, SequenceSet]:
    """Sequences of the training classes and of the others; ``seed`` says which are which.

    They hold twice the frames a model sees, so that training can draw different ones each time.
    """
    settings = SETTINGS[name]
    series, labels = read_series(name)
    classes = np.random.default_rng(seed).permutation(sorted(set(labels))).tolist()
    base, novel = classes[: settings["num_base"]], classes[settings["num_base"] :]
    readings = np.concatenate([one for one, label in zip(series, labels, strict=True) if label in base])
    statistics = readings.mean(axis=0), readings.std(axis=0)
    sizes = 2 * settings["num_frames"], settings["num_bins"]
    whole = SequenceSet([make_frames(one, *statistics, *sizes) for one in series], labels)
    return whole.of_classes(base), whole.of_classes(novel)


def pretrain(base: SequenceSet, name: str, folder: Path, *, seed: int = 0, unit_weight: float = 0.3):
    """A small encoder that has learned to tell the true order of the training classes' sequences from shuffled ones."""
    arguments = VideoOnlyTrainingArguments(
        str(folder),
        num_train_epochs=SETTINGS[name]["num_epochs"],
        per_device_train_batch_size=32,
        seed=seed,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    encoder = EncoderArguments(
        num_frames=SETTINGS[name]["num_frames"], hidden_size=64, num_hidden_layers=6, num_attention_heads=4
    )
    order = OrderArguments(unit_weight=unit_weight, sequence_weight=1 - unit_weight)
    with redirect_stdout(sys.stderr):  # where the Trainer tells what it does
        return pretrain_video_only(base, training_arguments=arguments, encoder=encoder, order=order).model
