"""What is measured, and on which side: the process that ``run.py`` starts for each.

``python contenders.py MEASURE SIDE`` makes ready, says so, and then measures one round
for each line that it reads, and prints the figure: seconds for each call, or bytes.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import sys
import threading
import time
import tracemalloc
import typing as t
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import visits

WORKERS = 2
WINDOW = 500
HOUR = 3600
COLD = ("later", "later_memory")
"""Measures whose rounds are so long that they need no round to warm up."""

Submit = t.Callable[..., "Future[t.Any]"]
Make = t.Callable[[], t.Any]
Round = t.Callable[[], float]
MEASURES: dict[str, t.Callable[[str], Round]] = {}


def measure(make: t.Callable[[str], Round]) -> t.Callable[[str], Round]:
    """Enter a measure under its name: given a side, it makes the rounds of it."""
    MEASURES[make.__name__] = make
    return make


# The work


def nothing(*args: object) -> None:
    """The work."""


async def sleep() -> None:
    """The work of a coroutine."""
    await asyncio.sleep(0.1)


def report(count: int) -> float:
    """Report progress so often; seconds for each report."""
    from flask_executor import current_task

    start = time.perf_counter()
    for done in range(count):
        current_task.progress(done, count)
    return (time.perf_counter() - start) / count


free = threading.Semaphore(0)


def release() -> None:
    """The work where a side has no futures: it counts itself as done."""
    free.release()


# Sides


def make_app(**config: t.Any) -> t.Any:
    """The app; worker processes make it too."""
    from flask import Flask

    app = Flask("bench")
    app.secret_key = "bench"
    app.config.update(EXECUTOR_MAX_WORKERS=WORKERS, EXECUTOR_APP="contenders:make_app")
    app.config.update(config)
    app.add_url_rule("/<int:number>", "view", nothing)
    return app


def make_executor(kind: str, **config: t.Any) -> t.Any:
    """An executor of whichever package there is on this side."""
    from flask_executor import Executor

    return Executor(make_app(EXECUTOR_TYPE=kind, **config))


def submitter(side: str, kind: str) -> Submit:
    """The submit function of a side, on threads or on processes."""
    if side in ("ours", "one", "before"):
        return t.cast(Submit, make_executor(kind).submit)
    if kind == "process":
        return ProcessPoolExecutor(WORKERS, get_context("forkserver")).submit
    pool = ThreadPoolExecutor(WORKERS)
    return by_hand(pool) if side == "hand" else pool.submit


def by_hand(pool: ThreadPoolExecutor) -> Submit:
    """What people write without an extension."""
    from flask import copy_current_request_context

    return lambda fn, *args: pool.submit(copy_current_request_context(fn), *args)


def in_request(submit: t.Any, measured: Round) -> Round:
    """Measure in a request of the app that the executor was made for."""
    app = _app_of(submit) or make_app()

    def in_context() -> float:
        with app.test_request_context("/1"):
            return measured()

    return in_context


def _app_of(submit: t.Any) -> t.Any:
    executor = getattr(submit, "__self__", submit)
    return getattr(executor, "_last_app", None) or getattr(executor, "app", None)


# Submitting


def windowed(submit: Submit, count: int, work: t.Any = nothing) -> float:
    """Seconds per call, with a window of outstanding ones."""
    pending: deque[Future[t.Any]] = deque()
    start = time.perf_counter()
    for _ in range(count):
        if len(pending) >= WINDOW:
            pending.popleft().result()
        pending.append(submit(work))
    while pending:
        pending.popleft().result()
    return (time.perf_counter() - start) / count


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
def pebble(side: str) -> Round:
    """Submit to result, on Pebble's processes."""
    if side == "ours":
        one: t.Any = make_executor("pebble").submit
    else:
        from pebble import ProcessPool

        one = ProcessPool(WORKERS, context=get_context("forkserver")).schedule
    return in_request(one, lambda: windowed(one, 1_000))


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
            futures, size = _weighed(lambda: one(nothing), 5_000)
        for future in futures:
            future.result()
        return size

    return in_request(one, measured)


def _weighed(make: Make, count: int) -> tuple[list[t.Any], float]:
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    made = [make() for _ in range(count)]
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return made, (after - before) / count


class held:
    """A block in which all workers are busy, so that what is submitted waits."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._gate = threading.Event()

    def __enter__(self) -> None:
        self._futures = [self._submit(self._gate.wait) for _ in range(WORKERS)]

    def __exit__(self, *exc: object) -> None:
        self._gate.set()
        for future in self._futures:
            future.result()


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
    app = _app_of(one) or make_app()
    return visits.Visits(app, one, make, read, task, size)


@measure
def durable(side: str) -> Round:
    """One durable submit, from one thread."""
    import stored

    return stored.submits(stored.side(side))


@measure
def durable_32(side: str) -> Round:
    """One durable submit, from 32 threads or from one."""
    import stored

    kind, _, who = side.partition("-")
    return stored.submits(stored.side(kind), 32 if who == "many" else 1)


@measure
def durable_read(side: str) -> Round:
    """One look at the state of a task by its key."""
    import stored

    return stored.reads(stored.side(side))


@measure
def ended(side: str) -> Round:
    """One durable task, from its submit to its end, among many of one process."""
    import stored

    return stored.ends(stored.side(side, runs=True))


@measure
def started(side: str) -> Round:
    """From the submit of a task until it begins in another process."""
    import stored

    return stored.starts(*side.split("-"))


@measure
def dashboard(side: str) -> Round:
    """The slowest page of a dashboard beside a million tasks."""
    import pages

    return pages.pages(side)


@measure
def first_visit(side: str) -> Round:
    """The bytes of a first visit to a dashboard."""
    import pages

    return pages.first_visit(side)


@measure
def beside_store(side: str) -> Round:
    """Submit to result of a task that is not saved, with a store or without."""
    import databases

    config = {"EXECUTOR_STORE": databases.url_of("sqlite")} if side == "store" else {}
    one = make_executor("thread", **config).submit
    return in_request(one, lambda: windowed(one, 5_000))


@measure
def surface(side: str) -> Round:
    """Submit to result with a surface in use; the other side may have an allowance.

    It is processor time: a microsecond is less than what the machine does beside it.
    Garbage collection leaves out what was imported.
    """
    import surfaces

    executor = make_executor("thread")
    surfaces.USES.get(side, bool)(executor)
    allowed = surfaces.ALLOWED.get(side, 0.0)
    gc.collect()
    gc.freeze()

    def measured() -> float:
        start = time.process_time()
        windowed(executor.submit, 5_000)
        return (time.process_time() - start) / 5_000 + allowed

    return in_request(executor.submit, measured)


@measure
def lookup(side: str) -> Round:
    """Whether a future is stored."""
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


# Options


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
            futures, size = _weighed(lambda: submit(nothing), 100_000)
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


# Peers of other kinds


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


@measure
def status(side: str) -> Round:
    """One answer of a gthread worker: the status of a task, or a bare view."""
    import served

    return served.answers(side)


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


def contend(name: str, side: str) -> None:
    """A line in, a round, its figure out."""
    measured = MEASURES[name](side)
    if name not in COLD:
        measured()
    print("ready", flush=True)
    for _ in sys.stdin:
        gc.collect()
        print(measured(), flush=True)


if __name__ == "__main__":
    contend(*sys.argv[1:])
