"""The released S3D-G: every tensor of its checkpoint, and outputs recorded from running it, at full size.

The outputs were recorded with random weights, which follow from the names of the tensors: see ``recorded_values``.
"""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from tempclr.cli import main
from tempclr.errors import InputError
from tempclr_hub.checkpoint_files import read_checkpoint
from tempclr_hub.conversion import file_sha256
from tempclr_hub.convert_s3d import convert_s3d, our_name
from tempclr_hub.vocabulary_files import read_vocabulary

DATA = Path(__file__).resolve().parent / "data"
KEYS = json.loads((DATA / "s3d_keys.json").read_text())
RECORDED = np.load(DATA / "s3d.npz")
WORDS = ["add", "oil", "pan", "open", "door", "cut", "tomato", "the"]


def recorded_values(name: str, shape: list[int]) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    noise = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).randn(*shape)
    if name.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif "bn" in name and name.endswith("weight"):
        noise = 1 + 0.1 * noise
    elif name.endswith("word_embd.weight"):
        noise = 0.3 * noise
    elif len(shape) > 1:
        noise = noise * np.sqrt(2 / np.prod(shape[1:]))
    else:
        noise = 0.1 * noise
    return torch.tensor(noise, dtype=torch.float32)


def shrunk(shape: list[int], factor: int = 8) -> list[int]:
    """The same architecture an eighth as wide; the pixels' 24 channels and kernels stay."""
    return [size if size in (1, 2, 3, 4, 24) else max(1, size // factor) for size in shape]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3d")
    torch.save({name: recorded_values(name, shape) for name, shape in KEYS["state_dict"].items()}, folder / "s3d.pth")
    np.save(folder / "s3d_dict.npy", np.array(WORDS, dtype=object), allow_pickle=True)
    done = convert_s3d(folder / "s3d.pth", folder / "out", vocabulary=folder / "s3d_dict.npy")
    assert (done.num_source_tensors, done.num_mapped, len(done.dropped)) == (537, 461, 76)
    assert done.num_parameters == 31_211_336 and all(name.endswith("num_batches_tracked") for name in done.dropped)
    (folder / "s3d.pth").unlink()
    model = AutoModel.from_pretrained(folder / "out").eval()
    return model, AutoProcessor.from_pretrained(folder / "out")


@pytest.fixture
def small():
    return {name: torch.rand(shrunk(shape)) for name, shape in KEYS["state_dict"].items() if "tracked" not in name}


@pytest.mark.parametrize("case", ["T30_H64", "T32_H64", "T16_H96"])
def test_clips_have_the_vectors_of_the_release(full, case):
    num_frames, size = int(case[1:3]), int(case[5:])
    noise = np.random.RandomState(int(RECORDED[f"{case}/input_seed"])).rand(2, 3, num_frames, size, size)
    with torch.inference_mode():
        pixels = torch.tensor(noise, dtype=torch.float32).transpose(1, 2)
        output = full[0].get_video_features(pixels)
    means = output.last_hidden_state.mean(dim=(2, 3, 4))
    np.testing.assert_allclose(output.pooler_output.numpy(), RECORDED[f"{case}/video_embedding"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(means.numpy(), RECORDED[f"{case}/mixed_5c"], atol=1e-5, rtol=0)


def test_sentences_have_the_ids_and_vectors_of_the_release(full):
    model, processor = full
    ids = processor(text=KEYS["sentences"])["input_ids"]
    np.testing.assert_array_equal(ids.numpy(), RECORDED["text/ids"])
    with torch.inference_mode():
        output = model.get_text_features(ids)
    np.testing.assert_allclose(output.pooler_output.numpy(), RECORDED["text/embedding"], atol=1e-5, rtol=0)


def test_every_name_of_the_release_has_one_of_ours():
    ours = {our_name(name) for name in KEYS["state_dict"]}
    assert len(ours) == len(KEYS["state_dict"]) == 537
    for name in ("conv9.conv1.weight", "mixed_9z.conv_b0.conv1.weight", "mixed_3b.gating_b4.fc.weight", "fc.other"):
        with pytest.raises(InputError, match="does not have"):
            our_name(name)


def test_a_checkpoint_of_any_width_in_any_wrapping(small, tmp_path):
    torch.save({"state_dict": {f"module.{name}": value.half() for name, value in small.items()}}, tmp_path / "a.pth")
    done = convert_s3d(tmp_path / "a.pth", tmp_path / "out", dtype="bfloat16")
    assert done.num_mapped == len(small) and not done.dropped and "--vocabulary" in done.notes[0]
    model, processor = AutoModel.from_pretrained(tmp_path / "out"), AutoProcessor.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16 and model.config.video_config.stem_sizes == [8, 8, 24]
    assert model.config.video_config.stages[0][0] == [8, 12, 16, 2, 4, 4]
    values = dict(model.state_dict())
    for name, value in small.items():
        assert torch.equal(values[our_name(name)], value.half().bfloat16()), name
    assert processor.tokenizer is None
    with pytest.raises(ValueError, match="no vocabulary"):
        processor(text="add")


def without(values, name):
    return {key: value for key, value in values.items() if key != name}


DAMAGES = {
    "lacks a proper 'video_model.projection.weight'": lambda values: without(values, "fc.weight"),
    "lacks 1 tensors, the first is 'video_model.projection.bias'": lambda values: without(values, "fc.bias"),
    "holds 'extra.weight', which S3D-G does not have": lambda values: {**values, "extra.weight": torch.rand(2)},
    r"'conv_2b.conv1.weight' is \(8, 7, 1, 1, 1\), expected \(8, 8, 1, 1, 1\)": lambda values: {
        **values,
        "conv_2b.conv1.weight": torch.rand(8, 7, 1, 1, 1),
    },
    "'fc.bias' is of torch.int64": lambda values: {**values, "fc.bias": values["fc.bias"].long()},
    "found 'epoch' with a int": lambda values: {**values, "epoch": 3},
    "the same projection_dim": lambda values: {**values, "fc.weight": torch.rand(3, 128), "fc.bias": torch.rand(3)},
    "not finite": lambda values: {**values, "fc.bias": torch.full_like(values["fc.bias"], float("nan"))},
    "holds no state dictionary": lambda values: {},
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_checkpoint_of_something_else_is_refused_without_a_trace(small, tmp_path, words):
    torch.save(DAMAGES[words](small), tmp_path / "a.pth")
    with pytest.raises(InputError, match=words) as error:
        convert_s3d(tmp_path / "a.pth", tmp_path / "out")
    assert "a.pth" in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_settings_that_cannot_be(small, tmp_path):
    torch.save(small, tmp_path / "a.pth")
    (tmp_path / "vocab.txt").write_text("word\n" * 9000)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for options, words in [
        ({"dtype": "int8"}, "dtype must be"),
        ({"vocabulary": tmp_path / "vocab.txt"}, "has 9000 words, the checkpoint has vectors for 8280"),
        ({"output_dir": tmp_path / "full"}, "not empty"),
        ({"output_dir": tmp_path / "a.pth"}, "is a file"),
    ]:
        with pytest.raises(InputError, match=words):
            convert_s3d(tmp_path / "a.pth", **{"output_dir": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


class Bomb:
    def __reduce__(self):
        return (print, ("it ran",))


def test_note_a_pickled_array_of_words(tmp_path, capsys):
    """Note [A pickled array of words]: numpy's own reader refuses it; nothing but text comes out, and nothing runs."""
    for protocol in (2, 4):
        file = tmp_path / f"{protocol}.npy"
        with file.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (8,)})
            pickle.dump(np.array(WORDS, dtype=object), stream, protocol=protocol)
        assert read_vocabulary(file) == WORDS
        with pytest.raises(ValueError, match="allow_pickle"):
            np.load(file)
    for content, words in [
        (np.array([Bomb()], dtype=object), "asks for"),
        (np.array(["add", 3], dtype=object), "other than an array of text"),
        (np.array([["add"]], dtype=object), "one dimension"),
        (np.array([1.0]), "one dimension of text"),
    ]:
        np.save(tmp_path / "bad.npy", content, allow_pickle=True)
        with pytest.raises(InputError, match=words):
            read_vocabulary(tmp_path / "bad.npy")
    assert "it ran" not in capsys.readouterr().out


def test_vocabularies_of_other_kinds(tmp_path):
    assert read_vocabulary(DATA / "s3d_dict_tiny.npy") == WORDS
    file = tmp_path / "vocab.txt"
    file.write_bytes("add\r\nöl\r\n".encode())
    assert read_vocabulary(file) == ["add", "öl"]
    whole = (DATA / "s3d_dict_tiny.npy").read_bytes()
    np.save(tmp_path / "a.npy", np.array(WORDS, dtype=object), allow_pickle=True)
    pickled = (tmp_path / "a.npy").read_bytes()
    for content, words in [
        (b"", "no word"),
        (b"\xff\xfe\xff", "nor UTF-8"),
        (whole[:-9], "damaged"),
        (whole[:20], "damaged"),
        (pickled[:-9], "pickle"),
        (pickled.replace(b"(8,)", b"(9,)"), "declares 9 words and holds 8"),
        (b"a\rb\n", "a word of two lines"),
    ]:
        file.write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            read_vocabulary(file)
        assert str(file) in str(error.value)
    with pytest.raises(InputError, match="no such vocabulary"):
        read_vocabulary(tmp_path / "none")


def test_hostile_arrays_of_words_end_in_one_line(tmp_path):
    file, number = tmp_path / "words.npy", 10**12
    for shape, descr, values in [
        (f"({number},)", "'<U10'", bytes(400)),
        (f"({number},)", "'|O'", b"\x80\x02]."),
        ("(2,)", "'<U1'", b"\xff" * 8),
        ("(2,)", "'<U1'", b"\x00\xd8\x00\x00" * 2),
        ("(-1,)", "'<U10'", bytes(400)),
        ("(" * 9000 + "1,)", "'<U10'", bytes(40)),
        ("(" + "-" * 9000 + "1,)", "'<U10'", bytes(40)),
        ("(1,)", "[" * 150 + "'<U10'" + "]" * 150, bytes(40)),
    ]:
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values)
        with pytest.raises(InputError, match=r"damaged|pickle of something other") as error:
            read_vocabulary(file)
        assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("order", "<>")
def test_arrays_of_either_byte_order(tmp_path, order):
    np.save(tmp_path / "words.npy", np.array(["add", "öl"], dtype=f"{order}U5"))
    assert read_vocabulary(tmp_path / "words.npy") == ["add", "öl"]


def test_the_checkpoint_is_only_looked_into(small, tmp_path):
    torch.save(small, tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    convert_s3d(tmp_path / "a.pth", tmp_path / "out")
    assert (tmp_path / "a.pth").read_bytes() == before and len(read_checkpoint(tmp_path / "a.pth")) == len(small)


def test_the_command(small, tmp_path, capsys):
    torch.save(small, tmp_path / "a.pth")
    words = ["convert", "s3d", str(tmp_path / "a.pth"), str(tmp_path / "out")]
    assert main([*words, "--vocabulary", str(DATA / "s3d_dict_tiny.npy")]) == 0
    assert f"a.pth (sha256 {file_sha256(tmp_path / 'a.pth')[:12]}…): 461 tensors, 461 mapped" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["options"] == {
        "vocabulary": "s3d_dict_tiny.npy"
    }
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:-5000])
    words[-1] = str(tmp_path / "again")
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "again").exists()
