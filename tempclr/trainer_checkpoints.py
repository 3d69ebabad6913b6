"""How a Trainer writes checkpoints that are whole or recognised as cut off, and goes on from whole ones alone."""

from __future__ import annotations

from os import PathLike
from typing import Any

from transformers import PreTrainedModel

from tempclr.checkpoints import whole_checkpoint
from tempclr.trainer_push import PushingTrainer

__all__ = ["CheckpointingTrainer"]


class CheckpointingTrainer(PushingTrainer):
    """``Trainer`` that looks at a checkpoint before it goes on from it; see :mod:`tempclr.checkpoints`.

    Attributes:
        resumed_from: the checkpoint that training goes on from, if any.
    """

    resumed_from: str | None = None

    def train(
        self, resume_from_checkpoint: str | PathLike[str] | bool | None = None, *positional: Any, **keywords: Any
    ) -> Any:
        """As in ``Trainer``; ``resume_from_checkpoint=True`` means the newest checkpoint that is whole.

        Raises:
            InputError: no checkpoint is whole, or the one that was named is not.
        """
        self.resumed_from = None
        if resume_from_checkpoint:
            given = "last" if resume_from_checkpoint is True else resume_from_checkpoint
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            self.resumed_from = whole_checkpoint(
                given,
                self.args.output_dir,
                with_optimizer=not self.args.save_only_model,
                with_config=isinstance(model, PreTrainedModel),
                num_ranks=self.args.world_size,
            )
        return super().train(self.resumed_from, *positional, **keywords)

    def _save_rng_state(self, output_dir: str) -> None:
        """With every rank's, since rank 0 would else write the state that ends a checkpoint while others still write;
        see Note [The state comes last]."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
