"""The writer: one thread per process that commits together what came meanwhile.

A commit that is synced takes as long for one write as for a hundred. So while one
transaction commits, others only collect what they want to write; the next transaction
writes all of it.

- *Items* of one kind are given to one function, a *batch*, which returns an outcome for
  each. Items of different kinds keep their order if they are about the same thing.
- If a batch raises, the transaction is repeated with a savepoint for each item, so that
  an item that fails fails alone.
- If the database is away, items fail with :exc:`.StoreUnavailable`, except those that
  must be written: they are kept, up to a limit, and tried again until it is back.
- While nobody writes, an item that its submitter waits for is written on the
  submitter's own thread. That saves two switches between threads. If more than one item
  came at a time, it does not happen: together they need fewer commits.
- An item whose future was cancelled before its transaction began is not written.
"""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
import typing as t
from collections import deque
from concurrent.futures import Future

from ...threads import start_thread
from ..errors import StoreUnavailable
from .batches import Item, one_by_one, together
from .database import Database
from .faults import kind_of, lost_connection, reason_of

_IDLE = 5.0
"""Seconds for which the thread stays alive with nothing to write."""
_MOST = 1000
"""How many items one transaction writes at most."""
_KEPT = 100_000
"""How many items may be queued."""
_TRIES = 20
"""How often a transaction is tried if others are in its way."""
_PAUSES = 0.05, 1.0
"""The shortest and the longest pause between attempts to reach the database."""


class Writer:
    """Writes items, in transactions of many.

    :param database: where to.
    :param name: the name of the thread.
    :param announce: called on the thread after each commit that others are told of.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        announce: t.Callable[[], object] = lambda: None,
    ) -> None:
        self._database = database
        self._name = name
        self._announce = announce
        self.away: StoreUnavailable | None = None
        """Why the database was away when it was last tried; None: it was there."""
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._queue: deque[Item] = deque()
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._last_count = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, item: Item) -> Future[t.Any]:
        """Queue an item; return the future of its outcome."""
        if self._pid != os.getpid():
            # The thread, the lock and what was queued are the parent's.
            self._start_afresh()
        if item.awaited and self._write_here(item):
            return item.future
        with self._changed:
            if self._closed or len(self._queue) >= _KEPT:
                why = "it is closed" if self._closed else f"{_KEPT} writes are queued"
                refused = StoreUnavailable(self._database.shown, why)
                item.future.set_exception(refused)
                return item.future
            self._queue.append(item)
            has_thread = self._wake()
        if not has_thread:
            self._write_some()
        return item.future

    @property
    def is_open(self) -> bool:
        """True if items are accepted."""
        return not self._closed and len(self._queue) < _KEPT

    def close(self, timeout: float | None = None) -> bool:
        """Write what is queued, and end the thread; False if that took too long.

        What could not be written by then fails with :exc:`.StoreUnavailable`.
        """
        if self._pid != os.getpid():
            return True
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            left = [*self._queue]
            self._queue.clear()
        for item in left:
            _fail(item, StoreUnavailable(self._database.shown, "it is closed"))
        return thread is None or not thread.is_alive()

    def _wake(self) -> bool:
        """Let the thread write; return False if there is none, and none can start."""
        if self._thread is None:
            try:
                self._thread = start_thread(self._run, name=self._name, daemon=True)
            except RuntimeError:  # the interpreter ends, or there are too many
                return False
        self._changed.notify()
        return True

    def _run(self) -> None:
        pause = _PAUSES[0]
        while self._wait_for_items():
            if self._write_guarded():
                pause = _PAUSES[0]
                continue
            with self._changed:
                if self._closed:
                    self._thread = None
                    return
                self._changed.wait(pause)
            pause = min(pause * 2, _PAUSES[1])

    def _wait_for_items(self) -> bool:
        """Return True when there is something to write, False to end the thread."""
        with self._changed:
            if not self._queue and not self._closed:
                self._changed.wait(_IDLE)
            if self._queue:
                return True
            # Under the lock: the next item starts a thread.
            self._thread = None
            return False

    def _write_guarded(self) -> bool:
        try:
            return self._write_some()
        except Exception:  # a fault of ours must not end the thread
            traceback.print_exc()
            return False

    def _write_here(self, item: Item) -> bool:
        """Write an item on this thread; return False if others write or have queued."""
        if self._closed or self._queue or self._last_count > 1:
            return False
        if not self._writing.acquire(blocking=False):
            return False
        try:
            # Another process may have its turn for long, if it was stopped.
            with self._database.turn(wait=False) as has_turn:
                if not has_turn:
                    return False
                item.future.set_running_or_notify_cancel()
                outcomes = self._write([item])
        finally:
            self._writing.release()
        self._conclude([item], outcomes)
        return True

    def _write_some(self) -> bool:
        """Write what is queued; return False if the database is away."""
        # While others have their turn, more comes.
        with self._writing, self._database.turn():
            items = self._take()
            if not items:
                return True
            self._last_count = len(items)
            outcomes = self._write(items)
        return self._conclude(items, outcomes)

    def _conclude(
        self, items: t.Sequence[Item], outcomes: list[t.Any] | StoreUnavailable
    ) -> bool:
        """End the futures; return False if the database is away."""
        if not isinstance(outcomes, StoreUnavailable):
            self.away = None
            _deliver(items, outcomes)
            if any(item.announced for item in items):
                self._tell()
            return True
        self.away = outcomes
        kept = [item for item in items if item.must]
        with self._changed:
            self._queue.extendleft(reversed(kept))
        for item in items:
            if not item.must:
                _fail(item, outcomes)
        return False

    def _tell(self) -> None:
        try:
            self._announce()
        except Exception:  # it is committed; others find it a little later
            traceback.print_exc()

    def _take(self) -> list[Item]:
        taken: list[Item] = []
        with self._changed:
            while self._queue and len(taken) < _MOST:
                item = self._queue.popleft()
                # What is written again after the database was away runs already.
                if item.future.running() or item.future.set_running_or_notify_cancel():
                    taken.append(item)
        return taken

    def _write(self, items: t.Sequence[Item]) -> list[t.Any] | StoreUnavailable:
        """Write items in one transaction; return an outcome for each, or an error."""
        perform: t.Any = together
        for number in range(_TRIES):
            try:
                synced = any(item.synced for item in items)
                with self._database.transaction(synced=synced, has_turn=True) as db:
                    outcomes = perform(db, items)
                return t.cast("list[t.Any]", outcomes)
            except Exception as error:
                kind = kind_of(error)
                if kind == "collision":
                    time.sleep(random.uniform(0, 0.002 * number))
                elif kind == "away":
                    # Connections in the pool are dead after a restart of the database.
                    if number or not lost_connection(error):
                        return self._away(reason_of(error))
                elif perform is one_by_one:
                    return [error] * len(items)
                else:
                    perform = one_by_one
        return self._away("other transactions were in the way")

    def _away(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(self._database.shown, reason)


def _deliver(items: t.Sequence[Item], outcomes: t.Sequence[t.Any]) -> None:
    for item, outcome in zip(items, outcomes, strict=True):
        if isinstance(outcome, Exception):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)


def _fail(item: Item, error: StoreUnavailable) -> None:
    if item.future.running() or item.future.set_running_or_notify_cancel():
        item.future.set_exception(error)
