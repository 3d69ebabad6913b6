"""Search a collection of videos by a whole recipe: embed once, keep the vectors, ask as often as you like.

python examples/retrieval.py MODEL ROWS "peel the cucumber" "slice the cucumber"      # rows as tempclr extract makes
"""

import sys
from pathlib import Path

import torch

from tempclr import TempCLRModel
from tempclr.data.rows import load_rows, read_paragraphs

name, rows, *sentences = sys.argv[1:]
model = TempCLRModel.from_pretrained(name)
paragraphs, _ = read_paragraphs(load_rows(rows), source=rows)

index = Path("index.pt")
if not index.exists():
    # Whole videos, cut into clips; nobody's annotation is needed to search them.
    videos = model.encode_video([one.features for one in paragraphs], show_progress_bar=True)
    torch.save({"ids": [one.video_id for one in paragraphs], "videos": videos}, index)
kept = torch.load(index, weights_only=True)

recipe = model.encode_text(sentences)
# Cap. Avg. asks whether every sentence has a clip; DTW also whether they come in this order.
scores = {measure: model.similarity([recipe], kept["videos"], measure=measure)[0] for measure in ("cap_avg", "dtw")}
for measure, of_videos in scores.items():
    best = of_videos.argsort(descending=True)[:3].tolist()
    print(f"{measure}:", ", ".join(f"{kept['ids'][place]} ({of_videos[place]:.2f})" for place in best))
