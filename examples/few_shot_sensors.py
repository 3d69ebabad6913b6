"""Few-shot classification of sensor readings: pooled, by DTW, by OTAM, and after pretraining by order alone.

Gestures made with a remote control, recordings that come inside the package aeon (BSD-3). Half of the classes train a
small encoder, without their labels; tasks are drawn from the others. docs/few_shot.md has three sets and three seeds.

    pip install --no-deps aeon   # its data alone are read, none of its code runs
    python examples/few_shot_sensors.py
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from tempclr.data.sequences import SequenceSet
from tempclr.evaluation.few_shot import evaluate_few_shot
from tempclr.recipes.few_shot import EncoderArguments, VideoOnlyTrainingArguments, pretrain_video_only

if (spec := find_spec("aeon")) is None:
    raise SystemExit("this example reads data that come with aeon: pip install --no-deps aeon")
folder = Path(spec.submodule_search_locations[0], "datasets", "data", "PickupGestureWiimoteZ")
NUM_FRAMES, CENTRES = 32, np.linspace(-2.5, 2.5, 8)


def make_frames(series: np.ndarray) -> np.ndarray:
    """A recording as 64 vectors whose cosines mean something: soft bins of each reading and of its slope."""
    places = np.linspace(0, len(series) - 1, 2 * NUM_FRAMES)  # twice what a model sees: training draws among them
    values = np.interp(places, np.arange(len(series)), series)
    values = np.stack([values, np.gradient(values) * NUM_FRAMES / 8], axis=1)
    bins = np.exp(-0.5 * ((values[..., None] - CENTRES) / (CENTRES[1] - CENTRES[0])) ** 2)
    return bins.reshape(len(places), -1)


files = [(folder / f"{folder.name}_{part}.ts").read_text().split("@data")[1] for part in ("TRAIN", "TEST")]
values, labels = zip(*(line.split(":") for text in files for line in text.split()), strict=True)
series = [np.array(text.split(","), dtype=float) for text in values]
readings = np.concatenate(series)
frames = [make_frames((one - readings.mean()) / readings.std()) for one in series]
everything = SequenceSet(frames, list(labels))
base, novel = everything.of_classes(everything.classes[:5]), everything.of_classes(everything.classes[5:])


def show(title: str, sequences: SequenceSet, **options) -> None:
    results = [evaluate_few_shot(sequences, shot=k, num_frames=NUM_FRAMES, num_tasks=1000, **options) for k in (1, 5)]
    print(f"{title:<42}", *(f"{100 * one.accuracy:5.1f} ± {100 * one.half_width:3.1f}  " for one in results))


print("5-way accuracy in %, 95 % interval over 1000 tasks: 1 shot, 5 shots")
for measure in ("mean_pool", "dtw", "otam"):
    show(f"all gestures, {measure}", everything, measure=measure)
show("all gestures, dtw, queries shuffled", everything, measure="dtw", shuffle_queries=True)
torch.set_num_threads(1)  # a model this small is not quicker on more
arguments = VideoOnlyTrainingArguments(
    "runs/sensors", num_train_epochs=60, per_device_train_batch_size=32, report_to=[]
)
encoder = EncoderArguments(num_frames=NUM_FRAMES, hidden_size=64, num_hidden_layers=6, num_attention_heads=4)
model = pretrain_video_only(base, training_arguments=arguments, encoder=encoder).model
show("new gestures, dtw", novel, measure="dtw")
show("new gestures, dtw, pretrained by order", novel, measure="dtw", model=model)
