"""Trains one epoch by similar batches on however many ranks it is started on; run by test_retrieval_batches.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world

from tempclr.data.collation import ParagraphCollator
from tempclr.data.retrieval_batches import RetrievalBatches, SimilarVideoSampler, embed_videos
from tempclr.data.sampling import ParagraphDataset
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

SEEN: list[list[str]] = []


class Watched(ParagraphCollator):
    def __call__(self, rows):
        SEEN.append([row.video_id for row in rows])
        return super().__call__(rows)


def main():
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    arguments = TempCLRTrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=3,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )
    data, processor = ParagraphDataset(world.make_paragraphs(13)), world.make_processor()
    sampler = SimilarVideoSampler(len(data), batch_size=3)
    model = world.make_model()
    vectors = embed_videos(model, data, ParagraphCollator(processor), batch_size=4)
    callback = RetrievalBatches(sampler, data, ParagraphCollator(processor), num_candidates=4, search="exact")
    trainer = TempCLRTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=Watched(processor),
        train_sampler=sampler,
        callbacks=[callback],
    )
    trainer.train()
    found = {"vectors": vectors.tolist(), "batches": sampler.batches, "rows": SEEN}
    (folder / f"rank-{arguments.process_index}.json").write_text(json.dumps(found), encoding="utf-8")


main()
