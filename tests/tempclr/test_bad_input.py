"""Every kind of bad input, through the command line: code 2, one line that names the place, nothing half-written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from tempclr import __version__
from tempclr.cli import COMMANDS, main
from tempclr.data.tokenization import train_tokenizer
from tempclr.data.video import write_video
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
from tempclr.recipes.running import _drop_half_written
from tempclr.trainer import TempCLRTrainingArguments

WIDTH = 6
TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_text_layers": 1, "num_video_layers": 1, "num_negatives": 3}
TRAINING = {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True}
DROP = object()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A frame encoder, a model, videos whole and broken, model folders and datasets whole and broken."""
    from transformers import ResNetConfig, ResNetModel

    from tempclr.data.backbones import load_backbone
    from tempclr.data.extractor import FeatureRecipe

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("a world")  # with a space in its name
    encoder = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, WIDTH], depths=[1, 1], layer_type="basic"))
    encoder.save_pretrained(folder / "encoder")
    size = {"height": 32, "width": 32}
    (folder / "encoder/preprocessor_config.json").write_text(json.dumps({"size": size, "do_resize": True}))
    recipe = FeatureRecipe.of(load_backbone(str(folder / "encoder"))).to_dict()
    tokenizer = train_tokenizer(["peel the onion", "fry it"], vocab_size=40)
    text, video = {**TOWER, "vocab_size": len(tokenizer)}, {**TOWER, "feature_size": WIDTH, "feature_recipe": recipe}
    model = TempCLRModel(TempCLRConfig(text_config=text, video_config=video))
    model.processor = TempCLRProcessor(tokenizer)
    model.save_pretrained(folder / "model")
    write_rows(folder / "good.jsonl", [row(number) for number in range(3)])
    (folder / "sentences.txt").write_text("peel the onion\nfry it\n")
    break_videos(folder)
    break_models(folder)
    for name, found in (("other_recipe", {**recipe, "resize": [64, 64]}), ("no_recipe", [1])):
        (folder / name).mkdir()
        shutil.copy(folder / "good.jsonl", folder / name / "train.jsonl")
        (folder / name / "feature_recipe.json").write_text(json.dumps(found))
    (folder / "damaged").mkdir()
    (folder / "damaged/dataset_dict.json").write_text("{}")
    (folder / "empty").mkdir()
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    (folder / "not.jsonl").write_text('{"video_id": "v0"\n')
    return folder


def row(number, **changes):
    features = np.random.default_rng(number).normal(size=(5, WIDTH)).round(2).tolist()
    spans = {"sentences": ["peel the onion", "fry it"], "starts": [0.0, 2.0], "ends": [2.0, 4.0]}
    values = {"video_id": f"v{number}", **spans, "features": features, "features_per_second": 1.0, **changes}
    return {name: value for name, value in values.items() if value is not DROP}


def write_rows(path, rows):
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in rows) + "\n")
    return path


def break_videos(folder):
    frames = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    write_video(folder / "whole.mp4", frames, frames_per_second=10, codec="mpeg4")
    write_video(folder / "cut.mkv", frames, frames_per_second=10, codec="mpeg4")  # begins with its header
    for name in ("whole.mp4", "cut.mkv"):
        content = (folder / name).read_bytes()
        (folder / name.replace("whole", "truncated")).write_bytes(content[: len(content) // 2])
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a video")
    np.save(folder / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def break_models(folder):
    names = ("weightless", "cut_weights", "lacking", "misfit", "tokenless", "no_json", "other_kind")
    folders = {name: shutil.copytree(folder / "model", folder / name) for name in names}
    (folders["weightless"] / "model.safetensors").unlink()
    weights = folders["cut_weights"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    for name, change in (("lacking", {"num_hidden_layers": 2}), ("misfit", {"intermediate_size": 64})):
        config = json.loads((folders[name] / "config.json").read_text())
        config["text_config"] |= change
        (folders[name] / "config.json").write_text(json.dumps(config))
    (folders["tokenless"] / "tokenizer.json").write_text("{")
    (folders["no_json"] / "config.json").write_text("{")
    (folders["other_kind"] / "config.json").write_text('{"model_type": "bert"}')


def words(command, world, output, **changes):
    """A command that works, with some of its options changed; None leaves one out."""
    given = {
        "extract": {"videos": "good.jsonl", "output": output, "backbone": "encoder", "device": "cpu"},
        "pretrain": {"train_dataset": "good.jsonl", "output_dir": output, "save_strategy": "no", **TRAINING},
        "evaluate": {"model": "model", "dataset": "good.jsonl", "output": output / "r.json", "device": "cpu"},
        "align": {"model": "model", "video": "whole.mp4", "sentences": "sentences.txt", "json": output / "r.json"},
    }[command]
    task = changes.pop("task", "retrieval")
    sizes = SIZES if command == "pretrain" and "init_from" not in changes else {}
    chosen = {name: value for name, value in {**given, **sizes, **changes}.items() if value is not None}
    paths = {"videos", "backbone", "train_dataset", "eval_dataset", "dataset", "model", "video", "sentences"}
    paths |= {"init_from", "resume_from_checkpoint"}
    listed = [
        str(part) for name, value in chosen.items() for part in (f"--{name}", world / value if name in paths else value)
    ]
    head = [command] + ([task, "--quiet"] if command == "evaluate" else [])
    return head + listed


def refused(given, capsys):
    """The one line of error that a command ends with."""
    assert main(given) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "error:" in line]
    assert len(lines) == 1 and captured.err.splitlines()[-1] == lines[0], captured.err
    assert "Traceback" not in captured.err + captured.out
    speaker = f"tempclr {given[0]}: error: " if given and given[0] in COMMANDS else "tempclr: error: "
    return lines[0].removeprefix(speaker)


def final_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


NAN = [[0.5] * WIDTH] * 4 + [[float("nan")] * WIDTH]
BAD_ROWS = [
    ("features", {"features": NAN}, "NaN or infinite value in feature 4"),
    ("features", {"features": [[1.0] * (WIDTH - 1)] * 5}, f"width {WIDTH - 1}"),
    ("features", {"features": [[1.0, 2.0], [1.0]]}, r"expected (T, D) numbers"),
    ("features", {"features": DROP}, "expected one of features, features_path and video"),
    ("features", {"features": "x"}, "expected (T, D) numbers"),
    ("features_per_second", {"features_per_second": DROP}, "features need their rate"),
    ("features_per_second", {"features_per_second": "one"}, "expected a number, found 'one'"),
    ("features_path", {"features": DROP, "features_path": "gone.npy"}, "no such file"),
    ("features_path", {"features": DROP, "features_path": "objects.npy"}, "cannot be read"),
    ("features_path", {"features": DROP, "features_path": "../../etc/passwd"}, "no such file"),
    ("video", {"video": "gone.mp4"}, "no such file"),
    ("starts", {"starts": [0.0]}, "1 for 2 sentences"),
    ("ends", {"ends": [1.0, 2.0, 3.0]}, "3 for 2 sentences"),
    ("starts", {"starts": [2.0, 0.0], "ends": [3.0, 1.0]}, "must be in ascending order"),
    ("starts", {"starts": [-1.0, 2.0]}, "entry 0 is negative"),
    ("starts", {"starts": [0.0, float("nan")]}, "must be a finite number"),
    ("starts", {"starts": [False, True]}, "expected a list of numbers"),
    ("starts", {"starts": [0.0, 99.0], "ends": [1.0, 100.0]}, "the features end at 5.0 s"),
    ("ends", {"ends": [2.0, 1.0]}, "must be after its start"),
    ("sentences", {"sentences": [], "starts": [], "ends": []}, "empty paragraph"),
    ("sentences", {"sentences": ["peel", " "]}, "sentence 1 must be a text that is not empty"),
    ("sentences", {"sentences": "ab"}, "expected a list of texts, found 'ab'"),
    ("video_id", {"video_id": 7}, "expected a text, found '7'"),
    ("video_id", {"video_id": DROP}, "missing"),
]


@pytest.mark.parametrize("command", ["pretrain", "evaluate"])
@pytest.mark.parametrize(("field", "change", "told"), BAD_ROWS)
def test_a_bad_row_is_named(command, field, change, told, world, tmp_path, capsys):
    source = write_rows(world / "rows.jsonl", [row(0), row(1), row(2, **change)])
    option = "train_dataset" if command == "pretrain" else "dataset"
    error = refused(words(command, world, tmp_path / "out", **{option: source}), capsys)
    assert error.startswith(f"{source}, row 2, field {field!r}: ") and told in error
    assert not final_files(tmp_path)


BAD_VIDEOS = [
    ("gone.mp4", "no such"),
    ("zero.mp4", "is empty (0 bytes)"),
    ("text.mp4", "cannot be read as video"),
    ("truncated.mp4", "cut off"),
    ("cut.mkv", "is cut off: announces 4.0 s"),
    ("encoder", "no such"),
]


@pytest.mark.parametrize(("name", "told"), BAD_VIDEOS)
def test_a_bad_video_is_named(name, told, world, tmp_path, capsys):
    bare = {"features": DROP, "features_per_second": DROP}
    rows = [row(0, video="whole.mp4", **bare), row(1, video=name, **bare)]
    source = write_rows(world / "rows.jsonl", rows)
    error = refused(words("extract", world, tmp_path / "out", videos=source), capsys)
    assert error.startswith(f"{source}, row 1, field 'video': ") and told in error and name in error
    assert set(final_files(tmp_path / "out")) <= {"feature_recipe.json", "features/v0.npy"}
    error = refused(words("align", world, tmp_path / "aligned", video=name), capsys)
    assert error.startswith(str(world / name)) and told in error
    assert not (tmp_path / "aligned").exists()


BAD_OPTIONS = [
    ("evaluate", {"model": "weightless"}, "weightless: this model folder has no weights"),
    ("align", {"model": "weightless"}, "weightless: this model folder has no weights"),
    ("pretrain", {"init_from": "weightless"}, "weightless: this model folder has no weights"),
    ("pretrain", {"init_from": "no/such/model"}, "no/such/model: no such model folder"),
    ("evaluate", {"model": "cut_weights"}, "cut_weights: the weights cannot be read"),
    ("pretrain", {"init_from": "cut_weights"}, "cut_weights: the weights cannot be read"),
    ("evaluate", {"model": "lacking"}, "lacking: the weights lack 16 tensors, as 'text_model.encoder.layer.1"),
    ("evaluate", {"model": "misfit"}, "misfit: the weights do not fit config.json: 'text_model."),
    ("evaluate", {"model": "tokenless"}, "tokenless: no tokenizer can be read"),
    ("evaluate", {"model": "no_json"}, "no_json: It looks like the config file at"),
    (
        "align",
        {"model": "other_kind"},
        "other_kind: config.json is not a TempCLR model's: its model_type is 'bert'; 'tempclr pretrain "
        "--init_from_bert' starts from it",
    ),
    ("align", {"model": "empty"}, "empty: no config.json here"),
    ("align", {"model": "good.jsonl"}, "good.jsonl: no such model folder"),
    ("align", {"sentences": "latin.txt"}, "latin.txt: expected UTF-8 text"),
    ("align", {"device": "abacus"}, "field 'device': no device 'abacus' here"),
    ("evaluate", {"device": "abacus"}, "field 'device': no device 'abacus' here"),
    ("evaluate", {"dataset": "other_recipe"}, 'differ: expected {"resize": [32, 32]}, found {"resize": [64, 64]}'),
    ("pretrain", {"init_from": "model", "train_dataset": "other_recipe"}, 'found {"resize": [64, 64]}'),
    ("evaluate", {"dataset": "no_recipe"}, "feature_recipe.json: not a feature recipe"),
    ("evaluate", {"dataset": "damaged"}, "dataset_dict.json: does not list the splits"),
    ("evaluate", {"dataset": "empty"}, "empty: holds no dataset"),
    ("evaluate", {"dataset": "not.jsonl"}, "not.jsonl, row 0: not JSON"),
    ("pretrain", {"train_dataset": "gone.jsonl"}, "gone.jsonl: no such dataset file or folder"),
    ("evaluate", {"split": "spring"}, "good.jsonl, field 'split': has no split 'spring'"),
    ("pretrain", {"negatives": "shuffle"}, "argument --negatives: invalid choice: 'shuffle'"),
    ("pretrain", {"negative": "joint"}, "unknown option '--negative'; did you mean '--negatives'?"),
    ("pretrain", {"max_text_tokens": 0}, "field 'max_text_tokens': max_text_tokens must be at least 3"),
    ("pretrain", {"resume_from_checkpoint": "model"}, "it has no trainer_state.json"),
    ("evaluate", {"measures": "luck"}, "argument --measures: invalid choice: 'luck'"),
    ("evaluate", {"model": None}, "the following arguments are required: --model; see tempclr evaluate --help"),
    ("extract", {"image_size": "large"}, "argument --image_size: invalid int value: 'large'"),
    ("extract", {"backbone": "no/such/encoder"}, "no/such/encoder: no such model folder or Hub id"),
    ("extract", {"device": "abacus"}, "field 'device': no device 'abacus' here"),
    ("extract", {"videos": "empty"}, "empty: holds neither rows nor video files"),
]


@pytest.mark.parametrize(("command", "changes", "told"), BAD_OPTIONS)
def test_what_is_wrong_with_an_option_is_told(command, changes, told, world, tmp_path, capsys):
    if command == "extract" and "videos" not in changes:
        bare = row(0, video="whole.mp4", features=DROP, features_per_second=DROP)
        changes = {**changes, "videos": write_rows(world / "videos.jsonl", [bare])}
    assert told in refused(words(command, world, tmp_path / "out", **changes), capsys)
    assert set(final_files(tmp_path)) <= {"out/feature_recipe.json"}


@pytest.mark.parametrize("command", ["extract", "pretrain", "evaluate", "align"])
def test_outputs_that_cannot_be_written_are_told_before_the_work(command, world, tmp_path, capsys):
    (tmp_path / "taken").write_text("x")
    error = refused(words(command, world, tmp_path / "taken"), capsys)
    assert error == f"{tmp_path / 'taken'}: is a file, expected a folder to write into"
    if command in ("evaluate", "align"):
        (tmp_path / "out/r.json").mkdir(parents=True)
        assert "r.json: is a folder" in refused(words(command, world, tmp_path / "out"), capsys)
    assert (tmp_path / "taken").read_text() == "x"


@pytest.mark.parametrize(
    ("given", "told"), [([], "the following arguments are required: COMMAND"), (["fly"], "invalid choice: 'fly'")]
)
def test_the_program_itself_tells_mistakes_in_one_line(given, told, capsys):
    assert told in refused(given, capsys)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"tempclr {__version__}\n"


MIXED = [
    row(0),
    row(1, ends=[0.0]),
    row(2, sentences="ab"),
    row(3, video_id=7),
    '{"video_id": ',
    "[1]",
    row(6, features=[[1.0]] * 5),
    row(7),
]
LEFT_OUT = [
    "row 1, field 'ends'",
    "row 2, field 'sentences'",
    "row 3, field 'video_id'",
    "row 4: not JSON",
    "row 5: expected an object",
    "row 6, field 'features'",
]


@pytest.mark.parametrize("command", ["extract", "pretrain", "evaluate"])
def test_skip_bad_rows_counts_and_lists_them(command, world, tmp_path, capsys):
    rows, left_out = MIXED, LEFT_OUT
    if command == "extract":
        made = [row if isinstance(row, str) else {**row, "video": "whole.mp4"} for row in MIXED]
        rows = [*made, row(8, video="truncated.mp4")]
        left_out = [*LEFT_OUT[:-1], "row 8, field 'video'"]  # features there are not looked at
    source = write_rows(world / "rows.jsonl", rows)
    option = {"extract": "videos", "pretrain": "train_dataset", "evaluate": "dataset"}[command]
    assert main([*words(command, world, tmp_path / "out", **{option: source}), "--skip_bad_rows"]) == 0
    captured = capsys.readouterr()
    told = [line for line in (captured.out + captured.err).splitlines() if line.startswith("left out: ")]
    assert len(told) == len(left_out)
    for line, place in zip(told, left_out, strict=True):
        assert line.startswith(f"left out: {source}, {place}")
    assert f"{len(left_out)} left out" in captured.out or f"{len(left_out)} rows left out" in captured.out
    if command == "evaluate":
        listed = json.loads((tmp_path / "out/r.json").read_text())["left_out"]
        assert listed["num_rows"] == len(listed["reasons"]) == len(left_out)


def test_an_interrupted_checkpoint_is_removed(tmp_path):
    for step, names in ((9, ["trainer_state.json"]), (10, ["trainer_state.json"]), (11, ["model.safetensors"])):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in names:
            (tmp_path / f"checkpoint-{step}" / name).write_text("{}")
    arguments = TempCLRTrainingArguments(str(tmp_path), use_cpu=True)

    class Interrupted:
        args = arguments
        state = type("State", (), {"global_step": 11})

        def is_world_process_zero(self):
            return True

    _drop_half_written(Interrupted())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


@pytest.mark.parametrize("moment", ["save_model", "_save_optimizer_and_scheduler"])
def test_ctrl_c_while_a_checkpoint_is_written_leaves_nothing_of_it(moment, world, tmp_path, capsys, monkeypatch):
    from tempclr.trainer import TempCLRTrainer

    whole = getattr(TempCLRTrainer, moment)

    def interrupted(self, folder, *others, **keywords):
        whole(self, folder, *others, **keywords)
        raise KeyboardInterrupt

    monkeypatch.setattr(TempCLRTrainer, moment, interrupted)
    assert main(words("pretrain", world, tmp_path / "out", save_strategy="steps", save_steps=1)) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "tempclr: interrupted"
    assert not final_files(tmp_path)
