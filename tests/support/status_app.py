"""An app with the status API, for tests of servers; everybody may ask."""

from __future__ import annotations

import os
import socket
import typing as t

from flask import Flask

import flask_executor.web.status.events as events
from flask_executor import Executor
from flask_executor.web import StatusAPI

events.PULSE = 0.2
app = Flask(__name__)
app.config.update(SECRET_KEY="tests", EXECUTOR_MAX_WORKERS=4)
app.config.from_prefixed_env("STATUS")
executor = Executor(app)
status = StatusAPI(executor, owner=None, max_age=600)
app.register_blueprint(status)


@executor.job(name="hold")
def hold(port: int) -> None:
    """Run until the test, which listens there, lets go."""
    with socket.create_connection(("127.0.0.1", port), 60) as gate:
        gate.settimeout(60)
        gate.recv(1)


@app.get("/")
def index() -> str:
    return str(os.getpid())


@app.post("/hold/<int:port>")
def start(port: int) -> t.Any:
    options: t.Any = {"guarantee": "at_least_once"} if has_store() else {}
    return status.accepted(hold.using(**options).submit(port))


def has_store() -> bool:
    return app.config["EXECUTOR_STORE"] is not None


if __name__ == "__main__":
    import waitress

    server = waitress.create_server(app, listen="127.0.0.1:0", threads=8)
    print(f"Serving on http://127.0.0.1:{server.effective_port}", flush=True)
    server.run()
