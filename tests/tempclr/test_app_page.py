"""The page's pieces without a browser: what is aligned, what is told, and that nothing typed becomes HTML."""

from __future__ import annotations

import base64
import builtins
import importlib.util
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from tempclr.app import aligning, page, space
from tempclr.app.aligning import MAX_CHARACTERS, MAX_SENTENCES, Aligner, split_sentences
from tempclr.app.examples import NUM_MADE, make_examples, read_examples
from tempclr.app.interface import public_name
from tempclr.cli import main
from tempclr.errors import InputError
from tempclr.inference import Alignment
from tempclr.models.tempclr import TempCLRModel

spec = importlib.util.spec_from_file_location("app_world", Path(__file__).with_name("app_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)

NASTY = """<img src=x onerror=alert(1)> "quoted" 'single' & ${value} {{value}} </svg></section>"""


class Elements(HTMLParser):
    """Every element with its attributes, in order; fails on tags that do not close each other."""

    VOID = ("image", "line", "path", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of the elements with that tag or class."""
        return [kept for tag, kept in self.found if name == tag or name in (kept.get("class") or "").split()]


def alignment(*, measure="dtw", sentences=("peel", "fry"), rate=1.0, duration=4.0, missing=()) -> Alignment:
    """Two or more sentences that share the time evenly, but for those that are missing."""
    count, num_features = len(sentences), round(duration * rate)
    path = torch.zeros(count, num_features)
    spans = []
    for row, sentence in enumerate(sentences):
        first, last = row * num_features // count, (row + 1) * num_features // count
        found = row not in missing
        path[row, first:last] = float(found)
        times = {"start_seconds": first / rate, "end_seconds": last / rate, "similarity": 0.5}
        spans.append({"sentence": sentence, **(times if found else dict.fromkeys(times))})
    return Alignment("film.mp4", duration, measure, rate, spans, 1 - path * 0.8 + 0.1, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("app")
    world.make_model(made)
    world.make_video(made / "film.mp4")
    return made


@pytest.fixture(scope="module")
def aligner(folder) -> Aligner:
    return Aligner(TempCLRModel.from_pretrained(folder / "model"), max_minutes=0.1)


@pytest.mark.parametrize("measure", ["dtw", "otam", "localize"])
@pytest.mark.parametrize("count", [1, 3, 11])
def test_it_aligns_as_the_model_does(folder, aligner, measure, count):
    """Note [The video ends within a feature]: 5.3 seconds at two features a second, with shared features too."""
    sentences = (world.SENTENCES * 4)[:count]
    found = aligner.align(folder / "film.mp4", "\n".join(sentences), measure=measure)
    expected = aligner.model.align(str(folder / "film.mp4"), sentences, measure=measure)
    assert found.duration == expected.duration == pytest.approx(5.3)
    assert torch.equal(found.path, expected.path) and torch.equal(found.cost, expected.cost)
    for ours, theirs in zip(found.spans, expected.spans, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-9)
    assert found.video == "film.mp4"


def test_more_sentences_than_features_share_the_end(folder, aligner):
    sentences = ["peel"] * 30
    found = aligner.align(folder / "film.mp4", "\n".join(sentences), measure="dtw")
    assert found.spans == aligner.model.align(str(folder / "film.mp4"), sentences).spans
    assert found.spans[-1]["end_seconds"] == pytest.approx(5.3)


def test_a_video_is_read_once_and_its_progress_told(folder, monkeypatch):
    fresh = Aligner(TempCLRModel.from_pretrained(folder / "model"))
    monkeypatch.setattr(aligning, "KEPT_VIDEOS", 1)
    shares: list[float] = []
    fresh.align(folder / "film.mp4", "peel", measure="dtw", on_progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0, abs=0.05)
    told = len(shares)
    fresh.align(folder / "film.mp4", "fry", measure="otam", on_progress=shares.append)
    assert len(shares) == told
    fresh.align(world.make_video(folder / "other.mp4", seconds=2), "fry", measure="dtw", on_progress=shares.append)
    fresh.align(folder / "film.mp4", "fry", measure="dtw", on_progress=shares.append)
    assert len(shares) > told + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no sentence yet"),
        (" \n\t\n", "there is no sentence yet"),
        ("peel\n" * (MAX_SENTENCES + 1), f"these are {MAX_SENTENCES + 1} sentences, this page takes up to"),
        ("fry\n" + "x" * (MAX_CHARACTERS + 1), f"sentence 2 has {MAX_CHARACTERS + 1} characters"),
    ],
)
def test_sentences_that_will_not_do(folder, aligner, text, message):
    with pytest.raises(InputError, match=message):
        aligner.align(folder / "film.mp4", text, measure="dtw")


def test_sentences_are_the_lines():
    assert split_sentences("\r\n peel  the\tonion \r\n\u2028fry it\n") == ["peel the onion", "fry it"]
    assert len(split_sentences("a\n" * MAX_SENTENCES)) == MAX_SENTENCES


def test_videos_that_will_not_do(folder, aligner, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    world.make_video(tmp_path / "long.mp4", seconds=7)
    for video, message in (
        (None, "there is no video yet"),
        (tmp_path / "gone.mp4", "no such video file"),
        (tmp_path / "bad.mp4", "cannot be read as video"),
        (tmp_path / "empty.mp4", r"empty \(0 bytes\)"),
        (tmp_path / "long.mp4", "this page takes up to 0.1"),
    ):
        with pytest.raises(InputError, match=message):
            aligner.align(video, "peel", measure="dtw")
    with pytest.raises(ValueError, match="12 steps need at least as many frames, got 11"):
        aligner.align(folder / "film.mp4", "peel\n" * 12, measure="localize")


def test_models_that_will_not_do(folder, tmp_path):
    def model(**changes):
        loaded = TempCLRModel.from_pretrained(folder / "model")
        recipe = loaded.config.video_config.feature_recipe
        loaded.config.video_config.feature_recipe = {**recipe, **changes} if changes else None
        return loaded

    speechless = TempCLRModel.from_pretrained(folder / "model")
    speechless.processor = None
    for given, options, message in (
        (speechless, {}, "has no processor"),
        (model(), {}, "does not record how features are made"),
        (model(backbone_sha256="0" * 64), {}, "differ"),
        (model(backbone=str(tmp_path / "nowhere"), backbone_sha256=""), {}, "nowhere"),
        (TempCLRModel.from_pretrained(folder / "model"), {"max_minutes": float("nan")}, "max_minutes"),
    ):
        with pytest.raises(InputError, match=message):
            Aligner(given, **options)


@pytest.mark.parametrize("measure", ["dtw", "otam", "localize"])
def test_what_is_typed_stays_text(measure):
    made = alignment(sentences=(NASTY, "fry", NASTY), measure=measure, missing=(2,))
    made.video = f"{NASTY}.mp4"
    found = Elements(page.render_alignment(made))
    assert not found.of("img") and not any(name.startswith("on") for _, kept in found.found for name in kept)
    assert found.text.count(NASTY) == 2  # in the list, found and not found; in the timeline it is an attribute
    assert [kept["title"] for kept in found.of("tc-span")] == [NASTY, "fry"]
    (link,) = found.of("a")
    assert json.loads(unquote((link["href"] or "").partition(",")[2]))["spans"][0]["sentence"] == NASTY
    for text in (
        page.render_problem(NASTY),
        page.render_hint(NASTY),
        page.render_header(NASTY),
        page.render_player(NASTY, name=NASTY),
    ):
        assert not Elements(text).of("img")


def test_each_sentence_is_a_button_to_its_second():
    found = Elements(page.render_alignment(alignment(sentences=("peel", "fry", "serve"), duration=6, missing=(0,))))
    rows = found.of("tc-row")
    assert [kept.get("data-seek") for kept in rows] == [None, "2", "4"]
    assert [kept.get("data-end") for kept in rows] == [None, "4", "6"]
    assert [tag for tag, kept in found.found if "tc-row" in (kept.get("class") or "")] == ["div", "button", "button"]
    assert "2 of 3 sentences found in 0:06 of video by otam".replace("otam", "dtw") in found.text
    assert "not in this video" in found.text and "0:02 to 0:04similarity 0.50" in found.text
    styles = [kept["style"] or "" for kept in found.of("tc-span")]
    assert [re.findall(r"(?:left|width):([\d.]+)%", style) for style in styles] == [
        ["33.3333", "33.3333"],
        ["66.6667", "33.3333"],
    ]


def test_the_heat_map_shows_the_cost_and_its_path():
    made = alignment(sentences=("peel", "fry", "serve"), rate=2.0, duration=6.0)
    made.cost[1, 2] = float("nan")
    found = Elements(page.render_alignment(made))
    (image,) = found.of("image")
    kind, _, data = (image["href"] or "").partition(",")
    assert kind == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int).sum(-1)
    assert pixels.shape == (3, 12)
    assert (pixels[made.path.numpy() > 0] < pixels[made.path.numpy() == 0].min()).all()
    assert (image["width"], image["height"]) == ("6", "3")
    lines = {kept["d"] for kept in found.of("path")}
    assert lines == {"M" + "L".join(f"{page._number((c + 0.5) / 2)} {c // 4 + 0.5}" for c in range(12))}
    assert "from -0.10 to 0.70" in found.text


def test_chosen_moments_are_dots_and_no_path_is_no_line():
    dots = Elements(page.render_alignment(alignment(measure="localize", duration=2.0)))
    assert {kept["d"] for kept in dots.of("path")} == {"M0.5 0.5h0M1.5 1.5h0"}
    none = Elements(page.render_alignment(alignment(measure="otam", missing=(0, 1))))
    assert {kept["d"] for kept in none.of("path")} == {""} and "0 of 2 sentences found" in none.text
    flat = alignment()
    flat.cost[:] = float("nan")
    assert "from 0.00 to 0.00" in Elements(page.render_alignment(flat)).text


@pytest.mark.parametrize("duration", [0.5, 3, 61, 600, 7300, 100_000])
def test_the_axis_has_few_labels_within_the_page(duration):
    ticks = re.findall(r'left:([\d.]+)%">([\d:]+)<', page._axis(alignment(duration=duration, rate=10 / duration)))
    assert ticks[0] == ("0", "0:00") and len(ticks) <= page.MAX_TICKS + 28
    assert len(ticks) <= page.MAX_TICKS + 1 or duration > 18_000 * page.MAX_TICKS
    assert all(float(place) <= 97 for place, _ in ticks)


def test_times_are_read_as_on_a_player():
    seconds = [0, 0.04, 0.06, 59.96, 61.5, 3599.99, 3725.3]
    assert [page.clock(s) for s in seconds] == ["0:00", "0:00", "0:00.1", "1:00", "1:01.5", "1:00:00", "1:02:05.3"]


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("color", page.COLORS)
def test_colours_can_be_read(color):
    """WCAG AA: 4.5 for the white numbers on them, 3 between them and a white or a dark page."""
    assert 1.05 / (luminance(color) + 0.05) >= 4.5
    assert (luminance(color) + 0.05) / (luminance("#0b0f19") + 0.05) >= 3


def test_examples_are_made_or_read(folder, tmp_path):
    made = make_examples(tmp_path / "made")
    assert len(made) == NUM_MADE and all(example.video.is_file() for example in made)
    assert all(split_sentences(example.text) == list(example.sentences) for example in made)
    (tmp_path / "own").mkdir()
    read = read_examples(world.make_examples(tmp_path / "own"))
    assert [example.video.name for example in read] == ["film0.mp4", "film1.mp4"]
    assert read[0].sentences == tuple(world.SENTENCES)
    (tmp_path / "own/film1.mp4").unlink()
    with pytest.raises(InputError, match="row 1, field 'video': "):
        read_examples(tmp_path / "own")


def test_without_gradio_the_command_says_what_to_install(monkeypatch, folder, capsys):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "gradio":
            raise ImportError("No module named 'gradio'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["app", "--model", str(folder / "model")]) == 2
    captured = capsys.readouterr()
    assert "pip install 'tempclr[app]'" in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_a_space_is_a_few_files(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(space, "load_gradio", lambda: None)
    monkeypatch.setattr(space, "version", lambda name: "6.31.0")
    assert main(["app", "--model", str(folder / "model"), "--space_dir", str(tmp_path / "space")]) == 0
    assert "README.md" in capsys.readouterr().out
    front = (tmp_path / "space/README.md").read_text().split("---")[1]
    assert "sdk: gradio\nsdk_version: 6.31.0\n" in front and "app_file: app.py" in front and "models:" not in front
    name = public_name(str(folder / "model"))
    assert f"serve({name!r}, tell_on_page=True)" in (tmp_path / "space/app.py").read_text()
    assert TempCLRModel.from_pretrained(tmp_path / "space" / name).processor is not None
    with pytest.raises(InputError, match="no such model folder"):
        space.write_space(tmp_path / "other", str(folder / "none"))
    with pytest.raises(InputError, match="holds files already"):
        space.write_space(tmp_path / "space", str(folder / "model"))
