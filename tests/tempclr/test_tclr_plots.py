"""t-SNE by its own definition, and the pictures of TCLR."""

from __future__ import annotations

import numpy as np
import pytest

from tempclr.plots.tclr import Neighbours, plot_attention, plot_classes, plot_neighbours, plot_slice_similarity
from tempclr.plots.tclr_tsne import joint_affinities, kl_gradient, tsne


def clusters(num_clusters=4, size=15, *, width=20, seed=0):
    random = np.random.default_rng(seed)
    centres = 6 * random.normal(size=(num_clusters, width))
    labels = np.repeat(np.arange(num_clusters), size)
    return centres[labels] + random.normal(size=(len(labels), width)), labels


def test_affinities_have_the_perplexity_asked_for():
    points, _ = clusters()
    for perplexity in (3.0, 12.0):
        joint = joint_affinities(points, perplexity=perplexity)
        assert np.allclose(joint, joint.T) and joint.sum() == pytest.approx(1.0) and not joint.diagonal().any()
    # On a ring all points are alike: the joint rows are the conditional ones, whose perplexity is the asked one.
    angles = np.arange(24) * 2 * np.pi / 24
    rows = 24 * joint_affinities(np.stack([np.cos(angles), np.sin(angles)], axis=1) * 1e3, perplexity=5.0)
    entropy = -(rows * np.log(np.where(rows > 0, rows, 1))).sum(axis=1)
    np.testing.assert_allclose(np.exp(entropy), 5.0, rtol=1e-6)


def test_the_gradient_is_that_of_the_divergence():
    points, _ = clusters(3, 5)
    affinities = joint_affinities(points, perplexity=4.0)
    places = np.random.default_rng(1).normal(size=(15, 2))
    _, gradient = kl_gradient(places, affinities)
    for row, column in ((0, 0), (7, 1), (14, 0)):
        shift = np.zeros_like(places)
        shift[row, column] = 1e-5
        numeric = (kl_gradient(places + shift, affinities)[0] - kl_gradient(places - shift, affinities)[0]) / 2e-5
        assert gradient[row, column] == pytest.approx(numeric, rel=1e-5, abs=1e-9)


def test_clusters_come_out_as_clusters_and_the_divergence_falls():
    points, labels = clusters()
    affinities = joint_affinities(points, perplexity=10.0)
    short, long = (tsne(points, perplexity=10.0, num_steps=steps) for steps in (260, 600))
    assert kl_gradient(long, affinities)[0] < min(kl_gradient(short, affinities)[0], 1.0)
    distances = np.linalg.norm(long[:, None] - long[None], axis=-1) + 1e9 * np.eye(len(long))
    assert (labels[distances.argsort(axis=1)[:, :5]] == labels[:, None]).mean() > 0.98
    assert np.array_equal(long, tsne(points, perplexity=10.0, num_steps=600)), "no chance in it"


def test_units_do_not_matter_and_flat_data_is_drawn():
    points, _ = clusters(3, 8)
    one, other = (tsne(scale * points, perplexity=5.0, num_steps=30) for scale in (1.0, 1024.0))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-9)
    assert np.isfinite(tsne(np.arange(12.0)[:, None], perplexity=3.0, num_steps=300)).all()


@pytest.mark.parametrize(
    ("points", "perplexity", "told"),
    [
        (np.zeros((3, 2)), 1.0, r"4 to 5000 finite vectors \(N, D\), got shape \(3, 2\)"),
        (np.full((9, 2), np.nan), 2.0, "finite"),
        (np.zeros((9, 2)), 3.0, "below a third of 9"),
    ],
)
def test_what_tsne_cannot_take_is_told(points, perplexity, told):
    with pytest.raises(ValueError, match=told):
        tsne(points, perplexity=perplexity)


def video(color, *, num_frames=8, height=24, width=32):
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., :] = color
    for step in range(num_frames):
        frames[step, 8:14, 3 * step : 3 * step + 6] = 255
    return frames


def test_slices_are_drawn_with_their_numbers(tmp_path):
    maps = {"instance": np.full((4, 4), 0.97), "TCLR": np.eye(4) * 0.8 + 0.2}
    figure = plot_slice_similarity(maps, path=tmp_path / "slices.png")
    texts = [text.get_text() for axes in figure.axes[:2] for text in axes.texts]
    assert texts[:2] == ["0.97", "0.97"] and texts[16:18] == ["1.00", "0.20"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["instance", "TCLR"]
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim() == (0.0, 1.0)
    assert (tmp_path / "slices.png").read_bytes()[:4] == b"\x89PNG"


def test_classes_have_one_look_in_all_panels(tmp_path):
    places = {name: np.random.default_rng(seed).normal(size=(9, 2)) for seed, name in enumerate(("a", "b"))}
    figure = plot_classes(places, ["x", "y", "z$"] * 3, path=tmp_path / "classes.png")
    assert [len(axes.collections) for axes in figure.axes] == [3, 3]
    colors = [[tuple(points.get_facecolor()[0]) for points in axes.collections] for axes in figure.axes]
    assert colors[0] == colors[1] and len(set(colors[0])) == 3
    with pytest.raises(ValueError, match=r"'a' must be \(8, 2\)"):
        plot_classes(places, ["x"] * 8)


def test_attention_lies_over_the_frames(tmp_path):
    maps = {"TCLR": np.random.default_rng(0).random((4, 3, 4)), "random": np.zeros((4, 3, 4))}
    figure = plot_attention(video((200, 30, 30)), maps, max_frames=4, path=tmp_path / "attention.png")
    assert len(figure.axes) == 12 and [len(axes.images) for axes in figure.axes] == [1] * 4 + [2] * 8
    np.testing.assert_array_equal(figure.axes[5].images[1].get_array(), maps["TCLR"][1])
    assert {tuple(image.get_extent()) for axes in figure.axes for image in axes.images} == {(0, 32, 24, 0)}
    with pytest.raises(ValueError, match=r"frames must be \(T, H, W, 3\)"):
        plot_attention(np.zeros((4, 4, 3)), maps)


def test_neighbours_are_marked_right_or_wrong(tmp_path):
    red, blue = video((200, 30, 30)), video((30, 30, 200))
    queries = [Neighbours(red, "left", [blue, red], ["left", "right"]), Neighbours(blue, "up", [red], ["up"])]
    figure = plot_neighbours(queries, path=tmp_path / "neighbours.png")
    assert [axes.get_title() for axes in figure.axes] == ["query: left", "✓ left", "✗ right", "query: up", "✓ up", ""]
    assert figure.axes[0].images[0].get_array().shape == (24, 96, 3) and not figure.axes[5].get_visible()


def test_nothing_to_draw_is_told():
    for draw in (plot_slice_similarity, lambda empty: plot_classes(empty, []), lambda e: plot_attention(video(0), e)):
        with pytest.raises(ValueError, match="there is no model to draw"):
            draw({})
    with pytest.raises(ValueError, match="there is no query to draw"):
        plot_neighbours([])
