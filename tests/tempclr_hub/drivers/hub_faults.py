"""``send`` on Hubs of its own that fail as they are told; prints what came of each."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from tempclr_hub.loopback import Fault, LoopbackHub
from tempclr_hub.publish import send
from tempclr_hub.staging import Staged

REPO = "tester/toy"


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def attempt(staged: Staged, faults: list[dict[str, Any]], token: str, **options: Any) -> dict[str, Any]:
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    with LoopbackHub({token: "tester"}, lfs_threshold=20_000) as hub:
        hub.faults += [Fault(**fault) for fault in faults]
        answer = sent(staged, hub, HfApi(hub.url, token), **options)
        answer["left"] = sum(fault.times for fault in hub.faults)
        answer["main"] = sorted(hub.files(REPO)) if ("model", REPO) in hub.store.repositories else []
        answer["failures"] = len(hub.failures())
    logging.getLogger().removeHandler(heard)
    return answer | {"heard": heard.lines}


def sent(staged: Staged, hub: LoopbackHub, api: HfApi, **options: Any) -> dict[str, Any]:
    try:
        published = send(staged, REPO, wait_seconds=0.01, api=api, **options)
    except ValueError as error:
        return {"error": str(error)}
    return {"tag": published.tag, "at_tag": sorted(hub.files(REPO, revision=published.tag))}


def revisions(staged: Staged, token: str) -> list[Any]:
    """A second revision lacks a file, and a third asks for a tag that is taken."""
    with LoopbackHub({token: "tester"}) as hub:
        api = HfApi(hub.url, token)
        answers = [sent(staged, hub, api)]
        card = staged.folder / "README.md"
        text = card.read_text()
        card.unlink()
        answers += [sent(staged, hub, api), sent(staged, hub, api, tag="v1")]
        card.write_text(text)
    return answers


def main(folder: str, token: str, cases: str) -> None:
    staged = Staged(Path(folder), "model")
    answers = {name: attempt(staged, faults, token) for name, faults in json.loads(cases).items()}
    with LoopbackHub({token: "tester"}) as gone:
        pass
    answers["no server"] = sent(staged, gone, HfApi(gone.url, token))
    print(json.dumps({"cases": answers, "revisions": revisions(staged, token)}))


main(*sys.argv[1:])
