"""The measures against other libraries that run calls in the same process."""

from __future__ import annotations

import asyncio
import threading
import time
import typing as t
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

from sides import (
    WINDOW,
    WORKERS,
    Make,
    Round,
    Submit,
    in_request,
    make_executor,
    measure,
    nothing,
    windowed,
)

HOUR = 3600


free = threading.Semaphore(0)


def release() -> None:
    """The work where a side has no futures: it counts itself as done."""
    free.release()


@measure
def pebble(side: str) -> Round:
    """Submit to result, on Pebble's processes."""
    if side == "ours":
        one: t.Any = make_executor("pebble").submit
    else:
        from pebble import ProcessPool

        one = ProcessPool(WORKERS, context=get_context("forkserver")).schedule
    return in_request(one, lambda: windowed(one, 1_000))


@measure
def counted(side: str) -> Round:
    """Submit to done, where the calls themselves say when they are."""
    executor = make_executor("thread")
    submit = _COUNTED[side](executor)
    return in_request(executor, lambda: _until_counted(submit, 2_000))


def _until_counted(submit: Make, count: int) -> float:
    free.release(WINDOW)
    start = time.perf_counter()
    for _ in range(count):
        free.acquire()
        submit()
    for _ in range(WINDOW):
        free.acquire()
    return (time.perf_counter() - start) / count


def _count_ours(executor: t.Any) -> Make:
    return lambda: executor.submit(release)


def _count_apscheduler(executor: t.Any) -> Make:
    scheduler = _apscheduler()
    return lambda: scheduler.add_job(release)


def _apscheduler() -> t.Any:
    from apscheduler.executors.pool import ThreadPoolExecutor as Workers
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler(
        executors={"default": Workers(WORKERS)},
        # By default a job that starts a second late is dropped.
        job_defaults={"misfire_grace_time": None},
        daemon=True,
    )
    scheduler.start()
    return scheduler


def _count_huey(executor: t.Any) -> Make:
    from huey import MemoryHuey

    huey = MemoryHuey("bench")
    task = huey.task()(release)
    # Its memory queue is polled, by default from ten times a second on: as often as
    # can be, here, for the pauses would be all that is measured.
    consumer = huey.create_consumer(
        workers=WORKERS, initial_delay=0.001, max_delay=0.001, periodic=False
    )
    consumer.start()
    return t.cast(Make, task)


_COUNTED: dict[str, t.Callable[[t.Any], Make]] = {
    "ours": _count_ours,
    "apscheduler": _count_apscheduler,
    "huey": _count_huey,
}


@measure
def scheduled(side: str) -> Round:
    """5,000 tasks that are not due for an hour."""
    executor = make_executor("thread")
    submit, drop = _SCHEDULED[side](executor)

    def measured() -> float:
        start = time.perf_counter()
        made = [submit() for _ in range(5_000)]
        seconds = time.perf_counter() - start
        for one in made:
            drop(one)
        return seconds / 5_000

    return in_request(executor, measured)


def _schedule_ours(executor: t.Any) -> tuple[Make, t.Callable[[t.Any], object]]:
    view = executor.using(delay=HOUR)
    return lambda: view.submit(nothing), lambda future: future.cancel()


def _schedule_apscheduler(executor: t.Any) -> tuple[Make, t.Callable[[t.Any], object]]:
    scheduler = _apscheduler()
    moment = datetime.now(UTC) + timedelta(seconds=HOUR)
    return (
        lambda: scheduler.add_job(nothing, "date", run_date=moment),
        lambda job: job.remove(),
    )


_SCHEDULED: dict[str, t.Callable[[t.Any], t.Any]] = {
    "ours": _schedule_ours,
    "apscheduler": _schedule_apscheduler,
}


@measure
def inline(side: str) -> Round:
    """Calls that run at once, in the caller's thread, one after another."""
    executor = make_executor("sync")
    return in_request(executor, lambda: _in_turn(_INLINE[side](executor)))


def abs_of(number: int) -> int:
    """The work, as a function that Huey can name."""
    return abs(number)


def _inline_ours(executor: t.Any) -> t.Callable[[], object]:
    return lambda: executor.submit(abs_of, -1).result()


def _inline_huey(executor: t.Any) -> t.Callable[[], object]:
    from huey import MemoryHuey

    task = MemoryHuey("bench", immediate=True).task()(abs_of)
    return lambda: task(-1).get()


_INLINE = {"ours": _inline_ours, "huey": _inline_huey}


def _in_turn(call: t.Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(2_000):
        if call() != 1:
            raise SystemExit("a call gave no result")
    return (time.perf_counter() - start) / 2_000


@measure
def response(side: str) -> Round:
    """The 500 calls that one response leaves behind, one at a time, until the last."""
    executor = make_executor("thread", EXECUTOR_MAX_WORKERS=1)
    if side == "ours":
        return in_request(executor, lambda: _submitted(executor.submit))
    runner = asyncio.Runner()
    return in_request(executor, lambda: runner.run(_background_tasks()))


def _submitted(submit: Submit) -> float:
    start = time.perf_counter()
    for future in [submit(nothing) for _ in range(WINDOW)]:
        future.result()
    return (time.perf_counter() - start) / WINDOW


async def _background_tasks() -> float:
    from starlette.background import BackgroundTasks

    start = time.perf_counter()
    tasks = BackgroundTasks()
    for _ in range(WINDOW):
        tasks.add_task(nothing)
    await tasks()
    return (time.perf_counter() - start) / WINDOW
