"""A checkpoint of the released size, 177 million random numbers in half precision, within the time and memory set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
SHAPES = Path(__file__).parent / "data" / "fullsize_shapes.json"
MOST_SECONDS, MOST_BYTES = 30, 3 * 10**9
COMMAND = """
import json, resource, sys, time
begin = time.perf_counter()
from tempclr.cli import main
code = main(sys.argv[1:])
# Processor time, of all threads and since the process began: other work on the machine does not lengthen it.
used = {"wall": time.perf_counter() - begin, "seconds": time.process_time()}
used["bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"code": code, **used}))
"""


def random_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {}
    for name, shape in json.loads(SHAPES.read_text()).items():
        is_buffer = name.endswith("position_ids")
        state[name] = torch.arange(shape[-1])[None] if is_buffer else torch.randn(shape).mul_(0.02).half()
    torch.save({"args": None, "model": state, "extra_state": {"epoch": 1}, "last_optimizer_state": None}, path)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_converts_in_time_and_memory(tmp_path, dtype):
    state = random_checkpoint(tmp_path / "checkpoint_best.pt")
    assert sum(value.numel() for value in state.values() if value.is_floating_point()) == 177_423_360
    packages = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "hub")))
    words = ["convert", "videoclip", str(tmp_path / "checkpoint_best.pt"), str(tmp_path / "out"), "--dtype", dtype]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": packages},
    )
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout.splitlines()[-1])
    print(f"{dtype}: {used['wall']:.1f} s, {used['seconds']:.1f} s of processor, {used['bytes'] / 1e9:.2f} GB")
    assert used["code"] == 0 and used["seconds"] <= MOST_SECONDS and used["bytes"] <= MOST_BYTES, used

    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert (report["num_source_tensors"], report["num_mapped"], len(report["dropped"])) == (310, 304, 6)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as written:
        assert len(written.keys()) == 304
        name = "text_model.encoder.layer.11.output.dense.weight"
        expected = state["mmmodel.text_encoder.encoder.layer.11.output.dense.weight"]
        assert torch.equal(written.get_tensor(name).float(), expected.float())
