"""Tasks that are submitted in a transaction of the app: with it, or not at all."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from limits import LIMIT
from processes import NewProcess, Process, until
from scripts import SUPPORT, environment
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorShutDown,
    InvalidOption,
    NotUnique,
    SessionRefused,
    StoreLocked,
    UnsupportedOption,
    task_submitted,
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "app_order"
    id: Mapped[int] = mapped_column(primary_key=True)


class Shop:
    """An app with an executor and a Flask-SQLAlchemy on one database."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.app: Flask = process.app
        self.executor: Executor = process.executor
        self.app.config["SQLALCHEMY_DATABASE_URI"] = url
        self.app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": NullPool}
        self.db = SQLAlchemy(model_class=Base)
        self.db.init_app(self.app)
        with self.app.app_context():
            self.db.drop_all()
            self.db.create_all()
        self.seen: list[t.Any] = []
        self.send = process.job(self._send, name="send")

    def _send(self, number: int) -> int:
        orders = self.db.session.scalar(text("SELECT COUNT(*) FROM app_order"))
        self.seen.append((number, orders))
        return number

    @property
    def session(self) -> t.Any:
        return self.db.session

    def submit(self, number: int = 1, **options: t.Any) -> t.Any:
        options = {"session": self.db.session} | options
        return self.send.using(**options).submit(number)

    def is_saved(self, future: t.Any) -> bool:
        return self.process.record(future) is not None


@pytest.fixture
def shop(process: NewProcess, url: str) -> Shop:
    return Shop(process(), url)


def test_committed_it_runs(shop: Shop) -> None:
    """The task runs after the commit, and sees what was committed with it."""
    with shop.app.app_context():
        shop.session.add(Order(id=1))
        future = shop.submit(7)
        assert not future.done() and future.task.state == "waiting"
        assert not shop.is_saved(future)
        shop.session.commit()
        assert future.result(LIMIT) == 7
    assert shop.seen == [(7, 1)]
    assert shop.process.record(future).state == "succeeded"


@pytest.mark.parametrize("end", ["rollback", "close", "remove"])
def test_rolled_back_nothing_runs(shop: Shop, end: str) -> None:
    """Without a commit there is no task, and its future is cancelled."""
    called: list[t.Any] = []
    with shop.app.app_context():
        shop.session.add(Order(id=1))
        future = shop.submit()
        future.add_done_callback(called.append)
        getattr(shop.session, end)()
        assert until(future.cancelled)
    assert until(lambda: called) == [future]
    assert future.task.state == "cancelled" and future.task.finished_at is not None
    assert not shop.is_saved(future) and shop.seen == []


def test_a_commit_submits(shop: Shop) -> None:
    """The signal comes when the task is there: after a commit, and for no rollback."""
    seen = []

    def note(sender: object, **what: t.Any) -> None:
        seen.append(what["task"].id)

    with shop.app.app_context(), task_submitted.connected_to(note):
        shop.session.add(Order(id=1))
        undone = shop.submit()
        shop.session.rollback()
        assert until(undone.cancelled)
        shop.session.add(Order(id=1))
        future = shop.submit()
        shop.session.commit()
        future.result(LIMIT)
        until(lambda: seen)
    assert seen == [future.task.id]


def test_the_end_of_a_request_rolls_back(shop: Shop) -> None:
    """Flask-SQLAlchemy removes its session after a view, and so the task."""
    futures = []

    @shop.app.post("/<int:commits>")
    def view(commits: int) -> str:
        shop.session.add(Order(id=1))
        futures.append(shop.submit(commits))
        if commits:
            shop.session.commit()
        return "ok"

    client = shop.app.test_client()
    assert client.post("/0").text == "ok" and client.post("/1").text == "ok"
    assert futures[1].result(LIMIT) == 1
    assert until(futures[0].cancelled)
    assert shop.seen == [(1, 1)]


def test_a_plain_session(shop: Shop, url: str) -> None:
    """Any Session of SQLAlchemy on that database will do, committed or not."""
    engine = create_engine(url, poolclass=NullPool)
    with Session(engine) as session:
        session.add(Order(id=1))
        first = shop.submit(1, session=session)
        session.commit()
        second = shop.submit(2, session=session)
        session.rollback()
        third = shop.submit(3, session=session)
        session.commit()
        fourth = shop.submit(4, session=session)
    assert (first.result(LIMIT), third.result(LIMIT)) == (1, 3)
    assert until(second.cancelled) and until(fourth.cancelled)
    assert sorted(shop.seen) == [(1, 1), (3, 1)]


def test_a_session_that_is_dropped(shop: Shop, url: str) -> None:
    """A session that nobody closes ends when it is collected."""
    session = Session(create_engine(url, poolclass=NullPool))
    future = shop.submit(1, session=session)
    del session
    gc.collect()
    assert until(future.cancelled)


def test_savepoints(shop: Shop) -> None:
    """What a savepoint rolls back does not run; the rest does, after the commit."""
    with shop.app.app_context():
        with shop.session.begin_nested():
            kept = shop.submit(1)
        nested = shop.session.begin_nested()
        dropped = shop.submit(2)
        nested.rollback()
        last = shop.submit(3)
        assert not any(one.done() for one in (kept, dropped, last))
        shop.session.commit()
        assert (kept.result(LIMIT), last.result(LIMIT)) == (1, 3)
        assert until(dropped.cancelled)
    assert sorted(number for number, _ in shop.seen) == [1, 3]


@pytest.mark.parametrize("commits", [True, False])
def test_a_session_within_a_transaction(shop: Shop, url: str, commits: bool) -> None:
    """If the session is part of an outer transaction, only the end of that counts."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="rollback_only") as session:
            future = shop.submit(5, session=session)
            session.commit()
        shop.process.node.committing.settle()
        assert not future.done() and not shop.is_saved(future)
        if commits:
            outer.commit()
        else:
            outer.rollback()
    if commits:
        assert future.result(LIMIT) == 5
    else:
        assert until(future.cancelled)


def test_before_the_commit_it_cannot_be_cancelled(shop: Shop) -> None:
    """Only a rollback undoes it; after the commit it is cancelled as any other."""
    with shop.app.app_context():
        future = shop.submit(delay=3600)
        assert future.task.state == "delayed"
        assert not future.cancel() and not future.request_cancel()
        shop.session.commit()
        until(lambda: shop.is_saved(future))
        assert until(future.cancel)
    assert shop.process.record(future).state == "cancelled"


def test_keys_and_unique_values(shop: Shop) -> None:
    """They belong to the transaction too: taken if it commits, free if it does not."""
    with shop.app.app_context():
        first = shop.submit(1, key="k", unique="u", delay=3600)
        with pytest.raises(DuplicateKey):
            shop.submit(2, key="k")
        with pytest.raises(NotUnique):
            shop.submit(2, unique="u")
        assert shop.submit(2, unique="u", on_taken="return") is first
        shop.session.rollback()
        assert until(first.cancelled) and "k" not in shop.executor.futures
        second = shop.submit(2, key="k", unique="u", delay=3600)
        shop.session.commit()
        until(lambda: "k" in shop.executor.futures)
        assert shop.submit(3, unique="u", on_taken="return") is second
        shop.submit(3, unique="u", on_taken="replace", delay=3600)
        shop.session.rollback()
        assert until(lambda: shop.process.record(second)).state == "delayed"
        third = shop.submit(3, unique="u", on_taken="replace")
        shop.session.commit()
        assert third.result(LIMIT) == 3 and until(second.cancelled)


def test_others_run_it(process: NewProcess, url: str) -> None:
    """A process that runs no saved tasks leaves it to those that do."""
    shop = Shop(process(EXECUTOR_STORE_RUN=False), url)
    other = process().serve()
    job = other.job(lambda number: -number, name="send")
    with shop.app.app_context():
        future = shop.submit(5)
        shop.session.commit()
    assert future.result(LIMIT) == -5 == job(5)


def test_a_job_that_is_always_submitted_on_commit(shop: Shop) -> None:
    """session can be an option of a job."""
    job = shop.process.job(lambda: 1, name="always", session=shop.session)
    with shop.app.app_context():
        future = job.submit()
        shop.session.rollback()
        assert until(future.cancelled)
        future = job.submit()
        shop.session.commit()
        assert future.result(LIMIT) == 1
        assert future.task.options.session is None  # which would keep it alive


# What is refused


def test_another_database(shop: Shop, tmp_path: Path) -> None:
    """A session of another database is refused, with both."""
    engine = create_engine(f"sqlite:///{tmp_path / 'other.db'}", poolclass=NullPool)
    with Session(engine) as session, pytest.raises(SessionRefused) as info:
        shop.submit(session=session)
    assert "other.db" in str(info.value)
    assert shop.process.store.database.shown in str(info.value)
    memory = create_engine("sqlite://")
    with Session(memory) as session, pytest.raises(SessionRefused):
        shop.submit(session=session)


def test_what_needs_a_guarantee(shop: Shop) -> None:
    """A task without a guarantee ends with its process, whatever is committed."""
    with (
        shop.app.app_context(),
        pytest.raises(UnsupportedOption, match="session is not supported by a task w"),
    ):
        shop.executor.using(session=shop.session).submit(print)


@pytest.mark.parametrize("value", [3, "db.session", object()])
def test_what_is_no_session(shop: Shop, value: t.Any) -> None:
    """What is not a session of SQLAlchemy is refused where it is written."""
    with pytest.raises(InvalidOption, match=r"Session or scoped_session of SQLAlchemy"):
        shop.executor.using(session=value)


def test_without_a_store(app: Flask, executor: Executor) -> None:
    """Without a store a session is refused where it is written."""
    with pytest.raises(UnsupportedOption, match=r"session .*set EXECUTOR_STORE"):
        executor.using(session=Session())


def test_in_tests_it_runs_at_once(app: Flask) -> None:
    """With 'sync' the call runs in the caller's session, which has not committed."""
    app.config["EXECUTOR_TYPE"] = "sync"
    with Executor(app) as executor:
        assert executor.using(session=Session()).submit(abs, -1).result() == 1


def test_after_shutdown(shop: Shop) -> None:
    """An executor that was shut down saves nothing."""
    shop.executor.shutdown()
    with shop.app.app_context(), pytest.raises(ExecutorShutDown, match="_send"):
        shop.submit()


# SQLite has one writer


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_submit_that_would_wait_for_itself(shop: Shop) -> None:
    """A submit without session= in a transaction that writes says what to do."""
    with shop.app.app_context():
        assert shop.session.query(Order).count() == 0  # reads only
        assert shop.send.submit(1).result(LIMIT) == 1
        shop.session.add(Order(id=1))
        shop.session.flush()
        for submit in (
            lambda: shop.send.submit(2),
            lambda: shop.executor.submit_stored("k", print),
        ):
            with pytest.raises(StoreLocked, match=r"session=db\.session") as info:
                submit()
            assert "tasks.db" in str(info.value)
        assert shop.executor.submit(abs, -1).result(LIMIT) == 1
        future = shop.submit(3)
        shop.session.commit()
        assert shop.send.submit(4).result(LIMIT) == 4
        assert future.result(LIMIT) == 3


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_first_use_in_a_transaction(process: NewProcess, tmp_path: Path) -> None:
    """The tables are made within the transaction if it has the only lock."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    shop = Shop(process(EXECUTOR_STORE=url), url)
    with shop.app.app_context():
        shop.session.add(Order(id=1))
        shop.session.flush()
        future = shop.submit(1)
        shop.session.commit()
        assert future.result(LIMIT) == 1
    assert shop.seen == [(1, 1)]


# Kills


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_the_commit(
    process: NewProcess, url: str, tmp_path: Path, when: str
) -> None:
    """Killed right after the commit, it runs elsewhere; killed before, never."""
    shop = Shop(process(), url)
    command = [sys.executable, str(SUPPORT / "commit_app.py"), url, when]
    killed = subprocess.run(
        command, env=environment(), timeout=2 * LIMIT, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "submitted" in killed.stdout
    saved = shop.process.store.tasks()
    if when == "before":
        assert saved == []
        return
    assert [one.state for one in saved] == ["waiting"] and saved[0].owner is None
    shop.process.serve()
    until(lambda: shop.seen == [(9, 1)])
