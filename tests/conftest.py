"""Every test runs without a network, without a display and with few threads."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from types import ModuleType

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from filelock import FileLock

torch.set_num_threads(2)
ROOT = Path(__file__).resolve().parent.parent
_connect = socket.socket.connect


def _connect_on_this_machine(self: socket.socket, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise RuntimeError(f"tests may not reach the network, tried {address}")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket.socket, "connect", _connect_on_this_machine)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """For clips so small that a second thread makes nothing quicker, and on a busy machine everything slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def claims_command() -> ModuleType:
    """``benchmarks/claims.py``, a script."""
    spec = importlib.util.spec_from_file_location("claims_command", ROOT / "benchmarks" / "claims.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demo_words() -> list[str]:
    """What makes ``tempclr demo`` a matter of seconds."""
    counts = {"train": 6, "validation": 3, "test": 4, "epochs": 1, "workers": 1}  # a second process imports all again
    return [*(word for name, count in counts.items() for word in (f"--num_{name}", str(count))), "--quiet"]


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory, worker_id: str, demo_words: list[str]) -> Path:
    """What ``tempclr demo`` leaves for a dozen videos, made once for all processes that run tests."""
    from tempclr.cli import main

    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = shared / "demo_world" / "runs" / "demo"
    with FileLock(f"{shared / 'demo_world'}.lock"):
        if not (folder / "timings.json").exists():
            assert main(["demo", "--output_dir", str(folder), *demo_words]) == 0
    return folder
