"""The picture of a model card: which video, what is drawn and said, and that no card links to a picture without one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.cli import main
from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
from tempclr.trainer import TempCLRTrainer, TempCLRTrainingArguments
from tempclr_hub.card import model_card
from tempclr_hub.card_picture import PICTURE_FILE, draw_alignment, draw_if_possible, first_example, with_picture
from tempclr_hub.snippet import tell_run
from tempclr_hub.staging import stage_model

SENTENCES = ("peel the onion", "chop it", "fry it in oil")
PNG = b"\x89PNG\r\n"


def paragraph(video_id: str = "video_1", *, num_sentences: int = 3, size: int = 8) -> Paragraph:
    starts = [3.0 * index for index in range(num_sentences)]
    features = np.random.default_rng(0).normal(size=(3 * num_sentences, size)).astype(np.float32)
    return Paragraph(
        video_id=video_id,
        sentences=tuple(SENTENCES[index % 3] for index in range(num_sentences)),
        starts=tuple(starts),
        ends=tuple(start + 3 for start in starts),
        features=features,
        features_per_second=1.0,
    )


@pytest.fixture(scope="module")
def model() -> TempCLRModel:
    torch.manual_seed(0)
    processor = TempCLRProcessor(train_tokenizer(list(SENTENCES)))
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text = tower | {"vocab_size": len(processor.tokenizer)}
    made = TempCLRModel(TempCLRConfig(text_config=text, video_config=tower | {"feature_size": 8}))
    made.processor = processor
    return made


def test_the_video_is_taken_by_its_place() -> None:
    few, many, fitting = paragraph("few", num_sentences=2), paragraph("many", num_sentences=13), paragraph("fits")
    assert first_example([few, many, fitting, paragraph("later")]).video_id == "fits"
    assert first_example(iter([few, many])).video_id == "few"
    row = {"video_id": "row", "sentences": ["a"], "starts": [0], "ends": [1], "features": [[1.0]]}
    assert first_example([row | {"features_per_second": 1.0}]).video_id == "row"
    with pytest.raises(InputError, match=r"rows\.jsonl, row 0, field 'features_per_second'"):
        first_example([row], source="rows.jsonl")
    with pytest.raises(InputError, match="no example to draw"):
        first_example([])


def test_the_card_shows_and_tells_what_was_drawn(model: TempCLRModel, tmp_path: Path) -> None:
    picture = draw_alignment(model, paragraph("/home/me/`cost` $5"), tmp_path, split="the test split")
    assert (tmp_path / PICTURE_FILE).read_bytes().startswith(PNG)
    card = model_card(model, model_name="tester/toy", picture=picture)
    section = card.split("## Alignment\n")[1].split("\n## ")[0]
    assert "similarity of 3 sentences" in section and "](alignment.png)" in section
    assert "Video `'cost' $5` of the test split" in section and "/home/me" not in card
    assert with_picture(card, None) == model_card(model, model_name="tester/toy")
    assert with_picture(card, picture) == card and "\n\n\n" not in card
    assert with_picture("# own\n", picture).startswith("# own\n\n## Alignment\n")


def test_what_cannot_be_drawn_is_a_warning(
    model: TempCLRModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for examples in ([paragraph(size=5)], [], 3, [object()]):
            assert draw_if_possible(model, examples, tmp_path, split="x") is None
    assert len(caplog.messages) == 4 and all(line.startswith("the card has no picture: ") for line in caplog.messages)
    assert not (tmp_path / PICTURE_FILE).exists()


def test_a_trainer_draws_its_evaluation_data(model: TempCLRModel, tmp_path: Path) -> None:
    def card(folder: Path, evaluation: object) -> str:
        arguments = TempCLRTrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")
        bare = TempCLRModel(model.config)  # with no processor of its own, as in a training script
        bare.train()
        trainer = TempCLRTrainer(bare, arguments, eval_dataset=evaluation, processing_class=model.processor)
        trainer.save_model()
        trainer.create_model_card()
        assert bare.training and bare.processor is None
        return (folder / "README.md").read_text()

    assert "Video `video_1` of the data `unseen`" in card(tmp_path / "run", {"unseen": [paragraph()]})
    staged = stage_model(tmp_path / "run", tmp_path / "staged")
    assert PICTURE_FILE in dict(staged.files())
    # A later training in the same folder without evaluation data: the picture is no longer of this model.
    assert PICTURE_FILE not in card(tmp_path / "run", None)
    later = stage_model(tmp_path / "run", tmp_path / "later")
    assert PICTURE_FILE not in dict(later.files()) and PICTURE_FILE in later.left_out


def test_a_card_loses_a_link_to_no_picture(model: TempCLRModel, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    card = model_card(model, model_name="tester/toy", picture=draw_alignment(model, paragraph(), folder, split="x"))
    (folder / "README.md").write_text(card)
    (folder / PICTURE_FILE).unlink()
    staged = stage_model(folder, tmp_path / "staged")
    assert PICTURE_FILE not in (staged.folder / "README.md").read_text()
    assert (folder / "README.md").read_text() == card


def test_examples_need_a_card(model: TempCLRModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save_pretrained(tmp_path / "model")
    assert main(["publish", str(tmp_path / "model"), "tester/toy", "--examples", "rows.jsonl"]) == 2
    assert "field 'examples': the model has no README.md to show a picture in" in capsys.readouterr().err


def test_a_card_tells_of_its_snippet_only_where_it_ran(model: TempCLRModel, tmp_path: Path) -> None:
    card, text = tmp_path / "README.md", model_card(model, model_name="tester/toy")
    card.write_text(text)
    tell_run(tmp_path, ran=True)
    told = card.read_text()
    usage = told.split("## Usage\n")[1].split("\n## ")[0]
    assert "```\n\nIt was run before it was sent" in usage and f"torch {torch.__version__}." in usage
    assert "`features.npy` was 6 seconds of noise" in usage and "\n\n\n" not in told
    tell_run(tmp_path, ran=True)
    assert card.read_text() == told
    tell_run(tmp_path, ran=False)
    assert card.read_text() == text
    tell_run(tmp_path / "elsewhere", ran=True)  # no card, nothing to tell
