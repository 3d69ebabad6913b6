"""Push a model folder to a Hub and load it back, bit for bit; run as ``python -m tempclr.recipes.hub_round_trip``.

A process of its own, because the Hub client reads its address (``HF_ENDPOINT``) once, when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def publish_and_load_back(folder: str | os.PathLike[str], repo_id: str) -> dict[str, Any]:
    """Push model, processor and card of ``folder`` to the Hub of this process's environment, load both from there.

    Returns ``repo_id``, ``revision``, ``files`` and ``num_tensors``. Raises RuntimeError if a tensor or a token came
    back different.
    """
    import torch
    from huggingface_hub import HfApi

    from tempclr import TempCLRModel, TempCLRProcessor

    model, processor = TempCLRModel.from_pretrained(folder), TempCLRProcessor.from_pretrained(folder)
    model.push_to_hub(repo_id)
    processor.push_to_hub(repo_id)
    api = HfApi()
    card = Path(folder) / "README.md"
    if card.exists():
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo_id)
    api.create_tag(repo_id, tag="demo")

    loaded = TempCLRModel.from_pretrained(repo_id, revision="demo")
    pairs = zip(model.state_dict().items(), loaded.state_dict().items(), strict=True)
    changed = [name for (name, ours), (_, theirs) in pairs if not torch.equal(ours, theirs)]
    text = ["pour the water into the bowl"]
    if not torch.equal(processor(text=text).input_ids, TempCLRProcessor.from_pretrained(repo_id)(text=text).input_ids):
        changed.append("the tokens")
    if changed:
        raise RuntimeError(f"{repo_id} came back different from {folder}: {', '.join(changed)}")
    info = api.model_info(repo_id, revision="demo")
    files = sorted(file.rfilename for file in info.siblings or [])
    return {"repo_id": repo_id, "revision": info.sha, "files": files, "num_tensors": len(model.state_dict())}


def on_loopback(folder: str | os.PathLike[str], repo_id: str) -> dict[str, Any]:
    """The round trip of :func:`publish_and_load_back` on a Hub of this machine: no account, no network."""
    from tempclr_hub.loopback import LoopbackHub

    with LoopbackHub() as hub, tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "tempclr.recipes.hub_round_trip", str(Path(folder).absolute()), repo_id]
        environment = {**os.environ, **hub.environment(home)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"pushing {folder} to a Hub on this machine failed: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(publish_and_load_back(*sys.argv[1:3])))
