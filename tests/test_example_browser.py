"""The example's page, driven in Chromium.

Skipped where there is no Chromium or npm; in CI that is a failure.
"""

from __future__ import annotations

import re
import time
import typing as t
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urljoin

import pytest
from browsers import (
    AXE,
    CHROMIUM,
    OPTIONS,
    VIOLATIONS,
    browser,
    from_npm,
    need_chromium,
    playwright,
)
from example_server import SCRIPT, Server, server
from limits import LIMIT
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Locator,
    Page,
    Playwright,
    Route,
    expect,
)

__all__ = ["browser", "from_npm", "playwright"]

need_chromium("npm")


@pytest.fixture(scope="module")
def site() -> t.Iterator[Server]:
    with server(str(SCRIPT), "--port", "0") as site:
        yield site


@contextmanager
def visit(
    browser: Browser, url: str, width: int = 1280, **options: t.Any
) -> t.Iterator[Page]:
    """The page in a new profile, which asks nothing of any other host."""
    context = browser.new_context(viewport={"width": width, "height": 844}, **options)
    page = context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    strangers: list[str] = []
    faults: list[str] = []

    def guard(route: Route) -> None:
        if route.request.url.startswith(url):
            with suppress(Error):  # a route of the test itself has handled it
                route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    try:
        yield page
        wide = page.evaluate("document.documentElement.scrollWidth")
    finally:
        context.close()
    assert (strangers, faults) == ([], [])
    assert wide <= page_width(page), "the page is wider than its window"


def page_width(page: Page) -> int:
    size = page.viewport_size
    assert size is not None
    return size["width"]


@pytest.fixture
def page(
    request: pytest.FixtureRequest, browser: Browser, site: Server
) -> t.Iterator[Page]:
    with visit(browser, site.url, getattr(request, "param", 1280)) as page:
        yield page


BOTH_WIDTHS = pytest.mark.parametrize(
    "page", [1280, 390], ids=["wide", "phone"], indirect=True
)


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def sign_up(page: Page) -> Locator:
    return card(page, "Sign up")


def table(page: Page) -> Locator:
    return card(page, "Summarise a CSV file")


def numbers(page: Page) -> Locator:
    return card(page, "Compute a Fibonacci number")


def thumbnails(page: Page) -> Locator:
    return card(page, "Draw twenty thumbnails")


def compute(page: Page, n: int) -> Locator:
    """Ask for a Fibonacci number; the line of its task."""
    lines = numbers(page).locator(".task")
    count = lines.count()
    numbers(page).get_by_label("n, up to 35").fill(str(n))
    numbers(page).get_by_role("button", name="Compute").click()
    expect(lines).to_have_count(count + 1)
    key = lines.first.get_attribute("data-key")
    return page.locator(f"[data-key='{key}']")


def state(line: Locator) -> Locator:
    return line.locator(".state")


def cancel(line: Locator) -> None:
    line.get_by_role("button", name="Cancel").click()
    expect(state(line)).to_have_text(CANCELLED)


def summarise_for_long(page: Page) -> None:
    """Upload a table that takes many times as long as the sample; see that it runs."""
    lines = b"n,m\n" + b"1,2\n" * 3_000_000
    long = {"name": "long.csv", "mimeType": "text/csv", "buffer": lines}
    table(page).get_by_label("CSV file with").set_input_files(t.cast(t.Any, long))
    table(page).get_by_role("button", name="Summarise").click()
    expect(state(table(page))).to_have_text(RUNNING)


def end(line: Locator) -> None:
    """Cancel a task, unless it ends before."""
    key = line.locator(".task").get_attribute("data-key")
    line.page.request.post(urljoin(line.page.url, f"/tasks/{key}/cancel"))
    expect(state(line)).to_have_text(re.compile(f"{CANCELLED.pattern}|{DONE.pattern}"))


RUNNING = re.compile(r"Running, \d+ s")
CANCELLED = re.compile(r"Cancelled( after [\d.]+ m?s)?")
DONE = re.compile(r"Done in [\d.]+ m?s")
WAITING = "Waiting for a worker process"


@BOTH_WIDTHS
def test_sign_up(page: Page) -> None:
    """The e-mail that a thread sent is on the page: open where there is room."""
    sign_up(page).get_by_label("E-mail address").fill("ada@example.org")
    sign_up(page).get_by_role("button", name="Sign up").click()
    expect(state(sign_up(page))).to_have_text(DONE)
    mail = sign_up(page).locator(".mail")
    if page_width(page) < 1000:
        expect(mail).to_be_hidden()
        sign_up(page).get_by_text("E-mail received at").click()
    expect(mail).to_contain_text("Please confirm – to ada@example.org")
    mail.get_by_role("link").click()
    expect(page.locator(".notice")).to_have_text(
        "Thank you: ada@example.org is confirmed."
    )
    expect(state(sign_up(page))).to_have_text(DONE)


@BOTH_WIDTHS
def test_summary(page: Page, tmp_path: Path) -> None:
    """A chosen file is summarised: figures and a chart for each column of numbers."""
    prices = tmp_path / "prices.csv"
    prices.write_text("name,price\n" + "".join(f"x,{n}\n" for n in range(1, 101)))
    table(page).get_by_label("CSV file with").set_input_files(prices)
    table(page).get_by_role("button", name="Summarise").click()
    expect(state(table(page))).to_have_text(DONE)
    result = table(page).get_by_text("100 rows, 1 column of numbers")
    if page_width(page) < 1000:
        result.click()
    row = table(page).get_by_role("row", name="price")
    assert row.locator("td").all_inner_texts()[1:] == ["100", "50.5", "1", "100"]
    chart = row.get_by_role("img", name="How the values of price are spread")
    expect(chart).to_be_visible()
    assert chart.locator("rect").count() > 5


def test_sample(page: Page) -> None:
    """One click runs the sample."""
    table(page).get_by_role("button", name="Use a sample").click()
    expect(table(page).locator(".title")).to_have_text("visitors.csv")
    expect(state(table(page))).to_have_text(DONE)


def test_progress(page: Page) -> None:
    """The bar of a task grows, and stops where it is cancelled."""
    summarise_for_long(page)
    bar = table(page).get_by_role("progressbar", name="long.csv")
    expect(bar).to_be_visible()
    seen = 0.0
    for _ in range(3):
        seen = page.wait_for_function(
            "([bar, seen]) => bar.value > seen && bar.value",
            arg=[bar.element_handle(), seen],
        ).json_value()
    meter = table(page).locator(".meter")
    expect(meter).to_contain_text(re.compile(r"\d+% · [\d,]+ lines"))
    expect(state(table(page))).to_have_text(RUNNING)
    table(page).get_by_role("button", name="Cancel long.csv").click()
    expect(state(table(page))).to_have_text(CANCELLED)
    expect(table(page).get_by_role("button", name="Cancel")).to_have_count(0)
    assert seen <= bar.evaluate("it => it.value") < 1
    expect(table(page).locator(".result")).to_have_count(0)


def test_what_is_urgent_goes_first(page: Page) -> None:
    """An urgent task overtakes one that waits; what runs can be cancelled to make room,
    in worker processes, too. The strip counts them.
    """
    one, other, plain = (compute(page, 35) for _ in range(3))
    numbers(page).get_by_role("switch", name="Urgent number").check()
    urgent = compute(page, 35)
    for line in (one, other):
        expect(state(line)).to_have_text(RUNNING)
    for line in (plain, urgent):
        expect(state(line)).to_have_text(WAITING)
    strip = page.get_by_role("list", name="What the workers do now")
    expect(strip).to_contain_text(
        re.compile(r"Threads\s+0 of 2 busy\s+Worker processes\s+2 of 2 busy\s+")
    )
    expect(strip).to_contain_text("2 waiting")
    expect(plain.locator(".urgent")).to_have_count(0)
    expect(urgent.locator(".urgent")).to_have_text("Urgent")
    cancel(one)
    expect(state(urgent)).to_have_text(RUNNING)
    expect(state(plain)).to_have_text(WAITING)
    for line in (plain, urgent, other):
        cancel(line)
    expect(strip).to_contain_text("0 waiting")


def test_thumbnails(page: Page) -> None:
    """A group of twenty has one bar, says when it waits for a worker process, and shows
    its pictures when it is complete.
    """
    ahead = [compute(page, 35) for _ in range(2)]
    thumbnails(page).get_by_role("button", name="Draw").click()
    bar = thumbnails(page).get_by_role("progressbar", name="20 thumbnails")
    expect(bar).to_have_count(1)
    expect(thumbnails(page).locator(".meter")).to_have_text("0%")
    expect(state(thumbnails(page))).to_have_text(WAITING)
    expect(thumbnails(page).get_by_role("img")).to_have_count(0)
    for line in ahead:
        cancel(line)
    expect(state(thumbnails(page))).to_have_text(RUNNING)
    expect(state(thumbnails(page))).to_have_text(DONE)
    pictures = thumbnails(page).get_by_role("img", name="20 drawings of Julia sets")
    expect(pictures).to_be_visible()
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.pictures img')];"
        " return all.length == 20 && all.every(it => it.naturalWidth == 320); }"
    )


def test_all_four(page: Page) -> None:
    """One click starts all four; a screen reader hears one sentence for each that is
    done; two columns have no holes, and each card shows its code.
    """
    page.get_by_role("button", name="Start all four").click()
    expect(page.locator(".task")).to_have_count(4)
    expect(numbers(page).locator(".urgent")).to_have_text("Urgent")
    expect(state(sign_up(page))).to_have_text(DONE)
    expect(state(table(page))).to_have_text(RUNNING)
    news = page.locator("#news")
    end(table(page))
    expect(news).to_have_text(
        re.compile(r"(^|\. )visitors.csv: (Cancelled after|Done in) [\d.]+ m?s\.")
    )
    for line in (numbers(page), thumbnails(page)):
        line.get_by_role("button", name="Cancel").click()
        expect(state(line)).to_have_text(CANCELLED)
    gaps = page.evaluate(
        "[...document.querySelectorAll('.stack')].map(stack => {"
        " const [a, b] = [...stack.children].map(it => it.getBoundingClientRect());"
        " return Math.round(b.top - a.bottom); })"
    )
    assert len(gaps) == 2
    assert max(gaps) < 30
    numbers(page).get_by_text("Show the code").click()
    code = numbers(page).get_by_role("region", name="The code of Compute")
    expect(code).to_contain_text("\ndef fibonacci(n: int) -> int:")


def test_errors_are_sentences(page: Page) -> None:
    """A refused form says why beside its field, and the field has the focus; a failed
    task says what failed; markup in a name is text.
    """
    for region, field, button, words in (
        (sign_up(page), "E-mail address", "Sign up", "Enter an e-mail address."),
        (
            table(page),
            "CSV file with",
            "Summarise",
            "Choose a CSV file, or use the sample.",
        ),
        (numbers(page), "n, up to 35", "Compute", "Enter a whole number from 0 to 35."),
    ):
        box = region.get_by_label(field)
        if field == "n, up to 35":
            box.fill("99")
        region.get_by_role("button", name=button).click()
        expect(region.get_by_role("alert")).to_have_text(words)
        expect(box).to_have_attribute("aria-invalid", "true")
        expect(box).to_be_focused()
        expect(box).to_have_accessible_description(words)
    compute(page, 1)
    expect(numbers(page).get_by_role("alert")).to_have_text("")
    assert (
        numbers(page).get_by_label("n, up to 35").get_attribute("aria-invalid") is None
    )
    bad = {"name": "<b>.csv", "mimeType": "text/csv", "buffer": b"a\nx\n"}
    table(page).get_by_label("CSV file with").set_input_files(bad)  # type: ignore[arg-type]
    table(page).get_by_role("button", name="Summarise").click()
    expect(state(table(page))).to_have_text(re.compile(r"Failed after [\d.]+ m?s"))
    expect(table(page).locator(".title")).to_have_text("<b>.csv")
    expect(table(page).locator(".result")).to_have_text(
        "No column holds numbers. Rows read: 1."
    )


def test_double_click_submits_once(page: Page) -> None:
    """A double click starts one task; a later click starts another."""
    button = numbers(page).get_by_role("button", name="Compute")
    numbers(page).get_by_label("n, up to 35").fill("5")
    button.dblclick()
    expect(state(numbers(page))).to_have_text(DONE)
    expect(numbers(page).locator(".task")).to_have_count(1)
    compute(page, 5)


def test_with_the_keyboard_alone(page: Page) -> None:
    """Tab reaches each control, Enter and Space do what a click does, and the focus
    stays with a task that ends.
    """

    def tab_to(target: Locator) -> None:
        for _ in range(20):
            if target.evaluate("it => it === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {target}")

    tab_to(sign_up(page).get_by_label("E-mail address"))
    page.keyboard.type("keys@example.org")
    page.keyboard.press("Enter")
    expect(state(sign_up(page))).to_have_text(DONE)
    tab_to(table(page).get_by_role("button", name="Use a sample"))
    page.keyboard.press("Enter")
    expect(state(table(page))).to_have_text(RUNNING)
    tab_to(table(page).get_by_role("button", name="Cancel visitors.csv"))
    page.keyboard.press("Space")
    expect(state(table(page))).to_have_text(CANCELLED)
    expect(table(page).locator(".task")).to_be_focused()
    tab_to(thumbnails(page).get_by_role("switch", name="Urgent thumbnails"))
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(thumbnails(page).locator(".urgent")).to_have_text("Urgent")
    tab_to(thumbnails(page).get_by_role("button", name="Cancel 20 thumbnails"))
    page.keyboard.press("Enter")
    expect(state(thumbnails(page))).to_have_text(CANCELLED)


# Whose tasks they are.


def test_reload_and_second_tab(page: Page, browser: Browser, site: Server) -> None:
    """After a reload, and in a second tab, the tasks are there with their progress, and
    can be cancelled; what one tab does the other shows. Another visitor sees nothing.
    """
    summarise_for_long(page)
    line = compute(page, 35)
    page.reload()
    expect(state(table(page))).to_have_text(RUNNING)
    expect(table(page).get_by_role("progressbar")).to_be_visible()
    expect(state(line)).to_have_text(RUNNING)
    second = page.context.new_page()
    second.goto(site.url)
    cancel(table(second))
    expect(state(table(page))).to_have_text(CANCELLED)
    compute(page, 3)
    expect(numbers(second).locator(".task")).to_have_count(2)
    with visit(browser, site.url) as stranger:
        expect(stranger.locator(".task")).to_have_count(0)
    second.close()
    cancel(line)


def test_restart_of_the_browser(
    playwright: Playwright, site: Server, tmp_path: Path
) -> None:
    """A task that runs while the browser is closed is there when it is back."""

    def open_browser() -> BrowserContext:
        return playwright.chromium.launch_persistent_context(
            tmp_path, executable_path=CHROMIUM, args=list(OPTIONS)
        )

    with open_browser() as context:
        page = context.new_page()
        page.goto(site.url)
        expect(state(compute(page, 35))).to_have_text(RUNNING)
    with open_browser() as context:
        page = context.new_page()
        page.goto(site.url)
        expect(state(numbers(page))).to_have_text(RUNNING)
        cancel(numbers(page))


# The connection.

LOST = "Connection lost, trying again"


HOLD = """path => {
    const ask = window.fetch;
    window.release = null;
    window.fetch = async (...asked) => {
        const answer = await ask(...asked);
        if (asked[0].endsWith(path)) await new Promise(go => window.release = go);
        return answer;
    };
    window.stopHolding = () => { window.fetch = ask; window.release?.(); };
}"""


def test_answers_that_overtake_each_other(page: Page) -> None:
    """An answer that comes late changes nothing: a task that has ended does not run
    again, and one that has just begun is not gone.
    """
    line = compute(page, 35)
    expect(state(line)).to_have_text(RUNNING)
    page.evaluate(HOLD, "/cancel")
    cancel(line)
    page.evaluate("stopHolding()")
    expect(page.locator("form[aria-busy=true]")).to_have_count(0)
    expect(state(line)).to_have_text(CANCELLED)
    page.evaluate(HOLD, "/status")
    page.evaluate("pollNow()")
    page.wait_for_function("() => Boolean(window.release)")
    later = compute(page, 35)
    page.evaluate("stopHolding()")
    page.evaluate("showing")
    expect(state(later)).to_have_text(RUNNING)
    cancel(later)


@pytest.mark.parametrize("what", ["no connection", "502", "no JSON"])
def test_lost_connection(page: Page, site: Server, what: str) -> None:
    """While the app does not answer the page says so, asks less and less often, and no
    task is said to have failed. What was sent meanwhile arrives, once.
    """
    line = compute(page, 35)
    expect(state(line)).to_have_text(RUNNING)
    tries: list[float] = []

    def fail(route: Route) -> None:
        if route.request.url.endswith("/status"):
            tries.append(time.monotonic())
        if what == "no connection":
            route.abort()
        else:
            status = 502 if what == "502" else 200
            route.fulfill(
                status=status, body="<h1>A proxy</h1>", content_type="text/html"
            )

    banner = page.locator("#connection")
    expect(banner).to_be_hidden()
    page.route("**/*", fail)
    expect(banner).to_have_text(LOST)
    numbers(page).get_by_label("n, up to 35").fill("8")
    numbers(page).get_by_role("button", name="Compute").click()
    page.wait_for_timeout(1000)  # 0, 0.5 and 1.5 seconds after the first
    assert 2 <= len(tries) <= 3, tries
    expect(state(line)).to_have_text(RUNNING)
    expect(page.locator(".problem")).to_have_text([""] * 5)
    page.unroute("**/*", fail)
    expect(banner).to_be_hidden()
    expect(state(numbers(page).locator(".task").first)).to_have_text(DONE)
    expect(numbers(page).locator(".task")).to_have_count(2)
    cancel(line)


def test_server_gone_and_back(browser: Browser, tmp_path: Path) -> None:
    """When the server is back, the page finds it by itself. What had ended is there
    with its result, what ran or waited goes on, and a form works at once.
    """
    folder = {"EXAMPLE_FOLDER": str(tmp_path)}
    with server(str(SCRIPT), "--port", "0", **folder) as first:
        port = first.url.rpartition(":")[2]
        with visit(browser, first.url) as page:
            expect(state(compute(page, 12))).to_have_text(DONE)
            lines = [compute(page, 33) for _ in range(3)]
            expect(state(lines[0])).to_have_text(RUNNING)
            assert first.interrupt() == 0
            expect(page.locator("#connection")).to_have_text(LOST)
            with server(str(SCRIPT), "--port", port, **folder):
                expect(page.locator("#connection")).to_be_hidden()
                for line in lines:
                    expect(state(line)).to_have_text(DONE)
                expect(state(compute(page, 3))).to_have_text(DONE)
                page.reload()
                results = numbers(page).locator(".result").all_text_contents()
                assert results == ["2", *["3,524,578"] * 3, "144"]


def test_nightly_job_now(page: Page) -> None:
    """The job that runs every night can be run at once, and says what it has done."""
    nightly = card(page, "Remove old files")
    nightly.get_by_role("button", name="Run now").click()
    expect(state(nightly)).to_have_text(DONE)
    removed = re.compile(r"Removed 0 of \d+ files")
    expect(nightly.locator(".result")).to_have_text(removed)


def test_polling(page: Page) -> None:
    """An idle page asks seldom, a hidden one not at all until it is seen again."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1500)
    assert len(asked) <= 1
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "pollNow()"
    )
    page.wait_for_timeout(300)
    asked.clear()
    page.wait_for_timeout(2500)
    assert asked == []
    with page.expect_request("**/status"):
        page.evaluate(
            "delete document.hidden;"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )


# How it looks, and sounds.


def test_without_javascript(browser: Browser, site: Server) -> None:
    """The forms work as forms: tasks, their results, cancelling and errors are in the
    page that the server sends.
    """
    with visit(browser, site.url, java_script_enabled=False) as page:
        numbers(page).get_by_label("n, up to 35").fill("35")
        numbers(page).get_by_role("button", name="Compute").click()
        expect(state(numbers(page))).to_have_text(re.compile("Running|Waiting"))
        cancel_button = numbers(page).get_by_role("button", name="Cancel fibonacci(35)")
        cancel_button.click()
        for _ in range(LIMIT * 10):
            page.get_by_role("link", name="load the page again").click()
            if CANCELLED.match(state(numbers(page)).inner_text()):
                break
            page.wait_for_timeout(100)
        expect(state(numbers(page))).to_have_text(CANCELLED)
        sign_up(page).get_by_label("E-mail address").fill("x" * 65 + "@example.org")
        sign_up(page).get_by_role("button", name="Sign up").click()
        expect(sign_up(page).get_by_role("alert")).to_contain_text(
            "is not an e-mail address."
        )


def test_phone_needs_no_long_scroll(browser: Browser, site: Server) -> None:
    """At 390 pixels, results and old tasks are folded: the page with all four and
    six numbers is a little more than two windows long.
    """
    with visit(browser, site.url, 390) as page:
        for _ in range(5):
            page.request.post(f"{site.url}/fibonacci", form={"n": "1"})
        page.get_by_role("button", name="Start all four").click()
        cancel(thumbnails(page))
        end(table(page))
        expect(page.locator(".task[data-ended]")).to_have_count(9)
        expect(numbers(page).locator(".task:visible")).to_have_count(4)
        assert page.evaluate("document.documentElement.scrollHeight") < 2.6 * 844
        numbers(page).get_by_text("2 earlier").click()
        expect(numbers(page).locator(".task").nth(5)).to_be_visible()


def test_accessibility(
    page: Page, site: Server, from_npm: t.Callable[[str, str], bytes]
) -> None:
    """axe-core finds nothing in any state of the page, in both themes and at both
    widths; what can be touched is 44 pixels high.
    """
    violations: dict[str, list[str]] = {}

    def check(where: str) -> None:
        for theme in ("light", "dark"):
            for width in (1280, 390):
                page.emulate_media(color_scheme=t.cast(t.Any, theme))
                page.set_viewport_size({"width": width, "height": 844})
                for one in page.evaluate(VIOLATIONS):
                    targets = [node["target"] for node in one["nodes"]]
                    name = f"{where}, {theme}, {width}: {one['id']}"
                    violations[name] = targets

    page.emulate_media(reduced_motion="reduce")
    page.evaluate(from_npm(AXE, "axe.min.js").decode())
    check("empty")
    summarise_for_long(page)
    expect(table(page).locator(".meter")).to_be_visible()
    cancel(table(page))
    small_table = {"name": "a.csv", "mimeType": "text/csv", "buffer": b"a\n1\n"}
    table(page).get_by_label("CSV file with").set_input_files(
        t.cast(t.Any, small_table)
    )
    table(page).get_by_role("button", name="Summarise").click()
    expect(state(table(page)).first).to_have_text(DONE)
    sign_up(page).get_by_role("button", name="Sign up").click()
    expect(sign_up(page).get_by_role("alert")).not_to_be_empty()
    lines = [compute(page, 35) for _ in range(3)]
    numbers(page).get_by_role("switch").check()
    thumbnails(page).get_by_role("button", name="Draw").click()
    expect(state(thumbnails(page))).to_have_text(WAITING)
    page.request.post(f"{site.url}/sign-up", form={"address": "a@b"})
    expect(state(sign_up(page))).to_have_text(DONE)
    numbers(page).get_by_label("n, up to 35").fill("")
    page.keyboard.press("Enter")
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    page.evaluate("showLost(true)")
    check("all states")
    small = page.evaluate(
        "[...document.querySelectorAll('button, input, summary, label.switch')]"
        ".filter(it => it.checkVisibility() && !it.closest('label.switch input'))"
        ".filter(it => it.type != 'hidden' && it.role != 'switch')"
        ".filter(it => it.getBoundingClientRect().height < 44)"
        ".map(it => it.outerHTML)"
    )
    for line in (*lines, thumbnails(page)):
        cancel(line)
    assert (violations, small) == ({}, [])
