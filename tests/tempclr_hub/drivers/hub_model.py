"""Push a model, or load it in a fresh process with or without our packages; prints one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any

REPO, CODE_REPO = "tester/toy", "tester/toy-with-code"


def push() -> dict[str, Any]:
    from huggingface_hub import HfApi, model_info
    from toy import embeddings, toy_model, toy_processor, weights_sum

    from tempclr.models.tempclr import TempCLRModel, carry_code
    from tempclr_hub.card import model_card

    processor = toy_processor()
    model = toy_model(processor, seed=0)
    model.push_to_hub(REPO)
    processor.push_to_hub(REPO)
    card = model_card(model, model_name=REPO).encode()
    HfApi().upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=REPO)
    HfApi().create_tag(REPO, tag="v1")
    # The branch goes on; the tag stays.
    later = toy_model(processor, seed=1)
    later.push_to_hub(REPO)
    carry_code()
    model.push_to_hub(CODE_REPO)
    processor.push_to_hub(CODE_REPO)

    at_tag = TempCLRModel.from_pretrained(REPO, revision="v1")
    info = model_info(REPO)
    return {
        "pushed": weights_sum(model),
        "later": weights_sum(later),
        "at_tag": weights_sum(at_tag),
        "at_main": weights_sum(TempCLRModel.from_pretrained(REPO)),
        "processor_attached": type(at_tag.processor).__name__,
        "embeddings": embeddings(model, processor),
        "embeddings_at_tag": embeddings(at_tag.eval(), at_tag.processor),
        "info": [info.library_name, info.pipeline_tag, info.config["model_type"]],
    }


def load() -> dict[str, Any]:
    from toy import embeddings, weights_sum
    from transformers import AutoConfig, AutoModel, AutoProcessor

    import tempclr  # noqa: F401 (importing it makes the models known to the Auto classes)

    model = AutoModel.from_pretrained(REPO, revision="v1")
    processor = AutoProcessor.from_pretrained(REPO, revision="v1")
    missing = None
    try:
        AutoModel.from_pretrained("tester/absent")
    except OSError as error:
        missing = str(error)
    return {
        "classes": [type(model).__name__, type(processor).__name__, type(AutoConfig.from_pretrained(REPO)).__name__],
        "weights": weights_sum(model),
        "embeddings": embeddings(model.eval(), processor),
        "missing": missing,
    }


def load_with_code() -> dict[str, Any]:
    # Our packages are installed where the tests run; None in their places makes importing them fail.
    for package in ("tempclr", "tempclr_kernels", "tempclr_hub"):
        sys.modules[package] = None  # type: ignore[assignment]
    import numpy as np
    import torch
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(CODE_REPO, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(CODE_REPO, trust_remote_code=True)
    size = model.config.video_config.feature_size
    video_features = np.linspace(-1, 1, 2 * 4 * size, dtype=np.float32).reshape(2, 4, size)
    batch = processor(text=["peel the onion", "chop it"], video_features=video_features)
    with torch.no_grad():
        output = model(**batch, return_loss=False)
    refused = ""
    try:
        model(**batch, return_loss=True)
    except ImportError as error:
        refused = str(error)
    return {
        "modules": [type(model).__module__.split(".")[0], type(processor).__module__.split(".")[0]],
        "embeddings": torch.cat([output.text_embeds, output.video_embeds]).tolist(),
        "refused": refused,
    }


def main() -> None:
    steps = {"push": push, "load": load, "load_with_code": load_with_code}
    print(json.dumps(steps[sys.argv[1]]()))


main()
