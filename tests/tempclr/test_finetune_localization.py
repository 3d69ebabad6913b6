"""Fine-tuning on step localization: it learns, it holds validation videos out, it resumes, it says what is wrong."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.cli.finetune_localization import run_words
from tempclr.data.localization_collation import LocalizationCollator
from tempclr.data.rows import Paragraph
from tempclr.errors import InputError
from tempclr.localization_loss import localization_loss
from tempclr.models.tempclr import TempCLRModel
from tempclr.recipes.localization import (
    LocalizationArguments,
    LocalizationTrainer,
    finetune_localization,
    hold_out,
    share_of_videos,
)
from tempclr.trainer import TempCLRTrainingArguments

spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)

TASKS = {"toast": (0, 1, 5), "eggs": (2, 4, 3)}


def make_videos(count, *, seed=0):
    """Videos of two tasks; each shows two or three of its task's steps, in their order."""
    videos = []
    for number, paragraph in enumerate(world.make_paragraphs(count, seed=seed, num_sentences=(3, 3))):
        task, actions = list(TASKS.items())[number % 2]
        steps = tuple(world.ACTIONS[action] for action in actions)
        shown = (0, 1, 2) if number % 3 else (0, 2)
        directions = np.random.default_rng(99).normal(size=(len(world.ACTIONS), world.FEATURE_SIZE))
        features = np.random.default_rng(number + 1000 * seed).normal(scale=0.3, size=paragraph.features.shape)
        starts, ends = [paragraph.starts[i] for i in shown], [paragraph.ends[i] for i in shown]
        for step, start, end in zip(shown, starts, ends, strict=True):
            features[int(start) : int(end)] += directions[actions[step]]
        videos.append(
            Paragraph(
                video_id=f"{task}-{seed}-{number}",
                sentences=[steps[step] for step in shown],
                starts=starts,
                ends=ends,
                features=features.astype(np.float32),
                features_per_second=1.0,
                task=task,
                steps=steps,
                step_indices=shown,
            )
        )
    return videos


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    world.make_model().save_pretrained(folder)
    world.make_processor().save_pretrained(folder)
    return str(folder)


def arguments(folder, **changes):
    settings = {"max_steps": 2, "per_device_train_batch_size": 3, "save_strategy": "no", "logging_steps": 1}
    settings |= {"disable_tqdm": True, "use_cpu": True, "report_to": "none", **changes}
    return TempCLRTrainingArguments(output_dir=str(folder), **settings)


def test_it_learns_to_find_the_steps(start, tmp_path):
    training = arguments(
        tmp_path / "out",
        max_steps=40,
        learning_rate=3e-3,
        eval_strategy="steps",
        eval_steps=40,
        save_strategy="steps",
        save_steps=40,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="step_recall",
        logging_steps=20,
    )
    trainer = finetune_localization(make_videos(24), init_from=start, training_arguments=training)
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert {"unit_loss", "sequence_loss"} <= set(next(entry for entry in history if "loss" in entry))
    recalls = [entry["eval_step_recall"] for entry in history if "eval_step_recall" in entry]
    # One frame a step at random would be right in about a third of the cases.
    assert max(recalls) > 0.8 and trainer.state.best_metric == max(recalls)
    assert TempCLRModel.from_pretrained(tmp_path / "out").processor is not None
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "fine-tuned on step localization over 22 videos" in card
        and "weight 0.88" in card
        and "| `sequence_weight`" not in card
    )


def test_the_trainers_loss_is_that_of_each_video(start):
    """A batch of two videos of unequal lengths gives the mean of what each gives alone."""
    model = TempCLRModel.from_pretrained(start).eval()
    collator = LocalizationCollator(model.processor, window=4)
    settings = {"sequence_weight": 0.0, "unit_weight": 1.0}
    trainer = LocalizationTrainer(model=model, args=arguments("unused"), data_collator=collator, loss_settings=settings)
    shortest, *_, longest = sorted(make_videos(8), key=lambda video: len(video.features))
    videos = [shortest, longest]
    assert len(shortest.features) < len(longest.features)

    def loss(rows):
        with torch.no_grad():
            return trainer.loss_and_parts(model, collator(rows))[0]

    together, alone = loss(videos), torch.stack([loss([video]) for video in videos]).mean()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    with torch.no_grad():
        batch = collator(videos[:1])
        labels = {name: batch.pop(name) for name in ("targets", "frame_times", "step_sequence")}
        output = model(**batch, return_loss=False, output_clip_hidden_states=True)
        real = batch["video_mask"][0].bool()
        expected = localization_loss(
            output.text_embeds[0],
            output.clip_hidden_states[0][real],
            labels["targets"][0][real],
            step_sequence=labels["step_sequence"][0],
            frame_times=labels["frame_times"][0][real],
            **settings,
        )
    torch.testing.assert_close(loss(videos[:1]), expected["loss"])


def test_a_resumed_run_ends_with_the_same_weights(start, tmp_path):
    videos = make_videos(9)
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "seed": 3}
    whole = finetune_localization(videos, init_from=start, training_arguments=arguments(tmp_path / "a", **saving))
    again = arguments(tmp_path / "a", **saving, resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    resumed = finetune_localization(videos, init_from=start, training_arguments=again)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_fractions_are_taken_within_tasks_and_nested():
    videos = make_videos(40)
    tenth, fifth = (share_of_videos(videos, fraction, seed=1) for fraction in (0.1, 0.2))
    assert [len(tenth), len(fifth)] == [4, 8]
    assert {video.video_id for video in tenth} < {video.video_id for video in fifth}
    for part in (tenth, fifth):
        assert sum(video.task == "toast" for video in part) * 2 == len(part)
    other = share_of_videos(videos, 0.1, seed=2)
    assert {video.video_id for video in other} != {video.video_id for video in tenth}
    train, validation = hold_out(videos, 0.2, seed=1)
    assert len(validation) == 8 and not {video.video_id for video in train} & {video.video_id for video in validation}
    single = [replace(video, task=video.video_id) for video in videos[:3]]
    assert hold_out(single, 0.5, seed=0) == (single, [])
    assert hold_out(videos, 0.0, seed=0) == (videos, [])


def write_rows(path, videos):
    names = ("video_id", "sentences", "starts", "ends", "features_per_second", "task", "steps", "step_indices")
    rows = [{**{name: getattr(video, name) for name in names}, "features": video.features.tolist()} for video in videos]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def words(start, data, output, *extra):
    always = {"task": "localization", "init_from": start, "train_dataset": data, "output_dir": output, "max_steps": 2}
    always |= {"per_device_train_batch_size": 2, "save_strategy": "no", "num_negatives": 3, "logging_steps": 1}
    listed = [str(word) for name, value in always.items() for word in (f"--{name}", value)]
    return [*listed, "--use_cpu", "--disable_tqdm", "True", "--report_to", "none", *map(str, extra)]


def test_the_command_trains_and_saves(start, tmp_path, capsys):
    data, output = write_rows(tmp_path / "train.jsonl", make_videos(20)), tmp_path / "out"
    assert run_words(words(start, data, output, "--train_fraction", "0.5", "--frame_order", "window")) == 0
    said = capsys.readouterr().out
    assert "step recall on 2 validation videos" in said and f"saved the model of step 2 in {output}" in said
    other = write_rows(tmp_path / "validation.jsonl", make_videos(4, seed=1))
    assert run_words(words(start, data, tmp_path / "b", "--eval_dataset", other)) == 0
    assert "step recall on 4 validation videos" in capsys.readouterr().out


def test_the_test_set_is_no_validation_set(start, tmp_path):
    data = write_rows(tmp_path / "train.jsonl", make_videos(6))
    with pytest.raises(InputError, match="field 'eval_split': 'test' is for `tempclr evaluate localization` alone"):
        run_words(words(start, data, tmp_path / "out", "--eval_dataset", data, "--eval_split", "test"))


def test_the_released_recipe_is_taken_by_the_command(start, tmp_path):
    data = write_rows(tmp_path / "train.jsonl", make_videos(6))
    small = ["--window", "8", "--stride", "4", "--dataloader_num_workers", "0"]
    assert run_words(["--recipe", "finetune_crosstask", *words(start, data, tmp_path / "out", *small)]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": None, "step_indices": None}, "no list of its task's steps"),
        ({"features": None, "features_per_second": None}, "no features"),
        ({"features": np.zeros((9, 3), np.float32)}, "width 3, the model takes 8"),
    ],
)
def test_videos_that_cannot_be_used_are_named(start, tmp_path, change, said):
    videos = make_videos(6)
    videos[3] = replace(videos[3], **change)
    with pytest.raises(InputError, match=said):
        finetune_localization(videos, init_from=start, training_arguments=arguments(tmp_path / "out"))


def test_what_cannot_be_is_refused(start, tmp_path):
    videos, training = make_videos(6), arguments(tmp_path / "out")
    with pytest.raises(InputError, match="2 videos, as 'eggs-0-1', are in the training and in the evaluation"):
        finetune_localization(videos, init_from=start, training_arguments=training, eval_paragraphs=videos[:2])
    with pytest.raises(InputError, match="holds no videos"):
        finetune_localization([], init_from=start, training_arguments=training)
    with pytest.raises(InputError, match="train_fraction"):
        LocalizationArguments(train_fraction=0)
    with pytest.raises(InputError, match="validation_fraction"):
        LocalizationArguments(validation_fraction=1)
