"""The database goes away while tasks run, and comes back."""

from __future__ import annotations

import sqlite3
import threading
import time
import typing as t

import pytest
from databases import Server
from limits import LIMIT
from processes import NewProcess, Process, reached, until

from flask_executor.sharing import futures, leaving
from flask_executor.store_errors import StoreUnavailable
from flask_executor.stores.sql import database

QUICK = 0.3


class Outage:
    """Takes the database away, and gives it back."""

    def __init__(self, url: str, server: Server | None) -> None:
        self.server = server
        self._file = url.removeprefix("sqlite:///")
        self._lock: sqlite3.Connection | None = None
        self.is_on = False

    def begin(self) -> None:
        self.is_on = True
        if self.server is not None:
            self.server.stop()
        else:
            self._lock = sqlite3.connect(self._file, timeout=LIMIT)
            self._lock.isolation_level = None
            self._lock.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        if self.is_on and self.server is not None:
            self.server.start()
        elif self._lock is not None:
            self._lock.close()
        self.is_on = False


@pytest.fixture
def outage(
    request: pytest.FixtureRequest, url: str, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[Outage]:
    monkeypatch.setattr(database, "PATIENCE", QUICK)
    monkeypatch.setattr(leaving, "_PATIENCE", QUICK)
    is_sqlite = url.startswith("sqlite")
    server = None if is_sqlite else request.getfixturevalue("server")
    outage = Outage(url, server)
    yield outage
    outage.end()


@pytest.fixture
def one(outage: Outage, process: NewProcess) -> Process:
    return process(EXECUTOR_MAX_WORKERS=4).serve()


@pytest.fixture
def gates(one: Process) -> t.Iterator[dict[str, threading.Event]]:
    gates = {name: threading.Event() for name in ("key", "once", "again")}
    yield gates
    for gate in gates.values():
        gate.set()


def test_what_goes_on_while_the_database_is_away(
    one: Process, outage: Outage, gates: dict[str, threading.Event]
) -> None:
    """Ephemeral work goes on, saved work waits, and nothing is lost or repeated."""
    ran: list[str] = []

    def work(name: str) -> str:
        ran.append(name)
        reached(gates[name])
        return name

    once = one.job(work, name="once", guarantee="at_most_once")
    again = one.job(work, name="again")
    keyed = one.executor.submit_stored("key", work, "key")
    saved = [once.submit("once"), again.submit("again")]
    until(lambda: len(ran) == 3)
    outage.begin()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        again.submit("again")
    with pytest.raises(StoreUnavailable):
        once.submit("once")
    if outage.server is not None:  # of a file that is locked, one can read
        with pytest.raises(StoreUnavailable):
            one.futures.done("key")
        with pytest.raises(StoreUnavailable):
            assert "key" in one.futures
    assert one.executor.submit(int).result(LIMIT) == 0
    other = one.executor.submit_stored("while away", int)
    assert other.result(LIMIT) == 0
    with pytest.raises((StoreUnavailable, ValueError)):
        one.futures.add("while away", other)
    assert time.monotonic() - began < 20
    for gate in gates.values():
        gate.set()
    assert keyed.result(LIMIT) == "key"
    until(lambda: not one.node.dispatcher.table.running)
    assert not any(future.done() for future in saved)
    outage.end()
    assert [future.result(LIMIT) for future in saved] == ["once", "again"]
    assert sorted(ran) == ["again", "key", "once"]
    until(lambda: one.store.counts()["succeeded"] == 3)
    assert one.futures["key"].task.state == "succeeded"
    assert again.submit("again").result(LIMIT) == "again"


def test_a_cancellation_waits_only_for_a_while(
    process: NewProcess, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cancelled never runs; that it was is written when that is possible."""
    monkeypatch.setattr(futures, "_PATIENCE", QUICK)
    one = process(EXECUTOR_MAX_WORKERS=1)  # a script keeps what it submits
    gate, ran = threading.Event(), threading.Event()
    one.executor.submit(reached, gate)
    future = one.job(ran.set).submit()
    outage.begin()
    assert future.cancel()
    assert not future.done()
    gate.set()
    outage.end()
    until(future.cancelled)
    until(lambda: one.record(future).state == "cancelled")
    assert not ran.is_set()


def test_an_ephemeral_end_does_not_wait(one: Process, outage: Outage) -> None:
    """A keyed task ends although its end cannot be written, and holds up no lease."""
    gate, ended_on = threading.Event(), []
    keyed = one.executor.submit_stored("key", reached, gate)
    keyed.add_done_callback(
        lambda future: ended_on.append(threading.current_thread().name)
    )
    until(keyed.running)
    outage.begin()
    gate.set()
    keyed.result(LIMIT)
    [name] = until(lambda: ended_on)
    assert not name.endswith("_lease")


def test_at_most_once_waits_for_the_database(
    one: Process, outage: Outage, gate: threading.Event
) -> None:
    """What has not begun does not begin while the database is away, but after it."""
    fill = [one.executor.submit(reached, gate) for _ in range(4)]
    ran: list[int] = []
    job = one.job(lambda: ran.append(1), guarantee="at_most_once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one.node.holding, "room", lambda: 1)
        future = job.submit()
    outage.begin()
    gate.set()
    for other in fill:
        other.result(LIMIT)
    until(lambda: future.task._timer)
    assert not ran
    outage.end()
    future.result(LIMIT)
    assert ran == [1]
    assert one.record(future).attempt == 1


def test_what_was_followed_is_told_later(
    one: Process, outage: Outage, process: NewProcess, gate: threading.Event
) -> None:
    """A future of a task elsewhere ends after the database has come back."""
    other = process(EXECUTOR_STORE_RUN=False)
    one.job(lambda: reached(gate) or 7)
    future = other.job(lambda: 8).submit()
    until(future.running)
    outage.begin()
    gate.set()
    with pytest.raises(TimeoutError):
        future.result(0.2)
    outage.end()
    assert future.result(LIMIT) == 7


def test_a_drain_while_the_database_is_away(
    one: Process, outage: Outage, gate: threading.Event
) -> None:
    """It ends in seconds, whatever was running."""
    job = one.job(lambda: reached(gate))
    future = job.submit()
    until(future.running)
    outage.begin()
    gate.set()
    began = time.monotonic()
    one.executor.drain(30)
    one.node.leaving.close()
    assert time.monotonic() - began < 15
