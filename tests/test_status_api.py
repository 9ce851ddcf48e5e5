"""The status of a task: its owner sees it in four forms, and can cancel it."""

from __future__ import annotations

import datetime
import json
import logging
import re
import threading
import time
import typing as t

import pytest
from flask import Blueprint, Flask, session
from flask_wtf.csrf import CSRFProtect
from limits import LIMIT
from scripts import run_code
from status import (
    EVENTS,
    HTMX,
    PAGE,
    THREADS,
    Held,
    NoMoney,
    Short,
    events_in,
    held,
    site,
    start,
)

import flask_executor.web.status.events as events_module
from flask_executor import (
    Executor,
    InvalidOption,
    NoSecretKey,
    StatusRefused,
    TaskFuture,
    current_task,
)
from flask_executor.web import StatusAPI
from flask_executor.web.status import tokens as tokens_module
from flask_executor.web.status.shown import _step_below

__all__ = ["held"]


def fail(error: BaseException) -> None:
    raise error


def report(*progress: t.Any) -> None:
    current_task.progress(*progress)


def after(executor: Executor, fn: t.Callable[..., t.Any], *args: t.Any) -> TaskFuture:  # type: ignore[type-arg]
    """Submit a call and wait until it has ended."""
    future = executor.submit(fn, *args)
    future.exception(LIMIT)
    return future


# What starts a task


def test_accepted(app: Flask, executor: Executor, held: Held) -> None:
    """Who starts a task gets 202, where to ask, when to ask, and the status."""
    site(executor, app)
    _, answer = start(app, lambda: executor.submit(held))
    assert answer.status_code == 202
    assert answer.mimetype == "application/json"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert re.fullmatch(r"/tasks/[\w.-]+", answer.location)
    assert answer.json is not None
    assert answer.json["location"] == answer.location
    assert answer.json["state"] in ("waiting", "running")


def test_accepted_by_htmx_and_by_a_form(
    app: Flask, executor: Executor, held: Held
) -> None:
    """HTMX gets a fragment that asks again; a plain form is sent to a page."""
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held), headers=HTMX)
    assert (answer.status_code, answer.mimetype) == (202, "text/html")
    assert f'hx-get="{answer.location}" hx-trigger="every 1s"' in answer.text
    client, answer = start(app, lambda: executor.submit(held), client, headers=PAGE)
    assert answer.status_code == 303
    page = client.get(answer.location, headers=PAGE)
    assert page.status_code == 200
    assert "<!doctype html>" in page.text


def test_the_url_of_a_task(app: Flask, executor: Executor) -> None:
    """It can be asked for in a view, as often as one likes."""
    status = site(executor, app)
    with app.test_request_context():
        future = after(executor, int)
        urls = status.url(future), status.url(future)
        cookie = dict(session)
    client = app.test_client()
    with client.session_transaction() as changed:
        changed.update(cookie)
    assert [client.get(url).json["state"] for url in urls] == ["succeeded"] * 2  # type: ignore[index]


# What is shown


def test_json(app: Flask, executor: Executor, held: Held) -> None:
    """The JSON has what a front end needs, with times in UTC, and nothing else."""
    site(executor, app)
    began = threading.Event()

    def work() -> None:
        current_task.progress(1, 4, "half of a half")
        began.set()
        held()

    client, answer = start(app, lambda: executor.submit_stored("secret", work))
    assert began.wait(LIMIT)
    found = client.get(answer.location).json
    times = found.pop("times")
    assert found == {
        "state": "running",
        "done": False,
        "progress": {
            "done": 1,
            "total": 4,
            "message": "half of a half",
            "fraction": 0.25,
        },
        "attempt": 1,
        "cancel_requested": False,
        "retry_after": 1,
        "error": None,
        "location": answer.location,
    }
    assert [*times] == ["due", "finished", "started", "submitted"]
    assert (times["due"], times["finished"]) == (None, None)
    started = datetime.datetime.fromisoformat(times["started"])
    assert started.utcoffset() == datetime.timedelta(0)
    held.gate.set()
    executor.futures.result("secret", timeout=LIMIT)
    found = client.get(answer.location)
    assert (found.json["state"], found.json["done"]) == ("succeeded", True)
    assert found.json["retry_after"] is None
    assert "Retry-After" not in found.headers


def test_a_task_without_a_key_is_known_after_its_end(
    app: Flask, executor: Executor
) -> None:
    """The status of a task that has ended is there, though the executor forgot it."""
    site(executor, app)
    client, answer = start(app, lambda: after(executor, int))
    found = client.get(answer.location)
    assert (found.status_code, found.json["state"]) == (200, "succeeded")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("/etc/passwd"), "The task failed."),
        (NoMoney("/etc/passwd"), "Your card was refused."),
        (Short(7), "You need 7 more."),
        (Short(), "The task failed."),  # the property itself raises
    ],
)
def test_a_failed_task(
    app: Flask, executor: Executor, error: Exception, said: str
) -> None:
    """It is HTTP 200; the exception's text stays hidden unless its class has a
    ``public_message``.
    """
    site(executor, app)
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    client, answer = start(app, lambda: after(executor, fail, error))
    for headers in ({}, HTMX, PAGE):
        found = client.get(answer.location, headers=headers)
        assert found.status_code == 200
        assert said in found.text
        assert "passwd" not in found.text
    assert client.get(answer.location).json["error"] == said


def test_results(app: Flask, executor: Executor, held: Held) -> None:
    """Without ``result`` nothing of a result is shown; with it, what it returns."""
    site(executor, app, name="plain", url_prefix="/plain")
    shown = StatusAPI(executor, result=lambda found: {"words": found.split()})
    app.register_blueprint(shown)
    app.add_url_rule("/both", view_func=lambda: "", endpoint="both")

    @app.post("/shown")
    def start_shown() -> t.Any:
        return shown.accepted(executor.submit(held))

    client, answer = start(app, lambda: after(executor, str, "the result"))
    assert "result" not in client.get(answer.location).text
    url = client.post("/shown").location
    assert client.get(url).json["result"] is None
    held.gate.set()
    found = client.get(url, headers={"Prefer": "wait=20"}, environ_overrides=THREADS)
    assert found.json["result"] == {"words": ["the", "result"]}


def test_a_result_that_cannot_be_shown(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """If ``result`` raises, that is in the log, and the task has still succeeded."""
    site(executor, app, result=lambda found: found / 0)
    client, answer = start(app, lambda: after(executor, int))
    found = client.get(answer.location)
    assert (found.status_code, found.json["state"]) == (200, "succeeded")
    assert found.json["result"] is None
    assert "The result of builtins.int is not shown" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_result_that_is_no_json(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """It is treated like a ``result`` that raises, in each form."""
    site(executor, app, result=lambda found: object())
    client, answer = start(app, lambda: after(executor, int))
    for headers in ({}, HTMX, PAGE, EVENTS):
        assert client.get(answer.location, headers=headers).status_code == 200
    assert client.get(answer.location).json["result"] is None
    assert "object is not JSON serializable" in caplog.text


def test_halves_of_characters(app: Flask, executor: Executor, held: Held) -> None:
    """The name of a file that is no text can be in a progress message or a result."""
    site(executor, app, result=lambda found: found)
    t.cast(t.Any, app.json).ensure_ascii = False
    began = threading.Event()

    def work() -> str:
        report(1, 2, "reads \udcff.csv")
        began.set()
        held()
        return "wrote \udcff.csv"

    client, answer = start(app, lambda: executor.submit(work))
    assert began.wait(LIMIT)
    for word in ("reads", "wrote"):
        for headers in ({}, HTMX, PAGE, EVENTS):
            found = client.get(answer.location, headers=headers)
            assert (found.status_code, f"{word} ?.csv" in found.text) == (200, True)
        held.gate.set()
        waiting = {"headers": {"Prefer": "wait=20"}, "environ_overrides": THREADS}
        client.get(answer.location, **waiting)


def test_a_path_as_a_result_is_a_link(app: Flask, executor: Executor) -> None:
    """A path of this app is a link in HTML; nothing else is."""
    site(executor, app, result=str)
    for text, is_link in (
        *(("/files/7", True), ("//evil.example", False), ("/\\evil.example", False)),
        *(("javascript:alert(1)", False), ("https://evil.example", False)),
    ):
        client, answer = start(app, lambda text=text: after(executor, str, text))  # type: ignore[misc]
        found = client.get(answer.location, headers=HTMX).text
        assert (f'href="{text}"' in found) is is_link
        assert ("<a " in found) is is_link


def test_a_large_result_is_not_kept(app: Flask, executor: Executor) -> None:
    """A result of 50 MB is neither shown nor kept, if nobody shows results."""
    status = site(executor, app)
    client, answer = start(app, lambda: after(executor, bytes, 50_000_000))
    assert len(client.get(answer.location).data) < 1000
    [kept] = status._finder._kept[app]._kept._futures.values()
    assert t.cast(t.Any, kept).future is None


def test_script_is_text(app: Flask, executor: Executor, held: Held) -> None:
    """Script in progress, error and result is escaped, also if the app escapes not."""
    app.jinja_options = {"autoescape": False}
    script = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'

    class Evil(Exception):
        public_message = script

    site(executor, app, result=lambda found: found)
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    began = threading.Event()

    def work() -> None:
        report(1, 2, script)
        began.set()
        held()

    client, running = start(app, lambda: executor.using(name=script).submit(work))
    assert began.wait(LIMIT)
    pages = [running.location]
    for call in (
        lambda: after(executor, fail, Evil()),
        lambda: after(executor, str, script),
        lambda: after(executor, dict, {script: [script]}),
    ):
        pages.append(start(app, call, client)[1].location)
    for url in pages:
        for headers in (HTMX, PAGE):
            found = client.get(url, headers=headers).text
            assert "<img" not in found
            assert "<script>" not in found
            assert "alert(1)" in found


def test_etags(app: Flask, executor: Executor, held: Held) -> None:
    """A client that has the same already gets 304, in each form of its own."""
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    assert held.began.wait(LIMIT)
    for headers in ({}, HTMX, PAGE):
        found = client.get(answer.location, headers=headers)
        same = {**headers, "If-None-Match": found.headers["ETag"]}
        again = client.get(answer.location, headers=same)
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == found.headers["ETag"]
        assert again.headers["Cache-Control"] == "private, no-cache"
        assert {"Accept", "HX-Request", "Cookie"} <= {*again.vary}
    held.gate.set()
    found = client.get(
        answer.location, headers={"Prefer": "wait=20"}, environ_overrides=THREADS
    )
    same = {"If-None-Match": again.headers["ETag"]}
    assert client.get(answer.location, headers=same).status_code == 200


def test_the_last_fragment_has_no_trigger(
    app: Flask, executor: Executor, held: Held
) -> None:
    """While the task runs the fragment asks again; that of an ended one does not."""
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    found = client.get(answer.location, headers=HTMX).text
    assert "hx-trigger" in found
    assert "<!doctype" not in found
    held.gate.set()
    waiting = {"headers": {"Prefer": "wait=20"}, "environ_overrides": THREADS}
    client.get(answer.location, **waiting)
    found = client.get(answer.location, headers=HTMX).text
    assert "hx-" not in found
    assert "Done" in found


def test_htmx_that_loads_a_page_gets_a_page(app: Flask, executor: Executor) -> None:
    """Boosted links, its history and full requests of htmx 4 get whole pages."""
    site(executor, app)
    client, answer = start(app, lambda: after(executor, int))
    for name, value in (
        *(("HX-Boosted", "true"), ("HX-History-Restore-Request", "true")),
        ("HX-Request-Type", "full"),
    ):
        headers = {**HTMX, "Accept": "text/html", name: value}
        found = client.get(answer.location, headers=headers).text
        assert "<!doctype html>" in found


def test_nothing_is_inline(app: Flask, executor: Executor, held: Held) -> None:
    """A page has no inline script or style, and its policy allows none; its files are
    there for everybody.
    """
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    page = client.get(answer.location, headers=PAGE)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert re.findall(r"<script(?! src=)|<style|style=|\son\w+=", page.text) == []
    files = re.findall(r'(?:href|src)="([^"]+static[^"]+)"', page.text)
    assert len(files) == 2
    for file in files:
        with app.test_client().get(file) as found:
            assert found.status_code == 200


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [(-5, 30, 1), (0.4, 5, 1), (4.9, 5, 2), (100, 5, 5), (16, 30, 15), (900, 30, 30)],
)
def test_when_to_ask_again(seconds: float, most: int, expected: int) -> None:
    """The longer a task runs, or the later it is due, the rarer are the polls."""
    assert _step_below(seconds, most) == expected


def test_a_delayed_task(app: Flask, executor: Executor) -> None:
    """It says when it is due, and is asked for less often."""
    site(executor, app)
    client, answer = start(app, lambda: executor.using(delay=600).submit(int))
    found = client.get(answer.location).json
    assert (found["state"], found["retry_after"]) == ("delayed", 30)
    assert found["times"]["due"] > found["times"]["submitted"]
    assert "Scheduled" in client.get(answer.location, headers=HTMX).text
    assert client.delete(answer.location).status_code == 200


# Waiting


def test_prefer_wait(app: Flask, executor: Executor, held: Held) -> None:
    """The answer comes when the task has ended, or after so many seconds."""
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    assert held.began.wait(LIMIT)
    begun = time.monotonic()
    found = client.get(
        answer.location, headers={"Prefer": "wait=1"}, environ_overrides=THREADS
    )
    assert found.json["state"] == "running"
    assert time.monotonic() - begun >= 1
    threading.Timer(0.1, held.gate.set).start()
    waiting = {"Prefer": "respond-async, wait=20"}
    found = client.get(answer.location, headers=waiting, environ_overrides=THREADS)
    assert found.json["state"] == "succeeded"
    assert time.monotonic() - begun < 15


def test_nobody_waits_where_there_is_one_thread(
    app: Flask, executor: Executor, held: Held
) -> None:
    """On a server without threads, and with no slot left, the answer comes at once."""
    site(executor, app)
    app.config["EXECUTOR_EVENTS_MAX"] = 0
    client, answer = start(app, lambda: executor.submit(held))
    for environ in ({}, THREADS):
        begun = time.monotonic()
        headers = {"Prefer": "wait=20"}
        client.get(answer.location, headers=headers, environ_overrides=environ)
        client.get(answer.location, headers=EVENTS, environ_overrides=environ).text  # noqa: B018
        assert time.monotonic() - begun < 10


# Server-sent events


def test_one_event(app: Flask, executor: Executor, held: Held) -> None:
    """Without threads there is one event, and when to come back."""
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    found = client.get(answer.location, headers=EVENTS)
    assert found.mimetype == "text/event-stream"
    assert found.headers["X-Accel-Buffering"] == "no"
    assert re.match(r"retry: 1000\nid: \w+\ndata: {", found.text)
    assert found.text.endswith("\n\n")
    [event] = events_in(found.text)
    assert event == client.get(answer.location).json


def test_a_stream(app: Flask, executor: Executor, held: Held) -> None:
    """With threads each change is an event, until the task ends; then 204."""
    site(executor, app)
    more = threading.Event()

    def work() -> None:
        report(1, 2)
        held()
        report(2, 2)
        assert more.wait(LIMIT)

    client, answer = start(app, lambda: executor.submit(work))
    assert held.began.wait(LIMIT)
    stream = client.get(
        answer.location, headers=EVENTS, environ_overrides=THREADS, buffered=False
    )
    chunks = (chunk.decode() for chunk in stream.iter_encoded())
    [first] = events_in(next(chunks))
    assert first["progress"]["done"] == 1
    held.gate.set()
    [second] = events_in(next(chunks))
    assert second["progress"]["done"] == 2
    more.set()
    *_, last = chunks
    assert [one["state"] for one in events_in(last)] == ["succeeded"]
    stream.close()
    [last_id] = re.findall("^id: (.*)$", last, re.M)
    known = {**EVENTS, "Last-Event-ID": last_id}
    assert client.get(answer.location, headers=known).status_code == 204
    assert len(events_in(client.get(answer.location, headers=EVENTS).text)) == 1


def test_a_stream_ends_after_its_time(
    app: Flask, executor: Executor, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After EXECUTOR_EVENTS_SECONDS the client has to come back; until then comments
    show if it is still there.
    """
    site(executor, app)
    app.config["EXECUTOR_EVENTS_SECONDS"] = 0.5
    monkeypatch.setattr(events_module, "PULSE", 0.1)
    monkeypatch.setattr(events_module, "STEP", 0.05)
    client, answer = start(app, lambda: executor.submit(held))
    assert held.began.wait(LIMIT)
    begun = time.monotonic()
    text = client.get(answer.location, headers=EVENTS, environ_overrides=THREADS).text
    assert 0.5 <= time.monotonic() - begun < LIMIT
    assert len(events_in(text)) == 1
    assert "\n\n:\n\n" in text


def test_slots(app: Flask, executor: Executor, held: Held) -> None:
    """Of many streams EXECUTOR_EVENTS_MAX wait; one that a client leaves, even before
    it began, makes room.
    """
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    assert held.began.wait(LIMIT)

    def stream() -> t.Any:
        return client.get(
            answer.location, headers=EVENTS, environ_overrides=THREADS, buffered=False
        )

    def wait(streams: list[t.Any]) -> list[bool]:
        return ["Content-Length" not in one.headers for one in streams]

    streams = [stream() for _ in range(5)]
    assert wait(streams) == [True, True, False, False, False]
    next(streams[0].iter_encoded())
    for one in [*streams, *streams]:
        one.close()
    streams = [stream() for _ in range(3)]
    assert wait(streams) == [True, True, False]
    for one in streams:
        one.close()


def test_a_stream_holds_no_context(app: Flask, executor: Executor, held: Held) -> None:
    """Each look has its own app context, whose teardown gives connections back."""
    torn_down: list[object] = []
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    assert held.began.wait(LIMIT)
    app.teardown_appcontext_funcs.append(torn_down.append)
    stream = client.get(
        answer.location, headers=EVENTS, environ_overrides=THREADS, buffered=False
    )
    chunks = stream.iter_encoded()
    next(chunks)
    before = len(torn_down)
    held.gate.set()
    next(chunks)
    assert len(torn_down) > before
    stream.close()


# Cancelling


def test_cancel(app: Flask, executor: Executor, held: Held) -> None:
    """DELETE, or the POST of a form, ends what waits and asks what runs; what is over
    is a conflict.
    """
    site(executor, app)
    client, running = start(app, lambda: executor.submit(held))
    assert held.began.wait(LIMIT)
    for method in ("DELETE", "POST"):
        found = client.open(running.location, method=method)
        assert (found.status_code, found.json["cancel_requested"]) == (202, True)
        waiting = start(app, lambda: executor.using(delay=600).submit(int), client)[1]
        found = client.open(waiting.location, method=method)
        assert (found.status_code, found.json["state"]) == (200, "cancelled")
        found = client.open(waiting.location, method=method)
        assert (found.status_code, found.mimetype) == (409, "application/problem+json")
        assert found.json["title"] == "Conflict"


def test_a_task_that_can_stop(app: Flask, executor: Executor, held: Held) -> None:
    """What asks if it should stop ends as cancelled, and nobody says that it failed."""
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held.stoppable))
    assert held.began.wait(LIMIT)
    assert client.delete(answer.location).status_code in (200, 202)  # it may be quick
    waiting = {"headers": {"Prefer": "wait=20"}, "environ_overrides": THREADS}
    found = client.get(answer.location, **waiting).json
    assert (found["state"], found["error"]) == ("cancelled", None)


def test_cancel_by_a_form(app: Flask, executor: Executor, held: Held) -> None:
    """The page's own form cancels, and its answer is a page; for HTMX a fragment."""
    site(executor, app)
    client, answer = start(app, lambda: executor.using(delay=600).submit(int))
    page = client.get(answer.location, headers=PAGE).text
    assert f'<form class="fx-cancel" method="post" action="{answer.location}"' in page
    found = client.post(answer.location, headers=PAGE)
    assert found.status_code == 200
    assert "Cancelled" in found.text
    assert "<form" not in found.text
    found = client.post(answer.location, headers=PAGE)
    assert found.status_code == 409
    assert "Cancelled" in found.text
    other = start(app, lambda: executor.using(delay=600).submit(int), client)[1]
    found = client.post(other.location, headers=HTMX)
    assert found.status_code == 200
    assert "hx-" not in found.text


def test_a_task_that_stops_says_so(app: Flask, executor: Executor, held: Held) -> None:
    """What was asked to stop says "Stopping", and has no second button."""
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    assert held.began.wait(LIMIT)
    assert client.delete(answer.location).status_code == 202
    found = client.get(answer.location, headers=HTMX).text
    assert "Stopping" in found
    assert "<form" not in found


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ({}, True),  # no browser
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost"}, True),  # plain HTTP
        ({"Origin": "https://localhost"}, False),
        ({"Origin": "http://localhost:8000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_only_our_own_pages_cancel(
    app: Flask, executor: Executor, headers: dict[str, str], is_ours: bool
) -> None:
    """A page of another origin cancels nothing, even if it knows the URL."""
    site(executor, app)
    client, answer = start(app, lambda: executor.using(delay=600).submit(int))
    for method in ("POST", "DELETE"):
        found = client.open(answer.location, method=method, headers=headers)
        assert (found.status_code == 403) is not is_ours
    state = client.get(answer.location).json["state"]
    assert state == ("cancelled" if is_ours else "delayed")
    client.delete(answer.location)


def test_a_get_changes_nothing(app: Flask, executor: Executor) -> None:
    """GET and HEAD cancel nothing; other methods do not exist."""
    site(executor, app)
    client, answer = start(app, lambda: executor.using(delay=600).submit(int))
    for method, expected in (("GET", 200), ("HEAD", 200), ("PUT", 405), ("PATCH", 405)):
        assert client.open(answer.location, method=method).status_code == expected
    assert client.get(answer.location).json["state"] == "delayed"
    client.delete(answer.location)


def test_beside_flask_wtf(app: Flask, executor: Executor) -> None:
    """Where an app has CSRFProtect, the form carries its token, and cancels; a form
    without it does not.
    """
    CSRFProtect(app)
    app.config["WTF_CSRF_CHECK_DEFAULT"] = True
    site(executor, app)
    app.config["WTF_CSRF_ENABLED"] = False
    client, answer = start(app, lambda: executor.using(delay=600).submit(int))
    app.config["WTF_CSRF_ENABLED"] = True
    assert client.post(answer.location, headers=PAGE).status_code == 400
    page = client.get(answer.location, headers=PAGE).text
    [token] = re.findall('name="csrf_token" value="([^"]+)"', page)
    found = client.post(answer.location, headers=PAGE, data={"csrf_token": token})
    assert found.status_code == 200
    assert "Cancelled" in found.text


# Who may ask


def assert_unknown(answer: t.Any, like: t.Any = None) -> None:
    """An answer that says nothing but that there is nothing."""
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert answer.json == {
        "title": "Not Found",
        "status": 404,
        "detail": "There is no such task.",
    }
    if like is not None:
        assert answer.data == like.data
        assert dict(answer.headers) == dict(like.headers)


def test_unknown_foreign_and_forged_are_the_same(
    app: Flask, executor: Executor, held: Held
) -> None:
    """Somebody else's token, an altered one and none at all get the same 404, byte for
    byte, for each method.
    """
    site(executor, app)
    owner, answer = start(app, lambda: executor.submit(held))
    stranger, _ = start(app, lambda: after(executor, int))
    unknown = stranger.get("/tasks/unknown")
    assert_unknown(unknown)
    url = answer.location
    id, process, moment, signature = url.rpartition("/")[2].split(".")
    forged = [
        url[:-9] + ("A" if url[-9] != "A" else "B") + url[-8:],
        url[:-1],
        url + "A",
        url.replace(id, id.upper()),
        f"/tasks/{id}.0.{moment}.{signature}",
        f"/tasks/{id}.{process}.AAAAAA.{signature}",
        f"/tasks/{'0' * 32}.{process}.{moment}.{signature}",
        *(f"/tasks/{text}" for text in ("%00", "ü", "...", "a.b.c.d", "x" * 9999)),
    ]
    for method in ("GET", "POST", "DELETE"):
        assert_unknown(stranger.open(url, method=method), unknown)
        for other in forged:
            found = owner.open(other, method=method)
            assert_unknown(found, unknown if found.status_code == 404 else None)
    assert_unknown(app.test_client().get(url))
    assert owner.get(url).status_code == 200


def test_a_refusal_in_html(app: Flask, executor: Executor) -> None:
    """For people the 404 is a page, for HTMX a fragment that asks no more."""
    site(executor, app)
    client = app.test_client()
    page = client.get("/tasks/unknown", headers=PAGE)
    assert page.status_code == 404
    assert "There is no such task." in page.text
    assert "refresh" not in page.text
    fragment = client.get("/tasks/unknown", headers=HTMX)
    assert fragment.status_code == 404
    assert "hx-" not in fragment.text


def test_old_tokens(
    app: Flask, executor: Executor, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token is good for ``max_age``; then the task does not exist."""
    site(executor, app, max_age=datetime.timedelta(minutes=1))
    client, answer = start(app, lambda: executor.submit(held))
    signer = tokens_module.TimestampSigner
    now = time.time()
    monkeypatch.setattr(signer, "get_timestamp", lambda self: int(now + 58))
    assert client.get(answer.location).status_code == 200
    monkeypatch.setattr(signer, "get_timestamp", lambda self: int(now + 63))
    assert_unknown(client.get(answer.location))


def test_everybody_who_has_the_url(app: Flask, executor: Executor, held: Held) -> None:
    """With ``owner=None`` the URL is enough, for which it needs an age; no session is
    made.
    """
    with pytest.raises(InvalidOption, match=r"max_age = None .* owner=None everybody"):
        StatusAPI(executor, owner=None)
    with pytest.raises(InvalidOption, match="max_age = 0 is not understood: use a num"):
        StatusAPI(executor, max_age=0)
    site(executor, app, owner=None, max_age=60)
    _, answer = start(app, lambda: executor.submit(held))
    assert "Set-Cookie" not in answer.headers
    assert app.test_client().get(answer.location).json["done"] is False  # type: ignore[index]


def test_the_owner_is_a_user(app: Flask, executor: Executor, held: Held) -> None:
    """With ``owner=callable`` a user has the task in each of their browsers, also after
    a new login; others do not, and nobody is nobody.
    """
    site(executor, app, owner=lambda: session.get("user"))

    def log_in(user: object) -> t.Any:
        client = app.test_client()
        with client.session_transaction() as changed:
            changed["user"] = user
        return client

    _, answer = start(app, lambda: executor.submit(held), log_in(7))
    assert log_in(7).get(answer.location).status_code == 200
    for other in (log_in(8), log_in(None), log_in(""), app.test_client()):
        assert_unknown(other.get(answer.location))


def test_nobody_cannot_own(app: Flask, executor: Executor) -> None:
    """If ``owner`` returns None there is no URL, and the error says so."""
    site(executor, app, owner=lambda: None)
    with pytest.raises(StatusRefused, match=r"owner\(\) returned None.*for whom"):
        start(app, lambda: after(executor, int))


def test_no_sessions(app: Flask, executor: Executor) -> None:
    """An app whose sessions cannot be written is told to say who the owner is; outside
    a request, too.
    """
    status = site(executor, app)
    app.session_interface = NoSessions()
    with pytest.raises(StatusRefused, match=r"no session to write to. Pass owner="):
        start(app, lambda: after(executor, int))
    assert_unknown(app.test_client().get("/tasks/x"))
    with app.app_context(), pytest.raises(StatusRefused, match="there is no request"):
        status.url(after(executor, int))


class NoSessions(t.cast(t.Any, type(Flask("x").session_interface))):  # type: ignore[misc]
    """Sessions that are read-only, as without a secret key."""

    def open_session(self, app: Flask, request: t.Any) -> None:
        return None


@pytest.mark.parametrize("found", [False, None, 1, "yes", ValueError("no")])
def test_authorize_narrows(
    app: Flask,
    executor: Executor,
    held: Held,
    found: t.Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Anything but True hides the task from its owner too, as if it were unknown."""
    answers: list[t.Any] = [True]
    asked: list[t.Any] = []

    def authorize(record: t.Any) -> t.Any:
        asked.append(record)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    site(executor, app, authorize=authorize)
    client, answer = start(app, lambda: executor.using(meta="m").submit(held))
    assert client.get(answer.location).status_code == 200
    assert asked[-1].meta == "m"
    answers[0] = found
    for method in ("GET", "DELETE"):
        assert_unknown(client.open(answer.location, method=method))
    assert ("authorize failed" in caplog.text) is isinstance(found, Exception)


def test_authorize_opens_nothing(app: Flask, executor: Executor, held: Held) -> None:
    """A stranger for whom ``authorize`` is True gets the same 404."""
    asked: list[t.Any] = []
    site(executor, app, authorize=lambda record: asked.append(record) or True)
    _, answer = start(app, lambda: executor.submit(held))
    assert_unknown(app.test_client().get(answer.location))
    assert asked == []


# Apps, executors, blueprints


def test_several_executors(app: Flask) -> None:
    """Each has its URLs; the token of one is forged for another."""
    executors = [Executor(app, name=name) for name in ("", "mail")]
    apis = [StatusAPI(one, name=f"{one.name}_status") for one in executors]
    for api in apis:
        app.register_blueprint(api)

    @app.post("/both")
    def both() -> list[str]:
        futures = [after(one, int) for one in executors]
        return [api.url(it) for api, it in zip(apis, futures, strict=True)]

    client = app.test_client()
    plain, mail = t.cast("list[str]", client.post("/both").json)
    assert mail.startswith("/tasks/mail/")
    assert [client.get(url).status_code for url in (plain, mail)] == [200, 200]
    assert_unknown(client.get(plain.replace("/tasks/", "/tasks/mail/")))
    assert_unknown(client.get(mail.replace("/mail/", "/")))
    for one in executors:
        one.shutdown()


def test_two_apis_of_one_executor(app: Flask, executor: Executor) -> None:
    """What one of them hides, the other does not show with the same token."""
    site(executor, app, name="strict", url_prefix="/strict", authorize=lambda _: False)
    app.register_blueprint(StatusAPI(executor))
    client, answer = start(app, lambda: after(executor, int))
    assert_unknown(client.get(answer.location))
    assert_unknown(client.get(answer.location.replace("/strict", "/tasks")))


def test_several_apps() -> None:
    """One API serves several apps; a token is good for one of them."""
    executor = Executor()
    status = StatusAPI(executor)
    apps = [Flask(f"app{number}") for number in range(2)]
    urls = []
    for number, app in enumerate(apps):
        app.secret_key = "the same"
        executor.init_app(app)
        app.register_blueprint(status, url_prefix=f"/{number}")
        with app.test_request_context():
            session["executor_owner"] = "me"
            urls.append(status.url(after(executor, int)))
    for number, (app, url) in enumerate(zip(apps, urls, strict=True)):
        assert url.startswith(f"/{number}/")
        client = app.test_client()
        with client.session_transaction() as changed:
            changed["executor_owner"] = "me"
        assert client.get(url).status_code == 200
        other = urls[1 - number].replace(f"/{1 - number}/", f"/{number}/")
        assert client.get(other).status_code == 410
        with app.app_context():
            executor.shutdown()


def test_nested_and_renamed(app: Flask, executor: Executor) -> None:
    """A blueprint in a blueprint, under another name, under a prefix of the server."""
    outer = Blueprint("outer", __name__, url_prefix="/outer")
    status = StatusAPI(executor)
    outer.register_blueprint(status, name="inner", url_prefix="/inner")
    app.register_blueprint(outer)

    @app.post("/start")
    def start() -> t.Any:
        return status.accepted(after(executor, int))

    client = app.test_client()
    answer = client.post("/start", base_url="http://localhost/prefix")
    assert answer.location.startswith("/prefix/outer/inner/")
    path = answer.location.removeprefix("/prefix")
    found = client.get(path, base_url="http://localhost/prefix", headers=PAGE)
    assert found.status_code == 200
    assert 'href="/prefix/outer/inner/static/status.css"' in found.text


def test_without_a_secret_key(executor: Executor) -> None:
    """An app without a SECRET_KEY cannot register it, and is told what to set."""
    with pytest.raises(
        NoSecretKey, match=r"'bare' has no SECRET_KEY, so the status API"
    ):
        Flask("bare").register_blueprint(StatusAPI(executor))


def test_a_new_secret_key(app: Flask, executor: Executor, held: Held) -> None:
    """A token of the key before counts while that is one of SECRET_KEY_FALLBACKS."""
    site(executor, app, owner=lambda: "me")
    client, answer = start(app, lambda: executor.submit(held))
    app.config.update(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["tests"])
    assert client.get(answer.location).status_code == 200
    app.config.update(SECRET_KEY_FALLBACKS=[])
    assert_unknown(client.get(answer.location))


def test_it_is_not_registered(app: Flask, executor: Executor) -> None:
    """Without its blueprint there is no URL, and the error says what to call."""
    with (
        app.test_request_context(),
        pytest.raises(StatusRefused, match=r"not registered .* app.register_blueprint"),
    ):
        StatusAPI(executor).url(after(executor, int))


@pytest.mark.parametrize("future", [None, "id", TaskFuture(t.cast(t.Any, None))])
def test_what_is_no_future(app: Flask, executor: Executor, future: t.Any) -> None:
    """Anything but a future of an executor is refused by name."""
    status = site(executor, app)
    with (
        app.test_request_context(),
        pytest.raises(InvalidOption, match=r"future = .* that submit of this executor"),
    ):
        status.url(future)


# What is gone, and what another process has


def test_gone(app: Flask, executor: Executor) -> None:
    """A task that has ended and is not kept any more is 410, for its owner alone."""
    app.config["EXECUTOR_FUTURES_TTL"] = 0
    site(executor, app)
    client, answer = start(app, lambda: executor.using(delay=600).submit(int))
    assert client.delete(answer.location).status_code in (200, 410)
    found = client.get(answer.location)
    assert (found.status_code, found.mimetype) == (410, "application/problem+json")
    assert found.json["detail"].startswith("The task has ended, and nothing is kept")
    assert_unknown(app.test_client().get(answer.location))


def test_another_process(
    app: Flask,
    executor: Executor,
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a store, the task of another process is 503 and no false end: the client
    comes back. One line in the log names EXECUTOR_STORE.
    """
    site(executor, app)
    client, answer = start(app, lambda: executor.submit(held))
    monkeypatch.setattr(tokens_module, "_ids", {})  # as in another process
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = client.get(answer.location)
            assert found.status_code == 503
            assert found.headers["Retry-After"] == "5"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Set EXECUTOR_STORE, or run one process" in caplog.text
    page = client.get(answer.location, headers=PAGE)
    assert page.status_code == 503
    assert f"url={answer.location}" in page.text
    fragment = client.get(answer.location, headers=HTMX)
    assert 'hx-trigger="every 5s"' in fragment.text
    # An EventSource would take a 503 as the end.
    stream = client.get(answer.location, headers=EVENTS)
    assert stream.status_code == 200
    assert stream.text.startswith("retry: 5000\n:")
    assert client.delete(answer.location).status_code == 503
    assert_unknown(app.test_client().get(answer.location))


# What it costs


def test_nothing_is_imported_before_it_is_used() -> None:
    """The executor imports no surface, and one surface imports no other."""
    script = """
import sys, flask_executor
assert not [name for name in sys.modules if name.startswith("flask_executor.web")]
import flask_executor.web
assert "StatusAPI" in dir(flask_executor.web)
assert "flask_executor.web.status" not in sys.modules
from flask_executor.web import StatusAPI
rooms = {name.split(".")[2] for name in sys.modules if name.count(".") == 2
         and name.startswith("flask_executor.web.")}
assert rooms == {"status", "origins", "problems"}, rooms
try:
    flask_executor.web.Nothing
except AttributeError as error:
    assert "has no attribute 'Nothing'" in str(error)
"""
    done = run_code(script)
    assert done.returncode == 0, done.stderr


def test_what_is_sent_is_json(app: Flask, executor: Executor) -> None:
    """Progress that is no JSON value does not break the answer."""
    site(executor, app)
    client, answer = start(app, lambda: after(executor, report, 1, "many", object()))
    found = client.get(answer.location)
    assert found.status_code == 200
    assert json.loads(found.text)["state"] == "succeeded"
