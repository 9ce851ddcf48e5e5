"""What two threads do at the same moment: one decides, and nothing is lost."""

from __future__ import annotations

import contextlib
import sys
import threading
import typing as t
from concurrent.futures import CancelledError

import pytest
from control import until
from flask import Flask
from limits import LIMIT

from flask_executor import Executor, Retry, TaskFuture, current_task
from flask_executor.signals import task_submitted

Future = TaskFuture[t.Any]


@pytest.fixture
def hasty() -> t.Iterator[None]:
    """Let Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["drain", "shutdown"])
def test_nothing_runs_after_the_end(app: Flask, how: str) -> None:
    """Neither drain() nor shutdown(wait=True) returns while a task still runs."""
    for _ in range(60):
        executor = Executor(app)
        running: set[object] = set()

        def work(running: set[object] = running) -> None:
            me = object()
            running.add(me)
            if current_task.attempt == 1:
                running.discard(me)
                raise OSError
            running.discard(me)

        def submit(executor: Executor = executor, work: t.Any = work) -> None:
            view = executor.using(retry=Retry(attempts=2, delay=0))
            try:
                while True:
                    view.submit(work)
            except RuntimeError:  # it is closed
                pass

        submitting = [threading.Thread(target=submit) for _ in range(2)]
        for thread in submitting:
            thread.start()
        if how == "drain":
            executor.drain(LIMIT)
        else:
            executor.shutdown(wait=True)
        assert not running
        for thread in submitting:
            thread.join(LIMIT)
        assert not running
        executor.shutdown()
        executor.init_app(app)


@pytest.mark.usefixtures("hasty")
def test_cancel_never_says_true_while_the_call_runs(executor: Executor) -> None:
    """A stored future that says it is cancelled never runs."""
    ran: set[int] = set()
    said: set[int] = set()
    stop = threading.Event()

    def cancel() -> None:
        while not stop.is_set():
            for n in range(400):
                if executor.futures.cancel(n):
                    said.add(n)

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    futures = [executor.submit_stored(n, ran.add, n) for n in range(400)]
    for future in futures:
        with contextlib.suppress(CancelledError):
            future.exception(LIMIT)
    stop.set()
    cancelling.join(LIMIT)
    executor.shutdown()
    assert not ran & said
    assert {n for n, future in enumerate(futures) if future.cancelled()} == said


def test_a_task_cancelled_by_who_hears_of_it(app: Flask, executor: Executor) -> None:
    """A receiver of task_submitted may cancel: the task never runs."""

    def receive(sender: Flask, task: t.Any) -> None:
        assert task.future.cancel()

    ran: list[int] = []
    with task_submitted.connected_to(receive, sender=app):
        future = executor.submit(ran.append, 1)
    assert future.cancelled() and not ran
    assert future.task is not None and future.task.state == "cancelled"


@pytest.mark.usefixtures("hasty")
def test_a_cancelled_task_stays_cancelled(executor: Executor) -> None:
    """A task that becomes due while it is cancelled says what became of it."""
    for _ in range(300):
        future = executor.using(delay=1e-5).submit(abs, -1)
        cancelled = future.cancel()
        until(future.done)
        assert future.task is not None
        assert cancelled == future.cancelled()
        until(lambda future=future: future.task.state in ("cancelled", "succeeded"))  # type: ignore[misc]


@pytest.mark.usefixtures("hasty")
def test_a_request_to_stop_is_never_lost(executor: Executor) -> None:
    """A task that is asked to stop, at whatever moment, does not go on for ever."""

    def work() -> None:
        if current_task.attempt % 2:
            raise OSError
        while not current_task.cancel_requested:
            pass
        current_task.raise_if_cancelled()

    for n in range(200):
        future = executor.using(retry=Retry(attempts=4, delay=0)).submit(work)
        for _ in range(n % 40):
            pass
        assert future.request_cancel()
        until(future.done)


def test_a_group_asks_its_members_at_once(
    executor: Executor, gate: threading.Event
) -> None:
    """A task that is asked to stop at the end of a block tells its members, and does
    not succeed; so does one whose timeout is over.
    """
    began = threading.Barrier(2)

    def member() -> None:
        began.wait(LIMIT)
        until(lambda: current_task.cancel_requested)
        current_task.raise_if_cancelled()

    def outer() -> str:
        with executor.group() as group:
            group.submit(member)
        return "succeeded"

    asked = executor.submit(outer)
    began.wait(LIMIT)
    assert asked.request_cancel()
    until(asked.done)
    assert asked.cancelled()
    late = executor.using(timeout=0.2).submit(outer)
    began.wait(LIMIT)
    assert isinstance(late.exception(LIMIT), TimeoutError)


def test_shutdown_waits_for_helper_threads(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A late task that runs on a helper thread has returned when shutdown() does."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    returned: list[int] = []
    late = threading.Event()

    def inner() -> None:
        gate.wait(LIMIT)
        returned.append(1)

    def outer() -> None:
        future = executor.using(timeout=0.05).submit(inner)
        assert isinstance(future.exception(), TimeoutError)
        late.set()

    future = executor.submit(outer)
    assert late.wait(LIMIT)
    future.result(LIMIT)
    threading.Timer(0.05, gate.set).start()
    executor.shutdown(wait=True)
    assert returned == [1]
