"""A model card made from the run alone: from the model, its training arguments, its log and its results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tempclr
from tempclr.evaluation.report import markdown_table

from .card_picture import Picture, with_picture

TEMPLATE = Path(__file__).with_name("templates") / "model_card.md"
TAGS = ("tempclr", "video-text-retrieval", "temporal-alignment", "contrastive-learning")
MAX_LOSS_ROWS = 12
# What a reader needs to repeat a run; fields that the installed transformers does not have are left out.
TRAINING_FIELDS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "bf16",
    "fp16",
    "seed",
)
LOSS_COLUMNS = (
    *("epoch", "loss", "unit_loss", "sequence_loss"),
    *("eval_loss", "eval_unit_loss", "eval_sequence_loss"),
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(
    model: Any,
    *,
    model_name: str,
    training_arguments: Any | None = None,
    log_history: Sequence[Mapping[str, Any]] | None = None,
    results: Mapping[str, Any] | None = None,
    dataset_name: str | None = None,
    base_model: str | None = None,
    objective: str | None = None,
    license: str = "apache-2.0",
    picture: Picture | None = None,
    dataset_split: str | None = None,
) -> str:
    """The text of a README.md: front matter for the Hub, then what the model is, its use, training, results and limits.

    ``model``: a ``TempCLRModel``. ``model_name``: the Hub id or folder that the usage snippet loads.
    ``training_arguments``: ``TrainingArguments`` of the run. ``log_history``: ``trainer.state.log_history``.
    ``results``: what ``tempclr evaluate`` writes, or result objects of ``tempclr.evaluation``, at any depth: every
    number that stands beside a ``protocol`` is shown. With ``dataset_name`` they also form the ``model-index`` by which
    the Hub lists results; without it they stand in the text alone, because an entry there needs a dataset.
    ``dataset_split``: what they were measured on, as "test". ``objective``: what was minimised, in a sentence, where it
    is not the loss that the configuration records. ``picture``: of ``alignment.png``, which lies beside the card.
    Absolute paths are shortened to their last part: a card is public.

    Raises:
        ValueError: ``results`` hold no number beside a protocol.

    >>> from tempclr import TempCLRConfig, TempCLRModel
    >>> tiny = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = TempCLRModel(TempCLRConfig(text_config=tiny, video_config=tiny))
    >>> model_card(model, model_name="tempclr/toy").splitlines()[1:4]
    ['library_name: tempclr', 'license: apache-2.0', 'pipeline_tag: feature-extraction']
    """
    from huggingface_hub import ModelCard, ModelCardData

    name, dataset, base = _public(model_name), _public(dataset_name), _public(base_model)
    measured = [] if results is None else _measured(results)
    listed = _eval_results(measured, dataset=dataset, split=dataset_split) if dataset else []
    card_data = ModelCardData(
        library_name="tempclr",
        license=license,
        pipeline_tag="feature-extraction",
        tags=list(TAGS),
        base_model=base if _is_hub_id(base) else None,
        datasets=[dataset] if _is_hub_id(dataset) else None,
        model_name=name if listed else None,
        eval_results=listed or None,
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        model_name=name,
        base_model_name=base,
        dataset_text=dataset,
        hidden_size=model.config.text_config.hidden_size,
        geometry_table=_geometry_table(model),
        snippet=usage_snippet(model, model_name=name),
        usage_notes=_usage_notes(model),
        objective=objective or _objective(model),
        hyperparameter_table=_hyperparameter_table(
            training_arguments, loss_settings={} if objective else model.config.loss_settings()
        ),
        loss_table=_loss_table(log_history or ()),
        result_table=_result_table(measured),
        dataset_split=dataset_split if measured else None,
        limits=_limits(model),
        versions=_versions(),
    )
    return with_picture(str(card), picture)


def usage_snippet(model: Any, *, model_name: str) -> str:
    """The lines of Python a reader copies: they run as they stand where the named video or features are.

    A model that knows how its features were made takes a video file; another one takes the features themselves.
    """
    config, rate = model.config.video_config, ""
    lines = ["from tempclr import TempCLRModel", "", f'model = TempCLRModel.from_pretrained("{model_name}")']
    if config.feature_recipe is None:
        size, rate = config.feature_size, ", features_per_second=1.0"
        lines = ["import numpy as np", *lines, f'video = np.load("features.npy")  # (seconds, {size}) float32']
    else:
        lines += ['video = "video.mp4"']
    width = model.config.text_config.hidden_size
    return "\n".join(
        [
            *lines,
            'sentences = ["peel the onion", "chop it", "fry it in oil"]',
            "",
            f"text = model.encode_text(sentences)  # (3, {width}), one vector a sentence",
            f"clips = model.encode_video(video)  # (clips, {width}), one vector a clip",
            "print(model.similarity(text, clips))",
            "",
            f'alignment = model.align(video, sentences, measure="dtw"{rate})',
            "for span in alignment.spans:",
            '    print(span["start_seconds"], span["end_seconds"], span["sentence"])',
        ]
    )


def _usage_notes(model: Any) -> list[str]:
    notes = []
    if model.processor is None:
        notes.append("No tokenizer is saved with this model: set `model.processor` before text is encoded.")
    recipe = model.config.video_config.feature_recipe
    if recipe is not None and recipe.get("backbone"):
        notes.append(
            f"Frames go through `{_public(recipe['backbone'])}`, which is not part of this model; "
            "`config.json` records the whole recipe, and features made in another way are refused."
        )
    return notes


def _geometry_table(model: Any) -> str:
    text, video = model.config.text_config, model.config.video_config
    rows = [
        ["text", text.num_hidden_layers, text.num_attention_heads, f"{text.vocab_size} token types"],
        [
            "video",
            video.num_hidden_layers,
            video.num_attention_heads,
            f"up to {video.max_num_features} features of {video.feature_size}",
        ],
    ]
    num_parameters = f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters."
    return f"{markdown_table(['tower', 'layers', 'heads', 'input'], rows)}\n\n{num_parameters}"


def _objective(model: Any) -> str:
    config = model.config
    unit = "raw dot products" if config.similarity == "dot" else f"cosines over a temperature of {config.temperature:g}"
    measure = f"{config.measure.upper()} distances (gamma {config.gamma:g})"
    parts = []
    if config.unit_weight:
        parts.append(f"a unit loss over {unit}, weight {config.unit_weight:g}")
    if config.sequence_weight:
        orders = f"{config.num_negatives} shuffled ones (`{config.negatives}`)"
        parts.append(
            f"a sequence loss over {measure} of the true order against {orders}, weight {config.sequence_weight:g}"
        )
    return f"The configuration records this objective: {'; '.join(parts) or 'none, both weights are 0'}."


def _hyperparameter_table(training_arguments: Any | None, *, loss_settings: Mapping[str, Any]) -> str:
    if training_arguments is None:
        return ""
    settings = {name: getattr(training_arguments, name, None) for name in TRAINING_FIELDS}
    # max_steps decides where it is positive; otherwise the number of epochs does.
    settings["num_train_epochs" if training_arguments.max_steps > 0 else "max_steps"] = None
    settings |= loss_settings
    rows = [
        [f"`{name}`", _setting(value)] for name, value in settings.items() if value is not None and value is not False
    ]
    return markdown_table(["setting", "value"], rows)


def _setting(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _loss_table(log_history: Sequence[Mapping[str, Any]]) -> str:
    """One row a logged step, at most ``MAX_LOSS_ROWS`` of them evenly spread; training and evaluation share a row."""
    steps: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        if "step" in entry and ("loss" in entry or "eval_loss" in entry):
            steps.setdefault(entry["step"], {}).update(entry)
    columns = [name for name in LOSS_COLUMNS if any(name in row for row in steps.values())]
    rows = [[step, *(row.get(name) for name in columns)] for step, row in sorted(steps.items())]
    if not rows:
        return ""
    last = len(rows) - 1
    shown = sorted({round(index * last / (MAX_LOSS_ROWS - 1)) for index in range(MAX_LOSS_ROWS)}) if last else [0]
    return markdown_table(["step", *columns], [rows[index] for index in shown], digits=4)


def _measured(results: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    found = list(_numbers(results))
    if not found:
        raise ValueError(
            f"results hold no number beside a protocol, got the keys {', '.join(map(str, results)) or 'none'}: "
            "give what tempclr evaluate writes, or leave results out"
        )
    return found


def _numbers(results: Any) -> Iterator[tuple[str, str, float]]:
    """(protocol, metric, value) of every number beside a protocol, at any depth."""
    if hasattr(results, "to_dict"):
        results = results.to_dict()
    if not isinstance(results, Mapping):
        return
    protocol = results.get("protocol")
    if protocol is not None:
        name = protocol["name"] if isinstance(protocol, Mapping) else str(protocol)
        for metric, value in results.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield name, metric, value
    for key, value in results.items():
        if key != "protocol":
            yield from _numbers(value)


def _result_table(measured: Sequence[tuple[str, str, float]]) -> str:
    rows = [[f"`{protocol}`", metric, _setting(round(value, 4))] for protocol, metric, value in measured]
    return markdown_table(["protocol", "metric", "value"], rows) if rows else ""


def _eval_results(measured: Sequence[tuple[str, str, float]], *, dataset: str, split: str | None) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=protocol.partition("/")[0],
            task_name=protocol,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=split,
            dataset_args={"protocol": protocol},
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 6),
        )
        for protocol, metric, value in measured
        if not metric.startswith("num_")
    ]


def _limits(model: Any) -> list[str]:
    video = model.config.video_config
    return [
        "Sentences are expected in the order in which they happen. DTW gives every sentence a place, also one that "
        "happens earlier, later or not at all.",
        f"One clip is at most {video.max_num_features} features; a longer video is seen through overlapping windows.",
        "Sentences unlike those of the training data, in wording or in language, are embedded without a warning.",
        "A model describes the collection it was trained on: its people, its kitchens, its way of filming.",
    ]


def _versions() -> str:
    libraries = ("transformers", "torch", "datasets", "tokenizers")
    return ", ".join([f"tempclr {tempclr.__version__}", *(f"{name} {version(name)}" for name in libraries)])


def _is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _public(name: str | None) -> str:
    """The name without the folders of this machine; nothing for ``None``."""
    if name is None:
        return ""
    return Path(name).name if Path(name).is_absolute() else name
