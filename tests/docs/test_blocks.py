"""Every block of the documentation is run; see blocks.py for how, and docs/index.md, which says so to the reader."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md"))
API_PAGES = sorted(path for path in (DOCS / "api").glob("*.md"))
# Pages with a test of their own below.
RUN_BELOW = {"own_videos", "publish", "datasets", "few_shot", "tclr"}
# What these do takes ranks, a browser or minutes and has tests of its own; here, that such commands and options exist.
RUN_ELSEWHERE = {
    "app": "tests/tempclr/test_app_page.py",
    "distributed": "tests/tempclr/test_distributed_commands.py",
}
CONTINUED = ("finetune", "evaluate")  # they begin with what own_videos leaves


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


blocks = load(Path(__file__).with_name("blocks.py"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and this process is in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def own_videos(demo_dir: Path, worker_id: str) -> Path:
    """What the page on own videos leaves, run once for all pages that go on from there, in all processes."""
    folder = demo_dir.parent.parent / "own_videos"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make_own_videos(folder, demo_dir)
            before = Path.cwd()
            os.chdir(folder)
            try:
                printed = blocks.run_page(DOCS / "own_videos.md")
            finally:
                os.chdir(before)
            (folder / "done").write_text(printed, encoding="utf-8")
    return folder


def make_own_videos(folder: Path, demo_dir: Path) -> None:
    """A person's files: some videos, and a table of who does what when."""
    (folder / "videos").mkdir(parents=True)
    lines = []
    for number, text in enumerate((demo_dir / "dataset" / "train.jsonl").read_text(encoding="utf-8").splitlines()):
        row = json.loads(text)
        name = ("pancakes.mp4", "toast.mp4")[number] if number < 2 else f"video_{number}.mp4"
        shutil.copy(demo_dir / "dataset" / row["video"], folder / "videos" / name)
        spans = zip(row["starts"], row["ends"], row["sentences"], strict=True)
        lines += [{"video": name, "start": start, "end": end, "sentence": text} for start, end, text in spans]
    with (folder / "steps.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["video", "start", "end", "sentence"])
        writer.writeheader()
        writer.writerows(lines)


def test_every_page_is_run_by_somebody():
    stems = {path.stem for path in PAGES}
    assert stems >= RUN_BELOW | set(CONTINUED)
    alone = set(alone_pages())
    assert stems == alone | RUN_BELOW | set(CONTINUED) | (stems & set(RUN_ELSEWHERE))
    for stem in stems & set(RUN_ELSEWHERE):
        assert (ROOT / RUN_ELSEWHERE[stem]).exists(), stem


def alone_pages() -> list[str]:
    return [path.stem for path in PAGES if path.stem not in {*RUN_BELOW, *CONTINUED, *RUN_ELSEWHERE}]


def test_blocks_are_in_languages_that_are_run_or_shown():
    for page in [ROOT / "README.md", *PAGES, *API_PAGES]:
        for block in blocks.blocks_of(page):
            assert block.language in blocks.RUN + blocks.SHOWN, f"{page.name}, line {block.line}: {block.language!r}"


def test_few_blocks_are_not_run_and_each_says_why():
    reasons = [(page.name, block.not_run) for page in PAGES for block in blocks.blocks_of(page) if block.not_run]
    assert len(reasons) <= 3, reasons
    assert all(len(reason) > 20 for _, reason in reasons)
    skipped = sum(page.read_text(encoding="utf-8").count("doctest: +SKIP") for page in API_PAGES)
    assert skipped <= 7, "lines of the API reference that want a file nobody has here: rather an example that runs"


@pytest.mark.parametrize("stem", alone_pages())
def test_a_page_runs(stem: str, folder: Path, demo_dir: Path):
    blocks.run_page(DOCS / f"{stem}.md", demo_dir=demo_dir)


@pytest.mark.parametrize("stem", [path.stem for path in PAGES if path.stem in RUN_ELSEWHERE])
def test_the_commands_of_a_page_that_is_run_elsewhere_exist(stem: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(DOCS)
    from generate_cli import parser_of

    for block in blocks.blocks_of(DOCS / f"{stem}.md"):
        for command in block.text.replace("\\\n", " ").splitlines() if block.language in blocks.SHELLS else ():
            words = shlex.split(command, comments=True)
            names = [place for place, word in enumerate(words) if word in ("tempclr", "tempclr.cli")]
            if names:
                own = [word for word in words[names[0] + 1 :] if word != "..."]
                known = parser_of(shlex.join(own))._option_string_actions
                assert {word for word in own if word.startswith("--")} <= set(known), command


def test_the_notebook_runs():
    """Cell after cell, its own assertions among them; it is stored without output, which would change with versions."""
    import matplotlib.pyplot as plt

    cells = json.loads((DOCS / "alignment.ipynb").read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, object] = {"__name__": "notebook"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None, number
            exec(compile("".join(cell["source"]), f"alignment.ipynb, cell {number}", "exec"), namespace)
    assert len(plt.get_fignums()) >= 3
    plt.close("all")


def test_own_videos_run(own_videos: Path):
    assert "R@1" in (own_videos / "done").read_text(encoding="utf-8")
    assert (own_videos / "runs" / "mine" / "pancakes.png").stat().st_size > 10_000


@pytest.mark.parametrize("stem", CONTINUED)
def test_a_page_that_goes_on_runs(stem: str, folder: Path, own_videos: Path):
    shutil.copytree(own_videos, folder, dirs_exist_ok=True)
    blocks.run_page(DOCS / f"{stem}.md")


@pytest.mark.slow
def test_publishing_runs(folder: Path, own_videos: Path, tmp_path_factory: pytest.TempPathFactory):
    """In a process of its own, because the client of the Hub reads its environment when it is imported."""
    from tempclr_hub.loopback import LoopbackHub

    shutil.copytree(own_videos, folder, dirs_exist_ok=True)
    packages = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "hub")))
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path_factory.mktemp("home")), "PYTHONPATH": packages}
        command = [sys.executable, str(Path(blocks.__file__)), str(DOCS / "publish.md")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        assert "model.safetensors" in hub.files("tester/recipes") and "model.safetensors" in hub.files("tester/pushed")
        assert any(name.endswith(".parquet") for name in hub.files("tester/recipe-rows", kind="dataset"))
        assert hub.failures() == []


def test_data_sets_run(folder: Path):
    """On small files in the formats of the releases, whose whole files are not ours to give."""
    make_corpora(folder)
    blocks.run_page(DOCS / "datasets.md")


def make_corpora(folder: Path) -> None:
    world = load(ROOT / "tests" / "tempclr" / "corpora_world.py")
    places = {"didemo": folder / "didemo" / "data", "activitynet": folder / "captions"}
    for name, make in world.CORPORA.items():
        if name != "crosstask":
            world.write_features(folder / "s3d", make(places.get(name, folder)).seconds)
    for split in ("train", "val"):
        (folder / f"how2_{split}.lst").rename(folder / f"how2_s3d_{split}.lst")
    (folder / "validation_youcook.csv").write_text("end,start,video_id,task,text\n7,1,abcd,113,step 0\n")
    make_crosstask(world, folder / "crosstask_release", folder / "s3d")
    make_actions(folder)


def make_actions(folder: Path) -> None:
    """The corpora of labelled videos: their lists and their videos, where docs/datasets.md has them."""
    world = load(ROOT / "tests" / "tempclr" / "test_readers_actions.py")
    world.ucf101(folder / "ucf")
    (folder / "ucf" / "ucfTrainTestlist").rename(folder / "ucfTrainTestlist")
    (folder / "ucf" / "videos").rename(folder / "UCF-101")
    for make, lists, videos in (
        (world.hmdb51, "testTrainMulti_7030_splits", "hmdb51"),
        (world.kinetics, "kinetics_lists", "kinetics400"),
        (world.diving48, "lists", "rgb"),
    ):
        make(folder / "made")
        (folder / "made" / "lists").rename(folder / lists)
        (folder / "made" / "videos").rename(folder / videos)
    for name in ("train.csv", "val.csv"):
        (folder / "kinetics_lists" / name).rename(folder / name)


def make_crosstask(world: ModuleType, release: Path, features: Path) -> None:
    """As many videos of each primary task as the split of the release wants."""
    world.crosstask(release)
    videos = [(task, f"{letter}{number}") for number in range(32) for task, letter in (("11", "t"), ("22", "b"))]
    (release / "videos.csv").write_text("".join(f"{task},{video},http://u\n" for task, video in videos))
    for task, video in videos:
        (release / "annotations" / f"{task}_{video}.csv").write_text("1,1.5,6\n2,8.5,12.25\n")
    world.write_features(features, {video: 20 for _, video in videos})


def test_few_shot_learning_runs(folder: Path):
    make_few_shot(folder)
    blocks.run_page(DOCS / "few_shot.md")
    assert json.loads((folder / "runs" / "otam" / "test.json").read_text(encoding="utf-8"))


def make_few_shot(folder: Path) -> None:
    """Videos as folders of frames, and a small ResNet in the place of the large one."""
    from PIL import Image
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

    splits = folder / "splits" / "ssv2_OTAM"
    splits.mkdir(parents=True)
    for split in ("train", "val", "test"):
        names = [f"{split} {label}/{split}{label}{number}" for label in range(5) for number in range(7)]
        (splits / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        for place, name in enumerate(names):
            (folder / "ssv2" / name).mkdir(parents=True)
            for frame in range(2):
                colour = (place * 7 % 255, frame * 90, 40)
                Image.new("RGB", (32, 32), colour).save(folder / "ssv2" / name / f"{frame:05d}.jpg")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    network = folder / "microsoft" / "resnet-50"
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(network)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(network)


def test_learning_from_pixels_runs(folder: Path):
    """On motions in the place of UCF101."""
    from tempclr.data.motion_videos import make_motion_videos

    rows = make_motion_videos(
        folder / "made", labels=("grow", "spin"), num_videos={"train": 12, "test": 2}, image_size=32
    )
    (folder / "ucf101").mkdir()
    for split in ("train", "test"):
        own = [row for row in rows if row["split"] == split]
        (folder / "ucf101" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, own)) + "\n", encoding="utf-8")
    make_released_networks(folder)
    printed = blocks.run_page(DOCS / "tclr.md")
    assert "no projection head: the folder is that of the network alone" in printed
    for name in ("timesteps", "classes", "attention", "neighbours"):
        assert (folder / f"{name}.png").stat().st_size > 5_000, name
    for name in ("nn", "linear", "classifier"):
        assert json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), name


def make_released_networks(folder: Path) -> None:
    """Of the names in the releases, and smaller."""
    from tempclr import TCLRConfig, TCLRModel

    backbone = {"hidden_sizes": [4, 4, 8, 8, 16], "image_size": 16}
    state = TCLRModel(TCLRConfig(backbone_config=backbone, projection_size=8)).state_dict()
    network = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    layers = {"dense": "1.fc1", "dense_norm": "1.bn1", "projection": "1.fc2", "projection_norm": "1.bn2"}
    released = {f"0.{name}": value for name, value in network.items()}
    for name, value in state.items():
        if name.startswith("head."):
            _, layer, field = name.split(".")
            released[f"{layers[layer]}.{field}"] = value
    torch.save({"state_dict": released}, folder / "model_best.pth")
    torch.save({**network, "fc.weight": torch.ones(4, 16), "fc.bias": torch.ones(4)}, folder / "r3d_18-b3b3357e.pth")


@pytest.mark.parametrize(
    "page", [path for path in API_PAGES if path.stem != "command_line"], ids=lambda path: path.stem
)
def test_examples_of_the_api_reference_run(page: Path, folder: Path):
    """With the names of the module, as in its docstrings; each entry begins anew."""
    make_small_files(folder)
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    num_examples = 0
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        module = importlib.import_module(name)
        public = {one: getattr(module, one) for one in getattr(module, "__all__", ())}
        for entry in re.split(r"^###", text, flags=re.M):
            examples = "\n".join(match[2] for match in blocks.FENCE.finditer(entry) if match[1] == "pycon")
            own = home_of(entry, public)
            torch.manual_seed(0)
            num_examples += blocks.run_examples(examples, {**vars(own or module), **public}, place=name).attempted
    assert num_examples > 3


def make_small_files(folder: Path) -> None:
    """What the docstrings call clip.mp4, rows.jsonl and gestures.npz."""
    from tempclr.data.sequences import SequenceSet, save_sequences
    from tempclr.data.video import write_video

    write_video(folder / "clip.mp4", np.zeros((75, 240, 320, 3), np.uint8), frames_per_second=25)
    row = {"video_id": "clip", "video": "clip.mp4", "label": "wave", "split": "train"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    gestures = SequenceSet([np.ones((5, 2), np.float32)] * 2, ["circle", "wave"])
    save_sequences(folder / "gestures.npz", {"test": gestures})


def home_of(entry: str, public: dict[str, Callable]) -> ModuleType | None:
    """The module in which what an entry tells of is defined: its docstring was written there."""
    title = entry.split("\n", 1)[0].strip(" #").split(".")[0]
    value = public.get(title)
    return sys.modules.get(getattr(value, "__module__", "")) if value is not None else None


def test_options_that_the_pages_name_exist():
    """Those of the commands' own launchers and tools are listed here."""
    from transformers import TrainingArguments

    known = set(re.findall(r"`(--\w+)", (DOCS / "api" / "command_line.md").read_text(encoding="utf-8")))
    known |= {f"--{name}" for name in TrainingArguments.__dataclass_fields__}
    launchers = "cpu fsdp_version multi_gpu nproc_per_node num_processes standalone use_fsdp repo-type no-deps"
    known |= {f"--{name}" for name in launchers.split()}
    for page in [ROOT / "README.md", *PAGES]:
        named = set(re.findall(r"(?<![\w-])(--[a-z]\w*(?:-\w+)*)", page.read_text(encoding="utf-8")))
        assert named <= known, f"{page.name}: {sorted(named - known)}"


def test_links_lead_somewhere():
    for page in [*PAGES, *API_PAGES]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
