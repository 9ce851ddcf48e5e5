"""The end of a process that shares a store: quick, and never stopped by a database."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import databases
import pytest
from limits import LIMIT
from scripts import environment, problems

from flask_executor.stores.sql import SqlStore

HEAD = """
import os
import sys
import threading
import time

from flask import Flask
from flask_executor import Executor

app = Flask("script")
app.config.update(SECRET_KEY="tests", EXECUTOR_STORE_LEASE=5, EXECUTOR_MAX_WORKERS=1)
app.config.from_prefixed_env("SHARED")
executor = Executor(app)
began = threading.Event()


def say(*words):
    print(*words, flush=True)


@executor.job(name="read")
def read():
    "Run until the test writes a line."
    say("began")
    began.set()
    sys.stdin.readline()


@executor.job(name="add")
def add(x, y):
    return x + y


app.app_context().push()
"""


class Script:
    """A script that runs, and what it says."""

    def __init__(self, folder: Path, url: str, body: str) -> None:
        path = folder / "script.py"
        path.write_text(HEAD + body)
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            env=environment(SHARED_EXECUTOR_STORE=url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, line: str) -> None:
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if said.strip() == line:
                return
        raise AssertionError(self.process.communicate(timeout=LIMIT)[1])

    def go_on(self) -> tuple[float, str]:
        """Write a line; return how long the end took, and what was wrong."""
        start = time.monotonic()
        _, errors = self.process.communicate("\n", timeout=LIMIT)
        return time.monotonic() - start, problems(errors)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tasks.db'}"


@pytest.fixture
def postgresql() -> t.Iterator[databases.Server]:
    server = databases.Server()
    yield server
    server.remove()


KEYED = """
future = executor.submit_stored("a", pow, 2, 3)
add.using(guarantee="at_least_once").submit(1, 2).result()
assert future.result() == 8
say("over")
sys.stdin.readline()
"""
BARE = """
import sqlalchemy
say("over")
sys.stdin.readline()
"""


def test_a_script_ends_at_once(tmp_path: Path, url: str) -> None:
    """With a store, the end of a script takes a fraction of a second longer."""
    took: dict[str, list[float]] = {BARE: [], KEYED: []}
    for body in (BARE, KEYED) * 3:  # the fastest counts: machines are busy
        with Script(
            tmp_path, url, body.replace('"a"', repr(len(took[body])))
        ) as script:
            script.until("over")
            seconds, errors = script.go_on()
            took[body].append(seconds)
            assert (script.process.returncode, errors) == (0, "")
        longer = min(took[KEYED], default=LIMIT) - min(took[BARE])
        if longer < 1:
            break
    assert longer < 1
    with contextlib.closing(SqlStore(url)) as store:
        assert store.workers() == []
        assert store.workers(alive=False)[0].state == "left"
    assert not (tmp_path / "tasks.db-wal").exists()


def test_a_script_runs_its_own_tasks(tmp_path: Path, url: str) -> None:
    """A process that serves nothing runs what it has accepted before it ends."""
    body = """
read.using(key="read", guarantee="at_least_once").submit()
add.using(key="add", guarantee="at_least_once").submit(1, 2)
"""
    with Script(tmp_path, url, body) as script:
        script.until("began")
        assert script.go_on()[1] == ""
    with contextlib.closing(SqlStore(url)) as store:
        found = store.get_many("key", ["s:read", "s:add"])
        assert [one.state for one in found] == ["succeeded"] * 2


RUNS = """
read.using(key="read", guarantee="at_least_once").submit()
began.wait()
"""


@pytest.mark.holds("g-store-end")
def test_a_database_that_has_gone(tmp_path: Path, postgresql: databases.Server) -> None:
    """If the database has gone before the last task ends, the process ends within
    seconds, and says what could not be written.
    """
    with Script(tmp_path, postgresql.url, RUNS) as script:
        script.until("began")
        postgresql.stop()
        took, errors = script.go_on()
        assert (
            took < 25
        )  # Python 3.12.1 has no more threads for it then: one after another
        assert script.process.returncode == 0
    assert "Task read (key 'read') has ended as succeeded, which could not" in errors
    assert "could not end its lease" in errors
    assert "Traceback" not in errors


@pytest.mark.holds("g-store-end")
def test_a_database_that_does_not_answer(tmp_path: Path, url: str) -> None:
    """If another process that was stopped has the turn to write, the same holds."""
    with Script(tmp_path, url, RUNS) as script:
        script.until("began")
        with open(tmp_path / "tasks.db-turn") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            took, errors = script.go_on()
        assert (
            took < 25
        )  # Python 3.12.1 has no more threads for it then: one after another
        assert script.process.returncode == 0
    assert "Task read (key 'read') has ended as succeeded, which could not" in errors
    assert "could not write all that it has to write" in errors
    assert "could not end its lease: the database does not answer" in errors
    assert "Traceback" not in errors


def test_ctrl_c_twice(tmp_path: Path, url: str) -> None:
    """The second Ctrl-C ends the process at once; others run again what it had."""
    with Script(tmp_path, url, RUNS) as script:
        script.until("began")
        assert script.process.stderr is not None
        said = script.process.stderr.readline()
        assert "Press Ctrl-C again to abandon" in said
        script.process.send_signal(signal.SIGINT)
        assert script.process.wait(LIMIT) == 130
        assert "abandons 1 task: read (key 'read')" in script.process.stderr.read()
    with contextlib.closing(SqlStore(url)) as store:
        deadline = time.monotonic() + LIMIT
        while not store.reap(3).orphans:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        record = store.get("key", "s:read")
        assert record is not None
        assert (record.state, record.lost) == ("waiting", 1)
