"""What a server can answer: requests to one gthread worker of gunicorn, per second.

The client is a process of its own, with a few connections that stay open. It sends the
same bytes again and again and reads the answers, so that the server is the slower side.
"""

from __future__ import annotations

import atexit
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

from flask import Flask

CLIENTS = 4
REQUESTS = 2_000
PATIENCE = 30

Round = t.Callable[[], float]


def make_app() -> Flask:
    """The app: a bare view, and the status of a task that waits."""
    from flask_executor import Executor
    from flask_executor.web import StatusAPI

    app = Flask("bench")
    app.config.update(SECRET_KEY="bench", EXECUTOR_MAX_WORKERS=2)
    executor = Executor(app)
    status = StatusAPI(executor)
    app.register_blueprint(status)

    @app.get("/bare")
    def bare() -> dict[str, t.Any]:
        return {"state": "running", "done": False, "attempt": 1, "error": None}

    @app.post("/start")
    def start() -> t.Any:
        return status.accepted(executor.using(delay=600).submit(int))

    return app


def answers(side: str) -> Round:
    """Seconds for each answer.

    :param side: ``'ours'``, the status of a task as JSON, or ``'bare'``.
    """
    port = serve("served:make_app()")
    path, cookie = _start(port)
    wanted = path if side == "ours" else "/bare"
    request = f"GET {wanted} HTTP/1.1\r\nHost: bench\r\nCookie: {cookie}\r\n\r\n"

    def measured() -> float:
        each = REQUESTS // CLIENTS
        clients = [
            threading.Thread(target=_visit, args=(port, request.encode(), each))
            for _ in range(CLIENTS)
        ]
        start = time.perf_counter()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return (time.perf_counter() - start) / REQUESTS

    return measured


def serve(app: str) -> int:
    """Start a server of an app, which ends with this process; return its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "-k", "gthread", "-w", "1"),
            *("--threads", str(CLIENTS), "-b", f"127.0.0.1:{port}"),
            *("--log-level", "error", app),
        ],
        cwd=Path(__file__).parent,
        env=os.environ,
    )
    atexit.register(server.wait)
    atexit.register(server.terminate)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise SystemExit("gunicorn does not listen") from None
            time.sleep(0.05)
        else:
            return port


def _start(port: int) -> tuple[str, str]:
    """Start a task; return the URL of its status and the cookie of its owner."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/start")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    cookie = str(answer.getheader("Set-Cookie")).partition(";")[0]
    return str(answer.getheader("Location")), cookie


def _visit(port: int, request: bytes, count: int) -> None:
    """Send a request so often on one connection, and read all answers."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        for _ in range(count):
            client.sendall(request)
            _read(client)


def _read(client: socket.socket) -> None:
    data = client.recv(65536)
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the server answered {head!r}")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65536)
