"""What two threads do at the same moment: one decides, and nothing is lost."""

from __future__ import annotations

import threading
import typing as t

from control import until
from flask import Flask
from limits import LIMIT

from flask_executor import Executor, TaskFuture, current_task
from flask_executor.dispatch.events import current_frames
from flask_executor.signals import task_submitted

Future = TaskFuture[t.Any]


def test_a_task_cancelled_by_who_hears_of_it(app: Flask, executor: Executor) -> None:
    """A receiver of task_submitted may cancel: the task never runs."""

    def receive(sender: Flask, task: t.Any) -> None:
        assert task.future.cancel()

    ran: list[int] = []
    with task_submitted.connected_to(receive, sender=app):
        future = executor.submit(ran.append, 1)
    assert future.cancelled() and not ran
    assert future.task is not None and future.task.state == "cancelled"


def test_a_group_asks_its_members_at_once(
    executor: Executor, gate: threading.Event
) -> None:
    """A task that is asked to stop at the end of a block tells its members, and does
    not succeed; so does one whose timeout is over.
    """
    began = threading.Barrier(3)
    leaving: list[int] = []

    def member() -> None:
        began.wait(LIMIT)
        until(lambda: current_task.cancel_requested)
        current_task.raise_if_cancelled()

    def outer() -> str:
        with executor.group() as group:
            group.submit(member)
            began.wait(LIMIT)
            leaving.append(threading.get_ident())
        return "succeeded"

    def waits() -> bool:
        frame = current_frames()[leaving[-1]] if leaving else None
        return frame is not None and frame.f_code is threading.Condition.wait.__code__

    asked = executor.submit(outer)
    began.wait(LIMIT)
    until(waits)
    assert asked.request_cancel()
    until(asked.done)
    assert asked.cancelled()
    leaving.clear()
    late = executor.using(timeout=0.2).submit(outer)
    began.wait(LIMIT)
    assert isinstance(late.exception(LIMIT), TimeoutError)
    executor.shutdown()  # so its member was told, too


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
