"""The Hugging Face Trainer for TempCLR: it logs each part of the loss and evaluates repeatably."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput

from tempclr.data.files import atomic_path
from tempclr.data.rank_padding import (
    NUM_COUNTED,
    PADDING_ID,
    CountingCollator,
    PaddingCollator,
    can_be_padded,
    pad,
)
from tempclr.distributed import mean_over_ranks
from tempclr.errors import InputError
from tempclr.finite_checks import check_loss, check_norm, check_weights
from tempclr.losses import tempclr_loss
from tempclr.mini_batches import embed_in_mini_batches
from tempclr.rank_watch import watched_ranks
from tempclr.sharding import check_sharding, prepare_sharding, register_towers, whole_model
from tempclr.trainer_checkpoints import CheckpointingTrainer
from tempclr.trainer_push import TokenlessTrainingArguments

__all__ = ["TRAINABLE_PARAMETERS", "TempCLRTrainer", "TempCLRTrainingArguments", "select_parameters"]

TRAINABLE_PARAMETERS = ("all", "norm_only")
LOSS_PARTS = ("unit_loss", "sequence_loss")
NOT_PREDICTIONS = [*LOSS_PARTS, "text_model_output", "video_model_output"]


@dataclass
class TempCLRTrainingArguments(TokenlessTrainingArguments):
    """``transformers.TrainingArguments`` with what contrastive training needs as defaults, and four fields more.

    ``remove_unused_columns=False`` (the collator reads whole rows) and ``label_names=[]`` (there are none); everything
    else is as there.

    Attributes:
        train_parameters: ``"all"``, or ``"norm_only"`` for the LayerNorms alone, as the released models were trained.
        schedule_steps: the updates at which the schedule of the learning rate ends, where that is not the end of
            training: the released recipes decay to 0 at 1,000,000 and stop long before.
        gather_across_ranks: whether clips are contrasted with those of all ranks, or, as released, of their own alone.
        mini_batch_size: rows that the towers see at once, while the loss contrasts a device's whole batch; see
            :func:`tempclr.mini_batches.embed_in_mini_batches`.

    Raises:
        ValueError: for another ``train_parameters``, or ``schedule_steps`` or ``mini_batch_size`` below 1.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "drop columns that forward does not name; the collator needs whole rows"}
    )
    label_names: list[str] | None = field(default_factory=list, metadata={"help": "there are no labels"})
    train_parameters: str = field(
        default="all", metadata={"help": "all, or norm_only for the LayerNorms alone", "choices": TRAINABLE_PARAMETERS}
    )
    schedule_steps: int | None = field(
        default=None, metadata={"help": "updates at which the learning rate's schedule ends; the end of training"}
    )
    gather_across_ranks: bool = field(
        default=True, metadata={"help": "contrast clips with those of all ranks; False, as released: of their own"}
    )
    mini_batch_size: int | None = field(
        default=None, metadata={"help": "rows that the towers see at once, in less memory; all of a batch"}
    )

    def __post_init__(self) -> None:
        for name in ("schedule_steps", "mini_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.train_parameters not in TRAINABLE_PARAMETERS:
            raise ValueError(
                f"train_parameters must be one of {', '.join(TRAINABLE_PARAMETERS)}, got {self.train_parameters!r}"
            )
        super().__post_init__()


def select_parameters(model: nn.Module, train_parameters: str) -> int:
    """Freeze what ``train_parameters`` leaves out and return how many numbers are trained.

    ``"norm_only"`` keeps the parameters whose second-last name component is exactly ``LayerNorm``, the rule of the
    released configuration; ``"all"`` changes nothing, so parameters frozen by hand stay frozen.

    Raises:
        ValueError: the model has no such LayerNorm.
    """
    if train_parameters == "norm_only":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.split(".")[-2:-1] == ["LayerNorm"])
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if count == 0:
        raise ValueError(f"train_parameters={train_parameters!r} leaves nothing to train in {type(model).__name__}")
    return count


class TempCLRTrainer(CheckpointingTrainer):
    """Trains a ``TempCLRModel`` on paragraphs or pairs; all of ``Trainer`` works, with these differences.

    * ``unit_loss`` and ``sequence_loss`` are logged beside ``loss``, averaged over the same steps, and
      ``eval_unit_loss``, ``eval_sequence_loss`` beside ``eval_loss``.
    * Evaluation draws its negatives from ``args.seed`` each time: the same weights give the same loss, and training
      goes on as if there had been no evaluation.
    * A loss or a gradient that is not finite stops the training, on all ranks, before the weights are touched, and
      weights that are not finite are never saved. A rank that is stopped or vanishes stops the others within a minute.
    * Where the batches name their videos (``video_id``), negatives are drawn by seed, step and video: neither the
      number of ranks nor what else is in the batch changes them. On several ranks such batches hold every row exactly
      once an epoch, see Note [No row twice] in :mod:`tempclr.data.rank_padding`.
    * ``evaluator(model) -> dict`` is called in every evaluation; its numbers are logged with the prefix ``eval_`` and
      may choose the best model (``metric_for_best_model``). It runs in evaluation mode without gradients.
    * The model card is TempCLR's own, and pushes to the Hub send what a model is made of alone, see
      :class:`tempclr.trainer_push.PushingTrainer`.

    Args:
        evaluator: see above.
        train_sampler: the order of the training rows; None is that of ``train_sampling_strategy``.

    The other arguments are those of ``transformers.Trainer``.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *positional: Any,
        evaluator: Callable[[nn.Module], dict[str, float]] | None = None,
        train_sampler: torch.utils.data.Sampler[int] | None = None,
        **keywords: Any,
    ):
        self._train_parameters = getattr(args, "train_parameters", "all")
        self._training_parts = _Averages()
        self._evaluation_parts = _Averages()
        self.evaluator, self.train_sampler = evaluator, train_sampler
        if model is not None:
            select_parameters(model, self._train_parameters)
        super().__init__(model, args, *positional, **keywords)
        # Note [Each rank reads the stream]: accelerate would let rank 0 deal batches out, and can of tensors alone.
        self.accelerator.dataloader_config.dispatch_batches = bool(self.args.accelerator_config.dispatch_batches)
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        check_sharding(asked_for=bool(self.args.fsdp), device=self.args.device, plugin=plugin)
        own_loss = type(self).loss_and_parts is TempCLRTrainer.loss_and_parts
        if own_loss and self._takes_order_seeds and self.args.ddp_find_unused_parameters is None:
            self.args.ddp_find_unused_parameters = False  # both towers run for every batch, all weights take part
        if plugin is not None and self.model is not None:
            prepare_sharding(plugin, self.model)
        if self.args.world_size > 1:
            collator = CountingCollator if self.averages_rows else PaddingCollator
            self.data_collator: Any = collator(self.data_collator)
        self._parts: dict[str, Tensor | None] = {}
        if self.args.device.type == "cpu":
            self.args.dataloader_pin_memory = False  # torch warns that there is no device to pin memory for
        self.add_callback(_TellEpoch())
        self.can_return_loss = True
        # The loss is a mean over the batch, so that accumulated steps must be averaged by the Trainer.
        self.model_accepts_loss_kwargs = False

    def call_model_init(self, trial: Any = None) -> nn.Module:
        model = super().call_model_init(trial)
        select_parameters(model, self._train_parameters)
        return model

    def train(self, *positional: Any, **keywords: Any) -> Any:
        with watched_ranks(join_seconds=self.args.ddp_timeout):
            return super().train(*positional, **keywords)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        video_ids, num_counted = inputs.get("video_id"), inputs.get(NUM_COUNTED)
        inputs = {name: value for name, value in inputs.items() if name not in ("video_id", NUM_COUNTED)}
        if video_ids is not None and self._takes_order_seeds:
            inputs["order_seeds"] = self._order_seeds(video_ids, training=model.training)
        loss, self._parts, outputs = self.loss_and_parts(model, inputs)
        if num_counted is not None and model.training:
            counted = loss.new_tensor(float(num_counted))
            share = counted / mean_over_ranks(counted)
            loss = loss * share
            self._parts = {name: None if part is None else part * share for name, part in self._parts.items()}
        if model.training:
            self._training_parts.add(self._parts, weight=1 / self.current_gradient_accumulation_steps)
        else:
            num_rows = len(set(video_ids) - {PADDING_ID}) if video_ids else len(next(iter(inputs.values())))
            weight = loss.new_tensor(float(num_rows if num_counted is None else num_counted))
            if num_counted is None and getattr(self.args, "gather_across_ranks", True):
                # The losses of the ranks are shares of one joint loss, whose weight they have in common.
                weight = mean_over_ranks(weight)
            self._evaluation_parts.add({"loss": loss, **self._parts}, weight=weight.item())
        return (loss, outputs) if return_outputs else loss

    @property
    def averages_rows(self) -> bool | None:
        """Whether the loss is a mean over the rows of a batch; False where it contrasts rows, none of which may then be
        there twice; None where neither is known."""
        return None

    @property
    def _takes_order_seeds(self) -> bool:
        return (
            "order_seeds"
            in signature(self.accelerator.unwrap_model(self.model, keep_torch_compile=False).forward).parameters
        )

    def _order_seeds(self, video_ids: Sequence[str], *, training: bool) -> Tensor:
        """(B,) by seed, step, video, and how many rows of that video come before; evaluation knows no step."""
        seen: Counter[str] = Counter()
        step = self.state.global_step if training else "evaluation"
        seeds = []
        for video_id in video_ids:
            text = f"{self.args.seed} {step} {seen[video_id]} {video_id}"
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            seeds.append(int.from_bytes(digest) >> 1)  # 63 bits
            seen[video_id] += 1
        return torch.tensor(seeds, device=self.args.device)

    def loss_and_parts(
        self, model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor | None], Mapping[str, Any]]:
        """The loss of a batch, its named parts and the model's outputs; another objective overrides this."""
        gather = getattr(self.args, "gather_across_ranks", True)
        mini_batch_size = getattr(self.args, "mini_batch_size", None) if model.training else None
        if mini_batch_size is not None or not gather:
            return self._loss_of_embeddings(model, inputs, mini_batch_size=mini_batch_size, gather_across_ranks=gather)
        # Note [return_loss is set here]: as an entry of the batch it would break accelerate's dispatcher, which can
        # only concatenate tensors, and leave the other ranks hanging.
        loss, outputs = super().compute_loss(model, {**inputs, "return_loss": True}, return_outputs=True)
        return loss, {name: outputs.get(name) for name in LOSS_PARTS}, outputs

    def _loss_of_embeddings(
        self, model: nn.Module, inputs: dict[str, Any], *, mini_batch_size: int | None, gather_across_ranks: bool
    ) -> Any:
        """The loss made here and not by the model, which would gather and would see all rows at once."""
        outputs: Any = {}
        if mini_batch_size is None:
            outputs = model(**inputs, return_loss=False)
            embeds = outputs.text_embeds, outputs.video_embeds
        else:
            embeds = embed_in_mini_batches(model, inputs, mini_batch_size=mini_batch_size)
        config = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).config
        settings: dict[str, Any] = {**config.loss_settings(), "gather_across_ranks": gather_across_ranks}
        settings |= {name: inputs.get(name) for name in ("sentence_mask", "clip_mask", "clip_sentence_index")}
        settings["order_seeds"] = inputs.get("order_seeds")
        parts = tempclr_loss(*embeds, **settings)
        return parts["loss"], {name: parts[name] for name in LOSS_PARTS}, outputs

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self.train_sampler is None else self.train_sampler

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, sampler_fn: Any = None, *others: Any, **keywords: Any
    ) -> Any:
        num_ranks = self.args.world_size
        joint_batch, drops_last = batch_size * num_ranks, self.args.dataloader_drop_last
        if num_ranks > 1 and not drops_last and self.averages_rows is False and len(dataset) % joint_batch:
            raise InputError(
                f"{len(dataset)} rows do not fill batches of {batch_size} on {num_ranks} ranks, and a row that comes "
                "twice would be contrasted with itself: give --dataloader_drop_last True",
                field="per_device_train_batch_size",
            )
        # Predictions are gathered, for which all ranks must have as many rows.
        is_predicted = self.averages_rows and (description == "test" or self.compute_metrics is not None)
        if num_ranks > 1 and can_be_padded(dataset, self.data_collator) and not is_predicted:
            multiple = 1 if drops_last else joint_batch
            dataset, sampler_fn = pad(dataset, sampler_fn, multiple=multiple, data_seed=self.args.data_seed)
        return super()._get_dataloader(dataset, description, batch_size, sampler_fn, *others, **keywords)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        steps = getattr(self.args, "schedule_steps", None)
        return super().create_scheduler(num_training_steps if steps is None else steps, optimizer)

    # Note [The state comes last]: of a checkpoint's files the Trainer writes its state last, so that a folder without
    # it is half-written. That holds only where no earlier state is there: a step that comes again, after a run went
    # back to an older checkpoint, is written over the files of the first time.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        check_weights(self.model, step=self.state.global_step)
        checkpoint = Path(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            Path(checkpoint, TRAINER_STATE_NAME).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        check_loss(loss, self._parts, step=self.state.global_step + 1, video_ids=self._told_ids(inputs))
        return loss

    @staticmethod
    def _told_ids(inputs: Mapping[str, Any]) -> list[str]:
        return [video_id for video_id in dict.fromkeys(inputs.get("video_id") or ()) if video_id != PADDING_ID]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self.accelerator.scaler is None:  # a scaler leaves out such a step by itself
            check_norm(norm, step=self.state.global_step + 1)
        return norm

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        check_weights(self.model, step=self.state.global_step)
        super().save_model(output_dir, _internal_call)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        return super().prediction_step(model, inputs, prediction_loss_only, [*(ignore_keys or []), *NOT_PREDICTIONS])

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        self._evaluation_parts = _Averages()
        # Note [Evaluation has its own randomness]: negatives come from the global generators, which are seeded for the
        # length of an evaluation and then put back.
        with _forked_rng(self.args.device):
            torch.manual_seed(self.args.seed)
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            metrics = self._evaluation_parts.means(self.accelerator)
            if self.evaluator is not None and metric_key_prefix.startswith("eval"):
                metrics |= self._evaluated(self.evaluator)
        output.metrics.update({_prefixed(name, metric_key_prefix): value for name, value in metrics.items()})
        return output

    def _evaluated(self, evaluator: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
        model = whole_model(self.accelerator.unwrap_model(self.model, keep_torch_compile=False))
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                return {name: float(value) for name, value in evaluator(model).items()}
        finally:
            model.train(was_training)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self._training_parts.means(self.accelerator))
            self._training_parts = _Averages()
        super().log(logs, start_time)

    def objective(self) -> str | None:
        """For the model card: what was minimised, where it is not the loss that the configuration records."""
        return None

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write TempCLR's model card as ``README.md`` in the output folder."""
        if not self.is_world_process_zero():
            return
        from tempclr_hub.card import model_card

        folder = Path(self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        text = model_card(
            model,
            model_name=getattr(self, "hub_model_id", None) or model_name or folder.resolve().name,
            training_arguments=self.args,
            log_history=self.state.log_history,
            dataset_name=dataset if isinstance(dataset, str) or dataset is None else ", ".join(dataset),
            base_model=finetuned_from,
            objective=self.objective(),
            picture=self.card_picture(model),
        )
        with atomic_path(folder / "README.md") as card:
            card.write_text(text, encoding="utf-8")


class _TellEpoch(TrainerCallback):
    """Note [The dataset knows its epoch]: accelerate announces the epoch to a dataset except in one that is resumed in
    its middle, where the sampler alone hears of it; what a dataset draws by epoch would then be that of the first."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **others: Any) -> None:
        dataset = getattr(train_dataloader, "dataset", None)
        if dataset is not None and hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        register_towers(model)


class _Averages:
    """Weighted means of named scalars, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}

    def add(self, parts: dict[str, Tensor | None], *, weight: float) -> None:
        for name, value in parts.items():
            if value is not None:
                self.sums[name] = self.sums.get(name, 0.0) + value.detach().mean().float() * weight
                self.weights[name] = self.weights.get(name, 0.0) + weight

    def means(self, accelerator: Any) -> dict[str, float]:
        means = {}
        for name, total in self.sums.items():
            pair = torch.stack([total, total.new_tensor(self.weights[name])])
            value, weight = accelerator.reduce(pair, reduction="sum").tolist()
            means[name] = value / weight
        return means


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"


def _forked_rng(device: torch.device) -> Any:
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device.index or 0], device_type=device.type)
