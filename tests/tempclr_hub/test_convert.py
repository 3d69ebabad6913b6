"""Released checkpoints through ``tempclr convert``: the same numbers come out, and whatever is wrong is one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from tempclr import TempCLRModel
from tempclr.cli import main
from tempclr.errors import InputError
from tempclr_hub.checkpoint_files import read_checkpoint
from tempclr_hub.convert import convert_checkpoint, map_state, released_state

DATA, ROOT = Path(__file__).parent / "data", Path(__file__).parents[2]
CHECKPOINT = DATA / "fairseq_checkpoint_tiny.pt"
VOCABULARY = DATA / "vocab_tiny.txt"
RECORDED = Path(__file__).parents[1] / "tempclr" / "data" / "released_tiny_model.npz"
TINY = {"num_attention_heads": 4, "tokenizer": str(VOCABULARY)}
IDS = ["--special_token_ids", "1", "2"]
WORDS = ["--num_attention_heads", "4", "--tokenizer", str(VOCABULARY)]


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    """Inputs and outputs of the released code with the weights of ``CHECKPOINT``."""
    arrays: dict[str, torch.Tensor] = {}
    for file in (RECORDED, DATA / "released_tiny_outputs.npz"):
        with np.load(file) as content:
            arrays |= {name: torch.from_numpy(content[name]) for name in content.files if name[:7] != "weights"}
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted by the command line."""
    path = tmp_path_factory.mktemp("converted") / "model"
    assert main(["convert", "tempclr", str(CHECKPOINT), str(path), *WORDS]) == 0
    return path


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> TempCLRModel:
    """The same, as step localization and retrieval with the background kept run it."""
    path = tmp_path_factory.mktemp("converted") / "model"
    assert main(["convert", "videoclip", str(CHECKPOINT), str(path), *WORDS, "--mask_cls"]) == 0
    return TempCLRModel.from_pretrained(path).eval()


def without_second_sep(tokens: torch.Tensor) -> torch.Tensor:
    return torch.cat([tokens[:, :1], tokens[:, 2:]], dim=1)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_embeddings_and_hidden_states_are_those_of_the_released_code(folder, recorded):
    model = TempCLRModel.from_pretrained(folder).eval()
    ids, mask = (without_second_sep(recorded[f"pooled/{name}"]) for name in ("caps", "cmasks"))
    output = model(ids, mask, recorded["pooled/vfeats"], recorded["pooled/vmasks"], output_clip_hidden_states=True)
    close(output.video_embeds, recorded["pooled/pooled_video"])
    close(output.text_embeds, recorded["pooled/pooled_text"])
    close(output.text_model_output.last_hidden_state, recorded["pooled/text_hidden"])
    real = recorded["pooled/vmasks"]
    close(output.clip_hidden_states[real], recorded["pooled/video_hidden"][:, 1:-1][real])
    whole = model.video_model(recorded["pooled/vfeats"], real, output_hidden_states=True).hidden_states[-1]
    close(whole, recorded["pooled/video_hidden"])


@torch.no_grad()
def test_step_logits_are_those_of_the_released_code(sliding, recorded):
    text = sliding.get_text_features(*(without_second_sep(recorded[f"slide/{name}"]) for name in ("caps", "cmasks")))
    windows, real = torch.zeros(3, 32, 512), recorded["slide/crosstask/vmasks"]
    seconds = [torch.arange(first, min(first + 32, 53)) for first in (0, 16, 32)]
    windows[real] = recorded["slide/feat"][torch.cat(seconds)]
    states = sliding.get_video_features(windows, real).last_hidden_state[real]
    close(states, recorded["slide/crosstask/video_seq"])
    close(states @ text.pooler_output.T, recorded["slide/crosstask/logits"])


@torch.no_grad()
def test_merged_step_logits_are_the_mean_over_windows(sliding, recorded):
    from tempclr.inference import feature_hidden_states

    ids, mask = (without_second_sep(recorded[f"slide/{name}"]) for name in ("caps", "cmasks"))
    merged = feature_hidden_states(sliding, recorded["slide/feat"]) @ sliding.text_model(ids, mask).pooler_output.T
    seconds = torch.cat([torch.arange(0, 32), torch.arange(16, 48), torch.arange(32, 53)])
    expected = torch.zeros(53, 4).index_add(0, seconds, recorded["slide/crosstask/logits"])
    close(merged, expected / torch.bincount(seconds)[:, None])


def test_the_processor_makes_the_tokens_of_the_released_code(folder, recorded):
    processor = AutoProcessor.from_pretrained(folder)
    ids, mask = (without_second_sep(recorded[f"slide/{name}"]) for name in ("caps", "cmasks"))
    sentences = [processor.decode(row[real][1:-1]) for row, real in zip(ids, mask.bool(), strict=True)]
    made = processor(text=sentences)
    longest = made["input_ids"].shape[1]
    assert torch.equal(made["input_ids"], ids[:, :longest]) and not mask[:, longest:].any()
    assert (processor.max_text_tokens, processor.max_num_features) == (63, 32)


def test_the_report_accounts_for_every_tensor(folder, capsys):
    report = json.loads((folder / "conversion.json").read_text())
    assert (report["num_source_tensors"], report["num_mapped"], len(report["dropped"])) == (118, 112, 6)
    assert set(report["dropped"]) == {
        f"{tower}.{name}"
        for tower in ("video_encoder.bert", "text_encoder")
        for name in ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
    }
    assert report["options"] == {
        "num_attention_heads": 4,
        "max_num_features": 32,
        "attend_cls": True,
        "tokenizer": "vocab_tiny.txt",
    }
    assert report["source_sha256"].startswith("3d591cc1cb83")
    assert report["shortened"]["video_encoder.bert.embeddings.word_embeddings.weight"].startswith("rows 3 and 4 of 89")


def test_the_folder_is_one_that_transformers_loads(folder):
    model, loading = TempCLRModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.float32 and model.processor is not None
    assert type(AutoModel.from_pretrained(folder)) is TempCLRModel
    assert (model.config.similarity, model.config.unit_weight, model.config.sequence_weight) == ("dot", 0.3, 0.7)
    assert (model.config.measure, model.config.negatives, model.config.num_negatives) == ("dtw", "visual_anchor", 31)


def test_it_says_what_it_did(tmp_path, capsys):
    words = ["--num_attention_heads", "4", "--special_token_ids", "3", "4", "--dtype", "bfloat16"]
    assert main(["convert", "videoclip", str(CHECKPOINT), str(tmp_path / "model"), *words]) == 0
    said = capsys.readouterr().out
    assert "118 tensors, 112 mapped, 6 dropped, 151,056 numbers in bfloat16" in said
    assert "dropped text_encoder.pooler.dense.bias: BERT's pooler" in said
    assert "note: no tokenizer was given, so the folder holds the model alone" in said
    assert "note: its loss is VideoCLIP's" in said and "note: its features are 512 numbers a second" in said
    model = TempCLRModel.from_pretrained(tmp_path / "model")
    assert model.processor is None and model.dtype == torch.bfloat16
    assert (model.config.unit_weight, model.config.sequence_weight) == (1.0, 0.0)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "conversion.json",
        "probe.safetensors",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_half_precision_keeps_the_released_values(tmp_path, dtype):
    """The released file is in half precision, so neither dtype changes a value."""
    convert_checkpoint(CHECKPOINT, tmp_path / "model", dtype=dtype, **TINY)
    model = TempCLRModel.from_pretrained(tmp_path / "model")
    assert str(model.dtype) == f"torch.{dtype}"
    mapped = map_state(released_state(read_checkpoint(CHECKPOINT)), special_token_ids=(3, 4), num_attention_heads=4)
    for name, value in model.state_dict().items():
        assert torch.equal(value.float(), mapped.tensors[name].float()), name


def full_size_shapes() -> dict[str, list[int]]:
    return json.loads((DATA / "fullsize_shapes.json").read_text())


def test_every_name_of_the_full_size_has_its_place():
    with torch.device("meta"):
        state = {
            name.removeprefix("mmmodel."): torch.empty(shape, dtype=torch.float16)
            for name, shape in full_size_shapes().items()
        }
    assert len(state) == 310
    # The values are not there on the meta device, so the check for numbers that are not finite cannot run.
    mapped = map_state(state, special_token_ids=(101, 102), check_values=False)
    assert len(mapped.dropped) == 6 and len(mapped.tensors) == 304
    text, video = mapped.config.text_config, mapped.config.video_config
    assert (text.vocab_size, text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (30522, 768, 12, 12)
    assert (video.feature_size, video.num_hidden_layers, video.num_attention_heads) == (512, 6, 12)
    assert text.intermediate_size == video.intermediate_size == 3072


def test_shapes_alone_tell_the_sizes_and_the_ids_of_bert(tmp_path):
    """A vocabulary of 30522 is BERT's; heads are the hidden size / 64."""
    state = small_state(hidden_size=128, vocab_size=30522)
    torch.save({"model": state}, tmp_path / "model.pt")
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "out")
    model = TempCLRModel.from_pretrained(tmp_path / "out")
    assert model.config.text_config.num_attention_heads == 2
    words = state["mmmodel.video_encoder.bert.embeddings.word_embeddings.weight"]
    specials = model.video_model.embeddings.special_token_embeddings.weight
    assert torch.equal(specials, words[[101, 102]])


def small_state(*, hidden_size: int = 64, vocab_size: int = 200) -> dict[str, torch.Tensor]:
    """The full-size names with one layer a tower and small shapes."""
    torch.manual_seed(0)
    smaller = {768: hidden_size, 30522: vocab_size, 3072: 96, 512: 40}
    return {
        name: torch.randn([smaller.get(size, size) for size in shape])
        for name, shape in full_size_shapes().items()
        if ".layer." not in name or ".layer.0." in name
    }


TEXT = "mmmodel.text_encoder."
VIDEO = "mmmodel.video_encoder."
MISTAKES: dict[str, tuple[Callable[[dict], Any], str]] = {
    "missing": (
        lambda state: {name: value for name, value in state.items() if name != f"{VIDEO}videomlp.linear2.bias"},
        "lacks 1 tensors, the first is 'video_encoder.videomlp.linear2.bias'",
    ),
    "no words": (
        lambda state: {name: value for name, value in state.items() if "word_embeddings" not in name},
        "lacks the tensor 'text_encoder.embeddings.word_embeddings.weight'",
    ),
    "unknown tensor": (
        lambda state: {**state, f"{TEXT}projection.weight": torch.ones(2)},
        "has a tensor that this model does not: 'text_encoder.projection.weight'",
    ),
    "another model": (
        lambda state: {"resnet.conv1.weight": torch.ones(2)},
        "'resnet.conv1.weight' is not of a VideoCLIP",
    ),
    "a layer is missing": (
        lambda state: {
            name.replace("text_encoder.encoder.layer.0", "text_encoder.encoder.layer.1"): value
            for name, value in state.items()
        },
        "lacks the tensors of text_encoder.encoder.layer.0",
    ),
    "a layer far away": (
        lambda state: {**state, f"{TEXT}encoder.layer.9999.output.dense.bias": torch.ones(64)},
        "lacks the tensors of text_encoder.encoder.layer.1",
    ),
    "a layer of many digits": (
        lambda state: {**state, f"{TEXT}encoder.layer.{'9' * 5000}.output.dense.bias": torch.ones(64)},
        "has a tensor that this model does not",
    ),
    "wrong shape": (
        lambda state: {**state, f"{VIDEO}videomlp.linear2.weight": torch.ones(64, 63)},
        r"'video_encoder.videomlp.linear2.weight' is \(64, 63\), expected \(64, 64\)",
    ),
    "towers of two widths": (
        lambda state: {**state, f"{VIDEO}videomlp.linear1.weight": torch.ones(65, 40)},
        r"'video_encoder.videomlp.linear1.weight' is \(65, 40\), expected \(64, 40\)",
    ),
    "a vector of words": (
        lambda state: {**state, f"{TEXT}embeddings.word_embeddings.weight": torch.ones(64)},
        r"is \(64,\), expected 2 sizes",
    ),
    "no numbers": (
        lambda state: {**state, f"{VIDEO}videomlp.linear2.weight": torch.full((64, 64), float("nan"))},
        "'video_encoder.videomlp.linear2.weight' holds a number that is not finite",
    ),
    "integers": (
        lambda state: {**state, f"{VIDEO}videomlp.linear2.weight": torch.ones(64, 64, dtype=torch.int64)},
        "is of torch.int64, expected floating-point",
    ),
    "twice": (
        lambda state: {**state, "text_encoder.pooler.dense.bias": torch.ones(64)},
        "'text_encoder.pooler.dense.bias' is there twice",
    ),
    "not tensors": (lambda state: {**state, "x": 3}, "found 'x' with a int"),
    "nothing": (lambda state: {}, "expected the weights in a dictionary under 'model', found none"),
    "few positions": (
        lambda state: {**state, f"{VIDEO}bert.embeddings.position_embeddings.weight": torch.ones(30, 64)},
        "32 features, .CLS. and .SEP. need 34 positions, the checkpoint has 30",
    ),
}


def refused(words: list[str], capsys: pytest.CaptureFixture, output: Path) -> str:
    """Run the command; it must end with exit code 2, one line, and neither a folder nor a rest of one."""
    before = set(output.parent.iterdir())
    assert main(["convert", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("tempclr convert: error: ")
    assert set(output.parent.iterdir()) == before
    return said.err


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_wrong_with_the_tensors_is_named(tmp_path, capsys, name):
    change, message = MISTAKES[name]
    torch.save({"model": change(small_state())}, tmp_path / "model.pt")
    words = ["tempclr", str(tmp_path / "model.pt"), str(tmp_path / "out"), *IDS]
    error = refused(words, capsys, tmp_path / "out")
    assert re.search(message, error), error
    assert str(tmp_path / "model.pt") in error or "field" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_attention_heads", "7", *IDS], "multiple of num_attention_heads, got 64 and 7"),
        (["--max_num_features", "39", *IDS], "need 41 positions, the checkpoint has 40"),
        (["--max_num_features", "0", *IDS], "max_num_features must be an integer of at least 1, got 0"),
        (["--special_token_ids", "5", "5"], "cannot be the ids 5 and 5 of 200"),
        (["--special_token_ids", "-1", "5"], "cannot be the ids -1 and 5 of 200"),
        (["--special_token_ids", "1", "200"], "cannot be the ids 1 and 200 of 200"),
        ([], "so the ids of [CLS] and [SEP] are not known: give --tokenizer, or --special_token_ids"),
        (["--tokenizer", str(VOCABULARY)], "has 89 tokens, the checkpoint's text tower 200"),
        (["--tokenizer", str(VOCABULARY), *IDS], "the tokenizer has the ids (3, 4)"),
        (["--tokenizer", str(CHECKPOINT)], "no tokenizer can be read from"),
        (["--tokenizer", "./nowhere"], "no tokenizer can be read from './nowhere'"),
        (["--stand_in", "a.B", "--max_num_features", "0", *IDS], "max_num_features must be"),
        (["--vocabulary", "words.txt"], "--vocabulary is not an option of 'tempclr convert tempclr'"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_options_that_do_not_fit_are_told(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.save({"model": small_state()}, tmp_path / "model.pt")
    paths = [str(tmp_path / "model.pt"), str(tmp_path / "out")]
    assert message in refused(["tempclr", *paths, *words], capsys, tmp_path / "out")


def test_a_hidden_size_without_heads_is_told(tmp_path, capsys):
    words = ["tempclr", str(CHECKPOINT), str(tmp_path / "out"), "--tokenizer", str(VOCABULARY)]
    assert "hidden size 48 is no multiple of 64" in refused(words, capsys, tmp_path / "out")


def test_numbers_too_large_for_half_precision_are_told(tmp_path, capsys):
    state = small_state()
    state[f"{TEXT}embeddings.LayerNorm.bias"] = torch.full((64,), 1e6)
    torch.save({"model": state}, tmp_path / "model.pt")
    words = ["tempclr", str(tmp_path / "model.pt"), str(tmp_path / "out"), *IDS]
    message = "'text_model.embeddings.LayerNorm.bias' has numbers too large for float16"
    assert message in refused([*words, "--dtype", "float16"], capsys, tmp_path / "out")


class Planted:
    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_hostile_and_truncated_files_leave_no_folder(tmp_path, capsys):
    planted = Planted()
    planted.trace = tmp_path / "trace"
    torch.save({"model": small_state(), "args": planted}, tmp_path / "hostile.pt")
    (tmp_path / "cut.pt").write_bytes(CHECKPOINT.read_bytes()[:200_000])
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>Google Drive - Virus scan warning</html>")
    for name, message in {
        "hostile.pt": "it asks for 'posix.system', which is neither a tensor nor a setting: refused, and nothing",
        "cut.pt": "the archive is cut off or damaged",
        "page.pt": "is a web page, not a checkpoint",
        "nowhere.pt": "no such checkpoint file",
    }.items():
        error = refused(["tempclr", str(tmp_path / name), str(tmp_path / "out")], capsys, tmp_path / "out")
        assert message in error and name in error
    assert not planted.trace.exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    convert_checkpoint(CHECKPOINT, out, **TINY)  # an empty one is fine
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "this folder is not empty: give a new one" in refused(["tempclr", str(CHECKPOINT), str(out)], capsys, out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    (tmp_path / "file").touch()
    error = refused(["tempclr", str(CHECKPOINT), str(tmp_path / "file")], capsys, out)
    assert "is a file, expected a folder" in error


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path):
    """A limit on the size of files stands for the disk."""
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from tempclr.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    packages = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "hub")))
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", "tempclr", str(CHECKPOINT), str(tmp_path / "out"), *WORDS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": packages},
    )
    assert done.returncode == 2 and "the weights cannot be written into" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(CHECKPOINT, tmp_path / "out", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kinds_and_dtypes_of_the_function(tmp_path):
    with pytest.raises(InputError, match="kind must be one of videoclip, tempclr, got 'vlm'"):
        convert_checkpoint(CHECKPOINT, tmp_path / "out", kind="vlm")
    with pytest.raises(InputError, match="dtype must be one of float32, float16, bfloat16, got 'int8'"):
        convert_checkpoint(CHECKPOINT, tmp_path / "out", dtype="int8")


def test_a_plain_state_and_a_tokenizer_folder_convert_too(tmp_path, folder):
    state = {name.removeprefix("mmmodel."): value for name, value in read_checkpoint(CHECKPOINT)["model"].items()}
    torch.save(state, tmp_path / "state.pt", _use_new_zipfile_serialization=False)
    convert_checkpoint(tmp_path / "state.pt", tmp_path / "out", num_attention_heads=4, tokenizer=str(folder))
    again, model = TempCLRModel.from_pretrained(tmp_path / "out"), TempCLRModel.from_pretrained(folder)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.processor.tokenizer.get_vocab() == model.processor.tokenizer.get_vocab()


def test_a_cased_vocabulary_keeps_its_capitals(tmp_path):
    words = VOCABULARY.read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:-1], "Peel"]) + "\n")
    for source, expected in ((VOCABULARY, True), (tmp_path / "vocab.txt", False)):
        convert_checkpoint(CHECKPOINT, tmp_path / source.stem, num_attention_heads=4, tokenizer=str(source))
        settings = json.loads((tmp_path / source.stem / "tokenizer_config.json").read_text())
        assert settings["do_lower_case"] is expected
