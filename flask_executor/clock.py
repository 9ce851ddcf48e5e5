"""What time it is, and what is to happen when."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import traceback
import typing as t
from contextvars import Context

_IDLE = 10.0
"""Seconds for which a timer's thread stays with nothing to wait for."""


class Clock:
    """The time of this machine; :mod:`flask_executor.testing` has one moved by hand."""

    monotonic: t.Callable[[], float] = staticmethod(time.monotonic)
    """Seconds that only grow, for waits."""
    time: t.Callable[[], float] = staticmethod(time.time)
    """Seconds since the epoch, for people."""

    def drives(self, timer: Timer) -> bool:
        """Whether this clock calls :meth:`Timer.run_due` itself, from now on."""
        return False


class Alarm:
    """Something that is to happen once, unless it is called off."""

    __slots__ = ("argument", "fn")

    def __init__(self, fn: t.Callable[[t.Any], object], argument: t.Any) -> None:
        self.fn: t.Callable[[t.Any], object] | None = fn
        self.argument: t.Any = argument

    def take(self) -> tuple[t.Callable[[t.Any], object], t.Any] | None:
        """What is to be called, and with what; None where it was taken before."""
        if self.fn is None:
            return None
        taken = self.fn, self.argument
        self.fn, self.argument = None, None
        return taken


class Timer:
    """Calls functions when they are due, one after another, from one thread.

    The thread starts with the first alarm, and ends when there has been none for some
    seconds, or after :meth:`close`.

    :param clock: tells the time.
    :param name: the name of the thread.
    """

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self._name = name
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._called_off = 0
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._driven = clock.drives(self)
        self._closed = False

    @property
    def is_own_thread(self) -> bool:
        """Whether this is the timer's own thread."""
        return threading.current_thread() is self._thread

    def at(self, due: float, fn: t.Callable[[t.Any], object], argument: t.Any) -> Alarm:
        """Call ``fn(argument)`` once the clock's monotonic time has reached ``due``."""
        alarm = Alarm(fn, argument)
        with self._changed:
            heapq.heappush(self._heap, (due, next(self._numbers), alarm))
            if self._thread is None and not self._driven:
                self._start_thread()
            elif self._heap[0][2] is alarm:
                self._changed.notify()
        return alarm

    def call_off(self, alarm: Alarm) -> None:
        """Have an alarm not happen; nothing refers to its argument any more."""
        with self._changed:
            if alarm.take() is None:  # it happens already
                return
            # As asyncio does with its handles: what is called off is left where it
            # lies until it is the greater part.
            self._called_off += 1
            if self._called_off > 100 and self._called_off > len(self._heap) / 2:
                self._heap = [entry for entry in self._heap if entry[2].fn is not None]
                heapq.heapify(self._heap)
                self._called_off = 0

    def next_due(self) -> float | None:
        """When the next alarm is due; None where there is none."""
        with self._changed:
            return self._next_due()

    def run_due(self) -> None:
        """Call what is due by now, on this thread."""
        while (due := self._take_due()) is not None:
            fn, argument = due
            try:
                fn(argument)
            except BaseException:
                # One that fails must not keep the others from happening.
                traceback.print_exc()
            del due, fn, argument

    def close(self, *, wait: bool) -> None:
        """End the thread as soon as nothing is left to happen.

        :param wait: return only when it has ended; not on the thread itself.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _take_due(self) -> tuple[t.Callable[[t.Any], object], t.Any] | None:
        with self._changed:
            due = self._next_due()
            if due is None or due > self.clock.monotonic():
                return None
            return heapq.heappop(self._heap)[2].take()

    def _next_due(self) -> float | None:
        while self._heap and self._heap[0][2].fn is None:
            heapq.heappop(self._heap)
            self._called_off -= 1
        return self._heap[0][0] if self._heap else None

    def _start_thread(self) -> None:
        self._thread = threading.Thread(
            target=self._serve, name=self._name, daemon=True
        )
        Context().run(self._thread.start)  # with nobody's context

    def _serve(self) -> None:
        while self._wait():
            self.run_due()

    def _wait(self) -> bool:
        """Wait for the next alarm; False where this thread is to end."""
        with self._changed:
            while (due := self._next_due()) is not None:
                wait = due - self.clock.monotonic()
                if wait <= 0:
                    return True
                self._changed.wait(min(wait, threading.TIMEOUT_MAX))
            if not self._closed and self._changed.wait(_IDLE):
                return True  # there is something new
            if self._heap:
                return True
            self._thread = None
            return False
