from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tempclr.data.collation import ParagraphCollator
from tempclr.data.sampling import ParagraphDataset
from tempclr.losses import tempclr_loss
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments, select_parameters

spec = importlib.util.spec_from_file_location("training_world", Path(__file__).with_name("training_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


def arguments(folder, **changes):
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 2,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
    }
    return TempCLRTrainingArguments(str(folder), **{**settings, **changes})


def trainer(folder, *, model=None, train=None, evaluation=None, evaluator=None, collator=None, **changes):
    processor = world.make_processor()
    return TempCLRTrainer(
        model=world.make_model() if model is None else model,
        args=arguments(folder, **changes),
        train_dataset=ParagraphDataset(world.make_paragraphs(12)) if train is None else train,
        eval_dataset=evaluation,
        data_collator=collator or ParagraphCollator(processor),
        processing_class=processor,
        evaluator=evaluator,
    )


def history(trained, name):
    return [entry[name] for entry in trained.state.log_history if name in entry]


def test_both_parts_are_logged_and_add_up(tmp_path):
    """Note [return_loss is set here]: the batch does not ask for a loss, the Trainer does."""
    trained = trainer(tmp_path, gradient_accumulation_steps=2)
    trained.train()
    losses, units, sequences = (history(trained, name) for name in ("loss", "unit_loss", "sequence_loss"))
    assert len(losses) == len(units) == len(sequences) == 2
    for loss, unit, sequence in zip(losses, units, sequences, strict=True):
        assert loss == pytest.approx(0.7 * unit + 0.3 * sequence, rel=1e-4)


def test_training_learns(tmp_path):
    videos = world.make_paragraphs(32)
    trained = trainer(tmp_path, train=videos, max_steps=60, per_device_train_batch_size=8, learning_rate=3e-3)
    trained.train()
    losses = history(trained, "loss")
    assert losses[-1] < 0.6 * losses[0]


def test_evaluation_logs_the_parts_and_repeats_itself(tmp_path):
    trained = trainer(tmp_path, evaluation=world.make_paragraphs(6, seed=1))
    first, second = trained.evaluate(), trained.evaluate()
    for name in ("eval_loss", "eval_unit_loss", "eval_sequence_loss"):
        assert first[name] == second[name]
    assert first["eval_loss"] == pytest.approx(0.7 * first["eval_unit_loss"] + 0.3 * first["eval_sequence_loss"])


def test_evaluation_does_not_disturb_training(tmp_path):
    """Note [Evaluation has its own randomness]."""
    plain = trainer(tmp_path / "a")
    plain.train()
    watched = trainer(tmp_path / "b", evaluation=world.make_paragraphs(6, seed=1), eval_strategy="steps", eval_steps=1)
    watched.train()
    assert history(watched, "eval_sequence_loss")
    for one, other in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_several_evaluation_sets_are_told_apart(tmp_path):
    sets = {"near": world.make_paragraphs(4, seed=1), "far": world.make_paragraphs(4, seed=2)}
    metrics = trainer(tmp_path, evaluation=sets).evaluate()
    assert {"eval_near_unit_loss", "eval_far_sequence_loss"} <= set(metrics)


def test_predictions_are_the_embeddings(tmp_path):
    output = trainer(tmp_path).predict(world.make_paragraphs(6, seed=1))
    assert [part.shape[0] for part in output.predictions] == [6, 6]
    assert [part.shape[2] for part in output.predictions] == [16, 16]
    assert "test_unit_loss" in output.metrics


def test_the_evaluator_chooses_the_best_model(tmp_path):
    scores = iter([0.2, 0.9, 0.5, 0.1])
    modes = []

    def evaluator(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return {"r_at_1": next(scores)}

    trained = trainer(
        tmp_path,
        evaluation=world.make_paragraphs(4, seed=1),
        evaluator=evaluator,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="r_at_1",
        greater_is_better=True,
    )
    trained.train()
    assert history(trained, "eval_r_at_1") == [0.2, 0.9, 0.5, 0.1]
    assert trained.state.best_metric == 0.9
    assert Path(trained.state.best_model_checkpoint).name == "checkpoint-2"
    assert modes == [(False, False)] * 4


def test_resuming_gives_the_same_weights_bit_for_bit(tmp_path):
    """In the middle of an epoch, with sentences drawn by epoch: Note [The dataset knows its epoch]."""
    videos = world.make_paragraphs(12)

    def run(folder, **changes):
        data = ParagraphDataset(videos, max_sentences=3, sampling="span", seed=5)
        made = trainer(folder, train=data, max_steps=8, save_strategy="steps", save_steps=4, **changes)
        return made

    whole = run(tmp_path / "whole")
    whole.train()
    resumed = run(tmp_path / "resumed", model=world.make_model())
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert resumed.state.global_step == 8
    for (name, one), other in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_checkpoint_holds_model_and_processor(tmp_path):
    trained = trainer(tmp_path)
    trained.save_model()
    loaded = TempCLRModel.from_pretrained(tmp_path)
    assert loaded.processor is not None
    batch = ParagraphCollator(loaded.processor)(world.make_paragraphs(2))
    loaded.eval(), trained.model.eval()
    assert torch.equal(loaded(**batch).text_embeds, trained.model(**batch).text_embeds)


def test_the_plain_trainer_trains_too(tmp_path):
    settings = TrainingArguments(
        str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        logging_steps=1,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        gradient_accumulation_steps=2,
    )
    made = Trainer(
        model=world.make_model(),
        args=settings,
        train_dataset=ParagraphDataset(world.make_paragraphs(12)),
        data_collator=ParagraphCollator(world.make_processor()),
    )
    made.train()
    ours = trainer(tmp_path, gradient_accumulation_steps=2)
    ours.train()
    for one, other in zip(made.model.parameters(), ours.model.parameters(), strict=True):
        assert torch.equal(one, other), "both Trainers train the same thing"


def test_the_baseline_logs_the_unit_loss_alone(tmp_path):
    trained = trainer(tmp_path, model=world.make_model(unit_weight=1.0, sequence_weight=0.0))
    trained.train()
    assert history(trained, "unit_loss") == pytest.approx(history(trained, "loss"), rel=1e-4)
    assert not history(trained, "sequence_loss")


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path):
    class Extreme(ParagraphCollator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            return {**batch, "video_features": batch["video_features"] * math.inf}

    model = world.make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    videos = world.make_paragraphs(4)
    collator = Extreme(world.make_processor(), with_video_ids=True)
    with pytest.raises(
        ValueError, match=r"loss is nan at step 1 \(unit_loss nan, sequence_loss nan; videos video-0-\d, .*\)"
    ):
        trainer(tmp_path, model=model, train=videos, collator=collator).train()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- which parameters are trained


def test_norm_only_leaves_59904_numbers_in_78_tensors_at_full_geometry():
    with torch.device("meta"):
        model = TempCLRModel(TempCLRConfig())
    assert select_parameters(model, "norm_only") == 59904
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 78
    assert all(name.split(".")[-2] == "LayerNorm" for name in trained)


def test_norm_only_training_moves_the_norms_and_nothing_else(tmp_path):
    model = world.make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(tmp_path, model=model, train_parameters="norm_only", learning_rate=1e-2).train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(".LayerNorm." in name for name in moved)


def test_norm_only_reaches_models_made_by_model_init(tmp_path):
    made = TempCLRTrainer(args=arguments(tmp_path, train_parameters="norm_only"), model_init=lambda: world.make_model())
    frozen = [name for name, parameter in made.model.named_parameters() if not parameter.requires_grad]
    assert frozen and not any(".LayerNorm." in name for name in frozen)


def test_unknown_or_empty_selections_are_refused(tmp_path):
    with pytest.raises(ValueError, match="all, norm_only, got 'norms'"):
        arguments(tmp_path, train_parameters="norms")
    with pytest.raises(ValueError, match="nothing to train in Linear"):
        select_parameters(torch.nn.Linear(2, 2), "norm_only")


def test_defaults_suit_contrastive_training(tmp_path):
    made = TempCLRTrainingArguments(str(tmp_path))
    assert (made.remove_unused_columns, made.label_names, made.report_to) == (False, [], [])
    assert json.loads(made.to_json_string())["train_parameters"] == "all"


# --- the card


def test_the_card_is_tempclrs_own(tmp_path):
    trained = trainer(tmp_path)
    trained.train()
    trained.create_model_card(model_name="toast", dataset="kitchen")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "toast" in text and "TempCLR" in text


# --- what TrainingArguments offer


@pytest.mark.parametrize(
    "changes",
    [
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"dataloader_num_workers": 2},
        {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    ],
)
def test_training_arguments_work(tmp_path, changes):
    trained = trainer(tmp_path, **changes)
    trained.train()
    assert all(math.isfinite(loss) for loss in history(trained, "loss"))


def test_the_logged_loss_is_the_loss_of_the_batch(tmp_path):
    model = world.make_model(negatives="visual_anchor", num_negatives=1)
    videos = world.make_paragraphs(4, num_sentences=(2, 2))
    batch = ParagraphCollator(world.make_processor())(videos)
    metrics = trainer(tmp_path, model=model, evaluation=videos).evaluate()
    model.eval()
    with torch.no_grad():
        output = model(**batch)
        masks = {name: batch[name] for name in ("sentence_mask", "clip_mask", "clip_sentence_index")}
        parts = tempclr_loss(output.text_embeds, output.video_embeds, **masks, **model.config.loss_settings())
    # Two sentences have one other order, so the draw cannot matter.
    assert metrics["eval_loss"] == pytest.approx(parts["loss"].item(), rel=1e-5)
