"""The loopback Hub as the real client sees it, and as plain HTTP."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tempclr_hub import loopback_api, loopback_transfer
from tempclr_hub.loopback import ROUTES, LoopbackHub

USERS = {"hf_test": "tester", "hf_other": "other"}


@pytest.fixture(scope="module")
def client(run_driver, tmp_path_factory) -> Iterator[tuple[LoopbackHub, dict[str, Any]]]:
    with LoopbackHub(USERS, lfs_threshold=20_000) as hub:
        yield hub, run_driver(hub, "hub_client.py", tmp_path_factory.mktemp("client"))


def test_the_client_knows_who_it_is(client):
    assert client[1]["account"] == ["tester", ["tempclr"]]


def test_the_client_uploads_lists_downloads_and_deletes(client):
    hub, seen = client[0], client[1]["transfer"]
    assert seen["url"] == seen["created_twice"] == f"{hub.url}/tester/toy"
    assert seen["no_new_commit"] and seen["snapshot_equal"] and seen["downloaded"] == "hello"
    assert seen["files_at_tag"] == ["config.json", "large.txt", "weights/model.safetensors"]
    assert seen["files"] == ["config.json", "large.txt", "notes/a b.txt", "weights/model.safetensors"]
    assert seen["tree"] == ["RepoFolder notes", "RepoFolder weights", *(f"RepoFile {path}" for path in seen["files"])]
    assert seen["top"] == ["notes", "weights", "config.json", "large.txt"]
    assert seen["below"] == ["weights/model.safetensors"]
    assert seen["paths"] == ["RepoFile config.json", "RepoFolder weights"]
    assert seen["sizes"]["large.txt"] == 25_000
    assert seen["after_deletion"] == ["config.json", "large.txt"]
    assert seen["titles"][-2:] == ["Add everything", "initial commit"] and len(seen["titles"]) == 5


def test_large_files_travel_as_lfs_objects(client):
    hub = client[0]
    sent = {served.path for served in hub.requests if served.method == "PUT" and served.path.startswith("/lfs/")}
    weights = hashlib.sha256(bytes(range(256)) * 100).hexdigest()
    above_threshold = hashlib.sha256(b"line\n" * 5000).hexdigest()
    assert sent == {f"/lfs/{weights}", f"/lfs/{above_threshold}"}


def test_the_client_manages_branches_and_tags(client):
    seen = client[1]["references"]
    assert seen["branches"] == ["refs/heads/main", "refs/heads/feature/one"] and seen["tags"] == ["refs/tags/v1.0"]
    assert seen["one_on_branch"] and not seen["one_on_main"]
    assert [seen[name][1] for name in ("tag_twice", "branch_twice", "delete_main")] == [409, 409, 403]
    assert seen["tag_gone"] == seen["branch_gone"] == ["RevisionNotFoundError", 404]


@pytest.mark.parametrize(
    ("step", "expected"),
    {
        "who_with_unknown_token": ["HfHubHTTPError", 401],
        "missing_repo": ["RepositoryNotFoundError", 404],
        "missing_repo_anonymously": ["RepositoryNotFoundError", 401],
        "missing_repo_without_namespace": ["RepositoryNotFoundError", 404],
        "missing_file": ["RemoteEntryNotFoundError", 404],
        "missing_folder": ["RemoteEntryNotFoundError", 404],
        "missing_revision": ["RevisionNotFoundError", 404],
        "create_twice": ["HfHubHTTPError", 409],
        "create_below_another": ["HfHubHTTPError", 403],
        "write_to_another": ["HfHubHTTPError", 403],
        "write_anonymously": ["HfHubHTTPError", 401],
        "pull_request": ["BadRequestError", 400],
        "moved_branch": ["HfHubHTTPError", 412],
        "delete_missing_file": ["RemoteEntryNotFoundError", 404],
        "space": ["BadRequestError", 400],
        "exists": [True, False, False],
    }.items(),
)
def test_the_client_is_refused_as_by_the_hub(client, step, expected):
    assert client[1]["refusals"][step] == expected


def test_private_and_gated_repositories_are_for_those_who_may_see_them(client):
    seen = client[1]["privacy"]
    assert seen["secret_of_owner"] == seen["gated_of_owner"] == seen["shared_by_organization"] == "{}"
    assert seen["secret_of_other"] == ["RepositoryNotFoundError", 404]
    assert seen["gated_of_other"] == ["GatedRepoError", 403]
    assert seen["gated_anonymously"] == ["GatedRepoError", 401]
    assert seen["listed_for_owner"] == ["tester/gated", "tester/secret", "tester/toy"]
    assert seen["listed_for_other"] == ["tester/gated", "tester/toy"]
    assert seen["after_deletion"] is False


def test_the_client_needed_no_route_that_is_missing(client):
    assert client[0].failures() == []


def test_datasets_are_pushed_loaded_and_streamed(run_driver):
    with LoopbackHub(USERS) as hub:
        seen = run_driver(hub, "hub_dataset.py")
        files = hub.files("tempclr/paragraphs", kind="dataset")
    assert seen == {
        "whole_equal": True,
        "stream_equal": True,
        "splits": ["extra", "test", "train"],
        "splits_at_tag": ["test", "train"],
        "kinds": [True, False],
        "info": "tempclr/paragraphs",
    }
    assert "README.md" in files and sum(path.endswith(".parquet") for path in files) == 3
    assert hub.failures() == []


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        call(hub, "POST", "/api/repos/create", {"name": "toy"})
        commit(hub, [{"key": "file", "value": {"path": "a.txt", "content": base64.b64encode(b"0123456789").decode()}}])
        yield hub


def call(
    hub: LoopbackHub, method: str, path: str, body: Any = None, *, token: str = "hf_test", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One plain HTTP request; a body that is not bytes is sent as JSON."""
    connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=10)
    content = body if body is None or isinstance(body, bytes | Iterator) else json.dumps(body).encode()
    credentials = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, body=content, headers={**credentials, **headers})
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def commit(hub: LoopbackHub, operations: list[dict[str, Any]]) -> tuple[int, http.client.HTTPMessage, bytes]:
    lines = [{"key": "header", "value": {"summary": "change"}}, *operations]
    return call(hub, "POST", "/api/models/tester/toy/commit/main", "\n".join(map(json.dumps, lines)).encode())


@pytest.mark.parametrize(
    ("asked", "status", "expected", "placed"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_a_range_gives_a_part(hub, asked, status, expected, placed):
    found = call(hub, "GET", "/tester/toy/resolve/main/a.txt", Range=asked)
    assert (found[0], found[2], found[1]["Content-Range"]) == (status, expected, placed)


def test_head_tells_size_commit_and_etag_without_the_content(hub):
    status, headers, content = call(hub, "HEAD", "/tester/toy/resolve/main/a.txt")
    blob = hashlib.sha1(b"blob 10\x000123456789").hexdigest()
    assert (status, headers["Content-Length"], headers["ETag"], content) == (200, "10", f'"{blob}"', b"")
    assert headers["X-Repo-Commit"] == hub.store.repositories["model", "tester/toy"].branches["main"]


def test_lfs_files_are_answered_directly(hub):
    """Note [LFS files are answered directly]: no redirect, and the sha256 as the ETag."""
    content = b"weights"
    sha256 = hashlib.sha256(content).hexdigest()
    batch = "/tester/toy.git/info/lfs/objects/batch"
    asked = {"objects": [{"oid": sha256, "size": len(content)}]}
    assert "actions" in json.loads(call(hub, "POST", batch, asked)[2])["objects"][0]
    assert call(hub, "POST", "/lfs/verify", {"oid": sha256, "size": 7})[0] == 404
    # A body of unknown length is sent in chunks.
    assert call(hub, "PUT", f"/lfs/{sha256}", iter([content[:3], content[3:]]))[0] == 200
    assert call(hub, "POST", "/lfs/verify", {"oid": sha256, "size": 7})[0] == 200
    assert "actions" not in json.loads(call(hub, "POST", batch, asked)[2])["objects"][0]
    operation = {"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": sha256, "size": 7}}
    assert commit(hub, [operation])[0] == 200
    status, headers, found = call(hub, "GET", "/tester/toy/resolve/main/b.bin")
    assert (status, headers["ETag"], found) == (200, f'"{sha256}"', content)


def test_an_lfs_object_must_be_what_it_claims(hub):
    status, _, content = call(hub, "PUT", f"/lfs/{'0' * 64}", b"something else")
    assert status == 400 and b"arrived as" in content
    absent = {"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}}
    assert commit(hub, [absent])[0] == 400
    assert list(hub.files("tester/toy")) == ["a.txt"]


def test_an_unknown_operation_and_a_missing_branch_are_refused(hub):
    status, headers, _ = commit(hub, [{"key": "rename", "value": {"path": "a.txt"}}])
    assert status == 400 and "rename" in headers["X-Error-Message"]
    assert commit(hub, [{"key": "deletedFolder", "value": {"path": "a.txt"}}])[0] == 404
    assert call(hub, "POST", "/api/models/tester/toy/commit/absent", b"")[0] == 404


def test_an_unknown_route_says_so(hub):
    status, headers, content = call(hub, "GET", "/api/spaces/tester/toy/runtime")
    assert status == 404
    assert headers["X-Error-Message"] == "The loopback Hub has no route GET /api/spaces/tester/toy/runtime"
    assert "no route" in json.loads(content)["error"]
    assert [served.path for served in hub.failures()] == ["/api/spaces/tester/toy/runtime"]


def test_a_fault_of_the_server_is_a_500_with_its_reason(hub, monkeypatch, capsys):
    monkeypatch.setattr(hub.store, "readable", None)
    status, headers, _ = call(hub, "GET", "/api/models/tester/toy")
    assert status == 500 and "TypeError" in headers["X-Error-Message"]
    assert "Traceback" in capsys.readouterr().err
    assert hub.failures()[0].status == 500


def test_an_unknown_token_is_refused_everywhere(hub):
    assert call(hub, "GET", "/api/models/tester/toy", token="hf_wrong")[0] == 401
    assert call(hub, "GET", "/api/models/tester/toy", token="")[0] == 200
    assert call(hub, "GET", "/api/whoami-v2", token="")[0] == 401


@pytest.mark.parametrize(
    ("front_matter", "fault"),
    [
        ("license: apache-2.0", None),
        ("model-index:\n- name: toy\n  results:\n  - task: {type: a}\n    metrics: [{type: b, value: 1}]", None),
        ("license: [", "invalid yaml"),
        ("- a list", "must be a mapping"),
        ("model-index:\n- results: []", 'must have "name"'),
        ("model-index:\n- name: toy\n  results:\n  - metrics: [{type: b, value: 1}]", 'without "task"'),
        ("model-index:\n- name: toy\n  results:\n  - task: {type: a}\n    metrics: [{type: b}]", "a metric without"),
    ],
)
def test_a_card_is_checked(hub, front_matter, fault):
    card = f"---\n{front_matter}\n---\n# Toy\n"
    status, _, content = call(hub, "POST", "/api/validate-yaml", {"content": card, "repoType": "model"})
    errors = json.loads(content)["errors"]
    assert (status, len(errors)) == ((200, 0) if fault is None else (400, 1))
    assert fault is None or fault in errors[0]["message"]


def test_information_shows_card_and_configuration(hub):
    files = {
        "README.md": "---\ntags: [one]\npipeline_tag: feature-extraction\n---\n",
        "config.json": '{"model_type": "toy"}',
    }
    operations = [
        {"key": "file", "value": {"path": path, "content": base64.b64encode(text.encode()).decode()}}
        for path, text in files.items()
    ]
    assert commit(hub, operations)[0] == 200
    found = json.loads(call(hub, "GET", "/api/models/tester/toy")[2])
    assert found["tags"] == ["one"] and found["pipeline_tag"] == "feature-extraction"
    assert found["config"] == {"model_type": "toy"}


def test_paths_are_asked_for_as_json_or_as_a_form(hub):
    address = "/api/models/tester/toy/paths-info/main"
    as_json = call(hub, "POST", address, {"paths": ["a.txt"]}, **{"Content-Type": "application/json"})
    as_form = call(hub, "POST", address, b"paths=a.txt&paths=b.txt")
    assert as_json[0] == 200 and as_json[2] == as_form[2]
    assert [row["path"] for row in json.loads(as_form[2])] == ["a.txt"]


def test_only_this_machine_is_reached(tmp_path):
    with LoopbackHub() as hub:
        assert urlsplit(hub.url).hostname == "127.0.0.1"
        environment = hub.environment(tmp_path)
        assert environment["HF_ENDPOINT"] == hub.url and environment["HF_TOKEN"] == "hf_test"
        assert hub.environment(tmp_path, token="")["HF_TOKEN"] == ""
        port = urlsplit(hub.url).port
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=2).request("GET", "/")


def test_every_public_function_of_the_interface_has_a_route():
    answers = {answer for _, _, answer in ROUTES}
    for module in (loopback_api, loopback_transfer):
        own = {value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__}
        assert {value for value in own if not value.__name__.startswith("_")} <= answers
