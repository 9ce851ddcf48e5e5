"""The example's page, driven in Chromium.

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
from pathlib import Path

import pytest
from conftest import LIMIT
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("There is no Chromium here", allow_module_level=True)

expect.set_options(timeout=LIMIT * 1000)


@pytest.fixture(scope="module")
def url() -> t.Iterator[str]:
    """The address of a served page."""
    command = [sys.executable, "-u", str(ROOT / "example_app.py"), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        watchdog = threading.Timer(LIMIT, server.kill)
        watchdog.start()
        found = None
        while found is None and (line := server.stdout.readline()):
            found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)
        watchdog.cancel()
        assert found, "the server did not start"
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


@pytest.fixture(params=[1280, 390], ids=["wide", "phone"])
def page(
    request: pytest.FixtureRequest, browser: Browser, url: str
) -> t.Iterator[Page]:
    """The page in a new profile, which asks nothing of any other host."""
    context = browser.new_context(viewport={"width": request.param, "height": 844})
    page = context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    strangers: list[str] = []
    faults: list[str] = []

    def guard(route: Route) -> None:
        if route.request.url.startswith(url):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    yield page
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert (strangers, faults) == ([], [])
    assert width <= request.param, "the page is wider than its window"


def section(page: Page, title: str) -> t.Any:
    return page.get_by_role("region", name=title)


def test_sign_up(page: Page) -> None:
    """The e-mail that a thread sent is on the page."""
    card = section(page, "Sign up")
    card.get_by_label("E-mail address").fill("ada@example.org")
    card.get_by_role("button", name="Sign up").click()
    expect(card.locator(".tasks .state")).to_have_text("done")
    expect(card.locator(".mails li").first).to_contain_text("to ada@example.org")
    link = card.locator(".mails pre").first.inner_text()
    page.goto(re.findall(r"http\S+", link)[0])
    expect(page.get_by_role("status")).to_have_text(
        "Thank you: ada@example.org is confirmed."
    )


def test_summary(page: Page, tmp_path: Path) -> None:
    """A chosen file is summarised: figures and a chart for each column of numbers."""
    table = tmp_path / "prices.csv"
    table.write_text("name,price\n" + "".join(f"x,{n}\n" for n in range(1, 101)))
    card = section(page, "Summarise a CSV file")
    card.get_by_label("CSV file").set_input_files(table)
    card.get_by_role("button", name="Summarise").click()
    expect(card.locator(".tasks .state")).to_have_text("done")
    expect(card.locator(".column")).to_have_count(1)
    assert card.locator(".column dd").all_inner_texts() == ["100", "50.5", "1", "100"]
    chart = card.get_by_role("img", name="How the values of price are spread")
    expect(chart).to_be_visible()
    assert chart.locator("rect").count() > 5


def test_fibonacci(page: Page) -> None:
    """The state is shown while a worker process computes; other work goes on."""
    card = section(page, "Compute a Fibonacci number")
    card.get_by_label("n, up to 32").fill("29")
    card.get_by_role("button", name="Compute").click()
    expect(card.locator(".tasks .state")).to_have_text(re.compile("waiting|running"))
    mail = section(page, "Sign up")
    mail.get_by_label("E-mail address").fill("meanwhile@example.org")
    mail.get_by_role("button", name="Sign up").click()
    expect(mail.locator(".tasks .state")).to_have_text("done")
    expect(card.locator(".tasks .state")).to_have_text("done")
    expect(card.locator(".result")).to_have_text("514229")


def test_errors_are_shown_as_such(page: Page) -> None:
    """A refused form says why beside it; a failed task says what failed."""
    card = section(page, "Compute a Fibonacci number")
    card.get_by_label("n, up to 32").fill("99")
    card.get_by_role("button", name="Compute").click()
    expect(card.get_by_role("alert")).to_have_text(
        "n must be a whole number from 0 to 32."
    )
    files = section(page, "Summarise a CSV file")
    bad = {"name": "<b>.csv", "mimeType": "text/csv", "buffer": b"a\nx\n"}
    files.get_by_label("CSV file").set_input_files(bad)  # type: ignore[arg-type]
    files.get_by_role("button", name="Summarise").click()
    expect(files.locator(".tasks .state")).to_have_text("failed")
    expect(files.locator(".tasks .title")).to_have_text("<b>.csv")
    expect(files.locator(".result")).to_have_text(
        "No column holds numbers: 1 rows were read."
    )


def test_with_the_keyboard_alone(page: Page) -> None:
    """Tab reaches each control, Enter and Space do what a click does."""
    page.keyboard.press("Tab")
    page.keyboard.type("keys@example.org")
    page.keyboard.press("Enter")
    mail = section(page, "Sign up")
    expect(mail.locator(".tasks .state")).to_have_text("done")
    sample = page.get_by_role("button", name="Use a sample")
    for _ in range(6):
        page.keyboard.press("Tab")
        if sample.evaluate("it => it === document.activeElement"):
            break
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    files = section(page, "Summarise a CSV file")
    expect(files.locator(".tasks .state")).to_have_text("done")
    expect(files.locator(".column")).to_have_count(3)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("10")
    page.keyboard.press("Enter")
    expect(section(page, "Compute").locator(".result")).to_have_text("55")
