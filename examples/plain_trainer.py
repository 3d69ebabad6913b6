"""Train TempCLR on rows of your own with the plain ``transformers.Trainer``, save it, load it back, compare orders.

    python examples/plain_trainer.py [OUTPUT_FOLDER]

The rows here are made up: every action has a direction in feature space, every video performs four actions.
"""

import sys
import tempfile

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor, dtw
from tempclr.costs import cosine_cost
from tempclr.data.collation import ParagraphCollator
from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer

ACTIONS = ["cut the bread", "melt the butter", "beat two eggs", "pour the milk", "fry it well", "serve it hot"]
random = np.random.default_rng(0)
torch.manual_seed(0)
directions = random.normal(size=(len(ACTIONS), 16))


def make_paragraph(number: int) -> Paragraph:
    actions = random.permutation(len(ACTIONS))[:4]
    features = directions[actions.repeat(3)] + random.normal(scale=0.3, size=(12, 16))  # three seconds an action
    sentences = [ACTIONS[action] for action in actions]
    return Paragraph(f"video-{number}", sentences, [0, 3, 6, 9], [3, 6, 9, 12], features, features_per_second=1)


processor = TempCLRProcessor(train_tokenizer(ACTIONS))
tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
text_config = {**tower, "vocab_size": len(processor.tokenizer)}
model = TempCLRModel(TempCLRConfig(text_config=text_config, video_config={**tower, "feature_size": 16}))
model.processor = processor

output_dir = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
settings = {"max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "save_strategy": "no"}
settings |= {"remove_unused_columns": False, "report_to": []}  # the collator reads whole rows
Trainer(
    model,
    TrainingArguments(output_dir, **settings),
    train_dataset=[make_paragraph(number) for number in range(64)],
    data_collator=ParagraphCollator(processor, clip_seconds=1.0),
).train()
model.save_pretrained(output_dir)

model = TempCLRModel.from_pretrained(output_dir)
video = make_paragraph(-1)
cost = cosine_cost(model.encode_text(video.sentences), torch.cat(model.encode_video(list(video.features[:, None]))))
told, shuffled = dtw(cost), dtw(cost[[2, 0, 3, 1]])
print(f"distance in the order it was told: {told:.2f}, with the sentences shuffled: {shuffled:.2f}")
