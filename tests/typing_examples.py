"""What must and what must not type-check; `make lint` proves both.

Nothing here runs. A call that must not type-check says which error is due, and mypy
reports an ignore that nothing needs.
"""

from __future__ import annotations

import concurrent.futures
import typing as t
from datetime import datetime, timedelta

from flask import Flask

from flask_executor import (
    Executor,
    ExecutorJob,
    ExecutorView,
    FutureCollection,
    Group,
    Progress,
    Retry,
    Task,
    TaskFuture,
    current_task,
)

executor = Executor()


def add(a: int, b: int = 0) -> str:
    return str(a + b)


def take_all(self: int, fn: int, timeout: float, future_key: str) -> float:
    return self + fn + timeout


async def fetch(url: str) -> bytes:
    return url.encode()


@executor.job
def double(n: int, *, times: int = 2) -> int:
    return n * times


@executor.job
async def load(url: str) -> bytes:
    return url.encode()


# The executor: made of an app, or without one, and used as any other of its kind.
Executor(Flask(__name__), "mail").init_app(Flask(__name__))
Executor("mail")  # type: ignore[arg-type]
executor.init_app("app")  # type: ignore[arg-type]
plain: concurrent.futures.Executor = executor
executor.shutdown(True, cancel_futures=True)
executor.shutdown(True, True)  # type: ignore[call-arg]
executor.add_default_done_callback(lambda future: print(future.key))
executor.add_default_done_callback(3)  # type: ignore[arg-type]

# submit: the callable's parameters go in, its result comes out.
t.assert_type(executor.submit(add, 1, b=2), TaskFuture[str])
t.assert_type(executor.submit(add, 1).result(), str)
t.assert_type(executor.submit(lambda: 3), TaskFuture[int])
t.assert_type(
    executor.submit(take_all, self=1, fn=2, timeout=3, future_key=""),
    TaskFuture[float],
)
executor.submit(add, "1")  # type: ignore[call-overload]
executor.submit(add)  # type: ignore[call-overload]
executor.submit(add, 1, c=2)  # type: ignore[arg-type, call-arg]
executor.submit(add, a=1, fn=2)  # type: ignore[call-overload]
executor.submit("add")  # type: ignore[call-overload]
executor.submit()  # type: ignore[call-overload]

# submit_stored: likewise, under anything hashable.
t.assert_type(executor.submit_stored("key", add, 1), TaskFuture[str])
t.assert_type(executor.submit_stored(("k", 1), fetch, "x"), TaskFuture[bytes])
t.assert_type(
    executor.submit_stored("k", take_all, self=1, fn=2, timeout=3, future_key=""),
    TaskFuture[float],
)
executor.submit_stored("key", add, "1")  # type: ignore[call-overload]
executor.submit_stored("key", add)  # type: ignore[call-overload]
executor.submit_stored([], add, 1)  # type: ignore[call-overload]
executor.submit_stored(add, 1)  # type: ignore[call-overload]

# By keyword, as code for 1.0.0 has it: of the callable nothing more is known.
t.assert_type(executor.submit(fn=add, a=1), TaskFuture[t.Any])
t.assert_type(executor.submit_stored("key", fn=add, a=1), TaskFuture[t.Any])
t.assert_type(executor.submit_stored(future_key="key", fn=add), TaskFuture[t.Any])
t.assert_type(executor.job(fn=add).submit(1, b=2), TaskFuture[str])
executor.submit(fn="add")  # type: ignore[call-overload]
executor.submit_stored(future_key=[], fn=add)  # type: ignore[call-overload]
executor.submit_stored(fn=add)  # type: ignore[call-overload]

# Coroutine functions: the future is of what they return, not of a coroutine.
t.assert_type(executor.submit(fetch, "x"), TaskFuture[bytes])
t.assert_type(executor.submit(fetch, "x").result(timeout=1), bytes)
executor.submit(fetch, 1)  # type: ignore[call-overload]
executor.submit_stored("key", fetch, 1)  # type: ignore[call-overload]

# map: the results, in order.
t.assert_type(executor.map(add, [1, 2]), t.Iterator[str])
t.assert_type(executor.map(add, [1], [2], timeout=1.5, chunksize=2), t.Iterator[str])

# Jobs: callable as the function is, and submitted with its parameters.
as_job: ExecutorJob[[int, int], str] = executor.job(add)
executor.job(3)  # type: ignore[call-overload]
t.assert_type(double(1, times=3), int)
t.assert_type(double.submit(1, times=3), TaskFuture[int])
t.assert_type(double.submit_stored("key", 1), TaskFuture[int])
t.assert_type(double.map([1]), t.Iterator[int])
t.assert_type(executor.submit(double, 1), TaskFuture[int])
double("1")  # type: ignore[arg-type]
double(1, 3)  # type: ignore[call-arg]
double(1, time=3)  # type: ignore[call-arg]
double.submit("1")  # type: ignore[arg-type]
double.submit()  # type: ignore[call-arg]
double.submit(1, time=3)  # type: ignore[call-arg]
double.submit_stored("key", "1")  # type: ignore[call-overload]
double.submit_stored("key")  # type: ignore[call-overload]
double.submit_stored([], 1)  # type: ignore[call-overload]
double.submit_stored(n=1, future_key="key")
double.submit_stored(n=1, future_key=[])  # type: ignore[call-overload]
executor.submit(double, "1")  # type: ignore[call-overload]

t.assert_type(load.submit("x"), TaskFuture[bytes])
t.assert_type(load.submit_stored("key", "x"), TaskFuture[bytes])
t.assert_type(executor.submit(load, "x"), TaskFuture[bytes])
load.submit(1)  # type: ignore[call-overload]
load.submit_stored("key", 1)  # type: ignore[call-overload]

# Futures: real ones, each of its result.
real: concurrent.futures.Future[str] = executor.submit(add, 1)
wrong: concurrent.futures.Future[int] = executor.submit(add, 1)  # type: ignore[call-overload]
number: int = executor.submit(add, 1).result()  # type: ignore[assignment]
t.assert_type(real.result(), str)
t.assert_type(
    concurrent.futures.wait([executor.submit(add, 1)]).done.pop().result(), str
)

# The registry.
t.assert_type(executor.futures, FutureCollection)
t.assert_type(executor.futures["key"], concurrent.futures.Future[t.Any])
t.assert_type(executor.futures.pop("key"), concurrent.futures.Future[t.Any] | None)
executor.futures.add("key", real)
executor.futures.add("key", 1)  # type: ignore[arg-type]
executor.futures.add([], real)  # type: ignore[arg-type]
executor.futures.result("key", timeout=1)


async def wait() -> None:
    t.assert_type(await executor.submit(add, 1), str)
    t.assert_type(await executor.submit(fetch, "x"), bytes)
    t.assert_type(await load.submit("x"), bytes)
    t.assert_type(await double.submit_stored("key", 1), int)
    number: int = await executor.submit(add, 1)  # type: ignore[call-overload]
    print(number)


# Groups: the executor's verbs, and futures of what each call returns.
group = executor.group("name")
t.assert_type(group, Group)
t.assert_type(group.submit(add, 1, b=2), TaskFuture[str])
t.assert_type(group.submit(fetch, "x"), TaskFuture[bytes])
t.assert_type(group.submit(double, 1), TaskFuture[int])
t.assert_type(group.submit_stored("key", add, 1), TaskFuture[str])
t.assert_type(group.submit_stored("key", fetch, "x"), TaskFuture[bytes])
t.assert_type(group.map(add, [1, 2]), list[TaskFuture[str]])
t.assert_type(group.map(fetch, ["x"]), list[TaskFuture[bytes]])
t.assert_type(group.add(executor.submit(add, 1)), TaskFuture[str])
t.assert_type(group.using(priority=1), Group)
t.assert_type(executor.using(priority=1).group(), Group)
t.assert_type(group.results(1.5), list[t.Any])
t.assert_type(group.exceptions(), list[BaseException])
t.assert_type(group.progress.fraction, float | None)
group.add_done_callback(lambda group: print(group.name, len(group)))
group.submit(add, "1")  # type: ignore[call-overload]
group.submit_stored([], add, 1)  # type: ignore[call-overload]
group.add(real)  # type: ignore[type-var]
group.using(priority="high")  # type: ignore[arg-type]
group.add_done_callback(3)  # type: ignore[arg-type]

with executor.group() as entered:
    t.assert_type(entered, Group)
    for completed in entered.as_completed(timeout=1):
        t.assert_type(completed, TaskFuture[t.Any])
t.assert_type(entered.results(), list[t.Any])


async def wait_for_a_group() -> None:
    async with executor.group() as entered:
        t.assert_type(entered, Group)
        async for completed in entered:
            t.assert_type(completed, TaskFuture[t.Any])
    t.assert_type(await entered, list[t.Any])


# Options: on the executor, on jobs, in the declaration.
urgent = executor.using(priority=1, timeout=timedelta(seconds=1), retry=3)
t.assert_type(urgent, ExecutorView)
t.assert_type(urgent.submit(add, 1), TaskFuture[str])
t.assert_type(urgent.submit(fetch, "x"), TaskFuture[bytes])
t.assert_type(urgent.using(name="x").map(add, [1]), t.Iterator[str])
t.assert_type(double.using(key=("a", 1)).submit(1), TaskFuture[int])
double.using(delay=1).submit("1")  # type: ignore[arg-type]
executor.using(priorty=1)  # type: ignore[call-arg]
executor.using(priority="x")  # type: ignore[arg-type]
executor.using(max_concurrency=2)  # type: ignore[call-arg]


@executor.job(retry=Retry(attempts=5, on=(OSError,)), max_concurrency=2)
def limited(number: int) -> str:
    return str(number)


t.assert_type(limited.submit(1), TaskFuture[str])
limited.submit("1")  # type: ignore[arg-type]

# Tasks: what is known from outside, and from inside.
task = executor.submit(add, 1).task
t.assert_type(task, Task | None)
if task is not None:
    t.assert_type(task.progress, Progress | None)
    t.assert_type(task.started_at, datetime | None)
for item in current_task.track([1, 2]):
    t.assert_type(item, int)
t.assert_type(executor.drain(timeout=1).running, tuple[Task, ...])


@executor.job(name="mail.send", aliases=("mail.deliver",), request="none")
def named(to: str) -> int:
    return len(to)


t.assert_type(named.submit("ada"), TaskFuture[int])
executor.using(request="some")  # type: ignore[arg-type]
executor.using(guarantee="at_least_once", meta={"user": 7}).submit(double, 1)
double.using(session=None).submit(1)
executor.using(guarantee="exactly_once")  # type: ignore[arg-type]
executor.using(aliases=("x",))  # type: ignore[call-arg]
# Periodic jobs: they keep the function's types, and take a function or a job.


@executor.cron("0 3 * * *", timezone="Europe/Berlin", missed="all", jitter=5)
def nightly() -> int:
    return 3


@executor.every(timedelta(minutes=5))
@executor.job(unique="sync", on_taken="return")
async def sync(page: int = 1) -> bytes:
    return bytes(page)


t.assert_type(nightly.submit().result(), int)
t.assert_type(sync.submit(2), TaskFuture[bytes])
nightly(1)  # type: ignore[call-arg]
executor.cron("@daily", missed="none")  # type: ignore[arg-type]
executor.every("5")  # type: ignore[arg-type]
executor.using(unique=("order", 7), on_taken="replace").submit(add, 1)
executor.using(on_taken="drop")  # type: ignore[arg-type]
for one in executor.periodic:
    t.assert_type(one.next, datetime | None)
    t.assert_type(one.run_now(), TaskFuture[t.Any])
executor.periodic[nightly].pause()
