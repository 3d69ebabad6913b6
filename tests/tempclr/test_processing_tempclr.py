"""The processor, and models, processors and their code found by the Auto classes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

import tempclr.models
from tempclr.data.tokenization import train_tokenizer
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor

SENTENCES = ["peel the onion", "fry the onion in oil", "add salt"]
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def processor() -> TempCLRProcessor:
    return TempCLRProcessor(train_tokenizer(SENTENCES), max_text_tokens=6, max_num_features=4)


def make_model(processor: TempCLRProcessor | None) -> TempCLRModel:
    config = TempCLRConfig(
        text_config={**TINY, "vocab_size": 100, "max_position_embeddings": 8},
        video_config={**TINY, "feature_size": 3, "max_num_features": 4},
    )
    model = TempCLRModel(config).eval()
    model.processor = processor
    return model


def clip(length: int) -> np.ndarray:
    return np.random.default_rng(length).normal(size=(length, 3))


def test_pairs(processor):
    batch = processor(text=SENTENCES, video_features=[clip(2), torch.from_numpy(clip(3)), clip(1).tolist()])
    assert batch["input_ids"].shape == (3, 6)
    assert batch["input_ids"][:, 0].tolist() == [2, 2, 2]
    assert batch["attention_mask"].sum(1).tolist() == [5, 6, 4]
    assert batch["video_features"].dtype == torch.float32
    assert batch["video_mask"].tolist() == [[True, True, False], [True] * 3, [True, False, False]]
    assert batch["video_features"][0, 2].abs().sum() == 0
    assert set(batch) == {"input_ids", "attention_mask", "video_features", "video_mask"}


def test_one_sentence_and_one_clip_are_a_batch_of_one(processor):
    batch = processor(text="add salt", video_features=clip(2))
    assert batch["input_ids"].shape == (1, 4)
    assert batch["video_features"].shape == (1, 2, 3)


def test_long_inputs_are_cut(processor):
    batch = processor(text=["fry the onion in oil"], video_features=clip(9))
    assert batch["input_ids"].shape[1] == 6
    assert batch["input_ids"][0, -1] == processor.tokenizer.sep_token_id
    np.testing.assert_array_equal(batch["video_features"][0], clip(9)[:4].astype(np.float32))


def test_paragraphs(processor):
    batch = processor(
        text=[SENTENCES[:2], SENTENCES[2:]],
        video_features=[[clip(2)], [clip(3), clip(1)]],
        clip_sentence_index=[[1], [-1, 0]],
    )
    assert batch["input_ids"].shape == (2, 2, 6)
    assert batch["sentence_mask"].tolist() == [[True, True], [True, False]]
    assert batch["clip_mask"].tolist() == [[True, False], [True, True]]
    assert batch["clip_sentence_index"].tolist() == [[1, -1], [-1, 0]]
    assert batch["input_ids"][1, 1].tolist() == [processor.tokenizer.pad_token_id] * 6
    assert batch["attention_mask"][1, 1].sum() == 0
    output = make_model(None)(**batch)
    assert output.video_embeds.shape == (2, 2, 16)


def test_left_padding_tokenizers_pad_on_the_right_here():
    tokenizer = train_tokenizer(SENTENCES)
    tokenizer.padding_side = "left"
    assert TempCLRProcessor(tokenizer)(text=SENTENCES)["input_ids"][:, 0].tolist() == [2, 2, 2]


def test_other_containers(processor):
    arrays = processor(text=SENTENCES, video_features=np.ones((2, 3, 3)), return_tensors="np")
    assert isinstance(arrays["video_mask"], np.ndarray)
    lists = processor(text="add salt", return_tensors=None)
    assert lists["attention_mask"] == [[1, 1, 1, 1]]
    assert processor.batch_decode(lists["input_ids"], skip_special_tokens=True) == ["add salt"]
    assert processor.decode(lists["input_ids"][0], skip_special_tokens=True) == "add salt"
    assert "clip_mask" in processor.model_input_names


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "give text, video_features or both"),
        ({"text": []}, "text is an empty list"),
        ({"text": [[]]}, "every paragraph is empty"),
        ({"text": [3]}, "text must be a sentence, a list of sentences or a list of lists"),
        ({"video_features": []}, "got 1 dimensions in all"),
        ({"video_features": np.zeros((0, 2, 3))}, "video_features is an empty list"),
        ({"video_features": np.zeros((0, 3))}, r"non-empty \(T, F\) array, got shape \(0, 3\)"),
        ({"video_features": [np.zeros((1, 3)), np.zeros((1, 2))]}, "features of one size, got 2, 3"),
        ({"text": SENTENCES, "video_features": [[clip(1)]]}, "must both be lists of paragraphs"),
        (
            {"text": [SENTENCES], "video_features": [[clip(1)], [clip(1)]]},
            "text has 1 paragraphs, video_features has 2",
        ),
        ({"text": [SENTENCES], "clip_sentence_index": [[0]]}, "goes with video_features given as a list of lists"),
        ({"video_features": [[clip(1)]], "clip_sentence_index": [[0, 1]]}, r"got \[2\] entries for \[1\] clips"),
    ],
)
def test_mistakes_are_named(processor, inputs, message):
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


def test_options_of_the_tokenizer_are_taken_as_by_other_processors(processor):
    flat = processor(text="add salt", padding="max_length", max_length=6)
    grouped = processor(text="add salt", text_kwargs={"padding": "max_length", "max_length": 6}, return_tensors="np")
    assert flat["input_ids"].tolist() == grouped["input_ids"].tolist() and flat["input_ids"].shape == (1, 6)
    assert processor(text=[["add salt"]], max_length=3, truncation=True)["input_ids"].shape == (1, 1, 3)
    with pytest.raises(ValueError, match="padding is given twice, as True and in text_kwargs as False"):
        processor(text="add salt", padding=True, text_kwargs={"padding": False})
    with pytest.raises(TypeError, match="unexpected option 'stride'"):
        processor(text="add salt", stride=3)


def test_limits_are_checked(processor):
    with pytest.raises(ValueError, match="max_text_tokens must be an integer of at least 1, got 0"):
        TempCLRProcessor(processor.tokenizer, max_text_tokens=0)


def test_round_trip_with_and_without_auto(tmp_path, processor):
    tempclr.models.register()
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["max_text_tokens"] == 6
    for loader in (TempCLRProcessor, AutoProcessor):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, TempCLRProcessor)
        assert (loaded.max_text_tokens, loaded.max_num_features) == (6, 4)
        assert torch.equal(loaded(text=SENTENCES)["input_ids"], processor(text=SENTENCES)["input_ids"])


def test_model_and_processor_travel_together(tmp_path, processor):
    tempclr.models.register()
    model = make_model(processor)
    model.save_pretrained(tmp_path / "first")
    for loader in (TempCLRModel, AutoModel):
        loaded = loader.from_pretrained(tmp_path / "first")
        assert isinstance(loaded, TempCLRModel)
        assert loaded.processor.max_text_tokens == 6
        torch.testing.assert_close(loaded.encode_text(SENTENCES), model.encode_text(SENTENCES), rtol=0, atol=1e-6)
    loaded.processor = None
    loaded.save_pretrained(tmp_path / "second")
    assert TempCLRModel.from_pretrained(tmp_path / "second").processor is None


def test_a_broken_processor_does_not_hide_the_model(tmp_path, processor, monkeypatch):
    warnings = []
    monkeypatch.setattr("tempclr.models.tempclr.modeling_tempclr.logger.warning", warnings.append)
    make_model(processor).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").unlink()
    assert TempCLRModel.from_pretrained(tmp_path).processor is None
    assert "set model.processor to encode text" in warnings[0]


REGISTERED = """
import sys
import tempclr.models
tempclr.models.register()
assert "torch" not in sys.modules and "transformers" not in sys.modules
{first}
from transformers import AutoModel, AutoProcessor
print(type(AutoModel.from_pretrained({folder!r})).__name__, type(AutoProcessor.from_pretrained({folder!r})).__name__)
"""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "first",
    [
        "",
        pytest.param("import transformers.modeling_layers", marks=pytest.mark.slow),
        pytest.param("from transformers import Trainer", marks=pytest.mark.slow),
        pytest.param("from tempclr.models.tempclr import TempCLRModel", marks=pytest.mark.slow),
    ],
)
def test_registration_waits(tmp_path, processor, first):
    """Note [Registration waits]: it costs nothing until an Auto class is imported, by whatever way."""
    make_model(processor).save_pretrained(tmp_path)
    assert run_python(REGISTERED.format(first=first, folder=str(tmp_path))) == "TempCLRModel TempCLRProcessor"


WITHOUT_PACKAGE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("tempclr"):
            raise ModuleNotFoundError("No module named 'tempclr'", name="tempclr")
sys.meta_path.insert(0, Missing())
import torch
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained({folder!r}, trust_remote_code=True)
processor = AutoProcessor.from_pretrained({folder!r}, trust_remote_code=True)
batch = processor(text=["add salt"], video_features=torch.ones(1, 2, 3))
output = model(**batch)
try:
    model(**batch, return_loss=True)
except ImportError as error:
    assert "return_loss=True needs the tempclr package" in str(error), error
    print(round(output.video_embeds.sum().item(), 4), type(model.processor).__name__)
"""


@pytest.mark.slow
def test_code_can_travel_with_the_weights(tmp_path, processor, monkeypatch):
    """A process without the package loads model and processor from the folder; the loss says what is missing."""
    carry = """
from tempclr.models.tempclr import TempCLRModel, carry_code
carry_code()
TempCLRModel.from_pretrained({source!r}).save_pretrained({folder!r})
print("done")
"""
    source, folder = str(tmp_path / "source"), str(tmp_path / "folder")
    model = make_model(processor)
    model.save_pretrained(source)
    assert run_python(carry.format(source=source, folder=folder)) == "done"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    batch = processor(text=["add salt"], video_features=torch.ones(1, 2, 3))
    expected = round(model(**batch).video_embeds.sum().item(), 4)
    value, name = run_python(WITHOUT_PACKAGE.format(folder=folder)).split()
    assert float(value) == pytest.approx(expected, abs=2e-4)
    assert name == "TempCLRProcessor"
