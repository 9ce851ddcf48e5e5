"""What tests of the status API share: an app with it, and what its answers say."""

from __future__ import annotations

import json
import re
import threading
import typing as t

import pytest
from flask import Flask
from limits import LIMIT
from werkzeug.test import TestResponse

from flask_executor import Executor, current_task
from flask_executor.web import StatusAPI

THREADS = {"wsgi.multithread": True}
"""What a server with threads says in the environment."""
HTMX = {"HX-Request": "true"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EVENTS = {"Accept": "text/event-stream"}


class Held:
    """A task that says when it runs, and runs until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.gate = threading.Event()

    def __call__(self) -> str:
        self.began.set()
        assert self.gate.wait(LIMIT)
        return "the result"

    def stoppable(self) -> None:
        """Run until it is asked to stop."""
        self.began.set()
        while not self.gate.wait(0.01):
            current_task.raise_if_cancelled()


@pytest.fixture
def held() -> t.Iterator[Held]:
    """A task that is let go at the end of the test."""
    held = Held()
    yield held
    held.gate.set()


class NoMoney(Exception):
    """A failure with a sentence for users."""

    public_message = "Your card was refused."


class Short(Exception):
    """A failure whose sentence depends on what happened."""

    @property
    def public_message(self) -> str:
        return f"You need {self.args[0]} more."


def site(executor: Executor, app: Flask, **options: t.Any) -> StatusAPI:
    """Register the API; ``POST /start`` submits what the test has put there."""
    status = StatusAPI(executor, **options)
    app.register_blueprint(status)
    calls: list[t.Callable[[], t.Any]] = []
    app.extensions["calls"] = calls

    @app.post("/start")
    def start() -> t.Any:
        return status.accepted(calls.pop()())

    return status


def start(
    app: Flask, submit: t.Callable[[], t.Any], client: t.Any = None, **options: t.Any
) -> tuple[t.Any, TestResponse]:
    """Let a client start a task; return the client and the answer."""
    client = client or app.test_client()
    app.extensions["calls"].append(submit)
    return client, client.post("/start", **options)


def events_in(text: str) -> list[dict[str, t.Any]]:
    """The data of all events in a stream."""
    return [json.loads(found) for found in re.findall("^data: (.*)$", text, re.M)]
