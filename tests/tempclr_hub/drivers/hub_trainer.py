"""Train with ``push_to_hub=True``, load the result from the Hub, and resume from a checkpoint that was pushed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import snapshot_download
from toy import embeddings, toy_model, toy_processor, toy_rows, weights_sum

from tempclr.data.collation import ParagraphCollator
from tempclr.models.tempclr import TempCLRModel
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments


def toy_trainer(output_dir: Path, **settings: Any) -> TempCLRTrainer:
    processor = toy_processor()
    arguments = TempCLRTrainingArguments(
        output_dir=str(output_dir),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_steps=2,
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    return TempCLRTrainer(
        toy_model(processor, seed=0),
        arguments,
        train_dataset=Dataset.from_list(toy_rows(8)),
        data_collator=ParagraphCollator(processor),
        processing_class=processor,
    )


def pushed_once_at_the_end(folder: Path) -> dict[str, Any]:
    repo = "tester/trained"
    trainer = toy_trainer(folder / "end", push_to_hub=True, hub_model_id=repo, hub_strategy="end")
    trainer.train()
    trainer.push_to_hub(commit_message="Add the trained model")
    loaded = TempCLRModel.from_pretrained(repo).eval()
    return {
        "trained": weights_sum(trainer.model),
        "loaded": weights_sum(loaded),
        "embeddings_equal": embeddings(trainer.model.eval(), trainer.processing_class)
        == embeddings(loaded, loaded.processor),
    }


def pushed_with_every_checkpoint(folder: Path) -> dict[str, Any]:
    repo = "tester/checkpoints"
    # Without hub_always_push a checkpoint is left out while the one before it is still on its way.
    settings = {"hub_strategy": "all_checkpoints", "hub_always_push": True}
    trainer = toy_trainer(folder / "all", push_to_hub=True, hub_model_id=repo, **settings)
    trainer.train()
    trainer.push_to_hub()
    # Another machine goes on from the pushed checkpoint as if it had never stopped.
    snapshot = Path(snapshot_download(repo))
    resumed = toy_trainer(folder / "resumed")
    resumed.train(resume_from_checkpoint=str(snapshot / "checkpoint-2"))
    return {
        "trained": weights_sum(trainer.model),
        "loaded": weights_sum(TempCLRModel.from_pretrained(repo)),
        "halfway": weights_sum(TempCLRModel.from_pretrained(repo, subfolder="checkpoint-2")),
        "resumed": weights_sum(resumed.model),
        "steps": resumed.state.global_step,
    }


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    seen = {"end": pushed_once_at_the_end(folder), "all": pushed_with_every_checkpoint(folder)}
    print(json.dumps(seen))


main()
