"""Which processes run saved tasks: those that serve, or submit; not those that read."""

from __future__ import annotations

import logging
import sys
import typing as t
from pathlib import Path

import click
import pytest
from flask import Flask, request_started

from flask_executor import Executor

URL = "postgresql+psycopg://ada:hidden@127.0.0.1:1/nowhere"


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("tests")
    store = f"sqlite:///{tmp_path / 'tasks.db'}"
    app.config.update(SECRET_KEY="tests", EXECUTOR_STORE=store, EXECUTOR_MAX_WORKERS=1)
    app.add_url_rule("/", view_func=lambda: "served")
    return app


@pytest.fixture
def executor(app: Flask) -> t.Iterator[Executor]:
    executor = Executor(app)
    yield executor
    if (dispatcher := executor._states[app].ready) is not None:
        dispatcher.leave()


def serve(app: Flask) -> None:
    assert app.test_client().get("/").text == "served"


def node_of(app: Flask, executor: Executor) -> t.Any:
    """What ties the executor to its store, or None if nothing has used it."""
    dispatcher = executor._states[app].ready
    return None if dispatcher is None else dispatcher.node


def runs(app: Flask, executor: Executor) -> bool:
    node = node_of(app, executor)
    return node is not None and bool(node.runs)


def test_the_first_request_starts_it(app: Flask, executor: Executor) -> None:
    """From its first request on, a process claims tasks, and has a lease."""
    assert not runs(app, executor)
    serve(app)
    assert runs(app, executor)


@pytest.mark.holds("g-store-runs")
def test_the_config_keeps_a_server_from_it(app: Flask, executor: Executor) -> None:
    """With EXECUTOR_STORE_RUN = False, neither a request nor a submit starts it."""
    app.config["EXECUTOR_STORE_RUN"] = "false"
    serve(app)
    with app.app_context():
        executor.job(abs).using(guarantee="at_least_once", delay=60).submit(1)
    assert not runs(app, executor)


@pytest.mark.holds("g-store-runs")
def test_a_submit_starts_it_and_a_look_does_not(app: Flask, executor: Executor) -> None:
    """A process that only reads runs none; one that submits with a guarantee does."""
    with app.app_context():
        assert "key" not in executor.futures
        executor.submit_stored("key", abs, -1).result()
        assert not runs(app, executor)
        work = executor.job(abs).using(guarantee="at_least_once")
        assert work.submit(-2).result() == 2
    assert runs(app, executor)


@pytest.mark.parametrize("where", ["test", "shell", "command"])
def test_requests_made_by_hand(
    app: Flask, executor: Executor, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A request in a test, in a shell or by a command does not start it."""
    if where == "test":
        app.testing = True
    elif where == "shell":
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    name = "tidy" if where == "command" else "run"
    with click.Context(click.Command(name), info_name=name):
        serve(app)
        assert node_of(app, executor) is None
        app.testing = False
        if where != "command":
            monkeypatch.undo()
            serve(app)
            assert runs(app, executor)


def test_without_a_store(app: Flask, executor: Executor) -> None:
    """An app without a store listens to no second request."""
    app.config["EXECUTOR_STORE"] = None
    assert [*request_started.receivers_for(app)]
    serve(app)
    assert not [*request_started.receivers_for(app)]
    assert node_of(app, executor) is None


def test_a_wrong_config_costs_no_request(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """If it cannot start, requests are served, and the log says why, once."""
    app.config["SECRET_KEY"] = None
    serve(app)
    serve(app)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "runs no saved tasks of others" in record.getMessage()
    assert record.exc_info is not None
    assert "has no SECRET_KEY" in str(record.exc_info[1])


def test_a_database_that_is_away(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """If the database is away, requests are served, and the process tries again."""
    app.config["EXECUTOR_STORE"] = URL
    serve(app)
    node = node_of(app, executor)
    assert node.runs
    while not (records := [r for r in caplog.records if "looks for" in r.getMessage()]):
        node.feeding._changed.wait(0.05)
    assert "again and again" in records[0].getMessage()
    assert "hidden" not in caplog.text
    assert node.feeding._thread.is_alive()


def test_it_starts_again_with_the_executor(app: Flask, executor: Executor) -> None:
    """After init_app, the next request starts it anew."""
    serve(app)
    before = executor._states[app].dispatcher
    executor.init_app(app)
    serve(app)
    assert executor._states[app].dispatcher is not before
    assert runs(app, executor)
    before.leave()
