"""Few-shot matching on real sequences: encoders trained on some classes without labels, tasks from the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tempclr.data.sequences import SequenceSet
from tempclr.recipes.claims.grid import FEW_SHOT_LOSSES

__all__ = ["base_accuracy", "load_encoder", "novel_accuracy", "train_encoder"]

MEASURES = ("mean_pool", "dtw", "otam")
SHOTS = (1, 5)
NOVEL_WAY = 5


def train_encoder(base: SequenceSet, loss: str, options: dict[str, Any], folder: Path, *, seed: int) -> Any:
    """Pretrain on the sequences of the training classes by a loss of ``FEW_SHOT_LOSSES``; None for the features."""
    import shutil

    from tempclr.recipes.few_shot import (
        EncoderArguments,
        OrderArguments,
        VideoOnlyTrainingArguments,
        pretrain_video_only,
    )

    weights = FEW_SHOT_LOSSES[loss]
    if weights is None:
        return None
    staging = folder.with_name(f".{folder.name}")
    for one in (staging, folder):
        shutil.rmtree(one, ignore_errors=True)
    arguments = VideoOnlyTrainingArguments(
        str(staging),
        num_train_epochs=options["num_epochs"],
        per_device_train_batch_size=32,
        seed=seed,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = pretrain_video_only(
        base,
        training_arguments=arguments,
        encoder=EncoderArguments(**options["encoder"]),
        order=OrderArguments(**weights),
    )
    staging.rename(folder)
    return trainer.model.eval()


def load_encoder(loss: str, folder: Path) -> Any:
    """The encoder that :func:`train_encoder` left."""
    from tempclr.models.few_shot import FewShotModel

    return None if FEW_SHOT_LOSSES[loss] is None else FewShotModel.from_pretrained(folder).eval()


def base_accuracy(
    base: SequenceSet, model: Any, options: dict[str, Any], *, seed: int, num_tasks: int
) -> dict[str, Any]:
    """Accuracy of tasks over the training classes, which settings may be chosen by."""
    return _accuracy(base, model, options, way=options["base_way"], seed=seed, num_tasks=num_tasks)


def novel_accuracy(
    novel: SequenceSet, model: Any, options: dict[str, Any], *, seed: int, num_tasks: int
) -> dict[str, Any]:
    """Accuracy of tasks over classes that no training saw."""
    return _accuracy(novel, model, options, way=NOVEL_WAY, seed=seed, num_tasks=num_tasks)


def _accuracy(
    sequences: SequenceSet, model: Any, options: dict[str, Any], *, way: int, seed: int, num_tasks: int
) -> dict[str, Any]:
    """``numbers["dtw 1-shot"]`` and the accuracy of each task, the same tasks whatever the model."""
    from tempclr.evaluation.few_shot import evaluate_few_shot

    numbers, per_task = {}, {}
    given = {} if model is None else {"model": model}
    for shot in SHOTS:
        for measure in MEASURES:
            result = evaluate_few_shot(
                sequences,
                measure=measure,
                way=way,
                shot=shot,
                num_tasks=num_tasks,
                seed=seed,
                num_frames=options["encoder"]["num_frames"],
                **given,
            )
            key = f"{measure} {shot}-shot"
            numbers[key] = float(result.per_task.mean())
            per_task[key] = result.per_task.round(4).tolist()
    return {"numbers": numbers, "per_task": per_task}
