"""One repository of the loopback Hub: files, commits, branches and tags, all in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .loopback_messages import HubError


def _git_object_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """A file's content with the names git and LFS give it; only LFS files have ``sha256`` and ``pointer_size``."""

    content: bytes
    object_id: str
    sha256: str | None = None
    pointer_size: int | None = None

    @classmethod
    def regular(cls, content: bytes) -> StoredFile:
        """A file kept in git itself."""
        return cls(content, _git_object_id(content))

    @classmethod
    def large(cls, content: bytes) -> StoredFile:
        """A file kept in LFS: git holds a pointer of three lines."""
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        return cls(content, _git_object_id(pointer), sha256, len(pointer))

    @property
    def etag(self) -> str:
        """What the client names the file in its cache."""
        return self.sha256 or self.object_id

    def entry(self, path: str) -> dict[str, Any]:
        """The file's row in a listing."""
        row: dict[str, Any] = {"type": "file", "path": path, "oid": self.object_id, "size": len(self.content)}
        if self.sha256 is not None:
            row["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": self.pointer_size}
        return row


@dataclass(frozen=True)
class Commit:
    """One state of all files. ``files`` maps each path to its file."""

    commit_id: str
    parent: str | None
    title: str
    description: str
    date: str
    files: Mapping[str, StoredFile]


class Repository:
    """The history of one repository. ``kind`` is ``"model"`` or ``"dataset"``.

    >>> repository = Repository("model", "tester/toy")
    >>> first = repository.add_commit({"a.txt": StoredFile.regular(b"hello")}, branch="main", title="Add a.txt")
    >>> repository.create_tag("v1", revision="main")
    >>> repository.files("v1")["a.txt"].content
    b'hello'
    """

    def __init__(self, kind: str, repo_id: str, *, private: bool = False):
        self.kind, self.repo_id, self.private = kind, repo_id, private
        self.gated: str | bool = False
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.add_commit({}, branch="main", title="initial commit")

    @property
    def namespace(self) -> str:
        """The user or organization that owns the repository."""
        return self.repo_id.partition("/")[0]

    def commit(self, revision: str) -> Commit:
        """The commit a branch, tag, full reference or commit id stands for; an unknown one is refused with 404."""
        for name, names in (
            (revision, self.branches),
            (revision, self.tags),
            (revision.removeprefix("refs/heads/"), self.branches),
            (revision.removeprefix("refs/tags/"), self.tags),
        ):
            if name in names:
                return self.commits[names[name]]
        if revision in self.commits:
            return self.commits[revision]
        raise HubError(404, f"Invalid rev id: {revision} in {self.repo_id}", code="RevisionNotFound")

    def files(self, revision: str = "main") -> Mapping[str, StoredFile]:
        """Every file of one revision by its path."""
        return self.commit(revision).files

    def history(self, revision: str) -> list[Commit]:
        """The commits up to ``revision``, newest first."""
        commits = [self.commit(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def add_commit(self, files: Mapping[str, StoredFile], *, branch: str, title: str, description: str = "") -> Commit:
        """Move ``branch`` on to a new commit that holds exactly ``files``."""
        parent = self.branches.get(branch)
        listing = sorted((path, file.etag) for path, file in files.items())
        # The count of commits keeps two equal commits apart.
        identity = json.dumps([self.kind, self.repo_id, parent, title, description, listing, len(self.commits)])
        commit_id = hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest()
        date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.commits[commit_id] = Commit(commit_id, parent, title, description, date, dict(files))
        self.branches[branch] = commit_id
        return self.commits[commit_id]

    def create_tag(self, tag: str, *, revision: str) -> None:
        """Name a commit for good; a tag that exists is refused with 409."""
        if tag in self.tags:
            raise HubError(409, f"Tag {tag} already exists in {self.repo_id}")
        self.tags[tag] = self.commit(revision).commit_id

    def create_branch(self, branch: str, *, revision: str) -> None:
        """Start a branch at ``revision``; a branch that exists is refused with 409."""
        if branch in self.branches:
            raise HubError(409, f"Reference already exists: branch {branch} of {self.repo_id}")
        self.branches[branch] = self.commit(revision).commit_id

    def delete_tag(self, tag: str) -> None:
        """Forget a tag; an unknown one is refused with 404."""
        if self.tags.pop(tag, None) is None:
            raise HubError(404, f"Tag {tag} does not exist in {self.repo_id}", code="RevisionNotFound")

    def delete_branch(self, branch: str) -> None:
        """Forget a branch; ``main`` is refused with 403, an unknown one with 404."""
        if branch == "main":
            raise HubError(403, f"The branch main of {self.repo_id} cannot be deleted")
        if self.branches.pop(branch, None) is None:
            raise HubError(404, f"Branch {branch} does not exist in {self.repo_id}", code="RevisionNotFound")

    def listing(self, revision: str, *, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """The rows of one folder ("" for the root), folders before files; ``recursive`` adds everything below."""
        files = self.files(revision)
        prefix = f"{folder}/" if folder else ""
        below = sorted(path for path in files if path.startswith(prefix))
        if folder and not below:
            raise HubError(404, f"{folder} does not exist on {revision} of {self.repo_id}", code="EntryNotFound")
        folders = sorted({name for path in below for name in _folders_of(path, prefix=prefix, recursive=recursive)})
        shown = [path for path in below if recursive or "/" not in path[len(prefix) :]]
        return [_folder_entry(name) for name in folders] + [files[path].entry(path) for path in shown]

    def entries(self, revision: str, paths: Iterable[str]) -> list[dict[str, Any]]:
        """The rows of the named files and folders; those that do not exist are left out, as the Hub does."""
        files, rows = self.files(revision), []
        for path in paths:
            if path in files:
                rows.append(files[path].entry(path))
            elif any(name.startswith(path.rstrip("/") + "/") for name in files):
                rows.append(_folder_entry(path.rstrip("/")))
        return rows


def _folders_of(path: str, *, prefix: str, recursive: bool) -> list[str]:
    parts = path[len(prefix) :].split("/")[:-1]
    return [
        prefix + "/".join(parts[:depth]) for depth in range(1, (len(parts) if recursive else min(len(parts), 1)) + 1)
    ]


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}


def apply_operations(
    files: Mapping[str, StoredFile], operations: Iterable[Mapping[str, Any]], *, lfs_objects: Mapping[str, bytes]
) -> dict[str, StoredFile]:
    """``files`` after a commit's operations, each ``{"key": ..., "value": {"path": ...}}`` as the client sends them."""
    files = dict(files)
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = value["path"]
        if key == "file":
            files[path] = StoredFile.regular(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in lfs_objects:
                raise HubError(400, f"The LFS object {value['oid']} of {path} was not uploaded")
            files[path] = StoredFile.large(lfs_objects[value["oid"]])
        elif key in ("deletedFile", "deletedFolder"):
            files = _without(files, path, is_folder=key == "deletedFolder")
        else:
            raise HubError(400, f"Unknown commit operation {key!r}; served: file, lfsFile, deletedFile, deletedFolder")
    return files


def _without(files: Mapping[str, StoredFile], path: str, *, is_folder: bool) -> dict[str, StoredFile]:
    def gone(name: str) -> bool:
        return name.startswith(path.rstrip("/") + "/") if is_folder else name == path

    kept = {name: file for name, file in files.items() if not gone(name)}
    if len(kept) == len(files):
        raise HubError(404, f"A {'folder' if is_folder else 'file'} {path} does not exist", code="EntryNotFound")
    return kept
