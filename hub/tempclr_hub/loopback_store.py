"""What the loopback Hub holds, and who may read and write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .loopback_messages import HubError, Request
from .loopback_repository import Repository

# The spelling of a kind in an address, and the kind itself.
KINDS = {"models": "model", "datasets": "dataset"}


class Store:
    """Users by token (each in every organization), repositories by kind and id, LFS objects by sha256."""

    def __init__(self, *, url: str, users: Mapping[str, str], organizations: Sequence[str], lfs_threshold: int):
        self.url, self.users, self.organizations = url, dict(users), tuple(organizations)
        self.lfs_threshold = lfs_threshold
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs_objects: dict[str, bytes] = {}

    def owns(self, user: str | None, namespace: str) -> bool:
        """Whether the user may write below this user's or organization's name."""
        return user is not None and namespace in (user, *self.organizations)

    def check_namespace(self, user: str, namespace: str) -> None:
        """Refuse, with 403, to write below a name that is neither the user's nor an organization's."""
        if not self.owns(user, namespace):
            raise HubError(
                403, f"{user} has no rights below {namespace}; own: {', '.join((user, *self.organizations))}"
            )

    def readable(self, kind: str, repo_id: str, user: str | None) -> Repository:
        """The repository, if the user may see it: as on the Hub a private one looks as if it did not exist."""
        repository = self.repositories.get((kind, repo_id))
        if repository is None or (repository.private and not self.owns(user, repository.namespace)):
            raise HubError(401 if user is None else 404, f"Repository not found: {kind} {repo_id}", code="RepoNotFound")
        return repository

    def writable(self, kind: str, repo_id: str, request: Request) -> Repository:
        """The repository, if the request may change it."""
        user = request.signed_in()
        repository = self.readable(kind, repo_id, user)
        self.check_namespace(user, repository.namespace)
        return repository

    def address(self, repository: Repository) -> str:
        """The page of a repository."""
        folder = "" if repository.kind == "model" else f"{repository.kind}s/"
        return f"{self.url}/{folder}{repository.repo_id}"
