"""Every task under both protocols from one embedding, and the report folder with its pictures."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world

from tempclr.cli import main
from tempclr.data.video import write_video
from tempclr.evaluation import (
    embed_paragraphs,
    evaluate_localization,
    evaluate_moments,
    evaluate_retrieval,
    report_pictures,
)
from tempclr.evaluation.embeddings import Embeddings, hidden_cls
from tempclr.evaluation.localization import localize_steps, step_frames, step_texts
from tempclr.evaluation.paper import METRICS, PAPER_NUMBERS, paper_numbers
from tempclr.evaluation.report_pages import comparison_tables, write_report
from tempclr.evaluation.report_pictures import worst_queries
from tempclr.evaluation.suite import Measured, measure_task

WINDOWS = {"window_seconds": 3.0}


@pytest.fixture(scope="module")
def model():
    model = world.make_model().eval()
    model.processor = world.make_processor()
    return model


@pytest.fixture(scope="module")
def paragraphs():
    made = world.make_paragraphs(9, seed=3)
    return [replace(one, task=f"task{number % 2}") for number, one in enumerate(made)]


def recorded(monkeypatch, name):
    """What the calls of a function of tempclr.inference are given, behind the model."""
    import tempclr.inference as inference

    given = []
    original = getattr(inference, name)
    monkeypatch.setattr(
        inference, name, lambda model, values, **options: (given.append(values), original(model, values, **options))[1]
    )
    return given


def test_nothing_is_embedded_twice(model, paragraphs, monkeypatch):
    """Four results, but sentences, segments, and windows with and without [CLS] go through the towers once each."""
    texts, clips = recorded(monkeypatch, "encode_text"), recorded(monkeypatch, "encode_cut_clips")
    measured = measure_task(model, paragraphs, "retrieval", protocols=["clean", "official", "clean"], **WINDOWS)
    assert [len(own) for own in texts] == [len({text for one in paragraphs for text in one.sentences})]
    assert sum(map(len, clips)) == 3 * len(paragraphs)
    assert all(map(len, clips))
    assert list(measured.results) == [
        "background removed",
        "background removed, official",
        "background kept",
        "background kept, official",
    ]
    for background in ("removed", "kept"):
        for protocol, name in (("clean", ""), ("official", ", official")):
            alone = evaluate_retrieval(model, paragraphs, background=background, protocol=protocol, **WINDOWS)
            assert measured.results[f"background {background}{name}"].metrics == alone.metrics


def test_a_step_of_several_videos_is_embedded_once(model, paragraphs, monkeypatch):
    steps = tuple(paragraphs[0].sentences)
    few = [replace(one, steps=steps, step_indices=(0,) * len(one)) for one in paragraphs]
    texts = recorded(monkeypatch, "encode_text")
    evaluate_localization(model, few)
    assert texts == [list(steps), list(steps)]  # nine videos are two groups


@pytest.mark.parametrize("background", ["removed", "kept"])
def test_equal_videos_tie_in_whatever_batch_they_are(model, paragraphs, background, monkeypatch):
    """Note [Equal clips have equal vectors] in embeddings.py: as if each batch had its own rounding."""
    import tempclr.inference as inference

    original, calls = inference.encode_cut_clips, []

    def rounded(*arguments, **options):
        calls.append(arguments)
        return [rows * (1 - 1e-6 * len(calls)) for rows in original(*arguments, **options)]

    monkeypatch.setattr(inference, "encode_cut_clips", rounded)
    rows = [*paragraphs[:8], replace(paragraphs[0], video_id="twin")]
    embeddings = embed_paragraphs(model, rows, background=background, **(WINDOWS if background == "kept" else {}))
    assert len(calls) == 2
    assert torch.equal(embeddings.clips[0], embeddings.clips[8])
    assert torch.equal(embeddings.sentences[0], embeddings.sentences[8])


def test_official_windows_hide_cls_and_leave_the_model_as_it_was(model, paragraphs):
    with hidden_cls(model):
        hidden = embed_paragraphs(model, paragraphs, background="kept", **WINDOWS)
    shown = embed_paragraphs(model, paragraphs, background="kept", **WINDOWS)
    assert model.video_model.config.attend_cls
    assert not torch.allclose(hidden.clips, shown.clips) and torch.equal(hidden.sentences, shown.sentences)


def test_all_steps_of_the_task_are_localized(model, paragraphs):
    """The task lists more steps than the video shows, one of them twice: each step is counted once."""
    features = np.random.default_rng(0).normal(size=(12, world.FEATURE_SIZE)).astype(np.float32)
    one = replace(
        paragraphs[0],
        sentences=["beat two eggs", "cut the bread", "cut the bread"],
        starts=[1.0, 4.0, 8.0],
        ends=[3.0, 6.0, 10.0],
        features=features,
        steps=("beat two eggs", "melt the butter", "cut the bread", "serve it hot"),
        step_indices=(0, 2, 2),
    )
    inside = step_frames(one, 12)
    assert step_texts(one) == list(one.steps)
    assert [np.flatnonzero(column).tolist() for column in inside.T] == [[1, 2], [], [4, 5, 8, 9], []]
    result = evaluate_localization(model, [one])
    assert result.frames[0].shape == (4,) and (np.diff(result.frames[0]) > 0).all()
    assert result.annotated[0].tolist() == [True, False, True, False] and result.num_steps == 2
    expected = [bool(inside[frame, step]) for step, frame in enumerate(result.frames[0])]
    assert result.hits[0].tolist() == expected
    assert result.recall == sum(expected) / 2


def test_the_official_localization_takes_products_and_loses_videos_without_room(model, paragraphs):
    result = evaluate_localization(model, paragraphs, protocol="official")
    assert result.protocol.name == "step-localization/one-frame-a-step/official"
    from tempclr.inference import encode_text, feature_hidden_states

    for paragraph, frames in zip(paragraphs, result.frames, strict=True):
        with hidden_cls(model):
            states = feature_hidden_states(model, paragraph.features)
        logits = states @ encode_text(model, paragraph.sentences).T
        assert localize_steps(-logits.log_softmax(-1)).tolist() == frames.tolist()
    tight = replace(
        paragraphs[0], features=paragraphs[0].features[: len(paragraphs[0])], starts=[0.0] * len(paragraphs[0])
    )
    lost = evaluate_localization(model, [tight, paragraphs[1]], protocol="official")
    assert (lost.frames[0] == -1).all() and not lost.hits[0].any()
    assert evaluate_localization(model, [tight]).frames[0].tolist() == list(range(len(tight)))


@pytest.mark.parametrize("task", ["clip-retrieval", "matching", "localization", "moments"])
def test_every_task_gives_both_protocols(model, paragraphs, task):
    rows = paragraphs
    if task == "moments":
        spans = [tuple(((0.0, 5.0), (0.0, 5.0)) for _ in one.sentences) for one in rows]
        rows = [replace(one, annotator_spans=own) for one, own in zip(rows, spans, strict=True)]
        with pytest.raises(ValueError, match="the model takes 1 a chunk to 8"):
            measure_task(model, rows, task)
        return
    measured = measure_task(model, rows, task, protocols=["clean", "official"])
    assert list(measured.results) == [task, f"{task}, official"]
    ours, paper = comparison_tables(measured)
    assert "| official" in ours and "Table" in paper
    names = json.dumps(
        {name: result.to_dict() for name, result in measured.results.items()}, default=lambda value: value.to_dict()
    )
    assert names.count("/official") >= 1


def test_unknown_tasks_are_refused(model, paragraphs):
    with pytest.raises(ValueError, match="task must be one of retrieval, clip-retrieval"):
        measure_task(model, paragraphs, "cooking")


def test_the_paper_numbers_fit_their_tasks():
    for row in PAPER_NUMBERS:
        assert len(row.values) == len(METRICS[row.task]) and all(0 < value <= 100 for value in row.values)
    best = paper_numbers("retrieval", setting="background removed", measure="dtw")
    assert [row.values[0] for row in best if row.dataset == "YouCook2"] == [56.0, 83.5]


def test_the_worst_queries_come_first():
    assert worst_queries(np.array([1.0, 7.0, 2.0, np.nan, 1.0])) == [3, 1, 2]
    assert worst_queries(np.arange(30)) == list(range(29, 19, -1))


@pytest.fixture(scope="module")
def folder(model, paragraphs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    model.save_pretrained(folder / "model")
    frames = (np.full((24, 32, 3), 9 * number, np.uint8) for number in range(20))
    write_video(folder / "film.mp4", frames, frames_per_second=1)
    rows = []
    for number, one in enumerate(paragraphs):
        row = {name: getattr(one, name) for name in ("video_id", "sentences", "starts", "ends", "task")}
        row |= {"features": one.features.tolist(), "features_per_second": 1.0}
        row |= {"video": "film.mp4"} if number < 8 else {}
        rows.append(row)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("task", ["retrieval", "localization"])
def test_the_report_shows_numbers_the_paper_and_pictures(folder, tmp_path, task):
    words = ["evaluate", task, "--model", str(folder / "model"), "--dataset", str(folder / "rows.jsonl"), "--quiet"]
    words += ["--report", str(tmp_path / "out"), "--protocol", "clean", "official", "--window_seconds", "3"]
    assert main(words) == 0
    page = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert "not comparable" in page and str(tmp_path) not in page
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert len(pictures) == len(set(pictures)) >= 8
    for picture in pictures:
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    assert {f"figures/{path.name}" for path in (tmp_path / "out/figures").iterdir()} == set(pictures)
    assert "names no video" in page and page.count("no filmstrip") == 1
    assert "worst failures" in page
    if task == "retrieval":
        shown = 100 * results["retrieval"]["background kept, official"]["measures"]["otam"]["R@1"]
        assert re.search(rf"background kept +\| official \| otam +\| +{shown:.1f} ", page)
        assert "83.5 / 97.2 / 99.3" in page
    else:
        assert "36.9" in page and f"{100 * results['localization']['recall']:.1f}" in page


def test_the_command_wants_somewhere_to_write(folder, capsys):
    words = ["evaluate", "matching", "--model", str(folder / "model"), "--dataset", str(folder / "rows.jsonl")]
    assert main(words) == 2
    assert "--output results.json, --report FOLDER" in capsys.readouterr().err
    assert main([*words, "--protocol", "released", "--output", "a.json"]) == 2
    assert "released" in capsys.readouterr().err
    moments = ["moments" if word == "matching" else word for word in words]
    assert main([*moments, "--output", str(folder / "a.json")]) == 2
    assert "field 'annotator_spans'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_sentences": torch.tensor([0, 1])}, r"num_sentences\[0\] is 0, expected 1 to 3"),
        ({"num_clips": torch.tensor([1])}, "one entry for 2 videos"),
        ({"clips": torch.zeros(2, 4, 5)}, "one space on one device"),
        ({"clips": torch.zeros(2, 4)}, "must be floating"),
        ({"sentences": torch.full((2, 3, 6), torch.nan)}, r"sentences\[0\] holds a vector that is not finite"),
    ],
)
def test_embeddings_check_themselves(change, message):
    lengths = torch.tensor([2, 1])
    good = {
        "sentences": torch.ones(2, 3, 6),
        "num_sentences": lengths,
        "clips": torch.ones(2, 4, 6),
        "num_clips": lengths,
    }
    good["clips"][1, 1:] = torch.nan  # beyond the length anything may stand
    Embeddings(**good)
    with pytest.raises(ValueError, match=message):
        Embeddings(**(good | change))


def test_the_other_reports_list_their_failures(model, paragraphs, tmp_path, monkeypatch):
    monkeypatch.setattr(report_pictures, "NUM_EXAMPLES", 1)
    spans = [tuple(((0.0, 2.0), (0.0, 4.0)) for _ in one.sentences) for one in paragraphs]
    rows = [replace(one, annotator_spans=own) for one, own in zip(paragraphs, spans, strict=True)]
    ranked = evaluate_moments(model, rows, chunk_seconds=2.0, num_chunks=4)
    measured = [Measured("moments", {"moments": ranked}, {})]
    measured += [measure_task(model, rows, task) for task in ("clip-retrieval", "matching")]
    for one in measured:
        write_report(tmp_path / one.task, one, model, rows, model_name="small", dataset_name="rows")
        page = (tmp_path / one.task / "report.md").read_text(encoding="utf-8")
        assert f"The 10 worst failures, {one.task}" in page and "model `small`" in page
        assert (tmp_path / one.task / "results.json").exists()
    worst = worst_queries(ranked.ranks)
    assert f"{ranked.ranks[worst[0]]:.1f} |" in (tmp_path / "moments/report.md").read_text(encoding="utf-8")


def test_a_second_report_replaces_the_first_and_keeps_other_files(model, paragraphs, tmp_path, monkeypatch):
    monkeypatch.setattr(report_pictures, "NUM_EXAMPLES", 1)
    names = {"model_name": "small", "dataset_name": "rows"}
    write_report(tmp_path, measure_task(model, paragraphs[:2], "localization"), model, paragraphs[:2], **names)
    assert (tmp_path / "figures/tasks-0.png").exists()
    (tmp_path / "figures/mine.png").write_bytes(b"of somebody else")
    write_report(tmp_path, measure_task(model, paragraphs[:2], "matching"), model, paragraphs[:2], **names)
    shown = re.findall(r"\(figures/([^)]+)\)", (tmp_path / "report.md").read_text(encoding="utf-8"))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {*shown, "mine.png"} and len(shown) == 2


def test_the_picture_of_a_localization_shows_all_steps_of_the_task(model, paragraphs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("tempclr.plots.plot_alignment", lambda aligned, **options: drawn.append((aligned, options)))
    row = replace(
        paragraphs[0],
        sentences=["cut the bread", "beat two eggs", "cut the bread"],
        starts=[1.0, 2.0, 3.0],
        ends=[2.0, 3.0, 4.0],
        steps=("beat two eggs", "melt the butter", "cut the bread"),
        step_indices=(2, 0, 2),
    )
    for task in ("localization", "matching"):
        report_pictures._draw_alignment(tmp_path, 0, model, row, task, None)
    (steps, of_steps), (sentences, of_sentences) = drawn
    assert tuple(span["sentence"] for span in steps.spans) == row.steps and steps.measure == "localize"
    assert of_steps["span_rows"] == (2, 0, 2) and of_steps["true_spans"] == [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    assert [span["sentence"] for span in sentences.spans] == row.sentences and of_sentences["span_rows"] is None
