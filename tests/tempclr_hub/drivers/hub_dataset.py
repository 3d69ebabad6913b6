"""Push a dataset of paragraphs with several splits and read it back, whole and as a stream; prints one JSON object."""

from __future__ import annotations

import json

from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import HfApi


def main() -> None:
    rows = [
        {
            "video_id": f"video_{index}",
            "sentences": ["take the pan", "heat the oil"],
            "starts": [0.0, 1.5],
            "ends": [1.5, 4.0],
            "features": [[float(index), 0.5, -1.0]] * 4,
            "features_per_second": 1.0,
        }
        for index in range(6)
    ]
    splits = DatasetDict(train=Dataset.from_list(rows[:4]), test=Dataset.from_list(rows[4:]))
    splits.push_to_hub("tempclr/paragraphs", commit_message="Add the paragraphs")
    HfApi().create_tag("tempclr/paragraphs", tag="v1", repo_type="dataset")
    splits["test"].push_to_hub("tempclr/paragraphs", split="extra")

    whole = load_dataset("tempclr/paragraphs", split="train")
    stream = load_dataset("tempclr/paragraphs", split="test", streaming=True)
    seen = {
        "whole_equal": whole.to_list() == rows[:4],
        "stream_equal": list(stream) == rows[4:],
        "splits": sorted(load_dataset("tempclr/paragraphs")),
        "splits_at_tag": sorted(load_dataset("tempclr/paragraphs", revision="v1")),
        "kinds": [HfApi().repo_exists("tempclr/paragraphs", repo_type=kind) for kind in ("dataset", "model")],
        "info": HfApi().dataset_info("tempclr/paragraphs").id,
    }
    print(json.dumps(seen))


main()
