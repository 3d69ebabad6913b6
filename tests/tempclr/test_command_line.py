"""What all commands share: one line for a mistake, and quiet where the reader has seen enough."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tempclr.cli import COMMANDS, main

PRINTS_MUCH = """
import sys
from tempclr import cli
cli._run = lambda command, words: print("line\\n" * 100_000) or 0
sys.exit(cli.main(["demo"]))
"""


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
