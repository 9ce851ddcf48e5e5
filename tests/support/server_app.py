"""An app for real servers: its tasks tell the test what happened through a named pipe.

See :mod:`notes`.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import threading
import typing as t
import zlib

from flask import Flask, Response, current_app, g, jsonify, request, url_for
from notes import note

from flask_executor import Executor

app = Flask(__name__)
app.config.update(
    SECRET_KEY="tests",
    MAX_CONTENT_LENGTH=5_000_000,
    EXECUTOR_MAX_WORKERS=2,
    OTHER_EXECUTOR_TYPE="process",
    OTHER_EXECUTOR_MAX_WORKERS=1,
    LINE_EXECUTOR_MAX_WORKERS=1,
)
executor = Executor(app)
processes = Executor(app, "other")
line = Executor(app, "line")


def seen() -> dict[str, t.Any]:
    """What a task sees."""
    return {
        "app": current_app.name,
        "path": request.full_path,
        "agent": request.headers["User-Agent"],
        "url": url_for("context", _external=False),
        "g": g.get("user"),
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
    }


async def seen_by_coroutine() -> dict[str, t.Any]:
    """What a coroutine sees, after it has let others run."""
    await asyncio.sleep(0)
    return seen()


def pass_gate(port: int, *words: object) -> None:
    """Wait until the test, which listens there, lets go."""
    with socket.create_connection(("127.0.0.1", port), 30) as gate:
        gate.settimeout(30)
        gate.recv(1)
    note(*words)


def note_upload(closed: threading.Event) -> None:
    """Read the request once the server is done with it."""
    assert closed.wait(30)
    data = request.files["file"].read()
    found = {"name": request.form["name"], "size": len(data), "crc": zlib.crc32(data)}
    note("upload", json.dumps(found, separators=(",", ":")))


def note_body(closed: threading.Event) -> None:
    """Likewise for a plain body."""
    assert closed.wait(30)
    note("body", len(request.data), zlib.crc32(request.data))


# With --preload this is before the fork, in the master.
if multiprocessing.parent_process() is None:
    executor.submit_stored("import", note, "import")


@app.get("/")
def context() -> Response:
    g.user = "ada"
    return jsonify(
        stored=executor.futures.keys(),
        view=os.getpid(),
        task=executor.submit(seen).result(30),
    )


@app.get("/coroutine")
def coroutine() -> Response:
    g.user = "ada"
    futures = [executor.submit(seen_by_coroutine) for _ in range(20)]
    return jsonify([future.result(30) for future in futures])


@app.get("/process")
def process() -> Response:
    g.user = "ada"
    return jsonify(view=os.getpid(), task=processes.submit(seen).result(30))


def after_closing(task: t.Callable[[threading.Event], None]) -> Response:
    """Submit what runs when the response is sent and closed."""
    closed = threading.Event()
    executor.submit(task, closed)
    response = Response("accepted", 202)
    response.call_on_close(closed.set)
    return response


@app.post("/upload")
def upload() -> Response:
    return after_closing(note_upload)


@app.post("/upload-seen")
def upload_seen() -> Response:
    assert request.files["file"].read(2)
    return after_closing(note_upload)


@app.post("/body")
def body() -> Response:
    response = after_closing(note_body)
    response.data = str(len(request.get_data())).encode()
    return response


@app.get("/queue/<int:port>/<int:count>")
def queue(port: int, count: int) -> str:
    line.submit(pass_gate, port, "queued", 0)
    for number in range(1, count):
        line.submit(note, "queued", number)
    return str(os.getpid())


@app.post("/broken")
def broken() -> Response:
    try:
        executor.submit(note, "never")
    except Exception as error:
        note("broken", type(error).__name__)
        raise
    return Response("accepted", 202)
