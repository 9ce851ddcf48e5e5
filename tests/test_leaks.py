"""What the executor keeps, and what it must not keep."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import typing as t
import weakref

import pytest
from control import occupy, until
from flask import Flask, current_app, g, has_app_context, has_request_context, request
from limits import LIMIT

from flask_executor import Executor, Retry, current_task
from flask_executor.signals import task_succeeded


class Thing:
    """Something that can be referred to weakly."""


def is_gone(refs: t.Sequence[weakref.ref[t.Any]]) -> bool:
    gc.collect()
    return not any(ref() for ref in refs)


@pytest.mark.parametrize("calls", [1, 15])
def test_the_event_loop_keeps_nothing_of_its_tasks(
    app: Flask, executor: Executor, calls: int
) -> None:
    """Neither the first submitter's context nor that of the last coroutine stays."""
    refs: list[weakref.ref[t.Any]] = []

    async def see() -> None:
        await asyncio.sleep(0)
        refs.append(weakref.ref(t.cast(t.Any, request)._get_current_object()))
        refs.append(weakref.ref(g.thing))

    def submit() -> t.Any:
        with app.test_request_context("/"):
            g.thing = Thing()
            refs.append(weakref.ref(g.thing))
            refs.append(weakref.ref(t.cast(t.Any, request)._get_current_object()))
            return executor.submit(see)

    for _ in range(calls):
        submit().result(LIMIT)
    assert len(refs) == 4 * calls
    until(lambda: is_gone(refs))


def test_after_a_coroutine_no_closed_request_is_current(
    app: Flask, executor: Executor
) -> None:
    """Receivers find no request of a coroutine that has ended; callbacks find that of
    who added them.
    """
    seen: list[object] = []
    called = threading.Event()

    def receive(sender: Flask, **facts: t.Any) -> None:
        seen.append(
            (has_request_context(), t.cast(t.Any, current_app)._get_current_object())
        )

    def callback(future: t.Any) -> None:
        seen.append(request.path)
        called.set()

    async def nothing() -> None:
        await asyncio.sleep(0)

    with task_succeeded.connected_to(receive, sender=app):
        with app.test_request_context("/here"):
            future = executor.submit(nothing)
            future.add_done_callback(callback)
        future.result(LIMIT)
        assert called.wait(LIMIT)
    assert sorted(map(str, seen)) == sorted(map(str, [(False, app), "/here"]))
    probe = executor.submit(abs, -1)
    probe.result(LIMIT)
    assert not has_app_context()


@pytest.mark.parametrize("what", ["app", "executor"])
def test_what_is_dropped_without_shutdown_leaves_nothing(what: str) -> None:
    """A dropped app or executor takes its threads and file descriptors along."""
    threads = set(threading.enumerate())
    gc.collect()
    files = set(os.listdir("/proc/self/fd"))

    async def nothing() -> None:
        await asyncio.sleep(0)

    def use() -> list[weakref.ref[t.Any]]:
        app = Flask("dropped")
        app.config["EXECUTOR_MAX_WORKERS"] = 2
        executor = Executor(app)
        executor.submit(nothing).result(LIMIT)
        executor.submit(abs, -1).result(LIMIT)
        executor.using(delay=0.001).submit(abs, -1).result(LIMIT)
        executor.using(timeout=LIMIT).submit(abs, -1).result(LIMIT)
        return [weakref.ref(app if what == "app" else executor)]

    refs = use()
    until(lambda: is_gone(refs))
    until(lambda: set(threading.enumerate()) <= threads)
    until(lambda: set(os.listdir("/proc/self/fd")) <= files)


def test_jobs_of_a_view_are_forgotten(app: Flask, executor: Executor) -> None:
    """A job that is declared in a view goes with its limit."""
    refs: list[weakref.ref[t.Any]] = []
    tasks: list[t.Any] = []

    def view() -> None:
        def work() -> int:
            return 1

        job = executor.job(max_concurrency=1)(work)
        future = job.submit()
        future.result(LIMIT)
        refs.append(weakref.ref(job))
        tasks.append(future.task)

    for _ in range(3):
        view()
    until(lambda: is_gone(refs))
    limits = [weakref.ref(task._place.limit) for task in tasks]
    tasks.clear()
    until(lambda: is_gone(limits))


def test_cancelled_tasks_leave_the_queue(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """What was cancelled is not kept by a pool whose workers are busy."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    (busy,) = occupy(executor, gate)
    refs: list[weakref.ref[t.Any]] = []

    def submit(thing: Thing, **options: t.Any) -> None:
        refs.append(weakref.ref(thing))
        future = executor.using(**options).submit(print, thing)
        refs.append(weakref.ref(t.cast(t.Any, future.task)))
        assert future.cancel()

    for _ in range(100):
        submit(Thing())
        submit(Thing(), priority=5)
        submit(Thing(), delay=60)
    until(lambda: is_gone(refs))
    assert busy.running()  # otherwise its worker may have emptied the queue
    gate.set()


def test_progress_belongs_to_its_attempt(executor: Executor) -> None:
    """What a failed attempt has reported is gone when the next one begins."""
    began, go = threading.Event(), threading.Event()

    def work() -> None:
        if current_task.attempt == 1:
            current_task.progress(9, 10, "nearly")
            raise OSError
        began.set()
        go.wait(LIMIT)

    group = executor.group()
    view = group.using(retry=Retry(attempts=2, delay=0))
    future = view.submit(work)
    assert began.wait(LIMIT)
    assert future.task is not None and future.task.progress is None
    assert group.progress == (0, 1, "")
    go.set()
    future.result(LIMIT)
