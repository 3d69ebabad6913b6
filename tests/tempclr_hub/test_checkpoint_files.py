"""Reading checkpoints as data: what torch wrote comes back, and nothing that anyone else wrote runs or blows up."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tempclr.errors import InputError
from tempclr_hub.checkpoint_files import Inert, read_checkpoint

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
ROOT = Path(__file__).parents[2]


def example() -> dict:
    torch.manual_seed(0)
    tied = torch.rand(3, 4)
    model = collections.OrderedDict((str(dtype), (torch.rand(2, 3) * 5).to(dtype)) for dtype in DTYPES)
    model |= {"tied": tied, "row": tied[1], "turned": tied.T, "scalar": torch.tensor(2.5), "none": torch.empty(0, 4)}
    model["parameter"] = torch.nn.Parameter(torch.rand(2))
    return {"model": model, "epoch": 3, "losses": [0.5, None, True, (1, -(2**40), 2**70)], "bytes": b"\x00\xff", 7: "é"}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_it_reads_what_torch_reads(tmp_path, new):
    path = tmp_path / "model.pt"
    torch.save(example(), path, _use_new_zipfile_serialization=new)
    expected, actual = torch.load(path, weights_only=True), read_checkpoint(path)
    model, values = expected.pop("model"), actual.pop("model")
    assert actual.pop("bytes").name == "_codecs.encode" and expected.pop("bytes")
    assert actual == expected
    assert list(values) == list(model)
    for name, value in model.items():
        assert values[name].dtype == value.dtype and torch.equal(values[name], value), name
    assert values["row"].data_ptr() == values["tied"][1].data_ptr()


def test_what_is_written_into_a_tensor_stays_in_memory(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(4)}, path)
    before = path.read_bytes()
    read_checkpoint(path)["weight"].fill_(1)
    assert path.read_bytes() == before


def test_a_module_reads_as_its_state_and_other_protocols_are_read(tmp_path):
    path = tmp_path / "model.pt"
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    for protocol in (2, 3, 4):
        torch.save(state, path, pickle_protocol=protocol)
        read = read_checkpoint(path)
        assert list(read) == list(state) and all(torch.equal(read[name], state[name]) for name in state)


class Settings:
    """Stands for a container of omegaconf; pickled under that package's name by ``foreign``."""

    def __init__(self):
        self.content = {"lr": 0.1}


def foreign(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return type(attribute, (Settings,), {"__module__": module, "__qualname__": attribute})


def saved_with(path: Path, value: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    kind = type(value)
    parts = kind.__module__.split(".")
    with monkeypatch.context() as patch:
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            patch.setitem(sys.modules, name, type(sys)(name))
        setattr(sys.modules[kind.__module__], kind.__name__, kind)
        torch.save({"cfg": value, "model": {"weight": torch.ones(2)}}, path)
    return path


def test_settings_come_as_inert_stand_ins(tmp_path, monkeypatch):
    torch.save({"args": argparse.Namespace(task="mmtask"), "model": {}}, tmp_path / "args.pt")
    args = read_checkpoint(tmp_path / "args.pt")["args"]
    assert args == Inert("argparse.Namespace", (), {"task": "mmtask"})
    path = saved_with(tmp_path / "cfg.pt", foreign("omegaconf.dictconfig.DictConfig")(), monkeypatch)
    cfg = read_checkpoint(path)["cfg"]
    assert cfg == Inert("omegaconf.dictconfig.DictConfig", (), {"content": {"lr": 0.1}})


def test_an_unknown_class_is_refused_by_name(tmp_path, monkeypatch):
    path = saved_with(tmp_path / "model.pt", foreign("some_project.models.Trainer")(), monkeypatch)
    with pytest.raises(InputError, match=r"model.pt: it asks for 'some_project.models.Trainer'"):
        read_checkpoint(path)
    read = read_checkpoint(path, stand_ins=["some_project.models.Trainer"])
    assert read["cfg"] == Inert("some_project.models.Trainer", (), {"content": {"lr": 0.1}})
    assert read["model"]["weight"].tolist() == [1, 1]


class Planted:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("function", [os.system, eval, exec, subprocess.call, getattr, __import__])
def test_nothing_runs(tmp_path, new, function):
    """Note [Nothing runs]: the same file, loaded by torch without restriction, does run."""
    trace = tmp_path / "trace"
    command = f"open({str(trace)!r}, 'w')" if function in (eval, exec) else f"touch {trace}"
    path = tmp_path / "model.pt"
    torch.save({"model": {}, "x": Planted(function, command)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(InputError, match=r"asks for '\w+\.\w+', which is neither .* nothing of the file was run"):
        read_checkpoint(path)
    assert not trace.exists()
    if function is eval:
        torch.load(path, weights_only=False)
        assert trace.exists()


def archive(path: Path, records: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in records.items():
            file.writestr(name, content)
    return path


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tensor(*, key: str = "0", declared: int = 4, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)) -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(declared) + b"tQ"
    sizes = b"(" + b"".join(map(number, size)) + b"t" + b"(" + b"".join(map(number, stride)) + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + sizes + b"\x89}tR"


def checkpoint(path: Path, body: bytes, **records: bytes) -> Path:
    values = {f"archive/data/{key.strip('_')}": content for key, content in records.items()}
    return archive(path, {"archive/data.pkl": pickled(body), **values})


def test_the_hand_written_archive_is_one_that_reads(tmp_path):
    content = struct.pack("<4f", 1, 2, 3, 4)
    path = checkpoint(tmp_path / "model.pt", b"}" + text("w") + tensor() + b"s", _0=content)
    assert read_checkpoint(path)["w"].tolist() == [1, 2, 3, 4]
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/version", b"3\n")
    assert torch.load(path, weights_only=True)["w"].tolist() == [1, 2, 3, 4]


VALUES = struct.pack("<4f", 1, 2, 3, 4)
PREFIX = b"}" + text("w")
BODIES = {
    "more values than stored": (PREFIX + tensor(declared=10**12, size=(10**12,)) + b"s", "have 16 bytes"),
    "larger than its storage": (PREFIX + tensor(size=(10**12,)) + b"s", "looks into 4 stored values only"),
    "one value repeated": (PREFIX + tensor(size=(10**12,), stride=(0,)) + b"s", "looks into 4 stored values only"),
    "beyond the end": (PREFIX + tensor(size=(2, 2), stride=(3, 1)) + b"s", r"shape \(2, 2\) looks into 4"),
    "negative stride": (PREFIX + tensor(stride=(-1,)) + b"s", "something other than a storage and sizes"),
    "negative count": (PREFIX + tensor(declared=-4) + b"s", "without a key and a size"),
    "sizes do not match": (PREFIX + tensor(size=(2, 2)) + b"s", "sizes and strides do not match"),
    "many dimensions": (PREFIX + tensor(size=(1,) * 9, stride=(1,) * 9) + b"s", "sizes and strides do not match"),
    "no such values": (PREFIX + tensor(key="1") + b"s", "lacks the values data/1"),
    "a path as key": (PREFIX + tensor(key="../../etc/passwd") + b"s", "lacks the values data/"),
    "a tuple as key": (b"}" + b"K\x01" + b"\x85" * 300_000 + b"K\x01s", "key of type tuple"),
    "keys that collide": (b"}" + number(2**61) + b"K\x01s", "small number"),
    "deep lists": (b"]" + b"]" * 300_000 + b"a" * 300_000, "holds a list"),
    "deep tuples": (b"K\x01" + b"\x85" * 300_000, "holds a tuple"),
    "deeper stand-ins": (b"cargparse\nNamespace\n" * 99_000 + b")" + b"R\x85" * 99_000, "holds a tuple"),
    "deep stand-ins": (b"cargparse\nNamespace\nq\x00)R" + b"q\x010h\x00h\x01\x85R" * 9, "opcode POP"),
    "a copied list": (b"ccollections\nOrderedDict\n]\x85R", "copies a container by collections.OrderedDict"),
    "an allocation": (b"cbuiltins\nbytearray\n" + number(2**40) + b"\x85R", "asks for 'builtins.bytearray'"),
    "a call of data": (text("x") + b")R", "calls something that is not a function"),
    "a storage called": (b"ctorch\nFloatStorage\n" + number(2**40) + b"\x85R", "calls torch.FloatStorage"),
    "filled text": (text("x") + b"K\x01a", "fills a str as if it were a list"),
    "the state of a list": (b"]}b", "sets the state of a list"),
    "a long text": (b"X\xff\xff\xff\xff", "pickle is damaged"),
    "a huge memo": (b"]r\xff\xff\xff\xff", "holds a list"),
    "nothing to take": (b"a", "pickle is damaged"),
    "nothing noted": (b"h\x07", "pickle is damaged"),
    "unknown opcode": (b"\xff", "pickle is damaged"),
    "extension": (b"\x82\x01", "opcode EXT1, which torch.save does not write"),
    "old instance": (b"(ios\nsystem\n", "opcode INST"),
    "not a storage": (b"NQ", "refers to something that is not a storage"),
    "a storage of nothing": (b"(" + text("storage") + b"NNNNtQ", "storage of nothing"),
    "too long": (b"]" + b"N0" * 600_000, "opcode POP|more than"),
    "too many": (b"N" * 1_000_001, "more than 1000000 opcodes"),
    "names of names": (b"\x8c\x02os\x85\x8c\x06system\x93", "by something other than a name"),
}


@pytest.mark.parametrize("name", BODIES)
def test_hostile_pickles_end_in_one_line(tmp_path, name):
    body, message = BODIES[name]
    path = checkpoint(tmp_path / "model.pt", body, _0=VALUES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "KiB"


def test_hostile_archives_end_in_one_line(tmp_path):
    pickle_bytes = pickled(b"}")
    good = {"archive/data.pkl": pickle_bytes, "archive/data/0": VALUES}
    bomb = archive(tmp_path / "a", {"archive/data.pkl": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)
    cases = {
        bomb: "compressed",
        archive(tmp_path / "b", {**good, "archive/../../x": b""}): "not a name that torch.save gives",
        archive(tmp_path / "c", {**good, "/etc/passwd": b""}): "not a name that torch.save gives",
        archive(tmp_path / "d", {**good, "other/data": b""}): "not a name that torch.save gives",
        archive(tmp_path / "e", {"archive/x": b""}): "no data.pkl",
        archive(tmp_path / "f", {}): "it begins with",
        archive(tmp_path / "g", {**good, "archive/byteorder": b"big"}): "big-endian",
        archive(tmp_path / "h", {"archive/data.pkl": bytes(33 * 2**20)}): "its pickle has 34603008 bytes",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    """A small file whose directory names one large entry many times."""
    path = archive(tmp_path / "model.pt", {"a/data.pkl": pickled(b"}"), "a/data/0": bytes(100_000)})
    with zipfile.ZipFile(path, "a") as file:
        first = file.infolist()[1]
        for index in range(1, 50):
            copy = zipfile.ZipInfo(f"a/data/{index}")
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.file_size = copy.compress_size = first.file_size
            file.filelist.append(copy)
            file.NameToInfo[copy.filename] = copy
        file._didModify = True
    with pytest.raises(InputError, match="its entries declare 5000004 bytes, the file has"):
        read_checkpoint(path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_every_truncation_is_told(tmp_path, new):
    path, cut = tmp_path / "model.pt", tmp_path / "cut.pt"
    torch.save(example(), path, _use_new_zipfile_serialization=new)
    content = path.read_bytes()
    for length in [0, 1, 10, *range(64, len(content), len(content) // 40), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(InputError) as caught:
            read_checkpoint(cut)
        assert "\n" not in str(caught.value) and str(caught.value).startswith(str(cut)), length


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_damage_is_told_or_harmless(tmp_path, new):
    """Every file that differs in one byte reads, or ends in an InputError; values of an archive have a checksum."""
    path, damaged = tmp_path / "model.pt", tmp_path / "damaged.pt"
    torch.save({"w": torch.arange(4.0), "x": [1, "two"]}, path, _use_new_zipfile_serialization=new)
    content = path.read_bytes()
    for position in range(0, len(content), 3 if new else 1):
        flipped = content[position] ^ (0xFF if position % 2 else 1)
        damaged.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
        try:
            read = read_checkpoint(damaged)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert not new or torch.equal(read["w"], torch.arange(4.0))


def test_changed_pickles_are_told_or_harmless(tmp_path):
    """In an archive whose checksums are right, so that the pickle itself is what is met."""
    torch.save(example(), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as file:
        records = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    draw, told = random.Random(0), 0
    for _ in range(300):
        changed = bytearray(records[name])
        for _ in range(draw.choice([1, 1, 2, 6])):
            place = draw.randrange(len(changed))
            if draw.random() < 0.5:
                changed[place] = draw.randrange(256)
            else:
                changed[place : place + draw.randrange(4)] = draw.sample(b"}])(.\x80\x85\x86NRbsuaeQK\x88q\x93t", 2)
        try:
            read_checkpoint(archive(tmp_path / "changed.pt", {**records, name: bytes(changed)}))
        except InputError as error:
            told += 1
            assert "\n" not in str(error) and len(str(error)) < 500
    assert told > 150


def test_other_files_are_told_apart(tmp_path):
    cases = {
        b"": "the file is empty",
        b"<!DOCTYPE html><html>": "is a web page, not a checkpoint",
        pickle.dumps({"model": 1}): "not a checkpoint that torch.save wrote",
        b"\x93NUMPY": "it begins with",
    }
    for content, message in cases.items():
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / "file")
    with pytest.raises(InputError, match="no such checkpoint file"):
        read_checkpoint(tmp_path)
    torch.save([1], tmp_path / "file")
    with pytest.raises(InputError, match="holds a list, expected a dictionary"):
        read_checkpoint(tmp_path / "file")


def test_old_files_that_contradict_themselves(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"w": torch.arange(4.0)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    cases = {
        "another size": content[:-24] + (5).to_bytes(8, "little") + content[-16:],
        "cut off": content[:-1],
        "not of the format": content.replace(b"little_endian", b"little_endiaN"),
    }
    for message, changed in cases.items():
        path.write_bytes(changed)
        with pytest.raises(InputError, match=message):
            read_checkpoint(path)


def test_keys_of_old_files_that_are_lists_end_in_one_line(tmp_path):
    """A list of ten times the list before, nine times over, and one within another: as text they would be endless."""
    parts = (torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True}, {"model": {}})
    start = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    wide = b"\x80\x02]q\x00" + b"".join(b"](" + (b"h%c" % n) * 10 + b"eq%c" % (n + 1) for n in range(9)) + b"."
    deep = b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b"."
    for keys in (wide, deep):
        (tmp_path / "model.pt").write_bytes(start + keys)
        with pytest.raises(InputError, match="its list of values is not that of its tensors"):
            read_checkpoint(tmp_path / "model.pt")


def test_unused_tensors_are_not_read_into_memory(tmp_path):
    """A quarter of a gigabyte beside the weights, as an optimizer's state would be."""
    path = tmp_path / "model.pt"
    torch.save({"model": {"w": torch.ones(4)}, "last_optimizer_state": torch.zeros(2**26)}, path)
    code = (
        "import resource, sys, torch\nfrom tempclr_hub.checkpoint_files import read_checkpoint\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"read = read_checkpoint({str(path)!r})\nassert read['model']['w'].sum() == 4\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    packages = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "hub")))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": packages}
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * 1024, "KiB"
