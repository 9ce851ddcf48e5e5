"""unique: among the tasks of an executor with the same value, one has not ended."""

from __future__ import annotations

import gc
import os
import threading
import time
import typing as t
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest import mock

import pytest
from control import Journal, occupy, until, with_clock
from flask import Flask
from internals import Uniques
from limits import LIMIT

from flask_executor import (
    CallNotPicklable,
    DuplicateKey,
    Executor,
    InvalidOption,
    NotUnique,
    QueueFull,
    UnsupportedOption,
    task_succeeded,
)
from flask_executor.testing import capture

ON_TAKEN = ("raise", "return", "replace")


def echo(*args: t.Any) -> t.Any:
    return args


def held(executor: Executor) -> dict[t.Any, t.Any]:
    """The values that are noted as taken."""
    uniques: Uniques = executor._state().dispatcher.uniques
    return uniques._held


def one(executor: Executor, on_taken: t.Any = "raise", **options: t.Any) -> t.Any:
    return executor.using(unique="one", on_taken=on_taken, **options)


# What happens if it is taken


def test_a_second_one_is_refused(executor: Executor, gate: threading.Event) -> None:
    """While one has not ended a second raises; the error names both and a way out."""
    first = one(executor, key="k").submit(gate.wait, LIMIT)
    until(first.running)
    with pytest.raises(NotUnique, match="unique = 'one' is taken by") as caught:
        one(executor).submit(echo)
    error = caught.value
    assert isinstance(error, ValueError)
    assert (error.value, error.state, error.on_taken) == ("one", "running", "raise")
    assert "Event.wait (key 'k')" in error.holder
    assert "another value" in str(error) and "on_taken='return'" in str(error)
    gate.set()
    first.result(LIMIT)
    assert one(executor).submit(echo, 1).result(LIMIT) == (1,)


def test_the_one_there_is_is_returned(
    executor: Executor, gate: threading.Event
) -> None:
    """With 'return' there is one task and one future; after its end, the next."""
    first = one(executor, "return").submit(gate.wait, LIMIT)
    assert one(executor, "return").submit(echo) is first
    with Journal(executor._last_app) as journal:  # type: ignore[arg-type]
        assert one(executor, "return").submit(echo) is first
        gate.set()
        first.result(LIMIT)
        second = one(executor, "return").submit(echo, 2)
        assert second is not first and second.result(LIMIT) == (2,)
        journal.wait("succeeded", 2)
    assert len(journal.facts("submitted")) == 1


def test_what_waits_is_replaced(executor: Executor) -> None:
    """With 'replace' the one that waits is cancelled, and the new one has the value."""
    clock = with_clock(executor)
    with Journal(executor._last_app) as journal:  # type: ignore[arg-type]
        first = one(executor, delay=5).submit(echo, 1)
        task = first.task
        second = one(executor, "replace", delay=5).submit(echo, 2)
        assert first.cancelled() and journal.of(task) == ["submitted", "cancelled"]
        with pytest.raises(NotUnique, match="which is delayed"):
            one(executor).submit(echo)
        clock.advance(5)
        assert second.result(LIMIT) == (2,)
    assert clock.is_idle


def test_what_is_in_the_queue_is_replaced(
    executor: Executor, gate: threading.Event
) -> None:
    """A task that waits for a worker is replaced, too, and never runs."""
    occupy(executor, gate, workers=4)
    ran: list[int] = []
    futures = [one(executor, "replace").submit(ran.append, n) for n in range(3)]
    assert [future.cancelled() for future in futures] == [True, True, False]
    gate.set()
    futures[-1].result(LIMIT)
    assert ran == [2]


def test_what_runs_is_not_replaced(executor: Executor, gate: threading.Event) -> None:
    """With 'replace' a task that runs stays, and the call says so."""
    first = one(executor).submit(gate.wait, LIMIT)
    until(first.running)
    with pytest.raises(NotUnique, match="replaces only a task that waits"):
        one(executor, "replace").submit(echo)
    assert not first.task.cancel_requested
    gate.set()
    assert first.result(LIMIT)
    assert not held(executor)


def test_between_attempts_it_is_replaced(executor: Executor) -> None:
    """The pause between two attempts is a wait: the next attempt does not come."""
    clock = with_clock(executor)
    first = one(executor, retry=2).submit(divmod, 1, 0)
    clock.armed()
    until(lambda: first.task.state == "retrying")
    second = one(executor, "replace").submit(echo, 2)
    assert second.result(LIMIT) == (2,)
    assert first.cancelled() and clock.is_idle


# How long it is taken


def test_retries_keep_it(executor: Executor) -> None:
    """A task that is tried again has its value until the last attempt."""
    clock = with_clock(executor)
    first = one(executor, retry=2).submit(divmod, 1, 0)
    clock.armed()
    with pytest.raises(NotUnique, match="which is retrying"):
        one(executor).submit(echo)
    clock.to_next()
    assert isinstance(first.exception(LIMIT), ZeroDivisionError)
    assert one(executor).submit(echo).result(LIMIT) == ()


@pytest.mark.parametrize("state", ["delayed", "waiting", "running"])
def test_a_cancelled_one_frees_it(
    executor: Executor, gate: threading.Event, state: str
) -> None:
    """However a task is cancelled, its value is free then."""

    async def endless() -> None:
        await __import__("asyncio").Event().wait()

    if state == "waiting":
        occupy(executor, gate, workers=4)
    options = {"delay": 100} if state == "delayed" else {}
    first = one(executor, **options).submit(endless if state == "running" else echo)
    until(lambda: first.task.state == state)
    first.request_cancel()
    until(first.done)
    assert first.cancelled()
    gate.set()
    assert one(executor).submit(echo).result(LIMIT) == ()


def test_who_sees_the_end_can_submit_the_next(executor: Executor) -> None:
    """It is free for receivers of the end, for callbacks and for who waits."""
    got: list[t.Any] = []

    def received(sender: Flask, task: t.Any, result: t.Any) -> None:
        if result == (1,):
            got.append(one(executor).submit(echo, 2))

    with task_succeeded.connected_to(received):
        first = one(executor).submit(echo, 1)
        assert first.result(LIMIT) == (1,)
        (second,) = got
        second.add_done_callback(lambda _: got.append(one(executor).submit(echo, 3)))
        assert second.result(LIMIT) == (2,)
        until(lambda: len(got) == 2)
        assert got[1].result(LIMIT) == (3,)


def test_nothing_is_kept(executor: Executor) -> None:
    """When tasks have ended no value, no future and no result is left behind."""

    class Result:
        pass

    kept = []
    for n in range(50):
        future = executor.using(unique=n).submit(Result)
        kept.append(weakref.ref(future.result(LIMIT)))
        del future
    executor.shutdown()
    assert not held(executor)
    gc.collect()
    assert not any(ref() for ref in kept)


# A submit that fails


def test_a_full_queue_frees_it(app: Flask, executor: Executor, gate: t.Any) -> None:
    """Who is refused for another reason has no value; who is replaced stays then."""
    app.config.update(EXECUTOR_MAX_PENDING=1)
    occupied = occupy(executor, gate, workers=1)
    rest = [executor.submit(gate.wait, LIMIT) for _ in range(3)]
    until(lambda: all(future.running() for future in rest))
    waiting = one(executor).submit(echo, 1)
    with pytest.raises(QueueFull):
        executor.using(unique="other").submit(echo)
    assert set(held(executor)) == {"one"}
    with pytest.raises(QueueFull):
        one(executor, "replace").submit(echo, 2)
    assert one(executor, "return").submit(echo) is waiting
    gate.set()
    assert waiting.result(LIMIT) == (1,)
    for future in (*occupied, *rest):
        future.result(LIMIT)


def test_an_executor_that_is_shut_down_frees_it(executor: Executor) -> None:
    """After shutdown nothing is accepted, and nothing noted."""
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        one(executor).submit(echo)
    assert not held(executor)


def test_a_call_for_no_process_frees_it(app: Flask, executor: Executor) -> None:
    """A callable that no worker process could import leaves the value free."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor.init_app(app)
    for _ in range(2):
        with pytest.raises(CallNotPicklable):
            one(executor).submit(lambda: 1)
    assert one(executor).submit(abs, -1).result(LIMIT) == 1
    assert not held(executor)


def test_a_context_that_cannot_be_taken_frees_it(executor: Executor) -> None:
    """What fails while the context is taken leaves the value free, and the key."""
    with (
        mock.patch("flask_executor.accepting.Snapshot.take", side_effect=OSError),
        pytest.raises(OSError),
    ):
        one(executor).submit_stored("k", echo)
    assert not held(executor) and "k" not in executor.futures
    assert one(executor).submit_stored("k", echo).result(LIMIT) == ()


# Keys


def test_the_value_comes_before_the_key(
    executor: Executor, gate: threading.Event
) -> None:
    """Who asks for the task there is gets it, whatever the keys are."""
    first = one(executor).submit_stored("k", gate.wait, LIMIT)
    again = one(executor, "return")
    assert again.submit_stored("k", echo) is first
    assert again.submit_stored("other", echo) is first
    assert first.key == "k" and "other" not in executor.futures
    with pytest.raises(NotUnique):
        one(executor).submit_stored("k", echo)
    gate.set()
    first.result(LIMIT)
    with pytest.raises(DuplicateKey):
        again.submit_stored("k", echo)
    assert not held(executor)
    assert again.submit_stored("other", echo, 1).result(LIMIT) == (1,)


def test_replacing_under_another_key(executor: Executor) -> None:
    """The one that is replaced stays stored as cancelled, as any that is cancelled."""
    clock = with_clock(executor)
    one(executor, delay=1).submit_stored("a", echo, 1)
    one(executor, "replace", delay=1).submit_stored("b", echo, 2)
    assert executor.futures.cancelled("a") and not executor.futures.done("b")
    with pytest.raises(DuplicateKey):
        one(executor, "replace", delay=1).submit_stored("b", echo, 3)
    clock.advance(1)
    assert executor.futures["b"].cancelled() and not held(executor)


def test_through_a_submit_that_is_patched(
    executor: Executor, gate: threading.Event
) -> None:
    """It holds through a submit that is overridden, and leaves no key reserved."""
    with mock.patch.object(executor, "submit", wraps=executor.submit) as submit:
        first = one(executor).submit_stored("a", gate.wait, LIMIT)
        assert one(executor, "return").submit_stored("b", echo) is first
        with pytest.raises(NotUnique):
            one(executor).submit_stored("c", echo)
        assert submit.call_count == 3
        gate.set()
        first.result(LIMIT)
        for key in "bc":
            assert one(executor).submit_stored(key, echo).result(LIMIT) == ()


# Where


def test_a_value_belongs_to_the_executor(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """All functions and jobs of an executor share their values; executors do not."""
    job = executor.job(unique="one")(echo)
    first = executor.using(unique="one").submit(gate.wait, LIMIT)
    with pytest.raises(NotUnique):
        job.submit()
    assert job.using(unique=None).submit(1).result(LIMIT) == (1,)
    assert job.using(unique=("one", 2)).submit(2).result(LIMIT) == (2,)
    other = Executor(app, name="other")
    assert one(other).submit(echo, 3).result(LIMIT) == (3,)
    other.shutdown()
    gate.set()
    first.result(LIMIT)
    assert job.submit(4).result(LIMIT) == (4,)


def test_within_the_task_itself(executor: Executor) -> None:
    """A task has its value while it runs: it cannot submit a second one."""

    def outer(on_taken: str) -> t.Any:
        return one(executor, on_taken).submit(echo)

    for on_taken in ("raise", "replace"):
        future = one(executor).submit(outer, on_taken)
        assert isinstance(future.exception(LIMIT), NotUnique)
    future = one(executor).submit(outer, "return")
    assert future.result(LIMIT) is future


def test_with_the_sync_pool(app: Flask) -> None:
    """It holds where calls run before submit returns: within them."""
    app.config.update(EXECUTOR_TYPE="sync")
    executor = Executor(app)
    inner = one(executor).submit(lambda: one(executor).submit(echo))
    assert isinstance(inner.exception(), NotUnique)
    assert one(executor).submit(echo, 1).result() == (1,)
    assert not held(executor)


def test_in_groups(executor: Executor, gate: threading.Event) -> None:
    """A group has the one there is as a member; map refuses a value for many tasks."""
    first = one(executor).submit(gate.wait, LIMIT)
    group = executor.group()
    assert group.using(unique="one", on_taken="return").submit(echo) is first
    assert group.futures == [first]
    job = executor.job(unique="one")(echo)
    rule = "unique is not supported by map: it names one task"
    for many in (
        lambda: job.map([1]),
        lambda: one(executor).map(echo, [1]),
        lambda: group.map(job, [1]),
        lambda: group.using(unique="one").map(echo, [1]),
    ):
        with pytest.raises(UnsupportedOption, match=rule):
            many()
    assert list(executor.using(unique=None).map(job, [1])) == [(1,)]
    gate.set()
    group.wait(LIMIT)


def test_with_the_testing_kit(executor: Executor) -> None:
    """It holds among captured tasks; one that is refused was not submitted."""
    with capture(executor, hold=True) as tasks:
        first = one(executor).submit(echo, 1)
        with pytest.raises(NotUnique):
            one(executor).submit(echo, 2)
        second = one(executor, "replace").submit(echo, 3)
        assert [one.args for one in tasks.submitted] == [(1,), (3,)]
        tasks.release()
        assert first.cancelled() and second.result() == (3,)


def test_wrong_values(executor: Executor) -> None:
    """Values that are not allowed are refused where they are written."""
    with pytest.raises(InvalidOption, match=r"unique = \[\].*hashable"):
        executor.using(unique=[])  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"on_taken = 'drop'.*'replace'"):
        executor.using(on_taken="drop")  # type: ignore[arg-type]


# Races


@pytest.mark.holds("g-unique")
@pytest.mark.parametrize("on_taken", ON_TAKEN)
@pytest.mark.parametrize("stored", [False, True])
def test_of_two_threads_one_wins(
    executor: Executor, on_taken: str, stored: bool
) -> None:
    """Threads that submit the same value at once: never are two of them alive."""
    count, rounds = 4, 60
    start = threading.Barrier(count)
    inside = [threading.Semaphore(1) for _ in range(rounds)]
    together: list[int] = []

    def alone(turn: int) -> None:
        if inside[turn].acquire(blocking=False):
            os.sched_yield()
            inside[turn].release()
        else:
            together.append(turn)

    def submit(n: int) -> list[t.Any]:
        got: list[t.Any] = []
        for turn in range(rounds):
            view = executor.using(unique=turn, on_taken=t.cast(t.Any, on_taken))
            verb = partial(view.submit_stored, (turn, n)) if stored else view.submit
            start.wait(LIMIT)
            try:
                got.append(verb(alone, turn))
            except NotUnique as error:
                got.append(error)
        return got

    with ThreadPoolExecutor(count) as threads:
        results = [*threads.map(submit, range(count))]
    executor.shutdown()
    for turn in zip(*results, strict=True):
        futures = {one for one in turn if not isinstance(one, NotUnique)}
        assert all(future.done() for future in futures)
        assert any(not future.cancelled() for future in futures), "somebody wins"
        assert on_taken != "return" or not any(isinstance(o, NotUnique) for o in turn)
    assert not together and not held(executor)


def test_a_race_for_a_held_value(
    executor: Executor, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the winner waits, of many threads one has submitted and the rest not."""
    look = Uniques._holder

    def look_and_let_others_run(self: Uniques, value: t.Any) -> t.Any:
        found = look(self, value)
        time.sleep(0.001)  # where a thread could be stopped
        return found

    monkeypatch.setattr(Uniques, "_holder", look_and_let_others_run)
    occupied = occupy(executor, gate, workers=4)
    start = threading.Barrier(8)

    def submit(_: int) -> t.Any:
        start.wait(LIMIT)
        try:
            return one(executor).submit(echo)
        except NotUnique as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        got = [*threads.map(submit, range(8))]
    assert sum(isinstance(result, NotUnique) for result in got) == 7
    with ThreadPoolExecutor(8) as threads:
        shared = [
            *threads.map(
                lambda _: (
                    start.wait(LIMIT) + 1 and one(executor, "return").submit(echo)
                ),
                range(8),
            )
        ]
    assert len({*shared}) == 1
    gate.set()
    for future in (*occupied, shared[0]):
        future.result(LIMIT)


def test_replacing_one_that_is_being_submitted(executor: Executor) -> None:
    """A task that others find before it is accepted can be replaced; it never runs."""
    reached, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    def slow(*args: t.Any, **kwargs: t.Any) -> None:
        reached.set()
        assert go_on.wait(LIMIT)

    with ThreadPoolExecutor(1) as thread:
        with mock.patch("flask_executor.accepting.Snapshot.take", side_effect=slow):
            submitting = thread.submit(one(executor).submit, ran.append, 1)
            assert reached.wait(LIMIT)
        shared = one(executor, "return").submit(echo)
        second = one(executor, "replace").submit(ran.append, 2)
        second.result(LIMIT)
        go_on.set()
        first = submitting.result(LIMIT)
    assert first is shared and first.cancelled()
    executor.shutdown()
    assert ran == [2] and not held(executor)
