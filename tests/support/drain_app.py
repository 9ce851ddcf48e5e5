"""An app for a real server, with tasks of every kind when it is asked to stop."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket

from flask import Flask

from flask_executor import Executor, Retry, TaskFuture

app = Flask(__name__)
app.config.update(EXECUTOR_MAX_WORKERS=1, EXECUTOR_DRAIN_TIMEOUT="0.3")
executor = Executor(app)


def stuck(port: int) -> None:
    """Wait until the test, which listens there, lets go."""
    with socket.create_connection(("127.0.0.1", port), 30) as door:
        door.recv(1)


def nothing() -> None: ...


def fail() -> None:
    raise ValueError("not yet")


async def until_cancelled(future: TaskFuture[None]) -> None:
    """Go on until the executor gives another task up."""
    await asyncio.wait([asyncio.ensure_future(asyncio.wrap_future(future))])


@app.get("/<int:port>")
def view(port: int) -> str:
    if multiprocessing.parent_process() is not None:
        raise AssertionError("not in a worker process")
    delayed = executor.using(delay=3600, name="delayed", key="d").submit(nothing)
    failing = executor.using(retry=Retry(delay=3600), name="failing", key="f")
    failing.submit(fail)
    executor.using(name="finishing").submit(until_cancelled, delayed)
    executor.using(name="stuck", key=("s", 1)).submit(stuck, port)
    executor.using(name="in line").submit(nothing)
    return "submitted"
