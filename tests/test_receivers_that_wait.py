"""Receivers that wait for tasks, while others wait for the task they hear of."""

from __future__ import annotations

import typing as t

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
