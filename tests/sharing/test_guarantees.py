"""What each guarantee promises, in one process and across several."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import CancelledError

import pytest
import saved_jobs
from flask import g, request, session
from limits import LIMIT
from processes import NewProcess, Process, reached, until

from flask_executor import Retry, current_task
from flask_executor.store_errors import PayloadTooLarge
from flask_executor.stores.errors import StoreUnavailable


class Away:
    """Lets some methods of a store fail, as if the database was away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, process: Process) -> None:
        self._patch = monkeypatch
        self._store = process.store

    def during(self, name: str, *, after: bool = False) -> list[object]:
        """Let one call of a method fail, before or after it was done."""
        real, calls = getattr(self._store, name), []

        def fail(*args: t.Any, **how: t.Any) -> t.Any:
            calls.append(args)
            if len(calls) > 1:
                return real(*args, **how)
            if after:
                found = real(*args, **how)
                if hasattr(found, "result"):
                    found.result(LIMIT)
            raise StoreUnavailable("here", "it is a test")

        self._patch.setattr(self._store, name, fail)
        return calls


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, one: Process) -> Away:
    return Away(monkeypatch, one)


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_a_saved_task_sees_the_same_anywhere(
    one: Process, other: Process, guarantee: t.Any
) -> None:
    """What a task sees of its request does not depend on who runs it."""

    def look() -> t.Any:
        return (
            request.path,
            request.headers.get("X-Trace"),
            request.headers.get("Authorization"),
            request.get_data(),
            dict(session),
            g.get("user"),
            request.cookies.get("a"),
        )

    results = []
    for process, peer in ((one, other), (other, one)):
        peer.job(look, name="look", guarantee=guarantee)
        job = process.job(look, name="look", guarantee=guarantee)
        headers = {"X-Trace": "7", "Authorization": "secret", "Cookie": "a=b"}
        with process.app.test_request_context(
            "/p", method="POST", headers=headers, data=b"body"
        ):
            session["name"] = "n"
            g.user = "u"
            future = job.submit()
        results.append(future.result(LIMIT))
    assert results == [("/p", "7", None, b"", {"name": "n"}, "u", None)] * 2


def test_at_most_once_begins_in_the_database_first(one: Process) -> None:
    """When the call runs, its begin is committed."""
    states = []

    def look() -> None:
        states.append(one.store.get("uid", current_task.id).state)

    one.job(look, guarantee="at_most_once").submit().result(LIMIT)
    assert states == ["running"]


def test_at_most_once_waits_for_the_database(one: Process, away: Away) -> None:
    """What cannot begin in the database is not run, and runs when it is back."""
    ran: list[int] = []
    job = one.job(lambda: ran.append(1), guarantee="at_most_once")
    calls = away.during("begin")
    future = job.submit()
    until(lambda: calls)
    assert not ran
    future.result(LIMIT)
    assert ran == [1]
    assert one.record(future).attempt == 1


def test_a_begin_whose_reply_was_lost(one: Process, away: Away) -> None:
    """A begin that was committed counts, although its reply did not arrive."""
    job = one.job(lambda: 7, guarantee="at_most_once")
    calls = away.during("begin", after=True)
    future = job.submit()
    assert future.result(LIMIT) == 7
    assert len(calls) == 2
    assert one.record(future).attempt == 1


def test_a_begin_that_is_refused(
    one: Process, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that was cancelled while it was held does not begin.

    The database may go away between the refusal and the look at its reason.
    """
    gate, ran = threading.Event(), []
    # Otherwise it may be cancelled before it is to begin.
    monkeypatch.setattr(one.node.holding, "stop_what_was_asked", lambda: None)
    fill = [one.executor.submit(reached, gate) for _ in range(2)]
    job = one.job(lambda: ran.append(1), guarantee="at_most_once")
    future = one.executor.submit(int) and held_by(one, job)
    with one.store.database.transaction() as db:
        db.exec_driver_sql("UPDATE executor_task SET cancel = 1")
    calls = away.during("get")
    gate.set()
    with pytest.raises(CancelledError):
        future.result(LIMIT)
    assert calls
    assert not ran
    assert one.record(future).state == "cancelled"
    for other in fill:
        other.result(LIMIT)


def held_by(process: Process, job: t.Any) -> t.Any:
    """Submit a task that its process keeps although its pool is full."""
    holding = process.node.holding
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holding, "room", lambda: 1)
        patch.setattr(holding, "stop_what_was_asked", lambda: None)
        future = job.submit()
    return future


def test_retries_run_anywhere(one: Process, other: Process) -> None:
    """The next attempt runs in another process; the submitter gets the last end."""
    attempts: list[tuple[str, int]] = []

    def fail(name: str) -> t.Callable[[], int]:
        def work() -> int:
            attempts.append((name, current_task.attempt))
            if current_task.attempt < 3:
                raise ValueError("again")
            return 7

        return work

    options: t.Any = {"retry": Retry(attempts=3, delay=0.01)}
    one.job(fail("one"), **options)
    future = other.job(fail("other"), **options).submit()
    assert future.result(LIMIT) == 7
    assert [number for _, number in attempts] == [1, 2, 3]
    assert future.task.attempt == 3
    ends = other.store.attempts(other.record(future).id)
    assert [(end.number, end.end) for end in ends] == [(1, "failed"), (2, "failed")]


def test_an_ephemeral_task_is_tried_again_here(one: Process, other: Process) -> None:
    """The attempts of an ephemeral task stay, and others see how it ends."""

    def work() -> int:
        if current_task.attempt < 3:
            raise ValueError("again")
        return 7

    view = one.executor.using(retry=Retry(attempts=3, delay=0.01))
    future = view.submit_stored("k", work)
    assert other.futures.result("k", timeout=LIMIT) == 7
    assert future.result(LIMIT) == 7
    assert other.futures["k"].task.attempt == 3


@pytest.mark.parametrize("options", [{}, {"retry": Retry(attempts=3, delay=0.01)}])
def test_a_saved_task_in_a_full_pool(process: NewProcess, options: t.Any) -> None:
    """A pool of one worker runs the saved task for which its task waits."""
    only = process(EXECUTOR_MAX_WORKERS=1).serve()

    def work() -> int:
        if options and current_task.attempt < 2:
            raise ValueError("again")
        return 7

    job = only.job(work, **options)
    assert only.executor.submit(lambda: job.submit().result()).result(LIMIT) == 7
    delayed = job.using(delay=0.01)
    assert only.executor.submit(lambda: delayed.submit().result()).result(LIMIT) == 7


def test_a_full_pool_runs_a_task_of_others_that_it_waits_for(
    process: NewProcess,
) -> None:
    """A task may wait for a saved one that another process has submitted."""
    only, other = (
        process(EXECUTOR_MAX_WORKERS=1).serve(),
        process(EXECUTOR_STORE_RUN=False),
    )
    only.job(lambda: 7)
    job = other.job(lambda: 8)
    submitted, full = threading.Event(), threading.Event()

    def wait_for_it() -> object:
        full.set()
        reached(submitted)
        return only.futures["k"].result()

    outer = only.executor.submit(wait_for_it)
    reached(full)
    job.submit_stored("k")
    submitted.set()
    assert outer.result(LIMIT) == 7


def test_a_script_runs_what_it_submits(process: NewProcess) -> None:
    """A process that serves nothing runs its own tasks: late, again, and in groups."""
    script = process()

    def work(number: int) -> int:
        if number % 2 and current_task.attempt < 2:
            raise ValueError("again")
        return number

    job = script.job(work, retry=Retry(attempts=2, delay=0.01))
    futures = [job.submit(number) for number in range(8)]
    futures.append(job.using(delay=0.05).submit(8))
    assert [future.result(LIMIT) for future in futures] == [*range(9)]
    with script.executor.group() as group:
        members = [group.submit(job, number) for number in range(8)]
    assert [member.result() for member in members] == [*range(8)]
    assert [*job.map(range(5))] == [*range(5)]


def test_many_tasks_of_a_limited_job(process: NewProcess) -> None:
    """A process does not take more tasks of a limited job than it can begin."""
    first, second = process().serve(), process().serve()
    gate, at_work, most = threading.Event(), [0], [0]

    def work() -> None:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        reached(gate)
        at_work[0] -= 1

    second.job(work, max_concurrency=1)
    job = first.job(work, max_concurrency=1)
    futures = [job.submit() for _ in range(12)]
    until(lambda: at_work[0] == 2)
    for process_ in (first, second):
        assert len([*process_.node.holding]) <= 3
    gate.set()
    for future in futures:
        future.result(LIMIT)
    assert most[0] == 2


def test_coroutines_take_no_worker(process: NewProcess) -> None:
    """Saved coroutines run while all workers are busy, and many at once."""
    busy, other = process().serve(), process(EXECUTOR_STORE_RUN=False)
    gate = threading.Event()
    fill = [busy.executor.submit(reached, gate) for _ in range(2)]

    async def work() -> int:
        return 7

    busy.job(work)
    job = other.job(work)
    futures = [job.submit() for _ in range(150)]
    assert {future.result(LIMIT) for future in futures} == {7}
    gate.set()
    for future in fill:
        future.result(LIMIT)


@pytest.mark.parametrize("what", ["payload", "job", "meta", "signature"])
def test_a_damaged_row_ends_alone(one: Process, process: NewProcess, what: str) -> None:
    """A row that somebody has damaged ends its own task, and no other one."""
    other = process(EXECUTOR_STORE_RUN=False)
    ran: list[int] = []
    job = other.job(ran.append)
    futures = [job.using(delay=0.3, meta={"a": 1}).submit(n) for n in range(3)]
    damage = {
        "payload": "DELETE FROM executor_payload WHERE task_id = %d",
        "signature": "UPDATE executor_payload SET signature = data WHERE task_id = %d",
        "meta": "UPDATE executor_task SET meta = 'x', retry = '{}' WHERE id = %d",
        "job": 'UPDATE executor_task SET retry = \'{"attempts": "x"}\', progress ='
        " '[1]' WHERE id = %d",
    }[what]
    with other.store.database.transaction() as db:
        db.exec_driver_sql(damage % other.record(futures[1]).id)
    one.job(ran.append)
    errors = [future.exception(LIMIT) for future in futures]
    assert [errors[0], errors[2]] == [None, None]
    assert (errors[1] is None) == (what == "meta")
    assert sorted(ran) == ([0, 1, 2] if what == "meta" else [0, 2])
    assert other.executor.submit_stored("fine", int).result(LIMIT) == 0


def test_an_unknown_job_is_not_claimed(one: Process, other: Process) -> None:
    """Who does not know a job leaves it; after a day it fails, and says so."""
    future = other.job(int, name="new").submit()
    known = one.job(int, name="old")
    known.submit().result(LIMIT)
    assert other.record(future).owner is None
    assert one.store.forsake(["old"], older=3600) == 0
    with other.store.database.transaction() as db:
        db.exec_driver_sql("UPDATE executor_task SET submitted = submitted - 7200")
    assert one.store.forsake(["old", "new"], older=3600) == 0
    assert one.store.forsake(["old"], older=3600) == 1
    with pytest.raises(Exception, match="No process knows the job new"):
        future.result(LIMIT)


def test_too_large(process: NewProcess) -> None:
    """Arguments over the limit are refused, results over it fail."""
    small = process(EXECUTOR_STORE_MAX_BYTES=2000).serve()
    job = small.job(lambda text: text * 2)
    with pytest.raises(PayloadTooLarge):
        job.submit("x" * 3000)
    with pytest.raises(PayloadTooLarge):
        job.submit("x" * 1000).result(LIMIT)
    assert not small.store.tasks(state="waiting")


def test_json(process: NewProcess) -> None:
    """With JSON, plain values go to other processes, and exceptions as texts."""
    config = {"EXECUTOR_SERIALIZER": "json"}
    runner = process(**config).serve()
    reader = process(EXECUTOR_STORE_RUN=False, **config)

    def work(value: t.Any) -> t.Any:
        if value is None:
            raise ValueError("nothing")
        return [value]

    runner.job(work)
    job = reader.job(work)
    assert job.submit({"a": 1}).result(LIMIT) == [{"a": 1}]
    with pytest.raises(Exception, match="nothing"):
        job.submit(None).result(LIMIT)


@pytest.mark.parametrize("kind", ["sync", "process", "pebble", "thread"])
def test_every_pool(process: NewProcess, kind: str) -> None:
    """Saved tasks run on every pool, at once and claimed."""
    config = {"EXECUTOR_TYPE": kind, "EXECUTOR_MAX_WORKERS": 1}
    config["EXECUTOR_APP"] = "saved_jobs:make_app"
    runner = process(executor=saved_jobs.executor, **config)
    assert runner.executor.submit_stored("k", saved_jobs.double, 4).result(LIMIT) == 8
    with runner.app.test_request_context("/here"):
        seen = saved_jobs.look.submit().result(LIMIT)
    assert seen == ("/here", 1)
    other = process(EXECUTOR_STORE_RUN=False)
    look = other.job(saved_jobs.look.fn, name="look", retry=Retry(attempts=2))
    with other.app.test_request_context("/there"):
        future = look.submit(fails=1)
    if kind != "sync":  # which runs no tasks of others
        runner.serve()
        assert future.result(LIMIT) == ("/there", 2)


def test_priorities(process: NewProcess) -> None:
    """The most urgent task is claimed first, whoever submitted it."""
    other = process(EXECUTOR_STORE_RUN=False)
    ran: list[int] = []
    job = other.job(ran.append)
    futures = [job.using(priority=n).submit(n) for n in (0, 5, -5)]
    runner = process(EXECUTOR_MAX_WORKERS=1)
    runner.job(ran.append)
    runner.serve()
    for future in futures:
        future.result(LIMIT)
    assert ran == [5, 0, -5]


def test_timeouts(one: Process, other: Process) -> None:
    """A saved task ends at its deadline, wherever it runs."""
    gate = threading.Event()
    one.job(lambda: reached(gate))
    future = other.job(lambda: None).using(timeout=0.05).submit()
    error = future.exception(LIMIT)
    assert type(error).__name__ == "TaskTimeout"
    assert future.task.state == "timed_out"
    gate.set()


def test_signals_tell_of_one_submit(one: Process) -> None:
    """A task that is claimed again was submitted once."""
    from flask_executor import task_submitted

    seen = []

    def note(sender: object, **what: t.Any) -> None:
        seen.append(what["task"].id)

    def work() -> None:
        if current_task.attempt < 2:
            raise ValueError("again")

    with task_submitted.connected_to(note):
        future = one.job(work, retry=Retry(attempts=2, delay=0.01)).submit()
        future.result(LIMIT)
    assert seen == [future.task.id]


def test_the_submitter_tells_of_what_others_run(one: Process, other: Process) -> None:
    """A task that waits for its time as a row is submitted where that was, once."""
    from flask_executor import task_submitted

    seen = []

    def note(sender: object, **what: t.Any) -> None:
        seen.append((sender, what["task"].id))

    one.job(lambda: None)
    job = other.job(lambda: None)
    with task_submitted.connected_to(note):
        future = job.using(delay=0.01).submit()
        assert seen == [(other.app, future.task.id)]
        future.result(LIMIT)
    assert len(seen) == 1
