"""Functions for worker processes: they start others, and look at signals."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading

from flask import Flask

from flask_executor import Executor
from flask_executor.errors import ChildrenNotAllowed


def forked(code: int) -> int | None:
    """The exit code of a process that this one forks and that leaves with ``code``."""
    process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(code,))
    process.start()
    process.join(30)
    return process.exitcode


def leave_a_thread() -> None:
    """Leave a thread that speaks when the worker process has left its main loop."""
    threading.Thread(target=_speak_at_the_end).start()


def _speak_at_the_end() -> None:
    threading.main_thread().join(30)
    os.write(1, b"the thread ends\n")


def blocked() -> list[int]:
    """The signals that this thread blocks."""
    return sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def end_by(number: int) -> None:
    """Send a signal to this process, and wait for it."""
    os.kill(os.getpid(), number)
    signal.pause()


def submit(kind: str) -> None:
    """Submit to a pool that this process starts, and say what came of it."""
    app = Flask("child")
    app.config["EXECUTOR_TYPE"] = kind
    executor = Executor(app)
    with app.app_context():
        try:
            executor.submit_stored("key", abs, -1)
        except ChildrenNotAllowed as error:
            print(type(error).__name__, error)
        print(dict(executor.futures.items()))
        print(executor.submit(asyncio.sleep, 0, 2).result(20), flush=True)


def submit_and_leave(kind: str, method: str) -> None:
    """Leave this process with tasks in the queue of a pool, and with an idle pool."""
    app = Flask("child")
    app.logger.setLevel("INFO")
    for prefix in ("", "IDLE_"):
        app.config[f"{prefix}EXECUTOR_TYPE"] = kind
        app.config[f"{prefix}EXECUTOR_MAX_WORKERS"] = 1
        app.config[f"{prefix}EXECUTOR_START_METHOD"] = method
    executor, idle = Executor(app), Executor(app, "idle")
    with app.app_context():
        idle.submit(abs, -1).result(20)
        executor.submit(abs, -1).result(20)  # so that the worker is there
        for number in range(3):
            executor.submit(os.write, 1, b"note %d\n" % number)
