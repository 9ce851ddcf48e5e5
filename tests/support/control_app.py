"""An app and functions for worker processes: they ask and tell what a task may."""

from __future__ import annotations

import os
import signal
import socket
import typing as t

from flask import Flask

from flask_executor import Executor, NoCurrentTask, current_task

app = Flask(__name__)
app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
executor = Executor(app)


def pid() -> int:
    return os.getpid()


def wait_at(port: int) -> bytes:
    """Wait until the process that listens there lets go."""
    with socket.create_connection(("127.0.0.1", port), 30) as door:
        return door.recv(1)


def wait_and_return(port: int, value: t.Any) -> t.Any:
    wait_at(port)
    return value


def until_asked(port: int) -> str:
    """Knock, and go on until the task is asked to stop."""
    with socket.create_connection(("127.0.0.1", port), 30) as door:
        door.settimeout(0.005)
        while not current_task.cancel_requested:
            try:
                door.recv(1)
            except TimeoutError:
                continue
            return "was let go on"
    return "saw it"


def until_stopped(port: int) -> None:
    """Likewise, and stop."""
    until_asked(port)
    current_task.raise_if_cancelled()


def track(port: int) -> None:
    """Go through something endless, until the task is asked to stop."""
    with socket.create_connection(("127.0.0.1", port), 30) as door:
        door.settimeout(0.001)
        for _ in current_task.track(iter(int, 1)):
            try:
                door.recv(1)
            except TimeoutError:
                continue
            return


def known() -> tuple[t.Any, ...]:
    """What a task knows of itself."""
    return (
        current_task.id,
        current_task.name,
        current_task.key,
        current_task.attempt,
        current_task.remaining(),
    )


def report(count: int) -> None:
    for done in range(count + 1):
        current_task.progress(done, count, f"{done} of {count}")


def report_and_fail(count: int) -> None:
    report(count)
    raise ValueError(count)


def nested() -> str:
    """A call in a worker that is none of the task's."""
    try:
        return current_task.name
    except NoCurrentTask:
        return "none"


def kill_self_until(attempt: int) -> int:
    """Take the process down in each attempt before that one."""
    if current_task.attempt < attempt:
        os.kill(os.getpid(), signal.SIGKILL)
    return current_task.attempt


def fail_until(attempt: int) -> int:
    """Fail in each attempt before that one."""
    if current_task.attempt < attempt:
        raise ValueError(current_task.attempt)
    return current_task.attempt


def throw(kind: type[BaseException], *args: t.Any) -> None:
    raise kind(*args)


@executor.job(priority=3)
def job_pid() -> int:
    return os.getpid()


@executor.job(priority=3)
def job_double(n: int) -> int:
    return 2 * n


@executor.job(max_concurrency=1)
def limited_wait_at(port: int) -> bytes:
    """One at a time."""
    return wait_at(port)


def report_message(message: str) -> None:
    current_task.progress(1, 1, message)


def report_odd() -> None:
    """Tell what no pipe takes."""
    current_task.progress(1, 1, t.cast(str, lambda: None))
