"""The recipes of docs/howto/front-end.rst, driven in Chromium.

Skipped where there is no Chromium; in CI that is a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from browsers import browser, need_chromium, playwright
from limits import LIMIT
from playwright.sync_api import Browser, Locator, Page, Route, expect
from test_docs import DOCS, ROOT, unpack

pytestmark = pytest.mark.xdist_group("recipes")  # one server, one browser

__all__ = ["browser", "playwright"]

need_chromium()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """The app of the page, served as the page says, with HTMX 2 and 4 in it."""
    folder = tmp_path_factory.mktemp("recipes")
    unpack(DOCS / "howto/front-end.rst", folder)
    # Slower, so that a page that first shows it waiting shows it running, too.
    app = folder / "app.py"
    slower = app.read_text().replace("time.sleep(0.05)", "time.sleep(0.1)")
    assert slower != app.read_text()
    app.write_text(slower)
    (folder / "static").mkdir()
    shutil.copy(ROOT / "tests/vendor/htmx.min.js", folder / "static")
    ours = ROOT / "flask_executor/web/dashboard/static/htmx.min.js"
    shutil.copy(ours, folder / "static/htmx-4.min.js")
    with subprocess.Popen(
        [sys.executable, "-m", "flask", "run", "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        watchdog = threading.Timer(LIMIT, server.kill)
        watchdog.start()
        said, found = "", None
        while found is None and (line := server.stdout.readline()):
            said += line
            found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)
        watchdog.cancel()
        assert found, said
        reader = threading.Thread(target=server.stdout.read)
        reader.start()  # a full pipe would stop the server
        yield found[1]
        server.terminate()
        try:
            server.wait(LIMIT)
        finally:
            server.kill()
            reader.join(LIMIT)


@pytest.fixture
def page(browser: Browser) -> t.Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert faults == []


def started(page: Page, url: str, recipe: str) -> Locator:
    """Open a recipe and start its task; where its state is shown."""
    page.goto(f"{url}/{recipe}")
    page.get_by_role("button", name="Start").click()
    return page.get_by_role("status")


def grown(page: Page) -> None:
    """Wait until the bar shows that a part is done."""
    bar = page.get_by_role("progressbar", name="Progress")
    deadline = time.monotonic() + LIMIT
    # Not wait_for_function: the policy of our page forbids what it does.
    while not 0.1 < bar.evaluate("bar => bar.position") < 1:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


PAUSE = 1500
"""Milliseconds in which a page that polls would have asked once more."""
RUNNING = re.compile("running|Running")
CANCELLED = re.compile("cancelled|Cancelled|Stopping")
RECIPES = ["form", "fetch", "htmx2", "htmx4", "events"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_progress_and_result(page: Page, url: str, recipe: str) -> None:
    """The bar grows while the task runs; then the result is there."""
    state = started(page, url, recipe)
    expect(state).to_have_text(RUNNING)
    grown(page)
    expect(page.get_by_text("counted to 40")).to_be_visible()


@pytest.mark.parametrize("recipe", ["form", "fetch", "htmx2", "htmx4"])
def test_cancel(page: Page, url: str, recipe: str) -> None:
    """The button stops the task, and asking ends."""
    state = started(page, url, recipe)
    expect(state).to_have_text(RUNNING)
    page.get_by_role("button", name="Cancel").click()
    expect(state).to_have_text(CANCELLED)
    expect(state).to_have_text(re.compile("cancelled|Cancelled"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(PAUSE)
    assert asked == []


def test_without_javascript(browser: Browser, url: str) -> None:
    """The page of a task loads itself again, has a button to cancel, and stops."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    state = started(page, url, "form")
    expect(state).to_have_text("Running")
    expect(page.get_by_text(re.compile(r"^\d+ %$"))).to_be_visible()
    expect(page.get_by_text("counted to 40")).to_be_visible()
    expect(state).to_have_text("Done")
    state = started(page, url, "form")
    page.get_by_role("button", name="Cancel").click()
    expect(state).to_have_text("Cancelled")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(PAUSE)
    assert asked == []
    context.close()


def test_fetch_recovers(page: Page, url: str) -> None:
    """A 502 and a lost connection are said to be that, and the loop goes on."""
    troubles = [
        lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"),
        lambda route: route.abort(),
        lambda route: route.fulfill(status=200, body="<h1>no JSON</h1>"),
    ]

    def disturb(route: Route) -> None:
        if troubles and route.request.method == "GET":
            troubles.pop(0)(route)
        else:
            route.continue_()

    page.route("**/tasks/*", disturb)
    state = started(page, url, "fetch")
    expect(state).to_have_text("Connection lost, trying again")
    expect(state).to_have_text("counted to 40")
    assert troubles == []


def forge(route: Route) -> None:
    """Ask with a token that is signed for nobody."""
    route.continue_(url=route.request.url[:-1])


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("form", "There is no such task."),
        ("fetch", "no longer known"),
        ("htmx2", "There is no such task."),
        ("htmx4", "There is no such task."),
        ("events", "no longer known"),
    ],
)
def test_gone(page: Page, url: str, recipe: str, said: str) -> None:
    """A task that the server no longer knows is said to be gone, not failed, and
    nobody asks for it again.
    """
    page.route("**/tasks/*", forge)
    state = started(page, url, recipe)
    expect(state).to_have_text(said)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(PAUSE)
    assert asked == []


@pytest.mark.parametrize("recipe", ["form", "htmx2", "htmx4"])
def test_the_focus_stays(page: Page, url: str, recipe: str) -> None:
    """Who has tabbed to the button is still there when the state is shown anew."""
    started(page, url, recipe)
    button = page.get_by_role("button", name="Cancel")
    button.focus()
    with page.expect_response("**/tasks/*"):
        pass
    grown(page)
    expect(button).to_be_focused()
