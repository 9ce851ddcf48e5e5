"""An app that reports to Sentry; :func:`main` prints what was reported.

The SDK patches threads and logging for good, so this is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import typing as t

import sentry_sdk
from flask import Flask, g, request
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.modules import ModulesIntegration
from sentry_sdk.transport import Transport

from flask_executor import Executor

LIMIT = 30
TASKS = 60
events: list[t.Any] = []
"""What the SDK would have sent."""


class Kept(Transport):
    """Sends nothing."""

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            events.append(event)


def make_app() -> Flask:
    """The app, here and in a worker process."""
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Kept,
        # Each of sixty threads would list the installed packages.
        disabled_integrations=[ModulesIntegration()],
    )
    app = Flask("reporting")
    app.config["EXECUTOR_APP"] = "sentry_app:make_app"
    app.teardown_appcontext(tear_down)
    return app


all_have_tags = threading.Barrier(TASKS)


def tear_down(error: BaseException | None) -> None:
    if "number" in g:
        sentry_sdk.capture_message(f"teardown {g.number}")


def set_tags(number: int) -> None:
    g.number = number
    sentry_sdk.set_tag(f"task {number}", number)
    sentry_sdk.get_current_scope().set_tag(f"current {number}", number)
    logging.getLogger("task").warning("breadcrumb %s", number)


def report(number: int) -> list[t.Any]:
    """Set tags, and report, when all others have set theirs."""
    set_tags(number)
    all_have_tags.wait(LIMIT)
    sentry_sdk.capture_message(f"task {number}")
    return []


def report_from_process(number: int) -> list[t.Any]:
    """The same in a worker process, which cannot wait for the others: what it reported
    before, as well.
    """
    set_tags(number)
    sentry_sdk.capture_message(f"task {number}")
    return events


async def report_in_coroutine(number: int) -> list[t.Any]:
    """The same on an event loop."""
    set_tags(number)
    while len(tagged) < TASKS:
        tagged.add(number)
        await asyncio.sleep(0)
    sentry_sdk.capture_message(f"task {number}")
    return []


tagged: set[int] = set()
WORK: dict[str, t.Any] = {
    "thread": report,
    "coroutine": report_in_coroutine,
    "process": report_from_process,
}


def main(kind: str) -> None:
    app = make_app()
    app.config["EXECUTOR_TYPE"] = "process" if kind == "process" else "thread"
    app.config["EXECUTOR_MAX_WORKERS"] = 2 if kind == "process" else TASKS
    executor = Executor(app)

    @app.get("/")
    def view() -> str:
        sentry_sdk.set_tag("view", request.path)
        futures = [executor.submit(WORK[kind], number) for number in range(TASKS)]
        for future in futures:
            events.extend(e for e in future.result(LIMIT) if e not in events)
        sentry_sdk.capture_message("view")
        return ""

    app.test_client().get("/")
    executor.shutdown()
    print(json.dumps([facts(event) for event in events]))


def facts(event: t.Any) -> dict[str, t.Any]:
    crumbs = event.get("breadcrumbs", {}).get("values", [])
    return {
        "message": event["message"],
        "tags": event.get("tags", {}),
        "crumbs": [one["message"] for one in crumbs if one["category"] == "task"],
        "url": event.get("request", {}).get("url"),
    }
