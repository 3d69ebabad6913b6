"""The loopback Hub's file traffic: how an upload is planned, sent and committed, and how a file is downloaded.

Each function answers one route of ``loopback.ROUTES``; its keyword arguments are the route's named parts.
"""

from __future__ import annotations

import hashlib
import json

from .loopback_messages import HubError, Request, Response, content_response, json_response
from .loopback_repository import Repository, apply_operations
from .loopback_store import KINDS, Store

# What the Hub's default .gitattributes sends to LFS whatever its size.
LFS_SUFFIXES = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5"),
    *(".parquet", ".arrow", ".npy", ".npz", ".mp4", ".tar", ".zip", ".gz"),
)


def plan_upload(store: Store, request: Request, *, kinds: str, repo_id: str, revision: str) -> Response:
    """For each file the client wants to send: through git or through LFS, and what is there already."""
    repository = store.writable(KINDS[kinds], repo_id, request)
    files = repository.files(revision)
    plan = [
        {
            "path": asked["path"],
            "uploadMode": "lfs" if _belongs_in_lfs(store, asked["path"], size=asked["size"]) else "regular",
            "shouldIgnore": False,
            "oid": files[asked["path"]].etag if asked["path"] in files else None,
        }
        for asked in request.json()["files"]
    ]
    return json_response({"files": plan, "commitOid": repository.commit(revision).commit_id})


def _belongs_in_lfs(store: Store, path: str, *, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > store.lfs_threshold


def lfs_batch(store: Store, request: Request, *, kinds: str | None = None, repo_id: str) -> Response:
    """Where to send each LFS object; one that is here already needs no sending."""
    store.writable(KINDS[kinds or "models"], repo_id, request)
    actions = {"verify": {"href": f"{store.url}/lfs/verify", "header": {}}}
    objects = []
    for asked in request.json()["objects"]:
        row = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in store.lfs_objects:
            row["actions"] = {"upload": {"href": f"{store.url}/lfs/{asked['oid']}", "header": {}}, **actions}
        objects.append(row)
    kind_of_json = {"Content-Type": "application/vnd.git-lfs+json"}
    return json_response({"transfer": "basic", "objects": objects}, headers=kind_of_json)


def lfs_upload(store: Store, request: Request, *, sha256: str) -> Response:
    """Take one LFS object; refused if it is not what its name says."""
    # As with the Hub's signed addresses, the client sends no token here: the address is the permission.
    found = hashlib.sha256(request.body).hexdigest()
    if found != sha256:
        raise HubError(400, f"The LFS object {sha256} arrived as {found}")
    store.lfs_objects[sha256] = request.body
    return Response()


def lfs_verify(store: Store, request: Request) -> Response:
    """Whether an LFS object arrived whole."""
    asked = request.json()
    content = store.lfs_objects.get(asked["oid"])
    if content is None or len(content) != asked["size"]:
        raise HubError(404, f"The LFS object {asked['oid']} of {asked['size']} bytes is not here")
    return json_response({})


def commit(store: Store, request: Request, *, kinds: str, repo_id: str, branch: str) -> Response:
    """One commit: a header line and one line an operation, each a JSON object."""
    repository = store.writable(KINDS[kinds], repo_id, request)
    if "create_pr" in request.query:
        raise HubError(400, "Pull requests are not served: commit to a branch")
    if branch not in repository.branches:
        raise HubError(404, f"{repo_id} has no branch {branch} to commit to", code="RevisionNotFound")
    header, *operations = (json.loads(line) for line in request.body.splitlines() if line.strip())
    summary = header["value"]
    _check_parent(repository, branch, expected=summary.get("parentCommit"))
    added = repository.add_commit(
        apply_operations(repository.files(branch), operations, lfs_objects=store.lfs_objects),
        branch=branch,
        title=summary["summary"],
        description=summary.get("description", ""),
    )
    page = f"{store.address(repository)}/commit/{added.commit_id}"
    return json_response({"success": True, "commitOid": added.commit_id, "commitUrl": page, "hookOutput": ""})


def _check_parent(repository: Repository, branch: str, *, expected: str | None) -> None:
    if expected is not None and expected != repository.branches[branch]:
        raise HubError(412, f"The branch {branch} of {repository.repo_id} has moved since commit {expected}")


# Note [LFS files are answered directly]
# The Hub redirects the download of an LFS file to another host, and the client reads X-Repo-Commit and the ETag from
# the redirect. It follows a redirect to the same host without reading them, and then takes the file for missing. Here
# there is one host only, so an LFS file is sent at once like any other, with its sha256 as the ETag.


def download(
    store: Store, request: Request, *, kinds: str | None = None, repo_id: str, revision: str, path: str
) -> Response:
    """A file of a revision, or a part of it."""
    repository = store.readable(KINDS[kinds or "models"], repo_id, request.user)
    if repository.gated and not store.owns(request.user, repository.namespace):
        status = 401 if request.user is None else 403
        raise HubError(status, f"Access to {repo_id} is restricted", code="GatedRepo")
    found = repository.commit(revision)
    headers = {"X-Repo-Commit": found.commit_id}
    if path not in found.files:
        # With the commit the client remembers that this revision has no such file.
        message = f"{path} does not exist on {revision} of {repo_id}"
        raise HubError(404, message, code="EntryNotFound", headers=headers)
    file = found.files[path]
    return content_response(request, file.content, headers={**headers, "ETag": f'"{file.etag}"'})
