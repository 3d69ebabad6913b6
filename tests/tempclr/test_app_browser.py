"""The page in Debian's Chromium: upload, align, click, keyboard, a telephone's width, errors in words, no network.

Gradio, playwright and chromium are not in the main environment: ``make app-test`` makes one that has the first two and
runs these tests. Elsewhere they are skipped, but under ``CI=true`` what is missing is a failure.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tempclr.app.aligning import MAX_SENTENCES, Aligner
from tempclr.app.examples import read_examples
from tempclr.app.interface import FIRST_HINT, _working_folder, build_page, launch_options

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
ROOT = Path(__file__).resolve().parents[2]
WAIT_MS = 30_000
NASTY = """<img src=x onerror="document.title='pwned'"> ${document.title='pwned'} {{value}}"""

spec = importlib.util.spec_from_file_location("app_world", Path(__file__).with_name("app_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


def need(there: bool, what: str) -> None:
    """Skip the tests where a thing is missing; in CI fail."""
    if not there:
        message = f"the page's tests need {what}: run 'make app-test', with chromium installed"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need(importlib.util.find_spec("gradio") is not None, "gradio")
    need(importlib.util.find_spec("playwright") is not None, "playwright")
    need(program is not None, "chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A name that is not this machine's finds no address.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("app")
    world.make_model(made)
    world.make_video(made / "film.mp4", seconds=8)
    (made / "examples").mkdir()
    world.make_examples(made / "examples")
    (made / "broken.mp4").write_bytes(b"no video at all")
    return made


@pytest.fixture(scope="module")
def served(browser, folder) -> Iterator[str]:
    """A running page; nothing in this process may connect to another machine meanwhile."""
    import gradio

    from tempclr.models.tempclr import TempCLRModel

    refused: list[object] = []
    connect = socket.socket.connect

    def connect_here(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            refused.append(address)
            raise OSError(f"no network in tests, tried {address}")
        return connect(self, address)

    with _working_folder(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        examples = read_examples(folder / "examples")
        aligner = Aligner(TempCLRModel.from_pretrained(folder / "model"))
        blocks = build_page(aligner, model_name="tiny", examples=examples)
        _, url, _ = blocks.launch(**launch_options(examples))
        yield url
        gradio.close_all(verbose=False)
    assert not refused


@pytest.fixture
def open_page(browser, served) -> Iterator:
    """Opens the page and waits for its first example; complains of requests elsewhere and of errors of scripts."""
    opened, faults = [], []

    def open_at(width: int = 1280, height: int = 900, **options):
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: watch(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        opened.append(page)
        page.goto(served)
        page.wait_for_selector(".tc-result")
        return page

    def watch(url: str) -> None:
        if not url.startswith((served, "data:", "blob:")):
            faults.append(url)

    yield open_at
    for page in opened:
        page.close()
    assert not faults


def upload(page, video: Path) -> None:
    remove = page.locator("#tc-video button[aria-label=Clear]")
    if remove.count():
        remove.click()
    page.set_input_files("#tc-video input[type=file]", video)
    page.wait_for_selector(f'.tc-player video[aria-label="{video.name}"]')


def align(page, text: str) -> None:
    page.fill("#tc-text textarea", text)
    page.click("#tc-align")


def wait_until(page, condition: str) -> None:
    page.wait_for_function(f"() => {condition}")


def test_upload_align_and_click(open_page, folder, tmp_path):
    page = open_page()
    upload(page, folder / "film.mp4")
    page.wait_for_selector(f"text={FIRST_HINT}")
    align(page, "peel the onion\nfry it\nserve it hot\npeel it")
    page.wait_for_selector(".tc-summary:has-text('4 sentences')")
    rows = page.locator("button.tc-row")
    assert rows.count() == 4 and page.locator(".tc-span").count() == 4
    assert page.locator(".tc-map image").bounding_box()["width"] > 200
    assert page.locator(".tc-map path.tc-path").get_attribute("d").startswith("M")
    start = float(rows.nth(3).get_attribute("data-seek"))
    assert start > 0
    rows.nth(3).click()
    wait_until(page, f"document.querySelector('.tc-player video').currentTime > {start}")
    now = page.evaluate("document.querySelector('.tc-player video').currentTime")
    assert start < now < start + 4
    wait_until(page, "document.querySelectorAll('.tc-row')[3].getAttribute('aria-current') === 'true'")
    page.evaluate("document.querySelector('.tc-player video').pause()")
    page.locator(".tc-span").first.click(position={"x": 1, "y": 10})
    wait_until(page, "document.querySelector('.tc-player video').currentTime < 4")
    box = page.locator(".tc-map svg").bounding_box()
    page.locator(".tc-map svg").click(position={"x": 0.75 * box["width"], "y": 5})
    wait_until(page, "document.querySelector('.tc-player video').currentTime >= 6")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 30_000


@pytest.mark.parametrize("measure", ["otam", "localize"])
def test_a_measure_can_be_chosen(open_page, measure):
    page = open_page()
    page.check(f"#tc-measure input[value={measure}]")
    page.click("#tc-align")
    page.wait_for_selector(f".tc-summary code:has-text('{measure}')")


def test_examples_load_by_themselves_and_by_a_button(open_page):
    page = open_page()
    assert page.input_value("#tc-text textarea").splitlines() == world.SENTENCES
    page.wait_for_selector('.tc-player video[aria-label="film0.mp4"]')
    page.wait_for_selector(".tc-summary:has-text('0:04 of video')")
    page.click("text=Example 2")
    page.wait_for_selector(".tc-summary:has-text('0:05 of video')")
    page.wait_for_selector('.tc-player video[aria-label="film1.mp4"]')


def focused(page) -> str:
    return page.evaluate("document.activeElement.className + ' ' + document.activeElement.id")


def test_by_keyboard_alone(open_page):
    """Tab goes through form and result in the order one reads them, focus is seen, Enter and Space do the rest."""
    page = open_page()
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline != "0px" or "video" in seen[-1], seen[-1]
        if "tc-align" in seen[-1]:
            page.keyboard.press("Enter")
        if "tc-row" in seen[-1] and sum("tc-row" in name for name in seen) == 2:
            break
    else:
        pytest.fail(f"no second sentence among {seen}")
    assert any("tc-align" in name for name in seen)
    start = float(page.evaluate("document.activeElement.dataset.seek"))
    for key in ("Enter", "Space"):
        page.evaluate("(v => { v.pause(); v.currentTime = 0; })(document.querySelector('.tc-player video'))")
        page.keyboard.press(key)
        wait_until(page, f"document.querySelector('.tc-player video').currentTime >= {start}")


def test_labels_for_screen_readers(open_page):
    page = open_page()
    for role, name in (
        ("textbox", "Sentences"),
        ("button", "Align"),
        ("button", "Example 1"),
        ("radio", "dtw"),
        ("region", "Alignment"),
        ("img", "Heat map of 3 sentences by 8 moments"),
    ):
        assert page.get_by_role(role, name=name).count() == 1, (role, name)
    assert page.locator("h1").count() == 1
    assert page.locator('[role="status"].tc-summary').count() == 1
    page.click("#tc-video button[aria-label=Clear]")
    assert page.get_by_role("button", name="Click to upload or drop files").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(open_page, scheme):
    """WCAG AA, 4.5 to 1, of every text of ours on what lies behind it."""
    page = open_page(color_scheme=scheme)
    worst = page.evaluate(
        """() => {
        const parse = (color) => color.match(/[\\d.]+/g).map(Number);
        const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (e) => { for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; }
            return [255, 255, 255]; };
        const texts = [...document.querySelectorAll('main *, .tc-header *')].filter((e) =>
            [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.checkVisibility()
            && !['STYLE', 'SCRIPT', 'VIDEO'].includes(e.tagName));
        return texts.map((e) => {
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]; }).sort((x, y) => x[0] - y[0]);
        }"""
    )
    assert len(worst) > 20 and worst[0][0] >= 4.5, worst[:5]


@pytest.mark.parametrize("width", [320, 375, 768])
def test_it_fits_a_telephone(open_page, folder, tmp_path, width):
    page = open_page(width, 740)
    upload(page, folder / "film.mp4")
    align(page, f"{'unbreakable' * 12}\npeel the onion and then go on peeling until nothing is left of it\nfry it")
    page.wait_for_selector(".tc-row:has-text('unbreakable')")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for_function("() => document.querySelector('.tc-result').getBoundingClientRect().top < innerHeight")
    last = page.locator("button.tc-row").last
    last.click()
    wait_until(page, f"document.querySelector('.tc-player video').currentTime >= {last.get_attribute('data-seek')}")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    in_view = "(box => box.top > -1 && box.bottom <= innerHeight)"
    wait_until(page, f"{in_view}(document.querySelector('.tc-player').getBoundingClientRect())")
    assert last.bounding_box()["height"] >= 44
    page.screenshot(path=tmp_path / "telephone.png")


def test_a_telephone_shows_the_form_first(open_page):
    page = open_page(375, 740)
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") == 0 and page.locator("h1").is_visible()


def test_progress_is_shown_and_others_wait(open_page, monkeypatch):
    page, other, waiting = open_page(), open_page(), threading.Event()
    calls, real = [], Aligner.align

    def slow(self, *arguments, on_progress, **options):
        calls.append(options["measure"])
        on_progress(0.25)
        assert waiting.wait(WAIT_MS / 1000)
        return real(self, *arguments, on_progress=on_progress, **options)

    monkeypatch.setattr(Aligner, "align", slow)
    page.click("#tc-align")
    page.wait_for_selector("text=Reading the video - 25.0%")
    other.check("#tc-measure input[value=otam]")
    other.click("#tc-align")
    other.wait_for_selector("text=/queue/")
    assert calls == ["dtw"]
    waiting.set()
    other.wait_for_selector(".tc-summary code:has-text('otam')")
    assert calls == ["dtw", "otam"]


def test_what_is_typed_stays_text(open_page):
    page = open_page()
    title = page.title()
    align(page, f"{NASTY}\nfry it")
    page.wait_for_selector(".tc-row:has-text('onerror')")
    assert page.locator(".tc-row .tc-text").first.inner_text() == " ".join(NASTY.split())
    assert page.title() == title and not page.locator(".tc-result img").count()


def problem(page) -> str:
    page.wait_for_selector(".tc-problem[role=alert]")
    return page.locator(".tc-problem").inner_text()


def test_mistakes_are_told_in_words(open_page, folder):
    page = open_page()
    align(page, "  \n")
    assert "there is no sentence yet: type one on each line" in problem(page)
    align(page, "peel\n" * (MAX_SENTENCES + 1))
    page.wait_for_selector(f".tc-problem:has-text('these are {MAX_SENTENCES + 1} sentences')")
    page.check("#tc-measure input[value=localize]")
    align(page, "peel\n" * 50)
    page.wait_for_selector(".tc-problem:has-text('50 steps need at least as many frames, got 8')")
    upload(page, folder / "broken.mp4")
    page.wait_for_selector(".tc-unplayable", state="visible")
    align(page, "peel")
    told = problem(page)
    assert "broken.mp4: cannot be read as video" in told and tempfile.gettempdir() not in told
    page.click("#tc-video button[aria-label=Clear]")
    page.wait_for_selector("text=Your video appears here.")
    align(page, "peel")
    assert "there is no video yet" in problem(page) and "Traceback" not in page.content()


def test_a_fault_of_ours_is_told_without_a_traceback(open_page, monkeypatch, caplog):
    page = open_page()

    def broken(self, *arguments, **options):
        raise RuntimeError("secret of the server")

    monkeypatch.setattr(Aligner, "align", broken)
    align(page, "peel")
    told = problem(page)
    assert "something failed on the server" in told and "secret" not in page.content()
    assert "secret of the server" in caplog.text


def start(command: list[str], *, cwd: Path, temporary: Path) -> tuple[subprocess.Popen, str]:
    """A page in a process of its own, and its address."""
    environment = {**os.environ, "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    line = process.stdout.readline()
    assert line.startswith("the page is at http://127.0.0.1:"), line
    return process, line.split()[4]


def test_the_command_serves_and_cleans_up(browser, folder, tmp_path):
    command = [sys.executable, "-m", "tempclr.cli", "app", "--model", str(folder / "model")]
    process, url = start([*command, "--examples", str(folder / "examples")], cwd=ROOT, temporary=tmp_path)
    try:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector(".tc-result", timeout=WAIT_MS)
        assert list(tmp_path.glob("tempclr-app-*/uploads/*"))
        page.close()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    finally:
        process.kill()
    assert not list(tmp_path.glob("tempclr-app-*"))


def test_a_space_runs_and_tells_what_is_wrong_with_its_model(browser, folder, tmp_path):
    from tempclr.app import write_space

    target, temporary = tmp_path / "space", tmp_path / "temporary"
    temporary.mkdir()
    written = write_space(target, str(folder / "model"))
    (weights,) = (path for path in written if path.suffix == ".safetensors")
    weights.write_bytes(b"cut off")
    process, url = start([sys.executable, "app.py"], cwd=target, temporary=temporary)
    try:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector(".tc-problem", timeout=WAIT_MS)
        assert "weights cannot be read" in page.locator(".tc-problem").inner_text()
        assert page.locator("#tc-align").is_disabled()
        page.close()
    finally:
        process.terminate()
        process.wait(timeout=30)
