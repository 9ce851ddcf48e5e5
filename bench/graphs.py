"""Random graphs of tasks that wait for each other, in every way there is.

A graph is made of a seed. Each of its tasks waits for some of those with higher
numbers, so there is no circle: whatever the size of the pool and the limits of the
jobs, all must end. The tests run some for seconds, ``make soak`` for minutes:
``python -m bench.graphs MINUTES [SEED]``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import faulthandler
import logging
import random
import sys
import threading
import time
import typing as t
from concurrent.futures import CancelledError

from flask import Flask

from bench.ways import COROUTINE_WAYS, THREAD_WAYS, Disturbed, Future
from flask_executor import Executor, Retry, current_task
from flask_executor.errors import TaskTimeout

LIMIT = 180
"""Seconds after which a task that has not ended is lost."""
TIDY = ("live", "pending", "running", "late", "reserved")
"""What the table of tasks has, and is empty in the end."""


class Node(t.NamedTuple):
    """One task of a graph."""

    is_coroutine: bool
    job: int | None
    """The limited job that it belongs to, or None."""
    waits: tuple[tuple[str, tuple[int, ...]], ...]
    """How it waits, one after another, and for which tasks."""
    options: dict[str, t.Any]
    fails: int
    """How many of its attempts fail."""


class Section:
    """Counts who of a job runs at once, between two waits.

    :param limit: how many may.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.most = 0
        self._now: set[object] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        # Two threads of one task, or two coroutines, are one place.
        with self._lock:
            self._now.add(current_task.id)
            self.most = max(self.most, len(self._now))
        time.sleep(0)

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._now.discard(current_task.id)


class Graph:
    """A graph of tasks, and an executor of its own that runs them.

    :param seed: two graphs of one seed are alike.
    :param size: how many tasks there are at most.
    """

    def __init__(self, seed: int, size: int = 24) -> None:
        self.seed = seed
        self._chance = random.Random(seed)
        self._limits = [self._chance.randint(1, 2) for _ in range(4)]
        self.sections = [Section(limit) for limit in self._limits]
        size = self._chance.randint(2, size)
        self.nodes = [self._node(n, size) for n in range(size)]
        self.app = Flask(f"graph_{seed}")
        self.app.logger.disabled = True
        self.app.config["EXECUTOR_MAX_WORKERS"] = self._chance.randint(1, 2)
        self.executor = Executor(self.app)
        self._jobs = [self._job(n) for n in range(4)]
        self._lock = threading.RLock()
        self._futures: dict[int, Future] = {}

    # Making it

    def _node(self, number: int, size: int) -> Node:
        chance, later = self._chance, range(number + 1, size)
        is_coroutine = chance.random() < 0.4
        ways = COROUTINE_WAYS if is_coroutine else THREAD_WAYS
        waits = []
        for _ in range(chance.choice((0, 1, 1, 2, 3)) if later else 0):
            whom = chance.sample(later, min(len(later), chance.randint(1, 3)))
            waits.append((chance.choice(sorted(ways)), tuple(whom)))
        # Odd jobs are coroutine functions.
        job = chance.choice((None, 0, 2)) if chance.random() < 0.8 else None
        if job is not None and is_coroutine:
            job += 1
        options, fails = self._options()
        return Node(is_coroutine, job, tuple(waits), options, fails)

    def _options(self) -> tuple[dict[str, t.Any], int]:
        chance, fails = self._chance, 0
        options: dict[str, t.Any] = {}
        if chance.random() < 0.2:
            fails = chance.randint(1, 3)
            pause = chance.choice((0, 0.001))
            options["retry"] = Retry(attempts=3, delay=pause, on=(Disturbed,))
        if chance.random() < 0.1:
            options["timeout"] = chance.choice((0.001, 0.01, 10))
        if chance.random() < 0.1:
            options["delay"] = 0.001
        if chance.random() < 0.2:
            options["priority"] = chance.randint(-1, 1)
        return options, fails

    def _job(self, number: int) -> t.Any:
        if number % 2:

            async def awaiting(node: int) -> int:
                return await self._run_awaiting(node)

            fn: t.Any = awaiting
        else:

            def blocking(node: int) -> int:
                return self._run_blocking(node)

            fn = blocking
        return self.executor.job(max_concurrency=self._limits[number])(fn)

    # Running it

    def future(self, number: int) -> Future:
        """Return the future of a task; who asks first submits it."""
        with self._lock:
            future = self._futures.get(number)
            if future is None:
                future = self._futures[number] = self._submit(number)
            return future

    def _submit(self, number: int) -> Future:
        node = self.nodes[number]
        if node.job is not None:
            return t.cast(
                Future, self._jobs[node.job].using(**node.options).submit(number)
            )
        fn = self._run_awaiting if node.is_coroutine else self._run_blocking
        return t.cast(Future, self.executor.using(**node.options).submit(fn, number))

    def _members(self, numbers: t.Iterable[int]) -> list[Future]:
        return [self.future(number) for number in numbers]

    def _section(self, node: Node) -> contextlib.AbstractContextManager[None]:
        if node.job is None:
            return contextlib.nullcontext()
        return self.sections[node.job]

    def _run_blocking(self, number: int) -> int:
        node = self.nodes[number]
        with self._section(node):
            current_task.progress(number, len(self.nodes))
        for way, numbers in node.waits:
            with tolerant():
                THREAD_WAYS[way](self.executor, self._members(numbers))
            with self._section(node):
                current_task.raise_if_cancelled()
        return self._done(node, number)

    async def _run_awaiting(self, number: int) -> int:
        node = self.nodes[number]
        with self._section(node):
            await asyncio.sleep(0)
        for way, numbers in node.waits:
            with tolerant():
                await COROUTINE_WAYS[way](self.executor, self._members(numbers))
            current_task.raise_if_cancelled()
            with self._section(node):
                await asyncio.sleep(0)
                current_task.raise_if_cancelled()
        return self._done(node, number)

    def _done(self, node: Node, number: int) -> int:
        if current_task.attempt <= node.fails:
            raise Disturbed(number)
        return number

    def run(self, limit: float) -> list[str]:
        """Run all of it, and disturb it; return what is wrong.

        :param limit: seconds after which what has not ended is lost.
        """
        order = [*range(len(self.nodes))]
        self._chance.shuffle(order)
        for number in order:
            future = self.future(number)
            if self._chance.random() < 0.1:
                one = self._futures[self._chance.choice(sorted(self._futures))]
                one.request_cancel()
            elif self._chance.random() < 0.1:
                future.cancel()
        _, left = concurrent.futures.wait(self._futures.values(), limit)
        if left:
            return [f"seed {self.seed}: not ended: {sorted(map(repr, left))}"]
        return [*self._wrong(), *self._close()]

    def _wrong(self) -> t.Iterator[str]:
        for number, future in self._futures.items():
            error = None if future.cancelled() else future.exception()
            if not isinstance(error, Disturbed | TaskTimeout | CancelledError | None):
                yield f"seed {self.seed}: {future!r} has failed: {error!r}"
            elif error is None and not future.cancelled() and future.result() != number:
                yield f"seed {self.seed}: {future!r} has returned {future.result()!r}"
        for section in self.sections:
            if section.most > section.limit:
                yield f"seed {self.seed}: {section.most} at once, limit {section.limit}"

    def _close(self) -> t.Iterator[str]:
        dispatcher = self.executor._state().dispatcher
        self.executor.shutdown()
        for name in TIDY:
            if left := getattr(dispatcher.table, name):
                yield f"seed {self.seed}: left in table.{name}: {left}"
        for future in self._futures.values():
            if future.task is not None and future.task.state not in ENDS:
                yield f"seed {self.seed}: {future!r} has ended"


ENDS = ("succeeded", "failed", "timed_out", "cancelled")


@contextlib.contextmanager
def tolerant() -> t.Iterator[None]:
    """Go on if what was waited for has failed, or takes too long.

    Where the task itself was asked to stop, it stops.
    """
    try:
        yield
    except* (Disturbed, TimeoutError):
        pass
    except* (CancelledError, asyncio.CancelledError):
        current_task.raise_if_cancelled()


def main(minutes: float, seed: int = 1) -> int:
    """Run graphs for so long; return 1 if anything was wrong."""
    faulthandler.enable()
    logging.getLogger("asyncio").disabled = True  # results that nobody asks for
    sys.setswitchinterval(1e-6)
    end, number, wrong = time.monotonic() + 60 * minutes, seed, 0
    while time.monotonic() < end:
        faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
        for message in Graph(number).run(LIMIT):
            print(f"WRONG: {message}", file=sys.stderr, flush=True)
            wrong += 1
        number += 1
    faulthandler.cancel_dump_traceback_later()
    print(f"{number - seed} graphs from seed {seed}, {wrong} wrong", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    minutes, *seed = sys.argv[1:]
    sys.exit(main(float(minutes), *map(int, seed)))
