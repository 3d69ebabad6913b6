"""Warm-up, then a tenth of the learning rate whenever the mean training loss stops falling; saved with checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback

from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

__all__ = ["PlateauTrainer", "PlateauTrainingArguments", "WarmupPlateau"]


@dataclass
class PlateauTrainingArguments(TempCLRTrainingArguments):
    """``TempCLRTrainingArguments`` with Adam and the schedule of TCLR: linear warm-up, a tenth on every plateau.

    Attributes:
        plateau: follow that schedule; False leaves it to ``lr_scheduler_type`` and ``warmup_steps``.
        warmup_epochs: epochs over which the rate rises linearly, step by step.
        warmup_factors: factors of the rate in the first epochs instead, one an epoch.
        plateau_patience: epochs whose mean loss is above the lowest one, after which the rate falls.
        plateau_factor: by what it is multiplied then.
        plateau_in_a_row: whether an epoch with a new lowest loss starts the count anew.
        min_learning_rate: training ends when the rate would fall below it.

    Raises:
        ValueError: numbers that are no schedule.
    """

    learning_rate: float = field(default=1e-3, metadata={"help": "highest learning rate"})
    weight_decay: float = field(default=0.0, metadata={"help": "0 makes AdamW Adam"})
    max_grad_norm: float = field(default=0.0, metadata={"help": "longest gradient; 0 clips nothing"})
    plateau: bool = field(default=True, metadata={"help": "warm-up and plateau; False: lr_scheduler_type"})
    warmup_epochs: float = field(default=10.0, metadata={"help": "epochs of linear warm-up"})
    warmup_factors: list[float] | None = field(
        default=None, metadata={"help": "factors of the rate in the first epochs, in place of linear warm-up"}
    )
    plateau_patience: int = field(default=9, metadata={"help": "epochs above the lowest loss before the rate falls"})
    plateau_factor: float = field(default=0.1, metadata={"help": "by what the rate is multiplied then"})
    plateau_in_a_row: bool = field(default=True, metadata={"help": "a new lowest loss starts the count anew"})
    min_learning_rate: float = field(default=0.0, metadata={"help": "training ends below this rate"})

    def __post_init__(self) -> None:
        if self.warmup_epochs < 0 or not math.isfinite(self.warmup_epochs):
            raise ValueError(f"warmup_epochs must be a number of at least 0, got {self.warmup_epochs}")
        if self.warmup_factors is not None and not all(0 <= factor < math.inf for factor in self.warmup_factors):
            raise ValueError(f"warmup_factors must be numbers of at least 0, got {self.warmup_factors}")
        if self.plateau_patience < 1:
            raise ValueError(f"plateau_patience must be at least 1, got {self.plateau_patience}")
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"plateau_factor must be between 0 and 1, got {self.plateau_factor}")
        super().__post_init__()


class WarmupPlateau(LRScheduler):
    """Learning rates of each step, from what each step's loss was.

    Note [Plateaus survive a kill]: all that the schedule knows, the losses of the running epoch included, is in
    ``state_dict()``, so that a run killed within an epoch judges that epoch by the same mean as one that was not.

    Args:
        optimizer: its rates are the highest ones.
        steps_per_epoch: updates of the weights in an epoch.
        warmup_epochs, warmup_factors, patience, factor, in_a_row: see :class:`PlateauTrainingArguments`.

    Source: TCLR C.3; the counting of epochs is that of its code.

    >>> weights = torch.nn.Parameter(torch.zeros(1))
    >>> schedule = WarmupPlateau(torch.optim.Adam([weights], lr=1.0), steps_per_epoch=1, warmup_epochs=2, patience=1)
    >>> for step, loss in enumerate([9.0, 5.0, 4.0, 6.0], start=1):
    ...     schedule.advance(step, loss)
    ...     print(schedule.get_last_lr())
    [1.0]
    [1.0]
    [1.0]
    [0.1]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        steps_per_epoch: int,
        warmup_epochs: float = 10.0,
        warmup_factors: Sequence[float] | None = None,
        patience: int = 9,
        factor: float = 0.1,
        in_a_row: bool = True,
    ):
        self.steps_per_epoch = steps_per_epoch
        self.warmup_steps = round(warmup_epochs * steps_per_epoch)
        self.warmup_factors = None if warmup_factors is None else [float(one) for one in warmup_factors]
        self.patience, self.factor, self.in_a_row = patience, factor, in_a_row
        self.steps_done, self.num_decays, self.num_worse = 0, 0, 0
        self.lowest_loss = math.inf
        self.loss_sum, self.loss_count = 0.0, 0
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Nothing: the Trainer leaves steps out that half precision skipped, :meth:`advance` hears of all."""
        if not hasattr(self, "_last_lr"):
            self._apply()

    def advance(self, steps_done: int, loss: float) -> None:
        """After the update number ``steps_done`` of the run, with its loss: set the rate of the next one."""
        self.loss_sum, self.loss_count = self.loss_sum + loss, self.loss_count + 1
        self.steps_done = steps_done
        if steps_done % self.steps_per_epoch == 0:
            self._end_epoch(self.loss_sum / self.loss_count)
            self.loss_sum, self.loss_count = 0.0, 0
        self._apply()

    def get_lr(self) -> list[float | Tensor]:
        factor = self._warmup() * self.factor**self.num_decays
        return [base * factor for base in self.base_lrs]

    def _warmup(self) -> float:
        if self.warmup_factors is not None:
            epoch = self.steps_done // self.steps_per_epoch
            return self.warmup_factors[epoch] if epoch < len(self.warmup_factors) else 1.0
        return min(1.0, (self.steps_done + 1) / self.warmup_steps) if self.warmup_steps else 1.0

    def _is_warm(self) -> bool:
        if self.warmup_factors is not None:
            return self.steps_done // self.steps_per_epoch >= len(self.warmup_factors)
        return self.steps_done >= self.warmup_steps

    def _end_epoch(self, mean_loss: float) -> None:
        if mean_loss < self.lowest_loss:
            self.lowest_loss = mean_loss
            self.num_worse = 0 if self.in_a_row else self.num_worse
        elif mean_loss > self.lowest_loss:
            self.num_worse += 1
        if self.num_worse >= self.patience and self._is_warm():
            self.num_worse, self.num_decays = 0, self.num_decays + 1

    def _apply(self) -> None:
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates


class PlateauTrainer(TempCLRTrainer):
    """A ``TempCLRTrainer`` whose schedule is :class:`WarmupPlateau`, where its arguments ask for it.

    It takes models that return their loss themselves; the outputs named in ``loss_parts`` are logged beside it.
    """

    loss_parts: tuple[str, ...] = ()
    lr_scheduler: Any

    def __init__(self, *positional: Any, **keywords: Any):
        super().__init__(*positional, **keywords)
        self._step_loss: Tensor | None = None
        self.add_callback(_AdvanceSchedule(self))

    def loss_and_parts(
        self, model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor | None], Mapping[str, Any]]:
        outputs = model(**inputs)
        return outputs["loss"], {name: outputs.get(name) for name in self.loss_parts}, outputs

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        arguments: Any = self.args
        if not arguments.plateau:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler = WarmupPlateau(
                self.optimizer if optimizer is None else optimizer,
                steps_per_epoch=self.steps_per_epoch(),
                warmup_epochs=arguments.warmup_epochs,
                warmup_factors=arguments.warmup_factors,
                patience=arguments.plateau_patience,
                factor=arguments.plateau_factor,
                in_a_row=arguments.plateau_in_a_row,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def steps_per_epoch(self) -> int:
        """Updates of the weights in one pass over the training videos, counted as the Trainer does."""
        videos, batch = len(self.train_dataset), self.args.train_batch_size * self.args.world_size
        batches = videos // batch if self.args.dataloader_drop_last else math.ceil(videos / batch)
        return max(1, math.ceil(batches / self.args.gradient_accumulation_steps))

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def mean_step_loss(self) -> float:
        """The loss of the update just made, over all accumulated batches and all ranks."""
        assert self._step_loss is not None
        loss = self.accelerator.reduce(self._step_loss, reduction="mean")
        self._step_loss = None
        return float(loss)


class _AdvanceSchedule(TrainerCallback):
    """Tells the schedule every step, before a checkpoint of it may be written."""

    def __init__(self, trainer: PlateauTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        loss, schedule = self.trainer.mean_step_loss(), self.trainer.lr_scheduler
        if isinstance(schedule, WarmupPlateau):
            schedule.advance(state.global_step, loss)
            if schedule.num_decays and max(schedule.get_last_lr()) < args.min_learning_rate:
                control.should_training_stop = True
        return control
