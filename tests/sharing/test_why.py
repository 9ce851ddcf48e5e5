"""Why a task does not run: asked in the process that has it, and in another one."""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t
from os import getpid

import pytest
from databases import free_port
from processes import NewProcess, Process, declare, paused_in, reached, until
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from flask_executor import Reason, Retry, StoreUnavailable, UnknownTask
from flask_executor.stores.records import NewTask
from flask_executor.stores.sql.database import Database

Gate = threading.Event
HERE = f"{socket.gethostname()}:{getpid()}"


def why(process: Process, future: t.Any) -> Reason:
    return process.executor.why(future.task.id)


def fill(process: Process, gate: Gate) -> None:
    """Keep both workers of a process busy."""
    began = [Gate(), Gate()]
    for one in began:
        process.executor.using(name="long").submit(hold, one, gate)
    for one in began:
        reached(one)


def hold(began: Gate, gate: Gate) -> None:
    began.set()
    gate.wait(30)


def insert(process: Process, **facts: t.Any) -> str:
    """Insert a task by hand; return its id."""
    task = {"uid": "by-hand", "name": "n", "guarantee": "at_least_once"} | facts
    process.store.wait(process.store.insert([NewTask(**t.cast(t.Any, task))]))
    return "by-hand"


def test_what_runs_and_what_has_ended_says_so(
    one: Process, other: Process, gate: Gate
) -> None:
    """With the process that runs it, and the class of an error, but not its text."""
    began = Gate()

    def work() -> None:
        hold(began, gate)
        raise KeyError("secret")

    future = declare(one, work).submit()
    reached(began)
    assert str(why(one, future)) == "It runs."
    until(lambda: one.record(future).state == "running")
    assert str(why(other, future)) == f"It runs in process {HERE}."
    one.executor.cancel(future.task.id)
    assert why(one, future).code == "stopping"
    gate.set()
    for process in (one, other):
        until(lambda here=process: why(here, future).code == "ended")
        reason = why(process, future)
        assert reason.facts["state"] == "failed"
        assert "KeyError" in str(reason)
        assert "secret" not in str(reason)


def test_what_waits_for_its_time_says_how_long(one: Process, other: Process) -> None:
    """After a delay, and after an attempt that has failed."""
    job = declare(one, lambda: 1 // 0)
    delayed = job.using(delay=600).submit()
    retried = job.using(retry=Retry(attempts=3, delay=200, jitter=0)).submit()
    until(lambda: one.record(retried).state == "retrying")
    for process in (one, other):
        reason = why(process, delayed)
        assert reason.code == "delayed"
        assert 590 < reason.facts["seconds"] <= 600
        reason = why(process, retried)
        assert (reason.code, reason.facts["attempt"]) == ("retrying", 2)
        assert 190 < reason.facts["seconds"] <= 200


def test_a_busy_pool_is_named(one: Process, gate: Gate) -> None:
    """In its own process at once, with what runs."""
    fill(one, gate)
    reason = why(one, one.executor.submit_stored("e", int))
    assert str(reason) == "Both workers are busy with long, long."
    assert reason.facts["slots"] == 2


def test_the_busy_process_is_named_elsewhere(process: NewProcess, gate: Gate) -> None:
    """As it was when it last renewed its lease."""
    one, other = process(EXECUTOR_STORE_LEASE=1.0).serve(), process()
    fill(one, gate)
    future = one.executor.submit_stored("e", int)
    reason = until(lambda: (r := why(other, future)).code == "busy" and r)
    assert reason.facts["process"] == HERE
    assert str(reason).startswith(f"Both workers in process {HERE} are busy")


def test_what_nobody_has_claimed_waits_for_the_pools(
    process: NewProcess, gate: Gate
) -> None:
    """With the number of those that come first."""
    one = process(EXECUTOR_STORE_LEASE=1.0).serve()
    other = process(EXECUTOR_STORE_RUN=False)
    began = [Gate(), Gate()]

    def work(number: int) -> None:
        began[number].set()
        gate.wait(30)

    declare(one, work)
    job = declare(other, work)
    futures = [job.submit(number) for number in range(2)]
    for each in began:
        reached(each)
    futures += [job.submit(0), job.submit(1)]
    reason = until(lambda: (r := why(other, futures[3])).code == "busy" and r)
    assert (reason.facts["ahead"], reason.facts["with"]) == (1, ["job", "job"])
    assert str(reason) == "Both workers are busy with job, job; 1 task comes first."
    gate.set()
    for future in futures:
        future.result(30)


def test_a_full_limit_names_who_holds_it(process: NewProcess, gate: Gate) -> None:
    """``max_concurrency``: in its process by what runs, elsewhere by its job."""
    one, other = process(EXECUTOR_STORE_LEASE=1.0).serve(), process()
    began = Gate()
    job = declare(one, lambda: hold(began, gate), max_concurrency=1)
    first = job.using(name="holder").submit_stored("first")
    reached(began)
    second = job.submit_stored("second")
    reason = until(lambda: (r := why(one, second)).code == "limit" and r)
    assert str(reason) == "Its job runs 1 at once, and these run: holder."
    assert (reason.facts["limit"], reason.facts["by"]) == (1, ["holder"])
    reason = until(lambda: (r := why(other, second)).code == "limit" and r)
    assert (reason.facts["job"], reason.facts["by"]) == ("job", ["holder"])
    assert one.executor.workers()[0].full == ("job",)
    gate.set()
    first.result(30)
    second.result(30)
    assert one.executor.workers()[0].full == ()


def test_a_pause_is_named(one: Process, other: Process) -> None:
    """Everywhere, with what ends it."""
    job = declare(one, int)
    other.executor.pause("job")
    until(lambda: paused_in(one))
    future = job.submit()
    until(lambda: one.record(future).owner is None)
    for process in (one, other):
        reason = why(process, future)
        assert (reason.code, reason.facts) == ("paused", {"job": "job"})
        assert "executor.resume('job')" in str(reason)


def test_without_a_process_nothing_runs(other: Process) -> None:
    """No process is alive that takes tasks of others."""
    id = insert(other, job="job")
    reason = other.executor.why(id)
    assert reason.code == "no_process"
    assert "start a server or a worker" in str(reason)


def test_a_job_that_nobody_knows_is_named(one: Process, other: Process) -> None:
    """A slip in a name, or a server that was not deployed."""
    declare(one, int)
    id = insert(other, job="mail.sned")
    reason = until(lambda: (r := other.executor.why(id)).code == "unknown_job" and r)
    assert reason.facts == {"job": "mail.sned", "processes": 1}


def takes_nothing(process: Process) -> Process:
    """Return a process that is known to take tasks, and has not looked for any."""
    declare(process, int)
    process.node.runs = True
    process.node.presence.join()
    return process


def test_those_that_come_first_are_counted(process: NewProcess) -> None:
    """If there is room, but others are more urgent."""
    one, other = takes_nothing(process()), process(EXECUTOR_STORE_RUN=False)
    for number in range(3):
        insert(other, uid=f"urgent-{number}", job="job", priority=1)
    id = insert(other, job="job")
    for each in (one, other):
        reason = each.executor.why(id)
        assert (reason.code, reason.facts["ahead"]) == ("ahead", 3)
    assert one.executor.why("urgent-0").code == "next"


def test_a_task_that_somebody_has_locked_is_found(process: NewProcess) -> None:
    """A row in a shell that was forgotten; with SQLite, the file."""
    one = takes_nothing(process())
    id = insert(one, job="job")
    assert one.executor.why(id).code == "next"
    with locked(one.store.database):
        reason = one.executor.why(id)
    assert (reason.code, reason.facts) == ("transaction", {"committed": True})
    assert one.executor.why(id).code == "next"


@contextlib.contextmanager
def locked(database: Database) -> t.Iterator[None]:
    """Hold the row of a task, or the whole file, as another program would."""
    engine = create_engine(database.url)
    with engine.connect() as db:
        if database.dialect == "sqlite":
            db.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            db.exec_driver_sql("SELECT id FROM executor_task FOR UPDATE")
        yield
        db.rollback()
    engine.dispose()


def test_a_task_whose_process_is_dead_is_lost(process: NewProcess) -> None:
    """Until somebody takes it up."""
    one, other = process(), process()
    one.store.join("gone", lease=-1.0, host="web", pid=7)
    id = insert(other, job="job", owner="gone")
    reason = other.executor.why(id)
    assert (reason.code, reason.facts) == ("lost", {"process": "web:7"})


def test_a_transaction_that_is_open_is_named(one: Process) -> None:
    """A task in the transaction of a session, in the process that submits it."""
    job = declare(one, int)
    engine = create_engine(one.store.database.url)
    with Session(engine) as session:
        future = job.using(session=session).submit()
        reason = why(one, future)
        session.rollback()
    engine.dispose()
    assert (reason.code, reason.facts) == ("transaction", {"committed": False})
    until(future.cancelled)
    with pytest.raises(UnknownTask):
        why(one, future)


def test_an_unknown_id_is_refused(one: Process) -> None:
    """It may be a slip, or the task is not kept any more."""
    with pytest.raises(UnknownTask, match=r"There is no task 'nobody'"):
        one.executor.why("nobody")


def test_a_store_that_is_away_is_the_reason(gate: Gate) -> None:
    """The other verbs raise; what runs here is still explained."""
    one = Process(f"postgresql+psycopg://127.0.0.1:{free_port()}/none")
    began = Gate()
    future = one.executor.submit(hold, began, gate)
    reached(began)
    reason = one.executor.why("any id")
    assert reason.code == "store_away"
    assert str(reason).startswith("The store is away (")
    assert why(one, future).code == "running"
    for ask in (one.executor.tasks, one.executor.counts, one.executor.workers):
        with pytest.raises(StoreUnavailable):
            ask()
    gate.set()
    one.close()
