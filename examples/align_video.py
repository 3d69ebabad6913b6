"""When does each sentence happen in a video? Spans, a picture, and subtitles that players show.

python examples/align_video.py MODEL VIDEO.mp4 "pour the milk" "stir it" "fry it"
"""

import sys
from pathlib import Path

from tempclr import TempCLRModel

name, video, *sentences = sys.argv[1:]
model = TempCLRModel.from_pretrained(name)
found = model.align(video, sentences, measure="otam")  # otam: sentences at the ends may stay unmatched


def timestamp(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    return f"{int(minutes) // 60:02}:{int(minutes) % 60:02}:{seconds:06.3f}".replace(".", ",")


blocks = []
for span in found.spans:
    if span["start_seconds"] is None:
        print(f"{'':13}  {span['sentence']}: not in this video")
        continue
    start, end = span["start_seconds"], span["end_seconds"]
    print(f"{start:5.1f} to {end:5.1f} s  {span['sentence']} (similarity {span['similarity']:.2f})")
    blocks.append(f"{len(blocks) + 1}\n{timestamp(start)} --> {timestamp(end)}\n{span['sentence']}\n")

stem = Path(Path(video).stem)
stem.with_suffix(".srt").write_text("\n".join(blocks), encoding="utf-8")
stem.with_suffix(".json").write_text(found.to_json(), encoding="utf-8")
found.plot(path=stem.with_suffix(".png"))
print(f"wrote {stem}.srt, {stem}.json, {stem}.png")
