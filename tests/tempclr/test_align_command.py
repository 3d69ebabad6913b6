"""``tempclr align`` on a real video file, and the mistakes it tells in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tempclr.cli import main
from tempclr.cli.align import read_sentences


@pytest.fixture
def sentences(tmp_path) -> Path:
    path = tmp_path / "steps.txt"
    path.write_text("\ufeffpeel the onion\n\n  fry it  \r\nserve it hot\n", encoding="utf-8")
    return path


def test_sentences_are_the_lines_that_are_not_empty(sentences):
    assert read_sentences(sentences) == ["peel the onion", "fry it", "serve it hot"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "none.mp4"}, "none.mp4: no such video file"),
        ({"sentences": "none.txt"}, "none.txt: no such file of sentences"),
        ({"sentences": "blank.txt"}, "blank.txt: expected one sentence a line, the file has none"),
        ({"sentences": "latin.txt"}, "latin.txt: expected UTF-8 text, got other bytes at position 3"),
        ({"model": "weightless"}, "weightless: this model folder has no weights"),
        ({"model": "none/of/these"}, "no model folder"),
        ({"plot": "picture.pdf"}, "--plot takes a .png file"),
        ({"json": "spans.yaml"}, "--json takes a .json file"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, sentences, capsys, change, message):
    (tmp_path / "film.mp4").write_bytes(b"not decoded before the other mistakes are told")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless/config.json").write_text("{}")
    options = {"model": "weightless", "video": "film.mp4", "sentences": sentences.name} | change
    given = [word for key, value in options.items() for word in (f"--{key}", str(tmp_path / value))]
    assert main(["align", *given]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
