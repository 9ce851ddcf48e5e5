"""What process tasks do to disturb the way back from their worker."""

from __future__ import annotations

import threading
import typing as t
from contextvars import ContextVar, copy_context

from flask import Flask, current_app, request

from flask_executor import Executor, current_task

app = Flask(__name__)
app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
executor = Executor(app)
colour: ContextVar[str] = ContextVar("colour", default="none")


def report_for_ever(n: int) -> int:
    """Leave a thread that goes on reporting after the end of the task."""
    inside = copy_context()

    def report() -> None:
        for _ in range(20_000):
            inside.copy().run(current_task.progress, n, 10, "x" * 500)

    threading.Thread(target=report, daemon=True).start()
    return n


def report_nonsense() -> int:
    """Report what does not pickle, and a message that is none."""
    current_task.progress(1, 2, t.cast(t.Any, None))
    current_task.progress(t.cast(t.Any, threading.Lock()), 2, "lock")
    current_task.progress(t.cast(t.Any, lambda: 1), t.cast(t.Any, object()))
    return 1


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
