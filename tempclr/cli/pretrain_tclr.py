"""Train an encoder of clips on videos alone, by contrasting videos and moments (TCLR); labels take no part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class VideoArguments:
    """Where the videos come from."""

    train_dataset: str = field(metadata={"help": "dataset folder, .parquet, .json, .jsonl or Hub id, rows with videos"})
    method: str = field(default="tclr", metadata={"help": "tclr", "choices": ("tclr",)})
    eval_dataset: str | None = field(default=None, metadata={"help": "the same, whose losses are measured"})
    train_split: str | None = field(default=None, metadata={"help": "split of train_dataset, where it has several"})
    eval_split: str | None = field(default=None, metadata={"help": "split of eval_dataset, where it has several"})


def run_words(words: Sequence[str]) -> int:
    """Train as the words say; see ``tempclr pretrain --method tclr --help``.

    Raises:
        InputError: any mistake in words, configuration file, videos or model, told in one line.
    """
    from tempclr.cli.finetune_few_shot import parsed
    from tempclr.errors import InputError
    from tempclr.recipes.tclr import TCLRClipArguments, TCLRModelArguments, TCLRTrainingArguments, pretrain_tclr

    types = (VideoArguments, TCLRModelArguments, TCLRClipArguments, TCLRTrainingArguments)
    data, model, clips, training = parsed(list(words), types, command="pretrain --method tclr", description=__doc__)
    if data.eval_dataset is None and data.eval_split is not None:
        raise InputError("needs --eval_dataset", field="eval_split")
    videos = _videos(data.train_dataset, data.train_split, field="train_split")
    eval_videos = None
    if data.eval_dataset is not None:
        eval_videos = _videos(data.eval_dataset, data.eval_split, field="eval_split")
    trainer = pretrain_tclr(
        videos, training_arguments=training, eval_videos=eval_videos, model_arguments=model, clip_arguments=clips
    )
    if trainer.is_world_process_zero():
        for reason, video_ids in trainer.train_dataset.left_out.items():
            for video_id in video_ids:
                print(f"left out: {video_id} ({reason.replace('_', ' ')})")
        print(f"saved the model of step {trainer.state.global_step} in {training.output_dir}")
    return 0


def _videos(source: str, split: str | None, *, field: str) -> Any:
    """The videos of the split, or of the only one there is: of several, one must be named, lest tests be trained on."""
    from tempclr.data.action_videos import read_action_videos
    from tempclr.errors import InputError

    videos = read_action_videos(source, split=split)
    names = sorted({str(video.split) for video in videos})
    if split is None and len(names) > 1:
        raise InputError(f"holds the splits {', '.join(names)}; say which by --{field}", file=source, field=field)
    return videos
