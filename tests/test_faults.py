"""Nothing that people hand in, and no thread that cannot be started, leaves a future
without an end.
"""

from __future__ import annotations

import asyncio
import threading
import typing as t
from datetime import UTC, datetime, timedelta, timezone

import pytest
from control import occupy
from flask import Flask, current_app
from limits import LIMIT
from moments import Meanwhile
from werkzeug.local import LocalProxy

from flask_executor import Executor, InvalidOption, QueueFull, Retry, current_task
from flask_executor.errors import TaskTimeout
from flask_executor.signals import task_timed_out


def assert_tidy(executor: Executor) -> None:
    """Nothing is left that a shutdown would wait for."""
    Meanwhile(executor.shutdown).result()


@pytest.fixture
def no_timer_threads(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    """Let no thread start for a timer, as at the limit of processes."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "timer" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    yield
    monkeypatch.undo()


def test_a_proxy_as_callable(app: Flask, executor: Executor) -> None:
    """A LocalProxy of a function runs, and its worker goes on; where the task has
    ended, the proxy leads nowhere any more.
    """
    app.config.update(EXECUTOR_MAX_WORKERS=1, FUNCTION=abs)
    with app.app_context():
        proxy = LocalProxy(lambda: current_app.config["FUNCTION"])
        future = executor.submit(proxy, -1)
    assert future.result(LIMIT) == 1
    assert executor.submit(abs, -2).result(LIMIT) == 2


def test_a_proxy_of_nothing(executor: Executor) -> None:
    """A LocalProxy that cannot be resolved where it runs fails its task alone."""

    def nothing() -> t.NoReturn:
        raise RuntimeError("there is nothing")

    future = executor.submit(LocalProxy(nothing))
    with pytest.raises(RuntimeError, match="there is nothing"):
        future.result(LIMIT)
    assert executor.submit(abs, -2).result(LIMIT) == 2


def test_a_delay_without_a_thread(
    executor: Executor, no_timer_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread for the timer, submit raises and leaves no trace; the next one
    starts it.
    """
    with pytest.raises(RuntimeError, match="can't start new thread"):
        executor.using(delay=0.001).submit(abs, -1)
    monkeypatch.undo()
    assert executor.using(delay=0.001).submit(abs, -1).result(LIMIT) == 1
    assert_tidy(executor)


def test_a_timeout_without_a_thread(
    executor: Executor, no_timer_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread for the timer, a task with a timeout ends, and so does the
    next one.
    """
    with pytest.raises(RuntimeError, match="can't start new thread"):
        executor.using(timeout=LIMIT).submit(abs, -1).result(LIMIT)
    monkeypatch.undo()
    assert executor.using(timeout=LIMIT).submit(abs, -1).result(LIMIT) == 1
    assert_tidy(executor)


def test_a_pause_without_a_thread(executor: Executor, no_timer_threads: None) -> None:
    """Without a thread for the timer, a task that is to be tried again ends."""
    future = executor.using(retry=Retry(attempts=2, delay=1)).submit(divmod, 1, 0)
    assert future.exception(LIMIT) is not None
    assert executor.submit(abs, -1).result(LIMIT) == 1
    assert_tidy(executor)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> t.Callable[[], None]:
    """A function from whose call on no thread starts, as at the limit of processes."""

    def refuse(thread: threading.Thread) -> t.NoReturn:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


def test_a_pool_without_a_thread(
    executor: Executor,
    no_threads: t.Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without any thread submit raises and leaves no trace; the next one starts one."""
    no_threads()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        executor.submit(abs, -1)
    monkeypatch.undo()
    assert executor.submit(abs, -1).result(LIMIT) == 1
    assert_tidy(executor)


def test_an_event_loop_without_a_thread(
    executor: Executor,
    no_threads: t.Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a thread for coroutines submit raises, leaves no trace and no loop open;
    the next one starts it.
    """
    no_threads()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        executor.submit(asyncio.sleep, 0)
    monkeypatch.undo()
    assert executor.submit(asyncio.sleep, 0, 1).result(LIMIT) == 1
    assert_tidy(executor)


def test_a_pool_with_fewer_threads_than_it_may_have(
    executor: Executor, gate: threading.Event, no_threads: t.Callable[[], None]
) -> None:
    """What is submitted then waits for a thread that there is."""
    occupy(executor, gate)
    no_threads()
    future = executor.submit(abs, -1)
    gate.set()
    assert future.result(LIMIT) == 1


@pytest.fixture
def one_worker(app: Flask, executor: Executor) -> Executor:
    """The executor with one thread for calls and one for coroutines, both started."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    async def nothing() -> None: ...

    executor.submit(executor.submit, nothing).result(LIMIT).result(LIMIT)
    return executor


def test_a_wait_without_a_helper_thread(
    one_worker: Executor, no_threads: t.Callable[[], None]
) -> None:
    """A worker whose code waits runs what it waits for if nobody else can."""
    no_threads()
    future = one_worker.submit(lambda: one_worker.submit(abs, -1).result(LIMIT))
    assert future.result(LIMIT) == 1


def test_nobody_can_run_what_is_awaited(
    one_worker: Executor,
    no_threads: t.Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task for which all workers wait fails if no thread can run it; nobody hangs."""

    slots = one_worker._state().dispatcher.pool._slots

    async def awaits() -> int:
        while not slots._lent:  # otherwise the thread that waits could run it
            await asyncio.sleep(0.001)
        return await one_worker.submit(abs, -1)

    no_threads()
    future = one_worker.submit(lambda: one_worker.submit(awaits).result(LIMIT))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        future.result(LIMIT)
    monkeypatch.undo()
    assert one_worker.submit(abs, -1).result(LIMIT) == 1
    assert_tidy(one_worker)


class Policy(Retry):
    """Says what it is told to."""

    says: t.ClassVar[t.Any] = None

    def pause_after(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.mark.parametrize(
    "says", [RuntimeError("policy"), "nonsense", object(), float("nan"), float("inf")]
)
@pytest.mark.parametrize("is_coroutine", [False, True])
def test_a_policy_that_says_nonsense(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, says: t.Any, is_coroutine: bool
) -> None:
    """Whatever a retry policy says or raises, the task ends as it failed."""
    monkeypatch.setattr(Policy, "says", says)

    async def fail() -> None:
        raise ZeroDivisionError

    fn: t.Any = fail if is_coroutine else (lambda: 1 // 0)
    future = executor.using(retry=Policy(attempts=3)).submit(fn)
    with pytest.raises(ZeroDivisionError):
        future.result(LIMIT)
    assert executor.submit(abs, -1).result(LIMIT) == 1


def test_a_policy_that_says_a_timedelta(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry policy may give its pause as a timedelta."""
    monkeypatch.setattr(Policy, "says", timedelta(milliseconds=1))

    def fail_once() -> int:
        if current_task.attempt == 1:
            raise OSError
        return current_task.attempt

    future = executor.using(retry=Policy(attempts=3)).submit(fail_once)
    assert future.result(LIMIT) == 2


def test_a_rejected_submit_leaves_no_trace(
    app: Flask, executor: Executor, gate: threading.Event, no_timer_threads: None
) -> None:
    """What was refused does not count among those that wait."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    app.config["EXECUTOR_MAX_PENDING"] = 2
    occupy(executor, gate)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="can't start"):
            executor.using(delay=1).submit(abs, -1)
    futures = [executor.submit(abs, -1) for _ in range(2)]
    with pytest.raises(QueueFull):
        executor.submit(abs, -1)
    gate.set()
    assert [future.result(LIMIT) for future in futures] == [1, 1]


def test_slow_receivers_hold_up_no_timer(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Receivers and callbacks of a late task keep neither a delay nor a timeout."""
    entered, called = threading.Event(), threading.Event()

    def receive(sender: Flask, **facts: t.Any) -> None:
        entered.set()
        gate.wait(LIMIT)

    def callback(future: t.Any) -> None:
        called.set()
        gate.wait(LIMIT)

    async def hang() -> None:
        await asyncio.sleep(LIMIT)

    with task_timed_out.connected_to(receive, sender=app):
        executor.using(timeout=0.01).submit(hang)
        assert entered.wait(LIMIT)
        assert executor.using(delay=0.01).submit(abs, -1).result(LIMIT) == 1
        gate.set()
    gate.clear()
    executor.using(timeout=0.01).submit(hang).add_done_callback(callback)
    assert called.wait(LIMIT)
    with pytest.raises(TaskTimeout):
        executor.using(timeout=0.01).submit(hang).result(LIMIT)
    gate.set()


def test_a_receiver_waits_for_a_delayed_task(app: Flask, executor: Executor) -> None:
    """A receiver of a late task may wait for a task that is not due yet."""
    found: list[int] = []
    ended = threading.Event()

    def receive(sender: Flask, **facts: t.Any) -> None:
        found.append(executor.using(delay=0.01).submit(abs, -1).result(LIMIT))
        ended.set()

    async def hang() -> None:
        await asyncio.sleep(LIMIT)

    with task_timed_out.connected_to(receive, sender=app):
        executor.using(timeout=0.01).submit(hang)
        assert ended.wait(LIMIT)
    assert found == [1]


def test_the_end_of_time(executor: Executor) -> None:
    """A task may wait until the last moment that there is."""
    for moment in (datetime.max.replace(tzinfo=UTC), datetime.max - timedelta(days=1)):
        future = executor.using(run_at=moment.replace(tzinfo=UTC)).submit(abs, -1)
        assert future.task is not None and future.task.state == "delayed"
        assert future.cancel()


def test_a_moment_beyond_the_end_of_time(executor: Executor) -> None:
    """A moment that UTC cannot name is refused by name, with what is allowed."""

    west = timezone(timedelta(hours=-5))
    with pytest.raises(InvalidOption, match="run_at") as info:
        executor.using(run_at=datetime.max.replace(tzinfo=west))
    assert "within the years 1 to 9999 in UTC" in str(info.value)
