"""What must and what must not type-check; `make lint` proves both."""

from __future__ import annotations

import typing as t

from flask_executor import Executor, ExecutorJob, TaskFuture

executor = Executor()


def add(a: int, b: int = 0) -> str:
    return str(a + b)


async def fetch(url: str) -> bytes:
    return url.encode()


t.assert_type(executor.submit(add, 1, b=2), TaskFuture[str])
t.assert_type(executor.submit(add, 1).result(), str)
t.assert_type(executor.submit(fetch, "x"), TaskFuture[bytes])
t.assert_type(executor.submit_stored("key", add, 1), TaskFuture[str])
t.assert_type(executor.submit_stored(("k", 1), fetch, "x"), TaskFuture[bytes])
t.assert_type(executor.map(add, [1, 2]), t.Iterator[str])

executor.submit(add, "1")  # type: ignore[call-overload]
executor.submit(add)  # type: ignore[call-overload]
executor.submit_stored("key", add, "1")  # type: ignore[call-overload]
executor.submit_stored([], add, 1)  # type: ignore[call-overload]

job = executor.job(add)
as_job: ExecutorJob[..., str] = job
t.assert_type(job(1), str)
t.assert_type(job.submit(1, b=2), TaskFuture[str])
t.assert_type(job.submit_stored("key", 1), TaskFuture[str])
t.assert_type(job.map([1]), t.Iterator[str])
job("1")  # type: ignore[arg-type]
job.submit("1")  # type: ignore[arg-type]

t.assert_type(executor.job(fetch).submit("x"), TaskFuture[bytes])


async def wait() -> str:
    return await executor.submit(add, 1)
