"""The model card: what it says comes from the run, and its front matter passes the Hub's check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from transformers import TrainingArguments

from tempclr.data.tokenization import train_tokenizer
from tempclr.evaluation.matching import MatchingResult
from tempclr.evaluation.protocols import MatchingProtocol, RetrievalProtocol
from tempclr.evaluation.retrieval import RetrievalResult
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
from tempclr_hub.card import MAX_LOSS_ROWS, model_card
from tempclr_hub.loopback_api import _card_errors

TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
PROTOCOL = RetrievalProtocol(background="removed", measure="dtw")
RESULTS = {
    "retrieval": RetrievalResult(
        metrics={"dtw": {"R@1": 0.51234567, "median_rank": 1.0}},
        ranks={"dtw": np.array([1, 2])},
        protocols={"dtw": PROTOCOL},
        num_queries=2,
    ),
    "matching": MatchingResult(MatchingProtocol(), match_share=0.4, num_videos=60, per_video=np.zeros(60)).to_dict(),
}
LOG = [
    *({"step": step, "epoch": step / 10, "loss": 3 / step, "unit_loss": 2 / step} for step in range(1, 41)),
    {"step": 40, "epoch": 4.0, "eval_loss": 0.25},
    {"step": 40, "train_runtime": 3.0},
]


def toy_model(**settings) -> TempCLRModel:
    text, video = TOWER | {"vocab_size": 50}, TOWER | {"feature_size": 8} | settings.pop("video", {})
    return TempCLRModel(TempCLRConfig(text_config=text, video_config=video, **settings))


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n")[1].split("\n## ")[0]


def test_a_card_of_a_whole_run():
    card = model_card(
        toy_model(measure="otam", negatives="within_seg", gamma=0.0),
        model_name="tester/toy",
        training_arguments=TrainingArguments("unused", report_to=[], max_steps=40, bf16=False, weight_decay=0.0),
        log_history=LOG,
        results=RESULTS,
        dataset_name="tempclr/demo",
        dataset_split="test",
        base_model="tempclr/base",
    )
    listed = ModelCard(card).data.eval_results
    assert {(one.dataset_type, one.dataset_split) for one in listed} == {("tempclr/demo", "test")}
    assert [one.dataset_args["protocol"] for one in listed] == [one.task_name for one in listed]
    assert "Measured on the test split. A number" in section(card, "Results")
    assert "starts from `tempclr/base`" in card.replace("started", "starts")
    assert "`tempclr/demo`" in card and 'from_pretrained("tester/toy")' in card
    training = section(card, "Training")
    assert "OTAM distances (gamma 0)" in training and "31 shuffled ones (`within_seg`)" in training
    assert "| `max_steps`" in training and "num_train_epochs" not in training and "bf16" not in training
    assert "| `gamma`                       | 0 " in training and "| `weight_decay`" in training
    results = section(card, "Results")
    assert "| `full-video/background-removed/dtw` | R@1         | 0.5123 |" in results
    assert "| `caption-clip-matching/dtw`         | match_share | 0.4    |" in results


def test_the_front_matter_is_what_the_hub_reads():
    card = model_card(
        toy_model(), model_name="tester/toy", results=RESULTS, dataset_name="tempclr/demo", base_model="a/b"
    )
    assert _card_errors(card, kind="model") == []
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("tempclr", "feature-extraction", "apache-2.0")
    assert (data.datasets, data.base_model) == (["tempclr/demo"], "a/b")
    assert {"tempclr", "video-text-retrieval"} <= set(data.tags)
    found = {(result.task_name, result.metric_type): result.metric_value for result in data.eval_results}
    assert found == {
        (PROTOCOL.name, "R@1"): 0.512346,
        (PROTOCOL.name, "median_rank"): 1.0,
        ("caption-clip-matching/dtw", "match_share"): 0.4,
    }


def test_a_card_of_a_model_alone_says_what_is_not_known():
    card = model_card(toy_model(), model_name="toy")
    assert "None were measured" in section(card, "Results")
    assert "are not known to this card" in section(card, "Training")
    assert "set `model.processor`" in section(card, "Usage")
    assert "model-index" not in card and "datasets:" not in card and "### Losses" not in card
    assert ModelCard(card).data.eval_results is None
    assert "\n\n\n" not in card and card.endswith("```\n")


def test_losses_are_spread_and_training_and_evaluation_share_a_row():
    rows = section(model_card(toy_model(), model_name="toy", log_history=LOG), "Training").splitlines()
    table = [row for row in rows if row.startswith("| ") and "step" not in row and "---" not in row]
    assert len(table) == MAX_LOSS_ROWS
    assert table[0].split("|")[1:4] == ["    1 ", " 0.1000 ", " 3.0000 "]
    assert table[-1].split("|")[1:6] == ["   40 ", " 4.0000 ", " 0.0750 ", "    0.0500 ", "    0.2500 "]
    one = section(model_card(toy_model(), model_name="toy", log_history=LOG[:1]), "Training")
    assert "|    1 | 0.1000 | 3.0000 |    2.0000 |" in one


def test_results_without_a_dataset_stay_in_the_text():
    card = model_card(toy_model(), model_name="toy", results=RESULTS)
    assert "R@1" in section(card, "Results") and "model-index" not in card


def test_results_without_a_protocol_are_refused():
    with pytest.raises(ValueError, match="no number beside a protocol, got the keys R@1"):
        model_card(toy_model(), model_name="toy", results={"R@1": 0.5})


def test_no_folder_of_this_machine_is_told(tmp_path):
    names = {name: str(tmp_path / "inner" / name) for name in ("model", "data", "base")}
    recipe = {"backbone": str(tmp_path / "inner" / "backbone.pth")}
    card = model_card(
        toy_model(video={"feature_recipe": recipe}),
        model_name=names["model"],
        dataset_name=names["data"],
        base_model=names["base"],
        results=RESULTS,
    )
    assert str(tmp_path) not in card and "inner" not in card
    assert "# model\n" in card and "`data`" in card and "`base`" in card and "`backbone.pth`" in card


def test_a_local_folder_is_not_taken_for_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    card = ModelCard(model_card(toy_model(), model_name="toy", dataset_name="runs/demo"))
    assert card.data.datasets is None and "`runs/demo`" in card.text


def test_the_objective_tells_what_was_trained():
    unit_alone = model_card(toy_model(similarity="dot", sequence_weight=0.0), model_name="toy")
    assert "a unit loss over raw dot products, weight 0.7." in section(unit_alone, "Training")
    nothing = model_card(toy_model(unit_weight=0.0, sequence_weight=0.0), model_name="toy")
    assert "none, both weights are 0" in section(nothing, "Training")


@pytest.mark.parametrize("recipe", [None, {"backbone": "lite0", "features_per_second": 1.0}])
def test_the_usage_snippet_runs(tmp_path, monkeypatch, capsys, recipe):
    model = toy_model(video={"feature_recipe": recipe})
    model.processor = TempCLRProcessor(train_tokenizer(["peel the onion", "chop it", "fry it in oil"]))
    model.save_pretrained(tmp_path / "toy")
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    card = model_card(model, model_name="toy")
    assert "No tokenizer" not in card
    snippet = card.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    # A model with a recipe takes a file; decoding and the backbone have tests of their own.
    exec(snippet.replace('"video.mp4"', '__import__("numpy").load("features.npy")'), names)
    assert names["text"].shape == (3, 32) and names["clips"].shape == (2, 32)
    assert [span["sentence"] for span in names["alignment"].spans] == names["sentences"]
    assert len(capsys.readouterr().out.splitlines()) >= 4
