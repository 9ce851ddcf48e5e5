"""Routes for the app ``shop`` of docs/howto/servers.rst, whose servers a test stops."""

from __future__ import annotations

import os
import signal
import socket

from shop import app, executor

from flask_executor import Executor
from flask_executor.errors import ChildrenNotAllowed

app.config.update(EXECUTOR_MAX_WORKERS=1, OTHER_EXECUTOR_TYPE="process")
processes = Executor(app, "other")


def note(*words: object) -> None:
    """Tell the test."""
    fd = os.open(os.environ["SERVER_NOTES"], os.O_WRONLY)
    try:
        os.write(fd, " ".join((*map(str, words), "\n")).encode())
    finally:
        os.close(fd)


def pass_gate(port: int) -> None:
    """Wait until the test, which listens there, lets go."""
    with socket.create_connection(("127.0.0.1", port), 30) as gate:
        gate.recv(1)


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.get("/queue/<int:port>/<int:count>")
def queue(port: int, count: int) -> str:
    """Fill the queue behind a task that waits for the test."""
    executor.submit(pass_gate, port)
    for number in range(count):
        executor.submit(note, "queued", number)
    # A drain begins with cancelling what is not due.
    delayed = executor.using(delay=3600).submit(note, "never")
    delayed.add_done_callback(lambda _: note("leaving"))
    return "queued"


@app.get("/process")
def process() -> str:
    """Use a process pool, one of whose workers is killed."""
    try:
        lost = processes.submit(end).exception(30)
    except ChildrenNotAllowed as error:
        return str(error)
    return f"{type(lost).__name__} {processes.submit(abs, -1).result(30)}"


@app.get("/here/<int:port>")
def here(port: int) -> str:
    """Tell the test if this thread blocks SIGCHLD, and use processes if it says so."""
    blocked = signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with socket.create_connection(("127.0.0.1", port), 30) as test:
        test.sendall(b"b" if blocked else b"-")
        return process() if test.recv(1) == b"y" else "not here"
