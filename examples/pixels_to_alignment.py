"""From pixels to alignment: an encoder trained by TCLR, features by it, TempCLR on them, and the steps of a new video.

Videos and sentences are generated; sizes are small, so that all of it takes a minute or two. Nothing is downloaded.

python examples/pixels_to_alignment.py [OUTPUT_FOLDER] [TCLR_EPOCHS] [TEMPCLR_EPOCHS]
"""

import sys
import tempfile
from pathlib import Path

from tempclr.data.action_videos import read_action_videos
from tempclr.data.demo import DemoSettings, generate
from tempclr.data.features import extract_features
from tempclr.data.rows import dataset_recipe, load_rows, read_paragraphs
from tempclr.recipes.pretraining import ModelArguments, SamplingArguments, pretrain
from tempclr.recipes.tclr import TCLRClipArguments, TCLRModelArguments, TCLRTrainingArguments, pretrain_tclr
from tempclr.trainer import TempCLRTrainingArguments

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
tclr_epochs, tempclr_epochs = (int(word) for word in (*sys.argv[2:4], *("4", "10")[len(sys.argv[2:4]) :]))
quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "epoch"}

print("1. videos of four to six kitchen steps each")
settings = DemoSettings(num_train=24, num_validation=0, num_test=2, num_actions=8, actions_per_task=(4, 6))
files = generate(folder / "videos", settings, show_progress_bar=False)

print("2. TCLR: an encoder of clips from the training videos alone, without a word of their sentences")
pretrain_tclr(
    read_action_videos(files["train"]),
    training_arguments=TCLRTrainingArguments(
        str(folder / "tclr"), num_train_epochs=tclr_epochs, per_device_train_batch_size=8, warmup_epochs=1, **quiet
    ),
    model_arguments=TCLRModelArguments(variant="r3d_10", width=8),
    clip_arguments=TCLRClipArguments(image_size=32, short_side=64),
)

print("3. a feature a second by that encoder, of 16 frames each")
source = {"output_dir": folder / "features", "backbone": str(folder / "tclr"), "show_progress_bar": False}
extract_features(folder / "videos", frames_per_second=16.0, **source)
train, test = (
    read_paragraphs(load_rows(folder / "features", split=split), source=folder / "features")[0]
    for split in ("train", "test")
)

print("4. TempCLR: sentences and features in one space, and in the right order")
trainer = pretrain(
    train,
    training_arguments=TempCLRTrainingArguments(
        str(folder / "tempclr"), num_train_epochs=tempclr_epochs, learning_rate=1e-3, **quiet
    ),
    model_arguments=ModelArguments(hidden_size=64, num_text_layers=1, num_video_layers=1, dropout=0.0),
    sampling_arguments=SamplingArguments(clip_seconds=1.0),
    feature_recipe=dataset_recipe(folder / "features"),
)

print("5. when each sentence of a new video happens")
for span in trainer.model.eval().align(test[0].features, test[0].sentences, features_per_second=1.0).spans:
    print(f"{span['start_seconds']:5.1f} to {span['end_seconds']:5.1f} s  {span['sentence']}")
