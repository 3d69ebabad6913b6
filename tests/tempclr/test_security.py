"""What SECURITY.md promises: nothing of a stranger's file runs, paths stay where they belong, no network unasked."""

from __future__ import annotations

import ast
import json
import os
import pickle
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.data.readers.official_files import read_pickle
from tempclr.data.row_files import is_hub_id
from tempclr.data.rows import load_feature_file, read_paragraph
from tempclr.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import corpora_world
import forked_runs
import training_world as world

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "tests" / "tempclr_hub" / "data"
# The one's unpickler refuses every name, which is tested below; the other runs the snippet of the user's own card.
MAY = {
    "tempclr/data/readers/official_files.py": {"imports pickle"},
    "hub/tempclr_hub/snippet.py": {"calls exec", "calls compile"},
}

# --- what the code may call

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "torch.hub.load", "torch.jit.load", "tempfile.mktemp",
    "shutil.unpack_archive", "joblib.load", "urllib.request.urlopen", "requests.get", "requests.post",
}  # fmt: skip
FORBIDDEN_IMPORTS = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "tarfile", "requests", "urllib.request"}
FORBIDDEN_IMPORTS |= {"httpx", "aiohttp", "ftplib", "telnetlib", "pickle"}
REQUIRED = {
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}
FORBIDDEN_ARGUMENTS = {("trust_remote_code", True), ("shell", True), ("verify", False), ("allow_pickle", True)}
FORBIDDEN_ARGUMENTS |= {("weights_only", False)}


def faults(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"imports {name}") for name in names if name in FORBIDDEN_IMPORTS)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if name in FORBIDDEN_CALLS or name.endswith(".extractall"):
                yield node.lineno, f"calls {name}"
            if name in REQUIRED and given.get(REQUIRED[name][0]) is not REQUIRED[name][1]:
                yield node.lineno, f"calls {name} without {REQUIRED[name]}"
            for argument, value in given.items():
                if isinstance(value, bool) and (argument, value) in FORBIDDEN_ARGUMENTS:
                    yield node.lineno, f"gives {argument}={value}"


@pytest.mark.parametrize("folder", ["tempclr", "kernels", "hub", "benchmarks", "examples"])
def test_the_code_loads_nothing_that_could_run(folder):
    for path in (ROOT / folder).rglob("*.py"):
        name = str(path.relative_to(ROOT))
        found = [fault for fault in faults(path.read_text(encoding="utf-8")) if fault[1] not in MAY.get(name, ())]
        assert not found, f"{name}: {found}"


@pytest.mark.parametrize(
    "text",
    [
        "np.load(file)",
        "numpy.load(file, allow_pickle=True)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.load(file, weights_only=flag)",
        "import pickle",
        "from pickle import loads",
        "yaml.load(text, Loader=yaml.Loader)",
        "archive.extractall(folder)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(words, shell=True)",
        "def f():\n    import requests",
    ],
)
def test_the_check_above_sees_it(text):
    assert list(faults(text))


# --- files that would run something


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_files_that_would_run_something_are_refused(tmp_path):
    marker = tmp_path / "was run"
    (tmp_path / "captions.pkl").write_bytes(pickle.dumps({"v": Evil(marker)}))
    np.save(tmp_path / "features.npy", np.array([[Evil(marker)]], dtype=object), allow_pickle=True)
    for read, name in ((read_pickle, "captions.pkl"), (load_feature_file, "features.npy")):
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_would_run_something_is_refused(name, tmp_path, capsys):
    from tempclr import cli
    from tempclr.recipes.pretraining import ModelArguments, pretrain
    from tempclr.trainer import TempCLRTrainingArguments

    sizes = {"hidden_size": 16, "num_text_layers": 1, "num_video_layers": 1, "num_attention_heads": 2, "vocab_size": 80}
    steps = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "use_cpu": True, "disable_tqdm": True}

    def train(**changes):
        arguments = TempCLRTrainingArguments(str(tmp_path), **steps, **changes)
        pretrain(world.make_paragraphs(4), training_arguments=arguments, model_arguments=ModelArguments(**sizes))
        return 0

    train()
    file, marker = tmp_path / "checkpoint-1" / name, tmp_path / "was run"
    with zipfile.ZipFile(file) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, pickle.dumps(Evil(marker), 2) if entry.endswith("data.pkl") else content)
    with pytest.MonkeyPatch.context() as patch:
        resume = str(tmp_path / "checkpoint-1")
        patch.setattr(cli, "_run", lambda command, words: train(resume_from_checkpoint=resume))
        assert cli.main(["pretrain"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("tempclr pretrain: error:") and "nothing of it was run" in told
    assert not marker.exists()


# --- paths


def row(**changes):
    return {"video_id": "v", "sentences": ["a"], "starts": [0], "ends": [1], "features_per_second": 1, **changes}


@pytest.fixture
def features(tmp_path):
    np.save(tmp_path / "features.npy", np.ones((3, 4), np.float32), allow_pickle=False)
    return tmp_path / "features.npy"


@pytest.mark.parametrize("field", ["features_path", "video"])
def test_rows_of_the_hub_follow_note_whose_paths(field, features, tmp_path, monkeypatch):
    """Note [Whose paths]: the user's own rows may name any of their files, a stranger's only what came with them."""
    given = row(**{field: str(features)})
    assert read_paragraph(given, source=tmp_path / "rows.jsonl", index=0)
    climbing = row(**{field: f"../{tmp_path.name}/features.npy"})
    assert read_paragraph(climbing, source=tmp_path / "rows.jsonl", index=0)
    with pytest.raises(InputError, match="a Hub dataset may not name files of this machine"):
        read_paragraph(given, source="owner/recipes", index=0)
    with pytest.raises(InputError, match="is relative, but a Hub dataset has no folder"):
        read_paragraph(climbing, source="owner/recipes", index=0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    downloaded = tmp_path / "cache" / "features.npy"
    downloaded.parent.mkdir()
    downloaded.write_bytes(features.read_bytes())
    assert read_paragraph(row(**{field: str(downloaded)}), source="owner/recipes", index=0)
    out = str(tmp_path / "cache" / ".." / "features.npy")
    (tmp_path / "cache" / "link.npy").symlink_to(features)
    for path in (out, str(tmp_path / "cache" / "link.npy")):
        with pytest.raises(InputError, match="may not name files of this machine"):
            read_paragraph(row(**{field: path}), source="owner/recipes", index=0)


@pytest.mark.parametrize("field", ["features_path", "video"])
def test_rows_of_a_downloaded_folder_follow_note_whose_paths(field, features, tmp_path, monkeypatch):
    """Note [Whose paths]: a stranger's rows are a stranger's also where the folder that they came to is given."""
    snapshot = tmp_path / "cache" / "datasets--owner--recipes" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    blob = tmp_path / "cache" / "datasets--owner--recipes" / "blob.npy"
    blob.write_bytes(features.read_bytes())
    (snapshot / "own.npy").symlink_to(blob)
    (snapshot / "link.npy").symlink_to(features)
    (tmp_path / "mine").symlink_to(snapshot)
    for source in (snapshot, snapshot / "train.jsonl", tmp_path / "mine" / "train.jsonl"):
        assert read_paragraph(row(**{field: "own.npy"}), source=source, index=0)
        for path in (str(features), "../../../../features.npy", "link.npy"):
            with pytest.raises(InputError, match="a Hub dataset may not name files of this machine"):
                read_paragraph(row(**{field: path}), source=source, index=0)


def test_what_is_here_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("owner/recipes") and not is_hub_id("../recipes") and not is_hub_id("/owner/recipes")
    (tmp_path / "owner" / "recipes").mkdir(parents=True)
    assert not is_hub_id("owner/recipes")


@pytest.mark.parametrize("video_id", ["../out", "a/b", "/etc/passwd", ".hidden", "a\\b"])
def test_a_video_id_names_no_path(video_id, tmp_path):
    from tempclr.data.features import _check_id

    with pytest.raises(InputError, match="cannot name a file"):
        _check_id(video_id, "rows.jsonl", 0)


# --- the network

OFFLINE = """
import json, socket, sys
tried = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        if "127.0.0.1" in [each[0] if isinstance(each, tuple) else each for each in arguments]:
            return  # the demo publishes to a Hub of its own, on this machine
        tried.append(f"{event} {arguments!r:.200}")
        raise OSError("there is no network")

sys.addaudithook(watch)
from tempclr.cli import main
found = []
for words in json.loads(sys.argv[1]):
    code = main(words)
    found.append([code, tried])
    tried = []
try:
    socket.getaddrinfo("huggingface.co", 443)
except OSError:
    found.append(tried)
print(json.dumps(found))
"""


# What says of a test that it is offline, taken back in a process that was imported before.
ONLINE = """
import os
import huggingface_hub.constants
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.pop(name, None)
huggingface_hub.constants.HF_HUB_OFFLINE = False
"""


@pytest.mark.parametrize("with_imports", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_command_reaches_for_the_network_unasked(with_imports, tmp_path):
    """Nor does an import: the environment says nothing of being offline, and every attempt is noted and refused."""
    make_videos(tmp_path)
    make_corpus(tmp_path)
    features, model = tmp_path / "features", tmp_path / "model"
    sizes = ["--hidden_size", "16", "--num_text_layers", "1", "--num_video_layers", "1", "--num_attention_heads", "2"]
    steps = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--use_cpu", "--save_steps", "1"]
    corpus = ["--annotations", tmp_path / "official", "--features", tmp_path / "s3d"]
    labelled = ["--train_dataset", tmp_path / "localization.jsonl", "--output_dir", tmp_path / "finetuned"]
    towers = ["--num_attention_heads", "4", "--tokenizer", RELEASED / "vocab_tiny.txt"]
    commands = [
        ["extract", "--videos", tmp_path / "rows.jsonl", "--backbone", tmp_path / "encoder", "--output", features],
        ["pretrain", "--train_dataset", features, "--output_dir", model, "--vocab_size", "60", *sizes, *steps],
        ["evaluate", "retrieval", "--model", model, "--dataset", features, "--output", tmp_path / "r.json"],
        ["align", "--model", model, "--video", tmp_path / "v0.mp4", "--sentences", tmp_path / "steps.txt"],
        ["prepare", "youcook2", *corpus, "--output", tmp_path / "prepared"],
        ["finetune", "--task", "localization", "--init_from", model, *labelled, *steps],
        ["convert", "tempclr", RELEASED / "fairseq_checkpoint_tiny.pt", tmp_path / "converted", *towers],
        ["publish", model, "owner/model"],
    ]
    if with_imports:
        counts = {"train": 6, "validation": 3, "test": 4, "epochs": 1, "workers": 1}
        demo = [word for name, count in counts.items() for word in (f"--num_{name}", count)]
        commands.append(["demo", "--output_dir", tmp_path / "demo", "--quiet", *demo])
        commands.append(["bench", "--quick", "--rounds", "1"])
    offline = {"HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": os.pathsep.join(sys.path)}
    words = json.dumps([[str(word) for word in command] for command in commands])
    if with_imports:
        fresh = [sys.executable, "-c", OFFLINE, words]
        done = subprocess.run(fresh, capture_output=True, text=True, env=environment, cwd=tmp_path)
    else:
        done = forked_runs.run(
            ONLINE + OFFLINE, words, environment={"HF_HOME": environment["HF_HOME"]}, folder=tmp_path
        )
    assert done.returncode == 0, done.stderr
    *commands_tried, watched = json.loads(done.stdout.splitlines()[-1])
    assert commands_tried == [[0, []]] * len(commands), done.stderr
    assert len(watched) == 1, "the watch sees who looks for an address"


def make_corpus(folder):
    """Official files of a corpus, with features, and rows with the steps of their tasks."""
    corpus = corpora_world.youcook2(folder / "official")
    corpora_world.write_features(folder / "s3d", corpus.seconds)
    steps = {"task": "cook", "steps": world.ACTIONS}
    with (folder / "localization.jsonl").open("w") as stream:
        for paragraph in world.make_paragraphs(4):
            made = {name: getattr(paragraph, name) for name in ("video_id", "sentences", "starts", "ends")}
            made |= {"features": paragraph.features.tolist(), "features_per_second": 1.0, **steps}
            made["step_indices"] = [world.ACTIONS.index(sentence) for sentence in paragraph.sentences]
            stream.write(json.dumps(made) + "\n")


def make_videos(folder):
    from transformers import ResNetConfig, ResNetModel

    from tempclr.data.video import write_video

    torch.manual_seed(0)
    encoder = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"))
    encoder.save_pretrained(folder / "encoder")
    settings = {"size": {"height": 32, "width": 32}, "do_resize": True}
    (folder / "encoder" / "preprocessor_config.json").write_text(json.dumps(settings))
    rows = []
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
        write_video(folder / f"v{number}.mp4", frames, frames_per_second=10, codec="mpeg4")
        spans = {"sentences": ["peel the onion", "fry it"], "starts": [0.0, 2.0], "ends": [2.0, 4.0]}
        rows.append(json.dumps({"video_id": f"v{number}", "video": f"v{number}.mp4", **spans}))
    (folder / "rows.jsonl").write_text("\n".join(rows))
    (folder / "steps.txt").write_text("peel the onion\nfry it\n")


# --- the audit of what we depend on


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0),
        ([{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}], 1),
        ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}], 3),
    ],
)
def test_the_audit_says_what_it_did_not_check(found, code, tmp_path, capsys):
    answer = tmp_path / "pip-audit"
    answer.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps({'dependencies': found}))})")
    answer.chmod(0o755)
    audit = runpy.run_path(str(ROOT / ".ci" / "audit"))["main"]
    assert audit(str(answer), "constraints.txt") == code
    assert ("X-1, mended in 2" in capsys.readouterr().out) == (code == 1)
    answer.write_text("#!/bin/sh\necho 'no name' >&2; exit 1")
    assert audit(str(answer), "constraints.txt") == 3 and "no name" in capsys.readouterr().out
