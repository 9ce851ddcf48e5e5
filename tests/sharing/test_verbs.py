"""The verbs about tasks: the same answers in every process that shares a store."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from enum import Enum
from unittest import mock

import pytest
from flask import g, request
from limits import LIMIT
from processes import NewProcess, Process, declare, paused_in, reached, until

from flask_executor import (
    DuplicateKey,
    NotUnique,
    PayloadRefused,
    RetryRefused,
    TaskRecord,
    UnknownTask,
    current_task,
)
from flask_executor.sharing.again import run_again
from flask_executor.stores.records import NewTask

Gate = threading.Event


class Colour(Enum):
    RED = 1


def fail(text: str) -> None:
    raise ValueError(text)


def ids(records: t.Iterable[TaskRecord]) -> list[str]:
    return [record.id for record in records]


def ended(process: Process, *futures: t.Any) -> None:
    """Return when all have ended, and everybody knows that."""
    for future in futures:
        future.exception(30) if not future.cancelled() else None
        until(lambda f=future: process.record(f).finished)


def test_every_process_has_the_future_of_an_id(one: Process, other: Process) -> None:
    """It ends with the task, wherever that runs; what is not saved is found in its own
    process alone.
    """
    declare(one, abs)
    future = declare(other, abs).submit(-7)
    found = [process.executor.future(future.task.id) for process in (one, other)]
    assert [it.result(LIMIT) for it in found if it is not None] == [7, 7]
    gate = Gate()
    unsaved = one.executor.submit(gate.wait, LIMIT)
    assert unsaved.task is not None
    assert one.executor.future(unsaved.task.id) is unsaved
    assert other.executor.future(unsaved.task.id) is None
    gate.set()
    assert one.executor.future("nobody") is None


def test_every_process_shows_the_same_record(one: Process, other: Process) -> None:
    """Names, times, meta, source: what was given at submit, and what became of it."""
    job = declare(other, lambda x: x, name="shop.pay")
    declare(one, lambda x: x, name="shop.pay")
    with other.app.test_request_context("/pay?card=1", method="POST"):
        using = job.using(meta={"owner": 7}, priority=5, timeout=60, name="pay")
        future = using.submit_stored(("order", 7), 1)
    ended(other, future)
    record = one.executor.task(future.task.id)
    assert record == other.executor.task(future.task.id)
    assert record is not None
    assert (record.id, record.name, record.job) == (future.task.id, "pay", "shop.pay")
    assert (record.key, record.meta) == (("order", 7), {"owner": 7})
    assert (record.state, record.has_ended) == ("succeeded", True)
    assert (record.priority, record.timeout, record.attempt) == (5, 60.0, 1)
    assert record.guarantee == "at_least_once"
    assert record.source == {"method": "POST", "path": "/pay", "endpoint": ""}
    assert record.result_size
    times = record.submitted_at, record.started_at, record.finished_at
    assert [*times] == sorted(t.cast("list[datetime]", times))
    assert {time.tzinfo for time in times if time is not None} == {UTC}
    assert record.error is record.parent is record.retried_from is None


def test_a_failure_is_shown_as_text(one: Process, other: Process) -> None:
    """Class, text and traceback, though no process could make the exception."""

    class Odd(Exception):
        pass

    def raise_odd() -> None:
        raise Odd("gone")

    future = declare(one, raise_odd).submit()
    ended(one, future)
    [record] = other.executor.tasks(state="failed")
    name = f"{__name__}.{Odd.__qualname__}"
    assert (record.error_class, record.error) == (name, "gone")
    assert "raise_odd" in t.cast(str, record.traceback)
    assert ids(other.executor.tasks(error=Odd)) == [future.task.id]
    assert ids(other.executor.tasks(error=name)) == [future.task.id]
    assert other.executor.tasks(error=ValueError) == []


def test_nothing_is_unpickled_in_order_to_be_shown(
    one: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists, counts and reasons read no payload and no result."""
    job = declare(one, lambda x: x)
    future = job.submit_stored("k", [1])
    ended(one, future)

    def refuse(*args: t.Any) -> t.NoReturn:
        raise AssertionError("something was read")

    for name in ("open_call", "open_outcome"):
        monkeypatch.setattr(other.node.payloads, name, refuse)
    for name in ("payload", "result"):
        monkeypatch.setattr(other.store, name, refuse)
    executor = other.executor
    assert ids(executor.tasks()) == [future.task.id]
    assert executor.counts()["succeeded"] == 1
    assert executor.why(future.task.id).code == "ended"
    assert executor.workers() != []


def test_tasks_are_filtered_and_come_in_pages(one: Process, other: Process) -> None:
    """Newest first; ``before`` and ``after`` take public ids."""
    job, second = (
        declare(one, lambda: None),
        declare(one, lambda: fail("no"), name="bad"),
    )
    made = [job.submit() for _ in range(4)] + [second.using(name="x").submit()]
    ended(one, *made)
    newest = [future.task.id for future in made][::-1]
    tasks = other.executor.tasks
    assert ids(tasks()) == newest
    assert ids(tasks(limit=2)) == newest[:2]
    assert ids(tasks(limit=2, before=newest[1])) == newest[2:4]
    assert ids(tasks(limit=2, after=newest[3])) == newest[1:3]
    assert ids(tasks(job="bad")) == ids(tasks(name="x")) == newest[:1]
    assert ids(one.executor.tasks(job=second)) == newest[:1]
    assert ids(tasks(state="succeeded", limit=1)) == newest[1:2]
    assert tasks(job="nobody knows it") == tasks(state="waiting") == []
    count = other.executor.count
    assert (count(), count(limit=3), count(state="succeeded")) == (5, 3, 4)
    assert count(job="bad", error=ValueError) == count(name="x", state="failed") == 1
    assert count(job="bad", state="waiting") == count(parent="nobody") == 0
    assert other.executor.counts() == one.executor.counts()
    assert other.executor.counts(limit=3)["succeeded"] == 3
    for where in ("before", "after"):
        with pytest.raises(UnknownTask, match=r"no task 'nobody'.*future\.task\.id"):
            tasks(**t.cast(t.Any, {where: "nobody"}))


def test_a_state_that_does_not_exist_is_refused(one: Process) -> None:
    """A slip would look like an empty list."""
    with pytest.raises(ValueError, match=r"state = 'done' is not.*succeeded"):
        one.executor.tasks(state="done")
    with pytest.raises(ValueError, match=r"state = 'done' is not.*succeeded"):
        one.executor.count(state="done")


def test_children_name_their_parent(one: Process, other: Process) -> None:
    """What a task submits has its id, so that others find it."""
    child = declare(one, lambda: None, name="child")
    parent = declare(
        one, lambda: child.submit().result(30) or current_task.id, name="p"
    )
    future = parent.submit()
    assert future.result(30) == future.task.id
    [record] = until(lambda: other.executor.tasks(parent=future.task.id))
    assert (record.name, record.parent) == ("child", future.task.id)


def test_members_of_a_group_are_found(one: Process, other: Process) -> None:
    """By the group itself where it was made."""
    job = declare(one, lambda: None)
    group = one.executor.group("import")
    plain = job.submit()
    made = [group.submit(job) for _ in range(3)]
    ended(one, plain, *made)
    newest = [future.task.id for future in made][::-1]
    tasks = one.executor.tasks
    assert ids(tasks(group=group)) == newest
    assert ids(tasks(group=group, before=newest[0], limit=1)) == newest[1:2]
    assert ids(tasks(group=group, after=newest[2], limit=1)) == newest[1:2]
    assert tasks(group=group, state="failed") == []
    assert other.executor.tasks(group="no such group") == []
    assert one.executor.count(group=group) == other.executor.count(group="import") == 3
    assert other.executor.count(group="no such group") == 0


def test_a_saved_group_is_found_by_its_name(one: Process) -> None:
    """The newest that has the name."""
    old, new = one.store.open_group("g"), one.store.open_group("g")
    for number, group in enumerate((old, new)):
        task = NewTask(
            uid=f"u{number}", name="n", guarantee="at_least_once", group_id=group
        )
        one.store.wait(one.store.insert([task]))
    assert ids(one.executor.tasks(group="g")) == ["u1"]


def test_a_key_is_read_where_that_is_possible(one: Process) -> None:
    """A member of an Enum that is not imported here is shown as it is stored."""
    facts: dict[str, t.Any] = {"name": "n", "guarantee": "at_least_once"}
    texts = [f"e:{__name__}:Colour.RED", "e:no.such.module:Colour.RED"]
    for number, text in enumerate(texts):
        task = NewTask(uid=f"u{number}", key=text, unique_key=text, **facts)
        one.store.wait(one.store.insert([task]))
    found = [one.executor.task(f"u{number}") for number in range(2)]
    assert [record and record.key for record in found] == [Colour.RED, texts[1]]
    assert [record and record.unique for record in found] == [Colour.RED, texts[1]]


def test_who_is_there_is_listed(
    process: NewProcess, other: Process, gate: Gate
) -> None:
    """Each process with what it does, until it has left."""
    began, one = Gate(), process()
    job = declare(one, lambda: began.set() or gate.wait(30))
    one.serve()  # which tells others of its jobs; of later ones it tells with its lease
    future = job.submit()
    reached(began)
    [worker] = other.executor.workers()
    assert worker.id == one.record(future).owner
    assert (worker.pool, worker.slots, worker.runs) == ("thread", 2, True)
    assert worker.jobs == ("job",)
    [worker] = one.executor.workers()  # itself, as it is now
    assert worker.busy == 1
    assert t.cast(datetime, worker.alive_until) > t.cast(datetime, worker.started_at)
    gate.set()
    ended(one, future)
    one.node.presence.leave(LIMIT)
    assert other.executor.workers() == []


def test_a_task_that_waits_is_cancelled_from_anywhere(
    one: Process, other: Process, gate: Gate
) -> None:
    """True once; nothing runs."""
    ran: list[int] = []
    job = declare(other, lambda: ran.append(1)).using(delay=600)
    future = job.submit()
    assert one.executor.cancel(future.task.id) is True
    until(future.cancelled)
    assert one.executor.cancel(future.task.id) is False
    assert one.executor.cancel("nobody") is False
    record = one.executor.task(future.task.id)
    assert record is not None
    assert (record.state, record.cancel_requested) == ("cancelled", True)
    assert ran == []


def test_a_task_that_runs_elsewhere_is_asked_to_stop(
    one: Process, other: Process
) -> None:
    """Its own process tells it."""
    began, asked = Gate(), Gate()

    def work() -> None:
        began.set()
        until(lambda: current_task.cancel_requested)
        asked.set()
        current_task.raise_if_cancelled()

    future = declare(one, work).submit()
    reached(began)
    assert other.executor.cancel(future.task.id) is True
    reached(asked)
    until(future.cancelled)


def test_tasks_that_are_not_saved_are_known_at_home(
    one: Process, other: Process, gate: Gate
) -> None:
    """Without a key and a guarantee: by id, in the process that has them."""
    began = Gate()
    future = one.executor.submit(lambda: began.set() or gate.wait(30))
    reached(began)
    id = future.task.id
    record = one.executor.task(id)
    assert record is not None
    assert record.state == "running"
    assert one.executor.why(id).code == "running"
    assert one.executor.tasks() == []
    assert other.executor.task(id) is None
    assert other.executor.cancel(id) is False
    assert one.executor.cancel(id) is True
    with pytest.raises(RetryRefused, match="it is not saved"):
        one.executor.retry(id)


# Pauses


def test_nobody_begins_tasks_of_a_paused_job(process: NewProcess) -> None:
    """Neither who submits them nor who claims them; what others submit goes on."""
    one, other = process().serve(), process().serve()
    ran: list[str] = []
    for each in (one, other):
        declare(each, lambda: ran.append("paused"), name="paused")
        declare(each, lambda: ran.append("free"), name="free")
    names = one.executor._job_names
    one.executor.pause("paused")
    until(lambda: paused_in(other))
    kept = [names.find("paused").submit(), other_job(other, "paused").submit()]
    free = [names.find("free").submit(), other_job(other, "free").submit()]
    ended(one, *free)
    assert ran == ["free", "free"]
    for future in kept:
        assert one.executor.why(future.task.id).code == "paused"
        assert other.executor.why(future.task.id).code == "paused"
    other.executor.resume("paused")
    ended(one, *kept)
    assert sorted(ran) == ["free", "free", "paused", "paused"]


def other_job(process: Process, name: str) -> t.Any:
    return process.executor._job_names.find(name)


def test_a_pause_outlives_the_process(process: NewProcess) -> None:
    """A process that starts later keeps to it, from its first task on."""
    first = process().serve()
    job = declare(first, lambda: None)
    first.executor.pause(job)
    later = process().serve()
    future = declare(later, lambda: 1).submit()
    until(lambda: later.record(future).owner is None)
    assert later.executor.why(future.task.id).code == "paused"
    first.executor.resume("job")
    assert future.result(30) in (None, 1)  # of one process or the other


def test_a_first_task_waits_until_the_pauses_are_known(
    process: NewProcess, gate: Gate
) -> None:
    """A submit does not begin a task while another thread still reads the pauses."""
    first, later = process(), process()
    first.executor.pause(declare(first, lambda: None))
    reading, paused = Gate(), later.store.paused
    ran: list[int] = []
    job = declare(later, lambda: ran.append(1))
    slow = mock.Mock(side_effect=lambda: reading.set() or (gate.wait(30) and paused()))
    with mock.patch.object(later.store, "paused", slow), ThreadPoolExecutor() as pool:
        known = pool.submit(later.node.know_pauses)
        reached(reading)
        submitted = pool.submit(job.submit)
        wait([submitted], 0.3)  # long enough to begin it
        gate.set()
        known.result(30)
        future = submitted.result(30)
    until(lambda: later.record(future).owner is None)
    assert ran == []
    first.executor.resume("job")


def test_what_waits_here_is_given_to_the_store(one: Process, gate: Gate) -> None:
    """A task in the queue of its process waits in the store while its job is paused."""
    began = [Gate(), Gate()]
    block = declare(one, lambda n: began[n].set() or gate.wait(30), name="block")
    for number in range(2):  # both workers
        block.submit(number)
        reached(began[number])
    free = one.executor.submit_stored("not durable", int)
    job = declare(one, lambda: 5)
    future = job.submit()
    one.executor.pause(job)
    gate.set()
    assert free.result(30) == 0
    until(lambda: one.record(future).owner is None)
    assert not future.done()
    one.executor.resume(job)
    assert future.result(30) == 5


# Retrying


def test_a_failed_task_runs_again_as_a_new_one(one: Process, other: Process) -> None:
    """It has the arguments, options, context and key of the old one, and names it."""
    answers = [ZeroDivisionError, None]

    def work(x: int, *, y: int) -> int:
        error = answers.pop(0)
        if error is not None:
            raise error("at first")
        return x + y + g.number + len(request.args)

    job = declare(one, work)
    with one.app.test_request_context("/?a=1&b=2"):
        g.number = 100
        using = job.using(meta="m", priority=3, timeout=50, name="n")
        old = using.submit_stored("k", 1, y=10)
    ended(one, old)
    new = other.executor.retry(old.task.id)
    assert new.result(30) == 113
    assert new.task.id != old.task.id
    until(lambda: one.record(new).finished)
    record = one.executor.task(new.task.id)
    assert record is not None
    assert (record.retried_from, record.state) == (old.task.id, "succeeded")
    assert (record.meta, record.priority, record.timeout) == ("m", 3, 50.0)
    assert (record.name, record.job, record.key) == ("n", "job", "k")
    assert one.futures.result("k", timeout=30) == 113
    before = one.executor.task(old.task.id)
    assert before is not None
    assert (before.state, before.key) == ("failed", None)
    assert isinstance(old.exception(30), ZeroDivisionError)


def test_the_retries_of_a_task_are_kept(one: Process) -> None:
    """Its own policy, not only that of the job."""
    ran: list[int] = []
    job = declare(one, lambda: ran.append(1) or fail("always"))
    old = job.using(retry=2).submit()
    ended(one, old)
    assert len(ran) == 2
    new = one.executor.retry(old.task.id)
    ended(one, new)
    assert len(ran) == 4


def test_any_end_can_be_run_again(one: Process) -> None:
    """What has succeeded, and what was cancelled."""
    job = declare(one, lambda: 4)
    succeeded, cancelled = job.submit(), job.using(delay=600).submit()
    assert one.executor.cancel(cancelled.task.id)
    ended(one, succeeded)
    for old in (succeeded, cancelled):
        assert one.executor.retry(old.task.id).result(30) == 4


def test_what_cannot_run_again_is_refused(one: Process, gate: Gate) -> None:
    """What has not ended, what was not saved, and what is unknown."""
    began = Gate()
    running = declare(one, lambda: began.set() or gate.wait(30)).submit()
    reached(began)
    until(lambda: one.record(running).state == "running")
    with pytest.raises(RetryRefused, match=r"it is running, and has not ended"):
        one.executor.retry(running.task.id)
    ephemeral = one.executor.submit_stored("e", int)
    ended(one, ephemeral)
    with pytest.raises(RetryRefused, match="its guarantee is 'ephemeral'"):
        one.executor.retry(ephemeral.task.id)
    with pytest.raises(UnknownTask, match="no task 'nobody'"):
        one.executor.retry("nobody")


def test_a_forged_payload_is_not_signed_again(one: Process) -> None:
    """A retry checks what it reads, as a claim does."""
    old = declare(one, lambda x: x).submit(1)
    ended(one, old)
    with one.store.database.transaction() as db:
        db.exec_driver_sql("UPDATE executor_payload SET data = signature")
    with pytest.raises(PayloadRefused):
        one.executor.retry(old.task.id)
    assert len(one.executor.tasks()) == 1


def test_one_of_two_retries_gets_the_key(one: Process, other: Process) -> None:
    """The other one is refused: its key belongs to a task that has not ended."""
    old = declare(one, lambda: fail("no")).submit_stored("k")
    ended(one, old)
    record = one.record(old)
    one.executor.pause("job")
    first = run_again(one.node, record)
    with pytest.raises(DuplicateKey, match="'k'"):
        run_again(other.node, record)
    assert one.futures["k"].task.id == first.task.id
    assert len(one.executor.tasks()) == 2


def test_a_retry_that_is_refused_changes_nothing(one: Process) -> None:
    """Its key stays with the old task if another one has its ``unique`` value."""
    job = declare(one, lambda: fail("no")).using(unique="u")
    old = job.submit_stored("k")
    ended(one, old)
    one.executor.pause("job")
    holder = job.submit()
    with pytest.raises(NotUnique, match=holder.task.id):
        one.executor.retry(old.task.id)
    assert one.record(old).key == "s:k"
    assert len(one.executor.tasks()) == 2
