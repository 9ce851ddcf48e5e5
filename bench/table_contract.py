"""The measures of the contract."""

from __future__ import annotations

import asyncio
import threading
import time
import typing as t
from concurrent.futures import Future

import visits
from sides import (
    Round,
    Submit,
    app_of,
    held,
    in_request,
    make_app,
    measure,
    nothing,
    submitter,
    weighed,
    windowed,
)


async def sleep() -> None:
    """The work of a coroutine."""
    await asyncio.sleep(0.1)


@measure
def submit(side: str) -> Round:
    """Submit to result, on threads."""
    one = submitter(side, "thread")
    return in_request(one, lambda: windowed(one, 5_000))


@measure
def process(side: str) -> Round:
    """Submit to result, on processes."""
    one = submitter(side, "process")
    return in_request(one, lambda: windowed(one, 3_000))


@measure
def map(side: str) -> Round:
    """100,000 small calls, a thousand at a time."""
    one = submitter(side, "thread")
    pool = t.cast(t.Any, one).__self__

    def measured() -> float:
        start = time.perf_counter()
        for _ in pool.map(abs, range(100_000), chunksize=1000):
            pass
        return (time.perf_counter() - start) / 100_000

    return in_request(one, measured)


@measure
def loop(side: str) -> Round:
    """10,000 coroutines at once."""
    one = submitter("ours", "thread") if side == "ours" else _bare_loop()

    def measured() -> float:
        start = time.perf_counter()
        for future in [one(sleep) for _ in range(10_000)]:
            future.result()
        return (time.perf_counter() - start) / 10_000

    return in_request(one, measured)


def _bare_loop() -> Submit:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return lambda fn: asyncio.run_coroutine_threadsafe(fn(), loop)


@measure
def memory(side: str) -> Round:
    """Bytes that each of 5,000 waiting tasks of one request takes."""
    one = submitter(side, "thread")

    def measured() -> float:
        with held(one):
            one(nothing)
            futures, size = weighed(lambda: one(nothing), 5_000)
        for future in futures:
            future.result()
        return size

    return in_request(one, measured)


@measure
def request_get(side: str) -> Round:
    """What a GET pays for one task."""
    return _visits(side, visits.get).round


@measure
def request_post(side: str) -> Round:
    """What a POST with a form pays for one task."""
    return _visits(side, visits.post).round


@measure
def request_upload(side: str) -> Round:
    """What a POST pays for a task that reads its file, or has the bytes passed."""
    if side == "hand":
        return _visits(side, visits.upload, visits.content, visits.check, 10).round
    task = visits.read_and_check
    return _visits(side, visits.upload, visits.nothing, task, 10).round


def _visits(
    side: str,
    make: t.Any,
    read: t.Any = visits.nothing,
    task: t.Any = nothing,
    size: int = 100,
) -> visits.Visits:
    one = submitter(side, "thread")
    app = app_of(one) or make_app()
    return visits.Visits(app, one, make, read, task, size)


@measure
def lookup(side: str) -> Round:
    """If a future is stored."""
    from flask_executor import FutureCollection

    collection = FutureCollection()
    count = 10 if side == "few" else 100_000
    futures: list[Future[t.Any]] = [Future() for _ in range(count)]
    for number, future in enumerate(futures):
        collection.add(number, future)
    wanted = futures[len(futures) // 2]

    def measured() -> float:
        start = time.perf_counter()
        for _ in range(100_000):
            wanted in collection  # noqa: B015
        return (time.perf_counter() - start) / 100_000

    return measured
