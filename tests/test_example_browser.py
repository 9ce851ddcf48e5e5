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
from limits import LIMIT
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

pytestmark = pytest.mark.xdist_group("browser")
"""One worker runs them all, and so makes the fixtures of the module once."""

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


@pytest.fixture(scope="module")
def large_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes a thread many seconds."""
    table = tmp_path_factory.mktemp("tables") / "large.csv"
    table.write_bytes(b"a,b\n" + b"1,2\n" * 5_000_000)
    return table


def section(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title)


def compute(page: Page, n: int) -> Locator:
    """Ask for a Fibonacci number; the line of its task."""
    card = section(page, "Compute a Fibonacci number")
    lines = card.locator(".tasks > li")
    count = lines.count()
    card.get_by_label("n, up to 35").fill(str(n))
    card.get_by_role("button", name="Compute").click()
    expect(lines).to_have_count(count + 1)
    return lines.nth(-1 - count)  # the newest is the first, and more may come


def state(line: Locator) -> Locator:
    return line.locator(".state")


def cancel(line: Locator) -> None:
    line.get_by_role("button", name="Cancel").click()


def test_sign_up(page: Page) -> None:
    """The e-mail that a thread sent is on the page."""
    card = section(page, "Sign up")
    card.get_by_label("E-mail address").fill("ada@example.org")
    card.get_by_role("button", name="Sign up").click()
    expect(card.locator(".tasks .state")).to_have_text("succeeded")
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
    expect(card.locator(".tasks .state")).to_have_text("succeeded")
    expect(card.locator(".column")).to_have_count(1)
    assert card.locator(".column dd").all_inner_texts() == ["100", "50.5", "1", "100"]
    chart = card.get_by_role("img", name="How the values of price are spread")
    expect(chart).to_be_visible()
    assert chart.locator("rect").count() > 5


def test_progress_and_cancelling(page: Page, large_table: Path) -> None:
    """The bar of a summary grows while it runs; cancelled, it stops where it was."""
    card = section(page, "Summarise a CSV file")
    card.get_by_label("CSV file").set_input_files(large_table)
    card.get_by_role("button", name="Summarise").click()
    bar = card.get_by_role("progressbar", name="large.csv")
    expect(bar).to_be_visible()
    seen = 0.0
    for _ in range(3):
        seen = page.wait_for_function(
            "([bar, seen]) => bar.value > seen && bar.value",
            arg=[bar.element_handle(), seen],
        ).json_value()
    expect(card.locator(".meter")).to_contain_text(re.compile(r"\d+ % · [\d,]+ lines"))
    expect(card.locator(".state")).to_have_text("running")
    card.get_by_role("button", name="Cancel large.csv").click()
    expect(card.locator(".state")).to_have_text("cancelled")
    expect(card.get_by_role("button", name="Cancel")).to_have_count(0)
    assert seen <= bar.evaluate("it => it.value") < 1
    expect(card.locator(".result")).to_have_count(0)


def test_what_is_urgent_goes_first(page: Page) -> None:
    """An urgent task overtakes one that waits; what runs can be cancelled to make room,
    in worker processes, too.
    """
    one, other, plain = (compute(page, 35) for _ in range(3))
    switch = section(page, "Compute").get_by_role("switch", name="Urgent")
    switch.check()
    urgent = compute(page, 35)
    for line, expected in ((one, "running"), (other, "running")):
        expect(state(line)).to_have_text(expected)
    for line in (plain, urgent):
        expect(state(line)).to_have_text("waiting")
    expect(plain.locator(".urgent")).to_have_count(0)
    expect(urgent.locator(".urgent")).to_have_text("urgent")
    cancel(one)
    expect(state(one)).to_have_text("cancelled")
    expect(state(urgent)).to_have_text("running")
    expect(state(plain)).to_have_text("waiting")
    for line in (plain, urgent, other):
        cancel(line)
        expect(state(line)).to_have_text("cancelled")


def test_thumbnails(page: Page) -> None:
    """A group of twenty has one bar, and is shown when it is complete."""
    ahead = [compute(page, 35) for _ in range(2)]
    card = section(page, "Draw twenty thumbnails")
    card.get_by_role("button", name="Draw").click()
    bar = card.get_by_role("progressbar", name="20 thumbnails")
    expect(bar).to_have_count(1)
    expect(bar).to_be_visible()
    expect(card.locator(".meter")).to_have_text("0 %")
    expect(card.get_by_role("img")).to_have_count(0)
    for line in ahead:
        cancel(line)
    expect(state(card)).to_have_text("succeeded")
    pictures = card.get_by_role("img")
    expect(pictures).to_have_count(20)
    expect(card.get_by_role("img", name="Thumbnail 20")).to_be_visible()
    assert pictures.evaluate_all(
        "all => all.every(it => it.complete && it.naturalWidth > it.naturalHeight)"
    )


def test_cancelling_thumbnails(page: Page) -> None:
    """With the group its members are cancelled: the workers are free for others."""
    ahead = [compute(page, 35) for _ in range(2)]
    card = section(page, "Draw twenty thumbnails")
    card.get_by_role("button", name="Draw").click()
    expect(state(card)).to_have_text("running")
    cancel(card)
    expect(state(card)).to_have_text("cancelled")
    expect(card.get_by_role("img")).to_have_count(0)
    for line in ahead:
        cancel(line)
    expect(state(compute(page, 10))).to_have_text("succeeded")


def test_fibonacci(page: Page) -> None:
    """The state is shown while a worker process computes; other work goes on."""
    card = section(page, "Compute a Fibonacci number")
    compute(page, 29)
    expect(card.locator(".tasks .state")).to_have_text(re.compile("waiting|running"))
    mail = section(page, "Sign up")
    mail.get_by_label("E-mail address").fill("meanwhile@example.org")
    mail.get_by_role("button", name="Sign up").click()
    expect(mail.locator(".tasks .state")).to_have_text("succeeded")
    expect(card.locator(".tasks .state")).to_have_text("succeeded")
    expect(card.locator(".result")).to_have_text("514229")


def test_errors_are_shown_as_such(page: Page) -> None:
    """A refused form says why beside it; a failed task says what failed."""
    card = section(page, "Compute a Fibonacci number")
    card.get_by_label("n, up to 35").fill("99")
    card.get_by_role("button", name="Compute").click()
    expect(card.get_by_role("alert")).to_have_text(
        "n must be a whole number from 0 to 35."
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
    expect(mail.locator(".tasks .state")).to_have_text("succeeded")
    sample = page.get_by_role("button", name="Use a sample")
    for _ in range(6):
        page.keyboard.press("Tab")
        if sample.evaluate("it => it === document.activeElement"):
            break
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    files = section(page, "Summarise a CSV file")
    expect(files.locator(".tasks .state")).to_have_text("succeeded")
    expect(files.locator(".column")).to_have_count(3)
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("35")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    numbers = section(page, "Compute")
    expect(numbers.locator(".urgent")).to_have_text("urgent")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(state(numbers)).to_have_text("cancelled")
    expect(numbers.locator(".tasks > li")).to_be_focused()
