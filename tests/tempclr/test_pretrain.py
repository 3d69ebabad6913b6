from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import pytest
import torch
import yaml

from tempclr.cli import main
from tempclr.cli.pretrain import run_words
from tempclr.errors import InputError
from tempclr.models.tempclr import TempCLRModel
from tempclr.recipes.pretraining import LossArguments, ModelArguments, SamplingArguments, pretrain
from tempclr.trainer import TempCLRTrainingArguments
from tempclr_hub.probe import check_probe

spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_text_layers": 1, "num_video_layers": 1, "vocab_size": 80}


def row(paragraph, **changes):
    names = ("video_id", "sentences", "starts", "ends", "features_per_second")
    fields = {name: getattr(paragraph, name) for name in names}
    return {**fields, "features": paragraph.features.tolist(), **changes}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    files = {}
    for name, count, seed in (("train", 8, 0), ("validation", 4, 1)):
        rows = [row(paragraph) for paragraph in world.make_paragraphs(count, seed=seed)]
        files[name] = write_rows(folder / name / f"{name}.jsonl", rows)
    return files


def words(data, output, *extra, sizes=SIZES):
    always = {"train_dataset": data["train"], "output_dir": output, "max_steps": 2, "per_device_train_batch_size": 4}
    always |= {"logging_steps": 1, "save_strategy": "no", "num_negatives": 3} | sizes
    listed = [str(word) for name, value in always.items() for word in (f"--{name}", value)]
    return [*listed, "--use_cpu", "--disable_tqdm", "True", *map(str, extra)]


def test_it_trains_evaluates_and_saves_model_and_processor(data, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["pretrain", *words(data, output, "--eval_dataset", data["validation"], "--negatives", "joint")]) == 0
    assert f"saved the model of step 2 in {output}" in capsys.readouterr().out
    model = TempCLRModel.from_pretrained(output)
    assert (model.config.negatives, model.config.num_negatives, model.config.video_config.feature_size) == (
        "joint",
        3,
        8,
    )
    assert model.processor is not None and model.processor("cut the bread")["input_ids"].shape[0] == 1
    metrics = json.loads((output / "eval_results.json").read_text())
    assert {"eval_loss", "eval_unit_loss", "eval_sequence_loss"} <= set(metrics)
    assert not [path for path in output.iterdir() if path.name.startswith(".")], "nothing half-written is left"
    assert "TempCLR" in (output / "README.md").read_text(encoding="utf-8")
    assert check_probe(output) <= 1e-6  # publishing compares with it


def test_a_yaml_file_gives_defaults_and_the_command_line_wins(data, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({**SIZES, "measure": "otam", "gamma": "2e-1", "output_dir": str(tmp_path / "no")}))
    output = tmp_path / "out"
    run_words(words(data, output, "--config", config, "--gamma", "0.3", sizes={}))
    loaded = TempCLRModel.from_pretrained(output).config
    assert (loaded.measure, loaded.gamma, loaded.text_config.hidden_size) == ("otam", 0.3, 16)
    assert not (tmp_path / "no").exists()


def test_everything_may_stand_in_the_yaml_file(data, tmp_path):
    config = tmp_path / "c.yaml"
    settings = {"train_dataset": data["train"], "output_dir": str(tmp_path / "out"), "max_steps": 1, "use_cpu": True}
    config.write_text(yaml.safe_dump({**settings, **SIZES, "save_strategy": "no", "lr_scheduler_kwargs": {}}))
    run_words([f"--config={config}"])
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"negative": "seg_unit"}, "field 'negative': unknown option; did you mean 'negatives'?"),
        ({"negatives": "seg-unit"}, "field 'negatives': must be one of seg_unit, .*, found 'seg-unit'"),
        ({"learning_rate": "fast"}, "field 'learning_rate': expected float, found 'fast'"),
        ({"max_steps": [1, 2]}, r"field 'max_steps': takes one value, found the list \[1, 2\]"),
        ({"max_steps": True}, "field 'max_steps': expected int, found True"),
        (["a"], "expected lines of 'option: value', found list"),
    ],
)
def test_mistakes_in_the_yaml_file_name_file_and_field(settings, told, data, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match=told) as caught:
        run_words(words(data, tmp_path / "out", "--config", config))
    assert str(caught.value).startswith(str(config))


def test_a_file_that_is_not_yaml_or_not_there_is_named(data, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("a: [1")
    with pytest.raises(InputError, match="not YAML"):
        run_words(words(data, tmp_path / "out", "--config", config))
    with pytest.raises(InputError, match=r"largest: no such file; .* give --recipe"):
        run_words(words(data, tmp_path / "out", "--config", "largest"))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--negatives", "shuffle"], "argument --negatives: invalid choice: 'shuffle'"),
        (["--no_such_option", "1"], "no_such_option"),
        (["--temperature", "-1"], "temperature must be above 0"),
        (["--init_from", "nowhere/at/all"], "--hidden_size out"),
        (["--tokenizer", "/nowhere"], "no tokenizer can be read from '/nowhere'"),
        (["--model_config", "/nowhere"], "no configuration can be read"),
        (["--resume_from_checkpoint"], "no checkpoint in .* to resume from"),
        (["--resume_from_checkpoint", "/nowhere"], "no checkpoint folder '/nowhere'"),
        (["--train_parameters", "some"], "invalid choice: 'some'"),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_line_and_code_two(extra, told, data, tmp_path, capsys):
    import re

    assert main(["pretrain", *words(data, tmp_path / "out", *extra)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tempclr pretrain: error:") and re.search(told, error), error
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_required_words_are_asked_for(capsys):
    assert main(["pretrain", "--train_dataset", "x"]) == 2
    assert "--output_dir" in capsys.readouterr().err


def test_bad_rows_are_named_or_listed(data, tmp_path, capsys):
    good = world.make_paragraphs(4)
    rows = [row(good[0]), row(good[1], ends=[0.0]), row(good[2]), row(good[3])]
    bad = {"train": write_rows(tmp_path / "bad.jsonl", rows)}
    assert main(["pretrain", *words(bad, tmp_path / "out")]) == 2
    assert "bad.jsonl, row 1, field 'ends'" in capsys.readouterr().err
    assert main(["pretrain", *words(bad, tmp_path / "out", "--skip_bad_rows")]) == 0
    assert "left out: " in capsys.readouterr().out


def test_the_feature_recipe_travels_and_mismatches_are_refused(data, tmp_path):
    recipe = {"backbone": "a", "features_per_second": 1.0}
    folders = {}
    for name, found in (("train", recipe), ("validation", {**recipe, "backbone": "b"})):
        rows = Path(data[name]).read_text()
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.jsonl").write_text(rows)
        (folder / "feature_recipe.json").write_text(json.dumps(found))
        folders[name] = str(folder)
    output = tmp_path / "out"
    run_words(words(folders, output))
    assert TempCLRModel.from_pretrained(output).config.video_config.feature_recipe == recipe
    with pytest.raises(InputError, match=r"recipes of --train_dataset .* differ"):
        run_words(words(folders, tmp_path / "other", "--eval_dataset", folders["validation"]))
    swapped = {"train": folders["validation"]}
    with pytest.raises(InputError, match="the training dataset differ"):
        run_words(words(swapped, tmp_path / "other", "--init_from", output, sizes={}))


def test_starting_from_a_model_keeps_its_weights_tokenizer_and_settings(data, tmp_path):
    first = tmp_path / "first"
    run_words(words(data, first, "--measure", "otam"))
    run_words(words(data, tmp_path / "second", "--init_from", first, "--learning_rate", "0", sizes={}))
    one, other = (TempCLRModel.from_pretrained(folder) for folder in (first, tmp_path / "second"))
    assert other.config.measure == "otam"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.processor.tokenizer.get_vocab() == other.processor.tokenizer.get_vocab()


def test_features_of_another_width_do_not_fit_a_model(data, tmp_path):
    run_words(words(data, tmp_path / "first"))
    narrow = [row(paragraph) for paragraph in world.make_paragraphs(4)]
    for each in narrow:
        each["features"] = [vector[:5] for vector in each["features"]]
    files = {"train": write_rows(tmp_path / "narrow.jsonl", narrow)}
    with pytest.raises(InputError, match="takes features of width 8, the dataset has width 5"):
        run_words(words(files, tmp_path / "second", "--init_from", tmp_path / "first", sizes={}))


def test_resuming_from_the_last_checkpoint_gives_the_same_weights(data, tmp_path):
    steps = ["--save_strategy", "steps", "--save_steps", "2", "--max_steps", "4", "--lr_scheduler_type", "constant"]
    run_words(words(data, tmp_path / "whole", *steps))
    whole = TempCLRModel.from_pretrained(tmp_path / "whole")
    for path in (tmp_path / "whole" / "checkpoint-4").iterdir():
        path.unlink()
    (tmp_path / "whole" / "checkpoint-4").rmdir()
    run_words(words(data, tmp_path / "whole", *steps, "--resume_from_checkpoint"))
    resumed = TempCLRModel.from_pretrained(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


# --- as a function


def arguments(folder, **changes):
    settings = {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "use_cpu": True, "seed": 5}
    return TempCLRTrainingArguments(str(folder), **{**settings, "disable_tqdm": True, **changes})


def test_the_function_starts_baseline_and_tempclr_from_the_same_weights(tmp_path):
    videos = world.make_paragraphs(8)
    models = []
    for name, loss in (("unit", LossArguments(unit_weight=1, sequence_weight=0)), ("both", LossArguments())):
        trainer = pretrain(
            videos,
            training_arguments=arguments(tmp_path / name, learning_rate=0.0),
            model_arguments=ModelArguments(**SIZES),
            loss_arguments=loss,
        )
        models.append(trainer.model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_the_same_seed_gives_the_same_weights(tmp_path):
    world.make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    sizes = ModelArguments(tokenizer=str(tmp_path / "tokenizer"), **SIZES)
    one, other = (
        pretrain(world.make_paragraphs(8), training_arguments=arguments(tmp_path / name), model_arguments=sizes).model
        for name in ("one", "other")
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_evaluator_is_asked_at_the_end(tmp_path):
    trainer = pretrain(
        world.make_paragraphs(6),
        eval_paragraphs=world.make_paragraphs(3, seed=1),
        training_arguments=arguments(tmp_path),
        model_arguments=ModelArguments(**SIZES),
        sampling_arguments=SamplingArguments(clip_seconds=1, max_sentences=3, sentence_sampling="span"),
        evaluator=lambda model: {"r_at_1": 0.25},
    )
    assert trainer.state.log_history[-1]["eval_r_at_1"] == 0.25
    assert json.loads((tmp_path / "eval_results.json").read_text())["eval_r_at_1"] == 0.25


def test_paragraphs_of_one_sentence_are_counted(tmp_path, caplog):
    videos = [*world.make_paragraphs(3), *world.make_paragraphs(2, seed=2, num_sentences=(1, 1))]
    with caplog.at_level(logging.WARNING):
        pretrain(videos, training_arguments=arguments(tmp_path), model_arguments=ModelArguments(**SIZES))
    assert "2 of 5 training paragraphs have a single sentence" in caplog.text


def test_what_cannot_be_trained_on_is_named(tmp_path):
    import dataclasses

    videos = world.make_paragraphs(2)
    bare = dataclasses.replace(videos[0], features=None, features_per_second=None, video="x.mp4")
    narrow = dataclasses.replace(videos[1], features=videos[1].features[:, :5])
    for paragraphs, told in (
        ([bare], "'video-0-0' has no features"),
        ([videos[0], narrow], r"one width, found 8 \('video-0-0'\), 5 \('video-0-1'\)"),
        ([], "holds no paragraphs"),
    ):
        with pytest.raises(InputError, match=told):
            pretrain(paragraphs, training_arguments=arguments(tmp_path), model_arguments=ModelArguments(**SIZES))
