"""What operators ask: attempts, statistics, groups, stacks, the longest wait."""

from __future__ import annotations

import threading
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
from limits import LIMIT
from processes import NewProcess, Process, declare, reached, until

from flask_executor import (
    BUCKETS,
    NoAnswer,
    Retry,
    StoreUnavailable,
    UnknownTask,
    UnknownWorker,
)
from flask_executor.stores.sql.stats import bucket

Gate = threading.Event
SHORT = {"EXECUTOR_STORE_LEASE": 3}
"""A lease that is renewed twice a second."""


def ended(process: Process, future: t.Any) -> None:
    future.exception(LIMIT)
    until(lambda: process.record(future).finished)


def test_each_attempt_is_known(one: Process, other: Process) -> None:
    """Those that failed with their errors, and the one that succeeded."""
    errors = [ValueError("first"), KeyError("second")]

    def work() -> None:
        if errors:
            raise errors.pop(0)

    job = declare(one, work, retry=Retry(attempts=3, delay=0.01))
    future = job.submit()
    ended(one, future)
    found = other.executor.attempts(future.task.id)
    assert [(a.number, a.end, a.error_class, a.error) for a in found] == [
        (1, "failed", "ValueError", "first"),
        (2, "failed", "KeyError", "'second'"),
        (3, "succeeded", None, None),
    ]
    times = [time for a in found for time in (a.started_at, a.finished_at)]
    assert times == sorted(t.cast("list[datetime]", times))
    assert {time.tzinfo for time in times if time is not None} == {UTC}


def test_an_attempt_that_runs_has_no_end(
    one: Process, other: Process, gate: Gate
) -> None:
    """Nor the error of the one before it."""
    began = Gate()

    def work() -> None:
        if began.is_set():
            gate.wait(LIMIT)
            return
        began.set()
        raise ValueError

    job = declare(one, work, retry=Retry(attempts=2, delay=0.01))
    future = job.submit()

    def runs_again() -> t.Any:
        found = other.executor.attempts(future.task.id)
        return len(found) == 2 and found

    first, second = until(runs_again)
    assert (first.end, second.end, second.finished_at) == ("failed", None, None)
    assert second.error is second.error_class is None
    assert second.started_at is not None


def test_attempts_of_a_task_that_is_unknown(one: Process) -> None:
    """A task that waits has none; a task that is not saved is known to its process."""
    waiting = declare(one, lambda: None).using(delay=99).submit()
    assert one.executor.attempts(waiting.task.id) == []
    waiting.cancel()
    with pytest.raises(UnknownTask, match="no task 'nobody'"):
        one.executor.attempts("nobody")
    gate, began = Gate(), Gate()

    def hold() -> None:
        began.set()
        gate.wait(LIMIT)

    with one.app.app_context():
        future = one.executor.submit(hold)
    assert future.task is not None
    reached(began)
    [attempt] = one.executor.attempts(future.task.id)
    assert (attempt.number, attempt.end) == (1, None)
    gate.set()


def test_statistics_of_all_processes(one: Process, other: Process) -> None:
    """Per minute, job and end: counts, sums, and histograms of wait and run."""
    start = datetime.now(UTC) - timedelta(minutes=1)
    job = declare(one, lambda x: 1 // x, name="divide")
    for x in (1, 2, 0):
        ended(one, job.submit(x))
    one.store.flush()
    assert one.store.settle(LIMIT)
    found = other.executor.statistics()
    assert {(s.job, s.end) for s in found} == {
        ("divide", "succeeded"),
        ("divide", "failed"),
    }
    assert sum(s.count for s in found) == 3
    for one_minute in found:
        assert start < one_minute.minute < datetime.now(UTC)
        assert one_minute.minute.second == 0
        assert sum(one_minute.waits) == sum(one_minute.runs) == one_minute.count
        assert len(one_minute.waits) == len(one_minute.runs) == len(BUCKETS)
        assert 0 <= one_minute.run_sum < LIMIT
    assert other.executor.statistics(job="divide") == found
    assert other.executor.statistics(job="another") == []


def test_old_minutes_are_left_out(process: NewProcess) -> None:
    """One minute is the one that is not over."""
    asked: list[float] = []
    made = process()
    real = made.store.stats
    made.store.stats = lambda since, job: asked.append(since) or real(since, job)
    now = made.store.now()
    assert made.executor.statistics(minutes=1) == []
    assert made.executor.statistics(minutes=61) == []
    assert asked == [pytest.approx(now, abs=LIMIT), pytest.approx(now - 3600, abs=60)]


def test_the_limits_of_the_buckets_are_those_of_the_store() -> None:
    """Each counts what took less than its limit, and not less than the one before."""
    for number, limit in enumerate(BUCKETS[:-1]):
        assert bucket(limit * 0.999) == number
        assert bucket(limit) == number + 1


def test_groups_are_listed(one: Process, other: Process) -> None:
    """Newest first, in pages, each with its progress; tasks of one are found by it."""
    job = declare(one, lambda x: 1 // x)
    with one.app.app_context():
        for name, numbers in (("old", [1]), ("new", [0, 1])):
            group = one.executor.group(name)
            group.map(job, numbers)
            group.wait(LIMIT)
    until(lambda: all(g.done == g.total for g in other.executor.groups()))
    new, old = other.executor.groups()
    assert [(g.name, g.total, g.failed) for g in (new, old)] == [
        ("new", 2, 1),
        ("old", 1, 0),
    ]
    assert new.created_at is not None
    assert new.created_at.tzinfo is UTC
    assert not new.closed
    assert other.executor.groups(limit=1) == [new]
    assert other.executor.groups(before=new.id) == [old]
    assert len(other.executor.tasks(group=new)) == 2
    assert len(other.executor.tasks(group=old)) == 1


def test_stacks_of_another_process(process: NewProcess, gate: Gate) -> None:
    """It answers though all its workers hang; the task and its code are named."""
    one, other = process(**SHORT).serve(), process(**SHORT)
    began = Gate()

    def hold_on(began: Gate) -> None:
        began.set()
        gate.wait(LIMIT)

    with one.app.app_context():
        using = one.executor.using(name="long", timeout=0.05)
        future = using.submit_stored("k", hold_on, began)
        for _ in range(3):
            one.executor.submit(gate.wait, LIMIT)
    reached(began)
    until(lambda: future.done())
    [worker] = other.executor.workers()
    first, *rest = other.executor.stacks(worker.id, timeout=LIMIT)
    assert future.task is not None
    assert (first.task_id, first.task_name) == (future.task.id, "long")
    assert first.overran
    assert "in hold_on\n" in first.stack
    assert {one.thread for one in rest} >= {"MainThread"}
    assert one.executor.stacks(worker.id)[0].task_id == future.task.id
    assert one.executor.stacks()[0].task_id == future.task.id


def test_a_process_that_does_not_answer(process: NewProcess) -> None:
    """The error names it; who is not alive is refused at once."""
    one, other = process(**SHORT).serve(), process(**SHORT)
    until(lambda: other.executor.workers())
    [worker] = other.executor.workers()
    with pytest.raises(UnknownWorker, match="no process 'nobody'"):
        other.executor.stacks("nobody")
    place = f"{worker.host}:{worker.pid}"
    with pytest.raises(NoAnswer, match=f"Process {place} has not told its stacks"):
        other.executor.stacks(worker.id, timeout=0)
    one.close()
    with pytest.raises(UnknownWorker, match=worker.id):
        other.executor.stacks(worker.id, timeout=LIMIT)


def test_several_ask_at_once(process: NewProcess) -> None:
    """Each gets an answer, also if others ask something else in the same moment."""
    process(**SHORT).serve()
    asking = [process(**SHORT) for _ in range(3)]
    until(lambda: asking[0].executor.workers())
    [worker] = asking[0].executor.workers()
    answers: list[t.Any] = []

    def ask(one: Process) -> None:
        answers.append(one.executor.stacks(worker.id, timeout=LIMIT))

    threads = [threading.Thread(target=ask, args=(one,)) for one in asking]
    for thread in threads:
        thread.start()
    other = asking[0].node.questions
    assert other._ask(worker.id, "something of newer code", LIMIT) is None
    for thread in threads:
        thread.join(LIMIT)
    assert len(answers) == 3
    assert all(answers)


def test_the_longest_wait(one: Process, other: Process, gate: Gate) -> None:
    """What is not due does not wait, and what runs does not."""
    began = Gate()

    def hold() -> None:
        began.set()
        gate.wait(LIMIT)

    job = declare(one, hold)
    later = job.using(delay=99).submit()
    job.submit()
    reached(began)
    until(lambda: other.executor.counts()["running"] == 1)
    assert other.executor.oldest_wait() is None
    before = other.store.now()
    one.executor.pause("job")
    job.submit()
    wait = until(other.executor.oldest_wait)
    assert 0 < wait <= other.store.now() - before
    one.executor.resume("job")
    gate.set()
    later.cancel()


def test_a_database_that_is_away(one: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these says so."""

    def away(*args: t.Any, **more: t.Any) -> t.NoReturn:
        raise StoreUnavailable("sqlite:///t.db", "it is gone")

    for name in ("get", "stats", "groups", "ask", "oldest_wait"):
        monkeypatch.setattr(one.store, name, away)
    executor = one.executor
    calls: list[t.Callable[[], t.Any]] = [
        lambda: executor.attempts("x"),
        executor.statistics,
        executor.groups,
        lambda: executor.stacks("x"),
        executor.oldest_wait,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="it is gone"):
            call()
