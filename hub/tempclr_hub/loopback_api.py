"""The loopback Hub's JSON interface: accounts, repositories, their references and their listings.

Each function answers one route of ``loopback.ROUTES``; its keyword arguments are the route's named parts.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from .loopback_messages import HubError, Request, Response, json_response
from .loopback_repository import Repository
from .loopback_store import KINDS, Store

_FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)


def who_am_i(store: Store, request: Request) -> Response:
    """The account behind the token."""
    user = request.signed_in()
    organizations = [
        {"type": "org", "name": name, "fullname": name, "roleInOrg": "admin"} for name in store.organizations
    ]
    account = {"type": "user", "id": user, "name": user, "fullname": user, "email": f"{user}@localhost"}
    token = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": "write"}}
    return json_response({**account, "isPro": False, "canPay": False, "orgs": organizations, "auth": token})


def validate_card(store: Store, request: Request) -> Response:
    """The faults of a card's front matter: status 400 if there are any."""
    fields = request.json()
    errors = _card_errors(fields["content"], kind=fields.get("repoType", "model"))
    return json_response({"errors": errors, "warnings": []}, status=400 if errors else 200)


def create_repository(store: Store, request: Request) -> Response:
    """A new repository; 409 with its address if it exists."""
    user, fields = request.signed_in(), request.json()
    kind, repo_id = _named_repository(fields, user=user)
    store.check_namespace(user, repo_id.partition("/")[0])
    if existing := store.repositories.get((kind, repo_id)):
        message = f"You already created this {kind} repo"
        return json_response({"error": message, "url": store.address(existing)}, status=409)
    private = bool(fields.get("private")) or fields.get("visibility") == "private"
    repository = store.repositories[kind, repo_id] = Repository(kind, repo_id, private=private)
    return json_response({"url": store.address(repository), "name": repo_id, "id": repo_id})


def delete_repository(store: Store, request: Request) -> Response:
    """The repository and its history are gone."""
    kind, repo_id = _named_repository(request.json(), user=request.signed_in())
    store.writable(kind, repo_id, request)
    del store.repositories[kind, repo_id]
    return json_response({})


def list_repositories(store: Store, request: Request, *, kinds: str) -> Response:
    """Every repository the user may see, filtered by ``author`` and ``search``."""
    author, search = (request.query.get(name, [""])[0] for name in ("author", "search"))
    seen = [
        repository
        for (kind, _), repository in store.repositories.items()
        if kind == KINDS[kinds]
        and author in ("", repository.namespace)
        and search.lower() in repository.repo_id.lower()
        and (not repository.private or store.owns(request.user, repository.namespace))
    ]
    return json_response([_information(repository, "main", with_sizes=False) for repository in seen])


def information(store: Store, request: Request, *, kinds: str, repo_id: str, revision: str = "main") -> Response:
    """What the Hub knows of one revision: commit, files, card."""
    repository = store.readable(KINDS[kinds], repo_id, request.user)
    return json_response(_information(repository, revision, with_sizes="blobs" in request.query))


def settings(store: Store, request: Request, *, kinds: str, repo_id: str) -> Response:
    """Private or not, gated or not."""
    repository = store.writable(KINDS[kinds], repo_id, request)
    fields = request.json()
    repository.private = fields.get("private", repository.private)
    repository.gated = fields.get("gated", repository.gated)
    return json_response({"private": repository.private, "gated": repository.gated})


def references(store: Store, request: Request, *, kinds: str, repo_id: str) -> Response:
    """Branches and tags with the commits they name."""
    repository = store.readable(KINDS[kinds], repo_id, request.user)

    def rows(group: str, names: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{group}/{name}", "targetCommit": to} for name, to in names.items()]

    found = {"branches": rows("heads", repository.branches), "tags": rows("tags", repository.tags)}
    return json_response({**found, "converts": [], "pullRequests": []})


def commits(store: Store, request: Request, *, kinds: str, repo_id: str, revision: str) -> Response:
    """The history of a revision, newest first."""
    repository = store.readable(KINDS[kinds], repo_id, request.user)
    rows = [
        {
            "id": commit.commit_id,
            "title": commit.title,
            "message": commit.description,
            "date": commit.date,
            "authors": [{"user": repository.namespace}],
        }
        for commit in repository.history(revision)
    ]
    return json_response(rows, headers={"X-Total-Count": str(len(rows))})


def create_tag(store: Store, request: Request, *, kinds: str, repo_id: str, revision: str) -> Response:
    """Tag a revision."""
    repository = store.writable(KINDS[kinds], repo_id, request)
    repository.create_tag(request.json()["tag"], revision=revision)
    return json_response({})


def delete_tag(store: Store, request: Request, *, kinds: str, repo_id: str, revision: str) -> Response:
    """Remove a tag; the route's ``revision`` is the tag."""
    store.writable(KINDS[kinds], repo_id, request).delete_tag(revision)
    return json_response({})


def create_branch(store: Store, request: Request, *, kinds: str, repo_id: str, branch: str) -> Response:
    """Start a branch, at ``main`` unless the request says where."""
    repository = store.writable(KINDS[kinds], repo_id, request)
    repository.create_branch(branch, revision=request.json().get("startingPoint") or "main")
    return json_response({})


def delete_branch(store: Store, request: Request, *, kinds: str, repo_id: str, branch: str) -> Response:
    """Remove a branch."""
    store.writable(KINDS[kinds], repo_id, request).delete_branch(branch)
    return json_response({})


def tree(store: Store, request: Request, *, kinds: str, repo_id: str, revision: str, folder: str = "") -> Response:
    """The rows of a folder."""
    repository = store.readable(KINDS[kinds], repo_id, request.user)
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("1", "true")
    return json_response(repository.listing(revision, folder=folder.rstrip("/"), recursive=recursive))


def paths_info(store: Store, request: Request, *, kinds: str, repo_id: str, revision: str) -> Response:
    """The rows of named paths."""
    repository = store.readable(KINDS[kinds], repo_id, request.user)
    paths = request.fields().get("paths", [])
    return json_response(repository.entries(revision, [paths] if isinstance(paths, str) else paths))


def _named_repository(fields: dict[str, Any], *, user: str) -> tuple[str, str]:
    kind = fields.get("type") or "model"
    if kind not in KINDS.values():
        raise HubError(400, f"Repositories of type {kind!r} are not served; served: {', '.join(KINDS.values())}")
    return kind, f"{fields.get('organization') or user}/{fields['name']}"


def _information(repository: Repository, revision: str, *, with_sizes: bool) -> dict[str, Any]:
    commit = repository.commit(revision)
    card = _card_metadata(repository, revision)
    details = {
        path: {"size": len(file.content), "blobId": file.object_id} if with_sizes else {}
        for path, file in commit.files.items()
    }
    found: dict[str, Any] = {
        "_id": hashlib.sha256(repository.repo_id.encode()).hexdigest()[:24],
        "id": repository.repo_id,
        "author": repository.namespace,
        "sha": commit.commit_id,
        "createdAt": repository.history(revision)[-1].date,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(card.get("tags") or []),
        "cardData": card,
        "siblings": [{"rfilename": path, **details[path]} for path in sorted(details)],
    }
    if repository.kind == "model":
        found["modelId"] = repository.repo_id
        found |= {key: card[key] for key in ("pipeline_tag", "library_name", "model-index") if card.get(key)}
        found |= _model_configuration(repository, revision)
    return found


def _model_configuration(repository: Repository, revision: str) -> dict[str, Any]:
    file = repository.files(revision).get("config.json")
    if file is None:
        return {}
    config = json.loads(file.content)
    shown = ("architectures", "model_type", "auto_map")
    return {"config": {key: config[key] for key in shown if key in config}}


def _card_metadata(repository: Repository, revision: str) -> dict[str, Any]:
    file = repository.files(revision).get("README.md")
    if file is None or _card_errors(file.content.decode(), kind=repository.kind):
        return {}
    return _front_matter(file.content.decode()) or {}


def _front_matter(card: str) -> Any:
    import yaml  # a dependency of every Hub client, so no machine that reaches this line lacks it

    found = _FRONT_MATTER.match(card)
    return yaml.safe_load(found[1]) if found else {}


def _card_errors(card: str, *, kind: str) -> list[dict[str, str]]:
    import yaml

    try:
        metadata = _front_matter(card) or {}
    except yaml.YAMLError as error:
        return [{"message": f"invalid yaml: {error}"}]
    if not isinstance(metadata, dict):
        return [{"message": f"the front matter must be a mapping, got {type(metadata).__name__}"}]
    models = metadata.get("model-index") or [] if kind == "model" else []
    return [{"message": message} for place, model in enumerate(models) for message in _result_errors(model, place)]


def _result_errors(model: Any, place: int) -> list[str]:
    where = f'"model-index[{place}]"'
    if not isinstance(model, dict) or "name" not in model or not isinstance(model.get("results"), list):
        return [f'{where} must have "name" and a list "results"']
    lacking = [
        f'{where} has a result without "{key}"'
        for key in ("task", "metrics")
        for result in model["results"]
        if key not in result
    ]
    metrics = [metric for result in model["results"] for metric in result.get("metrics", [])]
    return lacking + [
        f'{where} has a metric without "type" or "value"'
        for metric in metrics
        if not {"type", "value"} <= metric.keys()
    ]
