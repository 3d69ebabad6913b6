"""Run a driver: a client in a process of its own, because it reads its environment when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tempclr_hub.loopback import LoopbackHub

DRIVERS = Path(__file__).parent / "drivers"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run_driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """``run_driver(hub, "name.py", *words)`` gives back the JSON object the driver prints last."""

    def run(hub: LoopbackHub, name: str, *words: object, token: str | None = None) -> dict[str, Any]:
        home = tmp_path_factory.mktemp("hub_home")
        packages = os.pathsep.join(
            [*map(str, (ROOT, ROOT / "kernels", ROOT / "hub")), os.environ.get("PYTHONPATH", "")]
        )
        environment = {
            **os.environ,
            **hub.environment(home, token=token),
            "PYTHONPATH": packages,
            "OMP_NUM_THREADS": "2",
        }
        command = [sys.executable, str(DRIVERS / name), *map(str, words)]
        finished = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
        assert finished.returncode == 0, f"{finished.stderr[-4000:]}\nlast requests: {hub.requests[-8:]}"
        return json.loads(finished.stdout.splitlines()[-1])

    return run
