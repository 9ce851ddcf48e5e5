"""An app whose processes share a store; its tasks tell the test where they run.

See :mod:`notes`.
"""

from __future__ import annotations

import os
import socket
import typing as t

from flask import Flask, abort
from notes import note

from flask_executor import DuplicateKey, Executor

app = Flask(__name__)
app.logger.setLevel("INFO")
app.config.update(SECRET_KEY="tests", EXECUTOR_MAX_WORKERS=4)
app.config.from_prefixed_env("SHARED")
executor = Executor(app)


@executor.job(name="double")
def double(number: int) -> int:
    """Tell where it runs."""
    note("double", number)
    return 2 * number


@executor.job(name="hold")
def hold(word: str, port: int) -> str:
    """Run until the test, which listens there, lets go."""
    note("began", word)
    with socket.create_connection(("127.0.0.1", port), 60) as gate:
        gate.settimeout(60)
        gate.recv(1)
    note("done", word)
    return word


@app.get("/")
def index() -> str:
    return str(os.getpid())


@app.post("/double/<key>")
def submit(key: str) -> tuple[dict[str, t.Any], int]:
    try:
        double.using(key=key).submit(len(key))
    except DuplicateKey:
        return {"pid": os.getpid()}, 200
    return {"pid": os.getpid()}, 202


@app.post("/hold/<int:port>/<words>")
def submit_held(port: int, words: str) -> dict[str, t.Any]:
    """Submit a task for each word, which is its key and its guarantee."""
    for word in words.split(","):
        guarantee: t.Any = word.split("-")[0]
        hold.using(key=word, guarantee=guarantee).submit(word, port)
    return {"pid": os.getpid()}


@app.get("/status/<key>")
def status(key: str) -> dict[str, t.Any]:
    future = executor.futures.get(key)
    if future is None:
        abort(404)
    assert future.task is not None
    state = future.task.state
    value = future.result(0) if state == "succeeded" else None
    return {"pid": os.getpid(), "state": state, "value": value}


@app.post("/pop/<key>")
def pop(key: str) -> dict[str, t.Any]:
    return {"pid": os.getpid(), "won": executor.futures.pop(key) is not None}
