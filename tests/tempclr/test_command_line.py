"""What all commands share: one line for a mistake, and quiet where the reader has seen enough."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from tempclr import cli
from tempclr.cli import COMMANDS, main
from tempclr.errors import InputError

PRINTS_MUCH = """
import sys
from tempclr import cli
cli._run = lambda command, words: print("line\\n" * 100_000) or 0
sys.exit(cli.main(["demo"]))
"""

FILE_TOO_LARGE = """
import resource, sys
import torch
from safetensors.torch import save_file
from tempclr import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
numbers = {"weight": torch.zeros(1_000_000)}
save = {"torch": torch.save, "safetensors": save_file}[sys.argv[1]]
cli._run = lambda command, words: save(numbers, sys.argv[2])
sys.exit(cli.main(["demo"]))
"""


@pytest.mark.parametrize("writer", ["torch", "safetensors"])
def test_a_file_that_finds_no_room_is_one_line(writer, tmp_path):
    """Note [A full disk]: a limit on the size of files stands for it."""
    command = [sys.executable, "-c", FILE_TOO_LARGE, writer, str(tmp_path / "weights")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("tempclr demo: error: ") and done.stderr.count("\n") == 1
    assert "cannot be read or written" in done.stderr


def test_a_fault_of_the_package_is_not_told_as_a_mistake(monkeypatch):
    def broken(command, words):
        raise RuntimeError("a fault")

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["demo"])


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, row):
        raise InputError("no text", file="rows.jsonl", row=row)


def test_a_mistake_found_by_a_process_of_a_loader_is_one_line(monkeypatch, capsys):
    """torch words it as the traceback of that process."""
    monkeypatch.setattr(cli, "_run", lambda command, words: list(DataLoader(Broken(), num_workers=1)))
    assert main(["evaluate"]) == 2
    assert capsys.readouterr().err == "tempclr evaluate: error: rows.jsonl, row 0: no text\n"


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-c", PRINTS_MUCH]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


@pytest.mark.parametrize("words", [["nothing"], [], ["extract", "--nothing"]])
def test_wrong_words_are_one_line(words, capsys):
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("tempclr") and "--help" in told and told.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    try:
        code = main([command, "--help"])
    except SystemExit as ended:
        code = ended.code
    assert code == 0 and "usage: tempclr" in capsys.readouterr().out
