"""What process tasks do to disturb the way back from their worker."""

from __future__ import annotations

import threading
import time
import typing as t
from contextvars import ContextVar
from multiprocessing.connection import Connection

from flask import Flask, current_app, request
from limits import LIMIT

from flask_executor import Executor, current_task

app = Flask(__name__)
app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
executor = Executor(app)
colour: ContextVar[str] = ContextVar("colour", default="none")


may_report, has_reported = threading.Event(), threading.Event()


def leave_a_reporter() -> None:
    """Leave a thread that reports once it may, when this task is long over."""
    progress = current_task.progress  # the one of this task, wherever it is called

    def report() -> None:
        may_report.wait(LIMIT)
        progress(1, 2, "late")
        has_reported.set()

    threading.Thread(target=report, daemon=True).start()


def wait_for_the_reporter() -> bool:
    """Let that thread report while this task runs."""
    may_report.set()
    return has_reported.wait(LIMIT)


def report_within_the_reply() -> bytes:
    """Report on another thread when the first part of the reply is in the pipe.

    What is long goes there in two parts: its length, and itself.
    """
    progress, send = current_task.progress, Connection._send  # type: ignore[attr-defined]

    def send_and_report(pipe: t.Any, part: t.Any) -> None:
        send(pipe, part)
        Connection._send = send  # type: ignore[attr-defined]
        report = threading.Thread(target=progress, args=(1, 2, "within"))
        report.start()
        report.join(0.5)  # it waits for the reply to be sent, if all is well

    Connection._send = send_and_report  # type: ignore[attr-defined]
    return b"x" * 100_000


def report_nonsense() -> int:
    """Report what does not pickle, and a message that is none."""
    current_task.progress(1, 2, t.cast(t.Any, None))
    current_task.progress(t.cast(t.Any, threading.Lock()), 2, "lock")
    current_task.progress(t.cast(t.Any, lambda: 1), t.cast(t.Any, object()))
    return 1


def fail() -> t.NoReturn:
    raise ValueError


def wait_to_stop() -> None:
    """Return when this task is asked to stop."""
    deadline = time.monotonic() + LIMIT
    while not current_task.cancel_requested and time.monotonic() < deadline:
        time.sleep(0.01)


def echo(n: int) -> int:
    return n


def write_garbage() -> int:
    """Write into the pipe of the worker's replies what nobody can read."""
    import gc

    from flask_executor.pools.worker import Answers

    (answers,) = (one for one in gc.get_objects() if isinstance(one, Answers))
    answers._pipe.send_bytes(b"garbage")
    return 1


def answer_another_call() -> int:
    """Write into that pipe an answer to a call that nobody has made."""
    import gc

    from flask_executor.pools.worker import REPLY, Answers, join_message

    (answers,) = (one for one in gc.get_objects() if isinstance(one, Answers))
    answers._pipe.send_bytes(join_message(REPLY, 1_000_000, b"answer"))
    return 1


def fail_in_colour(value: str) -> t.NoReturn:
    colour.set(value)
    assert current_app and request
    raise ValueError("in colour")
