"""Which checkpoint a run goes on from: the newest that is whole, whatever a killed process has left of others."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from transformers import Trainer

from tempclr.checkpoints import checkpoint_fault
from tempclr.errors import InputError
from tempclr.recipes.pretraining import ModelArguments, pretrain
from tempclr.recipes.running import find_checkpoint
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs
import training_world as world

TINY = {"hidden_size": 16, "num_text_layers": 1, "num_video_layers": 1, "num_attention_heads": 2, "vocab_size": 80}
STEPS = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "use_cpu": True, "disable_tqdm": True}


def arguments(folder, **changes):
    return TempCLRTrainingArguments(str(folder), per_device_train_batch_size=4, **{**STEPS, **changes})


def train(folder, **changes):
    videos = world.make_paragraphs(8)
    return pretrain(videos, training_arguments=arguments(folder, **changes), model_arguments=ModelArguments(**TINY))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / ".saving").mkdir()
    (folder / ".saving" / "model-00002-of-00002.safetensors").write_text("of a run that was killed")
    train(folder)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def last(folder, **changes):
    return Path(find_checkpoint(arguments(folder, resume_from_checkpoint="last", **changes))).name


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_checkpoint_with_a_file_cut_off_is_passed_over(name, kept, run, caplog):
    assert last(run) == "checkpoint-4"
    file = run / "checkpoint-4" / name
    os.truncate(file, int(file.stat().st_size * kept))
    with caplog.at_level(logging.WARNING):
        assert last(run) == "checkpoint-2"
    assert "checkpoint-4 is passed over, it is not whole" in caplog.text and name in caplog.text
    with pytest.raises(InputError, match=rf"no whole checkpoint: .*{name}"):
        find_checkpoint(arguments(run, resume_from_checkpoint=str(run / "checkpoint-4")))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_without_one_of_its_files_is_passed_over(name, run):
    (run / "checkpoint-4" / name).unlink()
    assert last(run) == "checkpoint-2"


def test_what_a_killed_run_was_saving_is_no_part_of_the_model(trained):
    assert not (trained / ".saving").exists()
    assert not (trained / "model-00002-of-00002.safetensors").exists()


def test_a_run_that_keeps_the_model_alone_has_no_optimizer_to_miss(run):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (run / "checkpoint-4" / name).unlink()
    assert last(run, save_only_model=True) == "checkpoint-4"


def test_shards_that_the_index_names_must_be_there(run):
    (run / "checkpoint-4" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')
    assert checkpoint_fault(run / "checkpoint-4") == "it has no model-2.safetensors"


def test_each_rank_must_have_left_its_random_numbers(run):
    (run / "checkpoint-4" / "rng_state.pth").rename(run / "checkpoint-4" / "rng_state_0.pth")
    assert checkpoint_fault(run / "checkpoint-4", num_ranks=2) == "it has no rng_state_1.pth"


def test_each_rank_must_have_left_its_place_in_the_stream(run):
    checkpoint = run / "checkpoint-4"
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    assert checkpoint_fault(checkpoint, num_ranks=2) is None
    (checkpoint / "stream_state_0.json").write_text("{}")
    (checkpoint / ".stream_state_1.7.8.json").write_text("{")  # a rank was killed while it wrote, once
    assert checkpoint_fault(checkpoint, num_ranks=2) == "it has no stream_state_1.json"
    (checkpoint / "stream_state_1.json").write_text("{}")
    assert checkpoint_fault(checkpoint, num_ranks=2) is None


def test_a_model_without_its_configuration_is_not_whole(run):
    (run / "checkpoint-4" / "config.json").unlink()
    assert checkpoint_fault(run / "checkpoint-4") == "it has no config.json"
    assert checkpoint_fault(run / "checkpoint-4", with_config=False) is None
    assert last(run) == "checkpoint-2"


class Asked(Exception):
    pass


@pytest.fixture
def resumed(run, monkeypatch):
    """Which checkpoint the Trainer of transformers would be asked to go on from."""

    def ask(self, checkpoint, *others, **keywords):
        raise Asked(checkpoint)

    monkeypatch.setattr(Trainer, "train", ask)

    def train(given, **changes):
        with pytest.raises(Asked) as asked:
            TempCLRTrainer(model=world.make_model(), args=arguments(run, **changes)).train(given)
        return asked.value.args[0]

    return train


def test_the_trainer_itself_goes_on_from_whole_checkpoints_alone(run, resumed):
    assert resumed(True) == str(run / "checkpoint-4")
    assert resumed(None) is None and resumed(False) is None
    (run / "checkpoint-4" / "trainer_state.json").unlink()
    assert resumed(True) == str(run / "checkpoint-2") == resumed(run / "checkpoint-2")
    with pytest.raises(InputError, match=r"checkpoint-4' is no whole checkpoint: it has no trainer_state\.json"):
        resumed(str(run / "checkpoint-4"))
    (run / "checkpoint-2" / "optimizer.pt").unlink()
    for given in (True, str(run / "checkpoint-2")):
        with pytest.raises(InputError, match="no whole checkpoint"):
            resumed(given)
    assert resumed(True, save_only_model=True) == str(run / "checkpoint-2")


RANKS = """
import json, os, sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
from forked import fork_ranks
from transformers import Trainer, TrainerCallback
import test_whole_checkpoints as tests
from tempclr.checkpoints import checkpoint_fault
from tempclr.recipes.pretraining import ModelArguments
from tempclr.recipes.streaming import pretrain_on_stream

folder = Path(sys.argv[1])
save = Trainer._save_rng_state

def save_late(self, output_dir):
    time.sleep(1.0 if self.args.process_index else 0.0)
    save(self, output_dir)

Trainer._save_rng_state = save_late

class Look(TrainerCallback):
    def on_save(self, args, state, control, **others):
        if args.process_index == 0:
            print("found", checkpoint_fault(folder / f"checkpoint-{{state.global_step}}", num_ranks=2), flush=True)

def train():
    settings = tests.arguments(folder, max_steps=2, save_steps=1, report_to=[])
    small = ModelArguments(**tests.TINY)
    pretrain_on_stream(folder, training_arguments=settings, model_arguments=small, callbacks=[Look()])

fork_ranks(train, 2)
"""


def test_no_rank_still_writes_by_note_the_state_comes_last(tmp_path):
    """Note [The state comes last]: also where another rank is late to write its random numbers and its place."""
    names = ("video_id", "sentences", "starts", "ends", "features_per_second")
    for shard in range(2):
        made = [
            {**{name: getattr(each, name) for name in names}, "features": each.features.tolist()}
            for each in world.make_paragraphs(4, seed=shard)
        ]
        (tmp_path / f"train-{shard:05d}-of-00002.jsonl").write_text("\n".join(map(json.dumps, made)))
    here = Path(__file__).parent
    done = forked_runs.run(RANKS.format(paths=[str(here), str(here / "distributed_drivers")]), tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("found")] == ["found None"] * 2
    assert (tmp_path / "checkpoint-2" / "stream_state_1.json").is_file()


def test_the_state_of_another_step_is_no_state(run):
    shutil.copy(run / "checkpoint-2" / "trainer_state.json", run / "checkpoint-4" / "trainer_state.json")
    assert checkpoint_fault(run / "checkpoint-4") == "trainer_state.json is that of step 2"


def test_without_a_whole_checkpoint_it_is_said(run, tmp_path):
    for step in (2, 4):
        (run / f"checkpoint-{step}" / "trainer_state.json").unlink()
    with pytest.raises(InputError, match=r"no whole checkpoint in .* to resume from"):
        last(run)
    with pytest.raises(InputError, match=r"no checkpoint in .* to resume from"):
        last(tmp_path)


def test_a_step_written_again_follows_note_the_state_comes_last(run, monkeypatch):
    """Note [The state comes last]: killed while checkpoint-4 is written over an earlier one, it counts as cut."""

    def killed(self, folder):
        raise SystemExit("killed")

    monkeypatch.setattr(TempCLRTrainer, "_save_rng_state", killed)
    with monkeypatch.context() as patch:
        patch.setattr("tempclr.recipes.running._drop_half_written", lambda trainer: None)
        with pytest.raises(SystemExit):
            train(run, resume_from_checkpoint=str(run / "checkpoint-2"))
    assert (run / "checkpoint-4" / "model.safetensors").exists()
    assert last(run) == "checkpoint-2"


KILLED = """
import os, signal, sys
import torch
sys.path.insert(0, {tests!r})
import test_whole_checkpoints
torch.set_num_threads({threads})  # another number of threads would sum in another order
moment, count = sys.argv[2], 0
write = torch.save

def cut(value, file, *others, **keywords):
    global count
    write(value, file, *others, **keywords)
    count += str(file).endswith(moment)
    if count == 2:
        os.truncate(file, os.path.getsize(file) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = cut
test_whole_checkpoints.train(sys.argv[1])
"""


def test_a_process_killed_while_it_writes_goes_on_to_the_same_weights(trained, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), threads=torch.get_num_threads())
    done = forked_runs.run(code, tmp_path / "run", "optimizer.pt")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "run" / "checkpoint-4").is_dir() and last(tmp_path / "run") == "checkpoint-2"
    train(tmp_path / "run", resume_from_checkpoint="last")
    assert (tmp_path / "run/model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_checkpoint_of_more_ranks_is_not_gone_on_from(trained, tmp_path):
    """Of two ranks that go on from four each would find its own random numbers, and take it for whole."""
    checkpoint = shutil.copytree(trained / "checkpoint-2", tmp_path / "checkpoint-2")
    for rank in range(4):
        shutil.copy(checkpoint / "rng_state.pth", checkpoint / f"rng_state_{rank}.pth")
    assert checkpoint_fault(checkpoint, num_ranks=4) is None
    assert checkpoint_fault(checkpoint, num_ranks=2) == "it is of 4 ranks, now there are 2"
    (checkpoint / "rng_state_3.pth").unlink()
    assert checkpoint_fault(checkpoint, num_ranks=4) == "it has no rng_state_3.pth"
