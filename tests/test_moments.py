"""One thread stands at each line of its way, and others act: the guarantees of the
table of tasks hold at every moment.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from concurrent.futures import CancelledError
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


def close(executor: Executor) -> None:
    Meanwhile(executor.shutdown).result()


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

        def end_it() -> None:
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
        closing = Meanwhile(end_it)
        closing.settle()
        stop.go_on()
        closing.result()
        close(executor)
        assert not any(late)
        assert not any(future.cancelled() for future in futures)  # there was time
        if who == "worker" and end == "shutdown":
            assert futures[0].result(LIMIT) == 2

    assert at_every_line(app, scenario, "dispatch") > 10


@pytest.mark.parametrize("who", ["worker", "canceller", "timer"])
def test_a_cancelled_task_does_not_run(
    app: Flask, gate: threading.Event, who: str
) -> None:
    """cancel() is right wherever the worker is, or the timer, or the code that cancels:
    what it has cancelled does not run any more and stays cancelled, and all else runs.
    """

    def scenario(stop: Stop, executor: Executor) -> None:
        cancelled = threading.Event()
        ran_after: list[bool] = []
        gate.clear()

        def work() -> int:
            ran_after.append(cancelled.is_set())
            return fail_once()

        def cancel() -> None:
            if future.cancel():
                cancelled.set()

        if who == "worker":
            with stop:
                future = executor.using(retry=TWICE).submit(work)
            stop.wait(future.done)
            cancelling = Meanwhile(cancel)
            cancelling.settle()
        elif who == "timer":
            clock = with_clock(executor)
            future = executor.using(retry=TWICE, delay=5).submit(work)
            due = Meanwhile(lambda: clock.advance(10), stop)
            stop.wait(lambda: due.is_over)
            cancelling = Meanwhile(cancel)
            cancelling.settle()
        else:
            occupy(executor, gate)
            future = executor.using(retry=TWICE).submit(work)
            cancelling = Meanwhile(cancel, stop)
            stop.wait(lambda: cancelling.is_over)
            gate.set()
            Meanwhile(lambda: wait_for([future], LIMIT)).settle()
        stop.go_on()
        cancelling.result()
        close(executor)
        task = t.cast(t.Any, future.task)
        assert not any(ran_after)
        assert future.done()
        if cancelled.is_set():
            assert future.cancelled() and task.state == "cancelled"
        else:
            assert future.result(0) == 2 and task.state == "succeeded"

    assert at_every_line(app, scenario, "dispatch") > 5


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
        close(executor)
        assert (said, ran) in [([True], []), ([False], [1])]
        assert futures[0].cancelled() == said[0]

    files = "dispatch", "flask_executor/futures", "_base.py"
    lines = at_every_line(app, scenario, *files)
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
        close(executor)
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
        close(executor)
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


def test_a_blocked_task_is_woken_in_spite_of_one_that_pauses(app: Flask) -> None:
    """A worker that is about to begin a task stands anywhere, while code that waits for
    that task may run it: the next place goes to the task that is blocked, not to the
    one that pauses by then before its second attempt.
    """
    app.config["EXECUTOR_MAX_WORKERS"] = 3

    def scenario(stop: Stop, executor: Executor) -> None:
        waits, go, inside, leave = (threading.Event() for _ in range(4))
        pausing: list[Future] = []

        def member(number: int) -> int:
            if number == 0:
                raise OSError
            if number == 1:
                inside.set()
                leave.wait(LIMIT)
            return number

        again = Retry(attempts=2, delay=600)
        job = executor.job(max_concurrency=1, retry=again)(member)

        def orchestrate() -> None:
            waits.set()
            go.wait(LIMIT)
            pausing.append(job.submit(0))
            wait_for_result(pausing[0])

        outer = executor.submit(orchestrate)
        assert waits.wait(LIMIT)
        with stop:  # looks at the worker that starts now, for the first member
            go.set()
            stop.wait(lambda: pauses(pausing))
        wait_for([outer], 0.01)  # as long as it comes on without that worker
        others = [job.submit(1), job.submit(2)]
        inside.wait(0.01)
        stop.go_on()
        assert inside.wait(LIMIT)
        # No other worker is free, so that one has tried to begin the last member.
        assert executor.submit(abs, -1).result(LIMIT) == 1
        leave.set()
        try:
            assert [future.result(LIMIT) for future in others] == [1, 2]
        finally:
            until(pausing[0].cancel)
        outer.result(LIMIT)
        close(executor)

    assert at_every_line(app, scenario, "dispatch") > 10


def wait_for_result(future: Future) -> None:
    with contextlib.suppress(CancelledError):
        future.result()


def pauses(futures: list[Future]) -> bool:
    return bool(futures) and t.cast(t.Any, futures[0].task).state == "retrying"


def test_who_stands_in_the_table_keeps_nobody_waiting(app: Flask) -> None:
    """Other tasks run while a worker stands anywhere in the table of tasks."""
    app.config["EXECUTOR_MAX_WORKERS"] = 2

    def scenario(stop: Stop, executor: Executor) -> None:
        with stop:
            future = executor.using(retry=TWICE).submit(fail_once)
        stop.wait(future.done)
        others = Meanwhile(lambda: executor.submit(abs, -1).result())
        others.result()
        stop.go_on()
        close(executor)

    assert at_every_line(app, scenario, "table.py") > 10


def test_attempts_that_begin_while_one_is_looked_for(app: Flask) -> None:
    """The attempt of a task is found although others begin at that moment."""
    executor = Executor(app)
    table = executor._state().dispatcher.table

    class Begun:
        @property
        def task(self) -> None:
            table.running[t.cast(t.Any, Begun())] = None

    table.running[t.cast(t.Any, Begun())] = None
    future = executor.submit(abs, -1)
    future.result(LIMIT)
    try:
        assert table.attempt_of(t.cast(t.Any, future.task)) is None
        assert len(table.running) == 2
    finally:
        table.running.clear()
        close(executor)
