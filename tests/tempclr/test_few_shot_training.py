"""Pretraining by order and training on episodes, as functions and as commands; a world told by order alone."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from tempclr.cli import main
from tempclr.data.sequences import SequenceSet, save_sequences
from tempclr.errors import InputError
from tempclr.evaluation.few_shot import evaluate_few_shot
from tempclr.models.few_shot import FewShotForEpisodes, FewShotModel
from tempclr.recipes.few_shot import (
    EncoderArguments,
    EpisodeArguments,
    EpisodeTrainingArguments,
    OrderArguments,
    VideoOnlyTrainingArguments,
    finetune_few_shot,
    pretrain_video_only,
    read_few_shot_model,
)

QUIET = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 5}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.0}


def make_world(classes: range, *, per_class=8, noise=0.6, seed=0) -> SequenceSet:
    """Each class is an order of the same eight frames; sequences of 16 are noisy and have two of each in a row."""
    units = np.random.default_rng(99).normal(size=(8, 6))
    sequences, labels = [], []
    for number in classes:
        order = np.random.default_rng(1000 + number).permutation(8)
        random = np.random.default_rng((seed, number))
        for _ in range(per_class):
            sequences.append(np.repeat(units[order], 2, axis=0) + noise * random.normal(size=(16, 6)))
            labels.append(f"order-{number}")
    return SequenceSet(sequences, labels)


@pytest.fixture(scope="module")
def base() -> SequenceSet:
    return make_world(range(6))


@pytest.fixture(scope="module")
def novel() -> SequenceSet:
    return make_world(range(6, 11))


def pretrained(base: SequenceSet, folder, **changes):
    arguments = VideoOnlyTrainingArguments(
        str(folder), **{**QUIET, "num_train_epochs": 15, "per_device_train_batch_size": 16, **changes}
    )
    return pretrain_video_only(base, training_arguments=arguments, encoder=EncoderArguments(**SMALL))


@pytest.fixture(scope="module")
def pretrained_dir(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    pretrained(base, folder)
    return folder


def test_pretraining_learns_to_tell_the_true_order(base, novel, tmp_path):
    trainer = pretrain_video_only(
        base,
        training_arguments=VideoOnlyTrainingArguments(
            str(tmp_path), **QUIET, num_train_epochs=15, per_device_train_batch_size=16
        ),
        eval_sequences=novel,
        encoder=EncoderArguments(**SMALL),
        order=OrderArguments(measure="otam", num_negatives=15),
    )
    logged = [entry for entry in trainer.state.log_history if "sequence_loss" in entry]
    assert logged[-1]["sequence_loss"] < 0.8 * logged[0]["sequence_loss"]
    assert trainer.state.log_history[-1]["eval_sequence_loss"] > 0
    saved = FewShotModel.from_pretrained(tmp_path)
    assert (saved.config.measure, saved.config.num_negatives, saved.config.feature_size) == ("otam", 15, 6)
    frames = torch.randn(2, 8, 6)
    assert torch.equal(saved.eval().embed(frames), trainer.model.eval().embed(frames))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "FewShotModel" in card and "eval_sequence_loss" in card


def test_equal_seeds_give_equal_weights(base, tmp_path):
    models = [
        pretrained(base, tmp_path / name, max_steps=4, seed=seed).model
        for name, seed in zip("abc", (1, 1, 2), strict=True)
    ]
    weights = [model.linear.weight for model in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_an_interrupted_pretraining_goes_on(base, tmp_path):
    steps = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    whole = pretrained(base, tmp_path / "whole", **steps).model
    resumed = pretrained(base, tmp_path / "whole", **steps, resume_from_checkpoint=str(tmp_path / "whole/checkpoint-4"))
    assert resumed.state.global_step == 8
    torch.testing.assert_close(resumed.model.linear.weight, whole.linear.weight)
    other = VideoOnlyTrainingArguments(
        str(tmp_path / "whole"), **{**QUIET, **steps, "resume_from_checkpoint": str(tmp_path / "whole/checkpoint-4")}
    )
    with pytest.raises(InputError, match="has hidden_size 32, asked for is 64"):
        pretrain_video_only(base, training_arguments=other, encoder=EncoderArguments(hidden_size=64))


def test_an_interrupted_training_on_episodes_goes_on(base, tmp_path):
    def trained(**changes):
        arguments = EpisodeTrainingArguments(
            str(tmp_path), **{**QUIET, "max_steps": 6, "save_strategy": "steps", "save_steps": 3, **changes}
        )
        episodes = EpisodeArguments(num_episodes=4, num_queries=2)
        return finetune_few_shot(
            base, training_arguments=arguments, encoder=EncoderArguments(**SMALL), episodes=episodes
        ).model

    whole = trained()
    resumed = trained(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    torch.testing.assert_close(resumed.few_shot.projection.weight, whole.few_shot.projection.weight)


@pytest.mark.parametrize(("head", "start"), [("otam", "scratch"), ("dtw", "pretrained"), ("trx", "pretrained")])
def test_episodes_of_training_classes_help_on_new_ones(base, novel, pretrained_dir, tmp_path, head, start):
    encoder = EncoderArguments(init_from=str(pretrained_dir)) if start == "pretrained" else EncoderArguments(**SMALL)
    episodes = EpisodeArguments(
        head=head, shot=2, num_queries=3, num_episodes=12, num_eval_tasks=20, num_eval_queries=6, trx_head_size=16
    )
    arguments = EpisodeTrainingArguments(
        str(tmp_path), **{**QUIET, "logging_steps": 3}, learning_rate=1e-3, num_train_epochs=2
    )
    trainer = finetune_few_shot(
        base, training_arguments=arguments, eval_sequences=novel, encoder=encoder, episodes=episodes
    )
    assert trainer.state.global_step == 24  # a step every episode
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    reached = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    settings = {"way": 5, "shot": 2, "num_queries": 6, "num_tasks": 20, "num_frames": 8}
    saved = read_few_shot_model(str(tmp_path))
    assert isinstance(saved, FewShotForEpisodes) and saved.config.head == head
    assert evaluate_few_shot(novel, model=saved, **settings).accuracy == pytest.approx(reached[-1])
    assert reached[-1] > 0.3  # chance is 0.2


def test_what_does_not_fit_the_model_to_start_from_is_refused(base, pretrained_dir, tmp_path):
    arguments = EpisodeTrainingArguments(str(tmp_path), **QUIET)
    start = str(pretrained_dir)
    wide = SequenceSet([np.zeros((9, 7))] * 20, [f"c{index % 10}" for index in range(20)])
    for sequences, encoder, message in (
        (base, EncoderArguments(init_from=start, hidden_size=64), "are given by it: leave them out"),
        (base, EncoderArguments(init_from=start, num_frames=9), "has max_num_frames 8, asked for is 9"),
        (wide, EncoderArguments(init_from=start), "has feature_size 6, asked for is 7"),
        (base, EncoderArguments(init_from=str(tmp_path / "none")), "none"),
    ):
        with pytest.raises(InputError, match=message):
            finetune_few_shot(sequences, training_arguments=arguments, encoder=encoder)
    with pytest.raises(InputError, match=r"class 'order-5' is a training class too \(1 in all\)"):
        both = {"eval_sequences": make_world(range(5, 10)), "encoder": EncoderArguments(**SMALL)}
        finetune_few_shot(base, training_arguments=arguments, **both)
    for train in (finetune_few_shot, pretrain_video_only):
        with pytest.raises(InputError, match="holds vectors of 7, those of training 6"):
            train(base, training_arguments=arguments, eval_sequences=wide, encoder=EncoderArguments(**SMALL))
    with pytest.raises(InputError, match="field 'num_eval_tasks': must be at least 1, got 0"):
        settings = {"eval_sequences": make_world(range(6, 11)), "episodes": EpisodeArguments(num_eval_tasks=0)}
        finetune_few_shot(base, training_arguments=arguments, encoder=EncoderArguments(**SMALL), **settings)
    few = base.of_classes(base.classes[:3])
    with pytest.raises(InputError, match="5-way 1-shot episodes need 5 classes"):
        finetune_few_shot(few, training_arguments=arguments, encoder=EncoderArguments(**SMALL))
    with pytest.raises(ValueError, match="hold a tuple larger than the 8 frames"):
        episodes = EpisodeArguments(head="trx", trx_cardinalities=[9])
        finetune_few_shot(base, training_arguments=arguments, encoder=EncoderArguments(**SMALL), episodes=episodes)


def test_a_folder_that_is_no_few_shot_model_is_told(tmp_path, pretrained_dir):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(InputError, match="is no video-only model: its model_type is 'bert'"):
        read_few_shot_model(str(tmp_path))
    config = (pretrained_dir / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(InputError, match="the weights cannot be read"):
        read_few_shot_model(str(tmp_path))
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    (tmp_path / "model.safetensors").write_bytes((pretrained_dir / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"the weights lack \d+ tensors"):
        read_few_shot_model(str(tmp_path))


def test_the_three_commands_follow_one_another(base, novel, tmp_path, capsys):
    save_sequences(tmp_path / "set.npz", {"train": base, "test": novel})
    data = str(tmp_path / "set.npz")
    training = ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true"]
    words = ["pretrain", "--video_only", "--train_dataset", data, "--train_split", "train", "--max_steps", "6"]
    words += ["--hidden_size", "32", "--num_hidden_layers", "1", "--num_attention_heads", "2", "--measure", "otam"]
    assert main([*words, *training, "--output_dir", str(tmp_path / "pre")]) == 0
    words = ["finetune", "--task", "few-shot", "--init_from", str(tmp_path / "pre"), "--train_dataset", data]
    words += ["--train_split", "train", "--eval_dataset", data, "--eval_split", "test", "--num_eval_tasks", "20"]
    words += ["--num_eval_queries", "5", "--head", "otam", "--max_steps", "5"]
    assert main([*words, *training, "--output_dir", str(tmp_path / "meta")]) == 0
    assert re.search(r"5-way 1-shot accuracy: \d+\.\d ± \d+\.\d %", capsys.readouterr().out)

    words = ["evaluate", "few-shot", "--dataset", data, "--split", "test", "--num_tasks", "50", "--quiet"]
    for model in ([], ["--model", str(tmp_path / "meta")], ["--model", str(tmp_path / "pre"), "--measures", "dtw"]):
        output = tmp_path / "results.json"
        assert main([*words, *model, "--shots", "1", "5", "--output", str(output)]) == 0
        found = json.loads(output.read_text(encoding="utf-8"))["few_shot"]
        measures = [one["protocol"]["measure"] for one in found]
        expected = ["mean_pool", "dtw", "otam", "bi_mhm"] if not model else ["dtw" if "dtw" in model else "otam"]
        assert measures == [measure for measure in expected for _ in range(2)]
        said = capsys.readouterr().out
        assert "has videos for 3 queries only, at 5 shots" in said and f"{100 * found[0]['accuracy']:.2f}" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune"], "--task is missing; tasks: classification, few-shot, localization"),
        (["finetune", "--task", "dance"], "--task has no task 'dance'"),
        (["finetune", "--task"], "tasks: classification, few-shot, localization"),
        (["finetune", "--task=few-shot", "--output_dir", "o"], "--train_dataset"),
        (["finetune", "--task=few-shot", "--output_dir", "o", "--train_dataset", "no.npz"], "no.npz"),
        (["finetune", "--task=few-shot", "--output_dir", "o", "--head", "knn"], "knn"),
        (["pretrain", "--video_only", "--output_dir", "o", "--train_dataset", "set.npz", "--eval_split", "a"], "needs"),
        (["evaluate", "few-shot", "--dataset", "set.npz", "--output", "r.txt"], "takes a .json file, got r.txt"),
        (["evaluate", "few-shot", "--dataset", "set.npz", "--output", "r.json", "--way", "9"], "9-way 1-shot"),
    ],
)
def test_mistakes_are_told_in_one_line(base, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    save_sequences("set.npz", {"train": base})
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["finetune"], ["finetune", "--task", "few-shot"], ["pretrain", "--video_only"], ["evaluate", "few-shot"]]
)
def test_every_command_tells_its_options(words, capsys):
    try:
        assert main([*words, "--help"]) == 0
    except SystemExit as stop:
        assert stop.code == 0
    said = capsys.readouterr().out
    assert "usage: tempclr" in said and ("--task" in said or "--" in said)
