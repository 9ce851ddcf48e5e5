"""What this process takes from the store: tasks to run, and news of those elsewhere."""

from __future__ import annotations

import logging
import threading
import time
import typing as t
import weakref

from ..stores.errors import StoreUnavailable
from ..threads import start_thread

_PROMOTE = 0.5
"""Seconds between two looks for tasks that have become due."""
_PRUNE = 60.0
"""Seconds between two removals of what has ended long ago."""
_FLUSH = 5.0
"""Seconds between two writes of the statistics."""
_MOST = 100
"""How many tasks are claimed at once for a pool without a limit."""


class Feeding:
    """A thread that claims tasks if this process runs them, and updates futures.

    :param node: knows what there is room for, and what to do with a claimed task.
    :param name: for the thread.
    """

    def __init__(self, node: t.Any, name: str) -> None:
        self._node = node
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._started = False
        self._ended = False
        self._due: dict[str, float] = {}

    def start(self) -> None:
        """Start the thread, once.

        :raises StoreUnavailable: if the database is away.
        """
        with self._lock:
            if not self._started:
                wake = weakref.WeakMethod(self.wake)
                self._stop_watching = self._node.store.watch(lambda: _call(wake))
                self._started = True
                start_thread(self._run, name=f"{self._name}_feed", daemon=True)

    def wake(self) -> None:
        """Look at once: something has changed, or there is room."""
        self._changed.set()

    def stop(self) -> None:
        """Take no more."""
        self._ended = True
        self._changed.set()

    def _run(self) -> None:
        while not self._ended:
            self._changed.wait(_PROMOTE)
            self._changed.clear()
            try:
                self._node.committing.settle()
                self._node.following.update_all()
                self._feed()
                self._tidy()
            except StoreUnavailable:
                time.sleep(_PROMOTE)  # the lease says that it is away
            except Exception as error:
                message = "A fault in the executor, which goes on"
                self._node.log.write(logging.ERROR, message, error=error)
        self._stop_watching()

    def _feed(self) -> None:
        node = self._node
        if self._is_due("promote", _PROMOTE):
            node.store.promote()
        node.stop_what_was_asked()
        if node.is_leaving or not (node.runs or node.runs_own()):
            return
        room = node.room()
        if room <= 0 or not node.store.tasks(state="waiting", limit=1):
            return
        me = node.presence.join()
        limit = min(room, _MOST)
        claimed = node.store.wait(node.store.claim(me, node.names.known(), limit))
        for one in claimed:
            node.accept_claimed(one)
        if len(claimed) == limit:
            self._changed.set()

    def _tidy(self) -> None:
        node = self._node
        if self._is_due("flush", _FLUSH):
            node.store.flush()
        if node.runs and self._is_due("prune", _PRUNE):
            while not self._ended and node.store.prune(node.settings.keep_times):
                pass

    def _is_due(self, what: str, interval: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + interval
        return True


def _call(method: t.Any) -> None:
    if (bound := method()) is not None:
        bound()
