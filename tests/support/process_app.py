"""An app and functions that worker processes can import."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import socket
import sys
import typing as t
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    current_app,
    g,
    has_app_context,
    request,
    session,
    url_for,
)

from flask_executor import Executor, current_task

app = Flask(__name__)
app.secret_key = "tests"
app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=2)
executor = Executor(app)
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")


@app.teardown_appcontext
def note_teardown(error: BaseException | None) -> None:
    if "journal" in g:
        with open(g.journal, "a") as file:
            file.write(f"{type(error).__name__}\n")


bp = Blueprint("pages", __name__)
bp.add_url_rule("/page/<int:number>", "page", lambda number: "")
bp.add_url_rule("/other", "other", lambda: "")
app.register_blueprint(bp)


def route() -> tuple[t.Any, ...]:
    """How the request was routed, and what may be linked from there."""
    return request.endpoint, request.blueprint, request.view_args, url_for(".other")


def endpoint() -> tuple[str, t.Any]:
    return current_app.name, request.endpoint


def make_app() -> Flask:
    """A factory."""
    made = Flask("made")
    made.secret_key = "tests"
    return made


def context() -> dict[str, t.Any]:
    """What a worker sees."""
    return {
        "app": current_app.name if has_app_context() else None,
        "path": request.full_path if request else None,
        "session": dict(session) if request else None,
        "g": sorted(g) if has_app_context() else None,
        "var": var.get(),
        "pid": os.getpid(),
    }


def upload_and_form() -> tuple[int, str]:
    return len(request.files["file"].read()), request.form["name"]


def read(file: t.Any) -> tuple[str, int]:
    return file.filename, len(file.read())


def note(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path: str) -> bool:
    """Block until somebody opens the named pipe for writing."""
    return Path(path).read_text() == ""


def ask(port: int) -> bytes:
    """Wait for a byte from the process that listens there."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        return connection.recv(1)


async def ask_async(port: int) -> bytes:
    """Likewise, letting others run."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read(1)
    finally:
        writer.close()
        await writer.wait_closed()


class OnlyIn:
    """Something that only unpickles in one process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __reduce__(self) -> tuple[t.Any, ...]:
        return only_in, (self.pid,)


def only_in(pid: int) -> OnlyIn:
    if os.getpid() != pid:
        raise RuntimeError("not here")
    return OnlyIn(pid)


def only_there() -> OnlyIn:
    return OnlyIn(os.getpid())


def own_key() -> t.Any:
    return current_task.key


def echo(*args: t.Any) -> t.Any:
    return args


async def echo_async(*args: t.Any) -> t.Any:
    return args


def throw(kind: type[BaseException], *args: t.Any) -> None:
    raise kind(*args)


async def throw_async(kind: type[BaseException], *args: t.Any) -> None:
    raise kind(*args)


def lamb() -> t.Any:
    return lambda: 1


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("needs two arguments")


class Unpackable(Exception):
    def __init__(self) -> None:
        super().__init__("x")
        self.fn = lambda: 1


def raise_unpicklable() -> None:
    raise Unpicklable(1, 2)


def raise_unpackable() -> None:
    raise Unpackable


def leave() -> None:
    sys.exit(3)


def fail() -> None:
    raise KeyError("from the worker")


def crash_at_start() -> Flask:
    """A factory that takes its process down."""
    os._exit(7)


async def coroutine() -> int:
    await asyncio.sleep(0)
    return os.getpid()


class Thing:
    def method(self, n: int) -> int:
        return n + 1


@executor.job
def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)
