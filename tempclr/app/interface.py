"""The page itself, in Gradio: a form, a player, and the pieces of HTML that ``page`` makes.

Nothing is fetched from elsewhere and nothing is reported: no analytics, no fonts or scripts of other hosts. Uploads lie
in a temporary folder of their own, which goes when the page ends; while it runs, files of an hour ago are deleted.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from tempclr.app import page
from tempclr.app.aligning import MAX_MINUTES, Aligner
from tempclr.app.examples import Example, make_examples, read_examples
from tempclr.errors import InputError

TITLE = "When does each sentence happen?"
MAX_UPLOAD = "500mb"
CLEAN_EVERY_SECONDS, KEEP_SECONDS = 600, 3600
MEASURES = {
    "dtw": "dtw: every moment belongs to one sentence",
    "otam": "otam: the first and last sentences may be missing",
    "localize": "localize: one moment a sentence, the rest is background",
}
# Darker than Gradio's own where its text is hard to read.
THEME = {
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_600",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "block_title_text_color": "*neutral_800",
    "block_title_text_color_dark": "*neutral_100",
    "block_label_text_color": "*neutral_700",
    "block_label_text_color_dark": "*neutral_200",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_300",
}
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\",]+/)+")
FIRST_HINT = "Choose an example, or upload a video and write its sentences; then press Align."
_log = logging.getLogger(__name__)


def load_gradio() -> Any:
    """Gradio, with its telemetry off.

    Raises:
        InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"the page needs gradio: pip install 'tempclr[app]' ({error})") from error
    return gradio


def serve(
    source: str,
    *,
    examples: str | PathLike[str] | None = None,
    host: str | None = None,
    port: int | None = None,
    device: str | None = None,
    max_minutes: float = MAX_MINUTES,
    tell_on_page: bool = False,
) -> None:
    """Load a model once and show the page until it is interrupted.

    Args:
        source: model folder or Hub id.
        examples: a dataset whose rows have ``video``; by default a few videos are generated.
        host, port: where to listen; by default this machine alone (or what a Space asks for), the first free port
            from 7860.
        device: None is CUDA where there is one.
        max_minutes: longer videos are refused.
        tell_on_page: where the model cannot be used the page opens all the same and says why, as a Space must.

    Raises:
        InputError: gradio is missing, the examples cannot be read, or (unless told on the page) the model is no use.
        OSError: the port is taken.
    """
    with _working_folder() as folder, _ended_by_signal():
        gradio = load_gradio()
        try:
            aligner, problem = _load(source, device=device, max_minutes=max_minutes), ""
        except (InputError, ImportError) as error:
            if not tell_on_page:
                raise
            aligner, problem = None, _in_words(error)
        tried = make_examples(folder / "examples") if examples is None else read_examples(examples)
        blocks = build_page(aligner, model_name=public_name(source), examples=tried, problem=problem)
        _, url, _ = blocks.launch(**launch_options(tried), server_name=host, server_port=port)
        try:
            print(f"the page is at {url} (Ctrl-C ends it)", flush=True)
            blocks.block_thread()
        finally:
            gradio.close_all(verbose=False)


def build_page(aligner: Aligner | None, *, model_name: str, examples: Sequence[Example], problem: str = "") -> Any:
    """The page as ``gradio.Blocks``; without an aligner it shows the ``problem`` and cannot be used."""
    gr = load_gradio()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CLEAN_EVERY_SECONDS, KEEP_SECONDS)) as blocks:
        _html(gr, page.render_header(model_name))
        with gr.Row(elem_id="tc-page"):
            with gr.Column(elem_id="tc-form", scale=2, min_width=300):
                parts = _form(gr, num_examples=len(examples), usable=aligner is not None)
            with gr.Column(elem_id="tc-stage", scale=3, min_width=300):
                parts.player = _html(gr, page.render_player(None))
                first = page.render_problem(problem) if aligner is None else page.render_hint(FIRST_HINT)
                parts.result = _html(gr, first)
        parts.video.change(_player_of, parts.video, parts.player, **QUIET)
        if aligner is not None:
            _connect(gr, blocks, parts, _shower(aligner, gr), examples)
    return blocks


def _form(gr: Any, *, num_examples: int, usable: bool) -> SimpleNamespace:
    with gr.Row(elem_id="tc-examples"):
        tries = [
            gr.Button(f"Example {number + 1}", size="sm", min_width=60, interactive=usable)
            for number in range(num_examples)
        ]
    return SimpleNamespace(
        tries=tries,
        video=gr.File(label="Video", file_types=["video", ".mkv", ".ts"], height=150, elem_id="tc-video"),
        text=gr.Textbox(
            label="Sentences",
            info="One a line, in the order in which they happen",
            placeholder="peel the onion\nchop it\nfry it in oil",
            lines=6,
            max_lines=12,
            elem_id="tc-text",
        ),
        measure=gr.Radio(
            [(label, measure) for measure, label in MEASURES.items()],
            value="dtw",
            label="Measure",
            elem_id="tc-measure",
        ),
        align=gr.Button("Align", variant="primary", interactive=usable, elem_id="tc-align"),
    )


def _connect(
    gr: Any, blocks: Any, parts: SimpleNamespace, show: Callable[..., str], examples: Sequence[Example]
) -> None:
    """What happens on the page. One alignment runs at a time, whoever asks; the others wait in a queue."""

    def aligned_on(event: Callable[..., Any]) -> Any:
        inputs = [parts.video, parts.text, parts.measure]
        return event(show, inputs, parts.result, concurrency_limit=1, concurrency_id="align", api_visibility="private")

    def filled_on(event: Callable[..., Any], example: Example) -> Any:
        return event(lambda: (str(example.video), example.text), None, [parts.video, parts.text], **QUIET)

    for event in (parts.video.upload, parts.video.clear):
        event(lambda: page.render_hint(FIRST_HINT), None, parts.result, **QUIET)
    asked_for = [aligned_on(parts.align.click)]
    for button, example in zip(parts.tries, examples, strict=True):
        asked_for.append(aligned_on(filled_on(button.click, example).then))
    for done in asked_for:
        done.then(None, None, None, js="() => window.tempclrShowResult()")
    if examples:
        aligned_on(filled_on(blocks.load, examples[0]).then)


def launch_options(examples: Sequence[Example] = ()) -> dict[str, Any]:
    """What :meth:`gradio.Blocks.launch` is given: our looks, no footer, no sharing, files of the examples alone."""
    gr = load_gradio()
    here = Path(__file__).parent
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return {
        "prevent_thread_lock": True,
        "quiet": True,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": [],
        "max_file_size": MAX_UPLOAD,
        "allowed_paths": [str(example.video.resolve()) for example in examples],
        "theme": gr.themes.Base(
            primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
        ).set(**THEME),
        "css_paths": here / "page.css",
        "head": f"<script>{(here / 'page.js').read_text(encoding='utf-8')}</script>",
    }


def public_name(source: str) -> str:
    """What a page may say of a model: a Hub id, or the last part of a folder that says something.

    >>> public_name("me/recipes"), public_name("/home/me/runs/small"), public_name("/home/me/runs/demo/model")
    ('me/recipes', 'small', 'demo')
    """
    folder = Path(source)
    if not (folder.is_dir() or folder.is_absolute()):
        return source
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def _html(gr: Any, value: str, **options: Any) -> Any:
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **options)


def _load(source: str, *, device: str | None, max_minutes: float) -> Aligner:
    from tempclr.data.extractor import pick_device
    from tempclr.recipes.model_folders import read_model

    return Aligner(read_model(source).to(pick_device(device)), max_minutes=max_minutes)


def _player_of(video: str | None) -> str:
    if video is None:
        return page.render_player(None)
    return page.render_player(f"gradio_api/file={quote(video)}", name=Path(video).name)


def _shower(aligner: Aligner, gr: Any) -> Callable[..., str]:
    """What aligning does: a video, a text and a measure to the HTML of the result, or of what is wrong."""

    def show(video: str | None, text: str, measure: str, progress: Any = gr.Progress()) -> str:  # noqa: B008
        def tell(share: float) -> None:
            progress(share, desc="Reading the video")

        try:
            tell(0.0)
            return page.render_alignment(aligner.align(video, text, measure=measure, on_progress=tell))
        except ValueError as error:
            return page.render_problem(_in_words(error))
        except Exception:
            _log.exception("the page failed on a video")
            return page.render_problem("something failed on the server, whose log says what; another video may work")

    return show


def _in_words(error: Exception) -> str:
    """The reason in one line, files without their folders: where things lie on a server is nobody's business."""
    return _FOLDERS.sub("", " ".join(str(error).split()))


@contextmanager
def _working_folder() -> Iterator[Path]:
    """A temporary folder for uploads and generated examples; Gradio reads where to put its files when it needs it."""
    with tempfile.TemporaryDirectory(prefix="tempclr-app-") as name:
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = str(Path(name) / "uploads")
        try:
            yield Path(name)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """A polite request to end is an interruption, so that the temporary folder goes then too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
