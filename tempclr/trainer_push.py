"""How a Trainer sends its model to the Hub: named files alone, and never at the cost of the training."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

__all__ = ["PushingTrainer", "TokenlessTrainingArguments"]

_log = logging.getLogger(__name__)


class TokenlessTrainingArguments(TrainingArguments):
    """Training arguments whose pickle does not hold ``hub_token``.

    Note [No token in training_args.bin]: the Trainer pickles its arguments into every checkpoint, and people pass
    checkpoints on. Who reads them back logs in anew, or sets HF_TOKEN.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "hub_token": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy stays on this machine, and pushes as the original does."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update({name: deepcopy(value, memo) for name, value in self.__dict__.items()})
        return made

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made


class PushingTrainer(Trainer):
    """``Trainer`` with its pushes to the Hub made safe; ``push_to_hub``, ``hub_strategy`` and the rest mean the same.

    Note [A push sends named files]: the Trainer would upload all of the output folder. Here a push stages what a model
    is made of (``tempclr_hub.staging.MODEL_FILES``) and sends that in one commit, so that neither optimizer states,
    caches and logs nor what else lies in the folder leave the machine. Who asks for ``hub_strategy="checkpoint"`` or
    ``"all_checkpoints"`` asks for what a run resumes from: below ``last-checkpoint/`` or ``checkpoint-N/`` the same
    commit then holds the states of optimizer, schedule and random numbers, and nothing else.

    Note [Training outlives a push]: a push of a checkpoint that fails, for a reason that stays after some attempts or
    for a full disk, is a warning in one line; the local checkpoint is whole and training goes on. ``push_to_hub`` at
    the end raises. Only what makes every push fail, a repository that cannot be created, is told before training.
    """

    push_in_progress: Any
    push_wait_seconds = 1.0
    """Before the second attempt; twice as long before each further one."""

    def init_hf_repo(self, *positional: Any, **keywords: Any) -> None:
        """As in ``Trainer``.

        Raises:
            InputError: the Hub refuses or stays out of reach; one line, without the token.
        """
        from tempclr_hub.publish import patiently

        name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        create = super().init_hf_repo
        patiently(lambda: create(*positional, **keywords), repo_id=name, wait_seconds=self.push_wait_seconds)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model with its card and send them, see Note [A push sends named files].

        The arguments are those of ``Trainer.push_to_hub``. Returns the commit, or with ``blocking=False`` a ``Future``.

        Raises:
            InputError: it could not be sent; one line, without the token. The local folder is whole.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, **({} if private is None else {"private": private}))
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        send = self._staged(Path(self.args.output_dir), message=commit_message, token=token, revision=revision)
        pushed = self._pushes.submit(send)
        return pushed.result() if blocking else pushed

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        before: PushInProgress | None = self.push_in_progress
        busy = before is not None and not before.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        step = self.state.global_step
        try:
            self.create_model_card()
            send = self._staged(
                Path(checkpoint_folder),
                message=f"Training in progress, step {step}",
                place=_place(self.args.hub_strategy, Path(checkpoint_folder).name),
            )
        except Exception as error:  # whatever it is, the training is worth more
            self._tell(error, step=step)
            return
        job: Future[Any] = self._pushes.submit(self._or_tell, send, step=step)
        self.push_in_progress = PushInProgress([*(before.jobs if before is not None and busy else []), job])

    def card_picture(self, model: Any) -> Any:
        """Draw the alignment of one video of the evaluation data into the output folder, for the model card.

        Without evaluation data, or with weights that lie in parts on several devices, a card has no picture.
        """
        if self.eval_dataset is None or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return None
        from tempclr_hub.card_picture import draw_if_possible

        name, examples = "the evaluation data", self.eval_dataset
        if isinstance(examples, Mapping):
            name, examples = next(((f"the data `{key}`", value) for key, value in examples.items()), (name, ()))
        return draw_if_possible(model, examples, self.args.output_dir, split=name, processor=self.processing_class)

    @cached_property
    def _pushes(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="push")  # one: commits follow in order

    def _staged(
        self,
        folder: Path,
        *,
        message: str | None,
        place: str | None = None,
        token: str | None = None,
        revision: str | None = None,
    ) -> Callable[[], Any]:
        """Copy now what ``folder`` gives to send; what is returned sends it and removes the copy."""
        from tempclr_hub.probe import PROBE_FILE, store_probe
        from tempclr_hub.publish import upload
        from tempclr_hub.staging import stage_model, stage_state

        token, revision = token or self.args.hub_token, revision or self.args.hub_revision
        output_dir = Path(self.args.output_dir)
        _remove_left(output_dir)
        staging = Path(tempfile.mkdtemp(prefix=f".push-{os.getpid()}-", dir=output_dir)).absolute()
        _STAGED.add(staging)

        def send() -> Any:
            try:
                return upload(
                    staging / "files",
                    self.hub_model_id,
                    message=message or "Training",
                    revision=revision,
                    token=token,
                    wait_seconds=self.push_wait_seconds,
                )
            finally:
                drop()

        def drop() -> None:
            shutil.rmtree(staging, ignore_errors=True)
            _STAGED.discard(staging)

        try:
            secrets = tuple(filter(None, (token,)))
            # The card is written into the output folder alone, whatever folder the weights come from.
            stage_model(folder, staging / "files", beside=output_dir, secrets=secrets)
            if (staging / "files" / PROBE_FILE).is_file():
                store_probe(staging / "files")  # it may be that of an earlier training in the same folder
            if place is not None:
                stage_state(folder, staging / "files" / place, secrets=secrets)
        except BaseException:
            drop()
            raise
        return send

    def _or_tell(self, send: Callable[[], Any], *, step: int) -> None:
        try:
            send()
        except Exception as error:  # nobody asks for the result, so what is not told here is never told
            self._tell(error, step=step)

    def _tell(self, error: Exception, *, step: int) -> None:
        from tempclr_hub.publish import without_tokens

        reason = without_tokens(str(error), self.args.hub_token) or type(error).__name__
        _log.warning("step %d was not pushed, training goes on: %s", step, reason)


_STAGED: set[Path] = set()


def _remove_left(output_dir: Path) -> None:
    """Remove the copies of processes that were killed; those of this process and of others that run are in use."""
    for folder in output_dir.absolute().glob(".push-*-*"):
        pid = folder.name.split("-")[1]
        if folder not in _STAGED and pid.isdecimal() and (int(pid) == os.getpid() or not _runs(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    if os.name == "nt":
        return True  # asking would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _place(strategy: HubStrategy, name: str) -> str | None:
    """The folder of the repository that the states go to."""
    return {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: name}.get(strategy)
