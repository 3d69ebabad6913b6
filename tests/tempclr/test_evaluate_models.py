"""Evaluation of a tiny real model, from the library and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.cli import main
from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.evaluation.localization import evaluate_localization, localize_steps
from tempclr.evaluation.matching import evaluate_matching, match_shares
from tempclr.evaluation.retrieval import evaluate_retrieval
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel, TempCLRProcessor
from tempclr_kernels import alignment, dtw

SENTENCES = ["peel the onion", "chop it", "fry the onion", "add salt", "stir", "serve it hot", "wash the pan"]
FEATURE_SIZE = 8
RECIPE = {"backbone": "tiny", "features_per_second": 2.0}


@pytest.fixture(scope="module")
def model() -> TempCLRModel:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(SENTENCES, vocab_size=100)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = TempCLRConfig(
        text_config={**tower, "vocab_size": len(tokenizer), "initializer_range": 0.5},
        video_config={
            **tower,
            "vocab_size": len(tokenizer),
            "feature_size": FEATURE_SIZE,
            "max_num_features": 6,
            "initializer_range": 0.5,
            "feature_recipe": RECIPE,
        },
    )
    model = TempCLRModel(config).eval()
    model.processor = TempCLRProcessor(tokenizer, max_num_features=6)
    return model


def rows(num_videos: int = 7) -> list[dict]:
    generator = np.random.default_rng(0)
    made = []
    for index in range(num_videos):
        count = 1 + index % 4
        starts = [2.0 * step for step in range(count)]
        made.append(
            {
                "video_id": f"v{index}",
                "sentences": [SENTENCES[(index + step) % len(SENTENCES)] for step in range(count)],
                "starts": starts,
                "ends": [start + 1.5 for start in starts],
                "features": generator.normal(size=(4 * count + 3, FEATURE_SIZE)).astype(np.float32).tolist(),
                "features_per_second": 2.0,
                "task": f"task{index % 2}",
            }
        )
    return made


@pytest.fixture
def paragraphs() -> list[Paragraph]:
    return [Paragraph(**{**row, "features": np.array(row["features"], np.float32)}) for row in rows()]


def text_vectors(model, paragraph) -> torch.Tensor:
    batch = model.processor(text=list(paragraph.sentences))
    with torch.inference_mode():
        return model.get_text_features(batch["input_ids"], batch["attention_mask"]).pooler_output


def clip_vectors(model, paragraph, spans) -> torch.Tensor:
    """One clip at a time, cut by hand: features 2 a second, the first six of each clip."""
    clips = [paragraph.features[int(2 * start) : int(np.ceil(2 * end))][:6] for start, end in spans]
    with torch.inference_mode():
        return torch.cat([model.get_video_features(torch.from_numpy(clip)[None]).pooler_output for clip in clips])


def cosine_costs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 1 - torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T


@pytest.mark.parametrize("background", ["removed", "kept"])
def test_retrieval_ranks_are_those_of_one_pair_at_a_time(model, paragraphs, background):
    result = evaluate_retrieval(
        model, paragraphs, background=background, window_seconds=1.5, keep_ratio=100.0, batch_size=3
    )
    texts = [text_vectors(model, p) for p in paragraphs]
    if background == "removed":
        clips = [clip_vectors(model, p, zip(p.starts, p.ends, strict=True)) for p in paragraphs]
    else:
        ends = [len(p.features) / 2 for p in paragraphs]
        clips = [
            clip_vectors(model, p, [(s, min(s + 1.5, end)) for s in np.arange(0, end, 1.5)])
            for p, end in zip(paragraphs, ends, strict=True)
        ]
    for measure in ("cap_avg", "dtw"):
        scores = np.zeros((7, 7))
        for i, text in enumerate(texts):
            for j, clip in enumerate(clips):
                cost = cosine_costs(text, clip)
                scores[i, j] = (
                    (1 - cost).max(1).values.mean()
                    if measure == "cap_avg"
                    else -dtw(cost, impl="reference") / cost.numel()
                )
        expected = [1 + int((row > row[i] + 1e-5).sum()) for i, row in enumerate(scores)]
        loosest = [int((row > row[i] - 1e-5).sum()) for i, row in enumerate(scores)]
        found = result.ranks[measure]
        assert (np.array(expected) <= found).all() and (found <= np.array(loosest)).all(), measure
    assert result.num_queries == 7 and result.tie_rule == "pessimistic"
    assert result.protocols["dtw"].name == f"full-video/background-{background}/dtw"
    assert set(result.metrics["otam+cap_avg"]) == {"R@1", "R@5", "R@10", "median_rank"}
    assert result.metrics["dtw"]["R@10"] == 1.0


def test_batch_size_changes_no_rank(model, paragraphs):
    one = evaluate_retrieval(model, paragraphs, background="kept", window_seconds=1.0, batch_size=1)
    many = evaluate_retrieval(model, paragraphs, background="kept", window_seconds=1.0, batch_size=64)
    assert {m: r.tolist() for m, r in one.ranks.items()} == {m: r.tolist() for m, r in many.ranks.items()}


def test_the_mode_of_the_model_changes_nothing_and_stays(model, paragraphs):
    expected = evaluate_matching(model, paragraphs).per_video
    model.train()
    try:
        assert evaluate_matching(model, paragraphs).per_video.tolist() == expected.tolist()
        assert model.training
    finally:
        model.eval()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_localization_counts_frames_inside_the_own_segment(model, paragraphs, similarity, monkeypatch):
    from tempclr.inference import feature_hidden_states

    monkeypatch.setattr(model.config, "similarity", similarity)
    result = evaluate_localization(model, paragraphs)
    matched, total = {"task0": 0, "task1": 0}, {"task0": 0, "task1": 0}
    for paragraph, frames in zip(paragraphs, result.frames, strict=True):
        a, b = feature_hidden_states(model, paragraph.features), text_vectors(model, paragraph)
        logits = a @ b.T if similarity == "dot" else (1 - cosine_costs(a, b)) / model.config.temperature
        assert localize_steps(-logits.log_softmax(-1)).tolist() == frames.tolist()
        seconds = frames / 2
        inside = [start <= t < end for t, start, end in zip(seconds, paragraph.starts, paragraph.ends, strict=True)]
        matched[paragraph.task] += sum(inside)
        total[paragraph.task] += len(inside)
    assert result.recall_per_task == {task: matched[task] / total[task] for task in total}
    assert result.recall == pytest.approx(np.mean(list(result.recall_per_task.values())))
    assert result.num_steps == sum(total.values()) == sum(map(len, result.hits))
    assert result.protocol.temperature == (0.3 if similarity == "cosine" else 1.0)


def test_localization_of_too_short_a_video_names_it(model):
    short = Paragraph("v9", ["a", "b"], [0.0, 0.1], [0.2, 0.3], features=np.ones((1, 8)), features_per_second=2.0)
    with pytest.raises(InputError, match="video 'v9' has 1 features for 2 sentences"):
        evaluate_localization(model, [short])


def test_matching_shares_are_those_of_the_path(model, paragraphs):
    result = evaluate_matching(model, paragraphs)
    for paragraph, share in zip(paragraphs, result.per_video, strict=True):
        clips = clip_vectors(model, paragraph, zip(paragraph.starts, paragraph.ends, strict=True))
        path = alignment(cosine_costs(text_vectors(model, paragraph), clips), impl="reference")
        assert share == pytest.approx(float(path.diagonal().mean()))
    assert result.match_share == pytest.approx(result.per_video.mean())


def test_matching_of_known_costs():
    good, shifted = torch.ones(3, 3), torch.ones(3, 3)
    good.fill_diagonal_(0.0)
    shifted[0, 0] = shifted[0, 1] = shifted[0, 2] = shifted[1, 2] = shifted[2, 2] = 0.0
    padded = torch.full((3, 3), torch.nan)
    padded[:1, :1] = 0.5
    shares = match_shares(torch.stack([good, shifted, padded]), torch.tensor([3, 3, 1]))
    assert shares.tolist() == pytest.approx([1.0, 2 / 3, 1.0])


def test_nothing_to_evaluate_is_told(model, paragraphs):
    for evaluate in (evaluate_retrieval, evaluate_localization, evaluate_matching):
        with pytest.raises(InputError, match="the dataset is empty"):
            evaluate(model, [])
    with pytest.raises(ValueError, match="measures is empty"):
        evaluate_retrieval(model, paragraphs, measures=())
    bare = Paragraph("v1", ["a"], [0.0], [1.0], video="film.mp4")
    with pytest.raises(InputError, match="video 'v1' has no features: run `tempclr extract`"):
        evaluate_retrieval(model, [bare])


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    model.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    (folder / "data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "data/feature_recipe.json").write_text(json.dumps(RECIPE))
    return folder


def words(folder: Path, task: str, results: Path, **changes: str) -> list[str]:
    options = {"model": str(folder / "model"), "dataset": str(folder / "data/rows.jsonl"), "output": str(results)}
    return [task, "--quiet", *(word for key, value in (options | changes).items() for word in (f"--{key}", value))]


def test_the_command_writes_the_same_file_twice(folder, tmp_path, capsys):
    for name in ("a.json", "b.json"):
        given = [
            *words(folder, "retrieval", tmp_path / name),
            "--window_seconds",
            "1.5",
            "--measures",
            "dtw",
            "cap_avg",
        ]
        assert main(["evaluate", *given]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    found = json.loads((tmp_path / "a.json").read_text())
    kept = found["retrieval"]["background kept"]["measures"]
    assert set(kept) == {"dtw", "cap_avg"}
    assert kept["dtw"]["protocol"]["name"] == "full-video/background-kept/dtw"
    assert kept["dtw"]["protocol"]["window_seconds"] == 1.5
    assert found["left_out"] == {"num_rows": 0, "reasons": []}
    assert str(tmp_path) not in (tmp_path / "a.json").read_text()
    assert "| background removed | clean    | dtw" in capsys.readouterr().out


@pytest.mark.parametrize(("task", "name"), [("localization", "task0"), ("matching", "| matched |")])
def test_the_command_measures_the_other_tasks(folder, tmp_path, capsys, task, name):
    assert main(["evaluate", *words(folder, task, tmp_path / "results.json")]) == 0
    assert json.loads((tmp_path / "results.json").read_text())[task]["num_videos"] == 7
    assert name in capsys.readouterr().out


def test_bad_rows_are_told_or_left_out_and_listed(folder, tmp_path, capsys):
    bad = rows()
    bad[2]["starts"] = [-1.0, *bad[2]["starts"][1:]]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in bad))
    given = words(folder, "matching", tmp_path / "results.json", dataset=str(data))
    assert main(["evaluate", *given]) == 2
    captured = capsys.readouterr()
    assert "row 2, field 'starts'" in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "results.json").exists()
    assert main(["evaluate", *given, "--skip_bad_rows"]) == 0
    left_out = json.loads((tmp_path / "results.json").read_text())["left_out"]
    assert left_out["num_rows"] == 1 and "field 'starts'" in left_out["reasons"][0]
    assert str(tmp_path) not in (tmp_path / "results.json").read_text()


def test_features_of_another_recipe_are_refused(folder, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text((folder / "data/rows.jsonl").read_text())
    (tmp_path / "feature_recipe.json").write_text(json.dumps({**RECIPE, "features_per_second": 1.0}))
    given = words(folder, "matching", tmp_path / "results.json", dataset=str(tmp_path / "rows.jsonl"))
    assert main(["evaluate", *given]) == 2
    error = capsys.readouterr().err
    assert 'expected {"features_per_second": 2.0}, found {"features_per_second": 1.0}' in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "/no/such/model"}, "/no/such/model: no such model folder"),
        ({"model": "EMPTY"}, "no config.json here"),
        ({"model": "WEIGHTLESS"}, "this model folder has no weights"),
        ({"dataset": "/no/such/rows.jsonl"}, "/no/such/rows.jsonl"),
        ({"output": "results.txt"}, "--output takes a .json file"),
    ],
)
def test_mistakes_end_in_one_line(folder, tmp_path, capsys, change, message):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "WEIGHTLESS").mkdir()
    (tmp_path / "WEIGHTLESS/config.json").write_text((folder / "model/config.json").read_text())
    change = {key: str(tmp_path / value) if value.isupper() else value for key, value in change.items()}
    assert main(["evaluate", *words(folder, "matching", tmp_path / "results.json", **change)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "results.json").exists()
