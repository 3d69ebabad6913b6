"""A Hugging Face Hub on this machine, without a network: the real ``huggingface_hub`` client pushes to it and pulls.

It listens on 127.0.0.1 only, keeps everything in memory and forgets it at the end. It serves model and dataset
repositories: creation, upload (through git and LFS), commits, branches, tags, listings, downloads and their parts,
cards, private and gated repositories. It does not serve pull requests, discussions, spaces and the xet protocol: a
route it does not know is answered with 404 and a message that says so.

    loopback.py ──► loopback_api.py, loopback_transfer.py ──► loopback_store.py ──► loopback_repository.py
      server, routes           one function a route             users, rights          files and history
"""

from __future__ import annotations

import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from . import loopback_api, loopback_transfer
from .loopback_messages import HubError, Request, Response, error_response
from .loopback_store import Store

_API = r"/api/(?P<kinds>models|datasets)/(?P<repo_id>[^/]+(?:/[^/]+)?)"
_REPOSITORY = r"/(?:(?P<kinds>datasets)/)?(?P<repo_id>[^/]+(?:/[^/]+)?)"

# Method, pattern of the path, and the function that answers; the first that fits is taken.
ROUTES: tuple[tuple[str, str, Callable[..., Response]], ...] = (
    ("GET", r"/api/whoami-v2", loopback_api.who_am_i),
    ("POST", r"/api/validate-yaml", loopback_api.validate_card),
    ("POST", r"/api/repos/create", loopback_api.create_repository),
    ("DELETE", r"/api/repos/delete", loopback_api.delete_repository),
    ("GET", r"/api/(?P<kinds>models|datasets)", loopback_api.list_repositories),
    ("PUT", _API + r"/settings", loopback_api.settings),
    ("GET", _API + r"/refs", loopback_api.references),
    ("GET", _API + r"/commits/(?P<revision>[^/]+)", loopback_api.commits),
    ("POST", _API + r"/tag/(?P<revision>[^/]+)", loopback_api.create_tag),
    ("DELETE", _API + r"/tag/(?P<revision>[^/]+)", loopback_api.delete_tag),
    ("POST", _API + r"/branch/(?P<branch>[^/]+)", loopback_api.create_branch),
    ("DELETE", _API + r"/branch/(?P<branch>[^/]+)", loopback_api.delete_branch),
    ("GET", _API + r"/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?", loopback_api.tree),
    ("POST", _API + r"/paths-info/(?P<revision>[^/]+)", loopback_api.paths_info),
    ("POST", _API + r"/preupload/(?P<revision>[^/]+)", loopback_transfer.plan_upload),
    ("POST", _API + r"/commit/(?P<branch>[^/]+)", loopback_transfer.commit),
    ("GET", _API + r"/revision/(?P<revision>[^/]+)", loopback_api.information),
    ("GET", _API, loopback_api.information),
    ("PUT", r"/lfs/(?P<sha256>[0-9a-f]{64})", loopback_transfer.lfs_upload),
    ("POST", r"/lfs/verify", loopback_transfer.lfs_verify),
    ("POST", _REPOSITORY + r"\.git/info/lfs/objects/batch", loopback_transfer.lfs_batch),
    ("GET", _REPOSITORY + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", loopback_transfer.download),
)


@dataclass(frozen=True)
class Served:
    """One line of the log: what was asked and what came of it."""

    method: str
    path: str
    status: int
    message: str = ""


@dataclass
class Fault:
    """The next ``times`` requests of ``method`` whose path matches ``pattern`` fail.

    ``status``: the Hub answers so, with ``headers``; ``None``: it cuts the connection in the middle of the request.
    """

    method: str
    pattern: str
    status: int | None
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)


class LoopbackHub:
    """A Hub stand-in for as long as the ``with`` block runs.

    ``users`` maps tokens to user names; every user is a member of every organization. Files above ``lfs_threshold``
    bytes, and weights and archives of any size, travel as LFS objects.

    ``faults``: requests that are to fail, for tests of what the client does then.

    The client reads its environment when it is imported, so give ``environment`` to a new process:

    >>> import os, subprocess, sys, tempfile
    >>> code = "from huggingface_hub import HfApi; print(HfApi().whoami()['name'])"
    >>> with LoopbackHub() as hub, tempfile.TemporaryDirectory() as home:
    ...     environment = {**os.environ, **hub.environment(home)}
    ...     subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    'tester\\n'
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        organizations: Sequence[str] = ("tempclr",),
        *,
        lfs_threshold: int = 10 * 1024 * 1024,
    ):
        self.requests: list[Served] = []
        self.faults: list[Fault] = []
        self._lock = threading.RLock()
        # Port 0: the system picks a free one.
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.users = dict({"hf_test": "tester"} if users is None else users)
        self.store = Store(url=self.url, users=self.users, organizations=organizations, lfs_threshold=lfs_threshold)

    def __enter__(self) -> LoopbackHub:
        # The server looks for the end of the block this often.
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        self._thread = threading.Thread(target=serve, name="loopback-hub", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self, home: str | PathLike[str], *, token: str | None = None) -> dict[str, str]:
        """The variables under which a new process's Hub client knows this Hub only, and caches below ``home`` only.

        Add them to a copy of ``os.environ``. ``token`` is one of ``users`` (the first if ``None``, anonymous if "").
        """
        folder = Path(home).absolute()
        if token is None:
            token = next(iter(self.users), "")
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": token,
            "HF_HOME": str(folder),
            # Each of these would win over HF_HOME if the caller's own environment had it.
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_DATASETS_CACHE": str(folder / "datasets"),
            "HF_MODULES_CACHE": str(folder / "modules"),
            "HF_XET_CACHE": str(folder / "xet"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HUGGING_FACE_HUB_TOKEN": token,
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def files(self, repo_id: str, *, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The content of every file of a repository; ``KeyError`` if there is no such repository."""
        with self._lock:
            files = self.store.repositories[kind, repo_id].files(revision)
            return {path: file.content for path, file in sorted(files.items())}

    def failures(self) -> list[Served]:
        """What this server could not answer: unknown routes, and its own faults."""
        return [
            served
            for served in self.requests
            if (served.status >= 500 and served.message != _ASKED_FOR) or served.message.startswith(_NO_ROUTE)
        ]

    def next_fault(self, method: str, address: str) -> Fault | None:
        """The fault that this request meets, counted off and logged."""
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, urlsplit(address).path):
                    fault.times -= 1
                    self.requests.append(Served(method, address, fault.status or 0, _ASKED_FOR))
                    return fault
        return None

    def respond(self, method: str, address: str, *, headers: Mapping[str, str], body: bytes) -> Response:
        """Answer one request and log it."""
        message = ""
        try:
            with self._lock:
                response = self._route(method, address, headers=headers, body=body)
        except HubError as error:
            message, response = str(error), error_response(error)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            message = f"The loopback Hub failed: {error!r}"
            response = error_response(HubError(500, message))
        self.requests.append(Served(method, address, response.status, message))
        return response

    def _route(self, method: str, address: str, *, headers: Mapping[str, str], body: bytes) -> Response:
        parts = urlsplit(address)
        user = self._user(headers)
        request = Request(method, parts.path, parse_qs(parts.query), headers, body, user)
        for answered, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, parts.path)
            # HEAD is a GET whose body the handler keeps back.
            if found and answered == ("GET" if method == "HEAD" else method):
                named = {name: unquote(part) for name, part in found.groupdict().items() if part is not None}
                return answer(self.store, request, **named)
        raise HubError(404, f"{_NO_ROUTE} {method} {parts.path}")

    def _user(self, headers: Mapping[str, str]) -> str | None:
        token = headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if token and token not in self.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.users.get(token)


_NO_ROUTE = "The loopback Hub has no route"
_ASKED_FOR = "A fault that was asked for"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in two writes; without this each answer waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def __init__(self, hub: LoopbackHub, *arguments: object):
        self._hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def _answer(self) -> None:
        headers = {name.title(): value for name, value in self.headers.items()}
        fault = self._hub.next_fault(self.command, self.path)
        if fault is not None and fault.status is None:
            # Not a word, and unread bytes of the request: the client sees its connection reset.
            self.rfile.read(min(64, int(headers.get("Content-Length", "0"))))
            self.close_connection = True
            return
        body = self._body(headers)
        if fault is not None and fault.status is not None:
            failed = HubError(fault.status, _ASKED_FOR, headers=fault.headers)
            response = error_response(failed)
        else:
            response = self._hub.respond(self.command, self.path, headers=headers, body=body)
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(headers.get("Content-Length", "0")))

    def _chunks(self) -> Sequence[bytes]:
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return chunks

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the hub keeps its own log."""
