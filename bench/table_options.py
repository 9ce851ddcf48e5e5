"""The measures of the options."""

from __future__ import annotations

import itertools
import random
import threading
import time
import typing as t
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

from sides import (
    WINDOW,
    WORKERS,
    Round,
    Submit,
    held,
    in_request,
    make_executor,
    measure,
    nothing,
    weighed,
    windowed,
)

HOUR = 3600


def report(count: int) -> float:
    """Report progress so often; seconds for each report."""
    from flask_executor import current_task

    start = time.perf_counter()
    for done in range(count):
        current_task.progress(done, count)
    return (time.perf_counter() - start) / count


@measure
def option(side: str) -> Round:
    """Submit to result with an option."""
    executor = make_executor("thread", EXECUTOR_FUTURES_MAX_LENGTH=2 * WINDOW)
    one = _with_option(executor, side)
    return in_request(executor, lambda: windowed(one, 5_000))


def _with_option(executor: t.Any, side: str) -> Submit:
    from flask_executor import Retry

    if side in ("max_concurrency", "max_concurrency_1"):
        limit = 1 if side.endswith("1") else WORKERS
        job = executor.job(max_concurrency=limit)(nothing)
        return lambda fn: job.submit()
    if side == "key":
        keys = itertools.count()
        return lambda fn: executor.submit_stored(next(keys), fn)
    if side == "using":
        return lambda fn: executor.using(priority=5).submit(fn)
    given: dict[str, dict[str, t.Any]] = {
        "plain": {},
        "priority": {"priority": 5},
        "timeout": {"timeout": 60},
        "delay": {"delay": 1e-6},
        "retry": {"retry": Retry(attempts=3)},
        "name": {"name": "work"},
    }
    submit = (
        executor.submit if side == "plain" else executor.using(**given[side]).submit
    )
    return t.cast(Submit, submit)


@measure
def line(side: str) -> Round:
    """10,000 tasks that wait, of mixed priorities or of one, until all have run."""
    executor = make_executor("thread")
    among = range(-100, 101) if side == "mixed" else [0]
    chance = random.Random(1)
    views = [executor.using(priority=number) for number in among]
    submits = [chance.choice(views).submit for _ in range(10_000)]

    def measured() -> float:
        with held(executor.using(priority=100).submit):
            start = time.perf_counter()
            futures = [one(nothing) for one in submits]
        for future in futures:
            future.result()
        return (time.perf_counter() - start) / 10_000

    return in_request(executor, measured)


@measure
def later(side: str) -> Round:
    """100,000 tasks that are not due for an hour, or wait for a worker."""
    executor = make_executor("thread")

    def measured() -> float:
        with held(executor.submit):
            submit, threads = _later(executor, side), threading.active_count()
            start = time.perf_counter()
            futures = [submit(nothing) for _ in range(100_000)]
            seconds = time.perf_counter() - start
            _check_threads(threads)
            _cancel(futures)
        return seconds / 100_000

    return in_request(executor, measured)


@measure
def later_memory(side: str) -> Round:
    """Bytes of each of them."""
    executor = make_executor("thread")

    def measured() -> float:
        with held(executor.submit):
            submit = _later(executor, side)
            _cancel([submit(nothing)])
            futures, size = weighed(lambda: submit(nothing), 100_000)
            _cancel(futures)
        return size

    return in_request(executor, measured)


def _later(executor: t.Any, side: str) -> Submit:
    view = executor.using(delay=HOUR) if side == "delayed" else executor
    return t.cast(Submit, view.submit)


def _check_threads(before: int) -> None:
    more = threading.active_count() - before
    if more > 1:
        raise SystemExit(f"{more} threads were started, where one does")


def _cancel(futures: list[Future[t.Any]]) -> None:
    for future in futures:
        if not future.cancel():
            raise SystemExit("a task ran that was to wait")


@measure
def due(side: str) -> Round:
    """10,000 tasks that fall due at once, or are let go at once, until all have run."""
    executor = make_executor("thread")
    from_moment = {"delayed": _from_due, "held": _from_let_go}[side]

    def measured() -> float:
        futures, start = from_moment(executor)
        for future in futures:
            future.result()
        return (time.perf_counter() - start) / 10_000

    return in_request(executor, measured)


def _from_due(executor: t.Any) -> tuple[list[Future[t.Any]], float]:
    moment = datetime.now(UTC) + timedelta(seconds=2)
    submit = executor.using(run_at=moment).submit
    futures = [submit(nothing) for _ in range(10_000)]
    time.sleep(moment.timestamp() - time.time())
    return futures, time.perf_counter()


def _from_let_go(executor: t.Any) -> tuple[list[Future[t.Any]], float]:
    with held(executor.submit):
        futures = [executor.submit(nothing) for _ in range(10_000)]
        return futures, time.perf_counter()


@measure
def progress(side: str) -> Round:
    """Reports from the code of a task."""
    executor = make_executor(side)
    return in_request(executor, lambda: executor.submit(report, 20_000).result())


@measure
def beyond(side: str) -> Round:
    """Storing one future more in a collection that is full of unfinished ones."""
    from flask_executor import FutureCollection

    count = 100 if side == "few" else 100_000
    collection, keys = FutureCollection(count), itertools.count()
    for _ in range(count):
        collection.add(next(keys), Future())

    def measured() -> float:
        futures: list[Future[t.Any]] = [Future() for _ in range(10_000)]
        start = time.perf_counter()
        for future in futures:
            collection.add(next(keys), future)
        return (time.perf_counter() - start) / 10_000

    return measured


@measure
def expiry(side: str) -> Round:
    """The removal of one of many futures that expire together."""
    from flask_executor import FutureCollection

    count, rounds = (100, 100) if side == "few" else (100_000, 1)
    done: Future[None] = Future()
    done.set_result(None)

    def measured() -> float:
        seconds = 0.0
        for _ in range(rounds):
            collection = FutureCollection(ttl=HOUR)
            for number in range(count):
                collection.add(number, done)
            collection._ttl = 0
            start = time.perf_counter()
            assert not collection
            seconds += time.perf_counter() - start
        return seconds / (count * rounds)

    return measured
