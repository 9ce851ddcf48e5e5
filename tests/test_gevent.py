"""gevent's monkey patching: threads are greenlets, and nothing stops the hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from limits import LIMIT
from scripts import environment, problems

HEAD = """
from gevent import monkey

monkey.patch_all()

import os
import socket
import sys
import threading
from concurrent.futures import CancelledError

import gevent
from flask import Flask
from flask_executor import Executor
import process_app

app = Flask("green")
app.config.update(EXECUTOR_TYPE=sys.argv[1], EXECUTOR_MAX_WORKERS=1)
executor = Executor(app)
"""

SCRIPT = (
    HEAD
    + """
async def coroutine():
    return "coroutine"


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        assert executor.submit(coroutine).result(30) == "coroutine"
        connection.sendall(b"x")
        connection.close()

    answering = gevent.spawn(answer)
    with app.app_context():
        port = listener.getsockname()[1]
        assert executor.submit(process_app.ask, port).result(30) == b"x"
    answering.get()
    listener.close()
    executor.shutdown()
    for thread in threading.enumerate()[1:]:
        thread.join(30)
        assert not thread.is_alive(), thread
    print("well")
"""
)


STOPPED = (
    HEAD
    + """
if __name__ == "__main__":
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    asked = executor.submit(process_app.ask, port)
    connection, _ = listener.accept()  # it runs, and waits for an answer
    assert asked.request_cancel()
    try:
        asked.result(30)
    except CancelledError:
        print("cancelled")
    late = executor.using(timeout=1).submit(process_app.ask, port)
    print(type(late.exception(30)).__name__)
    print(type(executor.submit(process_app.kill_self).exception(30)).__name__)
    print(executor.submit(abs, -1).result(30))
    executor.submit(os.write, 1, b"at exit\\n")
"""
)


@pytest.mark.parametrize("kind", ["process", "pebble"])
def test_other_greenlets_run_meanwhile(tmp_path: Path, kind: str) -> None:
    """While a worker process is busy others run, one of which the worker waits for."""
    done = run(tmp_path, SCRIPT, kind)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


def test_pebble_stops_what_runs(tmp_path: Path) -> None:
    """A pebble worker is killed on request, and at a deadline; a new one takes over."""
    done = run(tmp_path, STOPPED, "pebble")
    expected = ["cancelled", "TaskTimeout", "WorkerLost", "1", "at exit"]
    assert done.stdout.splitlines() == expected, done.stderr
    assert (done.returncode, problems(done.stderr)) == (0, "")


def run(directory: Path, body: str, kind: str) -> subprocess.CompletedProcess[str]:
    """Run a script on a kind of pool to its end."""
    script = directory / "green.py"
    script.write_text(body)
    return subprocess.run(
        [sys.executable, str(script), kind],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
