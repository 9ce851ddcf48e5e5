"""The verbs about tasks without a store: for the tasks of this process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import typing as t
from datetime import UTC

import pytest
from flask import Flask
from limits import LIMIT
from processes import reached, until

from flask_executor import (
    Executor,
    InvalidOption,
    QueueFull,
    Retry,
    RetryRefused,
    TaskRecord,
    UnknownTask,
    UnknownWorker,
    bulk,
    current_task,
)

Gate = threading.Event


def ids(records: t.Iterable[TaskRecord]) -> list[str]:
    return [record.id for record in records]


def fill(executor: Executor, gate: Gate, count: int = 4) -> list[t.Any]:
    """Keep all workers busy."""
    began = [Gate() for _ in range(count)]
    made = [executor.using(name="long").submit(hold, one, gate) for one in began]
    for one in began:
        reached(one)
    return made


def hold(began: Gate, gate: Gate) -> None:
    began.set()
    gate.wait(LIMIT)


def test_what_has_not_ended_is_known(
    app: Flask, executor: Executor, gate: Gate
) -> None:
    """With what was given at submit, and the request it came from."""
    began = Gate()

    @executor.job(name="shop.pay", priority=3)
    def pay() -> None:
        current_task.progress(1, 2, "half")
        hold(began, gate)

    with app.test_request_context("/pay", method="POST"):
        future = pay.using(timeout=60, meta=[1]).submit_stored(("k", 1))
    reached(began)
    record = executor.task(future.task.id)
    assert record is not None
    assert (record.id, record.name, record.job) == (future.task.id, *["shop.pay"] * 2)
    assert (record.state, record.has_ended, record.attempt) == ("running", False, 1)
    assert (record.key, record.priority, record.timeout) == (("k", 1), 3, 60.0)
    assert (record.meta, record.guarantee) == ([1], "ephemeral")
    assert record.progress == (1, 2, "half")
    assert record.source == {"method": "POST", "path": "/pay", "endpoint": ""}
    assert record.submitted_at.tzinfo is UTC
    assert record.started_at is not None
    assert record.finished_at is record.error is None
    assert executor.tasks() == [record]


def test_tasks_of_one_request_are_found(
    app: Flask, executor: Executor, gate: Gate
) -> None:
    """Those that have not ended, what these submit, and ended ones whose futures are
    stored; and where they come from.
    """
    made = []

    def work() -> None:
        made.append(executor.submit(gate.wait, LIMIT))
        gate.wait(LIMIT)

    with app.test_request_context("/a", method="POST"):
        stored = executor.submit_stored("k", int)
        stored.result(LIMIT)
        parent = executor.submit(work)
    with app.test_request_context("/b"):
        other = executor.submit(gate.wait, LIMIT)
    until(lambda: made)
    ended = executor.task(stored.task.id)
    assert ended is not None
    assert ended.source == {"method": "POST", "path": "/a", "endpoint": ""}
    found = executor.tasks(request=ended.request)
    assert ids(found) == [one.task.id for one in (*made, parent, stored)]
    assert executor.count(request=ended.request) == 3
    assert other.task.id not in ids(found)
    assert executor.tasks(retried_from=stored.task.id) == []
    gate.set()


def test_what_has_ended_is_known_while_its_future_is_stored(executor: Executor) -> None:
    """With its error as text; without a key it is gone."""

    @executor.job(name="fails")
    def fails() -> None:
        raise ValueError("no")

    stored, plain = fails.submit_stored("k"), fails.submit()
    for future in (stored, plain):
        future.exception(LIMIT)
    until(lambda: executor.task(plain.task.id) is None)
    [record] = executor.tasks()
    assert (record.id, record.state) == (stored.task.id, "failed")
    assert (record.job, record.error_class, record.error) == (
        "fails",
        "ValueError",
        "no",
    )
    assert "in fails" in t.cast(str, record.traceback)
    assert ids(executor.tasks(error=ValueError)) == [stored.task.id]
    assert executor.tasks(error=KeyError) == []
    assert executor.why(stored.task.id).code == "ended"
    executor.futures.pop("k")
    assert executor.tasks() == []


def test_a_future_is_found_by_the_id_of_its_task(
    executor: Executor, gate: Gate
) -> None:
    """As long as the task is known; then there is None."""
    future = executor.submit(gate.wait, LIMIT)
    stored = executor.submit_stored("key", int)
    ids_of = [one.task.id for one in (future, stored) if one.task is not None]
    assert [*map(executor.future, ids_of)] == [future, stored]
    gate.set()
    future.result(LIMIT)
    until(lambda: executor.future(ids_of[0]) is None)
    assert executor.future(ids_of[1]) is stored
    assert executor.future("nobody") is None


def test_an_error_that_cannot_be_shown_does_no_harm(executor: Executor) -> None:
    """The app's own exceptions may fail in their own text."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def work() -> None:
        raise Odd

    executor.submit_stored("k", work).exception(LIMIT)
    [record] = executor.tasks()
    assert record.error == "(its text cannot be shown)"


def test_tasks_are_filtered_and_come_in_pages(executor: Executor, gate: Gate) -> None:
    """Newest first, like the lists of a store."""
    job = executor.job(name="job")(int)
    running = fill(executor, gate)
    group = executor.group()
    waiting = [job.submit(), group.submit(job), job.using(delay=600).submit()]
    newest = [future.task.id for future in (*running, *waiting)][::-1]
    tasks = executor.tasks
    assert ids(tasks()) == newest
    assert ids(tasks(limit=2)) == newest[:2]
    assert ids(tasks(limit=2, before=newest[1])) == newest[2:4]
    assert ids(tasks(limit=2, after=newest[4])) == newest[2:4]
    assert ids(tasks(after=newest[4], before=newest[1])) == newest[2:4]
    assert ids(tasks(job="job")) == ids(tasks(job=job)) == newest[:3]
    assert ids(tasks(state="delayed")) == newest[:1]
    assert ids(tasks(name="long", limit=1)) == newest[3:4]
    assert ids(tasks(group=group)) == newest[1:2]
    assert tasks(parent=newest[0]) == tasks(group="by name") == []
    assert executor.count(job=job) == executor.count(limit=3) == 3
    assert executor.count(group=group, state="running") == 0
    assert executor.counts() == dict.fromkeys(executor.counts(), 0) | {
        "running": 4,
        "waiting": 2,
        "delayed": 1,
    }
    assert executor.counts(limit=3)["running"] == 3
    with pytest.raises(UnknownTask, match="no task 'nobody'"):
        tasks(before="nobody")
    with pytest.raises(InvalidOption, match="state = 'done'"):
        tasks(state="done")
    executor.cancel(newest[0])


def test_this_process_is_the_only_worker(executor: Executor, gate: Gate) -> None:
    """It says what it does."""
    executor.job(name="job")(int)
    fill(executor, gate)
    waiting = executor.submit(int)
    [worker] = executor.workers()
    assert (worker.pool, worker.slots, worker.busy, worker.queue) == ("thread", 4, 4, 1)
    assert worker.alive_until is None
    assert waiting.task.state == "waiting"


def test_a_task_is_cancelled_by_its_id(executor: Executor, gate: Gate) -> None:
    """What waits is cancelled, what runs is asked to stop, what is unknown is not."""
    [running] = fill(executor, gate, 1)
    waiting = executor.using(delay=600).submit(int)
    assert executor.cancel(waiting.task.id) is True
    assert waiting.cancelled()
    assert executor.cancel(waiting.task.id) is False
    assert executor.cancel(running.task.id) is True
    assert executor.why(running.task.id).code == "stopping"
    assert executor.cancel("nobody") is False


def test_nothing_can_run_again(executor: Executor, gate: Gate) -> None:
    """Nothing is kept of a call that has ended."""
    [running] = fill(executor, gate, 1)
    with pytest.raises(RetryRefused, match=r"it is not saved.*Submit it again"):
        executor.retry(running.task.id)
    with pytest.raises(UnknownTask):
        executor.retry("nobody")


# Why


def test_what_waits_says_why(executor: Executor, gate: Gate) -> None:
    """For its time, for the pool, behind others."""
    job = executor.job(name="job")(int)
    delayed = job.using(delay=600).submit()
    retried = executor.using(retry=Retry(attempts=3, delay=200, jitter=0)).submit(
        lambda: 1 / 0
    )
    until(lambda: retried.task.state == "retrying")
    fill(executor, gate)
    first, second, urgent = (
        job.submit(),
        job.submit(),
        job.using(priority=1).submit(),
    )
    assert executor.why(delayed.task.id).code == "delayed"
    assert executor.why(retried.task.id).facts["attempt"] == 2
    reasons = [executor.why(one.task.id) for one in (urgent, first, second)]
    assert {reason.code for reason in reasons} == {"busy"}
    assert [reason.facts["ahead"] for reason in reasons] == [0, 1, 2]
    assert str(reasons[2]) == (
        "All 4 workers are busy with long, long, long and 1 more; 2 tasks come first."
    )
    for future in (delayed, retried):
        executor.cancel(future.task.id)
    with pytest.raises(UnknownTask):
        executor.why("nobody")


def test_a_full_limit_names_who_holds_it(executor: Executor, gate: Gate) -> None:
    """For coroutines, too."""
    began = Gate()

    @executor.job(name="job", max_concurrency=1)
    async def work() -> None:
        began.set()
        while not gate.is_set():
            await asyncio.sleep(0.01)

    first = work.using(name="holder").submit()
    reached(began)
    second = work.submit()
    reason = until(lambda: (r := executor.why(second.task.id)).code == "limit" and r)
    assert (reason.facts["limit"], reason.facts["by"]) == (1, ["holder"])
    assert executor.workers()[0].full == ("job",)
    gate.set()
    for future in (first, second):
        future.result(LIMIT)


# Pauses


def test_tasks_of_a_paused_job_wait(executor: Executor) -> None:
    """Those of others go on; after resume they run in their order."""
    ran: list[int] = []
    job = executor.job(name="job")(ran.append)
    executor.pause(job)
    kept = [job.submit(number) for number in range(3)]
    free = [executor.submit(int) for _ in range(8)]
    for future in free:
        future.result(LIMIT)
    assert ran == []
    for future in kept:
        assert executor.why(future.task.id).code == "paused"
    assert executor.cancel(kept[0].task.id) is True
    executor.resume("job")
    for future in kept[1:]:
        future.result(LIMIT)
    assert sorted(ran) == [1, 2]
    assert job.submit(3).result(LIMIT) is None


def test_an_alias_is_the_job(executor: Executor) -> None:
    """A job is paused under any of its names."""
    job = executor.job(name="new", aliases=("old",))(int)
    executor.pause("old")
    future = job.submit()
    assert executor.why(future.task.id).facts == {"job": "new"}
    executor.resume("old")
    assert future.result(LIMIT) == 0


def test_a_job_without_a_name_cannot_be_paused(executor: Executor) -> None:
    """Nothing tells its tasks from others."""
    with pytest.raises(InvalidOption, match=r"a job with a name"):
        executor.pause(executor.job(lambda: None))


def test_a_pause_keeps_nobody_waiting_at_the_end(app: Flask) -> None:
    """Draining and shutting down cancel what waits for the end of a pause."""
    for end in ("drain", "shutdown"):
        executor = Executor(app)
        job = executor.job(name="job")(int)
        executor.pause(job)
        future = job.submit()
        ending = threading.Thread(target=getattr(executor, end))
        ending.start()
        ending.join(LIMIT)
        assert not ending.is_alive(), end
        assert future.cancelled()
        executor.shutdown()


def test_what_is_paused_counts_as_waiting(app: Flask) -> None:
    """The queue is bounded in a pause, too."""
    app.config["EXECUTOR_MAX_PENDING"] = 2
    executor = Executor(app)
    job = executor.job(name="job")(int)
    executor.pause(job)
    kept = [job.submit() for _ in range(2)]
    with pytest.raises(QueueFull):
        job.submit()
    executor.resume(job)
    assert [future.result(LIMIT) for future in kept] == [0, 0]
    executor.shutdown()


def test_a_call_of_the_caller_is_never_paused(app: Flask) -> None:
    """With ``'sync'`` nobody else could ever run it."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    job = executor.job(name="job")(int)
    executor.pause(job)
    with app.app_context():
        assert job.submit().result() == 0


def test_the_last_attempt_is_known(executor: Executor, gate: Gate) -> None:
    """While it runs, in the pause after it, and as long as its future is stored."""
    began = Gate()
    future = executor.using(retry=Retry(attempts=2, delay=99)).submit_stored(
        "k", hold_then_fail, began, gate
    )
    id = future.task.id
    reached(began)
    [attempt] = executor.attempts(id)
    assert (attempt.number, attempt.end, attempt.finished_at) == (1, None, None)
    assert attempt.started_at is not None
    gate.set()
    until(lambda: executor.task(id).state == "retrying")
    assert [one.end for one in executor.attempts(id)] == ["failed"]
    future.cancel()
    [attempt] = executor.attempts(id)
    assert (attempt.number, attempt.end) == (1, "cancelled")
    with pytest.raises(UnknownTask, match="no task 'nobody'"):
        executor.attempts("nobody")


def hold_then_fail(began: Gate, gate: Gate) -> None:
    hold(began, gate)
    raise ValueError


def test_the_longest_wait_leaves_out_delays(executor: Executor, gate: Gate) -> None:
    """What is not due, or runs, or will be retried, does not count."""
    later = executor.using(delay=99).submit(int)
    long = fill(executor, gate)
    assert executor.oldest_wait() is None
    soon = executor.using(delay=0.2).submit(int)
    until(lambda: soon.task.state == "waiting")
    first = executor.oldest_wait()
    assert first is not None
    assert first < time.time() - soon.task.submitted_at.timestamp() - 0.2
    until(lambda: executor.oldest_wait() > first)
    later.cancel()
    gate.set()
    soon.result(LIMIT)
    [one.result(LIMIT) for one in long]
    assert executor.oldest_wait() is None


def test_stacks_of_this_process(executor: Executor, gate: Gate) -> None:
    """Threads that overran come first, then those that run tasks, then all others."""
    fill(executor, gate, 1)
    began = Gate()
    late = executor.using(timeout=0.01, name="late").submit(hold, began, gate)
    reached(began)
    until(late.done)
    # A task has begun a moment before it waits.
    until(lambda: "in hold\n    gate.wait(LIMIT)" in executor.stacks()[0].stack)
    found = executor.stacks()
    tasks = [(one.task_name, one.overran) for one in found]
    assert tasks[:3] == [("late", True), ("long", False), (None, False)]
    assert found[0].task_id == late.task.id
    assert "MainThread" in [one.thread for one in found[2:]]
    [worker] = executor.workers()
    assert executor.stacks(worker.id)[0].task_id == late.task.id
    with pytest.raises(UnknownWorker, match="no process 'nobody'"):
        executor.stacks("nobody")


def test_the_innermost_task_of_a_thread_is_named(app: Flask, gate: Gate) -> None:
    """A task that waits runs what it waits for on its own thread."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    executor = Executor(app)
    began = Gate()

    def wait() -> None:
        executor.using(name="inner").submit(hold, began, gate).result()

    outer = executor.using(name="outer").submit(wait)
    reached(began)
    names = [one.task_name for one in executor.stacks() if one.task_name]
    assert names == ["inner"]
    gate.set()
    outer.result(LIMIT)
    executor.shutdown()


def test_coroutines_have_no_thread(executor: Executor) -> None:
    """Many share one, so none of them is named there."""
    began, gate = Gate(), asyncio.Event()

    async def wait() -> None:
        began.set()
        await gate.wait()

    future = executor.submit(wait)
    reached(began)
    assert {one.task_id for one in executor.stacks()} == {None}
    future.request_cancel()


def test_what_needs_a_store_is_empty(executor: Executor) -> None:
    """Ends are counted, and groups are known, in a store only."""
    executor.group("g").map(int, range(3))
    assert executor.statistics() == []
    assert executor.groups() == []


def test_many_are_cancelled_at_once(
    executor: Executor, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a task that was cancelled is known no more."""
    monkeypatch.setattr(bulk, "_BATCH", 2)
    long = fill(executor, gate)
    waiting = [executor.submit(int) for _ in range(5)]
    assert bulk.count(executor, "cancel", state="waiting") == 5
    assert bulk.apply(executor, "cancel", state="waiting") == (5, 0, 5, ())
    assert all(future.cancelled() for future in waiting)
    assert not any(future.done() for future in long)
    bad = executor.submit_stored("k", int, "x")
    gate.set()
    assert isinstance(bad.exception(LIMIT), ValueError)
    applied = bulk.apply(executor, "retry")
    assert (applied.done, applied.unchanged) == (0, 1)
    assert "it is not saved" in applied.reasons[0]


def test_no_store_is_imported() -> None:
    """The verbs need Flask alone."""
    code = """
import sys
from flask import Flask
from flask_executor import Executor
executor = Executor(Flask("x"))
future = executor.submit_stored("k", int)
future.result(30)
executor.tasks(), executor.counts(), executor.workers(), executor.why(future.task.id)
executor.pause("x"), executor.resume("x"), executor.cancel(future.task.id)
executor.attempts(future.task.id), executor.stacks(), executor.oldest_wait()
found = [name for name in sys.modules if name.startswith(
    ("sqlalchemy", "flask_executor.stores", "flask_executor.sharing"))]
assert not found, found
"""
    run = [sys.executable, "-c", code]
    subprocess.run(run, check=True, timeout=LIMIT)
