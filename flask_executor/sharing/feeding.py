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
        self._thread: threading.Thread | None = None
        self._watches = False
        self._stop_watching: t.Callable[[], object] = bool
        self._said: str | None = None
        self._ended = False
        self._due: dict[str, float] = {}

    def start(self) -> None:
        """Start the thread, once."""
        with self._lock:
            if self._thread is None and not self._ended:
                name = f"{self._name}_feed"
                self._thread = start_thread(self._run, name=name, daemon=True)

    def wake(self) -> None:
        """Look at once: something has changed, or there is room."""
        self._changed.set()

    def stop(self, timeout: float) -> None:
        """Take no more, and wait for a claim that is on its way."""
        self._ended = True
        self._changed.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while not self._ended:
            self._changed.wait(_PROMOTE)
            self._changed.clear()
            try:
                self._look()
                self._said = None
            except StoreUnavailable as error:
                self._say(logging.WARNING, error)
            except Exception as error:
                self._say(logging.ERROR, error)
        self._stop_watching()

    def _look(self) -> None:
        if not self._watches:
            wake = weakref.WeakMethod(self.wake)
            self._stop_watching = self._node.store.watch(lambda: _call(wake))
            self._watches = True
        if self._node.runs:
            self._node.presence.join()  # which takes up what the dead left, too
        self._node.committing.settle()
        self._node.following.update_all()
        self._feed()
        self._tidy()

    def _say(self, level: int, error: Exception) -> None:
        """Log a problem once, and wait a moment: it may pass."""
        if self._said != str(error) and not self._ended:
            message = "The executor looks for tasks again and again, because: %s"
            fault = error if level == logging.ERROR else None
            self._node.log.write(level, message, error, error=fault)
        self._said = str(error)
        time.sleep(0.0 if self._ended else _PROMOTE)

    def _feed(self) -> None:
        node = self._node
        if self._is_due("promote", _PROMOTE):
            node.store.promote()
            node.note_pauses()
        node.stop_what_was_asked()
        if not node.runs or node.dispatcher.table.closed:
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
        if not node.ticks.is_ready or self._is_due("ticks", _PROMOTE):
            node.ticks.update()
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
