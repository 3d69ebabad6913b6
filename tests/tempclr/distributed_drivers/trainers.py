"""The trainers beside that of paragraphs, and what of sharded models passes by ``forward``; used by training.py."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import torch
import training_world as world
from torch.utils.data import Sampler

from tempclr.data.collation import ParagraphCollator
from tempclr.data.episodes import EpisodeDataset, collate_episodes
from tempclr.data.localization_collation import LocalizationCollator
from tempclr.data.rank_padding import PaddedSampler
from tempclr.data.sampling import ParagraphDataset
from tempclr.data.sequences import SequenceSet
from tempclr.evaluation.training import RetrievalEvaluator
from tempclr.models.few_shot import FewShotConfig, FewShotForEpisodes, FewShotModel
from tempclr.models.tclr import TCLRConfig, TCLRForVideoClassification
from tempclr.models.video_resnet import VideoResNetConfig
from tempclr.recipes.few_shot import EpisodeTrainingArguments, FewShotTrainer
from tempclr.recipes.localization import LocalizationTrainer
from tempclr.recipes.running import run_training
from tempclr.recipes.tclr_classification import ClassificationTrainer, ClassificationTrainingArguments
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

JOINT_BATCH = 4
NUM_ROWS = 9  # the third joint batch holds 1: one of two ranks has a row, the other none


def settings(folder, num_ranks):
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": JOINT_BATCH // num_ranks,
        "per_device_eval_batch_size": JOINT_BATCH // num_ranks,
        **{"max_steps": 4, "logging_steps": 1, "lr_scheduler_type": "constant", "learning_rate": 0.05, "optim": "sgd"},
        **{"save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "report_to": [], "seed": 3},
    }


def localization(folder, num_ranks):
    steps = world.ACTIONS[:4]
    rows = [
        dataclasses.replace(row, steps=steps, step_indices=[place % 4 for place in range(len(row.starts))], task="a")
        for row in world.make_paragraphs(NUM_ROWS + 5)
    ]
    config = world.make_config()
    for tower in (config.text_config, config.video_config):
        tower.hidden_dropout_prob = tower.attention_probs_dropout_prob = 0.0
    torch.manual_seed(0)
    model = type(world.make_model())(config)
    return LocalizationTrainer(
        model=model,
        args=TempCLRTrainingArguments(**settings(folder, num_ranks)),
        train_dataset=rows[:NUM_ROWS],
        eval_dataset=rows[NUM_ROWS:],
        data_collator=LocalizationCollator(world.make_processor(), with_video_ids=True),
        loss_settings={"num_negatives": 3},
    )


class Clips(torch.utils.data.Dataset):
    def __init__(self, first, count):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        noise = torch.Generator().manual_seed(self.first + place)
        return {"pixel_values": torch.rand(4, 3, 16, 16, generator=noise), "labels": place % 3}


def collate_clips(rows):
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def classification(folder, num_ranks):
    """With a frozen encoder: otherwise batch normalisation sees a rank's own rows."""
    torch.manual_seed(0)
    backbone = VideoResNetConfig(variant="r3d_10", hidden_sizes=[4, 4, 4, 8, 8], num_frames=4, image_size=16)
    names = {"id2label": dict(enumerate("abc")), "label2id": dict(zip("abc", range(3), strict=True))}
    config = TCLRConfig(backbone_config=backbone, freeze="backbone", **names)
    return ClassificationTrainer(
        model=TCLRForVideoClassification(config),
        args=ClassificationTrainingArguments(**settings(folder, num_ranks), plateau_patience=1),
        train_dataset=Clips(0, NUM_ROWS),
        eval_dataset=Clips(100, 5),
        data_collator=collate_clips,
    )


def sequences():
    random_numbers = np.random.default_rng(0)
    return SequenceSet([random_numbers.normal(size=(6, 5)) for _ in range(24)], [str(place % 4) for place in range(24)])


def episodes(folder, num_ranks):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    config = FewShotConfig(feature_size=5, max_num_frames=4, hidden_dropout_prob=0.0, head="otam", **sizes)
    drawn = {"num_frames": 4, "way": 2, "shot": 1, "num_queries": 2}
    return FewShotTrainer(
        model=FewShotForEpisodes(config),
        args=EpisodeTrainingArguments(**settings(folder, num_ranks)),
        train_dataset=EpisodeDataset(sequences(), num_episodes=NUM_ROWS, **drawn),
        eval_dataset=EpisodeDataset(sequences(), num_episodes=5, training=False, **drawn),
        data_collator=collate_episodes,
    )


TRAINERS = {"localization": localization, "classification": classification, "episodes": episodes}


def train_others(folder, num_ranks):
    found = {}
    for name, make in TRAINERS.items():
        trainer = make(folder / f"{name}-{num_ranks}", num_ranks)
        trainer.train()
        evaluated = {key: value for key, value in trainer.evaluate().items() if "loss" in key or "accuracy" in key}
        history = [{key: entry[key] for key in entry if key != "epoch"} for entry in trainer.state.log_history]
        found[name] = {
            "weights": {key: value.clone() for key, value in trainer.model.state_dict().items()},
            "history": [entry for entry in history if "loss" in entry],
            "eval": evaluated,
        }
    return found


class Disorder(Sampler):
    """Its numbers differ from rank to rank."""

    def __len__(self):
        return 7

    def __iter__(self):
        return iter(random.Random().sample(range(7), 7))


def what_ranks_agree_on(folder):
    """The order of a sampler that has none in common, and the refusal of rows that would come twice."""
    order = list(PaddedSampler(Disorder(), multiple=4))
    arguments = TempCLRTrainingArguments(**settings(folder / "contrast", 2))
    model = FewShotModel(FewShotConfig(feature_size=5, hidden_size=8, num_attention_heads=2))
    refused = FewShotTrainer(model=model, args=arguments, train_dataset=[np.zeros((4, 5))] * NUM_ROWS)
    try:
        refused.get_train_dataloader()
    except ValueError as error:
        return {"order": order, "told": str(error)}
    return {"order": order, "told": "nothing"}


def sharded(folder):
    """A model sharded by FSDP is evaluated, saved, and goes on; three videos are no even share for two ranks."""

    def train(name, checkpoint=None):
        model = world.make_model(unit_weight=1.0, sequence_weight=0.0)
        model.processor = world.make_processor()
        own = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
        own |= {"optim": "adamw_torch", "learning_rate": 1e-3}
        arguments = TempCLRTrainingArguments(**{**settings(folder / name, 2), **own}, fsdp=True)
        arguments.fsdp_plugin_args["state_dict_type"] = "SHARDED_STATE_DICT"  # the default of accelerate launch
        trainer = TempCLRTrainer(
            model=model,
            args=arguments,
            train_dataset=ParagraphDataset(world.make_paragraphs(16)),
            eval_dataset=ParagraphDataset(world.make_paragraphs(3, seed=1)),
            data_collator=ParagraphCollator(world.make_processor(), with_video_ids=True),
            processing_class=model.processor,
            evaluator=RetrievalEvaluator(world.make_paragraphs(3, seed=1)),
        )
        run_training(trainer, checkpoint=checkpoint)
        return trainer

    trainer = train("sharded")
    batch = {name: value for name, value in trainer.model.processor(text=list(world.ACTIONS)).items()}
    trainer.model.eval()
    with torch.no_grad():
        text = trainer.model.get_text_features(**batch).pooler_output
    recalls = [entry["eval_R@1"] for entry in trainer.state.log_history if "eval_R@1" in entry]
    train("resumed", checkpoint=str(Path(folder, "sharded", "checkpoint-2")))
    return {"text": text, "recalls": recalls}
