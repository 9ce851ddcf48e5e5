"""The dashboard in Chromium: hostile names, keyboard, phones, pages that stay open."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import threading
import typing as t
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from browsers import AXE, VIOLATIONS, browser, from_npm, need_chromium, playwright
from dashboards import everything
from flask import Flask
from flask_talisman import Talisman
from limits import LIMIT
from playwright.sync_api import Browser, Page, expect
from processes import Process, declare, until
from werkzeug.serving import make_server

from flask_executor import Executor, current_task
from flask_executor.stores.sql import database
from flask_executor.web import Dashboard
from flask_executor.web.dashboard import rendering

PAGES = ("", "tasks", "failures", "jobs", "groups", "periodic", "workers")
HTMX = "htmx.org@4.0.1"
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></textarea></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:alert(1)",
    '" hx-get="/evil" hx-trigger="load" x="',
    "\u202egnp.exe\x1b[31m\x00\ud7ff",
)

__all__ = ["browser", "from_npm", "playwright"]

need_chromium()


@contextmanager
def served(app: Flask) -> t.Iterator[str]:
    """Serve an app on a thread; its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="server")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/executor/"
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


class Tab:
    """A tab, and all that went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.set_default_timeout(LIMIT * 1000)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._console)
        page.on("dialog", self._dialog)

    def _console(self, message: t.Any) -> None:
        # The status of an answer is told there, too; reports of the policy are errors.
        if message.type == "error" and "the server responded" not in message.text:
            self.faults.append(message.text)

    def _dialog(self, dialog: t.Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str = "") -> Page:
        self.page.goto(self.url + path)
        return self.page

    def is_not_wider_than_its_window(self) -> bool:
        width = "document.documentElement.scrollWidth <= innerWidth"
        return t.cast(bool, self.page.evaluate(width))


@pytest.fixture
def new_tab(browser: Browser) -> t.Iterator[t.Callable[..., Tab]]:
    """Opens tabs, each as a new visitor; at the end nothing went wrong in any."""
    made: list[Tab] = []

    def make(url: str, width: int = 1280, **options: t.Any) -> Tab:
        size: t.Any = {"width": width, "height": 844}
        context = browser.new_context(viewport=size, **options)
        made.append(Tab(context.new_page(), url))
        return made[-1]

    yield make
    for tab in made:
        tab.page.context.close()
    assert [tab.faults for tab in made] == [[] for _ in made]


@pytest.fixture
def url(sqlite_url: str) -> str:
    """One kind of database is enough for what a browser does."""
    return sqlite_url


@pytest.fixture
def site(shop: Process) -> t.Iterator[str]:
    with served(shop.app) as url:
        yield url


def fail(text: str) -> None:
    raise ValueError(text)


def bad_class(name: str) -> type[Exception]:
    return type(name, (Exception,), {"__module__": name, "__qualname__": name})


def fill(shop: Process, gate: threading.Event, words: t.Sequence[str]) -> list[str]:
    """Run tasks whose every text is one of these words; the ids of the tasks."""
    begun, futures = threading.Semaphore(0), []

    def work(word: str) -> None:
        current_task.progress(1, 2, word)
        begun.release()
        gate.wait(LIMIT)

    def raise_it(word: str) -> None:
        raise bad_class(word)(word)

    for number, word in enumerate(words):
        job = declare(shop, lambda word=word: raise_it(word), name=f"{number}{word}")
        using = job.using(name=word, meta={word: word})
        with shop.app.test_request_context("/x", query_string={"q": word}):
            futures.append(using.submit_stored(f"{word}{number}"))
            member = shop.executor.group(f"{word} group").submit(job)
        futures.append(member)
    slow = declare(shop, work, name=f"slow{words[0]}")
    running = [slow.using(name=words[1]).submit(word) for word in words[:2]]
    for _ in running:
        assert begun.acquire(timeout=LIMIT)
    until(lambda: all(future.done() for future in futures))
    until(lambda: all(shop.record(future).progress for future in running))
    return [future.task.id for future in (*futures, *running)]


def test_hostile_texts_are_shown_as_they_are(
    shop: Process, site: str, new_tab: t.Callable[..., Tab], gate: threading.Event
) -> None:
    """No script of a job, task, key, meta, progress, exception, path, group or query
    runs, and nothing asks for a file that is not ours.
    """
    words = [word.replace("\x00", "") for word in HOSTILE]
    ids = fill(shop, gate, words)
    tab = new_tab(site)
    page = tab.open("tasks")
    expect(page.get_by_role("link", name=words[0]).first).to_be_visible()
    requests = {record.request for record in shop.executor.tasks() if record.request}
    more = [f"tasks/{id}" for id in ids] + [f"requests/{id}" for id in requests]
    for path in (*PAGES, *more):
        tab.open(path)
        page.wait_for_function("window.htmx !== undefined")
        assert page.locator("main img, main script, main svg svg").count() == 0
        assert page.locator("main [hx-get]").count() == 0
    # Together in one value: each of them ends whatever it stands in.
    query = quote("".join(HOSTILE).replace("\ud7ff", ""))
    names = ("open", "state", "job", "name", "error", "group", "before", "did")
    for name in (*names, "parent", "request", "retried_from"):
        tab.open(f"tasks?{name}={query}")
        tab.open(f"matching?do=cancel&{name}={query}")


def test_an_open_page_shows_what_is_new(
    shop: Process, site: str, new_tab: t.Callable[..., Tab], gate: threading.Event
) -> None:
    """Without being loaded again: and what has the focus, is open, chosen or typed
    stays as it is.
    """
    bad = declare(shop, fail, name="bad")
    first = bad.submit("one")
    until(first.done)
    tab = new_tab(site)
    page = tab.open("tasks")
    page.get_by_label("Job").fill("half a na")
    page.get_by_label(re.compile("Choose bad")).check()
    page.get_by_label(re.compile("Choose bad")).focus()
    page.evaluate("document.getElementById('main').mark = 'same'")
    bad.submit("two")
    expect(page.locator(".task")).to_have_count(2)
    assert page.evaluate("document.getElementById('main').mark") == "same"
    assert page.evaluate("document.activeElement.value") == first.task.id
    assert page.get_by_label("Job").input_value() == "half a na"
    assert page.get_by_label(re.compile(first.task.id)).is_checked()


def test_open_details_stay_open(
    shop: Process, site: str, new_tab: t.Callable[..., Tab], gate: threading.Event
) -> None:
    """What somebody has opened does not close when the page gets news."""
    job = declare(shop, fail, name="bad")
    future = job.submit("no")
    until(future.done)
    tab = new_tab(site)
    page = tab.open("workers")
    page.get_by_text(re.compile(r"^\d+ jobs?$")).click()
    expect(page.locator("details p")).to_be_visible()
    lease = page.locator("time").last
    before = lease.get_attribute("datetime")
    assert before is not None
    expect(lease).not_to_have_attribute("datetime", before)
    expect(page.locator("details p")).to_be_visible()


def test_a_page_asks_less_often_if_nothing_changes(
    shop: Process, site: str, new_tab: t.Callable[..., Tab]
) -> None:
    """Each answer of 304 makes the pause longer; a hidden page does not ask at all."""
    until(declare(shop, lambda: None).submit().done)
    tab = new_tab(site)
    statuses: list[int] = []
    tab.page.on("response", lambda answer: statuses.append(answer.status))
    page = tab.open("failures")
    page.clock.install()
    page.reload()
    statuses.clear()
    page.clock.run_for(2100)
    until(lambda: page.wait_for_timeout(10) or statuses)
    for _ in range(40):
        page.clock.run_for(2000)
        page.wait_for_timeout(20)
    assert set(statuses) == {200, 304} or set(statuses) == {304}
    assert 3 <= len(statuses) <= 12, "40 pauses of 2 seconds"


def test_a_store_that_goes_away_while_pages_are_open(
    shop: Process,
    site: str,
    new_tab: t.Callable[..., Tab],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page says so, and shows the tasks again by itself."""
    until(declare(shop, lambda: None, name="good").submit().done)
    page = new_tab(site).open("tasks")
    expect(page.locator(".task")).to_have_count(1)
    with monkeypatch.context() as patch:

        def away(self: t.Any, op: t.Any) -> t.NoReturn:
            raise database.StoreUnavailable("tests", "no such host")

        patch.setattr(database.Database, "read", away)
        expect(page.get_by_text("The store is away.")).to_be_visible()
    expect(page.locator(".task")).to_have_count(1)


def test_a_server_that_goes_away_is_said(
    shop: Process, new_tab: t.Callable[..., Tab]
) -> None:
    """The page keeps what it shows, and says that it is old."""
    until(declare(shop, lambda: None, name="good").submit().done)
    with served(shop.app) as url:
        tab = new_tab(url)
        page = tab.open("tasks")
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    assert page.locator(".task").count() == 1
    tab.faults.clear()  # the browser tells that the connection was refused


def test_who_is_logged_out_is_told(
    shop: Process, site: str, new_tab: t.Callable[..., Tab], allowed: set[str]
) -> None:
    """The page that stays open asks no more."""
    until(declare(shop, lambda: None, name="good").submit().done)
    page = new_tab(site).open("tasks")
    allowed.clear()
    expect(page.get_by_text("This page is not shown to you any more.")).to_be_visible()


def test_the_policy_of_talisman_is_kept(
    shop: Process, new_tab: t.Callable[..., Tab]
) -> None:
    """Beside an extension that has a policy of its own, all pages work as well."""
    Talisman(shop.app, force_https=False)
    until(declare(shop, lambda: None, name="good").submit().done)
    with served(shop.app) as url:
        page = new_tab(url).open("tasks")
        page.wait_for_function("window.htmx !== undefined")
        colour = "getComputedStyle(document.querySelector('.button, button')).cursor"
        assert page.evaluate(colour) == "pointer"
        page.close()  # before the server, which it asks for news


def test_a_form_works_in_a_real_browser(
    shop: Process, site: str, new_tab: t.Callable[..., Tab]
) -> None:
    """Pause a job, choose tasks and cancel them, run all again: with and without
    JavaScript.
    """
    bad = declare(shop, fail, name="bad")
    until(bad.submit("x").done)
    for script in (True, False):
        page = new_tab(site, java_script_enabled=script).open("jobs")
        page.get_by_role("button", name="Pause bad").click()
        assert "did=pause" in page.url
        assert shop.executor.paused() == ["bad"]
        waits = bad.submit("y")
        page.goto(site + "tasks?state=waiting")
        page.get_by_label(re.compile(f"Choose bad, {waits.task.id}")).check()
        page.get_by_role("button", name="Cancel", exact=True).click()
        assert waits.cancelled()
        page.goto(site + "jobs")
        page.get_by_role("button", name="Resume bad").click()
        failed = shop.executor.counts()["failed"]
        page.goto(site + "tasks?state=failed")
        page.get_by_role("link", name="Run all again…").click()
        expect(page.get_by_text(f"{failed} task")).to_be_visible()
        page.get_by_role("button", name="Run all again").click()
        until(lambda n=failed: shop.executor.counts()["failed"] == 2 * n)


def test_a_form_of_another_site_does_nothing(
    shop: Process, site: str, new_tab: t.Callable[..., Tab]
) -> None:
    """A page elsewhere that posts to the dashboard of its visitor is refused."""
    declare(shop, fail, name="bad")
    page = new_tab(site).open("jobs")
    evil = Flask("evil")
    form = f'<form method=post action="{site}jobs/pause"><input name=job value=bad>'

    @evil.get("/executor/")
    def trap() -> str:
        return f"{form}<button>Win</button></form>"

    with served(evil) as elsewhere:
        page.goto(elsewhere.replace("127.0.0.1", "localhost"))
        page.get_by_role("button", name="Win").click()
    expect(page.get_by_text("was not sent by a page of the dashboard")).to_be_visible()
    assert shop.executor.paused() == []


def test_all_pages_by_keyboard(
    shop: Process, site: str, new_tab: t.Callable[..., Tab]
) -> None:
    """The first key leads past the navigation; what has the focus is always seen."""
    until(declare(shop, fail, name="bad").submit("x").done)
    page = new_tab(site).open("tasks")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        word, outline = page.evaluate(FOCUSED)
        if word == "":  # the end of the page
            break
        assert outline == "solid", word
        seen.add(word)
    assert {"Overview", "Workers", "Show", "bad", "Cancel", "Run again"} <= seen
    page.goto(site + "tasks")
    page.get_by_role("link", name="bad").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("bad")


@pytest.mark.skipif(shutil.which("npm") is None, reason="There is no npm here")
def test_htmx_is_that_of_npm(from_npm: t.Callable[[str, str], bytes]) -> None:
    """The file that we ship is the one that its authors have released."""
    ours = Path(rendering.FOLDER / "static/htmx.min.js").read_bytes()
    theirs = from_npm(HTMX, "dist/htmx.min.js")
    assert hashlib.sha256(ours).digest() == hashlib.sha256(theirs).digest()


def test_accessibility_and_phones(
    shop: Process,
    site: str,
    new_tab: t.Callable[..., Tab],
    gate: threading.Event,
    from_npm: t.Callable[[str, str], bytes],
) -> None:
    """axe-core finds nothing on any page, in both themes, wide and at 360 pixels; no
    page is wider than its window; what can be touched is 44 pixels high.
    """
    axe = from_npm(AXE, "axe.min.js").decode()
    word = "a_very_long_name_without_any_place_to_break_it_" * 3
    below = declare(shop, int, name=word)
    with shop.app.test_request_context(f"/{word}"):
        above = declare(shop, lambda: below.submit() and None, name="above").submit()
    until(above.done)
    ids = fill(shop, gate, [word, "short"])
    [worker] = [one.id for one in shop.executor.workers()]
    more = [f"tasks/{ids[0]}", f"tasks/{ids[-1]}", f"workers/{worker}"]
    more += ["matching?do=cancel", "matching?do=retry", "tasks/nothing"]
    shop.executor.retry(ids[0])
    more += [f"requests/{shop.record(above).request}", f"tasks/{above.task.id}"]
    wide = new_tab(site, bypass_csp=True)
    found: dict[str, str] = {}
    for path in (*PAGES, *more):
        page = wide.open(path)
        page.evaluate(axe)
        for theme in ("light", "dark"):
            for width in (1280, 360):
                page.emulate_media(color_scheme=t.cast(t.Any, theme))
                page.set_viewport_size({"width": width, "height": 844})
                bad = [
                    (one["id"], [n["html"] + n["failureSummary"] for n in one["nodes"]])
                    for one in page.evaluate(VIOLATIONS)
                ]
                bad += [] if wide.is_not_wider_than_its_window() else ["too wide"]
                bad += page.evaluate(SMALL)
                found |= {str(one): f"{path} {theme} {width}" for one in bad}
    assert found == {}


FOCUSED = """(() => {
    const e = document.activeElement;
    if (e == document.body) return ["", ""];
    const word = e.textContent.trim() || e.name || e.tagName;
    return [word, getComputedStyle(e).outlineStyle];
})()"""
SMALL = """() => [...document.querySelectorAll(
        "button, .button, select, input, nav a, summary"
    )].filter(e => e.type != "hidden" && e.checkVisibility())
    .map(e => e.type == "checkbox" ? e.closest("label") : e)
    .filter(e => e.getBoundingClientRect().height < 43.5)
    .map(e => "too small: " + e.outerHTML.slice(0, 80))"""


def test_a_cold_start_is_small(
    shop: Process, site: str, new_tab: t.Callable[..., Tab], gate: threading.Event
) -> None:
    """All that a browser loads for the first page has at most 60 kB, compressed."""
    fill(shop, gate, ["one", "two", "three"])
    sizes: dict[str, int] = {}
    tab = new_tab(site)
    tab.page.on(
        "response",
        lambda answer: sizes.setdefault(answer.url, len(gzip.compress(answer.body()))),
    )
    tab.open("tasks")
    until(lambda: tab.page.wait_for_timeout(10) or len(sizes) >= 4)
    assert sum(sizes.values()) <= 60_000, sizes


def test_an_app_without_a_store_in_a_browser(
    app: Flask, executor: Executor, new_tab: t.Callable[..., Tab]
) -> None:
    """All pages are there, and none has an error."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    with served(app) as url:
        tab = new_tab(url)
        for path in PAGES:
            tab.open(path)
            expect(
                tab.page.get_by_text("the tasks of one process alone")
            ).to_be_visible()
