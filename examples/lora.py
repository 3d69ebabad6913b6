"""Adapt a model to new rows by LoRA on both towers, and compare retrieval before and after.

python examples/lora.py MODEL TRAIN_ROWS VALIDATION_ROWS [NUM_STEPS]     # as made by tempclr pretrain and extract
"""

import sys

import peft

from tempclr import TempCLRModel, TempCLRTrainer, TempCLRTrainingArguments
from tempclr.data.collation import ParagraphCollator
from tempclr.data.rows import load_rows, read_paragraphs
from tempclr.evaluation import evaluate_retrieval

name, train_rows, validation_rows, *rest = sys.argv[1:]
train, _ = read_paragraphs(load_rows(train_rows), source=train_rows)
validation, _ = read_paragraphs(load_rows(validation_rows), source=validation_rows)
model = TempCLRModel.from_pretrained(name)
processor = model.processor


def recall() -> float:
    return evaluate_retrieval(model, validation, measures=["dtw"]).metrics["dtw"]["R@1"]


before = recall()
settings = peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["query", "value"])
adapted = peft.get_peft_model(model, settings)
adapted.print_trainable_parameters()
arguments = TempCLRTrainingArguments(
    "runs/lora", max_steps=int(rest[0]) if rest else 200, learning_rate=1e-3, mini_batch_size=8, report_to="none"
)
TempCLRTrainer(adapted, arguments, train_dataset=train, data_collator=ParagraphCollator(processor)).train()
adapted.save_pretrained("runs/lora/adapter")  # some kilobytes; peft.PeftModel.from_pretrained puts it on the model

model = adapted.merge_and_unload()  # a plain model again
model.processor = processor
print(f"R@1 by DTW on {len(validation)} videos: {100 * before:.1f} before, {100 * recall():.1f} after")
