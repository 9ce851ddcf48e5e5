"""Sentry, the real SDK: each task reports from a scope of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import typing as t

import pytest
from flask import Flask
from limits import LIMIT
from scripts import environment

from flask_executor import Executor

TASKS = 60
PATIENCE = 60
"""Seconds that a program may take."""


def run(script: str, *, measured: bool = False) -> str:
    """What a program prints, whose warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment(measured=measured),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["thread", "coroutine", "process"])
def test_each_task_has_a_scope_of_its_own(kind: str) -> None:
    """Of sixty tasks at once, none reports what another has set, neither in the scope
    of its request nor in the current one; the view gets nothing of theirs.

    A task has what its view had set, on threads and the event loop; its teardown
    functions report from its scope, too.
    """
    script = f"import sentry_app; sentry_app.main({kind!r})"
    events = json.loads(run(script, measured=kind == "thread"))
    by_message = {event["message"]: event for event in events}
    assert len(by_message) == len(events) == 2 * TASKS + 1
    of_view = {} if kind == "process" else {"view": "/"}
    for number in range(TASKS):
        for message in (f"task {number}", f"teardown {number}"):
            event = by_message[message]
            own = {f"task {number}": number, f"current {number}": number}
            assert event["tags"] == {**of_view, **own}
            assert event["crumbs"] == [f"breadcrumb {number}"]
    assert by_message["view"]["tags"] == {"view": "/"}
    assert by_message["view"]["crumbs"] == []


def test_nothing_is_imported_without_the_sdk() -> None:
    """Where sentry_sdk is not loaded, neither it nor the module for it is imported."""
    script = (
        "import sys, flask, flask_executor\n"
        "executor = flask_executor.Executor(flask.Flask('app'))\n"
        "executor.submit(int).result()\n"
        "print([name for name in sys.modules if 'sentry' in name])\n"
    )
    assert run(script) == "[]\n"


def test_a_version_without_scopes(
    app: Flask, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the SDK is too old, or still being imported, tasks run as they are."""
    sdk: t.Any = types.ModuleType("sentry_sdk")
    monkeypatch.setitem(sys.modules, "sentry_sdk", sdk)
    with app.test_request_context("/"):
        assert executor.submit(lambda: 1).result(LIMIT) == 1
