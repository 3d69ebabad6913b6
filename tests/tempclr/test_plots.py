"""Pictures: what is drawn where, and that nothing half-written stays behind."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from tempclr.evaluation.metrics import retrieval_metrics
from tempclr.plots import (
    plot_alignment,
    plot_failures,
    plot_losses,
    plot_matches,
    plot_recalls,
    plot_retrieval,
    plot_tasks,
)
from tempclr.plots.matches import Failure, Match

SENTENCES = [
    "crack two eggs",
    "whisk them with salt until the mixture is pale and frothy all over",
    "it costs $5 or $6",
]
SPANS = [(0.0, 2.0), (2.5, 5.0), (5.0, 8.0)]


def example(measure: str = "dtw", rate: float = 1.0) -> SimpleNamespace:
    cost = torch.from_numpy(np.random.default_rng(0).uniform(0.2, 1.1, (3, 8)))
    path = torch.zeros(3, 8)
    path[0, :2] = path[1, 2:5] = path[2, 5:] = 1
    spans = [{"sentence": s, "start_seconds": 0.0, "end_seconds": 1.0, "similarity": 0.5} for s in SENTENCES]
    return SimpleNamespace(cost=cost, path=path, spans=spans, features_per_second=rate, measure=measure)


def test_the_alignment_picture_shows_similarity_path_truth_and_film(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (80, 24, 36, 3), dtype=np.uint8)
    figure = plot_alignment(
        example(),
        frames=frames,
        frame_seconds=np.arange(80) / 10,
        true_spans=SPANS,
        title="video",
        path=tmp_path / "new/picture.png",
    )
    heat, _, strip = figure.axes
    np.testing.assert_allclose(heat.images[0].get_array(), 1 - example().cost.numpy())
    assert heat.images[0].get_extent() == [0, 8, 3, 0]
    line = heat.get_lines()[0]
    assert line.get_xdata().tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]
    assert line.get_ydata().tolist() == [0.5, 0.5, 1.5, 1.5, 1.5, 2.5, 2.5, 2.5]
    assert line.get_linewidth() > 0
    outlines = [patch for patch in heat.patches if isinstance(patch, Rectangle)]
    assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in outlines] == SPANS
    labels = [label.get_text() for label in heat.get_yticklabels()]
    assert labels[1].count("\n") == 2 and labels[1].replace("\n", " ") == SENTENCES[1]
    assert labels[2] == r"it costs \$5 or \$6"
    assert [text.get_text() for text in heat.get_legend().get_texts()] == ["DTW path", "true segment"]
    # Each picture of the film is the frame nearest to the middle of its place on the time axis.
    edges = [image.get_extent()[:2] for image in strip.images]
    assert edges[0][0] == 0 and edges[-1][1] == pytest.approx(8)
    for (start, end), image in zip(edges, strip.images, strict=True):
        shown = image.get_array()
        nearest = frames[round((start + end) / 2 * 10) if (start + end) / 2 < 7.9 else 79]
        left = (36 - shown.shape[1]) // 2
        np.testing.assert_array_equal(shown, nearest[:, left : left + shown.shape[1]])
    with Image.open(tmp_path / "new/picture.png") as picture:
        assert picture.width > 900 and np.asarray(picture.convert("L")).std() > 10
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def test_scattered_cells_are_dots_and_time_follows_the_rate():
    alignment = example("localize", rate=2.0)
    alignment.path = torch.zeros(3, 8)
    alignment.path[[0, 1, 2], [1, 3, 7]] = 1
    figure = plot_alignment(alignment)
    line = figure.axes[0].get_lines()[0]
    assert line.get_linewidth() == 0 and line.get_xdata().tolist() == [0.75, 1.75, 3.75]
    assert figure.axes[0].images[0].get_extent() == [0, 4, 3, 0]
    assert len(figure.axes) == 2


def test_long_videos_lose_the_dots_but_keep_the_line():
    alignment = example()
    alignment.cost, alignment.path = torch.rand(1, 300), torch.ones(1, 300)
    alignment.spans = alignment.spans[:1]
    line = plot_alignment(alignment).axes[0].get_lines()[0]
    assert line.get_markersize() == 0 and line.get_linewidth() > 0


def test_a_sentence_that_does_not_fit_is_cut_visibly():
    alignment = example()
    alignment.spans = [{"sentence": "word " * 60}, *alignment.spans[1:]]
    label = plot_alignment(alignment).axes[0].get_yticklabels()[0].get_text()
    assert label.count("\n") == 2 and label.endswith("…")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"path": np.zeros((3, 7))}, {}, "one row a sentence in cost and path"),
        ({"spans": []}, {}, "0 sentences"),
        ({"cost": np.zeros(3)}, {}, "filled matrix"),
        ({}, {"true_spans": SPANS[:2]}, "2 spans for 3 sentences"),
        ({}, {"frames": np.zeros((2, 4, 4, 3), np.uint8)}, "come together"),
        ({}, {"frames": np.zeros((2, 4, 4), np.uint8), "frame_seconds": [0, 1]}, r"frames must be \(N, H, W, 3\)"),
        ({}, {"frames": np.zeros((2, 4, 4, 3), np.uint8), "frame_seconds": [0]}, "frames must be"),
    ],
)
def test_parts_that_do_not_fit_are_told(change, options, message):
    alignment = SimpleNamespace(**(vars(example()) | change))
    with pytest.raises(ValueError, match=message):
        plot_alignment(alignment, **options)


def test_a_picture_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="xyz"):
        plot_alignment(example(), path=tmp_path / "picture.xyz")
    assert not list(tmp_path.iterdir())


def test_loss_curves_have_a_panel_a_part_and_a_line_a_run(tmp_path):
    unit_only = [{"step": 1, "loss": 3.0, "unit_loss": 3.0}, {"step": 2, "unit_loss": 2.0}, {"train_loss": 2.0}]
    both = [{"step": 1, "unit_loss": 2.0, "sequence_loss": 3.0}, {"step": 1, "eval_unit_loss": 2.5}]
    figure = plot_losses({"unit loss": unit_only, "TempCLR": both}, path=tmp_path / "losses.png")
    unit, sequence = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["unit loss", "sequence loss"]
    assert [line.get_label() for line in unit.get_lines()] == ["unit loss", "TempCLR", "TempCLR, validation"]
    assert unit.get_lines()[0].get_ydata().tolist() == [3.0, 2.0]
    assert [line.get_label() for line in sequence.get_lines()] == ["TempCLR"]
    # The colour of a run is the same in both panels.
    assert sequence.get_lines()[0].get_color() == unit.get_lines()[1].get_color() != unit.get_lines()[0].get_color()
    assert (tmp_path / "losses.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="none of unit_loss, sequence_loss is in the histories, which hold loss"):
        plot_losses({"run": [{"loss": 1.0}]})


def test_retrieval_bars_are_as_high_as_the_metric():
    def result(values):
        metrics = {"cap_avg": retrieval_metrics(values), "dtw+cap_avg": retrieval_metrics(values[:2])}
        return SimpleNamespace(metrics=metrics)

    figure = plot_retrieval({"a": result([1, 2, 3]), "b": result([1, 1, 1])})
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == [1 / 3, 0.5, 1.0, 1.0]
    assert plot_retrieval({"a": result([1, 2, 30])}, metric="median_rank").axes[0].get_ylabel() == "median_rank"
    with pytest.raises(ValueError, match="'b' has the measures"):
        plot_retrieval({"a": result([1, 2]), "b": SimpleNamespace(metrics={})})


def test_plots_load_matplotlib_on_use_and_never_pyplot():
    code = (
        "import sys, tempclr.plots as p; assert 'matplotlib' not in sys.modules\n"
        "p.plot_losses({'a': [{'step': 1, 'unit_loss': 1.0}]}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_recalls_have_a_group_a_row_and_a_bar_a_recall(tmp_path):
    rows = {"dtw": {"R@1": 0.5, "R@5": 1.0, "median_rank": 2.0}, "otam": {"R@1": 0.25, "R@5": 0.75}}
    figure = plot_recalls(rows, path=tmp_path / "recalls.png")
    assert [patch.get_height() for patch in figure.axes[0].patches] == [50.0, 25.0, 100.0, 75.0]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["dtw", "otam"]
    assert (tmp_path / "recalls.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="'otam' has the entries"):
        plot_recalls({**rows, "otam": {"R@1": 0.1}})


def test_tasks_are_sorted_and_the_mean_is_a_line():
    figure = plot_tasks({"tea": 0.25, "toast": 0.75, "soup": 0.5}, mean=0.5)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["toast", "soup", "tea"]
    assert [patch.get_width() for patch in axes.patches] == [75.0, 50.0, 25.0]
    assert axes.get_lines()[0].get_xdata()[0] == 50.0
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best task stands on top


def test_matches_outline_the_path_and_mark_the_best_clip_off_it(tmp_path):
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.4, -0.001], [0.8, 0.0, 0.5]])
    pictures = [np.full((6, 9, 3), shade, np.uint8) for shade in (10, 90, 200)]
    figure = plot_matches(
        similarity,
        torch.eye(3),
        SENTENCES,
        thumbnails=pictures,
        clip_labels=["0 s", "2 s", "5 s"],
        title="a video",
        path=tmp_path / "matches.png",
    )
    cells, strip = figure.axes
    outlined = [(round(patch.get_x() + 0.46), round(patch.get_y() + 0.43)) for patch in cells.patches]
    assert outlined == [(0, 0), (1, 1), (2, 2)]
    dots = cells.get_lines()[0]
    assert (dots.get_xdata() + 0.32).round(6).tolist() == [0] and (dots.get_ydata() + 0.26).round(6).tolist() == [2]
    assert [text.get_text() for text in cells.texts][:6] == ["0.90", "0.10", "0.20", "0.30", "0.40", "0.00"]
    for image, picture in zip(strip.images, pictures, strict=True):
        np.testing.assert_array_equal(image.get_array(), picture)
    assert [label.get_text() for label in cells.get_xticklabels()] == ["0 s", "2 s", "5 s"]
    assert (tmp_path / "matches.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="one row a sentence: 2 sentences"):
        plot_matches(similarity, torch.eye(3), SENTENCES[:2])
    with pytest.raises(ValueError, match="one of thumbnails a clip: 2 for 3 clips"):
        plot_matches(similarity, torch.eye(3), SENTENCES, thumbnails=pictures[:2])


def test_failures_show_the_own_video_and_the_winner_in_one_scale(tmp_path):
    own = Match("v1", torch.tensor([[0.1, 0.2], [0.3, 0.0]]), torch.eye(2))
    first = Match("v2", torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.0, 0.5]]), torch.tensor([[1.0, 1.0, 0], [0, 0, 1]]))
    figure = plot_failures([Failure(SENTENCES[:2], 7, own, first)], path=tmp_path / "failures.png")
    left, right = figure.axes
    assert left.get_title(loc="left") == "own video v1, rank 7"
    assert right.get_title(loc="left") == "ranked first: v2"
    assert left.images[0].get_clim() == right.images[0].get_clim()
    assert (len(left.patches), len(right.patches)) == (2, 3)
    assert left.get_yticklabels()[1].get_text().endswith("…")
    with pytest.raises(ValueError, match="no failure"):
        plot_failures([])


def test_a_sentence_may_have_several_true_spans_or_none():
    figure = plot_alignment(example(), true_spans=SPANS, span_rows=[2, 0, 2])
    boxes = [patch for patch in figure.axes[0].patches if patch.get_label() == "true segment"]
    assert [round(box.get_y()) for box in boxes] == [2, 0, 2]
    with pytest.raises(ValueError, match="3 spans for 1 sentences"):
        plot_alignment(example(), true_spans=SPANS, span_rows=[1])
