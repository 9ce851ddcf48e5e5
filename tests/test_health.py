"""If a process is alive, and if it can take requests."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import typing as t

import pytest
from control import occupy, until
from databases import Server as Database
from flask import Flask
from flask.testing import FlaskClient
from limits import LIMIT
from processes import Process
from store_fixtures import empty_file, postgresql_url, server, sqlite_url
from test_servers import Server, gunicorn

from flask_executor import Executor
from flask_executor.web import Health

__all__ = ["empty_file", "postgresql_url", "server", "sqlite_url"]


@pytest.fixture
def client(app: Flask, executor: Executor) -> FlaskClient:
    """What asks; the executor has not begun."""
    app.register_blueprint(Health(executor), url_prefix="/health")
    return app.test_client()


def codes(client: FlaskClient) -> tuple[int, int]:
    """The codes of both, which are all that the answers have."""
    answers = [client.get(f"/health/{name}") for name in ("livez", "readyz")]
    assert [answer.data for answer in answers] == [b"", b""]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
    return answers[0].status_code, answers[1].status_code


def test_ready(client: FlaskClient, executor: Executor) -> None:
    """A process is ready before its first task, and while it has room."""
    assert codes(client) == (200, 200)
    assert executor._state().ready is None
    executor.submit(abs, -1).result(LIMIT)
    assert codes(client) == (200, 200)


def test_draining(
    client: FlaskClient, executor: Executor, gate: threading.Event
) -> None:
    """One that drains is alive, and takes no requests any more."""
    occupy(executor, gate)
    drain = threading.Thread(target=executor.drain)
    drain.start()
    until(lambda: codes(client) == (200, 503))
    gate.set()
    drain.join(LIMIT)
    assert codes(client) == (200, 503)


def test_a_full_queue(
    app: Flask, client: FlaskClient, executor: Executor, gate: threading.Event
) -> None:
    """One whose queue is full is not ready until there is room."""
    app.config.update(EXECUTOR_MAX_PENDING=1, EXECUTOR_MAX_WORKERS=1)
    occupy(executor, gate)
    future = executor.submit(abs, -1)
    assert codes(client) == (200, 503)
    gate.set()
    future.result(LIMIT)
    assert codes(client) == (200, 200)


def test_a_store(sqlite_url: str) -> None:
    """With a store it must answer."""
    one = Process(sqlite_url)
    one.app.register_blueprint(Health(one.executor), url_prefix="/health")
    assert codes(one.app.test_client()) == (200, 200)
    one.close()


def test_a_store_that_is_away(postgresql_url: str, server: Database) -> None:
    """If the database is away, the process is alive and not ready, until it is back."""
    one = Process(postgresql_url)
    one.app.register_blueprint(Health(one.executor), url_prefix="/health")
    client = one.app.test_client()
    assert codes(client) == (200, 200)
    server.stop()
    try:
        assert codes(client) == (200, 503)
    finally:
        server.start()
    until(lambda: codes(client) == (200, 200))
    one.close()


def test_a_store_that_hangs() -> None:
    """A database that takes the question and never answers is waited for a second, by
    one thread for all who ask.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = Process(f"postgresql+psycopg://127.0.0.1:{listener.getsockname()[1]}/x")
        one.app.register_blueprint(Health(one.executor), url_prefix="/health")
        client = one.app.test_client()
        for at_most in (LIMIT, 1.0, 1.0):
            began = time.monotonic()
            assert client.get("/health/readyz").status_code == 503
            assert time.monotonic() - began < at_most
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("executor_health") == 1
        assert client.get("/health/livez").status_code == 200
    one.close()


def test_livez_asks_nobody(app: Flask) -> None:
    """Even an executor that cannot start leaves a process alive."""
    app.config["EXECUTOR_MAX_WORKERS"] = "many"
    executor = Executor(app)
    app.register_blueprint(Health(executor))
    app.testing = False
    client = app.test_client()
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 500


def test_each_app_for_itself(executor: Executor, client: FlaskClient) -> None:
    """With several apps, the answer is about the one that was asked."""
    other = Flask("other")
    executor.init_app(other)
    with other.app_context():
        executor.shutdown()
    other.register_blueprint(Health(executor), url_prefix="/health")
    assert codes(client) == (200, 200)
    assert codes(other.test_client()) == (200, 503)


def test_names_of_the_room() -> None:
    """The room has its names, and no others."""
    from flask_executor import web

    assert "Health" in dir(web)
    missing = "no attribute 'Wealth'"
    with pytest.raises(AttributeError, match=missing):
        t.cast(t.Any, web).Wealth  # noqa: B018


def test_under_gunicorn(
    tmp_path: t.Any, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker of a server answers, also to a process that is new."""
    monkeypatch.setenv("METRICS_STORE", sqlite_url)

    def is_ready(one: Server) -> bool:
        return one.ask("/health/readyz") == one.ask("/health/livez") == b""

    with gunicorn(tmp_path, "-w", "2", app="metrics_app:app") as one:
        assert is_ready(one)
        pid = int(one.ask("/"))
        os.kill(pid, signal.SIGKILL)
        for _ in range(4):
            assert is_ready(one)
        assert one.terminate() == 0
