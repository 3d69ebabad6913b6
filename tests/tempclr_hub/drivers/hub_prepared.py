"""Push a prepared corpus and read it back, whole, as a stream and through our own rows; prints one JSON object."""

from __future__ import annotations

import json
import sys

import numpy as np
from datasets import load_dataset, load_from_disk

from tempclr.data.rows import load_rows, read_paragraphs


def main(folder: str) -> None:
    prepared = load_from_disk(folder)
    prepared.push_to_hub("tester/prepared", commit_message="Add the rows")
    whole = load_dataset("tester/prepared")
    stream = load_dataset("tester/prepared", split="train", streaming=True)
    streamed = {row["video_id"]: np.asarray(row["features"]) for row in stream}
    expected = {row["video_id"]: np.asarray(row["features"]) for row in prepared["train"]}
    rows = load_rows("tester/prepared", split="test")
    paragraphs, reasons = read_paragraphs(rows, source="tester/prepared")
    here, _ = read_paragraphs(load_rows(folder, split="test"), source=folder)
    seen = {
        "splits": sorted(whole),
        "equal": all(whole[split].to_list() == prepared[split].to_list() for split in prepared),
        "types": str(whole["train"].features == prepared["train"].features),
        "stream_equal": all(np.array_equal(streamed[name], expected[name]) for name in expected),
        "num_streamed": len(streamed),
        "reasons": reasons,
        "paragraphs_equal": [
            one.video_id == other.video_id
            and np.array_equal(one.features, other.features)
            and one.annotator_spans == other.annotator_spans
            and (one.starts, one.ends, one.sentences) == (other.starts, other.ends, other.sentences)
            for one, other in zip(paragraphs, here, strict=True)
        ],
    }
    print(json.dumps(seen))


main(sys.argv[1])
