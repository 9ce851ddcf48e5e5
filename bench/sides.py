"""The apps and executors of each side, and how calls are submitted to them."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
import typing as t
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

WORKERS = 2


WINDOW = 500


Submit = t.Callable[..., "Future[t.Any]"]


Make = t.Callable[[], t.Any]


Round = t.Callable[[], float]


MEASURES: dict[str, t.Callable[[str], Round]] = {}


def measure(make: t.Callable[[str], Round]) -> t.Callable[[str], Round]:
    """Enter a measure under its name: given a side, it makes the rounds of it."""
    MEASURES[make.__name__] = make
    return make


def nothing(*args: object) -> None:
    """The work."""


def make_app(**config: t.Any) -> t.Any:
    """The app; worker processes make it too."""
    from flask import Flask

    app = Flask("bench")
    app.secret_key = "bench"
    app.config.update(EXECUTOR_MAX_WORKERS=WORKERS, EXECUTOR_APP="sides:make_app")
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
    app = app_of(submit) or make_app()

    def in_context() -> float:
        with app.test_request_context("/1"):
            return measured()

    return in_context


def app_of(submit: t.Any) -> t.Any:
    executor = getattr(submit, "__self__", submit)
    return getattr(executor, "_last_app", None) or getattr(executor, "app", None)


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


def weighed(make: Make, count: int) -> tuple[list[t.Any], float]:
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
