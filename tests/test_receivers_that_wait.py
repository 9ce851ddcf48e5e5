"""Receivers that wait for tasks, while others wait for the task they hear of."""

from __future__ import annotations

import threading
import typing as t

import process_app
from flask import Flask
from limits import LIMIT

from flask_executor import Executor, Task, signals


def test_a_receiver_waits_for_a_task_of_the_job_that_waits(
    app: Flask, executor: Executor
) -> None:
    """A receiver of an end may wait for a task that needs the place of the task which
    waits for that end: the wait goes on until the future has ended, not its task.
    """
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    heard: list[int] = []

    @executor.job(max_concurrency=1)
    def limited(number: int) -> int:
        return executor.submit(inner).result() if number == 0 else number

    def inner() -> int:
        return 7

    def receive(sender: Flask, task: Task, **extra: t.Any) -> None:
        if task.name.endswith("inner"):
            heard.append(limited.submit(5).result())

    with signals.task_succeeded.connected_to(receive, app):
        assert limited.submit(0).result(LIMIT) == 7
    assert heard == [5]


def test_a_callback_waits_for_a_task_of_its_own_processes(app: Flask) -> None:
    """A callback on the only thread of a pool of processes may wait for another task of
    that pool.
    """
    app.config.update(EXECUTOR_TYPE="process", EXECUTOR_MAX_WORKERS=1)
    executor = Executor(app)
    heard: list[t.Any] = []
    called = threading.Event()

    def wait_for_another(future: object) -> None:
        heard.append(executor.submit(process_app.echo, 2).result(LIMIT))
        called.set()

    executor.submit(process_app.echo, 1).add_done_callback(wait_for_another)
    assert called.wait(LIMIT)
    assert heard == [(2,)]
    executor.shutdown()
