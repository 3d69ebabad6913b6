"""``tempclr publish``: what is staged, checked, shown and sent, and what happens when the Hub has a bad day."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from tempclr.cli import main
from tempclr.errors import InputError
from tempclr_hub.loopback import LoopbackHub
from tempclr_hub.probe import check_probe, store_probe
from tempclr_hub.publish import next_tag, send, verify_model
from tempclr_hub.snippet import run_snippet
from tempclr_hub.staging import Staged, stage_dataset, stage_kernel_repository, stage_model

SECRET = "hf_planted" + "Secret0123456789abcdef"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as training leaves it, with planted files that are nobody's business."""
    from tempclr.data.tokenization import train_tokenizer
    from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
    from tempclr_hub.card import model_card

    folder = tmp_path_factory.mktemp("trained") / "model"
    processor = TempCLRProcessor(train_tokenizer(["peel the onion", "chop it", "fry it in oil"]))
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = TempCLRConfig(
        text_config=tower | {"vocab_size": len(processor.tokenizer)}, video_config=tower | {"feature_size": 8}
    )
    TempCLRModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(TempCLRModel.from_pretrained(folder), model_name="tester/toy"))
    (folder / "optimizer.pt").write_bytes(b"state")
    (folder / "training_args.bin").write_bytes(b"arguments")
    (folder / "notes.txt").write_text(SECRET)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "config.json").write_text("{}")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "model.safetensors").write_bytes(b"older")
    return folder


@pytest.fixture
def model_dir(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({SECRET: "tester"}, lfs_threshold=20_000) as hub:
        yield hub


@pytest.fixture
def staged(model_dir: Path, tmp_path: Path) -> Staged:
    return stage_model(model_dir, tmp_path / "staged")


Driver = Callable[..., dict[str, Any]]


def publish(run_driver: Driver, hub: LoopbackHub, *words: object, token: str | None = None) -> dict[str, Any]:
    return run_driver(hub, "hub_publish.py", *words, token=token)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_only_what_is_named_is_sent(model_dir: Path, tmp_path: Path) -> None:
    """Note [Only what is named is sent]."""
    staged = stage_model(model_dir, tmp_path / "staged")
    names = [name for name, _ in staged.files()]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(names)
    planted = {"optimizer.pt", "training_args.bin", "notes.txt", ".cache", "checkpoint-5"}
    assert set(staged.left_out) >= planted and not planted & {name.split("/")[0] for name in names}


def test_a_link_out_of_the_folder_is_refused(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("mine")
    (model_dir / "vocab.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InputError, match=r"vocab\.txt.*leads out"):
        stage_model(model_dir, tmp_path / "staged")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_model_is_refused(model_dir: Path, tmp_path: Path, name: str) -> None:
    (model_dir / name).unlink()
    with pytest.raises(InputError, match=r"not a model folder"):
        stage_model(model_dir, tmp_path / "staged")
    with pytest.raises(InputError, match="no such folder"):
        stage_model(tmp_path / "nowhere", tmp_path / "staged")


def test_a_token_in_a_card_is_refused_and_not_repeated(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = model_dir / "README.md"
    for token, text in (("", SECRET), ("corporate-token", "use corporate-token to log in")):
        monkeypatch.setenv("HF_TOKEN", token)
        card.write_text(text)
        with pytest.raises(InputError, match=r"README\.md.*access token") as caught:
            stage_model(model_dir, tmp_path / f"staged{len(token)}")
        assert SECRET not in str(caught.value) and "corporate" not in str(caught.value)


def test_a_model_that_takes_little_has_a_probe(tmp_path: Path) -> None:
    from tempclr.models.tempclr import TempCLRConfig, TempCLRModel

    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = TempCLRConfig(
        text_config=tower | {"vocab_size": 9, "max_position_embeddings": 3},
        video_config=tower | {"feature_size": 4, "max_num_features": 1},
    )
    TempCLRModel(config).save_pretrained(tmp_path)
    store_probe(tmp_path)
    stored = load_file(tmp_path / "probe.safetensors")
    assert stored["input_ids"].shape == (3, 3) and stored["video_features"].shape == (3, 1, 4)
    assert check_probe(tmp_path) <= 1e-6


def test_stored_embeddings_hold_the_weights(model_dir: Path) -> None:
    store_probe(model_dir)
    assert check_probe(model_dir) <= 1e-6
    weights = load_file(model_dir / "model.safetensors")
    name = next(
        name for name in weights if name.startswith("video_model") and name.endswith("intermediate.dense.weight")
    )
    weights[name] = weights[name] * 1.2
    save_file(weights, model_dir / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="video_embeds moved by"):
        check_probe(model_dir)


def test_stored_embeddings_that_are_missing_or_broken_are_named(model_dir: Path) -> None:
    with pytest.raises(InputError, match="no stored embeddings"):
        check_probe(model_dir)
    (model_dir / "probe.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read"):
        check_probe(model_dir)
    save_file({"input_ids": torch.ones(1, 2)}, model_dir / "probe.safetensors")
    with pytest.raises(InputError, match="expected the inputs"):
        check_probe(model_dir)
    stored = load_file(store_probe(model_dir))
    save_file({**stored, "text_embeds": stored["text_embeds"][:1].clone()}, model_dir / "probe.safetensors")
    with pytest.raises(InputError, match="no stored text_embeds of shape"):
        check_probe(model_dir)


def test_a_moved_model_is_not_sent(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = load_file(store_probe(model_dir))
    save_file({**stored, "text_embeds": stored["text_embeds"] * 1.01}, model_dir / "probe.safetensors")
    assert main(["publish", str(model_dir), "tester/toy", "--yes"]) == 2
    assert "nothing was sent" in capsys.readouterr().err


def test_a_model_that_does_not_load_is_told_in_one_line(model_dir: Path, tmp_path: Path) -> None:
    store_probe(model_dir)
    (model_dir / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(InputError, match="failed its check") as caught:
        verify_model(stage_model(model_dir, tmp_path / "staged"))
    assert "\n" not in str(caught.value)


def test_the_cards_snippet_is_run(model_dir: Path) -> None:
    assert run_snippet(model_dir) is True
    card = model_dir / "README.md"
    card.write_text(card.read_text().replace("encode_text(sentences)", "encode_words(sentences)"))
    with pytest.raises(InputError, match=r"usage snippet of README.md does not run: .*encode_words"):
        run_snippet(model_dir)
    card.write_text("# nothing to run\n")
    assert run_snippet(model_dir) is False


def test_a_dry_run_asks_the_hub_nothing(run_driver: Driver, hub: LoopbackHub, model_dir: Path) -> None:
    before = digests(model_dir)
    done = publish(run_driver, hub, model_dir, "tester/toy", "--skip_snippet")
    assert done["code"] == 0, done["err"]
    assert "would send to tester/toy" in done["out"] and "nothing was sent" in done["out"]
    assert "stays here: .cache, checkpoint-5, notes.txt, optimizer.pt, training_args.bin" in done["out"]
    assert hub.requests == [] and digests(model_dir) == before


def test_a_model_is_sent_and_tagged(run_driver: Driver, hub: LoopbackHub, model_dir: Path) -> None:
    before = digests(model_dir)
    row = {"video_id": "a", "sentences": ["chop it"], "starts": [0], "ends": [2], "features": [[0.5] * 8] * 3}
    rows = model_dir.with_name("held_out.jsonl")
    rows.write_text(json.dumps(row | {"features_per_second": 1.0}) + "\n")
    done = publish(run_driver, hub, model_dir, "tester/toy", "--yes", "--examples", rows)
    assert done["code"] == 0, done["err"]
    assert f"{hub.url}/tester/toy at v1" in done["out"] and SECRET not in done["out"] + done["err"]
    sent = hub.files("tester/toy", revision="v1")
    assert sent["model.safetensors"] == (model_dir / "model.safetensors").read_bytes()
    card = sent["README.md"].decode()
    assert "Video `a` of `held_out.jsonl`" in card and sent["alignment.png"].startswith(b"\x89PNG")
    assert "its usage snippet runs" in done["out"] and "It was run before it was sent" in card
    assert "probe.safetensors" in sent and not {"optimizer.pt", "notes.txt", "training_args.bin"} & set(sent)
    assert digests(model_dir) == before and hub.failures() == []


COMMIT, LFS, CREATE, REFS, TAG = "/commit/main", "^/lfs/", "/api/repos/create", "/refs$", "/tag/"
PASSING = {
    "create 503": {"method": "POST", "pattern": CREATE, "status": 503, "times": 2},
    "commit 500": {"method": "POST", "pattern": COMMIT, "status": 500},
    "commit 429": {"method": "POST", "pattern": COMMIT, "status": 429, "times": 2, "headers": {"Retry-After": "0"}},
    "upload cut": {"method": "PUT", "pattern": LFS, "status": None},
    "upload 504": {"method": "PUT", "pattern": LFS, "status": 504},
    "commit cut": {"method": "POST", "pattern": COMMIT, "status": None},
    "tag 502": {"method": "POST", "pattern": TAG, "status": 502},
}
STAYING = {
    "create 401": ("hf auth login", {"method": "POST", "pattern": CREATE, "status": 401}),
    "create 403": ("write access", {"method": "POST", "pattern": CREATE, "status": 403}),
    "refs 404": ("no such repository", {"method": "GET", "pattern": REFS, "status": 404, "times": 9}),
    "commit 409": ("somebody else changed", {"method": "POST", "pattern": COMMIT, "status": 409, "times": 9}),
    "commit 503": ("trouble", {"method": "POST", "pattern": COMMIT, "status": 503, "times": 99}),
    "commit 429": (
        "slow down",
        {"method": "POST", "pattern": COMMIT, "status": 429, "times": 99, "headers": {"Retry-After": "0"}},
    ),
    "commit cut": ("could not be reached", {"method": "POST", "pattern": COMMIT, "status": None, "times": 99}),
}


@pytest.fixture(scope="module")
def bad_days(
    run_driver: Driver, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Staged, dict[str, str], dict[str, Any]]:
    """What came of each fault; one process for all, because a client takes seconds to start."""
    staged = stage_model(trained, tmp_path_factory.mktemp("bad") / "staged")
    before = digests(staged.folder)
    cases = {f"passes: {name}": [fault] for name, fault in PASSING.items()}
    cases |= {f"stays: {name}": [fault] for name, (_, fault) in STAYING.items()}
    with LoopbackHub({SECRET: "tester"}) as hub:
        seen = run_driver(hub, "hub_faults.py", staged.folder, SECRET, json.dumps(cases))
    return staged, before, seen


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(bad_days: tuple[Staged, Any, dict[str, Any]], name: str) -> None:
    staged, _, seen = bad_days
    answer = seen["cases"][f"passes: {name}"]
    assert answer["left"] == 0 and answer["tag"] == "v1" and answer["failures"] == 0
    assert answer["at_tag"] == answer["main"] == sorted(dict(staged.files()))
    assert SECRET not in json.dumps(answer)


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_is_one_line_and_nothing_half_published(
    bad_days: tuple[Staged, dict[str, str], dict[str, Any]], name: str
) -> None:
    staged, before, seen = bad_days
    answer = seen["cases"][f"stays: {name}"]
    assert answer["error"].startswith("tester/toy: the Hub") and STAYING[name][0] in answer["error"]
    assert "\n" not in answer["error"] and SECRET not in json.dumps(answer)
    assert not set(answer["main"]) - {".gitattributes"}
    assert digests(staged.folder) == before


def test_no_server_is_one_line(bad_days: tuple[Any, Any, dict[str, Any]]) -> None:
    assert "could not be reached" in bad_days[2]["cases"]["no server"]["error"]


def test_a_revision_replaces_the_files_and_its_tag_keeps_them(bad_days: tuple[Any, Any, dict[str, Any]]) -> None:
    first, second, taken = bad_days[2]["revisions"]
    assert (first["tag"], second["tag"]) == ("v1", "v2")
    assert set(first["at_tag"]) - set(second["at_tag"]) == {"README.md"}
    assert "the tag 'v1' is taken" in taken["error"]


def test_offline_is_said_at_once(staged: Staged) -> None:
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        send(staged, "tester/toy", wait_seconds=100, api=HfApi("http://127.0.0.1:9", SECRET))


@pytest.fixture
def dataset_dir(tmp_path: Path) -> Path:
    def rows(count: int) -> Dataset:
        return Dataset.from_list(
            [
                {
                    "video_id": f"video_{index}",
                    "sentences": ["peel the onion", "chop it"],
                    "starts": [0.0, 2.0],
                    "ends": [2.0, 3600.0],
                    "features": np.full((4, 3), index, dtype=np.float32).tolist(),
                    "features_per_second": 1.0,
                }
                for index in range(count)
            ]
        )

    DatasetDict(train=rows(3), test=rows(2)).save_to_disk(tmp_path / "rows")
    (tmp_path / "rows" / "feature_recipe.json").write_text(json.dumps({"backbone": "/home/me/secret/encoder"}))
    return tmp_path / "rows"


def test_a_dataset_is_sent_with_its_card(run_driver: Driver, hub: LoopbackHub, dataset_dir: Path) -> None:
    (dataset_dir / "makers.bib").write_text("@article{makers}\n")
    told = ("--license", "cc-by-4.0", "--citation", dataset_dir / "makers.bib")
    done = publish(run_driver, hub, dataset_dir, "tester/rows", "--dataset", "--yes", *told)
    assert done["code"] == 0, done["err"]
    sent = hub.files("tester/rows", kind="dataset", revision="v1")
    assert {"data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "README.md"} <= set(sent)
    card = sent["README.md"].decode()
    assert "| `train` |      3 |         6 | 3.000 | 1 " in card and "/home/me" not in card and "n<1K" in card
    assert "| `test` " in card and '"backbone": "encoder"' in card and "license: cc-by-4.0\n" in card
    assert "```bibtex\n@article{makers}\n```" in card and "These rows: cc-by-4.0." in card
    assert "It was run before it was sent" in card and "datasets " in card.split("It was run")[1].splitlines()[0]


def test_a_staged_dataset_reads_as_rows(dataset_dir: Path, tmp_path: Path) -> None:
    from tempclr.data.rows import load_rows, read_paragraphs
    from tempclr_hub.dataset_card import dataset_card

    card = dataset_card(dataset_dir, repo_id="a/b")
    assert (
        "license: unknown\n" in card and "Not stated." in card and "\\url{https://huggingface.co/datasets/a/b}" in card
    )
    staged = stage_dataset(dataset_dir, tmp_path / "staged", card=card)
    paragraphs, left_out = read_paragraphs(load_rows(staged.folder, split="test"), source=str(staged.folder))
    assert [paragraph.video_id for paragraph in paragraphs] == ["video_0", "video_1"] and not left_out
    assert (staged.folder / "feature_recipe.json").is_file()


def test_the_kernels_are_staged(tmp_path: Path) -> None:
    names = dict(stage_kernel_repository(tmp_path / "kernels").files())
    assert "build/torch-cuda/metadata.json" in names and "README.md" in names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["only-one"], "expected MODEL_DIR REPO_ID"),
        (["--kernels", "a", "b/c"], "expected REPO_ID"),
        (["model", "no-namespace"], "give namespace/name"),
        (["--kernels", "--dataset", "a/b"], "not allowed with"),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", *words]) == 2
    assert said in capsys.readouterr().err


def test_stage_dir_keeps_what_would_be_sent(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    assert main(["publish", str(model_dir), "a/b", "--skip_snippet", "--stage_dir", str(kept)]) == 0
    assert check_probe(kept) <= 1e-6 and "embeddings moved by" in capsys.readouterr().out
    assert main(["publish", str(model_dir), "a/b", "--stage_dir", str(kept)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_small_parts() -> None:
    assert next_tag([]) == "v1" and next_tag(["v9", "v10", "x"]) == "v11"
    with pytest.raises(ValueError, match="kind must be one of"):
        Staged(Path("."), "space")
