"""The ways in which the tasks of a random graph wait for each other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import typing as t

from flask_executor import Executor, TaskFuture

Future = TaskFuture[t.Any]


class Disturbed(Exception):
    """A task fails on purpose."""


# How threads wait


def _results(executor: Executor, futures: list[Future]) -> None:
    for future in futures:
        future.result()


def _exceptions(executor: Executor, futures: list[Future]) -> None:
    for future in futures:
        future.exception()


def _briefly(executor: Executor, futures: list[Future]) -> None:
    for future in futures:
        future.result(timeout=0.002)


def _wait(executor: Executor, futures: list[Future]) -> None:
    concurrent.futures.wait(futures)


def _wait_for_first(executor: Executor, futures: list[Future]) -> None:
    concurrent.futures.wait(futures, return_when="FIRST_COMPLETED")


def _as_completed(executor: Executor, futures: list[Future]) -> None:
    for _ in concurrent.futures.as_completed(futures):
        pass


def _group(executor: Executor, futures: list[Future]) -> None:
    _grouped(executor, futures).wait()


def _group_as_completed(executor: Executor, futures: list[Future]) -> None:
    for _ in _grouped(executor, futures).as_completed():
        pass


def _block(executor: Executor, futures: list[Future]) -> None:
    with executor.group() as group:
        for future in futures:
            group.add(future)


def _own_loop(executor: Executor, futures: list[Future]) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*futures, return_exceptions=True)

    asyncio.run(all_of_them())


def _grouped(executor: Executor, futures: list[Future]) -> t.Any:
    group = executor.group()
    for future in futures:
        group.add(future)
    return group


# How coroutines wait


async def _awaits(executor: Executor, futures: list[Future]) -> None:
    for future in futures:
        await future


async def _gather(executor: Executor, futures: list[Future]) -> None:
    await asyncio.gather(*futures, return_exceptions=True)


async def _tasks(executor: Executor, futures: list[Future]) -> None:
    async def of(future: Future) -> t.Any:
        return await future

    async with asyncio.TaskGroup() as group:
        for future in futures:
            group.create_task(of(future))


async def _wrapped(executor: Executor, futures: list[Future]) -> None:
    wrapped = [asyncio.wrap_future(future) for future in futures]
    await asyncio.wait(wrapped)
    await asyncio.gather(*wrapped, return_exceptions=True)


async def _as_they_come(executor: Executor, futures: list[Future]) -> None:
    # To the last one: a task counts as waiting for as long as one of its asyncio tasks
    # does.
    for each in asyncio.as_completed(futures):
        with contextlib.suppress(Disturbed, TimeoutError, asyncio.CancelledError):
            await each


async def _await_briefly(executor: Executor, futures: list[Future]) -> None:
    for future in futures:
        await asyncio.wait_for(future, 0.002)


async def _on_a_thread(executor: Executor, futures: list[Future]) -> None:
    for future in futures:
        await asyncio.to_thread(future.exception)


async def _await_group(executor: Executor, futures: list[Future]) -> None:
    await _grouped(executor, futures)


async def _async_for(executor: Executor, futures: list[Future]) -> None:
    async for _ in _grouped(executor, futures):
        pass


async def _async_block(executor: Executor, futures: list[Future]) -> None:
    async with executor.group() as group:
        for future in futures:
            group.add(future)


THREAD_WAYS: dict[str, t.Callable[[Executor, list[Future]], None]] = {
    fn.__name__: fn
    for fn in (
        _results,
        _exceptions,
        _briefly,
        _wait,
        _wait_for_first,
        _as_completed,
        _group,
        _group_as_completed,
        _block,
        _own_loop,
    )
}
COROUTINE_WAYS: dict[
    str, t.Callable[[Executor, list[Future]], t.Coroutine[t.Any, t.Any, None]]
] = {
    fn.__name__: fn
    for fn in (
        _awaits,
        _gather,
        _tasks,
        _wrapped,
        _as_they_come,
        _await_briefly,
        _on_a_thread,
        _await_group,
        _async_for,
        _async_block,
    )
}
