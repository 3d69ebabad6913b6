"""Stage, check in a fresh process, show, and only then send: how models, datasets and kernels leave the machine."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeVar

from tempclr.errors import InputError

from .probe import PROBE_FILE, store_probe
from .snippet import bare_environment
from .staging import Staged

__all__ = ["Published", "next_tag", "patiently", "send", "upload", "verify_model", "without_tokens"]

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
MAX_ATTEMPTS = 5
MAX_WAIT_SECONDS = 60.0
_TOKEN = re.compile(r"\b(hf_|api_org_)\w+")
_HINTS = {
    401: "log in with `hf auth login`, or set HF_TOKEN to a token that may write",
    403: "the token may not write here: use one with write access, or another namespace",
    404: "no such repository or revision: check the name, and whether the token may see it",
    409: "somebody else changed the repository in the meantime: look at it, then run the command again",
    413: "a file is larger than the Hub takes",
    429: "the Hub asks to slow down: wait some minutes, then run the command again",
}


@dataclass(frozen=True)
class Published:
    """Where a folder went: address, commit and tag."""

    url: str
    commit: str
    tag: str


def verify_model(staged: Staged) -> float:
    """Load the staged model in a new process, without a network, and compare its embeddings with the stored ones.

    A folder that brings no ``probe.safetensors`` gets one from this process first, so that at least the copy is proved.
    Returns the largest relative deviation.

    Raises:
        InputError: it does not load there, or the embeddings moved.
    """
    if not (staged.folder / PROBE_FILE).is_file():
        store_probe(staged.folder)
    command = [sys.executable, "-m", "tempclr_hub.probe", str(staged.folder.absolute())]
    done = subprocess.run(command, env=bare_environment(), capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or ["{}"])[-1]
    answer = json.loads(last) if last.startswith("{") else {}
    if done.returncode or "deviation" not in answer:
        reason = answer.get("error") or (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"nothing was sent: the staged model failed its check in a new process: {reason}")
    return answer["deviation"]


def next_tag(names: list[str]) -> str:
    """The next of v1, v2, … after those among ``names``.

    >>> next_tag(["v1", "v10", "demo"])
    'v11'
    """
    numbers = [int(name[1:]) for name in names if re.fullmatch(r"v\d+", name)]
    return f"v{max(numbers, default=0) + 1}"


def send(
    staged: Staged,
    repo_id: str,
    *,
    private: bool = False,
    tag: str | None = None,
    message: str = "Publish with tempclr",
    wait_seconds: float = 1.0,
    api: Any = None,
) -> Published:
    """Create the repository if need be, send all files as one commit, and tag it.

    One commit: readers see the whole new revision or the old one. Answers 408, 425, 429 and 5xx and cut connections are
    tried again up to five times, after ``wait_seconds`` · 2^attempt or what the Hub asks for. Files that an earlier
    revision had and this one lacks are deleted in the same commit.

    ``tag``: a name that is not taken; ``None`` takes the next free v1, v2, … ``api``: a ``huggingface_hub.HfApi`` with
    an address and token of its own; ``None`` takes those of the environment.

    Raises:
        InputError: the Hub refuses or stays out of reach, or the tag is taken; one line, without the token.
    """
    from huggingface_hub import HfApi

    api = HfApi() if api is None else api
    patient = _Patient(wait_seconds)
    where: dict[str, Any] = {"repo_id": repo_id, "repo_type": staged.kind}
    try:
        address = patient(lambda: api.create_repo(**where, private=private, exist_ok=True))
        taken = [found.name for found in patient(lambda: api.list_repo_refs(**where)).tags]
        if tag in taken:
            raise InputError(f"the tag {tag!r} is taken in {repo_id}: give another with --tag, or none for the next")
        chosen = tag or next_tag(taken)
        commit = patient(
            lambda: api.upload_folder(
                **where, folder_path=staged.folder, commit_message=message, delete_patterns=["*"], ignore_patterns=[]
            )
        )
        patient(lambda: api.create_tag(**where, tag=chosen, revision=commit.oid, exist_ok=True))
    except _client_errors() as error:
        raise InputError(f"{repo_id}: {explain(error)}") from None  # see patiently
    return Published(url=str(address), commit=commit.oid, tag=chosen)


def upload(
    folder: str | PathLike[str],
    repo_id: str,
    *,
    message: str,
    revision: str | None = None,
    token: str | None = None,
    wait_seconds: float = 1.0,
) -> Any:
    """Send all files of ``folder`` as one commit to a model repository that is there; other files there stay.

    Returns ``huggingface_hub``'s ``CommitInfo``.

    Raises:
        InputError: the Hub refuses or stays out of reach; one line, without the token.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    return patiently(
        lambda: api.upload_folder(
            repo_id=repo_id, folder_path=str(folder), commit_message=message, revision=revision, ignore_patterns=[]
        ),
        repo_id=repo_id,
        wait_seconds=wait_seconds,
    )


def patiently(request: Callable[[], _T], *, repo_id: str, wait_seconds: float = 1.0) -> _T:
    """The answer to a request that is made again, as in :func:`send`, where it failed for a reason that may pass.

    Raises:
        InputError: it failed for good; one line, without the token.
    """
    try:
        return _Patient(wait_seconds)(request)
    except _client_errors() as error:
        # Without its cause, whose text may hold more than is for the log.
        raise InputError(f"{repo_id}: {explain(error)}") from None


def explain(error: BaseException) -> str:
    """What a failed request means, in one line and without tokens."""
    status = _status(error)
    if _is_offline(error):
        return "offline mode is on: unset HF_HUB_OFFLINE to reach the Hub"
    text = without_tokens(str(error))
    text = re.sub(r"\(Request ID: [^)]*\)\s*", "", text)
    if status is None:
        return f"the Hub could not be reached ({type(error).__name__}: {text[:200]}): check the network, run it again"
    hint = _HINTS.get(status, "the Hub has trouble: run the command again later" if status >= 500 else text[:200])
    return f"the Hub answered {status}: {hint}"


def without_tokens(text: str, *secrets: str | None) -> str:
    """The text in one line, without what looks like an access token and without ``secrets``.

    >>> without_tokens("no entry for mine\\n with hf_abc", "mine", None)
    'no entry for *** with hf_***'
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return _TOKEN.sub("hf_***", " ".join(text.split()))


class _Patient:
    """Calls again what failed for a reason that may pass."""

    def __init__(self, wait_seconds: float):
        self.wait_seconds = wait_seconds

    def __call__(self, request: Callable[[], _T]) -> _T:
        for attempt in range(MAX_ATTEMPTS):
            try:
                return _unwrapped(request)
            except _client_errors() as error:
                status = _status(error)
                may_pass = (status is None or status in RETRIED_STATUSES) and not _is_offline(error)
                if attempt == MAX_ATTEMPTS - 1 or not may_pass:
                    raise
                asked = _retry_after(error)
                wait = min(self.wait_seconds * 2**attempt if asked is None else asked, MAX_WAIT_SECONDS)
                _LOG.warning("%s; trying again in %.0f s", explain(error), wait)
                time.sleep(wait)
        raise AssertionError("unreachable")


def _unwrapped(request: Callable[[], _T]) -> _T:
    """The client hides what failed in the upload of a large file behind a RuntimeError without a status."""
    try:
        return request()
    except RuntimeError as error:
        if isinstance(error.__cause__, _client_errors()):
            raise error.__cause__ from None
        raise


def _client_errors() -> tuple[type[BaseException], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # The client's errors derive from its HTTP library's HTTPError, as do those of a cut connection: httpx or httpx2.
    return (HfHubHTTPError.__bases__[0], HfHubHTTPError, ConnectionError)


def _is_offline(error: BaseException) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
