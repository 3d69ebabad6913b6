"""The recipes that come with the package: what they hold, how they are chosen, and that the released one trains so."""

from __future__ import annotations

import dataclasses
import inspect
import json

import numpy as np
import pytest
import torch
import yaml
from transformers import BertConfig, BertModel

from tempclr.cli import main
from tempclr.cli.pretrain import _parsed, run_words
from tempclr.data.captions_collation import CaptionCollator, CaptionDataset
from tempclr.data.localization_collation import LocalizationCollator
from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.localization_loss import localization_loss
from tempclr.losses import sequence_loss
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
from tempclr.negatives import Negatives, sample_negatives
from tempclr.recipes import RECIPE_KEYS, RECIPES, load_recipe
from tempclr.recipes.pretraining import LossArguments, ModelArguments, pretrain
from tempclr.recipes.training_data import SamplingArguments, training_data
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

PRETRAINING = sorted(name for name, recipe in RECIPES.items() if recipe.command == "pretrain")


def test_the_recipes_are_known_by_name_command_and_purpose():
    assert set(RECIPES) >= {"finetune_crosstask", *PRETRAINING}
    assert PRETRAINING == [
        "pretrain_howto100m",
        "pretrain_howto100m_all",
        "pretrain_videoclip",
        "small",
        "small_paper",
        "unit_loss",
    ]
    for name, recipe in RECIPES.items():
        assert recipe.command.split()[0] in ("pretrain", "finetune") and recipe.summary.endswith("."), name
        assert not set(load_recipe(name)) & set(RECIPE_KEYS)


@pytest.mark.parametrize("name", PRETRAINING)
@pytest.mark.parametrize("by", ["--recipe", "--config"])
def test_every_setting_reaches_its_option(name, by, tmp_path):
    value = name if by == "--recipe" else str(RECIPES[name].path)
    parsed = _parsed([by, value, "--train_dataset", "d", "--output_dir", str(tmp_path), "--use_cpu"])
    settings = load_recipe(name)
    found = {name: value for arguments in parsed for name, value in vars(arguments).items() if name in settings}
    assert found == settings


def test_the_finetuning_recipe_names_what_there_is():
    """The loss, the collator and the Trainer take its settings, all but the task's name."""
    known = {field.name for field in dataclasses.fields(TempCLRTrainingArguments)}
    known |= set(inspect.signature(localization_loss).parameters) | set(
        inspect.signature(LocalizationCollator).parameters
    )
    settings = load_recipe("finetune_crosstask")
    assert set(settings) - known == {"task"}
    ours = {name: default.default for name, default in inspect.signature(localization_loss).parameters.items()}
    assert {name: settings[name] for name in settings if name in ours and settings[name] != ours[name]} == {
        "frame_order": "window"
    }


RELEASED = {  # what both released configurations have
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": 2.0,
    "lr_scheduler_type": "linear",
    "schedule_steps": 1_000_000,
    "seed": 1,
    "dataloader_num_workers": 4,
    "num_negatives": 31,
    "measure": "dtw",
    "gamma": 0.1,
    "cosine_eps": 0.01,
    "sequence_temperature": 1.0,
}


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "pretrain_howto100m",
            {
                "learning_rate": 2e-5,
                "warmup_steps": 1000,
                "num_train_epochs": 10,
                "per_device_train_batch_size": 16,
                "train_parameters": "norm_only",
                "unit_weight": 0.3,
                "sequence_weight": 0.7,
                "similarity": "dot",
                "negatives": "visual_anchor",
                "clips_per_video": 16,
                "units_per_video": 5,
                "retrieval_candidates": 64,
                "gather_across_ranks": False,
            },
        ),
        (
            "pretrain_videoclip",
            {
                "learning_rate": 5e-5,
                "warmup_steps": 1000,
                "num_train_epochs": 25,
                "per_device_train_batch_size": 32,
                "train_parameters": "all",
                "unit_weight": 1.0,
                "sequence_weight": 0.0,
            },
        ),
        ("pretrain_howto100m_all", {"learning_rate": 1e-5, "train_parameters": "all", "warmup_steps": 1000}),
        (
            "finetune_crosstask",
            {
                "learning_rate": 5e-5,
                "warmup_steps": 122,
                "num_train_epochs": 20,
                "per_device_train_batch_size": 1,
                "train_parameters": "all",
                "unit_weight": 0.88,
                "sequence_weight": 0.12,
                "max_frames_per_step": 10,
                "negatives": "seg_unit",
                "window": 32,
                "stride": 16,
            },
        ),
    ],
)
def test_the_hyper_parameters_are_the_released_ones(name, own):
    settings = load_recipe(name)
    assert {key: settings[key] for key in RELEASED | own} == RELEASED | own


@pytest.mark.parametrize("name", ["pretrain_howto100m", "pretrain_howto100m_all", "pretrain_videoclip"])
def test_released_pretraining_runs_at_most_a_tenth_of_padding(name):
    assert load_recipe(name)["max_padding"] == 0.1


def test_recipes_can_be_compared():
    one, other = load_recipe("pretrain_howto100m"), load_recipe("pretrain_howto100m_all")
    assert {key for key in one | other if one.get(key) != other.get(key)} == {"train_parameters", "learning_rate"}
    small, baseline = load_recipe("small"), load_recipe("unit_loss")
    assert {key for key in small | baseline if small.get(key) != baseline.get(key)} == {
        "unit_weight",
        "sequence_weight",
    }
    paper = load_recipe("small_paper")
    assert {key for key in small | paper if small.get(key) != paper.get(key)} == {
        "temperature",
        "unit_weight",
        "sequence_weight",
    }
    assert (paper["unit_weight"], paper["sequence_weight"], paper["temperature"]) == (0.3, 0.7, 0.05)


def test_the_small_recipe_is_the_default_loss():
    defaults = TempCLRConfig().loss_settings()
    assert {key: value for key, value in load_recipe("small").items() if key in defaults}.items() <= defaults.items()


def test_help_lists_the_recipes_of_the_command(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"settings that come with the package: {', '.join(PRETRAINING)}" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "pretrain_howto"], "no recipe 'pretrain_howto'; did you mean 'pretrain_howto100m'? recipes: "),
        (["--recipe", "x"], "no recipe 'x'; recipes: finetune_crosstask, "),
        (["--recipe=finetune_crosstask"], "'finetune_crosstask' is a recipe of 'tempclr finetune'"),
        (["--recipe"], "argument --recipe: expected one argument"),
    ],
)
def test_a_wrong_name_is_told_in_one_line(words, told, capsys):
    assert main(["pretrain", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and told in error


def test_words_win_over_a_file_and_a_file_over_a_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"command": "pretrain", "based_on": "unit_loss", "gamma": 0.2, "measure": "otam"}))
    always = ["--train_dataset", "d", "--output_dir", str(tmp_path), "--use_cpu"]
    _, model, loss, _, training = _parsed(["--config", str(file), "--recipe", "small", *always, "--gamma", "0.3"])
    assert (model.hidden_size, loss.measure, loss.gamma, loss.sequence_weight) == (128, "otam", 0.3, 0.0)
    assert training.lr_scheduler_type == "cosine"
    file.write_text("command: pretrain\nbased_on: [small]\n")
    with pytest.raises(InputError, match="no recipe"):
        _parsed(["--config", str(file), *always])
    file.write_text("command: finetune\n")
    with pytest.raises(InputError, match="settings of 'tempclr finetune'"):
        _parsed(["--config", str(file), *always])


# --- the released pretraining, end to end

WORDS = ("cut", "the", "bread", "melt", "butter", "pour", "milk", "stir", "onion", "pan")


def captioned(number, *, num_captions=60):
    draw = np.random.default_rng(number)
    starts = np.cumsum(draw.uniform(2.0, 4.0, size=num_captions))
    return Paragraph(
        f"v{number}",
        [" ".join(draw.choice(WORDS, size=draw.integers(2, 8))) for _ in starts],
        starts.tolist(),
        (starts + draw.uniform(2.0, 5.0, size=num_captions)).tolist(),
        features=draw.normal(size=(int(starts[-1]) + 5, 6)).astype(np.float32),
        features_per_second=1.0,
    )


SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_text_layers": 1, "num_video_layers": 1}


def rows_file(path, count):
    rows = []
    for number in range(count):
        video = captioned(number)
        names = ("video_id", "sentences", "starts", "ends", "features_per_second")
        rows.append({name: getattr(video, name) for name in names} | {"features": video.features.tolist()})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_rows_of_captions_train_as_released(tmp_path, capsys, recwarn, caplog):
    train = rows_file(tmp_path / "captions.jsonl", 9)
    words = ["--recipe", "pretrain_howto100m", "--train_dataset", train, "--eval_dataset", train, "--use_cpu"]
    options = {"output_dir": tmp_path / "start", "max_steps": 1, "per_device_train_batch_size": 4, **SIZES}
    options |= {"per_device_eval_batch_size": 4, "dataloader_num_workers": 0, "retrieval_candidates": 5}
    options |= {"retrieval_search": "exact", "logging_steps": 1, "disable_tqdm": True}
    run_words([*words, *(str(word) for name, value in options.items() for word in (f"--{name}", value))])
    assert "the LayerNorms alone of a model of random weights are trained" in caplog.text
    caplog.clear()
    words += ["--init_from", str(tmp_path / "start"), "--dataloader_num_workers", "2"]
    options |= {"output_dir": tmp_path / "out", "max_steps": 3}
    chosen = {name: value for name, value in options.items() if name not in (*SIZES, "dataloader_num_workers")}
    run_words([*words, *(str(word) for name, value in chosen.items() for word in (f"--{name}", value))])
    assert f"saved the model of step 3 in {tmp_path / 'out'}" in capsys.readouterr().out
    assert "random weights" not in caplog.text
    assert not [warning for warning in recwarn if "pin_memory" in str(warning.message)]

    before, after = (TempCLRModel.from_pretrained(tmp_path / name) for name in ("start", "out"))
    moved = {name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert moved and all(name.split(".")[-2] == "LayerNorm" for name in moved)
    assert {name: getattr(after.config, name) for name in ("similarity", "negatives")} == {
        "similarity": "dot",
        "negatives": "visual_anchor",
    }
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    steps = [entry for entry in history if "sequence_loss" in entry]
    assert len(steps) == 3
    for step, entry in enumerate(steps):
        # Linear warm-up to 2e-5 at 1000; the rate logged is that of the step.
        assert entry["learning_rate"] == pytest.approx(2e-5 * step / 1000)
        assert entry["loss"] == pytest.approx(0.3 * entry["unit_loss"] + 0.7 * entry["sequence_loss"], rel=1e-3)
    written = sorted(path.name for path in (tmp_path / "out" / "retrieval_batches").iterdir())
    assert written == ["epoch-0.json", "epoch-1.json"]


def test_the_batch_of_the_recipe_gives_the_released_objective(tmp_path):
    """All clips of a batch in the unit loss, five units of each video in the sequence loss, by hand."""
    videos = [captioned(number) for number in range(4)]
    trained = pretrain(
        videos,
        training_arguments=TempCLRTrainingArguments(
            str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=4,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        model_arguments=ModelArguments(**SIZES, dropout=0.0),
        loss_arguments=LossArguments("dot", unit_weight=0.3, sequence_weight=0.7, negatives="visual_anchor"),
        sampling_arguments=SamplingArguments(clip_sampling="overlapped"),
    )
    assert isinstance(trained.train_dataset, CaptionDataset) and isinstance(trained.data_collator, CaptionCollator)
    drawn = [trained.train_dataset[row] for row in range(4)]
    assert [len(video.clips) for video in drawn] == [16] * 4
    batch = trained.data_collator(drawn)
    model = trained.model.eval()
    inputs = {name: value for name, value in batch.items() if name != "video_id"}
    torch.manual_seed(3)
    output = model(**inputs, return_loss=True)

    mask = batch["clip_mask"]
    text, clips = output.text_embeds[mask].double(), output.video_embeds[mask].double()
    assert len(text) == 64
    scores, diagonal = clips @ text.T, torch.arange(64)
    unit = sum(torch.nn.functional.cross_entropy(each, diagonal) for each in (scores, scores.T))
    assert output.unit_loss.item() == pytest.approx(unit.item(), rel=1e-5)
    sequences = mask.sum(1) == 5
    assert sequences.sum() == sum(len(video.paragraphs[0]) == 5 for video in drawn) > 0
    torch.manual_seed(3)
    negatives = sample_negatives(
        "visual_anchor", sentence_mask=mask, clip_mask=mask, clip_sentence_index=batch["clip_sentence_index"]
    )
    alone = sequence_loss(
        output.text_embeds[sequences].double(),
        output.video_embeds[sequences].double(),
        negatives=Negatives(row_orders=negatives.row_orders[sequences], order_mask=negatives.order_mask[sequences]),
    )
    assert output.sequence_loss.item() == pytest.approx(alone.item(), rel=1e-5)
    assert output.loss.item() == pytest.approx(
        0.3 * output.unit_loss.item() + 0.7 * output.sequence_loss.item(), rel=1e-5
    )


def test_training_may_start_from_bert(tmp_path):
    """Both towers are BERT's; sizes that BERT gives are refused."""
    train_tokenizer([" ".join(WORDS)]).save_pretrained(tmp_path / "bert")
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 3}
    bert = BertModel(BertConfig(**sizes, vocab_size=100))
    bert.save_pretrained(tmp_path / "bert")
    settings = {"learning_rate": 0.0, "max_steps": 1, "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}

    def trained(**changes):
        return pretrain(
            [captioned(number, num_captions=4) for number in range(2)],
            training_arguments=TempCLRTrainingArguments(str(tmp_path / "out"), **settings),
            model_arguments=ModelArguments(init_from_bert=str(tmp_path / "bert"), **changes),
        ).model

    model = trained(num_video_layers=2, dropout=0.2, max_num_features=8, tokenizer=str(tmp_path / "bert"))
    assert (model.config.text_config.num_hidden_layers, model.config.video_config.num_hidden_layers) == (3, 2)
    assert model.config.video_config.hidden_dropout_prob == 0.2 and model.config.video_config.max_num_features == 8
    taken = model.video_model.state_dict()["encoder.layer.1.output.dense.weight"]
    assert torch.equal(taken, bert.encoder.layer[1].output.dense.weight)
    assert model.processor.tokenizer.get_vocab() == train_tokenizer([" ".join(WORDS)]).get_vocab()
    with pytest.raises(InputError, match="are given by it: leave --hidden_size out"):
        trained(hidden_size=16)
    with pytest.raises(InputError, match=r"field 'init_from_bert'.*layers"):
        trained(num_video_layers=4)
    with pytest.raises(InputError, match="--init_from or from --init_from_bert"):
        trained(init_from=str(tmp_path / "out"))


def test_the_loss_of_one_rank_is_the_models_own_where_there_is_one(tmp_path):
    videos = [captioned(number) for number in range(4)]
    logged = []
    for name, gather in (("all", True), ("own", False)):
        trained = pretrain(
            videos,
            training_arguments=TempCLRTrainingArguments(
                str(tmp_path / name),
                max_steps=2,
                per_device_train_batch_size=4,
                logging_steps=1,
                save_strategy="no",
                use_cpu=True,
                disable_tqdm=True,
                gather_across_ranks=gather,
            ),
            model_arguments=ModelArguments(**SIZES),
            sampling_arguments=SamplingArguments(clip_sampling="overlapped", clips_per_video=6, units_per_video=2),
        )
        logged.append([entry["loss"] for entry in trained.state.log_history if "loss" in entry])
    assert logged[0] == logged[1] and len(logged[0]) == 2


def test_the_schedule_may_end_after_training(tmp_path):
    parameter = torch.nn.Linear(1, 1)
    for steps, wanted in ((None, 0.0), (100, 0.9)):
        arguments = TempCLRTrainingArguments(
            str(tmp_path), schedule_steps=steps, lr_scheduler_type="linear", learning_rate=1.0, use_cpu=True
        )
        trainer = TempCLRTrainer(model=parameter, args=arguments)
        trainer.create_optimizer_and_scheduler(num_training_steps=10)
        for _ in range(10):
            trainer.optimizer.step()
            trainer.lr_scheduler.step()
        assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(wanted)
    with pytest.raises(ValueError, match="schedule_steps must be at least 1, got 0"):
        TempCLRTrainingArguments(str(tmp_path), schedule_steps=0)


def test_sampling_settings_that_contradict_each_other_are_named():
    for name, value in (("clip_seconds", 2.0), ("max_sentences", 4), ("keep_background", True)):
        with pytest.raises(InputError, match=f"field '{name}': has no meaning with --clip_sampling overlapped"):
            SamplingArguments(clip_sampling="overlapped", **{name: value})
    with pytest.raises(InputError, match="field 'units_per_video': must be at least 1, got 0"):
        SamplingArguments(units_per_video=0)


def test_similar_batches_also_serve_rows_of_sentences(tmp_path):
    arguments = TempCLRTrainingArguments(str(tmp_path), per_device_train_batch_size=2, use_cpu=True)
    processor = TempCLRProcessor(train_tokenizer([" ".join(WORDS)]), max_num_features=8)
    videos = [captioned(number, num_captions=4) for number in range(5)]
    data = training_data(
        videos,
        None,
        processor=processor,
        sampling=SamplingArguments(retrieval_batches=True),
        training_arguments=arguments,
    )
    assert data.eval_dataset is None and len(data.train_sampler) == 4 and len(data.callbacks) == 1
    assert data.callbacks[0].dataset is data.train_dataset
