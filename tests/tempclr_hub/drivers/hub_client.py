"""What a person does with the Hub's own client, in one process; prints one JSON object of what came of each step."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download


def refusal(step: Callable[[], Any]) -> list[Any]:
    """The exception's name and the HTTP status of a step that must fail."""
    try:
        step()
    except Exception as error:
        return [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)]
    raise AssertionError("the step was expected to be refused")


def transfer(api: HfApi, folder: Path) -> dict[str, Any]:
    repo = "tester/toy"
    upload = folder / "upload"
    (upload / "weights").mkdir(parents=True)
    (upload / "config.json").write_text('{"model_type": "toy"}')
    (upload / "weights" / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    (upload / "large.txt").write_text("line\n" * 5000)

    seen: dict[str, Any] = {
        "url": str(api.create_repo(repo)),
        "created_twice": str(api.create_repo(repo, exist_ok=True)),
    }
    first = api.upload_folder(repo_id=repo, folder_path=upload, commit_message="Add everything")
    again = api.upload_folder(repo_id=repo, folder_path=upload, commit_message="Nothing new")
    seen["no_new_commit"] = first.oid == again.oid
    api.create_tag(repo, tag="v1.0")
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="notes/a b.txt", repo_id=repo)
    seen["files"] = api.list_repo_files(repo)
    seen["files_at_tag"] = api.list_repo_files(repo, revision="v1.0")
    seen["downloaded"] = Path(hf_hub_download(repo, "notes/a b.txt")).read_text()
    snapshot = Path(snapshot_download(repo, revision="v1.0"))
    seen["snapshot_equal"] = all(
        path.read_bytes() == (snapshot / path.relative_to(upload)).read_bytes() for path in upload.rglob("*.*")
    )
    seen["tree"] = [type(row).__name__ + " " + row.path for row in api.list_repo_tree(repo, recursive=True)]
    seen["top"] = [row.path for row in api.list_repo_tree(repo)]
    seen["below"] = [row.path for row in api.list_repo_tree(repo, "weights")]
    paths = api.get_paths_info(repo, ["config.json", "weights", "absent"])
    seen["paths"] = [type(row).__name__ + " " + row.path for row in paths]
    seen["sizes"] = {file.rfilename: file.size for file in api.model_info(repo, files_metadata=True).siblings or []}
    api.delete_file("notes/a b.txt", repo_id=repo)
    api.delete_folder("weights", repo_id=repo)
    seen["after_deletion"] = api.list_repo_files(repo)
    seen["titles"] = [commit.title for commit in api.list_repo_commits(repo)]
    return seen


def references(api: HfApi) -> dict[str, Any]:
    repo = "tester/toy"
    api.create_branch(repo, branch="feature/one", revision="v1.0")
    api.upload_file(path_or_fileobj=b"1", path_in_repo="one.txt", repo_id=repo, revision="feature/one")
    found = api.list_repo_refs(repo)
    seen: dict[str, Any] = {
        "branches": [branch.ref for branch in found.branches],
        "tags": [tag.ref for tag in found.tags],
        "tag_twice": refusal(lambda: api.create_tag(repo, tag="v1.0")),
        "branch_twice": refusal(lambda: api.create_branch(repo, branch="feature/one")),
        "one_on_branch": api.file_exists(repo, "one.txt", revision="feature/one"),
        "one_on_main": api.file_exists(repo, "one.txt"),
        "delete_main": refusal(lambda: api.delete_branch(repo, branch="main")),
    }
    api.delete_branch(repo, branch="feature/one")
    api.delete_tag(repo, tag="v1.0")
    seen["tag_gone"] = refusal(lambda: api.delete_tag(repo, tag="v1.0"))
    seen["branch_gone"] = refusal(lambda: api.delete_branch(repo, branch="feature/one"))
    return seen


def refusals(api: HfApi, folder: Path) -> dict[str, Any]:
    repo = "tester/toy"
    nobody, stranger, other = (HfApi(token=token) for token in (False, "hf_unknown", "hf_other"))
    add = CommitOperationAdd("a.txt", b"a")
    old = api.list_repo_commits(repo)[-1].commit_id
    seen: dict[str, Any] = {
        "who_with_unknown_token": refusal(lambda: stranger.whoami()),
        "missing_repo": refusal(lambda: hf_hub_download("tester/absent", "config.json")),
        "missing_repo_anonymously": refusal(lambda: hf_hub_download("tester/absent", "config.json", token=False)),
        "missing_repo_without_namespace": refusal(lambda: api.model_info("absent")),
        "missing_file": refusal(lambda: hf_hub_download(repo, "absent.json")),
        "missing_folder": refusal(lambda: list(api.list_repo_tree(repo, "absent"))),
        "missing_revision": refusal(lambda: hf_hub_download(repo, "config.json", revision="absent")),
        "create_twice": refusal(lambda: api.create_repo(repo)),
        "create_below_another": refusal(lambda: other.create_repo(repo)),
        "write_to_another": refusal(lambda: other.upload_file(path_or_fileobj=b"", path_in_repo="x", repo_id=repo)),
        "write_anonymously": refusal(lambda: nobody.create_tag(repo, tag="v2")),
        "pull_request": refusal(lambda: api.create_commit(repo, [add], commit_message="a", create_pr=True)),
        "moved_branch": refusal(lambda: api.create_commit(repo, [add], commit_message="a", parent_commit=old)),
        "delete_missing_file": refusal(lambda: api.delete_file("absent.txt", repo_id=repo)),
        "space": refusal(lambda: api.create_repo("tester/space", repo_type="space", space_sdk="gradio")),
    }
    seen["exists"] = [api.repo_exists(repo), api.repo_exists("tester/absent"), api.revision_exists(repo, "absent")]
    return seen


def privacy(api: HfApi, folder: Path) -> dict[str, Any]:
    nobody, other = HfApi(token=False), HfApi(token="hf_other")
    api.create_repo("tester/secret", private=True)
    api.create_repo("tester/gated")
    for name in ("secret", "gated"):
        api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=f"tester/{name}")
    api.update_repo_settings("tester/gated", gated="auto")

    def download(client: HfApi, repo: str) -> str:
        # A cache for each download: what one client may read must not come from what another one has read.
        cache = tempfile.mkdtemp(dir=folder)
        return Path(client.hf_hub_download(repo, "config.json", cache_dir=cache)).read_text()

    seen: dict[str, Any] = {
        "secret_of_owner": download(api, "tester/secret"),
        "gated_of_owner": download(api, "tester/gated"),
        "secret_of_other": refusal(lambda: download(other, "tester/secret")),
        "gated_of_other": refusal(lambda: download(other, "tester/gated")),
        "gated_anonymously": refusal(lambda: download(nobody, "tester/gated")),
        "listed_for_owner": sorted(model.id for model in api.list_models(author="tester")),
        "listed_for_other": sorted(model.id for model in other.list_models(search="TESTER")),
    }
    api.create_repo("tempclr/shared", private=True)
    other.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="tempclr/shared")
    seen["shared_by_organization"] = download(other, "tempclr/shared")
    api.delete_repo("tester/secret")
    seen["after_deletion"] = api.repo_exists("tester/secret")
    return seen


def main() -> None:
    api, folder = HfApi(), Path(sys.argv[1])
    account = api.whoami()
    seen = {
        "account": [account["name"], [organization["name"] for organization in account["orgs"]]],
        "transfer": transfer(api, folder),
        "references": references(api),
        "refusals": refusals(api, folder),
        "privacy": privacy(api, folder),
    }
    print(json.dumps(seen))


main()
