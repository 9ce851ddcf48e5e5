"""Tasks that wait for tasks of their own executor, in every mixture."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import typing as t

import process_app
import pytest
from flask import Flask
from limits import LIMIT

from flask_executor import Executor, Task, TaskFuture, signals

Future = TaskFuture[t.Any]
MANY = 8


@pytest.fixture
def executor(app: Flask) -> t.Iterator[Executor]:
    """An executor with one worker."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    executor = Executor(app)
    yield executor
    executor.shutdown()


def result(future: Future) -> int:
    return int(future.result())


def exception(future: Future) -> int:
    assert future.exception() is None
    return int(future.result())


def wait(future: Future) -> int:
    concurrent.futures.wait([future])
    return int(future.result())


def as_completed(future: Future) -> int:
    (ended,) = concurrent.futures.as_completed([future])
    return int(ended.result())


def own_loop(future: Future) -> int:
    async def awaited() -> int:
        return int(await future)

    return asyncio.run(awaited())


async def await_it(future: Future) -> int:
    return int(await future)


async def gather(future: Future) -> int:
    (value,) = await asyncio.gather(future)
    return int(value)


async def create_task(future: Future) -> int:
    return await asyncio.create_task(await_it(future))


async def asyncio_wait(future: Future) -> int:
    await asyncio.wait([asyncio.wrap_future(future)])
    return int(future.result())


async def asyncio_as_completed(future: Future) -> int:
    for each in asyncio.as_completed([future]):
        return int(await t.cast("t.Awaitable[int]", each))
    raise AssertionError


async def to_thread(future: Future) -> int:
    return int(await asyncio.to_thread(future.result))


@pytest.mark.parametrize("outer", [result, exception, wait, as_completed, own_loop])
@pytest.mark.parametrize(
    "inner",
    [await_it, gather, create_task, asyncio_wait, asyncio_as_completed, to_thread],
)
def test_threads_that_wait_for_coroutines_that_await_threads(
    executor: Executor,
    outer: t.Callable[[Future], int],
    inner: t.Callable[[Future], t.Coroutine[t.Any, t.Any, int]],
) -> None:
    """A pool full of tasks that wait for coroutines that await tasks goes on."""

    async def middle(n: int) -> int:
        return await inner(executor.submit(abs, -n))

    def first(n: int) -> int:
        return outer(executor.submit(middle, n))

    futures = [executor.submit(first, n) for n in range(MANY)]
    assert [future.result(LIMIT) for future in futures] == list(range(MANY))


def test_chains_of_coroutines(executor: Executor) -> None:
    """A thread waits for a chain of coroutines at whose end one awaits a thread."""

    async def link(n: int) -> int:
        return (
            await executor.submit(link, n - 1) if n else await executor.submit(abs, -7)
        )

    def first() -> int:
        return executor.submit(link, 20).result()

    futures = [executor.submit(first) for _ in range(MANY)]
    assert [future.result(LIMIT) for future in futures] == [7] * MANY


def test_groups_of_coroutines_that_await_groups_of_threads(executor: Executor) -> None:
    """A task waits at the end of a block for coroutines that do the same."""

    async def middle() -> int:
        async with executor.group() as group:
            group.map(abs, range(3))
        return sum(group.results())

    def first() -> int:
        with executor.group() as group:
            for _ in range(3):
                group.submit(middle)
        return sum(group.results())

    futures = [executor.submit(first) for _ in range(MANY)]
    assert [future.result(LIMIT) for future in futures] == [9] * MANY


def test_map_of_coroutines_that_await_threads(executor: Executor) -> None:
    """A task goes through a map of coroutines that await threads."""

    async def middle(n: int) -> int:
        return await executor.submit(abs, -n)

    def first() -> int:
        return sum(executor.map(middle, range(4)))

    futures = [executor.submit(first) for _ in range(MANY)]
    assert [future.result(LIMIT) for future in futures] == [6] * MANY


def test_callbacks_that_wait(executor: Executor) -> None:
    """A done-callback on the only worker may wait for another task."""
    found: list[int] = []
    called = threading.Event()

    def callback(future: Future) -> None:
        found.append(executor.submit(abs, -3).result(LIMIT))
        called.set()

    for _ in range(MANY):
        called.clear()
        executor.submit(abs, -1).add_done_callback(callback)
        assert called.wait(LIMIT)
    assert found == [3] * MANY


def test_a_receiver_that_keeps_a_task_from_ending_may_wait(executor: Executor) -> None:
    """A task waits for one whose callback waits for a third one."""
    found: list[int] = []

    async def middle() -> int:
        future = executor.submit(abs, -5)
        future.add_done_callback(
            lambda _: found.append(executor.submit(abs, -6).result())
        )
        return await future

    future = executor.submit(lambda: executor.submit(middle).result())
    assert future.result(LIMIT) == 5
    executor.shutdown()
    assert found == [6]


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
