"""Trains twice on however many ranks it is started on and writes losses and weights; run by test_losses_ranks.py."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world

from tempclr.data.collation import ParagraphCollator
from tempclr.models.tempclr import TempCLRModel
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

NUM_VIDEOS = 8


def train(folder, name, videos, *, gather_across_ranks=True, **loss):
    loss = {"similarity": "dot", "temperature": 0.5, **loss}
    config = world.make_config(**loss)
    for tower in (config.text_config, config.video_config):
        tower.hidden_dropout_prob = tower.attention_probs_dropout_prob = 0.0
    torch.manual_seed(0)
    model = TempCLRModel(config)
    arguments = TempCLRTrainingArguments(
        str(folder / name),
        max_steps=3,
        per_device_train_batch_size=NUM_VIDEOS // 2 // int(sys.argv[2]),
        per_device_eval_batch_size=NUM_VIDEOS // int(sys.argv[2]),
        learning_rate=0.05,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        gather_across_ranks=gather_across_ranks,
        ddp_find_unused_parameters=False,
    )
    collator = ParagraphCollator(AutoTokenizer.from_pretrained(sys.argv[3]), max_text_tokens=16, max_num_features=8)
    trainer = TempCLRTrainer(
        model=model, args=arguments, train_dataset=videos, eval_dataset=videos, data_collator=collator
    )
    trainer.train()
    metrics = trainer.evaluate()
    parts = ("loss", "unit_loss", "sequence_loss")
    logged = {part: [entry[part] for entry in trainer.state.log_history if part in entry] for part in parts}
    return {"weights": dict(model.state_dict()), "logged": logged, "eval_loss": metrics["eval_loss"]}


def main():
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    results = {
        # Ragged: ranks see different numbers of sentences and clips.
        "unit": train(folder, "unit", world.make_paragraphs(NUM_VIDEOS), unit_weight=1.0, sequence_weight=0.0),
        # Two sentences have one other order, so that nothing is left to chance.
        "both": train(
            folder,
            "both",
            world.make_paragraphs(NUM_VIDEOS, num_sentences=(2, 2)),
            negatives="visual_anchor",
            num_negatives=1,
        ),
    }
    if sys.argv[2] == "2":
        results["own"] = train(
            folder,
            "own",
            world.make_paragraphs(NUM_VIDEOS),
            gather_across_ranks=False,
            unit_weight=1.0,
            sequence_weight=0.0,
        )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")


main()
