"""Timeouts, honestly: what happens at the deadline, on each pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import pickle
import threading
import typing as t
import weakref

import control_app
import pytest
from control import Door, Journal, with_clock
from flask import Flask, g
from limits import LIMIT

from flask_executor import Executor, Retry, TaskTimeout, current_task

SHORT = 0.05
"""Seconds, of a real clock."""


class Secret:
    """Something whose end can be seen."""


@pytest.fixture
def door() -> t.Iterator[Door]:
    door = Door()
    yield door
    door.close()


def stuck_in(gate: threading.Event) -> str:
    gate.wait(LIMIT)
    return "late"


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


# Threads


@pytest.mark.holds("g-timeout")
def test_a_thread_that_overruns(
    executor: Executor, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The future ends at the deadline; the run goes on, and the task says so."""
    clock = with_clock(executor)
    future = executor.using(timeout=5, name="slow", key=7).submit(stuck_in, gate)
    clock.armed()
    clock.advance(4.9)
    assert future.running()
    clock.advance(0.1)
    error = future.exception(0)
    assert type(error) is TaskTimeout and isinstance(error, TimeoutError)
    assert (error.name, error.limit) == ("slow", 5.0)
    assert "slow ran for longer than its timeout of 5 seconds" in str(error)
    task = future.task
    assert task is not None
    assert (task.state, task.overrun, task.cancel_requested) == (
        "timed_out",
        True,
        True,
    )
    assert task.finished_at is not None and not future.cancelled()
    clock.advance(2)
    gate.set()
    executor.shutdown()
    assert not task.overrun and task.state == "timed_out"
    with pytest.raises(TaskTimeout):
        future.result(0)
    (logged,) = messages(caplog)
    assert logged.startswith("Task slow (key 7) ran into its timeout of 5 seconds")
    (late,) = messages(caplog, logging.WARNING)
    assert late == "Task slow (key 7) has returned, 2 seconds after its timeout"


def test_the_log_shows_where_it_is_stuck(
    executor: Executor, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The stack of the stuck thread is in the log, down to where the code waits."""
    executor.using(timeout=SHORT).submit(stuck_in, gate).exception(LIMIT)
    (logged,) = messages(caplog)
    assert "and goes on at:\n" in logged
    assert "in stuck_in\n    gate.wait(LIMIT)" in logged and "in wait" in logged


@pytest.mark.holds("g-overrun")
def test_its_slot_is_not_given_away(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """The worker is taken until the run returns: no more run at once than allowed."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    slow = executor.using(timeout=SHORT).submit(stuck_in, gate)
    assert isinstance(slow.exception(LIMIT), TaskTimeout)
    waiting = executor.submit(abs, -1)
    assert waiting.task is not None and waiting.task.state == "waiting"
    assert len(executor._threads) == 1
    gate.set()
    assert waiting.result(LIMIT) == 1


def test_its_place_in_the_job_is_not_given_away(
    executor: Executor, gate: threading.Event
) -> None:
    """max_concurrency counts a run that goes on after its timeout."""
    began: list[int] = []

    @executor.job(max_concurrency=1)
    def limited(n: int) -> None:
        began.append(n)
        gate.wait(LIMIT)

    slow = limited.using(timeout=SHORT).submit(1)
    assert isinstance(slow.exception(LIMIT), TaskTimeout)
    other = limited.submit(2)
    for _ in range(20):
        executor.submit(abs, 1).result(LIMIT)
    assert began == [1]
    gate.set()
    other.result(LIMIT)
    assert began == [1, 2]


@pytest.mark.holds("g-overrun")
def test_code_can_ask(executor: Executor) -> None:
    """Code sees its deadline coming, and that it is over; what it raises is dropped."""
    clock = with_clock(executor)
    began, over, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[t.Any] = []

    def ask() -> None:
        seen.extend([current_task.deadline, current_task.remaining()])
        began.set()
        over.wait(LIMIT)
        seen.extend([current_task.remaining(), current_task.cancel_requested])
        try:
            current_task.raise_if_cancelled()
        finally:
            ended.set()

    future = executor.using(timeout=3).submit(ask)
    assert began.wait(LIMIT)
    clock.advance(4)
    over.set()
    assert ended.wait(LIMIT)
    executor.shutdown()
    assert seen == [3.0, 3.0, -1.0, True]
    assert future.task is not None and future.task.state == "timed_out"
    assert isinstance(future.exception(0), TaskTimeout)


def test_a_timeout_of_ones_own(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A TimeoutError that the task raises is passed on: it failed, as others do."""

    def own() -> None:
        raise TimeoutError("the server did not answer")

    future = executor.using(timeout=LIMIT).submit(own)
    error = future.exception(LIMIT)
    assert type(error) is TimeoutError and str(error) == "the server did not answer"
    assert future.task is not None and future.task.state == "failed"
    assert [message.endswith("failed") for message in messages(caplog)] == [True]


def test_a_timeout_of_a_child(executor: Executor, gate: threading.Event) -> None:
    """The TaskTimeout of another task is an error like any other."""

    def parent() -> None:
        executor.using(timeout=SHORT, name="child").submit(stuck_in, gate).result()

    future = executor.using(timeout=LIMIT, name="parent").submit(parent)
    error = future.exception(LIMIT)
    assert isinstance(error, TaskTimeout) and error.name == "child"
    assert future.task is not None and future.task.state == "failed"


def test_waiting_with_a_limit_is_not_a_timeout(
    executor: Executor, gate: threading.Event
) -> None:
    """result(timeout) that is over says nothing of the task."""
    future = executor.submit(stuck_in, gate)
    with pytest.raises(TimeoutError) as info:
        future.result(0.01)
    assert not isinstance(info.value, TaskTimeout) and not future.done()
    gate.set()
    assert future.result(LIMIT) == "late"


def test_in_time(executor: Executor) -> None:
    """A task that ends in time leaves nothing behind: its timer is cancelled."""
    clock = with_clock(executor)
    for number in range(300):
        assert executor.using(timeout=5).submit(abs, -number).result(LIMIT) == number
    executor.using(timeout=5).submit(divmod, 1, 0).exception(LIMIT)
    executor.shutdown()
    assert clock.is_idle
    clock.advance(10)


@pytest.mark.holds("g-timeout")
def test_the_time_of_the_run_counts(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Waiting for a worker is no part of it."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    clock = with_clock(executor)
    executor.submit(stuck_in, gate)
    future = executor.using(timeout=5).submit(abs, -1)
    clock.advance(60)
    gate.set()
    assert future.result(LIMIT) == 1


def test_the_configured_timeout(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """EXECUTOR_TIMEOUT holds for every task that does not say otherwise."""
    app.config["EXECUTOR_TIMEOUT"] = str(SHORT)
    slow = executor.submit(stuck_in, gate)
    assert isinstance(slow.exception(LIMIT), TaskTimeout)
    free = executor.using(timeout=None).submit(stuck_in, gate)
    gate.set()
    assert free.result(LIMIT) == "late"


def test_references_go_with_the_run(executor: Executor, gate: threading.Event) -> None:
    """After the deadline the future keeps nothing of the call but its error; after the
    late return nothing is left at all.
    """
    returned = threading.Event()

    def slow(secret: Secret) -> Secret:
        gate.wait(LIMIT)
        returned.set()
        return secret

    secret = Secret()
    ref = weakref.ref(secret)
    future = executor.using(timeout=SHORT).submit(slow, secret)
    del secret
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    assert future.task is not None
    assert future.task._call is None and future.task.future is None
    gate.set()
    executor.shutdown()
    gc.collect()
    assert returned.is_set() and ref() is None


def test_contexts_of_a_late_run(executor: Executor, gate: threading.Event) -> None:
    """A run that goes on has its context to the end; teardown comes when it returns."""
    torn: list[t.Any] = []
    app = executor._last_app
    assert app is not None

    @app.teardown_appcontext
    def note(error: BaseException | None) -> None:
        torn.append(g.get("name"))

    def slow() -> None:
        g.name = "late"
        gate.wait(LIMIT)

    executor.using(timeout=SHORT).submit(slow).exception(LIMIT)
    assert "late" not in torn
    gate.set()
    executor.shutdown()
    assert torn.count("late") == 1


def test_a_receiver_that_is_slow_to_hear_of_the_start(executor: Executor) -> None:
    """A deadline that comes before the code was reached costs no worker."""
    for _ in range(50):
        future = executor.using(timeout=1e-9).submit(abs, -1)
        assert future.exception(LIMIT) is None or isinstance(
            future.exception(), TaskTimeout
        )
    assert executor.submit(abs, -1).result(LIMIT) == 1
    executor.shutdown()
    assert not executor._state().dispatcher.table.late


def test_many_timeouts_and_ends_at_once(
    app: Flask, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Where deadline and end race, one of them wins, and nobody is left behind."""
    with Journal(app) as journal:
        view = executor.using(timeout=0.002)
        futures = [view.submit(sum, range(n * 40)) for n in range(400)]
        concurrent.futures.wait(futures, LIMIT)
        executor.shutdown()
    for future in futures:
        task = future.task
        assert task is not None and not task.overrun
        failed = isinstance(future.exception(0), TaskTimeout)
        assert task.state == ("timed_out" if failed else "succeeded")
        *_, last = journal.of(task)
        assert last == ("timed-out" if failed else "succeeded")
    assert not executor._state().dispatcher.table.late


def test_log_exceptions_off(
    app: Flask,
    executor: Executor,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where failures are not logged, timeouts are not."""
    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    executor.using(timeout=SHORT).submit(stuck_in, gate).exception(LIMIT)
    assert messages(caplog) == []


@pytest.mark.holds("g-shutdown")
def test_shutdown_waits_for_an_overrun(
    executor: Executor, gate: threading.Event
) -> None:
    """A shutdown that waits returns when the run has, too."""
    ended = threading.Event()

    def slow() -> None:
        gate.wait(LIMIT)
        ended.set()

    executor.using(timeout=SHORT).submit(slow).exception(LIMIT)
    closing = threading.Thread(target=executor.shutdown)
    closing.start()
    assert not ended.is_set()
    gate.set()
    closing.join(LIMIT)
    assert ended.is_set() and not closing.is_alive()


def test_callbacks_of_a_timeout(executor: Executor, gate: threading.Event) -> None:
    """Done-callbacks run at the deadline, and may shut the executor down."""
    heard: list[t.Any] = []
    done = threading.Event()

    def heard_it(future: t.Any) -> None:
        heard.append(future.exception())
        executor.shutdown()  # on the timer's thread, which delayed tasks need
        done.set()

    delayed = executor.using(delay=SHORT * 2).submit(abs, -1)
    future = executor.using(timeout=SHORT).submit(stuck_in, gate)
    future.add_done_callback(heard_it)
    assert done.wait(LIMIT)
    assert isinstance(heard[0], TaskTimeout)
    gate.set()
    assert delayed.result(LIMIT) == 1


# Coroutines


@pytest.mark.holds("g-timeout")
def test_a_coroutine_is_cancelled(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """At the deadline it is cancelled where it waits; nothing of it goes on."""
    cleaned = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    future = executor.using(timeout=SHORT, name="slow").submit(slow)
    error = future.exception(LIMIT)
    assert isinstance(error, TaskTimeout) and error.limit == SHORT
    assert cleaned.wait(LIMIT)
    task = future.task
    assert task is not None
    assert (task.state, task.overrun) == ("timed_out", False)
    assert messages(caplog) == ["Task slow ran into its timeout of 0.05 seconds"]


def test_a_coroutine_that_has_a_timeout_of_its_own(executor: Executor) -> None:
    """asyncio.timeout inside raises TimeoutError, which is the task's own."""

    async def slow() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    future = executor.using(timeout=LIMIT).submit(slow)
    assert type(future.exception(LIMIT)) is TimeoutError
    assert future.task is not None and future.task.state == "failed"


def test_a_coroutine_that_will_not_stop(executor: Executor) -> None:
    """Its future ends at the deadline all the same; its result is dropped."""
    release: list[t.Any] = []
    stubborn = threading.Event()

    async def slow() -> str:
        event = asyncio.Event()
        release.append((asyncio.get_running_loop(), event))
        try:
            await event.wait()
        except asyncio.CancelledError:
            stubborn.set()
            await event.wait()
        return "late"

    future = executor.using(timeout=SHORT).submit(slow)
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    assert stubborn.wait(LIMIT)
    ((loop, event),) = release
    loop.call_soon_threadsafe(event.set)
    executor.shutdown()
    assert future.task is not None and future.task.state == "timed_out"


@pytest.mark.holds("g-attempts")
def test_a_coroutine_tried_again_after_its_timeout(
    app: Flask, executor: Executor
) -> None:
    """The next attempt begins when the one before has really ended."""
    order: list[str] = []

    async def slow() -> int:
        attempt = current_task.attempt
        order.append(f"begin {attempt}")
        assert not current_task.cancel_requested
        if attempt < 3:
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                order.append(f"end {attempt}")
        return attempt

    retry = Retry(delay=0, on=TaskTimeout)
    with Journal(app) as journal:
        future = executor.using(timeout=SHORT, retry=retry).submit(slow)
        assert future.result(LIMIT) == 3
    assert order == ["begin 1", "end 1", "begin 2", "end 2", "begin 3"]
    assert [type(facts["error"]) for facts in journal.facts("retrying")] == [
        TaskTimeout,
        TaskTimeout,
    ]
    assert journal.of(future.task)[-1] == "succeeded"


def test_a_coroutine_that_runs_into_its_last_timeout(
    app: Flask, executor: Executor
) -> None:
    """After the last attempt it has timed out, as without a retry."""

    async def slow() -> None:
        await asyncio.Event().wait()

    retry = Retry(attempts=2, delay=0, on=TaskTimeout)
    with Journal(app) as journal:
        future = executor.using(timeout=SHORT, retry=retry).submit(slow)
        assert isinstance(future.exception(LIMIT), TaskTimeout)
    assert future.task is not None
    assert (future.task.state, future.task.attempt) == ("timed_out", 2)
    assert journal.of(future.task) == [
        *("submitted", "started", "retrying", "started", "timed-out"),
    ]


def test_tiny_timeouts_of_coroutines(executor: Executor) -> None:
    """Deadlines that come at the start cost the event loop nothing."""

    async def quick(n: int) -> int:
        await asyncio.sleep(0)
        return n

    futures = [
        executor.using(timeout=1e-6 * (n + 1)).submit(quick, n) for n in range(200)
    ]
    plain = [executor.submit(quick, n) for n in range(200)]
    assert [future.result(LIMIT) for future in plain] == [*range(200)]
    for n, future in enumerate(futures):
        error = future.exception(LIMIT)
        assert isinstance(error, TaskTimeout) or future.result() == n


def test_waiting_from_a_coroutine(executor: Executor) -> None:
    """await future raises the TaskTimeout of what it waits for."""

    async def slow() -> None:
        await asyncio.Event().wait()

    async def parent() -> str:
        try:
            await executor.using(timeout=SHORT, name="child").submit(slow)
        except TaskTimeout as error:
            return error.name
        return ""

    assert executor.submit(parent).result(LIMIT) == "child"


# Worker processes


@pytest.fixture
def processes(app: Flask) -> t.Iterator[Executor]:
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    executor.submit(control_app.pid).result(LIMIT)  # its worker is there
    yield executor
    executor.shutdown()


@pytest.mark.holds("g-timeout", "g-overrun")
def test_a_process_that_overruns(
    processes: Executor, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """As a thread: it goes on, keeps its worker, and is heard of when it returns."""
    pid = processes.submit(control_app.pid).result(LIMIT)
    view = processes.using(timeout=0.2, name="slow")
    future = view.submit(control_app.wait_and_return, door.port, 1)
    door.reached()
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    task = future.task
    assert task is not None and task.overrun and task.state == "timed_out"
    waiting = processes.submit(control_app.pid)
    assert not waiting.done()
    door.open()
    assert waiting.result(LIMIT) == pid
    assert not task.overrun
    (late,) = [m for m in messages(caplog, logging.WARNING) if "returned" in m]
    assert late.startswith("Task slow has returned, ")


def test_code_in_a_process_can_ask(processes: Executor, door: Door) -> None:
    """It sees that its deadline is over, and may stop."""
    future = processes.using(timeout=0.2).submit(control_app.until_stopped, door.port)
    door.reached()
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    assert processes.submit(control_app.pid).result(LIMIT)
    assert future.task is not None and future.task.state == "timed_out"


def test_remaining_in_a_process(processes: Executor) -> None:
    """The deadline is there, on the worker's clock."""
    *_, remaining = (
        processes.using(timeout=LIMIT).submit(control_app.known).result(LIMIT)
    )
    assert 0 < remaining <= LIMIT
    assert processes.submit(control_app.known).result(LIMIT)[-1] is None


def test_tiny_timeouts_on_processes(processes: Executor) -> None:
    """A deadline before the call is sent kills no worker."""
    pid = processes.submit(control_app.pid).result(LIMIT)
    for _ in range(20):
        error = processes.using(timeout=1e-9).submit(control_app.pid).exception(LIMIT)
        assert error is None or isinstance(error, TaskTimeout)
    assert processes.submit(control_app.pid).result(LIMIT) == pid


# Sync


def test_a_timeout_in_sync(
    app: Flask, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """submit returns when the call does; the future has ended at the deadline."""
    app.config["EXECUTOR_TYPE"] = "sync"
    executor = Executor(app)
    clock = with_clock(executor)

    def slow() -> str:
        clock.advance(6)
        return "late"

    future = executor.using(timeout=5).submit(slow)
    assert isinstance(future.exception(0), TaskTimeout)
    assert future.task is not None
    assert (future.task.state, future.task.overrun) == ("timed_out", False)
    assert "in slow" in messages(caplog)[0]
    assert "1 seconds after" in messages(caplog, logging.WARNING)[0]


def test_it_pickles() -> None:
    """A TaskTimeout travels with its facts."""
    copy = pickle.loads(pickle.dumps(TaskTimeout("slow", 2.5)))
    assert (copy.name, copy.limit) == ("slow", 2.5)
    assert str(copy) == str(TaskTimeout("slow", 2.5)) and "2.5 seconds" in str(copy)


def test_a_thread_is_never_interrupted(executor: Executor) -> None:
    """Nothing is raised into the code: it runs on as it would have."""
    began, over, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[object] = []

    def slow() -> None:
        began.set()
        try:
            over.wait(LIMIT)
            for n in range(1000):
                seen.append(n)
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            ended.set()

    future = executor.using(timeout=SHORT).submit(slow)
    assert isinstance(future.exception(LIMIT), TaskTimeout)
    over.set()
    assert ended.wait(LIMIT)
    assert seen == [*range(1000)]
