"""What the log says of tasks, and in which context."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import typing as t
from contextvars import ContextVar

import noise
import pytest
from control import until
from flask import Flask, has_request_context, request
from limits import LIMIT
from scripts import environment

from flask_executor import Executor, Retry, current_task

colour: ContextVar[str] = ContextVar("colour", default="none")


class Seen(logging.Handler):
    """Notes each record with what its context shows."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[tuple[logging.LogRecord, str, str | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        path = request.path if has_request_context() else None
        self.records.append((record, colour.get(), path))

    def of(self, level: int) -> list[tuple[logging.LogRecord, str, str | None]]:
        return [one for one in self.records if one[0].levelno == level]


@pytest.fixture
def seen(app: Flask) -> t.Iterator[Seen]:
    handler = Seen()
    app.logger.addHandler(handler)
    before = app.logger.level
    app.logger.setLevel(logging.DEBUG)
    yield handler
    app.logger.setLevel(before)
    app.logger.removeHandler(handler)


@pytest.mark.parametrize("is_coroutine", [False, True])
@pytest.mark.parametrize("sets", [False, True])
def test_a_failure_is_logged_in_the_context_of_its_task(
    app: Flask, executor: Executor, seen: Seen, is_coroutine: bool, sets: bool
) -> None:
    """The record sees the request and the variables that the task saw last."""

    def fail() -> None:
        if sets:
            colour.set("of the task")
        raise ValueError

    async def fail_awaiting() -> None:
        fail()

    with app.test_request_context("/here"):
        before = colour.set("of the view")
        future = executor.submit(fail_awaiting if is_coroutine else fail)
        colour.reset(before)
    assert isinstance(future.exception(LIMIT), ValueError)
    ((record, seen_colour, path),) = seen.of(logging.ERROR)
    assert seen_colour == ("of the task" if sets else "of the view")
    assert path == "/here"
    assert record.exc_info is not None and record.exc_info[0] is ValueError


def test_a_failure_in_a_process_is_logged_in_the_context_of_its_task() -> None:
    """The record sees the submitter's request and variables."""
    handler = Seen()
    noise.app.logger.addHandler(handler)
    noise.executor.init_app(noise.app)
    try:
        with noise.app.test_request_context("/here"):
            before = colour.set("of the view")
            future = noise.executor.submit(noise.fail_in_colour, "red")
            colour.reset(before)
        assert isinstance(future.exception(LIMIT), ValueError)
        with noise.app.app_context():
            noise.executor.shutdown()
    finally:
        noise.app.logger.removeHandler(handler)
    ((_, seen_colour, path),) = handler.of(logging.ERROR)
    assert (seen_colour, path) == ("of the view", "/here")


def test_an_attempt_that_will_be_tried_again(executor: Executor, seen: Seen) -> None:
    """It is a WARNING in one line, with its traceback at DEBUG."""

    def fail_once() -> None:
        if current_task.attempt == 1:
            raise OSError("busy\nline")

    view = executor.using(retry=Retry(attempts=5, delay=0), name="work", key=3)
    view.submit(fail_once).result(LIMIT)
    ((record, _, _),) = seen.of(logging.WARNING)
    assert record.getMessage() == (
        "Task work (key 3) failed in attempt 1 of 5, next in 0 s: OSError: busy line"
    )
    assert record.exc_info is None
    ((debug, _, _),) = seen.of(logging.DEBUG)
    assert debug.exc_info is not None and not seen.of(logging.ERROR)


def test_an_attempt_that_is_given_up(executor: Executor, seen: Seen) -> None:
    """A task that is not tried again since the process ends says so."""
    executor.using(retry=Retry(attempts=2, delay=600), name="work").submit(divmod, 1, 0)
    until(lambda: seen.of(logging.WARNING))
    executor.drain(LIMIT)
    messages = [record.getMessage() for record, _, _ in seen.of(logging.ERROR)]
    assert messages == [
        "Task work failed and is not tried again, since the process ends"
    ]


def test_records_name_the_package_and_the_key(executor: Executor, seen: Seen) -> None:
    """A record comes from the package; it has a key only if the task has one."""
    executor.using(name="plain").submit(divmod, 1, 0).exception(LIMIT)
    executor.using(name="stored", key="k").submit(divmod, 1, 0).exception(LIMIT)
    records = [record for record, _, _ in seen.of(logging.ERROR)]
    assert [record.getMessage() for record in records] == [
        "Task plain failed",
        "Task stored (key 'k') failed",
    ]
    assert {record.module for record in records} == {"flask_executor"}


@pytest.mark.parametrize("how", ["failure", "timeout"])
@pytest.mark.parametrize("is_logged", [False, True])
def test_a_context_is_restored_only_to_log(how: str, is_logged: bool) -> None:
    """What fails in a process, or runs into its timeout, has its context here only for
    the log: without it no teardown function runs in this process.
    """
    app = Flask("noise")
    app.config.update(EXECUTOR_MAX_WORKERS=1, EXECUTOR_LOG_EXCEPTIONS=is_logged)
    app.config["EXECUTOR_TYPE"] = "process"
    torn_down: list[object] = []
    app.teardown_appcontext(torn_down.append)
    executor = Executor(app)
    with app.app_context():
        if how == "failure":
            future = executor.submit(noise.fail)
        else:
            future = executor.using(timeout=0.05).submit(noise.wait_to_stop)
    torn_down.clear()  # that of the view
    assert future.exception(LIMIT) is not None
    executor.shutdown()
    assert len(torn_down) == is_logged


def test_all_records_name_the_package(
    app: Flask, executor: Executor, seen: Seen, gate: threading.Event
) -> None:
    """So do those of a done-callback that fails, and of a future that is dropped."""
    app.config["EXECUTOR_FUTURES_MAX_LENGTH"] = 1

    def fail(future: t.Any) -> None:
        raise OSError

    executor.submit(abs, -1).add_done_callback(fail)
    executor.submit_stored("first", gate.wait, LIMIT)
    executor.submit_stored("second", abs, -1)
    executor.shutdown(wait=False)
    until(lambda: len(seen.records) == 2)
    by_level = {record.levelname: record for record, _, _ in seen.records}
    assert "was dropped" in by_level["WARNING"].getMessage()
    assert "The done-callback" in by_level["ERROR"].getMessage()
    assert {record.module for record in by_level.values()} == {"flask_executor"}


SCRIPT = """
import signal, sys, threading, time
from flask import Flask
from flask_executor import Executor

# What starts the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
app = Flask("script")
executor = Executor(app)
began = threading.Event()

def work():
    began.set()
    time.sleep(60)

executor.using(name="long", key=1).submit(work)
began.wait()
try:
    print("began", flush=True)
    while True:  # a signal just before a sleep does not end it
        time.sleep(0.01)
except KeyboardInterrupt:
    sys.exit(1)
"""


def test_ctrl_c_twice() -> None:
    """The first Ctrl-C says what is waited for, the second one abandons it by name."""
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment(measured=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None and script.stderr is not None
    assert script.stdout.readline() == "began\n"
    os.kill(script.pid, signal.SIGINT)
    first = script.stderr.readline()
    assert "waits for 1 task to finish: long (key 1). Press Ctrl-C again" in first
    os.kill(script.pid, signal.SIGINT)
    try:
        rest = script.communicate(timeout=LIMIT)[1]
    finally:
        script.kill()
    assert "abandons 1 task: long (key 1)" in rest
    assert "Traceback" not in first + rest
    assert script.returncode == 130
