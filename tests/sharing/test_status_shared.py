"""The status of saved tasks: every process that shares the store answers the same."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import tracemalloc
import typing as t
from pathlib import Path

import pytest
from limits import LIMIT
from processes import NewProcess, Process, declare, until
from sqlalchemy import text
from sqlalchemy.orm import Session
from status import (
    EVENTS,
    HTMX,
    PAGE,
    THREADS,
    Held,
    NoMoney,
    Short,
    events_in,
    held,
    site,
)
from test_store_away import Outage, outage

from flask_executor.store_errors import StoreUnavailable
from flask_executor.web.status import tokens

__all__ = ["held", "outage"]

Both = tuple[Process, Process]


@pytest.fixture
def both(process: NewProcess) -> Both:
    """A process that claims tasks, and one that only submits."""
    return process().serve(), process(EXECUTOR_STORE_RUN=False)


def serve(both: Both, **options: t.Any) -> None:
    """Register the same API in both processes."""
    for process in both:
        site(process.executor, process.app, owner=lambda: "me", **options)


def accepted(process: Process, submit: t.Callable[[], t.Any]) -> t.Any:
    process.app.extensions["calls"].append(submit)
    return process.app.test_client().post("/start")


def get(process: Process, url: str, **options: t.Any) -> t.Any:
    return process.app.test_client().get(url, **options)


def state_in(process: Process, url: str) -> str:
    found = get(process, url)
    assert found.status_code == 200
    return str(found.json["state"])


def run(process: Process, url: str) -> None:
    """Wait until the task has ended."""
    until(lambda: get(process, url).json["done"])


def test_every_process_answers(both: Both, held: Held) -> None:
    """What one process has accepted, the other shows, streams and cancels; the end is
    the same everywhere.
    """
    one, other = both
    serve(both)
    jobs = [declare(process, held) for process in both]
    url = accepted(other, lambda: jobs[1].submit()).location
    assert held.began.wait(LIMIT)
    until(lambda: {state_in(process, url) for process in both} == {"running"})
    for headers in (HTMX, PAGE):
        assert "Running" in get(one, url, headers=headers).text
    stream = get(other, url, headers=EVENTS, environ_overrides=THREADS, buffered=False)
    chunks = (chunk.decode() for chunk in stream.iter_encoded())
    assert events_in(next(chunks))[0]["state"] == "running"
    found = other.app.test_client().delete(url)
    assert (found.status_code, found.json["cancel_requested"]) == (202, True)
    held.gate.set()
    *_, last = [found for chunk in chunks for found in events_in(chunk)]
    assert last["state"] == "succeeded"
    stream.close()
    assert get(one, url).json == get(other, url).json == last
    assert one.app.test_client().delete(url).status_code == 409


def test_cancel_what_waits(both: Both) -> None:
    """Any process cancels at once what has not begun."""
    one, other = both
    serve(both)
    jobs = [declare(process, int) for process in both]
    url = accepted(other, lambda: jobs[1].using(delay=600).submit()).location
    found = one.app.test_client().delete(url)
    assert (found.status_code, found.json["state"]) == (200, "cancelled")
    assert state_in(other, url) == "cancelled"


def test_results_are_read_where_they_are_wanted(both: Both) -> None:
    """``result`` gets what the task returned elsewhere; ``Prefer: wait`` waits."""
    _, other = both
    serve(both, result=lambda found: f"/files/{found}")
    jobs = [declare(process, abs) for process in both]
    url = accepted(other, lambda: jobs[1].submit(-7)).location
    for process in both:
        waiting = {"headers": {"Prefer": "wait=20"}, "environ_overrides": THREADS}
        found = get(process, url, **waiting).json
        assert (found["state"], found["result"]) == ("succeeded", "/files/7")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (NoMoney, "Your card was refused."),
        (Short, "You need 7 more."),
        (ValueError, "The task failed."),
    ],
)
def test_public_messages(both: Both, kind: type[Exception], said: str) -> None:
    """A failure elsewhere says what its class allows, and nothing else."""

    def fail() -> None:
        raise kind(7)

    _, other = both
    serve(both)
    jobs = [declare(process, fail) for process in both]
    url = accepted(other, lambda: jobs[1].submit()).location
    run(other, url)
    for process in both:
        found = get(process, url).json
        assert (found["state"], found["error"]) == ("failed", said)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[t.Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("shows_results", [False, True])
def test_nothing_forged_is_unpickled(
    both: Both,
    tmp_path: Path,
    shows_results: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A result that somebody put into the database, and that would write a file, is
    loaded by nobody: without ``result`` it is not read, with it its signature is wrong.
    """
    one, other = both
    serve(both, **({"result": str} if shows_results else {}))
    jobs = [declare(process, int) for process in both]
    url = accepted(other, lambda: jobs[1].submit()).location
    run(other, url)
    bomb = tmp_path / "bomb"
    forge(one.store, pickle.dumps(Bomb(bomb)))
    for process in both:
        for headers in ({}, HTMX, PAGE):
            found = get(process, url, headers=headers)
            assert found.status_code == 200
        assert state_in(process, url) == "succeeded"
        assert not get(process, url).json.get("result")
    assert not bomb.exists()
    assert ("is not shown" in caplog.text) is shows_results
    pickle.loads(pickle.dumps(Bomb(bomb)))
    assert bomb.exists()  # so it would have


def forge(store: t.Any, data: bytes) -> None:
    """Replace the result of every task."""
    statement = text("UPDATE executor_result SET data = :data")
    with store.database.transaction() as db:
        assert db.execute(statement, {"data": data}).rowcount == 1


def test_a_large_result_is_not_read(process: NewProcess) -> None:
    """The status of a task whose saved result has 50 MB reads nothing of it."""
    one = process(EXECUTOR_STORE_MAX_BYTES=60_000_000)
    site(one.executor, one.app, owner=lambda: "me")
    job = declare(one, bytes)
    url = accepted(one, lambda: job.submit(50_000_000)).location
    run(one, url)
    gc.collect()
    tracemalloc.start()
    found = get(one, url)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.json["state"], len(found.data) < 1000) == ("succeeded", True)
    assert peak < 5_000_000


def test_gone_from_the_store(both: Both) -> None:
    """What the store has forgotten is 410 in every process."""
    _, other = both
    serve(both)
    jobs = [declare(process, int) for process in both]
    url = accepted(other, lambda: jobs[1].submit()).location
    run(other, url)
    with other.store.database.transaction() as db:
        db.exec_driver_sql("DELETE FROM executor_task")
    until(lambda: {get(process, url).status_code for process in both} == {410})


def test_what_is_not_saved(
    both: Both,
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A task without a guarantee or a key is known to its process; another one says 503
    and logs once what to do.
    """
    one, other = both
    serve(both)
    url = accepted(other, lambda: other.executor.submit(held)).location
    assert held.began.wait(LIMIT)
    assert state_in(other, url) == "running"
    monkeypatch.setattr(tokens, "_ids", {})  # as in another process
    with caplog.at_level(logging.WARNING):
        assert [get(one, url).status_code for _ in range(2)] == [503, 503]
    assert len(caplog.records) == 1
    assert "not in the store (EXECUTOR_STORE)" in caplog.text
    assert "Give its job a guarantee" in caplog.text


def test_the_store_goes_away(both: Both, held: Held, outage: Outage) -> None:
    """While the database is away a poll gets 503 and when to come back, and an open
    stream ends; afterwards the answers are there again.
    """
    _, other = both
    serve(both)
    jobs = [declare(process, held) for process in both]
    url = accepted(other, lambda: jobs[1].submit()).location
    assert held.began.wait(LIMIT)
    stream = get(other, url, headers=EVENTS, environ_overrides=THREADS, buffered=False)
    chunks = stream.iter_encoded()
    next(chunks)
    with _Away(other, outage):
        found = get(other, url)
        assert (found.status_code, found.headers["Retry-After"]) == (503, "5")
        assert found.json["detail"] == "Its state is not known at the moment."
        assert get(other, url, headers=PAGE).status_code == 503
        assert get(other, url, headers=EVENTS).text.startswith("retry: 5000\n")
        assert other.app.test_client().delete(url).status_code == 503
        assert [*chunks] == []
        stream.close()
    assert until(lambda: get(other, url).status_code == 200)
    held.gate.set()
    run(other, url)


class _Away:
    """The database is away for the reads of one process.

    PostgreSQL is stopped. SQLite answers reads while others write, so its reads fail by
    hand.
    """

    def __init__(self, process: Process, outage: Outage) -> None:
        self._process = process
        self._outage = outage
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        if self._outage.server is not None:
            self._outage.begin()
            return

        def fail(*args: t.Any) -> t.NoReturn:
            raise StoreUnavailable("tasks.db", "it cannot be read")

        self._patch.setattr(type(self._process.node), "find", fail)

    def __exit__(self, *exc: object) -> None:
        self._patch.undo()
        self._outage.end()


def test_a_task_of_a_transaction(process: NewProcess) -> None:
    """What is submitted on commit has its URL before, and a status after the commit."""
    one = process()
    site(one.executor, one.app, owner=lambda: "me")
    job = declare(one, int)
    with Session(one.store.database.engine) as open_one:
        url = accepted(one, lambda: job.using(session=open_one).submit()).location
        open_one.commit()
    run(one, url)
    assert state_in(one, url) == "succeeded"


def test_sessions_are_shared(both: Both) -> None:
    """With the default owner the cookie of one process counts in the other."""
    one, other = both
    for process in both:
        site(process.executor, process.app)
    jobs = [declare(process, int) for process in both]
    other.app.extensions["calls"].append(lambda: jobs[1].submit())
    client = other.app.test_client()
    url = client.post("/start").location
    with client.session_transaction() as known:
        owner = known["executor_owner"]
    assert get(one, url).status_code == 404
    mine = one.app.test_client()
    with mine.session_transaction() as changed:
        changed["executor_owner"] = owner
    assert mine.get(url).status_code == 200
