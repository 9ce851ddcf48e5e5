"""Flask 3.2, where one context is all: the story again, with a double of it.

A second pytest runs tests of contexts in an interpreter whose Flask has the shape of
3.2 (see ``flask32.py``); this file is among them, and has more for it there. All of
them run in ``make test-flask32``.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import typing as t

import flask.ctx
import flask.globals
import pytest
from flask import (
    Flask,
    current_app,
    g,
    has_request_context,
    request,
    session,
)
from flask.sessions import SecureCookieSessionInterface
from limits import LIMIT
from scripts import ROOT, environment

from flask_executor import Executor
from flask_executor.contexts import PortableSnapshot, Snapshot
from flask_executor.contexts.flask_versions import (
    _detect,
    _MergedContexts,
    _SplitContexts,
)

MERGED = os.environ.get("FLASK32_SESSION")
"""When the double opens a session, 'push' or 'lazy'; None in Flask as it is."""

PATIENCE = 120
"""Seconds that the second pytest may take."""


class Counted(SecureCookieSessionInterface):
    """Counts how often a session is opened."""

    def __init__(self) -> None:
        self.opened = 0

    def open_session(self, app: Flask, request: t.Any) -> t.Any:
        self.opened += 1
        return super().open_session(app, request)


if MERGED is None:

    @pytest.mark.skipif(
        not isinstance(getattr(flask.ctx.RequestContext, "session", None), property),
        reason="3.2 has the sessions of Flask 3.1.3, whose access the context notes",
    )
    @pytest.mark.parametrize("opens", ["push", "lazy"])
    def test_the_story_in_short(opens: str) -> None:
        """With warnings as errors, from the import on, the tests below pass, and
        once those of contexts without files and extensions.
        """
        files = ["tests/test_context_merged.py"]
        if opens == "push":
            files.append("tests/test_context.py")
        command = [sys.executable, "-W", "error", "-m", "pytest", "-q"]
        done = subprocess.run(
            [*command, "-p", "flask32", "-p", "no:cacheprovider", *files],
            cwd=ROOT,
            env=environment(
                measured=True, FLASK32_SESSION=opens, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
            ),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr

    def test_the_shape_is_told_by_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
        """It is the variable of the request context that tells, not the version."""
        assert isinstance(_detect(), _SplitContexts)
        monkeypatch.delattr(flask.globals, "_cv_request")
        monkeypatch.delattr(flask.ctx, "RequestContext")
        assert isinstance(_detect(), _MergedContexts)

else:

    def test_it_is_that_shape() -> None:
        """The double is honest: aliases warn, and no second variable is there."""
        assert isinstance(_detect(), _MergedContexts)
        with pytest.warns(DeprecationWarning):
            assert flask.ctx.RequestContext is flask.ctx.AppContext  # type: ignore[comparison-overlap]
        with pytest.warns(DeprecationWarning):
            assert flask.globals.request_ctx is flask.globals.app_ctx  # type: ignore[comparison-overlap]
        assert not hasattr(flask.globals, "_cv_request")

    def test_a_snapshot_opens_no_session(app: Flask, executor: Executor) -> None:
        """Submitting opens none in the view, and marks none as accessed; the task has
        what the client sent all the same.
        """
        app.session_interface = interface = Counted()
        opened = []

        @app.get("/set")
        def set_user() -> str:
            session["user"] = "ada"
            return ""

        @app.get("/")
        def view() -> str:
            before = interface.opened
            executor.submit(lambda: request.path).result(LIMIT)
            opened.append(interface.opened - before)
            task = executor.submit(lambda: t.cast(str, session["user"]))
            user = task.result(LIMIT)
            opened.append(interface.opened - before)
            return user

        client = app.test_client()
        assert "Cookie" in client.get("/set").headers["Vary"]
        response = client.get("/")
        assert response.text == "ada"
        assert "Vary" not in response.headers
        # By the task, where the view had none that could be copied.
        assert opened == [0, 1 if MERGED == "lazy" else 0]

    def test_a_session_that_nobody_opened_is_transferred(app: Flask) -> None:
        """In another process it is opened there, from what the client sent."""

        @app.get("/set")
        def set_user() -> str:
            session["user"] = "ada"
            return ""

        @app.get("/")
        def view() -> t.Any:
            portable: PortableSnapshot = pickle.loads(Snapshot.take(app).serialize())
            return portable.rebuild(app).run(lambda: session["user"], (), {})

        client = app.test_client()
        client.get("/set")
        assert client.get("/").text == "ada"

    def test_a_session_that_the_view_has_opened(app: Flask, executor: Executor) -> None:
        """A task has a copy of it, with what the view has put in."""

        def change() -> list[int]:
            session["list"].append(2)
            return t.cast("list[int]", session["list"])

        @app.get("/")
        def view() -> t.Any:
            session["list"] = [1]
            assert executor.submit(change).result(LIMIT) == [1, 2]
            return session["list"]

        assert app.test_client().get("/").json == [1]

    def test_a_copied_context_has_no_g_but_a_task_has(
        app: Flask, executor: Executor
    ) -> None:
        """AppContext.copy() leaves g out; the snapshot does not."""
        with app.test_request_context("/"):
            g.name = "view"
            copied = flask.globals.app_ctx.copy()  # type: ignore[attr-defined]
            assert "name" not in copied.g
            assert executor.submit(lambda: g.name).result(LIMIT) == "view"

    def test_the_request_is_gone_when_the_context_is_torn_down(
        app: Flask, executor: Executor
    ) -> None:
        """As no request ended, teardown functions of a task's context find none."""
        seen = []

        @app.teardown_appcontext
        def teardown(error: BaseException | None) -> None:
            seen.append((current_app.name, has_request_context(), bool(request)))

        with app.test_request_context("/"):
            executor.submit(lambda: request.path).result(LIMIT)
            executor.submit(lambda: None).result(LIMIT)
            assert seen == [("tests", False, False)] * 2

    def test_asking_for_a_request_makes_none(app: Flask, executor: Executor) -> None:
        """has_request_context() is true in a task, and makes nothing."""

        def ask() -> tuple[bool, bool]:
            there = has_request_context()
            context: t.Any = flask.globals.app_ctx._get_current_object()  # type: ignore[attr-defined]
            return there, context.untouched_copy is not None

        with app.test_request_context("/"):
            assert executor.submit(ask).result(LIMIT) == (True, True)
