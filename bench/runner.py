"""Submits the tasks of one lane, and sees each to its end."""

from __future__ import annotations

import itertools
import random
import threading
import time
import typing as t
from collections import deque
from concurrent.futures import Future
from queue import SimpleQueue

import chores
from chores import BLOCK
from flask import Flask
from lanes import FAMILY, Kind, Lane
from ledger import LIMIT, Ledger

from flask_executor import Executor

LEFT_IN_LINE = 200
"""How many tasks that are not due each pool has when it is drained."""


class Asker:
    """Asks tasks to stop, some milliseconds after their submit, from its own thread."""

    PAUSE = 0.005

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[float, Future[t.Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self, future: Future[t.Any]) -> None:
        """Ask a task to stop soon."""
        self._asked.put((time.monotonic() + self.PAUSE, future))

    def stop(self) -> None:
        """End the thread when all have been asked."""
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (entry := self._asked.get()) is not None:
            due, future = entry
            time.sleep(max(0.0, due - time.monotonic()))
            t.cast(t.Any, future).request_cancel()
            del entry, future


class Runner:
    """Submits the tasks of one pool, on a thread of its own, and sees each to its end.

    :param name: of its lane.
    :param executor: submits to the pool.
    """

    def __init__(
        self, name: str, lane: Lane, executor: Executor, ledger: Ledger, asker: Asker
    ) -> None:
        self._name = name
        self._lane = lane
        self._executor: t.Any = executor
        self._ledger = ledger
        self._asker = asker
        self._numbers = itertools.count()
        self._submits = {id(kind): self._submit_of(kind) for kind in lane.kinds}
        self._outstanding: deque[tuple[Kind, int, t.Any]] = deque()

    def _submit_of(self, kind: Kind) -> t.Callable[[int], t.Any]:
        chore, options = kind.chore, kind.options
        if chore is FAMILY:
            return lambda number: self._executor.submit(self._family, number)
        if kind.how == "job":
            job = self._executor.job(**options)(chore)
            if self._name in ("process", "pebble"):
                # As a decorator would: by this name it is sent away.
                setattr(chores, chore.__name__, job)
            return lambda number: job.submit(number)
        view = self._executor.using(**options)
        if kind.how == "stored":
            return lambda number: view.submit_stored(("soak", number), chore, number)
        return lambda number: view.submit(chore, number)

    def _family(self, number: int) -> int:
        """A task that waits for tasks of its own executor."""
        kind = self._lane.kinds[0]
        children = [self._submit(kind, number) for _ in range(3)]
        for child in children:
            self._ledger.judge(self._name, kind, number, child)
        return number

    def run(self, app: Flask, count: int, chance: random.Random) -> None:
        """Submit so many tasks, and see each to its end."""
        kinds, weights = self._lane.kinds, [kind.weight for kind in self._lane.kinds]
        plan = iter(chance.choices(kinds, weights, k=count))
        while block := list(itertools.islice(plan, BLOCK)):
            self._run_block(app, block)
        while self._outstanding:
            self._judge_oldest()

    def _run_block(self, app: Flask, block: list[Kind]) -> None:
        first = next(self._numbers) * BLOCK
        with app.test_request_context(f"/?block={first // BLOCK}"):
            for number, kind in enumerate(block, first):
                future = self._submit(kind, number)
                self._outstanding.append((kind, number, future))
                self._act(kind, future)
        while len(self._outstanding) > self._lane.window:
            self._judge_oldest()

    def _submit(self, kind: Kind, number: int) -> t.Any:
        self._ledger.count("future", self._name, "submitted")
        return self._submits[id(kind)](number)

    def _act(self, kind: Kind, future: t.Any) -> None:
        if kind.act == "ask":
            self._asker.ask(future)
        elif kind.act == "cancel" and future.cancel() != future.cancelled():
            self._ledger.note(f"{future.task!r} said otherwise when cancelled")

    def _judge_oldest(self) -> None:
        kind, number, future = self._outstanding.popleft()
        self._ledger.judge(self._name, kind, number, future)
        if kind.how == "stored":
            popped = self._executor.futures.pop(("soak", number))
            if popped is None or popped.task.id != future.task.id:
                self._ledger.note(f"{popped!r} was stored in place of {future!r}")

    def drain(self, app: Flask) -> None:
        """End with tasks in line that are not due."""
        kind = Kind(chores.echo, "cancelled", 1)
        view = self._executor.using(delay=3600)
        with app.app_context():
            if self._lane.kind == "sync":  # which passes delays over
                self._executor.shutdown()
                return
            futures = [view.submit(kind.chore, n) for n in range(LEFT_IN_LINE)]
            drained = self._executor.drain(LIMIT)
        pool = "thread" if self._name == "loop" else self._name
        for number, future in enumerate(futures):
            self._ledger.count("future", pool, "submitted")
            self._ledger.judge(pool, kind, number, future)
        if drained.running or len(drained.cancelled) != LEFT_IN_LINE:
            self._ledger.note(f"{self._name}: drained {drained}")
        self._executor.shutdown()
