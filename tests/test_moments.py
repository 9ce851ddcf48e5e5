"""One thread stands at each line of its way, and others act: the guarantees of the
table of tasks hold at every moment.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from concurrent.futures import wait as wait_for

import pytest
from control import occupy, until, with_clock
from flask import Flask, g
from limits import LIMIT
from moments import Meanwhile, Stop, at_every_line

from flask_executor import Executor, Retry, TaskFuture, current_task

Future = TaskFuture[t.Any]
TWICE = Retry(attempts=2, delay=0)
ENDS: dict[str, t.Callable[[Executor], object]] = {
    "drain": lambda executor: executor.drain(LIMIT),
    "shutdown": lambda executor: executor.shutdown(wait=True),
    "the end of the process": lambda executor: executor._state().dispatcher.leave(),
}


def fail_once() -> int:
    if current_task.attempt == 1:
        raise OSError
    return 2


@pytest.fixture(autouse=True)
def one_worker(app: Flask) -> None:
    app.config.update(EXECUTOR_MAX_WORKERS=1, EXECUTOR_LOG_EXCEPTIONS=False)


@pytest.mark.parametrize("who", ["worker", "submitter"])
@pytest.mark.parametrize("end", ENDS)
def test_an_end_misses_no_task(app: Flask, who: str, end: str) -> None:
    """When drain(), shutdown() or the end of a process returns, what was accepted has
    ended, wherever the worker was, or the code that submits it.
    """

    def scenario(stop: Stop, executor: Executor) -> None:
        executor._state().dispatcher  # noqa: B018 - it is made, with its locks
        returned = threading.Event()
        futures: list[Future] = []
        late: list[bool] = []

        def work() -> int:
            late.append(returned.is_set())
            return fail_once()

        def submit() -> None:
            with contextlib.suppress(RuntimeError):  # it is closed
                futures.append(executor.using(retry=TWICE).submit(work))

        def close() -> None:
            ENDS[end](executor)
            late.extend(not future.done() for future in futures)
            returned.set()

        if who == "worker":
            with stop:
                submit()
            stop.wait(lambda: futures[0].done())
        else:
            submitting = Meanwhile(submit, stop)
            stop.wait(lambda: submitting.is_over)
        closing = Meanwhile(close)
        closing.settle()
        stop.go_on()
        closing.result()
        executor.shutdown()
        assert not any(late)
        if who == "worker" and end == "shutdown":
            assert futures[0].result(LIMIT) == 2

    assert at_every_line(app, scenario, "dispatch") > 10


def test_a_cancelled_task_does_not_run(app: Flask) -> None:
    """cancel() is right at every moment on the way of a task: what it has cancelled
    does not run any more and stays cancelled, and all else runs to its end.
    """

    def scenario(stop: Stop, executor: Executor) -> None:
        cancelled, ran_after = threading.Event(), []

        def work() -> int:
            ran_after.append(cancelled.is_set())
            return fail_once()

        def cancel() -> None:
            if future.cancel():
                cancelled.set()

        with stop:
            future = executor.using(retry=TWICE).submit(work)
        stop.wait(future.done)
        cancelling = Meanwhile(cancel)
        cancelling.settle()
        stop.go_on()
        cancelling.result()
        executor.shutdown()
        task = t.cast(t.Any, future.task)
        assert not any(ran_after)
        if cancelled.is_set():
            assert future.cancelled() and task.state == "cancelled"
        else:
            assert future.result(0) == 2 and task.state == "succeeded"

    assert at_every_line(app, scenario, "dispatch") > 10


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_stored_future_that_is_submitted(
    app: Flask, gate: threading.Event, is_busy: bool
) -> None:
    """A thread that cancels by key while the task is submitted is told the truth,
    wherever it stands while the task goes its way, to its end or into the queue.
    """

    class Hook:
        """The view's g is asked for it while the task is submitted."""

        def __init__(self, fn: t.Callable[[], object]) -> None:
            self._fn = fn

        @property
        def close(self) -> object:
            self._fn()
            raise AttributeError

    def scenario(stop: Stop, executor: Executor) -> None:
        ran: list[int] = []
        said: list[object] = []
        cancelling: list[Meanwhile] = []
        futures: list[Future] = []

        def cancel() -> None:
            said.append(executor.futures.cancel("key"))

        def begin() -> None:
            if not cancelling:
                cancelling.append(Meanwhile(cancel, stop))
                stop.wait(lambda: cancelling[0].is_over)

        def submit() -> None:
            with app.app_context():
                g.hook = Hook(begin)
                futures.append(executor.submit_stored("key", ran.append, 1))
            if not is_busy:
                wait_for(futures, LIMIT)

        gate.clear()
        if is_busy:
            occupy(executor, gate)
        submitting = Meanwhile(submit)
        stop.wait(lambda: submitting.is_over)
        submitting.settle()
        stop.go_on()
        submitting.result()
        cancelling[0].result()
        gate.set()
        executor.shutdown()
        assert (said, ran) in [([True], []), ([False], [1])]
        assert futures[0].cancelled() == said[0]

    lines = at_every_line(app, scenario, "dispatch", "flask_executor/futures", "_base.py")
    assert lines > 5


def test_a_request_to_stop_is_kept(app: Flask) -> None:
    """A task that has not ended is told to stop, at every moment on its way."""

    def scenario(stop: Stop, executor: Executor) -> None:
        begin = threading.Event()

        def work() -> None:
            if current_task.attempt == 1:
                raise OSError
            begin.wait(LIMIT)
            until(lambda: current_task.cancel_requested)
            current_task.raise_if_cancelled()

        said: list[bool] = []
        with stop:
            future = executor.using(retry=TWICE).submit(work)
        stop.wait(lambda: future.running() and t.cast(t.Any, future.task).attempt == 2)
        asking = Meanwhile(lambda: said.append(future.request_cancel()))
        asking.settle()
        begin.set()
        stop.go_on()
        asking.result()
        if said != [True]:
            until(future.request_cancel)  # so that it ends
        executor.shutdown()
        assert said == [True]
        # One that fails in spite of it is not tried again.
        assert future.cancelled() or t.cast(t.Any, future.task).attempt == 1

    at_every_line(app, scenario, "dispatch")


def test_a_run_that_returns_as_its_timeout_is_over(app: Flask) -> None:
    """A task whose worker stands anywhere when its timeout is over ends once, and does
    not overrun for ever.
    """

    def scenario(stop: Stop, executor: Executor) -> None:
        clock = with_clock(executor)
        with stop:
            future = executor.using(timeout=5).submit(abs, -1)
        stop.wait(future.done)
        late = Meanwhile(lambda: clock.advance(10))
        late.settle()
        stop.go_on()
        late.result()
        executor.shutdown()
        task = t.cast(t.Any, future.task)
        kind = "timed_out" if future.exception(0) else "succeeded"
        assert task.state == kind and not task.overrun
        assert executor.drain(0) == ((), (), ())

    assert at_every_line(app, scenario, "dispatch") > 10


def test_a_timeout_that_is_over_as_the_run_returns(app: Flask) -> None:
    """The same if the timer stands while the worker returns."""

    def scenario(stop: Stop, executor: Executor) -> None:
        clock = with_clock(executor)
        began, gate = threading.Event(), threading.Event()

        def work() -> None:
            began.set()
            gate.wait(LIMIT)

        future = executor.using(timeout=5).submit(work)
        assert began.wait(LIMIT)
        late = Meanwhile(lambda: clock.advance(10), stop)
        stop.wait(lambda: late.is_over)
        gate.set()
        closing = Meanwhile(executor.shutdown)
        closing.settle()
        stop.go_on()
        late.result()
        closing.result()
        task = t.cast(t.Any, future.task)
        kind = "timed_out" if future.exception(0) else "succeeded"
        assert task.state == kind and not task.overrun
        assert executor.drain(0) == ((), (), ())

    assert at_every_line(app, scenario, "dispatch") > 10
