"""Retrieval chooses the best model and ends a training, in the plain Trainer and in ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world

from tempclr.data.collation import ParagraphCollator
from tempclr.evaluation import (
    RetrievalCallback,
    RetrievalEvaluator,
    evaluate_retrieval,
    keep_embeddings,
    retrieval_compute_metrics,
)
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

VALIDATION = world.make_paragraphs(12, seed=5)


def make_arguments(folder, kind=TrainingArguments, **changes):
    options = {
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 5,
        "learning_rate": 0.02,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 3,
        "load_best_model_at_end": True,
        "metric_for_best_model": "R@1",
        "remove_unused_columns": False,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return kind(str(folder), **{**options, **changes})


def make_trainer(kind, arguments, *, collator=None, **options):
    model = world.make_model()
    model.processor = world.make_processor()
    return kind(
        model=model,
        args=arguments,
        train_dataset=world.make_paragraphs(24),
        eval_dataset=VALIDATION,
        data_collator=collator or ParagraphCollator(model.processor),
        **options,
    )


def assert_best_was_kept(trainer):
    found = {entry["step"]: entry["eval_R@1"] for entry in trainer.state.log_history if "eval_R@1" in entry}
    assert sorted(found) == [3, 6, 9, 12] and len(set(found.values())) > 1
    assert trainer.state.best_metric == max(found.values())
    best = min(step for step, value in found.items() if value == max(found.values()))
    assert Path(trainer.state.best_model_checkpoint).name == f"checkpoint-{best}"
    assert RetrievalEvaluator(VALIDATION)(trainer.model)["R@1"] == max(found.values())


def test_the_callback_chooses_the_best_model_of_a_plain_trainer(tmp_path):
    """Note [Before the best model is chosen] in training.py."""
    trainer = make_trainer(Trainer, make_arguments(tmp_path), callbacks=[RetrievalCallback(VALIDATION)])
    trainer.train()
    assert_best_was_kept(trainer)
    metrics = trainer.evaluate()
    expected = evaluate_retrieval(trainer.model, VALIDATION, measures=["dtw"]).metrics["dtw"]
    assert {name: metrics[f"eval_{name}"] for name in expected} == expected


def test_our_trainer_takes_the_evaluator_itself(tmp_path):
    arguments = make_arguments(tmp_path, TempCLRTrainingArguments)
    trainer = make_trainer(TempCLRTrainer, arguments, evaluator=RetrievalEvaluator(VALIDATION))
    trainer.train()
    assert_best_was_kept(trainer)


def test_training_ends_when_retrieval_no_longer_improves(tmp_path):
    callbacks = [RetrievalCallback(VALIDATION), EarlyStoppingCallback(early_stopping_patience=2)]
    trainer = make_trainer(Trainer, make_arguments(tmp_path, learning_rate=0.0), callbacks=callbacks)
    trainer.train()
    # The weights never change: the first evaluation is the best, two more bring no better one.
    assert trainer.state.global_step == 9


def test_the_callback_lends_a_processor_to_a_model_that_has_none(tmp_path):
    callback = RetrievalCallback(VALIDATION, processor=world.make_processor(), measure="cap_avg")
    trainer = make_trainer(Trainer, make_arguments(tmp_path), callbacks=[callback])
    trainer.model.processor = None
    assert 0 <= trainer.evaluate()["eval_R@1"] <= 1
    callback.on_evaluate(None, None, None)  # without metrics there is nothing to add to


def test_compute_metrics_gives_the_same_numbers_from_predictions(tmp_path):
    processor = world.make_processor()
    collator = ParagraphCollator(processor)
    trainer = make_trainer(
        Trainer,
        make_arguments(tmp_path, max_steps=3),
        collator=lambda rows: {**collator(rows), "return_loss": True},
        compute_metrics=retrieval_compute_metrics(measure="otam"),
        preprocess_logits_for_metrics=keep_embeddings,
    )
    trainer.train()
    metrics = trainer.evaluate()
    expected = evaluate_retrieval(trainer.model, VALIDATION, measures=["otam"]).metrics["otam"]
    assert {name: metrics[f"eval_{name}"] for name in expected} == expected
    assert metrics["eval_loss"] > 0 and trainer.state.best_metric is not None


def test_pairs_are_ranked_one_by_one():
    vectors = np.eye(3, dtype=np.float32)
    compute = retrieval_compute_metrics()
    assert compute(SimpleNamespace(predictions={"text_embeds": vectors, "video_embeds": vectors}))["R@1"] == 1.0
    assert compute(SimpleNamespace(predictions=(vectors, vectors[[1, 2, 0]])))["R@1"] == 0.0


def test_padding_of_batches_and_of_the_trainer_is_left_out():
    texts = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    texts[0, 1], texts[2, 1] = 0.0, -100.0
    found = retrieval_compute_metrics()(SimpleNamespace(predictions=(texts, texts)))
    from tempclr.evaluation import Embeddings, retrieval_from_embeddings

    garbage = torch.from_numpy(texts.copy())
    garbage[0, 1] = garbage[2, 1] = 7.0
    lengths = torch.tensor([1, 2, 1])
    expected = retrieval_from_embeddings(Embeddings(garbage, lengths, garbage, lengths), measures=["dtw"])
    assert found == expected.metrics["dtw"]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ((np.zeros((2, 3)),), "expected predictions"),
        ((np.ones((2, 3)), np.ones((2, 1, 3))), "expected predictions"),
        ((np.zeros((2, 1, 3)), np.ones((2, 1, 3))), r"text_embeds\[0\] has no vector"),
    ],
)
def test_other_predictions_are_refused(predictions, message):
    with pytest.raises(ValueError, match=message):
        retrieval_compute_metrics()(SimpleNamespace(predictions=predictions))
