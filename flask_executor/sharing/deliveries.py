"""Threads that end futures, and run the callbacks of the app that come with it."""

from __future__ import annotations

import threading
import traceback
import typing as t
from collections import deque

from ..threads import start_thread

_IDLE = 5.0
"""Seconds for which a thread stays alive with nothing to do."""


class Deliveries:
    """Calls functions that may take long, each on a thread that does nothing else.

    :param name: the first part of the names of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._calls: deque[tuple[t.Callable[..., object], tuple[t.Any, ...]]] = deque()
        self._idle = 0
        self._at_work = 0
        self._closed = False

    def run(self, fn: t.Callable[..., object], *args: t.Any) -> None:
        """Call a function soon; if no thread can be started, it runs here."""
        with self._changed:
            self._calls.append((fn, args))
            if self._idle >= len(self._calls):
                self._changed.notify()
                return
        try:
            start_thread(self._work, name=self._name, daemon=True)
        except RuntimeError:  # there are no more threads, or the interpreter ends
            self._run_next()

    def close(self, timeout: float = 0.0) -> None:
        """Let no thread stay alive with nothing to do.

        :param timeout: seconds to wait for what is on its way.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._calls or self._at_work), timeout)

    def _work(self) -> None:
        while self._run_next():
            with self._changed:
                self._idle += 1
                if not self._calls and not self._closed:
                    self._changed.wait(_IDLE)
                self._idle -= 1

    def _run_next(self) -> bool:
        with self._changed:
            if not self._calls:
                return False
            fn, args = self._calls.popleft()
            self._at_work += 1
        try:
            fn(*args)
        except BaseException:  # no code of the app is to blame
            traceback.print_exc()
        with self._changed:
            self._at_work -= 1
            if self._closed:
                self._changed.notify_all()
        return True
