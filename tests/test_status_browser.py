"""The page of a task in Chromium: script is text, nothing is inline, any width.

Skipped where there is no Chromium; in CI that is a failure.
"""

from __future__ import annotations

import threading
import typing as t

import pytest
from browsers import browser, need_chromium, playwright
from flask import Flask
from limits import LIMIT
from playwright.sync_api import Browser, Page, expect
from status import Held, held
from werkzeug.serving import make_server

from flask_executor import Executor, current_task
from flask_executor.web import StatusAPI

__all__ = ["browser", "held", "playwright"]

SCRIPT = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>"
    "\"'><svg onload=alert(3)>{{ 7 * 7 }}</section>"
)

pytestmark = pytest.mark.xdist_group("status-page")

need_chromium()


class Evil(Exception):
    """What a user may read of it is script."""

    public_message = SCRIPT


@pytest.fixture
def urls(app: Flask, executor: Executor, held: Held) -> t.Iterator[dict[str, str]]:
    """A server with a task in each state, full of script where it can be."""
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    status = StatusAPI(executor, owner=None, max_age=60, result=lambda found: found)
    app.register_blueprint(status)

    def work() -> None:
        current_task.progress(1, 2, SCRIPT)
        held()

    def fail() -> None:
        raise Evil

    using = executor.using(name=SCRIPT)
    futures = {
        "running": using.submit_stored(SCRIPT, work),
        "failed": using.submit(fail),
        "text": using.submit(str, SCRIPT),
        "values": using.submit(dict, {SCRIPT: [SCRIPT]}),
        "delayed": using.using(delay=60).submit(int),
    }
    assert held.began.wait(LIMIT)
    for name in ("failed", "text", "values"):
        futures[name].exception(LIMIT)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    site = f"http://127.0.0.1:{server.port}"
    with app.test_request_context():
        found = {name: site + status.url(future) for name, future in futures.items()}
    yield {**found, "problem": site + "/tasks/" + SCRIPT.replace("/", "|")}
    futures["delayed"].cancel()
    server.shutdown()
    thread.join(LIMIT)
    server.server_close()


@pytest.fixture(params=[(1280, "light"), (360, "dark")], ids=["wide", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser) -> t.Iterator[Page]:
    """A page that lets nothing happen unseen: no dialog, no error, no report."""
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 700}, color_scheme=scheme
    )
    page = context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    faults: list[str] = []
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if "Security Policy" in said.text else 0,
    )
    yield page
    context.close()
    assert faults == []


def test_script_is_text(page: Page, urls: dict[str, str]) -> None:
    """Script in name, key, progress, error, result and path opens no dialog and breaks
    no policy; people read it as it is.
    """
    for name, url in urls.items():
        page.goto(url)
        shown = page.locator(".fx-task")
        expect(shown).to_have_count(1)
        assert page.locator(".fx-task :is(script, img, svg)").count() == 0
        if name not in ("delayed", "problem"):
            expect(shown).to_contain_text("<script>alert(1)</script>")
            expect(shown).to_contain_text("{{ 7 * 7 }}")


def test_it_is_replaced_without_faults(
    page: Page, urls: dict[str, str], held: Held
) -> None:
    """The script of the page shows the end, and the policy lets it. The live region
    stays the same element, or a screen reader would say nothing.
    """
    page.goto(urls["running"])
    expect(page.get_by_role("status")).to_have_text("Running")
    expect(page.get_by_text("50 %")).to_be_visible()
    page.get_by_role("status").evaluate("it => { it.isTheFirst = true; }")
    held.gate.set()
    expect(page.get_by_role("status")).to_have_text("Done")
    expect(page.get_by_role("button")).to_have_count(0)
    assert page.get_by_role("status").evaluate("it => it.isTheFirst")


def test_it_fits_and_can_be_used(page: Page, urls: dict[str, str]) -> None:
    """At any width nothing is cut off, targets have 44 px, all has a name, and the
    colours have enough contrast.
    """
    for name, url in urls.items():
        page.goto(url)
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= t.cast(t.Any, page.viewport_size)["width"], name
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_role("region", name="Task")).to_be_visible()
        # All at once: a page may load itself again in between.
        heights = "all => all.map(one => one.getBoundingClientRect().height)"
        assert all(
            height >= 44 for height in page.get_by_role("button").evaluate_all(heights)
        ), name
        texts = page.locator("h1, .fx-task p, .fx-task pre, button, a")
        contrasts = texts.evaluate_all(f"all => all.map({CONTRAST})")
        assert min(contrasts) >= 4.5, (name, contrasts)


CONTRAST = """element => {
  const light = (text) => {
    const part = (value) => (value /= 255) <= 0.03928
      ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  let behind = element, colour;
  while (/, 0\\)$/.test(colour = getComputedStyle(behind).backgroundColor))
    behind = behind.parentElement;
  const pair = [light(getComputedStyle(element).color), light(colour)].sort();
  pair.sort((one, other) => one - other);
  return (pair[1] + 0.05) / (pair[0] + 0.05);
}"""


def test_the_keyboard(page: Page, urls: dict[str, str]) -> None:
    """Tab reaches the button, whose focus can be seen, and Enter presses it."""
    page.goto(urls["delayed"])
    page.keyboard.press("Tab")
    button = page.get_by_role("button", name="Cancel")
    expect(button).to_be_focused()
    outline = button.evaluate("it => getComputedStyle(it).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Cancelled")
