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
import typing as t

import pytest
from limits import LIMIT
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
from test_docs import DOCS, ROOT, unpack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

pytestmark = pytest.mark.xdist_group("recipes")  # one server, one browser

if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("There is no Chromium here", allow_module_level=True)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """The app of the page, served as the page says, with htmx in its static folder."""
    folder = tmp_path_factory.mktemp("recipes")
    unpack(DOCS / "howto/front-end.rst", folder)
    (folder / "static").mkdir()
    shutil.copy(ROOT / "tests/vendor/htmx.min.js", folder / "static")
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


@pytest.fixture(scope="module")
def browser() -> t.Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=list(OPTIONS)
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> t.Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    expect.set_options(timeout=LIMIT * 1000)
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


@pytest.mark.parametrize("recipe", ["fetch", "htmx", "events"])
def test_progress_and_result(page: Page, url: str, recipe: str) -> None:
    """The bar grows while the task runs; then the result is there."""
    state = started(page, url, recipe)
    expect(state).to_have_text("running")
    page.wait_for_function("0 < document.querySelector('progress').value")
    half = page.locator("progress").evaluate("bar => bar.value")
    assert 0 < half < 1
    expect(state).to_have_text("counted to 40")
    assert page.locator("progress").evaluate("bar => bar.value") == 1


@pytest.mark.parametrize("recipe", ["fetch", "htmx"])
def test_cancel(page: Page, url: str, recipe: str) -> None:
    """The button stops the task, and asking ends."""
    state = started(page, url, recipe)
    expect(state).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    expect(state).to_have_text("cancelled")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1200)  # more than two rounds
    assert asked == []


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

    page.route("**/counts/*", disturb)
    state = started(page, url, "fetch")
    expect(state).to_have_text("Connection lost, trying again")
    expect(state).to_have_text("counted to 40")
    assert troubles == []


@pytest.mark.parametrize("recipe", ["fetch", "htmx"])
def test_gone(page: Page, url: str, recipe: str) -> None:
    """A task that the server no longer knows is said to be gone, not failed."""

    def forget(route: Route) -> None:
        route.continue_(url=re.sub(r"[^/]+$", "of-another-server", route.request.url))

    page.route(re.compile("/(counts|fragments)/.+"), forget)
    state = started(page, url, recipe)
    expect(state).to_have_text("no longer known")


def test_events_of_an_unknown_task(page: Page, url: str) -> None:
    """EventSource does not try again for ever where there is nothing."""
    page.route(re.compile("/events$"), lambda route: unknown(route, url))
    expect(started(page, url, "events")).to_have_text("no longer known")


def unknown(route: Route, url: str) -> None:
    if route.request.url == f"{url}/events":
        route.continue_()  # the page itself
    else:
        route.fulfill(status=404)
