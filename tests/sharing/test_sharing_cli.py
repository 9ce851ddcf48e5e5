"""The commands: flask executor worker, and flask executor store."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import typing as t
from pathlib import Path

import click
import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo
from limits import LIMIT
from scripts import PYTHONPATH, ROOT, commands

from flask_executor import Executor
from flask_executor.cli import executor as group
from flask_executor.sharing.worker import Worker
from flask_executor.stores.sql.schema import VERSION

Invoke = t.Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def app(path: Path) -> Flask:
    app = Flask("tests")
    app.config.update(SECRET_KEY="tests", EXECUTOR_STORE=f"sqlite:///{path}")
    return app


@pytest.fixture
def invoke(app: Flask) -> Invoke:
    def invoke(*words: str) -> Result:
        info = ScriptInfo(create_app=lambda: app, set_debug_flag=False)
        return app.test_cli_runner().invoke(group, words, obj=info)

    return invoke


def refused(invoke: Invoke, *words: str, code: int = 1) -> str:
    """What a command says that ends with an exit code of errors."""
    found = invoke(*words)
    assert found.exit_code == code, found.output
    return str(found.output)


def test_tables_are_made_checked_and_brought_up_to_date(
    app: Flask, invoke: Invoke, path: Path
) -> None:
    """upgrade makes the tables; check has nothing to say then."""
    Executor(app)
    made = invoke("store", "upgrade")
    assert made.output == f"The tables in sqlite:///{path} were brought up to date.\n"
    again = invoke("store", "upgrade")
    assert again.output == f"The tables in sqlite:///{path} are up to date.\n"
    checked = invoke("store", "check")
    assert checked.output == f"The tables in sqlite:///{path} are complete.\n"
    assert (made.exit_code, again.exit_code, checked.exit_code) == (0, 0, 0)


def test_what_is_missing_is_said(app: Flask, invoke: Invoke, path: Path) -> None:
    """check names what is missing, and ends with 1."""
    Executor(app)
    invoke("store", "upgrade")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX executor_task_due")
    said = refused(invoke, "store", "check")
    assert "missing: index executor_task_due\n" in said
    assert "Run 'flask executor store upgrade'." in said


def test_tables_of_newer_code(app: Flask, invoke: Invoke, path: Path) -> None:
    """upgrade never goes back: it says which versions do not fit."""
    Executor(app)
    invoke("store", "upgrade")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE executor_meta SET version = version + 1")
    said = refused(invoke, "store", "upgrade")
    assert f"have version {VERSION + 1}, and this code needs version {VERSION}" in said


def test_the_executor_is_chosen(app: Flask, invoke: Invoke, path: Path) -> None:
    """--executor names one; the error for a wrong name lists those that are there."""
    app.config["MAIL_EXECUTOR_STORE"] = app.config["EXECUTOR_STORE"]
    said = refused(invoke, "store", "check", code=3)
    assert "The app 'tests' has no executor: call" in said
    Executor(app, name="mail")
    said = refused(invoke, "store", "check", code=3)
    assert "has no executor named '', only mail: choose one with --executor" in said
    assert invoke("store", "upgrade", "--executor", "mail").exit_code == 0
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT version FROM executor_mail_meta").fetchall()


@pytest.mark.parametrize("words", [("worker",), ("store", "upgrade")])
def test_without_a_store(app: Flask, invoke: Invoke, words: tuple[str, ...]) -> None:
    """The error names the key and a value."""
    app.config["EXECUTOR_STORE"] = ""
    Executor(app)
    said = refused(invoke, *words)
    assert "EXECUTOR_STORE is not set" in said
    assert "'sqlite:///tasks.db'" in said


def test_errors_of_the_config(app: Flask, invoke: Invoke) -> None:
    """What the config has wrong is said in one line, without a traceback."""
    for words, store, said, code in (
        (("worker",), "mysql://db/tasks", "mysql is not supported", 1),
        (("worker",), "tasks.db", "EXECUTOR_STORE = 'tasks.db' is not", 1),
        (("store", "check"), "postgresql://db@127.0.0.1:1/x", "is not available", 4),
    ):
        app.config["EXECUTOR_STORE"] = store
        Executor(app)
        assert said in refused(invoke, *words, code=code)


def test_a_worker_needs_a_pool(app: Flask, invoke: Invoke) -> None:
    """With EXECUTOR_TYPE = 'sync' there is nothing for a worker to do."""
    app.config["EXECUTOR_TYPE"] = "sync"
    Executor(app)
    assert "EXECUTOR_TYPE is 'sync', which runs each call where it is submitted" in (
        refused(invoke, "worker")
    )


def test_concurrency(app: Flask, invoke: Invoke) -> None:
    """It must be above 0, and come before the executor is used."""
    executor = Executor(app)
    assert invoke("worker", "--concurrency", "0").exit_code == 2
    assert executor._max_workers
    said = refused(invoke, "worker", "--concurrency", "3")
    assert "EXECUTOR_MAX_WORKERS cannot become 3 any more" in said


WITHOUT = """
import sys
sys.modules["sqlalchemy"] = None
from flask.cli import main
main()
"""


def test_without_sqlalchemy(tmp_path: Path) -> None:
    """flask has the commands without the extra, and says what to install."""
    (tmp_path / "plain.py").write_text(
        "from flask import Flask\nfrom flask_executor import Executor\n"
        "app = Flask('plain')\napp.config.update(SECRET_KEY='x',"
        " EXECUTOR_STORE='sqlite:///tasks.db')\nExecutor(app)\n"
    )

    def flask(*words: str) -> subprocess.CompletedProcess[str]:
        folders = str(commands(tmp_path)), str(tmp_path), PYTHONPATH
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", WITHOUT, "--app", "plain", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    told = flask("--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert re.search(r"^ +executor +See and change", told.stdout, re.MULTILINE)
    worker = flask("executor", "worker")
    assert worker.returncode == 1
    assert "pip install 'Flask-Executor[store]'" in worker.stderr
    assert "Traceback" not in worker.stderr


class Terminal(io.StringIO):
    """A terminal, which sends a signal as soon as it shows a text."""

    def __init__(self, until: str) -> None:
        super().__init__()
        self._until = until

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._until in text:
            self._until = "\0"  # once
            signal.raise_signal(signal.SIGTERM)
        return super().write(text)


@pytest.fixture
def handlers() -> t.Iterator[None]:
    """Put the handlers of signals back."""
    before = [(one, signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGINT)]
    yield
    for one, handler in before:
        signal.signal(one, handler)


@pytest.mark.usefixtures("handlers")
def test_a_terminal_shows_one_line(app: Flask) -> None:
    """On a terminal the line that says what the worker does is written anew."""
    executor = Executor(app)
    work = executor.job(lambda: 1 // 0, name="work")  # type: ignore[call-overload]
    app.config["EXECUTOR_STORE_RUN"] = False
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    with app.app_context():
        future = work.using(guarantee="at_least_once").submit()
        terminal = Terminal("0 succeeded, 1 failed")
        assert Worker(executor._states[app].dispatcher, "press", terminal).run() == 0
        assert isinstance(future.exception(0), ZeroDivisionError)
    shown = terminal.getvalue()
    assert shown.startswith("\r\x1b[Kpress starts: 0 of 2 busy, 0 waiting here, ")
    assert "\rpress: 0 of 2 busy, 0 waiting here, 0 succeeded, 1 failed\x1b[K" in shown
    assert shown.endswith(
        "\r\x1b[Kpress ends: 0 of 2 busy, 0 waiting here, 0 succeeded, 1 failed\n"
    )


def test_the_unit_of_the_docs() -> None:
    """Its command is one, and it stops later than tasks have time to drain."""
    page = (ROOT / "docs/howto/worker.rst").read_text()
    (line,) = re.findall(r"^    ExecStart=\S+/bin/flask (.+)$", page, re.MULTILINE)
    app, *words = line.removeprefix("--app ").split()
    assert app == "shop"
    assert words[:2] == ["executor", "worker"]
    command = group.get_command(click.Context(group), "worker")
    assert command is not None
    found = command.make_context("worker", words[2:])
    assert found.params["shown"] == "%i"
    (drain,) = re.findall(r'"EXECUTOR_DRAIN_TIMEOUT"\] = (\d+)', page)
    (stop,) = re.findall(r"TimeoutStopSec=(\d+)", page)
    assert int(drain) < int(stop)
