"""Cancelling what waits, and asking what runs to stop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import threading
import typing as t
import weakref
from concurrent.futures import CancelledError, as_completed, wait

import control_app
import pytest
from control import Door, Journal, occupy, with_clock
from flask import Flask
from limits import LIMIT

from flask_executor import (
    Executor,
    Retry,
    TaskCancelled,
    TaskFuture,
    current_task,
    signals,
    task_submitted,
)


class Secret:
    """Something whose end can be seen."""


@pytest.fixture
def door() -> t.Iterator[Door]:
    door = Door()
    yield door
    door.close()


def one_worker(app: Flask) -> None:
    app.config["EXECUTOR_MAX_WORKERS"] = 1


def state_of(future: TaskFuture[t.Any]) -> str:
    assert future.task is not None
    return future.task.state


# What waits

Verb = t.Callable[[TaskFuture[t.Any]], bool]
VERBS: dict[str, Verb] = {
    "cancel": TaskFuture.cancel,
    "request_cancel": TaskFuture.request_cancel,
}


@pytest.fixture(params=VERBS)
def cancel(request: pytest.FixtureRequest) -> Verb:
    return VERBS[request.param]


@pytest.mark.holds("g-cancel")
def test_what_is_in_line(
    app: Flask, executor: Executor, gate: threading.Event, cancel: Verb
) -> None:
    """A task that waits for a worker is cancelled at once, and never runs."""
    one_worker(app)
    occupy(executor, gate)
    ran: list[int] = []
    future = executor.submit_stored("key", ran.append, 1)
    with Journal(app) as journal:
        assert cancel(future)
        assert journal.of(future.task) == ["cancelled"]
    assert future.cancelled() and future.done() and not future.running()
    assert state_of(future) == "cancelled"
    assert future.task is not None
    assert future.task.attempt == 0 and future.task.started_at is None
    assert future.task.finished_at is not None
    with pytest.raises(CancelledError):
        future.result(0)
    gate.set()
    executor.shutdown()
    assert ran == []


@pytest.mark.holds("g-cancel")
def test_what_is_delayed(executor: Executor, cancel: Verb) -> None:
    """A task that is not due is cancelled; its timer is cancelled."""
    clock = with_clock(executor)
    future = executor.using(delay=60).submit(abs, -1)
    assert cancel(future) and future.cancelled()
    assert clock.is_idle and state_of(future) == "cancelled"


@pytest.mark.holds("g-cancel")
def test_what_pauses(app: Flask, executor: Executor, cancel: Verb) -> None:
    """A task between two attempts is cancelled, and not tried again."""
    clock = with_clock(executor)
    with Journal(app) as journal:
        future = executor.using(retry=Retry(delay=60)).submit(divmod, 1, 0)
        clock.armed()
        assert state_of(future) == "retrying" and not future.running()
        assert cancel(future) and future.cancelled()
    assert clock.is_idle
    assert journal.of(future.task) == ["submitted", "started", "retrying", "cancelled"]
    assert future.task is not None and future.task.attempt == 1


def test_coroutines_that_wait(
    executor: Executor, gate: threading.Event, cancel: Verb
) -> None:
    """One that the busy loop has not begun is cancelled at once."""
    busy = threading.Event()
    ran: list[int] = []

    async def block() -> None:
        busy.set()
        gate.wait(LIMIT)

    async def note() -> None:
        ran.append(1)

    executor.submit(block)
    assert busy.wait(LIMIT)
    future = executor.submit(note)
    assert cancel(future) and future.cancelled()
    gate.set()
    executor.shutdown()
    assert ran == []


def test_processes_in_line(app: Flask, door: Door, cancel: Verb) -> None:
    """The same on the process pool."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    running = executor.submit(control_app.wait_at, door.port)
    door.reached()
    future = executor.submit(control_app.pid)
    assert cancel(future) and future.cancelled()
    door.open()
    assert running.result(LIMIT) == b"x"
    executor.shutdown()


@pytest.mark.holds("g-cancel")
def test_what_has_ended(executor: Executor, cancel: Verb) -> None:
    """What has ended cannot be cancelled; what was cancelled is."""
    future = executor.submit(abs, -1)
    assert future.result(LIMIT) == 1
    assert not cancel(future) and state_of(future) == "succeeded"
    delayed = executor.using(delay=60).submit(abs, -1)
    assert cancel(delayed) and cancel(delayed)


def test_waiters_know_at_once(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """wait() and as_completed() return while the worker is still taken."""
    one_worker(app)
    occupy(executor, gate)
    futures = [executor.submit(abs, n) for n in range(3)]
    waiting = threading.Event()

    def cancel() -> None:
        waiting.wait(LIMIT)
        for future in futures:
            future.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    waiting.set()
    assert {*as_completed(futures, LIMIT)} == {*futures}
    assert not wait(futures, LIMIT).not_done
    canceller.join(LIMIT)
    assert not gate.is_set()


def test_callbacks_of_a_cancelled_task(executor: Executor) -> None:
    """They run once, on the thread that cancels, with the future."""
    called: list[t.Any] = []
    future = executor.using(delay=60).submit(abs, -1)
    future.add_done_callback(lambda f: called.append((f, threading.get_ident())))
    assert future.cancel() and future.cancel()
    assert called == [(future, threading.get_ident())]


def test_by_key(app: Flask, executor: Executor, gate: threading.Event) -> None:
    """executor.futures knows cancel, request_cancel and task by key."""
    one_worker(app)
    occupy(executor, gate)
    future = executor.submit_stored("key", abs, -1)
    assert executor.futures.task("key") is future.task
    assert executor.futures.request_cancel("key") is True
    assert executor.futures.cancelled("key") is True
    assert executor.futures.task("unknown") is None
    assert executor.futures.request_cancel("unknown") is None


def test_a_cancelled_task_is_no_failure(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not logged as one."""
    executor.using(delay=60).submit(abs, -1).cancel()
    assert not caplog.records


def test_asyncio_cancels(executor: Executor) -> None:
    """Who cancels what awaits a waiting task cancels the task."""
    future = executor.using(delay=60).submit(abs, -1)

    async def main() -> None:
        awaiting = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        awaiting.cancel()
        await asyncio.wait([awaiting])

    asyncio.run(main())
    assert future.cancelled() and state_of(future) == "cancelled"


# While it is submitted


class Cancelling:
    """An argument that has its own task cancelled when it is pickled."""

    def __init__(self, act: t.Callable[[], object]) -> None:
        self.act = act

    def __reduce__(self) -> t.Any:
        self.act()
        return str, ()


@pytest.mark.holds("g-key-first")
def test_cancelled_by_key_while_it_is_submitted(app: Flask) -> None:
    """One that is cancelled through its key, before submit returns, does not run,
    whether its arguments are being serialized or its receivers are being told.
    """
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    answers: list[object] = []

    def cancel(*_: object, **__: object) -> None:
        answers.append(executor.futures.cancel("key"))

    with Journal(app) as journal, task_submitted.connected_to(cancel, app):
        future = executor.submit_stored(
            "key",
            control_app.pid,
            Cancelling(cancel),  # type: ignore[call-arg]
        )
        wait([future], LIMIT)
    assert executor.submit(control_app.pid).result(LIMIT)
    assert answers == [True, True] and future.cancelled()
    assert journal.of(future.task) == ["submitted", "cancelled"]
    executor.shutdown()


def test_shut_down_while_it_is_submitted(app: Flask) -> None:
    """A task that a shutdown meets half-way is refused, or cancelled: never lost."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    shut = Cancelling(lambda: executor.shutdown(wait=False, cancel_futures=True))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.using(key="key", delay=5).submit(t.cast(t.Any, control_app.pid), shut)
    assert "key" not in executor.futures
    executor.shutdown(wait=True)


def test_cancelled_by_a_receiver(app: Flask, executor: Executor) -> None:
    """A receiver of task_submitted may cancel: nothing runs, no timer is left."""
    clock = with_clock(executor)

    def cancel(sender: Flask, task: t.Any) -> None:
        task.future.cancel()

    with Journal(app) as journal:
        signals.task_submitted.connect(cancel, sender=app)
        try:
            futures = [
                executor.submit(abs, -1),
                executor.using(delay=60).submit(abs, -1),
                executor.using(priority=5, timeout=5).submit(abs, -1),
            ]
        finally:
            signals.task_submitted.disconnect(cancel)
    executor.shutdown()
    for future in futures:
        assert future.cancelled() and state_of(future) == "cancelled"
        assert journal.of(future.task) == ["submitted", "cancelled"]
    assert clock.is_idle


# What runs


@pytest.mark.holds("g-request-cancel")
def test_a_thread_that_asks(app: Flask, executor: Executor) -> None:
    """It sees that it is to stop, and its future is cancelled once it has."""
    asked, began = threading.Event(), threading.Event()

    def run() -> None:
        began.set()
        asked.wait(LIMIT)
        assert current_task.cancel_requested
        current_task.raise_if_cancelled()

    with Journal(app) as journal:
        future = executor.submit(run)
        assert began.wait(LIMIT)
        assert not future.cancel()
        assert future.request_cancel()
        task = future.task
        assert task is not None and task.cancel_requested
        assert future.running() and state_of(future) == "running"
        asked.set()
        with pytest.raises(CancelledError):
            future.result(LIMIT)
    assert future.cancelled() and state_of(future) == "cancelled"
    assert journal.of(task) == ["submitted", "started", "cancelled"]


def test_raise_if_cancelled_without_need(executor: Executor) -> None:
    """Where nobody asked, it does nothing."""

    def run() -> bool:
        current_task.raise_if_cancelled()
        return current_task.cancel_requested

    assert executor.submit(run).result(LIMIT) is False


def test_track_stops(executor: Executor) -> None:
    """track() stops between two items where the task was asked to."""
    began, asked = threading.Event(), threading.Event()
    seen: list[int] = []

    def run() -> None:
        for n in current_task.track(range(10)):
            seen.append(n)
            if n == 2:
                began.set()
                asked.wait(LIMIT)

    future = executor.submit(run)
    assert began.wait(LIMIT)
    assert future.request_cancel()
    asked.set()
    wait([future], LIMIT)
    assert future.cancelled() and seen == [0, 1, 2]


def test_one_that_returns_all_the_same(
    executor: Executor, gate: threading.Event
) -> None:
    """A run that does not ask has its result, or its failure."""
    began = threading.Semaphore(0)

    def run(n: int) -> float:
        began.release()
        gate.wait(LIMIT)
        return 1 / n

    good, bad = executor.submit(run, 1), executor.submit(run, 0)
    assert began.acquire(timeout=LIMIT) and began.acquire(timeout=LIMIT)
    assert good.request_cancel() and bad.request_cancel()
    gate.set()
    assert good.result(LIMIT) == 1.0 and state_of(good) == "succeeded"
    assert isinstance(bad.exception(LIMIT), ZeroDivisionError)
    assert state_of(bad) == "failed"


def test_one_that_was_asked_is_not_tried_again(
    executor: Executor, gate: threading.Event
) -> None:
    """What it raises on its way out, whatever it is, is the end."""
    began = threading.Event()

    def run() -> None:
        began.set()
        gate.wait(LIMIT)
        raise OSError("in the middle of something")

    future = executor.using(retry=Retry(delay=0)).submit(run)
    assert began.wait(LIMIT)
    assert future.request_cancel()
    gate.set()
    assert isinstance(future.exception(LIMIT), OSError)
    assert future.task is not None and future.task.attempt == 1


def test_asked_while_it_fails(app: Flask, executor: Executor) -> None:
    """A request that comes as an attempt has just failed is heeded."""
    clock = with_clock(executor)
    answers: list[bool] = []

    def ask(sender: Flask, task: t.Any, **facts: t.Any) -> None:
        answers.append(task.future.request_cancel())

    signals.task_retrying.connect(ask, sender=app)
    try:
        future = executor.using(retry=Retry(delay=60)).submit(divmod, 1, 0)
        wait([future], LIMIT)
    finally:
        signals.task_retrying.disconnect(ask)
    executor.shutdown()
    assert answers == [True] and future.cancelled() and clock.is_idle


@pytest.mark.holds("g-request-cancel")
def test_a_coroutine(app: Flask, executor: Executor) -> None:
    """It is cancelled at its await, and cleans up first."""
    began = threading.Event()
    order: list[str] = []

    async def run() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("cleaned up")

    with Journal(app) as journal:
        future = executor.submit(run)
        future.add_done_callback(lambda future: order.append("done"))
        assert began.wait(LIMIT)
        assert not future.cancel()
        assert future.request_cancel()
        wait([future], LIMIT)
        executor.shutdown()
    assert future.cancelled() and order == ["cleaned up", "done"]
    assert journal.of(future.task) == ["submitted", "started", "cancelled"]


def test_a_coroutine_that_will_not_stop(executor: Executor) -> None:
    """One that goes on all the same has its result."""
    began = threading.Event()

    async def run() -> str:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "went on"

    future = executor.submit(run)
    assert began.wait(LIMIT)
    assert future.request_cancel()
    assert future.result(LIMIT) == "went on" and state_of(future) == "succeeded"


def test_a_coroutine_in_its_first_step(executor: Executor) -> None:
    """One that was begun and has not run a step is cancelled likewise."""
    ended: list[str] = []

    async def second() -> None:
        ended.append("second ran")

    async def first() -> None:
        other = executor.submit(second)
        other.request_cancel()
        await asyncio.wait([asyncio.ensure_future(asyncio.wrap_future(other))])
        ended.append("cancelled" if other.cancelled() else "not")

    executor.submit(first).result(LIMIT)
    assert ended[-1] == "cancelled"


@pytest.mark.parametrize("limit", [None, 1])
def test_a_coroutine_before_its_first_step(
    app: Flask, executor: Executor, limit: int | None
) -> None:
    """One that a receiver of task_started asks to stop does not run a line; its limit
    has room for the next one.
    """
    ran: list[int] = []

    @executor.job(max_concurrency=limit)
    async def run(number: int) -> None:
        ran.append(number)

    def ask(sender: Flask, task: t.Any) -> None:
        task.future.request_cancel()

    with signals.task_started.connected_to(ask, sender=app):
        asked = run.submit(1)
        wait([asked], LIMIT)
    assert asked.cancelled()
    run.submit(2).result(LIMIT)
    assert ran == [2]


def test_thousands_of_coroutines(executor: Executor) -> None:
    """All of them stop, and the loop goes on."""

    async def run() -> None:
        await asyncio.Event().wait()

    futures = [executor.submit(run) for _ in range(3000)]
    assert all(future.request_cancel() for future in futures)
    assert not wait(futures, LIMIT).not_done
    assert all(future.cancelled() for future in futures)


@pytest.mark.parametrize("name", ["until_stopped", "track"])
@pytest.mark.holds("g-request-cancel")
def test_a_process(app: Flask, door: Door, name: str) -> None:
    """Code in a worker process sees the request, and its worker lives on."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    pid = executor.submit(control_app.pid).result(LIMIT)
    with Journal(app) as journal:
        future = executor.submit(getattr(control_app, name), door.port)
        door.reached()
        assert not future.cancel() and future.request_cancel()
        wait([future], LIMIT)
    assert future.cancelled()
    order = [entry for entry in journal.of(future.task) if entry != "progressed"]
    assert order == ["submitted", "started", "cancelled"]
    assert executor.submit(control_app.pid).result(LIMIT) == pid
    executor.shutdown()


def test_the_next_call_of_a_process_was_not_asked(app: Flask, door: Door) -> None:
    """A request that was not heeded does not reach the next call of the worker."""
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    future = executor.submit(control_app.wait_at, door.port)
    door.reached()
    assert future.request_cancel()
    door.open()
    assert future.result(LIMIT) == b"x"
    later = executor.submit(control_app.until_asked, door.port)
    door.reached()
    door.open()
    assert later.result(LIMIT) == "was let go on"
    executor.shutdown()


def test_in_sync(app: Flask) -> None:
    """A call that runs in submit can ask itself to stop, or be asked by key."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)

    def run() -> None:
        assert executor.futures.request_cancel("key")
        current_task.raise_if_cancelled()

    assert executor.submit_stored("key", run).cancelled()


def test_stopping_by_itself(executor: Executor) -> None:
    """A task that raises TaskCancelled has stopped, whoever asked."""

    def run() -> None:
        raise TaskCancelled(current_task.name)

    future = executor.submit(run)
    wait([future], LIMIT)
    assert future.cancelled()


def test_another_tasks_cancellation_is_a_failure(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for a task that was cancelled, and lets it through, has failed."""
    other = executor.using(delay=60).submit(abs, -1)
    other.cancel()
    future = executor.submit(other.result)
    assert isinstance(future.exception(LIMIT), CancelledError)
    assert state_of(future) == "failed"
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


# Races, and what is left behind


@pytest.mark.holds("g-cancelled")
def test_cancelling_as_it_begins(app: Flask, executor: Executor) -> None:
    """Whoever wins, a cancelled task has not run, and one that ran is not cancelled."""
    ran: set[int] = set()
    futures: list[TaskFuture[t.Any]] = []
    done = threading.Event()

    def cancel() -> None:
        seen = 0
        while not done.is_set() or seen < len(futures):
            if seen < len(futures):
                futures[seen].cancel()
                seen += 1

    cancellers = [threading.Thread(target=cancel) for _ in range(2)]
    with Journal(app) as journal:
        for canceller in cancellers:
            canceller.start()
        for n in range(1500):
            futures.append(executor.submit(ran.add, n))
        done.set()
        for canceller in cancellers:
            canceller.join(LIMIT)
        assert not wait(futures, LIMIT).not_done
    cancelled = {n for n, future in enumerate(futures) if future.cancelled()}
    assert cancelled.isdisjoint(ran) and len(cancelled) + len(ran) == 1500
    ends = [
        name for name, _, _ in journal.entries if name in ("cancelled", "succeeded")
    ]
    assert ends.count("cancelled") == len(cancelled) and len(ends) == 1500


@pytest.mark.holds("g-cancelled")
def test_requests_as_it_ends(executor: Executor) -> None:
    """A request at any moment is answered, and the task ends once."""
    stop = threading.Event()
    futures: list[TaskFuture[t.Any]] = []

    async def run() -> None:
        await asyncio.sleep(0)

    def ask() -> None:
        while not stop.is_set():
            for future in futures[-20:]:
                future.request_cancel()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for n in range(1000):
            view = executor.using(retry=Retry(delay=0)) if n % 2 else executor
            futures.append(view.submit(run if n % 3 else current_and_check))
        assert not wait(futures, LIMIT).not_done
    finally:
        stop.set()
        asking.join(LIMIT)
    assert {state_of(future) for future in futures} <= {"succeeded", "cancelled"}


def current_and_check() -> None:
    current_task.raise_if_cancelled()


@pytest.mark.parametrize("how", ["line", "delay", "run"])
def test_references_are_dropped(
    app: Flask, executor: Executor, gate: threading.Event, how: str
) -> None:
    """Nothing refers to what a cancelled task was to work on."""
    one_worker(app)
    secret = Secret()
    ref = weakref.ref(secret)
    began = threading.Event()

    def run(secret: Secret) -> None:
        began.set()
        gate.wait(LIMIT)
        current_task.raise_if_cancelled()

    if how == "line":
        occupy(executor, gate)
    view = executor.using(delay=60) if how == "delay" else executor
    future = view.submit(run, secret)
    del secret
    if how == "run":
        assert began.wait(LIMIT)
    future.request_cancel()
    if how == "run":
        gate.set()
    wait([future], LIMIT)
    assert future.cancelled()
    if how == "run":
        executor.submit(abs, 1).result(LIMIT)  # its worker has let go of it
    gc.collect()
    assert ref() is None


def test_map_is_left(app: Flask, executor: Executor, gate: threading.Event) -> None:
    """Closing a map cancels what has not begun, delayed ones too."""
    clock = with_clock(executor)
    results = executor.using(delay=60).map(abs, range(10))
    t.cast(t.Any, results).close()
    # A generator that was not begun closes without running: so begin one.
    results = executor.using(delay=60, timeout=5).map(abs, range(10), timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    clock.advance(60)
    executor.shutdown(cancel_futures=True)
    assert clock.is_idle
