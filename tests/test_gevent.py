"""gevent's monkey patching: threads are greenlets, and nothing stops the hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from limits import LIMIT
from scripts import environment

SCRIPT = """
from gevent import monkey

monkey.patch_all()

import socket
import threading

import gevent
from flask import Flask
from flask_executor import Executor
import process_app

app = Flask("green")
app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
executor = Executor(app)


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
    assert not threading.enumerate()[1:]
    print("well")
"""


def test_other_greenlets_run_meanwhile(tmp_path: Path) -> None:
    """While a worker process is busy others run, one of which the worker waits for."""
    script = tmp_path / "green.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
