"""The list of released checkpoints: complete, convertible by the commands it names, and free of guessed hashes."""

from __future__ import annotations

import argparse
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tempclr.cli import convert, main
from tempclr.errors import InputError
from tempclr_hub.checkpoints import KNOWN, verify


@pytest.mark.parametrize("name", KNOWN)
def test_every_command_is_one_that_convert_takes(name: str) -> None:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    words = KNOWN[name].convert.split()
    arguments = parser.parse_args(words)
    assert (arguments.checkpoint, arguments.output_dir) == ("FILE", "OUTPUT_DIR")
    assert KNOWN[name].address.startswith("https://") and KNOWN[name].licence


def test_a_hash_is_told_only_where_the_publisher_tells_it() -> None:
    for known in KNOWN.values():
        if known.sha256 is not None:
            assert re.fullmatch(r"[0-9a-f]{64}", known.sha256)
            assert known.file_name is not None and known.sha256[:8] in known.file_name


def test_a_file_is_held_against_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r3d_18.pth"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert verify(file, "videoclip") == digest
    with pytest.raises(InputError, match=rf"r3d_18\.pth: is not torchvision-r3d18-k400: its sha256 is {digest}"):
        verify(file, "torchvision-r3d18-k400")
    known = replace(KNOWN["torchvision-r3d18-k400"], sha256=digest)
    monkeypatch.setitem(KNOWN, known.name, known)
    assert verify(file, known.name) == digest
    with pytest.raises(InputError, match="no known checkpoint 'clip': expected one of videoclip"):
        verify(file, "clip")
    with pytest.raises(OSError):
        verify(tmp_path / "absent", "videoclip")


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["convert", "--list"])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and told.count("tempclr convert ") == len(KNOWN)
    assert (
        all(name in told for name in KNOWN)
        and "sha256   not known" in told
        and KNOWN["torchvision-r3d18-k400"].sha256 in told
    )
