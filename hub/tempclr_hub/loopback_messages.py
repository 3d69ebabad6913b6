"""What travels between a Hub client and the loopback Hub: one request, one response, one kind of refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

_BYTE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class HubError(Exception):
    """A refusal: ``status``, a ``message`` for people, the ``code`` by which the client picks its exception."""

    def __init__(self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers or {})


@dataclass(frozen=True)
class Request:
    """One request after its credentials were checked; ``user`` is ``None`` for an anonymous one."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    user: str | None

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object."""
        return json.loads(self.body) if self.body else {}

    def fields(self) -> dict[str, Any]:
        """The body's fields, sent as JSON or as a form (where a repeated field is a list)."""
        if "json" in self.headers.get("Content-Type", ""):
            return self.json()
        return dict(parse_qs(self.body.decode()))

    def signed_in(self) -> str:
        """The user's name; an anonymous request is refused with 401."""
        if self.user is None:
            raise HubError(401, "Authentication is required: set HF_TOKEN to a token of this Hub")
        return self.user


@dataclass(frozen=True)
class Response:
    """Status, headers and body; the server adds Content-Length and leaves the body out for HEAD."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``content`` as a JSON response."""
    return Response(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def error_response(error: HubError) -> Response:
    """The refusal as the Hub words it: the message in a header and in the body, the code in a header."""
    # A header is one line of latin-1.
    message = " ".join(str(error).split()).encode("ascii", "backslashreplace").decode()
    headers = {**error.headers, "X-Error-Message": message}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return json_response({"error": str(error)}, status=error.status, headers=headers)


def content_response(request: Request, content: bytes, *, headers: Mapping[str, str]) -> Response:
    """``content``, or the part of it that the request's Range header asks for (206, or 416 when it lies outside)."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    asked = _BYTE_RANGE.fullmatch(request.headers.get("Range", ""))
    if asked is None or request.method == "HEAD" or asked[1] == asked[2] == "":
        return Response(content, headers=headers)
    size = len(content)
    if asked[1] == "":
        start, end = max(size - int(asked[2]), 0), size
    else:
        start, end = int(asked[1]), min(int(asked[2]) + 1, size) if asked[2] else size
    if start >= end:
        return Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    return Response(content[start:end], 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"})
