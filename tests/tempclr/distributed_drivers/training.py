"""Trains small models on one process and on two ranks that share its batches; run by test_distributed_training.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import trainers
import training_world as world
from forked import fork_ranks

from tempclr.data.collation import ParagraphCollator
from tempclr.data.rank_padding import PADDING_ID
from tempclr.data.sampling import ParagraphDataset
from tempclr.models.tempclr import TempCLRModel
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

JOINT_BATCH = 4
NUM_VIDEOS = 18  # with batches of 4 the fifth holds 2: on two ranks one of each is padding
SEQUENCE_ALONE = {"unit_weight": 0.0, "sequence_weight": 1.0}
RUNS = {
    "unit": ({"unit_weight": 1.0, "sequence_weight": 0.0}, {}),
    "unit, dot": ({"unit_weight": 1.0, "sequence_weight": 0.0, "similarity": "dot"}, {"learning_rate": 1e-3}),
    **{
        name: ({**SEQUENCE_ALONE, "negatives": name}, {})
        for name in ("seg_unit", "seg_only", "within_seg", "all_unit", "unpaired", "joint", "visual_anchor")
    },
    "both": ({}, {}),
    "both, joint, otam": ({"negatives": "joint", "measure": "otam"}, {}),
    "accumulated": ({"negatives": "joint"}, {"gradient_accumulation_steps": 2}),
    "checkpointed": ({"negatives": "joint"}, {"gradient_checkpointing": True}),
    "mini-batches": ({"negatives": "joint"}, {"mini_batch_size": 1}),
    "accumulated mini-batches, checkpointed": (
        {"negatives": "joint"},
        {"gradient_accumulation_steps": 2, "gradient_checkpointing": True, "mini_batch_size": 1},
    ),
    "AdamW": ({"negatives": "joint"}, {"optim": "adamw_torch", "learning_rate": 1e-3}),
}
SEEN = []


class Stream(torch.utils.data.IterableDataset):
    """An iterable data set of somebody else's, without a length."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class Watched(ParagraphCollator):
    def __call__(self, rows):
        SEEN.append([row.video_id for row in rows if row.video_id != PADDING_ID])
        return super().__call__(rows)


def train(folder, name, num_ranks, *, fsdp=False, kind=ParagraphDataset):
    loss, options = RUNS[name]
    settings = {"optim": "sgd", "learning_rate": 0.05, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if fsdp:
        settings |= {"fsdp": True, "fsdp_config": {"version": 2}}
    videos = world.make_paragraphs(NUM_VIDEOS, num_sentences=(1, 5))
    config = world.make_config(temperature=0.5, **loss)
    for tower in (config.text_config, config.video_config):
        tower.hidden_dropout_prob = tower.attention_probs_dropout_prob = 0.0
    torch.manual_seed(0)
    model = TempCLRModel(config)
    model.processor = world.make_processor()
    arguments = TempCLRTrainingArguments(
        str(folder / name.replace(" ", "_")),
        max_steps=5,
        lr_scheduler_type="constant",
        per_device_train_batch_size=JOINT_BATCH // num_ranks,
        per_device_eval_batch_size=JOINT_BATCH // num_ranks,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
        ddp_find_unused_parameters=False,
        seed=3,
        **{**settings, **options},
    )
    SEEN.clear()
    trainer = TempCLRTrainer(
        model=model,
        args=arguments,
        train_dataset=kind(videos),
        eval_dataset=kind(world.make_paragraphs(7, seed=1)),
        data_collator=Watched(world.make_processor(), clip_seconds=1.0, with_video_ids=True),
        processing_class=model.processor,
    )
    trainer.train()
    seen = list(SEEN)
    evaluated = {key: value for key, value in trainer.evaluate().items() if key.endswith("loss")}
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    weights = {key: whole(value) for key, value in trainer.model.state_dict().items()}
    kinds = {type(value).__name__ for value in trainer.model.state_dict().values()}
    return {"weights": weights, "history": history, "eval": evaluated, "seen": seen, "kinds": sorted(kinds)}


def shard_on_cpu():
    """Let accelerate shard by FSDP 2 on the CPU too, where it would copy the model; torch can by gloo."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    plain = AcceleratorState.__init__

    def sharding(self, *positional, fsdp_plugin=None, **keywords):
        plain(self, *positional, fsdp_plugin=fsdp_plugin, **keywords)
        if fsdp_plugin is not None:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    def kind(accelerator):  # whatever initialises the state again says that there is no GPU
        state = accelerator.state
        return DistributedType.FSDP if state.fsdp_plugin is not None else state.distributed_type

    AcceleratorState.__init__ = sharding
    Accelerator.distributed_type = property(kind)
    AcceleratorState.is_fsdp2 = property(lambda state: state.fsdp_plugin is not None)


def whole(weight):
    return (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach().clone()


def refusal(folder, **options):
    """What is said of FSDP where accelerate would train by DDP instead."""
    arguments = TempCLRTrainingArguments(str(folder / "refused"), use_cpu=True, report_to=[], **options)
    try:
        TempCLRTrainer(model=world.make_model(), args=arguments)
    except ValueError as error:
        return str(error)
    return "nothing"


def work(folder, num_ranks, names, fsdp, with_others):
    torch.set_num_threads(1)
    if fsdp:
        shard_on_cpu()
    results = {name: train(folder, name, num_ranks, fsdp=fsdp) for name in names}
    rank = os.environ.get("RANK", "0")
    if with_others and num_ranks > 1 and not fsdp:
        results["fsdp without a GPU"] = refusal(folder, fsdp=True)
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        results["fsdp of the environment"] = refusal(folder)
        del os.environ["ACCELERATE_USE_FSDP"]
        results |= trainers.what_ranks_agree_on(folder)
    if with_others and not fsdp:
        results["streamed"] = train(folder, "unit", num_ranks, kind=Stream)
        results |= trainers.train_others(folder, num_ranks)
    if with_others and fsdp:
        results["beside forward"] = trainers.sharded(folder)
    torch.save(results, folder / f"{'fsdp' if fsdp else 'ddp'}-{num_ranks}-{rank}.pt")


def main():
    """Arguments: a folder, names of runs by DDP, and by FSDP, divided by semicolons; whether to do all else too."""
    folder = Path(sys.argv[1])
    copied, sharded = (names.split(";") if names else [] for names in sys.argv[2:4])
    with_others = sys.argv[4] == "True"
    fork_ranks(work, 1, folder, 1, sorted({*copied, *sharded}), False, with_others)
    fork_ranks(work, 2, folder, 2, copied, False, with_others)
    fork_ranks(work, 2, folder, 2, sharded, True, with_others)


if __name__ == "__main__":
    main()
