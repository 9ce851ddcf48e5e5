"""Reports of progress: whatever is reported, and whenever, no call pays for it."""

from __future__ import annotations

import threading
import typing as t

import noise
import pytest
from flask import Flask
from limits import LIMIT

from flask_executor import Executor, current_task
from flask_executor.errors import WorkerLost


@pytest.fixture
def processes() -> t.Iterator[Executor]:
    """An executor with one worker process."""
    noise.executor.init_app(noise.app)
    with noise.app.app_context():
        yield noise.executor
        noise.executor.shutdown()


def test_a_report_after_the_end_does_nothing(processes: Executor) -> None:
    """It is not taken for one of the call that runs by then."""
    processes.submit(noise.leave_a_reporter).result(LIMIT)
    later = processes.submit(noise.wait_for_the_reporter)
    assert later.result(LIMIT) is True
    assert t.cast(t.Any, later.task).progress is None


def test_a_report_while_the_reply_is_sent(processes: Executor) -> None:
    """A thread that reports at that moment damages neither this reply nor others."""
    reply = processes.submit(noise.report_within_the_reply)
    futures = [processes.submit(noise.echo, n) for n in range(20)]
    assert reply.result(LIMIT) == b"x" * 100_000
    assert [future.result(LIMIT) for future in futures] == list(range(20))


@pytest.mark.parametrize("write", [noise.write_garbage, noise.answer_another_call])
def test_a_message_that_cannot_be_read(processes: Executor, write: t.Any) -> None:
    """It costs the worker that has sent it, and no other call; nor is what another call
    would get taken for the result.
    """
    with pytest.raises(WorkerLost):
        processes.submit(write).result(LIMIT)
    futures = [processes.submit(noise.echo, n) for n in range(20)]
    assert [future.result(LIMIT) for future in futures] == list(range(20))


def test_reports_of_nonsense_in_processes(processes: Executor) -> None:
    """Values that do not pickle, and a message of None, fail no task."""
    assert processes.submit(noise.report_nonsense).result(LIMIT) == 1
    assert processes.submit(noise.echo, 2).result(LIMIT) == 2


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_reports_of_nonsense_in_threads(executor: Executor, is_coroutine: bool) -> None:
    """Whatever a thread or a coroutine reports, its task ends."""

    async def report() -> int:
        return noise.report_nonsense()

    fn: t.Any = report if is_coroutine else noise.report_nonsense
    group = executor.group()
    assert group.submit(fn).result(LIMIT) == 1
    assert group.progress.done == 1


def test_the_progress_of_a_group_with_nonsense(
    executor: Executor, gate: threading.Event
) -> None:
    """A group tells its progress although a member reports what is no number."""
    reported = threading.Event()

    def work() -> None:
        current_task.progress(t.cast(t.Any, "many"), t.cast(t.Any, "more"))
        reported.set()
        gate.wait(LIMIT)

    group = executor.group()
    future = group.submit(work)
    assert reported.wait(LIMIT)
    assert group.progress.total == 1
    gate.set()
    future.result(LIMIT)


def test_reports_of_an_attempt_that_is_over(app: Flask, executor: Executor) -> None:
    """A thread that a task has left reports for nobody."""
    inside: list[t.Any] = []

    def work() -> None:
        inside.append(t.cast(t.Any, current_task)._get_current_object())

    future = executor.submit(work)
    future.result(LIMIT)
    executor.shutdown()
    inside[0].progress(1, 2, "late")
    assert future.task is not None and future.task.progress is None
