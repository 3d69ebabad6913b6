"""Rows of your own, a Trainer, the Hub: pip install tempclr; hf auth login; python own_rows_to_hub.py you/your-model"""

import sys

import numpy as np

from tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor, TempCLRTrainer, TempCLRTrainingArguments
from tempclr.data.collation import ParagraphCollator
from tempclr.data.tokenization import train_tokenizer

steps = {"cut the bread": 0, "melt the butter": 1, "beat two eggs": 2, "fry it well": 3}
rows = []
for number in range(64):  # here made up: each step has a direction, each is shown for two seconds
    sentences = list(np.random.permutation(list(steps)))
    features = np.eye(4, dtype=np.float32)[[steps[sentence] for sentence in sentences]].repeat(2, axis=0)
    spans = {"starts": [0, 2, 4, 6], "ends": [2, 4, 6, 8], "features_per_second": 1}
    rows.append({"video_id": f"video {number}", "sentences": sentences, "features": features, **spans})

processor = TempCLRProcessor(train_tokenizer(list(steps)))
tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
text = {**tower, "vocab_size": len(processor.tokenizer)}
config = TempCLRConfig(text_config=text, video_config={**tower, "feature_size": 4})
where = {"push_to_hub": True, "hub_model_id": sys.argv[1]}
arguments = TempCLRTrainingArguments("runs/mine", max_steps=60, learning_rate=5e-3, **where)
data = {"train_dataset": rows, "data_collator": ParagraphCollator(processor), "processing_class": processor}
trainer = TempCLRTrainer(TempCLRModel(config), arguments, **data)
trainer.train()
trainer.push_to_hub()
print(TempCLRModel.from_pretrained(sys.argv[1]).encode_text(["beat two eggs"]).shape)  # on any machine
