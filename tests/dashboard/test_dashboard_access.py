"""The dashboard is closed until the app opens it; its forms are for its own pages."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import typing as t

import pytest
from dashboards import ORIGIN, Visitor, everything, only, rules
from flask import Flask, Response, abort, redirect
from flask_wtf.csrf import CSRFProtect
from limits import LIMIT
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_executor import Executor
from flask_executor.web import Dashboard
from flask_executor.web.dashboard import posts
from flask_executor.web.dashboard.routes import ROUTES

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CHANGES = [route for route in ROUTES if "POST" in route.methods]
LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:5000"}


@pytest.fixture
def asked() -> list[str]:
    return []


def statuses(app: Flask, **environ: t.Any) -> set[int]:
    """The status of every address of the dashboard, with every method."""
    client = app.test_client()
    return {
        client.open(rule, method=method, environ_overrides=environ).status_code
        for rule in rules(app)
        for method in METHODS
    }


def status(app: Flask, **environ: t.Any) -> int:
    """The status of the overview, for a request like this."""
    return app.test_client().get("/executor/", environ_overrides=environ).status_code


def test_every_address_is_closed_without_authorize(
    app: Flask, executor: Executor
) -> None:
    """Each address of the URL map is 404 with each method, as if it were not there."""
    app.register_blueprint(Dashboard(executor))
    assert len(rules(app)) == 2 * len(ROUTES)
    assert statuses(app) == statuses(app, **LOCAL) == {404}


def test_every_address_is_closed_if_authorize_says_no(
    app: Flask, executor: Executor
) -> None:
    """The same for who is not let in, whatever else they may do."""
    dashboard = Dashboard(executor, authorize=only("details", "cancel", "run"))
    app.register_blueprint(dashboard)
    assert statuses(app) == {404}


@pytest.mark.parametrize(
    ("environ", "is_open"),
    [
        (LOCAL, True),
        ({**LOCAL, "HTTP_HOST": "127.0.0.1:5000"}, True),
        ({**LOCAL, "HTTP_HOST": "[::1]:5000", "REMOTE_ADDR": "::1"}, True),
        ({**LOCAL, "REMOTE_ADDR": "::ffff:127.0.0.1"}, True),
        ({**LOCAL, "REMOTE_ADDR": "192.168.1.9"}, False),
        ({**LOCAL, "REMOTE_ADDR": ""}, False),
        ({**LOCAL, "HTTP_HOST": "attacker.example"}, False),
        ({**LOCAL, "HTTP_HOST": "127.0.0.1.attacker.example"}, False),
        ({**LOCAL, "HTTP_HOST": "localhost.attacker.example:5000"}, False),
        ({**LOCAL, "HTTP_HOST": ""}, False),
        ({**LOCAL, "HTTP_X_FORWARDED_FOR": "127.0.0.1"}, False),
        ({**LOCAL, "HTTP_X_FORWARDED_PROTO": "https"}, False),
        ({**LOCAL, "HTTP_FORWARDED": "for=127.0.0.1"}, False),
        ({**LOCAL, "HTTP_X_REAL_IP": "127.0.0.1"}, False),
        ({**LOCAL, "HTTP_VIA": "1.1 proxy"}, False),
        ({**LOCAL, "SERVER_PROTOCOL": "HTTP/1.0"}, False),
    ],
    ids=str,
)
def test_debug_mode_opens_it_to_this_machine_alone(
    app: Flask, executor: Executor, environ: dict[str, str], is_open: bool
) -> None:
    """A name that DNS gives away (rebinding), a proxy on this machine and other
    machines get nothing; and without debug mode nobody.
    """
    app.register_blueprint(Dashboard(executor))
    app.debug = True
    assert status(app, **environ) == (200 if is_open else 404)
    app.debug = False
    assert status(app, **environ) == 404


def test_a_proxy_fix_opens_nothing(app: Flask, executor: Executor) -> None:
    """What a header claims is not believed, though ProxyFix writes it into the
    environment: neither the address nor the host.
    """
    app.register_blueprint(Dashboard(executor))
    app.debug = True
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]
    claims = {"HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_X_FORWARDED_HOST": "localhost"}
    far = {"REMOTE_ADDR": "10.0.0.9", "HTTP_HOST": "shop.example"}
    assert status(app, **far, **claims) == 404
    assert status(app, **LOCAL) == 200  # nobody has forwarded that


class Truthy:
    """Is neither True nor False."""

    def __repr__(self) -> str:
        return "truthy"  # workers of xdist compare the names of tests


@pytest.mark.parametrize(
    "answer",
    [None, "yes", 1, 0, [True], Truthy(), {"view": True}, ("no", 401)],
    ids=repr,
)
def test_what_is_not_an_answer_is_no(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture, answer: t.Any
) -> None:
    """Only True opens; anything else that is no answer is in the log."""
    app.register_blueprint(Dashboard(executor, authorize=lambda action: answer))
    assert statuses(app) == {404}
    assert "return True, False or a response" in caplog.text
    assert f"has returned a {type(answer).__name__}," in caplog.text


@pytest.mark.parametrize("error", [ValueError("oh"), KeyError("user"), SystemError()])
def test_an_authorize_that_raises_says_no(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It is 404, and the log has the traceback."""

    def may(action: str) -> bool:
        raise error

    app.register_blueprint(Dashboard(executor, authorize=may))
    assert status(app) == 404
    assert "authorize('view') has raised" in caplog.text
    assert type(error).__name__ in caplog.text


def test_an_abort_in_authorize_says_no(app: Flask, executor: Executor) -> None:
    """It is an exception like any other."""
    app.register_blueprint(Dashboard(executor, authorize=lambda action: abort(401)))
    assert status(app) == 404


def test_a_response_of_authorize_is_sent(app: Flask, executor: Executor) -> None:
    """Such as a redirect to the login; the page itself is not made."""
    app.register_blueprint(
        Dashboard(executor, authorize=lambda action: redirect("/login"))
    )
    answer = app.test_client().get("/executor/tasks")
    assert (answer.status_code, answer.location) == (302, "/login")
    assert statuses(app) == {302}


def test_a_response_for_one_action_hides_its_buttons(
    app: Flask, executor: Executor
) -> None:
    """It is no yes: the page has no form, and who sends one gets the response."""

    def may(action: str) -> bool | Response:
        return True if action == "view" else Response("pay first", 402)

    app.register_blueprint(Dashboard(executor, authorize=may))
    executor.job(name="mail")(print)
    visitor = Visitor(app)
    assert "token" not in visitor.text("/jobs")
    answer = visitor.post("/jobs/pause", token="x", job="mail")
    assert (answer.status_code, answer.text) == (402, "pay first")


def test_each_action_is_asked_for_once(
    app: Flask, executor: Executor, asked: list[str]
) -> None:
    """A page asks ``authorize`` at most once for each thing."""
    executor.job(name="mail")(print)

    def may(action: str) -> bool:
        asked.append(action)
        return True

    app.register_blueprint(Dashboard(executor, authorize=may))
    for route in ROUTES:
        if "GET" in route.methods and "<" not in route.rule:
            asked.clear()
            app.test_client().get("/executor" + route.rule)
            assert asked[0] == "view"
            assert len(asked) == len(set(asked))


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: route.name)
def test_who_may_only_look_changes_nothing(
    app: Flask, executor: Executor, route: t.Any, gate: threading.Event
) -> None:
    """Each form is refused to who may do everything except that."""
    app.register_blueprint(Dashboard(executor, authorize=only("view", "details")))
    future = executor.submit_stored("k", gate.wait, 30)
    form = {"job": "mail", "name": "mail", "do": "cancel", "id": future.task.id}
    path = route.rule.replace("<id>", future.task.id)
    answer = Visitor(app).post(path, token="x", **form)
    assert answer.status_code == 403
    assert not future.task.cancel_requested
    assert executor.paused() == []


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: route.name)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_only_a_post_changes_something(
    app: Flask, executor: Executor, route: t.Any, method: str
) -> None:
    """The addresses of forms answer 405 to everything else."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    path = "/executor" + route.rule.replace("<id>", "7")
    answer = app.test_client().open(path, method=method, headers=ORIGIN)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.fixture
def paused(app: Flask, executor: Executor) -> t.Callable[..., tuple[int, list[str]]]:
    """Sends the form that pauses a job; the status, and what is paused then."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    app.extensions["job"] = executor.job(name="mail")(lambda: None)
    visitor = Visitor(app)

    def pause(**how: t.Any) -> tuple[int, list[str]]:
        answer = visitor.post("/jobs/pause", job="mail", **how)
        return answer.status_code, executor.paused()

    return pause


HERE = "http://localhost"


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({"Origin": HERE}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": HERE}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": HERE}, False),
        ({"Sec-Fetch-Site": "none", "Origin": HERE}, False),
        ({"Origin": "http://attacker.example"}, False),
        ({"Origin": "http://localhost:8000"}, False),
        ({"Origin": "https://localhost"}, False),
        ({"Origin": "null"}, False),
        ({"Referer": HERE}, False),
        ({}, False),
    ],
    ids=str,
)
def test_forms_come_from_our_own_pages(
    paused: t.Callable[..., t.Any], headers: dict[str, str], passes: bool
) -> None:
    """Posts of other sites are refused, over HTTPS and over plain HTTP, where browsers
    send nothing except ``Origin``; so is one that says nothing.
    """
    assert paused(headers=headers) == ((303, ["mail"]) if passes else (403, []))


def test_a_form_has_the_token_of_its_visitor(
    app: Flask, paused: t.Callable[..., t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, with that of somebody else, altered, from the future or too old, a
    form is refused.
    """
    own, other = Visitor(app).token(), Visitor(app).token()
    assert own != other
    hour, _, signature = own.partition(".")
    forged = ["", "x", other, f"{int(hour) + 1}.{signature}", f"{own}x", f"²{own}"]
    for token in forged:
        assert paused(token=token) == (403, []), token
    visitor = Visitor(app)
    token = visitor.token()
    now = posts._hour()
    for hours, passes in ((posts.HOURS, False), (posts.HOURS - 1, True)):
        monkeypatch.setattr(posts, "_hour", lambda later=now + hours: later)
        answer = visitor.post("/jobs/pause", token=token, job="mail")
        assert answer.status_code == (303 if passes else 403)


def test_a_form_passes_after_the_key_was_changed(
    app: Flask, paused: t.Callable[..., t.Any]
) -> None:
    """Old keys still count, as in the app's own sessions."""
    visitor = Visitor(app)
    token = visitor.token()
    app.config.update(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "tests"])
    answer = visitor.post("/jobs/pause", token=token, job="mail")
    assert answer.status_code == 303


def test_without_sessions_and_keys_it_only_shows(app: Flask) -> None:
    """An app without ``SECRET_KEY`` has pages and no forms; what is sent is refused."""
    app.config["SECRET_KEY"] = None
    executor = Executor(app)
    app.extensions["job"] = executor.job(name="mail")(lambda: None)
    app.register_blueprint(Dashboard(executor, authorize=everything))
    visitor = Visitor(app)
    assert "mail" in visitor.text("/jobs")
    assert visitor.token() == ""
    answer = visitor.post("/jobs/pause", job="mail")
    assert answer.status_code == 403
    assert "no SECRET_KEY" in answer.text
    assert executor.paused() == []


def test_no_session_is_needed(
    app: Flask, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forms pass in an app whose sessions cannot be opened."""

    def refuse(*args: t.Any) -> t.NoReturn:
        raise AssertionError("somebody has opened the session")

    monkeypatch.setattr(app.session_interface, "open_session", lambda *args: None)
    monkeypatch.setattr(app.session_interface, "save_session", refuse)
    app.register_blueprint(Dashboard(executor, authorize=everything))
    app.extensions["job"] = executor.job(name="mail")(lambda: None)
    assert Visitor(app).post("/jobs/pause", job="mail").status_code == 303


def test_the_token_of_flask_wtf_is_sent_along(app: Flask, executor: Executor) -> None:
    """Where the app protects all its forms, ours have its token too."""
    CSRFProtect(app)
    app.register_blueprint(Dashboard(executor, authorize=everything))
    app.extensions["job"] = executor.job(name="mail")(lambda: None)
    visitor = Visitor(app)
    text = visitor.text("/jobs")
    of_app = text.partition('name="csrf_token" value="')[2].partition('"')[0]
    assert visitor.post("/jobs/pause", job="mail").status_code == 400
    answer = visitor.post("/jobs/pause", job="mail", csrf_token=of_app)
    assert (answer.status_code, executor.paused()) == (303, ["mail"])


def test_every_answer_keeps_other_sites_out(app: Flask, executor: Executor) -> None:
    """Pages, files, errors and redirects have the headers; pages are not stored."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    visitor = Visitor(app)
    paths = ["/", "/tasks", "/tasks/7", "/files/dashboard.js", "/chosen", "/matching"]
    answers = [visitor.get(path) for path in paths]
    app.extensions["job"] = executor.job(name="mail")(lambda: None)
    answers.append(visitor.post("/jobs/pause", job="mail"))
    assert [one.status_code for one in answers][3:] == [200, 405, 400, 303]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "*" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
    for path in ("/", "/tasks/7"):
        assert visitor.get(path).headers["Cache-Control"] == "no-store"


def test_nothing_in_a_page_is_inline(app: Flask, executor: Executor) -> None:
    """No script, style or handler stands in a page, and all files are our own."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    for route in ROUTES:
        if "GET" in route.methods and route.name != "file":
            text = Visitor(app).get(route.rule.replace("<id>", "7")).text
            assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
            assert text.count("<script") == text.count('<script src="/executor/files/')


def test_the_cookie_is_for_the_dashboard_alone(app: Flask, executor: Executor) -> None:
    """No script reads it, no other site sends it, and it goes to no other page."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    answer = Visitor(app).get("/", base_url="https://localhost")
    cookie = answer.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Lax", "Secure", "Path=/executor/"):
        assert part in cookie


def test_executors_need_names_of_their_own(app: Flask) -> None:
    """A dashboard tells them apart by their names."""
    with pytest.raises(ValueError, match=r"needs an executor: Dashboard\(executor\)"):
        Dashboard()
    one, two = Executor(app, name="a"), Executor(app, name="a")
    with pytest.raises(ValueError, match=r"the names 'a', 'a': each needs its own"):
        Dashboard(one, two)


def test_it_costs_nothing_until_it_is_used() -> None:
    """The package does not import it."""
    code = "import sys, flask_executor, flask_executor.web as web\n"
    code += "assert not [n for n in sys.modules if 'dashboard' in n]\n"
    code += "web.Dashboard; assert 'flask_executor.web.dashboard' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)
