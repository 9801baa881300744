"""The search page in a real browser, which must be there: apt-get install chromium."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.runs import started

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

# no sandbox, because tests may run as root; nothing that would ask a server elsewhere
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-proxy-server"),
)
WAIT_MS = 60_000
FOCUSED = "[...document.querySelectorAll('.open')].indexOf(document.activeElement)"


@pytest.fixture(scope="module")
def gallery(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos, one with a name that is markup."""
    folder = tmp_path_factory.mktemp("gallery")
    for number, path in enumerate(sorted((data_root / "CUHK-PEDES" / "imgs").rglob("*.jpg"))[:12]):
        shutil.copy(path, folder / ("<img src=x onerror=alert(1)>.jpg" if number == 0 else f"{number:02d}.jpg"))
    return folder


@pytest.fixture(scope="module")
def url(trained: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a search page is being served; ended as a person would, by Ctrl-C."""
    flags = ["--config_file", trained / "configs.yaml", "--gallery", gallery, "--serve", "--port", "0"]
    with started("search.py", *flags, "--index_dir", tmp_path_factory.mktemp("index")) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"search page: (http://127\.0\.0\.1:\d+)/", line):
                break
        else:
            pytest.fail("".join(lines))
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait() in (0, 128 + signal.SIGINT)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=WAIT_MS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: object, url: str) -> Iterator[object]:
    """A page that fails the test if it says an error, opens a dialog or asks another server for anything."""
    opened = browser.new_page(viewport={"width": 1200, "height": 800})
    opened.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    opened.on(
        "console", lambda said: wrong.append(said.text) if said.type == "error" and "400" not in said.text else None
    )
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: wrong.append("dialog") or dialog.dismiss())
    opened.on("request", lambda request: request.url.startswith((url, "data:")) or wrong.append(request.url))
    opened.goto(url)
    yield opened
    opened.close()
    assert not wrong


def search(page: object, text: str) -> None:
    page.fill("#query", text)
    page.press("#query", "Enter")
    page.wait_for_selector(".hits li")


def until(page: object, expression: str) -> None:
    """Wait for something to be true; Playwright's own way evaluates a string in the page, which the page forbids."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def focused(page: object) -> int:
    """Which photo has the focus."""
    return page.evaluate(FOCUSED)


def test_type_see_filter_open(page: object):
    search(page, "a man in black")
    hits = page.locator(".hits li")
    assert hits.count() == 12
    until(page, "[...document.querySelectorAll('.hits img')].every((image) => image.naturalWidth > 0)")
    scores = [float(text) for text in page.locator(".score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    assert "<img src=x onerror=alert(1)>.jpg" in page.locator(".path").all_text_contents()

    middle = (scores[4] + scores[5]) / 2
    page.locator("#lowest").fill(f"{middle:.3f}")
    shown = sum(float(hit) >= round(middle, 3) for hit in hits.evaluate_all("all => all.map((li) => li.dataset.score)"))
    assert page.locator(".hits li:visible").count() == int(page.inner_text("#count")) == shown < 12

    page.locator(".open").nth(1).click()
    until(page, "document.getElementById('full').naturalWidth > 0")
    assert page.locator("dialog").is_visible()
    assert f"{scores[1]:.3f}" in page.inner_text("#caption")
    page.keyboard.press("ArrowRight")
    assert f"{scores[2]:.3f}" in page.inner_text("#caption")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    until(page, f"{FOCUSED} === 2")  # a moment after the viewer has closed


def test_keyboard_alone(page: object):
    page.keyboard.type("a woman")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hits li")
    page.wait_for_load_state()  # the photos are there before the script that listens to the keys
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused(page) == 1
    page.keyboard.press("ArrowDown")
    assert focused(page) > 2
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("a man")
    assert page.input_value("#query") == "a man"


def test_nothing_typed(page: object):
    page.click("text=Search")
    assert "Describe the person first" in page.inner_text("[role=alert]")


def test_an_image_as_the_query_and_more_like_it(page: object, gallery: Path):
    page.set_input_files("#image", gallery / "05.jpg")
    page.wait_for_selector(".hits li")
    assert page.locator(".path").first.inner_text() == "05.jpg"
    assert page.locator(".preview").is_visible()
    page.locator(".similar").nth(3).click()
    page.wait_for_selector(".hits li")
    assert page.locator(".score").first.inner_text() == "1.000"


def test_a_phone_needs_no_sideways_scrolling(browser: object, url: str):
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    for path in ("/", "/?q=a+man", "/?q="):
        page.goto(url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_without_scripts(browser: object, url: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    page.fill("#query", "a man")
    page.press("#query", "Enter")
    page.wait_for_selector(".hits li")
    page.locator(".open").first.click()
    page.wait_for_url("**/photo/*")
    context.close()
