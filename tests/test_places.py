"""Concurrency limits: never exceeded, and never in the way of who waits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import sys
import threading
import time
import typing as t

import pytest
from control import until
from flask import Flask
from limits import LIMIT

from flask_executor import Executor, Retry, TaskFuture, current_task

Future = TaskFuture[t.Any]
MANY = 6


class Section:
    """Counts how many tasks are in it at once."""

    def __init__(self) -> None:
        self.most = 0
        self._now: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now.add(current_task.id)
            self.most = max(self.most, len(self._now))
        time.sleep(0.001)  # lets others in that should not come in

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._now.discard(current_task.id)


async def gather(futures: list[Future]) -> None:
    await asyncio.gather(*futures)


async def create_tasks(futures: list[Future]) -> None:
    async def of(future: Future) -> t.Any:
        return await future

    for task in [asyncio.create_task(of(future)) for future in futures]:
        await task


async def task_group(futures: list[Future]) -> None:
    async def of(future: Future) -> t.Any:
        return await future

    async with asyncio.TaskGroup() as group:
        for future in futures:
            group.create_task(of(future))


async def as_completed(futures: list[Future]) -> None:
    for each in asyncio.as_completed(futures):
        await each


async def wait(futures: list[Future]) -> None:
    await asyncio.wait([asyncio.wrap_future(future) for future in futures])


async def to_thread(futures: list[Future]) -> None:
    for future in futures:
        await asyncio.to_thread(future.result)


WAYS = [gather, create_tasks, task_group, as_completed, wait, to_thread]


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_coroutines_never_exceed_their_limit(
    executor: Executor,
    way: t.Callable[[list[Future]], t.Coroutine[t.Any, t.Any, None]],
    limit: int,
) -> None:
    """A coroutine that comes back from a wait has its place again, however it waits."""
    section = Section()

    async def nap(n: int) -> int:
        await asyncio.sleep(0.001 * n)
        return n

    @executor.job(max_concurrency=limit)
    async def work() -> None:
        for _ in range(2):
            with section:
                futures = [executor.submit(nap, n) for n in range(3)]
                await asyncio.sleep(0.001)
            await way(futures)
        with section:
            await asyncio.sleep(0.001)

    for future in [work.submit() for _ in range(MANY)]:
        future.result(LIMIT)
    assert section.most == limit


@pytest.mark.parametrize("limit", [1, 2])
def test_asyncio_tasks_of_one_task_come_back_together(
    executor: Executor, limit: int
) -> None:
    """Asyncio tasks of one task that go on at the same time have one place for all."""
    section = Section()

    async def nap(n: int) -> int:
        await asyncio.sleep(0.001 * n)
        return n

    @executor.job(max_concurrency=limit)
    async def work() -> None:
        async def part(n: int) -> None:
            await executor.submit(nap, n % 2)
            await executor.submit(abs, n)

        for _ in range(3):
            await asyncio.gather(*(part(n) for n in range(4)))
            with section:
                await asyncio.sleep(0.001)

    for future in [work.submit() for _ in range(MANY)]:
        future.result(LIMIT)
    assert section.most == limit


def test_what_a_task_leaves_running_keeps_no_place(executor: Executor) -> None:
    """An asyncio task that goes on after its task has ended takes no place of it."""
    left: list[asyncio.Task[None]] = []
    ended = threading.Event()

    async def go_on() -> None:
        await asyncio.sleep(0.01)
        ended.set()

    @executor.job(max_concurrency=1)
    async def work() -> int:
        left.append(asyncio.create_task(go_on()))
        return 1

    assert work.submit().result(LIMIT) == 1
    assert ended.wait(LIMIT)
    assert [work.submit().result(LIMIT) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("how", ["async with", "await", "async for"])
def test_a_coroutine_waits_for_a_group_of_its_own_job(
    executor: Executor, how: str
) -> None:
    """With a limit of one, a task that waits for members of its own job ends."""

    @executor.job(max_concurrency=1)
    async def work(depth: int) -> int:
        if not depth:
            return 1
        group = executor.group()
        if how == "async with":
            async with group:
                group.submit(work, depth - 1)
                group.submit(work, depth - 1)
        else:
            group.submit(work, depth - 1)
            group.submit(work, depth - 1)
            if how == "await":
                await group
            else:
                async for _ in group:
                    pass
        return sum(group.results()) + 1

    assert work.submit(3).result(LIMIT) == 15


@pytest.mark.parametrize("how", ["wait", "as_completed", "asyncio.run", "group"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_thread_waits_for_tasks_of_its_own_job(
    app: Flask, executor: Executor, how: str, workers: int
) -> None:
    """With a limit of one, a thread that waits for tasks of its own job ends."""
    app.config["EXECUTOR_MAX_WORKERS"] = workers
    section = Section()

    async def both(futures: list[Future]) -> None:
        for future in futures:
            await future

    @executor.job(max_concurrency=1)
    def work(depth: int) -> int:
        with section:
            futures = [work.submit(depth - 1) for _ in range(2)] if depth else []
        if how == "wait":
            concurrent.futures.wait(futures)
        elif how == "as_completed":
            list(concurrent.futures.as_completed(futures))
        elif how == "asyncio.run":
            asyncio.run(both(futures))
        else:
            group = executor.group()
            for future in futures:
                group.add(future)
            group.wait()
        with section:
            return sum(future.result() for future in futures if future.done()) + 1

    assert work.submit(3).result(LIMIT) == 15
    assert section.most == 1


def test_orchestrators_are_never_stuck(app: Flask, executor: Executor) -> None:
    """Two tasks wait for blocked members, with a limit of one and retries, for ever so
    often.
    """
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    failed = itertools.count()

    def member(n: int) -> int:
        if next(failed) % 3 == 0:
            raise OSError
        return n

    job = executor.job(max_concurrency=1, retry=Retry(attempts=9, delay=0))(member)

    def orchestrate() -> int:
        return sum(future.result() for future in [job.submit(1) for _ in range(4)])

    try:
        for _ in range(100):
            pair = [executor.submit(orchestrate) for _ in range(2)]
            assert [future.result(LIMIT) for future in pair] == [4, 4]
    finally:
        sys.setswitchinterval(before)


def test_a_thread_that_waits_for_its_place_lends_its_worker(
    app: Flask, executor: Executor
) -> None:
    """All workers wait for a place, which a task has that is still in the queue."""
    app.config["EXECUTOR_MAX_WORKERS"] = 2
    began, go, slow, second = (threading.Event() for _ in range(4))

    def wait_slowly() -> None:
        second.set()
        assert slow.wait(LIMIT)

    @executor.job(max_concurrency=1)
    def work(n: int) -> int:
        if n == 1:
            began.set()
            assert go.wait(LIMIT)
            executor.submit(abs, -1).result()  # the second one begins meanwhile
            assert second.wait(LIMIT)
            executor.submit(slow.set).result()  # the third one is let in
        elif n == 2:
            executor.submit(wait_slowly).result()
        return n

    first = work.submit(1)
    assert began.wait(LIMIT)
    others = [work.submit(2), work.submit(3)]
    executor.submit(abs, -1).result(LIMIT)  # the two before it are blocked by now
    go.set()
    assert [future.result(LIMIT) for future in (first, *others)] == [1, 2, 3]


def test_a_wait_with_a_timeout_is_over_in_time(
    executor: Executor, gate: threading.Event
) -> None:
    """A task that waits with a timeout keeps its place: others do not hold it up."""
    took: list[float] = []
    began = threading.Event()

    @executor.job(max_concurrency=1)
    def work(n: int) -> None:
        if n:
            gate.wait(LIMIT)
            return
        began.set()
        never = executor.using(delay=60).submit(abs, -1)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            never.result(timeout=0.05)
        took.append(time.monotonic() - start)
        never.cancel()

    first = work.submit(0)
    others = [work.submit(n) for n in (1, 2)]
    first.result(LIMIT)
    gate.set()
    for future in others:
        future.result(LIMIT)
    assert took[0] < LIMIT / 3


def test_blocked_tasks_wait_without_a_worker(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """Tasks beyond the limit leave the workers to others."""
    app.config["EXECUTOR_MAX_WORKERS"] = 2

    @executor.job(max_concurrency=1)
    def work() -> None:
        gate.wait(LIMIT)

    futures = [work.submit() for _ in range(4)]
    assert executor.submit(abs, -1).result(LIMIT) == 1
    until(lambda: sum(future.running() for future in futures) == 1)
    gate.set()
    for future in futures:
        future.result(LIMIT)
